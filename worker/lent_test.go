package worker_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hayrick"
	"hayrick/jobs"
	"hayrick/worker"
)

// What is kept of lent time: enough to give a deaf handler up and to carry what there
// is, and never so much that none is left to work in.
func TestHandBack(t *testing.T) {
	for _, x := range []struct {
		lent       time.Duration
		unsaved    int64
		soft, hard time.Duration
	}{
		{15 * time.Minute, 0, 45 * time.Second, 15 * time.Second},
		{15 * time.Minute, 1 << 30, 109 * time.Second, 79 * time.Second},
		{5 * time.Minute, 0, 30 * time.Second, 15 * time.Second},
		{time.Minute, 0, 18 * time.Second, 15 * time.Second},
		{time.Minute, 1 << 40, 33 * time.Second, 30 * time.Second},
		{4 * time.Second, 0, 1200 * time.Millisecond, time.Second},
		{0, 1 << 20, 0, 0},
	} {
		if soft, hard := worker.HandBack(x.lent, x.unsaved); soft != x.soft || hard != x.hard {
			t.Errorf("HandBack(%s, %d) = %s, %s, want %s, %s", x.lent, x.unsaved, soft, hard, x.soft, x.hard)
		}
	}
}

// lend has the tasks of a rig worked on by processes that live for one minute each. It
// returns how many there were, and fails when one was not done in its time.
func lend(t *testing.T, r *rig) int {
	attempts, _ := r.drain(func() *worker.Worker {
		end := time.Now().Add(time.Minute)
		w := r.worker("w")
		w.World.Clock = hayrick.SystemClock{} // the bubble's
		w.Left = func() time.Duration {
			left := time.Until(end)
			if left <= 0 {
				t.Error("the process is asked for its time after its end")
			}
			return left
		}
		r.journals.Journals.(*worker.MemJournals).Wipe() // another machine
		r.must(r.clock.Sleep(t.Context(), time.Second))  // the store's
		return w
	})
	return attempts
}

// A task that takes longer than any process lives is finished by as many as it takes,
// and no item is run twice: what is begun may end, and nothing is begun too late.
func TestLentTimeIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		r := newRig(t, words(250), 250, func(_ context.Context, it jobs.Item, _ jobs.Emit) jobs.Outcome {
			seen.add(it.Ordinal)
			time.Sleep(2 * time.Second) // deaf
			return jobs.OK()            // rows would go through an encoder that bubbles cannot share
		}, nil)
		// A minute is begun in for 42 seconds, which is 21 items.
		if attempts := lend(t, r); attempts != 12 {
			t.Errorf("%d attempts, want 12", attempts)
		}
		for i := range int64(250) {
			if seen.of(i) != 1 {
				t.Errorf("item %d was run %d times", i, seen.of(i))
			}
		}
		if res := r.result(0); res.OK != 250 || res.Fence != 12 {
			t.Errorf("%+v", res)
		}
		if c := r.claim(0); c.Vanished != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// An item that takes longer than any process lives runs out of tries, and says why.
func TestItemLongerThanLentTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran []string
		r := newRig(t, words(3), 3, func(ctx context.Context, it jobs.Item, _ jobs.Emit) jobs.Outcome {
			ran = append(ran, fmt.Sprintf("%d/%d", it.Ordinal, it.Try))
			if it.Ordinal == 1 {
				<-ctx.Done()
				return jobs.Fail("stopped", "%v", ctx.Err())
			}
			return jobs.OK() // rows would go through an encoder that bubbles cannot share
		}, func(d *hayrick.JobDefinition) { d.Run.ItemTimeout = dur(2 * time.Minute) })
		lend(t, r)
		// With the first try item 0 made progress: that one is not charged.
		if got := strings.Join(ran, " "); got != "0/1 1/1 1/1 1/2 1/3 2/1" {
			t.Errorf("tries: %s", got)
		}
		if res := r.result(0); res.OK != 2 || res.Failed != 1 {
			t.Errorf("%+v", res)
		}
		_, raw := r.failures(0)
		if !strings.Contains(raw, `"class":"timeout"`) || !strings.Contains(raw, "in hand when the worker's 1m0s were over") {
			t.Errorf("failures: %s", raw)
		}
	})
}

func TestPatience(t *testing.T) {
	for _, x := range []struct{ lent, every, want time.Duration }{
		{15 * time.Minute, 100 * time.Millisecond, time.Minute},
		{time.Minute, time.Second, 15 * time.Second},
		{15 * time.Minute, 36 * time.Second, 72 * time.Second}, // 100/h
		{5 * time.Minute, 10 * time.Minute, 20 * time.Minute},  // to the end of its time
	} {
		if got := worker.Patience(x.lent, x.every); got != x.want {
			t.Errorf("Patience(%s, %s) = %s, want %s", x.lent, x.every, got, x.want)
		}
	}
}

