package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary the command itself when a script asks for it, so
// that scripts run, signal and kill real processes.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hayrick": func() { os.Exit(realMain()) }})
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
			"exits": exits, "signals": signals, "json": checkJSON, "lines": lines, "numbered": numbered,
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
// stderr has the words, it gets the first signal, and each further one when its next
// line comes; then it ends with the code.
func signals(ts *testscript.TestScript, _ bool, args []string) {
	names := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	want, err := strconv.Atoi(args[2])
	ts.Check(err)
	cmd := exec.Command("hayrick", args[4:]...)
	if path, err := exec.LookPath(filepath.Join(binDir(ts), "hayrick")); err == nil {
		cmd = exec.Command(path, args[4:]...)
	}
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"))
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

// binDir is where testscript put the commands.
func binDir(ts *testscript.TestScript) string {
	dir, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
	return dir
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
