package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/jobs"
	"hayrick/mem"
	"hayrick/worker"
)

// pool is a pool of one slot whose deliveries do carries out, and that ends when
// nothing is left to do.
func (r *rig) pool(do worker.Do) *worker.Pool {
	return &worker.Pool{
		Queue: r.mem, World: r.clock.world("pool"), Log: r.log, Slots: 1, Visibility: visibility,
		Do:   map[hayrick.Role]worker.Do{hayrick.RoleWorker: do, hayrick.RoleRetryPlanner: done},
		Idle: func(context.Context) bool { return true },
	}
}

func done(context.Context, hayrick.Delivery) (worker.Verdict, error) {
	return worker.Verdict{Ack: true}, nil
}

func (r *rig) run(p *worker.Pool) {
	r.t.Helper()
	r.must(p.Run(r.t.Context()))
}

// visible receives what can be received now, for good.
func (r *rig) visible(queue string) (ids []string) {
	r.t.Helper()
	ds, err := r.mem.Receive(r.t.Context(), queue, 1000, 1<<62, 0)
	r.must(err)
	for _, d := range ds {
		ids = append(ids, d.TaskID)
	}
	slices.Sort(ids)
	return ids
}

func (r *rig) depth() int {
	r.t.Helper()
	d, err := r.mem.Depth(r.t.Context(), hayrick.QueueTasks, jobID)
	r.must(err)
	return d.Messages
}

// Short tasks are received and acknowledged by the group.
func TestPoolWorksInGroups(t *testing.T) {
	const tasks = 100
	r := newRig(t, words(tasks), 1, echo, nil)
	var seen []string
	r.run(r.pool(func(_ context.Context, d hayrick.Delivery) (worker.Verdict, error) {
		seen = append(seen, d.TaskID)
		return worker.Verdict{Ack: true}, nil
	}))
	slices.Sort(seen)
	if len(slices.Compact(seen)) != tasks || r.depth() != 0 {
		t.Errorf("%d tasks done, %d messages left", len(seen), r.depth())
	}
	calls := r.mem.Calls()
	if n := calls["Receive"] + calls["Ack"]; n > 4*tasks/10 {
		t.Errorf("%d calls for %d messages: %v", n, tasks, calls)
	}
	if calls["Extend"] != 0 {
		t.Errorf("%d messages shown again", calls["Extend"])
	}
}

// Until tasks are known to be short, nothing is taken that has no free slot: others
// may have one.
func TestPoolTakesNoMoreThanItCanDo(t *testing.T) {
	r := newRig(t, words(9), 1, echo, nil)
	begun, end := make(chan struct{}, 3), make(chan struct{})
	p := r.pool(func(_ context.Context, d hayrick.Delivery) (worker.Verdict, error) {
		select {
		case begun <- struct{}{}:
		default: // the time flies while the pool looks for more: one may come again
		}
		<-end
		return worker.Verdict{Ack: true}, nil
	})
	p.Slots = 3
	var ended sync.WaitGroup
	ended.Go(func() { r.run(p) })
	for range 3 {
		<-begun
	}
	if left := r.visible(hayrick.QueueTasks); len(left) != 6 {
		t.Errorf("left for others: %v", left)
	}
	close(end)
	ended.Wait()
	if r.depth() != 6 {
		t.Errorf("%d messages", r.depth())
	}
}

// What is worked on stays hidden, however long it takes. What waits behind it is
// given back to others, and not done twice.
func TestPoolKeepsWhatItWorksOn(t *testing.T) {
	r := newRig(t, words(11), 1, echo, nil)
	begun, end := make(chan struct{}), make(chan struct{})
	var seen []string
	var ended sync.WaitGroup
	ended.Go(func() {
		r.run(r.pool(func(_ context.Context, d hayrick.Delivery) (worker.Verdict, error) {
			seen = append(seen, d.TaskID)
			if len(seen) == 3 { // after two short ones a group of ten is in hand
				close(begun)
				<-end
			}
			return worker.Verdict{Ack: true}, nil
		}))
	})
	<-begun
	r.clock.fire(visibility / 3)
	r.clock.await(visibility / 3)
	if got := r.visible(hayrick.QueueTasks); len(got) != 0 {
		t.Errorf("shown after a third of the visibility: %v", got)
	}
	r.clock.fire(visibility / 3)
	r.clock.await(visibility / 3)
	given := r.visible(hayrick.QueueTasks) // another pool has them now
	if len(given) != 8 {
		t.Errorf("given back: %v", given)
	}
	for range 9 {
		r.clock.fire(visibility / 3)
		r.clock.await(visibility / 3)
	}
	if got := r.visible(hayrick.QueueTasks); len(got) != 0 {
		t.Errorf("shown while it is worked on: %v", got)
	}
	if r.depth() != 9 { // what is acknowledged does not wait for a whole group
		t.Errorf("%d messages, want the one in hand and those of the other pool", r.depth())
	}
	close(end)
	ended.Wait()
	if len(seen) != 3 || slices.Contains(given, seen[2]) {
		t.Errorf("done %v, given back %v", seen, given)
	}
	if r.depth() != 8 {
		t.Errorf("%d messages", r.depth())
	}
}

