package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// Known is a snapshot of one job: its commits, and what the state store says of
// the group that is open. Commits decide; state may only wake, pause or count.
type Known struct {
	Plan        manifest.Plan // as it stands in the generation: manifest.Plan.In
	Definition  hayrick.JobDefinition
	Generation  int // the current one
	Orders      []manifest.Control
	Opening     *manifest.Control         // the order that opened it; nil of the first
	Before      *manifest.Outcome         // of the generation before; nil of the first
	Outcome     *manifest.Outcome         // of the generation; nil while it runs
	Retries     []manifest.RetryPlan      // of the generation, in order
	Aggregation *manifest.AggregationPlan // nil until merging is planned
	Open        *OpenGroup                // nil once the outcome is there
	Depth       hayrick.Depth             // messages of the job that wait or are in flight
	Cached      *hayrick.JobState         // nil when the state store knows nothing
	ViewStatus  hayrick.JobStatus         // what the job manifest says of it, "" when there is none
	Unread      error                     // what of a cancelled run is damaged: it needs its plan alone
	Money       *Money                    // nil: the store costs nothing
}

// OpenGroup is the group whose tasks run now.
type OpenGroup struct {
	Name      string
	Members   *manifest.Members    // nil when the generation has no rows to merge
	Records   []hayrick.BlockState // its progress records, those of other plans left out
	NotBefore time.Time            // its tasks are to wait so long
}

// Known reads a snapshot. ErrNotFound: the job has no plan. ErrCorrupt: something that
// it names is damaged or gone; a person can then cancel it.
func (c *Coordinator) Known(ctx context.Context, jobID string) (*Known, error) {
	k := &Known{Money: c.Money}
	var err error
	var sha string
	if k.Plan, sha, err = c.Store.Plan(ctx, jobID); err != nil {
		return nil, err
	}
	orders, _, unread := c.Store.Orders(ctx, jobID)
	if unread != nil && !errors.Is(unread, hayrick.ErrCorrupt) {
		return nil, unread
	}
	k.Orders, k.Generation = orders, manifest.Current(orders)
	switch o, _, err := c.Store.Outcome(ctx, jobID, k.Generation); {
	case err == nil:
		k.Outcome = &o
	case !errors.Is(err, hayrick.ErrNotFound):
		return nil, err
	}
	if !k.spared(unread) {
		return nil, unread
	}
	k.Opening, k.Plan = manifest.Opening(k.Orders, k.Generation), k.Plan.In(k.Orders, k.Generation)
	if k.Opening != nil {
		o, _, err := c.Store.Outcome(ctx, jobID, k.Generation-1)
		if err != nil && !(k.Purging() && errors.Is(err, hayrick.ErrNotFound)) {
			return nil, gone(err)
		}
		k.Before = &o
	}
	if k.Purging() {
		return k, nil
	}
	switch st, err := c.State.JobState(ctx, jobID); {
	case err == nil:
		k.Cached = &st
	case !errors.Is(err, hayrick.ErrNotFound):
		return nil, fmt.Errorf("read state of %s: %w", jobID, err)
	}
	var view manifest.JobManifest
	if b, err := c.Store.Raw(ctx, manifest.Job(jobID).Manifest()); err == nil && manifest.Decode(b, manifest.SchemaJob, &view) == nil && view.Generation == k.Generation {
		k.ViewStatus = hayrick.JobStatus(view.Status)
	}
	if k.Definition, err = c.Store.Definition(ctx, k.Plan); !k.spared(err) {
		return nil, gone(err)
	}
	if err := c.readPlans(ctx, k, sha); !k.spared(err) {
		return nil, err
	}
	if k.Outcome != nil && k.ViewStatus == hayrick.JobStatus(k.Outcome.Status) {
		return k, nil // nothing is left to be done
	}
	if k.Depth, err = c.Queue.Depth(ctx, hayrick.QueueTasks, jobID); err != nil {
		return nil, fmt.Errorf("read the queue's depth: %w", err)
	}
	if k.Outcome != nil {
		return k, nil
	}
	return k, c.readOpen(ctx, k)
}

// spared says that a run can do without what err says cannot be read, which it notes.
// Of one that is cancelled nothing but the count of what is finished depends on it. That
// it is cancelled is said by any order that can be read, for no other lifts it.
func (k *Known) spared(err error) bool {
	if err == nil {
		return true
	}
	cancelled := Apply(k.Orders, k.Generation).Cancelled
	if k.Outcome != nil {
		cancelled = k.Outcome.Status == string(hayrick.JobCancelled)
	}
	if !cancelled || !errors.Is(gone(err), hayrick.ErrCorrupt) {
		return false
	}
	k.Unread = errors.Join(k.Unread, err)
	return true
}

