package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/jobs"
)

// runItems hands the items that have not ended to the handler, items_in_flight at
// once, until all have ended or the attempt has to stop. A drain ends what only
// waits and lets the tries in hand finish; the deadline ends both. What has not
// ended keeps the tries it has spent.
func (a *attemptRun) runItems(ctx context.Context) error {
	def := &a.job.Definition
	var end, drain context.CancelFunc
	a.hard, end = context.WithCancel(ctx)
	defer end()
	a.soft, drain = context.WithCancel(a.hard)
	defer drain()
	a.w.World.Go("deadline", func() {
		if a.w.World.Clock.Sleep(a.hard, def.Run.TaskTimeout.D()) == nil {
			a.mu.Lock()
			a.late = true
			a.mu.Unlock()
			end()
		}
	})
	if a.w.Drain != nil {
		a.w.World.Go("drain", func() {
			select {
			case <-a.w.Drain:
				drain()
			case <-a.hard.Done():
			}
		})
	}
	slots := max(1, def.Run.ItemsInFlight)
	if a.mode == ModeSolo {
		slots = 1
	}
	slots = min(slots, len(a.items)-a.ended)
	if slots <= 1 {
		a.runSlot()
		return a.err
	}
	var wg sync.WaitGroup
	for range slots {
		wg.Add(1)
		a.w.World.Go("item", func() { defer wg.Done(); a.runSlot() })
	}
	wg.Wait()
	return a.err
}

// runSlot runs one item after the other.
func (a *attemptRun) runSlot() {
	for a.soft.Err() == nil {
		i, ok := a.handOut()
		if !ok {
			return
		}
		if err := a.runItem(i); err != nil {
			a.mu.Lock()
			if a.err == nil && a.soft.Err() == nil {
				a.err = fmt.Errorf("item %d (%s): %w", a.items[i].in.Ordinal, a.items[i].Key, err)
			}
			a.mu.Unlock()
			return
		}
	}
}

// handOut takes the next item that has not ended.
func (a *attemptRun) handOut() (int, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return 0, false
	}
	for a.next < len(a.items) {
		i := a.next
		a.next++
		if !a.items[i].Ended {
			return i, true
		}
	}
	return 0, false
}

// runItem runs tries of one item until it ends. An error is the host's, or the
// stop of the attempt: the item has not ended then.
func (a *attemptRun) runItem(i int) error {
	ctx := context.WithoutCancel(a.hard) // what has ended is recorded, stop or not
	x := &a.items[i]
	if x.bad != "" {
		return a.end(ctx, i, hayrick.Failure{
			Class: hayrick.ClassBadItem, Message: x.bad,
			Disposition: a.job.Definition.Retry.DispositionOf(hayrick.ClassBadItem, ""),
		}, nil, nil)
	}
	if n := a.lost[x.in.Ordinal]; n >= MaxLost {
		a.update(func() { x.Losses += n })
		return a.end(ctx, i, hayrick.Failure{
			Class: hayrick.ClassLostWorker, Message: fmt.Sprintf("%d workers vanished with the item in hand", n),
			Disposition: a.job.Definition.Retry.DispositionOf(hayrick.ClassLostWorker, ""),
		}, nil, nil)
	}
	before := x.in.Tries
	for {
		h := &host{a: a, ctx: a.soft, item: x}
		if err := h.takeAuto(); err != nil {
			return err
		}
		if a.mode == ModeSolo {
			if err := a.charge(ctx, x.in.Ordinal, 1); err != nil {
				return err
			}
		}
		t := a.try(x, h)
		if a.mode == ModeSolo {
			if err := a.charge(ctx, x.in.Ordinal, -1); err != nil {
				return err
			}
		}
		if a.hard.Err() != nil && !t.out.OK() {
			return a.hard.Err() // stopped with the item in hand: the try says nothing about it
		}
		a.update(func() { x.Tries++ })
		if t.out.OK() {
			if err := a.endOK(ctx, i, t); err == nil || !errors.Is(err, rows.ErrSchema) {
				return err
			} else {
				t.out = badRows(err)
			}
		}
		a.update(func() {
			x.RetryAfterMS = t.out.RetryAfter.Milliseconds()
			if t.crashed {
				x.Crashes++
			}
		})
		next := NextTry(a.job.Definition.Retry, Try{
			Outcome: t.out, InTask: x.Tries - before, Crashes: x.Crashes, Crashed: t.crashed,
		}, float64(a.w.World.Rand.Uint64()>>11)/(1<<53))
		if next.Failure.Disposition == hayrick.RateLimit {
			h.feedbackAuto(t.out.RetryAfter)
		}
		if !next.Again {
			return a.end(ctx, i, next.Failure, nil, nil)
		}
		if err := a.spent(ctx, i); err != nil {
			return err
		}
		a.w.Log.Debug("item tried again", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyOrdinal, x.in.Ordinal,
			hayrick.KeyClass, next.Failure.Class, "because", next.Because, "wait", next.Wait)
		if err := a.w.World.Clock.Sleep(a.soft, next.Wait); err != nil {
			return err
		}
	}
}

