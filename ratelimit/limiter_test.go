package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hayrick"
)

// memStore is a store that works. Hooks make it slow or faulty.
type memStore struct {
	mu      sync.Mutex
	buckets map[string][]byte
	asks    []Ask // that were applied
	throws  int   // feedback that was applied

	before func(ctx context.Context) error // a fault on the way there: nothing happens
	after  func(ctx context.Context) error // on the way back: it has happened
}

func (s *memStore) step(ctx context.Context, do func()) error {
	if s.before != nil {
		if err := s.before(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	if s.buckets == nil {
		s.buckets = map[string][]byte{}
	}
	do()
	s.mu.Unlock()
	if s.after != nil {
		return s.after(ctx)
	}
	return nil
}

func (s *memStore) Reserve(ctx context.Context, key string, lim Limits, ask Ask, now func() time.Time) (g Grant, err error) {
	err = s.step(ctx, func() {
		var next []byte
		if next, g = ApplyReserve(s.buckets[key], lim, ask, now()); next != nil {
			s.buckets[key] = next
		}
		s.asks = append(s.asks, ask)
	})
	if err != nil {
		return Grant{}, err
	}
	return g, nil
}

func (s *memStore) Feedback(ctx context.Context, key string, lim Limits, fb Feedback, now func() time.Time) error {
	return s.step(ctx, func() {
		if next := ApplyFeedback(s.buckets[key], lim, fb, now()); next != nil {
			s.buckets[key] = next
		}
		s.throws++
	})
}

// requests counts the reservations asked for.
func (s *memStore) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asks)
}

func (s *memStore) wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buckets = nil
}

// seeded is randomness that repeats.
type seeded struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (s *seeded) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Uint64()
}

func world(seed uint64) hayrick.World {
	w := hayrick.RealWorld(fmt.Sprint("test-", seed))
	w.Rand = &seeded{rng: rand.New(rand.NewPCG(seed, 39))}
	return w
}

var tenASecond = Limits{
	Rate:   hayrick.PerTime{N: 10, Per: time.Second},
	Burst:  10,
	Timing: Timing{Horizon: 3 * time.Second, Lateness: 100 * time.Millisecond},
}

// one is a limiter with the one rate a test is about.
type one struct {
	*Limiter
	rate hayrick.Rate
}

func newLimiter(s Store, w hayrick.World, lim Limits) one {
	return one{
		&Limiter{Store: s, World: w, Timing: lim.Timing, Log: slog.New(slog.DiscardHandler)},
		hayrick.Rate{Name: "pds", Limit: lim.Rate, Burst: lim.Burst},
	}
}

func (o one) Take(ctx context.Context, value string, n int) (time.Duration, error) {
	return o.Limiter.Take(ctx, "job", o.rate, value, n)
}

func (o one) Feedback(ctx context.Context, value string, retryAfter time.Duration) {
	o.Limiter.Feedback(ctx, "job", o.rate, value, retryAfter)
}

// log collects who was granted when, in milliseconds of virtual time.
type log struct {
	mu    sync.Mutex
	start time.Time
	lines []string
}

func (l *log) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf("%dms ", time.Since(l.start).Milliseconds())+fmt.Sprintf(format, args...))
}

func (l *log) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(l.lines, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(l.lines, "\n  "), strings.Join(want, "\n  "))
	}
}

// virtual runs a test on virtual time; it fails when a goroutine is left behind.
func virtual(t *testing.T, f func(t *testing.T, l *log)) {
	synctest.Test(t, func(t *testing.T) { f(t, &log{start: time.Now()}) })
}

