package worker_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hayrick"
	"hayrick/worker"
)

// Ids that lead out of the scratch folder, and links in it that do, are refused by every
// use of it; nothing is read, written or removed elsewhere.
func TestScratchStaysInside(t *testing.T) {
	outside := t.TempDir()
	kept := map[string]string{"task-0001.sqlite": "a database", "task-0001.sqlite.lock": "", "own.sqlite": "another", "own.sqlite.lock": "", "x.log.jsonl": "a log"}
	for name, body := range kept {
		if err := os.WriteFile(filepath.Join(outside, name), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	untouched := func(what string) {
		t.Helper()
		entries, err := os.ReadDir(outside)
		if err != nil || len(entries) != len(kept) {
			t.Fatalf("%s: outside there are %v, %v", what, entries, err)
		}
		for name, body := range kept {
			if b, err := os.ReadFile(filepath.Join(outside, name)); err != nil || string(b) != body {
				t.Fatalf("%s: %s is %q, %v", what, name, b, err)
			}
		}
	}
	refused := func(what, dir string, ref hayrick.TaskRef) {
		t.Helper()
		js := worker.FileJournals{Dir: dir, BootID: "b"}
		if j, err := js.Open(t.Context(), ref, made); err == nil {
			t.Errorf("%s: a journal is opened: %s", what, j.Path())
		}
		if j, err := js.Create(t.Context(), ref, attemptA, made); err == nil {
			t.Errorf("%s: a journal is made: %s", what, j.Path())
			j.Close(true)
		}
		if j, err := js.Restore(t.Context(), ref, attemptA, made, bytes.NewReader([]byte("x"))); err == nil {
			t.Errorf("%s: a journal is restored: %s", what, j.Path())
		}
		if f, err := js.TempFile(t.Context(), ref, attemptA); err == nil {
			t.Errorf("%s: a scratch file is made", what)
			f.Close()
		}
		if l, err := (worker.FileLogs{Dir: dir}).Create(ref, attemptA); err == nil {
			t.Errorf("%s: a live log is made", what)
			l.Close()
		}
		untouched(what)
	}
	for _, id := range []string{"..", "../..", "a/b", "/etc", "", ".", "a\x00b", "é", "A", "../" + filepath.Base(outside), strings.Repeat("a", 129), "a/../../../" + filepath.Base(outside)} {
		dir := t.TempDir()
		refused("job "+id, dir, hayrick.TaskRef{JobID: id, TaskID: "task-0001"})
		refused("task "+id, dir, hayrick.TaskRef{JobID: "job-1", TaskID: id})
		if err := (worker.FileLogs{Dir: dir}).Logs(id, func(_, path string) error { t.Errorf("job %q has the log %s", id, path); return nil }); err == nil {
			t.Errorf("the logs of %q are looked for", id)
		}
		if files := filesIn(t, dir); len(files) > 0 {
			t.Errorf("%q leaves %v", id, files)
		}
	}
	ref := hayrick.TaskRef{JobID: "job-1", TaskID: "task-0001"}
	for _, at := range []string{"job", "job/job-1", "job/job-1/task", "job/job-1/task/task-0001"} {
		dir := t.TempDir()
		link := filepath.Join(dir, at)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, link); err != nil {
			t.Fatal(err)
		}
		refused("a link at "+at, dir, ref)
	}
	// Links in the place of files are replaced by files, or refused, and never followed.
	dir := t.TempDir()
	folder := filepath.Join(dir, "job/job-1/task/task-0001")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"task-0001.sqlite", "x.log.jsonl"} {
		if err := os.Symlink(filepath.Join(outside, name), filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	js := worker.FileJournals{Dir: dir, BootID: "b"}
	if _, err := js.Open(t.Context(), ref, made); err == nil {
		t.Error("a journal is opened through a link")
	}
	j, err := js.Create(t.Context(), ref, attemptA, made)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(j.Path()); err != nil || info.Mode()&fs.ModeSymlink != 0 {
		t.Errorf("the journal is %v, %v", info, err)
	}
	if err := j.Close(true); err != nil {
		t.Fatal(err)
	}
	l, err := (worker.FileLogs{Dir: dir}).Create(ref, attemptA)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	untouched("links in the place of files")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "task-0001.sqlite.lock"), filepath.Join(folder, "task-0001.sqlite.lock")); err != nil {
		t.Fatal(err)
	}
	if j, err := js.Create(t.Context(), ref, attemptA, made); err == nil {
		t.Error("a lock is taken through a link")
		j.Close(true)
	}
	untouched("a link in the place of a lock")
}
