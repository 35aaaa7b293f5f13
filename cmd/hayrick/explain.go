package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
)

type explainOptions struct{ task, batch, item string }

func explainCommand(c *cli) *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use: "explain [run]", Short: "Say why each batch of a run ran, ran again, or will run", Args: arguments(0, 1),
		Long: `Say why there is what there is: each task group with what opened it; with --task or
--batch the items of one batch, each with why it is in it, and how often the task was
tried; with --item one item, task by task. It is read from the commits that the planners
read.`,
		Example:     "  hayrick explain\n  hayrick explain @ --task task-0042\n  hayrick explain @ --item did:plc:z72i7hdynmk6r22z27h6tvur",
		Annotations: endsWith(exitNotFound),
		RunE: func(cmd *cobra.Command, args []string) error {
			named := 0
			for _, x := range []string{o.task, o.batch, o.item} {
				if x != "" {
					named++
				}
			}
			if named > 1 {
				return &hayrick.UserError{What: "--task, --batch and --item are three questions", Hint: "ask one at a time"}
			}
			return runExplain(cmd.Context(), c, refOf(args), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.task, "task", "", "the batch of one task, such as task-0042")
	f.StringVar(&o.batch, "batch", "", "one batch, such as batch-0042")
	f.StringVar(&o.item, "item", "", "one item, by its ordinal or its key (key:7 when it is a number)")
	return cmd
}

// groupWhy is why a task group is there.
type groupWhy struct {
	Schema     string `json:"schema"`
	JobID      string `json:"job_id"`
	Generation int    `json:"generation"`
	Group      string `json:"group"`
	Tasks      int64  `json:"tasks"`
	Items      int64  `json:"items"`
	State      string `json:"state"` // ended, open, void
	Because    string `json:"because"`
}

// batchWhy is why a batch ran, or will.
type batchWhy struct {
	Schema     string    `json:"schema"`
	JobID      string    `json:"job_id"`
	Generation int       `json:"generation"`
	Group      string    `json:"group"`
	TaskID     string    `json:"task_id"`
	BatchID    string    `json:"batch_id"`
	Because    string    `json:"because"`
	State      string    `json:"state"`
	Items      []itemWhy `json:"items"`
}

// itemWhy is why an item is in a batch.
type itemWhy struct {
	Ordinal int64  `json:"ordinal"`
	Key     string `json:"key"`
	Because string `json:"because"`
	TaskID  string `json:"task_id,omitempty"`
	End     string `json:"end,omitempty"`
}

func runExplain(ctx context.Context, c *cli, ref string, o explainOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.openRun(ctx, ref)
	if err != nil {
		return err
	}
	defer r.close()
	if k.Purging() {
		return beingPurged(k.Plan.JobID)
	}
	e := &explaining{roles: r, k: k}
	if e.history, err = r.manifests.Past(ctx, k.Plan.JobID, k.Generation); err != nil {
		return err
	}
	switch {
	case o.item != "":
		return e.item(ctx, o.item)
	case o.task != "" || o.batch != "":
		return e.batch(ctx, o.task, o.batch)
	}
	return e.run(ctx)
}

// explaining is one run with its history.
type explaining struct {
	*roles
	k       *coordinator.Known
	history manifest.Past
}

// opener is the plan that opened a retry group, and the order that opened its generation.
func (e *explaining) opener(group string) (manifest.RetryPlan, *manifest.Control) {
	i := slices.IndexFunc(e.history.Plans, func(p manifest.RetryPlan) bool { return p.Next == group })
	if i < 0 {
		return manifest.RetryPlan{}, nil
	}
	p := e.history.Plans[i]
	return p, manifest.Opening(e.k.Orders, p.Generation)
}

