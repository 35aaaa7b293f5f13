package worker_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"hayrick/worker"
)

// envJournalDir makes the test binary a child that writes a journal until it is
// killed.
const envJournalDir = "HAYRICK_TEST_JOURNAL_DIR"

// bulky is an entry of some hundred kilobytes, so that a kill mostly comes in the
// middle of a transaction.
func bulky(ordinal int64) worker.Entry {
	e := entry(ordinal)
	e.Rows = bytes.Repeat([]byte(fmt.Sprintf("%08d", ordinal)), 10_000+int(ordinal%7)*3_000)
	return e
}

// writeUntilKilled says each ordinal once it is recorded.
func writeUntilKilled(dir string) {
	ctx := context.Background()
	js := worker.FileJournals{Dir: dir, BootID: "boot-1"}
	j, err := js.Open(ctx, taskRef, made)
	if err != nil {
		j, err = js.Create(ctx, taskRef, attemptA, made)
	}
	if err != nil {
		panic(err)
	}
	next := int64(0)
	if err := j.Each(ctx, func(worker.Entry) error { next++; return nil }); err != nil {
		panic(err)
	}
	for ; ; next++ {
		if err := j.Record(ctx, bulky(next)); err != nil {
			panic(err)
		}
		fmt.Println(next)
	}
}

// A process that is killed in the middle of its writes leaves a journal of all that
// it had recorded, whole, and a lock that nobody holds; the next one goes on with it.
//
// 002-03 (the SQLite of a task says what of its batch is done; the batch itself stays where
// it is, and is read again)
func TestJournalOutlivesItsProcess(t *testing.T) {
	dir := t.TempDir()
	js := worker.FileJournals{Dir: dir, BootID: "boot-1"}
	last := int64(-1)
	for kill := range 8 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), envJournalDir+"="+dir)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewScanner(out)
		for n := 0; n <= 3+kill && said.Scan(); n++ {
		}
		// It is alive: nobody gets its journal.
		gone(t, js, made)
		if err := child.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for said.Scan() { // what it still said before it died
			if last, err = strconv.ParseInt(said.Text(), 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		if err := child.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		j := reopen(t, js)
		es := entries(t, j)
		if int64(len(es)) < last+1 {
			t.Errorf("kill %d: %d entries, but %d was recorded", kill, len(es), last)
		}
		for i, e := range es {
			if want := bulky(int64(i)); e.Ordinal != want.Ordinal || !bytes.Equal(e.Rows, want.Rows) || e.Key != want.Key {
				t.Fatalf("kill %d: entry %d is ordinal %d with %d bytes of rows", kill, i, e.Ordinal, len(e.Rows))
			}
		}
		if err := j.Close(false); err != nil {
			t.Fatal(err)
		}
	}
	reopen(t, js).Close(true)
	if left := filesIn(t, dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
