package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
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

// mortal delivers task n and lets the process die where a handler says so.
func (r *rig) mortal(w *worker.Worker, n int64) (v worker.Verdict, died bool) {
	r.t.Helper()
	w.World.Go = func(name string, f func()) {
		if name == "handle" {
			f() // so that its crash ends the attempt, and not the tests
		} else {
			go f()
		}
	}
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(mem.Crash); !ok {
				panic(p)
			}
			r.mem.Kill(w.World.Worker)
			r.journals.Journals.(*worker.MemJournals).Unlock()
			died = true
		}
	}()
	return r.attempt(w, n), false
}

// After two vanished attempts the items are run one at a time, each as a loss on
// record while it is in hand. Whatever vanished, a batch whose items are handed out
// is not idle.
func TestSoloAfterTwoVanishedAttempts(t *testing.T) {
	for vanished := range 4 {
		var r *rig
		var inHand, most atomic.Int64
		var lost []string
		var together sync.WaitGroup
		together.Add(2)
		r = newRig(t, words(2), 2, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
			most.Store(max(most.Load(), inHand.Add(1)))
			defer inHand.Add(-1)
			if vanished < 2 { // both at once: each waits for the other
				together.Done()
				together.Wait()
			} else {
				c := r.claim(0)
				lost = append(lost, fmt.Sprintf("%v idle=%d", c.Lost, c.Idle))
			}
			return echo(ctx, it, emit)
		}, func(d *hayrick.JobDefinition) { d.Run.ItemsInFlight = 2 })
		for range vanished {
			r.vanish(0)
		}
		r.attempt(r.worker("w"), 0)
		c := r.claim(0)
		if vanished < 2 {
			if c.Idle != 0 || len(c.Lost) != 0 {
				t.Errorf("%d vanished: %+v", vanished, c)
			}
			continue
		}
		if most.Load() != 1 || strings.Join(lost, "; ") != "map[0:1] idle=0; map[1:1] idle=0" || len(c.Lost) != 0 || c.Vanished != vanished {
			t.Errorf("%d vanished: %d at once, in hand %v, then %+v", vanished, most.Load(), lost, c)
		}
	}
}

// Five attempts that vanish before any item was handed out: the batch as a whole is
// FAILED, by the claimant that finds it so, and not run.
func TestBatchThatNeverStartsFails(t *testing.T) {
	r := newRig(t, words(2), 2, func(context.Context, jobs.Item, jobs.Emit) jobs.Outcome {
		t.Error("an item is run")
		return jobs.OK()
	}, nil)
	for range 5 {
		r.vanish(0)
	}
	if v := r.attempt(r.worker("w"), 0); !v.Ack {
		t.Fatalf("%+v", v)
	}
	res := r.result(0)
	if res.Status != "FAILED" || res.Failed != 2 || res.Task.Error == nil || res.Task.Error.Class != hayrick.ClassBatchFailed ||
		res.Task.Error.Message != "5 attempts vanished before an item was handed out" || res.Fence != 6 {
		t.Errorf("%+v %+v", res, res.Task.Error)
	}
}

// The attempt that finds the bound reached loses against a DONE that came first.
func TestDoneThatComesFirstWinsOverFailed(t *testing.T) {
	r := newRig(t, words(2), 2, echo, nil)
	r.attempt(r.worker("w"), 0)
	r.clock.pass(2 * lease)
	for range 5 {
		r.vanish(0)
	}
	// The zombie's commit comes between the look for it and the claimant's own.
	var hidden atomic.Bool
	r.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "Open" && strings.HasSuffix(c.Key, "results.done") && hidden.CompareAndSwap(false, true) {
			return mem.Fault{ErrBefore: hayrick.ErrNotFound}
		}
		return mem.Fault{}
	}
	if v := r.attempt(r.worker("w2"), 0); !v.Ack || v.Because != "another attempt was first" {
		t.Errorf("%+v", v)
	}
	if res := r.result(0); res.Status != "DONE" || res.OK != 2 {
		t.Errorf("%+v", res)
	}
}

