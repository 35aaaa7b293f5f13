package audit

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// The bounds that a retry plan keeps to.
const (
	// spareGroups: a generation runs at most retry.passes and so many retry groups.
	spareGroups = 3
	// inlineClasses: a plan counts so many classes one by one.
	inlineClasses = 1000
)

// closing is a closed group beside the plan that closed it. The plan puts each failed
// item into one of three lists: permanent, exhausted, or the batches of the group it
// opens. All are sorted by ordinal, as are the tasks, so that they are joined as they
// stream by.
type closing struct {
	a       *auditor
	plan    retryPlan
	groups  int // retry groups that had run before
	results stream[manifest.ResultRef]
	lists   [3]ordered

	// left: the plan is that of a later generation, and closes what the end of this one
	// left open: it names only the results that it found.
	left bool
	head *manifest.ResultRef // the next of those

	// blind: a list or batch is damaged, which has been found; what is missing from
	// there says nothing.
	blind bool
	stops []func()

	last    int64 // the highest ordinal of the tasks so far
	retried int64
	ended   [2]int64 // permanent, exhausted
	tasks   int64    // with an item that is retried
	failed  []string // the first of those
	classes map[string]int64
	rest    int64 // retried items of classes beyond inlineClasses
}

// The lists of a closing.
const (
	listPermanent = iota
	listExhausted
	listRetried
)

// verdict is what a plan says of one failed item: an entry of one of its lists.
type verdict struct {
	list string // the object that says so
	line manifest.ListLine
	item *manifest.BatchItem // of a retry batch
}

func (a *auditor) openClosing(ctx context.Context, i int) *closing {
	c := &closing{a: a, plan: a.retries[i], groups: i, last: -1, classes: map[string]int64{}}
	p, n := &c.plan, c.plan.n
	refs := []struct {
		ref  *manifest.Ref
		name string
	}{{p.PermanentList, "permanent"}, {p.ExhaustedList, "exhausted"}, {p.ResultsRef, "results"}}
	for _, r := range refs {
		if r.ref != nil && !a.list(ctx, *r.ref, func(sha string) string { return a.job.RetryList(n, r.name, sha) }) {
			c.blind = true
		}
	}
	if c.blind {
		return c
	}
	c.results = streamOf(lines(ctx, a.look, p.Results, p.ResultsRef), &c.stops)
	c.results.key = p.key
	for at, ref := range []*manifest.Ref{p.PermanentList, p.ExhaustedList} {
		if ref != nil {
			c.lists[at] = orderedOf(ref.Key, listed(lines[manifest.ListLine](ctx, a.look, nil, ref), ref.Key), &c.stops)
		}
	}
	if p.Group != nil {
		c.lists[listRetried] = orderedOf(p.key, c.batches(ctx, *p.Group), &c.stops)
	}
	return c
}

func listed(in iter.Seq[manifest.ListLine], key string) iter.Seq[verdict] {
	return func(yield func(verdict) bool) {
		for l := range in {
			if !yield(verdict{list: key, line: l}) {
				return
			}
		}
	}
}

// batches yields the items of the group that the plan opens. Damage in there is found
// when that group is walked; here it ends the list.
func (c *closing) batches(ctx context.Context, g manifest.Group) iter.Seq[verdict] {
	return func(yield func(verdict) bool) {
		quiet := &look{a: c.a}
		defer func() {
			c.blind = c.blind || quiet.blind
			if c.a.err == nil {
				c.a.err = quiet.err
			}
		}()
		_, index, err := c.a.groupRefs(ctx, quiet, g)
		if err != nil {
			return
		}
		for n := range index {
			x, ok := c.a.index(ctx, quiet, g.Name, n, index[n])
			if !ok {
				return
			}
			for _, b := range x.Batches {
				if !b.Retry {
					quiet.blind = true
					return
				}
				e := taskEnd{unit: unit{batch: b}}
				if quiet.readBatch(ctx, &e); e.items == nil {
					return
				}
				for i := range e.items {
					it := &e.items[i]
					if !yield(verdict{strings.TrimPrefix(b.Object, manifest.StoreScheme), manifest.ListLine{Ordinal: it.Ordinal, Tries: it.Tries, Losses: it.Losses}, it}) {
						return
					}
				}
			}
		}
	}
}

func (c *closing) stop() {
	for _, f := range c.stops {
		f()
	}
}

// result is what the plan says of the next task of the group.
func (c *closing) result(task string) (none manifest.ResultRef) {
	if c.blind {
		return none
	}
	if c.left {
		return c.found(task)
	}
	r, more := c.results.next()
	if !more || r.TaskID != task {
		c.a.lost(CodeChain, c.plan.key, "it closes %s without a result of %s", c.plan.Closed, task)
		c.blind = true
		return none
	}
	return r
}

