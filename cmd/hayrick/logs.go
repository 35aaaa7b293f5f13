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
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/local"
	"hayrick/manifest"
	"hayrick/worker"
)

// logsOptions are the flags of logs.
type logsOptions struct {
	ref    string
	task   string
	item   string
	class  string
	follow bool
	raw    bool
}

func logsCommand(c *cli) *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use: "logs [run]", Short: "Print what the handlers wrote: of all tasks, a task, an item, or a class of failures",
		Long: `Print what the handlers of a run (the latest when none is named) wrote to their log: a
program to its stderr. The lines come task by task, in the order in which the tasks were
planned; those of one task in the order in which it wrote them.

-f goes on until the run has ended or is paused. A task that a worker on this machine runs
shows its lines as they are written (the first 4 MiB of them); of a task that runs
elsewhere, in Lambda or on another node, they come when it has ended, and so does what was
written before it was handed on; what a worker had that was killed comes only if the same
machine goes on with the task. A task keeps the first 64 KiB and the last 192 KiB of its
log; where lines are left out a line says how many.

--item and --class leave only the lines that were written while such an item was in hand,
as far as the worker could see: what a program writes arrives beside its answers, so a
line may be tagged with an item before or behind. Where no line of a task has the item,
all lines of the task are shown, and that is said. They wait for the end of the task.`,
		Example:     "  hayrick logs @ --task task-0042 --raw\n  hayrick logs --item did:plc:z72i7hdynmk6r22z27h6tvur\n  hayrick logs -f",
		Annotations: endsWith(exitUnwell, exitNotFound, exitBudget, exitConflict),
		Args:        arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref = refOf(args)
			if err := parseLogs(o, c.json); err != nil {
				return err
			}
			return runLogs(cmd.Context(), c, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.task, "task", "", "only this task, such as task-0042")
	f.StringVar(&o.item, "item", "", "only this item, by its ordinal or its key (key:7 when it is a number)")
	f.StringVar(&o.class, "class", "", "only items that failed with this class")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with what is written from now on")
	f.BoolVar(&o.raw, "raw", false, "only the lines as they were written, without time, task and item")
	return cmd
}

func parseLogs(o logsOptions, json bool) error {
	n := 0
	for _, given := range []string{o.task, o.item, o.class} {
		if given != "" {
			n++
		}
	}
	switch {
	case n > 1:
		return &hayrick.UserError{What: "--task, --item and --class are several questions", Hint: "ask one at a time"}
	case o.class != "" && !hayrick.ValidClass(o.class):
		return &hayrick.UserError{What: fmt.Sprintf("%q is not a class", o.class), Hint: "hayrick failures lists the classes"}
	case o.raw && json:
		return &hayrick.UserError{What: "--raw and --json are two forms", Hint: "choose one; a line of --json has the text too"}
	}
	return nil
}

// loggedLine is a line of logs --json.
type loggedLine struct {
	Schema string `json:"schema"`
	JobID  string `json:"job_id"`
	TaskID string `json:"task_id"`
	manifest.LogLine
}

// logReader prints the logs of tasks, each once.
type logReader struct {
	*cli
	r *roles
	o logsOptions

	items   []int64 // with --item: their ordinals
	number  func(ordinal int64) int64
	printed map[string]bool
	counts  map[[2]string]int  // by group and block: tasks of it that were read
	over    map[[2]string]bool // likewise: it had ended when it was read

	said   map[string]*shownLog // by task: what was printed of a log that goes on
	files  map[string]*grows    // by path: how far a live log was read
	atWork bool                 // lines of tasks that have not ended were printed

	ended, lines, dropped, cut, whole int64
}

// shownLog is how far the log of a task was printed. The attempt that ends it may be another
// than the one whose lines were printed: one that went on with the work has those lines
// too, one that began anew begins with others.
type shownLog struct {
	first string // the first line, which tells that
	next  int64  // the line to go on with
}

// grows is a file that grows.
type grows struct {
	at   int64
	line int64 // the number of the next line
}

