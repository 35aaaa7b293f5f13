package aggregator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// Aggregator plans and runs the merge of a generation. All exported fields but Left, Memory,
// Cores and Busy are required.
type Aggregator struct {
	Store  *manifest.Store
	State  State
	Queue  Queue
	Blobs  Blobs
	Output Output
	// Temp makes a scratch file.
	Temp        func() (manifest.Temp, error)
	World       hayrick.World
	Log         *slog.Logger
	CodeVersion string
	// Left is how long the process may still run; nil = as long as it takes. What does not
	// get done before is handed back.
	Left func() time.Duration
	// Memory is what the process may take, by which merges run fewer at a time and hold
	// less each; 0 = nothing is said. One row must fit several times.
	Memory int64
	// Cores is how many merges may be at work at once where no Memory is given: more take
	// memory and end no sooner. They wait for each other. 0 = nothing is said.
	Cores int
	// Busy is told when the first merge begins that decodes, and when the last one has
	// ended: meanwhile most of what the process holds is rows. nil = nobody asks.
	Busy func(bool)

	mu   sync.Mutex
	last *merging // guarded by mu: the generation that a merge was last run for
	busy int      // guarded by mu: merges that decode
	// guarded by mu: the memory that those take, about
	taken int64
	kept  kept // guarded by mu

	once  sync.Once
	turns chan struct{} // has one for each merge at work
}

const (
	baseMemory  = 64 << 20  // of a process that merges nothing
	mergeMemory = 160 << 20 // of a merge, about: a row group, its pages, and what sorts
	sortMemory  = 64 << 20
	rowCopies   = 12 // of a huge row, whose packed size is known: it is in memory up to eight times at once, as read, in a group, encoded
)

// share is how many merges may decode at once, and what of memory each has to hold rows
// in: in a sorter, or in a row group in the making.
func (a *Aggregator) share() (merges int, hold int64) {
	if a.Memory <= 0 {
		return math.MaxInt, sortMemory
	}
	free := max(a.Memory-baseMemory, 0)
	merges = int(max(free/mergeMemory, 1))
	return merges, min(max(free/int64(merges)/5, leastSort), sortMemory)
}

// turn waits until there is a core for one more merge; done gives it back.
func (a *Aggregator) turn(ctx context.Context) (done func(), err error) {
	if a.Cores <= 0 || a.Memory > 0 {
		return func() {}, nil
	}
	a.once.Do(func() { a.turns = make(chan struct{}, a.Cores) })
	select {
	case a.turns <- struct{}{}:
		return func() { <-a.turns }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a core: %w", ctx.Err())
	}
}

// enter says whether one more merge may decode now, of rows that have up to about row
// bytes, and what it takes; leave gives that back. One may always.
func (a *Aggregator) enter(row int64) (takes int64, ok bool) {
	takes = max(mergeMemory, rowCopies*row)
	a.mu.Lock()
	defer a.mu.Unlock()
	most, _ := a.share()
	if a.busy >= most || a.Memory > 0 && a.busy > 0 && a.taken+takes > a.Memory-baseMemory {
		return 0, false
	}
	a.taken += takes
	if a.busy++; a.busy == 1 && a.Busy != nil {
		a.Busy(true)
	}
	return takes, true
}

func (a *Aggregator) leave(takes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken -= takes
	if a.busy--; a.busy == 0 {
		a.kept = kept{}
		if a.Busy != nil {
			a.Busy(false)
		}
	}
}

// kept is memory that merges which are done have left for the next, which take it over
// already mapped. Where memory is bounded nothing is kept, and never more than the merges
// at work have had: each takes first, and gives back once.
type kept struct {
	sorters []buffers
	groups  []*rows.Batch
}

// take hands out the last of what is kept, or the zero value.
func take[T any](a *Aggregator, from *[]T) (x T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if last := len(*from) - 1; last >= 0 {
		x, *from = (*from)[last], (*from)[:last]
	}
	return x
}

// keep is the other side of take.
func keep[T any](a *Aggregator, to *[]T, x T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.Memory <= 0 && len(*to) < a.busy {
		*to = append(*to, x)
	}
}

