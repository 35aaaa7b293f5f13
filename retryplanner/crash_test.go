package retryplanner_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
	"hayrick/retryplanner"
)

// mixed is a closed group with an item of every fate, and two orders given.
func mixed(t *testing.T) *job {
	j := submit(t, 11, 2, func(d *hayrick.JobDefinition) { d.Retry.Passes = 1 })
	j.finish(hayrick.GroupInitial, map[string]end{
		"task-0001": fail("rate_limit", 0, 1), "task-0002": fail("gone", 0), "task-0003": {failed: "batch_failed"}, "task-0004": fail("timeout", 1),
	})
	j.plan(hayrick.GroupInitial)
	j.clock.Sleep(t.Context(), time.Hour)
	j.messages()
	tasks := j.tasks("retry_batch_1")
	j.finish("retry_batch_1", map[string]end{tasks[0].id: fail("timeout", 0), tasks[1].id: fail("lost_worker", 0, 1)})
	_, err := j.store.CommitControl(t.Context(), manifest.Control{Schema: manifest.SchemaControl, JobID: jobID, Order: manifest.OrderPause})
	j.must(err)
	return j
}

// crashing calls Plan as a process that may die amid a call.
func crashing(j *job, p *retryplanner.Planner, group string) (err error, crashed bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(mem.Crash); !ok {
				panic(r)
			}
			crashed = true
		}
	}()
	_, err = p.Plan(j.t.Context(), jobID, 0, group)
	return err, false
}

// Whatever goes wrong with whichever call of a port, asking again leaves exactly what
// an undisturbed planner leaves: one plan, one group, every message.
func TestEveryFault(t *testing.T) {
	for _, group := range []string{"retry_batch_1", "retry_batch_2"} {
		setup := func() *job {
			j := mixed(t)
			if group == "retry_batch_2" { // after which nothing is left to retry
				j.plan("retry_batch_1")
				j.clock.Sleep(t.Context(), time.Hour)
				j.messages()
				j.finish(group, nil)
			}
			return j
		}
		ref := setup()
		var calls []mem.Call
		ref.mem.Hook = func(c mem.Call) mem.Fault { calls = append(calls, c); return mem.Fault{} }
		want := ref.plan(group)
		ref.mem.Hook = nil
		left := ref.snapshot()
		ref.clock.Sleep(t.Context(), time.Hour)
		sent := ref.messages()
		if len(sent) == 0 || len(calls) < 12 || !want.Won {
			t.Fatalf("%d messages, %d calls, %+v", len(sent), len(calls), want)
		}
		if group == "retry_batch_1" && (want.Plan.Tasks != 1 || want.Plan.Exhausted != 1) {
			t.Fatalf("%+v", want.Plan)
		}
		boom := errors.New("boom")
		for _, call := range calls {
			for name, fault := range map[string]mem.Fault{
				"crash before": {CrashBefore: true},
				"crash after":  {CrashAfter: true},
				"error":        {ErrBefore: boom},
				"unknown":      {ErrBefore: hayrick.ErrUnknown},
				"lost reply":   {ErrAfter: boom},
				"twice":        {Duplicate: true},
			} {
				j := setup()
				first := 0 // calls are numbered from the start of the store
				j.mem.Hook = func(c mem.Call) mem.Fault {
					if first++; first == call.N-calls[0].N+1 {
						return fault
					}
					return mem.Fault{}
				}
				err, crashed := crashing(j, j.planner(), group)
				j.mem.Hook = nil
				if crashed != (fault.CrashBefore || fault.CrashAfter) {
					t.Fatalf("%s at %v: crashed %v, %v", name, call, crashed, err)
				}
				again := j.plan(group)
				if again.N != want.N || again.SHA256 != want.SHA256 {
					t.Errorf("%s at %v: plan %d %s, want %d %s", name, call, again.N, again.SHA256, want.N, want.SHA256)
				}
				if got := j.snapshot(); !maps.Equal(got, left) {
					t.Errorf("%s at %v: %d objects, want %d as they are", name, call, len(got), len(left))
				}
				j.clock.Sleep(t.Context(), time.Hour)
				if got := j.messages(); !slices.Equal(got, sent) {
					t.Errorf("%s at %v: sent %v, want %v", name, call, got, sent)
				}
				if bad := j.mem.Illegal(); len(bad) > 0 {
					t.Errorf("%s at %v: %v", name, call, bad)
				}
			}
		}
	}
}

// A crash after which time has passed: the plan that is there stands, with its times.
func TestStoredPlanStands(t *testing.T) {
	for _, op := range []string{"Commit", "Replace", "Send"} {
		j := mixed(t)
		j.mem.Hook = func(c mem.Call) mem.Fault { return mem.Fault{CrashAfter: c.Op == op} }
		if err, crashed := crashing(j, j.planner(), "retry_batch_1"); !crashed {
			t.Fatal(err)
		}
		j.mem.Hook = nil
		stored, sha, err := j.store.RetryPlan(t.Context(), jobID, 2)
		j.must(err)
		j.clock.Sleep(t.Context(), 24*time.Hour)
		again := j.plan("retry_batch_1")
		if again.Won || again.SHA256 != sha || !again.Plan.NotBefore.Equal(stored.NotBefore.Time) || !j.view(2).SubmittedAt.Equal(stored.SubmittedAt.Time) {
			t.Errorf("crash after %s: %+v, stored was %+v", op, again, stored)
		}
		if ms := j.messages(); len(ms) != 1 || ms[0].TaskID != "task-0009" { // its time has come: no delay
			t.Errorf("crash after %s: sent %v", op, ms)
		}
	}
}

