package model

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hayrick"
	"hayrick/mem"
	"hayrick/sim"
)

type saw = func(mem.Call, any, error)

// result says whether a call commits the result of a task.
func result(c mem.Call, task string) bool {
	return c.Op == "Commit" && strings.HasSuffix(c.Key, "/tasks/"+task+"/results.done")
}

// without leaves out all that comes of a task: its result, its mark, and that its messages
// are done with.
func without(task, mark string) func(saw) saw {
	return func(tell saw) saw {
		return func(c mem.Call, v any, err error) {
			if result(c, task) || c.Op == "Mark" && strings.HasSuffix(c.Key, mark) {
				return
			}
			if ds, ok := v.([]hayrick.Delivery); ok && c.Op == "Ack" {
				v = slices.DeleteFunc(slices.Clone(ds), func(d hayrick.Delivery) bool { return d.TaskID == task })
			}
			tell(c, v, err)
		}
	}
}

// once changes the first call that fits.
func once(fits func(mem.Call, any) bool, change func(tell saw, c mem.Call, v any)) func(saw) saw {
	return func(tell saw) saw {
		done := false
		return func(c mem.Call, v any, err error) {
			if done || err != nil || !fits(c, v) {
				tell(c, v, err)
				return
			}
			done = true
			change(tell, c, v)
		}
	}
}

