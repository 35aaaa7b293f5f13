package rows

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"hayrick"
)

// A record is a row of a known schema in one piece, which is what sorting moves
// about:
//
//	a bit a column, 1 = it has a value (little endian, in whole bytes)
//	the values: strings and bytes as uvarint length + bytes, all others as 8 bytes
//	little endian

// AppendRecord appends row r of the batch to dst.
func (b *Batch) AppendRecord(dst []byte, r int) []byte {
	mask := len(dst)
	for range (len(b.Cols) + 7) / 8 {
		dst = append(dst, 0)
	}
	for i := range b.Cols {
		c := &b.Cols[i]
		if !c.Valid[r] {
			continue
		}
		dst[mask+i/8] |= 1 << (i % 8)
		if c.wide() {
			v := c.Bytes(r)
			dst = binary.AppendUvarint(dst, uint64(len(v)))
			dst = append(dst, v...)
		} else {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Nums[r]))
		}
	}
	return dst
}

// recordSize is how many bytes AppendRecord appends for row r.
func (b *Batch) recordSize(r int) int {
	n := (len(b.Cols) + 7) / 8
	for i := range b.Cols {
		c := &b.Cols[i]
		switch {
		case !c.Valid[r]:
		case c.wide():
			v := len(c.Bytes(r))
			n += (bits.Len(uint(v)|1)+6)/7 + v
		default:
			n += 8
		}
	}
	return n
}

// TakeRecord appends the row that a record of the batch's schema holds. Damage is a
// hayrick.ErrCorrupt, after which the batch is not to be used.
func (b *Batch) TakeRecord(rec []byte) error {
	bad := func(at int) error {
		return fmt.Errorf("a record of %d bytes, column %d: %w", len(rec), at, hayrick.ErrCorrupt)
	}
	n := (len(b.Cols) + 7) / 8
	if len(rec) < n {
		return bad(0)
	}
	mask, rec := rec[:n], rec[n:]
	if last := len(b.Cols) % 8; last != 0 && bits.Len8(mask[n-1]) > last {
		return bad(len(b.Cols))
	}
	for i := range b.Cols {
		c := &b.Cols[i]
		switch {
		case mask[i/8]&(1<<(i%8)) == 0:
			c.appendNull()
		case c.wide():
			size, used := binary.Uvarint(rec)
			if used <= 0 || size > uint64(len(rec)-used) {
				return bad(i)
			}
			end := used + int(size)
			c.Valid = append(c.Valid, true)
			c.Data = append(c.Data, rec[used:end]...)
			c.Ends = append(c.Ends, len(c.Data))
			rec = rec[end:]
		default:
			if len(rec) < 8 {
				return bad(i)
			}
			c.Valid = append(c.Valid, true)
			c.Nums = append(c.Nums, int64(binary.LittleEndian.Uint64(rec)))
			rec = rec[8:]
		}
	}
	if len(rec) > 0 {
		return bad(len(b.Cols))
	}
	b.Rows++
	return nil
}

// Hashes hashes rows of batches of one schema. Not for concurrent use.
type Hashes struct{ h *batchHasher }

// NewHashes hashes rows of the schema.
func NewHashes(s Schema) Hashes { return Hashes{newBatchHasher(s)} }

// Same is the hash of the rows of the batch, if each is the one in beside. Otherwise it
// is a hayrick.ErrCorrupt.
func (h Hashes) Same(b *Batch, beside []Hash) (Hash, error) {
	var sum Hash
	for r := range b.Rows {
		got := h.h.row(b, r)
		if got != beside[r] {
			return sum, fmt.Errorf("a row with hash %s has %s beside it: %w", got, beside[r], hayrick.ErrCorrupt)
		}
		sum = sum.Add(got)
	}
	return sum, nil
}

// Rows is the hash of rows [from, to) of the batch.
func (h Hashes) Rows(b *Batch, from, to int) Hash { return h.h.rows(b, from, to) }
