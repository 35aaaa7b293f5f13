package retryplanner

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"time"

	"hayrick"
	"hayrick/manifest"
)

const (
	// sparePasses is how many groups beyond retry.passes a generation may run for the
	// sake of items that failed through no fault of their own.
	sparePasses = 3
	// maxClasses bounds the classes that a plan counts one by one: a handler that puts
	// an id into its class must not make a plan too large to be read.
	maxClasses = 1000
	// otherClasses counts the classes beyond that.
	otherClasses = "other_classes"
)

// policy is what a decision depends on besides the failure.
type policy struct {
	retry hayrick.Retry
	// groups is how many retry groups the generation has run so far.
	groups int
}

// failed is one item that did not end ok: what its task says of it, and what its
// failures in earlier groups were.
type failed struct {
	manifest.FailureLine
	classes []string
	infra   int // how many of classes cost no try
}

// verdict is what becomes of a failed item.
type verdict string

const (
	retry     verdict = "retry"
	permanent verdict = "permanent"
	exhausted verdict = "exhausted"
)

// disposition is the worker's word, which stands in the commit; without one the
// class decides.
func (f failed) disposition(r hayrick.Retry) hayrick.Disposition {
	if f.Disposition != "" {
		return hayrick.Disposition(f.Disposition)
	}
	return r.DispositionOf(f.Class, "")
}

// decide says what becomes of an item, and why.
func (p policy) decide(f failed) (v verdict, because string) {
	d := f.disposition(p.retry)
	if d.Final() {
		return permanent, f.Class
	}
	charged := len(f.classes) - f.infra
	if d != hayrick.Infra {
		charged++
	}
	switch {
	case charged > p.retry.Passes:
		return exhausted, fmt.Sprintf("%s: failed in %d groups, retry.passes is %d", f.Class, charged, p.retry.Passes)
	case p.groups >= p.retry.Passes+sparePasses:
		return exhausted, fmt.Sprintf("%s: %d retry groups have run, retry.passes is %d", f.Class, p.groups, p.retry.Passes)
	}
	return retry, f.Class
}

// Fate is decide for who has no batch to read, as the model of sim/model: what becomes of
// an item after groups retry groups, which failed with classes before, infra of them at no
// cost.
func Fate(r hayrick.Retry, groups int, last manifest.FailureLine, classes []string, infra int) string {
	v, _ := policy{retry: r, groups: groups}.decide(failed{FailureLine: last, classes: classes, infra: infra})
	return string(v)
}

// again is the line of the next segment for an item to retry. Its classes are at
// most as many as there have been groups, passes + 3.
func (p policy) again(f failed, record []byte) manifest.RetryItem {
	it := manifest.RetryItem{Ordinal: f.Ordinal, Item: record, Tries: f.Tries, Losses: f.Losses, Infra: f.infra}
	it.Classes = append(append(it.Classes, f.classes...), f.Class)
	if f.disposition(p.retry) == hayrick.Infra {
		it.Infra++
	}
	return it
}

// notBefore is the earliest start of a group: full jitter below an exponential
// bound, and no earlier than the longest Retry-After of its items, which
// retry.backoff.max caps. The jitter comes from (job, group), so that every planner
// of the group finds the same.
func (p policy) notBefore(now time.Time, jobID, group string, retryAfter time.Duration) time.Time {
	most := p.retry.Backoff.Max.D()
	bound := min(p.retry.Backoff.Initial.D(), most)
	for i := 0; i < p.groups && bound < most; i++ {
		bound = min(2*bound, most)
	}
	h := sha256.Sum256([]byte(jobID + "\x00" + group))
	jitter, _ := bits.Mul64(binary.BigEndian.Uint64(h[:8]), uint64(bound)) // bound x [0,1)
	return now.Add(max(time.Duration(jitter), min(retryAfter, most)))
}

// tally is the sum of a closed group.
type tally struct {
	items      int64            // to be retried
	errorTypes map[string]int64 // likewise, by class
	retryAfter time.Duration    // the longest, likewise
	tasks      int64            // with an item to be retried
	permanent  int64
	exhausted  int64
	last       int64 // the highest ordinal so far
}

func newTally() tally { return tally{errorTypes: map[string]int64{}, last: -1} }

// add counts one failed item. Items come in ordinal order, each once: one that comes
// out of order is in two batches, and the promise is broken.
func (t *tally) add(f failed, v verdict) error {
	if f.Ordinal <= t.last {
		return fmt.Errorf("item %d follows item %d: %w", f.Ordinal, t.last, hayrick.ErrCorrupt)
	}
	t.last = f.Ordinal
	switch v {
	case retry:
		t.items++
		class := f.Class
		if _, ok := t.errorTypes[class]; !ok && len(t.errorTypes) >= maxClasses {
			class = otherClasses
		}
		t.errorTypes[class]++
		ms := min(f.RetryAfterMS, math.MaxInt64/int64(time.Millisecond))
		t.retryAfter = max(t.retryAfter, time.Duration(ms)*time.Millisecond)
	case permanent:
		t.permanent++
	case exhausted:
		t.exhausted++
	}
	return nil
}

// whole turns the items of a batch that could not run into failures: infra, one
// more loss each, no try charged.
func whole(items []manifest.BatchItem, label func(manifest.BatchItem) string, e *manifest.TaskError) []failed {
	why := manifest.TaskError{Class: hayrick.ClassBatchFailed, Message: "the batch could not run"}
	if e != nil {
		why.Message = e.Message
		if e.Class != "" {
			why.Class = e.Class
		}
	}
	out := make([]failed, len(items))
	for i, it := range items {
		out[i] = failed{
			FailureLine: manifest.FailureLine{
				Ordinal: it.Ordinal, Key: label(it), Class: why.Class, Disposition: string(hayrick.Infra),
				Message: why.Message, Tries: it.Tries, Losses: it.Losses + 1,
			},
			classes: it.Classes, infra: it.Infra,
		}
	}
	return out
}
