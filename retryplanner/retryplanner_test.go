package retryplanner_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
	"hayrick/retryplanner"
)

// Five items in batches of two; one is throttled, one is gone for good.
func fiveItems(t *testing.T) *job {
	j := submit(t, 5, 2, nil)
	j.finish(hayrick.GroupInitial, map[string]end{"task-0001": fail("rate_limit", 1), "task-0002": fail("gone", 0)})
	return j
}

// 002-21: the failed items, and no others, are resubmitted as retry_batch_k.
// 002-26: the retry manifest has the seed's fields, and its counts agree with the tasks.
// 002-28 (the planner's part): it is the planner that writes it, from the results.
// 002-42: what can be retried is moved to the store and launched as a group.
func TestPlan(t *testing.T) {
	j := fiveItems(t)
	done := j.plan(hayrick.GroupInitial)
	plan := done.Plan
	if !done.Closed || !done.Won || done.N != 1 || done.Ended || len(done.Missing) != 0 {
		t.Fatalf("%+v", done)
	}
	if plan.Next != "retry_batch_1" || plan.Tasks != 1 || plan.Items != 1 || plan.Permanent != 1 || plan.Exhausted != 0 || plan.Closed != "initial_batch" || plan.RetryID != "retry-batch-1" {
		t.Errorf("%+v", plan)
	}
	if opener, _ := j.store.Raw(t.Context(), manifest.Job(jobID).Plan()); plan.Predecessor != (manifest.Link{Key: "plan.json", SHA256: manifest.SHA256(opener)}) {
		t.Errorf("it follows %+v", plan.Predecessor)
	}
	if len(plan.Results) != 3 || plan.ResultsRef != nil {
		t.Fatalf("%d results", len(plan.Results))
	}
	for i, r := range plan.Results {
		body, err := j.store.Raw(t.Context(), manifest.Job(jobID).Done(manifest.TaskID(int64(i))))
		if err != nil || r.TaskID != manifest.TaskID(int64(i)) || r.SHA256 != manifest.SHA256(body) || r.Retried != []int{0, 1, 0}[i] {
			t.Errorf("result %+v, %v", r, err)
		}
	}
	tasks := j.tasks("retry_batch_1")
	if len(tasks) != 1 || tasks[0].id != "task-0003" || !tasks[0].batch.Retry {
		t.Fatalf("%+v", tasks)
	}
	it := tasks[0].items
	if len(it) != 1 || it[0].Ordinal != 3 || string(it[0].Data) != j.lines[3] || it[0].Tries != 1 || it[0].Losses != 0 || !slices.Equal(it[0].Classes, []string{"rate_limit"}) {
		t.Errorf("the item to retry is %s: %+v", it[0].Data, it)
	}
	v := j.view(1)
	if v.RetryID != "retry-batch-1" || v.ParentJobID != jobID || !slices.Equal(v.FailedTasks, []string{"task-0001"}) || v.FailedTaskCount != 1 ||
		!maps.Equal(v.ErrorTypes, map[string]int64{"rate_limit": 1}) || v.RetriesLaunched != 1 || !v.SubmittedAt.Equal(start) {
		t.Errorf("view %+v", v)
	}
	// The tasks are sent, and come when the backoff is over.
	wait := plan.NotBefore.Sub(start)
	if wait < 0 || wait >= 30*time.Second {
		t.Errorf("not before %s", wait)
	}
	if ms := j.messages(); len(ms) != 0 {
		t.Errorf("sent for now: %v", ms)
	}
	j.clock.Sleep(t.Context(), wait)
	want := hayrick.Message{JobID: jobID, Role: hayrick.RoleWorker, Group: "retry_batch_1", TaskID: "task-0003"}
	if ms := j.messages(); !slices.Equal(ms, []hayrick.Message{want}) {
		t.Errorf("sent %+v", ms)
	}
	if bad := j.mem.Illegal(); len(bad) > 0 {
		t.Error(bad)
	}
	if left, _ := os.ReadDir(j.dir); len(left) != 0 {
		t.Errorf("left on the scratch disk: %v", left)
	}
}

