package main

import (
	"context"
	"errors"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/jobfile"
)

// against is in what a planned run would differ from one that is there.
type against struct {
	JobID   string   `json:"job_id"`
	Items   int64    `json:"items"`
	Tasks   int64    `json:"tasks"`
	Status  string   `json:"status"`            // of its first generation, "" = it has not ended
	TookMS  int64    `json:"took_ms,omitempty"` // from its submission to that end
	Differs []string `json:"differs"`
}

// against compares a plan with a run.
func (c *cli) against(ctx context.Context, p *plan, f jobfile.File, ref string) (*against, error) {
	if err := c.storeExists(); err != nil {
		return nil, err
	}
	r, store, err := openToRead(ctx, c)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	id, err := r.findRun(ctx, ref)
	if err != nil {
		return nil, err
	}
	then, _, err := r.manifests.Plan(ctx, id)
	if err != nil {
		return nil, ofRun(id, err)
	}
	def, err := r.manifests.Definition(ctx, then)
	if err != nil {
		return nil, ofRun(id, err)
	}
	a := &against{JobID: id, Items: then.Items, Tasks: then.Group.Tasks, Differs: []string{}}
	a.Differs = append(a.Differs, coordinator.Against(then, def, f.Definition, p.found)...)
	if then.BundleSHA256 != "" && len(def.Handler.Exec) > 0 {
		name, err := (&coordinator.Coordinator{Store: r.manifests}).ChangedCode(ctx, then, f.Dir)
		if err != nil {
			return nil, ofRun(id, err)
		}
		if name != "" {
			a.Differs = append(a.Differs, "the code has changed: "+name)
		}
	}
	o, _, err := r.manifests.Outcome(ctx, id, 0)
	if errors.Is(err, hayrick.ErrNotFound) {
		return a, nil
	}
	if err != nil {
		return nil, ofRun(id, err)
	}
	a.Status, a.TookMS = o.Status, o.EndedAt.Sub(then.SubmittedAt.Time).Milliseconds()
	return a, nil
}

func (c *cli) sayAgainst(a against) {
	ended := "not ended"
	if a.Status != "" {
		ended = a.Status + " after " + ago(ms(a.TookMS))
	}
	c.print("than   %s, %s in %s, %s:", a.JobID, count(a.Items, "item"), count(a.Tasks, "task"), ended)
	for _, d := range a.Differs {
		c.print("       %s", d)
	}
	if len(a.Differs) == 0 {
		c.print("       nothing differs: the same job file, input and code")
	}
}
