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

// plan pins the merge: it reads the results.done of every task of the generation and
// of those before,
// checks each against the digest that the retry plan of its group vouches for,
// unifies the schemas and cuts the tree. rows.ErrSchema: there is no schema for all
// of them, and no plan. A crash before the commit leaves data objects that nothing
// names, under the keys the next planner writes again.
func (a *Aggregator) plan(ctx context.Context, job *jobOf) (manifest.AggregationPlan, error) {
	var none manifest.AggregationPlan
	temp, err := a.Temp()
	if err != nil {
		return none, fmt.Errorf("plan the merge: %w", err)
	}
	p := &planning{
		a: a, job: job, cut: Cutter{Merge: job.def.Merge}, list: manifest.NewListWriter(temp), seen: map[string]bool{}, whose: map[string]string{},
		group: manifest.NewGroupWriter(a.Store, job.id, hayrick.GroupAggregation, hayrick.RoleAggregator, 0),
		out: manifest.AggregationPlan{
			Schema: manifest.SchemaAggregationPlan, JobID: job.id, Generation: job.generation,
			Predecessor: job.decided, Orders: job.retries[len(job.retries)-1].Orders,
		},
	}
	defer p.list.Close()
	if p.unified, err = declared(job.def.Output); err != nil {
		return none, fmt.Errorf("output.schema: %w", err)
	}
	for _, f := range p.unified.Fields {
		p.whose[f.Name] = declaredBy
	}
	if columns := job.def.Output.UniqueBy; len(columns) > 0 {
		keep := job.def.Output.Keep
		if keep == "" {
			keep = hayrick.KeepFirst
		}
		p.out.Unique = &manifest.Unique{Columns: columns, Keep: keep}
		p.cut.Grow = true
	}
	for i, r := range job.history.Plans {
		if err := p.closed(ctx, r, job.history.ClosedIn(i)); err != nil {
			return none, err
		}
	}
	if err := job.balance(p.out.OK); err != nil {
		return none, err
	}
	if p.unlike != nil {
		return none, p.unlike
	}
	if err := p.finish(ctx); err != nil {
		return none, err
	}
	c, err := a.Store.CommitAggregationPlan(ctx, p.out)
	if err == nil && c.Won {
		a.Log.Info("merge planned", hayrick.KeyJobID, job.id, hayrick.KeyGeneration, job.generation,
			"inputs", p.list.Count(), "rows", p.out.Rows, "merges", p.nodes)
	}
	return c.Record, err
}

// planning gathers one aggregation plan. It holds a few results at a time, and of
// the inputs as many as the plan may hold itself.
type planning struct {
	a     *Aggregator
	job   *jobOf
	out   manifest.AggregationPlan
	cut   Cutter
	list  *manifest.ListWriter // of all inputs
	group *manifest.GroupWriter
	nodes int64

	bytes   int64   // of all inputs
	samples Samples // of their keys
	unified rows.Schema
	whose   map[string]string // of each column the first to have it
	seen    map[string]bool   // schema digests
	unlike  error             // the first schema that does not unify with those before it
	hash    rows.Hash
}

// closed takes in the results of the group that r closed, in task order; they are of a
// generation.
func (p *planning) closed(ctx context.Context, r manifest.RetryPlan, generation int) error {
	refs := make([]manifest.ResultRef, 0, readers)
	some := func() error {
		results := make([]manifest.Result, len(refs))
		if err := p.a.each(len(refs), func(i int) (err error) {
			results[i], err = p.read(ctx, refs[i], generation)
			return err
		}); err != nil {
			return err
		}
		for i, ref := range refs {
			if err := p.take(ctx, ref, results[i]); err != nil {
				return err
			}
		}
		refs = refs[:0]
		return nil
	}
	if err := p.a.Store.Results(ctx, r, func(ref manifest.ResultRef) error {
		if refs = append(refs, ref); len(refs) < readers {
			return nil
		}
		return some()
	}); err != nil {
		return err
	}
	return some()
}

