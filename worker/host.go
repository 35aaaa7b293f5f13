package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"hayrick"
	"hayrick/jobs"
)

// host is the worker as one try of an item sees it. A handler that keeps it after
// its try has ended does no harm: its metrics go nowhere once the task is
// committed, and its waits end at once.
type host struct {
	a    *attemptRun
	ctx  context.Context // of the try
	item *item           // nil for the task as a whole
	at   int             // its place in the batch
	try  *tried
}

var _ jobs.Host = (*host)(nil)

// takeAuto takes one token of every rate whose key comes from the item, in the
// order of the job file, before the item is handed out.
func (h *host) takeAuto(ctx context.Context) error {
	for i, r := range h.a.auto {
		if err := h.take(ctx, r, h.item.rateKeys[i], 1); err != nil {
			return err
		}
	}
	return nil
}

// feedbackAuto tells those buckets that the upstream throttled.
func (h *host) feedbackAuto(ctx context.Context, retryAfter time.Duration) {
	for i, r := range h.a.auto {
		if r.Learn {
			h.a.w.Limiter.Feedback(ctx, h.a.ref.JobID, r, h.item.rateKeys[i], retryAfter)
		}
	}
}

func (h *host) take(ctx context.Context, r hayrick.Rate, key string, n int) error {
	waited, err := h.a.w.Limiter.Take(ctx, h.a.ref.JobID, r, key, n)
	if waited > 0 {
		h.Add("rate_wait_ms", waited.Milliseconds())
	}
	if err != nil {
		return fmt.Errorf("take a token of rates.%s %s: %w", r.Name, key, err)
	}
	return nil
}

// Need is jobs.Host.
func (h *host) Need(ctx context.Context, rate, key string, n int) error {
	r, ok := h.a.job.Definition.Rate(rate)
	if !ok {
		return &hayrick.UserError{
			What: fmt.Sprintf("the handler asks for rate %q, which the job file does not have", rate),
			Hint: "add it under rates:",
		}
	}
	return h.take(ctx, r, key, n)
}

// Feedback is jobs.Host.
func (h *host) Feedback(rate, key string, f jobs.Feedback) {
	if r, ok := h.a.job.Definition.Rate(rate); ok && r.Learn && f.Throttled {
		h.a.w.Limiter.Feedback(h.ctx, h.a.ref.JobID, r, key, f.RetryAfter)
	}
}

// Add is jobs.Host.
func (h *host) Add(metric string, n int64) {
	h.a.metrics.change(metric, func(old int64, _ bool) int64 { return old + n })
}

// Set is jobs.Host.
func (h *host) Set(metric string, n int64) {
	h.a.metrics.change(metric, func(int64, bool) int64 { return n })
}

// Observe is jobs.Host.
func (h *host) Observe(metric string, n int64) {
	h.Add(metric+"_count", 1)
	h.Add(metric+"_sum", n)
	h.a.metrics.change(metric+"_max", func(old int64, there bool) int64 {
		if there {
			return max(old, n)
		}
		return n
	})
}

// Beat is jobs.Host.
func (h *host) Beat(done, of int64) {
	if h.item != nil {
		h.a.update(func() { h.item.beat = [2]int64{done, of} })
	}
}

// Mark is jobs.Host.
func (h *host) Mark(cursor json.RawMessage) error {
	switch {
	case h.item == nil:
		return errors.New("a mark belongs to an item")
	case len(cursor) > jobs.MaxCursor:
		return fmt.Errorf("a cursor of %d bytes, the limit is %d", len(cursor), jobs.MaxCursor)
	case !json.Valid(cursor):
		return errors.New("a cursor is one JSON value")
	}
	body, count, ok := h.try.sofar()
	if !ok {
		return errOver
	}
	return h.a.mark(h.at, cursor, body, count)
}

// Log is jobs.Host.
func (h *host) Log(text string) {
	l := jobs.LogLine{Text: text}
	if h.item != nil {
		l.Items = []int64{h.item.number}
	}
	h.a.keepLine(l)
}

// metrics are the numbers of one attempt.
type metrics struct {
	mu sync.Mutex
	of map[string]int64
}

// maxMetrics bounds the metrics of one task.
const maxMetrics = 64

func (m *metrics) change(name string, f func(old int64, there bool) int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, there := m.of[name]
	if !there && len(m.of) >= maxMetrics {
		return
	}
	if m.of == nil {
		m.of = map[string]int64{}
	}
	m.of[name] = f(old, there)
}

// sum is what there is so far, a map of its own.
func (m *metrics) sum() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]int64, len(m.of))
	maps.Copy(out, m.of)
	return out
}
