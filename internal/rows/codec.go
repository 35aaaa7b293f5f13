package rows

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"
	"unicode/utf8"

	"hayrick"
)

// A row in a journal is
//
//	uvarint length of what follows
//	columns: uvarint length of the name, name, kind (1 byte), value
//
// with values as uvarint length + bytes (string, bytes), zigzag varint (int, time),
// 8 bytes little endian (float) or 1 byte (bool). Null columns are left out: a row
// without a column and a row with a null in it are the same row.

// AppendRow appends the row's binary form to dst, or returns dst as it was and an
// ErrRow when the row cannot be stored (see Row.Check). Rows appended one after the
// other are read with DecodeRow or Rows.
func AppendRow(dst []byte, r Row) ([]byte, error) {
	if err := r.Check(); err != nil {
		return dst, err
	}
	start := len(dst)
	for i := range r {
		v, _ := valueOf(&r[i]) // checked above
		if v.kind == 0 {
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(r[i].Name)))
		dst = append(dst, r[i].Name...)
		dst = append(dst, byte(v.kind))
		switch v.kind {
		case KindString, KindBytes:
			dst = binary.AppendUvarint(dst, uint64(len(v.str)+len(v.raw)))
			dst = append(append(dst, v.str...), v.raw...)
		case KindFloat:
			dst = binary.LittleEndian.AppendUint64(dst, uint64(v.num))
		case KindBool:
			dst = append(dst, byte(v.num))
		default:
			dst = binary.AppendVarint(dst, v.num)
		}
	}
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(len(dst)-start))
	return slices.Insert(dst, start, length[:n]...), nil
}

// DecodeRow reads the first row of b and returns what follows it. Damage is a
// hayrick.ErrCorrupt. The row shares no memory with b. Values are string, []byte,
// int64, float64, bool and time.Time in UTC.
func DecodeRow(b []byte) (r Row, rest []byte, err error) {
	d := decoder{b: b}
	body := d.bytes(math.MaxInt)
	if d.bad {
		return nil, nil, fmt.Errorf("decode row: its length: %w", hayrick.ErrCorrupt)
	}
	rest, d.b = d.b, body
	r = make(Row, 0, 8)
	for len(d.b) > 0 && len(r) < MaxColumns {
		name := string(d.bytes(MaxNameBytes))
		v := d.value()
		if d.bad {
			return nil, nil, fmt.Errorf("decode row: column %d: %w", len(r), hayrick.ErrCorrupt)
		}
		r = append(r, Col{name, v.native()})
	}
	if len(d.b) > 0 {
		return nil, nil, fmt.Errorf("decode row: more than %d columns: %w", MaxColumns, hayrick.ErrCorrupt)
	}
	if err := r.Check(); err != nil {
		return nil, nil, fmt.Errorf("decode row: %v: %w", err, hayrick.ErrCorrupt)
	}
	return r, rest, nil
}

// Rows reads rows that were appended one after the other. It stops after the first
// error.
func Rows(b []byte) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for len(b) > 0 {
			var (
				r   Row
				err error
			)
			r, b, err = DecodeRow(b)
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// decoder takes values off the front of b; after damage it is bad and gives zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) uvarint() uint64 {
	x, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.take(n)
	return x
}

// bytes takes a length of at most limit and so many bytes.
func (d *decoder) bytes(limit int) []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) || n > uint64(limit) {
		d.bad = true
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) value() (v value) {
	if p := d.take(1); p != nil {
		v.kind = Kind(p[0])
	}
	switch v.kind {
	case KindString, KindBytes:
		v.raw = d.bytes(MaxValueBytes)
		if v.kind == KindString && !utf8.Valid(v.raw) {
			d.bad = true
		}
	case KindFloat:
		if p := d.take(8); p != nil {
			v.num = int64(binary.LittleEndian.Uint64(p))
		}
	case KindBool:
		if p := d.take(1); p != nil {
			v.num = int64(p[0])
			d.bad = p[0] > 1
		}
	case KindInt, KindTime:
		x := d.uvarint()
		v.num = int64(x>>1) ^ -int64(x&1)
	default:
		d.bad = true
	}
	return v
}
