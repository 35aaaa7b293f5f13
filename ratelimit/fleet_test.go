package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hayrick"
)

// skewedClock is a clock that is off by as much as a function says.
type skewedClock struct {
	hayrick.SystemClock
	off func() time.Duration
}

func (c skewedClock) Now() time.Time { return time.Now().Add(c.off()) }

// crew is real limiters on virtual time, with handlers that want all they can get.
type crew struct {
	store  *memStore
	lim    Limits
	mu     sync.Mutex
	grants []int64
}

// work runs one process with so many handlers until ctx ends.
func (c *crew) work(ctx context.Context, t *testing.T, seed uint64, handlers, cost int, off func() time.Duration) {
	w := world(seed)
	w.Clock = skewedClock{off: off}
	lim := newLimiter(c.store, w, c.lim)
	var wg sync.WaitGroup
	for range handlers {
		wg.Go(func() {
			for {
				if _, err := lim.Take(ctx, "k", cost); err != nil {
					if errors.Is(err, hayrick.ErrThrottled) { // the key stays closed beyond this life
						return
					}
					if ctx.Err() == nil {
						t.Errorf("process %d: %v", seed, err)
					}
					return
				}
				c.mu.Lock()
				for range cost {
					c.grants = append(c.grants, time.Now().UnixNano())
				}
				c.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func exactly() time.Duration { return 0 }

func perSecond(n int64, burst int, timing Timing) Limits {
	return Limits{Rate: hayrick.PerTime{N: n, Per: time.Second}, Burst: burst, Timing: timing}
}

// Under saturating demand nearly every token is used.
func TestUtilisation(t *testing.T) {
	for _, c := range []struct {
		name            string
		lim             Limits
		procs, handlers int
		trip            time.Duration
		percent         int64
		requests        int64 // of the store, a second, at most
	}{
		{"one process on one machine", perSecond(10, 10, OneMachine), 1, 4, time.Millisecond, 99, 11},
		{"one fast process on one machine", perSecond(1000, 1000, OneMachine), 1, 64, time.Millisecond, 99, 40},
		{"eight processes on one machine", perSecond(100, 100, OneMachine), 8, 8, time.Millisecond, 99, 60},
		{"ten workers", perSecond(100, 300, ServiceTime), 10, 60, 10 * time.Millisecond, 99, 8},
		{"a hundred workers", perSecond(1000, 3000, ServiceTime), 100, 60, 10 * time.Millisecond, 99, 70},
		{"a hundred workers, a slow limit", perSecond(10, 30, ServiceTime), 100, 5, 10 * time.Millisecond, 98, 40},
		{"a thousand workers", perSecond(1000, 3000, ServiceTime), 1000, 20, 10 * time.Millisecond, 99, 500},
		{"a thousand workers, a slow limit", perSecond(10, 30, ServiceTime), 1000, 20, 10 * time.Millisecond, 98, 250},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seconds := int64(60)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(seconds)*time.Second)
				defer cancel()
				half := func(ctx context.Context) error { return hayrick.SystemClock{}.Sleep(ctx, c.trip/2) }
				crew := &crew{lim: c.lim, store: &memStore{before: half, after: half}}
				crew.store.buckets = map[string][]byte{"store/pds/k": encode(State{Last: time.Now().UnixNano(), Share: full})}
				var wg sync.WaitGroup
				for i := range c.procs {
					wg.Go(func() { crew.work(ctx, t, uint64(i), c.handlers, 1, exactly) })
				}
				wg.Wait()
				n, requests := int64(len(crew.grants)), int64(len(crew.store.asks))
				if worst, ok := excess(c.lim, crew.grants); !ok {
					t.Errorf("a window exceeds rate x T by %v", worst)
				}
				if n*100 < c.lim.Rate.N*seconds*c.percent {
					t.Errorf("%d of %d tokens are used", n, c.lim.Rate.N*seconds)
				}
				if requests > seconds*c.requests {
					t.Errorf("%d requests for %d tokens", requests, n)
				}
				t.Logf("%d of %d tokens, %d requests", n, c.lim.Rate.N*seconds, requests)
			})
		})
	}
}

