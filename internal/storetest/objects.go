package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing/iotest"

	"hayrick"
	"hayrick/manifest"
)

const job = manifest.Job("count-20261120-abcdef")

var objectTests = map[string]func(*harness){
	"ReadAfterWrite":      testReadAfterWrite,
	"RangesBeyondTheEnd":  testRanges,
	"NotFound":            testNotFound,
	"PutAgain":            testPutAgain,
	"PutIsWholeOrNot":     testPutBroken,
	"CommitOnce":          testCommitOnce,
	"CommitRace":          testCommitRace,
	"CommitRaceProcesses": testCommitRaceProcesses,
	"Linearizable":        testCommitsLinearizable,
	"Replace":             testReplace,
	"ReplaceRace":         testReplaceRace,
	"List":                testList,
	"Remove":              testRemove,
	"KeysStayInside":      testKeys,
	"OpenAt":              testOpenAt,
	"Assemble":            testAssemble,
	"Cancelled":           testCancelled,
}

func testReadAfterWrite(h *harness) {
	big := strings.Repeat("0123456789abcdef", 200_000) // 3.2 MB: more than one buffer
	h.put(job.Rows("task-0001", "aa", "bb"), big)
	if got := h.read(job.Rows("task-0001", "aa", "bb"), 0, -1); got != big {
		h.Fatalf("read %d bytes that differ from the %d put", len(got), len(big))
	}
	if got := h.another().read(job.Rows("task-0001", "aa", "bb"), 16, 10); got != "0123456789" {
		h.Fatalf("another process reads %q", got)
	}
}

// What is removed is gone for everybody, again and again, and nothing else is; the key
// may be written anew.
func testRemove(h *harness) {
	key, other := job.Rows("task-0001", "aa", "bb"), job.Rows("task-0001", "aa", "cc")
	h.put(key, "one")
	h.put(other, "other")
	for range 2 {
		if err := h.Objects.Remove(h.Ctx, key); err != nil {
			h.Fatal(err)
		}
	}
	if _, err := h.another().Objects.Open(h.Ctx, key, 0, -1); !errors.Is(err, hayrick.ErrNotFound) {
		h.Errorf("what was removed: %v, want not found", err)
	}
	if got := h.read(other, 0, -1); got != "other" {
		h.Errorf("beside it %q is left", got)
	}
	h.put(key, "two")
	if got := h.read(key, 0, -1); got != "two" {
		h.Errorf("written anew it is %q", got)
	}
	if err := h.Objects.Remove(h.Ctx, "../outside"); err == nil {
		h.Error("a key that leads outside was removed")
	}
}

func testRanges(h *harness) {
	h.put(job.Config("c"), "0123456789")
	for _, c := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, "0123456789"}, {0, 4, "0123"}, {3, 4, "3456"}, {7, -1, "789"}, {7, 100, "789"},
		{10, -1, ""}, {10, 5, ""}, {99, -1, ""}, {99, 3, ""}, {2, 0, ""},
	} {
		if got := h.read(job.Config("c"), c.offset, c.length); got != c.want {
			h.Errorf("[%d, +%d) is %q, want %q", c.offset, c.length, got, c.want)
		}
	}
	h.put(job.Config("empty"), "")
	if got := h.read(job.Config("empty"), 0, -1); got != "" {
		h.Errorf("the empty object is %q", got)
	}
}

func testNotFound(h *harness) {
	_, err := h.Objects.Open(h.Ctx, job.Plan(), 0, -1)
	h.is(err, hayrick.ErrNotFound)
	_, err = h.Objects.OpenAt(h.Ctx, job.Plan())
	h.is(err, hayrick.ErrNotFound)
	h.put(job.Plan(), "x")
	_, err = h.Objects.Open(h.Ctx, job.Prefix()+"plan.json/below", 0, -1) // below what is no folder
	h.is(err, hayrick.ErrNotFound)
	_, err = h.Objects.Open(h.Ctx, manifest.Jobs+string(job), 0, -1) // a folder is no object
	h.is(err, hayrick.ErrNotFound)
	h.is(h.assemble(job.Part(0, 0, "x"), []manifest.Range{{Key: job.Config("no")}}, ""), hayrick.ErrNotFound)
}

func testPutAgain(h *harness) {
	together(8, func(int) {
		if err := h.Objects.Put(h.Ctx, job.Config("c"), strings.NewReader("same")); err != nil {
			h.Error(err)
		}
	})
	h.put(job.Config("c"), "same")
	if got := h.read(job.Config("c"), 0, -1); got != "same" {
		h.Fatalf("read %q", got)
	}
}

func testPutBroken(h *harness) {
	broken := errors.New("the source broke")
	body := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken))
	h.is(h.Objects.Put(h.Ctx, job.Config("c"), body), broken)
	_, err := h.Objects.Open(h.Ctx, job.Config("c"), 0, -1)
	h.is(err, hayrick.ErrNotFound)
	h.put(job.Config("c"), "whole")
	if got := h.read(job.Config("c"), 0, -1); got != "whole" {
		h.Fatalf("read %q", got)
	}
}

