package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"hayrick"
	"hayrick/manifest"
)

// goPlainly starts a goroutine, but for puts: a simulated crash is the panic of the
// goroutine that submits.
func goPlainly(name string, f func()) {
	if name == "put" {
		f()
		return
	}
	go f()
}

func indexAll(x Indexer, r io.Reader) (batches []manifest.Batch, got Indexed, err error) {
	x.Go = goPlainly
	if x.Object == "" {
		x.Object = "in.jsonl"
	}
	got, err = x.Index(context.Background(), r, func(b manifest.Batch) error {
		b.BatchID = manifest.BatchID(int64(len(batches)))
		batches = append(batches, b)
		return nil
	})
	return batches, got, err
}

// naive is what the records of a JSONL are, said in the shortest way.
func naive(data []byte) (records []string, lines []int64) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	for i, line := range strings.Split(string(data), "\n") {
		if rec := strings.Trim(line, " \t\r"); rec != "" {
			records, lines = append(records, rec), append(lines, int64(i+1))
		}
	}
	return records, lines
}

// naiveSizes is how many items each batch has, said in the shortest way.
func naiveSizes(data []byte, x Indexer) (sizes []int) {
	at, begins, n, all := 0, 0, 0, int64(0)
	for i, line := range strings.SplitAfter(string(data), "\n") {
		text := line
		if i == 0 {
			text = strings.TrimPrefix(line, "\xef\xbb\xbf")
		}
		at += len(line)
		rest := strings.TrimLeft(strings.TrimSuffix(text, "\n"), " \t\r")
		if rest == "" || x.Limit > 0 && all == x.Limit {
			continue
		}
		if n == 0 {
			begins = at - len(strings.TrimLeft(text, " \t\r"))
		}
		n, all = n+1, all+1
		if n == x.Items || x.Bytes > 0 && int64(at-begins) >= x.Bytes || all == x.Limit {
			sizes, n = append(sizes, n), 0
		}
	}
	if n > 0 {
		sizes = append(sizes, n)
	}
	return sizes
}

// opened reads every batch's range as a worker does.
func opened(data []byte, batches []manifest.Batch) (items []manifest.BatchItem, err error) {
	for _, b := range batches {
		part, err := manifest.OpenBatch(b, bytes.NewReader(data[b.Offset:b.Offset+b.Length]))
		if err != nil {
			return nil, err
		}
		items = append(items, part...)
	}
	return items, nil
}

// 002-01: whatever bytes an input has, its batches open to exactly its records, in
// order, each with its ordinal and line; every batch but the last is full, of items or of bytes.
func TestIndexFindsEveryRecordOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{
			"\n", "\r\n", " ", "\t", "\r", "\xef\xbb\xbf", "\x00", "\xff", "x", `{"a":1}`, "\n\n", " \n", strings.Repeat("y", 40),
		})
		data := []byte(strings.Join(rapid.SliceOf(part).Draw(t, "parts"), ""))
		x := Indexer{
			Items: rapid.IntRange(1, 5).Draw(t, "items"),
			Bytes: int64(rapid.SampledFrom([]int{0, 0, 1, 2, 5, 20, 60}).Draw(t, "bytes")),
			Limit: int64(rapid.IntRange(0, 6).Draw(t, "limit")),
			chunk: rapid.IntRange(3, 70).Draw(t, "chunk"),
		}
		reader := rapid.SampledFrom([]func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
		}).Draw(t, "reader")

		batches, got, err := indexAll(x, reader(bytes.NewReader(data)))
		if err != nil {
			t.Fatal(err)
		}
		records, lines := naive(data)
		if x.Limit > 0 && x.Limit < int64(len(records)) {
			records, lines = records[:x.Limit], lines[:x.Limit]
		}
		items, err := opened(data, batches)
		if err != nil {
			t.Fatal(err)
		}
		if len(items) != len(records) || got.Items != int64(len(records)) {
			t.Fatalf("%d items, %d counted, want %d", len(items), got.Items, len(records))
		}
		for i, it := range items {
			if string(it.Data) != records[i] || it.Line != lines[i] || it.Ordinal != int64(i) {
				t.Fatalf("item %d is %q (ordinal %d, line %d), want %q on line %d", i, it.Data, it.Ordinal, it.Line, records[i], lines[i])
			}
		}
		end, sizes := int64(0), naiveSizes(data, x)
		if len(batches) != len(sizes) {
			t.Fatalf("%d batches, want %v", len(batches), sizes)
		}
		for i, b := range batches {
			if b.Offset < end || i >= len(sizes) || b.Items != sizes[i] {
				t.Fatalf("batch %d of %d: %+v after byte %d, want batches of %v items", i, len(batches), b, end, sizes)
			}
			end = b.Offset + b.Length
		}
	})
}

