package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
)

// itemHistory is what happened to one item, group by group.
type itemHistory struct {
	Schema  string     `json:"schema"`
	JobID   string     `json:"job_id"`
	Ordinal int64      `json:"ordinal"`
	Key     string     `json:"key"`
	State   string     `json:"state"` // ok, permanent, exhausted, or open: it has no end yet
	Tasks   []itemTask `json:"tasks"`
}

// itemTask is the item in one task.
type itemTask struct {
	Group       string        `json:"group"`
	TaskID      string        `json:"task_id"`
	BatchID     string        `json:"batch_id"`
	End         string        `json:"end"` // ok, failed, or open: the task has not ended
	Attempt     string        `json:"attempt,omitempty"`
	Worker      string        `json:"worker,omitempty"`
	StartTime   manifest.Time `json:"start_time"`
	EndTime     manifest.Time `json:"end_time"`
	Class       string        `json:"class,omitempty"`
	Disposition string        `json:"disposition,omitempty"`
	Message     string        `json:"message,omitempty"`
	Tries       int           `json:"tries,omitempty"` // of the item so far
	Losses      int           `json:"losses,omitempty"`
	TaskRows    int64         `json:"task_rows"` // of all items of the task
}

const (
	endOK   = "ok"
	endOpen = "open"
)

func (c *cli) inspectItem(ctx context.Context, r *roles, k *coordinator.Known, ref string) error {
	h, err := r.history(ctx, k, ref)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(h)
	}
	fmt.Fprintf(c.out, "%s  ordinal %d  %s\n", c.paintOut(bold, h.Key), h.Ordinal, h.State)
	rows := [][]string{{"GROUP", "TASK", "WORKER", "STARTED", "TOOK", "END", "TRIES", "MESSAGE"}}
	for _, t := range h.Tasks {
		row := []string{t.Group, t.TaskID, "-", "-", "-", t.End, "-", ""}
		if t.End != endOpen {
			row[2], row[3], row[4] = t.Worker, clock(t.StartTime.Time), ago(t.EndTime.Sub(t.StartTime.Time))
		}
		if t.Class != "" {
			row[5], row[6], row[7] = t.Class+" ("+t.Disposition+")", strconv.Itoa(t.Tries), t.Message
		}
		rows = append(rows, row)
	}
	return c.table(rows)
}

func (r *roles) history(ctx context.Context, k *coordinator.Known, ref string) (itemHistory, error) {
	h := itemHistory{Schema: "hayrick.item/v1", JobID: k.Plan.JobID, State: endOpen, Tasks: []itemTask{}}
	var err error
	if h.Ordinal, err = r.findItem(ctx, k, ref); err != nil {
		return h, err
	}
	h.Key = ref
	for i, g := range groupsOf(k) {
		if g.Name == hayrick.GroupAggregation {
			break
		}
		m, err := r.manifests.Members(ctx, k.Plan.JobID, k.Generation, g)
		if err != nil {
			return h, err
		}
		task, batch, ok, err := r.taskOf(ctx, m, h.Ordinal)
		if err != nil {
			return h, err
		}
		if !ok {
			break // it had its end before this group
		}
		t, it, err := r.itemIn(ctx, k, g.Name, task, batch, h.Ordinal)
		if err != nil {
			return h, err
		}
		if it == nil {
			break
		}
		if i == 0 {
			h.Key = it.Label(k.Definition.Input.Key)
		}
		h.Tasks = append(h.Tasks, t)
	}
	if n := len(h.Tasks); n > 0 && h.Tasks[n-1].End == endOK {
		h.State = endOK
		return h, nil
	}
	err = r.eachFailure(ctx, k, func(f failedItem) error {
		if f.Ordinal == h.Ordinal && f.State != stateFailed {
			h.State = f.State
		}
		return nil
	})
	return h, err
}

