package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/mem"
	"hayrick/worker"
)

// Deleting the state store, the queue or both, after any step of a run, costs time
// and no row.
//
// 002-45
func TestStateAndQueueMayBeDeletedAfterAnyStep(t *testing.T) {
	calm := newJob(t)
	steps := calm.count(calm.submit(calm.world.Start()))
	want := Gist(calm.outcome())
	wipes := map[string]func(*mem.Store){
		"state": (*mem.Store).WipeState,
		"queue": (*mem.Store).WipeQueue,
		"both":  func(s *mem.Store) { s.WipeState(); s.WipeQueue() },
	}
	for name, wipe := range wipes {
		for at := range steps {
			j := newJob(t)
			p := j.submit(j.world.Start())
			for range at {
				if _, err := p.Step(context.Background(), j.id); err != nil {
					t.Fatal(err)
				}
			}
			wipe(j.world.Store)
			j.finish(p)
			j.check()
			if got := Gist(j.outcome()); got != want {
				t.Errorf("%s deleted after step %d: got %s, want %s", name, at, got, want)
			}
		}
	}
}

// count is finish, counting steps.
func (j *job) count(p *Process) int {
	j.t.Helper()
	for n := 1; n < 1000; n++ {
		finished, err := p.Step(context.Background(), j.id)
		if err != nil {
			j.t.Fatal(err)
		}
		if finished {
			return n
		}
	}
	j.t.Fatal("the job does not end")
	return 0
}

// crasher dies, with the process, on chosen items for a number of times; or panics,
// which its process survives.
type crasher struct {
	deaths map[string]int
	panics bool
	seen   map[string]int
}

func (c *crasher) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	c.seen[it.Key]++
	if c.deaths[it.Key] > 0 {
		c.deaths[it.Key]--
		if c.panics {
			panic("boom")
		}
		panic(mem.Crash{})
	}
	return Scripted{}.Handle(ctx, it, emit)
}

func crashJob(t *testing.T, c *crasher) *job {
	t.Helper()
	c.seen = map[string]int{}
	w := New(1, jobs.Registry{"three": func(context.Context, jobs.Env) (jobs.Handler, error) { return c, nil }}, t.TempDir())
	w.Store.SetInput("items.jsonl", []byte(items))
	return &job{t: t, world: w}
}

// lists reads the lists of a finished job: key and class of each line.
func (j *job) lists() string {
	j.t.Helper()
	var out []string
	s := &manifest.Store{Objects: j.world.Store, Clock: j.world.Clock}
	for _, l := range j.outcome().Aggregation.Lists {
		err := manifest.ReadLines(context.Background(), s, j.id, manifest.Ref{Key: l.Key, SHA256: l.SHA256, Count: l.Count}, func(x manifest.ListLine) error {
			out = append(out, fmt.Sprintf("%s: %s %s losses=%d", l.Name, x.Key, x.Class, x.Losses))
			return nil
		})
		if err != nil {
			j.t.Fatal(err)
		}
	}
	return strings.Join(out, "\n")
}

// A worker that dies with an item in hand costs the item no try; the rest of its
// batch is run one item at a time, and all of it ends ok.
func TestAWorkerThatVanishesCostsNoItem(t *testing.T) {
	c := &crasher{deaths: map[string]int{"c": 4}}
	j := crashJob(t, c)
	j.finish(j.submit(j.world.Start()))
	j.check()
	if got := Gist(j.outcome()); !strings.Contains(got, "ok=5 permanent=1 exhausted=0") {
		t.Error(got)
	}
	if c.seen["c"] != 5 {
		t.Errorf("c was run %d times, want 4 deaths and one end", c.seen["c"])
	}
}

// An item that kills every worker is given up in the end, and takes nothing of its
// batch along.
func TestAnItemThatKillsEveryWorkerIsExhausted(t *testing.T) {
	c := &crasher{deaths: map[string]int{"c": 1 << 30}}
	j := crashJob(t, c)
	j.finish(j.submit(j.world.Start()))
	j.check()
	if got := Gist(j.outcome()); !strings.Contains(got, "ok=4 permanent=1 exhausted=1") {
		t.Error(got)
	}
	if got := j.lists(); !strings.Contains(got, "exhausted: c lost_worker") {
		t.Error(got)
	}
}

