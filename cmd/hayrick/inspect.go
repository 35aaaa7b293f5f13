package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
)

// inspectOptions are the flags of inspect.
type inspectOptions struct {
	task string
	item string
}

func inspectCommand(c *cli) *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use: "inspect [run]", Short: "Show the commits of a run, one of its tasks, or the history of an item",
		Long: `Show the commits of a run, one of its tasks (--task), or what happened to an item in
each group (--item). An item is its ordinal, its place in the input from 0; its key is a
label, and several items may have the same: then all of them are shown. A key that is a
number is written key:7.`,
		Example:     "  hayrick inspect\n  hayrick inspect @ --task task-0042\n  hayrick inspect @ --item did:plc:z72i7hdynmk6r22z27h6tvur",
		Annotations: endsWith(exitNotFound),
		Args:        arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.task != "" && o.item != "" {
				return &hayrick.UserError{What: "--task and --item are two questions", Hint: "ask one at a time"}
			}
			return runInspect(cmd.Context(), c, refOf(args), o)
		},
	}
	cmd.Flags().StringVar(&o.task, "task", "", "one task, such as task-0042")
	cmd.Flags().StringVar(&o.item, "item", "", "one item, by its ordinal or its key (key:7 when it is a number)")
	return cmd
}

func runInspect(ctx context.Context, c *cli, ref string, o inspectOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.openRun(ctx, ref)
	if err != nil {
		return err
	}
	defer r.close()
	switch {
	case o.task != "":
		return ofRun(k.Plan.JobID, c.inspectTask(ctx, r, k, o.task))
	case o.item != "":
		return named(k.Plan.JobID, c.inspectItem(ctx, r, k, o.item))
	}
	return c.inspectRun(ctx, r, k)
}

// inspected is every commit of a run but those of its tasks.
type inspected struct {
	Schema      string                    `json:"schema"`
	Plan        manifest.Plan             `json:"plan"`
	Orders      []manifest.Control        `json:"orders"`
	Retries     []manifest.RetryPlan      `json:"retries"`
	Aggregation *manifest.AggregationPlan `json:"aggregation_plan"`
	Outcome     *manifest.Outcome         `json:"outcome"`
	// Earlier has the commits of the generations before, in order.
	Earlier []inspectedGeneration `json:"earlier,omitempty"`
}

// inspectedGeneration is the commits of one generation.
type inspectedGeneration struct {
	Generation  int                       `json:"generation"`
	Retries     []manifest.RetryPlan      `json:"retries"`
	Aggregation *manifest.AggregationPlan `json:"aggregation_plan"`
	Outcome     *manifest.Outcome         `json:"outcome"`
}

