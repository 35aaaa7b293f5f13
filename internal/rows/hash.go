package rows

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// Hash is the hash of a multiset of rows: the sum, modulo 2^128, of the hashes of
// its rows. Sums of parts add up to the hash of the whole in any order, so that
// "in = out + dropped" can be checked at every merge without reading a row twice.
// The zero value is the hash of no rows.
//
// The hash of a row is the first 128 bits of the SHA-256 over its non-null columns
// in the order of their names (as bytes), each written as
//
//	uvarint length of the name, name, kind (1 byte), value
//
// where a string or bytes is its uvarint length and its bytes; an int or time 8
// bytes big endian; a float the 8 bytes of its IEEE 754 bits, big endian, with every
// NaN as 7ff8000000000000 and no negative zero; a bool 1 byte. Adding a null column or widening an
// integer therefore changes nothing, and no two rows share an encoding.
//
// It guards against accidents and lost rows. It is no proof against a handler that
// crafts rows to collide in a sum.
type Hash struct{ hi, lo uint64 }

// Add is the hash of both multisets together.
func (h Hash) Add(g Hash) Hash {
	lo, carry := bits.Add64(h.lo, g.lo, 0)
	hi, _ := bits.Add64(h.hi, g.hi, carry)
	return Hash{hi, lo}
}

// Sub is the hash of a multiset without the rows of another, which are part of it.
func (h Hash) Sub(g Hash) Hash {
	lo, borrow := bits.Sub64(h.lo, g.lo, 0)
	hi, _ := bits.Sub64(h.hi, g.hi, borrow)
	return Hash{hi, lo}
}

// hashBytes is the length of a Hash in a file.
const hashBytes = 16

func (h Hash) put(b []byte) {
	binary.BigEndian.PutUint64(b, h.hi)
	binary.BigEndian.PutUint64(b[8:], h.lo)
}

func getHash(b []byte) Hash {
	return Hash{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// String is lowercase hex without leading zeros; "0" for no rows.
func (h Hash) String() string {
	if h.hi == 0 {
		return fmt.Sprintf("%x", h.lo)
	}
	return fmt.Sprintf("%x%016x", h.hi, h.lo)
}

// ParseHash reads what String writes, and nothing else.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if s == "" || len(s) > 32 || (s[0] == '0' && s != "0") {
		return h, fmt.Errorf("%q is not a row hash", s)
	}
	for _, c := range []byte(s) {
		d := strings.IndexByte("0123456789abcdef", c)
		if d < 0 {
			return Hash{}, fmt.Errorf("%q is not a row hash", s)
		}
		h.hi = h.hi<<4 | h.lo>>60
		h.lo = h.lo<<4 | uint64(d)
	}
	return h, nil
}

// MarshalText writes String.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (h *Hash) UnmarshalText(b []byte) (err error) {
	*h, err = ParseHash(string(b))
	return err
}

// canonicalNaN stands for every NaN: the quiet one, without sign or payload.
const canonicalNaN = 0x7ff8000000000000

// floatBits are the bits that are hashed for a float of the given bits.
func floatBits(num int64) uint64 {
	switch f := math.Float64frombits(uint64(num)); {
	case f != f:
		return canonicalNaN
	case f == 0:
		return 0 // -0 equals 0 in every query, so it does here
	}
	return uint64(num)
}

func hashOf(encoded []byte) Hash {
	sum := sha256.Sum256(encoded)
	return Hash{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])}
}

// Hasher hashes rows. It keeps what it learned of the last row's order, so it is
// fast on rows of one shape, and allocates nothing once warm. Not for concurrent
// use; the zero value is ready.
type Hasher struct {
	order []int // of the last row, by name
	last  []string
	buf   []byte
}