// An item that takes five workers down while it is alone in hand is listed as
// lost_worker; a loss costs no try; and the others are run. What has ended is saved
// for another machine at once.
func TestItemThatTakesWorkersDown(t *testing.T) {
	var seen calls
	r := newRig(t, words(3), 3, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		seen.add(it.Ordinal)
		if it.Ordinal == 1 {
			panic(mem.Crash{})
		}
		if it.Try != 1 {
			t.Errorf("item %d: try %d", it.Ordinal, it.Try)
		}
		return echo(ctx, it, emit)
	}, nil)
	r.journals.Journals = &worker.MemJournals{}
	deaths := 0
	for ; deaths < 20; deaths++ {
		v, died := r.mortal(r.worker(fmt.Sprintf("w%d", deaths)), 0)
		if !died {
			if v.Because != "done" {
				t.Fatalf("%+v", v)
			}
			break
		}
	}
	if deaths != 7 || seen.of(1) != 7 { // two before it was known, five alone
		t.Errorf("%d deaths, %d runs of the item", deaths, seen.of(1))
	}
	lines, _ := r.failures(0)
	if len(lines) != 1 || lines[0].Class != hayrick.ClassLostWorker || lines[0].Disposition != string(hayrick.Infra) || lines[0].Tries != 0 || lines[0].Losses != 5 {
		t.Errorf("%+v", lines)
	}
	if got := r.column(0, "n"); got != "0 2" {
		t.Errorf("rows: %s", got)
	}
	if got := strings.Join(r.checkpoints(0), " "); got != "2" { // item 0, and the lost one
		t.Errorf("checkpoints: %s", got)
	}
}

// Losses add up also when the item lives on: an item that took three workers down
// and then fails says so.
func TestLossesOfAnItemThatLives(t *testing.T) {
	var seen calls
	r := newRig(t, words(1), 1, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		switch n := seen.add(it.Ordinal); {
		case n <= 4 || n == 6:
			panic(mem.Crash{})
		}
		return jobs.Fail("busy", "try %d", it.Try)
	}, func(d *hayrick.JobDefinition) { d.Retry.InTask.Attempts = 2 })
	r.journals.Journals = &worker.MemJournals{}
	for i := range 6 {
		_, died := r.mortal(r.worker(fmt.Sprintf("w%d", i)), 0)
		if died != (i < 5) {
			t.Fatalf("attempt %d: died %t", i, died)
		}
	}
	// Two deaths before it was alone, two alone, a failed try that went with the third,
	// and two failed tries.
	lines, _ := r.failures(0)
	if len(lines) != 1 || lines[0].Class != "busy" || lines[0].Losses != 3 || lines[0].Tries != 2 {
		t.Errorf("%+v", lines)
	}
}

// zombie runs an attempt that stalls in its first item past its lease, while
// meanwhile is what others do; then it goes on.
func (r *rig) zombie(name string, meanwhile func()) worker.Verdict {
	r.t.Helper()
	w := r.worker(name)
	next := r.handler
	var once sync.Once
	r.handler = func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		once.Do(func() {
			r.clock.pass(2 * lease)
			r.handler = next
			meanwhile()
		})
		return next(ctx, it, emit)
	}
	return r.attempt(w, 0)
}

// dones are the commits of a task that were stored.
func (r *rig) dones(n int64) (count int) {
	for _, c := range r.mem.Commits() {
		if c.Key == manifest.Job(jobID).Done(manifest.TaskID(n)) {
			count++
		}
	}
	return count
}

