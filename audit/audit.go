package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// Options says what to audit, and how far.
type Options struct {
	Store *manifest.Store
	JobID string
	World hayrick.World // for Go alone
	// Generation is the one to be proven; nil: the current one. Those before it are
	// walked too, for it is made of their results.
	Generation *int
	// Blobs reads footers and rows; nil leaves output_hash unchecked.
	Blobs Blobs
	// Deep decodes every row of every Parquet file, and needs Blobs. Without it each
	// file's bytes are hashed and its rows are what its commit says.
	Deep bool
	// Output is the published folder; nil: it is not looked at.
	Output Output
	// Lister finds the other runs of the store, where several append to one folder; nil:
	// what is of another run is not looked at.
	Lister Lister
	// Inputs reads the pinned input again; nil: it is not looked at. An input that has
	// changed since is noted, not broken: the promise is about what was run.
	Inputs Inputs
	// Copier makes the copies of inputs again, with Deep; nil: copies are not compared with
	// what they were made of. One that differs is noted, not broken, for the same reason.
	Copier Copier
	// Progress hears how far the walk is, from one goroutine; may be nil.
	Progress func(Progress)
}

// Progress is how far an audit is.
type Progress struct {
	Stage string // a task group, merge, parts, published, strangers
	Done  int64  // of Total units of the stage: tasks, files, objects
	Total int64  // 0 = not known
	Bytes int64  // read so far
}

// readers is how many tasks or files are read side by side.
const readers = 16

// Run audits a job. What is wrong with the job is in the report; an error means that
// the audit could not be done: ErrNotFound when there is no such job, or what the
// store answered. Nothing is written.
func Run(ctx context.Context, o Options) (Report, error) {
	a := &auditor{Options: o, job: manifest.Job(o.JobID), report: Report{
		Schema: Schema, JobID: o.JobID, Status: Unfinished, Deep: o.Deep, Counts: map[Severity]int{}, Findings: []Finding{}, Notes: []string{},
	}}
	a.look, a.generation, a.orderSHA = &look{a: a}, &generation{}, map[string]string{}
	if o.World.Go == nil || o.Deep && o.Blobs == nil {
		return a.report, fmt.Errorf("audit %s: World.Go is needed, and Blobs to go deep", o.JobID)
	}
	if !hayrick.ValidID(o.JobID) {
		return a.report, fmt.Errorf("audit %q: not a job id: %w", o.JobID, hayrick.ErrNotFound)
	}
	if err := a.walk(ctx); err != nil {
		return a.report, fmt.Errorf("audit %s: %w", o.JobID, err)
	}
	a.report.conclude()
	return a.report, nil
}

// auditor is one audit. Its fields are set by the main line of the walk and read by
// the pieces that run beside it.
type auditor struct {
	Options
	job    manifest.Job
	report Report
	*look  // of the main line

	// The chain: gens has every generation up to the one to be proven, and the embedded
	// one is that at hand.
	*generation
	gens       []*generation
	current    int           // the newest generation there is
	submitted  manifest.Plan // plan.json
	planSHA    string
	orders     []manifest.Control
	orderSHA   map[string]string
	orderCount int   // damaged ones too
	voidTasks  int64 // of plans that came after the end
	torn       bool  // an order is damaged

	// What the walk adds up.
	ledger  ledger
	copies  copies           // of inputs, made again
	tasks   int64            // worker tasks so far
	inputs  inputs           // of the aggregation plan at hand
	pinned  []*inputs        // of all aggregation plans, beside the tasks
	in      total            // rows of the results
	dropped total            // rows that the merges of the generation at hand dropped
	byBatch map[string]int64 // rows of the first results, for the manifest
	files   []string         // likewise
	unified rows.Schema      // of the results, when decoded
}

// succeeded says that the promise is to be proven.
func (a *auditor) succeeded() bool {
	return a.outcome != nil && a.outcome.Status == string(hayrick.JobSucceeded)
}

// errTorn ends the part of the walk that has lost its way: what it was to follow is
// damaged, which has been found and named.
var errTorn = errors.New("the walk ends here")

func (a *auditor) walk(ctx context.Context) error {
	torn := a.walkCommits(ctx)
	if torn != nil && !errors.Is(torn, errTorn) {
		return torn
	}
	if torn != nil {
		a.blind = true
	}
	if n := a.report.Generation; n < len(a.gens) && a.gens[n] != nil {
		a.generation = a.gens[n]
	}
	for _, step := range []func(context.Context) error{a.jobView, a.published, a.strangers} {
		if err := step(ctx); err != nil {
			return err
		}
		if a.err != nil {
			return a.err
		}
	}
	if a.blind {
		a.note("damage hides what depends on it: totals were not compared, and what no commit names was not looked for")
	}
	if a.unvouched > 0 {
		a.note("%s covered by no digest yet: a change in there is seen only where it contradicts something else", count(a.unvouched, "commit is", "commits are"))
	}
	a.noteCopies()
	if a.unread > 0 {
		a.note("the input is not what was run any more, which proves nothing against the results: %s, the first: %v",
			count(a.unread, "batch cannot be read again", "batches cannot be read again"), a.why)
	}
	a.close()
	return nil
}

