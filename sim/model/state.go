package model

import (
	"fmt"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// What a World has room for.
const (
	maxTasks  = 24
	maxGroups = 8
	maxItems  = 8
	maxOrders = 6
)

// End is how an item ended in a task, as its results.done says.
type End uint8

// The ends. A task whose batch could not run as a whole has Failed set instead.
const (
	OK End = iota
	Gone
	Busy  // run again, at the cost of a try
	Infra // run again, at no cost
)

func (e End) disposition() string {
	return [...]string{"", string(hayrick.Permanent), string(hayrick.Transient), string(hayrick.Infra)}[e]
}

// Fate is what a plan says of an item.
type Fate uint8

// The fates. None: it ended ok, or is not of the group that the plan closes.
const (
	None Fate = iota
	Retry
	Permanent
	Exhausted
)

var fates = map[string]Fate{"retry": Retry, "permanent": Permanent, "exhausted": Exhausted}

// Result is what a results.done says.
type Result struct {
	Writes uint8 // commits that were stored under its key: at most 1
	Failed bool
	Data   bool // what it names was in the store before it
	Ends   [maxItems]End
}

// Hold is what of a lease holds.
type Hold uint8

// A claim is no record, a lease that holds, one that has run out, or one that was given
// back.
const (
	NoClaim Hold = iota
	Held
	RanOut
	Released
)

// Claim is the record of a task's claim. An attempt is told by its fence, and that by
// the incarnation of the state store.
type Claim struct {
	Hold     Hold
	Fence    uint8
	Vanished uint8
	Idle     uint8
}

// Task is a task of a worker, or a merge.
type Task struct {
	Group  uint8
	Items  uint8 // of its batch, as a set
	Result Result
	Claim  Claim
	First  uint8 // messages of it that nobody has received yet ..
	Again  uint8 // .. and that somebody has
	Sent   bool  // it has had a message
}

// Group is a group of tasks that a commit has opened.
type Group struct {
	Merge   bool // of the aggregator
	First   uint8
	Tasks   uint8
	Record  bool   // it has a progress record ..
	Done    uint16 // .. with these positions
	Counted uint8  // marks that were made: what a blind counter would say
	Trigger uint8  // messages that wake who closes it
}

// Plan is a decision of the retry planner: it closes the group of its number.
type Plan struct {
	Writes uint8
	Merge  bool // nothing is to be run again
	Fates  [maxItems]Fate
}

// Status is a JobStatus.
type Status uint8

// The statuses; the last three are the outcomes.
const (
	NoStatus Status = iota
	Running
	Paused
	Succeeded
	Failed
	Cancelled
)

var statuses = []hayrick.JobStatus{"", hayrick.StatusRunning, hayrick.StatusPaused, hayrick.StatusSucceeded, hayrick.StatusFailed, hayrick.StatusCancelled}

func statusOf(s hayrick.JobStatus) Status {
	for i, x := range statuses {
		if x == s {
			return Status(i)
		}
	}
	panic("no status of the model: " + string(s))
}

// Outcome is the end of the generation, with what it counts.
type Outcome struct {
	Writes               uint8
	Status               Status
	Orders               uint8 // that it has applied
	OK, Permanent, Spent uint8
}

// Order is one that a person gives.
type Order uint8

// The orders.
const (
	NoOrder Order = iota
	Pause
	Resume
	Cancel
)

var orderNames = []string{"", manifest.OrderPause, manifest.OrderResume, manifest.OrderCancel}

// Cache is the job's record in the state store.
type Cache struct {
	Status Status
	Orders uint8
	Group  uint8 // what sweeps waited for, and how much of it was done
	Done   uint8
}

// World is all that processes share: the commits, the state store and the queue. Every
// field is a value, so that worlds are compared and hashed as they are.
type World struct {
	// The commits.
	Groups  [maxGroups]Group
	NGroups uint8 // 0: the job has no plan
	Tasks   [maxTasks]Task
	NTasks  uint8
	Plans   [maxGroups]Plan
	NPlans  uint8
	Merge   uint8 // writes of the merge plan
	Outcome Outcome
	Orders  [maxOrders]Order
	NOrders uint8
	View    Status // what the job manifest says: it is written last

	// The rest of the state store, and of the queue.
	Cache  Cache
	Wipes  uint8
	Closer uint8 // messages that wake the aggregator

	Budget Budget // of what may still go wrong
	Lossy  bool   // a message was lost, or done with because the job was paused
	Bad    Bad    // what a step did that no step may
}

// Budget bounds what goes wrong in a search, and what people do.
type Budget struct {
	Crashes   uint8 // a process dies
	Errors    uint8 // a call fails before its effect, or its reply is lost
	Stalls    uint8 // a lease or a message's visibility ends under somebody who is alive
	Losses    uint8 // a message is lost
	Doubles   uint8 // a message is delivered twice
	Wipes     uint8 // the state store is deleted
	Purges    uint8 // the queue is deleted
	Strays    uint8 // a trigger comes that nobody has sent
	Deadlines uint8 // an attempt hands its task back
	Pauses    uint8
	Cancels   uint8
}

// Bad is a rule that a step has broken.
type Bad uint8

// What steps can break; what states can is in Check.
const (
	Fine Bad = iota
	FenceStood
	StoleLease
	StartedRefused
	CutShort
	Unbalanced
	Endless
)

var badNames = [...]string{
	"", "a claim did not get a larger fence", "a claim was granted over a lease that holds",
	"an attempt that was told that the job is paused or has ended started",
	"a group was closed, or the generation ended, before every task had its result",
	"the items of the outcome do not add up",
	"there are more groups than the model has room for",
}

// open is the group that runs: that of the last plan, of the merge when that is planned.
func (w *World) open() (g int, ok bool) {
	switch {
	case w.NGroups == 0:
		return 0, false
	case w.Merge > 0:
		g = int(w.NGroups) - 1
		return g, w.Groups[g].Merge
	case w.NPlans > 0 && w.Plans[w.NPlans-1].Merge:
		return 0, false
	}
	return int(w.NPlans), true
}

// merging is the first group of merges that has not ended.
func (w *World) merging() (g int, ok bool) {
	for g := range int(w.NGroups) {
		if w.Groups[g].Merge && !w.settled(g) {
			return g, true
		}
	}
	return 0, false
}

// closed says that the last plan leaves nothing to be run again.
func (w *World) closed() bool { return w.NPlans > 0 && w.Plans[w.NPlans-1].Merge }

// settled says that every task of a group has its result.
func (w *World) settled(g int) bool {
	x := w.Groups[g]
	for t := x.First; t < x.First+x.Tasks; t++ {
		if w.Tasks[t].Result.Writes == 0 {
			return false
		}
	}
	return true
}

// addGroup makes a group of tasks with these items.
func (w *World) addGroup(merge bool, items ...uint8) {
	g := w.NGroups
	w.Groups[g] = Group{Merge: merge, First: w.NTasks, Tasks: uint8(len(items))}
	w.NGroups++
	for _, set := range items {
		w.Tasks[w.NTasks] = Task{Group: g, Items: set}
		w.NTasks++
	}
}

// Doing is what an act is at.
type Doing uint8

// What acts do.
const (
	Idle Doing = iota
	Attempting
	Merging
	Planning
	Aggregating
	Sweeping
)

// Act is one who acts: a delivery in the hands of a process, or a sweep.
type Act struct {
	Sweeper bool
	Doing   Doing
	At      Point
	On      uint8 // the task, or the group
	Again   bool  // the message was delivered before
	Lost    bool  // the message is gone: the queue was deleted
	Shown   bool  // the message has become visible to others meanwhile
	Told    bool  // that the job is paused or has ended
	Claimed bool
	Fence   uint8 // of its claim ..
	Wipes   uint8 // .. in this incarnation
	Result  Result
	Plan    Plan
	Sweep   Sweep
}

// Sweep is a coordinator.Decision in small.
type Sweep struct {
	Cancel     bool
	Put        bool
	Cache      Cache
	View       Status
	Scan       bool
	Blind      bool
	WakeClosed bool // the closer of Group is to be woken
	WakeMerge  bool // the aggregator is
	Group      uint8
	Mark, Send uint16
}

// Point is where in its program an act stands: before the step of that name.
type Point uint8

// The points, in the order of the commit protocol.
const (
	Rest Point = iota
	Admit
	Look
	Ask
	LookAgain
	Run
	Commit
	MarkDone
	Wake
	HandBack
	Survey
	SendMissing
	SendNext
	Read
	Pin
	Level
	SendMerges
	Finish
	Publish
	CancelJob
	PutCache
	PutView
	Scan
	Repair
	Trigger
	Ack
)

// maxActs is how many act at once in a search.
const maxActs = 3

// State is one of a search.
type State struct {
	World
	Acts [maxActs]Act
}

func (w World) String() string {
	var b strings.Builder
	for g := range w.Groups[:w.NGroups] {
		x := w.Groups[g]
		fmt.Fprintf(&b, "group %d", g)
		if x.Merge {
			b.WriteString(" (merge)")
		}
		fmt.Fprintf(&b, " marked %b triggers %d:", x.Done, x.Trigger)
		for t := x.First; t < x.First+x.Tasks; t++ {
			k := w.Tasks[t]
			fmt.Fprintf(&b, " task %d {results %d, fence %d %s, messages %d+%d}", t, k.Result.Writes, k.Claim.Fence, [...]string{"no claim", "held", "ran out", "released"}[k.Claim.Hold], k.First, k.Again)
		}
		b.WriteString("; ")
	}
	fmt.Fprintf(&b, "plans %d, merge plan %d, outcome %d %s, view %s, cache %s, orders %v", w.NPlans, w.Merge, w.Outcome.Writes, statuses[w.Outcome.Status], statuses[w.View], statuses[w.Cache.Status], w.Orders[:w.NOrders])
	return b.String()
}
