package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
)

// latest is the run that is meant when none is named.
const latest = "@"

// findRun is the id of the run that a person means: an id, a prefix of one that is
// unique, @ for the latest run, @name for the latest of a job.
func (r *roles) findRun(ctx context.Context, ref string) (string, error) {
	if hayrick.ValidID(ref) {
		if _, _, err := r.manifests.Plan(ctx, ref); !errors.Is(err, hayrick.ErrNotFound) {
			return ref, nil // damaged ones too: whoever reads more of it says so
		}
	}
	name, newest := strings.CutPrefix(ref, latest)
	plans, err := r.plans(ctx, func(jobID string) bool { return newest || strings.HasPrefix(jobID, ref) })
	if err != nil {
		return "", err
	}
	var found []string
	for _, p := range plans {
		if !newest || name == "" || p.Job.JobType == name {
			found = append(found, p.JobID)
		}
	}
	switch {
	case len(found) == 1, newest && len(found) > 0:
		return found[0], nil
	case len(found) > 1:
		shown := found[:min(5, len(found))]
		return "", &hayrick.UserError{
			What: fmt.Sprintf("%q is the beginning of %d runs, such as %s", ref, len(found), strings.Join(shown, ", ")),
			Hint: "write more of it",
		}
	case newest && name == "":
		return "", &hayrick.UserError{What: "there is no run in " + r.storeDir, Hint: "start one with hayrick run <job>", Exit: exitNotFound}
	}
	return "", &hayrick.UserError{What: fmt.Sprintf("there is no run %s in %s", ref, r.storeDir), Hint: "hayrick ls lists the runs; -C names another store", Exit: exitNotFound}
}

// findAudited is findRun for a run whose plan may be gone.
func (r *roles) findAudited(ctx context.Context, ref string) (string, error) {
	ids, err := r.lister.Jobs(ctx)
	if err != nil {
		return "", fmt.Errorf("list the runs: %w", err)
	}
	if slices.Contains(ids, ref) {
		return ref, nil
	}
	return r.findRun(ctx, ref)
}

// plans reads the plans of the runs that are asked for, the latest first.
// Submissions that never got to their plan are no runs. One that is damaged, or that
// this process may not read, is told and left out; but it is an error that it may not
// read any.
func (r *roles) plans(ctx context.Context, want func(jobID string) bool) ([]manifest.Plan, error) {
	ids, err := r.lister.Jobs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the runs: %w", err)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !hayrick.ValidID(id) || !want(id) })
	var denied atomic.Pointer[error]
	plans, err := each(ids, func(id string) (*manifest.Plan, error) {
		p, _, err := r.manifests.Plan(ctx, id)
		if errors.Is(err, hayrick.ErrCorrupt) {
			r.log.Warn("this run cannot be read; `hayrick audit "+id+"` says more", hayrick.KeyJobID, id, hayrick.KeyError, err)
			return nil, nil
		}
		if errors.Is(err, hayrick.ErrDenied) {
			r.log.Warn("this run may not be read by who asks", hayrick.KeyJobID, id, hayrick.KeyError, err)
			denied.Store(&err)
			return nil, nil
		}
		if errors.Is(err, hayrick.ErrNotFound) {
			return nil, nil
		}
		return &p, err
	})
	if err != nil {
		return nil, err
	}
	var out []manifest.Plan
	for _, p := range plans {
		if p != nil {
			out = append(out, *p)
		}
	}
	if err := denied.Load(); err != nil && len(out) == 0 {
		return nil, *err
	}
	slices.SortStableFunc(out, func(a, b manifest.Plan) int {
		if c := b.SubmittedAt.Compare(a.SubmittedAt.Time); c != 0 {
			return c
		}
		return strings.Compare(a.JobID, b.JobID)
	})
	return out, nil
}

// known is a run as it stands, with what a sweep would say of it.
func (r *roles) known(ctx context.Context, jobID string) (*coordinator.Known, coordinator.Decision, error) {
	k, err := r.coordinator.Known(ctx, jobID)
	if err != nil {
		return nil, coordinator.Decision{}, ofRun(jobID, fmt.Errorf("read run %s: %w", jobID, err))
	}
	return k, coordinator.Decide(k, r.world.Clock.Now()), nil
}

// runDamage is an error about an object of a run that is damaged or gone: a person puts
// it back, or gives the run up.
type runDamage struct {
	jobID string
	error
}

func (e *runDamage) Unwrap() error { return e.error }

// ofRun names the run of an error about damage, for the hint.
func ofRun(jobID string, err error) error {
	if !corrupted(err) || errors.As(err, new(*runDamage)) {
		return err
	}
	return &runDamage{jobID, err}
}

// named is ofRun for what reads only objects that a commit names: one that is gone is
// damage too, and no answer.
func named(jobID string, err error) error {
	if errors.Is(err, hayrick.ErrNotFound) {
		err = fmt.Errorf("a named object is gone: %v: %w", err, hayrick.ErrCorrupt)
	}
	return ofRun(jobID, err)
}

// mend is what a person does about damage.
func mend(jobID string) string {
	return fmt.Sprintf("`hayrick audit %s` names all that is damaged; put it back from a backup and go on with `hayrick resume %s`, or end the run with `hayrick cancel %s` and start anew with `hayrick run --new`",
		jobID, jobID, jobID)
}

// readers is how many small objects are read side by side.
const readers = 16

// each calls f for every item, several at a time, and returns what it answered, in
// order, or the first error.
func each[In, Out any](items []In, f func(In) (Out, error)) ([]Out, error) {
	out, errs := make([]Out, len(items)), make([]error, len(items))
	var wg sync.WaitGroup
	for w := range min(readers, len(items)) {
		wg.Go(func() {
			for i := w; i < len(items); i += readers {
				if out[i], errs[i] = f(items[i]); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return out, err
		}
	}
	return out, nil
}
