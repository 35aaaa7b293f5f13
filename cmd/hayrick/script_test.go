package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary the command itself when a script asks for it, so
// that scripts run, signal and kill real processes, and the function's bootstrap.
func TestMain(m *testing.M) {
	command := func() { os.Exit(realMain()) }
	handlers[countedName], handlers[stubbornName], handlers["tall"] = counted, newStubborn, newTall
	testscript.Main(m, map[string]func(){"hayrick": command, bootstrap: command, "storm": stormMain})
}

// The scripts are what a person types and gets. 002-50: one command runs a job from
// its file to the merged output.
func TestScripts(t *testing.T) {
	jobs, err := filepath.Abs("../../jobs")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("JOBS", jobs)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "signals": signals, "killed": killed, "json": checkJSON, "lines": lines, "numbered": numbered, "parquet": parquetFile,
		},
	})
}

// exits <code> <command>...: the command ends with this very code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	if got := codeOf(err); got != want {
		ts.Fatalf("%s exits %d, want %d (%v)", strings.Join(args[1:], " "), got, want, err)
	}
	if !documented(args[2:], want) {
		ts.Fatalf("%s exits %d, which the help of that verb does not say", strings.Join(args[1:], " "), want)
	}
}

// documented says that the help of the verb among args has the exit code.
func documented(args []string, code int) bool {
	env := environment{get: func(string) string { return "" }}
	for _, cmd := range newRoot(&cli{environment: env}).Commands() {
		if codes, ok := cmd.Annotations[exitsNote]; ok && slices.Contains(args, cmd.Name()) {
			return slices.Contains(strings.Fields(codes), strconv.Itoa(code))
		}
	}
	return true // no verb
}

func codeOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode() // -1 when a signal ended it
	}
	return -2
}

// signals <signal,...> <words> <code> <command>...: as soon as a line on the command's
// stderr has the words, it gets the first signal, and each further one with each
// further line; then it ends with the code.
func signals(ts *testscript.TestScript, _ bool, args []string) {
	names := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}
	want, err := strconv.Atoi(args[2])
	ts.Check(err)
	cmd := command(ts, args[3:])
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	waiting := strings.Split(args[0], ",")
	seen := false
	for in := bufio.NewScanner(stderr); in.Scan(); {
		fmt.Fprintln(ts.Stderr(), in.Text())
		seen = seen || strings.Contains(in.Text(), args[1])
		if seen && len(waiting) > 0 {
			ts.Check(cmd.Process.Signal(names[waiting[0]]))
			waiting = waiting[1:]
		}
	}
	if got := codeOf(cmd.Wait()); got != want || !seen {
		ts.Fatalf("%v exits %d, want %d; its stderr had %q: %v", args[3:], got, want, args[1], seen)
	}
}

// killed <n> <command>...: the command is killed as soon as n tasks of the store
// .hayrick have ended, and had not ended itself by then.
func killed(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	cmd := command(ts, args[1:])
	var stderr strings.Builder
	cmd.Stderr = &stderr
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for look := time.NewTicker(time.Millisecond); ; {
		select {
		case err := <-ended:
			ts.Fatalf("%v ended before %d tasks had: %v", args[1:], n, err)
		case <-look.C:
		}
		done, err := filepath.Glob(filepath.Join(cmd.Dir, ".hayrick/jobs/*/tasks/*/results.done"))
		ts.Check(err)
		if len(done) >= n {
			break
		}
	}
	ts.Check(cmd.Process.Kill())
	err = <-ended
	fmt.Fprint(ts.Stderr(), stderr.String())
	if got := codeOf(err); got != -1 {
		ts.Fatalf("%v exits %d, not by the kill", args[1:], got)
	}
}

// command is a process of its own, as exec would start it.
func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	bin, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator)) // where testscript put the commands
	path := filepath.Join(bin, args[0])
	if args[0] == "sh" {
		path = "/bin/sh"
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"), "PATH="+ts.Getenv("PATH"))
	return cmd
}

// json <path> <value>...: the value at a dotted path in the first JSON object of the
// last stdout, as JSON without the quotes of a string. With ! it is not there.
func checkJSON(ts *testscript.TestScript, neg bool, args []string) {
	var v any
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	dec.UseNumber()
	ts.Check(dec.Decode(&v))
	for step := range strings.SplitSeq(args[0], ".") {
		switch x := v.(type) {
		case map[string]any:
			got, ok := x[step]
			if !ok {
				if neg {
					return
				}
				ts.Fatalf("no %s in %v", step, x)
			}
			v = got
		case []any:
			i, err := strconv.Atoi(step)
			ts.Check(err)
			if i >= len(x) {
				ts.Fatalf("no [%d] in %v", i, x)
			}
			v = x[i]
		default:
			ts.Fatalf("no %s in %v", step, x)
		}
	}
	if neg {
		ts.Fatalf("%s is there: %v", args[0], v)
	}
	if len(args) == 1 {
		return
	}
	b, err := json.Marshal(v)
	ts.Check(err)
	got := strings.Trim(string(b), `"`)
	if want := strings.Join(args[1:], " "); got != want {
		ts.Fatalf("%s is %s, want %s", args[0], got, want)
	}
}

// lines <n> stdout|stderr: the last command wrote so many lines there.
func lines(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[1])
	if got := strings.Count(text, "\n"); strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s has %d lines, want %s:\n%s", args[1], got, args[0], text)
	}
}

// numbered <file> <n>: writes n items {"id":"i<k>"}.
func numbered(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"id\":\"i%d\"}\n", i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o644))
}

// parquet <file> <id>...: writes a Parquet file with a row for each id, null for -.
func parquetFile(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(writeParquet(f, args[1:]))
}

// writeParquet writes a row for each id, and its number; f is closed.
func writeParquet(f io.WriteCloser, ids []string) error {
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "n", Type: arrow.PrimitiveTypes.Int64}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	for i, id := range ids {
		if id == "-" {
			b.Field(0).AppendNull()
		} else {
			b.Field(0).(*array.StringBuilder).Append(id)
		}
		b.Field(1).(*array.Int64Builder).Append(int64(i))
	}
	w, err := pqarrow.NewFileWriter(schema, f, nil, pqarrow.DefaultWriterProps())
	if err != nil {
		return err
	}
	return errors.Join(w.Write(b.NewRecordBatch()), w.Close())
}
