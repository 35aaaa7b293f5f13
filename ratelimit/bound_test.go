package ratelimit

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"hayrick"
)

// excess is what the worst window holds above rate x T: the maximum over all
// windows of N - rate x T, in tokens, exact. ok says whether it is within burst.
func excess(lim Limits, at []int64) (tokens float64, ok bool) {
	at = slices.Sorted(slices.Values(at))
	n, per := lim.Rate.N, int64(lim.Rate.Per)
	var level, worst int64 // in 1/per tokens
	for i, t := range at {
		if i > 0 {
			level -= n * min(t-at[i-1], level/n+1)
		}
		level = max(0, level) + per
		worst = max(worst, level)
	}
	return float64(worst) / float64(per), worst <= int64(lim.Burst)*per
}

func TestExcessIsExact(t *testing.T) {
	lim := Limits{Rate: hayrick.PerTime{N: 10, Per: time.Second}, Burst: 3}
	ms := func(at ...int64) (ns []int64) {
		for _, a := range at {
			ns = append(ns, a*1e6)
		}
		return ns
	}
	for _, c := range []struct {
		at   []int64
		want float64
		ok   bool
	}{
		{ms(0), 1, true},
		{ms(0, 0, 0), 3, true},
		{ms(0, 0, 0, 0), 4, false},
		{ms(0, 0, 0, 100), 3, true},                         // 4 in 100 ms = 1 + burst
		{append(ms(0, 0, 0), 100*1e6-1), 3.00000001, false}, // a nanosecond early
		{ms(1000, 0, 0, 1000, 1000), 3, true},
	} {
		if got, ok := excess(lim, c.at); got != c.want || ok != c.ok {
			t.Errorf("excess(%v) = %v, %v; want %v, %v", c.at, got, ok, c.want, c.ok)
		}
	}
}

// flaw is a wrong limiter.
type flaw string

const (
	sound       flaw = ""
	startsFull  flaw = "a missing bucket starts full"
	startsNow   flaw = "a missing bucket starts without the horizon"
	forgetsSkew flaw = "a missing bucket starts as if clocks agreed"
	keepsLate   flaw = "late tokens are used"
	ignoresSkew flaw = "the life of a token ignores the clock bound"
	lostUpdate  flaw = "reading and writing a bucket are two steps"
	fullRate    flaw = "a burst too small for the timing is raised in silence"
)

// fleet is a simulated set of processes that share a bucket, in true time. Its
// clocks may be wrong in each single reading, by all that the bound allows, and
// it uses its tokens at the worst time at which a clock would let it.
type fleet struct {
	t      *testing.T
	rng    *rand.Rand
	lim    Limits
	flaw   flaw
	stored []byte
	stale  []byte // the bytes before the last write
	events []event
	now    int64
	crowd  int64 // processes like to send at multiples of this
	calm   bool  // ... all of them, and nothing stands still

	grants []int64   // true times
	closed []closure // by what the bucket has heard since it was wiped
	faults map[string]int
}

type event struct {
	at int64
	do func()
}

type closure struct{ from, until int64 }

