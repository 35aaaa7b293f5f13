package retryplanner

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"

	"hayrick"
	"hayrick/manifest"
)

// Redrive is the group that Plan closes to open a generation above 0.
const Redrive = ""

// redrive is what the first plan of a generation is taken from: how the items stood when
// the one before had ended, and the order.
type redrive struct {
	order    manifest.Control
	ordinals []int64           // that it names
	plan     manifest.Plan     // as it stands in this generation
	lists    map[string]string // of the job file before it: what the order's lists are
	history  manifest.Past     // of the generations before
}

// openRedrive reads what is fixed about the first plan of a generation.
func (p *Planner) openRedrive(ctx context.Context, jobID string, generation int, _ string) (*closing, error) {
	orders, _, err := p.Store.Orders(ctx, jobID)
	if err != nil {
		return nil, err
	}
	order := manifest.Opening(orders, generation)
	if order == nil || order.Order == manifest.OrderPurge {
		return nil, fmt.Errorf("no order opens generation %d: %w", generation, hayrick.ErrNotFound)
	}
	return p.redriveBy(ctx, jobID, *order, orders)
}

func (p *Planner) redriveBy(ctx context.Context, jobID string, order manifest.Control, orders []manifest.Control) (*closing, error) {
	c := &closing{Planner: p, job: manifest.Job(jobID), jobID: jobID, generation: order.Generation, n: 1, orders: order.N + 1}
	r := &redrive{order: order}
	plan, _, err := p.Store.Plan(ctx, jobID)
	if err != nil {
		return nil, err
	}
	before, err := p.Store.Definition(ctx, plan.In(orders, order.Generation-1))
	if err != nil {
		return nil, gone(err)
	}
	r.lists, r.plan = before.Retry.Lists, plan.In(orders, order.Generation)
	if c.definition, err = p.Store.Definition(ctx, r.plan); err != nil {
		return nil, gone(err)
	}
	if r.ordinals, err = p.Store.OrdinalsOf(ctx, order); err != nil {
		return nil, gone(err)
	}
	if r.history, err = p.Store.Past(ctx, jobID, order.Generation-1); err != nil {
		return nil, gone(err)
	}
	_, sha, err := p.Store.Outcome(ctx, jobID, order.Generation-1)
	if err != nil {
		return nil, gone(err)
	}
	c.opener = manifest.Link{Key: c.job.Rel(c.job.Outcome(order.Generation - 1)), SHA256: sha}
	if g, _ := r.history.Open(plan); g != nil {
		c.group = g.Name
	}
	c.firstTask = plan.Group.FirstTask + plan.Group.Tasks
	c.policy.retry, c.redrive = c.definition.Retry, r
	c.label = func(it manifest.BatchItem) string { return plan.Label(it, c.definition.Input.Key) }
	return c, nil
}

// stood is how an item stood that had not ended ok.
type stood struct {
	failed
	verdict verdict
	task    string
	record  []byte // nil unless it runs again
}

// takeUp says of every item that had not ended ok what becomes of it. What had no end
// runs again: its tasks in the open group are closed with the results that they have
// now, and one that comes later is nobody's. What was given up stays listed, or runs
// again as if for the first time: its tries and losses are told, its failures in
// earlier generations not counted.
func (c *closing) takeUp(ctx context.Context, s *survey) error {
	given := merged(c.givenUp(ctx, verdict(permanent)), c.givenUp(ctx, verdict(exhausted)))
	find := c.newRecords(c.redrive.history, c.redrive.plan)
	for x, err := range merged(c.unfinished(ctx, s), given) {
		if err != nil {
			return err
		}
		if err := s.tally.add(x.failed, x.verdict); err != nil {
			return err
		}
		if x.verdict != retry {
			to := s.permanent
			if x.verdict == exhausted {
				to = s.exhausted
			}
			if err := to.add(manifest.ListLine{
				Ordinal: x.Ordinal, Key: x.Key, Class: x.Class, Message: x.Message, TaskID: x.task, Tries: x.Tries, Losses: x.Losses,
			}); err != nil {
				return err
			}
			continue
		}
		if x.record == nil {
			it, err := find.find(ctx, x.task, x.Ordinal)
			if err != nil {
				return err
			}
			x.record = it.Data
		}
		if err := s.retry.add(manifest.RetryItem{
			Ordinal: x.Ordinal, Item: x.record, Tries: x.Tries, Losses: x.Losses, Classes: []string{},
		}); err != nil {
			return err
		}
	}
	return nil
}

