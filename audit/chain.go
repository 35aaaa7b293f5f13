package audit

import (
	"context"
	"errors"
	"fmt"
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
	key string // relative to the job's folder
	sha string
}

// Unreadable is Report.Status of a job whose outcome is damaged.
const Unreadable = "UNREADABLE"

// readOutcome reads the outcome, which carries its own digest.
func (a *auditor) readOutcome(ctx context.Context) error {
	rel := a.job.Rel(a.job.Outcome(0))
	raw, err := a.raw(ctx, rel)
	switch {
	case errors.Is(err, hayrick.ErrNotFound):
		return nil
	case a.err != nil:
		return a.err
	}
	var o manifest.Outcome
	if err == nil {
		o, err = manifest.OpenOutcome(raw)
	}
	a.name(rel)
	if err == nil && (o.JobID != string(a.job) || o.Generation != 0) {
		err = fmt.Errorf("it is the outcome of generation %d of %s", o.Generation, o.JobID)
	}
	if err != nil {
		a.report.Status = Unreadable
		a.lost(CodeForm, rel, "%v", err)
		return nil
	}
	a.outcome, a.outcomeSHA, a.report.Status = &o, manifest.SHA256(raw), o.Status
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
		a.broken(CodeChain, a.job.Rel(a.job.Outcome(0)), "its chain does not name %s", rel)
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
	a.plan, a.planSHA = p, manifest.SHA256(raw)
	a.checked.Commits++
	return nil
}

// readChain reads every other commit that the outcome names; without an outcome,
// those that are found in order. The first damaged plan ends the chain: what it
// opened is not known.
func (a *auditor) readChain(ctx context.Context) error {
	rest := map[string]string{}
	if a.outcome != nil {
		maps.Copy(rest, a.outcome.Chain)
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
	var torn bool
	for n := 1; ; n++ {
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
			a.retries = append(a.retries, retryPlan{p, rel, manifest.SHA256(raw)})
		}
	}
	rel := a.job.Rel(a.job.AggregationPlan(0))
	if there, err := next(rel, ""); err != nil {
		return err
	} else if there {
		p, _, ok := record[manifest.AggregationPlan](ctx, a.look, rel, a.vouched(rel), manifest.SchemaAggregationPlan)
		if ok && (p.JobID != string(a.job) || p.Generation != 0) {
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
		if there, err := next(rel, a.job.Rel(a.job.Control(n+1))); err != nil {
			return err
		} else if !there {
			break
		}
		a.orders++
		c, _, ok := record[manifest.Control](ctx, a.look, rel, a.vouched(rel), manifest.SchemaControl)
		switch {
		case !ok:
		case c.JobID != string(a.job) || c.N != n:
			a.broken(CodeForm, rel, "it is order %d of %s", c.N, c.JobID)
		default:
			a.checked.Commits++
		}
	}
	a.mergeSHA = map[string]string{}
	for rel, sha := range rest {
		if strings.HasPrefix(rel, "tasks/") {
			a.mergeSHA[rel] = sha
			delete(rest, rel)
		}
	}
	for _, rel := range slices.Sorted(maps.Keys(rest)) {
		a.name(rel)
		a.broken(CodeChain, a.job.Rel(a.job.Outcome(0)), "its chain names %s, which follows from nothing", rel)
	}
	if torn {
		return errTorn
	}
	return a.links()
}

// links checks that the plans follow from each other: each names the one that opened
// what it closes.
func (a *auditor) links() error {
	var err error
	key, sha := a.job.Rel(a.job.Plan()), a.planSHA
	opened, orders := hayrick.GroupInitial, 0
	for i, p := range a.retries {
		bad := func(format string, args ...any) {
			a.lost(CodeChain, p.key, format, args...)
			err = errTorn
		}
		n := i + 1
		switch {
		case p.Generation != 0:
			bad("it is of generation %d", p.Generation)
		case p.Predecessor != manifest.Link{Key: key, SHA256: sha}:
			bad("it follows %s with SHA-256 %s, not %s with %s", p.Predecessor.Key, manifest.Short(p.Predecessor.SHA256), key, manifest.Short(sha))
		case p.Closed != opened:
			bad("it closes %s, and %s opened %s", p.Closed, key, opened)
		case p.Next == manifest.NextAggregation && (p.Group != nil || p.Tasks != 0 || p.Items != 0):
			bad("it retries nothing and has %d tasks with %d items", p.Tasks, p.Items)
		case p.Next == manifest.NextAggregation && i < len(a.retries)-1:
			bad("it ends the retries, and another plan follows")
		case p.Next != manifest.NextAggregation && (p.Next != hayrick.RetryGroup(n) || p.Group == nil || p.Group.Name != p.Next):
			bad("the group it opens is %q", p.Next)
		case p.Orders > a.orders && a.outcome == nil:
			a.lost(CodeMissing, a.job.Rel(a.job.Control(a.orders)), "it is gone: %s has applied %d orders", p.key, p.Orders)
			return errTorn
		case p.Orders < orders || p.Orders > a.orders:
			bad("it has applied %d orders, the plan before it %d, and there are %d", p.Orders, orders, a.orders)
		}
		key, sha, opened, orders = p.key, p.sha, p.Next, p.Orders
	}
	if err != nil {
		return err
	}
	if a.agg != nil {
		rel := a.job.Rel(a.job.AggregationPlan(0))
		switch {
		case opened != manifest.NextAggregation && a.outcome == nil:
			a.lost(CodeMissing, a.job.Rel(a.job.RetryPlan(len(a.retries)+1)), "it is gone: %s follows from it", rel)
			return errTorn
		case opened != manifest.NextAggregation:
			a.lost(CodeChain, rel, "%s has not ended, and it merges", opened)
			return errTorn
		case a.agg.Predecessor != manifest.Link{Key: key, SHA256: sha}:
			a.broken(CodeChain, rel, "it follows %s with SHA-256 %s, not %s with %s",
				a.agg.Predecessor.Key, manifest.Short(a.agg.Predecessor.SHA256), key, manifest.Short(sha))
		case a.agg.Orders < orders || a.agg.Orders > a.orders:
			a.broken(CodeChain, rel, "it has applied %d orders, the plan before it %d, and there are %d", a.agg.Orders, orders, a.orders)
		}
	} else if a.succeeded() && !a.blind {
		a.lost(CodeChain, a.job.Rel(a.job.Outcome(0)), "the job SUCCEEDED without an aggregation plan")
	}
	return nil
}

// readDefinition reads what the plan names beside its batches.
func (a *auditor) readDefinition(ctx context.Context) error {
	if a.plan.BundleSHA256 != "" {
		if _, ok := a.hash(ctx, a.job.Rel(a.job.Bundle(a.plan.BundleSHA256)), a.plan.BundleSHA256, -1); ok {
			a.checked.Data++
		}
	}
	if err := a.readInputs(ctx); err != nil {
		return err
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
