// The race detector keeps a shadow of every byte: what a process takes under it says
// nothing of the code.

//go:build linux && !race

package rows

import (
	"bytes"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
)

// A row of a hundred megabytes is in memory a few times, and no oftener: what is allocated
// for it, all in all, is bounded by so many times its size.
func TestHugeRowsAreNotCopied(t *testing.T) {
	const size = 30 << 20
	schema := fields("blob:bytes uri:string")
	b := NewBatch(schema)
	b.Cols[0].appendValue(&value{kind: KindBytes, raw: noise(size)})
	b.Cols[1].appendValue(&value{kind: KindString, str: "at://a"})
	b.Rows = 1
	hashes := NewHashes(schema)
	b.Hashes = []Hash{hashes.Rows(b, 0, 1)}
	keyer, err := NewKeyer(schema, []string{"uri"})
	if err != nil {
		t.Fatal(err)
	}
	entrySize, err := EntrySize(keyer, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := AppendEntry(make([]byte, 0, entrySize), keyer, b, 0, 1, 0)
	var file, run bytes.Buffer
	file.Grow(size + 1<<20)
	run.Grow(2*size + 1<<20)
	var sum Summary
	var ran RunSummary
	for _, x := range []struct {
		what  string
		times float64
		do    func() error
	}{
		{"hash", 0.1, func() error { hashes.Rows(b, 0, 1); return nil }},
		// In the row group, encoded, in a page, in a packed page.
		{"write", 4.5, func() error {
			w, err := NewWriter(&file, schema, WriterOptions{Rows: 10, GroupBytes: size / 2})
			if err == nil {
				err = w.AppendBatch(b, 0, 1)
			}
			if err == nil {
				sum, err = w.Close()
			}
			return err
		}},
		// A packed page, a page, a batch.
		{"read", 3.5, func() error { return Verify(bytes.NewReader(file.Bytes()), sum.Bytes, sum.Rows, sum.RowHash) }},
		{"entry", 0.1, func() error { AppendEntry(raw[:0], keyer, b, 0, 1, 0); return nil }},
		// Two packed blocks, one after the other.
		{"write a run", 2.6, func() error {
			w := NewRunWriter(&run, false)
			for i := range 2 {
				raw, _ := AppendEntry(raw[:0], keyer, b, 0, int64(i), 0)
				e, err := DecodeEntry(raw)
				if err == nil {
					err = w.Add(&e)
				}
				if err != nil {
					return err
				}
			}
			var err error
			ran, err = w.Close()
			return err
		}},
		// Two packed blocks, one after the other, and one that takes turns.
		{"read a run", 3.5, func() error {
			r, err := OpenRun(bytes.NewReader(run.Bytes()), ran.Bytes, ran.IndexSHA256)
			if err != nil {
				return err
			}
			for c := r.Scan(nil, nil); err == nil; {
				_, err = c.Next()
			}
			if err == io.EOF {
				err = nil
			}
			return err
		}},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := x.do()
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatalf("%s: %v", x.what, err)
		}
		if got := float64(after.TotalAlloc-before.TotalAlloc) / size; got > x.times {
			t.Errorf("%s: %.2f times the row, at most %.2f", x.what, got, x.times)
		} else {
			t.Logf("%s: %.2f times the row", x.what, got)
		}
	}
}

// noise is what no compression makes smaller.
func noise(n int) []byte {
	out := make([]byte, n)
	r := rand.NewChaCha8([32]byte{})
	r.Read(out)
	return out
}
