package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"hayrick"
	"hayrick/internal/rows"
)

// errDeadline ends the tries of an attempt whose time is over.
var errDeadline = errors.New("the attempt's time is over")

// runItems hands the items that have not ended to the handler, items_in_flight at
// once, until all have ended or the attempt has to stop. A drain ends what only
// waits and lets the tries in hand finish; the deadline ends both. What has not
// ended keeps the tries it has spent.
func (a *attemptRun) runItems(ctx context.Context) error {
	def := &a.job.Definition
	var end context.CancelCauseFunc
	a.hard, end = context.WithCancelCause(ctx)
	defer end(nil)
	a.soft, a.stopWaiting = context.WithCancel(a.hard)
	defer a.stopWaiting()
	a.began = a.w.World.Clock.Now()
	a.busy = a.began
	if a.w.Left != nil {
		a.tokenWait = Patience(a.lent, a.every())
		if soft, _ := HandBack(a.lent, a.unsaved); a.w.Left() <= soft {
			return nil // nothing is begun any more
		}
	}
	a.w.World.Go("deadline", func() {
		if a.untilOver() {
			end(errDeadline)
		}
	})
	if a.w.Drain != nil {
		a.w.World.Go("drain", func() {
			select {
			case <-a.w.Drain:
				a.stopWaiting()
			case <-a.hard.Done():
			}
		})
	}
	slots := max(1, def.Run.ItemsInFlight)
	if a.session != nil {
		slots = max(1, a.session.Slots(len(a.auto) > 0))
	}
	if a.mode == ModeSolo {
		slots = 1
	}
	slots = min(slots, len(a.items)-a.ended)
	if slots <= 1 {
		a.runSlot()
	} else {
		var wg sync.WaitGroup
		for range slots {
			wg.Add(1)
			a.w.World.Go("item", func() { defer wg.Done(); a.runSlot() })
		}
		wg.Wait()
	}
	a.late = context.Cause(a.hard) == errDeadline
	a.wait = a.away()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.flush(context.WithoutCancel(ctx)); a.err == nil { // also what an attempt that ends early has done
		a.err = err
	}
	return a.err
}

// untilOver waits until the attempt's time is over; false = it has ended before. On
// the way it stops the handing out of items as HandBack says.
func (a *attemptRun) untilOver() bool {
	limit := a.job.Definition.Run.TaskTimeout.D()
	if a.w.Left == nil {
		return a.w.World.Clock.Sleep(a.hard, limit) == nil
	}
	for {
		now := a.w.World.Clock.Now()
		a.mu.Lock()
		soft, hard := HandBack(a.lent, a.unsaved)
		if a.handling > 0 {
			a.busy = now
		}
		if now.Sub(a.busy) >= a.tokenWait {
			a.idle = true
		}
		idle := a.idle
		a.mu.Unlock()
		if idle {
			a.stopWaiting()
		}
		left := a.w.Left()
		wait := min(left-hard, limit-a.w.World.Clock.Now().Sub(a.began))
		switch {
		case wait <= 0:
			return true
		case left <= soft:
			a.stopWaiting()
		default:
			wait = min(wait, left-soft)
		}
		// What is unsaved grows meanwhile, and with it the time that saving it takes.
		if a.w.World.Clock.Sleep(a.hard, min(wait, time.Second)) != nil {
			return false
		}
	}
}

// runSlot runs one item after the other. An error ends the attempt: the other
// slots finish the tries they have in hand and take no more.
func (a *attemptRun) runSlot() {
	for a.soft.Err() == nil {
		i, ok := a.handOut()
		if !ok {
			return
		}
		if err := a.runItem(&i); err != nil {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.err == nil && !errors.Is(err, errStopped) {
				a.err = fmt.Errorf("item %d (%s): %w", a.items[i].in.Ordinal, a.items[i].Key, err)
			}
			a.stopWaiting()
			return
		}
	}
}

// handOut takes the next item that has not ended.
func (a *attemptRun) handOut() (int, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.next < len(a.items) {
		i := a.next
		a.next++
		if !a.items[i].Ended {
			return i, true
		}
	}
	return 0, false
}