// walkCommits follows the hash chain. An errTorn leaves the rest unwalked.
func (a *auditor) walkCommits(ctx context.Context) error {
	if err := a.readChains(ctx); err != nil {
		return cmp.Or(a.err, err)
	}
	for _, g := range a.gens {
		if a.generation = g; g.n == 0 {
			for _, g := range a.gens {
				a.generation = g
				if err := a.readDefinition(ctx); err != nil {
					return cmp.Or(a.err, err)
				}
			}
			a.generation = g
			stop := a.openPinned(ctx)
			defer stop()
		}
		for _, step := range []func(context.Context) error{a.walkGroups, a.walkAggregation, a.totals} {
			if err := step(ctx); err != nil {
				return err
			}
			if a.err != nil {
				return a.err
			}
		}
	}
	return nil
}

// close moves what the main line found to the report.
func (a *auditor) close() {
	a.takeFound(a.look)
	if a.blind && a.report.Sound() { // nothing may be called proven that was not seen
		a.report.add(Finding{Broken, CodeChain, a.job.Rel(a.job.Plan()), "the walk could not see everything, and cannot say why"})
	}
	n, _ := a.ledger.count()
	a.report.Items = Items{Total: a.ledger.items, OK: n[endOK], Permanent: n[endPermanent], Exhausted: n[endExhausted], Open: n[endOpen]}
	a.report.Checked = a.checked
	a.report.Rows.Decoded, a.report.Rows.ReadRows = a.decoded.Decoded, a.decoded.ReadRows
	a.report.Rows.Results, a.report.Rows.In, a.report.Rows.InHash = a.in.files, a.in.rows, a.in.hash.String()
	slices.SortStableFunc(a.report.Findings, func(x, y Finding) int { return rank(x.Severity) - rank(y.Severity) })
}

func rank(s Severity) int { return slices.Index([]Severity{Broken, View, Stranger, Leftover}, s) }

// take adds what a piece of the walk read and found to the main line.
func (a *auditor) take(l *look) {
	a.takeFound(l)
	a.named = append(a.named, l.named...)
	a.checked.Commits += l.checked.Commits
	a.checked.Data += l.checked.Data
	a.checked.Views += l.checked.Views
	a.checked.Published += l.checked.Published
	a.checked.Inputs += l.checked.Inputs
	a.checked.Bytes += l.checked.Bytes
	a.decoded.Decoded += l.decoded.Decoded
	a.decoded.ReadRows += l.decoded.ReadRows
	a.unvouched += l.unvouched
	if a.unread += l.unread; a.why == nil {
		a.why = l.why
	}
	a.blind = a.blind || l.blind
	if a.err == nil {
		a.err = l.err
	}
}

func (a *auditor) takeFound(l *look) {
	for _, f := range l.found {
		a.report.add(f)
	}
	for _, n := range l.notes {
		if len(a.report.Notes) < maxNotes {
			a.report.Notes = append(a.report.Notes, n)
		}
	}
	l.found, l.notes = nil, nil
}

const maxNotes = 100

func (a *auditor) progress(stage string, done, total int64) {
	if a.Progress != nil {
		a.Progress(Progress{Stage: stage, Done: done, Total: total, Bytes: a.checked.Bytes})
	}
}

// each runs f(0) .. f(n-1) side by side, every one with a look of its own, and takes
// these in, in order.
func (a *auditor) each(n int, f func(i int, l *look)) error {
	looks := make([]*look, n)
	for i := range looks {
		looks[i] = &look{a: a}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(readers, n) {
		wg.Add(1)
		a.World.Go("audit", func() {
			defer wg.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i, looks[i])
			}
		})
	}
	wg.Wait()
	a.takeFound(a.look) // what the main line found before comes first
	for _, l := range looks {
		a.take(l)
	}
	return a.err
}

// total is rows with their hash.
type total struct {
	files int64
	rows  int64
	hash  rows.Hash
}

func (t *total) add(n int64, h rows.Hash) {
	t.rows += n
	t.hash = t.hash.Add(h)
}

func (t total) same(n int64, hash string) bool { return t.rows == n && t.hash.String() == hash }