// 002-41: a permanent failure is listed with its class and never run again.
func TestPermanent(t *testing.T) {
	j := fiveItems(t)
	first := j.plan(hayrick.GroupInitial).Plan
	got := j.list(first.PermanentList)
	want := manifest.ListLine{Ordinal: 4, Key: "w4", Class: "gone", Message: "no luck", TaskID: "task-0002", Tries: 1}
	if len(got) != 1 || got[0] != want {
		t.Errorf("listed %+v", got)
	}
	for _, task := range j.tasks("retry_batch_1") {
		for _, it := range task.items {
			if it.Ordinal == 4 {
				t.Errorf("%s runs it again", task.id)
			}
		}
	}
	// It is listed once.
	j.finish("retry_batch_1", nil)
	second := j.plan("retry_batch_1")
	if p := second.Plan; second.N != 2 || p.Permanent != 0 || p.PermanentList != nil || p.Next != manifest.NextAggregation || p.Group != nil || p.Orders != 0 ||
		p.Predecessor.Key != "retries/retry-1/plan.json" || !p.NotBefore.IsZero() {
		t.Errorf("%+v", p)
	}
}

// 002-18: while a task of a group has no outcome, nothing is planned after it and no
// aggregation starts, whoever asks and whatever the state store says.
func TestNotClosed(t *testing.T) {
	j := submit(t, 10, 2, nil)
	tasks := j.tasks(hayrick.GroupInitial)
	for i, task := range tasks {
		if i != 1 && i != 4 {
			j.finishTask(hayrick.GroupInitial, task, fail("rate_limit", 0))
		}
		_, err := j.mem.Mark(t.Context(), hayrick.Mark{Block: hayrick.BlockID{JobID: jobID, Group: hayrick.GroupInitial}, Total: 5, Position: i})
		j.must(err)
	}
	open := func(group string, missing ...retryplanner.Missing) {
		t.Helper()
		before := j.snapshot()
		done := j.plan(group)
		if done.Closed || done.Plan.JobID != "" || !slices.Equal(done.Missing, missing) {
			t.Errorf("%s: %+v", group, done)
		}
		if !maps.Equal(before, j.snapshot()) {
			t.Errorf("%s: the store has changed", group)
		}
		j.clock.Sleep(t.Context(), time.Hour)
		if ms := j.messages(); len(ms) != 0 {
			t.Errorf("%s: sent %v", group, ms)
		}
	}
	open(hayrick.GroupInitial, retryplanner.Missing{Position: 1, TaskID: "task-0001"}, retryplanner.Missing{Position: 4, TaskID: "task-0004"})
	j.finishTask(hayrick.GroupInitial, tasks[4], end{})
	open(hayrick.GroupInitial, retryplanner.Missing{Position: 1, TaskID: "task-0001"})
	j.finishTask(hayrick.GroupInitial, tasks[1], end{})
	if done := j.plan(hayrick.GroupInitial); done.Plan.Next != "retry_batch_1" || done.Plan.Tasks != 2 {
		t.Fatalf("%+v", done)
	}
	j.clock.Sleep(t.Context(), time.Hour)
	j.messages()
	retries := j.tasks("retry_batch_1")
	open("retry_batch_1", retryplanner.Missing{Position: 0, TaskID: "task-0005"}, retryplanner.Missing{Position: 1, TaskID: "task-0006"})
	j.finishTask("retry_batch_1", retries[0], end{})
	open("retry_batch_1", retryplanner.Missing{Position: 1, TaskID: "task-0006"})
	j.finishTask("retry_batch_1", retries[1], end{})
	if done := j.plan("retry_batch_1"); done.Plan.Next != manifest.NextAggregation {
		t.Fatalf("%+v", done)
	}
	if ms := j.messages(); len(ms) != 1 || ms[0] != (hayrick.Message{JobID: jobID, Role: hayrick.RoleAggregator, Group: "retry_batch_1"}) {
		t.Errorf("sent %+v", ms)
	}
}

