package coordinator

import (
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/cost"
	"hayrick/manifest"
)

// running is a job of 1,000 tasks on a store that costs something, of which done have
// ended, half an hour after its submission.
func running(done int, b *hayrick.Budget, orders ...manifest.Control) (*Known, time.Time) {
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	k := &Known{
		Plan: manifest.Plan{
			JobID: "job-20261120-abcdef", Items: 100_000, SubmittedAt: manifest.At(start),
			Group: manifest.Group{Name: hayrick.GroupInitial, Tasks: 1000, Items: 100_000},
		},
		Definition: hayrick.JobDefinition{Run: hayrick.Run{MaxParallel: 10}, Budget: b},
		Orders:     orders, Depth: hayrick.Depth{Messages: 1, Exact: true},
		Open:  &OpenGroup{Name: hayrick.GroupInitial},
		Money: &Money{Prices: cost.ListPrices()},
	}
	for n := 0; done > 0; n++ {
		r := hayrick.BlockState{BlockID: hayrick.BlockID{N: n}, Total: 250}
		for p := range min(done, 250) {
			r.Done.Add(p)
			done--
		}
		k.Open.Records = append(k.Open.Records, r)
	}
	for i := range k.Orders {
		k.Orders[i].N = i
	}
	return k, start.Add(30 * time.Minute)
}

func TestBudgetInUSD(t *testing.T) {
	usd := func(v float64) *hayrick.Budget { return &hayrick.Budget{USD: v} }
	k, now := running(500, nil)
	spent := Spent(k, Apply(nil, 0), now).High
	if whole := 1000 * 3 * 5e-6; spent < whole/2 || spent > 2*whole {
		t.Fatalf("half of the tasks cost up to %g, all of them put %g of objects", spent, whole)
	}
	pause := func(rule string, at time.Duration) manifest.Control {
		return manifest.Control{Order: manifest.OrderPause, Rule: rule, At: manifest.At(now.Add(at))}
	}
	resume := func(b *hayrick.Budget, at time.Duration) manifest.Control {
		return manifest.Control{Order: manifest.OrderResume, Budget: b, At: manifest.At(now.Add(at))}
	}
	for _, x := range []struct {
		name   string
		budget *hayrick.Budget
		orders []manifest.Control
		want   string // the rule of the pause
	}{
		{"none", nil, nil, ""},
		{"more than it has cost", usd(spent * 1.01), nil, ""},
		{"less", usd(0.001), nil, "budget-0.001"},
		{"raised enough", usd(0.001), []manifest.Control{pause("budget-0.001", -time.Minute), resume(usd(5), -time.Second)}, ""},
		{"raised, not enough", usd(0.001), []manifest.Control{pause("budget-0.001", -time.Minute), resume(usd(0.002), -time.Second)}, "budget-0.002"},
		{"resumed as it was", usd(0.001), []manifest.Control{pause("budget-0.001", -time.Minute), resume(nil, -time.Second)}, ""},
	} {
		k, now := running(500, x.budget, x.orders...)
		d := Decide(k, now)
		got := ""
		if d.Pause != nil {
			got = d.Pause.Rule
			if d.Status != hayrick.StatusPaused || d.Pause.Order != manifest.OrderPause || !strings.Contains(d.Pause.Reason, "`hayrick resume job-20261120-abcdef --budget <more>`") {
				t.Errorf("%s: %+v", x.name, d.Pause)
			}
		}
		if got != x.want {
			t.Errorf("%s: paused by %q, want %q", x.name, got, x.want)
		}
	}
	k, now = running(500, usd(0.001))
	if k.Money = nil; Decide(k, now).Pause != nil {
		t.Error("a store that costs nothing is over its budget")
	}
}

// What a run has cost does not shrink as it goes on, and a function that works on it
// costs what it runs.
func TestSpentGrows(t *testing.T) {
	last := 0.0
	for done := 0; done <= 1000; done += 100 {
		k, now := running(done, nil)
		usd := Spent(k, Apply(nil, 0), now)
		if usd.High < last || usd.Low > usd.Expected || usd.Expected > usd.High {
			t.Errorf("%d done: %+v, %g before", done, usd, last)
		}
		last = usd.High
	}
	k, now := running(1000, nil)
	k.Money.Function = cost.Function{MiB: 2048}
	all := 10 * 1800 * 2048 / 1024 * 0.0000133334 // ten at once for half an hour, 2 GB each
	if usd := Spent(k, Apply(nil, 0), now).High; usd < all || usd > 1.2*all {
		t.Errorf("with functions it costs %g, the functions alone %g", usd, all)
	}
}

func TestBudgetInTime(t *testing.T) {
	wall := &hayrick.Budget{Wall: hayrick.Duration(20 * time.Minute)}
	k, now := running(10, wall)
	d := Decide(k, now)
	if d.Pause == nil || d.Pause.Rule != "wall-20m" || !ByBudget(d.Pause.Rule) {
		t.Fatalf("half an hour of 20 minutes: %+v", d.Pause)
	}
	// Time in pauses does not count, also of one that holds.
	at := func(before time.Duration) manifest.Time { return manifest.At(now.Add(-before)) }
	orders := []manifest.Control{
		{Order: manifest.OrderPause, At: at(25 * time.Minute)},
		{Order: manifest.OrderPause, At: at(24 * time.Minute)},
		{Order: manifest.OrderResume, At: at(14 * time.Minute)},
	}
	k, now = running(10, wall, orders...)
	if d := Decide(k, now); d.Pause != nil {
		t.Errorf("19 minutes of 20: %+v", d.Pause)
	}
	k, now = running(10, wall, append(orders, manifest.Control{Order: manifest.OrderPause, At: at(time.Minute)})...)
	if rested := Apply(k.Orders, 0).Rested(now); rested != 12*time.Minute {
		t.Errorf("paused for %v, want 12m", rested)
	}
}