// A drain ends what is worked on; what waits is shown to others at once.
func TestPoolDrains(t *testing.T) {
	r := newRig(t, words(20), 1, echo, nil)
	drain := make(chan struct{})
	var seen []string
	p := r.pool(func(_ context.Context, d hayrick.Delivery) (worker.Verdict, error) {
		if seen = append(seen, d.TaskID); len(seen) == 3 {
			close(drain)
		}
		return worker.Verdict{Ack: true}, nil
	})
	p.Drain = drain
	p.Idle = nil // nothing but the drain ends it
	r.run(p)
	if got := r.visible(hayrick.QueueTasks); len(seen) != 3 || len(got) != 17 || r.depth() != 17 {
		t.Errorf("done %v, to be done %v of %d", seen, got, r.depth())
	}
}

// A drain ends the wait for messages too, and an interrupt does.
func TestPoolStopsWaiting(t *testing.T) {
	r := newRig(t, words(1), 1, echo, nil)
	for name, stop := range map[string]func(p *worker.Pool, waiting func(func())) context.Context{
		"drain": func(p *worker.Pool, waiting func(func())) context.Context {
			drain := make(chan struct{})
			p.Drain = drain
			waiting(func() { close(drain) })
			return t.Context()
		},
		"interrupt": func(p *worker.Pool, waiting func(func())) context.Context {
			ctx, cancel := context.WithCancel(t.Context())
			waiting(cancel)
			return ctx
		},
	} {
		p := r.pool(done)
		p.Idle = nil
		q := &waitingQueue{Queue: r.mem}
		p.Queue = q
		ctx := stop(p, func(f func()) { q.then = f })
		if err := p.Run(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// waitingQueue has no messages: whoever receives waits until ctx ends.
type waitingQueue struct {
	worker.Queue
	then func()
}

func (q *waitingQueue) Receive(ctx context.Context, _ string, _ int, _, _ time.Duration) ([]hayrick.Delivery, error) {
	q.then()
	<-ctx.Done()
	return nil, ctx.Err()
}

// What a verdict says becomes of the message; one of a role that the process does
// not play is left to others.
func TestPoolFollowsTheVerdict(t *testing.T) {
	r := newRig(t, words(3), 1, echo, nil)
	r.must(r.mem.Send(t.Context(), hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: jobID, Role: hayrick.RoleAggregator, TaskID: "agg-0"}}))
	r.run(r.pool(func(_ context.Context, d hayrick.Delivery) (worker.Verdict, error) {
		switch d.TaskID {
		case "task-0000":
			return worker.Verdict{Again: time.Hour, Because: "later"}, nil
		case "task-0001": // no role says so; but what failed has not ended
			return worker.Verdict{Ack: true, Again: 2 * time.Hour}, errBroken
		}
		return worker.Verdict{Ack: true}, nil
	}))
	for _, c := range []struct {
		later time.Duration
		want  string
	}{
		{0, ""}, {time.Minute, "agg-0"}, {time.Hour, "task-0000"}, {time.Hour, "task-0001"},
	} {
		r.clock.pass(c.later)
		if got := strings.Join(r.visible(hayrick.QueueTasks), " "); got != c.want {
			t.Errorf("%v later: %q, want %q", c.later, got, c.want)
		}
	}
	if r.depth() != 3 {
		t.Errorf("%d messages", r.depth())
	}
}

// A role that nobody here has is told of once, however many ask for it and however
// often; the messages stay.
func TestPoolTellsOfUnknownRoles(t *testing.T) {
	r := newRig(t, words(1), 1, echo, nil)
	var said strings.Builder
	for _, id := range []string{"a", "b"} {
		r.must(r.mem.Send(t.Context(), hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: jobID, Role: "gardener", TaskID: id}}))
	}
	p := r.pool(done)
	p.Log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))
	seen := 0
	p.Queue = &countingQueue{Queue: r.mem, empty: func(n int) { r.clock.pass(time.Minute); seen = n }}
	p.Idle = func(context.Context) bool { return seen > 3 }
	r.run(p)
	if n := strings.Count(said.String(), "role=gardener"); n != 1 || r.depth() != 2 {
		t.Errorf("told %d times, %d messages are left\n%s", n, r.depth(), &said)
	}
}

// A process that dies before it acknowledges: the messages come again, the tasks are
// found done.
func TestPoolThatDiesBeforeItAcknowledges(t *testing.T) {
	var seen calls
	r := newRig(t, words(12), 1, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		seen.add(it.Ordinal)
		return echo(ctx, it, emit)
	}, nil)
	r.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "Ack" {
			return mem.Fault{ErrBefore: errBroken}
		}
		return mem.Fault{}
	}
	r.run(r.pool(r.worker("w1").Attempt))
	if r.depth() < 12 {
		t.Fatalf("%d messages", r.depth())
	}
	r.mem.Hook = nil
	r.clock.pass(time.Hour)
	r.run(r.pool(r.worker("w2").Attempt))
	if r.depth() != 0 {
		t.Errorf("%d messages are left", r.depth())
	}
	for n := range r.tasks {
		if seen.of(n) != 1 || r.dones(n) != 1 {
			t.Errorf("task %d: run %d times, %d commits", n, seen.of(n), r.dones(n))
		}
	}
}

