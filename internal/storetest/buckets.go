package storetest

import (
	"errors"
	"sync"
	"time"

	"hayrick"
	"hayrick/ratelimit"
)

var bucketTests = map[string]func(*harness){
	"Reserve":      testReserve,
	"Race":         testReserveRace,
	"Linearizable": testBucketsLinearizable,
	"Feedback":     testFeedback,
	"KeysApart":    testBucketsApart,
}

var limits = ratelimit.Limits{Rate: hayrick.PerTime{N: 100, Per: time.Second}, Burst: 50, Timing: ratelimit.OneMachine}

// granted collects tokens until n are there.
func (h *harness) granted(key string, n int) (at []time.Time) {
	h.Helper()
	for len(at) < n {
		g, err := h.Buckets.Reserve(h.Ctx, key, limits, ratelimit.Ask{N: n - len(at)}, h.Clock.Now)
		h.must(err)
		for i := range g.Count {
			at = append(at, g.First.Add(time.Duration(i)*g.Every))
		}
		if g.Count == 0 {
			if wait := g.RetryAt.Sub(h.Clock.Now()); wait > 0 {
				h.pass(wait)
			}
		}
	}
	return at
}

// A bucket nobody knows starts one horizon ahead, and what one process took another
// does not get.
func testReserve(h *harness) {
	begin := h.Clock.Now()
	first := h.granted("store/api/~", 10)
	if first[0].Before(begin.Add(limits.Horizon)) {
		h.Errorf("a new bucket gives %v, %v after the start", first[0], first[0].Sub(begin))
	}
	second := h.another().granted("store/api/~", 10)
	if gap := second[0].Sub(first[len(first)-1]); gap < 10*time.Millisecond {
		h.Errorf("tokens of two processes are %v apart", gap)
	}
}

// Every nominal time is a slot after the one before it, whoever asked.
func testReserveRace(h *harness) {
	views := []*harness{h, h.another()}
	var mu sync.Mutex
	slots := map[int64]int{}
	grants := 0
	together(16, func(i int) {
		v := views[i%2]
		for range 20 {
			g, err := v.Buckets.Reserve(v.Ctx, "store/api/~", limits, ratelimit.Ask{N: 2}, v.Clock.Now)
			if err != nil && !errors.Is(err, hayrick.ErrConflict) { // which says: not now
				h.Error(err)
				return
			}
			mu.Lock()
			for k := range g.Count {
				slots[g.First.Add(time.Duration(k)*g.Every).UnixNano()]++
				grants++
			}
			mu.Unlock()
			if g.Count == 0 {
				if err := v.Clock.Sleep(v.Ctx, 10*time.Millisecond); err != nil {
					h.Error(err)
				}
			}
		}
	})
	if grants == 0 || len(slots) != grants {
		h.Errorf("%d tokens on %d slots", grants, len(slots))
	}
}

func testFeedback(h *harness) {
	h.granted("store/api/~", 1)
	h.must(h.another().Buckets.Feedback(h.Ctx, "store/api/~", limits, ratelimit.Feedback{Throttled: true, RetryAfter: 7 * time.Second}, h.Clock.Now))
	g, err := h.Buckets.Reserve(h.Ctx, "store/api/~", limits, ratelimit.Ask{N: 1}, h.Clock.Now)
	h.must(err)
	if g.Count != 0 || !g.Closed || g.RetryAt.Sub(h.Clock.Now()) < 6*time.Second {
		h.Errorf("a closed key answers %+v", g)
	}
	h.pass(8 * time.Second)
	h.granted("store/api/~", 1)
}

func testBucketsApart(h *harness) {
	h.must(h.Buckets.Feedback(h.Ctx, "store/api/a", limits, ratelimit.Feedback{Throttled: true, RetryAfter: time.Hour}, h.Clock.Now))
	begin := h.Clock.Now()
	h.granted("store/api/b", 1)
	if waited := h.Clock.Now().Sub(begin); waited > time.Minute {
		h.Errorf("a token of another key took %v", waited)
	}
}
