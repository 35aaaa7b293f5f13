package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
)

func pauseCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "pause <run>", Short: "Hand out no more tasks of a run until it is resumed", Args: arguments(1, 1),
		Example:     "  hayrick pause @\n  hayrick resume @     go on",
		Annotations: endsWith(exitNotFound, exitConflict),
		RunE:        func(cmd *cobra.Command, args []string) error { return runPause(cmd.Context(), c, args[0]) },
	}
}

func runPause(ctx context.Context, c *cli, ref string) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.openRun(ctx, ref)
	if err != nil {
		return err
	}
	defer r.close()
	id := k.Plan.JobID
	if _, err := r.order(ctx, k, manifest.OrderPause, "paused by "+submitter(c)+"; go on with `hayrick resume "+id+"`"); err != nil {
		return err
	}
	return c.printOrdered(ctx, r, id)
}

func resumeCommand(c *cli) *cobra.Command {
	var o resumeOptions
	cmd := &cobra.Command{
		Use: "resume [run]", Short: "Go on with an unfinished run, paused or not, until it has ended", Args: arguments(0, 1),
		Long: `Go on with an unfinished run (the latest when none is named), paused or not, in this
process until it has ended. One that was paused by its budget goes on with a higher one.
Any other key of its job file stays what it is until the run has ended: hayrick cancel it,
then hayrick redrive it with --set.`,
		Example:     "  hayrick resume\n  hayrick resume @backfill --strict\n  hayrick resume @ --budget 50",
		Annotations: endsWith(exitUnwell, exitNotFound, exitBudget, exitConflict),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.budget, err = parseBudget(o.usd, o.wall, cmd.Flags().Changed); err != nil {
				return err
			}
			return runResume(cmd.Context(), c, refOf(args), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.strict, "strict", false, "exit 3 when any item failed")
	f.Float64Var(&o.usd, "budget", 0, "what the run may cost from its beginning, in `USD`, in place of budget.usd")
	f.DurationVar(&o.wall, "wall", 0, "how long it may take from its beginning, such as 6h, in place of budget.wall")
	f.BoolVar(&o.detach, "detach", false, "lift the pause, and leave the work to others")
	return cmd
}

// resumeOptions are the flags of resume.
type resumeOptions struct {
	strict bool
	detach bool
	usd    float64
	wall   time.Duration
	budget *hayrick.Budget // of the two
}

// refOf is the run that arguments name; none is the latest.
func refOf(args []string) string {
	if len(args) == 0 {
		return latest
	}
	return args[0]
}

// runResume lifts a pause, if there is one, and works on the run as `run` does.
func runResume(ctx context.Context, c *cli, ref string, o resumeOptions) error {
	start := c.world.Clock.Now()
	short, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.findIn(short, ref, openToWork)
	if err != nil {
		return err
	}
	defer r.close()
	id := k.Plan.JobID
	if k.Outcome == nil {
		effect := coordinator.Apply(k.Orders, k.Generation)
		if err := c.budgeted(k, effect, o.budget); err != nil {
			return err
		}
		if effect.Paused || o.budget != nil {
			if k, err = r.give(short, k, manifest.Control{Order: manifest.OrderResume, Budget: raised(k, effect, o.budget)}); err != nil {
				return err
			}
		}
		c.tell("going on with %s, submitted %s", c.paint(bold, id), clock(k.Plan.SubmittedAt.Time))
		c.newCode(short, r, k.Plan, k.Definition, c.restOf(k.Plan))
	}
	if _, err := r.coordinator.Sweep(short, id); err != nil {
		return ofRun(id, err)
	}
	if o.detach {
		return c.printOrdered(short, r, id)
	}
	return c.finish(ctx, r, id, start, o.strict)
}

// budgeted refuses to go on with a run that its budget paused, unless that is raised:
// else the next tasks would be worked on without any.
func (c *cli) budgeted(k *coordinator.Known, effect coordinator.Effect, b *hayrick.Budget) error {
	id := k.Plan.JobID
	switch {
	case !effect.Paused || !coordinator.ByBudget(effect.Rule):
		return nil
	case strings.HasPrefix(effect.Rule, coordinator.RuleWall) && (b == nil || b.Wall == 0):
		return &hayrick.UserError{What: id + " is paused by its budget: " + effect.Reason, Hint: "hayrick resume " + id + " --wall <more>", Exit: exitBudget}
	case strings.HasPrefix(effect.Rule, coordinator.RuleBudget) && (b == nil || b.USD == 0):
		return &hayrick.UserError{What: id + " is paused by its budget: " + effect.Reason, Hint: "hayrick resume " + id + " --budget <more>", Exit: exitBudget}
	}
	return nil
}

// raised is the budget in force with what b says of it.
func raised(k *coordinator.Known, effect coordinator.Effect, b *hayrick.Budget) *hayrick.Budget {
	if b == nil {
		return nil
	}
	var out hayrick.Budget
	if old := coordinator.BudgetOf(k, effect); old != nil {
		out = *old
	}
	if b.USD > 0 {
		out.USD = b.USD
	}
	if b.Wall > 0 {
		out.Wall = b.Wall
	}
	return &out
}

func cancelCommand(c *cli) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "cancel <run>", Short: "End a run; what is finished stays in the store", Args: arguments(1, 1),
		Example:     "  hayrick cancel @\n  hayrick cancel backfill-20260101-abcdef --yes     without a question",
		Annotations: endsWith(exitNotFound, exitConflict),
		RunE:        func(cmd *cobra.Command, args []string) error { return runCancel(cmd.Context(), c, args[0], yes) },
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// runCancel orders the end and sweeps until the outcome is there.
func runCancel(ctx context.Context, c *cli, ref string, yes bool) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	r, id, err := c.locate(ctx, ref, open)
	if err != nil {
		return err
	}
	defer r.close()
	k, _, err := r.known(ctx, id)
	var done string
	switch {
	case err == nil:
		done = number(tallyOf(k).ended()) + " of " + count(k.Plan.Items, "item") + " have ended"
	case corrupted(err): // it ends by what its plan says
		p, _, planErr := r.manifests.Plan(ctx, id)
		if planErr != nil {
			return ofRun(id, planErr)
		}
		k, done = &coordinator.Known{Plan: p}, "it is damaged: "+firstLine(err.Error())
		if _, _, err := r.manifests.Outcome(ctx, id, k.Generation); corrupted(err) { // it has ended, and how cannot be told
			return ofRun(id, err)
		}
	default:
		return err
	}
	if !yes {
		if err := c.confirm(fmt.Sprintf("Cancel %s? %s; a cancelled run cannot be resumed", id, done)); err != nil {
			return err
		}
	}
	if _, err := r.order(ctx, k, manifest.OrderCancel, ""); err != nil {
		return err
	}
	for range 2 { // the first sweep ends it, the second writes what follows
		if _, err := r.coordinator.Sweep(ctx, id); err != nil {
			return ofRun(id, err)
		}
	}
	return c.printOrdered(ctx, r, id)
}