// judge compares what a task says of its failed items with what the plan made of
// them, and ends those that the plan gave up.
func (c *closing) judge(e *taskEnd) {
	if e.batch.Retry && e.items == nil {
		c.blind = true // its ordinals are not known, and damage has been found
		return
	}
	for i := range e.batch.Items {
		at := e.batch.FirstOrdinal + int64(i)
		if e.batch.Retry {
			at = e.items[i].Ordinal
		}
		c.last = max(c.last, at) // that they are sorted was seen when the group was opened
	}
	var verdicts [3][]verdict
	for i := range c.lists {
		verdicts[i] = c.lists[i].upTo(c.a.look, c.last)
	}
	if !e.known || c.blind {
		return // its failures are not known: the entries of its items say nothing against anyone
	}
	open := make(map[int64]*failure, len(e.failed))
	for i := range e.failed {
		open[e.failed[i].Ordinal] = &e.failed[i]
	}
	retried := 0
	for i, vs := range verdicts {
		for _, v := range vs {
			f := open[v.line.Ordinal]
			if f == nil {
				c.a.broken(CodeItem, v.list, "item %d did not fail in %s, or is listed twice", v.line.Ordinal, e.task.TaskID)
				continue
			}
			delete(open, v.line.Ordinal)
			if i == listRetried {
				retried++
				c.again(e, f, v)
			} else {
				c.giveUp(e, f, v, i)
			}
		}
	}
	for i := range e.failed {
		if f := &e.failed[i]; open[f.Ordinal] == f {
			c.a.broken(CodeItem, c.plan.key, "item %d failed in %s and is neither retried nor listed", f.Ordinal, e.task.TaskID)
		}
	}
	if retried != e.ref.Retried {
		c.a.broken(CodeTotal, c.plan.key, "it says %d retried items of %s, there are %d", e.ref.Retried, e.task.TaskID, retried)
	}
	if retried > 0 {
		c.tasks++
		if len(c.failed) < manifest.InlineList {
			c.failed = append(c.failed, e.task.TaskID)
		}
	}
}

// past is what an item had spent before its task: classes of failures, and how many
// of them cost no try. known: the batch was read.
func past(e *taskEnd, ordinal int64) (it manifest.BatchItem, known bool) {
	i, found := slices.BinarySearchFunc(e.items, ordinal, func(it manifest.BatchItem, o int64) int { return cmp.Compare(it.Ordinal, o) })
	if !found {
		return it, false
	}
	return e.items[i], true
}

func (c *closing) disposition(f *failure) hayrick.Disposition {
	if f.Disposition != "" {
		return hayrick.Disposition(f.Disposition)
	}
	return c.a.definition.Retry.DispositionOf(f.Class, "")
}

// charged is how many of the item's failures, this one included, cost it a try.
func (c *closing) charged(it manifest.BatchItem, f *failure) int {
	n := len(it.Classes) - it.Infra
	if c.disposition(f) != hayrick.Infra {
		n++
	}
	return n
}

// again checks an item that the plan retries.
func (c *closing) again(e *taskEnd, f *failure, v verdict) {
	bad := func(format string, args ...any) {
		c.a.broken(CodeItem, v.list, "item %d is retried: "+format, append([]any{f.Ordinal}, args...)...)
	}
	before, known := past(e, f.Ordinal)
	passes := c.a.definition.Retry.Passes
	d, charged := c.disposition(f), c.charged(before, f)
	infra := before.Infra
	if d == hayrick.Infra {
		infra++
	}
	switch {
	case d.Final():
		bad("%s says %s, which is never run again", e.task.TaskID, d)
	case charged > passes:
		bad("it has failed in %d groups, retry.passes is %d", charged, passes)
	case c.groups >= passes+spareGroups:
		bad("%d retry groups have run, retry.passes is %d", c.groups, passes)
	case v.item.Tries != f.Tries || v.item.Losses != f.Losses:
		bad("with %d tries and %d losses; %s says %d and %d", v.item.Tries, v.item.Losses, e.task.TaskID, f.Tries, f.Losses)
	case !slices.Equal(v.item.Classes, append(slices.Clip(before.Classes), f.Class)) || v.item.Infra != infra:
		bad("with the classes %v, %d of them infra; they are %v and %s", v.item.Classes, v.item.Infra, before.Classes, f.Class)
	case known && !bytes.Equal(v.item.Data, before.Data):
		bad("with another record than %s ran", e.task.TaskID)
	}
	c.retried++
	if _, ok := c.classes[f.Class]; ok || len(c.classes) < inlineClasses {
		c.classes[f.Class]++
	} else {
		c.rest++
	}
}