func testCommitOnce(h *harness) {
	stored, err := h.Objects.Commit(h.Ctx, job.Plan(), []byte("mine"))
	h.must(err)
	if !stored {
		h.Fatal("the first commit of a key was not stored")
	}
	for _, body := range []string{"mine", "theirs"} {
		stored, err = h.another().Objects.Commit(h.Ctx, job.Plan(), []byte(body))
		h.must(err)
		if stored {
			h.Fatalf("a second commit (%s) was stored", body)
		}
	}
	if got := h.read(job.Plan(), 0, -1); got != "mine" {
		h.Fatalf("the commit reads %q", got)
	}
}

// 16 committers a key, many keys: exactly one winner each, and what stands is the
// winner's.
// 002-53 (no check-then-insert races)
func testCommitRace(h *harness) {
	const keys, racers = 40, 16
	var winner [keys]atomic.Int64
	together(racers, func(r int) {
		for k := range keys {
			stored, err := h.Objects.Commit(h.Ctx, job.Done(manifest.TaskID(int64(k))), fmt.Appendf(nil, "racer %d", r))
			if err != nil {
				h.Errorf("commit %d: %v", k, err)
			}
			if stored && !winner[k].CompareAndSwap(0, int64(r+1)) {
				h.Errorf("key %d was won twice", k)
			}
		}
	})
	for k := range keys {
		if got, want := h.read(job.Done(manifest.TaskID(int64(k))), 0, -1), fmt.Sprintf("racer %d", winner[k].Load()-1); got != want {
			h.Errorf("key %d holds %q, its winner is %q", k, got, want)
		}
	}
}

func testCommitRaceProcesses(h *harness) {
	const keys, racers = 10, 4
	views := []*harness{h}
	for len(views) < racers {
		views = append(views, h.another())
	}
	var wins [keys]atomic.Int64
	together(racers*4, func(i int) {
		for k := range keys {
			stored, err := views[i%racers].Objects.Commit(h.Ctx, job.Control(k), fmt.Appendf(nil, "%d", i))
			if err != nil {
				h.Error(err)
			}
			if stored {
				wins[k].Add(1)
			}
		}
	})
	for k := range keys {
		if wins[k].Load() != 1 {
			h.Errorf("key %d has %d winners", k, wins[k].Load())
		}
	}
}

func testReplace(h *harness) {
	for _, body := range []string{"first and longer", "second"} {
		h.must(h.Objects.Replace(h.Ctx, job.Manifest(), []byte(body)))
		if got := h.read(job.Manifest(), 0, -1); got != body {
			h.Fatalf("the view reads %q, want %q", got, body)
		}
	}
}

// A reader of a view that many rewrite sees one of the versions, whole.
func testReplaceRace(h *harness) {
	version := func(i int) string { return strings.Repeat(string(rune('a'+i)), 50_000) }
	h.must(h.Objects.Replace(h.Ctx, job.Manifest(), []byte(version(0))))
	together(8, func(i int) {
		for range 5 {
			if i < 4 {
				if err := h.Objects.Replace(h.Ctx, job.Manifest(), []byte(version(i))); err != nil {
					h.Error(err)
				}
				continue
			}
			r, err := h.Objects.Open(h.Ctx, job.Manifest(), 0, -1)
			if err != nil {
				h.Error(err)
				return
			}
			b, err := io.ReadAll(r)
			r.Close()
			if err != nil || len(b) != 50_000 || string(b) != version(int(b[0]-'a')) {
				h.Errorf("a torn view of %d bytes, error %v", len(b), err)
			}
		}
	})
}

func testList(h *harness) {
	want := []string{job.Plan(), job.Done("task-0001"), job.Done("task-0010"), job.Done("task-0011")}
	for _, k := range want {
		_, err := h.Objects.Commit(h.Ctx, k, []byte("12345"))
		h.must(err)
	}
	h.put(manifest.Job("other").Config("c"), "of another job")
	list := func(prefix string) (keys []string) {
		h.must(h.Objects.List(h.Ctx, prefix, func(o manifest.Object) error {
			if strings.HasPrefix(o.Key, job.Prefix()) && o.Size != 5 {
				h.Errorf("%s has %d bytes, want 5", o.Key, o.Size)
			}
			if o.ModTime.IsZero() {
				h.Errorf("%s has no time", o.Key)
			}
			keys = append(keys, o.Key)
			return nil
		}))
		slices.Sort(keys)
		return keys
	}
	for prefix, want := range map[string][]string{
		job.Prefix():                      want,
		job.Prefix() + "tasks/task-001":   want[2:],
		job.Done("task-0001"):             want[1:2],
		job.Prefix() + "tasks/":           want[1:],
		job.Prefix() + "nothing/":         nil,
		"jobs/none/":                      nil,
		job.Prefix() + "tasks/task-0011/": want[3:],
	} {
		if got := list(prefix); !slices.Equal(got, want) {
			h.Errorf("under %s: %q, want %q", prefix, got, want)
		}
	}
	if got := list(manifest.Jobs); len(got) != 5 {
		h.Errorf("the store lists %q", got)
	}
	stop := errors.New("enough")
	h.is(h.Objects.List(h.Ctx, manifest.Jobs, func(manifest.Object) error { return stop }), stop)
}

