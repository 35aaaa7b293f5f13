package model

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"hayrick/sim"
)

// follow runs a plan of the simulator with a follower beside it, which change may change.
func follow(plan sim.Plan, scratch string, change func(*Follower)) (*Follower, error) {
	fleet := sim.NewFleet(plan, scratch, synctest.Wait)
	fleet.Store.SetInput("items.jsonl", []byte(plan.Scenario.Items))
	f := &Follower{
		Store: fleet.Store, Passes: plan.Submission.Definition.Retry.Passes, Items: strings.Count(plan.Scenario.Items, "\n"),
		Alive: func(name string) bool { return fleet.Proc(name) != nil }, Now: fleet.Turnstile.Now, Lent: plan.Scenario.Left > 0,
	}
	for _, x := range plan.Faults {
		if strings.HasPrefix(x.Kind, "clock") {
			f.Now = nil
		}
	}
	fleet.Store.Saw = f.Saw
	if change != nil {
		change(f)
	}
	err := fleet.Run()
	return f, err
}

// What the simulator does, the model allows, and takes for what it is.
func TestTracesConform(t *testing.T) {
	var all [Ordered]int
	for _, s := range sim.Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			scratch := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f, err := follow(s.Plan(7), scratch, nil)
				if err != nil || f.Err() != nil {
					t.Fatal(err, f.Err())
				}
				n, kinds := f.Followed()
				text := ""
				for k := range Ordered {
					if all[k] += kinds[k]; kinds[k] > 0 {
						text += fmt.Sprintf("; %s %d times", kindNames[k], kinds[k])
					}
				}
				t.Logf("%d effects%s", n, text)
			})
		})
	}
	for _, k := range []Kind{Claimed, Committed, Marked, Woke, Closed, SentNext, Pinned, SentMerges, Ended, Cached, Published, Acked} {
		if all[k] < len(sim.Scenarios)/2 {
			t.Errorf("of all scenarios, an act %s %d times", kindNames[k], all[k])
		}
	}
}

// Nor does it do anything else when several things go wrong.
func TestTracesWithFaultsConform(t *testing.T) {
	scratch := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		runs, effects := 0, 0
		for i, s := range sim.Scenarios {
			calls := s.Plan(1).Run(scratch, synctest.Wait, "").Calls
			for n := range number("HAYRICK_MODEL_SEEDS", 4) {
				p := s.Plan(uint64(1000*i + n))
				p.Faults = sim.RandomFaults(p.Seed, calls, 5)
				f, err := follow(p, scratch, nil)
				if err != nil || f.Err() != nil {
					t.Errorf("%s, seed %d, faults %s: %v %v", s.Name, p.Seed, p.Faults, err, f.Err())
				}
				n, _ := f.Followed()
				runs, effects = runs+1, effects+n
			}
		}
		t.Logf("%d runs, %d effects", runs, effects)
	})
}