// An error after the commit says so, and hands over the plan.
func TestErrorAfterTheCommit(t *testing.T) {
	j := mixed(t)
	boom := errors.New("boom")
	j.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "Send" {
			return mem.Fault{ErrBefore: boom}
		}
		return mem.Fault{}
	}
	done, err := j.planner().Plan(t.Context(), jobID, 0, "retry_batch_1")
	if !errors.Is(err, boom) || !done.Closed || !done.Won || done.Plan.Next != "retry_batch_2" {
		t.Errorf("%+v, %v", done, err)
	}
}

// The slower of two planners drops its own plan and acts on the stored one.
func TestSlowerPlanner(t *testing.T) {
	j := mixed(t)
	var first retryplanner.Planned
	j.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "Commit" {
			j.mem.Hook = nil
			first = j.plan("retry_batch_1") // from beginning to end, while the other is about to commit
			j.clock.Sleep(t.Context(), time.Hour)
			j.messages()
		}
		return mem.Fault{}
	}
	// The other read the clock before, so their plans differ; but the first has said
	// when.
	j.clock.Sleep(t.Context(), time.Minute)
	slow := j.planner()
	slow.World.Clock = &testClock{now: start.Add(time.Second)}
	done, err := slow.Plan(t.Context(), jobID, 0, "retry_batch_1")
	j.must(err)
	if !first.Won || done.Won || done.SHA256 != first.SHA256 || asJSON(done.Plan) != asJSON(first.Plan) {
		t.Errorf("slow %+v\nfirst %+v", done, first)
	}
	if ms := j.messages(); len(ms) != 0 {
		t.Errorf("sent for now, as its own clock says: %v", ms)
	}
	plans := 0
	for _, c := range j.mem.Commits() {
		if strings.Contains(c.Key, "/retries/") {
			plans++
		}
	}
	if bad := j.mem.Illegal(); plans != 2 || len(bad) > 0 {
		t.Errorf("%d plans, %v", plans, bad)
	}
}

// However many planners close a group at once, its items are retried once.
func TestPlannersAtOnce(t *testing.T) {
	for range 20 {
		j := mixed(t)
		const n = 8
		var wg sync.WaitGroup
		got := make([]retryplanner.Planned, n)
		for i := range n {
			p := j.planner()
			p.World.Go = func(_ string, f func()) { go f() }
			p.World.Clock = &testClock{now: start.Add(time.Duration(i) * time.Second)}
			wg.Go(func() {
				var err error
				if got[i], err = p.Plan(t.Context(), jobID, 0, "retry_batch_1"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		won := 0
		for _, g := range got {
			if g.Won {
				won++
			}
			if g.SHA256 != got[0].SHA256 || g.N != 2 {
				t.Errorf("plan %d %s and plan %d %s", g.N, g.SHA256, got[0].N, got[0].SHA256)
			}
		}
		if won != 1 {
			t.Errorf("%d won", won)
		}
		j.clock.Sleep(t.Context(), 24*time.Hour)
		var names []string
		for _, m := range j.messages() {
			names = append(names, m.TaskID)
		}
		if !slices.Equal(names, []string{"task-0009"}) {
			t.Errorf("tasks %v", names)
		}
		segs := 0
		for k := range j.snapshot() {
			if strings.Contains(k, "/retry_batch_2/seg-") {
				segs++
			}
		}
		if bad := j.mem.Illegal(); segs != 1 || len(bad) > 0 {
			t.Errorf("%d segments of the group, %v", segs, bad)
		}
	}
}

// Past manifest.InlineList the digests are a list of their own, and planning again
// makes the same.
func TestManyResults(t *testing.T) {
	const n = 10_050
	j := submit(t, n, 1, nil)
	j.finish(hayrick.GroupInitial, map[string]end{"task-0007": fail("timeout", 0), "task-10049": fail("timeout", 0)})
	done := j.plan(hayrick.GroupInitial)
	p := done.Plan
	if p.ResultsRef == nil || p.ResultsRef.Count != n || len(p.Results) != 0 || p.Items != 2 || p.FailedTasks != 2 {
		t.Fatalf("%+v", p)
	}
	i, retried := int64(0), 0
	j.must(j.store.Results(t.Context(), p, func(r manifest.ResultRef) error {
		if r.TaskID != manifest.TaskID(i) {
			return fmt.Errorf("result %d is of %s", i, r.TaskID)
		}
		body, err := j.store.Raw(t.Context(), manifest.Job(jobID).Done(r.TaskID))
		if err != nil || r.SHA256 != manifest.SHA256(body) {
			return fmt.Errorf("%+v is not the digest of its results.done (%v)", r, err)
		}
		i++
		retried += r.Retried
		return nil
	}))
	if i != n || retried != 2 {
		t.Errorf("%d results, %d items", i, retried)
	}
	if v := j.view(1); !slices.Equal(v.FailedTasks, []string{"task-0007", "task-10049"}) {
		t.Errorf("%+v", v)
	}
	if tasks := j.tasks("retry_batch_1"); len(tasks) != 2 || tasks[1].id != "task-10051" || tasks[1].items[0].Ordinal != 10049 {
		t.Errorf("%+v", tasks)
	}
	// Exactly as many as fit stay in the plan.
	j = submit(t, manifest.InlineList, 1, nil)
	j.finish(hayrick.GroupInitial, nil)
	if p := j.plan(hayrick.GroupInitial).Plan; len(p.Results) != manifest.InlineList || p.ResultsRef != nil {
		t.Errorf("%d results in the plan, list %v", len(p.Results), p.ResultsRef)
	}
}
