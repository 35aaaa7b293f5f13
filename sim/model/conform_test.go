package model

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"hayrick/mem"
	"hayrick/sim"
)

// follow runs a plan of the simulator with a follower beside it. change may tell it
// something else than what happened.
func follow(plan sim.Plan, scratch string, change func(tell func(mem.Call, any, error)) func(mem.Call, any, error)) (*Follower, error) {
	fleet := sim.NewFleet(plan, scratch, synctest.Wait)
	fleet.Store.SetInput("items.jsonl", []byte(plan.Scenario.Items))
	f := &Follower{
		Store: fleet.Store, Passes: plan.Submission.Definition.Retry.Passes, Items: strings.Count(plan.Scenario.Items, "\n"),
		Alive: func(name string) bool { return fleet.Proc(name) != nil }, Now: fleet.Turnstile.Now,
		Lent: plan.Scenario.Left > 0,
	}
	for _, x := range plan.Faults {
		if strings.HasPrefix(x.Kind, "clock") {
			f.Now = nil
		}
	}
	fleet.Store.Saw = f.Saw
	if change != nil {
		fleet.Store.Saw = change(f.Saw)
	}
	err := fleet.Run()
	return f, err
}

// What the simulator does, the model allows.
func TestTracesConform(t *testing.T) {
	for _, s := range sim.Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			scratch := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f, err := follow(s.Plan(7), scratch, nil)
				if err != nil || f.Err() != nil {
					t.Fatal(err, f.Err())
				}
				n, kinds := f.Followed()
				t.Log(n, said(kinds))
			})
		})
	}
}

// Nor does it do anything else when several things go wrong.
func TestTracesWithFaultsConform(t *testing.T) {
	scratch := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		for i, s := range sim.Scenarios {
			for n := range number("HAYRICK_MODEL_SEEDS", 10) {
				p := s.Plan(uint64(1000*i + n))
				calls := s.Plan(p.Seed).Run(scratch, synctest.Wait, "").Calls
				p.Faults = sim.RandomFaults(p.Seed, calls, 5)
				f, err := follow(p, scratch, nil)
				if err != nil || f.Err() != nil {
					t.Errorf("%s, seed %d, faults %s: %v %v", s.Name, p.Seed, p.Faults, err, f.Err())
				}
			}
		}
	})
}

func said(kinds map[Kind]int) string {
	text := ""
	for k := range Ordered {
		if kinds[k] > 0 {
			text += fmt.Sprintf(" %s: %d;", kindNames[k], kinds[k])
		}
	}
	return text
}

