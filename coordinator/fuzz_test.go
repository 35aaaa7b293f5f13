package coordinator

import (
	"bytes"
	"testing"
	"testing/iotest"
)

// FuzzIndex: whatever bytes an input has, its batches open to exactly the records that a
// split finds, in order, each with its ordinal and line; and batches are the same however
// the input is cut into reads and chunks.
func FuzzIndex(f *testing.F) {
	for _, s := range []string{"", "\n", "{\"a\":1}\n{\"b\":2}", "\xef\xbb\xbf\n x \r\n\n\xff\x00\n", "a\n\n\nb\n \t\nc", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nb"} {
		f.Add([]byte(s), uint8(2), uint8(0), uint8(0), uint8(3))
		f.Add([]byte(s), uint8(1), uint8(5), uint8(2), uint8(64))
	}
	f.Fuzz(func(t *testing.T, data []byte, items, size, limit, chunk uint8) {
		x := Indexer{Items: 1 + int(items), Bytes: int64(size), Limit: int64(limit), chunk: 3 + int(chunk)}
		batches, got, err := indexAll(x, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		records, lines := naive(data)
		if limit > 0 && int(limit) < len(records) {
			records, lines = records[:limit], lines[:limit]
		}
		read, err := opened(data, batches)
		if err != nil {
			t.Fatal(err)
		}
		if len(read) != len(records) || got.Items != int64(len(records)) {
			t.Fatalf("%d items, %d counted, want %d", len(read), got.Items, len(records))
		}
		for i, it := range read {
			if string(it.Data) != records[i] || it.Line != lines[i] || it.Ordinal != int64(i) {
				t.Fatalf("item %d is %q (ordinal %d, line %d), want %q on line %d", i, it.Data, it.Ordinal, it.Line, records[i], lines[i])
			}
		}
		for i, n := range naiveSizes(data, x) {
			if i >= len(batches) || batches[i].Items != n {
				t.Fatalf("batch %d of %d has not %d items", i, len(batches), n)
			}
		}
		x.chunk = 64
		again, _, err := indexAll(x, iotest.OneByteReader(bytes.NewReader(data)))
		if err != nil || len(again) != len(batches) {
			t.Fatalf("in other pieces there are %d batches, want %d: %v", len(again), len(batches), err)
		}
		for i := range again {
			if again[i] != batches[i] {
				t.Fatalf("in other pieces batch %d is %+v, want %+v", i, again[i], batches[i])
			}
		}
	})
}