func TestTakeServesInOrderAtNominalTimes(t *testing.T) {
	virtual(t, func(t *testing.T, l *log) {
		s := &memStore{}
		lim := newLimiter(s, world(1), tenASecond)
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				waited, err := lim.Take(t.Context(), "k", 1)
				l.add("%d after %v: %v", i, waited, err)
			})
			synctest.Wait()
		}
		wg.Wait()
		time.Sleep(20 * time.Second)
		for i := range 10 { // idleness earns 8 more than the one that is due
			waited, err := lim.Take(t.Context(), "k", 1)
			l.add("%d after %v: %v", i, waited, err)
		}
		// The first asks of the five are the fresh bucket's, then one lot for all.
		l.want(t,
			"3100ms 0 after 3.1s: <nil>", "3200ms 1 after 3.2s: <nil>", "3300ms 2 after 3.3s: <nil>",
			"3400ms 3 after 3.4s: <nil>", "3500ms 4 after 3.5s: <nil>",
			"23500ms 0 after 0s: <nil>", "23500ms 1 after 0s: <nil>", "23500ms 2 after 0s: <nil>",
			"23500ms 3 after 0s: <nil>", "23500ms 4 after 0s: <nil>", "23500ms 5 after 0s: <nil>",
			"23500ms 6 after 0s: <nil>", "23500ms 7 after 0s: <nil>", "23500ms 8 after 0s: <nil>",
			"23600ms 9 after 100ms: <nil>")
		if got := s.requests(); got > 13 {
			t.Errorf("%d requests for 15 tokens, 5 of them one lot", got)
		}
	})
}

// 002-38: a process serves from the lot that it was handed, and asks the store (on AWS
// the table: internal/storetest) for more only when that is used up.
func TestTakeGivesTheTokenOfAWaiterThatLeavesToTheNext(t *testing.T) {
	virtual(t, func(t *testing.T, l *log) {
		s := &memStore{}
		lim := newLimiter(s, world(1), tenASecond)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				c := t.Context()
				if i == 0 {
					c = ctx
				}
				_, err := lim.Take(c, "k", 1)
				l.add("%d: %v", i, err)
			})
			synctest.Wait()
		}
		time.Sleep(2 * time.Second) // the lot of three is in hand
		asked := s.requests()
		cancel()
		wg.Wait()
		// The third token is left over, and good for whoever comes in its time.
		_, err := lim.Take(t.Context(), "k", 1)
		l.add("3: %v", err)
		l.want(t, "2000ms 0: context canceled", "3100ms 1: <nil>", "3200ms 2: <nil>", "3300ms 3: <nil>")
		if s.requests() != asked {
			t.Errorf("%d requests for a token that was in hand", s.requests()-asked)
		}
		if _, err := lim.Take(ctx, "k", 1); !errors.Is(err, context.Canceled) || s.requests() != asked {
			t.Errorf("a dead context got %v and %d requests", err, s.requests()-asked)
		}
	})
}

func TestTakeOfSeveralIsOneGrant(t *testing.T) {
	virtual(t, func(t *testing.T, l *log) {
		lim := newLimiter(&memStore{}, world(1), tenASecond)
		var wg sync.WaitGroup
		for _, n := range []int{3, 1, 2} {
			wg.Go(func() {
				_, err := lim.Take(t.Context(), "k", n)
				l.add("%d: %v", n, err)
			})
			synctest.Wait()
		}
		wg.Wait()
		l.want(t, "3300ms 3: <nil>", "3400ms 1: <nil>", "3600ms 2: <nil>")
		for _, n := range []int{0, 10} {
			_, err := lim.Take(t.Context(), "k", n)
			if bad := (*hayrick.UserError)(nil); !errors.As(err, &bad) || bad.Hint != "ask for 1 to 9, or write a larger burst" {
				t.Errorf("take %d: %v", n, err)
			}
		}
	})
}