// Two attempts of one task at once, the lease of the first one having run out: the
// task has one visible result, which names nothing of the other's.
//
// 002-15 (one batch, many attempts)
func TestZombies(t *testing.T) {
	for name, c := range map[string]struct {
		stall   func(*rig) // in the second attempt, so that the first comes first
		because []string   // the zombie's verdict, the second one's
	}{
		"the zombie is late":  {nil, []string{"another attempt was first", "done"}},
		"the zombie is first": {func(*rig) {}, []string{"done", "another attempt was first"}},
	} {
		for _, size := range []int{10, 100_000} { // from memory, with a journal each
			t.Run(fmt.Sprintf("%s, %d bytes", name, size), func(t *testing.T) {
				dir := t.TempDir()
				r := newRig(t, words(3), 3, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
					_ = emit(jobs.Row{{Name: "n", Value: it.Ordinal}, {Name: "text", Value: strings.Repeat("x", size)}})
					return jobs.OK()
				}, nil)
				r.journals.Journals = worker.FileJournals{Dir: dir, BootID: "boot-1"}
				var second worker.Verdict
				var first worker.Verdict
				if c.stall == nil {
					first = r.zombie("zombie", func() { second = r.attempt(r.worker("w"), 0) })
				} else {
					// The second attempt has its claim and runs its first item when the zombie wakes and
					// goes on to its end.
					woken, ended := make(chan struct{}), make(chan struct{})
					var both sync.WaitGroup
					first = r.zombie("zombie", func() {
						inner := r.handler
						var once sync.Once
						w := r.worker("w")
						r.handler = func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
							stalled := false
							once.Do(func() { stalled = true })
							if stalled {
								close(woken)
								<-ended
							}
							return inner(ctx, it, emit)
						}
						both.Go(func() { second = r.attempt(w, 0) })
						<-woken
					})
					close(ended)
					both.Wait()
				}
				if first.Because != c.because[0] || second.Because != c.because[1] || !first.Ack || !second.Ack {
					t.Errorf("the zombie: %+v, the second: %+v", first, second)
				}
				if n := r.dones(0); n != 1 {
					t.Errorf("%d commits", n)
				}
				res := r.result(0)
				winner := map[bool]int64{true: 1, false: 2}[c.because[0] == "done"]
				if res.Fence != winner || res.Task.Worker != map[int64]string{1: "zombie", 2: "w"}[winner] {
					t.Errorf("fence %d, worker %s", res.Fence, res.Task.Worker)
				}
				if got := r.column(0, "n"); got != "0 1 2" {
					t.Errorf("rows: %s", got)
				}
				m := r.fields(manifest.Job(jobID).TaskManifest("task-0000"))
				if m["retries"] != float64(winner-1) {
					t.Errorf("the view is of the other attempt: %v", m)
				}
				if bad := r.mem.Illegal(); len(bad) > 0 {
					t.Errorf("illegal writes: %v", bad)
				}
				if blocks, err := r.mem.Blocks(t.Context(), jobID, 0, hayrick.GroupInitial); err != nil || len(blocks) != 1 || blocks[0].OK != 3 {
					t.Errorf("%+v, %v", blocks, err)
				}
				if left := filesIn(t, dir); len(left) != 0 {
					t.Errorf("journals left behind: %v", left)
				}
			})
		}
	}
}

// An answer that is lost is asked for again; what stays undecided is left to the
// next attempt, which reads before it runs.
func TestUndecided(t *testing.T) {
	unknown := fmt.Errorf("409 conflicting operation: %w", hayrick.ErrUnknown)
	fault := func(op, suffix string, times int, f mem.Fault) func(mem.Call) mem.Fault {
		var n atomic.Int64
		return func(c mem.Call) mem.Fault {
			if c.Op == op && strings.HasSuffix(c.Key, suffix) && n.Add(1) <= int64(times) {
				return f
			}
			return mem.Fault{}
		}
	}
	t.Run("the commit's answer is lost", func(t *testing.T) {
		r := newRig(t, words(2), 2, echo, nil)
		r.mem.Hook = fault("Commit", "results.done", 1, mem.Fault{ErrAfter: errBroken})
		if v := r.attempt(r.worker("w"), 0); v.Because != "done" || r.dones(0) != 1 {
			t.Errorf("%+v, %d commits", v, r.dones(0))
		}
	})
	t.Run("the commit stays undecided", func(t *testing.T) {
		var seen calls
		r := newRig(t, words(2), 2, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
			seen.add(it.Ordinal)
			return echo(ctx, it, emit)
		}, nil)
		r.mem.Hook = fault("Commit", "results.done", 1<<30, mem.Fault{ErrBefore: unknown})
		w := r.worker("w")
		v, err := w.Attempt(t.Context(), hayrick.Delivery{Message: r.message(0), Count: 1})
		if v.Ack || !errors.Is(err, hayrick.ErrUnknown) {
			t.Fatalf("%+v, %v", v, err)
		}
		if c := r.claim(0); !c.Until.IsZero() {
			t.Errorf("the claim is kept: %+v", c)
		}
		r.mem.Hook = nil
		if v := r.attempt(w, 0); v.Because != "done" || r.claim(0).Vanished != 0 {
			t.Errorf("%+v, %+v", v, r.claim(0))
		}
	})
	t.Run("the claim's answer is lost", func(t *testing.T) {
		r := newRig(t, words(2), 2, echo, nil)
		r.mem.Hook = fault("Claim", "", 2, mem.Fault{ErrAfter: errBroken})
		if v := r.attempt(r.worker("w"), 0); v.Because != "done" || r.result(0).Fence != 1 {
			t.Errorf("%+v, fence %d", v, r.result(0).Fence)
		}
	})
	t.Run("the claim stays undecided", func(t *testing.T) {
		r := newRig(t, words(2), 2, echo, nil)
		r.mem.Hook = fault("Claim", "", 3, mem.Fault{ErrAfter: errBroken})
		w := r.worker("w")
		if v, err := w.Attempt(t.Context(), hayrick.Delivery{Message: r.message(0), Count: 1}); v.Ack || !errors.Is(err, hayrick.ErrUnknown) {
			t.Fatalf("%+v, %v", v, err)
		}
		if v := r.attempt(w, 0); v.Because != "done" || r.claim(0).Vanished != 0 { // nobody has to wait for the lease
			t.Errorf("%+v, %+v", v, r.claim(0))
		}
	})
	t.Run("the count of a solo item", func(t *testing.T) {
		var seen calls
		r := newRig(t, words(2), 2, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
			seen.add(it.Ordinal)
			return echo(ctx, it, emit)
		}, nil)
		r.vanish(0)
		r.vanish(0)
		// Two answers each are lost before the items, and before the first one; taking that
		// back fails altogether.
		var n atomic.Int64
		r.mem.Hook = func(c mem.Call) mem.Fault {
			if c.Op != "UpdateClaim" {
				return mem.Fault{}
			}
			switch k := n.Add(1); {
			case k != 3 && k <= 5:
				return mem.Fault{ErrAfter: errBroken}
			case k == 7:
				return mem.Fault{ErrBefore: errBroken}
			}
			return mem.Fault{}
		}
		if v := r.attempt(r.worker("w"), 0); v.Because != "done" {
			t.Fatalf("%+v", v)
		}
		if c := r.claim(0); seen.of(0) != 1 || seen.of(1) != 1 || len(c.Lost) != 0 { // the second item's counts mend it
			t.Errorf("calls %v, %+v", seen.n, c)
		}
	})
}

