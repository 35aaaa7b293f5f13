package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"hayrick"
	"hayrick/manifest"
)

// generation is what the chain says of one generation of the job.
type generation struct {
	n          int
	outcome    *manifest.Outcome // nil: not finished, or damaged
	outcomeSHA string
	plan       manifest.Plan // as it stands in the generation
	definition hayrick.JobDefinition
	opening    *manifest.Control // nil of the first
	retries    []retryPlan
	agg        *manifest.AggregationPlan
	mergeSHA   map[string]string // results.done of merges that the outcome vouches for

	lists map[string]multiset // what its retry plans gave up, by published list
}

// outcomeKey is that of the generation at hand, relative to the job's folder.
func (a *auditor) outcomeKey() string { return a.job.Rel(a.job.Outcome(a.n)) }

// aggKey is that of its aggregation plan.
func (a *auditor) aggKey() string { return a.job.Rel(a.job.AggregationPlan(a.n)) }

// newest finds the generation to be proven. The orders say which is the current one;
// where one of them is gone or damaged, an outcome that is whole does.
func (a *auditor) newest(ctx context.Context) (int, error) {
	var orders []manifest.Control
	for n := 0; ; n++ {
		there, err := a.orderThere(ctx, n)
		if err != nil {
			return 0, err
		}
		if !there {
			break
		}
		raw, err := a.raw(ctx, a.job.Rel(a.job.Control(n)))
		if a.err != nil {
			return 0, a.err
		}
		var c manifest.Control
		if err == nil && manifest.Decode(raw, manifest.SchemaControl, &c) == nil && c.JobID == string(a.job) && c.N == n {
			orders = append(orders, c)
		}
	}
	current := manifest.Current(orders)
	for {
		raw, err := a.raw(ctx, a.job.Rel(a.job.Outcome(current+1)))
		if a.err != nil {
			return 0, a.err
		}
		if err != nil {
			break
		}
		if o, err := manifest.OpenOutcome(raw); err != nil || o.JobID != string(a.job) || o.Generation != current+1 {
			break
		}
		current++
	}
	a.current = current
	if a.Generation == nil {
		return current, nil
	}
	if g := *a.Generation; g >= 0 && g <= current {
		return g, nil
	}
	return 0, fmt.Errorf("it has no generation %d, the current one is %d: %w", *a.Generation, current, hayrick.ErrNotFound)
}

// readChains reads the chain of each generation, the newest first: it vouches for the
// outcome before. An errTorn leaves the rest unwalked.
func (a *auditor) readChains(ctx context.Context) error {
	newest, err := a.newest(ctx)
	if err != nil {
		return err
	}
	a.report.Generation = newest
	a.gens = make([]*generation, newest+1)
	for n := newest; n >= 0; n-- {
		g := &generation{n: n, mergeSHA: map[string]string{}, lists: map[string]multiset{}}
		a.generation, a.gens[n] = g, g
		if err := a.readOutcome(ctx, newest); err != nil {
			return err
		}
		if n == newest {
			if err := a.readPlan(ctx); err != nil {
				return err
			}
			if err := a.readOrders(ctx); err != nil {
				return err
			}
		}
		if err := a.readChain(ctx, newest); err != nil {
			return err
		}
	}
	for _, g := range a.gens {
		a.generation = g
		g.plan = a.submitted.In(a.orders, g.n)
		if g.opening = manifest.Opening(a.orders, g.n); g.n > 0 && g.opening == nil {
			a.lost(CodeChain, a.outcomeKey(), "no order opens generation %d", g.n)
			return errTorn
		}
		if err := a.links(); err != nil {
			return err
		}
	}
	return a.voidPlans(ctx, newest)
}

