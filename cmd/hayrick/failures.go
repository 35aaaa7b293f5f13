package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/coordinator"
	"hayrick/manifest"
)

// failuresOptions are the flags of failures.
type failuresOptions struct {
	class  string
	export string
}

func failuresCommand(c *cli) *cobra.Command {
	var o failuresOptions
	cmd := &cobra.Command{
		Use: "failures [run]", Short: "Group the items that failed by class, and say what helps",
		Long: `Group the items that failed by the class of their failure. An item that failed and was
ok in a later group is not among them. With --class the items of one class are printed,
the first few as a table, all of them as lines of JSON with --json.

States: permanent (never tried again), exhausted (all tries are used up), failed (in
the group that is open: the retry planner has not judged it yet).`,
		Example:     "  hayrick failures\n  hayrick failures --class timeout --json | jq -r .key\n  hayrick failures @backfill --export failed.jsonl",
		Annotations: endsWith(exitNotFound),
		Args:        arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.class != "" && !hayrick.ValidClass(o.class) {
				return &hayrick.UserError{What: fmt.Sprintf("%q is not a class", o.class), Hint: "hayrick failures lists the classes"}
			}
			return runFailures(cmd.Context(), c, refOf(args), o)
		},
	}
	cmd.Flags().StringVar(&o.class, "class", "", "only this class, item by item")
	cmd.Flags().StringVar(&o.export, "export", "", "write every failed item to this `file`, a JSON object a line; - is stdout")
	return cmd
}

// failedItem is one line of --export and of --class --json.
type failedItem struct {
	Schema  string `json:"schema,omitempty"`
	Ordinal int64  `json:"ordinal"`
	Key     string `json:"key"`
	Class   string `json:"class"`
	State   string `json:"state"`
	Message string `json:"message"`
	TaskID  string `json:"task_id"`
	Tries   int    `json:"tries"`
	Losses  int    `json:"losses"`
}

// failureSchema is the schema of such a line; a sample has none of its own.
const failureSchema = "hayrick.failure/v1"

// The states of a failed item.
const (
	statePermanent = "permanent"
	stateExhausted = "exhausted"
	stateFailed    = "failed"
)

// failedClass is what is told of a class in a state.
type failedClass struct {
	Schema string     `json:"schema"`
	Class  string     `json:"class"`
	State  string     `json:"state"`
	Items  int64      `json:"items"`
	Tasks  int64      `json:"tasks"`
	Sample failedItem `json:"sample"`
	Helps  string     `json:"helps"`
}

const (
	shownClasses = 50
	shownItems   = 20
	sampleWidth  = 60
)

func runFailures(ctx context.Context, c *cli, ref string, o failuresOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.openRun(ctx, ref)
	if err != nil {
		return err
	}
	defer r.close()
	sum := failureSum{by: map[[2]string]*failedClass{}, last: map[[2]string]string{}}
	var out *exporter
	if o.export == "" && o.class != "" && c.json {
		o.export = "-"
	}
	if o.export != "" {
		if out, err = c.newExporter(o.export); err != nil {
			return err
		}
	}
	err = r.eachFailure(ctx, k, func(f failedItem) error {
		if o.class != "" && f.Class != o.class {
			return nil
		}
		sum.add(f)
		if out != nil {
			return out.line(f)
		}
		return nil
	})
	if out != nil {
		err = errors.Join(err, out.close())
	}
	if err != nil {
		return named(k.Plan.JobID, err)
	}
	if o.class != "" && sum.items == 0 {
		return &hayrick.UserError{What: fmt.Sprintf("no item of %s failed with class %s", k.Plan.JobID, o.class), Hint: "hayrick failures " + k.Plan.JobID + " lists the classes", Exit: exitNotFound}
	}
	if out != nil && o.export == "-" {
		return nil
	}
	if out != nil {
		c.tell("%s written to %s", count(sum.items, "failed item"), o.export)
		return nil
	}
	classes := sum.sorted(k.Definition, k.Plan, c.again(k.Plan))
	for i := range classes {
		classes[i].Helps = c.advice(classes[i].Helps)
	}
	switch {
	case c.json:
		for _, f := range classes {
			if err := c.printJSON(f); err != nil {
				return err
			}
		}
		return nil
	case len(classes) == 0:
		c.tell("no item of %s failed", k.Plan.JobID)
		return nil
	case o.class != "":
		return c.sayItems(sum)
	}
	return c.sayClasses(classes, k.Plan.JobID)
}

