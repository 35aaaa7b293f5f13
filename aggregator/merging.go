package aggregator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// merging is what the merges of a generation share: commits, which never change, so
// that they are read once and not by each of thousands of merges.
type merging struct {
	*jobOf
	store   *manifest.Store
	plan    manifest.AggregationPlan
	members *manifest.Members // level 1
	ranges  *manifest.Members // level 2; nil when there is none
	schema  rows.Schema       // of every merge

	mu   sync.Mutex
	runs []sortedRun // guarded by mu: what level 1 has left for level 2; nil until it was read
	list []stretch   // guarded by mu: of plan.InputsRef; nil until it was read
}

// merging opens the merge of a generation, or finds it open. ErrNotFound: there is
// no such job, or no merge is planned in it.
func (a *Aggregator) merging(ctx context.Context, jobID string, generation int) (*merging, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.last; m != nil && m.id == jobID && m.generation == generation {
		return m, nil
	}
	job, err := a.open(ctx, jobID, generation)
	if err != nil {
		return nil, err
	}
	m := &merging{jobOf: job, store: a.Store}
	if m.plan, _, err = a.Store.AggregationPlan(ctx, jobID, generation); err != nil {
		return nil, err
	}
	if m.plan.Group == nil {
		return nil, fmt.Errorf("open the merge of %s: it has no rows: %w", jobID, hayrick.ErrNotFound)
	}
	if m.members, err = a.Store.Members(ctx, jobID, generation, *m.plan.Group); err != nil {
		return nil, gone(err)
	}
	if m.plan.Ranges != nil {
		if m.ranges, err = a.Store.Members(ctx, jobID, generation, *m.plan.Ranges); err != nil {
			return nil, gone(err)
		}
	}
	if err := json.Unmarshal(m.plan.Columns, &m.schema); err != nil {
		return nil, fmt.Errorf("read the plan's columns: %v: %w", err, hayrick.ErrCorrupt)
	}
	a.last = m
	return m, nil
}

// stretchLines is how many lines of a list of inputs are read at once.
const stretchLines = 256

// stretch is a run of stretchLines lines of the list: where it lies and what it
// holds. 48 bytes stand for 256 inputs, so that a merge of a long plan reads some
// kilobytes, checked, and not the whole list.
type stretch struct {
	offset, length int64
	sha            [sha256.Size]byte
}

// pinned reads a span of the plan's inputs; damage is named.
func (m *merging) pinned(ctx context.Context, span manifest.Span) ([]manifest.MergeInput, error) {
	in, err := m.inputs(ctx, span)
	if err == nil {
		return in, nil
	}
	key := m.key.Rel(m.key.AggregationPlan(m.generation))
	if m.plan.InputsRef != nil {
		key = m.plan.InputsRef.Key
	}
	return nil, damaged(key, "", err)
}

// inputs reads a span of the plan's inputs.
func (m *merging) inputs(ctx context.Context, span manifest.Span) ([]manifest.MergeInput, error) {
	n := int64(len(m.plan.Inputs))
	if m.plan.InputsRef != nil {
		n = m.plan.InputsRef.Count
	}
	if span.First < 0 || span.Count < 0 || span.First > n || span.Count > n-span.First {
		return nil, fmt.Errorf("inputs %d+%d of %d: %w", span.First, span.Count, n, hayrick.ErrCorrupt)
	}
	end := span.First + span.Count
	if m.plan.InputsRef == nil {
		return m.plan.Inputs[span.First:end], nil
	}
	list, err := m.stretches(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]manifest.MergeInput, 0, span.Count)
	for s := span.First / stretchLines; s*stretchLines < end; s++ {
		body, err := m.read(ctx, list[s])
		if err != nil {
			return nil, err
		}
		at := s * stretchLines
		for line := range bytes.Lines(body) {
			if at >= span.First && at < end {
				var in manifest.MergeInput
				if err := json.Unmarshal(line, &in); err != nil {
					return nil, fmt.Errorf("read %s: %v: %w", m.plan.InputsRef.Key, err, hayrick.ErrCorrupt)
				}
				out = append(out, in)
			}
			at++
		}
	}
	return out, nil
}

// stretches reads the list once, against its SHA-256, and remembers its stretches.
func (m *merging) stretches(ctx context.Context) ([]stretch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.list != nil {
		return m.list, nil
	}
	var list []stretch
	var open stretch
	lines, h := 0, sha256.New()
	cut := func() {
		h.Sum(open.sha[:0])
		list = append(list, open)
		open = stretch{offset: open.offset + open.length}
		lines = 0
		h.Reset()
	}
	if err := m.store.Lines(ctx, m.id, *m.plan.InputsRef, func(line []byte) error {
		h.Write(line)
		h.Write([]byte{'\n'})
		open.length += int64(len(line)) + 1
		if lines++; lines == stretchLines {
			cut()
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if lines > 0 {
		cut()
	}
	m.list = list
	return list, nil
}

func (m *merging) read(ctx context.Context, s stretch) ([]byte, error) {
	key := m.key.Abs(m.plan.InputsRef.Key)
	r, err := m.store.Objects.Open(ctx, key, s.offset, s.length)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if sha256.Sum256(body) != s.sha {
		return nil, fmt.Errorf("read %s: it has changed at %d: %w", key, s.offset, hayrick.ErrCorrupt)
	}
	return body, nil
}
