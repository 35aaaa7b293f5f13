package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/audit"
	"hayrick/coordinator"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/mem"
)

func registry() jobs.Registry {
	return jobs.Registry{"three": func(context.Context, jobs.Env) (jobs.Handler, error) { return Scripted{}, nil }}
}

func definition() hayrick.JobDefinition {
	return Definition("three", "items.jsonl", "out/$(run.id)/")
}

// three batches, one item that needs a second group, one that is gone.
const items = `{"id":"a","rows":2}
{"id":"b","rows":1}
{"id":"c","rows":3}
{"id":"d","rows":1,"fail_until":2}
{"id":"e","permanent":true}
{"id":"f","rows":4}
`

// job is one run of the three-batch job in a world of its own.
type job struct {
	t     *testing.T
	world *World
	id    string
}

func newJob(t *testing.T) *job {
	t.Helper()
	w := New(1, registry(), t.TempDir())
	w.Store.SetInput("items.jsonl", []byte(items))
	return &job{t: t, world: w}
}

// errCrashed is what a step of a crashed process comes back with.
var errCrashed = errors.New("the process crashed")

// guard runs f and turns a simulated crash into errCrashed.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(mem.Crash); !ok {
				panic(p)
			}
			err = errCrashed
		}
	}()
	return f()
}

// submit submits until it succeeds; a crash starts another process.
func (j *job) submit(p *Process) *Process {
	j.t.Helper()
	for range 20 {
		err := guard(func() error {
			s, err := p.Coordinator.Submit(mem.WithActor(context.Background(), p.Name), coordinator.Submission{
				Definition: definition(), ConfigFile: "jobs/three/config.yaml", ConfigTime: Epoch, SubmittedBy: "user@host", CodeVersion: "hayrick sim",
			})
			j.id = s.JobID
			return err
		})
		if err == nil {
			return p
		}
		p = j.after(p, err)
	}
	j.t.Fatal("the job cannot be submitted")
	return nil
}

// after lets a fault be over: time passes, and a crashed process is replaced.
func (j *job) after(p *Process, err error) *Process {
	j.world.Clock.Sleep(context.Background(), time.Second)
	if errors.Is(err, errCrashed) {
		j.world.Journals.Unlock()
		return j.world.Start()
	}
	return p
}

// finish steps until nothing is left to be done.
func (j *job) finish(p *Process) {
	j.t.Helper()
	for range 6000 {
		var finished bool
		err := guard(func() (err error) { finished, err = p.Step(context.Background(), j.id); return err })
		if err == nil && finished {
			return
		}
		if err != nil {
			p = j.after(p, err)
		}
	}
	j.t.Fatalf("job %s does not end", j.id)
}

// outcome reads the end of the job.
func (j *job) outcome() manifest.Outcome {
	j.t.Helper()
	o, _, err := (&manifest.Store{Objects: j.world.Store, Clock: j.world.Clock}).Outcome(context.Background(), j.id, 0)
	if err != nil {
		j.t.Fatal(err)
	}
	return o
}

// 002-19
func TestAJobRunsFromSubmissionToDataset(t *testing.T) {
	j := newJob(t)
	j.finish(j.submit(j.world.Start()))
	o := j.outcome()
	if got := Gist(o); !strings.HasPrefix(got, "SUCCEEDED items=6 ok=5 permanent=1 exhausted=0 unfinished=0 rows=11 ") || !strings.HasSuffix(got, " gone_ids=1") {
		t.Error(got)
	}
	j.check()
}

// kinds are the faults that every port call meets in turn.
var kinds = []struct {
	name  string
	fault mem.Fault
}{
	{"error before", mem.Fault{ErrBefore: errors.New("503 service unavailable")}},
	{"undecided before", mem.Fault{ErrBefore: fmt.Errorf("409 conflicting operation: %w", hayrick.ErrUnknown)}},
	{"lost ack", mem.Fault{ErrAfter: errors.New("connection reset")}},
	{"crash before", mem.Fault{CrashBefore: true}},
	{"crash after", mem.Fault{CrashAfter: true}},
	{"duplicate", mem.Fault{Duplicate: true}},
	{"stall before", mem.Fault{StallBefore: Stall}},
	{"stall after", mem.Fault{StallAfter: Stall}},
}

