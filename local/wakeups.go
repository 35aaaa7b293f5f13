package local

import (
	"context"
	"sync"
	"time"
)

// wakeups ends the waits of this process's receivers.
type wakeups struct {
	mu      sync.Mutex
	waiting map[string]map[*waiter]struct{} // guarded by mu: who was not woken yet
}

type waiter struct{ end context.CancelFunc }

// wait returns a context that ends when something is sent to queue. leave gives it
// up, and says whether it had been woken.
func (w *wakeups) wait(ctx context.Context, queue string) (woken context.Context, leave func() bool) {
	woken, end := context.WithCancel(ctx)
	me := &waiter{end}
	w.mu.Lock()
	if w.waiting == nil {
		w.waiting = map[string]map[*waiter]struct{}{}
	}
	if w.waiting[queue] == nil {
		w.waiting[queue] = map[*waiter]struct{}{}
	}
	w.waiting[queue][me] = struct{}{}
	w.mu.Unlock()
	return woken, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		_, asleep := w.waiting[queue][me]
		delete(w.waiting[queue], me)
		end()
		return !asleep
	}
}

// wake ends n waits for queue, whosever.
func (w *wakeups) wake(queue string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for me := range w.waiting[queue] {
		if n--; n < 0 {
			return
		}
		me.end()
		delete(w.waiting[queue], me)
	}
}

// queuesSeen remembers what the last look at each queue found.
type queuesSeen struct {
	mu    sync.Mutex
	full  map[string]bool // guarded by mu
	swept time.Time       // guarded by mu: when the dead were looked for
}

// busy says that the last look found something.
func (q *queuesSeen) busy(queue string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.full[queue]
}

func (q *queuesSeen) set(queue string, found bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.full == nil {
		q.full = map[string]bool{}
	}
	q.full[queue] = found
}

// sweepDue says, to one caller every sweepEvery, that it is time to look.
func (q *queuesSeen) sweepDue(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.swept) < sweepEvery {
		return false
	}
	q.swept = now
	return true
}