func TestIndexCases(t *testing.T) {
	type batch struct {
		offset, length, ordinal, line int64
		items                         int
	}
	for _, tc := range []struct {
		name, data string
		limit      int64
		want       []batch
	}{
		{"empty", "", 0, nil},
		{"only white space", " \n\t\r\n\n  ", 0, nil},
		{"a byte order mark alone", "\xef\xbb\xbf", 0, nil},
		{"one without newline", "a", 0, []batch{{0, 1, 0, 1, 1}}},
		{"a byte order mark", "\xef\xbb\xbfa\nb\n", 0, []batch{{3, 4, 0, 1, 2}}},
		{"CRLF", "a\r\nb\r\nc\r\n", 0, []batch{{0, 6, 0, 1, 2}, {6, 3, 2, 3, 1}}},
		{"blank lines between batches are in none", "\n\na\n\nb\n\n \nc\n\n", 0, []batch{{2, 5, 0, 3, 2}, {10, 3, 2, 8, 1}}},
		{"blank lines behind a full batch are in none", "a\nb\n\n\n", 0, []batch{{0, 4, 0, 1, 2}}},
		{"indentation is left out at the start of a batch", "  a\n  b\n", 0, []batch{{2, 6, 0, 1, 2}}},
		{"binary is a record, judged when it is opened", "\x00\xff\n", 0, []batch{{0, 3, 0, 1, 1}}},
		{"equal records are items of their own", "a\na\na\n", 0, []batch{{0, 4, 0, 1, 2}, {4, 2, 2, 3, 1}}},
		{"a limit inside a batch", "a\nb\nc\nd\n", 3, []batch{{0, 4, 0, 1, 2}, {4, 2, 2, 3, 1}}},
		{"a limit beyond the end", "a\nb\nc", 9, []batch{{0, 4, 0, 1, 2}, {4, 1, 2, 3, 1}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, chunk := range []int{3, 4, 64} {
				batches, _, err := indexAll(Indexer{Items: 2, Limit: tc.limit, chunk: chunk}, strings.NewReader(tc.data))
				if err != nil {
					t.Fatal(err)
				}
				var got []batch
				for _, b := range batches {
					got = append(got, batch{b.Offset, b.Length, b.FirstOrdinal, b.FirstLine, b.Items})
					if sha := manifest.SHA256([]byte(tc.data[b.Offset : b.Offset+b.Length])); b.SHA256 != sha {
						t.Errorf("chunk %d: batch at %d has SHA-256 %s, want %s", chunk, b.Offset, b.SHA256, sha)
					}
				}
				if !slices.Equal(got, tc.want) {
					t.Errorf("chunk %d: got %+v\nwant %+v", chunk, got, tc.want)
				}
			}
		})
	}
}