// 002-44: the number of retry groups is the job file's, infra failures aside; between
// groups there is a backoff; what is left is listed with its last error, and no item
// is lost on the way.
func TestToTheEnd(t *testing.T) {
	for _, test := range []struct {
		class          string
		passes, groups int
	}{{"timeout", 0, 0}, {"timeout", 1, 1}, {"rate_limit", 3, 3}, {"lost_worker", 0, 3}, {"lost_worker", 2, 5}} {
		t.Run(fmt.Sprint(test.class, " passes=", test.passes), func(t *testing.T) {
			j := submit(t, 23, 5, func(d *hayrick.JobDefinition) { d.Retry.Passes = test.passes })
			group, groups := hayrick.GroupInitial, 0
			ok, next := 0, int64(5)
			listed := map[int64]manifest.ListLine{}
			for {
				ends := map[string]end{}
				tasks := j.tasks(group)
				for i, task := range tasks {
					if group == hayrick.GroupInitial && i%2 == 1 {
						ok += len(task.items)
						continue
					}
					// 002-21: the same batch size as before, but for the last one.
					if len(task.items) != 5 && i != len(tasks)-1 {
						t.Errorf("%s has %d items", task.id, len(task.items))
					}
					e := fail(test.class)
					for p := range task.items {
						e.items[p] = test.class
					}
					ends[task.id] = e
				}
				j.finish(group, ends)
				now := j.clock.Now()
				plan := j.plan(group).Plan
				for _, l := range j.list(plan.ExhaustedList) {
					listed[l.Ordinal] = l
				}
				if plan.Next == manifest.NextAggregation {
					break
				}
				groups++
				wait := plan.NotBefore.Sub(now)
				if wait <= 0 {
					t.Errorf("%s starts at once", plan.Next)
				}
				j.clock.Sleep(t.Context(), wait-time.Millisecond)
				if ms := j.messages(); len(ms) != 0 {
					t.Errorf("%s starts before its backoff is over: %v", plan.Next, ms)
				}
				j.clock.Sleep(t.Context(), time.Millisecond)
				if ms := j.messages(); int64(len(ms)) != plan.Tasks {
					t.Errorf("%d messages of %d tasks", len(ms), plan.Tasks)
				}
				if plan.Group.FirstTask != next {
					t.Errorf("%s starts with task %d, want %d", plan.Next, plan.Group.FirstTask, next)
				}
				next += plan.Tasks
				group = plan.Next
			}
			if groups != test.groups {
				t.Errorf("%d retry groups, want %d", groups, test.groups)
			}
			if ok+len(listed) != 23 {
				t.Errorf("%d ok and %d exhausted of 23", ok, len(listed))
			}
			for o, l := range listed {
				if l.Class != test.class || l.Tries != test.groups+1 || l.Key != fmt.Sprint("w", o) || l.Message != "no luck" {
					t.Errorf("listed %+v", l)
				}
			}
		})
	}
}

// A batch that could not run goes to the planner whole, line by line as it stands in
// the input, be it damaged; nobody is charged a try.
func TestFailedTask(t *testing.T) {
	lines := []string{`{"word": "w0",`, `{"word":  "w1"}`}
	j := submitRaw(t, strings.Join(lines, "\n"), 2)
	j.finish(hayrick.GroupInitial, map[string]end{"task-0000": {failed: hayrick.ClassHandler}})
	for group, n := hayrick.GroupInitial, 1; n <= 5; n++ {
		plan := j.plan(group).Plan
		group = plan.Next
		if plan.Items != 2 || plan.ErrorTypes[hayrick.ClassHandler] != 2 || plan.FailedTasks != 1 {
			t.Fatalf("%+v", plan)
		}
		task := j.tasks(group)[0]
		for i, it := range task.items {
			if string(it.Data) != lines[i] || it.Tries != 0 || it.Losses != n || len(it.Classes) != n || it.Infra != n {
				t.Errorf("item %d of %s is %q: %+v", i, group, it.Data, it)
			}
		}
		j.finish(group, map[string]end{task.id: {failed: hayrick.ClassHandler}})
	}
	plan := j.plan("retry_batch_5").Plan
	got := j.list(plan.ExhaustedList)
	if plan.Next != manifest.NextAggregation || len(got) != 2 || got[0].Key != "0" || got[1].Key != "w1" || got[1].Losses != 6 || got[1].Message != "it could not run" {
		t.Errorf("%+v lists %+v", plan, got)
	}
}

