package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/manifest"
)

func lsCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the runs of the store, the latest first", Args: arguments(0, 0),
		Example:     "  hayrick ls\n  hayrick -C /data/lab/.hayrick ls --json | jq -r .job_id",
		Annotations: endsWith(exitNotFound),
		RunE:        func(cmd *cobra.Command, _ []string) error { return runLs(cmd.Context(), c) },
	}
}

// runLine is one run of `ls --json`.
type runLine struct {
	Schema      string        `json:"schema"`
	JobID       string        `json:"job_id"`
	JobType     string        `json:"job_type"`
	Status      string        `json:"status"`
	Generation  int           `json:"generation"`
	SubmittedAt manifest.Time `json:"submitted_at"`
	EndedAt     manifest.Time `json:"ended_at"`
	Damage      string        `json:"damage,omitempty"` // what of it cannot be read
	tally
}

// The statuses of runs whose commits cannot be read, and may not be.
const (
	damaged = "DAMAGED"
	denied  = "DENIED"
)

func runLs(ctx context.Context, c *cli) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	if err := c.storeExists(); err != nil && c.storeNamed {
		return err
	} else if err != nil {
		c.tell("no runs: there is no store at %s", c.storeDir)
		return nil
	}
	r, err := open(ctx, c)
	if err != nil {
		return err
	}
	defer r.close()
	plans, err := r.plans(ctx, func(string) bool { return true })
	if err != nil {
		return err
	}
	lines, err := each(plans, func(p manifest.Plan) (runLine, error) {
		l := runLine{Schema: "hayrick.run/v1", JobID: p.JobID, JobType: p.Job.JobType, Status: damaged, SubmittedAt: p.SubmittedAt}
		k, d, err := r.known(ctx, p.JobID)
		switch {
		case errors.Is(err, hayrick.ErrDenied):
			l.Status = denied
			return l, nil
		case corrupted(err):
			l.Damage = firstLine(err.Error())
			return l, nil
		}
		if err != nil {
			return l, err
		}
		l.Status, l.Generation, l.tally = string(d.Status), k.Generation, tallyOf(k)
		if k.Outcome != nil {
			l.EndedAt = k.Outcome.EndedAt
		}
		return l, nil
	})
	if err != nil {
		return err
	}
	if c.json {
		for _, l := range lines {
			if err := c.printJSON(l); err != nil {
				return err
			}
		}
		return nil
	}
	if len(lines) == 0 {
		c.tell("no runs in %s", c.storeDir)
		return nil
	}
	rows := [][]string{{"RUN", "STATUS", "ITEMS", "OK", "FAILED", "LEFT", "SUBMITTED"}}
	for _, l := range lines {
		rows = append(rows, []string{
			l.JobID, l.Status, number(l.Items), number(l.OK), number(l.Failed + l.Permanent + l.Exhausted), number(l.Left), clock(l.SubmittedAt.Time),
		})
	}
	if err := c.table(rows); err != nil {
		return err
	}
	for _, l := range lines {
		if l.Damage != "" {
			c.mustTell("%s %s is damaged: %s\n  %s", c.paint(red, "warning:"), l.JobID, l.Damage, c.advice(mend(l.JobID)))
		}
	}
	return nil
}
