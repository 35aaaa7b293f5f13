package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"hayrick"
)

func TestProbeSaysWhatATaskDoes(t *testing.T) {
	ok := func(took time.Duration, n int) (all []ran) {
		for range n {
			all = append(all, ran{took: took, rows: 2})
		}
		return all
	}
	for _, x := range []struct {
		name      string
		all       []ran
		atOnce    int
		busy      time.Duration
		low, high time.Duration // of an item, one of 8 in flight
	}{
		{"items that wait for others", ok(100*time.Millisecond, 16), 8, 200 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond},
		// One process that takes one after the other: 10 ms each, whatever is in flight.
		{"items that wait for each other", ok(80*time.Millisecond, 16), 8, 160 * time.Millisecond, 80 * time.Millisecond, 80 * time.Millisecond},
		// 9 items in 8 slots: the last one had the task for itself.
		{"a last one alone", ok(100*time.Millisecond, 9), 8, 200 * time.Millisecond, 100 * time.Millisecond, 178 * time.Millisecond},
		{"fewer than slots", ok(100*time.Millisecond, 4), 8, 100 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond},
	} {
		p := summed(x.all, x.atOnce, 8, x.busy)
		if a := p.assumed([3]assumption{}, false, 2); a[0].itemTime.Round(time.Millisecond) != x.low || a[2].itemTime.Round(time.Millisecond) != x.high {
			t.Errorf("%s: %v to %v an item, want %v to %v", x.name, a[0].itemTime, a[2].itemTime, x.low, x.high)
		} else if a[0].atOnce != 0 || a[2].atOnce != 2 || a[1].itemRows != 2 {
			t.Errorf("%s: %+v", x.name, a)
		}
	}

	// 80 items, all sent at once to a program that takes 150 ms for one after the other.
	var queued []ran
	for i := range 80 {
		end := time.Duration(i+1) * 150 * time.Millisecond
		queued = append(queued, ran{took: end - time.Duration(max(0, i-63))*150*time.Millisecond, ended: end, rows: 1})
	}
	if q := summed(queued, 64, 1, 12*time.Second); q.low < 75*time.Millisecond || q.high > 160*time.Millisecond || q.high < 150*time.Millisecond {
		t.Errorf("of a program that takes 150 ms: %v to %v", q.low, q.high)
	}

	// What differs from item to item makes the range wide, and failures are told.
	mixed := append(ok(10*time.Millisecond, 5), ran{class: "slow", message: "late", took: time.Second})
	p := summed(mixed, 1, 1, 1050*time.Millisecond)
	if p.OK != 5 || p.Failed["slow"] != 1 || p.sample != "slow: late" || p.MedianMS != 10 || p.P95MS != 1000 {
		t.Errorf("%+v", p)
	}
	if !(p.low < p.expected && 2*p.expected < p.high) {
		t.Errorf("%v %v %v", p.low, p.expected, p.high)
	}

	// Tokens that the handler asks for: three an item.
	p.tokens = map[string]int64{"api": 18, "other": 1}
	floor, rate := p.floorOf([]hayrick.Rate{{Name: "api", Limit: hayrick.PerTime{N: 10, Per: time.Second}}, {Name: "auto", Auto: true}}, 1000)
	if floor != 300*time.Second || rate != "api" {
		t.Errorf("floor %v by %s", floor, rate)
	}
}

func TestDrawingIsOfTheWholeInput(t *testing.T) {
	d := drawing{most: 100, rand: rand.New(rand.NewPCG(1, 2))}
	l := passing{limit: 10_000, each: []func(int64, []byte){d.see}}
	var text bytes.Buffer
	for i := range 10_100 {
		fmt.Fprintf(&text, "{\"n\":%d}\n\n", i)
		if i == 5 {
			text.Write(append(bytes.Repeat([]byte("x"), checkedBytes+1), '\n'))
		}
	}
	for text.Len() > 0 { // in pieces
		if _, err := l.Write(text.Next(777)); err != nil {
			t.Fatal(err)
		}
	}
	l.end()
	if len(d.items) != 100 || d.seen != 9_999 || l.items != 10_000 {
		t.Fatalf("%d of %d", len(d.items), d.seen)
	}
	late := 0
	for _, it := range d.items {
		n := it.ordinal
		if n > 5 {
			n-- // the long one took a place
		}
		if want := fmt.Sprintf(`{"n":%d}`, n); string(it.rec) != want {
			t.Errorf("item %d is %s", it.ordinal, it.rec)
		}
		if it.ordinal >= 5_000 {
			late++
		}
	}
	if late < 30 || late > 70 {
		t.Errorf("%d of 100 are of the second half", late)
	}
}

// What is planned for output.unique_by: fewer and larger merges, and ranges of keys.
func TestPlannedUniqueMerge(t *testing.T) {
	for n, want := range map[int64]int64{0: 0, 1: 1, 256: 256, 257: 257, 258: 257, 256 + 2*256: 512, 256 + 2*256 + 1: 513} {
		if got := grown(n); got != want {
			t.Errorf("%d merges grow to %d, want %d", n, got, want)
		}
	}
	var s planShape
	s.def.Output.UniqueBy, s.def.Merge = []string{"id"}, hayrick.Merge{FanIn: 10, TargetRows: 100, TargetBytes: 1 << 30}
	s.found.Items, s.found.Tasks = 1000, 1000
	known := learned{itemTime: time.Millisecond, itemRows: 1, rowsGiven: true}
	a := assume(known, true)
	if few, many := s.job(a[0]).Merge, s.job(a[2]).Merge; few.Ranges != 1 || many.Ranges != 10 || many.RangesDone != 10 || many.Nodes != 10 {
		t.Errorf("%+v %+v", few, many)
	}
}
