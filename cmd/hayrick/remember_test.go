package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"hayrick"
	"hayrick/manifest"
)

// kept are objects that count how often each was asked for.
type kept struct {
	manifest.Objects
	there map[string]string
	asked map[string]int
}

func (k kept) Open(_ context.Context, key string, offset, _ int64) (io.ReadCloser, error) {
	k.asked[key]++
	body, ok := k.there[key]
	if !ok {
		return nil, hayrick.ErrNotFound
	}
	return io.NopCloser(strings.NewReader(body[offset:])), nil
}

// What never changes is read once, when it is there; all else each time.
func TestRemembered(t *testing.T) {
	job := manifest.Job("job-20261120-abcdef")
	k := kept{there: map[string]string{}, asked: map[string]int{}}
	never := []string{job.Plan(), job.Config("1f0c22aa41b7"), job.Control(0), job.RetryPlan(1), job.AggregationPlan(0), job.Outcome(0)}
	changing := []string{
		job.Manifest(), job.RetryManifest(1), job.AggregationManifest(), job.Done("task-0001"), job.TaskManifest("task-0001"), job.Part(0, 0, "aa"),
		job.RetryList(1, "permanent", "aa"), job.AggregationInputs(0, "aa"), job.List(0, "exhausted", "aa"), "elsewhere/plan.json",
	}
	r := remember(k)
	read := func(key string, length int64) string {
		t.Helper()
		body, err := r.Open(t.Context(), key, 0, length)
		if errors.Is(err, hayrick.ErrNotFound) {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(body); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for _, key := range append(never, changing...) {
		if got := read(key, -1); got != "" {
			t.Errorf("%s is %q", key, got)
		}
		k.there[key] = "of " + key
		for range 3 {
			if got := read(key, manifest.MaxRecordBytes+1); got != "of "+key {
				t.Errorf("%s is %q", key, got)
			}
		}
	}
	for _, key := range never {
		if k.asked[key] != 2 {
			t.Errorf("%s was asked for %d times, want 2: while it was not there, and once", key, k.asked[key])
		}
	}
	for _, key := range changing {
		if k.asked[key] != 4 {
			t.Errorf("%s was asked for %d times, want 4", key, k.asked[key])
		}
	}
}
