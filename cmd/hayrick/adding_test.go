package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// blocks are the code blocks of a page in one language, in order.
func blocks(page, language string) []string {
	var out []string
	for _, rest := range strings.Split(page, "\n```"+language+"\n")[1:] {
		text, _, _ := strings.Cut(rest, "\n```")
		out = append(out, text+"\n")
	}
	return out
}

// docs/adding-a-job.md: its handler, registered as it says and run with its job
// file, ends as it says.
func TestAddingAJob(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/adding-a-job.md")
	if err != nil {
		t.Fatal(err)
	}
	code, files := blocks(string(b), "go"), blocks(string(b), "yaml")
	if len(code) != 3 || len(files) != 2 {
		t.Fatalf("%d blocks of Go, %d of YAML", len(code), len(files))
	}
	dir := t.TempDir()
	bin := buildWith(t, dir, code[0], code[1], code[2])

	var busy, broken atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/a", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	mux.HandleFunc("/empty", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 65<<10)) })
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) {
		if busy.Add(1) == 1 {
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	mux.HandleFunc("/flaky", func(w http.ResponseWriter, _ *http.Request) {
		if broken.Add(1) <= 3 { // both tries in the task, and one of the next group
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	server := httptest.NewServer(mux)
	defer server.Close()
	var items strings.Builder
	for _, path := range []string{"/a", "/empty", "/large", "/busy", "/flaky", "/broken", "/nothing"} {
		fmt.Fprintf(&items, "{\"url\": %q, \"site\": \"here\"}\n", server.URL+path)
	}
	put(t, filepath.Join(dir, "pages.jsonl"), items.String())
	put(t, filepath.Join(dir, "jobs/fetch/config.yaml"), files[0])

	ran := exec.Command(bin, "run", "jobs/fetch", "--json", "-q")
	ran.Dir = dir
	out, err := ran.Output()
	if err != nil {
		t.Fatalf("%v: %v", ran.Args, err)
	}
	var res result
	if err := json.Unmarshal(out, &res); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if res.OK != 4 || res.Permanent != 2 || res.Exhausted != 1 || res.Rows != 4 {
		t.Errorf("%d ok, %d permanent, %d exhausted, %d rows; want 4, 2, 1, 4", res.OK, res.Permanent, res.Exhausted, res.Rows)
	}
	ends := exec.Command(bin, "failures", "@", "--export", "-")
	ends.Dir = dir
	if out, err = ends.Output(); err != nil {
		t.Fatalf("%v: %v", ends.Args, err)
	}
	want := map[string]string{server.URL + "/large": "too_large permanent", server.URL + "/nothing": "gone permanent", server.URL + "/broken": "http_500 exhausted"}
	for line := range strings.Lines(string(out)) {
		var f failedItem
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		if f.Class+" "+f.State != want[f.Key] {
			t.Errorf("%s ends %s %s, want %q", f.Key, f.Class, f.State, want[f.Key])
		}
		delete(want, f.Key)
	}
	if len(want) > 0 {
		t.Errorf("not among the failures: %v", want)
	}
	if _, err := os.Stat(filepath.Join(dir, "out", res.JobID, "lists/gone_pages.jsonl")); err != nil {
		t.Error(err)
	}
}

// buildWith builds the command with one more handler: its code, its import and its
// line of the registry, laid over the tree without a file of it being touched.
func buildWith(t *testing.T, dir, code, imported, line string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	wire, err := os.ReadFile("wire.go")
	if err != nil {
		t.Fatal(err)
	}
	text := string(wire)
	for _, x := range []struct{ after, add string }{{"\t\"hayrick/jobs/backfill\"\n", imported}, {"var handlers = jobs.Registry{\n", line}} {
		if strings.Count(text, x.after) != 1 {
			t.Fatalf("wire.go has no %q to add to", x.after)
		}
		text = strings.Replace(text, x.after, x.after+x.add, 1)
	}
	put(t, filepath.Join(dir, "overlay/wire.go"), text)
	put(t, filepath.Join(dir, "overlay/fetch.go"), code)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(root, "cmd/hayrick/wire.go"): filepath.Join(dir, "overlay/wire.go"),
		filepath.Join(root, "jobs/fetch/fetch.go"): filepath.Join(dir, "overlay/fetch.go"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "overlay/overlay.json"), string(overlay))
	bin := filepath.Join(dir, "hayrick")
	cmd := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay/overlay.json"), "-o", bin, "./cmd/hayrick")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return bin
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
