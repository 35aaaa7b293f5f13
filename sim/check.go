package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hayrick"
	"hayrick/audit"
	"hayrick/manifest"
)

// Check asserts of a run that is over what holds whatever has happened to it, and returns
// what does not: I1 from the history of the store, I6 from its progress records, and by
// the audit, which decodes every row, I2 to I5 and I7.
func (f *Fleet) Check() []error {
	if f.failure != nil {
		return []error{fmt.Errorf("I10: %w", f.failure)}
	}
	var bad []error
	for _, x := range f.Store.Illegal() {
		bad = append(bad, fmt.Errorf("I1: illegal write: %s", x))
	}
	if err := f.checkSends(); err != nil {
		bad = append(bad, err)
	}
	ctx := context.Background()
	store := &manifest.Store{Objects: f.Store, Clock: storeClock{f}}
	for g := 0; ; g++ {
		o, _, err := store.Outcome(ctx, f.jobID, g)
		if errors.Is(err, hayrick.ErrNotFound) && g > 0 {
			return bad
		}
		if err != nil {
			return append(bad, fmt.Errorf("I10: outcome of generation %d: %w", g, err))
		}
		bad = append(bad, f.checkMarks(ctx, store, g)...)
		r, err := audit.Run(ctx, audit.Options{
			Store: store, JobID: f.jobID, Generation: &g, World: hayrick.World{Go: InOrder, Clock: storeClock{f}},
			Blobs: f.Store, Output: f.Store, Inputs: f.Store, Deep: true,
		})
		if err != nil {
			return append(bad, fmt.Errorf("audit of generation %d: %w", g, err))
		}
		if done := o.Status == string(hayrick.JobSucceeded); r.Proven != done || !r.Sound() || r.Counts[audit.Stranger] > 0 {
			bad = append(bad, fmt.Errorf("I2-I5, I7: audit of generation %d: %s %v", g, r.Line, r.Findings))
		}
	}
}

// checkSends asserts I15: in no window of time there are more sends than the limit times
// its length and the burst. It needs clocks that go right, and the buckets.
func (f *Fleet) checkSends() error {
	for _, s := range f.Plan.Faults {
		if s.Kind == "clock-ahead" || s.Kind == "clock-back" || s.Kind == "state-deleted" {
			return nil
		}
	}
	slices.Sort(f.sends)
	over, last := 0.0, time.Duration(0)
	for _, at := range f.sends {
		over = max(0, over-float64(limit.N)*float64(at-last)/float64(limit.Per)) + 1
		if last = at; over > burst+1e-9 {
			return fmt.Errorf("I15: %.2f sends above the limit, of a burst of %d, at %v", over, burst, at)
		}
	}
	return nil
}

// checkMarks asserts I6: what is marked has a result.
func (f *Fleet) checkMarks(ctx context.Context, store *manifest.Store, generation int) (bad []error) {
	groups := []string{hayrick.GroupInitial, hayrick.GroupAggregation}
	for n := 1; n <= 8; n++ {
		groups = append(groups, hayrick.RetryGroup(n))
	}
	for _, group := range groups {
		g, _, err := store.OpenGroup(ctx, f.jobID, generation, group)
		if errors.Is(err, hayrick.ErrNotFound) {
			continue
		}
		if err != nil {
			return append(bad, err)
		}
		m, err := store.Members(ctx, f.jobID, generation, g)
		if err != nil {
			return append(bad, err)
		}
		records, err := f.Store.Blocks(ctx, f.jobID, generation, group)
		if err != nil {
			return append(bad, err)
		}
		for _, r := range records {
			if id, _ := m.At(r.Level, r.N); id != r.BlockID || r.Level > 0 {
				continue
			}
			b, err := m.Block(ctx, store, r.N)
			if err != nil {
				return append(bad, err)
			}
			for i, task := range b.Tasks {
				if _, _, err := store.Result(ctx, f.jobID, task.TaskID); r.Done.Has(i) && err != nil {
					bad = append(bad, fmt.Errorf("I6: %s is marked and has no result: %w", task.TaskID, err))
				}
			}
		}
	}
	return bad
}

// Gist is what two runs of a plan must agree on, whatever happened to them: the end of
// each generation.
func (f *Fleet) Gist() string {
	store := &manifest.Store{Objects: f.Store, Clock: storeClock{f}}
	text := ""
	for g := 0; ; g++ {
		o, _, err := store.Outcome(context.Background(), f.jobID, g)
		if err != nil {
			return text
		}
		text += fmt.Sprintf("%d: %s\n", g, Gist(o))
	}
}
