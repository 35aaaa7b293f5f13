package model

import (
	"context"
	"fmt"
	"math"
	"time"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/coordinator"
	"hayrick/manifest"
	"hayrick/retryplanner"
	"hayrick/worker"
)

// Rules are the decisions that the model asks for: the shipping functions, unless a test
// puts a wrong one in place of one.
type Rules struct {
	NextClaim     func(prev *hayrick.Claim, ask hayrick.ClaimAsk, now time.Time, dead bool) (hayrick.Claim, error)
	WhenHeld      func(d hayrick.Delivery, left time.Duration) (wait time.Duration, done bool)
	Full          func(hayrick.BlockState) bool
	Refused       func(st *hayrick.JobState, generation int) (because string, refused bool)
	ModeOf        func(hayrick.Claim) (worker.Mode, string)
	Decide        func(*coordinator.Known, time.Time) coordinator.Decision
	DecideMissing func([]coordinator.Missing, int) coordinator.Repair
	Apply         func([]manifest.Control, int) coordinator.Effect
	Fate          func(r hayrick.Retry, groups int, last manifest.FailureLine, classes []string, infra int) string
	Balance       func(items, ok, permanent, exhausted int64) error
}

// Shipping are the rules as they ship.
func Shipping() Rules {
	return Rules{
		NextClaim: hayrick.NextClaim, WhenHeld: hayrick.Delivery.WhenHeld, Full: hayrick.BlockState.Full,
		Refused: worker.Refused, ModeOf: worker.ModeOf,
		Decide: coordinator.Decide, DecideMissing: coordinator.DecideMissing, Apply: coordinator.Apply,
		Fate: retryplanner.Fate, Balance: aggregator.Balance,
	}
}

// Bend is a program that differs from the shipping one in one step, for tests: it must be
// noticed.
type Bend string

// The bends of programs. Those of decisions are put into Rules.
const (
	AckAtClaim       Bend = "the message is acknowledged when the claim is there, and not last"
	MarkFirst        Bend = "the block is marked before the result is committed"
	CommitUnput      Bend = "the result is committed before its data is put"
	CommitOverwrites Bend = "a result is put whether there is one or not"
	Deaf             Bend = "an attempt starts whatever the state says of the job"
	HandBackLate     Bend = "a hand-back acknowledges before it sends"
	PlanUnread       Bend = "the planner closes a group whose record is full, unread, and marks are counted"
	PlanPartly       Bend = "the planner passes over a task without a result"
	PlanOverwrites   Bend = "a plan is put whether there is one or not"
	ActFirst         Bend = "the planner sends what follows before it commits"
	EndEarly         Bend = "the outcome does not wait for the merges"
	CancelOverwrites Bend = "a cancelled outcome is put whether there is one or not"
)

// Job is what is to be done in a search.
type Job struct {
	Tasks [][]int // the items of each initial task
	Ends  [][]End // of each item: how it may end, whoever tries it
	// Failed: an attempt may find that a batch cannot run as a whole.
	Failed bool
	Passes int
	Lent   bool // merges have a deadline, too
	Unsent bool // the submitter died before it sent the first messages
	// Exact: the queue counts the job's messages, as that of a laptop does.
	Exact bool
	// Notes: what sweeps remember of how far things are is part of the world. Else every
	// sweep finds that nothing has moved for long.
	Notes bool
}

// Model is a job and the rules it is done by.
type Model struct {
	Job
	Rules
	Bend Bend

	items   int
	later   bool // of a generation that goes on with what others have left
	members map[string]*manifest.Members
	swept   map[known]Sweep

	// What a step leads to, for as long as it is looked at.
	after State
	act   Act
}

// New is a model of a job by the rules as they ship.
func New(job Job) *Model {
	return &Model{Job: job, Rules: Shipping(), items: len(job.Ends), members: map[string]*manifest.Members{}, swept: map[known]Sweep{}}
}