// A redelivery reads the result before anything else. When it cannot be read, the
// message stays.
func TestRedelivery(t *testing.T) {
	var seen calls
	r := newRig(t, words(2), 2, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		seen.add(it.Ordinal)
		return echo(ctx, it, emit)
	}, nil)
	w := r.worker("w")
	redelivery := hayrick.Delivery{Message: r.message(0), Count: 2}
	r.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "Open" && strings.HasSuffix(c.Key, "results.done") {
			return mem.Fault{ErrBefore: errBroken}
		}
		return mem.Fault{}
	}
	if v, err := w.Attempt(t.Context(), redelivery); v.Ack || !errors.Is(err, errBroken) {
		t.Fatalf("%+v, %v", v, err)
	}
	r.vanish(0) // after a vanished attempt a first delivery reads it too
	if v, err := w.Attempt(t.Context(), hayrick.Delivery{Message: r.message(0), Count: 1}); v.Ack || !errors.Is(err, errBroken) {
		t.Fatalf("%+v, %v", v, err)
	}
	if c := r.claim(0); !c.Until.IsZero() {
		t.Errorf("the claim is kept: %+v", c)
	}
	r.mem.Hook = nil
	if v, err := w.Attempt(t.Context(), redelivery); v.Because != "done" || err != nil {
		t.Fatalf("%+v, %v", v, err)
	}
	// The process died after the commit: its journal is still here; there is no view and
	// no mark.
	view := manifest.Job(jobID).TaskManifest("task-0000")
	r.mem.Damage(view, nil)
	j, err := r.journals.Create(t.Context(), r.ref(0), attemptB, r.fingerprint(0))
	r.must(err)
	r.must(j.Close(false))
	r.mem.WipeState()
	if v, err := w.Attempt(t.Context(), redelivery); !v.Ack || v.Because != "already done" || err != nil {
		t.Fatalf("%+v, %v", v, err)
	}
	if blocks, err := r.mem.Blocks(t.Context(), jobID, 0, hayrick.GroupInitial); err != nil || len(blocks) != 1 || blocks[0].OK != 2 {
		t.Errorf("%+v, %v", blocks, err)
	}
	gone(t, journalsOf{r}, r.fingerprint(0))
	if m := r.fields(view); m["status"] != "SUCCESS" {
		t.Errorf("view: %v", m)
	}
	if seen.of(0) != 1 {
		t.Errorf("item 0 was run %d times", seen.of(0))
	}
	// The last member is there: the trigger is sent again, a hint more.
	triggers := 0
	ds, err := r.mem.Receive(t.Context(), hayrick.QueueTasks, 10, time.Minute, 0)
	r.must(err)
	for _, d := range ds {
		if d.Role == hayrick.RoleRetryPlanner {
			triggers++
		}
	}
	if triggers != 2 {
		t.Errorf("%d triggers", triggers)
	}
}

