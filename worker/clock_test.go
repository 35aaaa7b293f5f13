package worker_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"hayrick"
)

// The durations of watchers: a Sleep of one of them lasts until fire says that it is
// over. All others pass at once, and time with them.
const (
	taskTimeout = 30 * time.Minute
	itemTimeout = time.Minute
	lease       = 90 * time.Second
	grace       = 10 * time.Second // of a handler, worker.handlerGrace
	visibility  = 75 * time.Second // of a pool's messages
)

// clock is time that the test makes pass.
type clock struct {
	mu       sync.Mutex
	changed  *sync.Cond
	now      time.Time
	sleepers map[time.Duration][]sleeper
}

// sleeper is one Sleep that lasts; when its ctx has ended it only has not noticed.
type sleeper struct {
	ctx  context.Context
	over chan struct{}
}

func newClock() *clock {
	c := &clock{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), sleepers: map[time.Duration][]sleeper{}}
	c.changed = sync.NewCond(&c.mu)
	for _, d := range []time.Duration{taskTimeout, itemTimeout, lease / 3, grace, visibility / 3} {
		c.sleepers[d] = nil
	}
	return c
}

// Now is hayrick.Clock.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Sleep is hayrick.Clock.
func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	if _, watched := c.sleepers[d]; !watched || ctx.Err() != nil {
		defer c.mu.Unlock()
		if ctx.Err() == nil {
			c.now = c.now.Add(max(0, d))
		}
		return ctx.Err()
	}
	me := sleeper{ctx, make(chan struct{})}
	c.sleepers[d] = append(c.sleepers[d], me)
	c.changed.Broadcast()
	c.mu.Unlock()
	select {
	case <-me.over:
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sleepers[d] = slices.DeleteFunc(c.sleepers[d], func(s sleeper) bool { return s == me })
		return ctx.Err()
	}
}

// fire waits for somebody who sleeps for d, and ends the sleep of all who do.
func (c *clock) fire(d time.Duration) { c.end(d, func(sleeper) bool { return true }) }

// fireOf is fire for the one who sleeps under ctx.
func (c *clock) fireOf(ctx context.Context, d time.Duration) {
	c.end(d, func(s sleeper) bool { return s.ctx == ctx })
}

// await waits for somebody who sleeps for d.
func (c *clock) await(d time.Duration) { c.end(d, nil) }

func (c *clock) end(d time.Duration, whose func(sleeper) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.sleepers[d]; !ok {
		panic(fmt.Sprintf("nobody watches for %v", d))
	}
	for !slices.ContainsFunc(c.sleepers[d], func(s sleeper) bool { return s.ctx.Err() == nil && (whose == nil || whose(s)) }) {
		c.changed.Wait()
	}
	if whose == nil {
		return
	}
	c.now = c.now.Add(d)
	c.sleepers[d] = slices.DeleteFunc(c.sleepers[d], func(s sleeper) bool {
		if whose(s) {
			close(s.over)
			return true
		}
		return false
	})
}

// pass moves the time on; sleepers sleep.
func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is the world of a process on the clock.
func (c *clock) world(name string) hayrick.World {
	w := hayrick.RealWorld(name)
	w.Clock = c
	return w
}

func TestClock(t *testing.T) {
	c := newClock()
	start := c.Now()
	if err := c.Sleep(t.Context(), time.Second); err != nil || c.Now().Sub(start) != time.Second {
		t.Errorf("%v, %v", err, c.Now().Sub(start))
	}
	ended := make(chan error)
	go func() { ended <- c.Sleep(t.Context(), grace) }()
	c.fire(grace)
	if err := <-ended; err != nil || c.Now().Sub(start) != time.Second+grace {
		t.Errorf("%v, %v", err, c.Now().Sub(start))
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- c.Sleep(ctx, grace) }()
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Error(err)
	}
}
