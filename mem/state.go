package mem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"hayrick"
)

// claim is a lease, and whether its holder is known to be gone.
type claim struct {
	hayrick.Claim
	dead bool
}

func (c claim) alive(now time.Time) bool {
	return !c.Until.IsZero() && !c.dead && now.Before(c.Until)
}

// block is a progress record with what was set under each position.
type block struct {
	total  int
	done   hayrick.Bits
	ok     [hayrick.BlockSize]int64
	failed [hayrick.BlockSize]int64
}

func (b *block) state(id hayrick.BlockID) hayrick.BlockState {
	st := hayrick.BlockState{BlockID: id, Total: b.total, Done: b.done}
	for i := range b.ok {
		st.OK += b.ok[i]
		st.Fails += b.failed[i]
	}
	return st
}

// Claim applies hayrick.NextClaim.
func (s *Store) Claim(ctx context.Context, ask hayrick.ClaimAsk) (hayrick.Claim, error) {
	return do(ctx, s, "State", "Claim", ask.TaskID, func() (hayrick.Claim, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		var prev *hayrick.Claim
		c, ok := s.claims[ask.TaskRef]
		if ok {
			prev = &c.Claim
		}
		next, err := hayrick.NextClaim(prev, ask, s.clock.Now(), c.dead)
		if err == nil && prev != nil && prev.Attempt != next.Attempt && next.Fence <= prev.Fence {
			s.violation("task %s: fence %d after %d", ask.TaskID, next.Fence, prev.Fence)
		}
		if err == nil && (prev == nil || prev.Attempt != next.Attempt) {
			s.claims[ask.TaskRef] = claim{Claim: copied(next)}
		}
		return copied(next), err
	})
}

// UpdateClaim applies a patch to a claim that is still the attempt's.
func (s *Store) UpdateClaim(ctx context.Context, ref hayrick.TaskRef, attempt string, patch hayrick.ClaimPatch) (hayrick.Claim, error) {
	return do(ctx, s, "State", "UpdateClaim", ref.TaskID, func() (hayrick.Claim, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		var prev *hayrick.Claim
		if c, ok := s.claims[ref]; ok {
			prev = &c.Claim
		}
		next, err := patch.Apply(prev, attempt)
		if err != nil {
			return next, fmt.Errorf("task %s: %w", ref.TaskID, err)
		}
		s.claims[ref] = claim{Claim: copied(next)}
		return copied(next), nil
	})
}

// ReadClaim returns a claim as it stands and whether its lease holds.
func (s *Store) ReadClaim(ctx context.Context, ref hayrick.TaskRef) (c hayrick.Claim, alive bool, err error) {
	err = run(ctx, s, "State", "ReadClaim", ref.TaskID, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		found, ok := s.claims[ref]
		if !ok {
			return fmt.Errorf("read claim of %s: %w", ref.TaskID, hayrick.ErrNotFound)
		}
		c, alive = copied(found.Claim), found.alive(s.clock.Now())
		return nil
	})
	if err != nil {
		return hayrick.Claim{}, false, err
	}
	return c, alive, nil
}

// Mark adds a position to a block's set.
func (s *Store) Mark(ctx context.Context, m hayrick.Mark) (hayrick.BlockState, error) {
	return do(ctx, s, "State", "Mark", blockName(m.Block)+"["+strconv.Itoa(m.Position)+"]", func() (hayrick.BlockState, error) {
		if m.Total < 1 || m.Total > hayrick.BlockSize || m.Position < 0 || m.Position >= m.Total {
			return hayrick.BlockState{}, fmt.Errorf("mark %s: position %d of %d is not in a block", blockName(m.Block), m.Position, m.Total)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		b := s.blocks[m.Block]
		if b == nil {
			b = &block{total: m.Total}
			s.blocks[m.Block] = b
		}
		b.done.Add(m.Position)
		b.ok[m.Position], b.failed[m.Position] = m.OK, m.Failed
		return b.state(m.Block), nil
	})
}

// Blocks returns the progress records of a group, by level and number.
func (s *Store) Blocks(ctx context.Context, jobID string, generation int, group string) ([]hayrick.BlockState, error) {
	return do(ctx, s, "State", "Blocks", jobID+"/"+group, func() ([]hayrick.BlockState, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		var out []hayrick.BlockState
		for id, b := range s.blocks {
			if id.JobID == jobID && id.Generation == generation && id.Group == group {
				out = append(out, b.state(id))
			}
		}
		slices.SortFunc(out, func(a, b hayrick.BlockState) int {
			return cmp.Or(a.Level-b.Level, a.N-b.N, strings.Compare(a.SHA256, b.SHA256))
		})
		return out, nil
	})
}

// JobState returns what is cached of a job.
func (s *Store) JobState(ctx context.Context, jobID string) (hayrick.JobState, error) {
	return do(ctx, s, "State", "JobState", jobID, func() (hayrick.JobState, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		st, ok := s.jobs[jobID]
		if !ok {
			return st, fmt.Errorf("job state of %s: %w", jobID, hayrick.ErrNotFound)
		}
		return st, nil
	})
}

// PutJobState caches what the commits say of a job.
func (s *Store) PutJobState(ctx context.Context, st hayrick.JobState) error {
	return give(ctx, s, "State", "PutJobState", st.JobID, st, func() error {
		if st.JobID == "" {
			return errors.New("put job state: it names no job")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.jobs[st.JobID] = st
		return nil
	})
}

// copied shares no map with c.
func copied(c hayrick.Claim) hayrick.Claim {
	c.Lost = maps.Clone(c.Lost)
	return c
}

func blockName(b hayrick.BlockID) string {
	return fmt.Sprintf("%s/%s/%d/%d", b.JobID, b.Group, b.Level, b.N)
}
