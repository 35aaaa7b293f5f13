package coordinator

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"hayrick"
)

func TestFloor(t *testing.T) {
	limit := func(n int64, per time.Duration) hayrick.PerTime { return hayrick.PerTime{N: n, Per: per} }
	rates := []hayrick.Rate{
		{Name: "api", Limit: limit(10, time.Second), Burst: 10, Auto: true},
		{Name: "host", Key: "$(item.host)", Limit: limit(1, time.Second), Burst: 1, Auto: true},
		{Name: "asked", Limit: limit(1, time.Hour), Burst: 1},
	}
	for _, x := range []struct {
		items, most int64
		want        time.Duration
		rate        string
	}{
		{10, 1, 0, ""},
		{110, 1, 10 * time.Second, "api"},
		{110, 61, time.Minute, "host"},
	} {
		if got, rate := FloorOf(rates, x.items, map[string]int64{"host": x.most}); got != x.want || rate != x.rate {
			t.Errorf("%d items, %d of them of one host: %v by %q, want %v by %q", x.items, x.most, got, rate, x.want, x.rate)
		}
	}
}

// With more keys than there is room for, the count of the commonest is never too high,
// and too low by no more than its bound.
func TestFrequent(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var f Frequent
	const all = 400_000
	var common int64
	for range all {
		if r.IntN(4) == 0 {
			f.Add("common")
			common++
			continue
		}
		f.Add(fmt.Sprint(r.Uint64()))
	}
	if got := f.Most(); got > common || got < common-all/maxKeys-1 {
		t.Errorf("the commonest is there %d times, found %d", common, got)
	}
	if len(f.n) > maxKeys {
		t.Errorf("%d keys are kept", len(f.n))
	}
	var few Frequent
	for i := range 100 {
		few.Add(fmt.Sprint(i % 3))
	}
	if got := few.Most(); got != 34 {
		t.Errorf("few keys: %d, want 34", got)
	}
}
