package mem

import (
	"container/heap"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"hayrick"
)

// message is one queued message; it stays in the heap while it is in flight, with
// the time at which it becomes visible again.
type message struct {
	hayrick.Message
	id       int64
	visible  time.Time
	receives int
	actor    string // who has it in flight
	at       int    // its index in the heap
}

// queue is a heap of messages by (visible, id).
type queue struct {
	heap  []*message
	byID  map[int64]*message
	byJob map[string]int
}

func (q *queue) Len() int { return len(q.heap) }
func (q *queue) Less(i, j int) bool {
	a, b := q.heap[i], q.heap[j]
	if !a.visible.Equal(b.visible) {
		return a.visible.Before(b.visible)
	}
	return a.id < b.id
}
func (q *queue) Swap(i, j int) {
	q.heap[i], q.heap[j] = q.heap[j], q.heap[i]
	q.heap[i].at, q.heap[j].at = i, j
}
func (q *queue) Push(x any) {
	m := x.(*message)
	m.at = len(q.heap)
	q.heap = append(q.heap, m)
}
func (q *queue) Pop() any {
	m := q.heap[len(q.heap)-1]
	q.heap[len(q.heap)-1] = nil
	q.heap = q.heap[:len(q.heap)-1]
	return m
}

func (q *queue) add(m *message) {
	heap.Push(q, m)
	q.byID[m.id] = m
	q.byJob[m.JobID]++
}

func (q *queue) remove(m *message) {
	heap.Remove(q, m.at)
	delete(q.byID, m.id)
	q.byJob[m.JobID]--
}

func (q *queue) show(m *message, at time.Time) {
	m.visible = at
	heap.Fix(q, m.at)
}

// release shows at once what actor has in flight.
func (q *queue) release(actor string, now time.Time) {
	for _, m := range q.byID { // the heap orders by id what is visible at the same time
		if m.actor == actor && m.visible.After(now) {
			m.actor = ""
			q.show(m, now)
		}
	}
}

// queue needs s.mu.
func (s *Store) queue(name string) *queue {
	q := s.queues[name]
	if q == nil {
		q = &queue{byID: map[int64]*message{}, byJob: map[string]int{}}
		s.queues[name] = q
	}
	return q
}

// Send enqueues messages.
func (s *Store) Send(ctx context.Context, name string, msgs ...hayrick.Outgoing) error {
	return give(ctx, s, "Queue", "Send", name, msgs, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		now := s.now()
		for _, m := range msgs {
			s.lastMessage++
			if s.KeepSent {
				s.sent[name] = append(s.sent[name], m.Message)
			}
			s.queue(name).add(&message{Message: m.Message, id: s.lastMessage, visible: now.Add(m.Delay)})
		}
		return nil
	})
}

// Receive delivers up to max messages, the longest visible first, and waits up to
// wait for the first. A message that was delivered hayrick.MaxReceives times moves to the
// dead queue instead.
func (s *Store) Receive(ctx context.Context, name string, max int, visibility, wait time.Duration) ([]hayrick.Delivery, error) {
	return do(ctx, s, "Queue", "Receive", name, func() ([]hayrick.Delivery, error) {
		poll := s.Poll
		if poll <= 0 {
			poll = 20 * time.Millisecond
		}
		for end := s.now().Add(wait); ; {
			if ds := s.receive(name, max, visibility, s.who(ctx)); len(ds) > 0 {
				return ds, nil
			}
			left := end.Sub(s.now())
			if left <= 0 {
				return nil, nil
			}
			if err := s.clock.Sleep(ctx, min(poll, left)); err != nil {
				return nil, err
			}
		}
	})
}

func (s *Store) receive(name string, max int, visibility time.Duration, actor string) []hayrick.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	q := s.queue(name)
	var taken []*message
	for len(taken) < max && len(q.heap) > 0 && !q.heap[0].visible.After(now) {
		m := q.heap[0]
		q.remove(m)
		if m.receives == hayrick.MaxReceives && name != hayrick.QueueDead {
			m.receives, m.actor = 0, ""
			s.queue(hayrick.QueueDead).add(m)
			continue
		}
		taken = append(taken, m)
	}
	var out []hayrick.Delivery
	for _, m := range taken { // put back only now, lest one that stays visible is found again
		m.receives++
		m.visible, m.actor = now.Add(visibility), actor
		q.add(m)
		out = append(out, hayrick.Delivery{Message: m.Message, Receipt: receipt(m), Count: m.receives})
	}
	return out
}

// Ack removes deliveries.
func (s *Store) Ack(ctx context.Context, name string, ds ...hayrick.Delivery) error {
	return give(ctx, s, "Queue", "Ack", name, ds, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		q := s.queue(name)
		for _, d := range ds {
			id, _ := parseReceipt(d.Receipt)
			if m := q.byID[id]; m != nil {
				q.remove(m)
			}
		}
		return nil
	})
}

// Extend hides deliveries for visibility from now. A delivery that was followed
// by another one of the same message is left alone.
func (s *Store) Extend(ctx context.Context, name string, visibility time.Duration, ds ...hayrick.Delivery) error {
	return run(ctx, s, "Queue", "Extend", name, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		q, now := s.queue(name), s.now()
		for _, d := range ds {
			id, count := parseReceipt(d.Receipt)
			if m := q.byID[id]; m != nil && m.receives == count {
				q.show(m, now.Add(visibility))
			}
		}
		return nil
	})
}

// Depth counts the messages of a job, waiting, delayed and in flight.
func (s *Store) Depth(ctx context.Context, name, jobID string) (hayrick.Depth, error) {
	return do(ctx, s, "Queue", "Depth", name, func() (hayrick.Depth, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		q := s.queue(name)
		if s.OneDepth {
			return hayrick.Depth{Messages: len(q.heap)}, nil
		}
		return hayrick.Depth{Messages: q.byJob[jobID], Exact: true}, nil
	})
}

func receipt(m *message) string {
	return strconv.FormatInt(m.id, 10) + "." + strconv.Itoa(m.receives)
}

func parseReceipt(r string) (id int64, count int) {
	a, b, _ := strings.Cut(r, ".")
	id, _ = strconv.ParseInt(a, 10, 64)
	count, _ = strconv.Atoi(b)
	return id, count
}

// Sent are all messages that were ever sent to a queue, in order, where KeepSent says so.
func (s *Store) Sent(name string) []hayrick.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent[name])
}