// A stalled process is overtaken: another one works on the job, to its end, while
// the first stands still past its lease, and the first then goes on as a zombie.
func (j *job) overtake() {
	p := j.world.Start()
	if j.id == "" {
		p = j.submit(p)
	}
	j.finish(p)
}

// struck runs the job to its end with a fault at the n-th port call, and returns that
// call; its N is 0 where there is none.
func (j *job) struck(n int, fault mem.Fault) (at mem.Call) {
	j.t.Helper()
	j.world.Store.Hook = func(c mem.Call) mem.Fault {
		if c.N != n || at.N != 0 {
			return mem.Fault{}
		}
		at = c
		return fault
	}
	busy := false
	j.world.Clock.Stalled = func() {
		if !busy {
			busy = true
			j.overtake()
		}
	}
	j.finish(j.submit(j.world.Start()))
	j.world.Store.Hook = nil
	return at
}

// Every port call of a job of three batches meets every fault once, and the job
// ends as if nothing had happened.
//
// 002-05 002-45 002-52
func TestEverySingleFaultIsSurvived(t *testing.T) {
	calm := newJob(t)
	calm.finish(calm.submit(calm.world.Start()))
	calls := 0
	for _, n := range calm.world.Store.Calls() {
		calls += n
	}
	want := Gist(calm.outcome())
	runs, hit := 0, map[string]int{}
	for _, kind := range kinds {
		for n := 1; n <= calls; n++ {
			j := newJob(t)
			at := j.struck(n, kind.fault)
			runs++
			if at.N != 0 {
				hit[kind.name]++
			}
			j.check()
			if got := Gist(j.outcome()); got != want {
				t.Errorf("%s at %s:\n got %s\nwant %s", kind.name, at, got, want)
			}
			if t.Failed() {
				t.Fatalf("%s at %s", kind.name, at)
			}
		}
		if hit[kind.name] < calls {
			t.Errorf("%s met %d of %d calls", kind.name, hit[kind.name], calls)
		}
	}
	t.Logf("%d calls x %d kinds: %d runs", calls, len(kinds), runs)
}

// check asserts the invariants that hold after any run: I1 from the history of the
// store, I6 from its progress records, and of a job that succeeded I2 to I5 and I7 by
// an audit that decodes every row.
func (j *job) check() {
	j.t.Helper()
	ctx := context.Background()
	if bad := j.world.Store.Illegal(); len(bad) > 0 {
		j.t.Errorf("illegal writes (I1): %v", bad)
	}
	store := &manifest.Store{Objects: j.world.Store, Clock: j.world.Clock}
	for _, group := range []string{hayrick.GroupInitial, hayrick.RetryGroup(1), hayrick.GroupAggregation} {
		g, _, err := store.OpenGroup(ctx, j.id, 0, group)
		if errors.Is(err, hayrick.ErrNotFound) {
			continue
		}
		if err != nil {
			j.t.Fatal(err)
		}
		m, err := store.Members(ctx, j.id, 0, g)
		if err != nil {
			j.t.Fatal(err)
		}
		records, err := j.world.Store.Blocks(ctx, j.id, 0, group)
		if err != nil {
			j.t.Fatal(err)
		}
		for _, r := range records {
			if id, _ := m.At(r.Level, r.N); id != r.BlockID || r.Level > 0 {
				continue
			}
			b, err := m.Block(ctx, store, r.N)
			if err != nil {
				j.t.Fatal(err)
			}
			for i, task := range b.Tasks {
				if _, _, err := store.Result(ctx, j.id, task.TaskID); r.Done.Has(i) && err != nil {
					j.t.Errorf("%s is marked and has no outcome (I6): %v", task.TaskID, err)
				}
			}
		}
	}
	if o := j.outcome(); o.Status != string(hayrick.JobSucceeded) {
		return
	}
	r, err := audit.Run(ctx, audit.Options{
		Store: store, JobID: j.id, World: hayrick.World{Go: InOrder}, Blobs: j.world.Store, Output: j.world.Store, Deep: true,
	})
	if err != nil {
		j.t.Fatal(err)
	}
	if !r.Proven {
		j.t.Errorf("audit (I2 to I5, I7): %s", r.Line)
	}
}
