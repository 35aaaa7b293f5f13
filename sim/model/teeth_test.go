package model

import (
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
)

// Deliberate defects: a program that takes its steps in another order, or one of the
// shipping decisions replaced by a wrong one. Each is found, by the property that is named
// here.
var teeth = []struct {
	name  string
	bend  func(*Model)
	job   Job
	b     Budget
	found string
}{
	{"", bent(AckAtClaim), oneTask, Budget{Crashes: 1}, "neither result nor message"},
	{"", bent(MarkFirst), oneTask, Budget{}, "is marked and has no result"},
	{"", bent(CommitUnput), oneTask, Budget{}, "names data that was not there"},
	{"", bent(CommitOverwrites), oneTask, Budget{Stalls: 2}, "the result of task 0 has changed"},
	{"", bent(Deaf), oneTask, Budget{Pauses: 1}, "was told that the job is paused"},
	{"", bent(HandBackLate), oneTask, Budget{Deadlines: 1, Crashes: 1}, "neither result nor message"},
	{"", bent(PlanUnread), twoTasks, Budget{Doubles: 1, Crashes: 1}, "before every task had its result"},
	{"", bent(PlanPartly), twoTasks, Budget{Strays: 1}, "before every task had its result"},
	{"", bent(PlanOverwrites), oneTask, Budget{Crashes: 1}, "was decided twice"},
	{"", bent(ActFirst), oneItem, Budget{}, "nothing was sent of what the plan"},
	{"", bent(EndEarly), oneTask, Budget{}, "before every task had its result"},
	{"", bent(CancelOverwrites), oneTask, Budget{Cancels: 1}, "has ended twice"},

	{"a claim gets the fence of the one before", func(m *Model) {
		m.NextClaim = func(prev *hayrick.Claim, ask hayrick.ClaimAsk, now time.Time, dead bool) (hayrick.Claim, error) {
			next, err := hayrick.NextClaim(prev, ask, now, dead)
			if prev != nil && err == nil {
				next.Fence = prev.Fence
			}
			return next, err
		}
	}, oneTask, Budget{Crashes: 1}, "did not get a larger fence"},
	{"a claim is granted while another holds", func(m *Model) {
		m.NextClaim = func(prev *hayrick.Claim, ask hayrick.ClaimAsk, now time.Time, _ bool) (hayrick.Claim, error) {
			return hayrick.NextClaim(prev, ask, now, true)
		}
	}, oneTask, Budget{Doubles: 1}, "over a lease that holds"},
	{"every message of a task that is held is done with", func(m *Model) {
		m.WhenHeld = func(hayrick.Delivery, time.Duration) (time.Duration, bool) { return 0, true }
	}, oneTask, Budget{Crashes: 1}, "neither result nor message"},
	{"a sweep sends no task again", func(m *Model) {
		m.DecideMissing = func(ms []coordinator.Missing, _ int) coordinator.Repair { return coordinator.DecideMissing(ms, 0) }
	}, oneTask, Budget{Losses: 1}, "cannot come to its end"},
	{"a sweep marks nothing", func(m *Model) {
		m.DecideMissing = func(ms []coordinator.Missing, lot int) coordinator.Repair {
			r := coordinator.DecideMissing(ms, lot)
			r.Marks = nil
			return r
		}
	}, noRetry, Budget{Purges: 1, Crashes: 1}, "cannot come to its end"},
	{"a sweep sends no trigger", func(m *Model) {
		m.Decide = func(k *coordinator.Known, now time.Time) coordinator.Decision {
			d := coordinator.Decide(k, now)
			d.Triggers = nil
			return d
		}
	}, oneTask, Budget{Losses: 1}, "cannot come to its end"},
	{"a sweep trusts that a job without records has nothing open", func(m *Model) {
		m.Decide = func(k *coordinator.Known, now time.Time) coordinator.Decision {
			d := coordinator.Decide(k, now)
			if k.Open != nil && len(k.Open.Records) == 0 {
				d.Scan = nil
			}
			return d
		}
	}, noRetry, Budget{Purges: 1, Wipes: 1}, "cannot come to its end"},
	{"a resume lifts nothing", func(m *Model) {
		m.Decide = func(k *coordinator.Known, now time.Time) coordinator.Decision {
			var orders []manifest.Control
			for _, o := range k.Orders {
				if o.Order != manifest.OrderResume {
					orders = append(orders, o)
				}
			}
			k.Orders = orders
			return coordinator.Decide(k, now)
		}
	}, oneTask, Budget{Pauses: 1}, "cannot come to its end"},
	{"the planner drops what costs no try", func(m *Model) {
		m.Fate = func(r hayrick.Retry, groups int, last manifest.FailureLine, classes []string, infra int) string {
			if last.Disposition == string(hayrick.Infra) {
				return ""
			}
			return Shipping().Fate(r, groups, last, classes, infra)
		}
	}, threeItems, Budget{}, "its rows are in the output 0 times, it is listed 0 times"},
	{"the planner never gives an item up", func(m *Model) {
		m.Fate = func(r hayrick.Retry, _ int, last manifest.FailureLine, _ []string, _ int) string {
			return Shipping().Fate(r, 0, last, nil, 0)
		}
	}, Job{Tasks: [][]int{{0}}, Ends: [][]End{{Busy}}, Exact: true, Passes: 1}, Budget{}, "more groups than the model has room for"},
}

func bent(b Bend) func(*Model) { return func(m *Model) { m.Bend = b } }

func TestTeeth(t *testing.T) {
	for _, x := range teeth {
		m := New(x.job)
		x.bend(m)
		if x.name == "" {
			x.name = string(m.Bend)
		}
		f := m.Search(m.Start(x.b), most())
		if f.Broken == "" || !strings.Contains(f.Broken, x.found) {
			t.Errorf("%s: %s; want %q", x.name, f, x.found)
			continue
		}
		t.Logf("%-60s found after %7d states, %2d steps: %s", x.name, f.States, len(f.Trace), f.Broken)
	}
}