func (f *fleet) after(d time.Duration, do func()) {
	e := event{f.now + int64(d), do}
	i, _ := slices.BinarySearchFunc(f.events, e, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	f.events = slices.Insert(f.events, i, e)
}

func (f *fleet) run(d time.Duration) {
	for end := f.now + int64(d); len(f.events) > 0 && f.events[0].at < end; {
		e := f.events[0]
		f.events = f.events[1:]
		f.now = e.at
		e.do()
	}
}

func (f *fleet) upTo(d time.Duration) time.Duration { return time.Duration(f.rng.Int64N(int64(d) + 1)) }

func (f *fleet) oneIn(n int, what string) bool {
	hit := f.rng.IntN(n) == 0
	if hit {
		f.faults[what]++
	}
	return hit
}

// clock is one reading of a clock: often the worst there is.
func (f *fleet) clock() time.Time {
	d := int64(f.lim.ClockBound)
	skew := f.rng.Int64N(2*d+1) - d
	switch f.rng.IntN(4) {
	case 0:
		skew = d
	case 1:
		skew = -d
	}
	return time.Unix(0, f.now+skew)
}

// limits are those that the fleet keeps to.
func (f *fleet) limits() Limits {
	lim := f.lim
	if f.flaw == fullRate {
		lim.Burst = max(lim.Burst, MinBurst(lim.Rate, lim.ClockBound, lim.Lateness))
	}
	return lim
}

// reserve is one step of the store.
func (f *fleet) reserve(ask Ask) Grant {
	now, lim := f.clock(), f.limits()
	from := f.stored
	if from == nil {
		switch f.flaw {
		case startsFull:
			from = encode(State{Last: now.UnixNano() - lim.life(), Share: full})
		case startsNow:
			from = encode(State{Last: now.UnixNano(), Share: full})
		case forgetsSkew:
			from = encode(State{Last: now.UnixNano() + int64(lim.Horizon), Share: full})
		}
		f.stored = from
	}
	if f.flaw == lostUpdate && f.stale != nil && f.rng.IntN(20) == 0 {
		from = f.stale
	}
	next, g := ApplyReserve(from, lim, ask, now)
	if next != nil {
		f.stale, f.stored = f.stored, next
	}
	if g.Count == 0 {
		return g
	}
	if f.flaw != sound {
		return g
	}
	last := g.First.UnixNano() + int64(g.Count-1)*int64(g.Every)
	if limit := f.now + int64(lim.Horizon+lim.ClockBound); last > limit {
		f.t.Errorf("a token is due %v beyond the horizon", time.Duration(last-limit))
	}
	for _, c := range f.closed {
		if early := c.until - (g.First.UnixNano() - int64(lim.ClockBound)); early > 0 {
			f.t.Errorf("a token may be used %v before the key opens", time.Duration(early))
		}
	}
	return g
}

// use grants the tokens of a lot, cost of them at once, each at a true time at
// which some clock within the bound would let it.
func (f *fleet) use(g Grant, cost int) {
	life := f.limits().life()
	if f.flaw == ignoresSkew {
		life += 2 * int64(f.lim.ClockBound)
	}
	for i := 0; i+cost <= g.Count; i += cost {
		first := g.First.UnixNano() + int64(i)*int64(g.Every)
		last := first + int64(cost-1)*int64(g.Every)
		from := max(f.now, last-int64(f.lim.ClockBound))
		to := first + life + int64(f.lim.ClockBound)
		if !f.calm && f.rng.IntN(20) == 0 { // stands still
			from += int64(f.upTo(5 * time.Second))
		}
		if from > to {
			f.faults["late"]++
			if f.flaw != keepsLate {
				continue
			}
			to = from
		}
		when := from
		switch crowd := (from/f.crowd + 1) * f.crowd; {
		case crowd <= to && (f.calm || f.rng.IntN(4) > 0):
			when = crowd
		case f.rng.IntN(3) == 0:
			when = to
		case f.rng.IntN(2) == 0:
			when += f.rng.Int64N(to - from + 1)
		}
		for range cost {
			f.grants = append(f.grants, when)
		}
	}
}

// process asks again and again; it idles, dies and comes back.
func (f *fleet) process(cost int) {
	pause := f.upTo(300 * time.Millisecond)
	if f.rng.IntN(10) == 0 {
		pause = f.upTo(10 * time.Second)
	}
	f.after(pause, func() {
		defer f.process(cost)
		if f.oneIn(50, "request lost") {
			return
		}
		ask := Ask{N: cost * (1 + f.rng.IntN(20)), Min: cost}
		if f.rng.IntN(4) == 0 {
			ask.Lead = f.upTo(f.lim.Horizon)
		}
		g := f.reserve(ask)
		if f.oneIn(50, "applied twice") {
			g = f.reserve(ask)
		}
		if f.oneIn(30, "lot lost") { // the process dies, or the answer does
			return
		}
		answer := f.upTo(30 * time.Millisecond)
		if f.oneIn(30, "slow answer") {
			answer = f.upTo(3 * time.Second)
		}
		f.after(answer, func() { f.use(g, cost) })
	})
}

// wiper loses the bucket now and then, twice in a row at times.
func (f *fleet) wiper(every time.Duration) {
	f.after(f.upTo(every), func() {
		f.faults["wiped"]++
		f.stored, f.stale, f.closed = nil, nil, nil
		if f.rng.IntN(3) == 0 {
			f.reserve(Ask{N: 1, Min: 1})
			f.stored = nil
		}
		f.wiper(every)
	})
}

// upstream throttles now and then.
func (f *fleet) upstream() {
	f.after(f.upTo(20*time.Second), func() {
		f.faults["throttled"]++
		fb := Feedback{Throttled: true}
		if f.rng.IntN(3) > 0 {
			fb.RetryAfter = f.upTo(4 * time.Second)
			f.closed = append(f.closed, closure{f.now, f.now + int64(fb.RetryAfter)})
		}
		if next := ApplyFeedback(f.stored, f.lim, fb, f.clock()); next != nil {
			f.stored = next
		}
		f.upstream()
	})
}

// simulate runs one schedule and returns the fleet as it ends.
func simulate(t *testing.T, seed uint64, bad flaw) *fleet {
	rng := rand.New(rand.NewPCG(seed, 38))
	pick := func(d ...time.Duration) time.Duration { return d[rng.IntN(len(d))] }
	lim := Limits{
		Rate: hayrick.PerTime{N: []int64{1, 3, 10, 100}[rng.IntN(4)], Per: pick(time.Second, 7*time.Second)},
		Timing: Timing{
			Horizon:    pick(250*time.Millisecond, time.Second, 3*time.Second),
			ClockBound: pick(0, 20*time.Millisecond, 500*time.Millisecond, time.Second),
			Lateness:   pick(50*time.Millisecond, 250*time.Millisecond),
		},
	}
	least := MinBurst(lim.Rate, lim.ClockBound, lim.Lateness)
	lim.Burst = []int{1, 2, (least + 1) / 2, least - 1, least, least + 1, least + 5, least + 50}[rng.IntN(8)]
	if err := lim.Validate(); err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, rng: rng, lim: lim, flaw: bad, now: epoch.UnixNano(), faults: map[string]int{}}
	f.crowd = int64(pick(500*time.Millisecond, 2*time.Second, 11*time.Second))
	f.calm = rng.IntN(2) == 0
	for range 1 + rng.IntN(12) {
		f.process(1 + rng.IntN(min(4, lim.MaxTake())))
	}
	if rng.IntN(3) > 0 {
		f.wiper(pick(3*time.Second, 30*time.Second))
	}
	if rng.IntN(2) == 0 {
		f.upstream()
	}
	f.run(40 * time.Second)
	return f
}

