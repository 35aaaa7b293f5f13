package retryplanner

import (
	"context"
	"fmt"

	"hayrick"
	"hayrick/manifest"
)

// records finds the records of items by the task that had them last. Items are asked
// for in ordinal order, and so each group's batches are read once, one after the other:
// of each group one index and one batch are in memory.
type records struct {
	c      *closing
	groups []*recordsOf
}

// recordsOf is how far the batches of a group have been read.
type recordsOf struct {
	group      manifest.Group
	generation int
	members    *manifest.Members // nil until it is asked for
	block      int               // that index is of; -1 = none
	index      manifest.Index
	task       int64 // whose batch items is; -1 = none
	items      map[int64]manifest.BatchItem
}

func (c *closing) newRecords(h manifest.Past, p manifest.Plan) *records {
	r := &records{c: c}
	groups, generations := h.Groups(p)
	for i, g := range groups {
		r.groups = append(r.groups, &recordsOf{group: g, generation: generations[i], block: -1, task: -1})
	}
	return r
}

// find reads the item of an ordinal as the batch of a task has it. ErrInputChanged: the
// input is not what was planned.
func (r *records) find(ctx context.Context, task string, ordinal int64) (manifest.BatchItem, error) {
	n, ok := manifest.TaskNumber(task)
	for _, g := range r.groups {
		if ok && n >= g.group.FirstTask && n < g.group.FirstTask+g.group.Tasks {
			return g.find(ctx, r.c, n, ordinal)
		}
	}
	return manifest.BatchItem{}, fmt.Errorf("item %d is listed of %s, which no plan has: %w", ordinal, task, hayrick.ErrCorrupt)
}

func (g *recordsOf) find(ctx context.Context, c *closing, n, ordinal int64) (manifest.BatchItem, error) {
	if g.task != n {
		if err := g.open(ctx, c, n); err != nil {
			return manifest.BatchItem{}, err
		}
	}
	it, ok := g.items[ordinal]
	if !ok {
		return it, fmt.Errorf("item %d is listed of %s, whose batch has it not: %w", ordinal, manifest.TaskID(n), hayrick.ErrCorrupt)
	}
	return it, nil
}

func (g *recordsOf) open(ctx context.Context, c *closing, n int64) (err error) {
	if g.members == nil {
		if g.members, err = c.Store.Members(ctx, c.jobID, g.generation, g.group); err != nil {
			return gone(err)
		}
	}
	at := n - g.group.FirstTask
	if block := int(at / manifest.BlockTasks); block != g.block {
		if g.index, err = g.members.Index(ctx, c.Store, block); err != nil {
			return gone(err)
		}
		g.block = block
	}
	i := int(at % manifest.BlockTasks)
	if i >= len(g.index.Batches) {
		return fmt.Errorf("block %d of %s has no batch %d: %w", g.block, g.group.Name, i, hayrick.ErrCorrupt)
	}
	items, err := c.openBatch(ctx, g.index.Batches[i])
	if err != nil {
		return err
	}
	g.task, g.items = n, byOrdinal(items)
	return nil
}
