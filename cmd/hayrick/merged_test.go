//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hayrick/jobs"
)

// tall is a handler whose items have 1,024 rows of 4 KiB each.
type tall struct{ text string }

func (h tall) Handle(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	for n := range int64(1024) {
		if err := emit(jobs.Row{{Name: "item", Value: it.Ordinal}, {Name: "n", Value: n}, {Name: "text", Value: h.text[n:]}}); err != nil {
			return jobs.Fail("emit", "%v", err)
		}
	}
	return jobs.OK()
}

func newTall(context.Context, jobs.Env) (jobs.Handler, error) {
	random := rand.New(rand.NewPCG(1, 1))
	var text strings.Builder
	for text.Len() < 5<<10 {
		text.WriteByte(byte('a' + random.IntN(26)))
	}
	return tall{text.String()}, nil
}

// 002-49, scaled: a merge streams. Of rows that are larger together than all that the
// process may take it holds a part, as the system counts it at its highest.
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
	do("run", "job.yaml")
	c := do("merge", "@", "--json")
	if want := fmt.Sprintf(`"rows":%d,`, 1024*items); !strings.Contains(c.out.String(), want) {
		t.Errorf("%s, want %s", c.out.String(), want)
	}
	const limit = items * 4 << 20 // the rows alone; a process that merges nothing takes a third of it
	most := c.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	t.Logf("%d MiB", most>>20)
	if most > limit {
		t.Errorf("merging %d MiB of rows took %d MiB, with --memory 128MiB", items*4, most>>20)
	}
}
