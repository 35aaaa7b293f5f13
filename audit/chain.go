package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// retryPlan is a decision of the retry planner with its place.
type retryPlan struct {
	manifest.RetryPlan
	n   int
	key string // relative to the job's folder
	sha string
}

// Unreadable is Report.Status of a job whose outcome is damaged.
const Unreadable = "UNREADABLE"

// readOutcome reads the outcome, which carries its own digest. One that a later
// generation follows from has to be there, and to be what that says it is.
func (a *auditor) readOutcome(ctx context.Context, newest int) error {
	rel := a.outcomeKey()
	raw, err := a.raw(ctx, rel)
	switch {
	case errors.Is(err, hayrick.ErrNotFound) && a.n == newest:
		return nil
	case errors.Is(err, hayrick.ErrNotFound):
		a.lost(CodeMissing, rel, "it is gone: generation %d follows from it", a.n+1)
		return errTorn
	case a.err != nil:
		return a.err
	}
	if next := a.closer(a.n); err == nil && next != nil && next.Predecessor.Key == rel && manifest.SHA256(raw) != next.Predecessor.SHA256 {
		a.name(rel)
		a.lost(CodeDigest, rel, "%s", otherDigest(manifest.SHA256(raw), next.Predecessor.SHA256))
		return errTorn
	}
	var o manifest.Outcome
	if err == nil {
		o, err = manifest.OpenOutcome(raw)
	}
	a.name(rel)
	if err == nil && (o.JobID != string(a.job) || o.Generation != a.n) {
		err = fmt.Errorf("it is the outcome of generation %d of %s", o.Generation, o.JobID)
	}
	if err != nil {
		a.lost(CodeForm, rel, "%v", err)
		if a.n < newest {
			return errTorn
		}
		a.report.Status = Unreadable
		return nil
	}
	a.outcome, a.outcomeSHA = &o, manifest.SHA256(raw)
	if a.n == newest {
		a.report.Status = o.Status
	}
	a.checked.Commits++
	return nil
}

// vouched is the digest that the outcome has for a commit. Of an unfinished job none
// is known; of a finished one that leaves the commit out, the commit is unvouched.
func (a *auditor) vouched(rel string) string {
	if a.outcome == nil {
		a.unvouched++
		return ""
	}
	sha, ok := a.outcome.Chain[rel]
	if !ok || sha == "" {
		a.broken(CodeChain, a.outcomeKey(), "its chain does not name %s", rel)
	}
	return sha
}

func (a *auditor) readPlan(ctx context.Context) error {
	rel := a.job.Rel(a.job.Plan())
	if a.outcome == nil {
		_, err := a.raw(ctx, rel)
		if a.err != nil {
			return a.err
		}
		if errors.Is(err, hayrick.ErrNotFound) && !a.blind {
			return fmt.Errorf("it has no %s: %w", rel, hayrick.ErrNotFound)
		}
	}
	p, raw, ok := record[manifest.Plan](ctx, a.look, rel, a.vouched(rel), manifest.SchemaPlan)
	if !ok {
		return errTorn
	}
	if p.JobID != string(a.job) {
		a.lost(CodeForm, rel, "it is the plan of %s", p.JobID)
		return errTorn
	}
	if p.Shuffle != nil && *p.Shuffle != *manifest.ShuffleOf(p.JobID) {
		a.broken(CodeForm, rel, "its order is of the seed %q, that of %s is %q", p.Shuffle.Seed, p.JobID, manifest.ShuffleOf(p.JobID).Seed)
	}
	a.submitted, a.planSHA = p, manifest.SHA256(raw)
	a.plan = p
	a.checked.Commits++
	return nil
}

