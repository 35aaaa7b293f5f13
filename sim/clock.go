package sim

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Epoch is when every world begins.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Clock is virtual time. Sleeping is what makes it pass.
type Clock struct {
	// Stalled is called by a Sleep of exactly Stall, after the time has passed: it is
	// what others do while a process is stalled.
	Stalled func()

	mu  sync.Mutex
	now time.Time
}

// Stall is how long a stalled process stands still: past every lease.
const Stall = 10*time.Minute + time.Millisecond

// NewClock starts at Epoch.
func NewClock() *Clock { return &Clock{now: Epoch} }

// Now is hayrick.Clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Sleep is hayrick.Clock: it returns at once, d later.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	if d > 0 {
		c.now = c.now.Add(d)
	}
	c.mu.Unlock()
	if d == Stall && c.Stalled != nil {
		c.Stalled()
	}
	return ctx.Err()
}

// Rand is seeded randomness.
type Rand struct {
	mu  sync.Mutex
	src *rand.PCG
}

// NewRand is the stream of a seed.
func NewRand(seed uint64) *Rand { return &Rand{src: rand.NewPCG(seed, 1)} }

// Uint64 is hayrick.Rand.
func (r *Rand) Uint64() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.src.Uint64()
}
