// Package model is the protocol beside the code: an explicit-state search over what tasks,
// attempts, plans, triggers and sweeps can come to, and a follower that holds the runs of
// the simulator against it.
//
// # What a state is
//
// A World is what processes share, as small as it can be and still be told apart: the
// commits (results, retry plans, the merge plan, the outcome, orders), the state store
// (claims with fence and lease, progress records, the cached state of the job) and the
// queue (how many messages there are of each task, and of each trigger; two stand for
// more). Beside it stand Acts: who has a message in hand, or sweeps, and the Point of its
// program that it has come to. Every field is a value, so that states are hashed as they
// are. There is no time but before and after: a lease that is not renewed may end at any
// moment, and a sweep always comes so late that it has waited for long enough.
//
// # What a step is
//
// The decisions are the shipping functions, called with facts made from the state (Rules):
// hayrick.NextClaim, ClaimPatch.Apply, BlockState.Full and Delivery.WhenHeld,
// worker.Refused and ModeOf, coordinator.Decide, DecideMissing, Apply and Known.Opened,
// retryplanner.Fate, aggregator.Balance. Who changes one of them changes the model. The
// order of steps between decisions is in the shells that carry them out, and stands here a
// second time, call by call:
//
//	attempt      worker.Worker.Attempt, aggregator.Aggregator.Merge   (*Model).attempt
//	planner      retryplanner.Planner.Plan                            (*Model).closeGroup
//	aggregator   aggregator.Aggregator.Advance                        (*Model).aggregate
//	sweep        coordinator.Coordinator.Repair                       (*Model).repair
//
// That is what the Follower is for.
//
// # Search
//
// Search goes breadth first through every state that a small job can reach: two workers
// and a sweeper, up to three items, two tasks, two retry groups, and a Budget of things
// that go wrong at any moment: processes die, calls fail, leases and visibilities end
// under somebody alive, messages are lost, doubled or come from nowhere, the state store or
// the queue is deleted, people pause, resume and cancel. Workers that change places are one
// state (fold), and a step that nobody else can tell is taken at once (alone). Check
// asserts of each state: a result, a plan and an outcome are stored once, and data before
// what names it; what is marked has a result; fences grow and a lease that holds is not
// taken; an attempt that was told that the job is paused or has ended starts nothing; a
// group is closed, and the job ended, when every task has its result; every item is where
// it is once; and while no message was lost, none is needed. Then Search goes back from the
// ends: a state from which none can be reached without another fault is a defect too. A
// defect is told as the shortest way there, in words.
//
// # Conformance
//
// A Follower is told of every effect that a simulated run has in its store, in order, and
// takes the step of that name in the model. What happens inside of a process is not seen:
// an act is a set of points, any of which it may have come to. What no step explains is
// refused, and so is a record, a claim, a plan or an outcome with another content than the
// model has. So neither can drift: code that does something new is refused in the runs of
// the simulator, and a model that is made to allow it is searched.
//
// # What it leaves out
//
// A snapshot that a sweep takes, and what a planner reads, is one step here and many calls
// there. Redrives and merges on two levels are followed and not searched. Checkpoints,
// rate limits, retry.stop_if, budgets and pauses of rules are neither. Of sweeps and people
// the Follower holds each effect by itself against the properties, and not their order.
package model