func testKeys(h *harness) {
	for _, key := range []string{
		"", "/", "jobs", "jobs/", "jobs//x", "jobs/../x", "jobs/a/../../../etc/passwd", "../jobs/x", "/etc/passwd", "jobs/a/./b",
		"jobs/A", "jobs/a b", "jobs/a\x00b", "jobs/ä", `jobs\x`, "jobs/a/", "state.db", "tmp/x", "jobs/" + strings.Repeat("x", 300),
	} {
		if err := h.Objects.Put(h.Ctx, key, strings.NewReader("x")); err == nil {
			h.Errorf("put accepts key %q", key)
		}
		if stored, err := h.Objects.Commit(h.Ctx, key, []byte("x")); err == nil || stored {
			h.Errorf("commit accepts key %q", key)
		}
		if err := h.Objects.Replace(h.Ctx, key, []byte("x")); err == nil {
			h.Errorf("replace accepts key %q", key)
		}
		if r, err := h.Objects.Open(h.Ctx, key, 0, -1); err == nil {
			r.Close()
			h.Errorf("open accepts key %q", key)
		}
		if b, err := h.Objects.OpenAt(h.Ctx, key); err == nil {
			b.Close()
			h.Errorf("open at accepts key %q", key)
		}
		if err := h.assemble(key, nil, "x"); err == nil {
			h.Errorf("assemble accepts key %q", key)
		}
	}
}

func testOpenAt(h *harness) {
	h.put(job.Config("c"), "0123456789")
	b, err := h.Objects.OpenAt(h.Ctx, job.Config("c"))
	h.must(err)
	defer b.Close()
	if b.Size() != 10 {
		h.Errorf("its size is %d", b.Size())
	}
	together(8, func(i int) {
		p := make([]byte, 2)
		if n, err := b.ReadAt(p, int64(i)); n != 2 || string(p) != "0123456789"[i:i+2] {
			h.Errorf("at %d: %q, %v", i, p[:n], err)
		}
	})
	p := make([]byte, 4)
	if n, err := b.ReadAt(p, 8); n != 2 || err != io.EOF || string(p[:2]) != "89" {
		h.Errorf("over the end: %q, %v", p[:n], err)
	}
}

func (h *harness) assemble(key string, parts []manifest.Range, tail string) error {
	_, err := h.Objects.Assemble(h.Ctx, key, parts, []byte(tail))
	return err
}

func testAssemble(h *harness) {
	a, b := strings.Repeat("abcdefghij", 30_000), strings.Repeat("0123456789", 30_000)
	h.put(job.Config("a"), a)
	h.put(job.Config("b"), b)
	parts := []manifest.Range{
		{Key: job.Config("b"), Offset: 3, Length: 250_000}, {Key: job.Config("a"), Offset: 0, Length: 300_000},
		{Key: job.Config("a"), Offset: 5, Length: 0}, {Key: job.Config("a"), Offset: 299_999, Length: 1},
	}
	want := b[3:250_003] + a + "j" + "tail"
	for range 2 { // doing it again is harmless
		h.must(h.assemble(job.Part(0, 0, "x"), parts, "tail"))
		if got := h.read(job.Part(0, 0, "x"), 0, -1); got != want {
			h.Fatalf("assembled %d bytes that differ from the %d wanted", len(got), len(want))
		}
	}
	h.must(h.assemble(job.Part(0, 1, "x"), nil, ""))
	if got := h.read(job.Part(0, 1, "x"), 0, -1); got != "" {
		h.Errorf("nothing assembled is %q", got)
	}
	for _, beyond := range []manifest.Range{{Key: job.Config("a"), Offset: 299_999, Length: 2}, {Key: job.Config("a"), Offset: 400_000, Length: 1}, {Key: job.Config("a"), Offset: -1, Length: 2}} {
		h.is(h.assemble(job.Part(0, 2, "x"), []manifest.Range{parts[0], beyond}, ""), hayrick.ErrCorrupt)
	}
	_, err := h.Objects.Open(h.Ctx, job.Part(0, 2, "x"), 0, -1)
	h.is(err, hayrick.ErrNotFound)
}

func testCancelled(h *harness) {
	ctx, cancel := cancelled(h.Ctx)
	defer cancel()
	if err := h.Objects.Put(ctx, job.Config("c"), bytes.NewReader([]byte("x"))); err == nil {
		h.Error("put under a cancelled context")
	}
	if stored, err := h.Objects.Commit(ctx, job.Plan(), []byte("x")); err == nil || stored {
		h.Error("commit under a cancelled context")
	}
	_, err := h.Objects.Open(h.Ctx, job.Plan(), 0, -1)
	h.is(err, hayrick.ErrNotFound)
}
