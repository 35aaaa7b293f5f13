package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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

// proven has the finished run in dir audited, every row of it decoded again.
func proven(t *testing.T, dir string) {
	t.Helper()
	c := start(t, dir, "audit", "--deep", "@")
	if err := <-c.ended; err != nil {
		t.Errorf("audit: %v\n%s%s", err, c.out.String(), c.errs.String())
	}
}

// Several runs, workers and a watcher of one job, as processes of their own, are killed
// at random moments and right after they stored what matters, stopped for longer than
// their leases, and lose their queue and state; their disk is full, or read-only. The run
// that comes of it has the rows of an undisturbed one, audit proves it, and nobody is left.
//
// HAYRICK_STORM_SEED repeats what is done to whom. HAYRICK_STORM_KILLS is how many have to
// be killed (`make storm`), HAYRICK_STORM_BINARY the program; left out, it is this one.
//
// 002-45
func TestStorm(t *testing.T) {
	t.Parallel()
	least, seed := 40, uint64(time.Now().UnixNano())
	for name, at := range map[string]func(n uint64){
		"HAYRICK_STORM_KILLS": func(n uint64) { least = int(n) },
		"HAYRICK_STORM_SEED":  func(n uint64) { seed = n },
	} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			at(n)
		}
	}
	t.Logf("HAYRICK_STORM_SEED=%d", seed)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	links := t.TempDir()
	program := func(name, of string) string {
		link := filepath.Join(links, name)
		if err := os.Symlink(of, link); err != nil {
			t.Fatal(err)
		}
		return link
	}
	bin := program("hayrick", cmp.Or(os.Getenv("HAYRICK_STORM_BINARY"), self))
	master := program("storm", self)
	run := func(attr *syscall.SysProcAttr) (string, error) {
		var out strings.Builder
		cmd := exec.Command(master, bin, t.TempDir(), workspace(t), fmt.Sprint(seed), fmt.Sprint(least))
		cmd.Stdout, cmd.Stderr = &out, t.Output()
		if cmd.SysProcAttr = attr; attr != nil {
			cmd.Env = append(os.Environ(), ownMounts+"=1")
		} else {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		err := cmd.Run()
		return out.String(), err
	}
	out, err := run(mountNamespace())
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSPC) {
		out, err = run(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	var tally stormTally
	if err := json.Unmarshal([]byte(out), &tally); err != nil {
		t.Fatal(err, out)
	}
	t.Log(tally.lines())
	if tally.Kills < least {
		t.Errorf("%d kills, want %d", tally.Kills, least)
	}
	if tally.Rounds >= 5 { // a trap may spring when nobody lives, not every time
		for _, k := range surely {
			if tally.Traps[string(k)] == 0 {
				t.Errorf("nobody was killed when %s was there", k)
			}
		}
	}
}

// Merges that decode, on both levels and into partitions, are killed again and again,
// each time when they have stored something more; the dataset is that of a run that
// nobody disturbed. One that had ended when it was killed is followed by another.
func TestKilledMergesChangeNothing(t *testing.T) {
	t.Parallel()
	for name, output := range map[string][]string{
		"unique":              {"output.unique_by=[ordinal]"},
		"partitions":          {"output.partition_by=[row]"},
		"unique, partitioned": {"output.unique_by=[row]", "output.partition_by=[row]", "output.keep=last"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := "version: 1\nname: merged\nhandler: {builtin: noop, params: {items: 48, rows: 3}}\ninput: {items: true}\nbatch: {items: 2}\n" +
				"merge: {fan_in: 2, by_count: true, target_rows: 16}\noutput: {uri: ./out/$(run.id)/}\n"
			args := []string{"run", "job.yaml", "--json", "-q"}
			for _, s := range output {
				args = append(args, "--set", s)
			}
			folder := func() string {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "job.yaml"), []byte(job), 0o644); err != nil {
					t.Fatal(err)
				}
				return dir
			}
			one := start(t, folder(), args...)
			want := one.result(t, <-one.ended)
			if want.Status != "SUCCEEDED" || want.Items != 48 || want.Rows == 0 {
				t.Fatalf("the undisturbed run: %+v", want)
			}
			dir := folder()
			stored := func() int {
				found, err := filepath.Glob(filepath.Join(dir, ".hayrick", "jobs", "*", "tasks", "agg-*", "*"))
				if err != nil {
					t.Fatal(err)
				}
				return len(found)
			}
			kills, points := 0, map[int]bool{}
			for rng := rand.New(rand.NewPCG(3, 0)); ; {
				c := start(t, dir, args...)
				next := stored() + 1 + rng.IntN(16)
				var ended bool
				var err error
				for !ended && (stored() < next || kills == 12) {
					select {
					case err = <-c.ended:
						ended = true
					case <-time.After(time.Millisecond):
					}
				}
				if ended {
					if got := c.result(t, err); got != want {
						t.Errorf("after %d kills: %+v, want %+v", kills, got, want)
					}
					break
				}
				points[stored()] = true
				c.kill()
				kills++
			}
			if len(points) == 0 {
				t.Error("nothing was killed")
			}
			t.Logf("killed with %v files of merges stored", slices.Sorted(maps.Keys(points)))
			proven(t, dir)
		})
	}
}