func TestAway(t *testing.T) {
	for _, x := range []struct {
		opens  time.Duration
		jitter float64
		want   time.Duration
	}{
		{0, 0, time.Minute}, {0, 0.5, 75 * time.Second}, // the tokens go to others
		{time.Second, 0, 30 * time.Second}, {5 * time.Minute, 0, 5 * time.Minute},
		{8 * time.Minute, 0.5, 8*time.Minute + 30*time.Second},
		{14 * time.Minute, 0.99, 15 * time.Minute}, {12 * time.Hour, 0, 15 * time.Minute}, {12 * time.Hour, 0.99, 15 * time.Minute},
	} {
		if got := worker.Away(x.opens, x.jitter); got != x.want {
			t.Errorf("Away(%s, %g) = %s, want %s", x.opens, x.jitter, got, x.want)
		}
	}
}

// closedUntil is what the limiter says of a key that is closed.
type closedUntil time.Time

func (c closedUntil) Error() string    { return "closed" }
func (c closedUntil) Unwrap() error    { return hayrick.ErrThrottled }
func (c closedUntil) Until() time.Time { return time.Time(c) }

// shortLives works on a rig's task by processes that may live for fifteen minutes each,
// one whenever there is a message, for as long as says; it returns when each began, and
// how long they lived together.
func shortLives(t *testing.T, r *rig, says time.Duration) (begun []time.Duration, lived time.Duration) {
	t.Helper()
	start := time.Now()
	seen := start
	pass := func() { // for the store
		now := time.Now()
		r.clock.pass(now.Sub(seen))
		seen = now
	}
	for time.Since(start) < says {
		pass()
		ds, err := r.mem.Receive(t.Context(), hayrick.QueueTasks, 1, visibility, 0)
		r.must(err)
		if len(ds) == 0 || ds[0].Role != hayrick.RoleWorker {
			time.Sleep(time.Second)
			continue
		}
		end := time.Now().Add(15 * time.Minute)
		w := r.worker("w")
		w.World.Clock = hayrick.SystemClock{} // the bubble's
		w.Left = func() time.Duration { return time.Until(end) }
		w.Queue = timely{r.mem, pass}
		begun = append(begun, time.Since(start))
		v, err := w.Attempt(t.Context(), ds[0])
		r.must(err)
		if !v.Ack {
			t.Fatalf("%+v", v)
		}
		lived += time.Since(start) - begun[len(begun)-1]
		r.must(r.mem.Ack(t.Context(), hayrick.QueueTasks, ds[0]))
	}
	return begun, lived
}

// timely is a queue that knows what time it is when something is sent.
type timely struct {
	worker.Queue
	pass func()
}

func (q timely) Send(ctx context.Context, queue string, msgs ...hayrick.Outgoing) error {
	q.pass()
	return q.Queue.Send(ctx, queue, msgs...)
}

// While a key is closed, a task comes to see four times an hour, each for a moment; its
// items with other keys are done meanwhile, and the others when it opens.
func TestAttemptDoesNotWaitForAClosedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		r := newRig(t, words(6), 6, func(_ context.Context, it jobs.Item, _ jobs.Emit) jobs.Outcome {
			seen.add(it.Ordinal)
			return jobs.OK()
		}, func(d *hayrick.JobDefinition) {
			d.Rates = []hayrick.Rate{{Name: "pds", Key: "$(item.word)", Limit: tenASecond, Auto: true}}
		})
		opens := time.Now().Add(time.Hour)
		r.limiter.take = func(ctx context.Context, _, key string, _ int) error {
			until, ok := ctx.Deadline()
			if !ok || time.Until(until) > time.Minute {
				t.Errorf("until %v, %t", until, ok)
			}
			if time.Now().Before(opens) && key != "w0" && key != "w5" {
				return closedUntil(opens)
			}
			return nil
		}
		begun, lived := shortLives(t, r, 90*time.Minute)
		if len(begun) < 5 || len(begun) > 7 || lived > 10*time.Second {
			t.Errorf("attempts at %v, together %v", begun, lived)
		}
		for i := range int64(6) {
			if seen.of(i) != 1 {
				t.Errorf("item %d was run %d times", i, seen.of(i))
			}
		}
		if res := r.result(0); res.OK != 6 || int(res.Fence) != len(begun) {
			t.Errorf("%+v", res)
		}
		if c := r.claim(0); c.Vanished != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// Where others get the tokens, an attempt waits for a minute and comes back later, at
