package extproc

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hayrick"
	"hayrick/jobs"
)

// maxAhead bounds the bytes of items that wait at a child behind its first.
const maxAhead = 1 << 20

// Session runs the items of one attempt.
type Session struct {
	h     *Handler
	task  jobs.Task
	alone chan struct{} // holds one token: the right to run an item alone

	mu      sync.Mutex // guards what follows
	places  []*place
	changed chan struct{} // closed when a place has room again; nil = nobody waits
	rated   bool
	closed  bool
}

// place is where a child of the session is. It outlives the child.
type place struct {
	child    *child
	items    int
	bytes    int
	starting bool
	idle     int // children in a row that ended without an item in hand or done
}

// Open is jobs.Opener: it has the children of the attempt ready.
func (h *Handler) Open(ctx context.Context, t jobs.Task) (jobs.Session, error) {
	s := &Session{h: h, task: t, alone: make(chan struct{}, 1)}
	errs := make(chan error, h.def.Processes)
	for range h.def.Processes {
		p := &place{starting: true}
		s.places = append(s.places, p)
	}
	for _, p := range s.places {
		if c := h.take(); c != nil {
			s.adopt(c)
			s.put(p, c)
			errs <- nil
			continue
		}
		h.world.Go("handler start", func() {
			c, err := h.spawn(ctx, t, s)
			s.put(p, c)
			errs <- err
		})
	}
	var failed error
	for range s.places {
		failed = errors.Join(failed, <-errs)
	}
	if failed != nil {
		s.Close()
		return nil, first(failed)
	}
	return s, nil
}

// first is one error of several that are mostly the same.
func first(err error) error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return first(j.Unwrap()[0])
	}
	return err
}

// adopt makes a parked child the session's.
func (s *Session) adopt(c *child) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sess = s
	c.tail = nil
	c.queue(message{T: "task", Run: s.task.Run, Task: s.task.Task}.append(nil))
}

// put gives a place its child, nil when it could not be started.
func (s *Session) put(p *place, c *child) {
	s.mu.Lock()
	p.starting = false
	late := s.closed
	if !late {
		p.child = c
	}
	s.notify()
	s.mu.Unlock()
	if late && c != nil {
		s.h.park(c)
	}
}

// notify wakes who waits for a place. Called with mu held.
func (s *Session) notify() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Slots is jobs.Session.
func (s *Session) Slots(rated bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rated = rated
	n := 0
	for _, p := range s.places {
		n += s.room(p)
	}
	return n
}

// room is how many items a place may have. Called with mu held.
func (s *Session) room(p *place) int {
	ahead := s.h.def.ItemsInFlight
	if p.child == nil {
		return ahead
	}
	atOnce := p.child.atOnceNow()
	if s.rated {
		return min(ahead, atOnce)
	}
	return ahead
}

func (c *child) atOnceNow() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.atOnce
}

// Close is jobs.Session. Children with items still in hand are ended.
func (s *Session) Close() {
	s.mu.Lock()
	s.closed = true
	var all []*child
	for _, p := range s.places {
		if p.child != nil {
			all = append(all, p.child)
			p.child = nil
		}
	}
	s.notify()
	s.mu.Unlock()
	for _, c := range all {
		s.h.park(c)
	}
}

// Handle is jobs.Handler: one try of an item at one of the children.
func (s *Session) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	return s.Stream(ctx, it, emit, nil)
}

// Stream is jobs.Streamer. An item that follows another is sent by who read the other's
// end, to the same child; where that cannot be it is sent from here.
func (s *Session) Stream(ctx context.Context, it jobs.Item, emit jobs.Emit, next func() (jobs.Item, jobs.Emit, bool)) jobs.Outcome {
	l := &slot{s: s, ctx: ctx, it: it, emit: emit, next: next, done: make(chan jobs.Outcome, 1)}
	for {
		if l.call != nil && ctx.Err() != nil { // of what follows nothing is begun then
			return cannot(ctx, ctx.Err())
		}
		if size := frameSize(&l.it); size > MaxFrame {
			return jobs.Outcome{Class: "item_too_large", Disposition: hayrick.Permanent, Message: fmt.Sprintf("the item has %d bytes, a frame at most 16 MiB; let the item name a file instead", len(l.it.Data))}
		}
		if l.it.Alone {
			return s.handleAlone(l)
		}
		p, c, err := s.choose(ctx, &l.it)
		if err != nil {
			return cannot(ctx, err)
		}
		l.p, l.unsent = p, false
		if !c.submit(l) {
			s.leave(p, &l.it, c, false)
			continue
		}
		out := c.await(l)
		if l.unsent {
			s.leave(p, &l.sent, c, true)
			continue
		}
		s.leave(p, &l.it, c, true)
		return out
	}
}

// frameSize is about what the frame of an item takes.
func frameSize(it *jobs.Item) int { return len(it.Data) + len(it.Key) + len(it.Cursor) + 256 }

// slot is where one item after the other goes. Between the sending of one and its end it
// belongs to who reads the child's frames, at other times to Stream.
type slot struct {
	s      *Session
	ctx    context.Context
	next   func() (jobs.Item, jobs.Emit, bool)
	p      *place
	it     jobs.Item // in hand, or, when unsent, to be sent
	emit   jobs.Emit
	unsent bool
	sent   jobs.Item         // with unsent: the one before, whose room is not given back yet
	done   chan jobs.Outcome // has room for one: the end of the last one, or just that there is one to send
	call   *call             // guarded by the child's mu
}