// readChain reads the plans that the outcome names; without an outcome, those that are
// found in order. The first damaged plan ends the chain: what it opened is not known.
func (a *auditor) readChain(ctx context.Context, newest int) error {
	rest := map[string]string{}
	if a.outcome != nil {
		maps.Copy(rest, a.outcome.Chain)
	}
	if plan := a.job.Rel(a.job.Plan()); a.outcome != nil && a.n < newest && rest[plan] != a.planSHA {
		a.broken(CodeChain, a.outcomeKey(), "its chain does not name %s as it is", plan)
	}
	delete(rest, a.job.Rel(a.job.Plan()))
	// next says whether the commit is the next of its kind: it is there, or the one after
	// it is, and it is missing.
	next := func(rel, after string) (bool, error) {
		if a.outcome != nil {
			_, there := rest[rel]
			delete(rest, rel)
			return there, nil
		}
		_, err := a.raw(ctx, rel)
		if errors.Is(err, hayrick.ErrNotFound) && after != "" {
			_, err = a.raw(ctx, after)
		}
		return !errors.Is(err, hayrick.ErrNotFound), a.err
	}
	torn := a.torn
	numbers, err := a.retryNumbers(ctx)
	if err != nil {
		return err
	}
	for n := range numbers {
		rel := a.job.Rel(a.job.RetryPlan(n))
		if there, err := next(rel, a.job.Rel(a.job.RetryPlan(n+1))); err != nil {
			return err
		} else if !there {
			break
		}
		sha := a.vouched(rel)
		p, raw, ok := record[manifest.RetryPlan](ctx, a.look, rel, sha, manifest.SchemaRetryPlan)
		if ok && (p.JobID != string(a.job) || p.RetryID != manifest.RetryID(n)) {
			a.lost(CodeForm, rel, "it is %s of %s", p.RetryID, p.JobID)
			ok = false
		}
		if torn = torn || !ok; !torn {
			a.checked.Commits++
			a.retries = append(a.retries, retryPlan{p, n, rel, manifest.SHA256(raw)})
		}
	}
	rel := a.aggKey()
	if there, err := next(rel, ""); err != nil {
		return err
	} else if there {
		p, _, ok := record[manifest.AggregationPlan](ctx, a.look, rel, a.vouched(rel), manifest.SchemaAggregationPlan)
		if ok && (p.JobID != string(a.job) || p.Generation != a.n) {
			a.lost(CodeForm, rel, "it is of generation %d of %s", p.Generation, p.JobID)
			ok = false
		}
		if ok {
			a.checked.Commits++
			a.agg = &p
		}
	}
	for n := 0; ; n++ {
		rel := a.job.Rel(a.job.Control(n))
		sha, there := rest[rel]
		if !there {
			break
		}
		delete(rest, rel)
		if got := a.orderSHA[rel]; a.n < newest && got != "" && got != sha {
			a.broken(CodeDigest, rel, "%s", otherDigest(got, sha))
		} else if a.n < newest && got == "" && !torn {
			a.broken(CodeChain, a.outcomeKey(), "its chain names %s, and that of generation %d does not", rel, newest)
		}
	}
	for rel, sha := range rest {
		if strings.HasPrefix(rel, "tasks/") {
			a.mergeSHA[rel] = sha
			delete(rest, rel)
		}
	}
	for _, rel := range slices.Sorted(maps.Keys(rest)) {
		a.name(rel)
		a.broken(CodeChain, a.outcomeKey(), "its chain names %s, which follows from nothing", rel)
	}
	if torn {
		return errTorn
	}
	return nil
}

// retryNumbers yields the numbers of the generation's retry plans. Those of the first
// are one behind the other. Later ones run on, and leave out what another generation's
// plan has taken.
func (a *auditor) retryNumbers(ctx context.Context) (iter.Seq[int], error) {
	if a.n == 0 {
		return func(yield func(int) bool) {
			for n := 1; yield(n); n++ {
			}
		}, nil
	}
	var numbers []int
	if a.outcome != nil {
		for key := range a.outcome.Chain {
			var n int
			if _, err := fmt.Sscanf(key, "retries/retry-%d/plan.json", &n); err == nil && key == a.job.Rel(a.job.RetryPlan(n)) {
				numbers = append(numbers, n)
			}
		}
		slices.Sort(numbers)
		return slices.Values(numbers), nil
	}
	for n := 1; ; n++ {
		raw, err := a.raw(ctx, a.job.Rel(a.job.RetryPlan(n)))
		if a.err != nil {
			return nil, a.err
		}
		if errors.Is(err, hayrick.ErrNotFound) {
			return slices.Values(numbers), nil
		}
		var p manifest.RetryPlan
		if err == nil && manifest.Decode(raw, manifest.SchemaRetryPlan, &p) == nil && p.Generation == a.n {
			numbers = append(numbers, n)
		}
	}
}