// Start is the first state: the plan is committed.
func (m *Model) Start(b Budget) State {
	var s State
	s.Budget = b
	var sets []uint8
	for _, items := range m.Tasks {
		var set uint8
		for _, i := range items {
			set |= 1 << i
		}
		sets = append(sets, set)
	}
	s.addGroup(false, sets...)
	if !m.Unsent {
		for t := range s.World.NTasks {
			s.World.Tasks[t].First, s.World.Tasks[t].Sent = 1, true
		}
	}
	s.Acts[maxActs-1].Sweeper = true
	return s
}

// The time of the model. Only before and after count: a lease ends before late, and a
// sweep always comes so late that it has waited for long enough.
var (
	early = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	late  = early.Add(24 * time.Hour)
	lease = time.Minute
)

// claimOf is a claim as hayrick.NextClaim knows it.
func claimOf(c Claim) *hayrick.Claim {
	if c.Hold == NoClaim {
		return nil
	}
	x := &hayrick.Claim{Attempt: "another", Worker: "another", Fence: int64(c.Fence), Vanished: int(c.Vanished), Idle: int(c.Idle)}
	switch c.Hold {
	case Held:
		x.Until = late.Add(lease)
	case RanOut:
		x.Until = early
	}
	return x
}

func claimIn(c hayrick.Claim) Claim {
	x := Claim{Hold: Held, Fence: uint8(c.Fence), Vanished: uint8(c.Vanished), Idle: uint8(c.Idle)}
	if c.Until.IsZero() {
		x.Hold = Released
	}
	return x
}

// ask is an attempt's wish for a task.
func (m *Model) ask(c Claim) (next Claim, granted bool) {
	got, err := m.NextClaim(claimOf(c), hayrick.ClaimAsk{TaskRef: hayrick.TaskRef{JobID: jobID, TaskID: "task"}, Attempt: "this", Worker: "this", Lease: lease}, late, false)
	if err != nil {
		return c, false
	}
	return claimIn(got), true
}

// stateOf is the job's record.
func stateOf(c Cache) *hayrick.JobState {
	if c.Status == NoStatus {
		return nil
	}
	st := &hayrick.JobState{JobID: jobID, Status: statuses[c.Status], Orders: int(c.Orders), Updated: early}
	if name := waits[c.Group]; name != "" {
		st.Progress = noted(name, int64(c.Done))
	}
	return st
}

func noted(name string, done int64) hayrick.Progress {
	return hayrick.Progress{Group: name, Done: done, Since: early, WaitMS: lease.Milliseconds()}
}

// waits are what a sweep may wait for.
var waits = func() []string {
	names := []string{"", hayrick.GroupInitial}
	for n := 1; n < maxGroups; n++ {
		names = append(names, hayrick.RetryGroup(n))
	}
	return append(names, hayrick.GroupAggregation, "(merge)", "(publication)", "(redrive)")
}()

func waitOf(name string) uint8 {
	for i, w := range waits {
		if w == name {
			return uint8(i)
		}
	}
	panic("the model knows of nothing that waits for " + name)
}

// full says that a group's record is.
func (m *Model) full(g Group) bool {
	st := hayrick.BlockState{Total: int(g.Tasks)}
	for i := range int(g.Tasks) {
		if g.Record && g.Done&(1<<i) != 0 {
			st.Done.Add(i)
		}
	}
	return m.Full(st)
}

// plan is what the retry planner decides about a group, by what its results say.
func (m *Model) plan(w *World, g int) Plan {
	p := Plan{Merge: true}
	retry := hayrick.Retry{Passes: m.Passes}
	x := w.Groups[g]
	for t := x.First; t < x.First+x.Tasks; t++ {
		k := &w.Tasks[t]
		for i := range maxItems {
			if k.Items&(1<<i) == 0 {
				continue
			}
			end, failed := k.failed(i)
			if !failed {
				continue
			}
			classes, infra := w.past(g, i)
			p.Fates[i] = fates[m.Fate(retry, g, manifest.FailureLine{Class: "class", Disposition: end.disposition()}, classes, infra)]
			if p.Fates[i] == Retry {
				p.Merge = false
			}
		}
	}
	return p
}

// failed says that an item of the task did not end ok. A batch that could not run as a
// whole costs its items no try, and so does, where a bend has closed it, one without a
// result.
func (k *Task) failed(i int) (End, bool) {
	if k.Result.Failed {
		return Infra, true
	}
	return k.Result.Ends[i], k.Result.Ends[i] != OK
}

