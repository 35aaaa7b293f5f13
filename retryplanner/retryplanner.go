package retryplanner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"hayrick"
	"hayrick/manifest"
)

// Planner closes groups of worker tasks. It keeps nothing between calls and is safe
// for concurrent use, in one process or in many.
type Planner struct {
	Store   *manifest.Store
	Inputs  Inputs
	Queue   Queue
	World   hayrick.World
	Log     *slog.Logger
	Scratch string // a folder for spools; each call makes its own below it, and removes it
}

// Planned is what a call of Plan came to.
type Planned struct {
	// Ended: the generation has its outcome, and nothing was planned.
	Ended bool
	// Closed: every task of the group has its results.done. Else Missing has the first
	// of those that have not, and nothing was written.
	Closed  bool
	Missing []Missing
	// N is the number of the plan, retries/retry-<n>/plan.json; Plan is what is stored
	// there, SHA256 its digest. Won says that this call's own bytes are stored.
	N      int
	Plan   manifest.RetryPlan
	SHA256 string
	Won    bool
}

// Missing is a task without an outcome.
type Missing struct {
	Block    int
	Position int
	TaskID   string
}

// Plan decides what follows a group of worker tasks and starts it: it commits the
// plan unless there is one, and acts on the one that is stored. Calling it again,
// or from two processes at once, gives one plan and one set of tasks. The group Redrive
// is what comes before the first group of a generation above 0: the order that opened
// it, which is carried out.
//
// ErrNotFound: the generation has no such group. ErrInputChanged: an item is to run
// again and its input is not what was planned; the caller pauses the job.
// ErrCorrupt: a result or what it names is damaged. In all three nothing was
// written. Any other error: call it again; when Planned has a plan, it is stored.
func (p *Planner) Plan(ctx context.Context, jobID string, generation int, group string) (Planned, error) {
	done, err := p.plan(ctx, jobID, generation, group)
	if err != nil {
		err = fmt.Errorf("plan what follows %s of %s: %w", group, jobID, err)
	}
	return done, err
}

func (p *Planner) plan(ctx context.Context, jobID string, generation int, group string) (Planned, error) {
	// The end of a generation stops a planner that was slow to wake: its plan would be
	// nobody's, under a number that a later generation needs.
	if _, _, err := p.Store.Outcome(ctx, jobID, generation); err == nil {
		return Planned{Ended: true}, nil
	} else if !errors.Is(err, hayrick.ErrNotFound) {
		return Planned{}, err
	}
	open := p.open
	if group == Redrive {
		open = p.openRedrive
	}
	c, err := open(ctx, jobID, generation, group)
	if err != nil {
		return Planned{}, err
	}
	if done, err := c.find(ctx); err != nil || done.Closed {
		if err != nil {
			return Planned{}, err
		}
		return done, c.act(ctx, done)
	}
	// Reading comes whole before the first write: a group that is not closed, a damaged
	// result or a changed input leaves the store as it was.
	s := newSurvey(filepath.Join(p.Scratch, "plan-"+p.World.NewAttemptID()))
	defer s.close()
	if c.redrive != nil {
		if err := c.takeUp(ctx, s); err != nil {
			return Planned{}, err
		}
	} else if missing, err := c.survey(ctx, s); err != nil || len(missing) > 0 {
		return Planned{Missing: missing}, err
	}
	for {
		done, err := c.commit(ctx, s)
		if err != nil {
			return Planned{}, err
		}
		if !done.Closed {
			// The number went to a plan of another generation meanwhile; it is theirs, and
			// what was written for ours is a leftover.
			if done, err = c.find(ctx); err != nil {
				return Planned{}, err
			}
		}
		if done.Closed {
			return done, c.act(ctx, done)
		}
	}
}

// closing is one group while it is being closed.
type closing struct {
	*Planner
	job        manifest.Job
	jobID      string
	generation int
	group      string

	definition hayrick.JobDefinition
	label      func(manifest.BatchItem) string
	opened     manifest.Group
	opener     manifest.Link // the plan that opened it
	orders     int           // that the opener had applied
	policy     policy

	n         int   // the number of the plan to write
	firstTask int64 // of the next group

	redrive *redrive // of the first plan of a generation above 0
}

// open reads what is fixed about a group.
func (p *Planner) open(ctx context.Context, jobID string, generation int, group string) (*closing, error) {
	number, isRetry := manifest.RetryNumber(group)
	if group != hayrick.GroupInitial && !isRetry {
		return nil, fmt.Errorf("%q has no worker tasks: %w", group, hayrick.ErrNotFound)
	}
	c := &closing{Planner: p, job: manifest.Job(jobID), jobID: jobID, generation: generation, group: group, n: number + 1}
	plan, err := p.Store.PlanOf(ctx, jobID, generation)
	if err != nil {
		return nil, err
	}
	if c.definition, err = p.Store.Definition(ctx, plan); err != nil {
		return nil, gone(err)
	}
	if c.opened, c.opener, err = p.Store.OpenGroup(ctx, jobID, generation, group); err != nil {
		return nil, err
	}
	c.firstTask = c.opened.FirstTask + c.opened.Tasks
	c.policy.retry = c.definition.Retry
	c.label = func(it manifest.BatchItem) string { return plan.Label(it, c.definition.Input.Key) }
	// Groups are counted anew in each generation: back along the plans to the one that
	// opened the generation's first.
	for at := group; ; {
		n, ok := manifest.RetryNumber(at)
		if !ok {
			return c, nil
		}
		prev, _, err := p.Store.RetryPlan(ctx, jobID, n)
		if err != nil {
			return nil, gone(err)
		}
		if prev.Generation != generation {
			return c, nil
		}
		if at == group {
			c.orders = prev.Orders
		}
		c.policy.groups++
		if prev.Control != nil { // it is the generation's first
			return c, nil
		}
		at = prev.Closed
	}
}

