package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"hayrick"
	"hayrick/internal/records"
	"hayrick/internal/rows"
	"hayrick/jobs"
	"hayrick/manifest"
)

// attemptRun is one attempt while it runs.
type attemptRun struct {
	*task
	id     string
	claim  hayrick.Claim
	start  time.Time
	began  time.Time     // the first item; what came before is no work to lose
	lent   time.Duration // what Worker.Left said at the start
	stalls int           // of the message
	mode   Mode

	items   []item         // of the batch, in order
	auto    []hayrick.Rate // those the host takes a token of before it hands out an item
	handler jobs.Handler
	session jobs.Session // of the handler, where it has sessions
	log     taskLog
	// The columns that rows may have; nil = any.
	declared *rows.Declared
	metrics  metrics

	stopRenewing func()
	hard         context.Context // of the tries: ended by the deadline
	soft         context.Context // of the waits between them: ended by a drain and by an error too
	stopWaiting  func()          // ends soft
	late         bool            // the deadline ended it
	tokenWait    time.Duration   // Patience; 0 = as long as it takes

	mu       sync.Mutex // guards what follows, and the journal's writes
	journal  Journal    // nil until one is needed
	memory   map[int][]byte
	inMemory int   // bytes of rows held in memory
	pending  []int // items whose entries the journal does not have yet
	recorded time.Time
	unsaved  int64         // bytes of rows in memory and journal: what a checkpoint carries
	next     int           // the next item to hand out
	handling int           // items that the handler has
	busy     time.Time     // when it last had one, or none yet
	idle     bool          // it only waited for tokens, and too long
	skipped  int           // items whose keys are closed for longer than its patience
	opens    time.Time     // when the first of these opens
	wait     time.Duration // before the task is tried again
	ended    int           // items that have ended, in all attempts whose journal this is
	progress int           // items that ended, or tries that were spent, in this attempt
	err      error
	lost     map[int64]int // of the claim; only a solo attempt changes it
	saved    time.Time     // of the last checkpoint
	// The schema of all rows so far, and the last item's.
	schema     rows.Schema
	lastSchema *rows.Schema
}

// item is one record of the batch and what is known of it.
type item struct {
	in     manifest.BatchItem
	number int64 // of the record in the input: what the handler knows it by
	Entry
	rateKeys []string     // one for each of the attempt's auto rates
	schema   *rows.Schema // of its rows; nil = none
	bad      string       // why the record is no item; "" = it is one
	inHand   bool         // the handler has it
	// Of an item that has not ended, with mu held: the rows of its last mark, and when the
	// journal last got one.
	marked []byte
	kept   time.Time
	unkept bool // the journal has an older mark, or none
	beat   [2]int64
}

// The journal is made once an attempt has run items for so long or holds so much: a
// shorter task commits from memory and runs again whole after a crash.
const (
	journalAfter = 200 * time.Millisecond
	journalBytes = 64 << 10
)

// Entries that come faster than one in journalGap wait for each other, journalGroup at
// most: a transaction an item would cost more than a fast handler does. A crash loses
// the work of those that wait.
const (
	journalGap   = 10 * time.Millisecond
	journalGroup = 256
)

// The rules of automatic pauses.
const (
	RuleInputChanged = "input_changed"
	RuleBadItem      = "bad_item"
)

