package aggregator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// Partial merges what there is of a generation that has not ended into a folder of its
// own, beside where the dataset will be. It is no outcome: nothing that is committed
// names it, its files are called partial-..., and instead of _SUCCESS there is a
// _PARTIAL that says what it is. Whatever crashes, nothing of the run has changed; the
// files in the store that it was copied from are leftovers.
//
// ErrNotFound: there is no such job. A UserError: it has ended, or there is nothing yet.
func (a *Aggregator) Partial(ctx context.Context, jobID string, generation int) (manifest.Partial, error) {
	job, err := a.open(ctx, jobID, generation)
	var p manifest.Partial
	if err == nil {
		p, err = a.partial(ctx, job)
	}
	if err != nil {
		return p, fmt.Errorf("merge what there is of %s: %w", jobID, err)
	}
	return p, nil
}

func (a *Aggregator) partial(ctx context.Context, job *jobOf) (out manifest.Partial, err error) {
	switch o, _, err := a.Store.Outcome(ctx, job.id, job.generation); {
	case err == nil:
		return out, &hayrick.UserError{What: fmt.Sprintf("%s has ended: %s", job.id, o.Status), Hint: fmt.Sprintf("hayrick status %s says where its dataset is", job.id)}
	case !errors.Is(err, hayrick.ErrNotFound):
		return out, err
	}
	now := a.World.Clock.Now()
	out = manifest.Partial{
		Schema: manifest.SchemaPartial, JobID: job.id, Generation: job.generation, Parts: []string{}, At: manifest.At(now),
		Folder: fmt.Sprintf("%s.partial-%s/", strings.TrimSuffix(manifest.OutputURI(job.def, job.plan.Job.Folder, job.id, job.generation), "/"), now.UTC().Format("20060102t150405")),
	}
	p := &planning{a: a, job: job, seen: map[string]bool{}, whose: map[string]string{}}
	if p.unified, err = declared(job.def.Output); err != nil {
		return out, fmt.Errorf("output.schema: %w", err)
	}
	m := &merging{jobOf: job, store: a.Store}
	if err := a.ended(ctx, job, p, m, &out); err != nil {
		return out, err
	}
	if p.unlike != nil {
		return out, p.unlike
	}
	if out.Rows == 0 {
		return out, &hayrick.UserError{What: fmt.Sprintf("no row of %s is there yet: %d of its %d items have ended ok", job.id, out.ItemsOK, out.Items), Hint: fmt.Sprintf("hayrick status %s", job.id)}
	}
	m.schema = p.unified
	if m.plan.Columns, err = json.Marshal(p.unified); err != nil {
		return out, err
	}
	res := manifest.Result{TaskID: manifest.PartialTask, Attempt: a.World.NewAttemptID(), DroppedHash: rows.Hash{}.String()}
	span := manifest.Span{Count: int64(len(m.plan.Inputs))}
	switch {
	case len(job.def.Output.UniqueBy) > 0:
		err = a.uniquePartial(ctx, m, span, &res)
	case !plain(job.def.Output):
		err = a.decodeFiles(ctx, m, span, &res)
	default:
		err = a.decode(ctx, m, span, &res)
	}
	if err != nil {
		return out, err
	}
	out.Rows, out.RowHash, out.DroppedRows = res.RowCount, res.RowHash, res.DroppedRows
	if res.File != nil {
		res.Files = []manifest.RowFile{{File: *res.File}}
	}
	for _, f := range res.Files {
		name := path.Join(f.Partition, "partial-00000"+manifest.PartExt(job.def.Output))
		if err := a.Output.PublishFile(ctx, out.Folder, name, job.key.Abs(f.File)); err != nil {
			return out, fmt.Errorf("publish %s in %s: %w", name, out.Folder, err)
		}
		out.Parts = append(out.Parts, name)
	}
	body, err := manifest.Encode(out)
	if err != nil {
		return out, err
	}
	if err := a.Output.PublishBytes(ctx, out.Folder, manifest.PartialName, body); err != nil {
		return out, fmt.Errorf("publish %s in %s: %w", manifest.PartialName, out.Folder, err)
	}
	return out, nil
}

// ended gathers the results of all tasks that have ended, in the order in which they
// would be merged.
func (a *Aggregator) ended(ctx context.Context, job *jobOf, p *planning, m *merging, out *manifest.Partial) error {
	retries, _, err := a.Store.RetryPlans(ctx, job.id, job.generation)
	if err != nil {
		return err
	}
	groups := []manifest.Group{}
	if job.generation == 0 {
		groups = append(groups, job.plan.Group)
	}
	for _, r := range retries {
		if r.Group != nil {
			groups = append(groups, *r.Group)
		}
	}
	out.Items = job.plan.Items
	for _, g := range groups {
		members, err := a.Store.Members(ctx, job.id, job.generation, g)
		if err != nil {
			return gone(err)
		}
		for n := range members.Blocks() {
			block, err := members.Block(ctx, a.Store, n)
			if err != nil {
				return gone(err)
			}
			results := make([]*manifest.Result, len(block.Tasks))
			shas := make([]string, len(block.Tasks))
			if err := a.each(len(results), func(i int) error {
				r, sha, err := a.Store.Result(ctx, job.id, block.Tasks[i].TaskID)
				if errors.Is(err, hayrick.ErrNotFound) {
					return nil
				}
				results[i], shas[i] = &r, sha
				return err
			}); err != nil {
				return err
			}
			for i, r := range results {
				out.Tasks++
				if r == nil {
					continue
				}
				out.TasksEnded++
				out.ItemsOK += int64(r.OK)
				if r.File == nil {
					continue
				}
				if err := p.schema(ctx, *r); err != nil {
					return p.damaged(ctx, *r, err)
				}
				out.Rows += r.RowCount
				m.plan.Inputs = append(m.plan.Inputs, manifest.MergeInput{
					TaskID: r.TaskID, DoneSHA256: shas[i], File: *r.File, SHA256: r.SHA256, Bytes: r.Bytes, Rows: r.RowCount, RowHash: r.RowHash,
				})
			}
		}
	}
	return nil
}

// uniquePartial sorts all there is and lets one row of each key through.
func (a *Aggregator) uniquePartial(ctx context.Context, m *merging, span manifest.Span, res *manifest.Result) (err error) {
	keep := m.def.Output.Keep
	if keep == "" {
		keep = hayrick.KeepFirst
	}
	m.plan.Unique = &manifest.Unique{Columns: m.def.Output.UniqueBy, Keep: keep}
	s, drop, in, count, err := a.sortInputs(ctx, m, span, res)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	sorted, err := s.sorted()
	if err != nil {
		return err
	}
	if err := a.store(ctx, m, sorted, count, res); err != nil {
		return err
	}
	dropped, dropHash := drop.rows, drop.hash
	h, err := rows.ParseHash(res.RowHash)
	if err == nil && (res.RowCount+dropped != count || h.Add(dropHash) != in) {
		err = fmt.Errorf("%d rows with hash %s were read, %d with %s written and %d with %s dropped: %w", count, in, res.RowCount, h, dropped, dropHash, hayrick.ErrCorrupt)
	}
	res.DroppedRows, res.DroppedHash = dropped, dropHash.String()
	return err
}
