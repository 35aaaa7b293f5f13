package main

import (
	"math"
	"slices"
	"time"

	"hayrick"
	"hayrick/coordinator"
)

// mostProbed bounds --probe: beyond it a run with --limit says more.
const mostProbed = 1000

// sampledItem is an item that was drawn from an input.
type sampledItem struct {
	ordinal int64
	rec     []byte
}

// drawing draws items from an input as they pass, each with the same chance. What is
// longer than checkedBytes is left out.
type drawing struct {
	most  int
	rand  hayrick.Rand
	seen  int64
	items []sampledItem
}

func (s *drawing) see(ordinal int64, rec []byte) {
	if rec == nil {
		return
	}
	s.seen++
	if len(s.items) < s.most {
		s.items = append(s.items, sampledItem{ordinal, slices.Clone(rec)})
	} else if i := s.rand.Uint64() % uint64(s.seen); i < uint64(s.most) {
		s.items[i] = sampledItem{ordinal, append(s.items[i].rec[:0], rec...)}
	}
}

// probe is what was found out by running items.
type probe struct {
	Items  int64            `json:"items"`
	OK     int64            `json:"ok"`
	Failed map[string]int64 `json:"failed"` // by class
	AtOnce int              `json:"at_once"`
	// An item's time, without its waits for tokens.
	MedianMS float64 `json:"median_ms"`
	P95MS    float64 `json:"p95_ms"`
	// PerSecond is what one task does: between the items at once over their mean time,
	// and the items over the time in which any was in hand.
	PerSecond [2]float64 `json:"task_items_per_second"`
	ItemRows  float64    `json:"item_rows"` // of an item that ended ok

	inFlight int // itemsAtOnce, to which the times below are scaled
	low      time.Duration
	expected time.Duration
	high     time.Duration
	rowsLow  float64
	rowsHigh float64
	tokens   map[string]int64 // that the handler asked for by itself, of rates with one bucket
	sample   string           // a failure
}

// ran is how one item of a probe ended.
type ran struct {
	class, message string
	took           time.Duration
	ended          time.Duration // since the probe began
	rows           int64
}

// summed is what the items of a probe tell of a task: atOnce of them were in hand at
// most, and for busy at least one.
func summed(all []ran, atOnce, inFlight int, busy time.Duration) *probe {
	p := &probe{Items: int64(len(all)), AtOnce: min(atOnce, len(all)), Failed: map[string]int64{}, inFlight: max(inFlight, 1)}
	var times, rows, ends []float64
	for _, r := range all {
		ends = append(ends, r.ended.Seconds())
		times = append(times, max(r.took.Seconds(), 1e-7))
		if r.class == "" {
			p.OK++
			rows = append(rows, float64(r.rows))
			continue
		}
		if p.Failed[r.class]++; p.sample == "" {
			p.sample = r.class + ": " + r.message
		}
	}
	slices.Sort(times)
	at := func(q float64) float64 { return times[min(len(times)-1, int(q*float64(len(times))))] }
	p.MedianMS, p.P95MS = 1000*at(0.5), 1000*at(0.95)
	mean, off := meanOf(times)
	// Items that wait for each other inside the handler make the first figure too slow,
	// and slots that stand empty at the end the second.
	side, over := mean/float64(max(p.AtOnce, 1)), busy.Seconds()/float64(len(all))
	fast, slow := min(side, over), max(side, over)
	p.PerSecond = [2]float64{1 / slow, 1 / fast}
	scaled := func(perItem float64) time.Duration {
		return time.Duration(perItem * float64(p.inFlight) * float64(time.Second))
	}
	p.expected = scaled((fast + slow) / 2)
	// The times of items that wait for each other differ by their waits; how far apart they
	// end tells better then how much one is unlike another.
	unsure := off / mean
	slices.Sort(ends)
	for i := len(ends) - 1; i > 0; i-- {
		ends[i] -= ends[i-1]
	}
	if gap, off := meanOf(ends[min(1, len(ends)):]); gap > 0 { // the first has started the handler too
		unsure = min(unsure, off/gap)
	}
	p.low, p.high = scaled(fast*max(1-2*unsure, 0.1)), scaled(slow*(1+2*unsure))
	p.ItemRows, off = meanOf(rows)
	p.rowsLow, p.rowsHigh = max(0, p.ItemRows-2*off), p.ItemRows+2*off
	return p
}

// meanOf is the mean, and how far it may be off: its standard error.
func meanOf(x []float64) (mean, off float64) {
	if len(x) == 0 {
		return 0, 0
	}
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	if len(x) == 1 {
		return mean, mean / 2 // of one nobody knows
	}
	for _, v := range x {
		off += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return mean, math.Sqrt(off / float64(len(x)))
}

// assumed puts what was measured in the place of what was assumed. atOnce is how many
// tasks may be all that one machine has room for, 0 = each has its own.
func (p *probe) assumed(a [3]assumption, rowsGiven bool, atOnce int) [3]assumption {
	a[0].itemTime, a[1].itemTime, a[2].itemTime = p.low, p.expected, p.high
	a[2].atOnce = atOnce
	if !rowsGiven {
		a[0].itemRows, a[1].itemRows, a[2].itemRows = p.rowsLow, p.ItemRows, p.rowsHigh
	}
	return a
}

// floorOf is how long the tokens that the handler asks for by itself let the run take at
// least, if all items ask as the sample did.
func (p *probe) floorOf(rates []hayrick.Rate, items int64) (time.Duration, string) {
	var asked []hayrick.Rate
	most := map[string]int64{}
	for _, r := range rates {
		if n := p.tokens[r.Name]; n > 0 && !r.Auto {
			r.Auto, r.Key = true, "asked"
			asked = append(asked, r)
			most[r.Name] = int64(float64(n) / float64(p.Items) * float64(items))
		}
	}
	return coordinator.FloorOf(asked, items, most)
}