// A task that another attempt holds is left alone; the lease is renewed as long as
// the attempt runs, and losing it does not end the attempt.
func TestLease(t *testing.T) {
	var r *rig
	r = newRig(t, words(1), 1, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		for count, want := range map[int]worker.Verdict{
			1: {Ack: true, Because: "held by w, which has a message of its own"}, // a duplicate
			2: {Again: 2 * lease, Because: "held by w"},                          // perhaps the one that w works on
			5: {Again: 16 * lease, Because: "held by w"},
			9: {Ack: true, Because: "held by w for long"},
		} {
			if v, err := r.worker("other").Attempt(ctx, hayrick.Delivery{Message: r.message(0), Count: count}); v != want || err != nil {
				t.Errorf("delivery %d: %+v, %v", count, v, err)
			}
		}
		until := r.claim(0).Until
		for range 9 {
			r.clock.fire(lease / 3)
			r.clock.await(lease / 3) // it is renewed
		}
		if left := r.claim(0).Until.Sub(r.clock.Now()); !r.claim(0).Until.After(until) || left <= 0 {
			t.Errorf("the lease ends in %v", left)
		}
		r.mem.WipeState()
		r.clock.fire(lease / 3)
		return echo(ctx, it, emit)
	}, nil)
	if v := r.attempt(r.worker("w"), 0); v.Because != "done" {
		t.Errorf("%+v", v)
	}
}

// The worker's entry point keeps nothing between two messages that it needs: a
// process that lives for one message (a Lambda) and one that lives for all of them
// (an array task) come to the same.
//
// 002-36
func TestOneProcessOrOneAMessage(t *testing.T) {
	run := func(next func(r *rig) func() *worker.Worker) map[string]string {
		r := newRig(t, words(9), 3, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
			if it.Ordinal == 4 {
				return jobs.Outcome{Class: "gone", Disposition: hayrick.Permanent}
			}
			return echo(ctx, it, emit)
		}, nil)
		r.drain(next(r))
		out := map[string]string{}
		for n := range r.tasks {
			res := r.result(n)
			out[res.TaskID] = fmt.Sprintf("%s %d ok %d failed %s %s", res.Status, res.OK, res.Failed, res.RowHash, res.SHA256)
		}
		return out
	}
	one := run(func(r *rig) func() *worker.Worker {
		w := r.worker("node-1")
		return func() *worker.Worker { return w }
	})
	many := run(func(r *rig) func() *worker.Worker {
		n := 0
		return func() *worker.Worker {
			n++
			r.journals.Journals = &worker.MemJournals{}
			return r.worker(fmt.Sprintf("lambda-%d", n))
		}
	})
	if !maps.Equal(one, many) || len(one) != 3 {
		t.Errorf("one process: %v\none a message: %v", one, many)
	}
}

// A solo attempt saves what it has every 30 s; that it cannot is no reason to stop.
func TestSoloCheckpoints(t *testing.T) {
	for _, broken := range []bool{false, true} {
		var r *rig
		r = newRig(t, words(5), 5, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
			r.clock.pass(16 * time.Second)
			return echo(ctx, it, emit)
		}, nil)
		r.mem.Hook = func(c mem.Call) mem.Fault {
			if broken && c.Op == "Put" && strings.Contains(c.Key, "/checkpoint/") {
				return mem.Fault{ErrBefore: errBroken}
			}
			return mem.Fault{}
		}
		r.vanish(0)
		r.vanish(0)
		r.attempt(r.worker("w"), 0)
		want := "2 4"
		if broken {
			want = ""
		}
		if got := strings.Join(r.checkpoints(0), " "); got != want || r.result(0).OK != 5 {
			t.Errorf("broken %t: checkpoints %q, want %q; %d ok", broken, got, want, r.result(0).OK)
		}
	}
}
