package coordinator

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"hayrick"
	"hayrick/manifest"
)

// BenchmarkIndex indexes a JSONL of HAYRICK_BENCH_LINES lines of about 150 bytes
// (default 200,000) at 100 items a batch. HAYRICK_BENCH_FILE names a file to keep
// and use again.
func BenchmarkIndex(b *testing.B) {
	lines := 200_000
	if v := os.Getenv("HAYRICK_BENCH_LINES"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			b.Fatal(err)
		}
		lines = n
	}
	path := os.Getenv("HAYRICK_BENCH_FILE")
	if path == "" {
		path = filepath.Join(b.TempDir(), "input.jsonl")
	}
	if _, err := os.Stat(path); err != nil {
		writeLines(b, path, lines)
	}
	for _, items := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("items=%d", items), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f, err := os.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				x := Indexer{Object: path, Items: items, Go: hayrick.RealWorld("bench").Go}
				got, err := x.Index(b.Context(), f, func(manifest.Batch) error { return nil })
				f.Close()
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(got.Bytes)
			}
		})
	}
}

func writeLines(tb testing.TB, path string, lines int) {
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range lines {
		fmt.Fprintf(w, `{"did":"did:plc:%024d","pds":"pds-%d.demo.invalid","handle":"user-%d.demo.invalid","note":"%048d"}`+"\n", i, i%8, i, i)
	}
	if err := w.Flush(); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
}
