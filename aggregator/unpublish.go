package aggregator

import (
	"context"
	"errors"
	"fmt"

	"hayrick"
	"hayrick/manifest"
)

// Unpublish removes what a generation has published: its _SUCCESS first, so that no
// reader takes the rest for whole, then lists and parts. A folder whose _SUCCESS is that
// of another run is left alone, and so is one where runs append: taken says so. Cut off,
// and called again, it removes the rest.
func (a *Aggregator) Unpublish(ctx context.Context, jobID string, generation int) (folder string, taken bool, err error) {
	job, err := a.open(ctx, jobID, generation)
	if err == nil {
		folder, taken, err = a.unpublish(ctx, job)
	}
	if err != nil {
		return folder, taken, fmt.Errorf("remove what %s has published: %w", jobID, err)
	}
	return folder, taken, nil
}

func (a *Aggregator) unpublish(ctx context.Context, job *jobOf) (folder string, taken bool, err error) {
	o, sha, err := a.Store.Outcome(ctx, job.id, job.generation)
	if errors.Is(err, hayrick.ErrNotFound) {
		return "", false, nil
	}
	if err != nil || o.Aggregation == nil || o.Status != string(hayrick.JobSucceeded) {
		return "", false, err
	}
	folder = manifest.OutputURI(job.def, job.plan.Job.Folder, job.id, o.Generation)
	r := Republished{Folder: folder}
	if job.def.Output.IfExists == "append" {
		return folder, true, nil
	}
	if _, err := a.successThere(ctx, job, &r, o, sha); err != nil || r.Taken != "" {
		return folder, r.Taken != "", err
	}
	if err := a.Output.RemoveOutput(ctx, folder, manifest.SuccessName); err != nil {
		return folder, false, err
	}
	for _, f := range filesOf(job, o) {
		if err := a.Output.RemoveOutput(ctx, folder, f.name); err != nil {
			return folder, false, err
		}
	}
	return folder, false, nil
}