// errStopped is why an item has not ended when the attempt has to stop.
var errStopped = errors.New("the attempt stops")

// runItem runs tries of one item until it ends. An error is the host's, or
// errStopped: the item has not ended then. Where a session goes on by itself, at is
// moved to the item that it came to.
func (a *attemptRun) runItem(at *int) error {
	ctx := context.WithoutCancel(a.hard) // what has ended is recorded, stop or not
	i := *at
	x := &a.items[i]
	if x.bad != "" {
		return a.end(ctx, i, a.reserved(hayrick.ClassBadItem, "%s", x.bad), nil)
	}
	if n := a.lost[x.in.Ordinal]; n >= MaxLost {
		return a.end(ctx, i, a.reserved(hayrick.ClassLostWorker, "%d workers vanished with the item in hand", n), nil)
	}
	for {
		h := &host{a: a, item: x, at: i}
		if err := h.takeAuto(a.patiently()); err != nil {
			switch {
			case a.soft.Err() != nil:
				return errStopped
			case a.tokenWait > 0 && errors.Is(err, hayrick.ErrThrottled):
				a.skip(err) // other items may have other keys
				return nil
			}
			return err
		}
		if a.mode == ModeSolo {
			if err := a.hold(ctx, x.in.Ordinal); err != nil {
				return err
			}
		}
		a.update(func() { x.inHand = true; a.handling++ })
		var t *tried
		if a.session != nil {
			var recorded bool
			if t, recorded = a.trySession(at, h); recorded {
				return nil
			}
			i = *at
			x = &a.items[i]
		} else {
			t = a.try(x, h)
		}
		a.update(a.rest)
		if a.mode == ModeSolo {
			a.letGo(ctx, x.in.Ordinal)
		}
		if a.hard.Err() != nil && !t.out.OK() {
			return errStopped // with the item in hand: the try says nothing about it
		}
		if t.out.NotTried {
			a.update(func() { x.inHand = false })
			if a.soft.Err() != nil {
				return errStopped
			}
			continue
		}
		a.update(func() {
			x.inHand = false
			x.Tries++
			x.RetryAfterMS = t.out.RetryAfter.Milliseconds()
			if t.crashed {
				x.Crashes++
			}
		})
		if t.out.OK() {
			err := a.end(ctx, i, hayrick.Failure{}, t)
			if !errors.Is(err, rows.ErrSchema) {
				return err
			}
			t.out = badRows(err) // the item alone is sound: it clashes with others
		}
		a.update(func() { x.Detail = clipDetail(t.out.Detail) })
		next := NextTry(a.job.Definition.Retry, Try{
			Outcome: t.out, InTask: x.Tries - x.in.Tries, Crashes: x.Crashes, Crashed: t.crashed,
		}, float64(a.w.World.Rand.Uint64()>>11)/(1<<53))
		if next.Failure.Disposition == hayrick.RateLimit {
			h.feedbackAuto(ctx, t.out.RetryAfter)
		}
		if t.out.Late && a.job.firstTimeout() { // a handler that hangs is silent, and its task takes long
			a.w.Log.Warn("an item ran out of its time; more that do are counted when their task ends", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyOrdinal, x.in.Ordinal,
				"run.item_timeout", a.job.Definition.Run.ItemTimeout.D(), "tries", x.Tries)
		}
		if !next.Again {
			return a.end(ctx, i, next.Failure, nil)
		}
		if err := a.spent(ctx, i); err != nil {
			return err
		}
		a.w.Log.Debug("item tried again", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyOrdinal, x.in.Ordinal,
			hayrick.KeyClass, next.Failure.Class, "because", next.Because, "wait", next.Wait)
		if a.w.World.Clock.Sleep(a.soft, next.Wait) != nil {
			return errStopped
		}
	}
}

// every is how far apart two tokens of the slowest of the attempt's rates lie.
func (a *attemptRun) every() (most time.Duration) {
	for _, r := range a.auto {
		if s := r.Limit.PerSecond(); s > 0 {
			most = max(most, time.Duration(float64(time.Second)/s))
		}
	}
	return most
}

