package rows

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"hayrick"
)

// Damaged files are errors, never panics, and never accepted: what a scan
// gives out in the end is the committed rows or is refused by their hash.
func TestDamagedFiles(t *testing.T) {
	rows := randomRows(8, 400)
	s := schemaOf(t, rows)
	whole, sum := encode(t, s, WriterOptions{GroupRows: 150}, rows)
	check := func(what string, b []byte) (refused bool) {
		t.Helper()
		err := Verify(bytes.NewReader(b), int64(len(b)), sum.Rows, sum.RowHash)
		if err != nil && !errors.Is(err, hayrick.ErrCorrupt) && !errors.Is(err, ErrKind) {
			t.Fatalf("%s: %v", what, err)
		}
		return err != nil
	}
	for n := 0; n < len(whole); n += 1 + len(whole)/97 {
		if !check("cut", whole[:n]) {
			t.Errorf("a file cut to %d of %d bytes is accepted", n, len(whole))
		}
	}
	rng := rand.New(rand.NewPCG(4, 4))
	footer := len(whole) - 8 - int(binary.LittleEndian.Uint32(whole[len(whole)-8:]))
	inFooter, inData := 0, 0
	for i := range 600 {
		b := append([]byte(nil), whole...)
		from, to := footer, len(b)
		if i%3 == 0 {
			from, to = 0, footer
		}
		for range 1 + rng.IntN(4) {
			at := from + rng.IntN(to-from)
			b[at] ^= byte(1 + rng.IntN(255))
		}
		if refused := check("flipped", b); refused && from == 0 {
			inData++
		} else if refused {
			inFooter++
		}
	}
	// Flips that change no row (in statistics, indexes, a checksum nobody reads) may
	// pass; most must not.
	if inFooter < 200 || inData < 100 {
		t.Errorf("refused: %d of 400 with a damaged footer, %d of 200 with damaged data", inFooter, inData)
	}
}

func FuzzOpen(f *testing.F) {
	rows := randomRows(8, 40)
	var o Observer
	for _, r := range rows {
		o.Observe(r)
	}
	whole, _ := encode(f, o.Schema(), WriterOptions{GroupRows: 15}, rows)
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := decode(b, Schema{}); err != nil && !errors.Is(err, hayrick.ErrCorrupt) && !errors.Is(err, ErrKind) {
			t.Fatal(err)
		}
	})
}

// Footers that claim the moon cost nothing: a list, a length or a chunk that the
// file cannot hold is refused before memory is taken for it.
func TestHostileClaims(t *testing.T) {
	wrap := func(footer []byte) []byte {
		b := append([]byte(magic), footer...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(footer)))
		return append(b, magic...)
	}
	deep := bytes.Repeat([]byte{0x1c}, 1<<20)
	var nested []byte // a million columns, each within the last
	nested = append(nested, 0x15, 2, 0x19)
	nested = AppendCompactList(nested, CompactStruct, 1<<20)
	for range 1 << 20 {
		nested = append(nested, 0x48, 1, 'a', 0x15, 2, 0)
	}
	nested = append(nested, 0x16, 0, 0x19, 0x0c, 0)
	for name, b := range map[string][]byte{
		"schema of 2^31 columns":   wrap([]byte{0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0}),
		"text of 2^40 bytes":       wrap([]byte{0x15, 2, 0x68, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0}),
		"structs in structs":       wrap(deep),
		"lists in lists":           wrap(append([]byte{0x15, 2, 0x19}, bytes.Repeat([]byte{0x19}, 32<<20)...)),
		"columns in columns":       wrap(nested),
		"footer longer than file":  append([]byte("PAR1\xff\xff\xff\x7f"), magic...),
		"footer over the magic":    append([]byte("PAR1\x00\x08\x00\x00\x00"), magic...),
		"fields twice":             wrap([]byte{0x15, 2, 0x05, 2, 2, 0}),
		"an encrypted file":        []byte("PARE\x00\x00\x00\x00\x00\x00PARE"),
		"no footer at all":         []byte("PAR1PAR1"),
		"something else":           bytes.Repeat([]byte("x"), 1000),
		"rows beyond what is here": claims(t, metaRows, math.MaxInt64),
	} {
		before := allocated()
		_, _, err := decode(b, Schema{})
		if !errors.Is(err, hayrick.ErrCorrupt) && !errors.Is(err, ErrKind) {
			t.Errorf("%s: %v", name, err)
		}
		if used := allocated() - before; used > 16<<20+4*uint64(len(b)) {
			t.Errorf("%s: %d bytes were allocated for a file of %d", name, used, len(b))
		}
	}
}

const metaRows = 3

// claims is a sound file but for one number of its footer.
func claims(t *testing.T, field int16, x int64) []byte {
	rows := randomRows(1, 10)
	b, _ := encode(t, schemaOf(t, rows), WriterOptions{}, rows)
	f, err := ReadFooter(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	raw := f.Meta.SetInt(field, CompactI64, x).Append(nil)
	b = append(b[:f.At:f.At], raw...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(raw)))
	return append(b, magic...)
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// flaky fails to read beyond some byte.
type flaky struct {
	io.ReaderAt
	from int64
}

var errCable = errors.New("cable pulled")

func (f flaky) ReadAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > f.from && at < f.from+10 {
		return 0, errCable
	}
	return f.ReaderAt.ReadAt(p, at)
}

// A reader that fails is not a file that is damaged: the caller may try again.
func TestReadErrorsAreNotDamage(t *testing.T) {
	rows := randomRows(8, 3000)
	whole, sum := encode(t, schemaOf(t, rows), WriterOptions{GroupRows: 1000}, rows)
	for at := int64(0); at < sum.Bytes; at += sum.Bytes / 23 {
		err := Verify(flaky{bytes.NewReader(whole), at}, sum.Bytes, sum.Rows, sum.RowHash)
		if !errors.Is(err, errCable) || errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("at %d of %d: %v", at, sum.Bytes, err)
		}
	}
}

func TestCompactKeepsWhatItDoesNotKnow(t *testing.T) {
	rows := randomRows(8, 300)
	whole, sum := encode(t, schemaOf(t, rows), WriterOptions{GroupRows: 100}, rows)
	f, err := ReadFooter(bytes.NewReader(whole), sum.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if again := f.Meta.Append(nil); !bytes.Equal(again, f.Raw) {
		t.Error("splitting and appending changed the footer")
	}
	groups := 0
	if err := f.Meta.Structs(4, func(g Compact, raw []byte) error {
		if groups++; !bytes.Equal(g.Append(nil), raw) {
			t.Error("a row group changed")
		}
		return nil
	}); err != nil || groups != 3 {
		t.Error(groups, err)
	}

	s := Compact{}.SetInt(7, CompactI16, -3).Set(40, CompactTrue, nil).SetInt(2, CompactI64, math.MinInt64).SetInt(7, CompactI16, 5).SetInt(9, CompactI32, 1).Drop(9)
	back, rest, err := SplitCompact(append(s.Append(nil), "tail"...))
	if err != nil || string(rest) != "tail" || len(back) != 3 {
		t.Fatal(back, rest, err)
	}
	for id, want := range map[int16]int64{2: math.MinInt64, 7: 5, 9: 0} {
		if x, err := back.Int(id); x != want || err != nil {
			t.Errorf("field %d is %d, %v", id, x, err)
		}
	}
	if _, err := back.Int(40); err == nil {
		t.Error("a bool is read as a number")
	}
}
