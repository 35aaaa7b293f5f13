package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nobody is who runs commands that are to be refused something: the system refuses
// nothing to root.
const nobody = 65534

// ordinary lets a process of this test be somebody to whom permissions apply, whose
// folder dir is.
func ordinary(t *testing.T, dir string) func(args ...string) (code int, out, errs string) {
	t.Helper()
	root := os.Geteuid() == 0
	if root {
		for _, err := range []error{os.Chmod(filepath.Dir(dir), 0o755), os.Chown(dir, nobody, nobody)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return func(args ...string) (int, string, string) {
		t.Helper()
		c := &child{cmd: process(t, dir, args...)}
		c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.errs
		if root {
			c.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
			c.cmd.Path = "/proc/self/exe" // go test keeps the binary where nobody else comes
			c.cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
		}
		err := c.cmd.Run()
		return codeOf(err), c.out.String(), c.errs.String()
	}
}

// What one run needs and this process may not use is the trouble of that run alone: it is
// named once, with what to do, and the others go on to their ends. Allowed, it goes on.
// Where the store as a whole refuses, the worker ends.
func TestWorkerLeavesARunThatIsDenied(t *testing.T) {
	dir := t.TempDir()
	hayrick := ordinary(t, dir)
	chmod := func(mode os.FileMode, names ...string) {
		t.Helper()
		for _, name := range names {
			if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	runs := []string{"a-input", "b-good", "c-output", "d-objects", "e-good"}
	for _, id := range runs {
		for name, text := range map[string]string{
			id + ".jsonl": strings.Repeat("{\"id\":\"x\"}\n", 6),
			id + ".yaml":  fmt.Sprintf("version: 1\nname: %s\nhandler: {builtin: noop, params: {rows: 1}}\ninput: {uri: ./%s.jsonl}\nbatch: {items: 2}\noutput: {uri: ./out/%s/}\n", id, id, id),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 {
				if err := os.Chown(filepath.Join(dir, name), nobody, nobody); err != nil {
					t.Fatal(err)
				}
			}
		}
		if code, _, errs := hayrick("submit", id+".yaml", "--job-id", id); code != exitDone {
			t.Fatalf("submit %s: exit %d\n%s", id, code, errs)
		}
	}
	status := func(id, want string) {
		t.Helper()
		if _, out, errs := hayrick("status", id, "--json"); !strings.Contains(out, `"status":"`+want+`"`) {
			t.Errorf("%s is not %s: %s%s", id, want, out, errs)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "out", "c-output"), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		for _, name := range []string{"out", "out/c-output"} {
			if err := os.Chown(filepath.Join(dir, name), nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	chmod(0, "a-input.jsonl", ".hayrick/jobs/d-objects")
	chmod(0o555, "out/c-output")
	t.Cleanup(func() { chmod(0o755, "a-input.jsonl", ".hayrick/jobs/d-objects", "out/c-output") })

	code, _, errs := hayrick("worker")
	if code != exitPermission {
		t.Errorf("exit %d\n%s", code, errs)
	}
	left := map[string]string{"a-input": "a-input.jsonl cannot be read", "c-output": "out/c-output/ cannot be written", "d-objects": "d-objects/plan.json cannot be read"}
	if _, err := os.Stat(filepath.Join(dir, ".hayrick/jobs/a-input/input")); err == nil { // the file system has cloned it: it is the store's own
		delete(left, "a-input")
	}
	for id, says := range left {
		if n := strings.Count(errs, id+" is left alone: "); n != 1 || !strings.Contains(errs, says) {
			t.Errorf("%s is named %d times, without %q\n%s", id, n, says, errs)
		}
	}
	if n := strings.Count(errs, "make it "); n != len(left) || !strings.Contains(errs, fmt.Sprintf("left alone: %d runs that", len(left))+" this process may not go on with") || strings.Contains(errs, "tried again") {
		t.Errorf("%d next steps\n%s", n, errs)
	}
	status("b-good", "SUCCEEDED")
	status("e-good", "SUCCEEDED")
	if code, out, errs := hayrick("ls"); code != exitDone || !strings.Contains(out, "b-good") || strings.Contains(out, "d-objects") || !strings.Contains(errs, "d-objects") {
		t.Errorf("ls: exit %d\n%s%s", code, out, errs)
	}
	if code, _, errs := hayrick("worker", "--json"); code != exitPermission || !strings.Contains(errs, `"exit":5`) || !strings.Contains(errs, "c-output is left alone: ") || !strings.Contains(errs, `"hint":"make it `) {
		t.Errorf("as JSON: exit %d\n%s", code, errs)
	}
	// Nor does one keep `run` from ending another; its own end is that error.
	if code, _, errs := hayrick("run", "b-good.yaml", "--job-id", "f-good", "--set", "output.uri=./out/f/"); code != exitDone {
		t.Errorf("run beside them: exit %d\n%s", code, errs)
	}
	if code, _, errs := hayrick("resume", "c-output"); code != exitPermission || !strings.Contains(errs, "out/c-output/ cannot be written") || !strings.Contains(errs, "hint: make it writable") {
		t.Errorf("one alone: exit %d\n%s", code, errs)
	}

	chmod(0o755, "a-input.jsonl", ".hayrick/jobs/d-objects", "out/c-output")
	if code, _, errs := hayrick("worker"); code != exitDone {
		t.Errorf("allowed: exit %d\n%s", code, errs)
	}
	for _, id := range runs {
		status(id, "SUCCEEDED")
	}

	if code, _, errs := hayrick("submit", "b-good.yaml", "--job-id", "g-good", "--set", "output.uri=./out/g/"); code != exitDone {
		t.Fatalf("exit %d\n%s", code, errs)
	}
	chmod(0, ".hayrick/jobs")
	t.Cleanup(func() { chmod(0o755, ".hayrick/jobs") })
	if code, _, errs := hayrick("worker"); code != exitPermission || strings.Contains(errs, "left alone") || !strings.Contains(errs, "jobs") {
		t.Errorf("the store refuses: exit %d\n%s", code, errs)
	}
}
