package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"hayrick"
	"hayrick/manifest"
)

// BeginPurge makes the end of a run its last: it orders a purge, which takes the place
// of the next generation, so that nothing opens the run again. From then on it can only
// be purged. ErrConflict: it has not ended, or another order has opened it. ErrNotFound:
// there is no such run. A purge that was begun before is gone on with.
func (c *Coordinator) BeginPurge(ctx context.Context, jobID string) error {
	job := manifest.Job(jobID)
	orders, _, err := c.Store.Orders(ctx, jobID)
	if err != nil {
		return err
	}
	current := manifest.Current(orders)
	if o := manifest.Opening(orders, current); o != nil && o.Order == manifest.OrderPurge {
		return nil
	}
	planned, err := c.exists(ctx, job.Plan())
	if err != nil {
		return err
	}
	if !planned {
		// Of a run that was purged the first outcome is the last to go.
		ended, err := c.exists(ctx, job.Outcome(0))
		if err == nil && !ended {
			err = fmt.Errorf("purge %s: %w", jobID, hayrick.ErrNotFound)
		}
		return err
	}
	_, err = c.Order(ctx, jobID, manifest.Control{Order: manifest.OrderPurge, Generation: current + 1})
	return err
}

// Purge removes every object of a run that BeginPurge was called for. The plan goes
// before its orders and outcomes, and the first outcome last: cut off before the plan is
// gone the run is ended and being purged, after it there is no such run, and its id is
// not given to another until all of it is gone. Called again, it goes on.
func (c *Coordinator) Purge(ctx context.Context, jobID string, rm manifest.Remover) (removed, bytes int64, err error) {
	for range 3 { // what was on its way when the run was listed
		var stages [purgeStages][]manifest.Object
		if err := c.Store.Objects.List(ctx, manifest.Job(jobID).Prefix(), func(o manifest.Object) error {
			s := purgeStage(manifest.Job(jobID).Rel(o.Key))
			stages[s] = append(stages[s], o)
			return nil
		}); err != nil {
			return removed, bytes, fmt.Errorf("list %s: %w", jobID, err)
		}
		some := false
		for _, objects := range stages {
			if err := c.Remove(ctx, rm, objects); err != nil {
				return removed, bytes, err
			}
			for _, o := range objects {
				removed, bytes, some = removed+1, bytes+o.Size, true
			}
		}
		if !some {
			break
		}
	}
	return removed, bytes, nil
}

const purgeStages = 5

// purgeStage says when an object goes.
func purgeStage(rel string) int {
	switch {
	case rel == "plan.json":
		return 1
	case rel == "outcome-0.json":
		return 4
	case strings.HasPrefix(rel, "control/"):
		return 3
	case manifest.Decides(manifest.Jobs + "x/" + rel), rel == "manifest.json":
		return 2
	}
	return 0
}

// Remove takes objects away, some side by side.
func (c *Coordinator) Remove(ctx context.Context, rm manifest.Remover, objects []manifest.Object) error {
	errs := make([]error, min(scanners, len(objects)))
	var wg sync.WaitGroup
	for s := range errs {
		wg.Add(1)
		c.World.Go("remove", func() {
			defer wg.Done()
			for i := s; i < len(objects) && errs[s] == nil; i += scanners {
				errs[s] = rm.Remove(ctx, objects[i].Key)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
