// Package dispatch is what a process does with a message of the task queue, whatever its
// backend and whatever has started it: each role as a worker.Do.
package dispatch

import (
	"context"
	"errors"
	"fmt"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/coordinator"
	"hayrick/retryplanner"
	"hayrick/worker"
)

// Roles are those of one process. All fields are required.
type Roles struct {
	Coordinator *coordinator.Coordinator
	Worker      *worker.Worker
	Planner     *retryplanner.Planner
	Aggregator  *aggregator.Aggregator
	Queue       worker.Queue
}

// Do has what carries out a message, by its role.
func (r *Roles) Do() map[hayrick.Role]worker.Do {
	return map[hayrick.Role]worker.Do{
		hayrick.RoleWorker:       r.Worker.Attempt,
		hayrick.RoleRetryPlanner: r.closeGroup,
		hayrick.RoleAggregator:   r.aggregate,
	}
}

// closeGroup carries out a message of role retryplanner.
func (r *Roles) closeGroup(ctx context.Context, d hayrick.Delivery) (worker.Verdict, error) {
	done, err := r.Planner.Plan(ctx, d.JobID, d.Generation, d.Group)
	switch {
	case errors.Is(err, hayrick.ErrInputChanged):
		return r.pauseChanged(ctx, d, err)
	case errors.Is(err, hayrick.ErrNotFound):
		return worker.Verdict{Ack: true, Because: "no such group in this generation"}, nil
	case err != nil:
		return worker.Verdict{Again: d.AfterFault(), Because: "close the group"}, err
	case done.Ended || done.Closed:
		return worker.Verdict{Ack: true, Because: "closed"}, nil
	}
	// Somebody took the group for full. What is missing is sent again; whoever ends the
	// last of it sends this trigger anew.
	var out []hayrick.Outgoing
	for _, m := range done.Missing {
		out = append(out, hayrick.Outgoing{Message: hayrick.Message{
			JobID: d.JobID, Generation: d.Generation, Role: hayrick.RoleWorker, Group: d.Group, Block: m.Block, Position: m.Position, TaskID: m.TaskID,
		}})
	}
	if err := r.Queue.Send(ctx, hayrick.QueueTasks, out...); err != nil {
		return worker.Verdict{Again: d.AfterFault(), Because: "send what is missing"}, err
	}
	return worker.Verdict{Ack: true, Because: "not closed"}, nil
}

// pauseChanged pauses a job whose input is not what was planned.
func (r *Roles) pauseChanged(ctx context.Context, d hayrick.Delivery, changed error) (worker.Verdict, error) {
	reason := fmt.Sprintf("%v; restore the file and `hayrick resume %s`, or `hayrick cancel %s` and `hayrick run --new`", changed, d.JobID, d.JobID)
	if err := r.PauseAgain(ctx, d, worker.RuleInputChanged, reason); err != nil {
		return worker.Verdict{Again: d.AfterFault(), Because: "pause the job"}, err
	}
	return worker.Verdict{Ack: true, Because: "the input has changed"}, nil // a resume leads back here by a sweep
}

// PauseAgain gives the automatic pause of a rule that no resume silences: each resume is
// one more look at it.
func (r *Roles) PauseAgain(ctx context.Context, d hayrick.Delivery, rule, reason string) error {
	for n := 1; ; n++ {
		name := rule
		if n > 1 {
			name = fmt.Sprintf("%s-%d", rule, n)
		}
		silenced, err := r.Coordinator.Pause(ctx, d.JobID, d.Generation, d.Group, name, reason)
		if err != nil || !silenced {
			return err
		}
	}
}

// aggregate carries out a message of role aggregator.
func (r *Roles) aggregate(ctx context.Context, d hayrick.Delivery) (worker.Verdict, error) {
	v, err := r.Aggregator.Do(ctx, d)
	return worker.Verdict(v), err
}