// submitRaw plans a job whose input is text as it stands, one batch.
func submitRaw(t *testing.T, text string, items int) *job {
	j := submit(t, 0, items, nil)
	plan, _, err := j.store.Plan(t.Context(), jobID)
	j.must(err)
	w := manifest.NewGroupWriter(j.store, jobID, hayrick.GroupInitial, hayrick.RoleWorker, 0)
	j.must(w.Add(t.Context(), manifest.Batch{Object: inputURI, FirstLine: 1, Items: items, Length: int64(len(text)), SHA256: manifest.SHA256([]byte(text))}))
	plan.Group, err = w.Close(t.Context())
	j.must(err)
	plan.Items = int64(items)
	j.mem.SetInput(inputURI, []byte(text))
	body, err := manifest.Encode(plan)
	j.must(err)
	j.mem.Damage(manifest.Job(jobID).Plan(), body) // a new plan in place of the empty one
	return j
}

// A job without items closes at once.
func TestNoTasks(t *testing.T) {
	j := submit(t, 0, 2, nil)
	if done := j.plan(hayrick.GroupInitial); !done.Closed || done.Plan.Next != manifest.NextAggregation || len(done.Plan.Results) != 0 {
		t.Errorf("%+v", done)
	}
}

// Whatever fact is broken, it is named and nothing is written.
func TestDamage(t *testing.T) {
	key := manifest.Job(jobID)
	failures := func(j *job) (string, []byte) {
		r, _, err := j.store.Result(t.Context(), jobID, "task-0001")
		j.must(err)
		k := key.Abs(r.Failures.File)
		return k, j.mem.Snapshot()[k]
	}
	result := func(j *job, edit func(*manifest.Result)) {
		r, _, err := j.store.Result(t.Context(), jobID, "task-0001")
		j.must(err)
		edit(&r)
		body, err := manifest.Encode(r)
		j.must(err)
		j.mem.Damage(key.Done("task-0001"), body)
	}
	for what, test := range map[string]struct {
		damage func(j *job)
		want   error
	}{
		"a bit of the failures": {func(j *job) {
			k, b := failures(j)
			bad := slices.Clone(b)
			bad[len(bad)/2] ^= 1
			j.mem.Damage(k, bad)
		}, hayrick.ErrCorrupt},
		"the failures cut":       {func(j *job) { k, b := failures(j); j.mem.Damage(k, b[:len(b)-1]) }, hayrick.ErrCorrupt},
		"the failures gone":      {func(j *job) { k, _ := failures(j); j.mem.Damage(k, nil) }, hayrick.ErrCorrupt},
		"a failed item too many": {func(j *job) { result(j, func(r *manifest.Result) { r.Failed, r.OK = 2, 0 }) }, hayrick.ErrCorrupt},
		"an item missing":        {func(j *job) { result(j, func(r *manifest.Result) { r.OK = 0 }) }, hayrick.ErrCorrupt},
		"no failures named":      {func(j *job) { result(j, func(r *manifest.Result) { r.Failures = nil }) }, hayrick.ErrCorrupt},
		"no such outcome":        {func(j *job) { result(j, func(r *manifest.Result) { r.Status = "PARTIAL" }) }, hayrick.ErrCorrupt},
		"of another batch":       {func(j *job) { result(j, func(r *manifest.Result) { *r.BatchID = "batch-0002" }) }, hayrick.ErrCorrupt},
		"of another generation":  {func(j *job) { result(j, func(r *manifest.Result) { r.Generation = 1 }) }, hayrick.ErrCorrupt},
		"of another task":        {func(j *job) { result(j, func(r *manifest.Result) { r.TaskID = "task-0002" }) }, hayrick.ErrCorrupt},
		"half a result": {func(j *job) {
			k := key.Done("task-0000")
			j.mem.Damage(k, j.mem.Snapshot()[k][:40])
		}, hayrick.ErrCorrupt},
		"the input changed": {func(j *job) { j.mem.SetInput(inputURI, []byte(strings.Repeat("{\"word\":\"x\"}\n", 10))) }, hayrick.ErrInputChanged},
		"the input shorter": {func(j *job) { j.mem.SetInput(inputURI, []byte(j.lines[0])) }, hayrick.ErrInputChanged},
		"the input gone":    {func(j *job) { j.mem.SetInput(inputURI, nil) }, hayrick.ErrInputChanged},
		"the block file gone": {func(j *job) {
			for k := range j.mem.Snapshot() {
				if strings.Contains(k, "/groups/") {
					j.mem.Damage(k, nil)
				}
			}
		}, hayrick.ErrCorrupt},
	} {
		t.Run(what, func(t *testing.T) {
			j := fiveItems(t)
			test.damage(j)
			before := j.snapshot()
			done, err := j.planner().Plan(t.Context(), jobID, 0, hayrick.GroupInitial)
			if !errors.Is(err, test.want) || done.Closed || len(done.Missing) > 0 {
				t.Errorf("%+v, %v; want %v", done, err, test.want)
			}
			if !maps.Equal(before, j.snapshot()) {
				t.Error("the store has changed")
			}
			j.clock.Sleep(t.Context(), time.Hour)
			if ms := j.messages(); len(ms) > 0 {
				t.Errorf("sent %v", ms)
			}
		})
	}
}

