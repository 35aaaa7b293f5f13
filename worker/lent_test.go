package worker_test

import (
	"context"
	"fmt"
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
