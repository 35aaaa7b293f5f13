package aggregator

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// refused says why the output folder may not be written: if_exists is error and it
// holds files. None is this generation's own: those come after the outcome, and
// should another root have just committed that, this FAILED comes second and
// publishes with it.
func (a *Aggregator) refused(ctx context.Context, job *jobOf) (string, error) {
	if job.def.Output.IfExists != "error" {
		return "", nil
	}
	folder := manifest.OutputURI(job.def, job.plan.Job.Folder, job.id, job.generation)
	there, err := a.Output.ListOutput(ctx, folder)
	if err != nil {
		return "", fmt.Errorf("list %s: %w", folder, err)
	}
	if len(there) == 0 {
		return "", nil
	}
	return fmt.Sprintf("%s already holds %s and output.if_exists is error; the merged parts are in the store: move them away or set output.if_exists, then run --new", folder, there[0].Key), nil
}

// publish makes the folder hold what the outcome names: parts, then lists, then
// _SUCCESS; then the views. Anyone may do it again, also at once: the bytes are the
// same. A crash in the middle leaves a job manifest that does not say how the job
// ended, by which the next sweep knows that something is left to be done.
func (a *Aggregator) publish(ctx context.Context, job *jobOf, o manifest.Outcome, sha string) error {
	if done, err := a.published(ctx, job, o); done || err != nil {
		return err
	}
	if o.Aggregation != nil && o.Status == string(hayrick.JobSucceeded) {
		if err := a.publishFiles(ctx, job, o, sha); err != nil {
			return err
		}
		if err := a.Store.PutView(ctx, job.key.AggregationManifest(), o.Aggregation); err != nil {
			return err
		}
	}
	// The state first: with the view there nobody looks again.
	orders := 0
	for key := range o.Chain {
		if strings.HasPrefix(key, "control/") {
			orders++
		}
	}
	if err := a.State.PutJobState(ctx, hayrick.JobState{
		JobID: job.id, Generation: o.Generation, Status: hayrick.JobStatus(o.Status), Orders: orders, Updated: a.World.Clock.Now(),
	}); err != nil {
		return fmt.Errorf("cache the state of %s: %w", job.id, err)
	}
	return a.Store.PutView(ctx, job.key.Manifest(), manifest.JobView(job.plan, o.Status, o.Generation, nil))
}

// published says that the job manifest, which is written last, tells of the outcome
// already: a late or doubled trigger does not copy the dataset again.
func (a *Aggregator) published(ctx context.Context, job *jobOf, o manifest.Outcome) (bool, error) {
	body, err := a.Store.Raw(ctx, job.key.Manifest())
	if errors.Is(err, hayrick.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var view manifest.JobManifest
	if manifest.Decode(body, manifest.SchemaJob, &view) != nil {
		return false, nil // damaged: it is a view, and written anew
	}
	return view.Generation == o.Generation && view.Status == o.Status, nil
}

func (a *Aggregator) publishFiles(ctx context.Context, job *jobOf, o manifest.Outcome, sha string) error {
	folder := manifest.OutputURI(job.def, job.plan.Job.Folder, job.id, o.Generation)
	type file struct{ name, key string }
	var files []file
	for _, p := range o.Aggregation.Parts {
		files = append(files, file{p.Name, p.Key})
	}
	for _, l := range o.Aggregation.Lists {
		files = append(files, file{manifest.PublishedName(job.def, job.id, path.Join("lists", l.Name+".jsonl")), l.Key})
	}
	if job.def.Output.IfExists == "overwrite" {
		keep := func(name string) bool { return slices.ContainsFunc(files, func(f file) bool { return f.name == name }) }
		if err := a.clear(ctx, folder, o.EndedAt, keep); err != nil {
			return fmt.Errorf("clear %s: %w", folder, err)
		}
	}
	for _, f := range files {
		if err := a.Output.PublishFile(ctx, folder, f.name, job.key.Abs(f.key)); err != nil {
			return fmt.Errorf("publish %s in %s: %w", f.name, folder, err)
		}
	}
	done, err := manifest.Encode(manifest.Success{Schema: manifest.SchemaSuccess, JobID: job.id, Generation: o.Generation, OutcomeSHA256: sha})
	if err != nil {
		return err
	}
	if err := a.Output.PublishBytes(ctx, folder, manifest.SuccessName, done); err != nil {
		return fmt.Errorf("publish %s in %s: %w", manifest.SuccessName, folder, err)
	}
	return nil
}

// clear removes another dataset from the folder. Its _SUCCESS goes first, so that no
// reader takes a half-written folder for whole. One that is no older than the outcome
// is this generation's own, from a publisher that was faster: it stays, or a crash
// here would leave a dataset that somebody has seen whole without it. Files that no
// reader of a dataset would open stay too.
func (a *Aggregator) clear(ctx context.Context, folder string, ended manifest.Time, keep func(name string) bool) error {
	there, err := a.Output.ListOutput(ctx, folder)
	if err != nil {
		return err
	}
	var old []string
	for _, f := range there {
		switch {
		case f.Key == manifest.SuccessName:
			if f.ModTime.Before(ended.Time) {
				old = slices.Insert(old, 0, f.Key)
			}
		case ofDataset(f.Key) && !keep(f.Key):
			old = append(old, f.Key)
		}
	}
	for _, name := range old {
		if err := a.Output.RemoveOutput(ctx, folder, name); err != nil {
			return err
		}
	}
	return nil
}

// ofDataset says that a reader of the folder would take the file for a part or list
// of the dataset.
func ofDataset(name string) bool {
	if strings.HasPrefix(name, ".") || strings.Contains(name, "/.") {
		return false
	}
	return strings.HasSuffix(name, ".parquet") || strings.HasPrefix(name, "lists/") && strings.HasSuffix(name, ".jsonl")
}
