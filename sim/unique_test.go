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
	want := Gist(o)
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
			if got := Gist(j.outcome()); got != want || t.Failed() || !met {
				t.Fatalf("%s at call %d (met: %v):\n got %s\nwant %s", kind.name, n, met, got, want)
			}
		}
	}
	t.Logf("%d calls", calls-merging+1)
}

// Whatever the shape of the output, an audit that decodes every row proves the job.
func TestEveryShapeOfOutputIsProven(t *testing.T) {
	for _, format := range []string{"parquet", "csv", "jsonl"} {
		for _, partitions := range [][]string{nil, {"id"}, {"n", "id"}} {
			for _, unique := range [][]string{nil, {"n"}, {"id", "n"}} {
				for _, part := range []hayrick.Bytes{0, 1} {
					j, def := uniqueJob(t, "")
					def.Output.Format, def.Output.PartitionBy, def.Output.UniqueBy, def.Merge.PartBytes = format, partitions, unique, part
					def.Output.Schema = []hayrick.Column{{Name: "n", Type: "float"}, {Name: "id", Type: "string"}, {Name: "z", Type: "time"}}
					j.submitAs(def)
					j.check()
					o := j.outcome()
					want := int64(11)
					if len(unique) == 1 {
						want = 4
					}
					if o.Status != "SUCCEEDED" || o.RowCount != want || o.DroppedRows != 11-want || t.Failed() {
						t.Fatalf("%s %v %v %v: %s %s %s, %d rows, %d dropped", format, partitions, unique, part, o.Status, o.Code, o.Message, o.RowCount, o.DroppedRows)
					}
				}
			}
		}
	}
}

// A row that does not fit output.schema fails its item by class, and names the column.
func TestARowThatDoesNotFitFailsItsItem(t *testing.T) {
	j, def := uniqueJob(t, "")
	def.Output.UniqueBy, def.Output.Schema = nil, []hayrick.Column{{Name: "id", Type: "string"}, {Name: "n", Type: "string"}}
	j.submitAs(def)
	o := j.outcome()
	if o.Status != "SUCCEEDED" || o.OK != 0 || o.Permanent != 6 || o.RowCount != 0 {
		t.Fatalf("%+v", o)
	}
	store := &manifest.Store{Objects: j.world.Store, Clock: j.world.Clock}
	for _, l := range o.Aggregation.Lists {
		err := manifest.ReadLines(t.Context(), store, j.id, manifest.Ref{Key: l.Key, SHA256: l.SHA256, Count: l.Count}, func(x manifest.ListLine) error {
			if x.Key != "e" && (x.Class != "bad_rows" || !strings.Contains(x.Message, `column "n" is string in output.schema, the row has int`)) {
				t.Errorf("%+v", x)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Messages and state deleted between the two levels, and a worker that does level 2
// twice.
func TestUniqueRowsWithoutStateOrQueue(t *testing.T) {
	calm, def := uniqueJob(t, "")
	calm.world.Clock.Stalled = nil
	steps := calm.count(calm.submitOnly(def))
	want := Gist(calm.outcome())
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
		if got := Gist(j.outcome()); got != want {
			t.Fatalf("deleted after step %d: got %s, want %s", at, got, want)
		}
	}
}