// 002-39: in every window, grants <= rate x window + burst, exactly, over
// thousands of schedules of processes that die, stall, hear late, not at all or
// twice, with clocks as wrong as they may be, a store that is wiped, and an
// upstream that throttles.
func TestBoundHoldsInEveryWindow(t *testing.T) {
	schedules := uint64(4000)
	if testing.Short() {
		schedules = 500
	}
	var grants, tight int
	faults := map[string]int{}
	for seed := range schedules {
		f := simulate(t, seed, sound)
		worst, ok := excess(f.lim, f.grants)
		if !ok || t.Failed() {
			t.Fatalf("seed %d, %+v: a window exceeds rate x T by %v", seed, f.lim, worst)
		}
		grants += len(f.grants)
		if worst > float64(f.lim.Burst)-0.5 {
			tight++
		}
		for k, n := range f.faults {
			faults[k] += n
		}
	}
	// The simulation is worth something only when it goes to the limit.
	if tight < int(schedules/20) || len(faults) != 7 {
		t.Errorf("%d schedules reached the bound, with faults %v", tight, faults)
	}
	t.Logf("%d schedules, %d grants, %d within half a token of the bound, faults %v", schedules, grants, tight, faults)
}

// A limiter that is wrong in one point does not pass the same test.
func TestBoundCatchesFlaws(t *testing.T) {
	for _, bad := range []flaw{startsFull, startsNow, forgetsSkew, keepsLate, ignoresSkew, lostUpdate, fullRate} {
		t.Run(string(bad), func(t *testing.T) {
			for seed := range uint64(500) {
				f := simulate(t, seed, bad)
				if worst, ok := excess(f.lim, f.grants); !ok {
					t.Logf("seed %d: rate x T + %.1f with burst %d", seed, worst, f.lim.Burst)
					return
				}
			}
			t.Error("no schedule shows it")
		})
	}
}