// eachFailure calls fn for every item that has failed and was not ok since, plan by
// plan, in each by ordinal.
func (r *roles) eachFailure(ctx context.Context, k *coordinator.Known, fn func(failedItem) error) error {
	plans := k.Retries
	if len(plans) == 0 && k.Opening != nil { // nothing has moved since the generation before
		h, err := r.manifests.Past(ctx, k.Plan.JobID, k.Generation-1)
		if err != nil {
			return err
		}
		plans = h.Last()
	}
	for _, p := range plans {
		for _, l := range []struct {
			ref   *manifest.Ref
			state string
		}{{p.PermanentList, statePermanent}, {p.ExhaustedList, stateExhausted}} {
			if l.ref == nil {
				continue
			}
			err := manifest.ReadLines(ctx, r.manifests, k.Plan.JobID, *l.ref, func(x manifest.ListLine) error {
				return fn(failedItem{"", k.Plan.InputOrdinal(x.Ordinal), x.Key, x.Class, l.state, x.Message, x.TaskID, x.Tries, x.Losses})
			})
			if err != nil {
				return fmt.Errorf("read %s: %w", l.ref.Key, err)
			}
		}
	}
	group := openWork(k)
	if group == nil || group.Tasks == 0 {
		return nil
	}
	m, err := r.manifests.Members(ctx, k.Plan.JobID, k.Generation, *group)
	if err != nil {
		return err
	}
	for n := range m.Blocks() {
		if err := r.blockFailures(ctx, k, m, n, fn); err != nil {
			return err
		}
	}
	return nil
}

// openWork is the group of worker tasks that no retry plan has closed, or nil.
func openWork(k *coordinator.Known) *manifest.Group {
	switch n := len(k.Retries); {
	case n == 0 && k.Opening != nil:
		return nil
	case n == 0:
		return &k.Plan.Group
	case k.Retries[n-1].Next == manifest.NextAggregation:
		return nil
	default:
		return k.Retries[n-1].Group
	}
}