// read reads the results.done that a retry plan names.
func (p *planning) read(ctx context.Context, ref manifest.ResultRef, generation int) (manifest.Result, error) {
	res, sha, err := p.a.Store.Result(ctx, p.job.id, ref.TaskID)
	if err != nil {
		return res, err
	}
	bad := func(format string, args ...any) (manifest.Result, error) {
		return res, fmt.Errorf("results.done of %s %s: %w", ref.TaskID, fmt.Sprintf(format, args...), hayrick.ErrCorrupt)
	}
	switch {
	case sha != ref.SHA256:
		return bad("has SHA-256 %s, its retry plan says %s", sha, ref.SHA256)
	case res.Generation != generation:
		return bad("is of generation %d", res.Generation)
	case res.RowCount < 0 || (res.RowCount > 0) != (res.File != nil) || res.RowCount == 0 && res.RowHash != rows.Hash{}.String():
		return bad("says %d rows with hash %s; it names a file: %v", res.RowCount, res.RowHash, res.File != nil)
	case res.Status != string(hayrick.TaskDone) && (res.OK != 0 || res.RowCount != 0):
		return bad("is %s and has rows or items that are ok", res.Status)
	}
	return res, nil
}

// take adds a result to the plan.
func (p *planning) take(ctx context.Context, ref manifest.ResultRef, res manifest.Result) error {
	in := manifest.MergeInput{TaskID: res.TaskID, DoneSHA256: ref.SHA256, Rows: res.RowCount, RowHash: res.RowHash}
	if res.BatchID != nil {
		in.BatchID = *res.BatchID
	}
	h, err := rows.ParseHash(res.RowHash)
	if err != nil {
		return fmt.Errorf("results.done of %s: %v: %w", ref.TaskID, err, hayrick.ErrCorrupt)
	}
	p.hash = p.hash.Add(h)
	p.out.Rows += res.RowCount
	p.out.OK += int64(res.OK)
	if res.File != nil {
		in.File, in.SHA256, in.Bytes = *res.File, res.SHA256, res.Bytes
		p.bytes += res.Bytes
		for _, key := range res.KeySamples {
			p.samples.Add(Sample{key, max(1, res.RowCount/int64(len(res.KeySamples)))})
		}
		if err := p.schema(ctx, res); err != nil {
			return p.damaged(ctx, res, err)
		}
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
// Schemas that do not fit are remembered, not answered: the job ends with them, and
// its items are counted first.
func (p *planning) schema(ctx context.Context, res manifest.Result) error {
	if p.seen[res.SchemaDigest] {
		return nil
	}
	blob, err := p.a.Blobs.OpenAt(ctx, p.job.key.Abs(*res.File))
	if err != nil {
		return err
	}
	defer blob.Close()
	s, err := rows.ReadSchema(blob, blob.Size())
	if err != nil {
		return err
	}
	if s.Digest() != res.SchemaDigest {
		return fmt.Errorf("it has another schema than its results.done says: %w", hayrick.ErrCorrupt)
	}
	p.seen[res.SchemaDigest] = true
	u, err := rows.Unify(p.unified, s)
	var clash *rows.SchemaConflict
	where := fmt.Sprintf("%s (%s)", res.TaskID, *res.File)
	switch {
	case err == nil:
		p.unified = u
		for _, f := range s.Fields {
			if p.whose[f.Name] == "" {
				p.whose[f.Name] = where
			}
		}
	case !errors.Is(err, rows.ErrSchema):
		return err
	case p.unlike != nil:
	case errors.As(err, &clash) && p.whose[clash.Column] == declaredBy:
		p.unlike = fmt.Errorf("column %q is %s in output.schema and %s in %s, which was written before the schema asked for it: write what the results have, or run again with hayrick run --new: %w",
			clash.Column, clash.A, clash.B, where, rows.ErrSchema)
	case errors.As(err, &clash):
		p.unlike = fmt.Errorf("column %q is %s in %s and %s in %s: let the handler emit one type everywhere, or declare output.schema, and run again with hayrick run --new (a redrive keeps the rows of items that ended ok, the wrong ones too): %w",
			clash.Column, clash.A, p.whose[clash.Column], clash.B, where, rows.ErrSchema)
	default:
		p.unlike = fmt.Errorf("%s: %w", where, err)
	}
	return nil
}

// declaredBy is whose column it is that the job file declares.
const declaredBy = "output.schema"

// declared is the schema that the job file asks for; without one, no columns.
func declared(o hayrick.Output) (rows.Schema, error) {
	var columns [][2]string
	for _, c := range o.Schema {
		columns = append(columns, [2]string{c.Name, c.Type})
	}
	d, err := rows.Declare(columns...)
	return d.Schema(), err
}

// damaged makes err, which came of looking into the file of a result, one about damage
// where the file is not the one that was named: what it holds then says nothing.
func (p *planning) damaged(ctx context.Context, res manifest.Result, err error) error {
	if !unmergeable(err) {
		return fmt.Errorf("%s: %w", *res.File, err)
	}
	sum, serr := p.a.sum(ctx, p.job.key.Abs(*res.File))
	switch {
	case serr != nil:
		return damaged(*res.File, res.TaskID, serr)
	case sum != res.SHA256:
		return damaged(*res.File, res.TaskID, fmt.Errorf("SHA-256 %s, its results.done says %s: %w", sum, res.SHA256, hayrick.ErrCorrupt))
	}
	return fmt.Errorf("%s: %w", *res.File, err)
}

func (p *planning) node(ctx context.Context, span manifest.Span) error {
	id := manifest.MergeTaskID(p.job.generation, 1, int(p.nodes), 0)
	p.nodes++
	return p.group.AddMerge(ctx, id, span)
}

// finish cuts the last node and stores what the plan names.
func (p *planning) finish(ctx context.Context) error {
	if span, ok := p.cut.Close(); ok {
		if err := p.node(ctx, span); err != nil {
			return err
		}
	}
	if p.list.Count() > manifest.InlineList {
		ref, err := p.list.Put(ctx, p.a.Store, p.job.id, func(sha string) string { return p.job.key.AggregationInputs(p.job.generation, sha) })
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
	if columns := p.job.def.Output.PartitionBy; p.nodes > 0 && len(columns) > 0 {
		if _, err := rows.NewKeyer(p.unified, columns); err != nil {
			return fmt.Errorf("output.partition_by: %w", err)
		}
	}
	if p.out.Unique != nil && p.nodes > 0 {
		if err := p.ranges(ctx); err != nil {
			return err
		}
	}
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

// ranges cuts the keys into ranges, each of which is a merge of level 2.
func (p *planning) ranges(ctx context.Context) error {
	u := p.out.Unique
	if _, err := rows.NewKeyer(p.unified, u.Columns); err != nil {
		return fmt.Errorf("output.unique_by: %w", err)
	}
	u.Bounds = p.samples.Bounds(RangesOf(p.job.def.Merge, p.out.Rows, p.bytes))
	w := manifest.NewGroupWriter(p.a.Store, p.job.id, hayrick.GroupRanges, hayrick.RoleAggregator, 0)
	for n := range int64(len(u.Bounds)) + 1 {
		if err := w.AddRange(ctx, manifest.MergeTaskID(p.job.generation, levelRanges, int(n), 0), n); err != nil {
			return err
		}
	}
	g, err := w.Close(ctx)
	if err != nil {
		return err
	}
	p.out.Ranges = &g
	up := TreeOf(g.Tasks, p.job.def.Merge.FanIn)
	p.out.Tree.Nodes = append([]int64{p.nodes}, up.Nodes...)
	return nil
}
