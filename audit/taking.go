package audit

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"hayrick"
	"hayrick/manifest"
)

// taking is the first plan of a generation above 0 beside how the items stood before it:
// each that had not ended ok either runs again, and is in the batches of the group that
// the plan opens, or stays in the list it was in. What stands where comes in ordinal
// order, and so do the plan's lists.
type taking struct {
	*closing
	order    manifest.Control
	ordinals []int64
	lists0   map[string]string // of the job file before: what the order's lists are
	given    [2][]ordered      // lists of the plans before: permanent, exhausted
	records  map[int64]*groupRecords
	spans    []manifest.Group // of the generations before
}

// prior is how an item stood.
type prior struct {
	line   manifest.ListLine
	end    end                 // endOpen: it had none
	record *manifest.BatchItem // as its last task had it, where that is known
}

// takenUp checks the first plan of the generation at hand.
func (a *auditor) takenUp(ctx context.Context) error {
	c := a.openClosing(ctx, 0)
	defer c.stop()
	c.left = true // of the group that it closes it names what it found
	last, open := a.standing(a.n)
	t := &taking{closing: c, order: *a.opening, lists0: a.gens[a.n-1].definition.Retry.Lists, records: map[int64]*groupRecords{}}
	quiet := &look{a: a}
	var err error
	if t.ordinals, err = a.Store.OrdinalsOf(ctx, t.order); err != nil {
		return err // it was read a moment ago
	}
	for _, p := range last.retries {
		for kind, ref := range []*manifest.Ref{p.PermanentList, p.ExhaustedList} {
			if ref != nil {
				t.given[kind] = append(t.given[kind], orderedOf(ref.Key, listed(lines[manifest.ListLine](ctx, quiet, nil, ref), ref.Key), &c.stops))
			}
		}
	}
	t.spans = append(t.spans, a.submitted.Group)
	for _, g := range a.gens[:a.n] {
		for _, p := range g.retries {
			if p.Group != nil {
				t.spans = append(t.spans, *p.Group)
			}
		}
	}
	if open != nil {
		if err := t.leftOpen(ctx, quiet, *open, last); err != nil {
			return err
		}
	}
	const window = 1 << 16
	for at := int64(0); at < a.ledger.items; at += window {
		t.settle(ctx, quiet, at+window-1, nil)
	}
	if c.head != nil {
		a.broken(CodeChain, c.plan.key, "it names a result of %s, which is no task of %s", c.head.TaskID, c.plan.Closed)
	}
	c.blind = c.blind || quiet.blind // damage that was found where it lies
	if a.err == nil {
		a.err = quiet.err
	}
	c.finish(ctx)
	return a.err
}

// leftOpen goes through the group that the end of its generation left open. Its tasks
// have been walked there; here they tell which items had no end.
func (t *taking) leftOpen(ctx context.Context, quiet *look, g manifest.Group, of *generation) error {
	a := t.a
	blocks, index, err := a.groupRefs(ctx, quiet, g)
	if err != nil {
		return err
	}
	at := a.generation
	defer func() { a.generation = at }()
	for n := range blocks {
		block, ok := a.block(ctx, quiet, g.Name, n, blocks[n])
		if !ok {
			return errTorn
		}
		x, ok := a.index(ctx, quiet, g.Name, n, index[n])
		if !ok || len(x.Batches) != len(block.Tasks) {
			return errTorn
		}
		for i, task := range block.Tasks {
			e := taskEnd{unit: unit{group: g.Name, task: task, batch: x.Batches[i], ref: t.result(task.TaskID)}}
			a.generation = of
			quiet.readBatch(ctx, &e)
			open, last, known := quiet.unfinished(ctx, &e)
			a.generation = at
			if !known {
				t.blind = true
			}
			retried := len(open)
			t.settle(ctx, quiet, last, open)
			if e.ref.TaskID == "" {
				continue
			}
			if known && retried != e.ref.Retried {
				a.broken(CodeTotal, t.plan.key, "it says %d retried items of %s, there are %d", e.ref.Retried, task.TaskID, retried)
			}
			if retried > 0 {
				t.tasks++
				if len(t.failed) < manifest.InlineList {
					t.failed = append(t.failed, task.TaskID)
				}
			}
		}
	}
	return nil
}

