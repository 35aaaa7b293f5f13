package audit

import (
	"context"
	"fmt"
	"math"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// maxItems bounds the ledger: four gigabytes.
const maxItems = 1 << 34

// walkGroups walks the worker groups in the order in which plans open them, each
// beside the plan that closed it.
func (a *auditor) walkGroups(ctx context.Context) error {
	group, opener, first := &a.plan.Group, a.job.Rel(a.job.Plan()), 0
	if a.byBatch == nil {
		a.byBatch = map[string]int64{}
	}
	if a.n > 0 {
		if group = nil; len(a.retries) > 0 {
			if err := a.takenUp(ctx); err != nil {
				return err
			}
			group, opener, first = a.retries[0].Group, a.retries[0].key, 1
		}
	}
	for i := first; group != nil; i++ {
		var c *closing
		if i < len(a.retries) {
			c = a.openClosing(ctx, i)
		} else if p := a.closer(a.n); p != nil {
			c = a.openLeft(ctx, p)
		}
		err := a.walkGroup(ctx, *group, opener, c)
		if c != nil {
			c.stop()
		}
		if err != nil {
			return err
		}
		group = nil
		if c != nil && !c.left {
			group, opener = c.plan.Group, c.plan.key
		}
	}
	if in, more := a.pinned[a.n].next(); more {
		a.broken(CodeChain, a.aggKey(), "it merges %s, which is no task of the plans", in.TaskID)
	}
	return nil
}

// walkGroup reads every task of a group, in order.
func (a *auditor) walkGroup(ctx context.Context, g manifest.Group, opener string, c *closing) error {
	blocks, index, err := a.groupRefs(ctx, a.look, g)
	if err != nil {
		return err
	}
	switch {
	case g.Phase != string(hayrick.PhaseOf(g.Name)):
		a.broken(CodeChain, opener, "%s is of phase %q", g.Name, g.Phase)
	case g.FirstTask < a.tasks || g.FirstTask > a.tasks+a.voidTasks:
		a.lost(CodeChain, opener, "%s begins with task %d, the groups before it have %d", g.Name, g.FirstTask, a.tasks)
		return errTorn
	case len(index) != len(blocks):
		a.lost(CodeChain, opener, "%s has %d blocks and %d indexes", g.Name, len(blocks), len(index))
		return errTorn
	}
	a.tasks = g.FirstTask
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	cover := coverage{a: a, group: g.Name, number: g.FirstTask, reading: a.startReading(ctx, g.Name, &stops)}
	var items, tasks int64
	for n := range blocks {
		block, ok := a.block(ctx, a.look, g.Name, n, blocks[n])
		if !ok {
			return errTorn
		}
		x, ok := a.index(ctx, a.look, g.Name, n, index[n])
		if !ok {
			return errTorn
		}
		a.checked.Data += 2
		if block.Role != string(hayrick.RoleWorker) || len(x.Batches) != len(block.Tasks) {
			a.lost(CodeChain, blocks[n].Key, "it has %d tasks of role %s for %d batches", len(block.Tasks), block.Role, len(x.Batches))
			return errTorn
		}
		for lo := 0; lo < len(block.Tasks); lo += 2 * readers {
			hi := min(lo+2*readers, len(block.Tasks))
			units := make([]unit, hi-lo)
			for i := range units {
				u := unit{group: g.Name, task: block.Tasks[lo+i], batch: x.Batches[lo+i]}
				if err := cover.next(ctx, index[n].Key, u.task, u.batch); err != nil {
					return err
				}
				if c != nil {
					u.ref = c.result(u.task.TaskID)
					u.closed, u.void = true, c.left && !c.blind && u.ref.TaskID == ""
				}
				items += int64(u.batch.Items)
				tasks++
				units[i] = u
			}
			if err := a.walkTasks(ctx, units, c); err != nil {
				return err
			}
			a.progress(g.Name, tasks, g.Tasks)
		}
	}
	cover.end(ctx)
	if tasks != g.Tasks || items != g.Items {
		a.broken(CodeTotal, opener, "it opens %s with %d tasks and %d items, its blocks have %d and %d", g.Name, g.Tasks, g.Items, tasks, items)
	}
	if c != nil && !c.left {
		c.finish(ctx)
	}
	return a.err
}

// walkTasks reads some consecutive tasks at once and takes them into account in
// order.
func (a *auditor) walkTasks(ctx context.Context, units []unit, c *closing) error {
	ends := make([]taskEnd, len(units))
	if err := a.each(len(units), func(i int, l *look) { ends[i] = l.readTask(ctx, units[i]) }); err != nil {
		return err
	}
	for i := range ends {
		a.tasks++
		a.account(&ends[i])
		if c != nil && !c.left {
			c.judge(&ends[i])
		}
	}
	return a.err
}

// groupRefs reads the lists of a group.
func (a *auditor) groupRefs(ctx context.Context, l *look, g manifest.Group) (blocks []manifest.BlockRef, index []manifest.IndexRef, err error) {
	if g.BlocksRef != nil && !l.list(ctx, *g.BlocksRef, func(sha string) string {
		return a.job.Abs("groups/" + g.Name + "/blocks-" + manifest.Short(sha) + ".jsonl")
	}) || g.IndexRef != nil && !l.list(ctx, *g.IndexRef, func(sha string) string {
		return a.job.Abs("batches/" + g.Name + "/indexes-" + manifest.Short(sha) + ".jsonl")
	}) {
		return nil, nil, errTorn
	}
	for r := range lines(ctx, l, g.Blocks, g.BlocksRef) {
		blocks = append(blocks, r)
	}
	for r := range lines(ctx, l, g.Index, g.IndexRef) {
		index = append(index, r)
	}
	if l.err != nil {
		return nil, nil, l.err
	}
	return blocks, index, nil
}

// block reads the n-th block file of a group.
func (a *auditor) block(ctx context.Context, l *look, group string, n int, ref manifest.BlockRef) (b manifest.Block, ok bool) {
	if want := a.job.Rel(a.job.Block(group, n, ref.SHA256)); ref.Key != want {
		l.lost(CodeKey, ref.Key, "block %d of %s with this digest lies under %s", n, group, want)
		return b, false
	}
	b, _, ok = record[manifest.Block](ctx, l, ref.Key, ref.SHA256, manifest.SchemaBlock)
	if ok && (b.JobID != string(a.job) || b.Group != group || b.Block != n || len(b.Tasks) != ref.Tasks) {
		l.lost(CodeForm, ref.Key, "it is block %d of %s of %s with %d tasks", b.Block, b.Group, b.JobID, len(b.Tasks))
		return b, false
	}
	return b, ok
}

// index reads the n-th index object of a group.
func (a *auditor) index(ctx context.Context, l *look, group string, n int, ref manifest.IndexRef) (x manifest.Index, ok bool) {
	if want := a.job.Rel(a.job.Index(group, n, ref.SHA256)); ref.Key != want {
		l.lost(CodeKey, ref.Key, "index %d of %s with this digest lies under %s", n, group, want)
		return x, false
	}
	x, _, ok = record[manifest.Index](ctx, l, ref.Key, ref.SHA256, manifest.SchemaIndex)
	if ok && (x.JobID != string(a.job) || x.Group != group || x.Block != n || len(x.Batches) != ref.Batches) {
		l.lost(CodeForm, ref.Key, "it is index %d of %s of %s with %d batches", x.Block, x.Group, x.JobID, len(x.Batches))
		return x, false
	}
	return x, ok
}

// coverage checks that the batches of a group follow each other without gap or
// overlap: those of the input in ordinals and bytes, those of a retry in the bytes of
// its segments.
type coverage struct {
	a     *auditor
	group string

	reading  *reading // of the initial group
	number   int64    // of the next task
	object   string   // that the last batch lies in
	at, line int64    // where that batch ended
	segments int
}

// next takes the next batch of the group. index is the object that lists it.
func (c *coverage) next(ctx context.Context, index string, t manifest.BlockTask, b manifest.Batch) error {
	task, batch := manifest.TaskID(c.number), manifest.BatchID(c.number)
	c.number++
	bad := func(format string, args ...any) error {
		c.a.lost(CodeBatch, index, b.BatchID+": "+format, args...)
		return errTorn
	}
	switch {
	case t.TaskID != task || t.BatchID == nil || *t.BatchID != batch || b.BatchID != batch || t.Merge != nil:
		return bad("it should be %s, of %s", batch, task)
	case b.Items < 1 || b.Length < int64(b.Items) || b.Offset < 0 || b.Offset > math.MaxInt64-b.Length:
		return bad("%d items in %d bytes at %d", b.Items, b.Length, b.Offset)
	}
	if c.group == hayrick.GroupInitial {
		return c.ofInput(b, bad)
	}
	return c.ofSegment(ctx, b, bad)
}

// ofInput gives the items of the job their places in the ledger.
func (c *coverage) ofInput(b manifest.Batch, bad func(string, ...any) error) error {
	moved, ok := c.reading.to(b.Object)
	if !ok {
		return bad("%s is no input of the plan, or not in its place", b.Object)
	}
	if moved {
		c.object, c.at, c.line = b.Object, 0, 1
	}
	stored := strings.HasPrefix(b.Object, manifest.StoreScheme)
	switch {
	case !stored && b.Version != c.reading.in.Pin.Version || stored && b.Version != "":
		return bad("it is of version %q of %s, the plan has %q", b.Version, b.Object, c.reading.in.Pin.Version)
	case b.Retry:
		return bad("it is of a retry")
	case b.FirstOrdinal != c.a.ledger.items:
		return bad("its first item is %d, the batches before it end with item %d", b.FirstOrdinal, c.a.ledger.items-1)
	case b.Offset < c.at || b.FirstLine < c.line:
		return bad("it begins at byte %d, line %d; the batch before it ends at byte %d, line %d", b.Offset, b.FirstLine, c.at, c.line-1)
	case c.a.ledger.items+int64(b.Items) > maxItems:
		return fmt.Errorf("more than %d items", int64(maxItems))
	}
	c.at, c.line = b.Offset+b.Length, b.FirstLine+int64(b.Items)
	c.reading.items += int64(b.Items)
	c.a.ledger.grow(int64(b.Items))
	return nil
}

func (c *coverage) ofSegment(ctx context.Context, b manifest.Batch, bad func(string, ...any) error) error {
	if b.Object != c.object {
		c.end(ctx)
		if want := fmt.Sprintf("%sbatches/%s/seg-%d-", manifest.StoreScheme, c.group, c.segments); !strings.HasPrefix(b.Object, want) {
			return bad("it lies in %s, not in %s...", b.Object, want)
		}
		c.object, c.at, c.line = b.Object, 0, 1
		c.segments++
	}
	if !b.Retry || b.Offset != c.at || b.FirstLine != c.line {
		return bad("it begins at byte %d, line %d; the batch before it ends at byte %d, line %d", b.Offset, b.FirstLine, c.at, c.line-1)
	}
	c.at, c.line = b.Offset+b.Length, b.FirstLine+int64(b.Items)
	return nil
}

// end checks the segment that the last batch lies in: its batches are all of it; and
// the inputs behind the last batch, which have none.
func (c *coverage) end(ctx context.Context) {
	if c.reading != nil {
		c.reading.end()
	}
	rel, segment := strings.CutPrefix(c.object, manifest.StoreScheme)
	if c.group == hayrick.GroupInitial || !segment {
		return
	}
	d, ok := c.a.digest(ctx, rel)
	if !ok {
		return
	}
	want := c.a.job.Rel(c.a.job.Segment(c.group, c.segments-1, d.sha))
	switch {
	case rel != want:
		c.a.broken(CodeDigest, rel, "with its bytes it would be %s", want)
	case d.size != c.at:
		c.a.broken(CodeDigest, rel, "it has %d bytes, its batches %d", d.size, c.at)
	default:
		c.a.checked.Data++
	}
}
