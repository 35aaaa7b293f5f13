package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hayrick"
	"hayrick/audit"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/mem"
)

// healing is a handler whose items get well after a number of tries.
type healing struct{ seen map[string]int } // how often each was tried

func (h healing) Handle(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	var rec struct {
		ID        string `json:"id"`
		Rows      int    `json:"rows"`
		BusyUntil int    `json:"busy_until"`
		GoneUntil int    `json:"gone_until"`
	}
	if err := json.Unmarshal(it.Data, &rec); err != nil {
		return jobs.Fail("bad_item", "%v", err)
	}
	h.seen[rec.ID]++
	for i := range rec.Rows {
		if err := emit(jobs.Row{{Name: "id", Value: rec.ID}, {Name: "n", Value: int64(i)}}); err != nil {
			return jobs.Fail("emit", "%v", err)
		}
	}
	switch {
	case it.Try < rec.GoneUntil:
		return jobs.Outcome{Class: "gone", Disposition: hayrick.Permanent, Message: "gone"}
	case it.Try < rec.BusyUntil:
		return jobs.Fail("busy", "try %d", it.Try)
	}
	return jobs.OK()
}

// Four batches of two; retry.passes is 1, so b and f are exhausted after two tries.
const sick = `{"id":"a","rows":2}
{"id":"b","rows":1,"busy_until":4}
{"id":"c","rows":3}
{"id":"d","rows":1,"gone_until":2}
{"id":"e","rows":1,"gone_until":99}
{"id":"f","rows":4,"busy_until":99}
{"id":"g","rows":1}
{"id":"h","rows":2}
`

func sickJob(t *testing.T) *job {
	t.Helper()
	j, _ := sickJobOf(t, sick)
	return j
}

func sickJobOf(t *testing.T, items string) (*job, healing) {
	t.Helper()
	h := healing{map[string]int{}}
	w := New(1, jobs.Registry{"three": func(context.Context, jobs.Env) (jobs.Handler, error) { return h, nil }}, t.TempDir())
	w.Store.SetInput("items.jsonl", []byte(items))
	return &job{t: t, world: w}, h
}

func sickDefinition() hayrick.JobDefinition {
	def := definition()
	def.Retry.Passes = 1
	return def
}

// ended is a sick job whose first generation has ended.
func ended(t *testing.T) (*job, *Process) {
	t.Helper()
	j := sickJob(t)
	p := j.submitOnly(sickDefinition())
	j.finish(p)
	if got := Gist(j.outcome()); !strings.HasPrefix(got, "SUCCEEDED items=8 ok=4 permanent=2 exhausted=2 unfinished=0 rows=8 ") {
		t.Fatal(got)
	}
	return j, p
}

// open gives an order that opens a generation until it stands; a crash starts another
// process.
func (j *job) open(p *Process, o manifest.Control) *Process {
	j.t.Helper()
	for range 20 {
		opened := false
		err := guard(func() error {
			_, err := p.Coordinator.Order(mem.WithActor(context.Background(), p.Name), j.id, o)
			if errors.Is(err, hayrick.ErrConflict) { // by an earlier try, or somebody else
				opened, err = true, nil
			}
			return err
		})
		if err == nil || opened {
			return p
		}
		p = j.after(p, err)
	}
	j.t.Fatal("the generation cannot be opened")
	return nil
}

func (j *job) outcomeOf(generation int) manifest.Outcome {
	j.t.Helper()
	o, _, err := j.store().Outcome(context.Background(), j.id, generation)
	if err != nil {
		j.t.Fatal(err)
	}
	return o
}

func (j *job) store() *manifest.Store {
	return &manifest.Store{Objects: j.world.Store, Clock: j.world.Clock}
}

// proven audits every generation, row by row.
func (j *job) proven(generations ...int) {
	j.t.Helper()
	for _, r := range j.audited(generations...) {
		if r.Counts[audit.View] > 0 {
			j.t.Errorf("views of generation %d: %v", r.Generation, r.Findings)
		}
	}
}

