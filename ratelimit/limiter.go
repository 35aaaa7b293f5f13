package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"hayrick"
)

// Limiter hands out the tokens of all rates in one process. It is safe for any
// number of goroutines and buckets, and runs nothing while nobody waits.
type Limiter struct {
	Store  Store
	World  hayrick.World
	Timing Timing // of the store and the clocks around it
	Log    *slog.Logger

	mu      sync.Mutex // guards what follows, and every bucket
	buckets map[string]*bucket
	sweepAt int           // buckets at which idle ones are looked for
	lead    time.Duration // how long the store took to answer last
}

const (
	leastSweep  = 1024
	maxNap      = 30 * time.Second // a store is asked again so often, whatever it said
	storeRetry  = 100 * time.Millisecond
	maxRetry    = 10 * time.Second
	reportGrain = time.Second // Retry-After counts whole seconds
)

// Take waits until n tokens of a rate's bucket for value (empty for a rate with
// one bucket) are due, and says how long that took, also when it fails. Those who
// wait for a bucket are served in order. It returns ctx's error when ctx ends
// first, hayrick.ErrThrottled as soon as it is known that the key stays closed
// beyond ctx's deadline (the error has an Until that says for how long), a *hayrick.UserError for a rate that cannot be kept, and
// the store's error when that is not one to be waited out. What it grants is
// granted now: a caller that dawdles is late.
func (l *Limiter) Take(ctx context.Context, jobID string, rate hayrick.Rate, value string, n int) (time.Duration, error) {
	start := l.now()
	err := l.take(ctx, jobID, rate, value, n)
	return time.Duration(max(0, l.now()-start)), err
}