// claimed runs an attempt that has its claim.
func (a *attemptRun) claimed(ctx context.Context) (Verdict, error) {
	if a.claim.Fence > 1 {
		switch done, err := a.finished(ctx); {
		case err != nil:
			return fault("read the result"), err
		case done:
			return ack("already done"), nil
		}
	}
	var because string
	if a.mode, because = ModeOf(a.claim); because != "" {
		a.w.Log.Warn("attempts of a task vanished", hayrick.KeyTaskID, a.ref.TaskID, "mode", a.mode, "because", because)
	}
	if a.mode == ModeFail {
		return a.fail(ctx, hayrick.ClassBatchFailed, because)
	}
	a.renew(ctx)
	defer a.stopRenewing()
	if v, ok, err := a.open(ctx); !ok || err != nil {
		return v, err
	}
	left, stop := a.showLog(ctx)
	defer stop()
	var err error
	if a.handler, err = a.job.Handler(ctx); err != nil {
		return a.fail(ctx, hayrick.ClassHandler, err.Error())
	}
	if a.declared, err = declared(a.job.Definition.Output); err != nil {
		return a.fail(ctx, hayrick.ClassHandler, "output.schema: "+err.Error())
	}
	if o, ok := a.handler.(jobs.Opener); ok {
		s, err := o.Open(ctx, jobs.Task{Run: a.ref.JobID, Task: a.ref.TaskID, Log: a.keepLine, Host: &host{a: a, ctx: ctx}})
		if err != nil && ctx.Err() != nil {
			return fault("start the handler"), ctx.Err()
		}
		if err != nil {
			return a.fail(ctx, hayrick.ClassHandler, err.Error())
		}
		a.session = s
		defer s.Close() // a second time where the items have run
	}
	defer func() {
		if a.journal != nil {
			a.journal.Close(false)
		}
	}()
	if err := a.recall(ctx); err != nil {
		return fault("read the journal"), err
	}
	a.afterCrash(left)
	if err := a.proveRunnable(ctx); err != nil {
		return fault("keep the claim"), err
	}
	if closes, because := Closes(a.stalls, a.w.Left == nil); closes {
		a.w.Log.Warn("a task is closed; what has not ended is left to the retry planner", hayrick.KeyJobID, a.ref.JobID, hayrick.KeyTaskID, a.ref.TaskID,
			"items", len(a.items), "ended", a.ended, "because", because)
		if err := a.close(ctx, because); err != nil {
			return fault("close the task"), err
		}
		return a.finish(ctx)
	}
	err = a.runItems(ctx)
	if a.session != nil {
		a.session.Close() // its log is complete now
	}
	if err != nil {
		return fault("run the items"), err
	}
	if a.ended < len(a.items) {
		return a.handBack(ctx)
	}
	return a.finish(ctx)
}