// follow goes on behind an item that has ended ok. It runs without a lock held.
func (c *child) follow(l *slot) {
	it, emit, more := l.next()
	if !more {
		l.done <- jobs.OK()
		return
	}
	was := l.it
	l.it, l.emit = it, emit
	if !it.Alone && frameSize(&it) <= MaxFrame && l.s.swap(l.p, c, len(it.Data)-len(was.Data)) {
		if c.submit(l) {
			return
		}
		l.s.mu.Lock()
		l.p.bytes -= len(it.Data) - len(was.Data)
		l.s.mu.Unlock()
	}
	l.sent, l.unsent = was, true
	l.done <- jobs.OK()
}

// swap lets an item take the room of the one before it, more bytes than that had; false:
// there is none.
func (s *Session) swap(p *place, c *child, more int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || p.child != c || more > 0 && p.items > 1 && p.bytes+more > maxAhead {
		return false
	}
	p.bytes += more
	p.idle = 0
	return true
}

// await waits for the end of what a slot has at a child. The end of the slot's ctx
// cancels it, and that ends it soon.
func (c *child) await(l *slot) jobs.Outcome {
	select {
	case out := <-l.done:
		return out
	case <-l.ctx.Done():
		c.mu.Lock()
		k := l.call // what would follow it from now on is not submitted
		c.mu.Unlock()
		c.cancel(k)
		return <-l.done
	}
}

// handleAlone runs an item that a child died with, in a child that has had no other:
// when that dies too, nothing else can have been the cause.
func (s *Session) handleAlone(l *slot) jobs.Outcome {
	ctx := l.ctx
	select {
	case s.alone <- struct{}{}:
		defer func() { <-s.alone }()
	case <-ctx.Done():
		return jobs.Fail(hayrick.ClassTimeout, "stopped before it was sent")
	}
	c, err := s.h.spawn(ctx, s.task, s)
	if err != nil {
		return cannot(ctx, err)
	}
	defer s.h.park(c)
	l.next = nil
	if !c.submit(l) { // ready, and gone at once
		return jobs.Outcome{Class: hayrick.ClassCrash, Crashed: true, Message: "the handler ended before it read the item", Detail: c.lastWords()}
	}
	return c.await(l)
}

// cannot is the outcome of an item that no child could be had for.
func cannot(ctx context.Context, err error) jobs.Outcome {
	if ctx.Err() != nil {
		return jobs.Fail(hayrick.ClassTimeout, "stopped before it was sent")
	}
	out := jobs.Outcome{Class: hayrick.ClassHandler, Message: err.Error()}
	var s *StartError
	if errors.As(err, &s) {
		out.Detail = s.Detail
	}
	return out
}

// choose reserves room for an item at the place that has the fewest, starting a child
// there when it has none.
func (s *Session) choose(ctx context.Context, it *jobs.Item) (*place, *child, error) {
	for {
		s.mu.Lock()
		p := s.fewest(it)
		switch {
		case s.closed:
			s.mu.Unlock()
			return nil, nil, errors.New("the attempt is over")
		case p != nil && p.child != nil:
			c := p.child
			p.items++
			p.bytes += len(it.Data)
			s.mu.Unlock()
			return p, c, nil
		case p != nil: // it needs a child
			p.starting = true
			s.mu.Unlock()
			if err := s.restart(ctx, p); err != nil {
				return nil, nil, err
			}
			continue
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// fewest is the place for an item: one with room, nil when all are full or starting.
// Called with mu held.
func (s *Session) fewest(it *jobs.Item) *place {
	var best *place
	for _, p := range s.places {
		full := p.child != nil && p.items > 0 && (p.items >= s.room(p) || p.bytes+len(it.Data) > maxAhead)
		if p.starting || full {
			continue
		}
		if best == nil || p.items < best.items {
			best = p
		}
	}
	return best
}

// maxIdle is how many children in a row may end without having had an item.
const maxIdle = 3

// restart starts a child at a place that has none.
func (s *Session) restart(ctx context.Context, p *place) error {
	var c *child
	var err error
	s.mu.Lock()
	idle := p.idle
	s.mu.Unlock()
	if idle >= maxIdle {
		err = &StartError{What: fmt.Sprintf("the handler ended %d times in a row without having had an item", idle)}
	} else if c = s.h.take(); c != nil {
		s.adopt(c)
	} else {
		c, err = s.h.spawn(ctx, s.task, s)
	}
	s.put(p, c)
	return err
}

// leave gives the room of an item back. A child that takes no more items leaves its
// place.
func (s *Session) leave(p *place, it *jobs.Item, c *child, had bool) {
	over := !c.takes()
	s.mu.Lock()
	defer s.mu.Unlock()
	p.items--
	p.bytes -= len(it.Data)
	if had {
		p.idle = 0
	}
	if over && p.child == c {
		p.child = nil
		if !had {
			p.idle++
		}
	}
	s.notify()
}

// takes says whether the child can be given items.
func (c *child) takes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.killed == "" && !c.closing && !c.bye && c.ctx.Err() == nil
}