// links checks that the plans follow from each other: each names the one that opened
// what it closes.
func (a *auditor) links() error {
	var err error
	key, sha := a.job.Rel(a.job.Plan()), a.planSHA
	opened, orders := hayrick.GroupInitial, 0
	if a.n > 0 {
		before := a.gens[a.n-1]
		key, sha, opened, orders = a.job.Rel(a.job.Outcome(before.n)), before.outcomeSHA, "", a.opening.N+1
		if _, left := a.standing(a.n); left != nil {
			opened = left.Name
		}
		if before.outcome != nil && before.outcome.Chain[a.job.Rel(a.job.Control(a.opening.N))] != "" {
			a.broken(CodeChain, a.job.Rel(a.job.Outcome(before.n)), "its chain names order %d, which opened the generation after it", a.opening.N)
		}
	}
	for i, p := range a.retries {
		bad := func(format string, args ...any) {
			a.lost(CodeChain, p.key, format, args...)
			err = errTorn
		}
		first := a.n > 0 && i == 0
		switch {
		case p.Generation != a.n:
			bad("it is of generation %d", p.Generation)
		case p.Predecessor != manifest.Link{Key: key, SHA256: sha}:
			bad("it follows %s with SHA-256 %s, not %s with %s", p.Predecessor.Key, manifest.Short(p.Predecessor.SHA256), key, manifest.Short(sha))
		case p.Closed != opened:
			bad("it closes %s, and %s opened %s", p.Closed, key, opened)
		case first != (p.Control != nil) || first && *p.Control != a.opening.N:
			bad("the order that it carries out is not the one that opened the generation")
		case p.Next == manifest.NextAggregation && (p.Group != nil || p.Tasks != 0 || p.Items != 0):
			bad("it retries nothing and has %d tasks with %d items", p.Tasks, p.Items)
		case p.Next == manifest.NextAggregation && i < len(a.retries)-1:
			bad("it ends the retries, and another plan follows")
		case p.Next != manifest.NextAggregation && (p.Next != hayrick.RetryGroup(p.n) || p.Group == nil || p.Group.Name != p.Next):
			bad("the group it opens is %q", p.Next)
		case p.Orders > a.orderCount && a.outcome == nil:
			a.lost(CodeMissing, a.job.Rel(a.job.Control(a.orderCount)), "it is gone: %s has applied %d orders", p.key, p.Orders)
			return errTorn
		case p.Orders < orders || p.Orders > a.orderCount:
			bad("it has applied %d orders, the plan before it %d, and there are %d", p.Orders, orders, a.orderCount)
		}
		key, sha, opened, orders = p.key, p.sha, p.Next, p.Orders
	}
	if err != nil {
		return err
	}
	if a.agg != nil {
		rel := a.aggKey()
		switch {
		case opened != manifest.NextAggregation && a.outcome == nil:
			a.lost(CodeMissing, a.job.Rel(a.job.RetryPlan(a.lastRetry()+1)), "it is gone: %s follows from it", rel)
			return errTorn
		case opened != manifest.NextAggregation:
			a.lost(CodeChain, rel, "%s has not ended, and it merges", opened)
			return errTorn
		case a.agg.Predecessor != manifest.Link{Key: key, SHA256: sha}:
			a.broken(CodeChain, rel, "it follows %s with SHA-256 %s, not %s with %s",
				a.agg.Predecessor.Key, manifest.Short(a.agg.Predecessor.SHA256), key, manifest.Short(sha))
		case a.agg.Orders < orders || a.agg.Orders > a.orderCount:
			a.broken(CodeChain, rel, "it has applied %d orders, the plan before it %d, and there are %d", a.agg.Orders, orders, a.orderCount)
		}
	} else if a.succeeded() && !a.blind {
		a.lost(CodeChain, a.outcomeKey(), "the job SUCCEEDED without an aggregation plan")
	}
	return nil
}

// readDefinition reads what the plan names beside its batches.
func (a *auditor) readDefinition(ctx context.Context) error {
	if a.plan.BundleSHA256 != "" && (a.n == 0 || a.plan.BundleSHA256 != a.gens[a.n-1].plan.BundleSHA256) {
		if _, ok := a.hash(ctx, a.job.Rel(a.job.Bundle(a.plan.BundleSHA256)), a.plan.BundleSHA256, -1); ok {
			a.checked.Data++
		}
	}
	if a.n == 0 {
		if err := a.readInputs(ctx); err != nil {
			return err
		}
	} else if a.plan.DefinitionSHA256 == a.gens[a.n-1].plan.DefinitionSHA256 {
		a.definition = a.gens[a.n-1].definition
		return nil
	}
	rel := a.job.Rel(a.job.Config(a.plan.DefinitionSHA256))
	raw, ok := a.get(ctx, rel, a.plan.DefinitionSHA256)
	if !ok {
		return errTorn
	}
	d, err := manifest.DecodeDefinition(raw, a.plan.DefinitionSHA256)
	if err != nil {
		a.lost(CodeForm, rel, "%v", err)
		return errTorn
	}
	a.checked.Data++
	a.definition = d
	if a.n == 0 && (d.Batch.Order == hayrick.OrderShuffle) != (a.plan.Shuffle != nil) {
		a.broken(CodeForm, a.job.Rel(a.job.Plan()), "its definition says batch.order: %q, and it does not", d.Batch.Order)
	}
	var columns [][2]string
	for _, c := range d.Output.Schema {
		columns = append(columns, [2]string{c.Name, c.Type})
	}
	declared, err := rows.Declare(columns...)
	if err != nil {
		a.broken(CodeForm, a.job.Rel(a.job.Plan()), "output.schema of its definition: %v", err)
	}
	a.unified = declared.Schema()
	return nil
}
