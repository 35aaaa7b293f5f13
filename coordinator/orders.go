package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// Effect is what the orders of a job come to in one generation.
type Effect struct {
	Paused    bool
	Reason    string // of the pause that holds, for people
	Rule      string // that gave the pause that holds; "" = a person did
	Cancelled bool   // final: nothing lifts it
	Applied   int    // orders 0..Applied-1 were looked at; what plans record

	// Budget is that of the last resume which set one; nil = the job file's.
	Budget *hayrick.Budget

	given  map[automatic]bool
	rested time.Duration // in pauses that are over
	since  time.Time     // of the pause that holds
}

// automatic identifies a pause that a rule gives: it is given once, so that a
// resume silences the rule.
type automatic struct{ rule, group string }

// Rested is how long the generation has been paused so far.
func (e Effect) Rested(now time.Time) time.Duration {
	if e.Paused {
		return e.rested + max(0, now.Sub(e.since))
	}
	return e.rested
}

// Given says whether the rule has paused the group before, lifted since or not.
func (e Effect) Given(rule, group string) bool { return e.given[automatic{rule, group}] }

// Apply folds orders, in order of n, into their effect on a generation. Orders of
// other generations are void here: those of an earlier one ended with it. So is an
// automatic pause whose rule and group were there before. Apply does not know of
// outcomes; where the generation has one, no order has an effect any more.
func Apply(orders []manifest.Control, generation int) Effect {
	e := Effect{Applied: len(orders), given: map[automatic]bool{}}
	for _, o := range orders {
		if o.Generation != generation {
			continue
		}
		switch o.Order {
		case manifest.OrderPause:
			if o.Rule != "" {
				if e.Given(o.Rule, o.Group) {
					continue
				}
				e.given[automatic{o.Rule, o.Group}] = true
			}
			if !e.Paused {
				e.since = o.At.Time
			}
			e.Paused, e.Reason, e.Rule = true, o.Reason, o.Rule
		case manifest.OrderResume:
			e.rested = e.Rested(o.At.Time)
			e.Paused, e.Reason, e.Rule = false, "", ""
			if o.Budget != nil {
				e.Budget = o.Budget
			}
		case manifest.OrderCancel:
			e.Cancelled = true
		}
	}
	return e
}

// Order gives an order: it stores o put-if-absent at the first free n and returns
// it as stored. Schema, JobID and N are filled in, By and At where they are empty.
// An automatic pause that was given before is returned as it stands. ErrNotFound:
// there is no such job; ErrConflict: the generation has its outcome, no order would
// have an effect.
//
// An order that opens a generation (redrive, merge) asks that the one before has its
// outcome; ErrConflict too when that is not so, or when another has opened it: the order
// that did is returned.
//
// A crash before the put leaves nothing, one after it the order: giving a manual
// order again gives it twice, which is harmless.
func (c *Coordinator) Order(ctx context.Context, jobID string, o manifest.Control) (manifest.Control, error) {
	what := fmt.Sprintf("order %s of %s", o.Order, jobID)
	job := manifest.Job(jobID)
	switch planned, err := c.exists(ctx, job.Plan()); {
	case err != nil:
		return o, fmt.Errorf("%s: %w", what, err)
	case !planned:
		return o, fmt.Errorf("%s: the job: %w", what, hayrick.ErrNotFound)
	}
	// An outcome that comes between this look and the put makes the order void, as
	// it would have been one moment later.
	switch ended, err := c.exists(ctx, job.Outcome(o.Generation)); {
	case err != nil:
		return o, fmt.Errorf("%s: %w", what, err)
	case ended:
		return o, fmt.Errorf("%s: generation %d has ended: %w", what, o.Generation, hayrick.ErrConflict)
	}
	if o.Opens() {
		switch ended, err := c.exists(ctx, job.Outcome(o.Generation-1)); {
		case err != nil:
			return o, fmt.Errorf("%s: %w", what, err)
		case !ended:
			return o, fmt.Errorf("%s: generation %d has not ended: %w", what, o.Generation-1, hayrick.ErrConflict)
		}
	}
	orders, _, err := c.Store.Orders(ctx, jobID)
	final := o.Order == manifest.OrderCancel // whatever else was ordered, it ends the generation
	if damaged := errors.Is(err, hayrick.ErrCorrupt); err != nil && !(final && damaged) {
		return o, fmt.Errorf("%s: %w", what, err)
	}
	o.Schema, o.JobID = manifest.SchemaControl, jobID
	if o.By == "" {
		o.By = c.World.Worker
	}
	if o.At.IsZero() {
		o.At = manifest.At(c.World.Clock.Now())
	}
	for o.N = len(orders); ; o.N++ { // with another's order at this n the next is tried
		if same, ok := sameRule(orders, o); ok {
			return same, nil
		}
		if first := manifest.Opening(orders, o.Generation); o.Opens() && first != nil {
			return *first, fmt.Errorf("%s: order %d has opened generation %d: %w", what, first.N, o.Generation, hayrick.ErrConflict)
		}
		got, err := c.Store.CommitControl(ctx, o)
		if final && errors.Is(err, hayrick.ErrCorrupt) {
			continue
		}
		if err != nil {
			return o, fmt.Errorf("%s: %w", what, err)
		}
		if got.Won {
			return got.Record, nil
		}
		orders = append(orders, got.Record)
	}
}

// sameRule finds the automatic pause that makes o void.
func sameRule(orders []manifest.Control, o manifest.Control) (manifest.Control, bool) {
	if o.Order != manifest.OrderPause || o.Rule == "" {
		return manifest.Control{}, false
	}
	for _, p := range orders {
		if p.Order == o.Order && p.Generation == o.Generation && p.Rule == o.Rule && p.Group == o.Group {
			return p, true
		}
	}
	return manifest.Control{}, false
}

// exists says whether there is an object under key, without reading it.
func (c *Coordinator) exists(ctx context.Context, key string) (bool, error) {
	r, err := c.Store.Objects.Open(ctx, key, 0, 1)
	switch {
	case errors.Is(err, hayrick.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for %s: %w", key, err)
	}
	return true, r.Close()
}
