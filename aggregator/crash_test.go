package aggregator_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
	"hayrick/mem"
)

// gist is what runs of a job must agree on, whatever happened to them: everything
// but times, attempts and who did it.
func (j *jobRig) gist() string {
	o := j.outcome()
	if o.Aggregation == nil {
		return fmt.Sprint(o.Status, o.Code, o.Items, o.OK, o.Permanent, o.Exhausted, o.Unfinished, o.Message)
	}
	agg := o.Aggregation
	return fmt.Sprint(o.Status, o.Items, o.OK, o.Permanent, o.Exhausted, o.RowCount, o.RowHash, agg.OutputHash, agg.Parts, agg.Lists, agg.RowCountsByBatch, slices.Sorted(maps.Keys(o.Chain)))
}

// guarded runs f as a process that may die amid a call.
func guarded(f func() error) (err error, crashed bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(mem.Crash); !ok {
				panic(r)
			}
			crashed = true
		}
	}()
	return f(), false
}

// finish works on the job as machines do: a process that dies is replaced, a message
// that fails comes again, and where no message is left somebody looks.
func (j *jobRig) finish() {
	j.t.Helper()
	processes := 1
	var last error
	a := j.process("p-1")
	for range 300 {
		depth, err := j.mem.Depth(j.t.Context(), hayrick.QueueTasks, jobID)
		if err == nil && depth.Messages == 0 {
			body, _ := j.store.Raw(j.t.Context(), job.Manifest())
			if strings.Contains(string(body), `"status":"SUCCEEDED"`) || strings.Contains(string(body), `"status":"FAILED"`) {
				return
			}
			_ = j.mem.Send(j.t.Context(), hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: jobID, Role: hayrick.RoleAggregator}})
		}
		var worked bool
		err, crashed := guarded(func() (err error) { worked, err = j.step(a); return err })
		if err != nil {
			last = err
		}
		if crashed {
			j.temps.open = 0 // they went with the process
			processes++
			a = j.process(fmt.Sprint("p-", processes))
		}
		if !worked {
			j.clock.Sleep(j.t.Context(), 20*time.Second)
		}
	}
	j.t.Fatalf("the job does not end: %d processes, %+v", processes, last)
}

// scenarios are jobs that between them take every way through the aggregator.
var scenarios = map[string]func(t *testing.T) *jobRig{
	"parts and lists": func(t *testing.T) *jobRig {
		return build(t, shape{refs: true, def: func(d *hayrick.JobDefinition) {
			d.Merge.FanIn, d.Merge.ByCount, d.Merge.PartBytes = 2, true, 1
		}}, []task{one(row("a", 1)), {ok: 1, again: 1, rows: []rows.Row{row("b", "x")}}, one(row("a", 2)), {permanent: []item{{5, "repo_not_found"}}}},
			[]task{{exhausted: []item{{4, "timeout"}}}})
	},
	"overwrite": func(t *testing.T) *jobRig {
		j := build(t, withOutput("out/shared/", "overwrite"), []task{one(row("a", 1)), {permanent: []item{{1, "repo_not_found"}}}})
		j.before(stale)
		return j
	},
	"no rows": func(t *testing.T) *jobRig {
		return build(t, shape{}, []task{one(), {exhausted: []item{{1, "timeout"}}}})
	},
	"refused": func(t *testing.T) *jobRig {
		j := build(t, withOutput("out/shared/", "error"), []task{one(row("a", 1))})
		j.before(map[string]string{"x": "theirs"})
		return j
	},
	"short of time": func(t *testing.T) *jobRig {
		j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 3, true }},
			[]task{one(row("a", 1)), {ok: 1}, one(row("b", "x")), one(row("a", 4))})
		j.left = none
		return j
	},
	"unlike": func(t *testing.T) *jobRig {
		return build(t, shape{}, []task{one(row("a", 1)), one(row("a", "x"))})
	},
	"unique": func(t *testing.T) *jobRig {
		return build(t, shape{def: func(d *hayrick.JobDefinition) {
			d.Merge.FanIn, d.Merge.ByCount, d.Merge.TargetRows, d.Output.UniqueBy = 1, true, 2, []string{"a"}
		}}, []task{one(row("a", 1, "b", 1), row("a", 3)), one(row("a", 1, "b", 2), row("a", 4), row("a", 2))})
	},
	"not unique": func(t *testing.T) *jobRig {
		return build(t, shape{def: func(d *hayrick.JobDefinition) {
			d.Merge.FanIn, d.Merge.ByCount, d.Output.UniqueBy, d.Output.Keep = 1, true, []string{"a"}, "error"
		}}, []task{one(row("a", 1, "b", 1)), one(row("a", 1, "b", 2))})
	},
	"a merge that fails": func(t *testing.T) *jobRig {
		return build(t, shape{bad: func(n int64, r *manifest.Result) {
			if n == 1 {
				r.RowHash = "1"
			}
		}}, []task{one(row("a", 1)), one(row("a", 2))})
	},
}