// giveUp checks an item that the plan lists, and ends it.
func (c *closing) giveUp(e *taskEnd, f *failure, v verdict, list int) {
	bad := func(format string, args ...any) {
		c.a.broken(CodeItem, v.list, "item %d is listed: "+format, append([]any{f.Ordinal}, args...)...)
	}
	before, _ := past(e, f.Ordinal)
	passes := c.a.definition.Retry.Passes
	d, l := c.disposition(f), v.line
	switch {
	case list == listPermanent && !d.Final():
		bad("as permanent, %s says %s", e.task.TaskID, d)
	case list == listExhausted && d.Final():
		bad("as exhausted, %s says %s", e.task.TaskID, d)
	case list == listExhausted && c.charged(before, f) <= passes && c.groups < passes+spareGroups && f.Losses == 0:
		bad("as exhausted, and it may be run again: retry.passes is %d", passes)
	case l.TaskID != e.task.TaskID || l.Class != f.Class || l.Message != f.Message || l.Losses != f.Losses:
		bad("with %s %q of %s and %d losses; %s says %s %q and %d", l.Class, l.Message, l.TaskID, l.Losses, e.task.TaskID, f.Class, f.Message, f.Losses)
	case l.Tries != f.Tries || !f.whole && l.Key != f.Key:
		bad("as %q with %d tries; %s says %q with %d", l.Key, l.Tries, e.task.TaskID, f.Key, f.Tries)
	}
	c.ended[list]++
	name, end := listName(c.a.definition.Retry.Lists, l.Class), endPermanent
	if list == listExhausted {
		name, end = "exhausted", endExhausted
	}
	c.a.closeItem(v.list, f.Ordinal, end)
	s := c.a.lists[name]
	l.Ordinal = c.a.plan.InputOrdinal(l.Ordinal)
	s.add(l)
	c.a.lists[name] = s
}

// listName is the published list of a permanent item.
func listName(lists map[string]string, class string) string {
	if name, ok := lists[class]; ok {
		return name
	}
	return "permanent"
}

// finish compares the plan's totals with what has been counted, and derives its view.
func (c *closing) finish(ctx context.Context) {
	a, p := c.a, &c.plan
	for i := range c.lists {
		for _, v := range c.lists[i].upTo(a.look, 1<<62) {
			if !c.blind {
				a.broken(CodeItem, v.list, "item %d is of no task of %s", v.line.Ordinal, p.Closed)
			}
		}
	}
	if !c.blind {
		if r, more := c.results.next(); more {
			a.broken(CodeChain, p.key, "it names a result of %s, which is no task of %s", r.TaskID, p.Closed)
		}
	}
	if c.blind || a.blind {
		a.blind = true
		return
	}
	var tasks, items int64
	if p.Group != nil {
		tasks, items = p.Group.Tasks, p.Group.Items
	}
	for _, x := range []struct {
		what        string
		stored, got int64
	}{
		{"items to retry", p.Items, c.retried}, {"items in the group it opens", items, c.retried}, {"tasks in the group it opens", p.Tasks, tasks},
		{"permanent items", p.Permanent, c.ended[listPermanent]}, {"exhausted items", p.Exhausted, c.ended[listExhausted]},
		{"tasks with an item to retry", p.FailedTasks, c.tasks},
	} {
		if x.stored != x.got {
			a.broken(CodeTotal, p.key, "it says %d %s, there are %d", x.stored, x.what, x.got)
		}
	}
	if c.rest == 0 && !sameCounts(c.classes, p.ErrorTypes) {
		a.broken(CodeTotal, p.key, "its error types are %v, the retried items have %v", p.ErrorTypes, c.classes)
	}
	a.view(ctx, a.job.Rel(a.job.RetryManifest(p.n)), manifest.RetryView(p.RetryPlan, c.failed))
}

// multiset is lines in any order: their number, and the sum of their hashes.
type multiset struct {
	count int64
	hash  rows.Hash
}

// add puts a line in, as far as it is published.
func (m *multiset) add(l manifest.ListLine) {
	var h rows.Hasher
	sum, err := h.Row(rows.Row{{Name: "ordinal", Value: l.Ordinal}, {Name: "key", Value: l.Key}, {Name: "class", Value: l.Class},
		{Name: "message", Value: l.Message}, {Name: "task_id", Value: l.TaskID}})
	if err != nil {
		panic("audit: a list line cannot be hashed: " + err.Error()) // JSON gives valid UTF-8
	}
	m.count++
	m.hash = m.hash.Add(sum)
}