// Many processes that want one token each share fairly, and one that wants lots is
// served beside them.
func TestNobodyStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		store := &memStore{}
		var crews []*crew
		var wg sync.WaitGroup
		for i := range 101 {
			c := &crew{lim: perSecond(10, 30, ServiceTime), store: store}
			crews = append(crews, c)
			handlers := 1
			if i == 100 {
				handlers = 64
			}
			wg.Go(func() { c.work(ctx, t, uint64(i), handlers, 1, exactly) })
		}
		wg.Wait()
		var each []int
		total := 0
		for _, c := range crews {
			each = append(each, len(c.grants))
			total += len(c.grants)
		}
		if share := total / 101; slices.Min(each) < share/3 {
			t.Errorf("somebody got less than a third of the mean of %d: %v", share, each)
		}
		t.Logf("%d tokens, %d to %d each; %d for the large one", total, slices.Min(each), slices.Max(each), each[100])
	})
}

// 002-39: the bound holds exactly for real limiters in processes that die and come
// back, with clocks off by the bound, a store that is slow, loses answers and is
// wiped, and an upstream that throttles.
func TestFleetKeepsTheBound(t *testing.T) {
	schedules := uint64(60)
	if testing.Short() {
		schedules = 10
	}
	total := 0
	for seed := range schedules {
		synctest.Test(t, func(t *testing.T) {
			rng := &seeded{rng: rand.New(rand.NewPCG(seed, 40))}
			upTo := func(d time.Duration) time.Duration { return time.Duration(rng.Uint64() % uint64(d+1)) }
			timing := Timing{Horizon: time.Second + upTo(2*time.Second), ClockBound: upTo(500 * time.Millisecond), Lateness: 100 * time.Millisecond}
			rate := hayrick.PerTime{N: 1 + int64(upTo(60)), Per: time.Second}
			lim := Limits{Rate: rate, Timing: timing, Burst: MinBurst(rate, timing.ClockBound, timing.Lateness) + int(upTo(10))}
			fault := func(ctx context.Context) error {
				switch rng.Uint64() % 20 {
				case 0:
					return fmt.Errorf("injected: %w", hayrick.ErrUnknown)
				case 1:
					return hayrick.SystemClock{}.Sleep(ctx, upTo(2*time.Second))
				}
				return hayrick.SystemClock{}.Sleep(ctx, upTo(20*time.Millisecond))
			}
			c := &crew{lim: lim, store: &memStore{before: fault, after: fault}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var wg sync.WaitGroup
			for i := range 1 + rng.Uint64()%6 {
				wg.Go(func() {
					for life := uint64(0); ctx.Err() == nil; life++ {
						cost := 1 + int(rng.Uint64()%uint64(min(3, lim.MaxTake())))
						mortal, die := context.WithTimeout(ctx, upTo(20*time.Second))
						off := upTo(2*timing.ClockBound) - timing.ClockBound
						c.work(mortal, t, 1000*i+life, 1+int(rng.Uint64()%20), cost, func() time.Duration { return off })
						die()
					}
				})
			}
			wg.Go(func() {
				upstream := newLimiter(c.store, world(seed), lim)
				for (hayrick.SystemClock{}).Sleep(ctx, upTo(15*time.Second)) == nil {
					switch rng.Uint64() % 3 {
					case 0:
						c.store.wipe()
					case 1:
						upstream.Feedback(ctx, "k", upTo(2*time.Second))
					}
				}
			})
			wg.Wait()
			if worst, ok := excess(lim, c.grants); !ok {
				t.Errorf("seed %d, %+v: a window exceeds rate x T by %v", seed, lim, worst)
			}
			total += len(c.grants)
		})
		if t.Failed() {
			return
		}
	}
	if total < 100*int(schedules) {
		t.Errorf("%d grants in %d schedules show little", total, schedules)
	}
	t.Logf("%d schedules, %d grants", schedules, total)
}

// BenchmarkTake is 64 handlers that take tokens of 1, 100 or 10000 buckets whose
// limit does not hold them up.
func BenchmarkTake(b *testing.B) {
	for _, keys := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			lim := newLimiter(&memStore{}, hayrick.RealWorld("bench"), perSecond(1_000_000, 10_000_000, OneMachine))
			names := make([]string, keys)
			old := encode(State{Last: 1, Share: full})
			buckets := map[string][]byte{}
			for i := range names {
				names[i] = fmt.Sprintf("host-%d.example.com", i)
				buckets[Key("", "pds", names[i])] = old
			}
			lim.Store.(*memStore).buckets = buckets
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for i := int(rand.Uint32()); pb.Next(); i++ {
					if _, err := lim.Take(context.Background(), names[i%keys], 1); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
