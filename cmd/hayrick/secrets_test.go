package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Canaries: each stands for a secret of another kind, and is found by its first letters.
const (
	canary   = "canary-"
	canaryA  = canary + "passed-1f0c22aa41b7"                                      // in a variable that the job file passes
	canaryB  = "-----BEGIN KEY-----\n" + canary + "pem-9c0d6a77ab01\n-----END KEY" // in one of several lines
	canaryC  = canary + "aws-4be0d2c19a77"                                         // the worker's own
	canaryD  = canary + "unnamed-77ab01c2d3e4"                                     // anything else of its environment
	leakyJob = `version: 1
name: leaky
description: "a handler that says what it knows"
handler: {exec: [sh, handler.sh], items_in_flight: 1, pass_env: [API_TOKEN, API_KEY]}
input: {uri: ./items.jsonl, key: id}
batch: {items: 4}
run: {max_parallel: 1, lease: 3s}
retry: {passes: 1, backoff: {initial: 1ms, max: 1ms}, in_task: {attempts: 1}}
output: {uri: ./out/$(run.id)/}
`
	// It tells of its secrets in every way there is but in a row: in its log, in lines that
	// are no frames, in failures, with its last words. The row of ok is more than an attempt
	// keeps without a journal; held waits until it is let go.
	leakyHandler = `
echo "starting with $API_TOKEN and $API_KEY" >&2
env >&2
printf '{"t":"ready","proto":1,"name":"leaky"}\n'
while read -r line; do
  case $line in
  *'"t":"item"'*)
    id=${line#*'"id":'}; id=${id%%,*}
    key=${line#*'"key":"'}; key=${key%%'"'*}
    echo "GET /$key Authorization: Bearer $API_TOKEN" >&2
    case $key in
    ok) printf '{"t":"row","id":%s,"row":{"id":"%070000d"}}\n{"t":"ok","id":%s}\n' "$id" 0 "$id" ;;
    held) while [ ! -e "$LET_GO" ]; do sleep 0.05; done; printf '{"t":"ok","id":%s}\n' "$id" ;;
    err) printf '{"t":"err","id":%s,"class":"denied","msg":"401 for token=%s&x=1"}\n' "$id" "$API_TOKEN" ;;
    json) printf '{"t":"err","id":%s,"class":"denied","msg":"{\\"token\\":\\"%s\\"}","retry":false}\n' "$id" "$API_TOKEN" ;;
    stray) echo "debug: $API_TOKEN"; printf '{"t":"ok","id":%s}\n' "$id" ;;
    broken) printf '{"t":"ok","id":%s,"tok":"%s"\n' "$id" "$API_TOKEN" ;;
    unread) printf '{"t":"err","id":%s,"class":7,"msg":"%s"}\n' "$id" "$API_TOKEN" ;;
    crash) echo "Traceback: token=$API_TOKEN" >&2; exit 3 ;;
    killed) printf 'no newline behind %s' "$API_TOKEN" >&2; kill -9 $$ ;;
    esac ;;
  *'"t":"stop"'*) break ;;
  esac
done
printf '{"t":"bye"}\n'
`
	leakyItems = `{"id":"ok"}
{"id":"err"}
{"id":"stray"}
{"id":"held"}
{"id":"json"}
{"id":"broken"}
{"id":"unread"}
{"id":"crash"}
{"id":"killed"}
{"id":"ok"}
`
)