// taskOf finds the task of a group whose batch may hold the item.
func (r *roles) taskOf(ctx context.Context, m *manifest.Members, ordinal int64) (task manifest.BlockTask, batch manifest.Batch, ok bool, err error) {
	for n := range m.Blocks() {
		index, err := m.Index(ctx, r.manifests, n)
		if err != nil {
			return task, batch, false, err
		}
		if len(index.Batches) == 0 || index.Batches[0].FirstOrdinal > ordinal {
			break
		}
		block, err := m.Block(ctx, r.manifests, n)
		if err != nil {
			return task, batch, false, err
		}
		for i, b := range index.Batches { // by first ordinal, ascending
			if b.FirstOrdinal <= ordinal {
				task, batch, ok = block.Tasks[i], b, true
			}
		}
	}
	return task, batch, ok, nil
}

// itemIn is the item in one task; it is nil when the batch does not hold it.
func (r *roles) itemIn(ctx context.Context, k *coordinator.Known, group string, task manifest.BlockTask, batch manifest.Batch, ordinal int64) (itemTask, *manifest.BatchItem, error) {
	t := itemTask{Group: group, TaskID: task.TaskID, BatchID: batch.BatchID, End: endOpen}
	items, err := r.openBatch(ctx, k.Plan.JobID, batch)
	if err != nil {
		return t, nil, err
	}
	var it *manifest.BatchItem
	for i := range items {
		if items[i].Ordinal == ordinal {
			it = &items[i]
		}
	}
	if it == nil {
		return t, nil, nil
	}
	res, _, err := r.manifests.Result(ctx, k.Plan.JobID, task.TaskID)
	if errors.Is(err, hayrick.ErrNotFound) {
		return t, it, nil
	}
	if err != nil {
		return t, it, err
	}
	t.End, t.Attempt, t.Worker, t.TaskRows = endOK, res.Attempt, res.Task.Worker, res.RowCount
	t.StartTime, t.EndTime = res.Task.StartTime, res.Task.EndTime
	if res.Task.Error != nil { // the batch as a whole could not run
		t.End, t.Class, t.Message, t.Disposition, t.Tries = stateFailed, res.Task.Error.Class, res.Task.Error.Message, string(hayrick.Infra), it.Tries
	}
	err = r.failureLines(ctx, res, func(l manifest.FailureLine) error {
		if l.Ordinal == ordinal {
			t.End, t.Class, t.Disposition, t.Message, t.Tries, t.Losses = stateFailed, l.Class, l.Disposition, l.Message, l.Tries, l.Losses
		}
		return nil
	})
	return t, it, err
}

func (r *roles) openBatch(ctx context.Context, jobID string, b manifest.Batch) ([]manifest.BatchItem, error) {
	in, err := r.store.OpenInput(ctx, jobID, b.Object, b.Offset, b.Length)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", b.BatchID, err)
	}
	defer in.Close()
	return manifest.OpenBatch(b, in)
}

// findItem is the ordinal that a person means: an ordinal, or a key, for which the
// whole input is read.
func (r *roles) findItem(ctx context.Context, k *coordinator.Known, ref string) (int64, error) {
	if n, err := strconv.ParseInt(ref, 10, 64); err == nil && n >= 0 && n < k.Plan.Items {
		return n, nil
	}
	none := &hayrick.UserError{What: fmt.Sprintf("%s has no item %s", k.Plan.JobID, ref), Hint: fmt.Sprintf("name it by its ordinal, 0 to %d, or by its key", k.Plan.Items-1), Exit: exitNotFound}
	field := k.Definition.Input.Key
	if field == "" {
		return 0, none
	}
	m, err := r.manifests.Members(ctx, k.Plan.JobID, k.Generation, k.Plan.Group)
	if err != nil {
		return 0, err
	}
	for n := range m.Blocks() {
		index, err := m.Index(ctx, r.manifests, n)
		if err != nil {
			return 0, err
		}
		found, err := each(index.Batches, func(b manifest.Batch) (*int64, error) {
			items, err := r.openBatch(ctx, k.Plan.JobID, b)
			if err != nil {
				return nil, err
			}
			for _, it := range items {
				if it.Label(field) == ref {
					return &it.Ordinal, nil
				}
			}
			return nil, nil
		})
		if err != nil {
			return 0, err
		}
		for _, o := range found {
			if o != nil {
				return *o, nil
			}
		}
	}
	return 0, none
}
