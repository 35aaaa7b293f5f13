package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/jobs"
)

// MaxItemRows bounds the encoded rows of one item, which are held until it ends:
// an attempt may need run.items_in_flight times as much memory. A journal takes
// less than 1,000,000,000 bytes an item, SQLite's limit of a value. A handler whose
// items may have more rows has to bound them itself, and say so in a class of its
// own: this limit looks like a mistake of the handler.
const MaxItemRows = 768 << 20

var (
	errRows = errors.New("the item's rows are larger than 768 MiB; emit fewer, or make items smaller")
	errOver = errors.New("the try has ended")
)

// handlerGrace is how long a handler may take to return once its time is over.
const handlerGrace = 10 * time.Second

// badRows ends an item whose rows cannot be stored: a mistake of the handler that
// another try would repeat.
func badRows(err error) jobs.Outcome {
	return jobs.Outcome{Class: "bad_rows", Disposition: hayrick.Permanent, Message: err.Error()}
}

// handled is how a handler's call ended.
type handled struct {
	out     jobs.Outcome
	crashed bool
}

// tried is one try. Its rows are encoded by rows.AppendRow, one after the other,
// and count only when the outcome is ok.
type tried struct {
	handled

	mu    sync.Mutex // guards what follows until the try is over, and over itself
	over  bool
	bad   error // why the rows cannot be stored
	body  []byte
	count int64
	seen  rows.Observer

	declared *rows.Declared // output.schema
}

// emit is jobs.Emit. Rows that come when the try is over are refused.
func (t *tried) emit(r jobs.Row) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return errOver
	}
	if t.bad == nil {
		t.bad = t.add(r)
	}
	return t.bad
}

func (t *tried) add(r jobs.Row) error {
	r, err := t.declared.Fit(r)
	if err != nil {
		return err
	}
	if err := t.seen.Observe(r); err != nil {
		return err
	}
	body, err := rows.AppendRow(t.body, r)
	if err != nil {
		return err
	}
	if len(body) > MaxItemRows {
		t.body = nil
		return errRows
	}
	t.body = body
	t.count++
	return nil
}

// close ends the try for the handler's rows.
func (t *tried) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}

// try runs the handler once, on a goroutine of its own. One that does not return
// when its time is over is given up: otherwise it would keep its slot, the drain
// and the commit of all other items waiting for ever. Nothing can end it within the
// process; it goes on, and what it still does reaches nothing.
func (a *attemptRun) try(x *item, h *host) *tried {
	ctx, cancel := a.withTimeout()
	defer cancel()
	h.ctx = ctx
	t := &tried{declared: a.declared}
	it := a.handedOut(x, h, t)
	ended := make(chan handled, 1)
	a.w.World.Go("handle", func() { a.handle(ctx, it, t, ended) })
	var given bool
	t.handled, given = a.await(ctx, ended)
	t.close()
	limit := a.job.Definition.Run.ItemTimeout.D()
	switch {
	case given:
		t.out = jobs.Fail(hayrick.ClassTimeout, "the handler did not return when its time was over; it is given up")
		t.out.Late = true
		a.w.Log.Warn("handler given up; it keeps its memory until the process ends", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyOrdinal, x.in.Ordinal)
	case t.crashed:
	case t.bad != nil:
		t.out = badRows(t.bad)
	case !t.out.OK() && ctx.Err() != nil && a.hard.Err() == nil:
		t.out = jobs.Fail(hayrick.ClassTimeout, "still running after %s%s: %s", limit, a.reached(x), t.out.Message)
		t.out.Late = true
	}
	return t
}

// trySession is try for a handler that watches over its own time: there is nothing to
// give up, and no goroutine to do it for. One that goes on by itself ends at another item
// than the one it began with, and at is moved to that; recorded says that this one has
// ended too and that there is nothing left to do here.
func (a *attemptRun) trySession(at *int, h *host) (t *tried, recorded bool) {
	h.ctx = a.hard
	t = &tried{declared: a.declared}
	it := a.handedOut(&a.items[*at], h, t)
	if s, ok := a.session.(jobs.Streamer); ok && len(a.auto) == 0 && a.mode != ModeSolo {
		ctx := context.WithoutCancel(a.hard)
		t.out = s.Stream(a.hard, it, t.emit, func() (it jobs.Item, emit jobs.Emit, ok bool) {
			i, ok := a.goesOn(ctx, *at, t)
			if i < 0 {
				recorded = ok
				return it, nil, false
			}
			*at, t = i, &tried{declared: a.declared}
			return a.handedOut(&a.items[i], &host{a: a, item: &a.items[i], at: i, ctx: a.hard}, t), t.emit, true
		})
	} else {
		t.out = a.session.Handle(a.hard, it, t.emit)
	}
	t.close()
	t.crashed = t.out.Crashed
	if t.bad != nil && !t.crashed {
		t.out = badRows(t.bad)
	}
	return t, recorded
}

