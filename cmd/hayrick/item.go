package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

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

	gone string // why its record could not be read
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

	key  string // as its failure has it
	gone string
}

const (
	endOK   = "ok"
	endOpen = "open"
)

// inspectItem shows the history of every item that ref means: several, where they
// have the same key.
func (c *cli) inspectItem(ctx context.Context, r *roles, k *coordinator.Known, ref string) error {
	found, gone, err := r.findItem(ctx, k, ref)
	if err != nil {
		return err
	}
	if len(found) > 1 {
		c.tell("%s have the key %s; what tells them apart is the ordinal", count(int64(len(found)), "item"), strings.TrimPrefix(ref, keyPrefix))
	}
	for i, ordinal := range found {
		if i == shownItems && !c.json {
			c.print("showing %d of %s; all of them: --json", i, count(int64(len(found)), "item"))
			break
		}
		h, err := r.history(ctx, k, ordinal)
		if err != nil {
			return err
		}
		gone = cmp.Or(gone, h.gone)
		if c.json {
			err = c.printJSON(h)
		} else {
			err = c.sayItem(h)
		}
		if err != nil {
			return err
		}
	}
	if gone != "" {
		c.tell("note: %s; what is shown is what the run wrote down", gone)
	}
	return nil
}

func (c *cli) sayItem(h itemHistory) error {
	c.print("%s  ordinal %d  %s", c.paintOut(bold, h.Key), h.Ordinal, h.State)
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

func (r *roles) history(ctx context.Context, k *coordinator.Known, ordinal int64) (itemHistory, error) {
	h := itemHistory{Schema: "hayrick.item/v1", JobID: k.Plan.JobID, Ordinal: k.Plan.InputOrdinal(ordinal), State: endOpen, Tasks: []itemTask{}}
	groups, generations, err := r.groupsOf(ctx, k)
	if err != nil {
		return h, err
	}
	for i, g := range groups {
		if g.Name == hayrick.GroupAggregation {
			break
		}
		m, err := r.manifests.Members(ctx, k.Plan.JobID, generations[i], g)
		if err != nil {
			return h, err
		}
		task, batch, ok, err := r.taskOf(ctx, m, ordinal)
		if err != nil {
			return h, err
		}
		if !ok {
			continue // it had its end before this group, and perhaps runs again in a later one
		}
		t, it, err := r.itemIn(ctx, k, g.Name, task, batch, ordinal)
		if err != nil {
			return h, err
		}
		if it == nil {
			continue
		}
		h.gone = cmp.Or(h.gone, t.gone)
		if h.Key == "" && it.Data != nil {
			h.Key = k.Plan.Label(*it, k.Definition.Input.Key)
		}
		h.Key = cmp.Or(h.Key, t.key)
		h.Tasks = append(h.Tasks, t)
	}
	h.Key = cmp.Or(h.Key, strconv.FormatInt(h.Ordinal, 10))
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

// itemIn is the item in one task; it is nil when the batch does not hold it. Of one
// whose input is gone only the ordinal is known.
func (r *roles) itemIn(ctx context.Context, k *coordinator.Known, group string, task manifest.BlockTask, batch manifest.Batch, ordinal int64) (itemTask, *manifest.BatchItem, error) {
	t := itemTask{Group: group, TaskID: task.TaskID, BatchID: batch.BatchID, End: endOpen}
	items, err := r.openBatch(ctx, k.Plan.JobID, batch)
	if t.gone = goneInput(batch, err); t.gone == "" && err != nil {
		return t, nil, err
	}
	var it *manifest.BatchItem
	for i := range items {
		if items[i].Ordinal == ordinal {
			it = &items[i]
		}
	}
	if t.gone != "" && ordinal < batch.FirstOrdinal+int64(batch.Items) {
		it = &manifest.BatchItem{Ordinal: ordinal}
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
			t.key = l.Key
			t.End, t.Class, t.Disposition, t.Message, t.Tries, t.Losses = stateFailed, l.Class, l.Disposition, l.Message, l.Tries, l.Losses
		}
		return nil
	})
	return t, it, err
}

func (r *roles) openBatch(ctx context.Context, jobID string, b manifest.Batch) ([]manifest.BatchItem, error) {
	in, err := r.store.OpenInput(ctx, jobID, b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", b.BatchID, err)
	}
	defer in.Close()
	return manifest.OpenBatch(b, in)
}