// audited is proven but for the views, which a fault may leave out.
func (j *job) audited(generations ...int) (reports []audit.Report) {
	j.t.Helper()
	if bad := j.world.Store.Illegal(); len(bad) > 0 {
		j.t.Errorf("illegal writes (I1): %v", bad)
	}
	for _, g := range generations {
		r, err := audit.Run(context.Background(), audit.Options{
			Store: j.store(), JobID: j.id, Generation: &g, World: hayrick.World{Go: InOrder}, Blobs: j.world.Store, Output: j.world.Store, Inputs: j.world.Store, Deep: true,
		})
		if err != nil {
			j.t.Fatal(err)
		}
		if done := r.Status == string(hayrick.JobSucceeded); r.Proven != done || !r.Sound() || r.Counts[audit.Stranger] > 0 {
			j.t.Errorf("audit of generation %d: %s\n%v", g, r.Line, r.Findings)
		}
		reports = append(reports, r)
	}
	return reports
}

var everything = manifest.Control{Order: manifest.OrderRedrive, Generation: 1, PermanentToo: true}

// The redriven items run as if for the first time, the others are left alone, and the
// dataset of the new generation has all rows of both.
func TestRedrive(t *testing.T) {
	for name, tc := range map[string]struct {
		order manifest.Control
		want  string
		lists string
	}{
		"what is exhausted": {manifest.Control{Order: manifest.OrderRedrive}, "ok=5 permanent=2 exhausted=1 unfinished=0 rows=9", "exhausted: f busy\ngone_ids: d gone\ngone_ids: e gone"},
		"everything":        {everything, "ok=6 permanent=1 exhausted=1 unfinished=0 rows=10", "exhausted: f busy\ngone_ids: e gone"},
		"a class":           {manifest.Control{Order: manifest.OrderRedrive, Classes: []string{"gone"}}, "ok=5 permanent=1 exhausted=2 unfinished=0 rows=9", "exhausted: b busy\nexhausted: f busy\ngone_ids: e gone"},
		"a list":            {manifest.Control{Order: manifest.OrderRedrive, Lists: []string{"exhausted"}}, "ok=5 permanent=2 exhausted=1 unfinished=0 rows=9", "exhausted: f busy\ngone_ids: d gone\ngone_ids: e gone"},
		"two items":         {manifest.Control{Order: manifest.OrderRedrive, Ordinals: []int64{1, 3}}, "ok=6 permanent=1 exhausted=1 unfinished=0 rows=10", "exhausted: f busy\ngone_ids: e gone"},
		"only merged":       {manifest.Control{Order: manifest.OrderMerge}, "ok=4 permanent=2 exhausted=2 unfinished=0 rows=8", "exhausted: b busy\nexhausted: f busy\ngone_ids: d gone\ngone_ids: e gone"},
	} {
		j, p := ended(t)
		tc.order.Generation = 1
		j.finish(j.open(p, tc.order))
		o := j.outcomeOf(1)
		if got := Gist(o); !strings.HasPrefix(got, "SUCCEEDED items=8 "+tc.want+" ") {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
		if got := j.listed(o); got != tc.lists {
			t.Errorf("%s: lists\n%s\nwant\n%s", name, got, tc.lists)
		}
		out, err := j.world.Store.ListOutput(context.Background(), "out/"+j.id+".g1/")
		if err != nil || len(out) < 2 {
			t.Errorf("%s: published %v, %v", name, out, err)
		}
		j.proven(0, 1)
	}
}

// listed is the lists of an outcome: key and class of each line.
func (j *job) listed(o manifest.Outcome) string {
	j.t.Helper()
	var out []string
	for _, l := range o.Aggregation.Lists {
		err := manifest.ReadLines(context.Background(), j.store(), j.id, manifest.Ref{Key: l.Key, SHA256: l.SHA256, Count: l.Count}, func(x manifest.ListLine) error {
			out = append(out, fmt.Sprintf("%s: %s %s", l.Name, x.Key, x.Class))
			return nil
		})
		if err != nil {
			j.t.Fatal(err)
		}
	}
	return strings.Join(out, "\n")
}

// A generation that is redriven can be redriven.
func TestARedriveOfARedrive(t *testing.T) {
	j, p := ended(t)
	p = j.open(p, manifest.Control{Order: manifest.OrderRedrive, Generation: 1, Classes: []string{"gone"}})
	j.finish(p)
	p = j.open(p, manifest.Control{Order: manifest.OrderRedrive, Generation: 2})
	j.finish(p)
	p = j.open(p, manifest.Control{Order: manifest.OrderMerge, Generation: 3})
	j.finish(p)
	for g, want := range []string{
		"ok=4 permanent=2 exhausted=2 unfinished=0 rows=8", "ok=5 permanent=1 exhausted=2 unfinished=0 rows=9",
		"ok=6 permanent=1 exhausted=1 unfinished=0 rows=10", "ok=6 permanent=1 exhausted=1 unfinished=0 rows=10",
	} {
		if got := Gist(j.outcomeOf(g)); !strings.HasPrefix(got, "SUCCEEDED items=8 "+want+" ") {
			t.Errorf("generation %d: %s, want %s", g, got, want)
		}
	}
	if a, b := j.outcomeOf(2), j.outcomeOf(3); a.RowHash != b.RowHash {
		t.Error("merged again, the rows are others")
	}
	j.proven(0, 1, 2, 3)
}

// A job that is cancelled after any step and redriven ends as if it had not been, and no
// item that was ok runs again.
func TestACancelledJobIsRedriven(t *testing.T) {
	calm := sickJob(t)
	steps := calm.count(calm.submitOnly(sickDefinition()))
	for at := range steps {
		j, h := sickJobOf(t, sick)
		p := j.submitOnly(sickDefinition())
		for range at {
			if _, err := p.Step(context.Background(), j.id); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := j.store().Outcome(context.Background(), j.id, 0); err == nil {
			break // it is only to be published
		}
		j.cancel(p, 0)
		before := j.outcome()
		if before.Status != string(hayrick.JobCancelled) || before.OK+before.Permanent+before.Exhausted+before.Unfinished != 8 {
			t.Fatalf("cancelled after step %d: %+v", at, before)
		}
		j.finish(j.open(p, everything))
		// What was cut off has had fewer tries: b may be given up before it is well.
		if o := j.outcomeOf(1); o.Status != string(hayrick.JobSucceeded) || o.OK < 4 || o.OK+o.Permanent+o.Exhausted != 8 {
			t.Errorf("cancelled after step %d (%s): %s", at, gist0(before), Gist(o))
		}
		for _, id := range []string{"a", "c", "g", "h"} {
			if h.seen[id] != 1 {
				t.Errorf("cancelled after step %d: %s, which is well, was tried %d times", at, id, h.seen[id])
			}
		}
		j.proven(1)
		if t.Failed() {
			t.FailNow()
		}
	}
}

// cancel orders the end and sweeps, as `cancel` does.
func (j *job) cancel(p *Process, generation int) {
	j.t.Helper()
	ctx := context.Background()
	if _, err := p.Coordinator.Order(ctx, j.id, manifest.Control{Order: manifest.OrderCancel, Generation: generation}); err != nil {
		j.t.Fatal(err)
	}
	for range 2 {
		if _, err := p.Coordinator.Sweep(ctx, j.id); err != nil {
			j.t.Fatal(err)
		}
	}
}

// gist0 is how the items of a generation ended that was cancelled.
func gist0(o manifest.Outcome) string {
	return fmt.Sprintf("%s ok=%d permanent=%d exhausted=%d unfinished=%d", o.Status, o.OK, o.Permanent, o.Exhausted, o.Unfinished)
}

// A redrive that is cancelled before or after any step is redriven in its turn.
func TestARedriveIsCancelledAndRedriven(t *testing.T) {
	calm, p := ended(t)
	steps := calm.count(calm.open(p, everything))
	for at := range steps - 1 {
		j, p := ended(t)
		p = j.open(p, everything)
		for range at {
			if _, err := p.Step(context.Background(), j.id); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := j.store().Outcome(context.Background(), j.id, 1); err == nil {
			break // it is only to be published
		}
		j.cancel(p, 1)
		if o := j.outcomeOf(1); o.Status != string(hayrick.JobCancelled) || o.OK+o.Permanent+o.Exhausted+o.Unfinished != o.Items {
			t.Fatalf("cancelled after step %d: %+v", at, o)
		}
		again := everything
		again.Generation = 2
		j.finish(j.open(p, again))
		if got := Gist(j.outcomeOf(2)); !strings.HasPrefix(got, "SUCCEEDED items=8 ok=6 permanent=1 exhausted=1 unfinished=0 rows=10 ") {
			t.Errorf("cancelled after step %d: %s", at, got)
		}
		j.proven(0, 1, 2)
		if t.Failed() {
			t.FailNow()
		}
	}
}

// A worker that was overtaken by the end of its generation commits its task after the
// redrive has given the items to another: that result is nobody's.
func TestALateResultOfACancelledGenerationIsNobodys(t *testing.T) {
	j := sickJob(t)
	p := j.submitOnly(sickDefinition())
	ctx := context.Background()
	ds, err := j.world.Store.Receive(ctx, hayrick.QueueTasks, 1, visibility, 0)
	if err != nil || len(ds) != 1 {
		t.Fatal(ds, err)
	}
	late := j.world.Start()
	j.world.Store.Hook = func(c mem.Call) mem.Fault {
		if c.Actor != late.Name || c.Op != "Commit" || !strings.HasSuffix(c.Key, "/results.done") {
			return mem.Fault{}
		}
		j.world.Store.Hook = nil
		j.cancel(p, 0)
		j.finish(j.open(p, everything))
		return mem.Fault{}
	}
	if err := late.Deliver(mem.WithActor(ctx, late.Name), ds[0]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := j.store().Result(ctx, j.id, ds[0].TaskID); err != nil {
		t.Fatal("the late result was not committed: ", err)
	}
	j.finish(p)
	if got := Gist(j.outcomeOf(1)); !strings.HasPrefix(got, "SUCCEEDED items=8 ok=4 permanent=2 exhausted=2 unfinished=0 rows=8 ") {
		t.Error(got) // no item had been tried before
	}
	j.proven(1)
}

// Of two redrives at once one opens the generation; the other is told so, and nothing
// of it happens.
func TestTwoRedrivesAtOnce(t *testing.T) {
	j, p := ended(t)
	other := j.world.Start()
	theirs := manifest.Control{Order: manifest.OrderRedrive, Generation: 1, Classes: []string{"gone"}}
	var first error
	done := false
	j.world.Store.Hook = func(c mem.Call) mem.Fault {
		if !done && c.Op == "Commit" && strings.Contains(c.Key, "/control/") {
			done = true
			_, first = other.Coordinator.Order(context.Background(), j.id, theirs)
		}
		return mem.Fault{}
	}
	won, err := p.Coordinator.Order(context.Background(), j.id, everything)
	j.world.Store.Hook = nil
	if first != nil || !errors.Is(err, hayrick.ErrConflict) || won.By != other.Name {
		t.Fatalf("the first: %v, the second: %v, by %s", first, err, won.By)
	}
	j.finish(p)
	if got := Gist(j.outcomeOf(1)); !strings.HasPrefix(got, "SUCCEEDED items=8 ok=5 permanent=1 exhausted=2 ") {
		t.Error(got)
	}
	// To a generation that is open, or is not next, none can be given.
	for _, g := range []int{1, 3} {
		o := everything
		o.Generation = g
		if _, err := p.Coordinator.Order(context.Background(), j.id, o); !errors.Is(err, hayrick.ErrConflict) {
			t.Errorf("a redrive to generation %d: %v", g, err)
		}
	}
	j.proven(0, 1)
}

// A changed definition holds from the generation on that it came with.
func TestARedriveMayChangeTheDefinition(t *testing.T) {
	j, p := ended(t)
	def := sickDefinition()
	def.Retry.Passes = 0
	def.Retry.Lists = map[string]string{"gone": "lost"}
	body, sha, err := manifest.EncodeDefinition(def)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.store().PutData(context.Background(), manifest.Job(j.id).Config(sha), body); err != nil {
		t.Fatal(err)
	}
	o := everything
	o.DefinitionSHA256 = sha
	j.finish(j.open(p, o))
	// Without passes b is given up after its third try.
	if got := Gist(j.outcomeOf(1)); !strings.HasPrefix(got, "SUCCEEDED items=8 ok=5 permanent=1 exhausted=2 ") {
		t.Error(got)
	}
	if got := j.listed(j.outcomeOf(1)); got != "exhausted: b busy\nexhausted: f busy\nlost: e gone" {
		t.Error(got)
	}
	j.proven(0, 1)
}

// Three items in two batches: one is well, and of the two that are redriven one gets so.
const few = `{"id":"a","rows":2}
{"id":"b","rows":1,"busy_until":3}
{"id":"d","rows":1,"gone_until":2}
`

func fewEnded(t *testing.T) (*job, *Process) {
	t.Helper()
	j, _ := sickJobOf(t, few)
	def := definition()
	def.Retry.Passes = 0
	p := j.submitOnly(def)
	j.finish(p)
	return j, p
}

// The state store, the queue or both, deleted after any step of a redrive, cost time and
// no row.
func TestStateAndQueueMayBeDeletedAfterAnyStepOfARedrive(t *testing.T) {
	calm, p := ended(t)
	steps := calm.count(calm.open(p, everything))
	want := Gist(calm.outcomeOf(1))
	for name, wipe := range map[string]func(*mem.Store){
		"state": (*mem.Store).WipeState,
		"queue": (*mem.Store).WipeQueue,
		"both":  func(s *mem.Store) { s.WipeState(); s.WipeQueue() },
	} {
		for at := range steps {
			j, p := ended(t)
			p = j.open(p, everything)
			for range at {
				if _, err := p.Step(context.Background(), j.id); err != nil {
					t.Fatal(err)
				}
			}
			wipe(j.world.Store)
			j.finish(p)
			if got := Gist(j.outcomeOf(1)); got != want {
				t.Errorf("%s deleted after step %d: got %s, want %s", name, at, got, want)
			}
		}
	}
}

// A byte that is changed in any object of a run of two generations is found and named,
// and so is an object that is gone.
func TestAChangedByteOfAnyGenerationIsNamed(t *testing.T) {
	j, p := ended(t)
	ordinals := []int64{1, 3}
	j.finish(j.open(p, manifest.Control{Order: manifest.OrderRedrive, Generation: 1, Ordinals: ordinals}))
	j.proven(1)
	job := manifest.Job(j.id)
	objects := 0
	for key, body := range j.world.Store.Snapshot() {
		if !strings.HasPrefix(key, job.Prefix()) {
			continue
		}
		objects++
		for _, gone := range []bool{false, true} {
			changed := append([]byte(nil), body...)
			changed[len(changed)/2] ^= 1
			if gone {
				changed = nil
			}
			j.world.Store.Damage(key, changed)
			r, err := audit.Run(context.Background(), audit.Options{
				Store: j.store(), JobID: j.id, World: hayrick.World{Go: InOrder}, Blobs: j.world.Store, Output: j.world.Store, Inputs: j.world.Store, Deep: true,
			})
			rel := job.Rel(key)
			found := slices.ContainsFunc(r.Findings, func(f audit.Finding) bool {
				return f.Key == rel && (f.Severity == audit.Broken || f.Severity == audit.View)
			})
			switch missing := errors.Is(err, hayrick.ErrNotFound); {
			case missing && gone && rel == "plan.json":
			case err != nil:
				t.Errorf("%s, gone: %t: %v", rel, gone, err)
			case !found:
				t.Errorf("%s, gone: %t: not named: %s\n%v", rel, gone, r.Line, r.Findings)
			}
			j.world.Store.Damage(key, body)
		}
	}
	if objects < 50 {
		t.Errorf("only %d objects", objects)
	}
}
