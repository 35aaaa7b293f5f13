package main

import (
	"context"
	"maps"
	"sync"
	"time"

	"hayrick"
	"hayrick/worker"
)

// meter is a limiter that counts what it grants, for progress.
type meter struct {
	worker.Limiter

	mu      sync.Mutex
	granted map[string]int64 // tokens so far, by the rate's name
}

// Take is worker.Limiter.
func (m *meter) Take(ctx context.Context, jobID string, r hayrick.Rate, key string, n int) (time.Duration, error) {
	waited, err := m.Limiter.Take(ctx, jobID, r, key, n)
	if err == nil {
		m.mu.Lock()
		m.granted[r.Name] += int64(n)
		m.mu.Unlock()
	}
	return waited, err
}

func (m *meter) grants() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.granted)
}