// A failures file with the right digest and wrong items: the batch decides which
// items there are.
func TestStrangeItems(t *testing.T) {
	for what, edit := range map[string]func(*manifest.FailureLine){
		"of another batch":                func(f *manifest.FailureLine) { f.Ordinal = 0 },
		"of another batch, and permanent": func(f *manifest.FailureLine) { f.Ordinal, f.Disposition = 4, string(hayrick.Permanent) },
		"twice":                           func(f *manifest.FailureLine) { f.Ordinal = 3 },
	} {
		j := submit(t, 5, 2, nil)
		e := fail("timeout", 0, 1)
		e.edit = edit
		j.finish(hayrick.GroupInitial, map[string]end{"task-0001": e})
		before := j.snapshot()
		if _, err := j.planner().Plan(t.Context(), jobID, 0, hayrick.GroupInitial); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		if !maps.Equal(before, j.snapshot()) {
			t.Errorf("%s: the store has changed", what)
		}
	}
}

// An input that nobody needs any more may be gone.
func TestInputNotNeeded(t *testing.T) {
	j := submit(t, 5, 2, nil)
	j.finish(hayrick.GroupInitial, map[string]end{"task-0001": fail("gone", 0, 1)})
	j.mem.SetInput(inputURI, nil)
	if done := j.plan(hayrick.GroupInitial); done.Plan.Permanent != 2 || done.Plan.Next != manifest.NextAggregation {
		t.Errorf("%+v", done.Plan)
	}
}

// The plan names how many orders stood when it was made.
func TestOrdersAreCounted(t *testing.T) {
	j := fiveItems(t)
	order := func(n int) {
		_, err := j.store.CommitControl(t.Context(), manifest.Control{Schema: manifest.SchemaControl, JobID: jobID, N: n, Order: manifest.OrderPause})
		j.must(err)
	}
	order(0)
	order(1)
	if p := j.plan(hayrick.GroupInitial).Plan; p.Orders != 2 {
		t.Errorf("%d orders", p.Orders)
	}
	order(2)
	j.finish("retry_batch_1", nil)
	if p := j.plan("retry_batch_1").Plan; p.Orders != 3 {
		t.Errorf("%d orders", p.Orders)
	}
}

// A planner that wakes after the end of its generation does nothing.
func TestEnded(t *testing.T) {
	j := fiveItems(t)
	_, err := j.store.CommitOutcome(t.Context(), manifest.Outcome{Schema: manifest.SchemaOutcome, JobID: jobID, Status: string(hayrick.JobCancelled)})
	j.must(err)
	before := j.snapshot()
	if done := j.plan(hayrick.GroupInitial); !done.Ended || done.Closed || !maps.Equal(before, j.snapshot()) {
		t.Errorf("%+v", done)
	}
}

