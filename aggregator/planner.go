package aggregator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// plan pins the merge: it reads the results.done of every task of the generation,
// checks each against the digest that the retry plan of its group vouches for,
// unifies the schemas and cuts the tree. ErrNotFound: the last retry plan has not
// said aggregation yet. A crash before the commit leaves data objects that nothing
// names, under the keys the next planner writes again.
func (a *Aggregator) plan(ctx context.Context, job *jobOf) (manifest.AggregationPlan, error) {
	var none manifest.AggregationPlan
	retries, last, err := a.retryPlans(ctx, job)
	if err != nil {
		return none, err
	}
	temp, err := a.Temp()
	if err != nil {
		return none, fmt.Errorf("plan the aggregation: %w", err)
	}
	p := &planning{
		a: a, job: job, cut: Cutter{Merge: job.def.Merge}, list: manifest.NewListWriter(temp), seen: map[string]bool{},
		group: manifest.NewGroupWriter(a.Store, string(job.id), hayrick.GroupAggregation, hayrick.RoleAggregator, 0),
		out: manifest.AggregationPlan{
			Schema: manifest.SchemaAggregationPlan, JobID: string(job.id), Generation: job.generation,
			Predecessor: last, Orders: retries[len(retries)-1].Orders,
		},
	}
	defer p.list.Close()
	for _, r := range retries {
		if err := p.closed(ctx, r); err != nil {
			return none, err
		}
	}
	if err := p.finish(ctx); err != nil {
		return none, err
	}
	if err := a.balance(job, retries, p.out.OK); err != nil {
		return none, err
	}
	c, err := a.Store.CommitAggregationPlan(ctx, p.out)
	return c.Record, err
}

// retryPlans are the decisions of the generation; the last one says aggregation.
func (a *Aggregator) retryPlans(ctx context.Context, job *jobOf) (ps []manifest.RetryPlan, last manifest.Link, err error) {
	for n := 1; ; n++ {
		p, sha, err := a.Store.RetryPlan(ctx, string(job.id), n)
		if errors.Is(err, hayrick.ErrNotFound) {
			break
		}
		if err != nil {
			return nil, last, err
		}
		if p.Generation == job.generation {
			ps = append(ps, p)
			last = manifest.Link{Key: job.id.Rel(job.id.RetryPlan(n)), SHA256: sha}
		}
	}
	if len(ps) == 0 || ps[len(ps)-1].Next != manifest.NextAggregation {
		return nil, last, fmt.Errorf("plan the aggregation of %s: a group is still open: %w", job.id, hayrick.ErrNotFound)
	}
	return ps, last, nil
}

// balance holds the promise before anything is merged: every item has ended once.
func (a *Aggregator) balance(job *jobOf, retries []manifest.RetryPlan, ok int64) error {
	var permanent, exhausted int64
	for _, r := range retries {
		permanent += r.Permanent
		exhausted += r.Exhausted
	}
	if ok+permanent+exhausted != job.plan.Items {
		return fmt.Errorf("%s: %d ok + %d permanent + %d exhausted are not its %d items: %w",
			job.id, ok, permanent, exhausted, job.plan.Items, hayrick.ErrCorrupt)
	}
	return nil
}

// planning gathers one aggregation plan.
type planning struct {
	a     *Aggregator
	job   *jobOf
	out   manifest.AggregationPlan
	cut   Cutter
	list  *manifest.ListWriter
	group *manifest.GroupWriter
	nodes int64

	unified rows.Schema
	seen    map[string]bool // schema digests
	hash    rows.Hash
}

