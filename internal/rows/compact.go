package rows

import (
	"encoding/binary"
	"fmt"
	"math"

	"hayrick"
)

// Compact is one level of a struct in Thrift's compact protocol, the form of a
// Parquet footer: fields in the order in which they stand, their values still
// encoded. Splitting a level, changing a field and appending the struct again
// leaves everything else byte for byte as it was, including fields that this
// program has never heard of. Values alias the input.
type Compact []CompactField

// CompactField is one field. A bool has its value in its type and no Raw.
type CompactField struct {
	ID   int16
	Type byte
	Raw  []byte
}

// The types of the compact protocol that Parquet uses.
const (
	CompactTrue   = 1
	CompactFalse  = 2
	CompactByte   = 3
	CompactI16    = 4
	CompactI32    = 5
	CompactI64    = 6
	CompactDouble = 7
	CompactBinary = 8
	CompactList   = 9
	CompactStruct = 12
)

// maxCompactDepth bounds the nesting of a footer; Parquet's own is below 10.
const maxCompactDepth = 24

func badMetadata(what string) error {
	return fmt.Errorf("metadata: %s: %w", what, hayrick.ErrCorrupt)
}

// SplitCompact reads one struct off the front of b and returns what follows it.
// The struct is walked to its end: every length in it, however deep, is known to
// lie within b, so a list's claimed size is never more than its bytes. Damage is a
// hayrick.ErrCorrupt.
func SplitCompact(b []byte) (Compact, []byte, error) {
	s := make(Compact, 0, 10)
	n, err := walkCompact(b, 0, func(f CompactField) { s = append(s, f) })
	if err != nil {
		return nil, nil, err
	}
	return s, b[n:], nil
}

// walkCompact is the length of the struct at the front of b; each, which may be
// nil, sees its fields. Fields must come in the order of their ids, as every writer
// puts them: a footer with one field twice could mean two things to two readers.
func walkCompact(b []byte, depth int, each func(CompactField)) (int, error) {
	if depth > maxCompactDepth {
		return 0, badMetadata("nested too deeply")
	}
	var id int64
	at := 0
	for {
		if at >= len(b) {
			return 0, badMetadata("a struct without an end")
		}
		head := b[at]
		at++
		if head == 0 {
			return at, nil
		}
		last := id
		if delta := int64(head >> 4); delta != 0 {
			id += delta
		} else {
			x, n := binary.Varint(b[at:])
			if n <= 0 {
				return 0, badMetadata("a field without an id")
			}
			id, at = x, at+n
		}
		if id <= last || id > math.MaxInt16 {
			return 0, badMetadata("fields out of order")
		}
		f := CompactField{ID: int16(id), Type: head & 0x0f}
		if f.Type != CompactTrue && f.Type != CompactFalse {
			n, err := compactLen(b[at:], f.Type, depth)
			if err != nil {
				return 0, err
			}
			f.Raw = b[at : at+n : at+n]
			at += n
		}
		if each != nil {
			each(f)
		}
	}
}

// compactLen is the length of a value of type t at the front of b.
func compactLen(b []byte, t byte, depth int) (int, error) {
	switch t {
	case CompactTrue, CompactFalse, CompactByte: // a bool only in a list
		if len(b) > 0 {
			return 1, nil
		}
	case CompactI16, CompactI32, CompactI64:
		if _, n := binary.Uvarint(b); n > 0 {
			return n, nil
		}
	case CompactDouble:
		if len(b) >= 8 {
			return 8, nil
		}
	case CompactBinary:
		if x, n := binary.Uvarint(b); n > 0 && x <= uint64(len(b)-n) {
			return n + int(x), nil
		}
	case CompactList:
		return compactListLen(b, depth+1)
	case CompactStruct:
		return walkCompact(b, depth+1, nil)
	default:
		return 0, badMetadata(fmt.Sprintf("a value of type %d", t))
	}
	return 0, badMetadata("cut off")
}

func compactListLen(b []byte, depth int) (int, error) {
	if depth > maxCompactDepth {
		return 0, badMetadata("nested too deeply")
	}
	elem, count, at, err := compactListHead(b)
	if err != nil {
		return 0, err
	}
	for range count {
		n, err := compactLen(b[at:], elem, depth)
		if err != nil {
			return 0, err
		}
		at += n
	}
	return at, nil
}

