package aggregator

import (
	"context"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// lists merges the items that every retry plan gave up into the lists of the
// dataset, each in ordinal order. An empty list is not written.
func (a *Aggregator) lists(ctx context.Context, job *jobOf) ([]manifest.List, error) {
	retries, _, err := a.retryPlans(ctx, job)
	if err != nil {
		return nil, err
	}
	writers := map[string]*manifest.ListWriter{}
	defer func() {
		for _, w := range writers {
			w.Close()
		}
	}()
	add := func(l manifest.ListLine, exhausted bool) error {
		name := ListName(job.def.Retry.Lists, l.Class, exhausted)
		w := writers[name]
		if w == nil {
			temp, err := a.Temp()
			if err != nil {
				return err
			}
			w = manifest.NewListWriter(temp)
			writers[name] = w
		}
		return w.Add(l)
	}
	for _, exhausted := range []bool{false, true} {
		var refs []manifest.Ref
		for _, r := range retries {
			ref := r.PermanentList
			if exhausted {
				ref = r.ExhaustedList
			}
			if ref != nil {
				refs = append(refs, *ref)
			}
		}
		if err := a.mergeLists(ctx, job, refs, func(l manifest.ListLine) error { return add(l, exhausted) }); err != nil {
			return nil, err
		}
	}
	out := []manifest.List{}
	for name, w := range writers {
		ref, err := w.Put(ctx, a.Store, string(job.id), func(sha string) string { return job.id.List(job.generation, name, sha) })
		if err != nil {
			return nil, err
		}
		out = append(out, manifest.List{Name: name, Key: ref.Key, SHA256: ref.SHA256, Count: ref.Count})
	}
	slices.SortFunc(out, func(x, y manifest.List) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

// mergeLists calls fn for the lines of lists that are each sorted by ordinal, in
// the order of all of them.
func (a *Aggregator) mergeLists(ctx context.Context, job *jobOf, refs []manifest.Ref, fn func(manifest.ListLine) error) error {
	type head struct {
		next func() (manifest.ListLine, error, bool)
		line manifest.ListLine
	}
	var heads []*head
	for _, ref := range refs {
		next, stop := iter.Pull2(a.lines(ctx, job, ref))
		defer stop()
		h := &head{next: next}
		line, err, ok := next()
		if err != nil {
			return err
		}
		if ok {
			h.line = line
			heads = append(heads, h)
		}
	}
	for len(heads) > 0 {
		least := 0
		for i, h := range heads {
			if h.line.Ordinal < heads[least].line.Ordinal {
				least = i
			}
		}
		if err := fn(heads[least].line); err != nil {
			return err
		}
		line, err, ok := heads[least].next()
		if err != nil {
			return err
		}
		if !ok {
			heads = slices.Delete(heads, least, least+1)
			continue
		}
		heads[least].line = line
	}
	return nil
}

func (a *Aggregator) lines(ctx context.Context, job *jobOf, ref manifest.Ref) iter.Seq2[manifest.ListLine, error] {
	return func(yield func(manifest.ListLine, error) bool) {
		err := manifest.ReadLines(ctx, a.Store, string(job.id), ref, func(l manifest.ListLine) error {
			if !yield(l, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && err != errStop {
			yield(manifest.ListLine{}, err)
		}
	}
}

var errStop = fmt.Errorf("stopped")

// names are the files that a generation publishes, in order.
func names(agg *manifest.Aggregation) []string {
	var out []string
	for _, p := range agg.Parts {
		out = append(out, p.Name)
	}
	for _, l := range agg.Lists {
		out = append(out, path.Join("lists", l.Name+".jsonl"))
	}
	return append(out, manifest.SuccessName)
}

// refused says why the output folder may not be written: if_exists is error and it
// holds files that this generation would not write.
func (a *Aggregator) refused(ctx context.Context, job *jobOf, agg *manifest.Aggregation) (string, error) {
	if job.def.Output.IfExists != "error" {
		return "", nil
	}
	folder := manifest.OutputURI(job.def, string(job.id), job.generation)
	there, err := a.Output.ListOutput(ctx, folder)
	if err != nil {
		return "", fmt.Errorf("list %s: %w", folder, err)
	}
	for _, o := range there {
		// Nothing of ours is there before the outcome, unless another root has just
		// committed it: then this FAILED comes second, and publishes with it.
		return fmt.Sprintf("%s already holds %s and output.if_exists is error; the merged parts are in the store: move them away or set output.if_exists, then run --new", folder, o.Key), nil
	}
	return "", nil
}

// publish makes the folder hold exactly what the outcome names: parts, then lists,
// then _SUCCESS. Anyone may do it again: the bytes are the same. A crash in the
// middle leaves a folder without _SUCCESS, and a job manifest that does not say
// SUCCEEDED, by which the next sweep knows.
func (a *Aggregator) publish(ctx context.Context, job *jobOf, o manifest.Outcome, sha string) error {
	status := hayrick.JobStatus(o.Status)
	if o.Aggregation != nil && o.Status == string(hayrick.JobSucceeded) {
		if err := a.publishFiles(ctx, job, o, sha); err != nil {
			return err
		}
		if err := a.Store.PutView(ctx, job.id.AggregationManifest(), o.Aggregation); err != nil {
			return err
		}
	}
	if err := a.Store.PutView(ctx, job.id.Manifest(), manifest.JobView(job.plan, o.Status, o.Generation, nil)); err != nil {
		return err
	}
	return a.State.PutJobState(ctx, hayrick.JobState{
		JobID: string(job.id), Generation: o.Generation, Status: status, Updated: a.World.Clock.Now(),
	})
}

func (a *Aggregator) publishFiles(ctx context.Context, job *jobOf, o manifest.Outcome, sha string) error {
	folder := manifest.OutputURI(job.def, string(job.id), o.Generation)
	if job.def.Output.IfExists == "overwrite" {
		if err := a.clear(ctx, folder, names(o.Aggregation)); err != nil {
			return err
		}
	}
	for _, p := range o.Aggregation.Parts {
		if err := a.Output.PublishFile(ctx, folder, p.Name, job.id.Abs(p.Key)); err != nil {
			return fmt.Errorf("publish %s: %w", p.Name, err)
		}
	}
	for _, l := range o.Aggregation.Lists {
		if err := a.Output.PublishFile(ctx, folder, path.Join("lists", l.Name+".jsonl"), job.id.Abs(l.Key)); err != nil {
			return fmt.Errorf("publish %s: %w", l.Name, err)
		}
	}
	done, err := manifest.Encode(manifest.Success{Schema: manifest.SchemaSuccess, JobID: string(job.id), Generation: o.Generation, OutcomeSHA256: sha})
	if err != nil {
		return err
	}
	if err := a.Output.PublishBytes(ctx, folder, manifest.SuccessName, done); err != nil {
		return fmt.Errorf("publish %s: %w", manifest.SuccessName, err)
	}
	return nil
}

// clear removes what the folder holds beside names. _SUCCESS goes first, so that
// no reader takes a half-written folder for whole.
func (a *Aggregator) clear(ctx context.Context, folder string, keep []string) error {
	there, err := a.Output.ListOutput(ctx, folder)
	if err != nil {
		return fmt.Errorf("list %s: %w", folder, err)
	}
	if err := a.Output.RemoveOutput(ctx, folder, manifest.SuccessName); err != nil {
		return fmt.Errorf("clear %s: %w", folder, err)
	}
	for _, o := range there {
		if slices.Contains(keep, o.Key) {
			continue
		}
		if err := a.Output.RemoveOutput(ctx, folder, o.Key); err != nil {
			return fmt.Errorf("clear %s: %w", folder, err)
		}
	}
	return nil
}