// forgo frees what sorters have left, for merges that hold rows elsewhere.
func (a *Aggregator) forgo() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept.sorters = nil
}

// Do carries out a message of role aggregator: a merge task, or a trigger.
func (a *Aggregator) Do(ctx context.Context, d hayrick.Delivery) (Verdict, error) {
	switch st, err := a.State.JobState(ctx, d.JobID); {
	case errors.Is(err, hayrick.ErrNotFound): // no news: the sweeper rebuilds it
	case err != nil:
		return Verdict{Again: d.AfterFault(), Because: "read job state"}, fmt.Errorf("read state of %s: %w", d.JobID, err)
	case st.Generation == d.Generation && st.Status == hayrick.StatusPaused:
		return Verdict{Ack: true, Because: "the job is paused"}, nil // a resume sends it again
	}
	if d.TaskID != "" {
		return a.Merge(ctx, d)
	}
	err := a.Advance(ctx, d.JobID, d.Generation)
	if errors.Is(err, hayrick.ErrNotFound) {
		return Verdict{Ack: true, Because: err.Error()}, nil
	}
	if errors.Is(err, errHandedBack) {
		return a.handBack(ctx, d, err)
	}
	if err != nil {
		return Verdict{Again: d.AfterFault(), Because: "advance the aggregation"}, err
	}
	return Verdict{Ack: true, Because: "advanced"}, nil
}

// handBack sends what d asks for anew before d is acknowledged, so that a crash between
// leaves two messages, never none. A new message has not been delivered: however often
// it takes, none is a dead letter.
func (a *Aggregator) handBack(ctx context.Context, d hayrick.Delivery, back error) (Verdict, error) {
	msg := hayrick.Outgoing{Message: d.Message}
	if later := (*handedBackLater)(nil); errors.As(back, &later) {
		msg.Delay = later.wait
	}
	if err := a.Queue.Send(ctx, hayrick.QueueTasks, msg); err != nil {
		// The old message stays and says the same.
		return Verdict{Again: d.AfterFault(), Because: "hand back"}, fmt.Errorf("hand back %s of %s: %w", cmp.Or(d.TaskID, "the merge"), d.JobID, err)
	}
	return Verdict{Ack: true, Because: "handed back"}, nil
}

// errOpen: there is nothing to aggregate yet. Whoever closes the group sends a
// trigger, and so does the sweeper.
var errOpen = fmt.Errorf("a group is still open: %w", hayrick.ErrNotFound)

// Advance does what is next in the aggregation: plan it, send the merges that have
// not ended, end it when all have, publish it when that is done. Any number of
// callers may do the same step; they write the same objects, and the first commit
// stands. ErrNotFound: there is no such job, or a group of it is still open.
func (a *Aggregator) Advance(ctx context.Context, jobID string, generation int) error {
	job, err := a.open(ctx, jobID, generation)
	if err == nil {
		if err = a.advance(ctx, job); !errors.Is(err, errOpen) {
			err = gone(err)
		}
	}
	if err != nil {
		return fmt.Errorf("aggregate %s: %w", jobID, err)
	}
	return nil
}

func (a *Aggregator) advance(ctx context.Context, job *jobOf) error {
	switch o, sha, err := a.Store.Outcome(ctx, job.id, job.generation); {
	case err == nil:
		return a.publish(ctx, job, o, sha)
	case !errors.Is(err, hayrick.ErrNotFound):
		return err
	}
	if err := a.readRetries(ctx, job); err != nil {
		return err
	}
	plan, _, err := a.Store.AggregationPlan(ctx, job.id, job.generation)
	if errors.Is(err, hayrick.ErrNotFound) {
		plan, err = a.plan(ctx, job)
		if errors.Is(err, rows.ErrSchema) {
			return a.fail(ctx, job, manifest.CodeNothingToMerge, err.Error(), nil)
		}
	}
	if err != nil {
		return err
	}
	var m merges
	if plan.Group != nil {
		if m, err = a.level(ctx, job, *plan.Group, levelInputs); err != nil {
			return err
		}
	}
	if plan.Ranges != nil && len(m.missing) == 0 && m.failed == "" {
		ranges, err := a.level(ctx, job, *plan.Ranges, levelRanges)
		if err != nil {
			return err
		}
		if m, err = m.over(ranges); err != nil {
			return err
		}
	}
	if len(m.missing) > 0 {
		return a.send(ctx, m.missing)
	}
	return a.root(ctx, job, plan, m)
}

