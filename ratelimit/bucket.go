package ratelimit

import (
	"container/list"
	"context"
	"math"
	"slices"
	"time"
)

const (
	never    = int64(math.MaxInt64)
	patience = 4                    // misses after which less than half a lot will do
	askEarly = 5 * time.Millisecond // for the next lot to be there when this one is used up
)

// bucket is what one process knows of one key: who waits, and which tokens are in
// hand. Times are nanoseconds since 1970. Limiter.mu guards it.
type bucket struct {
	key     string
	lim     Limits
	waiting list.List // of *waiter, in the order they are served
	wanted  int       // tokens they want together
	tokens  []int64   // nominal times in hand, ascending

	asking    bool // a reservation is under way
	cancelAsk context.CancelFunc
	askAt     int64 // asking earlier is useless
	misses    int   // asks that brought nothing, halved by one that did
	short     bool  // somebody has no token, and it was seen
	crowded   int64 // until then it is likely that others want the bucket too
	alarm     *alarm
	usedAt    int64

	notBefore int64 // the key is closed before this
	reported  int64 // ... and the store knows that it is before this
}

// waiter is one Take in line. ready is closed when it has left the line with
// tokens or with err; these are written before.
type waiter struct {
	cost     int
	deadline int64
	place    *list.Element // nil when it is not in line
	ready    chan struct{}
	tokens   []int64
	expires  int64 // the tokens are late after this
	err      error
}

// alarm is a sleeping goroutine that will pump its bucket.
type alarm struct {
	at     int64
	cancel context.CancelFunc
}

// serve gives due tokens to the head of the line, throws away those that are late
// or of a time when the key is closed, and returns when the next one falls due.
func (b *bucket) serve(now int64) (wake int64) {
	for life := b.lim.life(); ; {
		for len(b.tokens) > 0 && (b.tokens[0]+life < now || b.tokens[0] < b.notBefore) {
			b.tokens = b.tokens[1:]
		}
		if b.waiting.Len() == 0 {
			return never
		}
		w := b.waiting.Front().Value.(*waiter)
		if len(b.tokens) < w.cost {
			return never
		}
		due := b.tokens[w.cost-1]
		if b.tokens[0]+life < due {
			b.tokens = b.tokens[1:] // too far from the others to be used with them
			continue
		}
		if due > now {
			return due
		}
		w.tokens, b.tokens = b.tokens[:w.cost:w.cost], b.tokens[w.cost:]
		w.expires = w.tokens[0] + life
		b.release(w, nil)
	}
}

// worthAsking is when to ask for short tokens more. While most of the line has
// tokens that are yet to fall due, those who joined since can wait until they are
// many, or until the last of these is near: what they would get comes after it.
func (b *bucket) worthAsking(short int, lead time.Duration) int64 {
	at := max(b.askAt, b.notBefore)
	if n := len(b.tokens); short < n {
		at = max(at, b.tokens[n-1]-2*int64(lead)-int64(askEarly))
	}
	return at
}

// ask is what to ask the store for when the line is short of tokens.
func (b *bucket) ask(short int, lead time.Duration) Ask {
	head := b.waiting.Front().Value.(*waiter)
	return Ask{N: short, Min: max(1, head.cost-len(b.tokens)), Patient: b.misses < patience, Lead: lead}
}

// add takes a lot in hand.
func (b *bucket) add(g Grant) {
	b.tokens = slices.Grow(b.tokens, g.Count)
	for i := range g.Count {
		b.tokens = append(b.tokens, g.First.UnixNano()+int64(i)*int64(g.Every))
	}
}

// giveBack takes tokens in hand again.
func (b *bucket) giveBack(tokens []int64) {
	if len(tokens) > 0 {
		b.tokens = append(tokens, b.tokens...)
		slices.Sort(b.tokens)
	}
}

// release lets w go from the line.
func (b *bucket) release(w *waiter, err error) {
	b.waiting.Remove(w.place)
	w.place, w.err = nil, err
	b.wanted -= w.cost
	close(w.ready)
}

// fail lets everyone go with err.
func (b *bucket) fail(err error) {
	for b.waiting.Len() > 0 {
		b.release(b.waiting.Front().Value.(*waiter), err)
	}
}

// stop ends what runs for the bucket.
func (b *bucket) stop() {
	b.stopAlarm()
	if b.asking {
		b.cancelAsk()
	}
}

func (b *bucket) stopAlarm() {
	if b.alarm != nil {
		b.alarm.cancel()
		b.alarm = nil
	}
}

// idle says that forgetting the bucket loses nothing.
func (b *bucket) idle(now int64) bool {
	known := max(b.notBefore, b.askAt, b.reported+int64(reportGrain), b.usedAt+int64(b.lim.Horizon))
	if n := len(b.tokens); n > 0 {
		known = max(known, b.tokens[n-1]+b.lim.life())
	}
	return b.waiting.Len() == 0 && !b.asking && known < now
}
