package retryplanner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"hayrick"
	"hayrick/manifest"
)

// commit writes the data of the decision and then the plan that names it. A crash
// before the plan leaves data that nothing names, which the next planner writes
// again under the same keys; after it, the plan. Closed is false when the number had
// gone to a plan of another generation.
func (c *closing) commit(ctx context.Context, s *survey) (Planned, error) {
	plan, err := c.write(ctx, s)
	if err != nil {
		return Planned{}, err
	}
	stored, err := c.Store.CommitRetryPlan(ctx, c.n, plan)
	if err != nil {
		return Planned{}, err
	}
	if stored.Record.Generation != c.generation {
		return Planned{}, nil
	}
	return c.found(stored.Record, stored.SHA256, stored.Won)
}

// write puts every list, segment, index and block file of plan c.n, and returns the
// plan.
func (c *closing) write(ctx context.Context, s *survey) (plan manifest.RetryPlan, err error) {
	now := c.World.Clock.Now()
	plan = manifest.RetryPlan{
		Schema: manifest.SchemaRetryPlan, JobID: c.jobID, RetryID: manifest.RetryID(c.n), Generation: c.generation,
		Closed: c.group, Predecessor: c.opener, Next: manifest.NextAggregation,
		Items: s.tally.items, Permanent: s.tally.permanent, Exhausted: s.tally.exhausted,
		FailedTasks: s.tally.tasks, ErrorTypes: s.tally.errorTypes,
		SubmittedAt: manifest.At(now),
	}
	if c.redrive != nil {
		n := c.redrive.order.N
		plan.Control = &n
	}
	if plan.Orders, err = c.ordersSoFar(ctx); err != nil {
		return plan, err
	}
	if s.results.lines <= manifest.InlineList {
		plan.Results = s.few
	} else if plan.ResultsRef, err = c.putList(ctx, "results", s.results); err != nil {
		return plan, err
	}
	if plan.PermanentList, err = c.putList(ctx, "permanent", s.permanent); err != nil {
		return plan, err
	}
	if plan.ExhaustedList, err = c.putList(ctx, "exhausted", s.exhausted); err != nil {
		return plan, err
	}
	if s.tally.items == 0 {
		return plan, nil
	}
	plan.Next = hayrick.RetryGroup(c.n)
	if plan.NotBefore = manifest.At(now); c.redrive == nil {
		plan.NotBefore = manifest.At(c.policy.notBefore(now, c.jobID, plan.Next, s.tally.retryAfter))
	}
	group, err := c.pack(ctx, s.retry, plan.Next)
	if err != nil {
		return plan, err
	}
	plan.Group, plan.Tasks = &group, group.Tasks
	return plan, nil
}

// ordersSoFar counts the control orders that stand.
func (c *closing) ordersSoFar(ctx context.Context) (int, error) {
	for n := c.orders; ; n++ {
		if _, _, err := c.Store.Control(ctx, c.jobID, n); errors.Is(err, hayrick.ErrNotFound) {
			return n, nil
		} else if err != nil {
			return 0, err
		}
	}
}

// putList stores a spool as a list of the plan; nil when it is empty.
func (c *closing) putList(ctx context.Context, name string, s *spool) (*manifest.Ref, error) {
	if s.lines == 0 {
		return nil, nil
	}
	body, err := s.section(0, s.bytes)
	if err != nil {
		return nil, err
	}
	key := c.job.RetryList(c.n, name, s.sha())
	if err := c.Store.Objects.Put(ctx, key, body); err != nil {
		return nil, fmt.Errorf("put %s: %w", key, err)
	}
	return &manifest.Ref{Key: c.job.Rel(key), SHA256: s.sha(), Count: s.lines}, nil
}

// pack cuts the items to retry into new batches and writes the group.
func (c *closing) pack(ctx context.Context, items *spool, name string) (manifest.Group, error) {
	body, err := items.section(0, items.bytes)
	if err != nil {
		return manifest.Group{}, err
	}
	group := manifest.NewGroupWriter(c.Store, c.jobID, name, hayrick.RoleWorker, c.firstTask)
	segments := 0
	put := func(seg segment) error {
		body, err := items.section(seg.offset, seg.length)
		if err != nil {
			return err
		}
		key := c.job.Segment(name, segments, seg.sha)
		segments++
		if err := c.Store.Objects.Put(ctx, key, body); err != nil {
			return fmt.Errorf("put %s: %w", key, err)
		}
		for _, b := range seg.batches {
			b.Object = manifest.StoreScheme + c.job.Rel(key)
			if err := group.Add(ctx, b); err != nil {
				return err
			}
		}
		return nil
	}
	pack := newPacker(c.definition.Batch.Items, int64(c.definition.Batch.Bytes))
	for r := bufio.NewReaderSize(body, 64<<10); ; {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return manifest.Group{}, fmt.Errorf("read the spool: %w", err)
		}
		var it struct {
			Ordinal int64 `json:"ordinal"`
		}
		if err := json.Unmarshal(line, &it); err != nil {
			return manifest.Group{}, fmt.Errorf("read the spool: %w", err)
		}
		if pack.add(it.Ordinal, line) {
			seg, _ := pack.end()
			if err := put(seg); err != nil {
				return manifest.Group{}, err
			}
		}
	}
	if seg, ok := pack.end(); ok {
		if err := put(seg); err != nil {
			return manifest.Group{}, err
		}
	}
	return group.Close(ctx)
}
