package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// verify looks at what a round has left.
func (m *stormMaster) verify(calm finished) error {
	return errors.Join(m.audit(), m.sameRows(calm), m.leftNothing(), m.countTwice(), noChildren())
}

func (m *stormMaster) command(args ...string) *exec.Cmd {
	cmd := exec.Command(m.bin, args...)
	cmd.Dir = m.dir
	return cmd
}

// audit proves the run, before anybody mends what was published.
func (m *stormMaster) audit() error {
	out, err := m.command("audit", "--deep", "--json", m.jobID).Output()
	var rep struct {
		Proven bool
		Line   string
		Counts map[string]int
	}
	if err := errors.Join(err, json.Unmarshal(out, &rep)); err != nil || !rep.Proven || rep.Counts["stranger"] > 0 || rep.Counts["broken"] > 0 {
		return fmt.Errorf("audit: %v\n%s", err, out)
	}
	m.tally.Views += rep.Counts["view"]
	m.say("audit: %s", rep.Line)
	return nil
}

// sameRows compares how the run has ended, for all who saw it end and for who asks now,
// with an undisturbed one.
func (m *stormMaster) sameRows(calm finished) error {
	if calm.Status != "SUCCEEDED" || calm.Rows == 0 || calm.OK+calm.Permanent != calm.Items {
		return fmt.Errorf("the undisturbed run: %+v", calm)
	}
	out, err := m.command(slices.Concat([]string{"run", "jobs/backfill", "--json", "-q", "--job-id", m.jobID}, stormArgs, m.shape)...).Output()
	var last finished
	if err := errors.Join(err, json.Unmarshal(out, &last)); err != nil {
		return fmt.Errorf("run after the end: %w\n%s", err, out)
	}
	for _, r := range append(m.results, last) {
		if r != calm {
			err = errors.Join(err, fmt.Errorf("the run ended as %+v, undisturbed as %+v", r, calm))
		}
	}
	for _, k := range surely {
		if m.byKind[k] == 0 {
			err = errors.Join(err, fmt.Errorf("no %s was seen", k))
		}
	}
	return err
}

// leftNothing says that the store is tidy: who opened it last cleared away what the dead
// had left.
func (m *stormMaster) leftNothing() error {
	for _, sub := range []string{"tmp", "procs"} {
		left, err := os.ReadDir(filepath.Join(m.dir, ".hayrick", sub))
		if err != nil || len(left) > 0 {
			return fmt.Errorf("%s holds %v, %v", sub, left, err)
		}
	}
	if kept, err := filepath.Glob(filepath.Join(m.dir, ".hayrick", "state.db.corrupt-*")); err != nil || len(kept) > 0 {
		return fmt.Errorf("a database was damaged: %q, %v", kept, err)
	}
	return nil
}

// countTwice counts the tasks of which more than one attempt has stored rows.
func (m *stormMaster) countTwice() error {
	rows, err := filepath.Glob(filepath.Join(m.dir, ".hayrick/jobs", m.jobID, "tasks/*/*.parquet"))
	first := map[string]string{} // attempt by task; <task>_<attempt>_<hash>.parquet
	twice := map[string]bool{}
	for _, f := range rows {
		task, rest, _ := strings.Cut(filepath.Base(f), "_")
		attempt, _, _ := strings.Cut(rest, "_")
		if first[task] == "" {
			first[task] = attempt
		}
		twice[task] = twice[task] || first[task] != attempt
	}
	for _, t := range twice {
		if t {
			m.tally.Twice++
		}
	}
	return err
}

// noChildren says that nobody is left whom this process, or anybody it started, has
// started: what orphans there were have become its own children.
func noChildren() error {
	for range 200 {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("look for processes that are left: %w", err)
		case pid == 0:
			time.Sleep(10 * time.Millisecond)
		}
	}
	return errors.New("a process is left over")
}