func TestFeedbackClosesTheKeyForEveryone(t *testing.T) {
	virtual(t, func(t *testing.T, l *log) {
		s := &memStore{}
		here, there := newLimiter(s, world(1), tenASecond), newLimiter(s, world(1), tenASecond)
		time.Sleep(time.Second)
		take := func(wg *sync.WaitGroup, name string, lim one, ctx context.Context) {
			wg.Go(func() {
				_, err := lim.Take(ctx, "k", 1)
				l.add("%s: %v", name, err)
			})
			synctest.Wait()
		}
		var wg sync.WaitGroup
		take(&wg, "here 0", here, t.Context())
		take(&wg, "there 0", there, t.Context())
		wg.Wait()
		if s.requests() != 4 {
			t.Errorf("%d requests of two processes, with two for a new key each", s.requests())
		}
		l.lines = nil

		time.Sleep(5800 * time.Millisecond) // 10 s; both reserve what is to come
		for range 9 {
			if _, err := here.Take(t.Context(), "k", 1); err != nil {
				t.Fatal(err)
			}
		}
		short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		take(&wg, "there 1", there, t.Context())
		take(&wg, "here 1", here, t.Context())
		take(&wg, "here short", here, short)
		for range 20 { // many replies say the same
			here.Feedback(t.Context(), "k", 20*time.Second)
		}
		if s.throws != 1 {
			t.Errorf("the store heard %d times of one throttle", s.throws)
		}
		time.Sleep(150 * time.Millisecond)
		take(&wg, "there 2", there, t.Context()) // learns it from the store
		take(&wg, "there short", there, short)
		wg.Wait()
		if got := s.throws; got != 1 {
			t.Errorf("what the store said was reported back: %d", got)
		}
		last := l.lines[len(l.lines)-1]
		l.lines = l.lines[:len(l.lines)-1]
		l.want(t,
			"10000ms here short: closed until 2000-01-01T00:00:30Z: throttled",
			"10100ms there 1: <nil>", // reserved before, and nobody told this process
			"10150ms there short: closed until 2000-01-01T00:00:30Z: throttled",
			"30000ms here 1: <nil>")
		var ms int
		if _, err := fmt.Sscanf(last, "%dms there 2: <nil>", &ms); err != nil || ms < 30200 || ms > 31500 {
			t.Errorf("the other process, once it knew: %s", last)
		}
	})
}

func TestScopeAndLateFeedback(t *testing.T) {
	virtual(t, func(t *testing.T, l *log) {
		s := &memStore{}
		lim := newLimiter(s, world(1), tenASecond)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for _, rate := range []hayrick.Rate{lim.rate, {Name: "own", Limit: lim.rate.Limit, Burst: 10, Scope: "job"}, {Name: "small", Limit: lim.rate.Limit}} {
			for _, job := range []string{"job-a", "job-b"} {
				lim.Limiter.Feedback(ended, job, rate, "host", time.Minute)
			}
		}
		want := []string{"job.job-a/own/host", "job.job-b/own/host", "store/pds/host"}
		if got := slices.Sorted(maps.Keys(s.buckets)); !slices.Equal(got, want) || s.throws != 3 {
			t.Errorf("%d reports of %v", s.throws, got)
		}
		_, err := lim.Limiter.Take(t.Context(), "job-a", hayrick.Rate{Name: "small", Limit: lim.rate.Limit}, "host", 1)
		if bad := (*hayrick.UserError)(nil); !errors.As(err, &bad) || bad.Hint != "write burst: 1, or leave it out" {
			t.Errorf("a rate without a burst: %v", err)
		}
	})
}

func TestStoreErrors(t *testing.T) {
	for _, c := range []struct {
		err     error
		applied bool
		waits   bool
	}{
		{hayrick.ErrUnknown, false, true}, {hayrick.ErrUnknown, true, true}, {hayrick.ErrThrottled, false, true},
		{hayrick.ErrConflict, false, true}, {hayrick.ErrCorrupt, false, false}, {errors.New("disk full"), false, false},
	} {
		t.Run(fmt.Sprint(c.err, c.applied), func(t *testing.T) {
			virtual(t, func(t *testing.T, l *log) {
				failures := 3
				fault := func(context.Context) error {
					if failures--; failures >= 0 {
						return fmt.Errorf("store: %w", c.err)
					}
					return nil
				}
				s := &memStore{before: fault}
				if c.applied {
					s.before, s.after = nil, fault
				}
				lim := newLimiter(s, world(1), tenASecond)
				lim.Feedback(t.Context(), "k", 0)
				lim.Feedback(t.Context(), "k", 0)
				if failures != 1 {
					t.Errorf("a report that did not arrive is not repeated: %d failures to come", failures)
				}
				failures = 3
				_, err := lim.Take(t.Context(), "k", 1)
				if c.waits {
					if err != nil || failures >= 0 {
						t.Errorf("take: %v with %d failures to come", err, failures)
					}
				} else if !errors.Is(err, c.err) || failures != 2 {
					t.Errorf("take: %v with %d failures to come", err, failures)
				}
			})
		})
	}
}

