package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hayrick"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/mem"
	"hayrick/worker"
)

// faultRig is a job of two tasks that meets everything: tries that fail, an item
// that is gone, a journal, a hand-back at the deadline, two items in flight.
func faultRig(t *testing.T) *rig {
	var r *rig
	var late atomic.Bool
	r = newRig(t, words(8), 4, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		r.clock.pass(150 * time.Millisecond)
		switch {
		case it.Ordinal == 1 && it.Try == 1:
			return jobs.Fail("busy", "once")
		case it.Ordinal == 2:
			return jobs.Outcome{Class: "gone", Disposition: hayrick.Permanent}
		case it.Ordinal == 7 && late.CompareAndSwap(false, true):
			r.clock.fire(taskTimeout)
			<-ctx.Done()
			return jobs.Fail("stopped", "%v", ctx.Err())
		}
		return echo(ctx, it, emit)
	}, func(d *hayrick.JobDefinition) { d.Run.ItemsInFlight = 2 })
	return r
}

// toTheEnd works on the queue, as one process after the other, until every task has
// its result; what fails is tried again when its message comes again, and a task
// without one gets one, as by a sweep.
func (r *rig) toTheEnd() {
	r.t.Helper()
	ctx := r.t.Context()
	for range 100 {
		ds, _ := r.mem.Receive(ctx, hayrick.QueueTasks, 1, time.Minute, 5*time.Minute)
		for _, d := range ds {
			if d.Role != hayrick.RoleWorker {
				_ = r.mem.Ack(ctx, hayrick.QueueTasks, d)
				continue
			}
			if v, err := r.worker("w").Attempt(ctx, d); err == nil && v.Ack {
				_ = r.mem.Ack(ctx, hayrick.QueueTasks, d)
			} else {
				_ = r.mem.Extend(ctx, hayrick.QueueTasks, v.Again, d)
			}
		}
		ended := len(ds) == 0
		for n := range r.tasks {
			if r.dones(n) == 0 {
				ended = false
				if len(ds) == 0 {
					_ = r.mem.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: r.message(n)})
				}
			}
		}
		if ended {
			return
		}
	}
	r.t.Fatal("the tasks do not end")
}

// check says what must hold whatever went wrong.
func (r *rig) check() {
	r.t.Helper()
	for n, want := range []string{"0 1 3", "4 5 6 7"} {
		n := int64(n)
		if got := r.column(n, "n"); got != want || r.dones(n) != 1 {
			r.t.Errorf("task %d: rows %s, %d commits", n, got, r.dones(n))
		}
	}
	if lines, _ := r.failures(0); len(lines) != 1 || lines[0].Class != "gone" || lines[0].Losses != 0 {
		r.t.Errorf("%+v", lines)
	}
	if bad := r.mem.Illegal(); len(bad) > 0 {
		r.t.Errorf("illegal writes: %v", bad)
	}
}

// Every call of a port fails once: in each way the job's rows are the same, each
// once, and nobody has to wait for a lease.
func TestEveryPortCallFailsOnce(t *testing.T) {
	calm := faultRig(t)
	before := total(calm.mem)
	calm.toTheEnd()
	calm.check()
	calls := total(calm.mem) - before
	for name, fault := range map[string]mem.Fault{
		"error": {ErrBefore: errBroken}, "undecided": {ErrBefore: fmt.Errorf("409: %w", hayrick.ErrUnknown)},
		"lost answer": {ErrAfter: errBroken}, "twice": {Duplicate: true},
	} {
		for n := range calls {
			r := faultRig(t)
			at := total(r.mem) + 1 + n
			var met mem.Call
			r.mem.Hook = func(c mem.Call) mem.Fault {
				if c.N != at || c.Op == "Send" && name == "twice" {
					return mem.Fault{}
				}
				met = c
				return fault
			}
			r.toTheEnd()
			r.mem.Hook = nil
			r.check()
			for task := range r.tasks {
				// A release that failed is the one error that looks like a vanished attempt; claims
				// of other attempts than the task's own are of messages too many.
				if c := r.claim(task); c.Vanished != 0 && c.Attempt == r.result(task).Attempt && (met.Op != "UpdateClaim" || name != "error") {
					t.Errorf("an error counts as a vanished attempt: %+v", c)
				}
			}
			if t.Failed() {
				t.Fatalf("%s at %v", name, met)
			}
		}
	}
	t.Logf("%d calls", calls)
}

