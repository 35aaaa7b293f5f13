package ratelimit

import (
	"encoding/json"
	"time"
)

// State is a bucket as the store keeps it; times are nanoseconds since 1970. The
// zero State is a bucket that is missing.
type State struct {
	Last  int64 `json:"last"`            // nominal time of the newest slot given out
	Open  int64 `json:"open,omitempty"`  // the key is closed before this
	Share int64 `json:"share"`           // thousandths of the limit in force at Since
	Since int64 `json:"since,omitempty"` // since when no throttle disturbs the recovery
	Cut   int64 `json:"cut,omitempty"`   // when Share was last halved
}

// Ask is one process's wish for a lot of tokens.
type Ask struct {
	N       int           // tokens that somebody waits for
	Min     int           // fewer are of no use; at least 1
	Patient bool          // rather none than less than half a lot
	Lead    time.Duration // how long the answer is expected to take
}

// Grant is the answer. Token i of Count has the nominal time First + i*Every: it
// is used not before that and thrown away when its life is over. With Count 0
// nothing was reserved. Before RetryAt no lot will fit the horizon.
type Grant struct {
	First   time.Time
	Every   time.Duration
	Count   int
	RetryAt time.Time
	Closed  bool // RetryAt is when the key opens: tokens in hand must wait for it too
}

// Feedback is what an upstream's reply says about a limit.
type Feedback struct {
	Throttled  bool          // 429, or 503 with Retry-After
	RetryAfter time.Duration // 0 = unknown
}

const (
	maxLot  = 64          // tokens a reservation takes at most
	lotSpan = time.Second // ... and how far beyond now they reach

	full          = 1000 // Share of a bucket that is not throttled
	minShare      = 10
	recoverShare  = 50 // regained every recoverEvery without a throttle
	recoverEvery  = 10 * time.Second
	upstreamTrip  = time.Second    // a reply may be about a request this old
	maxRetryAfter = 24 * time.Hour // longer is taken for a mistake of the upstream
)

// Reserve gives out the next slots of a bucket, as many of ask.N as one lot and
// the horizon hold, or none when that is too few for the ask. Slots are given out
// once: every nominal time is at least a slot after the one before it, whoever
// asks, whatever their clocks say.
func Reserve(s State, lim Limits, ask Ask, now time.Time) (State, Grant) {
	t := now.UnixNano()
	if s == (State{}) {
		s = empty(lim, t)
	}
	if t < s.Open {
		return s, Grant{RetryAt: time.Unix(0, s.Open), Closed: true}
	}
	slot, horizon := s.slot(lim, t), int64(lim.Horizon)
	// What an idle bucket earned is taken up, but not so old that it would be dead on
	// arrival, and nothing is earned while the key is closed.
	first := max(s.Last+slot, t+int64(ask.Lead)-lim.credit(), s.Open)
	span := min(int64(lotSpan), horizon/2)
	next := lot(ask, slot, span)                // of an ask like this one that is not due yet
	fits := (t + horizon - first + slot) / slot // slots in [first, t+horizon]
	need := max(1, int64(ask.Min))
	if ask.Patient {
		need = max(need, (next+1)/2)
	}
	if fits < need {
		return s, Grant{RetryAt: time.Unix(0, first+(next-1)*slot-horizon)}
	}
	n := min(fits, lot(ask, slot, span+max(0, t-first)))
	s.Last = first + (n-1)*slot
	return s, Grant{
		First:   time.Unix(0, first),
		Every:   time.Duration(slot),
		Count:   int(n),
		RetryAt: time.Unix(0, s.Last+next*slot-horizon),
	}
}

// Obey takes note of a throttle. Retry-After closes the key: no reservation
// succeeds from this write on until it has passed, by anybody's clock; what was
// reserved before falls due within the horizon. The rate is halved, once for all
// the replies to requests of the old rate, and grows back to the limit.
func Obey(s State, lim Limits, fb Feedback, now time.Time) State {
	if !fb.Throttled {
		return s
	}
	t := now.UnixNano()
	if s == (State{}) {
		s = empty(lim, t)
	}
	s.Share = s.share(t)
	if t >= s.Cut+int64(lim.Horizon+lim.Lateness+2*lim.ClockBound+upstreamTrip) {
		s.Share, s.Cut = max(minShare, s.Share/2), t
	}
	if after := min(fb.RetryAfter, maxRetryAfter); after > 0 {
		s.Open = max(s.Open, t+int64(after+2*lim.ClockBound))
	}
	s.Since = max(t, s.Open)
	return s
}

// ApplyReserve is Reserve on stored bytes; nil means that the bucket is missing.
// The bytes to write back are nil when nothing changes. Bytes that cannot be read
// count as missing, which is safe: a missing bucket starts empty.
func ApplyReserve(stored []byte, lim Limits, ask Ask, now time.Time) ([]byte, Grant) {
	old := decode(stored)
	s, g := Reserve(old, lim, ask, now)
	if s == old {
		return nil, g
	}
	return encode(s), g
}

// ApplyFeedback is Obey on stored bytes, as ApplyReserve is Reserve.
func ApplyFeedback(stored []byte, lim Limits, fb Feedback, now time.Time) []byte {
	old := decode(stored)
	s := Obey(old, lim, fb, now)
	if s == old {
		return nil
	}
	return encode(s)
}

// empty is the first state of a bucket that nobody knows, be it new or wiped. Any
// token of before, given out by a clock that is ahead, lies within one horizon of
// it; the first slot comes after all of them even by a clock that is behind.
func empty(lim Limits, t int64) State {
	return State{Last: t + int64(lim.Horizon+2*lim.ClockBound), Share: full}
}

// share is what the rate has recovered to at t, in thousandths of the limit.
func (s State) share(t int64) int64 {
	if s.Share >= full {
		return full
	}
	steps := max(0, t-s.Since) / int64(recoverEvery)
	return max(minShare, min(full, s.Share+recoverShare*min(steps, full)))
}

// slot is the distance of two tokens at t: the limit's, or wider while throttled.
func (s State) slot(lim Limits, t int64) int64 {
	share := s.share(t)
	return (lim.slot()*full + share - 1) / share
}

// lot is how many tokens one reservation takes when it may span so many
// nanoseconds: those of an idle time, and beyond them so few that a crash loses
// little and that the next lot fits the horizon before this one is used up.
func lot(ask Ask, slot, span int64) int64 {
	return max(1, int64(ask.Min), min(int64(ask.N), maxLot, span/slot))
}

func decode(b []byte) State {
	var s State
	if json.Unmarshal(b, &s) != nil {
		return State{}
	}
	return s
}

func encode(s State) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic("ratelimit: five integers have no JSON form: " + err.Error())
	}
	return b
}
