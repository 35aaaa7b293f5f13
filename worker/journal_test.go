package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"hayrick"
	"hayrick/worker"
)

var (
	taskRef = hayrick.TaskRef{JobID: jobID, TaskID: "task-0001"}
	made    = worker.Fingerprint{BatchSHA256: "ba", DefinitionSHA256: "de", BundleSHA256: "bu"}
)

const (
	attemptA = "aaaaaaaa00000000aaaaaaaa00000000"
	attemptB = "bbbbbbbb00000000bbbbbbbb00000000"
)

// kinds are the two journals there are; what the machine loses, both lose.
func kinds(t *testing.T, f func(t *testing.T, js worker.Journals)) {
	t.Run("files", func(t *testing.T) { f(t, worker.FileJournals{Dir: t.TempDir(), BootID: "boot-1"}) })
	t.Run("memory", func(t *testing.T) { f(t, &worker.MemJournals{}) })
}

func entry(ordinal int64) worker.Entry {
	return worker.Entry{
		Ordinal: ordinal, Ended: true, OK: true, Key: fmt.Sprintf("k%d", ordinal), Tries: 1, RowCount: 1,
		Rows: bytes.Repeat([]byte{byte(ordinal)}, 100),
	}
}

// entries reads a journal; the rows are copied, as they are only lent.
func entries(t *testing.T, j worker.Journal) (out []worker.Entry) {
	t.Helper()
	if err := j.Each(t.Context(), func(e worker.Entry) error {
		e.Rows = bytes.Clone(e.Rows)
		out = append(out, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// filesIn lists the files below dir.
func filesIn(t *testing.T, dir string) (out []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimPrefix(p, dir))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func create(t *testing.T, js worker.Journals, attempt string, es ...worker.Entry) worker.Journal {
	t.Helper()
	j, err := js.Create(t.Context(), taskRef, attempt, made)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if err := j.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

func reopen(t *testing.T, js worker.Journals) worker.Journal {
	t.Helper()
	j, err := js.Open(t.Context(), taskRef, made)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

type opener interface {
	Open(ctx context.Context, ref hayrick.TaskRef, fp worker.Fingerprint) (worker.Journal, error)
}

// gone says that Open finds nothing.
func gone(t *testing.T, js opener, fp worker.Fingerprint) {
	t.Helper()
	if j, err := js.Open(t.Context(), taskRef, fp); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("open: %v, %v; want ErrNotFound", j, err)
	}
}

func TestJournalKeepsTheLastEntryOfEachItemInOrder(t *testing.T) {
	kinds(t, func(t *testing.T, js worker.Journals) {
		gone(t, js, made)
		spent := worker.Entry{Ordinal: 3, Key: "k3", Tries: 2, Losses: 1, Crashes: 1, RetryAfterMS: 1500}
		j := create(t, js, attemptA, entry(300), spent, entry(2), entry(1))
		failed := worker.Entry{
			Ordinal: 2, Ended: true, Key: "k2", Class: "gone", Disposition: hayrick.Permanent, Message: "it is 'gone'", Tries: 4,
		}
		if err := j.Record(t.Context(), failed); err != nil {
			t.Fatal(err)
		}
		want := []worker.Entry{entry(1), failed, spent, entry(300)}
		if got := entries(t, j); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if err := j.Close(false); err != nil {
			t.Fatal(err)
		}
		again := reopen(t, js)
		if got := entries(t, again); !reflect.DeepEqual(got, want) {
			t.Errorf("opened again: got  %+v\nwant %+v", got, want)
		}
		// What is left is not added to: an attempt that creates starts clean.
		if err := again.Close(false); err != nil {
			t.Fatal(err)
		}
		clean := create(t, js, attemptB)
		if got := entries(t, clean); len(got) != 0 {
			t.Errorf("a new journal has %+v", got)
		}
		if err := clean.Close(true); err != nil {
			t.Fatal(err)
		}
		gone(t, js, made)
	})
}

// 002-32 (the place of the task's SQLite): <scratch>/job/<job_id>/task/<task_id>/<task_id>.sqlite
func TestJournalFilesLieUnderTheirTaskAndGo(t *testing.T) {
	dir := t.TempDir()
	js := worker.FileJournals{Dir: dir, BootID: "boot-1"}
	j := create(t, js, attemptA, entry(1))
	if want := filepath.Join(dir, "job", jobID, "task", "task-0001", "task-0001.sqlite"); j.Path() != want {
		t.Errorf("the journal is %s, want %s", j.Path(), want)
	}
	temp, err := js.TempFile(t.Context(), taskRef, attemptA)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range filesIn(t, dir) { // a scratch file has no name
		if !strings.HasPrefix(filepath.Base(f), "task-0001.sqlite") {
			t.Errorf("file %s", f)
		}
	}
	if _, err := io.WriteString(temp, "rows"); err != nil {
		t.Fatal(err)
	}
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(temp); string(b) != "rows" || err != nil {
		t.Errorf("scratch file: %q, %v", b, err)
	}
	snap, err := j.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []io.Closer{snap, temp} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := j.Close(true); err != nil {
		t.Fatal(err)
	}
	if got := filesIn(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	if _, err := os.Stat(filepath.Dir(j.Path())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the task's folder is still there: %v", err)
	}
}

// A journal that was made from anything else is worth nothing.
func TestJournalOfOtherWorkIsDiscarded(t *testing.T) {
	other := map[string]func(*worker.FileJournals, *worker.Fingerprint){
		"batch":      func(_ *worker.FileJournals, fp *worker.Fingerprint) { fp.BatchSHA256 = "x" },
		"definition": func(_ *worker.FileJournals, fp *worker.Fingerprint) { fp.DefinitionSHA256 = "x" },
		"bundle":     func(_ *worker.FileJournals, fp *worker.Fingerprint) { fp.BundleSHA256 = "x" },
		"boot":       func(js *worker.FileJournals, _ *worker.Fingerprint) { js.BootID = "boot-2" },
	}
	for name, change := range other {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			js, fp := worker.FileJournals{Dir: dir, BootID: "boot-1"}, made
			create(t, js, attemptA, entry(1)).Close(false)
			change(&js, &fp)
			gone(t, js, fp)
			if left := filesIn(t, dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	t.Run("boot not known", func(t *testing.T) {
		js := worker.FileJournals{Dir: t.TempDir()}
		create(t, js, attemptA, entry(1)).Close(false)
		j := reopen(t, js)
		defer j.Close(true)
		if got := entries(t, j); len(got) != 1 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("memory", func(t *testing.T) {
		js := &worker.MemJournals{}
		create(t, js, attemptA, entry(1)).Close(false)
		gone(t, js, worker.Fingerprint{})
		gone(t, js, made)
	})
}

func TestDamagedJournalIsDiscarded(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":     func(b []byte) []byte { return nil },
		"no header": func(b []byte) []byte { return bytes.Repeat([]byte("garbage "), 1024) },
		"cut":       func(b []byte) []byte { return b[:len(b)/2] },
		"schema": func(b []byte) []byte {
			return bytes.Replace(b, []byte("CREATE TABLE meta"), []byte("CREATE TABLE atem"), 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			js := worker.FileJournals{Dir: dir, BootID: "boot-1"}
			j := create(t, js, attemptA, entry(1), entry(2))
			j.Close(false)
			b, err := os.ReadFile(j.Path())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(j.Path(), damage(b), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := js.Open(t.Context(), taskRef, made)
			if err == nil { // the damage is further in
				if err = got.Each(t.Context(), func(worker.Entry) error { return nil }); !errors.Is(err, hayrick.ErrCorrupt) {
					t.Errorf("read: %v, want ErrCorrupt", err)
				}
				got.Close(true)
			} else if !errors.Is(err, hayrick.ErrNotFound) {
				t.Errorf("open: %v, want ErrNotFound", err)
			}
			if left := filesIn(t, dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A reader that is stopped has learnt nothing about the journal.
func TestStoppedReaderKeepsTheJournal(t *testing.T) {
	js := worker.FileJournals{Dir: t.TempDir(), BootID: "boot-1"}
	create(t, js, attemptA, entry(1)).Close(false)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := js.Open(stopped, taskRef, made); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
	j := reopen(t, js)
	defer j.Close(true)
	if err := j.Each(stopped, func(worker.Entry) error { return nil }); !errors.Is(err, context.Canceled) || errors.Is(err, hayrick.ErrCorrupt) {
		t.Errorf("read: %v", err)
	}
	if got := entries(t, j); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

// A journal that a live attempt holds is left alone: the second one works beside it.
func TestHeldJournalIsNotShared(t *testing.T) {
	kinds(t, func(t *testing.T, js worker.Journals) {
		first := create(t, js, attemptA, entry(1))
		gone(t, js, made)
		second := create(t, js, attemptB, entry(2))
		if first.Path() == second.Path() {
			t.Fatalf("both are %s", first.Path())
		}
		for j, ordinal := range map[worker.Journal]int64{first: 1, second: 2} {
			if got := entries(t, j); len(got) != 1 || got[0].Ordinal != ordinal {
				t.Errorf("%s has %+v", j.Path(), got)
			}
		}
		second.Close(true)
		first.Close(false)
		j := reopen(t, js)
		if got := entries(t, j); len(got) != 1 || got[0].Ordinal != 1 {
			t.Errorf("left is %+v", got)
		}
		j.Close(true)
	})
}

// What a killed attempt had beside another one's journal is nobody's: the next
// attempt removes it.
func TestOrphansAreRemoved(t *testing.T) {
	dir := t.TempDir()
	js := worker.FileJournals{Dir: dir, BootID: "boot-1"}
	first := create(t, js, attemptA, entry(1))
	create(t, js, attemptB, entry(2)).Close(false) // its process has ended
	live := create(t, js, "cccccccc", entry(3))
	first.Close(false)
	of := func(attempt string) (n int) {
		for _, f := range filesIn(t, dir) {
			if strings.Contains(f, attempt) {
				n++
			}
		}
		return n
	}
	if of("-bbbbbbbb.") == 0 || of("-cccccccc.") == 0 {
		t.Fatalf("files: %v", filesIn(t, dir))
	}
	j := reopen(t, js)
	if of("-bbbbbbbb.") != 0 || of("-cccccccc.") == 0 {
		t.Errorf("files: %v, want the task's and the live attempt's", filesIn(t, dir))
	}
	if got := entries(t, live); len(got) != 1 || got[0].Ordinal != 3 {
		t.Errorf("the live one has %+v", got)
	}
	live.Close(true)
	j.Close(true)
	if got := filesIn(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// They go too when the task has no other journal left.
func TestOrphansAreRemovedByANewJournal(t *testing.T) {
	dir := t.TempDir()
	js := worker.FileJournals{Dir: dir, BootID: "boot-1"}
	first := create(t, js, attemptA)
	create(t, js, attemptB, entry(2)).Close(false)
	first.Close(true)
	if len(filesIn(t, dir)) == 0 {
		t.Fatal("no orphan is there")
	}
	create(t, js, "cccccccc").Close(true)
	if left := filesIn(t, dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSnapshotRestoresElsewhere(t *testing.T) {
	kinds(t, func(t *testing.T, js worker.Journals) {
		j := create(t, js, attemptA, entry(7), entry(5), worker.Entry{Ordinal: 9, Tries: 2})
		snap, err := j.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(snap)
		if err != nil {
			t.Fatal(err)
		}
		snap.Close()
		want := entries(t, j)
		j.Close(true)
		// A machine with another boot id: a checkpoint is durable, and fits.
		var dir string
		var there worker.Journals = &worker.MemJournals{}
		if _, ok := js.(worker.FileJournals); ok {
			dir = t.TempDir()
			there = worker.FileJournals{Dir: dir, BootID: "boot-2"}
		}
		restored, err := there.Restore(t.Context(), taskRef, attemptB, made, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if got := entries(t, restored); !reflect.DeepEqual(got, want) || len(got) != 3 {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if err := restored.Record(t.Context(), entry(9)); err != nil {
			t.Fatal(err)
		}
		restored.Close(false)
		// From then on it is a journal of that machine.
		again := reopen(t, there)
		if got := entries(t, again); len(got) != 3 || !got[2].Ended {
			t.Errorf("opened again: %+v", got)
		}
		again.Close(true)
		for name, c := range map[string]struct {
			body []byte
			fp   worker.Fingerprint
		}{
			"of other work": {body, worker.Fingerprint{BatchSHA256: "x"}},
			"garbage":       {bytes.Repeat([]byte("garbage "), 1024), made},
			"cut":           {body[:100], made},
			"empty":         {nil, made},
		} {
			if j, err := there.Restore(t.Context(), taskRef, attemptB, c.fp, bytes.NewReader(c.body)); !errors.Is(err, hayrick.ErrCorrupt) {
				t.Errorf("%s: %v, %v; want ErrCorrupt", name, j, err)
			}
		}
		gone(t, there, made)
		if dir != "" {
			if left := filesIn(t, dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		}
	})
}

// Attempts of one task that come and go at once never trip over the folder that
// the others remove.
func TestJournalsOfOneTaskComeAndGo(t *testing.T) {
	dir := t.TempDir()
	js := worker.FileJournals{Dir: dir, BootID: "boot-1"}
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			attempt := strings.Repeat(string(rune('a'+n)), 32)
			for i := range 40 {
				j, err := js.Create(t.Context(), taskRef, attempt, made)
				if err != nil {
					t.Error(err)
					return
				}
				if err := j.Record(t.Context(), entry(int64(n))); err != nil {
					t.Error(err)
				}
				temp, err := js.TempFile(t.Context(), taskRef, attempt)
				if err != nil {
					t.Error(err)
				} else if err := temp.Close(); err != nil {
					t.Error(err)
				}
				count := 0
				if err := j.Each(t.Context(), func(e worker.Entry) error {
					count++
					if e.Ordinal != int64(n) {
						t.Errorf("round %d: an entry of another attempt, %+v", i, e)
					}
					return nil
				}); err != nil || count != 1 {
					t.Errorf("%d entries, %v", count, err)
				}
				if err := j.Close(true); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left := filesIn(t, dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
