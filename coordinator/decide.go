package coordinator

import (
	"fmt"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// Decision is what a sweep does about a job. Every effect is conditional or safe to
// repeat, so that any number of sweepers may carry it out at once.
type Decision struct {
	Generation int
	Status     hayrick.JobStatus
	Complete   bool              // the generation has ended, and all that follows from that is there
	State      *hayrick.JobState // to be cached; nil when it is so already
	View       bool              // the job manifest is to be written anew
	Cancel     bool              // the generation ends as CANCELLED
	Pause      *manifest.Control // an automatic pause to give
	Triggers   []hayrick.Message // phase changes that nobody seems to be at
	Marks      []hayrick.Mark    // full records that their parents do not know
	Scan       []int             // blocks whose missing tasks are to be looked for one by one
	Lot        int               // ... until so many are sent again; 0 = all
	Blind      bool              // ... or rather not looked for: all are sent
	Because    []string

	progress hayrick.Progress // to be remembered
}

// RuleStopIf is the rule of the pause that retry.stop_if gives.
const RuleStopIf = "stop_if"

// Decide says what is to be done about a job. It is a pure function of the
// snapshot, so that a plan can be printed, tested and simulated.
func Decide(k *Known, now time.Time) Decision {
	d := Decision{Generation: k.Generation, Status: hayrick.StatusRunning}
	if k.Purging() { // there is nothing to be done for it, and nobody looks again
		d.Status, d.Complete = hayrick.StatusPurging, true
		return d
	}
	effect := Apply(k.Orders, k.Generation)
	switch {
	case k.Outcome != nil:
		d.Status = hayrick.JobStatus(k.Outcome.Status)
		d.Complete = k.ViewStatus == d.Status
		if d.Status == hayrick.StatusSucceeded && k.ViewStatus != d.Status {
			// The view is written last: without it publishing may not be complete.
			d.trigger(k, hayrick.RoleAggregator, "", pending{group: waitsForPublication}, now, "the outcome is there, its publication perhaps not")
		}
	case effect.Cancelled:
		d.Status, d.Cancel = hayrick.StatusCancelled, true
		d.Because = append(d.Because, "cancelled by an order")
	case effect.Paused:
		d.Status = hayrick.StatusPaused
		d.Because = append(d.Because, "paused: "+effect.Reason)
	default:
		d.advance(k, now)
		p := stopIf(k, effect)
		if p == nil {
			p = overBudget(k, effect, now)
		}
		if p != nil {
			d.Pause, d.Status = p, hayrick.StatusPaused
			d.Because = append(d.Because, p.Reason)
		}
	}
	state := hayrick.JobState{JobID: k.Plan.JobID, Generation: k.Generation, Status: d.Status, Orders: len(k.Orders), Updated: now}
	if d.Status != hayrick.StatusPaused { // its messages are done with: what was known of them is nothing now
		state.Progress = d.progress
	}
	if k.Cached == nil || k.Cached.Generation != state.Generation || k.Cached.Status != state.Status || k.Cached.Orders != state.Orders || k.Cached.Progress != state.Progress {
		d.State = &state
	}
	// The aggregator writes the view of a success itself, after publishing.
	d.View = k.ViewStatus != d.Status && d.Status != hayrick.StatusSucceeded
	return d
}

// advance moves a running generation on.
func (d *Decision) advance(k *Known, now time.Time) {
	if k.unplanned() {
		d.trigger(k, hayrick.RoleRetryPlanner, "", pending{group: waitsForRedrive}, now, fmt.Sprintf("order %d opens generation %d", k.Opening.N, k.Generation))
		return
	}
	if k.Open == nil {
		d.trigger(k, hayrick.RoleAggregator, "", pending{group: waitsForMerge}, now, "nothing is left to retry")
		return
	}
	g := k.Open
	p := pending{group: g.Name, notBefore: g.NotBefore}
	role := hayrick.RoleRetryPlanner
	if g.Name == hayrick.GroupAggregation {
		role = hayrick.RoleAggregator
	}
	if g.Members == nil {
		d.trigger(k, role, g.Name, p, now, "the group has no tasks")
		return
	}
	// A record that is full must be in its parent; whoever filled it may have crashed.
	at := make(map[[2]int]hayrick.BlockState, len(g.Records))
	ended := int64(0)
	for _, r := range g.Records {
		at[[2]int{r.Level, r.N}] = r
		p.done += int64(r.Done.Count())
		if r.Level == 0 {
			ended += int64(r.Done.Count())
		}
	}
	for _, r := range g.Records {
		if !r.Full() {
			continue
		}
		if up, ok := g.Members.Up(r.BlockID); ok && !at[[2]int{up.Block.Level, up.Block.N}].Done.Has(up.Position) {
			d.Marks = append(d.Marks, up)
		}
	}
	if root := at[[2]int{g.Members.Levels() - 1, 0}]; root.Full() {
		d.trigger(k, role, g.Name, p, now, "all its tasks have ended")
		return
	}
	p.tasks = g.Members.Group.Tasks - ended
	l := k.lost(p, now)
	d.progress = l.note
	if !l.lost || len(d.Marks) > 0 { // the marks may fill the root
		return
	}
	d.Lot, d.Blind = l.lot, l.blind
	for n := range g.Members.Blocks() {
		if !at[[2]int{0, n}].Full() {
			d.Scan = append(d.Scan, n)
		}
	}
	d.Because = append(d.Because, fmt.Sprintf("%s, and %d blocks of %s are not full", l.because, len(d.Scan), g.Name))
}

// trigger sends a trigger when none seems to be about.
func (d *Decision) trigger(k *Known, role hayrick.Role, group string, p pending, now time.Time, because string) {
	p.tasks = 1
	l := k.lost(p, now)
	d.progress = l.note
	if l.lost {
		d.Triggers = append(d.Triggers, hayrick.Message{JobID: k.Plan.JobID, Generation: k.Generation, Role: role, Group: group})
		d.Because = append(d.Because, because+", and "+l.because)
	}
}

// pending is what a generation waits for.
type pending struct {
	group     string
	done      int64     // members of its progress records
	tasks     int64     // open ones; 1 for a trigger. Each has a message, or somebody at work who has
	notBefore time.Time // nobody is to be at work before
}

// What is waited for when no group is open.
const (
	waitsForMerge       = "(merge)"
	waitsForRedrive     = "(redrive)"
	waitsForPublication = "(publication)"
)

const (
	// settle is how late an estimate of a queue's depth may be.
	settle = time.Minute
	// noteEvery is how often progress is written down, so that a sweep mostly costs no
	// write.
	noteEvery = 30 * time.Second
	// The wait without progress after which messages are taken for lost: it is longer
	// than a lease, for what a dead worker holds is not sent again.
	firstWait = 2 * time.Minute
	maxWait   = time.Hour
	// What is then sent again at once. The largest is what one sweep can look at.
	firstLot = 4 * manifest.BlockTasks
	maxLot   = 256 * manifest.BlockTasks
)

// loss is what lost comes to.
type loss struct {
	lost    bool
	lot     int  // tasks to be sent again; 0 = all
	blind   bool // it is certain that they have no message
	note    hayrick.Progress
	because string
}

// lost says whether messages that a generation needs are to be taken for lost. A
// queue that counts the job's messages tells, and so does a job that is resumed: its
// messages were done with while it was paused. Else the only sign is that nothing
// gets done. That may as well be because other jobs are in front, or tasks are long:
// so only a lot of tasks is sent again. When its messages are worked off and things
// stand still again, more is missing: the next lot is four times as large. When they
// are not, they wait like the others: the next comes after twice the time. So a
// backlog is not multiplied, and any number of lost messages come back.
func (k *Known) lost(p pending, now time.Time) loss {
	var prev hayrick.Progress
	known, resumed := k.Cached != nil && k.Cached.Generation == k.Generation, false
	if known {
		prev, resumed = k.Cached.Progress, k.Cached.Status == hayrick.StatusPaused
	}
	first := max(firstWait, k.Definition.Run.Lease.D()).Milliseconds()
	l := loss{note: prev}
	moved := true
	switch {
	case prev.Since.IsZero() || prev.Group != p.group:
		l.note = hayrick.Progress{Group: p.group, Done: p.done, Since: now, WaitMS: first}
	case prev.Done == p.done:
		moved = false
	case now.Sub(prev.Since) >= noteEvery:
		l.note.Done, l.note.Since = p.done, now
	}
	still := now.Sub(l.note.Since)
	if wait := p.notBefore.Sub(l.note.Since); wait > 0 {
		still -= wait
	}
	none := k.Depth.Messages == 0
	switch {
	case k.Depth.Exact && int64(k.Depth.Messages) >= p.tasks:
		return l
	case k.Depth.Exact && none:
		l.because = "no message is left"
	case !known:
		l.because = "nothing is known of its messages"
	case resumed:
		// A look at each of a million takes most of an hour. The few that are still at work, or
		// have ended without a mark, are seen by who receives them.
		l.because, l.blind = "the job was paused", true
	case !moved && none && still >= settle:
		l.because = "no message seems to be left"
	case !moved && still.Milliseconds() >= l.note.WaitMS:
		l.because = "nothing has got done for " + still.Round(time.Second).String()
		switch {
		case l.note.Lot == 0:
			l.note.Lot = firstLot
		case p.done-l.note.Sent >= int64(l.note.Lot/2):
			l.note.Lot, l.note.WaitMS = min(4*l.note.Lot, maxLot), first
		default:
			l.note.WaitMS = min(2*l.note.WaitMS, maxWait.Milliseconds())
		}
		l.lot = l.note.Lot
	default:
		return l
	}
	l.lost = true
	if !k.Depth.Exact || l.lot > 0 { // else the depth alone tells, and nothing need be remembered
		l.note.Since, l.note.Done, l.note.Sent = now, p.done, p.done
	}
	return l
}

// stopIf judges retry.stop_if by the open group's counts. It is asked once a group:
// a resume silences it.
func stopIf(k *Known, effect Effect) *manifest.Control {
	policy := k.Definition.Retry.StopIf
	if policy == nil || k.Open == nil || k.Open.Name == hayrick.GroupAggregation {
		return nil
	}
	if effect.Given(RuleStopIf, k.Open.Name) {
		return nil
	}
	var ok, failed int64
	for _, r := range k.Open.Records {
		if r.Level == 0 {
			ok += r.OK
			failed += r.Fails
		}
	}
	ended := ok + failed
	if ended == 0 || ended < policy.AfterItems || float64(failed) <= policy.FailedFraction*float64(ended) {
		return nil
	}
	return &manifest.Control{
		JobID: k.Plan.JobID, Order: manifest.OrderPause, Generation: k.Generation, Rule: RuleStopIf, Group: k.Open.Name,
		Reason: fmt.Sprintf("%d of the first %d items of %s failed, more than retry.stop_if.failed_fraction %g; look at `hayrick failures %s`, then `hayrick resume %s` or `hayrick cancel %s`",
			failed, ended, k.Open.Name, policy.FailedFraction, k.Plan.JobID, k.Plan.JobID, k.Plan.JobID),
	}
}

// Missing is what is known of one task that its block does not have.
type Missing struct {
	Position int
	TaskID   string
	Result   *manifest.Result // its commit, when it is there
	Held     bool             // a live attempt has it
}

// Repair is what follows: marks for what has ended, messages for what nobody is at.
type Repair struct {
	Marks []Missing
	Send  []Missing
}

// DecideMissing repairs one block, and sends lot tasks at most.
func DecideMissing(ms []Missing, lot int) Repair {
	var r Repair
	for _, m := range ms {
		switch {
		case m.Result != nil:
			r.Marks = append(r.Marks, m)
		case !m.Held && len(r.Send) < lot:
			r.Send = append(r.Send, m)
		}
	}
	return r
}
