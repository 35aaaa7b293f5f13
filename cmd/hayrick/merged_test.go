// The race detector keeps a shadow of every byte: what a process takes under it says
// nothing of the code.

//go:build linux && !race

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// 002-49, scaled: a merge streams. Of rows that are larger together than all that the
// process may take it holds a part, as the system counts it at its highest. So does the
// run before it, but for what the items in hand have emitted.
func TestMergingHoldsAPartOfTheRows(t *testing.T) {
	const items = 48 // of 4 MiB
	dir := t.TempDir()
	job := "version: 1\nname: tall\nhandler: {builtin: tall}\ninput: {uri: ./items.jsonl}\nbatch: {items: 2}\nmerge: {target_bytes: 8MiB, row_group_rows: 2000}\n"
	for name, text := range map[string]string{"items.jsonl": strings.Repeat("{}\n", items), "job.yaml": job} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	do := func(args ...string) *child {
		t.Helper()
		c := start(t, dir, append(args, "-q", "--memory", "128MiB")...)
		if err := <-c.ended; err != nil {
			t.Fatalf("%v: %v\n%s", args, err, c.errs.String())
		}
		return c
	}
	peak := func(c *child) int64 { return c.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10 }
	// Beside what --memory binds there is what the items in hand have emitted, of 8 tasks
	// at once, and as much again while it grows and goes into journals.
	most, limit := peak(do("run", "job.yaml")), int64(128<<20*115/100+2*8*2*4<<20)
	t.Logf("run: %d MiB", most>>20)
	if most > limit {
		t.Errorf("running items of 4 MiB, 16 at once, took %d MiB, with --memory 128MiB", most>>20)
	}
	c := do("merge", "@", "--json")
	if want := fmt.Sprintf(`"rows":%d,`, 1024*items); !strings.Contains(c.out.String(), want) {
		t.Errorf("%s, want %s", c.out.String(), want)
	}
	limit = items * 4 << 20 // the rows alone; a process that merges nothing takes a third of it
	most = peak(c)
	t.Logf("merge: %d MiB", most>>20)
	if most > limit {
		t.Errorf("merging %d MiB of rows took %d MiB, with --memory 128MiB", items*4, most>>20)
	}
}
