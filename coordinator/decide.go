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
	Status   hayrick.JobStatus
	Complete bool              // the generation has ended, and all that follows from that is there
	State    *hayrick.JobState // to be cached; nil when it is so already
	View     bool              // the job manifest is to be written anew
	Cancel   bool              // the generation ends as CANCELLED
	Pause    *manifest.Control // an automatic pause to give
	Triggers []hayrick.Message // phase changes that nobody seems to be at
	Marks    []hayrick.Mark    // full records that their parents do not know
	Scan     []int             // blocks whose missing tasks are to be looked for one by one
	Because  []string
}

// RuleStopIf is the rule of the pause that retry.stop_if gives.
const RuleStopIf = "stop_if"

// Decide says what is to be done about a job. It is a pure function of the
// snapshot, so that a plan can be printed, tested and simulated.
func Decide(k *Known, now time.Time) Decision {
	d := Decision{Status: hayrick.StatusRunning}
	effect := Apply(k.Orders, k.Generation)
	switch {
	case k.Outcome != nil:
		d.Status = hayrick.JobStatus(k.Outcome.Status)
		d.Complete = k.ViewStatus == d.Status
		if d.Status == hayrick.StatusSucceeded && k.ViewStatus != d.Status {
			// The view is written last: without it publishing may not be complete.
			d.triggerIfIdle(k, hayrick.RoleAggregator, "", "the outcome is there, its publication perhaps not")
		}
	case effect.Cancelled:
		d.Status, d.Cancel = hayrick.StatusCancelled, true
		d.Because = append(d.Because, "cancelled by an order")
	case effect.Paused:
		d.Status = hayrick.StatusPaused
		d.Because = append(d.Because, "paused: "+effect.Reason)
	default:
		d.advance(k)
		if p := stopIf(k, effect); p != nil {
			d.Pause, d.Status = p, hayrick.StatusPaused
			d.Because = append(d.Because, p.Reason)
		}
	}
	state := hayrick.JobState{JobID: k.Plan.JobID, Generation: k.Generation, Status: d.Status, Orders: len(k.Orders), Updated: now}
	if k.Cached == nil || k.Cached.Generation != state.Generation || k.Cached.Status != state.Status || k.Cached.Orders != state.Orders {
		d.State = &state
	}
	// The aggregator writes the view of a success itself, after publishing.
	d.View = k.ViewStatus != d.Status && d.Status != hayrick.StatusSucceeded
	return d
}

// advance moves a running generation on.
func (d *Decision) advance(k *Known) {
	if k.Open == nil {
		d.triggerIfIdle(k, hayrick.RoleAggregator, "", "nothing is left to retry")
		return
	}
	g := k.Open
	role := hayrick.RoleRetryPlanner
	if g.Name == hayrick.GroupAggregation {
		role = hayrick.RoleAggregator
	}
	if g.Members == nil {
		d.triggerIfIdle(k, role, g.Name, "the group has no tasks")
		return
	}
	// A record that is full must be in its parent; whoever filled it may have crashed.
	at := make(map[[2]int]hayrick.BlockState, len(g.Records))
	for _, r := range g.Records {
		at[[2]int{r.Level, r.N}] = r
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
		d.triggerIfIdle(k, role, g.Name, "all its tasks have ended")
		return
	}
	if k.Depth > 0 || len(d.Marks) > 0 {
		return // somebody is at it, or the marks may fill the root
	}
	for n := range g.Members.Blocks() {
		if !at[[2]int{0, n}].Full() {
			d.Scan = append(d.Scan, n)
		}
	}
	d.Because = append(d.Because, fmt.Sprintf("no message is left but %d blocks of %s are not full", len(d.Scan), g.Name))
}

// triggerIfIdle sends a trigger unless messages of the job are about: one of them
// may be it, and when they are gone the next sweep looks again.
func (d *Decision) triggerIfIdle(k *Known, role hayrick.Role, group, because string) {
	if k.Depth == 0 {
		d.trigger(k, role, group, because)
	}
}

func (d *Decision) trigger(k *Known, role hayrick.Role, group, because string) {
	d.Triggers = append(d.Triggers, hayrick.Message{JobID: k.Plan.JobID, Generation: k.Generation, Role: role, Group: group})
	d.Because = append(d.Because, because)
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

// DecideMissing repairs one block.
func DecideMissing(ms []Missing) Repair {
	var r Repair
	for _, m := range ms {
		switch {
		case m.Result != nil:
			r.Marks = append(r.Marks, m)
		case !m.Held:
			r.Send = append(r.Send, m)
		}
	}
	return r
}
