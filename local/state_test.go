package local

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// childRace claims tasks that nobody else claims until stdin ends, from several
// goroutines, and says now and then how many it has.
func childRace(dir string, args []string) error {
	s, err := childStore(dir)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(stop) }()
	var mu sync.Mutex
	n := 0
	failed := make(chan error, 8)
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					failed <- nil
					return
				default:
				}
				_, err := s.Claim(context.Background(), hayrick.ClaimAsk{
					TaskRef: hayrick.TaskRef{JobID: "race", TaskID: fmt.Sprintf("task-%d-%d-%d", os.Getpid(), w, i)}, Attempt: "a", Lease: time.Minute,
				})
				if err != nil {
					failed <- err
					return
				}
				mu.Lock()
				if n++; n%500 == 0 {
					fmt.Println(n)
				}
				mu.Unlock()
			}
		}()
	}
	for range 8 {
		err = errors.Join(err, <-failed)
	}
	fmt.Println(n)
	return errors.Join(err, s.Close())
}

// Four processes write at once: when one has done its share, the others have done a
// good part of theirs.
func TestNoProcessStarves(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	const share = 4000
	var cs []*child
	for range 4 {
		c := start(t, "race", dir)
		if !c.out.Scan() { // all are at work
			t.Fatal("a child did nothing:", c.err.String())
		}
		cs = append(cs, c)
	}
	first := 0
	for first < share && cs[0].out.Scan() {
		first, _ = strconv.Atoi(cs[0].out.Text())
	}
	for _, c := range cs {
		c.in.Close()
	}
	least, most, total := 1<<30, 0, 0
	for _, c := range cs {
		lines := c.lines()
		if err := c.Wait(); err != nil {
			t.Fatal(err, c.err.String())
		}
		n, err := strconv.Atoi(lines[len(lines)-1])
		if err != nil {
			t.Fatal(err)
		}
		least, most, total = min(least, n), max(most, n), total+n
	}
	t.Logf("4 processes: %d claims, the slowest %d, the fastest %d", total, least, most)
	if least < most/10 {
		t.Errorf("the slowest of four processes made %d claims, the fastest %d", least, most)
	}
	s := openAt(t, dir, hayrick.RealWorld("test"))
	var stored int64
	if err := s.state.read(t.Context(), func(c *conn) error {
		row, err := c.one(`SELECT count(*) FROM claims`)
		stored = row[0].(int64)
		return err
	}); err != nil || stored != int64(total) {
		t.Errorf("%d claims are stored, %d were made; %v", stored, total, err)
	}
}

// blocking is a clock on which time does not pass: only who is woken goes on.
type blocking struct{ *clock }

func (blocking) Sleep(ctx context.Context, _ time.Duration) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestSendWakesReceivers(t *testing.T) {
	s := openAt(t, t.TempDir(), world(blocking{newClock()}))
	got := make(chan hayrick.Delivery)
	for range 2 {
		go func() {
			ds, err := s.Receive(context.Background(), hayrick.QueueTasks, 1, time.Minute, time.Hour)
			if err != nil || len(ds) != 1 {
				t.Errorf("received %+v, %v", ds, err)
				ds = make([]hayrick.Delivery, 1)
			}
			got <- ds[0]
		}()
	}
	for i := range 2 {
		if err := s.Send(t.Context(), hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "j", TaskID: manifest.TaskID(int64(i))}}); err != nil {
			t.Fatal(err)
		}
	}
	first := <-got
	if second := <-got; first.TaskID == second.TaskID {
		t.Errorf("both received %s", first.TaskID)
	}
	// Shown again at once, it wakes as well.
	go func() {
		ds, err := s.Receive(context.Background(), hayrick.QueueTasks, 1, time.Minute, time.Hour)
		if err != nil || len(ds) != 1 {
			t.Errorf("received %+v, %v", ds, err)
			ds = make([]hayrick.Delivery, 1)
		}
		got <- ds[0]
	}()
	if err := s.Extend(t.Context(), hayrick.QueueTasks, 0, first); err != nil {
		t.Fatal(err)
	}
	if again := <-got; again.TaskID != first.TaskID || again.Count != 2 {
		t.Errorf("received %+v", again)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := s.Receive(ctx, hayrick.QueueTasks, 1, time.Minute, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled wait answers %v", err)
	}
}