// update changes an item under the lock: only its own slot writes it, but a spill
// reads all of them.
func (a *attemptRun) update(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// badRows ends an item whose rows cannot be stored: a mistake of the handler that
// another try would repeat.
func badRows(err error) jobs.Outcome {
	return jobs.Outcome{Class: "bad_rows", Disposition: hayrick.Permanent, Message: err.Error()}
}

// MaxItemRows bounds the encoded rows of one item, which are held until it ends.
const MaxItemRows = 256 << 20

// errRows ends an item whose rows pass MaxItemRows.
var errRows = errors.New("the item's rows are larger than 256 MiB")

// tried is one ended try. Its rows are encoded by rows.AppendRow, one after the
// other, and count only when the outcome is ok.
type tried struct {
	out     jobs.Outcome
	body    []byte
	count   int64
	seen    rows.Observer
	crashed bool
}

// try runs the handler once.
func (a *attemptRun) try(x *item, h *host) (t *tried) {
	t = &tried{}
	ctx, cancel := a.withTimeout()
	defer cancel()
	h.ctx = ctx
	var bad error
	emit := func(r jobs.Row) error {
		if bad != nil {
			return bad
		}
		if len(t.body) > MaxItemRows {
			bad = errRows
		} else if bad = t.seen.Observe(r); bad == nil {
			if t.body, bad = rows.AppendRow(t.body, r); bad == nil {
				t.count++
			}
		}
		return bad
	}
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(interface{ SimulatedCrash() }); ok {
				panic(p) // the whole process is meant, not the handler
			}
			a.w.Log.Warn("handler panicked", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyOrdinal, x.in.Ordinal,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			t.out, t.crashed = jobs.Fail(hayrick.ClassCrash, "panic: %v", p), true
		}
	}()
	t.out = a.handler.Handle(ctx, jobs.Item{
		Ordinal: x.in.Ordinal, Key: x.Key, Data: x.in.Data, Try: x.Tries + 1, Host: h,
	}, emit)
	switch {
	case bad != nil:
		t.out = badRows(bad)
	case !t.out.OK() && ctx.Err() != nil && a.hard.Err() == nil:
		t.out = jobs.Fail(hayrick.ClassTimeout, "still running after %s: %s", a.job.Definition.Run.ItemTimeout.D(), t.out.Message)
	}
	return t
}

// withTimeout bounds one try. The timer is the world's, so that virtual time
// counts too.
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

// charge changes the losses of an item in the claim before (+1) and after (-1) a
// solo try. A crash between the two leaves the loss standing.
func (a *attemptRun) charge(ctx context.Context, ordinal int64, by int) error {
	lost := maps.Clone(a.lost)
	if lost == nil {
		lost = map[int64]int{}
	}
	if by > 0 {
		lost[ordinal] += by
	} else {
		delete(lost, ordinal) // the item has shown that it can be survived
	}
	_, err := a.w.Claims.UpdateClaim(ctx, a.ref, a.id, hayrick.ClaimPatch{Lost: lost})
	if errors.Is(err, hayrick.ErrLeaseLost) {
		err = nil // another attempt counts now; ours may still win
	}
	if err != nil {
		return fmt.Errorf("count the item in hand: %w", err)
	}
	a.lost = lost
	return nil
}

// endOK ends an item with its rows, or answers rows.ErrSchema when they do not fit
// the rows of the items that ended before it.
func (a *attemptRun) endOK(ctx context.Context, i int, t *tried) error {
	x := &a.items[i]
	a.mu.Lock()
	schema, err := a.fit(t.seen.Schema())
	if err == nil {
		x.OK, x.RowCount, x.RetryAfterMS = true, t.count, 0
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return a.end(ctx, i, hayrick.Failure{}, t.body, schema)
}

// fit checks an item's schema against those before it. Items mostly share one
// schema, which is then kept once. Called with mu held.
func (a *attemptRun) fit(s rows.Schema) (*rows.Schema, error) {
	if len(s.Fields) == 0 {
		return nil, nil
	}
	if a.lastSchema != nil && slices.Equal(a.lastSchema.Fields, s.Fields) {
		return a.lastSchema, nil
	}
	u, err := rows.Unify(a.schema, s)
	if err != nil {
		return nil, err
	}
	a.schema, a.lastSchema = u, &s
	return &s, nil
}

// end records the end of an item with its rows.
func (a *attemptRun) end(ctx context.Context, i int, f hayrick.Failure, body []byte, schema *rows.Schema) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := &a.items[i]
	x.Ended, x.schema = true, schema
	x.Class, x.Disposition, x.Message = f.Class, f.Disposition, f.Message
	if err := a.record(ctx, i, body); err != nil {
		x.Ended = false
		return err
	}
	a.ended++
	a.progress++
	if a.mode == ModeSolo && a.w.World.Clock.Now().Sub(a.saved) >= checkpointEvery {
		return a.checkpoint(ctx)
	}
	return nil
}

// checkpointEvery is how often a solo attempt saves its journal to the store.
const checkpointEvery = 30 * time.Second

// spent records the tries of an item that has not ended, so that a restart goes on
// with the next one.
func (a *attemptRun) spent(ctx context.Context, i int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.progress++
	return a.record(ctx, i, nil)
}

// record keeps an entry: in memory at first, in the journal once the attempt is
// long or large. Called with mu held.
func (a *attemptRun) record(ctx context.Context, i int, body []byte) error {
	if a.journal == nil {
		if len(body) > 0 {
			a.memory[i] = body
			a.inMemory += len(body)
		}
		if a.inMemory < journalBytes && a.w.World.Clock.Now().Sub(a.start) < journalAfter {
			return nil
		}
		return a.spill(ctx)
	}
	e := a.items[i].Entry
	e.Rows = body
	return a.journal.Record(ctx, e)
}

// spill makes the journal and moves what memory holds into it.
func (a *attemptRun) spill(ctx context.Context) error {
	j, err := a.w.Journals.Create(ctx, a.ref, a.id, a.fingerprint())
	if err != nil {
		return fmt.Errorf("create the journal: %w", err)
	}
	a.journal = j
	for i := range a.items {
		e := a.items[i].Entry
		if !e.Ended && e.Tries == a.items[i].in.Tries {
			continue
		}
		e.Rows = a.memory[i]
		if err := j.Record(ctx, e); err != nil {
			return err
		}
	}
	a.memory, a.inMemory = map[int][]byte{}, 0
	return nil
}
