package mem

import (
	"context"
	"time"

	"hayrick/ratelimit"
)

// Reserve applies ratelimit.ApplyReserve to a bucket.
func (s *Store) Reserve(ctx context.Context, key string, lim ratelimit.Limits, ask ratelimit.Ask, now func() time.Time) (ratelimit.Grant, error) {
	return do(ctx, s, "Buckets", "Reserve", key, func() (ratelimit.Grant, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		b, grant := ratelimit.ApplyReserve(s.buckets[key], lim, ask, now())
		if b != nil {
			s.buckets[key] = b
		}
		return grant, nil
	})
}

// Feedback applies ratelimit.ApplyFeedback to a bucket.
func (s *Store) Feedback(ctx context.Context, key string, lim ratelimit.Limits, fb ratelimit.Feedback, now func() time.Time) error {
	return run(ctx, s, "Buckets", "Feedback", key, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if b := ratelimit.ApplyFeedback(s.buckets[key], lim, fb, now()); b != nil {
			s.buckets[key] = b
		}
		return nil
	})
}