func runLogs(ctx context.Context, c *cli, o logsOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.openRun(ctx, o.ref)
	if err != nil {
		return err
	}
	defer r.close()
	id := k.Plan.JobID
	l := &logReader{cli: c, r: r, o: o, number: k.Plan.InputOrdinal, printed: map[string]bool{}, said: map[string]*shownLog{}, files: map[string]*grows{}, counts: map[[2]string]int{}, over: map[[2]string]bool{}}
	if o.task != "" {
		if err := l.isTask(ctx, k); err != nil {
			return ofRun(id, err)
		}
	}
	if o.item != "" {
		found, _, err := r.findItem(ctx, k, o.item)
		if err != nil {
			return named(id, err)
		}
		if l.items = found[:min(shownItems, len(found))]; len(l.items) < len(found) {
			c.mustTell("%s have this key; of the first %d the lines are shown", count(int64(len(found)), "item"), len(l.items))
		}
	}
	for pace := c.pace(); ; {
		if err := l.look(ctx, k); err != nil {
			return named(id, err)
		}
		if o.item == "" && o.class == "" && k.Outcome == nil {
			if err := l.lookAtWork(k); err != nil {
				return named(id, err)
			}
		}
		d := coordinator.Decide(k, c.world.Clock.Now())
		if !o.follow || k.Outcome != nil || d.Status == hayrick.StatusPaused {
			l.sum(k)
			if o.follow && k.Outcome == nil {
				return ended(pausedExit(k))
			}
			return nil
		}
		if err := c.world.Clock.Sleep(ctx, pace.look); err != nil {
			return err
		}
		if k, _, err = r.known(ctx, id); err != nil {
			return err
		}
	}
}

// isTask says whether there is such a task; one that is planned but has not ended has
// no log yet.
func (l *logReader) isTask(ctx context.Context, k *coordinator.Known) error {
	if !hayrick.ValidID(l.o.task) {
		return noTask(k, l.o.task)
	}
	there, err := l.r.hasTask(ctx, k, l.o.task)
	if err == nil && !there {
		return noTask(k, l.o.task)
	}
	return err
}