// find looks for the stored plan of the group from number c.n on. Numbers of other
// generations' plans are skipped, with the task numbers they use; c.n stays at the
// first free one, and Closed is false, when there is none.
func (c *closing) find(ctx context.Context) (Planned, error) {
	for ; ; c.n++ {
		plan, sha, err := c.Store.RetryPlan(ctx, c.jobID, c.n)
		if errors.Is(err, hayrick.ErrNotFound) {
			return Planned{}, c.unfollowed(ctx)
		}
		if err != nil {
			return Planned{}, err
		}
		if plan.Generation == c.generation {
			return c.found(plan, sha, false)
		}
		if plan.Group != nil {
			c.firstTask = max(c.firstTask, plan.Group.FirstTask+plan.Group.Tasks)
		}
	}
}

// unfollowed says that nothing was made from a plan c.n, which is not there. What was
// names it by its digest, and would not follow from one that is made now.
func (c *closing) unfollowed(ctx context.Context) error {
	_, _, next := c.Store.RetryPlan(ctx, c.jobID, c.n+1)
	_, _, merge := c.Store.AggregationPlan(ctx, c.jobID, c.generation)
	for _, x := range []struct {
		key string
		err error
	}{{c.job.RetryPlan(c.n + 1), next}, {c.job.AggregationPlan(c.generation), merge}} {
		switch {
		case errors.Is(x.err, hayrick.ErrNotFound):
		case x.err == nil, errors.Is(x.err, hayrick.ErrCorrupt):
			return fmt.Errorf("read %s: it is gone, and %s is there: %w", c.job.RetryPlan(c.n), x.key, hayrick.ErrCorrupt)
		default:
			return x.err
		}
	}
	return nil
}

func (c *closing) found(plan manifest.RetryPlan, sha string, won bool) (Planned, error) {
	if plan.Closed != c.group || plan.Predecessor != c.opener {
		return Planned{}, fmt.Errorf("retry-%d is about %s as %s opened it: %w", c.n, plan.Closed, plan.Predecessor.Key, hayrick.ErrCorrupt)
	}
	return Planned{Closed: true, N: c.n, Plan: plan, SHA256: sha, Won: won}, nil
}

// act starts what a stored plan says. Each step may be done again, by anyone.
func (c *closing) act(ctx context.Context, done Planned) error {
	plan := done.Plan
	if done.Won {
		c.Log.Info("group closed", hayrick.KeyJobID, c.jobID, hayrick.KeyGeneration, c.generation, hayrick.KeyGroup, c.group,
			"next", plan.Next, "tasks", plan.Tasks, "items", plan.Items, "permanent", plan.Permanent, "exhausted", plan.Exhausted)
	}
	// A crash before the view leaves none or an older one; the next call writes it.
	failed, err := c.Store.FailedTasks(ctx, plan)
	if err != nil {
		return gone(err)
	}
	if err := c.Store.PutView(ctx, c.job.RetryManifest(done.N), manifest.RetryView(plan, failed)); err != nil {
		return err
	}
	// A crash before or amid the messages loses some: the next call sends all again,
	// and the sweeper finds tasks without a result by itself. A task that is sent twice
	// has one result all the same.
	if plan.Next == manifest.NextAggregation {
		return c.send(ctx, []hayrick.Outgoing{{Message: hayrick.Message{
			JobID: c.jobID, Generation: c.generation, Role: hayrick.RoleAggregator, Group: c.group,
		}}})
	}
	return c.sendTasks(ctx, plan)
}

func (c *closing) sendTasks(ctx context.Context, plan manifest.RetryPlan) error {
	members, err := c.Store.Members(ctx, c.jobID, c.generation, *plan.Group)
	if err != nil {
		return gone(err)
	}
	delay := c.definition.Retry.Until(plan.NotBefore.Time, c.World.Clock.Now())
	for n := range members.Blocks() {
		block, err := members.Block(ctx, c.Store, n)
		if err != nil {
			return gone(err)
		}
		msgs := make([]hayrick.Outgoing, len(block.Tasks))
		for i, t := range block.Tasks {
			msgs[i] = hayrick.Outgoing{Delay: delay, Message: hayrick.Message{
				JobID: c.jobID, Generation: c.generation, Role: hayrick.RoleWorker,
				Group: plan.Next, Block: n, Position: i, TaskID: t.TaskID,
			}}
		}
		if err := c.send(ctx, msgs); err != nil {
			return err
		}
	}
	return nil
}

func (c *closing) send(ctx context.Context, msgs []hayrick.Outgoing) error {
	if err := c.Queue.Send(ctx, hayrick.QueueTasks, msgs...); err != nil {
		return fmt.Errorf("send %d messages of what follows: %w", len(msgs), err)
	}
	return nil
}