// unfinished is the items of a task that have no end: those that failed, and all where
// there is no result. last is the highest ordinal of the batch.
func (l *look) unfinished(ctx context.Context, e *taskEnd) (open map[int64]prior, last int64, known bool) {
	b := e.batch
	last = b.FirstOrdinal + int64(b.Items) - 1
	if b.Retry {
		if e.items == nil {
			return nil, last, false
		}
		last = e.items[len(e.items)-1].Ordinal
	}
	item := func(i int) *manifest.BatchItem {
		if e.items == nil {
			return nil
		}
		return &e.items[i]
	}
	open = map[int64]prior{}
	if e.ref.TaskID == "" {
		for i := range b.Items {
			p := prior{record: item(i), line: manifest.ListLine{Ordinal: b.FirstOrdinal + int64(i), Class: hayrick.ClassUnfinished}}
			if p.record != nil {
				p.line.Ordinal, p.line.Tries, p.line.Losses = p.record.Ordinal, p.record.Tries, p.record.Losses
			}
			open[p.line.Ordinal] = p
		}
		return open, last, true
	}
	rel := l.a.job.Rel(l.a.job.Done(e.task.TaskID))
	res, _, ok := record[manifest.Result](ctx, l, rel, e.ref.SHA256, manifest.SchemaResult)
	if !ok {
		return nil, last, false
	}
	e.res = res
	if res.Status == string(hayrick.TaskFailed) {
		known = l.failWhole(rel, e)
	} else {
		known = l.readFailures(ctx, rel, e)
	}
	for _, f := range e.failed {
		p := prior{line: manifest.ListLine{Ordinal: f.Ordinal, Class: f.Class, Tries: f.Tries, Losses: f.Losses}}
		for i := range e.items {
			if e.items[i].Ordinal == f.Ordinal {
				p.record = &e.items[i]
			}
		}
		open[f.Ordinal] = p
	}
	return open, last, known
}

// settle holds what the plan says of the items up to an ordinal against how they stood,
// and takes them out of stood.
func (t *taking) settle(ctx context.Context, quiet *look, last int64, stood map[int64]prior) {
	if stood == nil {
		stood = map[int64]prior{}
	}
	for kind := range t.given {
		for i := range t.given[kind] {
			for _, v := range t.given[kind][i].upTo(quiet, last) {
				stood[v.line.Ordinal] = prior{line: v.line, end: []end{endPermanent, endExhausted}[kind]}
			}
		}
	}
	for i := range t.lists {
		for _, v := range t.lists[i].upTo(t.a.look, last) {
			p, there := stood[v.line.Ordinal]
			if !there {
				if !t.blind && !quiet.blind {
					t.a.broken(CodeItem, v.list, "item %d had ended ok, or is listed twice", v.line.Ordinal)
				}
				continue
			}
			delete(stood, v.line.Ordinal)
			if i == listRetried {
				t.takes(ctx, quiet, p, v)
			} else {
				t.keeps(p, v, i)
			}
		}
	}
	for _, ordinal := range slices.Sorted(maps.Keys(stood)) {
		if !t.blind && !quiet.blind {
			t.a.broken(CodeItem, t.plan.key, "item %d had not ended ok, and neither runs again nor is listed", ordinal)
		}
	}
}

// asked says that the order takes an item that was given up.
func (t *taking) asked(p prior) bool {
	exhausted := p.end == endExhausted
	return t.order.Takes(p.line, exhausted, manifest.ListName(t.lists0, p.line.Class, exhausted), t.ordinals)
}

// keeps checks an item that stays given up.
func (t *taking) keeps(p prior, v verdict, list int) {
	bad := func(format string, args ...any) {
		t.a.broken(CodeItem, v.list, "item %d is listed: "+format, append([]any{v.line.Ordinal}, args...)...)
	}
	want := []end{endPermanent, endExhausted}[list]
	switch {
	case p.end == endOpen:
		bad("it had no end when the generation before had")
	case p.end != want:
		bad("as %s, and it was %s", want, p.end)
	case v.line != p.line:
		bad("otherwise than before")
	case t.asked(p):
		bad("order %d runs it again", t.order.N)
	}
	t.ended[list]++
	name := listName(t.a.definition.Retry.Lists, v.line.Class)
	if list == listExhausted {
		name = "exhausted"
	}
	s := t.a.lists[name]
	v.line.Ordinal = t.a.plan.InputOrdinal(v.line.Ordinal)
	s.add(v.line)
	t.a.lists[name] = s
}

