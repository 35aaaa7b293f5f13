package extproc

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"hayrick"
	"hayrick/internal/processtree"
	"hayrick/jobs"
)

// call is one item at a child.
type call struct {
	id      int64
	ordinal int64
	ctx     context.Context
	host    jobs.Host
	emit    jobs.Emit
	left    time.Duration
	slot    *slot

	running   bool
	began     time.Time
	cancelled bool
	ended     bool
	rows      int64 // emitted
	awaits    int64 // rows until it is ok, with rows: arrow; -1 = it has not said ok
	beat, of  int64
	rate, key string // of its last need
	stopNeeds context.CancelFunc
}

// sent is an item that a child was sent.
type sent struct{ id, ordinal int64 }

// submit sends the item of a slot; false when the child takes none any more, or the slot
// is to end.
func (c *child) submit(l *slot) bool {
	it := &l.it
	k := &call{ordinal: it.Ordinal, ctx: l.ctx, host: it.Host, emit: l.emit, left: it.Left, slot: l, awaits: -1}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed != "" || c.closing || c.ctx.Err() != nil || l.call != nil && l.ctx.Err() != nil {
		return false
	}
	l.call = k
	c.lastID++
	k.id = c.lastID
	c.calls[k.id] = k
	c.recent[k.id%int64(len(c.recent))] = sent{k.id, k.ordinal}
	if c.running < c.atOnce {
		c.begin(k)
	} else {
		c.waiting = append(c.waiting, k)
	}
	if c.h.Trace != nil {
		c.traced(appendItem(nil, k.id, it))
	}
	c.out = appendItem(c.out, k.id, it)
	c.held++
	c.feed()
	return true
}

// begin starts a call's time. Called with mu held.
func (c *child) begin(k *call) {
	k.running = true
	k.began = c.h.world.Clock.Now()
	c.running++
}

// finish ends a call with its result; what waits behind it begins. Called with mu held.
func (c *child) finish(k *call, out jobs.Outcome) {
	if k.ended {
		return
	}
	c.remove(k)
	k.slot.done <- c.secrets.outcome(out)
}

// remove ends a call without telling anybody. Called with mu held.
func (c *child) remove(k *call) {
	k.ended = true
	delete(c.calls, k.id)
	c.feed()
	if k.stopNeeds != nil {
		k.stopNeeds()
	}
	if !k.running {
		return // it is passed over where it waits
	}
	c.running--
	for c.killed == "" && c.running < c.atOnce && len(c.waiting) > 0 { // what is being ended begins nothing
		next := c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		if !next.ended {
			c.begin(next)
		}
	}
	if len(c.waiting) == 0 {
		c.waiting = c.waiting[:0:0]
	}
}

// deadlines cancels the items whose time is over. A call's time begins with it, so that
// none is over sooner than one that began before it.
func (c *child) deadlines() {
	limit := c.h.timeout
	if limit <= 0 {
		return
	}
	wait := limit
	for c.h.world.Clock.Sleep(c.ctx, wait) == nil {
		wait = limit
		var over []*call
		now := c.h.world.Clock.Now()
		c.mu.Lock()
		for _, k := range c.calls {
			if !k.running || k.cancelled || k.left <= 0 {
				continue
			}
			left := k.left - now.Sub(k.began)
			if left <= 0 {
				over = append(over, k)
			} else {
				wait = min(wait, left)
			}
		}
		c.mu.Unlock()
		for _, k := range over {
			c.cancel(k)
		}
	}
}

// cancel asks the program to give an item up, and gives the item up itself when it does
// not say so soon.
func (c *child) cancel(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.cancelled || k.ended {
		return
	}
	k.cancelled = true
	c.queue(message{T: "cancel", ID: k.id}.append(nil))
	c.h.world.Go("handler cancel", func() {
		if c.h.world.Clock.Sleep(c.ctx, CancelTime) == nil {
			c.giveUp(k)
		}
	})
}

// giveUp ends an item that did not heed its cancel, and the child: nothing else ends
// what it does.
func (c *child) giveUp(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.ended {
		return
	}
	c.condemn("an item did not heed its cancel")
	c.finish(k, c.lateOutcome(k, "it did not heed cancel and is ended"))
}

// lateOutcome is the outcome of a call whose time is over. Called with mu held.
func (c *child) lateOutcome(k *call, what string) jobs.Outcome {
	text := fmt.Sprintf("still running after %s; %s", k.left, what)
	if k.ctx.Err() != nil || k.left <= 0 {
		text = "stopped with the attempt; " + what
	}
	if k.beat > 0 || k.of > 0 {
		text += fmt.Sprintf("; at %d of %d", k.beat, k.of)
	}
	return jobs.Outcome{Class: hayrick.ClassTimeout, Message: text, Detail: c.words(), Late: k.ctx.Err() == nil && k.left > 0}
}

// settle gives every call that has no end the result that follows from the child's.
func (c *child) settle(end processtree.End) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exit = exitText(end.Status)
	own := c.killed == "" || c.tooBig != ""
	switch {
	case c.tooBig != "":
		c.exit = c.tooBig
	case end.Lost:
		c.exit = "lost its supervisor, which " + c.exit
	case own && c.bye:
		c.exit = "said bye and " + c.exit
	}
	all := make([]*call, 0, len(c.calls))
	for _, k := range c.calls {
		all = append(all, k)
	}
	c.waiting, c.running = nil, 0
	for _, k := range all {
		out := jobs.Outcome{NotTried: true, Class: hayrick.ClassCrash, Message: "its process ended for the sake of another item"}
		switch {
		case k.cancelled:
			out = c.lateOutcome(k, "the handler "+c.exit)
		case own && k.running:
			text := "the handler " + c.exit + " with the item in hand"
			if end.Peak > 0 && end.Status.Signaled() && c.tooBig == "" {
				text += fmt.Sprintf(", its peak memory %d MiB", (end.Peak+1<<19)>>20)
			}
			if line := lastLine(c.words()); line != "" {
				text += ": " + line
			}
			out = jobs.Outcome{Class: hayrick.ClassCrash, Message: text, Crashed: true, Detail: c.words()}
		}
		k.running = false
		c.finish(k, out)
	}
	if c.listing != nil {
		c.listing.done <- fmt.Errorf("the handler %s before its list was complete%s", c.exit, behind(lastLine(c.words())))
		c.listing = nil
	}
}

func exitText(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return fmt.Sprintf("was ended by signal %d (%s)", int(ws.Signal()), ws.Signal())
	}
	return fmt.Sprintf("exited with status %d", ws.ExitStatus())
}

// inHand are the calls that run. Called with mu held.
func (c *child) inHand() []*call {
	var out []*call
	for _, k := range c.calls {
		if k.running {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b *call) int { return int(a.id - b.id) })
	return out
}
