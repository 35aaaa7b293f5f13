package coordinator

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hayrick/manifest"
)

// BenchmarkIndex indexes a JSONL of HAYRICK_BENCH_LINES lines of about 165 bytes
// (default 200,000), beside `openssl dgst -sha256` of the same file where that is
// installed, and reports how many times as fast it is, and the peak RSS of the
// process. HAYRICK_BENCH_FILE names a file to keep and use again.
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
	for _, items := range []int{100, 1, 10_000, 1 << 40} {
		b.Run(fmt.Sprintf("items=%d", items), func(b *testing.B) {
			var index, openssl time.Duration
			for b.Loop() {
				d, ok := hashWithOpenSSL(path)
				if !ok {
					openssl = 0
				}
				openssl += d
				start := time.Now()
				f, err := os.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				x := Indexer{Object: path, Items: items, Go: goPlainly, maxBatch: 1 << 60}
				if _, err = x.Index(b.Context(), f, func(manifest.Batch) error { return nil }); err != nil {
					b.Fatal(err)
				}
				f.Close()
				index += time.Since(start)
			}
			b.ReportMetric(index.Seconds()/float64(b.N), "index-s")
			if openssl > 0 {
				b.ReportMetric(openssl.Seconds()/index.Seconds(), "x-openssl")
			}
			if mib, ok := peakRSS(); ok {
				b.ReportMetric(mib, "peak-RSS-MiB")
			}
		})
	}
}

func hashWithOpenSSL(path string) (time.Duration, bool) {
	start := time.Now()
	err := exec.Command("openssl", "dgst", "-sha256", path).Run()
	return time.Since(start), err == nil
}

// peakRSS is the most memory this process ever had, where /proc tells.
func peakRSS() (mib float64, ok bool) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	_, rest, ok := strings.Cut(string(status), "VmHWM:")
	if !ok {
		return 0, false
	}
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kib / 1024, err == nil
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