// most once in two minutes; as soon as it gets one it stays.
func TestAttemptDoesNotIdleForTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, words(4), 4, func(context.Context, jobs.Item, jobs.Emit) jobs.Outcome { return jobs.OK() }, func(d *hayrick.JobDefinition) {
			d.Rates = []hayrick.Rate{{Name: "api", Limit: tenASecond, Auto: true}}
		})
		start := time.Now()
		r.limiter.take = func(ctx context.Context, _, _ string, _ int) error {
			if time.Since(start) > 30*time.Minute { // a token every 40 s from now on
				select {
				case <-time.After(40 * time.Second):
					return nil
				case <-ctx.Done():
				}
			}
			<-ctx.Done()
			return ctx.Err()
		}
		begun, lived := shortLives(t, r, time.Hour)
		if n := len(begun); n < 10 || n > 16 || lived > 22*time.Minute {
			t.Errorf("%d attempts at %v, together %v", n, begun, lived)
		}
		for i := 1; i < len(begun); i++ {
			if gap := begun[i] - begun[i-1]; gap < 2*time.Minute {
				t.Errorf("two attempts within %v", gap)
			}
		}
		if res := r.result(0); res.OK != 4 || int(res.Fence) != len(begun) {
			t.Errorf("%+v", res)
		}
	})
}

// slowJournals take their time to take over what was done elsewhere.
type slowJournals struct {
	worker.Journals
	takes time.Duration
}

func (j slowJournals) Restore(ctx context.Context, ref hayrick.TaskRef, attempt string, fp worker.Fingerprint, from io.Reader) (worker.Journal, error) {
	time.Sleep(j.takes)
	return j.Journals.Restore(ctx, ref, attempt, fp, from)
}

// A task whose journal takes most of every process's time to take over does not go round
// for ever: what is done is committed, the rest is left to the retry planner and costs
// no try. A process that has all the time goes on instead.
func TestTaskThatLeavesNoTime(t *testing.T) {
	// No item is begun, and one that is begun has no time to end: neither is a try.
	for _, takes := range []time.Duration{44 * time.Second, 41 * time.Second} {
		t.Run(takes.String(), func(t *testing.T) { leavesNoTime(t, takes) })
	}
}

func leavesNoTime(t *testing.T, takes time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		r := newRig(t, words(30), 30, func(ctx context.Context, it jobs.Item, _ jobs.Emit) jobs.Outcome {
			seen.add(it.Ordinal)
			if it.Ordinal < 8 {
				time.Sleep(5 * time.Second)
				return jobs.OK()
			}
			select {
			case <-time.After(10 * time.Second):
				return jobs.OK()
			case <-ctx.Done():
				return jobs.Fail("stopped", "%v", ctx.Err())
			}
		}, nil)
		r.journals.Journals = &worker.MemJournals{}
		slow := slowJournals{r.journals, takes}
		attempts, _ := r.drain(func() *worker.Worker {
			end := time.Now().Add(time.Minute)
			w := r.worker("w")
			w.World.Clock, w.Journals = hayrick.SystemClock{}, slow
			w.Left = func() time.Duration { return time.Until(end) }
			r.journals.Journals.(*worker.MemJournals).Wipe()
			r.must(r.clock.Sleep(t.Context(), time.Second))
			return w
		})
		// One that works, three that only take over, one that closes.
		res := r.result(0)
		if attempts != 2+worker.MaxStalls || res.OK < 8 || res.OK > 9 || res.OK+res.Failed != 30 || res.Status != "DONE" {
			t.Errorf("%d attempts: %+v", attempts, res)
		}
		_, raw := r.failures(0)
		if n := strings.Count(raw, `"class":"no_time","disposition":"infra"`); n != res.Failed || strings.Count(raw, `"tries":0`) != n {
			t.Errorf("%d of %d: %s", n, res.Failed, raw)
		}
	})
}

func TestCloses(t *testing.T) {
	for _, x := range []struct {
		stalls  int
		endless bool
		want    bool
	}{{0, false, false}, {worker.MaxStalls - 1, false, false}, {worker.MaxStalls, false, true}, {worker.MaxStalls + 9, true, false}} {
		if got, because := worker.Closes(x.stalls, x.endless); got != x.want || got != (because != "") {
			t.Errorf("%+v: %t, %q", x, got, because)
		}
	}
}