// What secrets there are in a worker's environment stays out of everything that a run
// leaves behind or shows, whatever its handler does with those that it was passed: every
// object, the state, journals and live logs of a process that was killed, the published
// dataset, and what every verb prints.
func TestSecretsStayOut(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{"jobs/leaky/config.yaml": leakyJob, "jobs/leaky/handler.sh": leakyHandler, "items.jsonl": leakyItems} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644))
	}
	letGo := filepath.Join(dir, "let-go")
	hayrick := func(args ...string) *exec.Cmd {
		cmd := process(t, dir, args...)
		cmd.Env = append(os.Environ(), "API_TOKEN="+canaryA, "API_KEY="+canaryB, "AWS_SECRET_ACCESS_KEY="+canaryC, "AWS_SESSION_TOKEN="+canaryC, "DATABASE_URL=postgres://u:"+canaryD+"@h/", "LET_GO="+letGo)
		return cmd
	}
	// LET_GO is not passed by the job file, and only what is passed arrives.
	must(t, os.WriteFile(filepath.Join(dir, "jobs/leaky/handler.sh"), []byte("LET_GO='"+letGo+"'\n"+leakyHandler), 0o644))
	looked := 0
	look := func(when string) {
		t.Helper()
		must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone meanwhile
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			looked++
			rel, _ := filepath.Rel(dir, path)
			if strings.HasSuffix(path, ".zst") {
				z, err := zstd.NewReader(bytes.NewReader(b))
				must(t, err)
				plain, err := io.ReadAll(z)
				must(t, err)
				z.Close()
				b = append(b, plain...)
			}
			if i := bytes.Index(b, []byte(canary)); i >= 0 {
				t.Errorf("%s: %s has %.200q", when, rel, b[max(0, i-60):])
			}
			return nil
		}))
	}
	said := func(when string, b []byte) {
		t.Helper()
		if i := bytes.Index(b, []byte(canary)); i >= 0 {
			t.Errorf("%s says %.200q", when, b[max(0, i-60):])
		}
	}

	// Killed with an item in hand, when its journal and its live log are there.
	first := hayrick("run", "jobs/leaky", "-vv")
	var told bytes.Buffer
	first.Stdout, first.Stderr = &told, &told
	must(t, first.Start())
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		journals, _ := filepath.Glob(filepath.Join(dir, ".hayrick/scratch/job/*/task/*/*.sqlite"))
		logs, _ := filepath.Glob(filepath.Join(dir, ".hayrick/scratch/job/*/task/*/*.log.jsonl"))
		if len(journals) > 0 && len(logs) > 0 {
			if b, err := os.ReadFile(logs[0]); err == nil && bytes.Contains(b, []byte("GET /held")) {
				break
			}
		}
		if time.Since(begin) > 2*time.Minute {
			first.Process.Kill()
			t.Fatalf("no journal and no live log: %s", told.Bytes())
		}
	}
	look("at work")
	must(t, syscall.Kill(-first.Process.Pid, syscall.SIGKILL))
	first.Wait()
	look("killed")
	said("the run that was killed", told.Bytes())

	must(t, os.WriteFile(letGo, nil, 0o644))
	again, err := hayrick("run", "jobs/leaky", "-vv").CombinedOutput()
	said("run", again)
	if got := codeOf(err); got != 0 && got != 3 || !bytes.Contains(again, []byte("10 items")) {
		t.Fatalf("run ends with %v: %s", err, again)
	}
	shown := 0
	for _, args := range [][]string{
		{"logs"}, {"logs", "--json"}, {"logs", "--raw"}, {"failures"}, {"failures", "--json"}, {"status", "--json"}, {"explain"}, {"inspect"}, {"inspect", "--json"},
		{"report", "-o", "report.html"}, {"audit"}, {"ls"}, {"check", "jobs/leaky"}, {"handler", "try", "jobs/leaky", "--item", "1"}, {"redrive", "@leaky", "--dry-run"},
	} {
		out, err := hayrick(args...).CombinedOutput()
		if args[0] == "handler" {
			continue // it shows what the handler says, to who has the secrets
		}
		if said(strings.Join(args, " "), out); codeOf(err) != 0 && codeOf(err) != 3 {
			t.Errorf("%v: %v: %s", args, err, out)
		}
		shown += bytes.Count(out, []byte("[$API_TOKEN]"))
	}
	look("at the end")
	// What is looked for was there: the handler did say it, in all its ways.
	if looked < 60 || shown < 10 {
		t.Errorf("%d files were looked into, and %d secrets were hidden", looked, shown)
	}
}
