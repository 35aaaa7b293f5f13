package local

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"hayrick"
)

// block is a progress record as it is stored: a set of positions, and under each
// what was said of it.
type block struct {
	total      int
	done       hayrick.Bits
	counts     []byte // for each position ok and failed as uint32; nil = all 0
	ok, failed int64  // sums of counts
	dirty      bool
}

const countBytes = 8

// blockKey names a record; none of its parts has a slash.
func blockKey(id hayrick.BlockID) string {
	return fmt.Sprintf("%s%d/%d/%s", groupPrefix(id.JobID, id.Generation, id.Group), id.Level, id.N, id.SHA256)
}

func groupPrefix(jobID string, generation int, group string) string {
	return fmt.Sprintf("%s/%d/%s/", jobID, generation, group)
}

// scanBlock reads total, done, counts.
func scanBlock(row []driver.Value) *block {
	b := &block{total: int(row[0].(int64))}
	done := row[1].([]byte)
	for i := range b.done {
		b.done[i] = binary.LittleEndian.Uint64(done[8*i:])
	}
	if counts, ok := row[2].([]byte); ok {
		b.counts = counts
		for i := 0; i < len(counts); i += countBytes {
			b.ok += int64(binary.LittleEndian.Uint32(counts[i:]))
			b.failed += int64(binary.LittleEndian.Uint32(counts[i+4:]))
		}
	}
	return b
}

func (b *block) write(c *conn, key string) error {
	if !b.dirty {
		return nil
	}
	done := make([]byte, 0, 8*len(b.done))
	for _, w := range b.done {
		done = binary.LittleEndian.AppendUint64(done, w)
	}
	var counts any
	if b.counts != nil {
		counts = b.counts
	}
	return c.exec(`INSERT INTO blocks VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET done = excluded.done, counts = excluded.counts`, key, int64(b.total), done, counts)
}

// set adds a position and what is said of it; saying it again changes nothing.
func (b *block) set(position int, ok, failed uint32) {
	b.dirty = b.dirty || !b.done.Has(position)
	b.done.Add(position)
	if b.counts == nil {
		if ok == 0 && failed == 0 {
			return
		}
		b.counts = make([]byte, countBytes*b.total)
	}
	at := b.counts[countBytes*position:]
	oldOK, oldFailed := binary.LittleEndian.Uint32(at), binary.LittleEndian.Uint32(at[4:])
	if oldOK == ok && oldFailed == failed {
		return
	}
	binary.LittleEndian.PutUint32(at, ok)
	binary.LittleEndian.PutUint32(at[4:], failed)
	b.ok += int64(ok) - int64(oldOK)
	b.failed += int64(failed) - int64(oldFailed)
	b.dirty = true
}

func (b *block) state(id hayrick.BlockID) hayrick.BlockState {
	return hayrick.BlockState{BlockID: id, Total: b.total, Done: b.done, OK: b.ok, Fails: b.failed}
}

// Mark adds a position to a block's set, creating the block where it is missing.
func (s *Store) Mark(ctx context.Context, m hayrick.Mark) (hayrick.BlockState, error) {
	var after hayrick.BlockState
	err := func() error {
		if m.Total < 1 || m.Total > hayrick.BlockSize || m.Position < 0 || m.Position >= m.Total {
			return fmt.Errorf("position %d of %d is not in a block", m.Position, m.Total)
		}
		if m.OK < 0 || m.OK > math.MaxUint32 || m.Failed < 0 || m.Failed > math.MaxUint32 {
			return fmt.Errorf("%d and %d items are not counts of one task", m.OK, m.Failed)
		}
		return s.state.do(ctx, func(t *tx) error {
			b, err := t.block(m.Block, m.Total)
			if err != nil {
				return err
			}
			if m.Position >= b.total {
				return fmt.Errorf("position %d is not in a block of %d", m.Position, b.total)
			}
			b.set(m.Position, uint32(m.OK), uint32(m.Failed))
			after = b.state(m.Block)
			return nil
		})
	}()
	if err != nil {
		return hayrick.BlockState{}, fmt.Errorf("mark %s: %w", blockKey(m.Block), err)
	}
	return after, nil
}

// block reads a record once a transaction.
func (t *tx) block(id hayrick.BlockID, total int) (*block, error) {
	if b := t.blocks[id]; b != nil {
		return b, nil
	}
	row, err := t.c.one(`SELECT total, done, counts FROM blocks WHERE block = ?`, blockKey(id))
	if err != nil {
		return nil, err
	}
	b := &block{total: total}
	if row != nil {
		b = scanBlock(row)
	}
	if t.blocks == nil {
		t.blocks = map[hayrick.BlockID]*block{}
	}
	t.blocks[id] = b
	return b, nil
}

// Blocks returns the progress records of a group.
func (s *Store) Blocks(ctx context.Context, jobID string, generation int, group string) ([]hayrick.BlockState, error) {
	var out []hayrick.BlockState
	prefix := groupPrefix(jobID, generation, group)
	err := s.state.read(ctx, func(c *conn) error {
		out = nil
		return c.each(func(row []driver.Value) error {
			id := hayrick.BlockID{JobID: jobID, Generation: generation, Group: group}
			level, rest, _ := strings.Cut(strings.TrimPrefix(row[3].(string), prefix), "/")
			n, sha, _ := strings.Cut(rest, "/")
			id.SHA256 = sha
			var err1, err2 error
			id.Level, err1 = strconv.Atoi(level)
			id.N, err2 = strconv.Atoi(n)
			if err1 != nil || err2 != nil {
				return fmt.Errorf("%s names no block", row[3])
			}
			out = append(out, scanBlock(row).state(id))
			return nil
		}, `SELECT total, done, counts, block FROM blocks WHERE block >= ? AND block < ?`, prefix, prefix[:len(prefix)-1]+"0") // '0' follows '/'
	})
	if err != nil {
		return nil, fmt.Errorf("blocks of %s: %w", prefix, err)
	}
	return out, nil
}