// A queue that fails is asked again.
func TestPoolOutlivesItsQueue(t *testing.T) {
	r := newRig(t, words(5), 1, echo, nil)
	fails := 0
	r.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "Receive" && fails < 3 {
			fails++
			return mem.Fault{ErrBefore: errBroken}
		}
		return mem.Fault{}
	}
	r.run(r.pool(done))
	if r.depth() != 0 {
		t.Errorf("%d messages are left", r.depth())
	}
}

// Idle is asked only when nothing is in hand.
func TestPoolIsIdleOnlyWithEmptyHands(t *testing.T) {
	r := newRig(t, words(1), 1, echo, nil)
	inHand := make(chan struct{})
	p := r.pool(func(context.Context, hayrick.Delivery) (worker.Verdict, error) {
		<-inHand
		return worker.Verdict{Ack: true}, nil
	})
	p.Slots = 2
	q := &countingQueue{Queue: r.mem, empty: func(n int) {
		if n == 5 { // five looks in vain while it works
			close(inHand)
		}
	}}
	p.Queue = q
	p.Idle = func(context.Context) bool {
		if r.depth() != 0 {
			t.Error("idle with a message in hand or not acknowledged")
		}
		return true
	}
	r.run(p)
	if q.n < 5 {
		t.Errorf("%d looks in vain", q.n)
	}
}

type countingQueue struct {
	worker.Queue
	n     int
	empty func(n int)
}

func (q *countingQueue) Receive(ctx context.Context, name string, most int, hidden, _ time.Duration) ([]hayrick.Delivery, error) {
	ds, err := q.Queue.Receive(ctx, name, most, hidden, 0) // no wait: the time stands still
	if len(ds) == 0 && err == nil {
		q.n++
		q.empty(q.n)
	}
	return ds, err
}

// Two pools on one queue in which every message is there twice: every task has one
// commit, and its rows once. (Run with -race.)
func TestTwoPoolsShareAQueue(t *testing.T) {
	const tasks = 60
	r := newRig(t, words(2*tasks), 2, echo, func(d *hayrick.JobDefinition) { d.Run.ItemsInFlight = 2 })
	for n := range r.tasks {
		r.must(r.mem.Send(t.Context(), hayrick.QueueTasks, hayrick.Outgoing{Message: r.message(n)}))
	}
	var both sync.WaitGroup
	for i := range 2 {
		p := r.pool(r.worker(fmt.Sprintf("w%d", i)).Attempt)
		p.Slots = 3
		p.Idle = func(context.Context) bool { return r.depth() == 0 }
		both.Go(func() { r.run(p) })
	}
	both.Wait()
	for n := range r.tasks {
		if r.dones(n) != 1 {
			t.Errorf("task %d: %d commits", n, r.dones(n))
		}
		if got, want := r.column(n, "n"), fmt.Sprintf("%d %d", 2*n, 2*n+1); got != want {
			t.Errorf("task %d: rows %s, want %s", n, got, want)
		}
	}
	if bad := r.mem.Illegal(); len(bad) > 0 {
		t.Errorf("illegal writes: %v", bad)
	}
	blocks, err := r.mem.Blocks(t.Context(), jobID, 0, hayrick.GroupInitial)
	r.must(err)
	if len(blocks) != 1 || !blocks[0].Full() || blocks[0].OK != 2*tasks {
		t.Errorf("%+v", blocks)
	}
}

// brokenQueue is a queue that cannot be received from for a while.
type brokenQueue struct {
	worker.Queue
	errs []error // one a call
}

func (q *brokenQueue) Receive(ctx context.Context, queue string, max int, visibility, wait time.Duration) ([]hayrick.Delivery, error) {
	if len(q.errs) > 0 {
		err := q.errs[0]
		q.errs = q.errs[1:]
		return nil, err
	}
	return q.Queue.Receive(ctx, queue, max, visibility, wait)
}

// A queue that fails is asked again, until an error says that it is of no use.
func TestPoolGivesUp(t *testing.T) {
	r := newRig(t, words(3), 1, echo, nil)
	away, refused := errors.New("no answer"), errors.New("not allowed")
	n := 0
	p := r.pool(func(context.Context, hayrick.Delivery) (worker.Verdict, error) {
		n++
		return worker.Verdict{Ack: true}, nil
	})
	p.GiveUp = func(err error) bool { return errors.Is(err, refused) }
	p.Queue = &brokenQueue{Queue: r.mem, errs: []error{away, away}}
	r.run(p)
	if n != 3 {
		t.Errorf("%d of 3 tasks", n)
	}
	p.Queue = &brokenQueue{Queue: r.mem, errs: []error{away, refused}}
	if err := p.Run(t.Context()); !errors.Is(err, refused) {
		t.Errorf("it goes on: %v", err)
	}
}
