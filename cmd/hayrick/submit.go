package main

import (
	"context"

	"github.com/spf13/cobra"
)

func submitCommand(c *cli) *cobra.Command {
	o := submitOptions{verb: "submit"}
	cmd := &cobra.Command{
		Use: "submit <job>", Short: "Plan a job and leave the work to hayrick worker",
		Args:        arguments(1, 1),
		Example:     "  hayrick submit jobs/backfill && hayrick worker\n  id=$(hayrick submit -q my-job.yaml)",
		Annotations: endsWith(exitNotFound, exitBudget, exitConflict),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := parseSubmit(&o, args, cmd.Flags().Changed); err != nil {
				return err
			}
			return runSubmit(cmd.Context(), c, o)
		},
	}
	o.flags(c, cmd)
	return cmd
}

// submitted is the result of submit.
type submitted struct {
	Schema  string `json:"schema"`
	JobID   string `json:"job_id"`
	Items   int64  `json:"items"`
	Tasks   int64  `json:"tasks"`
	Resumed bool   `json:"resumed"` // the run was there before
}

// runSubmit makes the run exist and prints its id.
func runSubmit(ctx context.Context, c *cli, o submitOptions) error {
	r, s, err := submit(ctx, c, o)
	if err != nil {
		return err
	}
	defer r.close()
	if c.onAWS() {
		c.tell("the store's functions work on it, and nothing on this machine has to stay on; where there are none: hayrick worker")
		c.tell("follow it with: hayrick watch %s", s.JobID)
	} else {
		c.tell("work on it with: hayrick worker")
	}
	if c.json {
		return c.printJSON(submitted{"hayrick.submitted/v1", s.JobID, s.Plan.Items, s.Plan.Group.Tasks, s.Resumed})
	}
	c.print("%s", s.JobID)
	return nil
}