// past is how an item failed in the groups before g.
func (w *World) past(g, i int) (classes []string, infra int) {
	for t := range w.Tasks[:w.NTasks] {
		k := &w.Tasks[t]
		if int(k.Group) >= g || k.Items&(1<<i) == 0 {
			continue
		}
		end, failed := k.failed(i)
		if !failed {
			continue
		}
		classes = append(classes, "class")
		if end == Infra {
			infra++
		}
	}
	return classes, infra
}

// count is how many items have ended how, as the merge plan and the outcome count them:
// the ok ones by the results of closed groups, the others by the lists of the plans.
func (w *World) count() (ok, permanent, exhausted int64) {
	for t := range w.Tasks[:w.NTasks] {
		k := &w.Tasks[t]
		if w.Groups[k.Group].Merge || k.Group >= w.NPlans || k.Result.Writes == 0 {
			continue
		}
		for i := range maxItems {
			if _, failed := k.failed(i); k.Items&(1<<i) != 0 && !failed {
				ok++
			}
		}
	}
	for _, p := range w.Plans[:w.NPlans] {
		for _, f := range p.Fates {
			switch f {
			case Permanent:
				permanent++
			case Exhausted:
				exhausted++
			}
		}
	}
	return ok, permanent, exhausted
}

const jobID = "model-20260101-aaaaaa"

// known is what a sweep knows, as far as it makes a difference.
type known struct {
	plans   uint8
	closed  bool
	tasks   [maxGroups]uint8 // of each group
	groups  uint8
	record  bool
	done    uint16
	merge   bool
	outcome Status
	view    Status
	cache   Cache
	orders  [maxOrders]Order
	depth   uint8
}

func (w *World) known(inHand int) known {
	k := known{
		plans: w.NPlans, closed: w.closed(), groups: w.NGroups, merge: w.Merge > 0, outcome: w.Outcome.Status, view: w.View,
		cache: w.Cache, orders: w.Orders, depth: uint8(inHand) + w.Closer,
	}
	for g := range w.Groups[:w.NGroups] {
		k.tasks[g] = w.Groups[g].Tasks
		k.depth += w.Groups[g].Trigger
	}
	for t := range w.Tasks[:w.NTasks] {
		k.depth += w.Tasks[t].First + w.Tasks[t].Again
	}
	if g, ok := w.open(); ok {
		k.record, k.done = w.Groups[g].Record, w.Groups[g].Done
	}
	return k
}

// sweep is what a sweep does about what it knows.
func (m *Model) sweep(w *World, inHand int) Sweep {
	key := w.known(inHand)
	s, ok := m.swept[key]
	if !ok {
		s = m.decide(key)
		m.swept[key] = s
	}
	if g, ok := w.open(); s.Scan && ok {
		s.Group = uint8(g)
		s.Send = ^w.Groups[g].Done & (1<<w.Groups[g].Tasks - 1) // to be looked at
	}
	return s
}

