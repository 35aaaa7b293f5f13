package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-lambda-go/events"

	"hayrick"
	"hayrick/worker"
)

// work carries out the messages of an event with the pool and the roles of `hayrick
// worker`, and says which are to come again. Every one that is not done with is shown
// again as its role wants it; the answer only keeps the event source mapping from
// deleting it.
//
// A crash, or the end of the time, at any line leaves all messages of the event in the
// queue: they come again when their visibility ends, and what was committed is found
// done.
func (f *function) work(ctx context.Context, t lent, messages []events.SQSMessage) events.SQSEventResponse {
	if err := clearScratch(f.scratch); err != nil {
		f.log.Warn("what an earlier invocation left stays", hayrick.KeyError, err)
	}
	roles := f.pool(1).Do
	plays := func(r hayrick.Role) bool { return roles[r] != nil }
	s := sortMessages(messages, plays, f.world.Clock.Now())
	for _, o := range s.odd {
		f.tellOdd(o)
	}
	for i, d := range s.early {
		if err := f.store.Extend(ctx, hayrick.QueueTasks, s.until[i].Sub(f.world.Clock.Now()), d); err != nil {
			f.log.Warn("a message that is not due yet comes early", hayrick.KeyJobID, d.JobID, hayrick.KeyTaskID, d.TaskID, hayrick.KeyError, err)
		}
	}
	ctx, cancel := t.until(ctx)
	defer cancel()
	q := newEventQueue(ctx, f.store, f.world.Clock, s.work)
	defer q.end()
	pool := f.lend(t).pool(max(1, len(s.work)))
	for role, do := range pool.Do {
		pool.Do[role] = f.inTime(q, do)
	}
	pool.Queue = q
	pool.Idle = func(context.Context) bool { return true }
	if err := pool.Run(ctx); err != nil {
		f.log.Error("the invocation did not get to its messages", hayrick.KeyError, err)
	}
	return answer(messages, q.acked)
}

// tellOdd tells of a message that is left in the queue: its dead letter queue shows it
// to a person in the end.
func (f *function) tellOdd(o odd) {
	if o.kind != "" && f.told[o.kind] {
		return
	}
	f.told[o.kind] = true
	f.log.Error("a message that is none of ours is left in the queue", hayrick.KeyError, o.why,
		"hint", "update the function's code where a newer hayrick has sent it; else find out who sends to the queue")
}

// lend is the roles with what knows how long it has.
func (f *function) lend(t lent) *roles {
	r, w := *f.roles, *f.worker
	w.Left = t.left
	r.worker = &w
	r.aggregator.Left = t.left // kept with what it remembers: one invocation at a time
	return &r
}

// triesInTime is how often what does not get done in time is tried. Once may be S3 that
// was slow; an invocation each time after is money for nothing.
const triesInTime = 3

// RuleTooLong is the rule of the pause of a run of which something takes longer than an
// invocation.
const RuleTooLong = "too_long"

// inTime is do for a message of q. Tasks of workers and merges are handed back before the
// time is over. For what did not get done in time all the same, not even a part of it,
// somebody has to give the function more of it, or to do it elsewhere: the run is paused, and says
// so, before its message is a dead letter.
func (f *function) inTime(q *eventQueue, do worker.Do) worker.Do {
	return func(ctx context.Context, d hayrick.Delivery) (worker.Verdict, error) {
		defer q.done()
		v, err := do(ctx, d)
		switch {
		case err == nil:
		case corrupted(err):
			f.log.Error("the run is damaged", hayrick.KeyRole, d.Role, hayrick.KeyJobID, d.JobID, hayrick.KeyGroup, d.Group, hayrick.KeyTaskID, d.TaskID,
				"doing", v.Because, hayrick.KeyError, err, "hint", mend(d.JobID))
		case ctx.Err() != nil && d.Count >= triesInTime:
			return f.pauseTooLong(ctx, d, v, err)
		case ctx.Err() != nil:
			f.log.Error("the time of an invocation was not enough; the message comes again",
				hayrick.KeyRole, d.Role, hayrick.KeyJobID, d.JobID, hayrick.KeyGroup, d.Group, hayrick.KeyTaskID, d.TaskID,
				"doing", v.Because, hayrick.KeyError, err, "hint", "raise TimeoutSeconds of the stack, or run `hayrick worker` on a machine")
		}
		return v, err
	}
}

// pauseTooLong pauses a run of which something does not fit into an invocation. There is
// time left for that (lent.until). Each resume is one more look: whoever gives it works
// on the run himself, for as long as it takes.
func (f *function) pauseTooLong(ctx context.Context, d hayrick.Delivery, v worker.Verdict, tooLong error) (worker.Verdict, error) {
	ctx = context.WithoutCancel(ctx)
	what := cmp.Or(d.TaskID, "the merge")
	if d.Role == hayrick.RoleRetryPlanner {
		what = "planning what follows " + d.Group
	}
	reason := fmt.Sprintf("%s takes longer than an invocation, %d times now; `hayrick resume %s` on a machine does it there, or raise TimeoutSeconds of the stack and resume",
		what, d.Count, d.JobID)
	f.log.Error("the job is paused", hayrick.KeyJobID, d.JobID, "rule", RuleTooLong, "reason", reason, hayrick.KeyError, tooLong)
	err := f.plays().PauseAgain(ctx, d, RuleTooLong, reason)
	if err != nil {
		return v, errors.Join(tooLong, err)
	}
	return worker.Verdict{Ack: true, Because: reason}, nil // a resume leads back here by a sweep
}
