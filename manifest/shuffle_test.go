package manifest

import (
	"fmt"
	"slices"
	"testing"
)

// Every record has one place and every place one record, for any number of items, and
// both ways agree.
func TestAnOrderIsAPermutation(t *testing.T) {
	for _, n := range []int64{1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, 1000, 4097} {
		for seed := range 5 {
			p := Plan{Items: n, Shuffle: &Shuffle{Seed: fmt.Sprint(seed)}}
			seen := make([]bool, n)
			for record := range n {
				place := p.PlaceOf(record)
				if place < 0 || place >= n || seen[place] {
					t.Fatalf("seed %d: record %d of %d is at %d, out of range or taken", seed, record, n, place)
				}
				seen[place] = true
				if back := p.InputOrdinal(place); back != record {
					t.Fatalf("seed %d: place %d of %d has record %d, want %d", seed, place, n, back, record)
				}
			}
		}
	}
	huge := Plan{Items: 1 << 40, Shuffle: ShuffleOf("job")}
	for record := int64(0); record < huge.Items; record += 1<<33 + 12345 {
		if place := huge.PlaceOf(record); place < 0 || place >= huge.Items || huge.InputOrdinal(place) != record {
			t.Fatalf("record %d is at %d", record, place)
		}
	}
	plain := Plan{Items: 9}
	if plain.PlaceOf(5) != 5 || plain.InputOrdinal(5) != 5 || huge.PlaceOf(-1) != -1 || huge.InputOrdinal(1<<40) != 1<<40 {
		t.Error("an item of a run that is not shuffled, or none, has another place")
	}
}

// What stands together in the input lies apart in the run: of a tenth of the input each
// stretch of a hundred items has about ten. And all orders of four items come up.
func TestAnOrderSpreads(t *testing.T) {
	const n = 10_000
	for seed := range 5 {
		o := Shuffle{Seed: fmt.Sprint(seed)}.Order(n)
		var of [n / 100][10]int
		for record := range int64(n) {
			of[o.PlaceOf(record)/100][record/(n/10)]++
		}
		for at, tenths := range of {
			for tenth, k := range tenths {
				if k > 28 { // six sigma
					t.Errorf("seed %d: the batch at %d has %d items of tenth %d", seed, 100*at, k, tenth)
				}
			}
		}
	}
	orders := map[string]int{}
	for seed := range 2400 {
		o := Shuffle{Seed: fmt.Sprint(seed)}.Order(4)
		orders[fmt.Sprint(o.RecordAt(0), o.RecordAt(1), o.RecordAt(2), o.RecordAt(3))]++
	}
	if len(orders) != 24 {
		t.Errorf("%d orders of four items: %v", len(orders), orders)
	}
	for order, times := range orders {
		if times < 40 || times > 180 {
			t.Errorf("order %s comes up %d times in 2,400", order, times)
		}
	}
}

// The order of a stored run never changes: "first" of a merge tomorrow is that of today.
func TestTheOrderOfARun(t *testing.T) {
	s := ShuffleOf("backfill-20261120-kdmqra")
	var got []int64
	for place := range int64(12) {
		got = append(got, s.Order(12).RecordAt(place))
	}
	if want := "5002630c2d92[7 11 9 4 1 6 2 3 8 5 10 0]"; fmt.Sprint(s.Seed, got) != want {
		t.Errorf("%v, want %s", fmt.Sprint(s.Seed, got), want)
	}
	if slices.IsSorted(got) {
		t.Error("it is in order")
	}
}
