package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"hayrick"
)

// claim is a lease and the process that holds it.
type claim struct {
	hayrick.Claim
	proc string
}

const selectClaim = `SELECT attempt, worker, proc, fence, until, vanished, idle, lost FROM claims WHERE task = ?`

// readClaim returns nil when nobody ever claimed the task.
func readClaim(c *conn, ref hayrick.TaskRef) (*claim, error) {
	row, err := c.one(selectClaim, taskKey(ref))
	if row == nil || err != nil {
		return nil, err
	}
	cl := &claim{
		Claim: hayrick.Claim{
			TaskRef: ref, Attempt: row[0].(string), Worker: row[1].(string), Fence: row[3].(int64),
			Until: timeOf(row[4].(int64)), Vanished: int(row[5].(int64)), Idle: int(row[6].(int64)),
		},
		proc: row[2].(string),
	}
	if lost, ok := row[7].(string); ok {
		if err := json.Unmarshal([]byte(lost), &cl.Lost); err != nil {
			return nil, fmt.Errorf("losses of %s: %w", ref.TaskID, err)
		}
	}
	return cl, nil
}

// writeClaim stores a claim as held by this process.
func (t *tx) writeClaim(c hayrick.Claim) error {
	var lost any
	if len(c.Lost) > 0 {
		b, err := json.Marshal(c.Lost)
		if err != nil {
			return err
		}
		lost = string(b)
	}
	return t.c.exec(`INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		taskKey(c.TaskRef), c.Attempt, c.Worker, t.store.dir.Owner(), c.Fence, nanos(c.Until), int64(c.Vanished), int64(c.Idle), lost)
}

// Claim applies hayrick.NextClaim. A claim whose process has ended is dead,
// whatever its lease says; that is asked only when it stands in the way.
func (s *Store) Claim(ctx context.Context, ask hayrick.ClaimAsk) (hayrick.Claim, error) {
	var next hayrick.Claim
	err := s.state.do(ctx, func(t *tx) error {
		held, err := readClaim(t.c, ask.TaskRef)
		if err != nil {
			return err
		}
		var prev *hayrick.Claim
		if held != nil {
			prev = &held.Claim
		}
		now := t.now()
		next, err = hayrick.NextClaim(prev, ask, now, false)
		if errors.Is(err, hayrick.ErrConflict) && !s.dir.Alive(held.proc) {
			next, err = hayrick.NextClaim(prev, ask, now, true)
		}
		if err != nil || (prev != nil && prev.Attempt == ask.Attempt) {
			return err
		}
		return t.writeClaim(next)
	})
	if err != nil && !errors.Is(err, hayrick.ErrConflict) {
		return hayrick.Claim{}, fmt.Errorf("claim %s: %w", ask.TaskID, err)
	}
	return next, err
}

// UpdateClaim applies a patch to a claim that is still the attempt's.
func (s *Store) UpdateClaim(ctx context.Context, ref hayrick.TaskRef, attempt string, patch hayrick.ClaimPatch) (hayrick.Claim, error) {
	var next hayrick.Claim
	err := s.state.do(ctx, func(t *tx) error {
		held, err := readClaim(t.c, ref)
		if err != nil {
			return err
		}
		var prev *hayrick.Claim
		if held != nil {
			prev = &held.Claim
		}
		if next, err = patch.Apply(prev, attempt); err != nil {
			return err
		}
		return t.writeClaim(next)
	})
	if err != nil {
		return hayrick.Claim{}, fmt.Errorf("task %s: %w", ref.TaskID, err)
	}
	return next, nil
}

// ReadClaim returns a claim as it stands, and whether its lease holds and its
// process lives.
func (s *Store) ReadClaim(ctx context.Context, ref hayrick.TaskRef) (hayrick.Claim, bool, error) {
	var found *claim
	err := s.state.read(ctx, func(c *conn) (err error) {
		found, err = readClaim(c, ref)
		return err
	})
	if err == nil && found == nil {
		err = hayrick.ErrNotFound
	}
	if err != nil {
		return hayrick.Claim{}, false, fmt.Errorf("read claim of %s: %w", ref.TaskID, err)
	}
	alive := !found.Until.IsZero() && s.world.Clock.Now().Before(found.Until) && s.dir.Alive(found.proc)
	return found.Claim, alive, nil
}

// nanos is t as a column: 0 is the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