// givenUp yields the items of the lists of one kind, in ordinal order, and says which
// the order takes.
func (c *closing) givenUp(ctx context.Context, kind verdict) iter.Seq2[stood, error] {
	all := func(func(stood, error) bool) {}
	for _, p := range c.redrive.history.Last() {
		ref := p.PermanentList
		if kind == exhausted {
			ref = p.ExhaustedList
		}
		if ref != nil {
			all = merged(all, c.listed(ctx, *ref, kind))
		}
	}
	return all
}

func (c *closing) listed(ctx context.Context, ref manifest.Ref, kind verdict) iter.Seq2[stood, error] {
	return func(yield func(stood, error) bool) {
		r := c.redrive
		err := manifest.ReadLines(ctx, c.Store, c.jobID, ref, func(l manifest.ListLine) error {
			x := stood{verdict: kind, task: l.TaskID, failed: failed{FailureLine: manifest.FailureLine{
				Ordinal: l.Ordinal, Key: l.Key, Class: l.Class, Message: l.Message, Tries: l.Tries, Losses: l.Losses,
			}}}
			if r.order.Takes(l, kind == exhausted, manifest.ListName(r.lists, l.Class, kind == exhausted), r.ordinals) {
				x.verdict = retry
			}
			if !yield(x, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(stood{}, gone(err))
		}
	}
}

// errStop ends the reading of a list that nobody wants more of.
var errStop = errors.New("stopped")

// unfinished yields the items that had no end when the generation before was ended from
// outside, in ordinal order, and notes the results that its open group has.
func (c *closing) unfinished(ctx context.Context, s *survey) iter.Seq2[stood, error] {
	return func(yield func(stood, error) bool) {
		if err := c.eachUnfinished(ctx, s, func(x stood) bool { return yield(x, nil) }); err != nil && !errors.Is(err, errStop) {
			yield(stood{}, err)
		}
	}
}

func (c *closing) eachUnfinished(ctx context.Context, s *survey, yield func(stood) bool) error {
	group, generation := c.redrive.history.Open(c.redrive.plan)
	if group == nil {
		return nil
	}
	members, err := c.Store.Members(ctx, c.jobID, generation, *group)
	if err != nil {
		return gone(err)
	}
	// Its results are of that generation, and read by the words that the job file had.
	old := *c
	old.generation = generation
	for n := range members.Blocks() {
		block, err := members.Block(ctx, c.Store, n)
		if err != nil {
			return gone(err)
		}
		index, err := members.Index(ctx, c.Store, n)
		if err != nil {
			return gone(err)
		}
		if len(index.Batches) != len(block.Tasks) {
			return fmt.Errorf("block %d has %d tasks and %d batches: %w", n, len(block.Tasks), len(index.Batches), hayrick.ErrCorrupt)
		}
		for lo := 0; lo < len(block.Tasks); lo += readers {
			hi := min(lo+readers, len(block.Tasks))
			results, err := old.readResults(ctx, block.Tasks[lo:hi])
			if err != nil {
				return err
			}
			for at := lo; at < hi; at += openers { // batches are held whole
				to := min(at+openers, hi)
				ends, err := old.leftOver(ctx, block.Tasks[at:to], index.Batches[at:to], results[at-lo:to-lo])
				if err != nil {
					return err
				}
				for i, e := range ends {
					if !e.missing {
						if err := s.noteResult(e.ref); err != nil {
							return err
						}
					}
					for _, f := range e.items {
						if !yield(stood{failed: f.failed, verdict: retry, task: block.Tasks[at+i].TaskID, record: f.record}) {
							return errStop
						}
					}
				}
			}
		}
	}
	return nil
}

// leftOver reads what some tasks have left to be done.
func (c *closing) leftOver(ctx context.Context, tasks []manifest.BlockTask, batches []manifest.Batch, results []result) ([]taskEnd, error) {
	return c.eachTask(tasks, func(i int) (end taskEnd, err error) {
		b, res := batches[i], results[i]
		var fs []failed
		if end.missing = res.missing; !end.missing {
			if end, fs, err = c.readResult(ctx, tasks[i], b, res); err != nil || len(fs) == 0 {
				return end, err
			}
		}
		items, err := c.openBatch(ctx, b)
		if err != nil {
			return end, err
		}
		switch {
		case end.missing:
			for _, it := range items {
				fs = append(fs, failed{FailureLine: manifest.FailureLine{
					Ordinal: it.Ordinal, Key: c.label(it), Class: hayrick.ClassUnfinished, Tries: it.Tries, Losses: it.Losses,
				}})
			}
		case end.whole:
			fs = whole(items, c.label, end.why)
		}
		records := byOrdinal(items)
		for _, f := range fs {
			it, ok := records[f.Ordinal]
			if !ok {
				return end, fmt.Errorf("failed item %d is not of %s: %w", f.Ordinal, b.BatchID, hayrick.ErrCorrupt)
			}
			end.items = append(end.items, failedItem{failed: f, verdict: retry, record: it.Data})
		}
		if !end.missing {
			end.ref.Retried = len(fs)
		}
		return end, nil
	})
}

// merged yields what two streams yield, each in ordinal order, in that of both. After
// an error nothing follows.
func merged(a, b iter.Seq2[stood, error]) iter.Seq2[stood, error] {
	return func(yield func(stood, error) bool) {
		nextA, stopA := iter.Pull2(a)
		defer stopA()
		nextB, stopB := iter.Pull2(b)
		defer stopB()
		x, xerr, xok := nextA()
		y, yerr, yok := nextB()
		for xok || yok {
			if xok && (xerr != nil || !yok || yerr == nil && x.Ordinal <= y.Ordinal) {
				if !yield(x, xerr) || xerr != nil {
					return
				}
				x, xerr, xok = nextA()
				continue
			}
			if !yield(y, yerr) || yerr != nil {
				return
			}
			y, yerr, yok = nextB()
		}
	}
}

// Preview says what the first plan of the generation that an order would open comes to,
// without writing anything. The order need not have been given; orders are those that
// have. Its definition must be in the store, unless it is definition.
func (p *Planner) Preview(ctx context.Context, order manifest.Control, definition *hayrick.JobDefinition, orders []manifest.Control) (manifest.RetryPlan, error) {
	var none manifest.RetryPlan
	ask := order
	if definition != nil {
		ask.DefinitionSHA256 = ""
	}
	ask.N = len(orders)
	c, err := p.redriveBy(ctx, order.JobID, ask, append(orders[:len(orders):len(orders)], ask))
	if err != nil {
		return none, fmt.Errorf("preview %s of %s: %w", order.Order, order.JobID, err)
	}
	if definition != nil {
		c.definition, c.policy.retry = *definition, definition.Retry
	}
	s := newSurvey(filepath.Join(p.Scratch, "plan-"+p.World.NewAttemptID()))
	defer s.close()
	if err := c.takeUp(ctx, s); err != nil {
		return none, fmt.Errorf("preview %s of %s: %w", order.Order, order.JobID, err)
	}
	batch := int64(max(c.definition.Batch.Items, 1))
	return manifest.RetryPlan{
		Generation: order.Generation, Closed: c.group, Items: s.tally.items, Tasks: (s.tally.items + batch - 1) / batch,
		Permanent: s.tally.permanent, Exhausted: s.tally.exhausted, ErrorTypes: s.tally.errorTypes,
	}, nil
}
