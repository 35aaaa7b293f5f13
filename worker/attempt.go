package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/jobs"
	"hayrick/manifest"
)

// attemptRun is one attempt while it runs.
type attemptRun struct {
	*task
	id    string
	claim hayrick.Claim
	start time.Time
	mode  Mode

	items   []item // of the batch, in order
	handler jobs.Handler
	journal Journal // nil until one is needed

	hard context.Context // ended by the deadline
	soft context.Context // ended by a drain too

	mu       sync.Mutex // guards what follows, and the journal's writes
	memory   map[int][]byte
	inMemory int // bytes of rows held in memory
	next     int // the next item to hand out
	ended    int // items that have ended, in all attempts whose journal this is
	progress int // items that ended, or tries that were spent, in this attempt
	err      error
	metrics  map[string]int64
	lost     map[int64]int // of the claim; kept while solo
	late     bool          // the deadline has come
	saved    time.Time     // of the last checkpoint
	// The schema of all rows so far, and the last item's.
	schema     rows.Schema
	lastSchema *rows.Schema
}

// item is one record of the batch and what is known of it.
type item struct {
	in manifest.BatchItem
	Entry
	fields Fields
	schema *rows.Schema // of its rows; nil = none
	bad    string       // why the record is no item; "" = it is one
}

// The journal is made once an attempt has lasted so long or holds so much: a
// shorter task commits from memory and runs again whole after a crash.
const (
	journalAfter = 200 * time.Millisecond
	journalBytes = 64 << 10
)

// The rules of automatic pauses.
const (
	RuleInputChanged = "input_changed"
	RuleBadItem      = "bad_item"
)

func (a *attemptRun) run(ctx context.Context) (Verdict, error) {
	var because string
	if a.mode, because = ModeOf(a.claim); because != "" {
		a.w.Log.Warn("attempts of a task vanished", hayrick.KeyTaskID, a.ref.TaskID, "mode", a.mode, "because", because)
	}
	if a.mode == ModeFail {
		return a.fail(ctx, hayrick.ClassBatchFailed, because)
	}
	if v, ok, err := a.open(ctx); !ok || err != nil {
		return v, err
	}
	var err error
	if a.handler, err = a.job.Handler(ctx); err != nil {
		return a.fail(ctx, hayrick.ClassHandler, err.Error())
	}
	defer func() {
		if a.journal != nil {
			a.journal.Close(false)
		}
	}()
	if err := a.recall(ctx); err != nil {
		return again(againFault, "read the journal"), err
	}
	stopRenewing := a.renew(ctx)
	defer stopRenewing()
	if err := a.runItems(ctx); err != nil {
		return again(againFault, "run the items"), err
	}
	if a.ended < len(a.items) {
		return a.handBack(ctx)
	}
	res, err := a.put(ctx)
	if err != nil {
		return again(againFault, "put the results"), err
	}
	return a.commit(ctx, res)
}

// open reads the batch and checks it before anything of it is used. ok is false
// when the attempt ends here with the verdict.
func (a *attemptRun) open(ctx context.Context) (v Verdict, ok bool, err error) {
	r, err := a.w.Inputs.OpenInput(ctx, a.ref.JobID, a.batch.Object, a.batch.Offset, a.batch.Length)
	if errors.Is(err, hayrick.ErrNotFound) && !a.batch.Retry {
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
		return again(againFault, "read the batch"), false, fmt.Errorf("read %s: %w", a.batch.BatchID, err)
	}
	def := &a.job.Definition
	a.items = make([]item, len(items))
	for i, it := range items {
		a.items[i] = item{in: it, Entry: Entry{Ordinal: it.Ordinal, Tries: it.Tries, Losses: it.Losses}}
		x := &a.items[i]
		x.check(def)
		if x.bad != "" && def.Input.OnBadItem != "skip" {
			where := fmt.Sprintf("%s:%d", a.batch.Object, it.Line)
			reason := fmt.Sprintf("%s: %s; `hayrick resume %s` goes on and lists such items as permanent (%s), or mend the file, `hayrick cancel %s` and `hayrick run --new`",
				where, x.bad, a.ref.JobID, hayrick.ClassBadItem, a.ref.JobID)
			if v, ok, err := a.pause(ctx, RuleBadItem, reason); !ok {
				return v, false, err
			}
		}
	}
	return Verdict{}, true, nil
}