// A handler that panics twice with an item in hand makes it poison: its process was
// seen to die, so the item is to blame.
func TestAnItemThatPanicsTwiceIsPoison(t *testing.T) {
	c := &crasher{deaths: map[string]int{"c": 2, "f": 1}, panics: true}
	j := crashJob(t, c)
	def := definition()
	def.Retry.InTask.Attempts = 3
	j.submitAs(def)
	j.check()
	if got := Gist(j.outcome()); !strings.Contains(got, "ok=4 permanent=2 exhausted=0") {
		t.Error(got)
	}
	if got := j.lists(); !strings.Contains(got, "permanent: c poison") {
		t.Error(got)
	}
}

// submitAs submits another definition and finishes.
func (j *job) submitAs(def hayrick.JobDefinition) {
	j.t.Helper()
	j.finish(j.submitOnly(def))
}

func (j *job) submitOnly(def hayrick.JobDefinition) *Process {
	j.t.Helper()
	p := j.world.Start()
	s, err := p.Coordinator.Submit(context.Background(), coordinator.Submission{Definition: def, ConfigTime: Epoch, CodeVersion: "hayrick sim"})
	if err != nil {
		j.t.Fatal(err)
	}
	j.id = s.JobID
	return p
}

// 002-44
func TestAnItemThatNeverEndsOKIsExhausted(t *testing.T) {
	j := newJob(t)
	j.world.Store.SetInput("items.jsonl", []byte(strings.Replace(items, `"fail_until":2`, `"fail_until":99`, 1)))
	j.finish(j.submit(j.world.Start()))
	j.check()
	if got := Gist(j.outcome()); !strings.Contains(got, "ok=4 permanent=1 exhausted=1") {
		t.Error(got)
	}
	if got := j.lists(); !strings.Contains(got, "exhausted: d busy losses=0") {
		t.Error(got)
	}
}

// drive steps until the job has the status.
func (j *job) drive(p *Process, until hayrick.JobStatus) coordinator.Decision {
	j.t.Helper()
	ctx := mem.WithActor(context.Background(), p.Name)
	for range 500 {
		if _, err := p.Step(ctx, j.id); err != nil {
			j.t.Fatal(err)
		}
		k, err := p.Coordinator.Known(ctx, j.id)
		if err != nil {
			j.t.Fatal(err)
		}
		if d := coordinator.Decide(k, j.world.Clock.Now()); d.Status == until {
			return d
		}
	}
	j.t.Fatalf("the job never becomes %s", until)
	return coordinator.Decision{}
}

func (j *job) order(p *Process, order string) {
	j.t.Helper()
	if _, err := p.Coordinator.Order(context.Background(), j.id, manifest.Control{Order: order, By: "user@host"}); err != nil {
		j.t.Fatal(err)
	}
}

