package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/cost"
	"hayrick/manifest"
)

func statusCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "status [run]", Short: "Say how a run stands (the latest when none is named)", Args: arguments(0, 1),
		Long: `Say how a run stands: the latest when none is named. The exit code is that of the run:
3 when it is paused, or has ended so that somebody has to look; 6 when its budget paused it.`,
		Example:     "  hayrick status\n  hayrick status @backfill      the latest run of that job\n  hayrick status --json | jq .ok",
		Annotations: endsWith(exitUnwell, exitNotFound, exitBudget, exitConflict),
		RunE:        func(cmd *cobra.Command, args []string) error { return runStatus(cmd.Context(), c, refOf(args)) },
	}
}

// status is how a run stands.
type status struct {
	Schema      string            `json:"schema"`
	JobID       string            `json:"job_id"`
	JobType     string            `json:"job_type"`
	Status      hayrick.JobStatus `json:"status"`
	Generation  int               `json:"generation"`
	Opened      string            `json:"opened,omitempty"` // what opened the generation, above 0
	Reason      string            `json:"reason,omitempty"` // why it is paused
	SubmittedAt manifest.Time     `json:"submitted_at"`
	Since       manifest.Time     `json:"since"` // when the generation began
	// Messages is how many wait or are in flight; on AWS of all runs, by its estimate.
	Messages int `json:"messages"`
	// DeadLetters is how many messages were delivered too often: null where that is not
	// for the caller to see. On AWS it is of all runs.
	DeadLetters *int `json:"dead_letters"`
	// Others is how many other processes have the store open: without one nothing is
	// working on a run that has not ended.
	Others int `json:"others"`
	tally
	// USD is what the run has cost so far, and Budget what it may cost; null where the
	// store costs nothing, and where there is no budget.
	USD    *cost.Dollars `json:"usd"`
	Budget *planBudget   `json:"budget"`
	Result *result       `json:"result"` // null until it has ended
	// Unpublished: it has SUCCEEDED, and its folder may not have all of its output yet.
	Unpublished bool `json:"unpublished"`
}

func runStatus(ctx context.Context, c *cli, ref string) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.openRun(ctx, ref)
	if err != nil {
		return err
	}
	defer r.close()
	s, err := r.statusOf(ctx, k)
	if err != nil {
		return ofRun(k.Plan.JobID, err)
	}
	if c.json {
		err = c.printJSON(s)
	} else {
		err = c.sayStatus(s, c.world.Clock.Now(), c.again(k.Plan))
	}
	switch {
	case err != nil:
		return err
	case s.Result != nil:
		to := c.out // part of what was asked for
		if c.json {
			to = c.err
		}
		if _, err := r.warnPoor(ctx, to, k, *s.Result); err != nil {
			return err
		}
		return s.Result.exit(false)
	case s.Status == hayrick.StatusPaused:
		return ended(pausedExit(k))
	}
	return nil
}

func (r *roles) statusOf(ctx context.Context, k *coordinator.Known) (status, error) {
	d := coordinator.Decide(k, r.world.Clock.Now())
	s := status{
		Schema: "hayrick.status/v1", JobID: k.Plan.JobID, JobType: k.Plan.Job.JobType, Status: d.Status, Generation: k.Generation,
		SubmittedAt: k.Plan.SubmittedAt, Since: manifest.At(k.Since()), Messages: k.Depth.Messages, tally: tallyOf(k),
	}
	if k.Opening != nil {
		s.Opened = orderSays(*k.Opening)
	}
	effect, now := coordinator.Apply(k.Orders, k.Generation), r.world.Clock.Now()
	if b := coordinator.BudgetOf(k, effect); b != nil {
		s.Budget = &planBudget{b.USD, b.Wall.D().Milliseconds()}
	}
	if k.Money != nil {
		if k.Outcome != nil {
			now = k.Outcome.EndedAt.Time
		}
		usd := coordinator.Spent(k, effect, now)
		s.USD = &usd
	}
	if k.Outcome != nil {
		res := resultOf(k)
		s.Result, s.Unpublished = &res, d.Status == hayrick.StatusSucceeded && !d.Complete
		if res.Status != string(hayrick.JobSucceeded) {
			err := r.recount(ctx, k, &s.tally)
			if res.Status == string(hayrick.JobCancelled) && (corrupted(err) || errors.Is(err, hayrick.ErrNotFound)) {
				r.log.Warn("the cancelled run is damaged, so that what is finished of it may not all be counted", hayrick.KeyJobID, k.Plan.JobID, hayrick.KeyError, err)
				err = nil // it is what the outcome says, and a person knows that it is damaged
			}
			return s, err
		}
		return s, nil
	}
	if d.Status == hayrick.StatusPaused {
		s.Reason = coordinator.Apply(k.Orders, k.Generation).Reason
	}
	s.DeadLetters = r.deadLetters(ctx, k.Plan.JobID)
	var err error
	s.Others, _, err = r.store.Others()
	return s, err
}