// takes checks an item that runs again, and takes its end back.
func (t *taking) takes(ctx context.Context, quiet *look, p prior, v verdict) {
	bad := func(format string, args ...any) {
		t.a.broken(CodeItem, v.list, "item %d runs again: "+format, append([]any{v.line.Ordinal}, args...)...)
	}
	if p.record == nil && p.end != endOpen {
		p.record = t.recordOf(ctx, quiet, p.line)
	}
	switch {
	case p.end != endOpen && !t.asked(p):
		bad("order %d does not take it", t.order.N)
	case v.item.Tries != p.line.Tries || v.item.Losses != p.line.Losses:
		bad("with %d tries and %d losses; it had %d and %d", v.item.Tries, v.item.Losses, p.line.Tries, p.line.Losses)
	case len(v.item.Classes) != 0 || v.item.Infra != 0:
		bad("with the classes %v, %d of them infra, of another generation", v.item.Classes, v.item.Infra)
	case p.record != nil && !bytes.Equal(v.item.Data, p.record.Data):
		bad("with another record than it had")
	}
	if p.end != endOpen && !t.a.ledger.reopen(v.line.Ordinal, p.end) {
		bad("it was %s, and ended otherwise", p.end)
	}
	t.retried++
	t.classes[p.line.Class]++
}

// groupRecords is the batch of a group that was read last.
type groupRecords struct {
	block int
	index manifest.Index
	task  int64
	items []manifest.BatchItem
}

// recordOf is the item as its last task had it; nil where that cannot be read, which is
// found elsewhere, or the input was not to be.
func (t *taking) recordOf(ctx context.Context, quiet *look, line manifest.ListLine) *manifest.BatchItem {
	n, ok := manifest.TaskNumber(line.TaskID)
	if !ok {
		return nil
	}
	for _, g := range t.spans {
		if n < g.FirstTask || n >= g.FirstTask+g.Tasks {
			continue
		}
		r := t.records[g.FirstTask]
		if r == nil {
			r = &groupRecords{block: -1, task: -1}
			t.records[g.FirstTask] = r
		}
		at := n - g.FirstTask
		if block := int(at / manifest.BlockTasks); r.block != block {
			_, index, err := t.a.groupRefs(ctx, quiet, g)
			if err != nil || block >= len(index) {
				return nil
			}
			if r.index, ok = t.a.index(ctx, quiet, g.Name, block, index[block]); !ok {
				return nil
			}
			r.block = block
		}
		if r.task != n {
			i := int(at % manifest.BlockTasks)
			if i >= len(r.index.Batches) {
				return nil
			}
			e := taskEnd{unit: unit{batch: r.index.Batches[i]}}
			quiet.readBatch(ctx, &e)
			r.task, r.items = n, e.items
		}
		if i := slices.IndexFunc(r.items, func(it manifest.BatchItem) bool { return it.Ordinal == line.Ordinal }); i >= 0 {
			return &r.items[i]
		}
		return nil
	}
	return nil
}

// openLeft opens the first plan of a later generation to read beside the group that the
// end of this one left open: which results it found there. The plan itself is checked
// in its own generation.
func (a *auditor) openLeft(ctx context.Context, p *retryPlan) *closing {
	c := &closing{a: a, plan: *p, left: true}
	quiet := &look{a: a}
	if p.ResultsRef != nil && !quiet.list(ctx, *p.ResultsRef, func(sha string) string { return a.job.RetryList(p.n, "results", sha) }) {
		c.blind = true
		return c
	}
	c.results = streamOf(lines(ctx, quiet, p.Results, p.ResultsRef), &c.stops)
	return c
}

// found is what the plan names of a task; nothing where it found no result.
func (c *closing) found(task string) (none manifest.ResultRef) {
	if c.head == nil {
		r, more := c.results.next()
		if !more {
			return none
		}
		c.head = &r
	}
	if c.head.TaskID != task {
		return none
	}
	r := *c.head
	c.head = nil
	return r
}
