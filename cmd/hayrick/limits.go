package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"hayrick"
	"hayrick/ratelimit"
)

// limits hands out the tokens of every rate of every job: one ratelimit.Limiter a
// rate as it is written, so that jobs that write the same one share it.
type limits struct {
	store  ratelimit.Store
	timing ratelimit.Timing
	world  hayrick.World
	log    *slog.Logger

	mu      sync.Mutex
	of      map[hayrick.Rate]*ratelimit.Limiter
	granted map[string]int64 // tokens since the start, by the rate's name
}

func (l *limits) limiter(r hayrick.Rate) (*ratelimit.Limiter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lim, ok := l.of[r]; ok {
		return lim, nil
	}
	bounds, err := ratelimit.LimitsOf(r, l.timing)
	if err != nil {
		return nil, err
	}
	if l.of == nil {
		l.of, l.granted = map[hayrick.Rate]*ratelimit.Limiter{}, map[string]int64{}
	}
	l.of[r] = &ratelimit.Limiter{Store: l.store, World: l.world, Limits: bounds}
	return l.of[r], nil
}

// bucket names the bucket that a job's rate has for a key.
func bucket(jobID string, r hayrick.Rate, key string) string {
	if r.Scope != "job" {
		jobID = ""
	}
	return ratelimit.Key(jobID, r.Name, key)
}

// Take is worker.Limiter.
func (l *limits) Take(ctx context.Context, jobID string, r hayrick.Rate, key string, n int) (time.Duration, error) {
	lim, err := l.limiter(r)
	if err != nil {
		return 0, err
	}
	waited, err := lim.Take(ctx, bucket(jobID, r, key), n)
	if err == nil {
		l.mu.Lock()
		l.granted[r.Name] += int64(n)
		l.mu.Unlock()
	}
	return waited, err
}

// Feedback is worker.Limiter. When the store does not hear of it, this process
// still heeds it.
func (l *limits) Feedback(ctx context.Context, jobID string, r hayrick.Rate, key string, retryAfter time.Duration) {
	lim, err := l.limiter(r)
	if err == nil {
		err = lim.Feedback(ctx, bucket(jobID, r, key), ratelimit.Feedback{Throttled: true, RetryAfter: retryAfter})
	}
	if err != nil {
		l.log.Debug("throttling not reported to the others", "rate", r.Name, hayrick.KeyError, err)
	}
}

// grants is how many tokens of each rate this process has been granted so far.
func (l *limits) grants() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]int64, len(l.granted))
	for name, n := range l.granted {
		out[name] = n
	}
	return out
}