// patiently is what to wait for a token under: of a key that stays closed for longer
// than the attempt's patience the limiter says so at once.
func (a *attemptRun) patiently() context.Context {
	if a.tokenWait == 0 {
		return a.soft
	}
	return expecting{a.soft, a.w.World.Clock.Now().Add(a.tokenWait)}
}

// expecting is a context that says until when there is time, and does not end then.
type expecting struct {
	context.Context
	until time.Time
}

func (e expecting) Deadline() (time.Time, bool) { return e.until, true }

// skip leaves an item to a later attempt, because its key is closed.
func (a *attemptRun) skip(closed error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.skipped++
	var says interface{ Until() time.Time }
	if errors.As(closed, &says) && (a.opens.IsZero() || says.Until().Before(a.opens)) {
		a.opens = says.Until()
	}
}

// away is for how long the task is to stay away, which is handed back: 0 where there is
// more to it than waiting for tokens.
func (a *attemptRun) away() time.Duration {
	if !a.idle && (a.skipped == 0 || a.late || a.soft.Err() != nil) {
		return 0
	}
	var opens time.Duration
	if !a.opens.IsZero() {
		opens = max(a.opens.Sub(a.w.World.Clock.Now()), 1)
	}
	return Away(opens, float64(a.w.World.Rand.Uint64()>>11)/(1<<53))
}

// reserved is a failure that the host gives.
func (a *attemptRun) reserved(class, format string, args ...any) hayrick.Failure {
	return hayrick.Failure{
		Class: class, Message: oneLine(fmt.Sprintf(format, args...)), Disposition: a.job.Definition.Retry.DispositionOf(class, ""),
	}
}

// update changes an item under the lock: only its own slot writes it, but a spill
// reads all of them.
func (a *attemptRun) update(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// hold counts the worker as lost with the item in hand, before a solo try. A crash
// from here to letGo leaves the loss standing.
func (a *attemptRun) hold(ctx context.Context, ordinal int64) error {
	lost := maps.Clone(a.lost)
	lost[ordinal]++
	err := a.setLost(ctx, lost)
	if err != nil && !errors.Is(err, hayrick.ErrLeaseLost) { // lost: another attempt counts now; ours may still win
		return fmt.Errorf("count the item in hand: %w", err)
	}
	return nil
}

// letGo takes that back: the worker is still there. When it cannot, the next change
// of the claim does, for each carries all counts.
func (a *attemptRun) letGo(ctx context.Context, ordinal int64) {
	lost := maps.Clone(a.lost)
	if lost[ordinal]--; lost[ordinal] == 0 {
		delete(lost, ordinal)
	}
	if err := a.setLost(ctx, lost); err != nil && !errors.Is(err, hayrick.ErrLeaseLost) {
		a.w.Log.Debug("item in hand not taken back", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyOrdinal, ordinal, hayrick.KeyError, err)
	}
}

func (a *attemptRun) setLost(ctx context.Context, lost map[int64]int) error {
	a.lost = lost
	return decided(func() error {
		_, err := a.w.Claims.UpdateClaim(ctx, a.ref, a.id, hayrick.ClaimPatch{Lost: lost})
		return err
	})
}

// fit checks an item's schema against those before it; rows.ErrSchema: it does not
// fit. Items mostly share one schema, which is then kept once. Called with mu held.
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
	kept := s // not &s, which would put every item's schema on the heap
	a.schema, a.lastSchema = u, &kept
	return &kept, nil
}

// end records the end of an item: ok with the rows of its try t, or failed with f
// and none. rows.ErrSchema: the rows do not fit those of the items that ended
// before it, and nothing is recorded.
func (a *attemptRun) end(ctx context.Context, i int, f hayrick.Failure, t *tried) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ends(ctx, i, f, t)
}

