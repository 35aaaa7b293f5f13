package durable

import (
	"sync"
	"time"
)

// barrier makes durable what its callers have done, together where that is
// cheaper: n callers that wait at the same time share one sync of the whole file
// system instead of n fsyncs, each of which would end a transaction of the file
// system's journal. With 64 callers that is several times as many files a second.
//
// A sync of the whole file system also writes what other programs have not yet
// written, which can take seconds. So its cost is watched, and while it is above
// that of n fsyncs, everybody fsyncs for himself.
type barrier struct {
	// whole syncs the file system; nil where that cannot be relied on.
	whole func() error
	now   func() time.Time

	mu      sync.Mutex
	next    *round        // guarded by mu: may be joined, has not begun
	running chan struct{} // guarded by mu: closed when the round under way ends; nil = none

	wholeCost time.Duration // guarded by mu: of the last sync, fading while none is tried
	ownCost   time.Duration // guarded by mu: of one caller's fsyncs, smoothed
}

// round is a set of callers all of whom did what they want durable before it
// began.
type round struct {
	n      int           // guarded by barrier.mu
	begun  chan struct{} // closed when it is known who syncs
	shared bool          // one sync for all was made and went well
}

// sync returns when everything the caller did before the call is durable: by own,
// which fsyncs just that, or by one sync for all. It says which.
func (b *barrier) sync(own func() error) (all bool, err error) {
	if b.whole == nil {
		return false, own()
	}
	b.mu.Lock()
	r := b.next
	if r != nil {
		r.n++
		b.mu.Unlock()
		<-r.begun
		if r.shared {
			return true, nil
		}
		return false, own()
	}
	r = &round{n: 1, begun: make(chan struct{})}
	for b.running != nil { // meanwhile others join
		b.next = r
		before := b.running
		b.mu.Unlock()
		<-before
		b.mu.Lock()
	}
	b.next = nil
	n := r.n
	together := n > 1 && b.wholeCost <= time.Duration(n)*b.ownCost
	end := make(chan struct{})
	if n > 1 && !together {
		b.wholeCost -= b.wholeCost / 64 // to be tried again some day
		close(r.begun)                  // all at the same time, and nobody waits for them
	} else {
		b.running = end
	}
	b.mu.Unlock()

	start := b.now()
	if together {
		r.shared = b.whole() == nil // else each asks for his own, and hears what is wrong with it
		close(r.begun)
	} else {
		err = own()
	}
	took := b.now().Sub(start)

	b.mu.Lock()
	switch {
	case together:
		b.wholeCost = took
	case b.ownCost == 0:
		b.ownCost = took
	default:
		b.ownCost += (took - b.ownCost) / 8
	}
	if b.running == end {
		b.running = nil
	}
	b.mu.Unlock()
	close(end)
	if together && !r.shared {
		return false, own()
	}
	return r.shared, err
}