// stale is another dataset in the folder of the overwriting job.
var stale = map[string]string{"_SUCCESS": "theirs", "part-00000.parquet": "theirs", "part-00001.parquet": "theirs", "lists/gone.jsonl": "theirs"}

// unbroken checks what a reader of the output folder relies on at any moment: with a
// _SUCCESS there, the dataset that it speaks of is whole.
func (j *jobRig) unbroken(where string) {
	out := j.published()
	switch success := out[manifest.SuccessName]; {
	case success == "":
	case success == "theirs":
		for name, body := range stale {
			if out[name] != body {
				j.t.Errorf("%s: their _SUCCESS stands, and %s is %q", where, name, out[name])
			}
		}
	default:
		o, _, err := j.store.Outcome(j.t.Context(), jobID, 0)
		if err != nil || o.Aggregation == nil {
			j.t.Fatalf("%s: there is a _SUCCESS and no outcome: %v", where, err)
		}
		for _, p := range o.Aggregation.Parts {
			if manifest.SHA256([]byte(out[p.Name])) != p.SHA256 {
				j.t.Errorf("%s: there is a _SUCCESS, and %s is not whole", where, p.Name)
			}
		}
		for name, body := range out {
			if body == "theirs" && name != "x" {
				j.t.Errorf("%s: there is a _SUCCESS, and still their %s", where, name)
			}
		}
	}
}

// Whatever goes wrong with whichever call of a port, from the plan to the published
// folder, the job ends as if nothing had.
func TestEveryFault(t *testing.T) {
	boom := errors.New("boom")
	faults := []struct {
		name string
		mem.Fault
	}{
		// A crash before a call is one after the call before it.
		{"crash", mem.Fault{CrashAfter: true}}, {"lost reply", mem.Fault{ErrAfter: boom}},
		{"error", mem.Fault{ErrBefore: boom}}, {"undecided", mem.Fault{ErrBefore: hayrick.ErrUnknown}}, {"twice", mem.Fault{Duplicate: true}},
	}
	for _, name := range slices.Sorted(maps.Keys(scenarios)) {
		t.Run(name, func(t *testing.T) {
			calm := scenarios[name](t)
			var calls []string
			record := func(c mem.Call) {
				if strings.HasPrefix(c.Actor, "p-") {
					calls = append(calls, c.Op+" "+c.Key)
				}
			}
			calm.mem.Hook = func(c mem.Call) mem.Fault { record(c); return mem.Fault{} }
			calm.trigger()
			calm.finish()
			calm.mem.Hook = nil
			want, total := calm.gist(), len(calls)
			if len(want) < 20 || total < 20 {
				t.Fatalf("%d calls, %s", total, want)
			}
			switch o := calm.outcome(); {
			case o.Status == "SUCCEEDED" && len(calm.def.Output.UniqueBy) > 0:
				calm.checkUnique(o, calm.placed)
			case o.Status == "SUCCEEDED":
				calm.whole(o)
			}
			faults := faults
			if calm.outcome().Status != "SUCCEEDED" {
				faults = faults[:2] // the way to a bad end is mostly the same
			}
			every := 1
			if testing.Short() { // the race detector looks at the same code each time
				every = 11
			}
			for _, f := range faults {
				for n := 0; n < total; n += every {
					j := scenarios[name](t)
					calls = nil
					at := ""
					j.mem.Hook = func(c mem.Call) mem.Fault {
						record(c)
						if at == "" && len(calls) == n+1 {
							at = fmt.Sprintf("%s at %d: %s", f.name, n, calls[n])
							return f.Fault
						}
						return mem.Fault{}
					}
					j.trigger()
					// To the fault, and a look at what a reader sees; then on.
					a := j.process("p-0")
					for at == "" {
						worked := false
						_, crashed := guarded(func() (err error) { worked, err = j.step(a); return err })
						if crashed {
							j.temps.open = 0
							break
						}
						if !worked {
							j.clock.Sleep(t.Context(), time.Second)
						}
					}
					calls := j.mem.Hook
					j.mem.Hook = nil
					j.unbroken(at)
					j.mem.Hook = calls
					j.finish()
					j.mem.Hook = nil
					if got := j.gist(); got != want {
						t.Fatalf("%s:\n got %s\nwant %s", at, got, want)
					}
					j.unbroken(at)
					if !maps.Equal(data(j.published()), data(calm.published())) {
						t.Fatalf("%s: published %q", at, slices.Sorted(maps.Keys(j.published())))
					}
					if t.Failed() {
						t.FailNow()
					}
				}
			}
			t.Logf("%d calls x %d faults", total, len(faults))
		})
	}
}

// data is a folder without its _SUCCESS, which names the run's own outcome.
func data(files map[string]string) map[string]string {
	delete(files, manifest.SuccessName)
	return files
}