// Input that changes under a running job pauses it once a look; restored and
// resumed, the job ends as if nothing had been.
func TestChangedInputPausesUntilItIsRestored(t *testing.T) {
	j := newJob(t)
	p := j.submit(j.world.Start())
	j.world.Store.SetInput("items.jsonl", []byte(strings.Replace(items, `"rows":3`, `"rows":9`, 1)))
	d := j.drive(p, hayrick.StatusPaused)
	if why := strings.Join(d.Because, " "); !strings.Contains(why, "items.jsonl") || !strings.Contains(why, "resume") {
		t.Errorf("the pause does not name the file and the remedy: %s", why)
	}
	j.order(p, manifest.OrderResume)
	j.drive(p, hayrick.StatusPaused) // still changed: another look, another pause
	j.world.Store.SetInput("items.jsonl", []byte(items))
	j.order(p, manifest.OrderResume)
	j.finish(p)
	j.check()
	calm := newJob(t)
	calm.finish(calm.submit(calm.world.Start()))
	if got, want := Gist(j.outcome()), Gist(calm.outcome()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A damaged line pauses the job and says where; a resume lists it as permanent.
func TestADamagedLinePausesAndIsListedAfterAResume(t *testing.T) {
	j := newJob(t)
	j.world.Store.SetInput("items.jsonl", []byte(strings.Replace(items, `{"id":"c","rows":3}`, `{"id":"c","rows":`, 1)))
	p := j.submit(j.world.Start())
	d := j.drive(p, hayrick.StatusPaused)
	if why := strings.Join(d.Because, " "); !strings.Contains(why, "items.jsonl:3") {
		t.Errorf("the pause does not say where: %s", why)
	}
	j.order(p, manifest.OrderResume)
	j.finish(p)
	j.check()
	if got := Gist(j.outcome()); !strings.Contains(got, "ok=4 permanent=2 exhausted=0") {
		t.Error(got)
	}
	if got := j.lists(); !strings.Contains(got, "permanent: 2 bad_item") {
		t.Error(got)
	}
}

// retry.stop_if pauses the job by one order a group; a resume silences it.
func TestStopIfPausesOnce(t *testing.T) {
	j := newJob(t)
	def := definition()
	def.Retry.StopIf = &hayrick.StopIf{FailedFraction: 0.1, AfterItems: 2}
	p := j.world.Start()
	s, err := p.Coordinator.Submit(context.Background(), coordinator.Submission{Definition: def, ConfigTime: Epoch})
	if err != nil {
		t.Fatal(err)
	}
	j.id = s.JobID
	for range 3 { // the three tasks run before the first sweep
		if _, err := p.Step(context.Background(), j.id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Coordinator.Sweep(context.Background(), j.id); err != nil {
		t.Fatal(err)
	}
	j.drive(p, hayrick.StatusPaused)
	j.order(p, manifest.OrderResume)
	j.finish(p)
	j.check()
	orders, _, err := p.Coordinator.Store.Orders(context.Background(), j.id)
	if err != nil {
		t.Fatal(err)
	}
	pauses := 0
	for _, o := range orders {
		if o.Rule == coordinator.RuleStopIf && o.Group == hayrick.GroupInitial {
			pauses++
		}
	}
	if pauses != 1 {
		t.Errorf("%d pauses for %s, want 1", pauses, hayrick.GroupInitial)
	}
}

// A cancelled job has one end, keeps what is finished and counts what is not.
func TestCancelCountsWhatIsUnfinished(t *testing.T) {
	j := newJob(t)
	p := j.submit(j.world.Start())
	if _, err := p.Step(context.Background(), j.id); err != nil { // one task of two items
		t.Fatal(err)
	}
	j.order(p, manifest.OrderCancel)
	if _, err := p.Coordinator.Sweep(context.Background(), j.id); err != nil { // as `cancel` does
		t.Fatal(err)
	}
	j.finish(p)
	j.check()
	o := j.outcome()
	if o.Status != string(hayrick.JobCancelled) || o.OK != 2 || o.Unfinished != 4 {
		t.Errorf("%s ok=%d unfinished=%d, want CANCELLED, 2 and 4", o.Status, o.OK, o.Unfinished)
	}
	if _, err := p.Coordinator.Order(context.Background(), j.id, manifest.Control{Order: manifest.OrderResume}); !errors.Is(err, hayrick.ErrConflict) {
		t.Errorf("an order after the end: %v, want a conflict", err)
	}
}

// Two schemas that do not fit end the job with an error that names the column.
func TestSchemasThatDoNotUnifyFailTheJob(t *testing.T) {
	w := New(1, jobs.Registry{"three": func(context.Context, jobs.Env) (jobs.Handler, error) { return twoKinds{}, nil }}, t.TempDir())
	w.Store.SetInput("items.jsonl", []byte(`{"id":"a","v":1}`+"\n"+`{"id":"b","v":"x"}`+"\n"))
	j := &job{t: t, world: w}
	def := definition()
	def.Batch.Items = 1
	j.submitAs(def)
	o := j.outcome()
	if o.Status != string(hayrick.JobFailed) || o.Code != manifest.CodeNothingToMerge || !strings.Contains(o.Message, `"v"`) {
		t.Errorf("%s %s %s", o.Status, o.Code, o.Message)
	}
}

type twoKinds struct{}

func (twoKinds) Handle(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	var rec struct{ V any }
	if err := json.Unmarshal(it.Data, &rec); err != nil {
		return jobs.Fail("bad", "%v", err)
	}
	if err := emit(jobs.Row{{Name: "v", Value: rec.V}}); err != nil {
		return jobs.Fail("emit", "%v", err)
	}
	return jobs.OK()
}

var _ worker.Orders = (*coordinator.Coordinator)(nil)
