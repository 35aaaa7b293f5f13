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
	Plan        manifest.Plan
	Definition  hayrick.JobDefinition
	Generation  int
	Orders      []manifest.Control
	Outcome     *manifest.Outcome         // of the generation; nil while it runs
	Retries     []manifest.RetryPlan      // of the generation, in order
	Aggregation *manifest.AggregationPlan // nil until merging is planned
	Open        *OpenGroup                // nil once the outcome is there
	Depth       hayrick.Depth             // messages of the job that wait or are in flight
	Cached      *hayrick.JobState         // nil when the state store knows nothing
	ViewStatus  hayrick.JobStatus         // what the job manifest says, "" when there is none
	Money       *Money                    // nil: the store costs nothing
}

// OpenGroup is the group whose tasks run now.
type OpenGroup struct {
	Name      string
	Members   *manifest.Members    // nil when the generation has no rows to merge
	Records   []hayrick.BlockState // its progress records, those of other plans left out
	NotBefore time.Time            // its tasks are to wait so long
}

// Known reads a snapshot. ErrNotFound: the job has no plan.
func (c *Coordinator) Known(ctx context.Context, jobID string) (*Known, error) {
	k := &Known{Money: c.Money}
	var err error
	if k.Plan, _, err = c.Store.Plan(ctx, jobID); err != nil {
		return nil, err
	}
	if k.Definition, err = c.Store.Definition(ctx, k.Plan); err != nil {
		return nil, err
	}
	if k.Orders, _, err = c.Store.Orders(ctx, jobID); err != nil {
		return nil, err
	}
	switch st, err := c.State.JobState(ctx, jobID); {
	case err == nil:
		k.Cached = &st
	case !errors.Is(err, hayrick.ErrNotFound):
		return nil, fmt.Errorf("read state of %s: %w", jobID, err)
	}
	var view manifest.JobManifest
	if b, err := c.Store.Raw(ctx, manifest.Job(jobID).Manifest()); err == nil && manifest.Decode(b, manifest.SchemaJob, &view) == nil {
		k.ViewStatus = hayrick.JobStatus(view.Status)
	}
	switch o, _, err := c.Store.Outcome(ctx, jobID, k.Generation); {
	case err == nil:
		k.Outcome = &o
	case !errors.Is(err, hayrick.ErrNotFound):
		return nil, err
	}
	if err := c.readPlans(ctx, k); err != nil {
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

// readPlans reads the chain of plans of the generation.
func (c *Coordinator) readPlans(ctx context.Context, k *Known) error {
	var err error
	if k.Retries, _, err = c.Store.RetryPlans(ctx, k.Plan.JobID, k.Generation); err != nil {
		return err
	}
	switch p, _, err := c.Store.AggregationPlan(ctx, k.Plan.JobID, k.Generation); {
	case err == nil:
		k.Aggregation = &p
	case !errors.Is(err, hayrick.ErrNotFound):
		return err
	}
	return nil
}

// readOpen loads the open group with its progress records.
func (c *Coordinator) readOpen(ctx context.Context, k *Known) error {
	name, group := k.openGroup()
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
		return err
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

// openGroup is the group that the last plan opened; the name is "" between the
// last retry plan and the aggregation plan.
func (k *Known) openGroup() (string, *manifest.Group) {
	switch n := len(k.Retries); {
	case k.Aggregation != nil:
		return hayrick.GroupAggregation, k.Aggregation.Group
	case n == 0:
		return hayrick.GroupInitial, &k.Plan.Group
	case k.Retries[n-1].Next == manifest.NextAggregation:
		return "", nil
	default:
		return k.Retries[n-1].Next, k.Retries[n-1].Group
	}
}

// Record finds a progress record by its place in the tree.
func (g *OpenGroup) Record(level, n int) (hayrick.BlockState, bool) {
	for _, r := range g.Records {
		if r.Level == level && r.N == n {
			return r, true
		}
	}
	return hayrick.BlockState{}, false
}
