package atrepo

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

// maxNesting bounds maps and arrays within each other. The atproto data model
// allows 32 levels.
const maxNesting = 64

var errShort = errors.New("the data ends in the middle of a value")

// The major types of CBOR, and the tag of a CID.
const (
	majUint = iota
	majNegative
	majBytes
	majText
	majArray
	majMap
	majTag
	majSimple
	tagCID = 42
)

// toJSON writes one DAG-CBOR value as JSON text in the form of the atproto data
// model: links as {"$link": "bafy..."}, bytes as {"$bytes": "<base64 without
// padding>"}. Map keys keep the order of the data, so equal records are equal
// texts; a key that is there twice is an error, since readers of JSON disagree on
// what it means. createdAt is the text at that key of the outermost map, "" when
// there is none.
//
// Floating-point numbers are not in the data model; records that hold some
// are in the network, so finite ones are kept.
func toJSON(data []byte) (text []byte, createdAt string, err error) {
	t := transcoder{all: data, in: data, out: make([]byte, 0, len(data)*5/4+16)}
	if err := t.value(0); err != nil {
		return nil, "", err
	}
	if len(t.in) > 0 {
		return nil, "", fmt.Errorf("%d bytes after the value", len(t.in))
	}
	return t.out, t.createdAt, nil
}

// checkNesting says whether data is one CBOR value of bounded depth.
func checkNesting(data []byte) error {
	_, _, err := toJSON(data)
	return err
}

type transcoder struct {
	all       []byte
	in        []byte // what is left of it
	out       []byte
	keys      []span // of the maps that are open
	createdAt string
}

// span is a stretch of transcoder.all. Blocks have less than 4 GiB.
type span struct{ from, to uint32 }

// head reads the head of a value: its major type, its argument, and the five
// low bits that say how the argument was written. Indefinite lengths are not
// DAG-CBOR.
func (t *transcoder) head() (major byte, arg uint64, info byte, err error) {
	if len(t.in) == 0 {
		return 0, 0, 0, errShort
	}
	major, info = t.in[0]>>5, t.in[0]&0x1f
	t.in = t.in[1:]
	if info < 24 {
		return major, uint64(info), info, nil
	}
	if info > 27 {
		return 0, 0, 0, fmt.Errorf("additional information %d is not in DAG-CBOR", info)
	}
	var b [8]byte
	n := 1 << (info - 24)
	if len(t.in) < n {
		return 0, 0, 0, errShort
	}
	copy(b[8-n:], t.in)
	t.in = t.in[n:]
	return major, binary.BigEndian.Uint64(b[:]), info, nil
}

// take returns the next n bytes.
func (t *transcoder) take(n uint64) ([]byte, error) {
	if n > uint64(len(t.in)) {
		return nil, errShort
	}
	b := t.in[:n]
	t.in = t.in[n:]
	return b, nil
}

func (t *transcoder) value(depth int) error {
	major, arg, info, err := t.head()
	if err != nil {
		return err
	}
	switch major {
	case majUint:
		t.out = strconv.AppendUint(t.out, arg, 10)
		return nil
	case majNegative:
		if arg > math.MaxInt64 {
			return errors.New("a negative integer of more than 64 bits")
		}
		t.out = strconv.AppendInt(t.out, -1-int64(arg), 10)
		return nil
	case majBytes:
		b, err := t.take(arg)
		if err != nil {
			return err
		}
		t.out = append(t.out, `{"$bytes":"`...)
		t.out = base64.RawStdEncoding.AppendEncode(t.out, b)
		t.out = append(t.out, `"}`...)
		return nil
	case majText:
		_, err := t.text(arg)
		return err
	case majArray, majMap:
		if depth >= maxNesting {
			return fmt.Errorf("nested deeper than %d", maxNesting)
		}
		if major == majMap {
			return t.mapping(arg, depth)
		}
		return t.array(arg, depth)
	case majTag:
		return t.link(arg)
	}
	return t.simple(arg, info)
}

func (t *transcoder) array(n uint64, depth int) error {
	t.out = append(t.out, '[')
	for i := uint64(0); i < n; i++ {
		if i > 0 {
			t.out = append(t.out, ',')
		}
		if err := t.value(depth + 1); err != nil {
			return err
		}
	}
	t.out = append(t.out, ']')
	return nil
}