// readOrders reads the orders that the newest outcome names; without one, those that
// are found in order.
func (a *auditor) readOrders(ctx context.Context) error {
	for n := 0; ; n++ {
		rel := a.job.Rel(a.job.Control(n))
		if a.outcome != nil {
			if _, there := a.outcome.Chain[rel]; !there {
				return nil
			}
		} else if there, err := a.orderThere(ctx, n); err != nil || !there {
			return err
		}
		c, raw, ok := record[manifest.Control](ctx, a.look, rel, a.vouched(rel), manifest.SchemaControl)
		switch {
		case !ok:
		case c.JobID != string(a.job) || c.N != n:
			a.broken(CodeForm, rel, "it is order %d of %s", c.N, c.JobID)
			ok = false
		default:
			a.checked.Commits++
		}
		a.orderCount++
		if !ok { // what it opened, if anything, is not known
			a.torn = true
			continue
		}
		a.orders, a.orderSHA[rel] = append(a.orders, c), manifest.SHA256(raw)
		if ref := c.OrdinalsRef; ref != nil {
			if !a.list(ctx, *ref, a.job.OrdinalsList) {
				a.torn = true
			}
		}
	}
}

// orderThere says that there is an n-th order, or has been: the one after it is there.
func (a *auditor) orderThere(ctx context.Context, n int) (bool, error) {
	_, err := a.raw(ctx, a.job.Rel(a.job.Control(n)))
	if errors.Is(err, hayrick.ErrNotFound) {
		_, err = a.raw(ctx, a.job.Rel(a.job.Control(n+1)))
	}
	return !errors.Is(err, hayrick.ErrNotFound), a.err
}

// lastRetry is the number of the last retry plan of the generation, or before it.
func (a *auditor) lastRetry() int {
	for _, g := range slices.Backward(a.gens[:a.n+1]) {
		if n := len(g.retries); n > 0 {
			return g.retries[n-1].n
		}
	}
	return 0
}

// voidPlans names the retry plans that nobody names because they came after the end of
// their generation. What they name are leftovers.
func (a *auditor) voidPlans(ctx context.Context, newest int) error {
	named := map[int]bool{}
	last := 0
	for _, g := range a.gens {
		for _, p := range g.retries {
			named[p.n] = true
			last = max(last, p.n)
		}
	}
	for n := 1; ; n++ {
		if named[n] {
			continue
		}
		rel := a.job.Rel(a.job.RetryPlan(n))
		raw, err := a.raw(ctx, rel)
		if a.err != nil {
			return a.err
		}
		if errors.Is(err, hayrick.ErrNotFound) {
			if n > last {
				return nil
			}
			a.lost(CodeMissing, rel, "it is gone: a later plan has the next number")
			return errTorn
		}
		var p manifest.RetryPlan
		if err != nil || manifest.Decode(raw, manifest.SchemaRetryPlan, &p) != nil || p.JobID != string(a.job) || p.RetryID != manifest.RetryID(n) {
			if n < last {
				a.lost(CodeForm, rel, "it cannot be read, and a later plan has the next number")
				return errTorn
			}
			return nil // a stranger
		}
		if p.Generation < 0 || p.Generation > newest || a.gens[p.Generation].outcome == nil {
			return nil // of a later generation, or a stranger
		}
		a.name(rel)
		a.name(a.job.Rel(a.job.RetryManifest(n)))
		if p.Group != nil {
			a.voidTasks += p.Group.Tasks
		}
		a.note("%s came after the end of generation %d, and is void", rel, p.Generation)
	}
}

// standing is the history up to a generation: the plans of the newest one before it that
// has any, and the group that none of them has closed.
func (a *auditor) standing(n int) (last *generation, open *manifest.Group) {
	for h := n - 1; h >= 0; h-- {
		if g := a.gens[h]; len(g.retries) > 0 {
			return g, g.retries[len(g.retries)-1].Group
		}
	}
	return a.gens[0], &a.submitted.Group
}

// closer is the plan that closes the last group of a generation from outside: the first
// one of the next generation that has any. nil: none has come yet.
func (a *auditor) closer(n int) *retryPlan {
	for _, g := range a.gens[n+1:] {
		if len(g.retries) > 0 {
			return &g.retries[0]
		}
	}
	return nil
}