// ends is end. Called with mu held.
func (a *attemptRun) ends(ctx context.Context, i int, f hayrick.Failure, t *tried) error {
	x := &a.items[i]
	var body []byte
	if t != nil {
		schema, err := a.fit(t.seen.Schema())
		if err != nil {
			return err
		}
		body, x.schema, x.RowCount, x.RetryAfterMS = t.body, schema, t.count, 0
		x.Detail = ""
	} else {
		x.RowCount = 0
	}
	x.Ended, x.OK = true, t != nil
	x.Cursor, x.marked, x.unkept = nil, nil, false
	x.Class, x.Disposition, x.Message = f.Class, f.Disposition, f.Message
	x.Losses = x.in.Losses + a.lost[x.in.Ordinal]
	if err := a.record(ctx, i, body); err != nil {
		x.Ended = false
		return err
	}
	a.ended++
	a.progress++
	if a.mode == ModeSolo && (f.Class == hayrick.ClassLostWorker || a.w.World.Clock.Now().Sub(a.saved) >= checkpointEvery) {
		if err := a.checkpoint(ctx); err != nil { // it only saves work
			a.w.Log.Warn("checkpoint not saved", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyError, err)
		}
	}
	return nil
}

// spent records the tries of an item that has not ended, so that a restart goes on
// with the next one.
func (a *attemptRun) spent(ctx context.Context, i int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.progress++
	return a.record(ctx, i, a.items[i].marked)
}

// markEvery is how often the journal gets the mark of an item: a mark carries all rows
// of the item so far, and only the last one counts.
const markEvery = time.Second

// mark keeps the rows of an item so far with its cursor. A worker that vanishes loses
// marks that are not older than markEvery; a hand-back loses none.
func (a *attemptRun) mark(i int, cursor, body []byte, count int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := &a.items[i]
	if x.Ended {
		return errOver
	}
	x.Cursor, x.marked, x.RowCount, x.unkept = slices.Clone(cursor), body, count, true
	a.progress++
	if a.w.World.Clock.Now().Sub(x.kept) < markEvery {
		return nil
	}
	return a.keepMark(context.WithoutCancel(a.hard), i)
}

// keepMark gives the journal an item's last mark. Called with mu held.
func (a *attemptRun) keepMark(ctx context.Context, i int) error {
	x := &a.items[i]
	if !x.unkept {
		return nil
	}
	x.kept = a.w.World.Clock.Now()
	return a.record(ctx, i, x.marked)
}

// record keeps an entry: in memory at first, in the journal once the attempt is long
// or large. Called with mu held.
func (a *attemptRun) record(ctx context.Context, i int, body []byte) error {
	x := &a.items[i]
	a.unsaved += int64(len(body))
	if x.Ended && len(body) > 0 {
		a.memory[i] = body
	}
	a.inMemory += len(body)
	now := a.w.World.Clock.Now()
	if a.journal == nil {
		if a.inMemory < journalBytes && now.Sub(a.began) < journalAfter {
			return nil
		}
		return a.spill(ctx)
	}
	a.pending = append(a.pending, i)
	fast := now.Sub(a.recorded) < journalGap
	a.recorded = now
	if fast && len(a.pending) < journalGroup && a.inMemory < journalBytes {
		return nil
	}
	return a.flush(ctx)
}

// spill makes the journal and moves what memory holds into it.
func (a *attemptRun) spill(ctx context.Context) error {
	j, err := a.w.Journals.Create(ctx, a.ref, a.id, a.fingerprint())
	if err != nil {
		return fmt.Errorf("create the journal: %w", err)
	}
	a.journal = j
	a.pending = nil
	for i := range a.items {
		if x := &a.items[i]; x.Ended || x.Tries != x.in.Tries || x.Cursor != nil {
			a.pending = append(a.pending, i)
		}
	}
	return a.flush(ctx)
}

// flush moves what waits for it into the journal, where there is one. Called with mu
// held.
func (a *attemptRun) flush(ctx context.Context) error {
	if a.journal == nil || len(a.pending) == 0 {
		return nil
	}
	entries := make([]Entry, 0, len(a.pending))
	for _, i := range a.pending {
		x := &a.items[i]
		e := x.Entry
		if e.Rows = a.memory[i]; !e.Ended {
			e.Rows = x.marked
		}
		x.unkept = false
		entries = append(entries, e)
	}
	if err := a.journal.Record(ctx, entries...); err != nil {
		return err
	}
	a.pending = a.pending[:0]
	clear(a.memory)
	a.inMemory = 0
	return nil
}
