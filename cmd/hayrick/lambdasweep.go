package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hayrick"
)

// sweeps is what a sandbox remembers of its sweeps. Forgotten, they cost requests.
type sweeps struct {
	over map[string]time.Time // runs that have ended, and when that was last looked at
	last string               // the run that the last sweep was at when its time was over
}

// lookAgain is how long an ended run is taken for ended. Who opens a run again sweeps
// it too; this is for when that was cut off.
const lookAgain = time.Hour

// next orders the runs to be swept: those that the last sweep did not get to come
// first, so that no run waits for ever behind long ones.
func (s *sweeps) next(ids []string, now time.Time) []string {
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		at, over := s.over[id]
		return !hayrick.ValidID(id) || over && now.Sub(at) < lookAgain
	})
	slices.Sort(ids)
	i, found := slices.BinarySearch(ids, s.last)
	if found {
		i++
	}
	return slices.Concat(ids[i:], ids[:i])
}

// sweep repairs every run that has not ended, until the invocation's time is over; the
// next invocation goes on from there. One run that cannot be swept keeps no other from
// it, but is an error in the end: an alarm counts them.
func (f *function) sweep(ctx context.Context, t lent) error {
	ctx, cancel := t.until(ctx)
	defer cancel()
	ids, err := f.store.Jobs(ctx)
	if err != nil {
		return f.failed(fmt.Errorf("list the runs: %w", err))
	}
	if f.sweeps.over == nil {
		f.sweeps.over = map[string]time.Time{}
	}
	var errs []error
	for i, id := range f.sweeps.next(ids, f.now()) {
		dec, err := f.coordinator.Sweep(ctx, id)
		switch {
		case ctx.Err() != nil: // it may be the one that is too long: it is the last of the next
			f.sweeps.last = id
			f.log.Warn("the time of a sweep is over; the next one goes on", hayrick.KeyJobID, id, "swept", i)
			return errors.Join(errs...)
		case errors.Is(err, hayrick.ErrNotFound): // a submission that has not got to its plan
		case err != nil:
			errs = append(errs, f.failed(fmt.Errorf("sweep %s: %w", id, err)))
		case dec.Complete:
			f.sweeps.over[id] = f.now()
		default:
			delete(f.sweeps.over, id)
		}
	}
	f.sweeps.last = ""
	return errors.Join(errs...)
}

// failed tells what Lambda shows as the function's error, with our log keys.
func (f *function) failed(err error) error {
	f.log.Error("the sweep failed", hayrick.KeyError, err)
	return err
}