// compactListHead reads the type and number of a list's elements. Each takes a
// byte at least, so a number beyond the bytes left is damage.
func compactListHead(b []byte) (elem byte, count, at int, err error) {
	if len(b) == 0 {
		return 0, 0, 0, badMetadata("cut off")
	}
	elem, count, at = b[0]&0x0f, int(b[0]>>4), 1
	if count == 15 {
		x, n := binary.Uvarint(b[1:])
		if n <= 0 || x > uint64(len(b)) {
			return 0, 0, 0, badMetadata("a list longer than its bytes")
		}
		count, at = int(x), 1+n
	}
	if count > len(b)-at {
		return 0, 0, 0, badMetadata("a list longer than its bytes")
	}
	return elem, count, at, nil
}

// Get is the field with the id.
func (s Compact) Get(id int16) (CompactField, bool) {
	for _, f := range s {
		if f.ID == id {
			return f, true
		}
	}
	return CompactField{}, false
}

// Int is the integer field with the id, 0 when it is not there.
func (s Compact) Int(id int16) (int64, error) {
	f, ok := s.Get(id)
	if !ok {
		return 0, nil
	}
	if f.Type != CompactI16 && f.Type != CompactI32 && f.Type != CompactI64 {
		return 0, badMetadata(fmt.Sprintf("field %d is not an integer", id))
	}
	x, n := binary.Varint(f.Raw)
	if n != len(f.Raw) {
		return 0, badMetadata(fmt.Sprintf("field %d is not an integer", id))
	}
	return x, nil
}

// Text is the binary field with the id, "" when it is not there.
func (s Compact) Text(id int16) (string, error) {
	f, ok := s.Get(id)
	if !ok {
		return "", nil
	}
	x, n := binary.Uvarint(f.Raw)
	if f.Type != CompactBinary || n <= 0 || x != uint64(len(f.Raw)-n) {
		return "", badMetadata(fmt.Sprintf("field %d is not text", id))
	}
	return string(f.Raw[n:]), nil
}

// Struct is the struct field with the id, nil when it is not there.
func (s Compact) Struct(id int16) (Compact, error) {
	f, ok := s.Get(id)
	if !ok {
		return nil, nil
	}
	if f.Type != CompactStruct {
		return nil, badMetadata(fmt.Sprintf("field %d is not a struct", id))
	}
	in, _, err := SplitCompact(f.Raw)
	return in, err
}

// Structs calls f with each element of the list field with the id, a struct, split
// and as it stands; not at all when the field is not there.
func (s Compact) Structs(id int16, f func(e Compact, raw []byte) error) error {
	field, ok := s.Get(id)
	if !ok {
		return nil
	}
	if field.Type != CompactList {
		return badMetadata(fmt.Sprintf("field %d is not a list", id))
	}
	elem, count, at, err := compactListHead(field.Raw)
	if err != nil {
		return err
	}
	if elem != CompactStruct && count > 0 {
		return badMetadata(fmt.Sprintf("field %d is not a list of structs", id))
	}
	b := field.Raw[at:]
	for range count {
		e, rest, err := SplitCompact(b)
		if err != nil {
			return err
		}
		if err := f(e, b[:len(b)-len(rest)]); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// Set gives the field its encoded value; a new one is put in by its id.
func (s Compact) Set(id int16, t byte, raw []byte) Compact {
	at := len(s)
	for i, f := range s {
		if f.ID == id {
			s[i] = CompactField{id, t, raw}
			return s
		}
		if f.ID > id {
			at = i
			break
		}
	}
	s = append(s, CompactField{})
	copy(s[at+1:], s[at:])
	s[at] = CompactField{id, t, raw}
	return s
}

// SetInt is Set for an integer type.
func (s Compact) SetInt(id int16, t byte, x int64) Compact {
	return s.Set(id, t, binary.AppendVarint(nil, x))
}

// Drop removes the field.
func (s Compact) Drop(id int16) Compact {
	for i, f := range s {
		if f.ID == id {
			return append(s[:i], s[i+1:]...)
		}
	}
	return s
}

// Append appends the encoded struct.
func (s Compact) Append(dst []byte) []byte { return s.AppendAfter(0, dst) }

// AppendAfter appends the rest of a struct whose last field so far has the id
// last: for a struct with a field too long to be held twice.
func (s Compact) AppendAfter(last int16, dst []byte) []byte {
	for _, f := range s {
		if delta := f.ID - last; delta < 16 {
			dst = append(dst, byte(delta)<<4|f.Type)
		} else {
			dst = append(dst, f.Type)
			dst = binary.AppendVarint(dst, int64(f.ID))
		}
		dst = append(dst, f.Raw...)
		last = f.ID
	}
	return append(dst, 0)
}

// AppendCompactList appends the head of a list; its elements follow.
func AppendCompactList(dst []byte, elem byte, count int) []byte {
	if count < 15 {
		return append(dst, byte(count)<<4|elem)
	}
	return binary.AppendUvarint(append(dst, 0xf0|elem), uint64(count))
}