// close ends every item that has not ended, untried.
func (a *attemptRun) close(ctx context.Context, because string) error {
	a.began = a.w.World.Clock.Now()
	for i := range a.items {
		if a.items[i].Ended {
			continue
		}
		if err := a.end(ctx, i, a.reserved(hayrick.ClassNoTime, "%s", because), nil); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.flush(ctx)
}

// declared is the schema that the job file asks rows to fit; nil = none.
func declared(o hayrick.Output) (*rows.Declared, error) {
	var columns [][2]string
	for _, c := range o.Schema {
		columns = append(columns, [2]string{c.Name, c.Type})
	}
	return rows.Declare(columns...)
}

// proveRunnable puts on record, where earlier attempts vanished, that the batch was
// read and its handler started: what comes now is items being handed out, and no
// reason to call the batch FAILED as a whole.
func (a *attemptRun) proveRunnable(ctx context.Context) error {
	if a.claim.Idle == 0 {
		return nil
	}
	if err := a.setLost(ctx, a.lost); err != nil && !errors.Is(err, hayrick.ErrLeaseLost) {
		return fmt.Errorf("put on record that %s can be run: %w", a.ref.TaskID, err)
	}
	return nil
}

// open reads the batch and checks it before anything of it is used. ok is false
// when the attempt ends here with the verdict.
func (a *attemptRun) open(ctx context.Context) (v Verdict, ok bool, err error) {
	r, err := a.w.Inputs.OpenInput(ctx, a.ref.JobID, a.batch)
	switch {
	case errors.Is(err, hayrick.ErrNotFound) && a.batch.Retry:
		err = gone(err)
	case errors.Is(err, hayrick.ErrNotFound):
		err = fmt.Errorf("%s is not there: %w", a.batch.Object, hayrick.ErrInputChanged)
	}
	var items []manifest.BatchItem
	if err == nil {
		items, err = manifest.OpenBatch(a.batch, r)
		r.Close()
	}
	if errors.Is(err, hayrick.ErrInputChanged) {
		// No outcome, no try charged: a person restores the file, or gives up.
		reason := fmt.Sprintf("%v; restore the file and `hayrick resume %s`, or `hayrick cancel %s` and `hayrick run --new`", err, a.ref.JobID, a.ref.JobID)
		return a.pause(ctx, RuleInputChanged, reason)
	}
	if err != nil {
		return fault("read the batch"), false, fmt.Errorf("read %s: %w", a.batch.BatchID, err)
	}
	def := &a.job.Definition
	for _, r := range def.Rates {
		if r.Auto {
			a.auto = append(a.auto, r)
		}
	}
	skip := def.Input.OnBadItem == "skip"
	a.items = make([]item, len(items))
	for i, it := range items {
		a.items[i] = item{in: it}
		x := &a.items[i]
		x.reset()
		x.number = a.job.Plan.InputOrdinal(it.Ordinal)
		x.check(def.Input.Key, a.auto)
		if x.bad != "" && !skip {
			where := fmt.Sprintf("%s:%d", a.batch.Object, it.Line)
			reason := fmt.Sprintf("%s: %s; `hayrick resume %s` goes on and lists such items as permanent (%s), or mend the file, `hayrick cancel %s` and `hayrick run --new`",
				where, x.bad, a.ref.JobID, hayrick.ClassBadItem, a.ref.JobID)
			if v, ok, err := a.pause(ctx, RuleBadItem, reason); !ok {
				return v, false, err
			}
			skip = true // a person has resumed the job: that goes for all of them
		}
	}
	return Verdict{}, true, nil
}

// reset is the item as the batch has it: nothing of it has run in this task.
func (x *item) reset() {
	x.schema, x.marked, x.unkept = nil, nil, false
	x.Entry = Entry{Ordinal: x.in.Ordinal, Key: x.Key, Tries: x.in.Tries, Losses: x.in.Losses}
	for _, class := range x.in.Classes {
		if class == hayrick.ClassCrash {
			x.Crashes++ // in an earlier task
		}
	}
}

// check finds the item's keys and says why the record is no item.
func (x *item) check(keyField string, auto []hayrick.Rate) {
	const notObject = "the line is not one JSON object"
	x.Key = strconv.FormatInt(x.number, 10)
	if why, bad := records.Bad(x.in.Data); bad {
		x.bad = why // the input said so when it was read
		return
	}
	if keyField == "" && len(auto) == 0 {
		if !isObject(x.in.Data) {
			x.bad = notObject
		}
		return
	}
	fields, ok := ParseFields(x.in.Data)
	if !ok {
		x.bad = notObject
		return
	}
	for _, r := range auto {
		key, err := RateKey(r.Key, fields)
		if err != nil {
			x.bad = fmt.Sprintf("rates.%s: %v", r.Name, err)
			return
		}
		x.rateKeys = append(x.rateKeys, key)
	}
	if keyField == "" {
		return
	}
	key, ok := fields.Text(keyField)
	if !ok {
		x.bad = fmt.Sprintf("the item has no key: field %q is missing or empty", keyField)
		return
	}
	x.Key = key
}

// pause gives the automatic pause of a rule. ok is true when it had been given and
// resumed before, and the attempt goes on: only a bad item can be gone on with.
func (a *attemptRun) pause(ctx context.Context, rule, reason string) (v Verdict, ok bool, err error) {
	for n := 1; ; n++ {
		name := rule
		if n > 1 {
			name = fmt.Sprintf("%s-%d", rule, n)
		}
		silenced, err := a.w.Orders.Pause(ctx, a.ref.JobID, a.ref.Generation, a.group, name, reason)
		if err != nil {
			return fault("pause the job"), false, fmt.Errorf("pause %s: %w", a.ref.JobID, err)
		}
		if !silenced {
			break
		}
		if rule == RuleBadItem {
			return Verdict{}, true, nil // a person has resumed: bad items are listed
		}
		// A resume silences a rule, but nothing can be run on changed input: each resume
		// is one more look at it.
	}
	a.release(ctx)
	a.w.Log.Error("the job is paused", hayrick.KeyJobID, a.ref.JobID, "rule", rule, "reason", reason)
	return ack(reason), false, nil // a resume sends every open task again
}

// release ends the claim without counting it as vanished. Lost, it runs out.
func (a *attemptRun) release(ctx context.Context) {
	if a.stopRenewing != nil {
		a.stopRenewing()
	}
	var none time.Time
	ctx = context.WithoutCancel(ctx)
	err := decided(func() error {
		_, err := a.w.Claims.UpdateClaim(ctx, a.ref, a.id, hayrick.ClaimPatch{Until: &none})
		return err
	})
	if err != nil && !errors.Is(err, hayrick.ErrLeaseLost) {
		a.w.Log.Debug("claim not released", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyError, err)
	}
}

// renew keeps the lease while the attempt runs. A lost lease is only noted: rows
// are safe without it, and whoever commits first wins.
func (a *attemptRun) renew(ctx context.Context) {
	ctx, a.stopRenewing = context.WithCancel(ctx)
	lease := a.job.Definition.Run.Lease.D()
	a.w.World.Go("renew", func() {
		for a.w.World.Clock.Sleep(ctx, lease/3) == nil {
			until := a.w.World.Clock.Now().Add(lease)
			_, err := a.w.Claims.UpdateClaim(ctx, a.ref, a.id, hayrick.ClaimPatch{Until: &until})
			if errors.Is(err, hayrick.ErrLeaseLost) && ctx.Err() == nil {
				a.w.Log.Warn("lease lost; another attempt may be running", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyAttempt, a.id)
			}
			if errors.Is(err, hayrick.ErrLeaseLost) {
				return
			}
		}
	})
}

// recall takes over what earlier attempts of the task finished: the journal left
// here or, if it is further, the highest checkpoint that is valid. Two are never
// merged.
func (a *attemptRun) recall(ctx context.Context) error {
	a.memory = map[int][]byte{}
	a.lost = maps.Clone(a.claim.Lost)
	if a.lost == nil {
		a.lost = map[int64]int{}
	}
	a.saved = a.start
	j, err := a.w.Journals.Open(ctx, a.ref, a.fingerprint())
	if err != nil && !errors.Is(err, hayrick.ErrNotFound) {
		return fmt.Errorf("open the journal of %s: %w", a.ref.TaskID, err)
	}
	if err == nil {
		a.journal = j
		err := a.load(ctx)
		if errors.Is(err, hayrick.ErrCorrupt) {
			a.w.Log.Warn("journal discarded", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyError, err)
			a.forget()
		} else if err != nil {
			return err
		}
	}
	if a.claim.Fence > 1 {
		if err := a.restore(ctx); err != nil {
			return err
		}
	}
	return nil
}

// load reads the entries of the journal into the items.
func (a *attemptRun) load(ctx context.Context) error {
	at := make(map[int64]int, len(a.items))
	for i := range a.items {
		at[a.items[i].Ordinal] = i
	}
	a.ended, a.unsaved = 0, 0
	a.log.goOn(nil)
	return a.journal.Each(ctx, func(e Entry) error {
		if e.Ordinal == logOrdinal {
			a.log.goOn([]byte(e.Detail))
			return nil
		}
		i, ok := at[e.Ordinal]
		if !ok {
			return fmt.Errorf("journal of %s: ordinal %d is not of the batch: %w", a.ref.TaskID, e.Ordinal, hayrick.ErrCorrupt)
		}
		x := &a.items[i]
		schema, err := a.known(e)
		if err != nil {
			return fmt.Errorf("journal of %s: item %d: %v: %w", a.ref.TaskID, e.Ordinal, err, hayrick.ErrCorrupt)
		}
		x.schema = schema
		if !e.Ended {
			x.schema, x.marked = nil, bytes.Clone(e.Rows)
		}
		a.unsaved += int64(len(e.Rows))
		e.Key, e.Rows = x.Key, nil
		x.Entry = e
		if e.Ended {
			a.ended++
		}
		return nil
	})
}

// known checks the rows of an entry and returns their schema, nil when there are
// none.
func (a *attemptRun) known(e Entry) (*rows.Schema, error) {
	var seen rows.Observer
	var count int64
	for r, err := range rows.Rows(e.Rows) {
		if err == nil {
			err = seen.Observe(r)
		}
		if err != nil {
			return nil, err
		}
		count++
	}
	marked := !e.Ended && e.Cursor != nil
	if count != e.RowCount || (count > 0 && !(e.Ended && e.OK) && !marked) {
		return nil, fmt.Errorf("%d rows, ended %t, ok %t, counted %d", count, e.Ended, e.OK, e.RowCount)
	}
	if marked {
		return nil, nil // they are judged with the others when the item ends
	}
	return a.fit(seen.Schema())
}

// forget discards the journal and what was read of it: the attempt starts clean.
func (a *attemptRun) forget() {
	a.journal.Close(true)
	a.log.goOn(nil)
	a.journal, a.ended, a.unsaved = nil, 0, 0
	a.memory, a.inMemory, a.pending = map[int][]byte{}, 0, nil
	a.schema, a.lastSchema = rows.Schema{}, nil
	for i := range a.items {
		a.items[i].reset()
	}
}
