package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is hayrick as a child process in a process group of its own, which
// works in dir. It is the test binary under another name (see TestMain).
func process(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "hayrick")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(link, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// workspace is a folder with the shipped jobs in it.
func workspace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "jobs"), os.DirFS("../../jobs")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// finished is what `run --json` says of a finished run, as far as two runs must agree.
type finished struct {
	Status     string `json:"status"`
	Items      int64  `json:"items"`
	OK         int64  `json:"ok"`
	Permanent  int64  `json:"permanent"`
	Exhausted  int64  `json:"exhausted"`
	Unfinished int64  `json:"unfinished"`
	Rows       int64  `json:"rows"`
	RowHash    string `json:"row_hash"`
}

// demoArgs run the demo with fewer accounts: about six seconds undisturbed.
var demoArgs = []string{
	"run", "jobs/backfill", "--profile", "demo", "--json", "-q",
	"--set", "handler.params.demo.accounts=300", "--set", "batch.items=20", "--set", "retry.backoff.initial=50ms",
}

// child is a started command.
type child struct {
	cmd       *exec.Cmd
	out, errs strings.Builder
	ended     chan error
}

func start(t *testing.T, dir string, args ...string) *child {
	t.Helper()
	return startWith(t, nil, dir, args...)
}

// startWith starts a command with more in its environment than this process has.
func startWith(t *testing.T, env []string, dir string, args ...string) *child {
	t.Helper()
	c := &child{cmd: process(t, dir, args...), ended: make(chan error, 1)}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.errs
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.ended <- c.cmd.Wait() }()
	return c
}

// kill ends the child's process group at once, as a power cut of one process does.
func (c *child) kill() {
	syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	<-c.ended
}

func (c *child) result(t *testing.T, err error) (r finished) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v: %v\n%s", c.cmd.Args, err, c.errs.String())
	}
	if err := json.Unmarshal([]byte(c.out.String()), &r); err != nil {
		t.Fatalf("%v: %s", err, c.out.String())
	}
	return r
}

func calm(t *testing.T) finished {
	t.Helper()
	c := start(t, workspace(t), demoArgs...)
	return c.result(t, <-c.ended)
}

// storm runs the demo again and again in dir, killing its process group at random
// moments, until a run is left to end. meddle is called after each kill.
func storm(t *testing.T, dir string, seed uint64, meddle func(kills int)) (r finished, kills int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	for ; kills < 300; kills++ {
		c := start(t, dir, demoArgs...)
		select {
		case err := <-c.ended:
			return c.result(t, err), kills
		case <-time.After(time.Duration(100+rng.IntN(1000)) * time.Millisecond):
			c.kill()
			meddle(kills)
		}
	}
	t.Fatalf("the run does not end between %d kills", kills)
	return r, kills
}

// proven has the finished run in dir audited, every row of it decoded again.
func proven(t *testing.T, dir string) {
	t.Helper()
	c := start(t, dir, "audit", "--deep", "@")
	if err := <-c.ended; err != nil {
		t.Errorf("audit: %v\n%s%s", err, c.out.String(), c.errs.String())
	}
}

// Killed at random moments until it ends, the demo has the rows of an undisturbed
// run; so it has when its state is deleted in between, and when two processes work
// on it at once and one of them is killed.
//
// 002-45
func TestKillsChangeNothing(t *testing.T) {
	t.Parallel()
	want := calm(t)
	if want.Status != "SUCCEEDED" || want.Rows == 0 || want.OK+want.Permanent != want.Items {
		t.Fatalf("the undisturbed run: %+v", want)
	}
	t.Run("kills", func(t *testing.T) {
		t.Parallel()
		dir := workspace(t)
		got, kills := storm(t, dir, 1, func(int) {})
		if got != want || kills < 3 {
			t.Errorf("after %d kills: %+v, want %+v", kills, got, want)
		}
		t.Logf("%d kills", kills)
		proven(t, dir)
	})
	t.Run("kills and state deleted", func(t *testing.T) {
		t.Parallel()
		dir := workspace(t)
		got, kills := storm(t, dir, 2, func(n int) {
			if n%2 == 0 {
				os.Remove(filepath.Join(dir, ".hayrick", "state.db"))
			}
		})
		if got != want || kills < 3 {
			t.Errorf("after %d kills: %+v, want %+v", kills, got, want)
		}
		t.Logf("%d kills", kills)
		proven(t, dir)
	})
	t.Run("two at once", func(t *testing.T) {
		t.Parallel()
		dir := workspace(t)
		other := start(t, dir, demoArgs...)
		one := start(t, dir, demoArgs...)
		time.Sleep(1500 * time.Millisecond) // somewhere in the middle; any moment must do
		one.kill()
		os.Remove(filepath.Join(dir, ".hayrick", "state.db"))
		if got := other.result(t, <-other.ended); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		proven(t, dir)
	})
}