func (l *Limiter) take(ctx context.Context, jobID string, rate hayrick.Rate, value string, n int) error {
	lim, err := LimitsOf(rate, l.Timing)
	if err != nil {
		return err
	}
	if most := lim.MaxTake(); n < 1 || n > most {
		return &hayrick.UserError{
			What: fmt.Sprintf("rate %s: %d tokens at once are asked for", rate.Name, n),
			Hint: fmt.Sprintf("ask for 1 to %d, or write a larger burst", most),
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	key := keyOf(jobID, rate, value)
	w := &waiter{cost: n, deadline: never}
	if d, ok := ctx.Deadline(); ok {
		w.deadline = d.UnixNano()
	}
	for {
		l.enqueue(key, lim, w)
		select {
		case <-w.ready:
		case <-ctx.Done():
			l.leave(key, lim, w)
			return ctx.Err()
		}
		// Between the grant and here the process may have stood still.
		if w.err != nil || l.now() <= w.expires {
			return w.err
		}
	}
}

// Feedback heeds a throttle of a rate's bucket for value: at once in this process,
// and for everybody else by a write to the store. retryAfter is 0 when the
// upstream named none. A closure is reported once, and again only when it grows by
// a second. The report is made even when ctx has ended; when it does not succeed,
// the others learn it from the upstream, and the next throttle is reported again.
func (l *Limiter) Feedback(ctx context.Context, jobID string, rate hayrick.Rate, value string, retryAfter time.Duration) {
	lim, err := LimitsOf(rate, l.Timing)
	if err != nil {
		return // and no Take gets through
	}
	key := keyOf(jobID, rate, value)
	if !l.closeHere(key, lim, min(retryAfter, maxRetryAfter)) {
		return
	}
	fb := Feedback{Throttled: true, RetryAfter: retryAfter}
	if err := l.Store.Feedback(context.WithoutCancel(ctx), key, lim, fb, l.World.Clock.Now); err != nil {
		l.mu.Lock()
		l.bucket(key, lim).reported = 0
		l.mu.Unlock()
		l.Log.Warn("a throttle is not reported to the other workers", hayrick.KeyKey, key, hayrick.KeyError, err)
	}
}

func keyOf(jobID string, rate hayrick.Rate, value string) string {
	if rate.Scope != "job" {
		jobID = ""
	}
	return Key(jobID, rate.Name, value)
}

// closeHere closes the key for this process and says whether the store has to
// hear of it.
func (l *Limiter) closeHere(key string, lim Limits, after time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, until := l.bucket(key, lim), l.now()+int64(after)
	l.closeUntil(b, until)
	report := until > b.reported+int64(reportGrain)
	if report {
		b.reported = until
	}
	l.pump(b)
	return report
}

// closeUntil voids the tokens of the time before until, those in hand and those
// under way, and sends away whoever cannot wait. It needs l.mu.
func (l *Limiter) closeUntil(b *bucket, until int64) {
	b.notBefore = max(b.notBefore, until)
	for e := b.waiting.Front(); e != nil; {
		w := e.Value.(*waiter)
		e = e.Next()
		if w.deadline < b.notBefore {
			b.release(w, errClosed(b.notBefore))
		}
	}
}

func errClosed(until int64) error { return closedError{time.Unix(0, until).UTC()} }

// closedError is hayrick.ErrThrottled with the time when the key opens.
type closedError struct{ until time.Time }

func (e closedError) Error() string {
	return fmt.Sprintf("closed until %s: %v", e.until.Format(time.RFC3339), hayrick.ErrThrottled)
}

func (e closedError) Unwrap() error { return hayrick.ErrThrottled }

// Until is when the key opens, as far as it is known.
func (e closedError) Until() time.Time { return e.until }

// enqueue puts w in line: at the end, or at the head when its tokens came late.
func (l *Limiter) enqueue(key string, lim Limits, w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(key, lim)
	late := w.ready != nil
	w.ready, w.tokens = make(chan struct{}), nil
	b.wanted += w.cost
	if late {
		w.place = b.waiting.PushFront(w)
	} else {
		w.place = b.waiting.PushBack(w)
	}
	if w.deadline < b.notBefore {
		b.release(w, errClosed(b.notBefore))
	}
	l.pump(b)
}

// leave takes w out of the line; what it was granted meanwhile goes to the next.
func (l *Limiter) leave(key string, lim Limits, w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(key, lim)
	if w.place != nil {
		b.release(w, nil)
	}
	b.giveBack(w.tokens)
	l.pump(b)
}

// pump does what is to be done now for a bucket: serve who can be served, reserve
// for who cannot, and be woken when that changes. Whatever happens to a bucket
// ends in it. It needs l.mu.
func (l *Limiter) pump(b *bucket) {
	now := l.now()
	b.usedAt = now
	wake := b.serve(now)
	if short := b.wanted - len(b.tokens); short > 0 && !b.asking {
		if !b.short {
			b.short = true
			// When others want the bucket too, whoever has just used a token would be the
			// first to ask for the slot that gets free with it, always. It steps back.
			if now < b.crowded {
				b.askAt = max(b.askAt, now+l.jitter(l.Timing.Horizon/4))
			}
		}
		if at := b.worthAsking(short, l.lead); at > now {
			wake = min(wake, at)
		} else {
			l.reserve(b, b.ask(short, l.lead))
		}
	}
	if b.waiting.Len() > 0 {
		l.wakeAt(b, wake, now)
	} else {
		b.stop()
	}
}

// reserve asks the store for a lot, one at a time for each bucket. A process that
// dies before, during or after it loses the lot and nothing else. It needs l.mu.
func (l *Limiter) reserve(b *bucket, ask Ask) {
	// The lot is for everyone in line, so it lives as long as the line does.
	ctx, cancel := context.WithCancel(context.Background())
	b.asking, b.cancelAsk, b.short = true, cancel, false
	lim := b.lim
	l.World.Go("reserve tokens", func() {
		defer cancel()
		sent := l.World.Clock.Now()
		g, err := l.Store.Reserve(ctx, b.key, lim, ask, l.World.Clock.Now)
		l.mu.Lock()
		defer l.mu.Unlock()
		b.asking = false
		now := l.now()
		switch {
		case err == nil:
			l.lead = min(l.Timing.Horizon, time.Duration(max(0, now-sent.UnixNano())))
			l.accept(b, g, now)
		case ctx.Err() != nil: // the line was empty for a moment
		case errors.Is(err, hayrick.ErrUnknown), errors.Is(err, hayrick.ErrThrottled), errors.Is(err, hayrick.ErrConflict):
			b.misses++
			b.askAt = now + l.jitter(backoff(storeRetry, maxRetry, b.misses))
		default:
			b.fail(fmt.Errorf("reserve %d tokens of %s: %w", ask.N, b.key, err))
		}
		l.pump(b)
	})
}

// accept takes a store's answer in. It needs l.mu.
func (l *Limiter) accept(b *bucket, g Grant, now int64) {
	if g.Count > 0 {
		b.misses, b.askAt = b.misses/2, g.RetryAt.UnixNano()
		b.add(g)
		if half := int64(l.Timing.Horizon / 2); g.First.UnixNano()-now > half {
			b.crowded = b.tokens[len(b.tokens)-1] + half
		}
		return
	}
	if g.Closed {
		b.reported = max(b.reported, g.RetryAt.UnixNano())
		l.closeUntil(b, g.RetryAt.UnixNano())
	}
	// Many processes are told the same time; those that lose the race again and again
	// spread out. A lone one asks while half of the horizon is still in hand.
	b.misses++
	spread := backoff(l.Timing.Horizon/2, 4*l.Timing.Horizon, b.misses)
	b.askAt = min(g.RetryAt.UnixNano(), now+int64(maxNap)) + l.jitter(spread)
}

// wakeAt has pump called at a time, or earlier. It needs l.mu.
func (l *Limiter) wakeAt(b *bucket, at, now int64) {
	if at == never || b.alarm != nil && b.alarm.at <= at {
		return
	}
	b.stopAlarm()
	ctx, cancel := context.WithCancel(context.Background())
	a := &alarm{at: at, cancel: cancel}
	b.alarm = a
	l.World.Go("await tokens", func() {
		defer cancel()
		_ = l.World.Clock.Sleep(ctx, time.Duration(at-now)) // pump looks at the clock itself
		l.mu.Lock()
		defer l.mu.Unlock()
		if b.alarm == a {
			b.alarm = nil
			l.pump(b)
		}
	})
}

// bucket returns the local bucket of a key, with the limits it has now. It needs
// l.mu.
func (l *Limiter) bucket(key string, lim Limits) *bucket {
	if b := l.buckets[key]; b != nil {
		b.lim = lim
		return b
	}
	if len(l.buckets) >= max(l.sweepAt, leastSweep) {
		now := l.now()
		for k, b := range l.buckets {
			if b.idle(now) {
				delete(l.buckets, k)
			}
		}
		l.sweepAt = 2 * len(l.buckets)
	}
	if l.buckets == nil {
		l.buckets = map[string]*bucket{}
	}
	b := &bucket{key: key, lim: lim}
	l.buckets[key] = b
	return b
}

func (l *Limiter) now() int64 { return l.World.Clock.Now().UnixNano() }

// jitter is a random part of d, in nanoseconds.
func (l *Limiter) jitter(d time.Duration) int64 {
	return int64(l.World.Rand.Uint64() % uint64(d+1))
}

// backoff doubles from first to most with the number of misses, from 1.
func backoff(first, most time.Duration, misses int) time.Duration {
	return min(most, first<<min(misses-1, 16))
}
