package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

	"hayrick"
	"hayrick/manifest"
)

// Sweep looks at a job, decides and repairs: it re-derives from the commits every
// trigger, mark and message that a crash or a lost queue left out. It is safe to
// call from any number of processes, and needs none of them to have started the
// job.
func (c *Coordinator) Sweep(ctx context.Context, jobID string) (Decision, error) {
	k, err := c.Known(ctx, jobID)
	if err != nil {
		return Decision{}, fmt.Errorf("snapshot %s: %w", jobID, err)
	}
	return c.Repair(ctx, k)
}

// Repair is Sweep on a snapshot that the caller has just taken.
func (c *Coordinator) Repair(ctx context.Context, k *Known) (Decision, error) {
	d := Decide(k, c.World.Clock.Now())
	for _, because := range d.Because {
		c.Log.Debug("sweep", hayrick.KeyJobID, k.Plan.JobID, "because", because)
	}
	return d, c.apply(ctx, k, d)
}

func (c *Coordinator) apply(ctx context.Context, k *Known, d Decision) error {
	if d.Pause != nil {
		p := *d.Pause
		p.Schema, p.By, p.At = manifest.SchemaControl, c.World.Worker, manifest.At(c.World.Clock.Now())
		if _, err := c.Order(ctx, k.Plan.JobID, p); err != nil {
			return err
		}
		c.Log.Error("the job is paused", hayrick.KeyJobID, k.Plan.JobID, "rule", p.Rule, "reason", p.Reason)
	}
	if d.Cancel {
		if err := c.cancel(ctx, k); err != nil {
			return err
		}
	}
	// Before what it speaks of: a crash between leaves a resumed job whose messages are
	// not sent again, and that stands still until they are taken for lost. The other way
	// round workers would take them for those of a paused job.
	if d.State != nil {
		if err := c.State.PutJobState(ctx, *d.State); err != nil {
			return fmt.Errorf("cache the state of %s: %w", k.Plan.JobID, err)
		}
	}
	if d.View {
		if err := c.Store.PutView(ctx, manifest.Job(k.Plan.JobID).Manifest(), manifest.JobView(k.Plan, string(d.Status), k.Generation, nil)); err != nil {
			return err
		}
	}
	if d.Pause != nil {
		return nil
	}
	for _, m := range d.Marks {
		if _, err := c.State.Mark(ctx, m); err != nil {
			return fmt.Errorf("mark %d in record %d/%d of %s: %w", m.Position, m.Block.Level, m.Block.N, m.Block.Group, err)
		}
	}
	if err := c.scanAll(ctx, k, d); err != nil {
		return err
	}
	for _, m := range d.Triggers {
		if err := c.Queue.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: m}); err != nil {
			return fmt.Errorf("send a trigger for %s: %w", m.Group, err)
		}
	}
	return nil
}

// scanAll looks at blocks until a lot of tasks is sent again.
func (c *Coordinator) scanAll(ctx context.Context, k *Known, d Decision) error {
	lot := d.Lot
	if lot == 0 {
		lot = math.MaxInt
	}
	left := lot
	for _, n := range d.Scan {
		sent, err := c.scan(ctx, k, n, left, d.Blind)
		if err != nil {
			return fmt.Errorf("repair block %d of %s: %w", n, k.Open.Name, err)
		}
		if left -= sent; left <= 0 {
			return nil
		}
	}
	if d.Lot == 0 || left < lot {
		return nil
	}
	// Somebody is at every task, and nothing was sent that would have to be waited for:
	// should one of them die, that is to be seen as soon as now.
	st := *d.State
	st.Progress.WaitMS = k.Cached.Progress.WaitMS
	if err := c.State.PutJobState(ctx, st); err != nil {
		return fmt.Errorf("cache the state of %s: %w", k.Plan.JobID, err)
	}
	return nil
}

// scanners is how many tasks of a block are looked at side by side.
const scanners = 16

// scan looks for the tasks that a block does not have: it marks what has ended and
// sends again what nobody is at, lot tasks at most. Blind, it sends all of them.
func (c *Coordinator) scan(ctx context.Context, k *Known, n, lot int, blind bool) (sent int, err error) {
	m := k.Open.Members
	block, err := m.Block(ctx, c.Store, n)
	if err != nil {
		return 0, gone(err)
	}
	record, _ := k.Open.Record(0, n)
	missing := make([]Missing, 0, len(block.Tasks))
	for i, t := range block.Tasks {
		if !record.Done.Has(i) {
			missing = append(missing, Missing{Position: i, TaskID: t.TaskID})
		}
	}
	if !blind {
		if err := c.lookAll(ctx, k, missing); err != nil {
			return 0, err
		}
	}
	r := DecideMissing(missing, lot)
	var full bool
	for _, x := range r.Marks {
		// Who committed it crashed before the mark, and perhaps before the view.
		if err := c.Store.PutView(ctx, manifest.Job(k.Plan.JobID).TaskManifest(x.TaskID), manifest.TaskView(*x.Result)); err != nil {
			return 0, err
		}
		if full, err = m.MarkDone(ctx, c.State, n, x.Position, int64(x.Result.OK), int64(x.Result.Failed)); err != nil {
			return 0, err
		}
	}
	role := hayrick.Role(block.Role)
	var out []hayrick.Outgoing
	delay := k.Definition.Retry.Until(k.Open.NotBefore, c.World.Clock.Now())
	for _, x := range r.Send {
		out = append(out, hayrick.Outgoing{Delay: delay, Message: hayrick.Message{
			JobID: k.Plan.JobID, Generation: k.Generation, Role: role, Group: k.Open.Name, Block: n, Position: x.Position, TaskID: x.TaskID,
		}})
	}
	if full { // the marks just made were the last
		closer := hayrick.RoleRetryPlanner
		if role == hayrick.RoleAggregator {
			closer = hayrick.RoleAggregator
		}
		out = append(out, hayrick.Outgoing{Message: hayrick.Message{JobID: k.Plan.JobID, Generation: k.Generation, Role: closer, Group: k.Open.Name}})
	}
	if len(out) == 0 {
		return 0, nil
	}
	c.Log.Info("messages sent again", hayrick.KeyJobID, k.Plan.JobID, hayrick.KeyGroup, k.Open.Name, "messages", len(out), "marked", len(r.Marks))
	return len(r.Send), c.Queue.Send(ctx, hayrick.QueueTasks, out...)
}

