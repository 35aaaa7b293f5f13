package aggregator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
)

// Any number of processes with any number of slots drain the same queue, in which
// every message lies twice, while leases run out under them: the rows come out once.
func TestManyAtOnce(t *testing.T) {
	for round := range 4 {
		rng := rand.New(rand.NewPCG(uint64(round), 1))
		var ts []task
		for i := range 60 {
			x := one()
			for n := range rng.IntN(20) {
				x.rows = append(x.rows, row("task", i, "n", n))
			}
			ts = append(ts, x)
		}
		ts = append(ts, task{permanent: []item{{60, "repo_not_found"}}})
		j := build(t, shape{refs: round%2 == 0, def: func(d *hayrick.JobDefinition) {
			d.Merge.FanIn, d.Merge.ByCount, d.Merge.PartBytes = 4, true, hayrick.Bytes(round*2000)
		}}, ts)
		j.mem.Hook = func(c mem.Call) mem.Fault { return mem.Fault{Duplicate: c.Op == "Send"} }
		j.trigger()
		done := func() bool {
			body, err := j.store.Raw(context.Background(), job.Manifest())
			return err == nil && strings.Contains(string(body), `"status":"SUCCEEDED"`)
		}
		var slots sync.WaitGroup
		for p := range 3 {
			a := j.process(fmt.Sprint("p-", p))
			a.World = hayrick.RealWorld(a.World.Worker)
			for range 2 {
				slots.Go(func() {
					for range 100_000 {
						worked, err := j.step(a)
						if err != nil {
							t.Error(err)
							return
						}
						if !worked {
							if done() {
								return
							}
							j.clock.Sleep(context.Background(), 30*time.Second) // past a lease now and then
						}
					}
					t.Error("the job does not end")
				})
			}
		}
		slots.Wait()
		o := j.outcome()
		j.whole(o)
		j.chained(o)
	}
}

// ticking is a clock whose sleepers wake when the test says so.
type ticking struct {
	hayrick.Clock
	tick chan struct{}
}

func (c ticking) Sleep(ctx context.Context, d time.Duration) error {
	if d < time.Second {
		return ctx.Err()
	}
	select {
	case <-c.tick:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A merge renews its lease as long as it runs, and not longer.
func TestMergeRenewsItsLease(t *testing.T) {
	j, a, ds := planned(t)
	clock := ticking{j.clock, make(chan struct{})}
	a.World = hayrick.World{Clock: clock, Rand: attempts{}, Worker: "p", Go: func(_ string, f func()) { go f() }}
	renewed := make(chan struct{}, 10)
	ran := false
	j.mem.Hook = func(c mem.Call) mem.Fault {
		switch {
		case c.Op == "UpdateClaim":
			renewed <- struct{}{}
		case c.Op == "Put" && strings.Contains(c.Key, "agg-0-1-0000"):
			ran = true
			for range 3 {
				before, _ := j.claimOf("agg-0-1-0000")
				j.clock.Sleep(t.Context(), 30*time.Second)
				clock.tick <- struct{}{}
				<-renewed
				for { // the call that was announced has its effect
					if now, alive := j.claimOf("agg-0-1-0000"); alive && now.Until.Sub(before.Until) == 30*time.Second {
						break
					}
				}
			}
		}
		return mem.Fault{}
	}
	if v, err := a.Do(j.ctx("p"), ds[0]); !v.Ack || err != nil || !ran {
		t.Fatalf("%+v, %v", v, err)
	}
	if r := j.result("agg-0-1-0000"); r.Fence != 1 || !r.Task.EndTime.Equal(start.Add(time.Minute+90*time.Second)) {
		t.Errorf("fence %d, ended %s", r.Fence, r.Task.EndTime)
	}
	select {
	case clock.tick <- struct{}{}:
		t.Error("somebody still waits to renew")
	default:
	}
}

// Where no memory is given, as many merges are at work as there are cores.
func TestMergesWaitForACore(t *testing.T) {
	j, a, ds := planned(t)
	a.Cores = 1
	ended, end := context.WithCancel(j.ctx("p"))
	defer end()
	waited := false
	j.mem.Hook = hookAt(func(c mem.Call) bool { return strings.Contains(c.Key, "agg-0-1-0001") }, end) // its result is looked for
	a.Temp = func() (manifest.Temp, error) {
		if !waited {
			waited = true
			if _, err := a.Do(ended, ds[1]); err == nil || !strings.Contains(err.Error(), "wait for a core: context canceled") {
				t.Errorf("the second at the same time: %v", err)
			}
		}
		return j.temps.new()
	}
	for _, d := range ds {
		if v, err := a.Do(j.ctx("p"), d); !v.Ack || err != nil {
			t.Fatalf("%s: %+v, %v", d.TaskID, v, err)
		}
	}
	if !waited {
		t.Error("no merge was at work")
	}
	j.must(a.Advance(t.Context(), jobID, 0))
	j.whole(j.outcome())
}

// One process runs merges of two jobs in turn, each with its own inputs.
func TestTwoJobsInTurn(t *testing.T) {
	ts := func(kind string) (ts []task) {
		for i := range 4 {
			ts = append(ts, one(row(kind, i)))
		}
		return ts
	}
	s := shape{def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 1, true }}
	j := build(t, s, ts("a"))
	s.with = j
	k := build(t, s, ts("b"))
	a := j.process("p")
	for _, x := range []*jobRig{j, k} {
		j.must(a.Advance(t.Context(), x.id, 0))
	}
	ds, err := j.mem.Receive(j.ctx("p"), hayrick.QueueTasks, 8, time.Minute, 0)
	j.must(err)
	for i := range 4 {
		for _, d := range []hayrick.Delivery{ds[i], ds[4+i]} {
			if v, err := a.Do(j.ctx("p"), d); !v.Ack || err != nil {
				t.Fatalf("%s of %s: %+v, %v", d.TaskID, d.JobID, v, err)
			}
		}
	}
	for _, x := range []*jobRig{j, k} {
		j.must(a.Advance(t.Context(), x.id, 0))
		x.whole(x.outcome())
	}
}
