package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// jobRun is the run that a submission is about.
type jobRun struct {
	jobID   string
	number  int  // runs of the same three before it
	planned bool // plan.json is there
	plan    manifest.Plan
	sha     string

	listed int // jobs of the store; -1: they were not listed
	named  int // of them, of the same name
}

// chooseRun finds the run to go on with, or names a new one. It reads the names of
// the jobs, and of each of the same name one or two small records.
func (c *Coordinator) chooseRun(ctx context.Context, s Submission, id Identity, src *source) (jobRun, error) {
	if s.JobID != "" {
		run, err := c.forcedRun(ctx, s, id)
		run.listed = -1
		return run, err
	}
	ids, err := c.Lister.Jobs(ctx)
	if err != nil {
		return jobRun{}, fmt.Errorf("list the jobs: %w", err)
	}
	run, named, err := c.chooseAmong(ctx, ids, s, id, src)
	run.listed, run.named = len(ids), named
	return run, err
}

// chooseAmong also says how many of the jobs have the name.
func (c *Coordinator) chooseAmong(ctx context.Context, ids []string, s Submission, id Identity, src *source) (_ jobRun, named int, _ error) {
	var same, other jobRun // the newest unfinished run of the same three; of the name alone
	taken := map[string]bool{}
	begun := map[string]string{} // letters -> id of a submission that never got to its plan
	for _, jobID := range ids {
		name, _, letters, ok := SplitJobID(jobID)
		if !ok || name != id.Name {
			continue
		}
		named++
		ended, err := c.ended(ctx, jobID)
		if err != nil {
			return jobRun{}, named, err
		}
		if ended {
			taken[letters] = true
			continue
		}
		p, sha, err := c.Store.Plan(ctx, jobID)
		if errors.Is(err, hayrick.ErrNotFound) {
			purged, err := c.exists(ctx, manifest.Job(jobID).Outcome(0))
			if err != nil {
				return jobRun{}, named, err
			}
			if purged { // not all of it is gone yet
				taken[letters] = true
				continue
			}
			begun[letters] = max(begun[letters], jobID)
			continue
		}
		if err != nil {
			return jobRun{}, named, err
		}
		taken[letters] = true
		run := jobRun{jobID: jobID, number: p.Job.Run, planned: true, plan: p, sha: sha}
		if id.Same(IdentityOf(p)) {
			same = newer(same, run)
		} else {
			other = newer(other, run)
		}
	}
	if !s.New {
		if same.planned {
			return same, named, nil
		}
		if other.planned {
			return jobRun{}, named, c.unfinished(ctx, s, id, other)
		}
	}
	for n := 0; ; n++ {
		letters, err := id.Letters(n)
		if err != nil {
			return jobRun{}, named, err
		}
		if taken[letters] {
			continue
		}
		if jobID, ok := begun[letters]; ok {
			return jobRun{jobID: jobID, number: n}, named, nil
		}
		jobID, err := JobID(id.Name, day(s.ConfigTime, src), letters)
		return jobRun{jobID: jobID, number: n}, named, err
	}
}

// forcedRun is the run under an id that a person chose.
func (c *Coordinator) forcedRun(ctx context.Context, s Submission, id Identity) (jobRun, error) {
	if !hayrick.ValidID(s.JobID) {
		return jobRun{}, &hayrick.UserError{What: fmt.Sprintf("%q cannot be a job id", s.JobID), Hint: "use at most 128 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit"}
	}
	p, sha, err := c.Store.Plan(ctx, s.JobID)
	switch {
	case errors.Is(err, hayrick.ErrNotFound):
		return jobRun{jobID: s.JobID}, nil
	case err != nil:
		return jobRun{}, err
	case s.New || !id.Same(IdentityOf(p)):
		return jobRun{}, taken(s.JobID)
	}
	return jobRun{jobID: s.JobID, number: p.Job.Run, planned: true, plan: p, sha: sha}, nil
}

// ended says that nothing is left to do for a run: its first generation has its
// outcome and, when that is a success, the output is published, after which the job
// manifest says so. Later generations are opened by orders, not by `run`.
func (c *Coordinator) ended(ctx context.Context, jobID string) (bool, error) {
	there, err := c.exists(ctx, manifest.Job(jobID).Outcome(0))
	if err != nil || !there {
		return false, err
	}
	if view := c.view(ctx, jobID); view.Generation > 0 || hayrick.JobStatus(view.Status).Terminal() {
		return true, nil
	}
	o, _, err := c.Store.Outcome(ctx, jobID, 0)
	return o.Status != string(hayrick.JobSucceeded), err
}

// view is the job manifest; nothing when there is none that can be read.
func (c *Coordinator) view(ctx context.Context, jobID string) manifest.JobManifest {
	var view manifest.JobManifest
	b, err := c.Store.Raw(ctx, manifest.Job(jobID).Manifest())
	if err != nil || manifest.Decode(b, manifest.SchemaJob, &view) != nil {
		return manifest.JobManifest{}
	}
	return view
}

func newer(a, b jobRun) jobRun {
	at, bt := a.plan.SubmittedAt.Time, b.plan.SubmittedAt.Time
	if !a.planned || bt.After(at) || bt.Equal(at) && b.number > a.number {
		return b
	}
	return a
}

// day is that of the newest of definition and input, not of the clock: who submits
// the same again tomorrow means the same run.
func day(config time.Time, src *source) time.Time {
	t := src.id.Pin.MTime.Time
	if config.After(t) {
		t = config
	}
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return t
}

// taken is the conflict of two submissions under one id.
func taken(jobID string) error {
	return &hayrick.UserError{
		What: fmt.Sprintf("%s is another run", jobID),
		Hint: "choose another --job-id, or leave it out",
		Exit: exitConflict,
	}
}

// unfinished is the conflict with a run of the same name.
func (c *Coordinator) unfinished(ctx context.Context, s Submission, id Identity, run jobRun) error {
	what, how := "the job file", ""
	if run.plan.DefinitionSHA256 == id.Definition {
		what = "the input"
	} else if was, err := c.Store.Definition(ctx, run.plan); err == nil { // it is told as far as it can be read
		if changes := changesOf(was, s.Definition); len(changes) > 0 {
			how = ": " + strings.Join(changes, ", ")
		}
	}
	return &hayrick.UserError{
		What: fmt.Sprintf("%s has changed since %s was submitted, and that run is not finished%s", what, run.jobID, how),
		Hint: fmt.Sprintf("go on with it as it was planned: hayrick resume %s; or start afresh: hayrick run --new", run.jobID),
		Exit: exitConflict,
	}
}

// exitConflict is the CLI's exit code for a run that is in the way.
const exitConflict = 7
