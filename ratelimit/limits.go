package ratelimit

import (
	"errors"
	"fmt"
	"time"

	"hayrick"
)

// Limits is what one bucket obeys: the promise to the upstream (Rate, Burst) and
// what the store and its clocks allow (Timing). A burst that is small for the timing
// costs throughput, never the promise. Everyone who shares a bucket holds
// the same Limits; with different ones the bound is not kept.
type Limits struct {
	Rate  hayrick.PerTime // tokens per time, in the long run
	Burst int             // tokens above Rate x T that any window T may hold
	Idle  time.Duration   // a Store may forget a bucket nobody wrote for so long; 0 = never
	Timing
}

// Timing is how exact the machines around a bucket are.
type Timing struct {
	// Horizon is how far ahead of the store's present a token may fall due. A worker
	// that dies takes at most this much with it, a closed key is quiet after it, and
	// a bucket that was never seen waits for it. More than 3 s wastes too much.
	Horizon time.Duration
	// ClockBound is how far a worker's clock may be from true time, and how far the
	// now of a reservation may be from the moment the store applies it.
	ClockBound time.Duration
	// Lateness is how long after it falls due a token is good at least. It has to
	// cover a round trip to the store and a slow scheduler.
	Lateness time.Duration
}

// OneMachine is the timing of processes that share one clock and one disk.
var OneMachine = Timing{Horizon: 250 * time.Millisecond, Lateness: 100 * time.Millisecond}

// ServiceTime is the timing of machines that take the time from the Date header
// of a service's replies.
var ServiceTime = Timing{Horizon: 3 * time.Second, ClockBound: time.Second, Lateness: 250 * time.Millisecond}

const (
	maxHorizon = 3 * time.Second
	maxSlot    = 24 * time.Hour // the slowest limit is 1/24h
	maxLife    = 24 * time.Hour // no token is good for longer
)

// LimitsOf is the job file's rate under a store's timing, validated.
func LimitsOf(r hayrick.Rate, t Timing) (Limits, error) {
	l := Limits{Rate: r.Limit, Burst: r.Burst, Idle: r.Idle.D(), Timing: t}
	err := l.Validate()
	if bad := (*hayrick.UserError)(nil); errors.As(err, &bad) {
		return Limits{}, &hayrick.UserError{What: "rate " + r.Name + ": " + bad.What, Hint: bad.Hint}
	}
	return l, err
}

// Validate answers a *hayrick.UserError that ends with what to write instead.
func (l Limits) Validate() error {
	switch {
	case l.Rate.N <= 0 || l.Rate.Per <= 0:
		return &hayrick.UserError{What: "a rate needs a limit", Hint: "write limit: 10/s"}
	case l.Rate.N > int64(l.Rate.Per)/int64(time.Microsecond):
		return &hayrick.UserError{What: "a limit above 1000000/s cannot be kept", Hint: "write limit: 1000000/s, or leave the rate out"}
	case l.declared() > int64(maxSlot):
		return &hayrick.UserError{What: "a limit below one a day is not supported", Hint: "write limit: 1/24h"}
	case l.Horizon <= 0 || l.Horizon > maxHorizon || l.ClockBound < 0 || l.Lateness <= 0:
		return fmt.Errorf("timing %+v: the horizon lies in (0, %v], the clock bound is not negative, the lateness is positive", l.Timing, maxHorizon)
	}
	if l.Burst < 1 {
		return &hayrick.UserError{What: "a burst below 1 lets nothing through", Hint: "write burst: 1, or leave it out"}
	}
	return nil
}

// MinBurst is the smallest burst with which the whole of a limit can be used: one
// token, and what the rate lets through while clocks disagree and tokens come late.
func MinBurst(rate hayrick.PerTime, clockBound, lateness time.Duration) int {
	slot := Limits{Rate: rate}.declared()
	return int(1 + (int64(lateness+2*clockBound)+slot-1)/slot)
}

// Usable is the rate at which tokens are given out: the limit's, or what a burst below
// MinBurst leaves of it.
func (l Limits) Usable() float64 { return float64(time.Second) / float64(l.slot()) }

// MaxTake is the most tokens one Take may ask for: what the burst lets through at
// once after idleness.
func (l Limits) MaxTake() int { return int(1 + l.credit()/l.slot()) }

// declared is a slot of the limit in nanoseconds, rounded up so that 1/slot never
// exceeds the rate.
func (l Limits) declared() int64 { return (int64(l.Rate.Per) + l.Rate.N - 1) / l.Rate.N }

// slot is the least distance of two tokens in nanoseconds: the limit's, or so much more
// that a burst of them covers what clocks may differ and tokens may be late.
func (l Limits) slot() int64 {
	declared, burst := l.declared(), int64(l.Burst)
	return max(declared, (int64(l.Lateness+2*l.ClockBound)+declared+burst-1)/burst)
}

// life is how long after its nominal time a token is good, in nanoseconds. It is
// what keeps the bound: see the package comment.
func (l Limits) life() int64 {
	slot, span := l.slot(), int64(maxLife)
	if int64(l.Burst) <= 2*span/slot {
		span = min(span, int64(l.Burst)*slot-l.declared())
	}
	return span - 2*int64(l.ClockBound)
}

// credit is how far back the slots of an idle bucket may be taken up, in
// nanoseconds: what life leaves when the least lateness is set aside.
func (l Limits) credit() int64 { return l.life() - int64(l.Lateness) }
