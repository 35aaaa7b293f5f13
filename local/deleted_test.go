package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/ratelimit"
)

var wipedLimits = ratelimit.Limits{Rate: hayrick.PerTime{N: 2000, Per: time.Second}, Burst: 400, Timing: ratelimit.OneMachine}

// incarnation names the life of the state that the store works with.
func incarnation(t *testing.T, s *Store) (name string) {
	t.Helper()
	if err := s.state.do(t.Context(), func(t *tx) error { name = t.db.incarnation; return nil }); err != nil {
		t.Fatal(err)
	}
	return name
}

// childState makes every kind of call until stdin ends, and says the nominal time
// of each token it is granted. No call may fail.
func childState(dir string, args []string) error {
	s, err := childStore(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { io.Copy(io.Discard, os.Stdin); cancel() }()
	me := strconv.Itoa(os.Getpid())
	work := func(w int) error {
		for i := 0; ctx.Err() == nil; i++ {
			ctx := context.Background() // whole rounds only
			ref := hayrick.TaskRef{JobID: "wiped", TaskID: manifest.TaskID(int64(i % 50))}
			attempt := fmt.Sprint(me, ".", w, ".", i)
			if _, err := s.Claim(ctx, hayrick.ClaimAsk{TaskRef: ref, Attempt: attempt, Worker: me, Lease: time.Minute}); err == nil {
				_, err := s.UpdateClaim(ctx, ref, attempt, hayrick.ClaimPatch{Until: &time.Time{}})
				if err != nil && !errors.Is(err, hayrick.ErrLeaseLost) { // the state with the claim may be gone
					return err
				}
			} else if !errors.Is(err, hayrick.ErrConflict) {
				return err
			}
			p := rand.IntN(256)
			b, err := s.Mark(ctx, hayrick.Mark{Block: hayrick.BlockID{JobID: "wiped", Group: "g"}, Total: 256, Position: p, OK: 7})
			if err != nil {
				return err
			}
			if !b.Done.Has(p) || b.OK != 7*int64(b.Done.Count()) {
				return fmt.Errorf("a block of two databases: %+v", b)
			}
			if err := s.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "wiped", TaskID: ref.TaskID}}); err != nil {
				return err
			}
			ds, err := s.Receive(ctx, hayrick.QueueTasks, 2, time.Minute, 0)
			if err != nil {
				return err
			}
			if err := s.Ack(ctx, hayrick.QueueTasks, ds...); err != nil {
				return err
			}
			if err := s.PutJobState(ctx, hayrick.JobState{JobID: "wiped", Orders: i}); err != nil {
				return err
			}
			if _, err := s.JobState(ctx, "wiped"); err != nil && !errors.Is(err, hayrick.ErrNotFound) {
				return err
			}
			if _, err := s.Blocks(ctx, "wiped", 0, "g"); err != nil {
				return err
			}
			g, err := s.Reserve(ctx, "store/api/~", wipedLimits, ratelimit.Ask{N: 3}, s.world.Clock.Now)
			if err != nil {
				return err
			}
			var said strings.Builder
			for k := range g.Count {
				fmt.Fprintln(&said, g.First.Add(time.Duration(k)*g.Every).UnixNano())
			}
			os.Stdout.WriteString(said.String()) // one write: whole lines
		}
		return nil
	}
	done := make(chan error)
	for w := range 4 {
		go func() { done <- work(w) }()
	}
	for range 4 {
		err = errors.Join(err, <-done)
	}
	return errors.Join(err, s.Close())
}

// state.db, or any part of it, is deleted over and over while two processes work:
// no call fails, none sees a mixture of two databases, nothing is damaged, and no
// token is granted twice.
// 002-45 (the state and the queue are hints: deleting them under way is survived)
func TestStateDeletedWhileProcessesWork(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	a, b := start(t, "state", dir), start(t, "state", dir)
	tokens := make(chan []string, 2)
	for _, c := range []*child{a, b} {
		if !c.out.Scan() {
			t.Fatal("a child did nothing:", c.err.String())
		}
		first := c.out.Text()
		go func() { tokens <- append(c.lines(), first) }()
	}
	s := openAt(t, dir, hayrick.RealWorld("test"))
	lives := map[string]bool{}
	for i := range 40 {
		lives[incarnation(t, s)] = true
		for k, name := range fileNames {
			if i%5 == k || i%5 > 2 {
				if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
		}
		pause := time.Duration(rand.IntN(40)) * time.Millisecond
		if i%8 == 0 {
			pause += 2 * wipedLimits.Horizon // before that a new bucket gives nothing
		}
		if err := s.world.Clock.Sleep(t.Context(), pause); err != nil {
			t.Fatal(err)
		}
	}
	a.in.Close()
	b.in.Close()
	said := append(<-tokens, <-tokens...)
	for _, c := range []*child{a, b} {
		if err := c.Wait(); err != nil {
			t.Error(err, c.err.String())
		}
	}
	var at []int64
	for _, line := range said {
		ns, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, ns)
	}
	slices.Sort(at)
	for i := 1; i < len(at); i++ {
		if at[i]-at[i-1] < int64(wipedLimits.Rate.Per)/wipedLimits.Rate.N {
			t.Errorf("two tokens %d ns apart", at[i]-at[i-1])
		}
	}
	if len(lives) < 10 || len(at) < 10 {
		t.Errorf("%d lives, %d tokens: the test shows little", len(lives), len(at))
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "state.db.corrupt-*")); len(kept) > 0 {
		t.Errorf("a database was damaged: %q", kept)
	}
	t.Logf("%d lives of state.db, %d tokens", len(lives), len(at))
}