// jobOf is a generation of a job, as its commits describe it.
type jobOf struct {
	id         string
	key        manifest.Job
	generation int
	plan       manifest.Plan
	planned    manifest.Link // plan.json
	def        hayrick.JobDefinition

	// What the retry planner has decided; merges do without it.
	retries []manifest.RetryPlan // of the generation
	decided manifest.Link        // the last of them, which says aggregation
	history manifest.Past        // of this generation and those before: all results
}

// open reads a job. ErrNotFound: there is none.
func (a *Aggregator) open(ctx context.Context, jobID string, generation int) (*jobOf, error) {
	p, sha, err := a.Store.Plan(ctx, jobID)
	if err == nil && generation > 0 {
		p, err = a.Store.PlanOf(ctx, jobID, generation)
	}
	if err != nil {
		return nil, err
	}
	def, err := a.Store.Definition(ctx, p)
	if err != nil {
		return nil, gone(err)
	}
	key := manifest.Job(jobID)
	return &jobOf{id: jobID, key: key, generation: generation, plan: p, planned: manifest.Link{Key: key.Rel(key.Plan()), SHA256: sha}, def: def}, nil
}

// readRetries reads the decisions of the generation. errOpen: the last one does not
// say aggregation.
func (a *Aggregator) readRetries(ctx context.Context, job *jobOf) error {
	past, err := a.Store.Past(ctx, job.id, job.generation)
	if err != nil {
		return err
	}
	plans, links := past.Of(job.generation)
	// Who ends the generation counts the orders too (Store.Chain).
	h := manifest.History{Plan: job.planned, Retries: plans, Links: links, Orders: math.MaxInt}
	if err := h.Check(); err != nil {
		return err
	}
	if n := len(plans); n == 0 || plans[n-1].Next != manifest.NextAggregation {
		return errOpen
	}
	job.retries, job.decided, job.history = plans, links[len(links)-1], past
	return nil
}

// givenUp is how many items the retry planner listed.
func (j *jobOf) givenUp() (permanent, exhausted int64) {
	for _, r := range j.retries {
		permanent += r.Permanent
		exhausted += r.Exhausted
	}
	return permanent, exhausted
}

// balance holds the promise: every item has ended, and once.
func (j *jobOf) balance(ok int64) error {
	permanent, exhausted := j.givenUp()
	return Balance(j.plan.Items, ok, permanent, exhausted)
}

// send enqueues merge tasks. A crash before or in the middle leaves some unsent,
// which the next call or the sweeper finds by their missing results; one that is
// sent twice has one result all the same.
func (a *Aggregator) send(ctx context.Context, tasks []hayrick.Outgoing) error {
	for some := range slices.Chunk(tasks, manifest.BlockTasks) {
		if err := a.Queue.Send(ctx, hayrick.QueueTasks, some...); err != nil {
			return fmt.Errorf("send %d merges: %w", len(some), err)
		}
	}
	return nil
}

// readers is how many objects are read side by side: a million results of S3, some 30 ms
// each, within ten minutes.
const readers = 64

// each calls f for every i below n, some side by side, and returns the error of the
// lowest i that has one.
func (a *Aggregator) each(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for s := range min(readers, n) {
		wg.Add(1)
		a.World.Go("read", func() {
			defer wg.Done()
			for i := s; i < n; i += readers {
				errs[i] = f(i)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// gone makes "not found" of an object that a commit names what it is: damage.
func gone(err error) error {
	if errors.Is(err, hayrick.ErrNotFound) {
		return fmt.Errorf("a named object is gone: %v: %w", err, hayrick.ErrCorrupt)
	}
	return err
}
