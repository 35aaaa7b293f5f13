package ratelimit

import (
	"context"
	"time"
)

// Store keeps the buckets. Each call is one atomic step on one key, so an adapter
// with transactions reads the bytes, applies ApplyReserve or ApplyFeedback, and
// writes the result in one of them; one with conditional writes does the same
// with the bytes it read as the condition, and a lost race is its own to repeat.
// Nothing but the atomicity is promised: a store may lose a bucket at any time.
// It may not bring an old one back: a restored backup must come without buckets.
// A call bounds its own time; ctx has no deadline.
type Store interface {
	// Reserve applies ApplyReserve. It calls now as late as it can: inside the
	// transaction, once the row is held, so that waiting for a lock does not make it
	// old; the step must follow within lim.ClockBound. ErrUnknown: the lot may be
	// reserved and nobody holds it, which wastes it; the caller asks anew. The same
	// goes for a crash before the answer arrives. ErrThrottled and ErrConflict:
	// nothing was reserved, try again later.
	Reserve(ctx context.Context, key string, lim Limits, ask Ask, now func() time.Time) (Grant, error)
	// Feedback applies ApplyFeedback, with now as above. It may be repeated after
	// ErrUnknown: the rate is cut once.
	Feedback(ctx context.Context, key string, lim Limits, fb Feedback, now func() time.Time) error
}