// merges is how many tasks the merge of a generation has; 0 where it has no plan.
func (e *explaining) merges(ctx context.Context, generation int) (n int64, err error) {
	p := e.k.Aggregation
	if generation < e.k.Generation {
		plan, _, err := e.manifests.AggregationPlan(ctx, e.k.Plan.JobID, generation)
		if err != nil && !errors.Is(err, hayrick.ErrNotFound) {
			return 0, err
		}
		p = &plan
	}
	if p != nil {
		for _, g := range []*manifest.Group{p.Group, p.Ranges} {
			if g != nil {
				n += g.Tasks
			}
		}
	}
	return n, nil
}

func (e *explaining) run(ctx context.Context) (err error) {
	id := e.k.Plan.JobID
	state := func(group string) string {
		if e.k.Open != nil && e.k.Open.Name == group {
			return "open"
		}
		return "ended"
	}
	out := []groupWhy{{"hayrick.explain/v1", id, 0, hayrick.GroupInitial, e.k.Plan.Group.Tasks, e.k.Plan.Group.Items, state(hayrick.GroupInitial), coordinator.WhyNew}}
	for _, p := range e.history.Plans {
		x := groupWhy{Schema: "hayrick.explain/v1", JobID: id, Generation: p.Generation, Group: p.Next, Tasks: p.Tasks, Items: p.Items,
			State: state(p.Next), Because: coordinator.WhyGroup(p, manifest.Opening(e.k.Orders, p.Generation))}
		if p.Group == nil {
			x.Group = hayrick.GroupAggregation
			if x.Tasks, err = e.merges(ctx, p.Generation); err != nil {
				return err
			}
			x.State = state(hayrick.GroupAggregation)
			if p.Generation == e.k.Generation && e.k.Outcome == nil {
				x.State = "open"
			}
		}
		out = append(out, x)
	}
	if e.json {
		for _, x := range out {
			if err := e.printJSON(x); err != nil {
				return err
			}
		}
		return nil
	}
	rows := [][]string{{"GENERATION", "GROUP", "TASKS", "ITEMS", "STATE", "BECAUSE"}}
	for _, x := range out {
		rows = append(rows, []string{fmt.Sprint(x.Generation), x.Group, number(x.Tasks), number(x.Items), x.State, x.Because})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	effect := coordinator.Apply(e.k.Orders, e.k.Generation)
	switch {
	case e.k.Outcome != nil:
	case effect.Paused:
		e.print("paused: %s", e.reasonOf(e.k))
	case e.k.Opening != nil && len(e.k.Retries) == 0:
		e.print("generation %d: %s, and is not planned yet", e.k.Generation, coordinator.WhyOrder(*e.k.Opening))
	}
	return nil
}

// batch explains the batch of a task.
func (e *explaining) batch(ctx context.Context, task, batch string) error {
	if task == "" {
		task = "task" + strings.TrimPrefix(batch, "batch")
	}
	n, ok := manifest.TaskNumber(task)
	groups, generations := e.history.Groups(e.k.Plan)
	i := slices.IndexFunc(groups, func(g manifest.Group) bool { return ok && n >= g.FirstTask && n < g.FirstTask+g.Tasks })
	if i < 0 {
		return noTask(e.k, task)
	}
	m, err := e.manifests.Members(ctx, e.k.Plan.JobID, generations[i], groups[i])
	if err != nil {
		return err
	}
	at := n - groups[i].FirstTask
	index, err := m.Index(ctx, e.manifests, int(at/manifest.BlockTasks))
	if err != nil {
		return err
	}
	b := index.Batches[at%manifest.BlockTasks]
	p, order := e.opener(groups[i].Name)
	x := batchWhy{Schema: "hayrick.explain/v1", JobID: e.k.Plan.JobID, Generation: generations[i], Group: groups[i].Name, TaskID: task, BatchID: b.BatchID, Items: []itemWhy{}}
	if x.Because = coordinator.WhyNew; groups[i].Name != hayrick.GroupInitial {
		x.Because = coordinator.WhyGroup(p, order)
	}
	if x.State, err = e.state(ctx, task, generations[i]); err != nil {
		return err
	}
	items, err := e.openBatch(ctx, e.k.Plan.JobID, b)
	gone := goneInput(b, err)
	if err != nil && gone == "" {
		return err
	}
	for _, it := range items {
		why := coordinator.WhyNew
		if b.Retry {
			why = coordinator.WhyItem(it.Classes, p, order)
		} else {
			why = "new"
		}
		x.Items = append(x.Items, itemWhy{Ordinal: e.k.Plan.InputOrdinal(it.Ordinal), Key: e.k.Plan.Label(it, e.k.Definition.Input.Key), Because: why})
	}
	if e.json {
		return e.printJSON(x)
	}
	e.print("%s  %s of %s, generation %d: %s", e.paintOut(bold, x.TaskID), x.BatchID, x.Group, x.Generation, x.Because)
	e.print("%s", x.State)
	if gone != "" {
		e.tell("note: %s", gone)
		return nil
	}
	rows := [][]string{{"ORDINAL", "KEY", "BECAUSE"}}
	for _, it := range x.Items[:min(len(x.Items), shownItems)] {
		rows = append(rows, []string{fmt.Sprint(it.Ordinal), it.Key, it.Because})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	if more := len(x.Items) - shownItems; more > 0 {
		e.print("and %s more; all of them: --json", count(int64(more), "item"))
	}
	return nil
}

// state is how a task stands, and why it ran again where it did.
func (e *explaining) state(ctx context.Context, task string, generation int) (string, error) {
	id := e.k.Plan.JobID
	res, _, err := e.manifests.Result(ctx, id, task)
	switch {
	case err == nil && res.Task.Retries > 0:
		return fmt.Sprintf("%s in attempt %d, by %s: %s before it vanished or handed it back", res.Status, res.Task.Retries+1, res.Task.Worker, count(res.Task.Retries, "attempt")), nil
	case err == nil:
		return fmt.Sprintf("%s in its first attempt, by %s", res.Status, res.Task.Worker), nil
	case !errors.Is(err, hayrick.ErrNotFound):
		return "", err
	case generation < e.k.Generation || e.k.Outcome != nil:
		return "did not end: its generation had ended before", nil
	}
	claim, alive, err := e.store.ReadClaim(ctx, hayrick.TaskRef{JobID: id, Generation: generation, TaskID: task})
	if errors.Is(err, hayrick.ErrNotFound) {
		return coordinator.WhyOpen(nil, false), nil
	}
	return coordinator.WhyOpen(&claim, alive), err
}

// item explains an item, task by task.
func (e *explaining) item(ctx context.Context, ref string) error {
	found, gone, err := e.findItem(ctx, e.k, ref)
	if err != nil {
		return err
	}
	for i, ordinal := range found {
		if i == shownItems && !e.json {
			e.print("showing %d of %s; all of them: --json", i, count(int64(len(found)), "item"))
			break
		}
		h, err := e.roles.history(ctx, e.k, ordinal)
		if err != nil {
			return err
		}
		rows := [][]string{{"TASK", "GROUP", "END", "BECAUSE"}}
		before := ""
		for _, t := range h.Tasks {
			why := "new"
			if t.Group != hayrick.GroupInitial {
				p, order := e.opener(t.Group)
				why = coordinator.WhyItem([]string{before}, p, order)
			}
			if before = t.Class; before == "" {
				before = hayrick.ClassUnfinished
			}
			end := t.End
			if t.Class != "" {
				end += ": " + t.Class
			}
			rows = append(rows, []string{t.TaskID, t.Group, end, why})
			if e.json {
				err := e.printJSON(struct {
					Schema string `json:"schema"`
					JobID  string `json:"job_id"`
					itemWhy
				}{"hayrick.explain/v1", h.JobID, itemWhy{h.Ordinal, h.Key, why, t.TaskID, end}})
				if err != nil {
					return err
				}
			}
		}
		if e.json {
			continue
		}
		e.print("%s  ordinal %d  %s", e.paintOut(bold, h.Key), h.Ordinal, h.State)
		if err := e.table(rows); err != nil {
			return err
		}
	}
	if gone != "" {
		e.tell("note: %s", gone)
	}
	return nil
}
