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
		raw, _ := AppendEntryOf(nil, fmt.Appendf(nil, "key-%05d", i), i, 0, Hash{1, uint64(i)}, bytes.Repeat([]byte{byte(i)}, 300))
		e, err := DecodeEntry(raw)
		if err != nil || e.Hash != (Hash{1, uint64(i)}) {
			t.Fatal(e.Hash, err)
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

// An entry made of a row of a batch is the one made of its pieces: key, record, and the
// row's hash, which belongs to it and to no other.
func TestEntriesOfRows(t *testing.T) {
	keyer, err := NewKeyer(sortedSchema, []string{"s", "b", "f", "i"})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := drawBatch(t)
		h := NewHashes(sortedSchema)
		b.Hashes, _ = h.h.each(nil, b)
		back := NewBatch(sortedSchema)
		var beside []Hash
		for r := range b.Rows {
			item, place := rapid.Int64Min(0).Draw(t, "item"), rapid.Int64Min(0).Draw(t, "place")
			key, rec := keyer.Append(nil, b, r), b.AppendRecord(nil, r)
			want, _ := AppendEntryOf(nil, key, item, place, h.Rows(b, r, r+1), rec)
			got, keyEnd := AppendEntry([]byte("before"), keyer, b, r, item, place)
			if string(got) != "before"+string(want) || string(got[len("before")+EntryHead:keyEnd]) != string(key) {
				t.Fatalf("%q, %d; want %q", got, keyEnd, want)
			}
			if size, err := EntrySize(keyer, b, r); err != nil || size != len(want) {
				t.Fatalf("%d bytes, %v; it has %d", size, err, len(want))
			}
			e, err := DecodeEntry(append(want, "behind"...))
			if err != nil || e.Size() != len(want) || !bytes.Equal(e.Key, key) || !bytes.Equal(e.Record, rec) || e.Item != item || e.Place != place {
				t.Fatalf("%+v, %v", e, err)
			}
			if _, err := DecodeEntry(want[:len(want)-1]); !errors.Is(err, hayrick.ErrCorrupt) {
				t.Fatalf("cut off: %v", err)
			}
			if err := back.TakeRecord(e.Record); err != nil {
				t.Fatal(err)
			}
			beside = append(beside, e.Hash)
		}
		if sum, err := h.Same(back, beside); err != nil || sum != h.Rows(b, 0, b.Rows) {
			t.Fatal(sum, err)
		}
		beside[rapid.IntRange(0, b.Rows-1).Draw(t, "other")].lo++
		if _, err := h.Same(back, beside); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Fatalf("another hash beside a row: %v", err)
		}
	})
}

// A scanner notes the hash of every row where that is asked for, and a writer that makes
// its row groups in the memory of another one writes the same file.
func TestMemoryOfRowGroups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, before := drawBatch(t), drawBatch(t)
		write := func(b *Batch, old *Batch) ([]byte, *Batch) {
			var out bytes.Buffer
			w, err := NewWriter(&out, sortedSchema, WriterOptions{GroupRows: 7, Group: old})
			if err == nil {
				err = w.AppendBatch(b, 0, b.Rows)
			}
			if err == nil {
				_, err = w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			return out.Bytes(), w.Group()
		}
		_, old := write(before, nil)
		want, _ := write(b, nil)
		got, _ := write(b, old)
		if !bytes.Equal(got, want) {
			t.Fatal("another file")
		}
		f, err := Open(bytes.NewReader(got), int64(len(got)))
		if err != nil {
			t.Fatal(err)
		}
		f.HashRows()
		sc, err := f.Scan(sortedSchema)
		if err != nil {
			t.Fatal(err)
		}
		hashes, n := NewHashes(sortedSchema), 0
		for {
			x, err := sc.Next()
			if err == io.EOF {
				break
			}
			if err != nil || len(x.Hashes) != x.Rows {
				t.Fatal(len(x.Hashes), err)
			}
			for r := range x.Rows {
				if x.Hashes[r] != hashes.Rows(b, n, n+1) {
					t.Fatalf("row %d has another hash", n)
				}
				n++
			}
		}
		if rows, h := sc.Read(); n != b.Rows || rows != int64(n) || h != hashes.Rows(b, 0, b.Rows) {
			t.Fatalf("%d rows with %s", rows, h)
		}
	})
}