// check finds the item's key and says why the record is no item.
func (x *item) check(def *hayrick.JobDefinition) {
	x.Key = fmt.Sprint(x.in.Ordinal)
	var ok bool
	if x.fields, ok = ParseFields(x.in.Data); !ok {
		x.bad = "the line is not one JSON object"
		return
	}
	for _, r := range def.Rates {
		if !r.Auto {
			continue
		}
		if _, err := RateKey(r.Key, x.fields); err != nil {
			x.bad = fmt.Sprintf("rates.%s: %v", r.Name, err)
			return
		}
	}
	if def.Input.Key == "" {
		return
	}
	key, ok := x.fields.Text(def.Input.Key)
	if !ok {
		x.bad = fmt.Sprintf("the item has no key: field %q is missing or empty", def.Input.Key)
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
			return again(againFault, "pause the job"), false, fmt.Errorf("pause %s: %w", a.ref.JobID, err)
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
	return again(againPaused, "%s", reason), false, nil
}

// release ends the claim without counting it as vanished. Lost, it runs out.
func (a *attemptRun) release(ctx context.Context) {
	var none time.Time
	ctx = context.WithoutCancel(ctx)
	if _, err := a.w.Claims.UpdateClaim(ctx, a.ref, a.id, hayrick.ClaimPatch{Until: &none}); err != nil && !errors.Is(err, hayrick.ErrLeaseLost) {
		a.w.Log.Debug("claim not released", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyError, err)
	}
}

// renew keeps the lease while the attempt runs. A lost lease is only noted: rows
// are safe without it, and whoever commits first wins.
func (a *attemptRun) renew(ctx context.Context) (stop func()) {
	ctx, stop = context.WithCancel(ctx)
	lease := a.job.Definition.Run.Lease.D()
	a.w.World.Go("renew", func() {
		for a.w.World.Clock.Sleep(ctx, lease/3) == nil {
			until := a.w.World.Clock.Now().Add(lease)
			_, err := a.w.Claims.UpdateClaim(ctx, a.ref, a.id, hayrick.ClaimPatch{Until: &until})
			if errors.Is(err, hayrick.ErrLeaseLost) {
				a.w.Log.Warn("lease lost; another attempt may be running", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyAttempt, a.id)
				return
			}
		}
	})
	return stop
}

// recall takes over what earlier attempts of the task finished: the journal left
// here or, if it is further, the highest checkpoint that is valid. Two are never
// merged.
func (a *attemptRun) recall(ctx context.Context) error {
	a.memory = map[int][]byte{}
	a.lost = a.claim.Lost
	a.saved = a.start
	fp := a.fingerprint()
	j, err := a.w.Journals.Open(ctx, a.ref, fp)
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
		if err := a.restore(ctx, fp); err != nil {
			return err
		}
	}
	return nil
}

func (a *attemptRun) fingerprint() Fingerprint {
	return Fingerprint{BatchSHA256: a.batch.SHA256, DefinitionSHA256: a.job.Plan.DefinitionSHA256, BundleSHA256: a.job.Plan.BundleSHA256}
}

// load reads the entries of the journal into the items.
func (a *attemptRun) load(ctx context.Context) error {
	at := make(map[int64]int, len(a.items))
	for i := range a.items {
		at[a.items[i].Ordinal] = i
	}
	a.ended = 0
	return a.journal.Each(ctx, func(e Entry) error {
		i, ok := at[e.Ordinal]
		if !ok {
			return fmt.Errorf("journal of %s: ordinal %d is not of the batch: %w", a.ref.TaskID, e.Ordinal, hayrick.ErrCorrupt)
		}
		x := &a.items[i]
		if e.Ended && e.RowCount > 0 {
			var seen rows.Observer
			for r, err := range rows.Rows(e.Rows) {
				if err == nil {
					err = seen.Observe(r)
				}
				if err != nil {
					return fmt.Errorf("journal of %s: item %d: %v: %w", a.ref.TaskID, e.Ordinal, err, hayrick.ErrCorrupt)
				}
			}
			schema, err := a.fit(seen.Schema())
			if err != nil {
				return fmt.Errorf("journal of %s: item %d: %v: %w", a.ref.TaskID, e.Ordinal, err, hayrick.ErrCorrupt)
			}
			x.schema = schema
		}
		e.Key, e.Rows = x.Key, nil
		x.Entry = e
		if e.Ended {
			a.ended++
		}
		return nil
	})
}

// forget discards the journal and what was read of it: the attempt starts clean.
func (a *attemptRun) forget() {
	a.journal.Close(true)
	a.journal, a.ended = nil, 0
	a.schema, a.lastSchema = rows.Schema{}, nil
	for i := range a.items {
		x := &a.items[i]
		x.schema = nil
		x.Entry = Entry{Ordinal: x.in.Ordinal, Key: x.Key, Tries: x.in.Tries, Losses: x.in.Losses}
	}
}