// deadLetters counts the dead letters of a run. They are no part of how it stands, for
// their tasks are sent again: what keeps them from being counted is no error.
func (r *roles) deadLetters(ctx context.Context, jobID string) *int {
	d, err := r.store.Depth(ctx, hayrick.QueueDead, jobID)
	if err != nil {
		r.log.Debug("dead letters not counted", hayrick.KeyError, err)
		return nil
	}
	return &d.Messages
}

func (c *cli) sayStatus(s status, now time.Time, again string) error {
	colour := ""
	switch s.Status {
	case hayrick.StatusSucceeded:
		colour = green
	case hayrick.StatusFailed, hayrick.StatusCancelled, hayrick.StatusPaused:
		colour = red
	}
	word := c.paintOut(colour, string(s.Status))
	of := ""
	if s.Opened != "" {
		of = fmt.Sprintf("  generation %d: %s", s.Generation, s.Opened)
	}
	if s.Result != nil {
		c.print("%s  %s  took %s%s", c.paintOut(bold, s.JobID), word, ago(s.Result.EndedAt.Sub(s.Since.Time)), of)
	} else {
		c.print("%s  %s  for %s%s", c.paintOut(bold, s.JobID), word, ago(now.Sub(s.Since.Time)), of)
	}
	line := fmt.Sprintf("items  %s   ok %s   failed %s   permanent %s   exhausted %s   left %s",
		number(s.Items), number(s.OK), number(s.Failed), number(s.Permanent), number(s.Exhausted), number(s.Left))
	c.print("%s", line)
	rows := [][]string{{"PHASE", "GROUP", "TASKS", "ITEMS", "OK", "FAILED"}}
	for _, g := range s.Groups {
		row := []string{g.Phase, g.Group, number(g.Done) + "/" + number(g.Tasks), "-", "-", "-"}
		if g.Items > 0 {
			row[3], row[4], row[5] = number(g.Items), number(g.OK), number(g.Failed)
		}
		rows = append(rows, row)
	}
	if err := c.table(rows); err != nil {
		return err
	}
	if s.USD != nil {
		of := ""
		if s.Budget != nil && s.Budget.USD > 0 {
			of = "   budget " + dollars(s.Budget.USD)
		}
		c.print("cost   about %s, at most %s%s", dollars(s.USD.Expected), dollars(s.USD.High), of)
	}
	switch {
	case s.Result != nil && s.Result.Message != "":
		c.print("%s", c.advise(s.Result.Message, again))
	case s.Result != nil && s.Result.Output != nil:
		c.print("output  %s   %s in %s", s.Result.Output.URI, count(s.Result.Rows, "row"), count(int64(len(s.Result.Output.Parts)), "part"))
		if s.Unpublished {
			c.print("not all of it may be there yet: hayrick resume %s publishes what is missing", s.JobID)
		}
	case s.Result != nil:
	case s.Status == hayrick.StatusPurging:
		c.print("it is being removed: hayrick purge %s goes on", s.JobID)
	case s.Status == hayrick.StatusPaused:
		c.print("paused: %s", c.advise(s.Reason, again))
	case s.Others == 0:
		c.print("nothing is working on this job: hayrick resume %s", s.JobID)
	}
	if s.DeadLetters != nil && *s.DeadLetters > 0 {
		c.print("%s: delivered %d times in vain; their tasks are sent again, and the workers' logs say what they met",
			count(int64(*s.DeadLetters), "dead letter"), hayrick.MaxReceives)
	}
	return nil
}

// recount counts the tasks that had ended in the group that was open when the run
// ended early. Its progress records may be gone; its results are not.
func (r *roles) recount(ctx context.Context, k *coordinator.Known, t *tally) error {
	group := openWork(k)
	if group == nil || group.Tasks == 0 {
		return nil
	}
	g := &t.Groups[len(t.Groups)-1] // it has one: there is a group
	return r.groupResults(ctx, k, k.Generation, *group, func(res manifest.Result) {
		g.Done++
		g.Failed += int64(res.Failed)
	})
}

// storeExists keeps verbs that look, and workers, from making an empty store where
// none is, such as at a mistyped -C.
func (c *cli) storeExists() error {
	if c.onAWS() {
		return nil // its first request tells
	}
	if _, err := os.Stat(filepath.Join(c.storeDir, "state.db")); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if plans, _ := filepath.Glob(filepath.Join(c.storeDir, "jobs", "*", "plan.json")); len(plans) > 0 {
		return nil // the state is lost, which it may be
	}
	return &hayrick.UserError{What: "there is no store at " + c.storeDir, Hint: "start a run with hayrick run <job>, or name another store with -C", Exit: exitNotFound}
}