// lookAll looks at tasks side by side.
func (c *Coordinator) lookAll(ctx context.Context, k *Known, missing []Missing) error {
	errs := make([]error, len(missing))
	var wg sync.WaitGroup
	for s := range min(scanners, len(missing)) {
		wg.Add(1)
		c.World.Go("scan", func() {
			defer wg.Done()
			for i := s; i < len(missing); i += scanners {
				errs[i] = c.look(ctx, k, &missing[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c *Coordinator) look(ctx context.Context, k *Known, m *Missing) error {
	res, _, err := c.Store.Result(ctx, k.Plan.JobID, m.TaskID)
	if err == nil {
		m.Result = &res
		return nil
	}
	if !errors.Is(err, hayrick.ErrNotFound) {
		return err
	}
	ref := hayrick.TaskRef{JobID: k.Plan.JobID, Generation: k.Generation, TaskID: m.TaskID}
	_, alive, err := c.State.ReadClaim(ctx, ref)
	if err != nil && !errors.Is(err, hayrick.ErrNotFound) {
		return fmt.Errorf("read claim of %s: %w", m.TaskID, err)
	}
	m.Held = alive
	return nil
}

// cancel ends the generation as CANCELLED, unless another outcome came first. What
// is finished stays; what is not is counted.
func (c *Coordinator) cancel(ctx context.Context, k *Known) error {
	o := manifest.Outcome{
		Schema: manifest.SchemaOutcome, JobID: k.Plan.JobID, Generation: k.Generation,
		Status: string(hayrick.JobCancelled), Message: "cancelled by an order", Items: k.Plan.Items,
		RowHash: "0", DroppedHash: "0", EndedAt: manifest.At(c.World.Clock.Now()),
	}
	if err := c.count(ctx, k, &o); err != nil {
		return err
	}
	var err error
	if o.Chain, err = c.Store.Chain(ctx, k.Plan.JobID, k.Generation); !k.spared(err) {
		return err
	}
	c.keep(k, o.Chain)
	got, err := c.Store.CommitOutcome(ctx, o)
	if err != nil {
		return err
	}
	if k.Unread != nil && got.Won {
		c.Log.Warn("the cancelled run is damaged, so that what is finished of it may not all be counted", hayrick.KeyJobID, k.Plan.JobID, hayrick.KeyError, k.Unread)
	}
	c.Log.Info("generation ended", hayrick.KeyJobID, k.Plan.JobID, hayrick.KeyGeneration, k.Generation, "status", got.Record.Status)
	return nil
}

// keep takes the retry plans out of a chain that were not counted: they came since, and
// with the outcome are void.
func (c *Coordinator) keep(k *Known, chain map[string]string) {
	job := manifest.Job(k.Plan.JobID)
	counted := map[string]bool{}
	for _, p := range k.Retries {
		counted[job.Rel(job.RetryPlan(manifest.RetryPlanNumber(p)))] = true
	}
	for key := range chain {
		if strings.HasPrefix(key, "retries/") && !counted[key] {
			delete(chain, key)
		}
	}
}

// count fills in how many items ended how: those of every retry plan, and those of
// the open group's results. What is damaged counts as unfinished.
func (c *Coordinator) count(ctx context.Context, k *Known, o *manifest.Outcome) error {
	ended := k.Plan.Items
	if k.unplanned() { // nothing has moved since the generation before
		o.OK, o.Permanent, o.Exhausted, o.Unfinished = k.Before.OK, k.Before.Permanent, k.Before.Exhausted, k.Before.Unfinished
		return nil
	}
	if len(k.Retries) > 0 {
		ended -= k.Retries[len(k.Retries)-1].Items // retried by the open group
	} else {
		ended = 0
	}
	for _, r := range k.Retries {
		o.Permanent += r.Permanent
		o.Exhausted += r.Exhausted
	}
	o.OK = max(0, ended-o.Permanent-o.Exhausted)
	if k.Open != nil && k.Open.Members != nil && k.Open.Name != hayrick.GroupAggregation {
		for n := range k.Open.Members.Blocks() {
			block, err := k.Open.Members.Block(ctx, c.Store, n)
			if err != nil {
				if k.spared(err) {
					continue
				}
				return err
			}
			for _, t := range block.Tasks {
				res, _, err := c.Store.Result(ctx, k.Plan.JobID, t.TaskID)
				if errors.Is(err, hayrick.ErrNotFound) {
					continue
				}
				if err != nil {
					if k.spared(err) {
						continue
					}
					return err
				}
				o.OK += int64(res.OK)
			}
		}
	}
	o.Unfinished = o.Items - o.OK - o.Permanent - o.Exhausted
	return nil
}
