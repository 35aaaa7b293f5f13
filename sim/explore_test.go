package sim

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/jobs"
)

// counting has a row that says how often the item was run in this world.
type counting struct{ p *Proc }

var (
	countingMu sync.Mutex
	countingOf map[*Fleet]map[string]int64
)

func (c counting) Handle(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	countingMu.Lock()
	defer countingMu.Unlock()
	if countingOf[c.p.f] == nil {
		countingOf[c.p.f] = map[string]int64{}
	}
	countingOf[c.p.f][it.Key]++
	if err := emit(jobs.Row{{Name: "id", Value: it.Key}, {Name: "runs", Value: countingOf[c.p.f][it.Key]}}); err != nil {
		return jobs.Fail("emit", "%v", err)
	}
	return jobs.OK()
}

// What a fault changes is found, by one fault, and by that again.
func TestExplore(t *testing.T) {
	scratch := t.TempDir()
	countingOf = map[*Fleet]map[string]int64{}
	s := Scenarios[0]
	s.Handler = func(p *Proc) jobs.Handler { return counting{p} }
	var x Explored
	var again Verdict
	Bubble(func() {
		x = Explore(context.Background(), s.Plan(3), scratch, Kinds, 300, func(int) {})
		if x.Violated != nil {
			p := s.Plan(3)
			p.Faults = x.Violated.Plan.Faults
			again = p.RunIn(scratch, x.Calm.Gist)
		}
	})
	if x.Violated == nil || len(x.Violated.Plan.Faults) != 1 || len(again.Bad) == 0 || again.Hash != x.Violated.Hash {
		t.Fatalf("%d runs, %v, again %v", x.Runs, x.Violated, again.Bad)
	}
	Bubble(func() {
		x = Explore(context.Background(), Scenarios[0].Plan(3), scratch, Kinds, 20, func(int) {})
	})
	if x.Violated != nil || x.Runs != 20 || x.Faults < 20 {
		t.Errorf("%+v", x)
	}
}

// asking is a handler that uses all of its host, and fails at first.
type asking struct {
	mu   sync.Mutex
	runs int
}

func (a *asking) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	a.mu.Lock()
	a.runs++
	a.mu.Unlock()
	if err := it.Host.Need(ctx, "api", it.Key, 1); err != nil {
		return jobs.Fail("need", "%v", err)
	}
	it.Host.Add("requests", 1)
	it.Host.Beat(1, 2)
	text := []byte(it.Key)
	if err := emit(jobs.Row{{Name: "id", Value: text}, {Name: "from", Value: string(it.Cursor)}}); err != nil {
		return jobs.Fail("emit", "%v", err)
	}
	text[0] = 'X' // what was emitted is no longer the handler's
	if len(it.Cursor) == 0 {
		if err := it.Host.Mark(json.RawMessage(`{"at":1}`)); err != nil {
			return jobs.Fail("mark", "%v", err)
		}
	}
	it.Host.Feedback("api", it.Key, jobs.Feedback{})
	it.Host.Log("seen")
	if it.Try == 1 && it.Key == "b" {
		return jobs.Fail("busy", "the first time")
	}
	return jobs.OK()
}

// A job's own handler is played in worlds: each try runs once, with all that it asks of
// its host.
func TestRecorder(t *testing.T) {
	scratch := t.TempDir()
	def := Definition("asks", "elsewhere.jsonl", "elsewhere/")
	def.Rates = []hayrick.Rate{{Name: "api", Limit: hayrick.PerTime{N: 50, Per: time.Second}, Burst: 100, Learn: true}}
	h := &asking{}
	r := NewRecorder(h)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go r.Serve(ctx)
	var items []jobs.Item
	for i, id := range []string{"a", "b", "c", "d", "e"} {
		items = append(items, jobs.Item{Ordinal: int64(i), Key: id, Data: json.RawMessage(`{"id":"` + id + `"}`), Try: 1})
	}
	for _, it := range items {
		if !r.Steady(ctx, it) {
			t.Errorf("item %s has other rows when it runs again", it.Key)
		}
	}
	var x Explored
	Bubble(func() { x = Explore(ctx, JobPlan(def, items, r, 2, 1), scratch, Kinds, 60, func(int) {}) })
	if x.Violated != nil {
		t.Fatalf("%v %v", x.Violated.Plan.Faults, x.Violated.Bad)
	}
	if want := "0: SUCCEEDED items=5 ok=5 permanent=0 exhausted=0 unfinished=0 rows=5"; len(x.Calm.Gist) < len(want) || x.Calm.Gist[:len(want)] != want {
		t.Error(x.Calm.Gist)
	}
	if n := r.Tries(); h.runs != n+len(items) {
		t.Errorf("%d runs of %d tries, of which %d ran twice", h.runs, n, len(items))
	}
}