// closed takes in the results of the group that r closed, in task order.
func (p *planning) closed(ctx context.Context, r manifest.RetryPlan) error {
	if r.ResultsRef != nil {
		return manifest.ReadLines(ctx, p.a.Store, string(p.job.id), *r.ResultsRef, func(x manifest.ResultRef) error { return p.result(ctx, x) })
	}
	for _, x := range r.Results {
		if err := p.result(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

func (p *planning) result(ctx context.Context, ref manifest.ResultRef) error {
	res, sha, err := p.a.Store.Result(ctx, string(p.job.id), ref.TaskID)
	if errors.Is(err, hayrick.ErrNotFound) {
		err = fmt.Errorf("results.done of %s is gone: %w", ref.TaskID, hayrick.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	if sha != ref.SHA256 {
		return fmt.Errorf("results.done of %s has SHA-256 %s, its retry plan says %s: %w", ref.TaskID, sha, ref.SHA256, hayrick.ErrCorrupt)
	}
	in := manifest.MergeInput{TaskID: res.TaskID, DoneSHA256: sha, RowHash: res.RowHash}
	if res.BatchID != nil {
		in.BatchID = *res.BatchID
	}
	p.out.OK += int64(res.OK)
	if res.File != nil {
		in.File, in.SHA256, in.Bytes, in.Rows = *res.File, res.SHA256, res.Bytes, res.RowCount
		if err := p.schema(ctx, res); err != nil {
			return err
		}
		h, err := rows.ParseHash(res.RowHash)
		if err != nil {
			return fmt.Errorf("results.done of %s: %v: %w", ref.TaskID, err, hayrick.ErrCorrupt)
		}
		p.hash = p.hash.Add(h)
		p.out.Rows += res.RowCount
	}
	if p.list.Count() < manifest.InlineList {
		p.out.Inputs = append(p.out.Inputs, in)
	}
	if err := p.list.Add(in); err != nil {
		return err
	}
	if span, ok := p.cut.Add(in); ok {
		return p.node(ctx, span)
	}
	return nil
}

// schema unifies a result's schema, reading one footer for each schema there is.
func (p *planning) schema(ctx context.Context, res manifest.Result) error {
	if p.seen[res.SchemaDigest] {
		return nil
	}
	blob, err := p.a.Blobs.OpenAt(ctx, p.job.id.Abs(*res.File))
	if err != nil {
		return fmt.Errorf("open %s: %w", *res.File, err)
	}
	defer blob.Close()
	s, err := rows.ReadSchema(blob, blob.Size())
	if err != nil {
		return fmt.Errorf("read %s: %w", *res.File, err)
	}
	if s.Digest() != res.SchemaDigest {
		return fmt.Errorf("%s has another schema than its results.done says: %w", *res.File, hayrick.ErrCorrupt)
	}
	u, err := rows.Unify(p.unified, s)
	if err != nil {
		return fmt.Errorf("%s: %w", *res.File, err)
	}
	p.unified, p.seen[res.SchemaDigest] = u, true
	return nil
}

func (p *planning) node(ctx context.Context, span manifest.Span) error {
	id := manifest.MergeTaskID(p.job.generation, 1, int(p.nodes), 0)
	p.nodes++
	return p.group.AddMerge(ctx, id, span)
}

func (p *planning) finish(ctx context.Context) error {
	if span, ok := p.cut.Close(); ok {
		if err := p.node(ctx, span); err != nil {
			return err
		}
	}
	if p.list.Count() > manifest.InlineList {
		ref, err := p.list.Put(ctx, p.a.Store, string(p.job.id), func(sha string) string { return p.job.id.AggregationInputs(p.job.generation, sha) })
		if err != nil {
			return err
		}
		p.out.Inputs, p.out.InputsRef = nil, ref
	}
	columns, err := json.Marshal(p.unified)
	if err != nil {
		return err
	}
	p.out.Columns, p.out.RowHash = columns, p.hash.String()
	p.out.Tree = TreeOf(p.nodes, p.job.def.Merge.FanIn)
	if p.nodes > 0 {
		g, err := p.group.Close(ctx)
		if err != nil {
			return err
		}
		p.out.Group = &g
	}
	p.out.PlannedAt = manifest.At(p.a.World.Clock.Now())
	return nil
}

// inputs reads a span of the plan's inputs.
func (a *Aggregator) inputs(ctx context.Context, p manifest.AggregationPlan, span manifest.Span) ([]manifest.MergeInput, error) {
	if p.InputsRef == nil {
		if span.First < 0 || span.Count < 0 || span.First+span.Count > int64(len(p.Inputs)) {
			return nil, fmt.Errorf("inputs %d+%d of %d: %w", span.First, span.Count, len(p.Inputs), hayrick.ErrCorrupt)
		}
		return p.Inputs[span.First : span.First+span.Count], nil
	}
	out := make([]manifest.MergeInput, 0, span.Count)
	var n int64
	err := manifest.ReadLines(ctx, a.Store, p.JobID, *p.InputsRef, func(in manifest.MergeInput) error {
		if n >= span.First && n < span.First+span.Count {
			out = append(out, in)
		}
		n++
		return nil
	})
	return out, err
}