// goneInput says, if err means that, that the input of a batch is not what was
// planned; "" otherwise. What the store holds itself is no input: there it is damage.
func goneInput(b manifest.Batch, err error) string {
	switch {
	case strings.HasPrefix(b.Object, manifest.StoreScheme):
	case errors.Is(err, hayrick.ErrNotFound):
		return "the input " + b.Object + " is not there any more"
	case errors.Is(err, hayrick.ErrInputChanged):
		return "the input " + b.Object + " has changed since it was planned"
	}
	return ""
}

// keyPrefix before a key keeps it from being taken for an ordinal.
const keyPrefix = "key:"

// findItem is the ordinals that a person means: an ordinal, or a key, for which the
// whole input is read; gone says why not all of it could be. Where it could not, the
// key is looked for in what the run wrote down of its failures and retries.
func (r *roles) findItem(ctx context.Context, k *coordinator.Known, ref string) (found []int64, gone string, err error) {
	if n, err := strconv.ParseInt(ref, 10, 64); err == nil && n >= 0 && n < k.Plan.Items {
		return []int64{k.Plan.PlaceOf(n)}, "", nil
	}
	none := &hayrick.UserError{
		What: fmt.Sprintf("%s has no item %s", k.Plan.JobID, ref),
		Hint: fmt.Sprintf("name it by its ordinal, 0 to %d, or by its key; one that is a number as %s7", k.Plan.Items-1, keyPrefix), Exit: exitNotFound,
	}
	field := k.Definition.Input.Key
	if field == "" {
		return nil, "", none
	}
	key := strings.TrimPrefix(ref, keyPrefix)
	found, gone, err = r.findKey(ctx, k, k.Plan.Group, key)
	if err != nil || len(found) > 0 {
		return found, gone, err
	}
	if gone == "" {
		return nil, "", none
	}
	err = r.eachFailure(ctx, k, func(f failedItem) error {
		if f.Key == key {
			found = append(found, k.Plan.PlaceOf(f.Ordinal))
		}
		return nil
	})
	for _, p := range k.Retries {
		if err == nil && p.Group != nil {
			var more []int64
			more, _, err = r.findKey(ctx, k, *p.Group, key)
			found = append(found, more...)
		}
	}
	if err != nil {
		return nil, gone, err
	}
	slices.Sort(found)
	if found = slices.Compact(found); len(found) == 0 {
		return nil, gone, &hayrick.UserError{
			What: fmt.Sprintf("%s, and no item that failed has the key %s: it cannot be looked up", gone, key),
			Hint: fmt.Sprintf("put the file back as it was, or name the item by its ordinal, 0 to %d", k.Plan.Items-1), Exit: exitNotFound,
		}
	}
	return found, gone, nil
}

// findKey is the ordinals of the items of a group that have a key. gone says why not
// every batch could be read.
func (r *roles) findKey(ctx context.Context, k *coordinator.Known, group manifest.Group, key string) (found []int64, gone string, err error) {
	gone, err = r.eachItem(ctx, k, group, func(it manifest.BatchItem) {
		if k.Plan.Label(it, k.Definition.Input.Key) == key {
			found = append(found, it.Ordinal)
		}
	})
	return found, gone, err
}

// eachItem calls fn for every item of a group, in order. gone says why not every batch
// could be read.
func (r *roles) eachItem(ctx context.Context, k *coordinator.Known, group manifest.Group, fn func(manifest.BatchItem)) (gone string, err error) {
	m, err := r.manifests.Members(ctx, k.Plan.JobID, k.Generation, group)
	if err != nil {
		return "", err
	}
	type batch struct {
		items []manifest.BatchItem
		gone  string
	}
	for n := range m.Blocks() {
		index, err := m.Index(ctx, r.manifests, n)
		if err != nil {
			return "", err
		}
		for some := range slices.Chunk(index.Batches, readers) {
			batches, err := each(some, func(b manifest.Batch) (in batch, err error) {
				in.items, err = r.openBatch(ctx, k.Plan.JobID, b)
				if in.gone = goneInput(b, err); in.gone != "" {
					err = nil
				}
				return in, err
			})
			if err != nil {
				return "", err
			}
			for _, in := range batches {
				gone = cmp.Or(gone, in.gone)
				for _, it := range in.items {
					fn(it)
				}
			}
		}
	}
	return gone, nil
}
