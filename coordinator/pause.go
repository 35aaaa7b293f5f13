package coordinator

import (
	"context"
	"errors"
	"fmt"

	"hayrick"
	"hayrick/manifest"
)

// Pause gives the one automatic pause of a rule and group, and lets workers see it
// at once. silenced: it had been given before, and a person has resumed the job
// since; nothing is changed then. A generation that has ended needs no pause.
func (c *Coordinator) Pause(ctx context.Context, jobID string, generation int, group, rule, reason string) (silenced bool, err error) {
	given, err := c.Order(ctx, jobID, manifest.Control{
		Order: manifest.OrderPause, Generation: generation, Group: group, Rule: rule, Reason: reason,
	})
	if errors.Is(err, hayrick.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	orders, _, err := c.Store.Orders(ctx, jobID)
	if err != nil {
		return false, err
	}
	for _, o := range orders[min(given.N+1, len(orders)):] {
		if o.Order == manifest.OrderResume && o.Generation == generation {
			return true, nil
		}
	}
	// A crash before this leaves the order, which the next sweep makes known.
	err = c.State.PutJobState(ctx, hayrick.JobState{
		JobID: jobID, Generation: generation, Status: hayrick.StatusPaused, Orders: len(orders), Updated: c.World.Clock.Now(),
	})
	if err != nil {
		return false, fmt.Errorf("cache the pause of %s: %w", jobID, err)
	}
	return false, nil
}