// blockFailures reads the failed items of the tasks of one block that have ended.
func (r *roles) blockFailures(ctx context.Context, k *coordinator.Known, m *manifest.Members, n int, fn func(failedItem) error) error {
	results, err := r.blockResults(ctx, k, m, n)
	if err != nil {
		return err
	}
	for _, res := range results {
		if res == nil || res.Failures == nil {
			continue
		}
		err := r.failureLines(ctx, *res, func(l manifest.FailureLine) error {
			return fn(failedItem{"", k.Plan.InputOrdinal(l.Ordinal), l.Key, l.Class, stateFailed, l.Message, res.TaskID, l.Tries, l.Losses})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// blockResults reads the results of a block's tasks; that of one that has not ended
// is nil.
func (r *roles) blockResults(ctx context.Context, k *coordinator.Known, m *manifest.Members, n int) ([]*manifest.Result, error) {
	block, err := m.Block(ctx, r.manifests, n)
	if err != nil {
		return nil, err
	}
	return each(block.Tasks, func(t manifest.BlockTask) (*manifest.Result, error) {
		res, _, err := r.manifests.Result(ctx, k.Plan.JobID, t.TaskID)
		if errors.Is(err, hayrick.ErrNotFound) {
			return nil, nil
		}
		return &res, err
	})
}

// groupResults calls fn for the results of a group that are there, in task order.
func (r *roles) groupResults(ctx context.Context, k *coordinator.Known, generation int, g manifest.Group, fn func(manifest.Result)) error {
	m, err := r.manifests.Members(ctx, k.Plan.JobID, generation, g)
	if err != nil {
		return err
	}
	for n := range m.Blocks() {
		results, err := r.blockResults(ctx, k, m, n)
		if err != nil {
			return err
		}
		for _, res := range results {
			if res != nil {
				fn(*res)
			}
		}
	}
	return nil
}

func (r *roles) failureLines(ctx context.Context, res manifest.Result, fn func(manifest.FailureLine) error) error {
	if res.Failures == nil {
		return nil
	}
	ref := manifest.Ref{Key: res.Failures.File, SHA256: res.Failures.SHA256, Count: int64(res.Failures.Count)}
	if err := manifest.ReadLines(ctx, r.manifests, res.JobID, ref, fn); err != nil {
		return fmt.Errorf("read %s: %w", ref.Key, err)
	}
	return nil
}

// failureSum adds failures up; it keeps one sample a class, and the first few items.
type failureSum struct {
	items int64
	first []failedItem
	by    map[[2]string]*failedClass
	last  map[[2]string]string // the task of the last item: they come task by task
}

func (s *failureSum) add(f failedItem) {
	s.items++
	if len(s.first) < shownItems {
		s.first = append(s.first, f)
	}
	id := [2]string{f.Class, f.State}
	x := s.by[id]
	if x == nil {
		x = &failedClass{Schema: "hayrick.failures/v1", Class: f.Class, State: f.State, Sample: f}
		s.by[id] = x
	}
	x.Items++
	if s.last[id] != f.TaskID {
		s.last[id] = f.TaskID
		x.Tasks++
	}
}

// sorted is the classes with the most items first.
func (s *failureSum) sorted(def hayrick.JobDefinition, p manifest.Plan, again string) []failedClass {
	var out []failedClass
	code := ""
	if dir := jobFolder(p, def); dir != "" {
		code = " --code " + shellQuote(dir)
	}
	for _, f := range s.by {
		f.Helps = helps(f.Class, f.State, def, p.JobID, again, code)
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b failedClass) int {
		if a.Items != b.Items {
			return int(min(1, max(-1, b.Items-a.Items)))
		}
		return strings.Compare(a.Class+a.State, b.Class+b.State)
	})
	return out
}

// helps says what a person can do about a class; again starts a new run of the job, and
// code is the flag that takes a program as it is now, once it has been mended.
func helps(class, state string, def hayrick.JobDefinition, jobID, again, code string) string {
	if state == stateFailed {
		return "waits for the retry planner"
	}
	list := "in " + manifest.PublishedName(def, jobID, path.Join("lists", aggregator.ListName(def.Retry.Lists, class, state == stateExhausted)+".jsonl"))
	switch {
	case class == hayrick.ClassBadItem:
		return list + "; mend the input, then " + again
	case state == statePermanent:
		return list + "; not tried again, but for hayrick redrive " + jobID + " --class " + class + code
	case class == hayrick.ClassCrash, class == hayrick.ClassHandler, class == "handler_protocol":
		return list + "; hayrick redrive " + jobID + " --class " + class + code
	case class == hayrick.ClassTimeout:
		return list + "; hayrick redrive " + jobID + " --class timeout --set run.item_timeout=<longer>"
	case class == hayrick.ClassRateLimit:
		return list + "; hayrick redrive " + jobID + " --class rate_limit, with a lower rate or more retry.passes"
	case class == hayrick.ClassLostWorker:
		return list + "; workers vanished with it in hand: look at their memory"
	}
	return list + "; hayrick redrive " + jobID + " --class " + class
}

func (c *cli) sayClasses(classes []failedClass, id string) error {
	rows := [][]string{{"CLASS", "STATE", "ITEMS", "TASKS", "SAMPLE", "WHAT HELPS"}}
	for _, f := range classes[:min(len(classes), shownClasses)] {
		rows = append(rows, []string{f.Class, f.State, number(f.Items), number(f.Tasks), c.sample(f.Sample), f.Helps})
	}
	if err := c.table(rows); err != nil {
		return err
	}
	if len(classes) > shownClasses {
		c.print("showing %d of %s; all of them: hayrick failures %s --json", shownClasses, count(int64(len(classes)), "line"), id)
	}
	c.tell("item by item: hayrick failures %s --class %s", id, classes[0].Class)
	return nil
}

// sample is a failed item in short: on a terminal no wider than a column, and it
// shows where it was cut; elsewhere whole.
func (c *cli) sample(f failedItem) string {
	s := plain(f.Key + ": " + f.Message)
	if c.outTTY && utf8.RuneCountInString(s) > sampleWidth {
		s = cut(s, sampleWidth-1) + "…"
	}
	return s
}

func (c *cli) sayItems(sum failureSum) error {
	rows := [][]string{{"ORDINAL", "KEY", "STATE", "TRIES", "TASK", "MESSAGE"}}
	for _, f := range sum.first {
		rows = append(rows, []string{fmt.Sprint(f.Ordinal), f.Key, f.State, fmt.Sprint(f.Tries), f.TaskID, f.Message})
	}
	if err := c.table(rows); err != nil {
		return err
	}
	if sum.items > int64(len(sum.first)) {
		c.print("showing %d of %s; all of them: --export failures.jsonl", len(sum.first), count(sum.items, "item"))
	}
	return nil
}

// exporter writes failed items to a file or to stdout.
type exporter struct {
	file *os.File // nil: stdout
	buf  *bufio.Writer
	enc  *json.Encoder
}

func (c *cli) newExporter(name string) (*exporter, error) {
	e := &exporter{}
	var to io.Writer = c.out
	if name != "-" {
		f, err := os.Create(name)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
			return nil, &hayrick.UserError{What: fmt.Sprintf("--export: %v", err), Hint: "name a file in a folder that is there, or - for stdout"}
		case err != nil:
			return nil, fmt.Errorf("export to %s: %w", name, err)
		}
		e.file, to = f, f
	}
	e.buf = bufio.NewWriter(to)
	e.enc = json.NewEncoder(e.buf)
	e.enc.SetEscapeHTML(false)
	return e, nil
}

func (e *exporter) line(f failedItem) error {
	f.Schema = failureSchema
	return e.enc.Encode(f)
}

func (e *exporter) close() error {
	err := e.buf.Flush()
	if e.file != nil {
		err = errors.Join(err, e.file.Close())
	}
	return err
}
