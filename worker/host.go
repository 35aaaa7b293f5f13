package worker

import (
	"context"
	"fmt"
	"time"

	"hayrick"
	"hayrick/jobs"
)

// host is the worker as one item's handler sees it.
type host struct {
	a    *attemptRun
	ctx  context.Context
	item *item
}

var _ jobs.Host = (*host)(nil)

// takeAuto takes one token of every rate whose key comes from the item, in the
// order of the job file, before the item is handed out.
func (h *host) takeAuto() error {
	for _, r := range h.a.job.Definition.Rates {
		if !r.Auto {
			continue
		}
		key, err := RateKey(r.Key, h.item.fields)
		if err != nil {
			return fmt.Errorf("rates.%s: %w", r.Name, err)
		}
		if err := h.take(h.ctx, r, key, 1); err != nil {
			return err
		}
	}
	return nil
}

// feedbackAuto tells those buckets that the upstream throttled.
func (h *host) feedbackAuto(retryAfter time.Duration) {
	for _, r := range h.a.job.Definition.Rates {
		if !r.Auto || !r.Learn {
			continue
		}
		if key, err := RateKey(r.Key, h.item.fields); err == nil {
			h.a.w.Limiter.Feedback(h.ctx, h.a.ref.JobID, r, key, retryAfter)
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
	h.a.mu.Lock()
	defer h.a.mu.Unlock()
	if _, ok := h.a.metrics[metric]; !ok && len(h.a.metrics) >= maxMetrics {
		return
	}
	h.a.metrics[metric] += n
}

// maxMetrics bounds the metrics of one task.
const maxMetrics = 64