// look prints the logs of all tasks that have ended and were not printed.
func (l *logReader) look(ctx context.Context, k *coordinator.Known) error {
	if l.items != nil {
		return l.ofItems(ctx, k)
	}
	groups, generations, err := l.r.groupsOf(ctx, k)
	if err != nil {
		return err
	}
	for i, g := range groups {
		if g.Name == hayrick.GroupAggregation {
			break // merges have no handler
		}
		m, err := l.r.manifests.Members(ctx, k.Plan.JobID, generations[i], g)
		if err != nil {
			return err
		}
		for n := range m.Blocks() {
			if err := l.block(ctx, k, m, g, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// ofItems prints the logs of the tasks that had the items.
func (l *logReader) ofItems(ctx context.Context, k *coordinator.Known) error {
	for _, ordinal := range l.items {
		h, err := l.r.history(ctx, k, ordinal)
		if err != nil {
			return err
		}
		for _, t := range h.Tasks {
			if t.End == endOpen || l.printed[t.TaskID] {
				continue
			}
			res, _, err := l.r.manifests.Result(ctx, k.Plan.JobID, t.TaskID)
			if err != nil {
				return err
			}
			if err := l.result(ctx, res); err != nil {
				return fmt.Errorf("read the log of %s: %w", res.TaskID, err)
			}
		}
	}
	return nil
}

func (l *logReader) block(ctx context.Context, k *coordinator.Known, m *manifest.Members, g manifest.Group, n int) error {
	at := [2]string{g.Name, fmt.Sprint(n)}
	open := k.Outcome == nil && k.Open != nil && k.Open.Name == g.Name
	if l.over[at] {
		return nil
	}
	if l.o.follow && open {
		done := 0
		for _, b := range k.Open.Records {
			if b.Level == 0 && b.N == n {
				done = b.Done.Count()
			}
		}
		if done <= l.counts[at] {
			return nil // nothing new to read
		}
	}
	block, err := m.Block(ctx, l.r.manifests, n)
	if err != nil {
		return err
	}
	l.over[at] = !open
	tasks := slices.DeleteFunc(slices.Clone(block.Tasks), func(t manifest.BlockTask) bool {
		return l.printed[t.TaskID] || l.o.task != "" && t.TaskID != l.o.task
	})
	results, err := each(tasks, func(t manifest.BlockTask) (*manifest.Result, error) {
		res, _, err := l.r.manifests.Result(ctx, k.Plan.JobID, t.TaskID)
		if errors.Is(err, hayrick.ErrNotFound) {
			return nil, nil
		}
		return &res, err
	})
	if err != nil {
		return err
	}
	for _, res := range results {
		if res == nil {
			continue
		}
		l.counts[at]++
		if err := l.result(ctx, *res); err != nil {
			return fmt.Errorf("read the log of %s: %w", res.TaskID, err)
		}
	}
	return nil
}

// result prints the log of one task, as far as it was asked for.
func (l *logReader) result(ctx context.Context, res manifest.Result) error {
	l.printed[res.TaskID] = true
	l.ended++
	if l.o.class != "" && (res.Failures == nil || res.Failures.ByClass[l.o.class] == 0) {
		return nil
	}
	var wanted map[int64]bool // nil: all
	var last []manifest.LogLine
	if l.o.class != "" || l.o.item != "" {
		wanted = map[int64]bool{}
		for _, n := range l.items {
			wanted[l.number(n)] = true
		}
		err := l.r.failureLines(ctx, res, func(f manifest.FailureLine) error {
			n := l.number(f.Ordinal)
			if l.o.class == f.Class {
				wanted[n] = true
			}
			if wanted[n] && f.Detail != "" {
				for text := range strings.Lines(f.Detail) {
					last = append(last, manifest.LogLine{At: res.Task.EndTime, Items: []int64{n}, Text: strings.TrimRight(text, "\r\n")})
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	all, err := l.read(ctx, res)
	if err != nil {
		return err
	}
	chosen := all
	if wanted != nil {
		chosen = slices.DeleteFunc(slices.Clone(all), func(line manifest.LogLine) bool {
			return !slices.ContainsFunc(line.Items, func(n int64) bool { return wanted[n] })
		})
	}
	switch {
	case len(chosen) == 0 && len(last) > 0:
		chosen = last // the end of its stderr is kept with an item whose process died
	case len(chosen) == 0 && len(all) > 0:
		chosen = all
		l.whole++
	}
	if res.Log != nil {
		l.dropped += res.Log.Dropped
	}
	if wanted == nil {
		n := int64(0)
		for _, line := range chosen {
			if err := l.newLine(res.JobID, res.TaskID, line, &n); err != nil {
				return err
			}
		}
		return nil
	}
	for _, line := range chosen {
		if err := l.line(res.JobID, res.TaskID, line); err != nil {
			return err
		}
	}
	return nil
}

// lookAtWork prints what was written to the live logs of this machine, of tasks whose own
// log is not there yet.
func (l *logReader) lookAtWork(k *coordinator.Known) error {
	for _, dir := range local.ScratchDirs(l.scratchBase(), l.get) {
		if dir == "" {
			continue
		}
		if err := (worker.FileLogs{Dir: dir}).Logs(k.Plan.JobID, func(taskID, path string) error {
			if l.printed[taskID] || l.o.task != "" && l.o.task != taskID {
				return nil
			}
			l.atWork = true
			return l.grown(k.Plan.JobID, taskID, path)
		}); err != nil {
			return err
		}
	}
	return nil
}

// grown prints the whole lines that were added to a live log since it was read.
func (l *logReader) grown(jobID, taskID, path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the task has ended: its log is there by the next look
	}
	if err != nil {
		return err
	}
	defer f.Close()
	g := l.files[path]
	if g == nil {
		g = &grows{}
		l.files[path] = g
	}
	if _, err := f.Seek(g.at, io.SeekStart); err != nil {
		return err
	}
	for in := bufio.NewReader(f); ; {
		text, err := in.ReadBytes('\n')
		if err != nil {
			return nil // a line that is not whole yet is read again
		}
		g.at += int64(len(text))
		var line manifest.LogLine
		if json.Unmarshal(text, &line) != nil {
			return nil // not of ours
		}
		if err := l.newLine(jobID, taskID, line, &g.line); err != nil {
			return err
		}
	}
}

// newLine prints the n-th line of a task unless it was printed, and counts it.
func (l *logReader) newLine(jobID, taskID string, line manifest.LogLine, n *int64) error {
	s := l.said[taskID]
	if *n == 0 {
		text, err := json.Marshal(line)
		if err != nil {
			return err
		}
		if s == nil || s.first != string(text) {
			s = &shownLog{first: string(text)}
			l.said[taskID] = s
		}
	}
	if s == nil {
		return nil // a file that was cut under our eyes
	}
	at := *n
	if *n += max(line.Dropped, 1); *n <= s.next {
		return nil
	}
	if line.Dropped > 0 && at < s.next {
		line.Dropped = *n - s.next // the others were printed as they came
	}
	s.next = *n
	return l.line(jobID, taskID, line)
}

// read is the log of a task: its lines fit in memory, for a worker keeps no more.
func (l *logReader) read(ctx context.Context, res manifest.Result) (lines []manifest.LogLine, err error) {
	if res.Log == nil {
		return nil, nil
	}
	ref := manifest.Ref{Key: res.Log.File, SHA256: res.Log.SHA256, Count: res.Log.Lines - res.Log.Dropped}
	if res.Log.Dropped > 0 {
		ref.Count++ // the line that says so
	}
	err = manifest.ReadLines(ctx, l.r.manifests, res.JobID, ref, func(line manifest.LogLine) error {
		lines = append(lines, line)
		return nil
	})
	return lines, err
}

// cutMark is in the end of a line of which the worker kept only the beginning.
const cutMark = " ... (cut"

func (l *logReader) line(jobID, taskID string, line manifest.LogLine) error {
	text := line.Text
	if line.Log != nil {
		text = string(line.Log)
	}
	if line.Dropped > 0 {
		text = fmt.Sprintf("... %s left out here", count(line.Dropped, "line"))
	} else {
		l.lines++
		if i := strings.LastIndex(text, cutMark); i >= 0 && i >= len(text)-len(" ... (cut at 8 KiB)") {
			l.cut++
		}
	}
	switch {
	case l.json:
		return l.printJSON(loggedLine{"hayrick.log/v1", jobID, taskID, line})
	case l.o.raw && !l.outTTY:
		fmt.Fprintln(l.out, text) // as it was: whoever reads it is no terminal
		return nil
	case l.o.raw:
		l.print("%s", text)
		return nil
	}
	at := "            "
	if !line.At.IsZero() {
		at = line.At.Local().Format("15:04:05.000")
	}
	whose := ""
	switch n := len(line.Items); {
	case n == 1:
		whose = fmt.Sprintf("item %d  ", line.Items[0])
	case n > 1:
		whose = fmt.Sprintf("one of %d items  ", n)
	}
	l.print("%s  %s  %s%s", l.paintOut(dim, at), l.paintOut(bold, taskID), whose, text)
	return nil
}

// sum says what was printed, and what was not.
func (l *logReader) sum(k *coordinator.Known) {
	switch {
	case l.atWork && !l.o.follow:
		l.tell("tasks are at work: hayrick logs %s -f goes on", k.Plan.JobID)
	case l.lines == 0 && l.ended == 0 && l.o.task != "":
		l.tell("%s has not ended, and no worker on this machine has written a line of it; its log is there when it has", l.o.task)
	case l.lines == 0 && l.ended == 0:
		l.tell("no task of %s has ended yet: hayrick logs %s -f waits for them", k.Plan.JobID, k.Plan.JobID)
	case l.lines == 0 && l.o.task+l.o.item+l.o.class != "":
		l.tell("nothing was logged there; all lines: hayrick logs %s", k.Plan.JobID)
	case l.lines == 0:
		l.tell("the handler of %s wrote nothing to its log", k.Plan.JobID)
	}
	if l.whole > 0 {
		l.tell("of %s no line has the item: all lines are shown", count(l.whole, "task"))
	}
	if l.dropped > 0 {
		l.mustTell("%s of these tasks were left out when they ended: a task keeps the beginning and the end of its log", count(l.dropped, "line"))
	}
	if l.cut > 0 {
		l.mustTell("%s cut: a worker keeps the first 8 KiB of one", count(l.cut, "line"))
	}
}
