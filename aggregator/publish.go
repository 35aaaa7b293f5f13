package aggregator

import (
	"context"
	"errors"
	"fmt"
	"io"
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
// already, or of a later generation, which is opened after that: a late or doubled
// trigger does not copy the dataset again.
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
	return view.Generation > o.Generation || view.Generation == o.Generation && view.Status == o.Status, nil
}

func (a *Aggregator) publishFiles(ctx context.Context, job *jobOf, o manifest.Outcome, sha string) error {
	folder := manifest.OutputURI(job.def, job.plan.Job.Folder, job.id, o.Generation)
	files := filesOf(job, o)
	if job.def.Output.IfExists == "overwrite" {
		keep := func(name string) bool {
			return slices.ContainsFunc(files, func(f output) bool { return f.name == name })
		}
		if err := a.clear(ctx, folder, o.EndedAt, keep); err != nil {
			return fmt.Errorf("clear %s: %w", folder, err)
		}
	}
	for _, f := range files {
		if err := a.publishFile(ctx, job, folder, f); err != nil {
			return err
		}
	}
	return a.publishSuccess(ctx, job, folder, o, sha)
}

// output is a file of the dataset: its name in the folder, and its key below the
// job's folder.
type output struct{ name, key string }

// filesOf is what an outcome publishes beside _SUCCESS, in order.
func filesOf(job *jobOf, o manifest.Outcome) (files []output) {
	for _, p := range o.Aggregation.Parts {
		files = append(files, output{p.Name, p.Key})
	}
	for _, l := range o.Aggregation.Lists {
		files = append(files, output{manifest.PublishedName(job.def, job.id, path.Join("lists", l.Name+".jsonl")), l.Key})
	}
	return files
}

func (a *Aggregator) publishFile(ctx context.Context, job *jobOf, folder string, f output) error {
	if err := a.Output.PublishFile(ctx, folder, f.name, job.key.Abs(f.key)); err != nil {
		return fmt.Errorf("publish %s in %s: %w", f.name, folder, err)
	}
	return nil
}

func (a *Aggregator) publishSuccess(ctx context.Context, job *jobOf, folder string, o manifest.Outcome, sha string) error {
	done, err := success(job, o, sha)
	if err != nil {
		return err
	}
	if err := a.Output.PublishBytes(ctx, folder, manifest.SuccessName, done); err != nil {
		return fmt.Errorf("publish %s in %s: %w", manifest.SuccessName, folder, err)
	}
	return nil
}

// success is the content of the generation's _SUCCESS.
func success(job *jobOf, o manifest.Outcome, sha string) ([]byte, error) {
	return manifest.Encode(manifest.Success{Schema: manifest.SchemaSuccess, JobID: job.id, Generation: o.Generation, OutcomeSHA256: sha})
}

// Republished is what a look at a published folder led to.
type Republished struct {
	Folder string
	Files  []string // that were missing or had another size, and were published again
	// Taken is the run whose _SUCCESS is there: it has overwritten the folder, which is
	// left alone. "" = none.
	Taken string
}

// Republish makes the folder of a generation that SUCCEEDED hold again what was
// published there: what is missing, or has another size than in the store, is copied
// again. Bytes are compared of _SUCCESS alone; of the others that is for an audit.
// Nothing is removed, and nothing touched that the generation did not publish, so
// that a crash anywhere leaves less to do. Of any other end there is nothing to do.
func (a *Aggregator) Republish(ctx context.Context, jobID string, generation int) (r Republished, err error) {
	job, err := a.open(ctx, jobID, generation)
	if err == nil {
		err = a.republish(ctx, job, &r)
	}
	if err != nil {
		return r, fmt.Errorf("publish %s again: %w", jobID, err)
	}
	return r, nil
}

func (a *Aggregator) republish(ctx context.Context, job *jobOf, r *Republished) error {
	o, sha, err := a.Store.Outcome(ctx, job.id, job.generation)
	if err != nil || o.Aggregation == nil || o.Status != string(hayrick.JobSucceeded) {
		return err
	}
	r.Folder = manifest.OutputURI(job.def, job.plan.Job.Folder, job.id, o.Generation)
	there, err := a.Output.ListOutput(ctx, r.Folder)
	if err != nil {
		return fmt.Errorf("list %s: %w", r.Folder, err)
	}
	sizes := map[string]int64{}
	for _, f := range there {
		sizes[f.Key] = f.Size
	}
	marked, err := a.successThere(ctx, job, r, o, sha)
	if err != nil || r.Taken != "" {
		return err
	}
	for _, f := range filesOf(job, o) {
		same, err := a.sameSize(ctx, job, f, sizes)
		if err != nil {
			return err
		}
		if same {
			continue
		}
		if err := a.publishFile(ctx, job, r.Folder, f); err != nil {
			return err
		}
		r.Files = append(r.Files, f.name)
	}
	if marked {
		return nil
	}
	r.Files = append(r.Files, manifest.SuccessName)
	return a.publishSuccess(ctx, job, r.Folder, o, sha)
}

// sameSize says that the published file is there with the size of the stored one.
func (a *Aggregator) sameSize(ctx context.Context, job *jobOf, f output, sizes map[string]int64) (bool, error) {
	size, there := sizes[f.name]
	if !there {
		return false, nil
	}
	blob, err := a.Blobs.OpenAt(ctx, job.key.Abs(f.key))
	if err != nil {
		return false, gone(err)
	}
	defer blob.Close()
	return blob.Size() == size, nil
}

// successThere says that the folder's _SUCCESS is right: our own, or, where runs
// append, another's. One of another run elsewhere means that the folder is taken. A
// damaged one is neither: one that still names our outcome is ours.
func (a *Aggregator) successThere(ctx context.Context, job *jobOf, r *Republished, o manifest.Outcome, sha string) (bool, error) {
	body, err := a.readSuccess(ctx, r.Folder)
	if errors.Is(err, hayrick.ErrNotFound) || errors.Is(err, hayrick.ErrCorrupt) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s in %s: %w", manifest.SuccessName, r.Folder, err)
	}
	want, err := success(job, o, sha)
	if err != nil || string(body) == string(want) {
		return err == nil, err
	}
	var s manifest.Success
	if manifest.Decode(body, manifest.SchemaSuccess, &s) != nil || s.JobID == job.id || s.OutcomeSHA256 == sha || !hayrick.ValidID(s.JobID) {
		return false, nil
	}
	if canonical, err := manifest.Encode(s); err != nil || string(canonical) != string(body) {
		return false, err
	}
	if job.def.Output.IfExists == "append" {
		return true, nil
	}
	r.Taken = s.JobID
	return false, nil
}

func (a *Aggregator) readSuccess(ctx context.Context, folder string) ([]byte, error) {
	f, err := a.Output.OpenOutput(ctx, folder, manifest.SuccessName)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 64<<10))
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
	return manifest.IsPart(name) || strings.HasPrefix(name, "lists/") && strings.HasSuffix(name, ".jsonl")
}
