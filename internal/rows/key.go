package rows

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// Keyer makes keys of rows: byte strings that compare as the values of some columns
// do, column by column. Two rows have one key when they are equal in all of them,
// where a null equals a null, -0 equals 0 and every NaN equals every other. Nulls
// sort first, NaN last. No key is the beginning of another.
type Keyer struct {
	schema Schema
	cols   []int
}

// NewKeyer makes keys of the named columns. One that the schema lacks is an
// ErrSchema: it would be null in every row, and every row equal to every other.
func NewKeyer(s Schema, columns []string) (*Keyer, error) {
	k := &Keyer{schema: s}
	for _, name := range columns {
		at := s.Index(name)
		if at < 0 {
			return nil, fmt.Errorf("no row has a column %q; the columns are %s: %w", name, s.names(), ErrSchema)
		}
		k.cols = append(k.cols, at)
	}
	return k, nil
}

// names lists the columns for a message.
func (s Schema) names() string {
	const most = 20
	var names []string
	for _, f := range s.Fields[:min(len(s.Fields), most)] {
		names = append(names, f.Name)
	}
	if len(s.Fields) > most {
		names = append(names, fmt.Sprintf("and %d more", len(s.Fields)-most))
	}
	return strings.Join(names, ", ")
}

const (
	keyIsNull = 0
	keyHasOne = 1
	// Within strings and bytes a zero byte is followed by keyZero; their end is a zero
	// byte followed by keyEnd, which is below it.
	keyEnd  = 0x01
	keyZero = 0xff
)

// Append appends the key of row r of a batch of the schema.
func (k *Keyer) Append(dst []byte, b *Batch, r int) []byte {
	for _, at := range k.cols {
		if at < 0 {
			dst = append(dst, keyIsNull)
			continue
		}
		c := &b.Cols[at]
		if !c.Valid[r] {
			dst = append(dst, keyIsNull)
			continue
		}
		dst = append(dst, keyHasOne)
		switch c.Kind {
		case KindString, KindBytes:
			dst = appendKeyBytes(dst, c.Bytes(r))
		case KindBool:
			dst = append(dst, byte(c.Nums[r]))
		case KindFloat:
			dst = binary.BigEndian.AppendUint64(dst, floatKey(c.Nums[r]))
		default:
			dst = binary.BigEndian.AppendUint64(dst, uint64(c.Nums[r])^1<<63)
		}
	}
	return dst
}

// size is how many bytes Append appends for row r.
func (k *Keyer) size(b *Batch, r int) int {
	n := len(k.cols)
	for _, at := range k.cols {
		if at < 0 || !b.Cols[at].Valid[r] {
			continue
		}
		switch c := &b.Cols[at]; c.Kind {
		case KindString, KindBytes:
			v := c.Bytes(r)
			n += len(v) + bytes.Count(v, []byte{0}) + 2
		case KindBool:
			n++
		default:
			n += 8
		}
	}
	return n
}

func appendKeyBytes(dst, v []byte) []byte {
	for {
		n := 0
		for n < len(v) && v[n] != 0 {
			n++
		}
		dst = append(dst, v[:n]...)
		if n == len(v) {
			return append(dst, 0, keyEnd)
		}
		dst = append(dst, 0, keyZero)
		v = v[n+1:]
	}
}

// floatKey orders floats as numbers; they compare as unsigned integers.
func floatKey(num int64) uint64 {
	bits := floatBits(num)
	if bits>>63 == 1 {
		return ^bits
	}
	return bits | 1<<63
}

// Text shows the key of row r to people: {uri: "at://...", seq: 7}, of each value at
// most limit bytes.
func (k *Keyer) Text(b *Batch, r, limit int) string {
	var parts []string
	for _, at := range k.cols {
		c, name := &b.Cols[at], k.schema.Fields[at].Name
		var v string
		switch {
		case !c.Valid[r]:
			v = "null"
		case c.Kind == KindString:
			v = fmt.Sprintf("%q", cutText(c.Bytes(r), limit))
		case c.Kind == KindBytes:
			v = fmt.Sprintf("%x", cutText(c.Bytes(r), limit/2))
		case c.Kind == KindFloat:
			v = fmt.Sprint(math.Float64frombits(uint64(c.Nums[r])))
		default:
			x := value{kind: c.Kind, num: c.Nums[r]}
			v = fmt.Sprint(x.native())
		}
		if c.wide() && c.Valid[r] && len(c.Bytes(r)) > limit {
			v += fmt.Sprintf("... (%d bytes)", len(c.Bytes(r)))
		}
		parts = append(parts, name+": "+v)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func cutText(b []byte, limit int) []byte { return b[:min(len(b), limit)] }

// KeyBound is the longest bound of a range of keys.
const KeyBound = 1024

// Separator is the shortest byte string that is above a and not above b, two keys of
// which a is the smaller: what begins a range with b and not with a. ok is false when
// it would be longer than KeyBound: then both are in one range.
func Separator(a, b []byte) (sep []byte, ok bool) {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	if n >= len(b) || n >= KeyBound || n < len(a) && a[n] > b[n] {
		return nil, false
	}
	return b[: n+1 : n+1], true
}

const (
	// maxSamples is how many keys of a file are noted at most, and at least half of
	// that when it has as many rows; of each, sampleBytes.
	maxSamples  = 16
	sampleBytes = 256
)

// sampler notes keys of rows at equal distances.
type sampler struct {
	keyer  *Keyer
	stride int64
	rows   int64
	keys   [][]byte
	key    []byte // scratch
}

func newSampler(s Schema, columns []string) *sampler {
	k := &Keyer{schema: s}
	for _, name := range columns {
		k.cols = append(k.cols, s.Index(name)) // -1: null in this file
	}
	return &sampler{keyer: k, stride: 1}
}

// add takes in the rows of a batch. When there are too many keys every other one goes
// and the distance doubles.
func (s *sampler) add(b *Batch) {
	for at := (s.stride - s.rows%s.stride) % s.stride; at < int64(b.Rows); at += s.stride {
		if len(s.keys) == maxSamples {
			for i := range maxSamples / 2 {
				s.keys[i] = s.keys[2*i]
			}
			s.keys = s.keys[:maxSamples/2]
			s.stride *= 2
			if (s.rows+at)%s.stride != 0 {
				at -= s.stride / 2 // the next multiple of the new distance
				continue
			}
		}
		s.key = s.keyer.Append(s.key[:0], b, int(at))
		s.keys = append(s.keys, append([]byte(nil), s.key[:min(len(s.key), sampleBytes)]...))
	}
	s.rows += int64(b.Rows)
}
