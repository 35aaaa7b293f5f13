package aggregator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// root ends the generation once every merge has ended: it joins the level-1
// outputs by their footers, copies each byte once, reads the result back, checks
// that no row was lost on any level, and commits the outcome. ErrNotFound: a merge
// has not ended yet.
func (a *Aggregator) root(ctx context.Context, job *jobOf, plan manifest.AggregationPlan) error {
	merges := map[string]string{} // results.done of every merge, by key
	nodes, err := a.nodes(ctx, job, plan, merges)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Status == string(hayrick.TaskFailed) {
			return a.end(ctx, job, merges, manifest.CodeNothingToMerge, fmt.Sprintf("merge %s failed %d times: %s", n.TaskID, Runs, n.Task.Error.Message))
		}
	}
	agg := &manifest.Aggregation{
		Schema: manifest.SchemaAggregation, JobID: string(job.id), Phase: string(hayrick.PhaseAggregation), Lists: []manifest.List{}, Parts: []manifest.Part{},
	}
	if agg.Parts, agg.OutputHash, err = a.parts(ctx, job, nodes); err != nil {
		return err
	}
	if err := conserved(plan, nodes, agg); err != nil {
		return err
	}
	if len(agg.Parts) > 0 {
		agg.OutputFile = &agg.Parts[0].Key
	}
	if err := a.inputFiles(ctx, job, plan, agg); err != nil {
		return err
	}
	if agg.Lists, err = a.lists(ctx, job); err != nil {
		return err
	}
	if refused, err := a.refused(ctx, job, agg); err != nil {
		return err
	} else if refused != "" {
		return a.end(ctx, job, merges, manifest.CodeOutputRefused, refused)
	}
	now := manifest.At(a.World.Clock.Now())
	agg.WrittenAt = now
	o := manifest.Outcome{
		Schema: manifest.SchemaOutcome, JobID: string(job.id), Generation: job.generation, Status: string(hayrick.JobSucceeded),
		RowCount: plan.Rows, RowHash: plan.RowHash, DroppedHash: rows.Hash{}.String(), Aggregation: agg, EndedAt: now,
	}
	return a.commit(ctx, job, merges, o)
}

// nodes are the results of the level-1 merges, in order.
func (a *Aggregator) nodes(ctx context.Context, job *jobOf, plan manifest.AggregationPlan, chain map[string]string) ([]manifest.Result, error) {
	if plan.Group == nil {
		return nil, nil
	}
	m, err := a.Store.Members(ctx, string(job.id), job.generation, *plan.Group)
	if err != nil {
		return nil, err
	}
	var out []manifest.Result
	for n := range m.Blocks() {
		b, err := m.Block(ctx, a.Store, n)
		if err != nil {
			return nil, err
		}
		for _, t := range b.Tasks {
			res, _, err := a.nodeResult(ctx, job, t.TaskID, chain)
			if err != nil {
				return nil, err
			}
			res.Inputs = nil // at most a node's worth is held
			out = append(out, res)
		}
	}
	return out, nil
}

// parts joins the outputs of the nodes into the files of the dataset. The hash over
// them is the one of the manifest's output_hash: of a single part, its own.
func (a *Aggregator) parts(ctx context.Context, job *jobOf, nodes []manifest.Result) ([]manifest.Part, string, error) {
	sized := make([]Sized, 0, len(nodes))
	for _, n := range nodes {
		sized = append(sized, Sized{n.Bytes})
	}
	parts := []manifest.Part{}
	all := sha256.New()
	var hash string
	for i, span := range PartsOf(sized, int64(job.def.Merge.PartBytes)) {
		p, outputHash, err := a.part(ctx, job, i, nodes[span.First:span.First+span.Count])
		if err != nil {
			return nil, "", fmt.Errorf("write part %d: %w", i, err)
		}
		parts = append(parts, p)
		hash = outputHash
		io.WriteString(all, outputHash)
	}
	if len(parts) != 1 {
		hash = hex.EncodeToString(all.Sum(nil))
	}
	return parts, hash, nil
}

