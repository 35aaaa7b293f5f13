package worker

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"hayrick"
)

// Do carries out one delivery of a role.
type Do func(ctx context.Context, d hayrick.Delivery) (Verdict, error)

// Pool drains the task queue: it receives messages for a number of slots, keeps
// those in hand hidden, and acknowledges in groups. It is the same on a laptop, a
// Slurm node and any machine that runs `hayrick worker`.
type Pool struct {
	Queue Queue
	World hayrick.World
	Log   *slog.Logger
	Slots int
	// Do has one entry a role that this process can play; a message of another role is
	// left for others.
	Do map[hayrick.Role]Do
	// Visibility hides a message in hand; it is extended as long as it is worked on.
	Visibility time.Duration
	// Idle is called when nothing is in hand or to be acknowledged and no message came
	// for a second; stop = true ends Run.
	Idle func(ctx context.Context) (stop bool)
	// GiveUp says of an error of the queue that asking again changes nothing: Run ends
	// with it. nil = it is asked again, whatever it is.
	GiveUp func(error) bool
	// Drain, when closed, stops receiving; Run returns when nothing is in hand.
	Drain <-chan struct{}

	// extending is held while a delivery in hand is hidden for longer or shown again:
	// a late Extend must not hide what was just shown.
	extending sync.Mutex

	mu     sync.Mutex       // guards what follows
	inHand map[string]*held // by receipt
	acks   []hayrick.Delivery
	took   time.Duration         // of a delivery, moving average
	odd    map[hayrick.Role]bool // roles that were asked for and are not ours
	wake   chan struct{}         // a slot became free
}

// held is a delivery in hand: it waits for a slot or is worked on.
type held struct {
	hayrick.Delivery
	working bool
}

const (
	queueGroup  = 10 // messages a queue call carries at most on every backend
	receiveWait = time.Second
	// aheadFor is how long a group of messages may take to be worked off that is received
	// ahead of free slots: what waits here, nobody else works on.
	aheadFor = time.Second
)

// Run drains the queue until ctx or Drain ends it, or Idle says so. It returns
// after everything in hand has ended.
func (p *Pool) Run(ctx context.Context) error {
	p.inHand, p.odd = map[string]*held{}, map[hayrick.Role]bool{}
	p.wake = make(chan struct{}, 1)
	p.took = p.shortTask() // until it is known, nothing is taken ahead of a free slot
	stopKeeping := p.keep(ctx)
	defer stopKeeping()
	work := make(chan hayrick.Delivery, p.Slots+queueGroup)
	var slots sync.WaitGroup
	for range p.Slots {
		slots.Add(1)
		p.World.Go("slot", func() {
			defer slots.Done()
			for d := range work {
				if p.begin(d) {
					p.do(ctx, d)
				}
			}
		})
	}
	err := p.receive(ctx, work)
	close(work)
	slots.Wait()
	p.flush(context.WithoutCancel(ctx))
	return err
}

// receive feeds the slots.
func (p *Pool) receive(ctx context.Context, work chan<- hayrick.Delivery) error {
	for {
		n := p.room()
		for n == 0 {
			select {
			case <-p.wake:
			case <-p.Drain:
				return nil
			case <-ctx.Done():
				return nil
			}
			n = p.room()
		}
		if p.draining() || ctx.Err() != nil {
			return nil
		}
		if p.idle() {
			p.flush(ctx) // nothing in hand will fill the group
		}
		rctx, cancel := p.untilDrain(ctx)
		ds, err := p.Queue.Receive(rctx, hayrick.QueueTasks, n, p.Visibility, receiveWait)
		cancel()
		if err != nil && p.GiveUp != nil && p.GiveUp(err) && ctx.Err() == nil && !p.draining() {
			return err
		}
		if err != nil && ctx.Err() == nil && !p.draining() {
			p.Log.Warn("receive failed; trying again", hayrick.KeyError, err)
			if p.World.Clock.Sleep(ctx, receiveWait) != nil {
				return nil
			}
			continue
		}
		for _, d := range ds {
			p.mu.Lock()
			p.inHand[d.Receipt] = &held{Delivery: d}
			p.mu.Unlock()
			work <- d // has room for Slots + queueGroup, and room() counts what is in hand
		}
		if len(ds) == 0 && p.idle() {
			p.flush(ctx)
			if p.Idle != nil && p.Idle(ctx) {
				return nil
			}
		}
	}
}

// untilDrain ends a wait for messages when the drain begins.
func (p *Pool) untilDrain(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if p.Drain != nil {
		p.World.Go("drain", func() {
			select {
			case <-p.Drain:
				cancel()
			case <-ctx.Done():
			}
		})
	}
	return ctx, cancel
}

func (p *Pool) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.inHand) == 0
}

func (p *Pool) draining() bool {
	select {
	case <-p.Drain:
		return true
	default:
		return false
	}
}

// shortTask is how short tasks have to be to be received in whole groups, ahead of
// free slots: a queue call a task would cost more than the task, in time or in money.
func (p *Pool) shortTask() time.Duration { return aheadFor * time.Duration(p.Slots) / queueGroup }