// confirm asks on a terminal; elsewhere the answer has to come with the command.
func (c *cli) confirm(question string) error {
	if !c.inTTY || !c.errTTY {
		return &hayrick.UserError{What: "this asks for a yes, and there is no terminal to ask on", Hint: "add --yes"}
	}
	fmt.Fprintf(c.err, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(c.in).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		c.tell("nothing was done")
		return ended(exitDone)
	}
	return nil
}

// order gives an order for the current generation and returns the run as it stands
// then.
func (r *roles) order(ctx context.Context, k *coordinator.Known, order, reason string) (*coordinator.Known, error) {
	return r.give(ctx, k, manifest.Control{Order: order, Reason: reason})
}

// give is order for one that says more.
func (r *roles) give(ctx context.Context, k *coordinator.Known, o manifest.Control) (*coordinator.Known, error) {
	id := k.Plan.JobID
	o.Generation = k.Generation
	_, err := r.coordinator.Order(ctx, id, o)
	if errors.Is(err, hayrick.ErrConflict) {
		return nil, &hayrick.UserError{What: id + " has ended already", Hint: "hayrick status " + id, Exit: exitConflict}
	}
	if err != nil {
		return nil, ofRun(id, err)
	}
	if _, err := r.coordinator.Sweep(ctx, id); err != nil {
		return nil, ofRun(id, err)
	}
	k, _, err = r.known(ctx, id)
	return k, err
}

// printOrdered prints how the run stands after an order.
func (c *cli) printOrdered(ctx context.Context, r *roles, id string) error {
	_, d, err := r.known(ctx, id)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(struct {
			Schema string            `json:"schema"`
			JobID  string            `json:"job_id"`
			Status hayrick.JobStatus `json:"status"`
		}{"hayrick.ordered/v1", id, d.Status})
	}
	c.print("%s %s", id, d.Status)
	return nil
}

// openRun opens a store that is there, to look, and finds a run in it.
func (c *cli) openRun(ctx context.Context, ref string) (*roles, *coordinator.Known, error) {
	return c.findIn(ctx, ref, open)
}

func (c *cli) findIn(ctx context.Context, ref string, open func(context.Context, *cli) (*roles, error)) (*roles, *coordinator.Known, error) {
	r, id, err := c.locate(ctx, ref, open)
	if err != nil {
		return nil, nil, err
	}
	k, _, err := r.known(ctx, id)
	if err != nil {
		return nil, nil, errors.Join(err, r.close())
	}
	return r, k, nil
}

// locate opens a store that is there and finds the id of a run in it, damaged or not.
func (c *cli) locate(ctx context.Context, ref string, open func(context.Context, *cli) (*roles, error)) (*roles, string, error) {
	if err := c.storeExists(); err != nil {
		return nil, "", err
	}
	r, err := open(ctx, c)
	if err != nil {
		return nil, "", err
	}
	id, err := r.findRun(ctx, ref)
	if err != nil {
		return nil, "", errors.Join(err, r.close())
	}
	return r, id, nil
}
