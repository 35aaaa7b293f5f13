package sim

import (
	"context"
	"slices"
	"strings"
	"testing"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
)

// uniqueJob is the job of three batches whose rows are unique by n: 11 rows, of which
// those with n = 0 are in five items, one of them of a retry. Every batch is a run of
// its own, and there is more than one range of keys.
func uniqueJob(t *testing.T, keep string) (*job, hayrick.JobDefinition) {
	def := definition()
	def.Output.UniqueBy, def.Output.Keep = []string{"n"}, keep
	def.Merge.FanIn, def.Merge.ByCount, def.Merge.TargetRows = 1, true, 3
	return newJob(t), def
}

// A fault at any port call of the merges leaves the same dataset.
//
// 002-45
func TestUniqueRowsSurviveFaults(t *testing.T) {
	calm, def := uniqueJob(t, hayrick.KeepLast)
	var merging, calls int
	calm.world.Store.Hook = func(c mem.Call) mem.Fault {
		if calls = c.N; merging == 0 && strings.HasSuffix(c.Key, "aggregation/0/plan.json") && c.Op == "Commit" {
			merging = c.N
		}
		return mem.Fault{}
	}
	calm.submitAs(def)
	calm.world.Store.Hook = nil
	calm.check()
	o := calm.outcome()
	want := gist(o)
	if !strings.HasPrefix(want, "SUCCEEDED items=6 ok=5 permanent=1 exhausted=0 unfinished=0 rows=4 ") || o.DroppedRows != 7 {
		t.Fatalf("%s, %d dropped", want, o.DroppedRows)
	}
	plan, _, err := (&manifest.Store{Objects: calm.world.Store, Clock: calm.world.Clock}).AggregationPlan(t.Context(), calm.id, 0)
	if err != nil || plan.Group.Tasks != 4 || plan.Ranges.Tasks != 3 {
		t.Fatalf("%+v, %v", plan, err)
	}
	for _, kind := range kinds {
		if !slices.Contains([]string{"undecided before", "crash after", "duplicate", "stall after"}, kind.name) {
			continue // the others are met by TestEverySingleFaultIsSurvived, on the same ways
		}
		step := 5
		if kind.name == "crash after" {
			step = 1
		}
		for n := merging; n <= calls; n += step {
			j, def := uniqueJob(t, hayrick.KeepLast)
			met := false
			j.world.Store.Hook = func(c mem.Call) mem.Fault {
				if c.N != n || met {
					return mem.Fault{}
				}
				met = true
				return kind.fault
			}
			busy := false
			j.world.Clock.Stalled = func() {
				if !busy {
					busy = true
					j.overtake()
				}
			}
			j.finish(j.submitOnly(def))
			j.world.Store.Hook = nil
			j.check()
			if got := gist(j.outcome()); got != want || t.Failed() || !met {
				t.Fatalf("%s at call %d (met: %v):\n got %s\nwant %s", kind.name, n, met, got, want)
			}
		}
	}
	t.Logf("%d calls", calls-merging+1)
}

// Messages and state deleted between the two levels, and a worker that does level 2
// twice.
func TestUniqueRowsWithoutStateOrQueue(t *testing.T) {
	calm, def := uniqueJob(t, "")
	calm.world.Clock.Stalled = nil
	steps := calm.count(calm.submitOnly(def))
	want := gist(calm.outcome())
	for at := range steps {
		j, def := uniqueJob(t, "")
		p := j.submitOnly(def)
		for range at {
			if _, err := p.Step(context.Background(), j.id); err != nil {
				t.Fatal(err)
			}
		}
		j.world.Store.WipeState()
		j.world.Store.WipeQueue()
		j.finish(p)
		j.check()
		if got := gist(j.outcome()); got != want {
			t.Fatalf("deleted after step %d: got %s, want %s", at, got, want)
		}
	}
}