// gone turns "not found" of an object that a plan names into what it is: a fact that
// broke, not the answer that there is no such job.
func gone(err error) error {
	if errors.Is(err, hayrick.ErrNotFound) {
		return fmt.Errorf("a named object is gone: %v: %w", err, hayrick.ErrCorrupt)
	}
	return err
}

// readPlans reads the chain of plans of the generation, from the submission with the
// SHA-256 sha on. Of one that has ended, a retry plan that its outcome does not name came
// after the end: it is void. With ErrCorrupt k has the plans before the one that is
// damaged: what those opened is what can be counted.
func (c *Coordinator) readPlans(ctx context.Context, k *Known, sha string) error {
	job := manifest.Job(k.Plan.JobID)
	h := manifest.History{Plan: manifest.Link{Key: job.Rel(job.Plan()), SHA256: sha}, Orders: len(k.Orders)}
	plans, links, err := c.Store.RetryPlans(ctx, k.Plan.JobID, k.Generation)
	for i, p := range plans {
		if k.Outcome == nil || k.Outcome.Chain[links[i].Key] == links[i].SHA256 {
			h.Retries, h.Links = append(h.Retries, p), append(h.Links, links[i])
		}
	}
	k.Retries = h.Retries
	if err != nil {
		return err
	}
	switch p, _, err := c.Store.AggregationPlan(ctx, k.Plan.JobID, k.Generation); {
	case err == nil:
		h.Aggregation = &p
	case !errors.Is(err, hayrick.ErrNotFound):
		return err
	}
	if k.Unread == nil { // else orders are missing
		if err := h.Check(); err != nil {
			k.Retries = nil // any of them may be the wrong one
			return err
		}
	}
	k.Aggregation = h.Aggregation
	return nil
}

// readOpen loads the open group with its progress records.
func (c *Coordinator) readOpen(ctx context.Context, k *Known) error {
	name, group := k.Opened()
	if name == "" {
		return nil
	}
	k.Open = &OpenGroup{Name: name}
	if n := len(k.Retries); n > 0 && k.Aggregation == nil {
		k.Open.NotBefore = k.Retries[n-1].NotBefore.Time
	}
	if group == nil || group.Tasks == 0 {
		return nil
	}
	m, err := c.Store.Members(ctx, k.Plan.JobID, k.Generation, *group)
	if err != nil {
		if k.spared(err) {
			return nil
		}
		return gone(err)
	}
	k.Open.Members = m
	records, err := c.State.Blocks(ctx, k.Plan.JobID, k.Generation, name)
	if err != nil {
		return fmt.Errorf("read progress of %s: %w", name, err)
	}
	for _, r := range records {
		if r.Level < m.Levels() && r.N < m.Width(r.Level) {
			if id, total := m.At(r.Level, r.N); id == r.BlockID && total == r.Total {
				k.Open.Records = append(k.Open.Records, r)
			}
		}
	}
	return nil
}

// Opened is the group that the last plan opened; the name is "" between the
// last retry plan and the aggregation plan, and before the first plan of a generation
// that an order opened.
func (k *Known) Opened() (string, *manifest.Group) {
	switch n := len(k.Retries); {
	case k.Aggregation != nil:
		return hayrick.GroupAggregation, k.Aggregation.Group
	case k.unplanned():
		return "", nil
	case n == 0:
		return hayrick.GroupInitial, &k.Plan.Group
	case k.Retries[n-1].Next == manifest.NextAggregation:
		return "", nil
	default:
		return k.Retries[n-1].Next, k.Retries[n-1].Group
	}
}

// Purging says that the run is being removed: nothing of it can be relied on.
func (k *Known) Purging() bool { return k.Opening != nil && k.Opening.Order == manifest.OrderPurge }

// unplanned says that the order which opened the generation has not been carried out.
func (k *Known) unplanned() bool { return k.Opening != nil && len(k.Retries) == 0 }

// Record finds a progress record by its place in the tree.
func (g *OpenGroup) Record(level, n int) (hayrick.BlockState, bool) {
	for _, r := range g.Records {
		if r.Level == level && r.N == n {
			return r, true
		}
	}
	return hayrick.BlockState{}, false
}