// part joins consecutive level-1 outputs into one file, copying each row group as
// it stands. A crash before or after leaves a data object under a key that the next
// root computes again.
func (a *Aggregator) part(ctx context.Context, job *jobOf, n int, nodes []manifest.Result) (manifest.Part, string, error) {
	sources := make([]Source, len(nodes))
	footers := make([]SourceFooter, len(nodes))
	for i, r := range nodes {
		hash, err := rows.ParseHash(r.RowHash)
		if err != nil {
			return manifest.Part{}, "", fmt.Errorf("results.done of %s: %v: %w", r.TaskID, err, hayrick.ErrCorrupt)
		}
		key := job.id.Abs(*r.File)
		sources[i] = Source{
			Name: *r.File, Size: r.Bytes, SHA256: r.SHA256, Rows: r.RowCount, RowHash: hash,
			Open: func() (SourceReader, error) { return a.Blobs.OpenAt(ctx, key) },
		}
		if footers[i], err = a.footer(ctx, key, sources[i]); err != nil {
			return manifest.Part{}, "", fmt.Errorf("read %s: %w", *r.File, err)
		}
	}
	plan, err := PlanConcat(sources, footers)
	if err != nil {
		return manifest.Part{}, "", err
	}
	key := job.id.Part(job.generation, n, plan.OutputHash)
	ranges := make([]manifest.Range, len(plan.Copies))
	for i, c := range plan.Copies {
		ranges[i] = manifest.Range{Key: job.id.Abs(sources[c.Source].Name), Offset: c.Offset, Length: c.Length}
	}
	if err := a.Blobs.Assemble(ctx, key, ranges, plan.Tail); err != nil {
		return manifest.Part{}, "", err
	}
	p := manifest.Part{
		Name: fmt.Sprintf("part-%05d.parquet", n), Key: job.id.Rel(key), Bytes: plan.Bytes, Rows: plan.Rows, RowHash: plan.RowHash.String(),
	}
	if job.def.Output.IfExists == "append" {
		p.Name = string(job.id) + "-" + p.Name // beside the parts of other runs
	}
	p.SHA256, err = a.readBack(ctx, key, plan, sources)
	return p, plan.OutputHash, err
}

// footer reads what of a level-1 output is needed to join it. One that is gone, or
// has another length than its results.done says, is corrupt.
func (a *Aggregator) footer(ctx context.Context, key string, s Source) (SourceFooter, error) {
	blob, err := a.Blobs.OpenAt(ctx, key)
	if errors.Is(err, hayrick.ErrNotFound) {
		err = fmt.Errorf("it is gone: %w", hayrick.ErrCorrupt)
	}
	if err != nil {
		return SourceFooter{}, err
	}
	defer blob.Close()
	if blob.Size() != s.Size {
		return SourceFooter{}, fmt.Errorf("%d bytes, its results.done says %d: %w", blob.Size(), s.Size, hayrick.ErrCorrupt)
	}
	return ReadSourceFooter(blob, s.Size)
}

