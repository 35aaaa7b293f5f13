// Package heldclock is time that stands, for tests: nobody who sleeps wakes before the
// test says so, and so no test waits for time to pass.
package heldclock

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Clock is a hayrick.Clock whose sleeps end by End.
type Clock struct {
	mu      sync.Mutex
	changed *sync.Cond
	now     time.Time                         // guarded by mu
	waits   map[time.Duration][]chan struct{} // guarded by mu
}

// New is a clock that stands at now.
func New(now time.Time) *Clock {
	c := &Clock{now: now, waits: map[time.Duration][]chan struct{}{}}
	c.changed = sync.NewCond(&c.mu)
	return c
}

// Now is the time at which it stands.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Sleep waits for End, or for the end of ctx and then returns its error.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	over := make(chan struct{})
	c.mu.Lock()
	c.waits[d] = append(c.waits[d], over)
	c.changed.Broadcast()
	c.mu.Unlock()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		c.waits[d] = slices.DeleteFunc(c.waits[d], func(w chan struct{}) bool { return w == over })
		return ctx.Err()
	}
}

// End waits for somebody who sleeps for d, and ends the sleep of all who do: d has
// passed.
func (c *Clock) End(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waits[d]) == 0 {
		c.changed.Wait()
	}
	c.now = c.now.Add(d)
	for _, w := range c.waits[d] {
		close(w)
	}
	delete(c.waits, d)
}