// goesOn records an item that has ended ok, and hands out the next one, as runItem and
// runSlot do, for a try that is the item's ordinary end. next is -1 when there is no such
// item; recorded says whether the end is recorded.
func (a *attemptRun) goesOn(ctx context.Context, i int, t *tried) (next int, recorded bool) {
	t.close()
	a.mu.Lock()
	defer a.mu.Unlock()
	x := &a.items[i]
	if t.bad != nil || a.soft.Err() != nil {
		return -1, false
	}
	x.Tries++
	if a.ends(ctx, i, hayrick.Failure{}, t) != nil { // it comes again, to who acts on it
		x.Tries--
		return -1, false
	}
	x.inHand = false
	for ; a.next < len(a.items); a.next++ {
		switch y := &a.items[a.next]; {
		case y.Ended:
		case y.bad != "" || a.lost[y.in.Ordinal] >= MaxLost:
			a.rest()
			return -1, true
		default:
			y.inHand = true
			a.next++
			return a.next - 1, true
		}
	}
	a.rest()
	return -1, true
}

// rest says that a slot has nothing in hand. Called with mu held.
func (a *attemptRun) rest() {
	a.handling--
	a.busy = a.w.World.Clock.Now()
}

// handedOut is the item as the handler gets it. t begins with the rows of its mark.
func (a *attemptRun) handedOut(x *item, h *host, t *tried) jobs.Item {
	h.try = t
	it := jobs.Item{
		Ordinal: x.number, Key: x.Key, Data: slices.Clip(x.in.Data), Try: x.Tries + 1, Host: h,
		Left: a.job.Definition.Run.ItemTimeout.D(), Alone: x.Crashes > 0,
	}
	if x.Cursor != nil {
		it.Cursor = json.RawMessage(x.Cursor)
		for r, err := range rows.Rows(x.marked) {
			if err == nil {
				err = t.emit(r)
			}
			if err != nil {
				panic(fmt.Sprintf("rows of a mark that were emitted once: %v", err)) // or checked by known
			}
		}
	}
	return it
}

// reached is how far an item was by its last beat, "" without one.
func (a *attemptRun) reached(x *item) (text string) {
	a.update(func() {
		if x.beat != [2]int64{} {
			text = fmt.Sprintf(", at %d of %d", x.beat[0], x.beat[1])
		}
	})
	return text
}

// sofar is what the try has emitted; ok is false when it is over or its rows cannot be
// stored. Rows are only ever appended, so that the bytes stay as they are.
func (t *tried) sofar() (body []byte, count int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.body[:len(t.body):len(t.body)], t.count, !t.over && t.bad == nil
}

// handle calls the handler and turns a panic into a crash of the item. A panic on a
// goroutine that the handler itself has started ends the process, as always in Go.
func (a *attemptRun) handle(ctx context.Context, it jobs.Item, t *tried, ended chan<- handled) {
	h := handled{out: jobs.Fail(hayrick.ClassCrash, "the handler ended its goroutine"), crashed: true}
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(interface{ SimulatedCrash() }); ok {
				panic(p) // the whole process is meant, not the handler
			}
			a.w.Log.Warn("handler panicked", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyOrdinal, it.Ordinal,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			h.out = jobs.Fail(hayrick.ClassCrash, "panic: %v", p)
		}
		ended <- h
	}()
	h = handled{out: a.handler.Handle(ctx, it, t.emit)}
}

// await waits for the end of a call, and some time longer than ctx. given says that
// it has not come.
func (a *attemptRun) await(ctx context.Context, ended <-chan handled) (h handled, given bool) {
	select {
	case h = <-ended:
		return h, false
	case <-ctx.Done():
	}
	grace, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	over := make(chan struct{})
	a.w.World.Go("grace", func() {
		if a.w.World.Clock.Sleep(grace, a.patience()) == nil {
			close(over)
		}
	})
	select {
	case h = <-ended:
		return h, false
	case <-over:
		return h, true
	}
}

// patience is handlerGrace, or less where the process itself ends soon.
func (a *attemptRun) patience() time.Duration {
	if a.w.Left == nil {
		return handlerGrace
	}
	return min(handlerGrace, a.w.Left()/2)
}

// withTimeout bounds one try. The timer is the world's, so that virtual time
// counts too; on the real clock a handler also sees the deadline.
func (a *attemptRun) withTimeout() (context.Context, context.CancelFunc) {
	limit := a.job.Definition.Run.ItemTimeout.D()
	if limit <= 0 {
		return context.WithCancel(a.hard)
	}
	if _, ok := a.w.World.Clock.(hayrick.SystemClock); ok {
		return context.WithTimeout(a.hard, limit)
	}
	ctx, cancel := context.WithCancel(a.hard)
	a.w.World.Go("timeout", func() {
		if a.w.World.Clock.Sleep(ctx, limit) == nil {
			cancel()
		}
	})
	return ctx, cancel
}