// Row is the hash of one row. The error is the row's own: see Row.Check, of which
// it makes only what it needs.
func (h *Hasher) Row(r Row) (Hash, error) {
	h.sort(r)
	b := h.buf[:0]
	for _, i := range h.order {
		v, err := valueOf(&r[i])
		if err != nil {
			return Hash{}, err
		}
		if v.kind == 0 {
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(r[i].Name)))
		b = append(b, r[i].Name...)
		b = append(b, byte(v.kind))
		switch v.kind {
		case KindString, KindBytes:
			b = binary.AppendUvarint(b, uint64(len(v.str)+len(v.raw)))
			b = append(b, v.str...)
			b = append(b, v.raw...)
		case KindBool:
			b = append(b, byte(v.num))
		case KindFloat:
			b = binary.BigEndian.AppendUint64(b, floatBits(v.num))
		default:
			b = binary.BigEndian.AppendUint64(b, uint64(v.num))
		}
	}
	h.buf = b
	return hashOf(b), nil
}

// sort leaves the positions of r's columns by name in h.order.
func (h *Hasher) sort(r Row) {
	same := len(h.last) == len(r)
	for i := 0; same && i < len(r); i++ {
		same = h.last[i] == r[i].Name
	}
	if same {
		return
	}
	h.last, h.order = h.last[:0], h.order[:0]
	for i := range r {
		h.last = append(h.last, r[i].Name)
		h.order = append(h.order, i)
	}
	slices.SortFunc(h.order, func(a, b int) int { return strings.Compare(h.last[a], h.last[b]) })
}

// batchHasher hashes the rows of batches of one schema, column by column.
type batchHasher struct {
	order  []int
	prefix [][]byte // of each column: length of the name, name, kind
	buf    []byte
}

func newBatchHasher(s Schema) *batchHasher {
	h := &batchHasher{}
	for i, f := range s.Fields {
		h.order = append(h.order, i)
		p := binary.AppendUvarint(nil, uint64(len(f.Name)))
		h.prefix = append(h.prefix, append(append(p, f.Name...), byte(f.Kind)))
	}
	slices.SortFunc(h.order, func(a, b int) int { return strings.Compare(s.Fields[a].Name, s.Fields[b].Name) })
	return h
}

// rows is the hash of rows [from, to) of the batch.
func (h *batchHasher) rows(b *Batch, from, to int) Hash {
	var sum Hash
	for r := from; r < to; r++ {
		sum = sum.Add(h.row(b, r))
	}
	return sum
}

// each appends the hash of every row of the batch to dst, and returns their sum too.
func (h *batchHasher) each(dst []Hash, b *Batch) ([]Hash, Hash) {
	var sum Hash
	for r := range b.Rows {
		x := h.row(b, r)
		dst, sum = append(dst, x), sum.Add(x)
	}
	return dst, sum
}

// longValue is from what size a value is hashed where it lies, and not copied before.
const longValue = 64 << 10

func (h *batchHasher) row(b *Batch, r int) Hash {
	buf := h.buf[:0]
	var begun hash.Hash // of a row with a long value: has all that buf had before
	for _, i := range h.order {
		c := &b.Cols[i]
		if !c.Valid[r] {
			continue
		}
		buf = append(buf, h.prefix[i]...)
		switch c.Kind {
		case KindString, KindBytes:
			v := c.Bytes(r)
			buf = binary.AppendUvarint(buf, uint64(len(v)))
			if len(v) < longValue {
				buf = append(buf, v...)
				break
			}
			if begun == nil {
				begun = sha256.New()
			}
			begun.Write(buf)
			begun.Write(v)
			buf = buf[:0]
		case KindBool:
			buf = append(buf, byte(c.Nums[r]))
		case KindFloat:
			buf = binary.BigEndian.AppendUint64(buf, floatBits(c.Nums[r]))
		default:
			buf = binary.BigEndian.AppendUint64(buf, uint64(c.Nums[r]))
		}
	}
	h.buf = buf
	if begun != nil {
		begun.Write(buf)
		return getHash(begun.Sum(nil))
	}
	return hashOf(buf)
}