// Files that are deleted while the database is made or opened lead to another try, or to a
// database that is whole; never to an error that speaks of something else.
// 002-45
func TestStateDeletedWhileItIsOpened(t *testing.T) {
	dir := t.TempDir()
	done, deleted := make(chan struct{}), make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				deleted <- n
				return
			default:
				os.Remove(filepath.Join(dir, fileNames[n%3]))
				runtime.Gosched()
			}
		}
	}()
	moved := 0
	for range 40 {
		db, err := openDatabase(dir, "0123456789abcdef", slog.New(slog.DiscardHandler))
		switch {
		case errors.Is(err, errMoved):
			moved++
		case err != nil:
			t.Fatal(err)
		default:
			if err := db.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(done)
	t.Logf("%d files deleted, %d of 40 databases gone before they were open", <-deleted, moved)
	if moved == 0 {
		t.Error("nothing was deleted in time: the test shows nothing")
	}
}

// Messages that somebody takes out of the database while a process works on it are not
// counted on: a sweeper sends anew what has no message.
// 002-45
func TestMessagesDeleted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, ctx := openAt(t, dir, hayrick.RealWorld("test")), t.Context()
	for i := range 10 {
		m := hayrick.Outgoing{Message: hayrick.Message{JobID: []string{"one", "two"}[i%2], TaskID: manifest.TaskID(int64(i))}}
		if err := s.Send(ctx, hayrick.QueueTasks, m); err != nil {
			t.Fatal(err)
		}
	}
	held, err := s.Receive(ctx, hayrick.QueueTasks, 1, time.Minute, 0)
	if err != nil || len(held) != 1 {
		t.Fatalf("received %+v, %v", held, err)
	}
	c, err := openConn(filepath.Join(dir, "state.db"), "rw")
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, del := range []struct {
		sql      string
		one, two int
	}{{`DELETE FROM messages WHERE id > 6`, 3, 3}, {`DELETE FROM messages WHERE job = 'two'`, 3, 0}, {`DELETE FROM messages`, 0, 0}} {
		if err := c.exec(del.sql); err != nil {
			t.Fatal(err)
		}
		for job, want := range map[string]int{"one": del.one, "two": del.two} {
			if n, err := s.Depth(ctx, hayrick.QueueTasks, job); err != nil || n.Messages != want || !n.Exact {
				t.Errorf("after %s: %s has %+v messages, %v; want %d", del.sql, job, n, err, want)
			}
		}
	}
	if err := s.Ack(ctx, hayrick.QueueTasks, held...); err != nil { // of one that is gone
		t.Error(err)
	}
	if err := s.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "one"}}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Depth(ctx, hayrick.QueueTasks, "one"); err != nil || n.Messages != 1 {
		t.Errorf("after a send: %+v, %v", n, err)
	}
}