// doctored are traces of something that did not happen.
var doctored = []struct {
	name, scenario string
	change         func(saw) saw
	refused        string
}{
	{"a mark comes before the result", "happy", func(tell saw) saw {
		var late func()
		return func(c mem.Call, v any, err error) {
			if result(c, "task-0000") {
				late = func() { tell(c, v, err) }
				return
			}
			tell(c, v, err)
			if c.Op == "Mark" && late != nil {
				late()
				late = nil
			}
		}
	}, "is marked and has no result"},
	{"a message is acknowledged at the claim", "happy", func(tell saw) saw {
		var hand []hayrick.Delivery
		return func(c mem.Call, v any, err error) {
			tell(c, v, err)
			if c.Op == "Receive" && err == nil {
				hand = v.([]hayrick.Delivery)
			}
			if c.Op == "Claim" && err == nil {
				tell(mem.Call{N: 1 << 30, Actor: c.Actor, Port: "Queue", Op: "Ack", Key: "tasks"}, hand, nil)
			}
		}
	}, "acknowledged before all is done"},
	{"a result is stored twice", "happy", once(func(c mem.Call, _ any) bool { return result(c, "task-0000") }, func(tell saw, c mem.Call, v any) {
		tell(c, v, nil)
		c.N = 1 << 30
		tell(c, v, nil)
	}), "task-0000 is committed"},
	{"a result comes before its data", "happy", once(func(c mem.Call, _ any) bool { return c.Op == "Put" && strings.HasSuffix(c.Key, ".parquet") }, func(saw, mem.Call, any) {}),
		"names data that was not there"},
	{"a claim has the fence of the one before", "poison", once(func(_ mem.Call, v any) bool {
		claim, ok := v.(hayrick.Claim)
		return ok && claim.Fence == 2
	}, func(tell saw, c mem.Call, v any) {
		claim := v.(hayrick.Claim)
		claim.Fence = 1
		tell(c, claim, nil)
	}), "by the model"},
	{"a claim is granted while its lease holds", "happy", once(func(c mem.Call, _ any) bool { return c.Op == "Claim" }, func(tell saw, c mem.Call, v any) {
		tell(c, v, nil)
		claim := v.(hayrick.Claim)
		claim.Attempt, claim.Fence = "ffffffffffffffffffffffffffffffff", 2
		tell(c, claim, nil)
	}), "is claimed while its lease holds"},
	{"an attempt starts in a paused job", "pause", func(tell saw) saw {
		var ds []hayrick.Delivery
		var by mem.Call
		var claim *hayrick.Claim
		return func(c mem.Call, v any, err error) {
			if x, ok := v.(hayrick.Claim); ok && claim == nil {
				claim = &x
			}
			if x, ok := v.([]hayrick.Delivery); ok && c.Op == "Receive" && len(x) > 0 && ds == nil {
				ds, by = x[:1], c
			}
			tell(c, v, err)
			if st, ok := v.(hayrick.JobState); ok && c.Op == "PutJobState" && st.Status == hayrick.StatusPaused {
				by.Actor = "person-3" // it has no others in hand
				tell(by, ds, nil)
				again := *claim // of the same task: the first one
				again.Until = time.Time{}
				tell(mem.Call{N: 1 << 30, Actor: by.Actor, Port: "State", Op: "UpdateClaim", Key: again.TaskID}, again, nil)
				again.Attempt = "ffffffffffffffffffffffffffffffff"
				again.Fence++
				tell(mem.Call{N: 1 << 30, Actor: by.Actor, Port: "State", Op: "Claim", Key: again.TaskID}, again, nil)
			}
		}
	}, "task-0000 is claimed; the process stands at [1/0@admit 1/0@acknowledge]"},
	{"a group is closed without a result", "happy", without("task-0001", "/initial_batch/0/0[1]"), "the plan is committed that closes initial_batch"},
	{"the outcome comes without a merge", "happy", without("agg-0-1-0000", "/final_aggregation/0/0[0]"), "the outcome SUCCEEDED is committed"},
	{"a record forgets a task", "failures", once(func(_ mem.Call, v any) bool {
		b, ok := v.(hayrick.BlockState)
		return ok && b.Done.Count() > 1
	}, func(tell saw, c mem.Call, v any) {
		b := v.(hayrick.BlockState)
		b.Done = hayrick.Bits{}
		tell(c, b, nil)
	}), "by the model"},
	{"a message names a task that no plan has", "happy", once(func(c mem.Call, _ any) bool { return c.Op == "Send" }, func(tell saw, c mem.Call, v any) {
		msgs := slices.Clone(v.([]hayrick.Outgoing))
		msgs[0].TaskID = "task-0099"
		tell(c, msgs, nil)
	}), "a message of what no commit names"},
	{"a message comes that nobody has sent", "happy", once(func(c mem.Call, _ any) bool { return c.Op == "Send" }, func(saw, mem.Call, any) {}), "a message comes that nobody has sent"},
	{"data is removed that a result names", "happy", func(tell saw) saw {
		key := ""
		return func(c mem.Call, v any, err error) {
			if c.Op == "Put" && strings.HasSuffix(c.Key, ".parquet") && key == "" {
				key = c.Key
			}
			tell(c, v, err)
			if c.Op == "Mark" {
				tell(mem.Call{N: 1 << 30, Actor: c.Actor, Port: "Objects", Op: "Remove", Key: key}, nil, nil)
			}
		}
	}, "is removed"},
	{"the state says that the job has ended", "happy", once(func(c mem.Call, _ any) bool { return c.Op == "PutJobState" }, func(tell saw, c mem.Call, v any) {
		st := v.(hayrick.JobState)
		st.Status = hayrick.StatusCancelled
		tell(c, st, nil)
	}), "and no commit does"},
}

// A trace that says what the model has no step for is refused, however much of it is true.
func TestDoctoredTracesAreRefused(t *testing.T) {
	scratch := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		for _, x := range doctored {
			i := slices.IndexFunc(sim.Scenarios, func(s sim.Scenario) bool { return s.Name == x.scenario })
			f, err := follow(sim.Scenarios[i].Plan(7), scratch, func(f *Follower) { f.Store.Saw = x.change(f.Saw) })
			if err != nil {
				t.Fatal(err)
			}
			if f.Err() == nil || !strings.Contains(f.Err().Error(), x.refused) {
				t.Errorf("%s: %v; want %q", x.name, f.Err(), x.refused)
				continue
			}
			t.Logf("%-45s %v", x.name, f.Err())
		}
		f, err := follow(sim.Scenarios[1].Plan(7), scratch, func(f *Follower) { f.Passes = 0 })
		if err != nil || f.Err() == nil || !strings.Contains(f.Err().Error(), "by the model") {
			t.Errorf("a planner that retries more than the rules of the follower allow: %v %v", err, f.Err())
		}
	})
}