// Queued messages lie on disk: a long queue takes no memory, and no call
// scans it.
// 002-53 (no full-table scans)
func TestDepthCostsNothing(t *testing.T) {
	s, ctx := openAt(t, t.TempDir(), hayrick.RealWorld("test")), t.Context()
	send := func(n int) {
		for i := 0; i < n; i += 1000 {
			var out []hayrick.Outgoing
			for k := range 1000 {
				out = append(out, hayrick.Outgoing{Message: hayrick.Message{JobID: "depth", Role: hayrick.RoleWorker, Group: hayrick.GroupInitial, Block: i / 256, TaskID: manifest.TaskID(int64(i + k))}})
			}
			if err := s.Send(ctx, hayrick.QueueTasks, out...); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(20_000) // buffers and caches have their size
	before := rss(t)
	send(100_000)
	if grown := rss(t) - before; grown > 32<<20 {
		t.Errorf("100,000 messages took %d MiB of memory", grown>>20)
	}
	if n, err := s.Depth(ctx, hayrick.QueueTasks, "depth"); err != nil || n.Messages != 120_000 {
		t.Errorf("depth is %+v, %v", n, err)
	}
	for _, q := range []string{
		`SELECT id, job, body, receives FROM messages WHERE queue = ? AND visible <= ? ORDER BY visible, id LIMIT ?`,
		`SELECT 1 FROM messages WHERE queue = ? AND visible <= ? LIMIT 1`,
		`UPDATE messages SET visible = ?, proc = NULL WHERE queue = ? AND visible > ? AND proc = ?`,
		`DELETE FROM messages WHERE id = ? AND queue = ?`,
		`SELECT n FROM depths WHERE queue = ? AND job = ?`,
		`SELECT total, done, counts, block FROM blocks WHERE block >= ? AND block < ?`,
		selectClaim,
	} {
		var plan []string
		if err := s.state.read(ctx, func(c *conn) error {
			return c.each(func(row []driver.Value) error {
				plan = append(plan, row[3].(string))
				return nil
			}, "EXPLAIN QUERY PLAN "+q, make([]any, strings.Count(q, "?"))...)
		}); err != nil {
			t.Fatal(err)
		}
		if len(plan) != 1 || !strings.HasPrefix(plan[0], "SEARCH ") {
			t.Errorf("%s: %q", q, plan)
		}
	}
}

// rss is the memory of this process in bytes.
func rss(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// A call whose caller gives up before it is carried out has no effect, and those
// beside it do.
func TestGroupMembersAreIndependent(t *testing.T) {
	s, ctx := openAt(t, t.TempDir(), hayrick.RealWorld("test")), t.Context()
	begun, release := make(chan struct{}), make(chan struct{})
	go s.state.do(ctx, func(*tx) error { close(begun); <-release; return nil }) // the next ones are a group
	<-begun
	gone, cancel := context.WithCancel(ctx)
	ask := func(ctx context.Context, task, attempt string) chan error {
		answer := make(chan error, 1)
		go func() {
			_, err := s.Claim(ctx, hayrick.ClaimAsk{TaskRef: hayrick.TaskRef{JobID: "j", TaskID: task}, Attempt: attempt, Lease: time.Hour})
			answer <- err
		}()
		return answer
	}
	a, b, c := ask(ctx, "task-1", "a"), ask(ctx, "task-1", "b"), ask(gone, "task-2", "c")
	cancel()
	if err := <-c; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up hears %v", err)
	}
	close(release)
	errA, errB := <-a, <-b
	if (errA == nil) == (errB == nil) || !errors.Is(errors.Join(errA, errB), hayrick.ErrConflict) {
		t.Errorf("of two claims: %v, %v", errA, errB)
	}
	if _, _, err := s.ReadClaim(ctx, hayrick.TaskRef{JobID: "j", TaskID: "task-2"}); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("the claim of who gave up reads %v", err)
	}
}
