package rows

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hayrick"
)

var sortedSchema = Schema{Fields: []Field{
	{"s", KindString}, {"b", KindBytes}, {"i", KindInt}, {"f", KindFloat}, {"o", KindBool}, {"t", KindTime},
}}

// drawBatch is some rows of every kind, nulls and awkward values among them.
func drawBatch(t *rapid.T) *Batch {
	b := NewBatch(sortedSchema)
	for range rapid.IntRange(1, 20).Draw(t, "rows") {
		for i := range b.Cols {
			c := &b.Cols[i]
			if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
				c.appendNull()
				continue
			}
			v := value{kind: c.Kind}
			switch c.Kind {
			case KindString:
				v.str = rapid.String().Draw(t, "s")
			case KindBytes:
				v.raw = rapid.SliceOf(rapid.Byte()).Draw(t, "b")
			case KindFloat:
				v.num = int64(math.Float64bits(rapid.Float64().Draw(t, "f")))
			case KindBool:
				v.num = int64(rapid.IntRange(0, 1).Draw(t, "o"))
			default:
				v.num = rapid.Int64().Draw(t, "n")
			}
			c.appendValue(&v)
		}
		b.Rows++
	}
	return b
}

// Text of any rows reads back as the same rows, in whatever way it is packed; and
// records of them too.
func TestTextReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := drawBatch(t)
		text := Text{rapid.SampledFrom([]string{"csv", "jsonl"}).Draw(t, "format"), rapid.SampledFrom([]string{"none", "gzip", "zstd"}).Draw(t, "packed")}
		var out bytes.Buffer
		w, err := NewTextWriter(&out, sortedSchema, text)
		if err != nil {
			t.Fatal(err)
		}
		for r := range b.Rows {
			if err := w.AppendRecord(b.AppendRecord(nil, r)); err != nil {
				t.Fatal(err)
			}
		}
		sum, err := w.Close()
		if err != nil || sum.Bytes != int64(out.Len()) || sum.RowHash != NewHashes(sortedSchema).Rows(b, 0, b.Rows) {
			t.Fatalf("%+v, %v", sum, err)
		}
		// Behind another file, from its head on.
		all := slices.Concat(out.Bytes(), out.Bytes()[sum.Head:])
		n, h, err := ReadText(bytes.NewReader(all), sortedSchema, text, nil)
		if err != nil || n != 2*sum.Rows || h != sum.RowHash.Add(sum.RowHash) {
			t.Fatalf("%d rows with %s, %v; want twice %d with %s", n, h, err, sum.Rows, sum.RowHash)
		}
	})
}

// A range of a run has exactly the entries of that range, in order, and a byte that is
// changed anywhere in what was read is found.
func TestRunsAreReadByRangesOfKeys(t *testing.T) {
	var file bytes.Buffer
	w := NewRunWriter(&file, true)
	const n = 4000
	for i := range int64(n) {
		e, err := DecodeEntry(AppendEntry(nil, fmt.Appendf(nil, "key-%05d", i), i, 0, bytes.Repeat([]byte{byte(i)}, 300)))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(&e); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := w.Close()
	if err != nil || sum.Rows != n {
		t.Fatalf("%+v, %v", sum, err)
	}
	read := func(body []byte, lo, hi []byte) (items []int64, err error) {
		run, err := OpenRun(bytes.NewReader(body), int64(len(body)), sum.IndexSHA256)
		if err != nil {
			return nil, err
		}
		for c := run.Within(lo, hi).Scan(lo, hi); ; {
			e, err := c.Next()
			if err == io.EOF {
				return items, nil
			}
			if err != nil {
				return items, err
			}
			items = append(items, e.Item)
		}
	}
	for _, r := range []struct {
		lo, hi      string
		first, last int64
	}{{"", "", 0, n - 1}, {"key-00100", "key-00101", 100, 100}, {"key-001005", "key-002", 101, 199}, {"a", "key-0", 0, -1}, {"key-03", "zzz", 3000, n - 1}, {"z", "zz", 0, -1}} {
		bound := func(s string) []byte {
			if s == "" {
				return nil
			}
			return []byte(s)
		}
		items, err := read(file.Bytes(), bound(r.lo), bound(r.hi))
		if err != nil || int64(len(items)) != r.last-r.first+1 || len(items) > 0 && (items[0] != r.first || items[len(items)-1] != r.last) {
			t.Errorf("%q to %q: %d entries, %v", r.lo, r.hi, len(items), err)
		}
	}
	for at := 0; at < file.Len(); at += 997 {
		body := bytes.Clone(file.Bytes())
		body[at] ^= 0x10
		if items, err := read(body, nil, nil); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Fatalf("byte %d changed: %d entries, %v", at, len(items), err)
		}
	}
}