// room is how many messages may be received now: as many as slots are free, and a
// group ahead while tasks are short.
func (p *Pool) room() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := p.Slots
	if p.took < p.shortTask() {
		limit += queueGroup
	}
	free := limit - len(p.inHand)
	if p.took < p.shortTask() && free < queueGroup {
		return 0 // wait for a whole group
	}
	return min(max(free, 0), queueGroup)
}

// begin says that a slot has come to a delivery, unless it was given back meanwhile.
func (p *Pool) begin(d hayrick.Delivery) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.inHand[d.Receipt]
	if ok {
		h.working = true
	}
	return ok
}

func (p *Pool) do(ctx context.Context, d hayrick.Delivery) {
	start := p.World.Clock.Now()
	v := again(d.AfterFault(), "not a role of this process")
	var err error
	if do, ok := p.Do[d.Role]; ok && !p.draining() && ctx.Err() == nil {
		v, err = do(ctx, d)
	} else if ok {
		v = again(0, "draining")
	} else {
		p.tellOdd(d)
	}
	v.Ack = v.Ack && err == nil
	if err != nil && ctx.Err() == nil {
		said := []any{hayrick.KeyRole, d.Role, hayrick.KeyJobID, d.JobID, hayrick.KeyGroup, d.Group, hayrick.KeyTaskID, d.TaskID, "doing", v.Because, hayrick.KeyError, err}
		if user := (*hayrick.UserError)(nil); errors.As(err, &user) { // nobody else may be there to tell it
			said = append(said, "hint", user.Hint)
		}
		p.Log.Warn("attempt ended early; it will be tried again", said...)
	} else {
		p.Log.Debug("delivery ended", hayrick.KeyRole, d.Role, hayrick.KeyGroup, d.Group, hayrick.KeyTaskID, d.TaskID,
			"ack", v.Ack, "because", v.Because)
	}
	p.ended(ctx, d, v, p.World.Clock.Now().Sub(start))
}

// tellOdd tells once of a role that this process does not have. The message is left for
// others, each time for longer, and is a dead letter when nobody has that role.
func (p *Pool) tellOdd(d hayrick.Delivery) {
	p.mu.Lock()
	told := p.odd[d.Role]
	p.odd[d.Role] = true
	p.mu.Unlock()
	if !told {
		p.Log.Warn("a message asks for a role that this process does not have, and is left in the queue; a newer hayrick may have sent it",
			hayrick.KeyRole, d.Role, hayrick.KeyJobID, d.JobID, hayrick.KeyGroup, d.Group, hayrick.KeyTaskID, d.TaskID)
	}
}

// ended takes a delivery out of hand and collects its acknowledgement, or shows it
// again. A crash before the flush redelivers messages whose commits are there: they
// are marked and acknowledged again.
func (p *Pool) ended(ctx context.Context, d hayrick.Delivery, v Verdict, took time.Duration) {
	ctx = context.WithoutCancel(ctx)
	if !v.Ack {
		p.extending.Lock()
	}
	p.mu.Lock()
	delete(p.inHand, d.Receipt)
	p.took += (took - p.took) / 8
	if v.Ack {
		p.acks = append(p.acks, d)
	}
	full := len(p.acks) >= queueGroup
	p.mu.Unlock()
	if !v.Ack {
		p.extend(ctx, v.Again, d)
		p.extending.Unlock()
	}
	if full {
		p.flush(ctx)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Pool) flush(ctx context.Context) {
	p.mu.Lock()
	acks := p.acks
	p.acks = nil
	p.mu.Unlock()
	if len(acks) == 0 {
		return
	}
	if err := p.Queue.Ack(ctx, hayrick.QueueTasks, acks...); err != nil && !errors.Is(err, context.Canceled) {
		p.Log.Debug("messages not acknowledged; they come again and are found done", hayrick.KeyError, err)
	}
}

// keep hides what is worked on for longer. What has waited for a slot until now is
// given back, for others may have a free one.
func (p *Pool) keep(ctx context.Context) (stop func()) {
	ctx, stop = context.WithCancel(context.WithoutCancel(ctx))
	p.World.Go("keep", func() {
		waited := map[string]bool{}
		for p.World.Clock.Sleep(ctx, p.Visibility/3) == nil {
			p.flush(ctx) // what is acknowledged must not come again
			p.extending.Lock()
			working, back := p.sort(waited)
			p.extend(ctx, p.Visibility, working...)
			p.extend(ctx, 0, back...)
			p.extending.Unlock()
		}
	})
	return stop
}

// sort lists what is worked on, and takes out of hand what has waited for a slot
// since the last time, which waited notes.
func (p *Pool) sort(waited map[string]bool) (working, back []hayrick.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := maps.Clone(waited)
	clear(waited)
	for receipt, h := range p.inHand {
		switch {
		case h.working:
			working = append(working, h.Delivery)
		case before[receipt]:
			back = append(back, h.Delivery)
			delete(p.inHand, receipt)
			p.took = p.shortTask() // tasks are not so short after all
		default:
			waited[receipt] = true
		}
	}
	return working, back
}

func (p *Pool) extend(ctx context.Context, visibility time.Duration, ds ...hayrick.Delivery) {
	if len(ds) == 0 {
		return
	}
	if err := p.Queue.Extend(ctx, hayrick.QueueTasks, visibility, ds...); err != nil && ctx.Err() == nil {
		p.Log.Debug("visibility not changed", "messages", len(ds), hayrick.KeyError, err)
	}
}