// What is not there, and what has no worker tasks, is not found.
func TestNoSuchGroup(t *testing.T) {
	j := fiveItems(t)
	for _, group := range []string{"retry_batch_1", hayrick.GroupAggregation, hayrick.GroupCoordinator, ""} {
		if _, err := j.planner().Plan(t.Context(), jobID, 0, group); !errors.Is(err, hayrick.ErrNotFound) {
			t.Errorf("%q: %v", group, err)
		}
	}
	if _, err := j.planner().Plan(t.Context(), "other", 0, hayrick.GroupInitial); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("another job: %v", err)
	}
}

// taken stores a plan of generation 1 under number n that uses up tasks.
func (j *job) taken(n int, firstTask, tasks int64) {
	j.t.Helper()
	_, err := j.store.CommitRetryPlan(j.t.Context(), n, manifest.RetryPlan{
		Schema: manifest.SchemaRetryPlan, JobID: jobID, RetryID: manifest.RetryID(n), Generation: 1, Next: hayrick.RetryGroup(n),
		Group: &manifest.Group{Name: hayrick.RetryGroup(n), FirstTask: firstTask, Tasks: tasks},
	})
	j.must(err)
}

// A number that went to a plan of another generation is skipped, and so are the task
// numbers that it uses; also when it goes at the last moment.
func TestNumberOfAnotherGeneration(t *testing.T) {
	for _, late := range []bool{false, true} {
		j := fiveItems(t)
		if late {
			j.mem.Hook = func(c mem.Call) mem.Fault {
				if c.Op == "Commit" {
					j.mem.Hook = nil
					j.taken(1, 3, 7)
				}
				return mem.Fault{}
			}
		} else {
			j.taken(1, 3, 7)
		}
		done := j.plan(hayrick.GroupInitial)
		if done.N != 2 || !done.Won || done.Plan.Next != "retry_batch_2" || done.Plan.Group.FirstTask != 10 || done.Plan.RetryID != "retry-batch-2" {
			t.Errorf("late %v: %+v", late, done)
		}
		if tasks := j.tasks("retry_batch_2"); len(tasks) != 1 || tasks[0].id != "task-0010" {
			t.Errorf("late %v: %+v", late, tasks)
		}
		j.finish("retry_batch_2", nil)
		if again := j.plan(hayrick.GroupInitial); again.N != 2 || again.SHA256 != done.SHA256 {
			t.Errorf("late %v: asked again %+v", late, again)
		}
		if next := j.plan("retry_batch_2"); next.N != 3 || next.Plan.Predecessor.SHA256 != done.SHA256 || next.Plan.Next != manifest.NextAggregation {
			t.Errorf("late %v: %+v", late, next)
		}
		if bad := j.mem.Illegal(); len(bad) > 0 {
			t.Error(bad)
		}
	}
}

// A plan of this generation under the group's number that is about something else is
// damage: it is neither acted on nor skipped.
func TestPlanOfAnotherGroup(t *testing.T) {
	for what, edit := range map[string]func(*manifest.RetryPlan){
		"another group":  func(p *manifest.RetryPlan) { p.Closed = "retry_batch_7" },
		"another opener": func(p *manifest.RetryPlan) { p.Predecessor.SHA256 = manifest.SHA256(nil) },
	} {
		j := fiveItems(t)
		plan := j.plan(hayrick.GroupInitial).Plan
		edit(&plan)
		body, err := manifest.Encode(plan)
		j.must(err)
		j.mem.Damage(manifest.Job(jobID).RetryPlan(1), body)
		j.clock.Sleep(t.Context(), time.Hour)
		j.messages()
		if done, err := j.planner().Plan(t.Context(), jobID, 0, hayrick.GroupInitial); !errors.Is(err, hayrick.ErrCorrupt) || done.Closed {
			t.Errorf("%s: %+v, %v", what, done, err)
		}
		if ms := j.messages(); len(ms) > 0 {
			t.Errorf("%s: sent %v", what, ms)
		}
	}
}