// readBack reads the assembled file once and checks every byte of it: each copied
// stretch, with the source's own bytes around it, must have the SHA-256 that the
// source's results.done vouches for, and the tail must be the planned one.
func (a *Aggregator) readBack(ctx context.Context, key string, plan ConcatPlan, sources []Source) (sha string, err error) {
	blob, err := a.Blobs.OpenAt(ctx, key)
	if err != nil {
		return "", err
	}
	defer blob.Close()
	if blob.Size() != plan.Bytes {
		return "", fmt.Errorf("%s has %d bytes, planned %d: %w", key, blob.Size(), plan.Bytes, hayrick.ErrCorrupt)
	}
	whole := sha256.New()
	var at int64
	for _, c := range plan.Copies {
		s := sources[c.Source]
		if err := s.use(ctx, func(src SourceReader) error {
			one := sha256.New()
			end := c.Offset + c.Length
			for _, part := range []struct {
				to   io.Writer
				from io.Reader
			}{
				{one, io.NewSectionReader(src, 0, c.Offset)},
				{io.MultiWriter(whole, one), io.NewSectionReader(blob, at, c.Length)},
				{one, io.NewSectionReader(src, end, s.Size-end)},
			} {
				if _, err := io.Copy(part.to, part.from); err != nil {
					return err
				}
			}
			if got := hex.EncodeToString(one.Sum(nil)); got != s.SHA256 {
				return fmt.Errorf("its rows in %s have SHA-256 %s, its results.done says %s: %w", key, got, s.SHA256, hayrick.ErrCorrupt)
			}
			return nil
		}); err != nil {
			return "", err
		}
		at += c.Length
	}
	tail := make([]byte, len(plan.Tail))
	if _, err := blob.ReadAt(tail, at); err != nil && err != io.EOF {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	if string(tail) != string(plan.Tail) {
		return "", fmt.Errorf("the footer of %s is not the planned one: %w", key, hayrick.ErrCorrupt)
	}
	whole.Write(tail)
	return hex.EncodeToString(whole.Sum(nil)), nil
}

// conserved compares rows and row hash across the levels.
func conserved(plan manifest.AggregationPlan, nodes []manifest.Result, agg *manifest.Aggregation) error {
	var count, out int64
	var in, joined rows.Hash
	for _, n := range nodes {
		h, err := rows.ParseHash(n.RowHash)
		if err != nil {
			return fmt.Errorf("results.done of %s: %v: %w", n.TaskID, err, hayrick.ErrCorrupt)
		}
		count, in = count+n.RowCount, in.Add(h)
	}
	for _, p := range agg.Parts {
		h, err := rows.ParseHash(p.RowHash)
		if err != nil {
			return err
		}
		out, joined = out+p.Rows, joined.Add(h)
	}
	if count != plan.Rows || in.String() != plan.RowHash || out != plan.Rows || joined != in {
		return fmt.Errorf("results hold %d rows with hash %s, merges %d with %s, parts %d with %s: %w",
			plan.Rows, plan.RowHash, count, in, out, joined, hayrick.ErrCorrupt)
	}
	agg.TotalRows = out
	return nil
}

// inputFiles fills in the seed's input_files and row_counts_by_batch, which are
// left out for plans too long to repeat.
func (a *Aggregator) inputFiles(ctx context.Context, job *jobOf, plan manifest.AggregationPlan, agg *manifest.Aggregation) error {
	agg.RowCountsByBatch = map[string]int64{}
	each := func(in manifest.MergeInput) error {
		if in.Rows == 0 {
			return nil
		}
		agg.InputFileCount++
		if plan.InputsRef == nil {
			agg.InputFiles = append(agg.InputFiles, in.File)
			agg.RowCountsByBatch[in.BatchID] += in.Rows
		}
		return nil
	}
	if plan.InputsRef != nil {
		return manifest.ReadLines(ctx, a.Store, string(job.id), *plan.InputsRef, each)
	}
	for _, in := range plan.Inputs {
		if err := each(in); err != nil {
			return err
		}
	}
	return nil
}

// end commits a FAILED outcome. The results stay in the store.
func (a *Aggregator) end(ctx context.Context, job *jobOf, merges map[string]string, code, message string) error {
	a.Log.Error("the job failed", hayrick.KeyJobID, job.id, "code", code, "message", message)
	return a.commit(ctx, job, merges, manifest.Outcome{
		Schema: manifest.SchemaOutcome, JobID: string(job.id), Generation: job.generation, Status: string(hayrick.JobFailed),
		Code: code, Message: message, RowHash: rows.Hash{}.String(), DroppedHash: rows.Hash{}.String(),
		EndedAt: manifest.At(a.World.Clock.Now()),
	})
}

// commit ends the generation with o, or acts on the outcome that came first. A
// crash after it leaves the publication to whoever looks next.
func (a *Aggregator) commit(ctx context.Context, job *jobOf, merges map[string]string, o manifest.Outcome) error {
	retries, _, err := a.retryPlans(ctx, job)
	if err != nil {
		return err
	}
	for _, r := range retries {
		o.Permanent += r.Permanent
		o.Exhausted += r.Exhausted
	}
	o.Items = job.plan.Items
	o.OK = o.Items - o.Permanent - o.Exhausted // balance() has counted them at planning
	if o.Chain, err = a.Store.Chain(ctx, string(job.id), job.generation); err != nil {
		return err
	}
	maps.Copy(o.Chain, merges)
	c, err := a.Store.CommitOutcome(ctx, o)
	if err != nil {
		return err
	}
	a.Log.Info("generation ended", hayrick.KeyJobID, job.id, hayrick.KeyGeneration, job.generation, "status", c.Record.Status)
	return a.publish(ctx, job, c.Record, c.SHA256)
}
