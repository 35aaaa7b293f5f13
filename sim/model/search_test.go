package model

import (
	"os"
	"slices"
	"strconv"
	"testing"
)

// oneItem, noRetry, oneTask, twoTasks and threeItems are the jobs of the searches. An item with several
// ends may end in any of them whenever it is tried, also otherwise than in an attempt
// before.
var (
	oneItem    = Job{Tasks: [][]int{{0}}, Ends: [][]End{{OK, Busy}}, Passes: 1, Exact: true}
	noRetry    = Job{Tasks: [][]int{{0}}, Ends: [][]End{{OK, Busy}}, Exact: true}
	oneTask    = Job{Tasks: [][]int{{0, 1}}, Ends: [][]End{{OK}, {OK, Busy}}, Passes: 1, Exact: true}
	twoTasks   = Job{Tasks: [][]int{{0}, {1}}, Ends: [][]End{{OK}, {OK, Busy}}, Passes: 1, Exact: true}
	threeItems = Job{Tasks: [][]int{{0, 1}, {2}}, Ends: [][]End{{OK, Gone}, {Busy, Infra}, {OK}}, Passes: 1, Exact: true}
)

// with changes a job.
func (j Job) with(change func(*Job)) Job {
	change(&j)
	return j
}

type searched struct {
	name string
	job  Job
	b    Budget
}

// searches are those of every test run: small jobs with one thing or two that go wrong,
// at any moment and in any order.
var searches = []searched{
	{"nothing goes wrong", twoTasks, Budget{}},
	{"sweeps remember", twoTasks.with(func(j *Job) { j.Notes = true }), Budget{}},
	{"the submitter dies", twoTasks.with(func(j *Job) { j.Unsent = true }), Budget{}},
	{"items of all kinds", threeItems, Budget{}},
	{"batches that cannot run", oneTask.with(func(j *Job) { j.Failed = true; j.Passes = 0 }), Budget{}},
	{"a crash", twoTasks, Budget{Crashes: 1}},
	{"a double", twoTasks, Budget{Doubles: 1}},
	{"a stall", twoTasks, Budget{Stalls: 1}},
	{"a call that fails", twoTasks, Budget{Errors: 1}},
	{"a message lost", twoTasks, Budget{Losses: 1}},
	{"a trigger that nobody has sent", oneTask, Budget{Strays: 1}},
	{"a deadline", twoTasks.with(func(j *Job) { j.Lent = true }), Budget{Deadlines: 1}},
	{"the queue deleted", oneItem, Budget{Purges: 1}},
	{"the state deleted", oneTask, Budget{Wipes: 1}},
	{"the state deleted and a crash", noRetry, Budget{Wipes: 1, Crashes: 1}},
	{"two crashes", noRetry, Budget{Crashes: 2}},
	{"a stall and a crash", noRetry, Budget{Stalls: 1, Crashes: 1}},
	{"a pause", oneTask, Budget{Pauses: 1}},
	{"a pause and the state deleted", noRetry, Budget{Pauses: 1, Wipes: 1}},
	{"a cancel", oneTask, Budget{Cancels: 1}},
	{"a cancel and a crash", noRetry, Budget{Cancels: 1, Crashes: 1}},
}

// wide are those of `make model`. What of them is beyond the bound on states is not seen.
var wide = []searched{
	{"two tasks and two crashes", twoTasks, Budget{Crashes: 2}},
	{"two tasks, a crash and a double", twoTasks, Budget{Crashes: 1, Doubles: 1}},
	{"a stall, a crash and a call that fails", oneTask, Budget{Stalls: 1, Crashes: 1, Errors: 1}},
	{"state and queue deleted, and a crash", oneItem, Budget{Wipes: 1, Purges: 1, Crashes: 1}},
	{"a pause, a crash and the state deleted", oneItem, Budget{Pauses: 1, Crashes: 1, Wipes: 1}},
	{"a pause, a cancel and a double", oneTask, Budget{Pauses: 1, Cancels: 1, Doubles: 1}},
	{"so many crashes that a batch is given up", noRetry, Budget{Crashes: 5}},
	{"a queue that estimates", noRetry.with(func(j *Job) { j.Exact = false }), Budget{Losses: 1}},
}

// number is a setting of the environment.
func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

const defaultMost = 400_000

// most is how many states a search may look at.
func most() int { return number("HAYRICK_MODEL_STATES", defaultMost) }

// The protocol keeps its promises in every state that small jobs can come to, and comes
// to an end from each.
func TestSearch(t *testing.T) {
	all := searches
	if most() > defaultMost {
		all = append(slices.Clone(searches), wide...)
	}
	for i, x := range all {
		t.Run(x.name, func(t *testing.T) {
			m := New(x.job)
			f := m.Search(m.Start(x.b), most())
			t.Log(f)
			if f.Broken != "" || !f.Whole && i < len(searches) {
				t.Fail()
			}
		})
	}
}