func (t *transcoder) mapping(n uint64, depth int) error {
	t.out = append(t.out, '{')
	first := len(t.keys)
	for i := uint64(0); i < n; i++ {
		if i > 0 {
			t.out = append(t.out, ',')
		}
		major, arg, _, err := t.head()
		if err != nil {
			return err
		}
		if major != majText {
			return errors.New("a map key is not text")
		}
		key, err := t.text(arg)
		if err != nil {
			return err
		}
		end := uint32(len(t.all) - len(t.in))
		t.keys = append(t.keys, span{end - uint32(len(key)), end})
		t.out = append(t.out, ':')
		if depth == 0 && string(key) == "createdAt" {
			t.createdAt = peekText(t.in)
		}
		if err := t.value(depth + 1); err != nil {
			return err
		}
	}
	t.out = append(t.out, '}')
	err := t.unique(t.keys[first:])
	t.keys = t.keys[:first]
	return err
}

// unique says whether the keys of a map differ. DAG-CBOR has them sorted, shorter
// ones first; others are sorted here.
func (t *transcoder) unique(keys []span) error {
	order := func(a, b span) int {
		if c := cmp.Compare(a.to-a.from, b.to-b.from); c != 0 {
			return c
		}
		return bytes.Compare(t.all[a.from:a.to], t.all[b.from:b.to])
	}
	if !slices.IsSortedFunc(keys, order) {
		slices.SortFunc(keys, order)
	}
	for i := 1; i < len(keys); i++ {
		if order(keys[i-1], keys[i]) == 0 {
			return fmt.Errorf("the key %.40q is there twice", t.all[keys[i].from:keys[i].to])
		}
	}
	return nil
}

// peekText returns the text that data begins with, "" when it is something else.
func peekText(data []byte) string {
	p := transcoder{in: data}
	major, arg, _, err := p.head()
	if err != nil || major != majText {
		return ""
	}
	b, err := p.take(arg)
	if err != nil {
		return ""
	}
	return string(b)
}

func (t *transcoder) link(tag uint64) error {
	if tag != tagCID {
		return fmt.Errorf("tag %d is not in DAG-CBOR", tag)
	}
	major, arg, _, err := t.head()
	if err != nil {
		return err
	}
	b, err := t.take(arg)
	if err != nil {
		return err
	}
	if major != majBytes || len(b) == 0 || b[0] != 0 {
		return errors.New("a link is not a CID")
	}
	c, err := cid.Cast(b[1:])
	if err != nil {
		return fmt.Errorf("a link is not a CID: %v", err)
	}
	t.out = append(t.out, `{"$link":"`...)
	t.out = append(t.out, c.String()...)
	t.out = append(t.out, `"}`...)
	return nil
}

// simple writes false, true, null and numbers with a fraction.
func (t *transcoder) simple(arg uint64, info byte) error {
	var f float64
	switch info {
	case 20:
		t.out = append(t.out, "false"...)
		return nil
	case 21:
		t.out = append(t.out, "true"...)
		return nil
	case 22:
		t.out = append(t.out, "null"...)
		return nil
	case 26:
		f = float64(math.Float32frombits(uint32(arg)))
	case 27:
		f = math.Float64frombits(arg)
	default:
		return fmt.Errorf("simple value %d is not in DAG-CBOR", arg)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return errors.New("a number that JSON cannot write")
	}
	t.out = strconv.AppendFloat(t.out, f, 'g', -1, 64)
	return nil
}

// text writes n bytes of text as a JSON string and returns them.
func (t *transcoder) text(n uint64) ([]byte, error) {
	b, err := t.take(n)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(b) {
		return nil, errors.New("text is not UTF-8")
	}
	const hex = "0123456789abcdef"
	t.out = append(t.out, '"')
	for _, c := range b {
		switch {
		case c == '"' || c == '\\':
			t.out = append(t.out, '\\', c)
		case c == '\n':
			t.out = append(t.out, '\\', 'n')
		case c == '\r':
			t.out = append(t.out, '\\', 'r')
		case c == '\t':
			t.out = append(t.out, '\\', 't')
		case c < 0x20:
			t.out = append(t.out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			t.out = append(t.out, c)
		}
	}
	t.out = append(t.out, '"')
	return b, nil
}