// The production chunk sizes, with batches that span many chunks and chunks that
// hold many batches.
func TestIndexAcrossChunks(t *testing.T) {
	var data bytes.Buffer
	for i := range 60_000 {
		fmt.Fprintf(&data, "{\"n\":%d,\"pad\":%q}\n", i, strings.Repeat("z", i%41))
	}
	for _, items := range []int{1, 2, 7, 100, 25_000, 1 << 60} {
		batches, got, err := indexAll(Indexer{Items: items}, bytes.NewReader(data.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if want := (60_000-1)/items + 1; len(batches) != want || got.Bytes != int64(data.Len()) {
			t.Errorf("items=%d: %d batches of %d bytes, want %d of %d", items, len(batches), got.Bytes, want, data.Len())
		}
		all, err := opened(data.Bytes(), batches)
		if err != nil || len(all) != 60_000 {
			t.Errorf("items=%d: %d items: %v", items, len(all), err)
		}
	}
}

func TestIndexRefuses(t *testing.T) {
	long := "a\nb\n" + strings.Repeat("c", 100) + "\nd\n"
	for _, tc := range []struct {
		name string
		x    Indexer
		data string
		want string
	}{
		{"no batch size", Indexer{Items: 0}, "a\n", "batch.items is 0"},
		{"a line that ends too late", Indexer{Items: 9, maxLine: 99, chunk: 256}, long, "in.jsonl:3 is longer than 99 bytes"},
		{"a line without an end", Indexer{Items: 9, maxLine: 99, chunk: 16}, long[:90] + strings.Repeat("c", 100), "in.jsonl:3 is longer than 99 bytes"},
		{"a batch", Indexer{Items: 9, maxBatch: 50, chunk: 16}, strings.Repeat("a\n", 99), ""},
		{"a batch in many lines", Indexer{Items: 90, maxBatch: 50, chunk: 16}, strings.Repeat("a\n", 99), "the batch of 90 items at in.jsonl:1 is longer than 50 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := indexAll(tc.x, strings.NewReader(tc.data))
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var user *hayrick.UserError
			if !errors.As(err, &user) || user.What != tc.want || user.Hint == "" {
				t.Fatalf("got %v, want %q with a hint", err, tc.want)
			}
		})
	}
}

// A body that is cut is not the end of the input, even when the cut looks like one.
func TestIndexPassesReadErrorsOn(t *testing.T) {
	for _, want := range []error{io.ErrUnexpectedEOF, errors.New("disk on fire")} {
		for _, chunk := range []int{4, 1024} {
			r := io.MultiReader(strings.NewReader("a\nb\nc\n"), iotest.ErrReader(want))
			if _, _, err := indexAll(Indexer{Items: 2, chunk: chunk}, r); !errors.Is(err, want) {
				t.Errorf("chunk %d: got %v, want %v", chunk, err, want)
			}
		}
	}
}

func TestIndexStops(t *testing.T) {
	defer goleak.VerifyNone(t)
	data := strings.Repeat("abc\n", 100_000)

	enough := errors.New("enough")
	x := Indexer{Object: "in.jsonl", Items: 3, Go: goPlainly}
	n := 0
	_, err := x.Index(t.Context(), strings.NewReader(data), func(manifest.Batch) error {
		if n++; n == 1000 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 1000 {
		t.Errorf("got %v after %d batches, want %v after 1000", err, n, enough)
	}

	ctx, cancel := context.WithCancel(t.Context())
	n = 0
	_, err = x.Index(ctx, strings.NewReader(data), func(manifest.Batch) error {
		if n++; n == 1000 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != 1000 {
		t.Errorf("got %v after %d batches, want %v after 1000", err, n, context.Canceled)
	}

	// A crash in emit, as fault injection has it, leaves no goroutine behind.
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not come through")
			}
		}()
		x.Index(t.Context(), strings.NewReader(data), func(manifest.Batch) error { panic("crash") })
	}()
}

func TestIndexReportsProgress(t *testing.T) {
	var lastBytes, lastItems int64
	calls := 0
	x := Indexer{Items: 2, chunk: 8, Progress: func(bytes, items int64) {
		if bytes < lastBytes || items < lastItems {
			t.Errorf("progress went back: %d bytes, %d items", bytes, items)
		}
		lastBytes, lastItems = bytes, items
		calls++
	}}
	if _, _, err := indexAll(x, strings.NewReader(strings.Repeat("a\n", 20)+"b")); err != nil {
		t.Fatal(err)
	}
	if lastBytes != 41 || lastItems != 21 || calls != 6 {
		t.Errorf("%d bytes, %d items after %d calls, want 41, 21 after 6", lastBytes, lastItems, calls)
	}
}
