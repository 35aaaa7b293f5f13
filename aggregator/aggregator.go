package aggregator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// Aggregator plans and runs the merge of a generation. All fields are required.
type Aggregator struct {
	Store  *manifest.Store
	State  State
	Queue  Queue
	Blobs  Blobs
	Output Output
	// Temp makes a scratch file.
	Temp        func() (manifest.Temp, error)
	World       hayrick.World
	Log         *slog.Logger
	CodeVersion string
}

const (
	againHeld  = 5 * time.Second
	againFault = time.Second
)

// Do carries out a message of role aggregator: a merge task, or a trigger.
func (a *Aggregator) Do(ctx context.Context, d hayrick.Delivery) (Verdict, error) {
	if d.TaskID != "" {
		return a.Merge(ctx, d)
	}
	err := a.Advance(ctx, d.JobID, d.Generation)
	if errors.Is(err, hayrick.ErrNotFound) {
		return Verdict{Ack: true, Because: err.Error()}, nil // not that far, or no job: the sweeper knows
	}
	if err != nil {
		return Verdict{Again: againFault, Because: "advance the aggregation"}, err
	}
	return Verdict{Ack: true, Because: "advanced"}, nil
}

// Advance does the next step of the aggregation: plan it, end it when all merges
// have ended, publish it when it has. Any number of callers may do the same step;
// they write the same objects, and the first commit stands.
func (a *Aggregator) Advance(ctx context.Context, jobID string, generation int) error {
	job, err := a.open(ctx, jobID, generation)
	if err != nil {
		return err
	}
	o, sha, err := a.Store.Outcome(ctx, jobID, generation)
	if err == nil {
		return a.publish(ctx, job, o, sha)
	}
	if !errors.Is(err, hayrick.ErrNotFound) {
		return err
	}
	plan, _, err := a.Store.AggregationPlan(ctx, jobID, generation)
	if errors.Is(err, hayrick.ErrNotFound) {
		if plan, err = a.plan(ctx, job); err != nil {
			var conflict *rows.SchemaConflict
			if errors.As(err, &conflict) {
				return a.end(ctx, job, nil, manifest.CodeNothingToMerge, err.Error())
			}
			return err
		}
		if plan.Group != nil {
			return a.send(ctx, job, plan)
		}
	}
	if err != nil {
		return err
	}
	return a.root(ctx, job, plan)
}

// jobOf is what every step needs of a job.
type jobOf struct {
	id         manifest.Job
	generation int
	plan       manifest.Plan
	def        hayrick.JobDefinition
}

func (a *Aggregator) open(ctx context.Context, jobID string, generation int) (*jobOf, error) {
	p, _, err := a.Store.Plan(ctx, jobID)
	if err != nil {
		return nil, err
	}
	def, err := a.Store.Definition(ctx, p)
	if err != nil {
		return nil, err
	}
	return &jobOf{id: manifest.Job(jobID), generation: generation, plan: p, def: def}, nil
}

// send enqueues the merge tasks. A crash before or in the middle leaves some
// unsent; the sweeper finds them by their missing marks.
func (a *Aggregator) send(ctx context.Context, job *jobOf, p manifest.AggregationPlan) error {
	m, err := a.Store.Members(ctx, string(job.id), job.generation, *p.Group)
	if err != nil {
		return err
	}
	for n := range m.Blocks() {
		b, err := m.Block(ctx, a.Store, n)
		if err != nil {
			return err
		}
		out := make([]hayrick.Outgoing, len(b.Tasks))
		for i, t := range b.Tasks {
			out[i].Message = hayrick.Message{
				JobID: string(job.id), Generation: job.generation, Role: hayrick.RoleAggregator,
				Group: p.Group.Name, Block: n, Position: i, TaskID: t.TaskID,
			}
		}
		if err := a.Queue.Send(ctx, hayrick.QueueTasks, out...); err != nil {
			return fmt.Errorf("send merge tasks: %w", err)
		}
	}
	return nil
}

// nodeResult is the result that stands for a level-1 node: of its task, or of the
// repetition of a FAILED one. ErrNotFound: none has ended yet; next is the id to
// run then. A node that FAILED every time comes back FAILED. chain, unless nil,
// gets the digest of every result that was read.
func (a *Aggregator) nodeResult(ctx context.Context, job *jobOf, task string, chain map[string]string) (res manifest.Result, next string, err error) {
	next = task
	for run := range Runs {
		if run > 0 {
			next = fmt.Sprintf("%s-r%d", task, run)
		}
		var sha string
		res, sha, err = a.Store.Result(ctx, string(job.id), next)
		if err == nil && chain != nil {
			chain[job.id.Rel(job.id.Done(next))] = sha
		}
		if err != nil || res.Status == string(hayrick.TaskDone) {
			return res, next, err
		}
	}
	return res, next, nil
}