// decide asks coordinator.Decide.
func (m *Model) decide(w known) Sweep {
	k := &coordinator.Known{
		Plan:       manifest.Plan{JobID: jobID, Items: int64(m.items)},
		Definition: hayrick.JobDefinition{Retry: hayrick.Retry{Passes: m.Passes}, Run: hayrick.Run{Lease: hayrick.Duration(lease)}},
		Depth:      hayrick.Depth{Messages: int(w.depth), Exact: m.Exact},
		Cached:     stateOf(w.cache),
		ViewStatus: statuses[w.view],
		Orders:     orders(w.orders),
	}
	k.Plan.Group = m.group(hayrick.GroupInitial, int(w.tasks[0])).Group
	for i := range int(w.plans) {
		p := manifest.RetryPlan{Closed: k.Plan.Group.Name, Next: hayrick.RetryGroup(i + 1)}
		if i+1 == int(w.plans) && w.closed {
			p.Next = manifest.NextAggregation
		} else {
			g := m.group(p.Next, int(w.tasks[i+1])).Group
			p.Group = &g
		}
		k.Retries = append(k.Retries, p)
	}
	if w.merge {
		k.Aggregation = &manifest.AggregationPlan{}
		if w.groups > w.plans { // the last one is its
			g := m.group(hayrick.GroupAggregation, int(w.tasks[w.groups-1])).Group
			k.Aggregation.Group = &g
		}
	}
	if w.outcome != NoStatus {
		k.Outcome = &manifest.Outcome{Status: string(statuses[w.outcome])}
	} else if name, g := k.Opened(); name != "" {
		k.Open = &coordinator.OpenGroup{Name: name}
		if g != nil {
			k.Open.Members = m.group(name, int(g.Tasks))
			id, total := k.Open.Members.At(0, 0)
			if w.record {
				st := hayrick.BlockState{BlockID: id, Total: total}
				for i := range total {
					if w.done&(1<<i) != 0 {
						st.Done.Add(i)
					}
				}
				k.Open.Records = []hayrick.BlockState{st}
			}
		}
	}
	if k.Cached != nil && !m.Notes {
		k.Cached.Progress = standsStill(k)
	}
	d := m.Decide(k, late)
	s := Sweep{Cancel: d.Cancel, Scan: len(d.Scan) > 0, Blind: d.Blind}
	if d.State != nil {
		s.Cache = Cache{Status: statusOf(d.State.Status), Orders: uint8(d.State.Orders)}
		if m.Notes {
			s.Cache.Group, s.Cache.Done = waitOf(d.State.Progress.Group), uint8(d.State.Progress.Done)
		}
		s.Put = s.Cache != w.cache
	}
	if d.View {
		s.View = statusOf(d.Status)
	}
	for _, t := range d.Triggers {
		if t.Role == hayrick.RoleRetryPlanner {
			s.WakeClosed, s.Group = true, waitOf(t.Group)-1
		} else {
			s.WakeMerge = true
		}
	}
	if !s.Put {
		s.Cache = Cache{}
	}
	return s
}

// standsStill is what was noted where nothing has moved since.
func standsStill(k *coordinator.Known) hayrick.Progress {
	switch {
	case k.Outcome != nil:
		return noted("(publication)", 0)
	case k.Open == nil:
		return noted("(merge)", 0)
	}
	var done int64
	for _, r := range k.Open.Records {
		done += int64(r.Done.Count())
	}
	return noted(k.Open.Name, done)
}

// group is a group of one block.
func (m *Model) group(name string, tasks int) *manifest.Members {
	key := fmt.Sprint(name, tasks)
	if x, ok := m.members[key]; ok {
		return x
	}
	g := manifest.Group{Name: name, Phase: string(hayrick.PhaseOf(name)), Tasks: int64(tasks)}
	sha := manifest.SHA256([]byte(key))
	g.Blocks = []manifest.BlockRef{{Key: manifest.Job(jobID).Rel(manifest.Job(jobID).Block(name, 0, sha)), SHA256: sha, Tasks: tasks}}
	x, err := (&manifest.Store{}).Members(context.Background(), jobID, 0, g) // its lists are inline: nothing is read
	if err != nil {
		panic(err)
	}
	m.members[key] = x
	return x
}

// orders are those of a world as they are stored.
func orders(os [maxOrders]Order) (out []manifest.Control) {
	for n, o := range os {
		if o != NoOrder {
			out = append(out, manifest.Control{JobID: jobID, N: n, Order: orderNames[o], At: manifest.At(early)})
		}
	}
	return out
}

// lookedAt is what a sweep sees of a task.
type lookedAt struct {
	position    int
	there, held bool
}

// missing is what coordinator.DecideMissing makes of it.
func (m *Model) missing(tasks []lookedAt) (mark, send uint16) {
	var ms []coordinator.Missing
	for _, t := range tasks {
		x := coordinator.Missing{Position: t.position, Held: t.held}
		if t.there {
			x.Result = &manifest.Result{}
		}
		ms = append(ms, x)
	}
	r := m.DecideMissing(ms, math.MaxInt)
	for _, x := range r.Marks {
		mark |= 1 << x.Position
	}
	for _, x := range r.Send {
		send |= 1 << x.Position
	}
	return mark, send
}