// A store that answers later than a token may be late still serves.
func TestTakeThroughASlowStore(t *testing.T) {
	virtual(t, func(t *testing.T, l *log) {
		s := &memStore{after: func(context.Context) error { time.Sleep(400 * time.Millisecond); return nil }}
		lim := newLimiter(s, world(1), tenASecond)
		for range 5 {
			time.Sleep(time.Minute)
			if waited, err := lim.Take(t.Context(), "k", 1); err != nil || waited > 4*time.Second {
				t.Errorf("waited %v: %v", waited, err)
			}
		}
		if s.requests() > 9 {
			t.Errorf("%d requests for 5 tokens: %v", s.requests(), s.asks)
		}
	})
}

// stallClock stands still, for everyone but itself, right after pump has looked
// at the time to serve somebody.
type stallClock struct {
	hayrick.SystemClock
	mu    sync.Mutex
	armed bool
	ahead time.Duration
}

func (c *stallClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now().Add(c.ahead)
	if c.armed {
		c.armed, c.ahead = false, c.ahead+5*time.Second
	}
	return now
}

func (c *stallClock) Sleep(ctx context.Context, d time.Duration) error {
	err := c.SystemClock.Sleep(ctx, d)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = time.Since(synctestEpoch) > 63*time.Second && c.ahead == 0 // it woke to serve
	return err
}

var synctestEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestTakeThrowsLateTokensAway(t *testing.T) {
	virtual(t, func(t *testing.T, l *log) {
		clock := &stallClock{}
		lim := newLimiter(&memStore{}, world(1), tenASecond)
		lim.World.Clock = clock
		time.Sleep(time.Minute)
		if _, err := lim.Take(t.Context(), "k", 1); err != nil {
			t.Fatal(err)
		}
		if clock.ahead != 5*time.Second {
			t.Fatalf("the process did not stand still: %v", clock.ahead)
		}
		// Granted at 63.1 s, noticed at 68.1 s on its clock: that one is lost.
		var s State
		if s = decode(lim.Store.(*memStore).buckets["store/pds/k"]); since2000(s.Last) < 67*time.Second {
			t.Errorf("the token in use is that of %v", since2000(s.Last))
		}
	})
}

func since2000(ns int64) time.Duration { return time.Unix(0, ns).Sub(synctestEpoch) }

// Memory follows the keys in use, not those seen.
func TestManyKeysLeaveNothingBehind(t *testing.T) {
	virtual(t, func(t *testing.T, l *log) {
		lim := newLimiter(&memStore{}, world(1), tenASecond)
		most, rounds := 0, 100
		if testing.Short() {
			rounds = 10
		}
		for round := range rounds {
			var wg sync.WaitGroup
			for i := range 1000 {
				wg.Go(func() {
					key := fmt.Sprintf("host-%d-%d", round, i)
					if _, err := lim.Take(t.Context(), key, 1); err != nil {
						t.Error(err)
					}
					if i%10 == 0 {
						lim.Feedback(t.Context(), key, time.Second)
					}
				})
			}
			wg.Wait()
			most = max(most, len(lim.buckets))
		}
		if most > 4*leastSweep {
			t.Errorf("%d buckets at once for 1000 keys in use", most)
		}
	})
}
