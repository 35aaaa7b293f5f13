package sim

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Turnstile is the virtual time of a simulated world, and the only way through it: every
// sleep and every call of a port is an event, and one event is let through at a time,
// when everything that the last one set going has come to rest. So what happens is a
// function of the seed, though it is ordinary blocking code on goroutines.
//
// Goroutines that wake each other by other means than the turnstile run side by side
// until they come to it again. Nothing depends on which of them comes first: the place of
// an event follows from what it is, and not from when it was made.
//
// It is used inside a bubble of testing/synctest, by goroutines of that bubble.
type Turnstile struct {
	seed   uint64
	rest   func() // waits until every other goroutine is blocked
	lock   sync.Mutex
	now    time.Time
	events events
	seen   map[uint64]uint64 // how many events of a kind there were
	passed uint64
}

// event is one goroutine that waits for its turn.
type event struct {
	at   time.Time
	tie  uint64
	gate chan struct{}
	gone bool // nobody waits any more
}

type events []*event

func (h events) Len() int { return len(h) }
func (h events) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].tie < h[j].tie
}
func (h events) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *events) Push(x any)   { *h = append(*h, x.(*event)) }
func (h *events) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}

// NewTurnstile stands at Epoch. rest is synctest.Wait.
func NewTurnstile(seed uint64, rest func()) *Turnstile {
	return &Turnstile{seed: seed, rest: rest, now: Epoch, seen: map[uint64]uint64{}}
}

// Now is the virtual time.
func (t *Turnstile) Now() time.Time {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.now
}

// draw is a number that follows from the seed, from what is asked for, and from how often
// that was asked for before. It needs the lock.
func (t *Turnstile) draw(what ...string) uint64 {
	h := mix(t.seed, what...)
	n := t.seen[h]
	t.seen[h] = n + 1
	return scramble(h + n*0x9e3779b97f4a7c15)
}

// Draw is a random number for one purpose. Other draws do not change it.
func (t *Turnstile) Draw(what ...string) uint64 {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.draw(what...)
}

// Pass waits for d, and for its turn. It ends early, with ctx or when over is closed,
// and is false then.
func (t *Turnstile) Pass(ctx context.Context, over <-chan struct{}, d time.Duration, what ...string) bool {
	select {
	case <-ctx.Done():
		return false
	case <-over:
		return false
	default:
	}
	t.lock.Lock()
	e := &event{at: t.now.Add(max(d, 0)), tie: t.draw(what...), gate: make(chan struct{}, 1)}
	heap.Push(&t.events, e)
	t.lock.Unlock()
	select {
	case <-e.gate:
		return true
	case <-ctx.Done():
	case <-over:
	}
	t.lock.Lock()
	e.gone = true
	t.lock.Unlock()
	return false
}

// Step lets the next event through and waits until all is at rest again. It is false when
// nobody waits for a turn.
func (t *Turnstile) Step() bool {
	t.rest() // those that began outside of it
	t.lock.Lock()
	var e *event
	for e == nil && len(t.events) > 0 {
		if next := heap.Pop(&t.events).(*event); !next.gone {
			e = next
		}
	}
	if e != nil {
		t.now = e.at
		t.passed++
		e.gate <- struct{}{}
	}
	t.lock.Unlock()
	t.rest()
	return e != nil
}

// mix hashes words.
func mix(seed uint64, words ...string) uint64 {
	h := seed ^ 0xcbf29ce484222325
	for _, w := range words {
		for i := range len(w) {
			h = (h ^ uint64(w[i])) * 0x100000001b3
		}
		h = (h ^ 0xff) * 0x100000001b3
	}
	return scramble(h)
}

// scramble spreads the bits of x over all of it (splitmix64).
func scramble(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