// What is not the database that was made here is not used; the objects stay.
func TestStateReplaced(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(t *testing.T, dir string)
		closed bool // while no process has it open
		kept   bool // the old one is moved aside
	}{
		"db deleted":         {spoil: remove(0)},
		"wal deleted":        {spoil: remove(1)},
		"shm deleted":        {spoil: remove(2)},
		"all deleted":        {spoil: remove(0, 1, 2)},
		"db deleted, closed": {spoil: remove(0), closed: true},
		"id deleted, closed": {spoil: func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "state.id")); err != nil {
				t.Fatal(err)
			}
		}, closed: true},
		"restored from a copy": {spoil: func(t *testing.T, dir string) {
			copyOver(t, filepath.Join(dir, "state.db"))
		}},
		"not a database, closed": {spoil: func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(dir, "state.db"), 0)
			overwrite(t, filepath.Join(dir, "state.db-wal"), 0)
		}, closed: true, kept: true},
		"damaged, closed": {spoil: func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(dir, "state.db"), 4096)
			overwrite(t, filepath.Join(dir, "state.db-wal"), 0)
		}, closed: true, kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, ctx := filepath.Join(t.TempDir(), "store"), t.Context()
			var log bytes.Buffer
			open := func() *Store {
				s, err := Open(ctx, dir, hayrick.RealWorld("test"), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s
			}
			ref := hayrick.TaskRef{JobID: "j", TaskID: "task-0000"}
			s := open()
			if _, err := s.Commit(ctx, manifest.Job("j").Plan(), []byte("p")); err != nil {
				t.Fatal(err)
			}
			for i := range 300 {
				ref := hayrick.TaskRef{JobID: "j", TaskID: manifest.TaskID(int64(i))}
				if _, err := s.Claim(ctx, hayrick.ClaimAsk{TaskRef: ref, Attempt: "a", Lease: time.Hour}); err != nil {
					t.Fatal(err)
				}
			}
			before := incarnation(t, s)
			other := open() // of another process, which has to notice too
			if c.closed {
				s.Close()
				other.Close()
				c.spoil(t, dir)
				s, other = open(), open()
			} else {
				c.spoil(t, dir)
			}
			for i, s := range []*Store{s, other} {
				if _, _, err := s.ReadClaim(ctx, ref); !errors.Is(err, hayrick.ErrNotFound) {
					t.Errorf("process %d: the old claim reads %v", i, err)
				}
				if after := incarnation(t, s); after == before {
					t.Errorf("process %d: incarnation %s became %s", i, before, after)
				}
			}
			if _, err := s.Claim(ctx, hayrick.ClaimAsk{TaskRef: ref, Attempt: "b", Lease: time.Hour}); err != nil {
				t.Error(err)
			}
			if _, err := other.Claim(ctx, hayrick.ClaimAsk{TaskRef: ref, Attempt: "c", Lease: time.Hour}); !errors.Is(err, hayrick.ErrConflict) {
				t.Errorf("two processes use two databases: %v", err)
			}
			if stored, err := s.Commit(ctx, manifest.Job("j").Plan(), []byte("q")); err != nil || stored {
				t.Errorf("the commit is gone: %v, %v", stored, err)
			}
			_, err := os.Stat(filepath.Join(dir, "state.db.corrupt-1"))
			if (err == nil) != c.kept || (c.kept && !strings.Contains(log.String(), "damaged")) {
				t.Errorf("moved aside: %v; log: %s", err == nil, log.String())
			}
		})
	}
}

// A state that is as it was left is used again.
func TestStateReopened(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	ref := hayrick.TaskRef{JobID: "j", TaskID: "task-0000"}
	s := openAt(t, dir, hayrick.RealWorld("test"))
	before := incarnation(t, s)
	if _, err := s.Claim(ctx, hayrick.ClaimAsk{TaskRef: ref, Attempt: "a", Lease: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(ctx, hayrick.ClaimAsk{TaskRef: ref, Attempt: "b", Lease: time.Hour}); err == nil {
		t.Error("a closed store claims")
	}
	s = openAt(t, dir, hayrick.RealWorld("test"))
	if after := incarnation(t, s); after != before {
		t.Errorf("incarnation %s became %s", before, after)
	}
	c, alive, err := s.ReadClaim(ctx, ref)
	if err != nil || alive || c.Attempt != "a" { // its process has closed the store
		t.Errorf("the claim reads %+v, alive %v, %v", c, alive, err)
	}
}

// After the machine was down, buckets are not trusted: the last writes to them may
// be lost.
func TestBucketsEndWithTheBoot(t *testing.T) {
	dir, ctx, clk := t.TempDir(), t.Context(), newClock()
	s := openAt(t, dir, world(clk))
	if err := s.Feedback(ctx, "store/api/~", wipedLimits, ratelimit.Feedback{Throttled: true, RetryAfter: time.Hour}, clk.Now); err != nil {
		t.Fatal(err)
	}
	closedUntil := func() bool {
		g, err := s.Reserve(ctx, "store/api/~", wipedLimits, ratelimit.Ask{N: 1}, clk.Now)
		if err != nil {
			t.Fatal(err)
		}
		return g.Closed
	}
	if !closedUntil() {
		t.Fatal("the key is not closed")
	}
	if err := s.state.do(ctx, func(tx *tx) error { return tx.c.exec(`UPDATE meta SET value = 'another' WHERE key = 'boot'`) }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openAt(t, dir, world(clk))
	if closedUntil() {
		t.Error("a bucket of an earlier boot is used")
	}
}

func remove(which ...int) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		for _, i := range which {
			if err := os.Remove(filepath.Join(dir, fileNames[i])); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func copyOver(t *testing.T, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".copy", b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".copy", path); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, path string, from int64) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if n := info.Size() - from; n > 0 {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xAA}, int(n)), from); err != nil {
			t.Fatal(err)
		}
	}
}
