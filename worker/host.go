package worker

import (
	"context"
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
	item *item
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
func (h *host) Add(metric string, n int64) { h.a.metrics.add(metric, n) }

// metrics are the numbers of one attempt.
type metrics struct {
	mu sync.Mutex
	of map[string]int64
}

// maxMetrics bounds the metrics of one task.
const maxMetrics = 64

func (m *metrics) add(name string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.of[name]; !ok && len(m.of) >= maxMetrics {
		return
	}
	if m.of == nil {
		m.of = map[string]int64{}
	}
	m.of[name] += n
}

// sum is what there is so far, a map of its own.
func (m *metrics) sum() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]int64, len(m.of))
	maps.Copy(out, m.of)
	return out
}