// earlier reads the commits of the generations before the current one.
func (r *roles) earlier(ctx context.Context, k *coordinator.Known) (out []inspectedGeneration, err error) {
	if k.Generation == 0 {
		return nil, nil
	}
	h, err := r.manifests.Past(ctx, k.Plan.JobID, k.Generation-1)
	if err != nil {
		return nil, err
	}
	for g := range k.Generation {
		x := inspectedGeneration{Generation: g, Retries: []manifest.RetryPlan{}}
		plans, _ := h.Of(g)
		x.Retries = append(x.Retries, plans...)
		o, _, err := r.manifests.Outcome(ctx, k.Plan.JobID, g)
		if err != nil {
			return nil, err
		}
		x.Outcome = &o
		switch a, _, err := r.manifests.AggregationPlan(ctx, k.Plan.JobID, g); {
		case err == nil:
			x.Aggregation = &a
		case !errors.Is(err, hayrick.ErrNotFound):
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

func (c *cli) inspectRun(ctx context.Context, r *roles, k *coordinator.Known) error {
	p, _, err := r.manifests.Plan(ctx, k.Plan.JobID) // as it was submitted
	if err != nil {
		return err
	}
	before, err := r.earlier(ctx, k)
	if err != nil {
		return err
	}
	if c.json {
		v := inspected{"hayrick.inspect/v1", p, k.Orders, k.Retries, k.Aggregation, k.Outcome, before}
		if v.Orders == nil {
			v.Orders = []manifest.Control{}
		}
		if v.Retries == nil {
			v.Retries = []manifest.RetryPlan{}
		}
		return c.printJSON(v)
	}
	rows := [][]string{{"COMMIT", "SAYS", "WRITTEN"}}
	add := func(key, says string, at manifest.Time) { rows = append(rows, []string{key, says, clock(at.Time)}) }
	job := manifest.Job(p.JobID)
	from := "the handler's list"
	if len(p.Input) > 0 && p.Input[0].URI != "" {
		from = p.Input[0].URI
	}
	add(job.Rel(job.Plan()), fmt.Sprintf("%s of %s in %s; definition %s; by %s", count(p.Items, "item"), from, count(p.Group.Tasks, "task"), short(p.DefinitionSHA256), p.Job.SubmittedBy), p.SubmittedAt)
	all := append(before, inspectedGeneration{k.Generation, k.Retries, k.Aggregation, k.Outcome})
	for _, g := range all {
		for _, o := range k.Orders {
			if o.Generation == g.Generation {
				add(job.Rel(job.Control(o.N)), orderSays(o), o.At)
			}
		}
		for _, r := range g.Retries {
			next := "nothing to retry"
			if r.Group != nil {
				next = fmt.Sprintf("%s in %s of %s", count(r.Items, "item"), count(r.Tasks, "task"), r.Next)
			}
			did := "closed " + r.Closed
			if r.Control != nil {
				did = fmt.Sprintf("opened generation %d by order %d", r.Generation, *r.Control)
			}
			add(job.Rel(job.RetryPlan(manifest.RetryPlanNumber(r))), fmt.Sprintf("%s: %s; %s permanent, %s exhausted", did, next, number(r.Permanent), number(r.Exhausted)), r.SubmittedAt)
		}
		if a := g.Aggregation; a != nil {
			add(job.Rel(job.AggregationPlan(a.Generation)), fmt.Sprintf("%s, row hash %s, merge tree %v", count(a.Rows, "row"), short(a.RowHash), a.Tree.Nodes), a.PlannedAt)
		}
		if o := g.Outcome; o != nil {
			add(job.Rel(job.Outcome(o.Generation)), fmt.Sprintf("%s: %s", o.Status, ends(resultOf(&coordinator.Known{Plan: k.Plan, Definition: k.Definition, Outcome: o}))), o.EndedAt)
		}
	}
	c.print("%s  %s", c.paintOut(bold, p.JobID), strings.TrimSuffix(job.Prefix(), "/"))
	if err := c.table(rows); err != nil {
		return err
	}
	c.tell("a task: hayrick inspect %s --task %s   an item: --item <key>", p.JobID, manifest.TaskID(p.Group.FirstTask))
	return nil
}

// orderSays is an order in words.
func orderSays(o manifest.Control) string {
	says := o.Order + " by " + o.By
	if takes := coordinator.Taken(o); takes != "" {
		says += " of " + takes
	}
	if o.DefinitionSHA256 != "" {
		says += "; definition " + short(o.DefinitionSHA256)
	}
	if o.BundleSHA256 != "" {
		says += "; code " + short(o.BundleSHA256)
	}
	if o.Reason != "" {
		says += ": " + o.Reason
	}
	return says
}

// inspectTask shows the commit of a task, or who has it in hand.
func (c *cli) inspectTask(ctx context.Context, r *roles, k *coordinator.Known, task string) error {
	if !hayrick.ValidID(task) {
		return noTask(k, task)
	}
	res, sha, err := r.manifests.Result(ctx, k.Plan.JobID, task)
	if errors.Is(err, hayrick.ErrNotFound) {
		return c.inspectClaim(ctx, r, k, task)
	}
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(res)
	}
	t := res.Task
	c.print("%s  %s  %s of %s", c.paintOut(bold, res.TaskID), res.Status, t.Role, t.Group)
	rows := [][]string{
		{"items", fmt.Sprintf("%d: %d ok, %d failed", res.Items, res.OK, res.Failed)},
		{"rows", fmt.Sprintf("%s, row hash %s", number(res.RowCount), short(res.RowHash))},
		{"attempt", fmt.Sprintf("%s, fence %d, by %s", res.Attempt, res.Fence, t.Worker)},
		{"time", fmt.Sprintf("%s, took %s", clock(t.StartTime.Time), ago(t.EndTime.Sub(t.StartTime.Time)))},
		{"input", t.Input},
	}
	if res.File != nil {
		rows = append(rows, []string{"file", fmt.Sprintf("%s   %s   sha256 %s", *res.File, size(res.Bytes), short(res.SHA256))})
	}
	if res.Failures != nil {
		rows = append(rows, []string{"failures", fmt.Sprintf("%s   %s", res.Failures.File, tallied(res.Failures.ByClass))})
	}
	if t.Error != nil {
		rows = append(rows, []string{"error", t.Error.Class + ": " + t.Error.Message})
	}
	rows = append(rows, []string{"metrics", tallied(t.Metrics)}, []string{"commit", "sha256 " + short(sha)})
	return c.table(rows)
}

// inspectClaim tells of a task that has no outcome yet.
func (c *cli) inspectClaim(ctx context.Context, r *roles, k *coordinator.Known, task string) error {
	claim, alive, err := r.store.ReadClaim(ctx, hayrick.TaskRef{JobID: k.Plan.JobID, Generation: k.Generation, TaskID: task})
	if errors.Is(err, hayrick.ErrNotFound) {
		if there, err := r.hasTask(ctx, k, task); err != nil || !there {
			return errors.Join(err, noTask(k, task))
		}
		claim, err = hayrick.Claim{}, nil
	}
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(struct {
			Schema string `json:"schema"`
			JobID  string `json:"job_id"`
			TaskID string `json:"task_id"`
			hayrick.Claim
			Alive bool `json:"alive"`
		}{"hayrick.claim/v1", k.Plan.JobID, task, claim, alive})
	}
	says := "not begun"
	switch {
	case alive:
		says = fmt.Sprintf("in hand of %s, attempt %s, fence %d, lease until %s", claim.Worker, claim.Attempt, claim.Fence, clock(claim.Until))
	case claim.Attempt != "":
		says = fmt.Sprintf("not in hand; last tried by %s, attempt %s, fence %d; %d attempts vanished", claim.Worker, claim.Attempt, claim.Fence, claim.Vanished)
	}
	c.print("%s  %s", c.paintOut(bold, task), says)
	return nil
}

func noTask(k *coordinator.Known, task string) error {
	return &hayrick.UserError{What: fmt.Sprintf("%s has no task %s", k.Plan.JobID, task), Hint: "its tasks are named " + manifest.TaskID(k.Plan.Group.FirstTask) + " and on", Exit: exitNotFound}
}

// hasTask looks for a task in the groups that are planned.
func (r *roles) hasTask(ctx context.Context, k *coordinator.Known, task string) (bool, error) {
	groups, generations, err := r.groupsOf(ctx, k)
	if err != nil {
		return false, err
	}
	for i, g := range groups {
		m, err := r.manifests.Members(ctx, k.Plan.JobID, generations[i], g)
		if err != nil {
			return false, err
		}
		for n := range m.Blocks() {
			b, err := m.Block(ctx, r.manifests, n)
			if err != nil {
				return false, err
			}
			for _, t := range b.Tasks {
				if t.TaskID == task {
					return true, nil
				}
			}
		}
	}
	return false, nil
}

// groupsOf are the groups of worker tasks of every generation, in order, then that of
// the merges; with the generation of each.
func (r *roles) groupsOf(ctx context.Context, k *coordinator.Known) ([]manifest.Group, []int, error) {
	h, err := r.manifests.Past(ctx, k.Plan.JobID, k.Generation)
	if err != nil {
		return nil, nil, err
	}
	groups, generations := h.Groups(k.Plan)
	if k.Aggregation != nil && k.Aggregation.Group != nil {
		groups, generations = append(groups, *k.Aggregation.Group), append(generations, k.Generation)
	}
	return groups, generations, nil
}