func total(s *mem.Store) (n int) {
	for _, c := range s.Calls() {
		n += c
	}
	return n
}

// Every operation on the scratch disk fails once: it costs time.
func TestScratchFailsOnce(t *testing.T) {
	for n := 1; ; n++ {
		r := faultRig(t)
		f := &flaky{Journals: worker.FileJournals{Dir: t.TempDir(), BootID: "boot-1"}, at: int64(n)}
		r.journals.Journals = f
		r.toTheEnd()
		r.check()
		if f.n.Load() < f.at {
			t.Logf("%d operations", n-1)
			if n < 10 { // entries that come close together are one operation
				t.Errorf("only %d operations: the journals are not used", n-1)
			}
			return
		}
		if t.Failed() {
			t.Fatalf("operation %d: %s", n, f.met)
		}
	}
}

// flaky fails its at-th operation.
type flaky struct {
	worker.Journals
	at  int64
	n   atomic.Int64
	met string
}

var errDisk = errors.New("no space left on device")

func (f *flaky) fails(op string) error {
	if f.n.Add(1) == f.at {
		f.met = op
		return fmt.Errorf("%s: %w", op, errDisk)
	}
	return nil
}

func (f *flaky) made(op string, do func() (worker.Journal, error)) (worker.Journal, error) {
	if err := f.fails(op); err != nil {
		return nil, err
	}
	j, err := do()
	if err != nil {
		return nil, err
	}
	return flakyJournal{j, f}, nil
}

func (f *flaky) Open(ctx context.Context, ref hayrick.TaskRef, fp worker.Fingerprint) (worker.Journal, error) {
	return f.made("open", func() (worker.Journal, error) { return f.Journals.Open(ctx, ref, fp) })
}

func (f *flaky) Create(ctx context.Context, ref hayrick.TaskRef, attempt string, fp worker.Fingerprint) (worker.Journal, error) {
	return f.made("create", func() (worker.Journal, error) { return f.Journals.Create(ctx, ref, attempt, fp) })
}

func (f *flaky) Restore(ctx context.Context, ref hayrick.TaskRef, attempt string, fp worker.Fingerprint, snapshot io.Reader) (worker.Journal, error) {
	return f.made("restore", func() (worker.Journal, error) { return f.Journals.Restore(ctx, ref, attempt, fp, snapshot) })
}

func (f *flaky) TempFile(ctx context.Context, ref hayrick.TaskRef, attempt string) (manifest.Temp, error) {
	if err := f.fails("scratch file"); err != nil {
		return nil, err
	}
	return f.Journals.TempFile(ctx, ref, attempt)
}

type flakyJournal struct {
	worker.Journal
	f *flaky
}

func (j flakyJournal) Record(ctx context.Context, es ...worker.Entry) error {
	if err := j.f.fails("record"); err != nil {
		return err
	}
	return j.Journal.Record(ctx, es...)
}

func (j flakyJournal) Each(ctx context.Context, fn func(worker.Entry) error) error {
	if err := j.f.fails("read"); err != nil {
		return err
	}
	return j.Journal.Each(ctx, fn)
}

func (j flakyJournal) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	if err := j.f.fails("snapshot"); err != nil {
		return nil, err
	}
	return j.Journal.Snapshot(ctx)
}

// Jobs builds a job's handler once, for all attempts at once, and closes it.
func TestHandlersAreBuiltOnceAndClosed(t *testing.T) {
	r := newRig(t, words(6), 1, echo, nil)
	h := &closing{handle: echo}
	w := r.worker("w")
	var built atomic.Int64
	w.Jobs.Handlers = jobs.Registry{"h": func(context.Context, jobs.Env) (jobs.Handler, error) { built.Add(1); return h, nil }}
	var all sync.WaitGroup
	for n := range r.tasks {
		all.Go(func() { r.attempt(w, n) })
	}
	all.Wait()
	if err := w.Jobs.Close(); err != nil || built.Load() != 1 || h.closed != 1 {
		t.Errorf("built %d times, closed %d times, %v", built.Load(), h.closed, err)
	}
	if n := r.mem.Calls()["Open"]; n > 2+2*len(r.members.Group.Blocks)*int(r.tasks)+int(r.tasks) {
		t.Errorf("%d reads", n)
	}
}

type closing struct {
	handle
	closed int
}

func (c *closing) Close() error { c.closed++; return nil }
