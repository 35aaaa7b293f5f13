// The race detector keeps a shadow of every byte: what a process takes under it says
// nothing of the code.

//go:build linux && !race

package records

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// hugeForm says to a child which of hugeRecords it takes.
const hugeForm = "HAYRICK_TEST_HUGE_RECORD"

const (
	hugeRecord = 100 << 20
	hugeMost   = 101 << 20
)

// letters is n bytes of text.
func letters(n int) io.Reader {
	return &repeated{what: strings.Repeat("abcdefgh", 4<<10), n: n / (32 << 10)}
}

// bomb packs n bytes of one line: some kilobytes.
func bomb(n int, writer func(io.Writer) io.WriteCloser) io.Reader {
	var out bytes.Buffer
	w := writer(&out)
	io.Copy(w, letters(n))
	w.Close()
	return &out
}

// hugeRecords are inputs with a record of 100 MB between two small ones, or with a line
// that never ends in a small packed file.
var hugeRecords = map[string]struct {
	o    func(*Options)
	src  func() io.Reader
	fail string
}{
	"lines": {func(o *Options) { o.Format = "lines" }, func() io.Reader {
		return io.MultiReader(strings.NewReader("a\n"), letters(hugeRecord), strings.NewReader("\nb\n"))
	}, ""},
	"csv": {func(o *Options) { o.Format, o.Columns = "csv", []string{"a", "b"} }, func() io.Reader {
		return io.MultiReader(strings.NewReader("a,b\n\"x\ny\","), letters(hugeRecord), strings.NewReader("\nc,d\n"))
	}, ""},
	"jsonl-checked": {func(o *Options) {
		o.Format, o.Check = "jsonl", func([]byte) (string, int) { return "", 0 }
	}, func() io.Reader {
		return io.MultiReader(strings.NewReader("{}\n{\"a\":\""), letters(hugeRecord), strings.NewReader("\"}\n{}\n"))
	}, ""},
	"gzip bomb": {func(o *Options) { o.Format, o.Packed = "csv", "gzip" }, func() io.Reader {
		return bomb(hugeMost+hugeMost/4, func(w io.Writer) io.WriteCloser {
			z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
			return z
		})
	}, "is longer than"},
	"zstd bomb": {func(o *Options) { o.Format, o.Packed = "lines", "zstd" }, func() io.Reader {
		return bomb(hugeMost+hugeMost/4, func(w io.Writer) io.WriteCloser {
			z, _ := zstd.NewWriter(w, zstd.WithWindowSize(8<<20))
			return z
		})
	}, "is longer than"},
}

// A record of 100 MB is held once or a few times, and a small file that unpacks to a line
// without end takes no more than the longest record would. Bytes of a process of its own,
// as the system counts them at their highest.
func TestARecordOf100MB(t *testing.T) {
	if name := os.Getenv(hugeForm); name != "" {
		x := hugeRecords[name]
		o := Options{Name: "x", Most: hugeMost}
		x.o(&o)
		lines := &counted{}
		err := Write(context.Background(), lines, x.src(), o)
		if x.fail == "" && (err != nil || lines.n != 3) || x.fail != "" && (err == nil || !strings.Contains(err.Error(), x.fail)) {
			t.Fatalf("%d lines, %v", lines.n, err)
		}
		fmt.Printf("peak=%d\n", highest(t))
		return
	}
	for name := range hugeRecords {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestARecordOf100MB$")
			cmd.Env = append(os.Environ(), hugeForm+"="+name, "GOMEMLIMIT=128MiB")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			_, rest, _ := strings.Cut(string(out), "peak=")
			line, _, _ := strings.Cut(rest, "\n")
			peak, err := strconv.ParseInt(line, 10, 64)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%d MiB at most", peak>>20)
			if limit := int64(4 * hugeMost); peak > limit {
				t.Errorf("%d MiB, want at most %d", peak>>20, limit>>20)
			}
		})
	}
}

// counted counts lines.
type counted struct{ n int }

func (c *counted) Write(p []byte) (int, error) {
	c.n += bytes.Count(p, []byte{'\n'})
	return len(p), nil
}

// highest is the most memory that this process has had.
func highest(t *testing.T) int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(sc.Text(), "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
