package local

import (
	"context"
	"fmt"
	"time"

	"hayrick/ratelimit"
)

// Reserve applies ratelimit.ApplyReserve. When state.db is deleted meanwhile, the
// step is done again in the new one: what this one granted is never answered.
func (s *Store) Reserve(ctx context.Context, key string, lim ratelimit.Limits, ask ratelimit.Ask, now func() time.Time) (ratelimit.Grant, error) {
	var grant ratelimit.Grant
	err := s.state.do(ctx, func(t *tx) error {
		return t.bucket(key, lim, func(stored []byte) (after []byte) {
			after, grant = ratelimit.ApplyReserve(stored, lim, ask, now())
			return after
		})
	})
	if err != nil {
		return ratelimit.Grant{}, fmt.Errorf("reserve from %s: %w", key, err)
	}
	return grant, nil
}

// Feedback applies ratelimit.ApplyFeedback.
func (s *Store) Feedback(ctx context.Context, key string, lim ratelimit.Limits, fb ratelimit.Feedback, now func() time.Time) error {
	err := s.state.do(ctx, func(t *tx) error {
		return t.bucket(key, lim, func(stored []byte) []byte {
			return ratelimit.ApplyFeedback(stored, lim, fb, now())
		})
	})
	if err != nil {
		return fmt.Errorf("feedback to %s: %w", key, err)
	}
	return nil
}

// bucket applies one step to a stored bucket; nil from step changes nothing.
func (t *tx) bucket(key string, lim ratelimit.Limits, step func(stored []byte) []byte) error {
	row, err := t.c.one(`SELECT state FROM buckets WHERE key = ?`, key)
	if err != nil {
		return err
	}
	var stored []byte
	if row != nil {
		stored, _ = row[0].([]byte)
	}
	after := step(stored)
	if after == nil {
		return nil
	}
	var forget int64
	if lim.Idle > 0 {
		forget = t.now().Add(lim.Idle).UnixNano()
	}
	if stored == nil { // a new key: the moment to drop those that nobody uses any more
		if err := t.c.exec(`DELETE FROM buckets WHERE forget > 0 AND forget < ?`, t.now().UnixNano()); err != nil {
			return err
		}
	}
	return t.c.exec(`INSERT OR REPLACE INTO buckets VALUES (?, ?, ?)`, key, after, forget)
}
