package records

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"hayrick"
)

// corpus are the inputs of testdata whose names match.
func corpus(f *testing.F, pattern string) (out [][]byte) {
	f.Helper()
	names, err := filepath.Glob("testdata/" + pattern)
	if err != nil || len(names) == 0 {
		f.Fatalf("no inputs %s: %v", pattern, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if !strings.HasSuffix(name, ".said") && len(b) < 1<<16 {
			out = append(out, b)
		}
	}
	return out
}

// write is Write whole. An error is a problem of one line that names the input and says
// what to do.
func write(t *testing.T, src io.Reader, o Options) (lines [][]byte, failed *Problem) {
	t.Helper()
	var out bytes.Buffer
	err := Write(context.Background(), &out, src, o)
	var user *hayrick.UserError
	switch {
	case err == nil:
	case !errors.As(err, &failed) || !errors.As(err, &user):
		t.Fatalf("%v (%T) is no problem", err, err)
	case user.Hint == "" || failed.Name != o.Name || strings.ContainsAny(failed.Error(), "\n\r\x00"):
		t.Fatalf("%q, hint %q", failed, user.Hint)
	}
	for line := range bytes.Lines(out.Bytes()) {
		lines = append(lines, bytes.TrimSuffix(line, []byte("\n")))
	}
	return lines, failed
}

// same says whether two readings of an input agree.
func same(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

// FuzzCSV: each line that comes out has every column of the header and no other, and
// written as CSV again they come out the same. However the input is cut into reads, its
// records are the same; a limit gives the first of them; with skip no record is lost.
func FuzzCSV(f *testing.F) {
	for _, b := range append(corpus(f, "*.csv"), corpus(f, "*.tsv")...) {
		f.Add(b, false, byte(0))
		f.Add(b, true, byte(2))
	}
	for _, s := range []string{"a,b\n\"x\ny\",2\r\n", "a\n\"\"\"\"\n", "a,a\n1,2", "\xef\xbb\xbfa\n1\n", "a,b\n1\n2,3,4\n5,6\n", "a\n\xff\n", "a;b\n1;2", "a,b\n\"x\"y,2\n3,4\n", "a\n\r\r\n", " a ,b\n1,2"} {
		f.Add([]byte(s), true, byte(1))
	}
	f.Fuzz(func(t *testing.T, src []byte, skip bool, limit byte) {
		o := Options{Name: "in.csv", Format: "csv", Most: 1 << 12, Skip: skip}
		lines, failed := write(t, bytes.NewReader(src), o)
		if again, p := write(t, iotest.HalfReader(bytes.NewReader(src)), o); !same(lines, again) || (p == nil) != (failed == nil) {
			t.Fatalf("read in pieces it is\n%q, %v\nand whole\n%q, %v", again, p, lines, failed)
		}
		var columns []string
		var records [][]string
		good := [][]byte{}
		for _, line := range lines {
			if why, bad := Bad(line); bad {
				if !skip || !strings.HasPrefix(why, o.Name) {
					t.Fatalf("%q comes out", line)
				}
				continue
			}
			good = append(good, line)
			// In order: encoding/json would sort, and hide what stands twice.
			dec := json.NewDecoder(bytes.NewReader(line))
			var names, values []string
			for tok, err := dec.Token(); err == nil; tok, err = dec.Token() {
				if s, ok := tok.(string); ok && len(names) == len(values) {
					names = append(names, s)
				} else if ok {
					values = append(values, s)
				}
			}
			if columns == nil {
				columns = names
			}
			if !slices.Equal(names, columns) || len(values) != len(names) || !json.Valid(line) {
				t.Fatalf("%s has not the columns %q", line, columns)
			}
			records = append(records, values)
		}
		if n := int64(limit); n > 0 {
			o.Limit = n
			if first, _ := write(t, bytes.NewReader(src), o); len(first) > int(n) || !same(first, lines[:min(len(first), len(lines))]) || len(first) < min(int(n), len(lines)) {
				t.Fatalf("the first %d of %d records are %q", n, len(lines), first)
			}
			o.Limit = 0
		}
		if len(records) == 0 || len(columns) == 1 || strings.ContainsAny(strings.Join(columns, ""), "\r") {
			return // of one column an empty value has no form that is read
		}
		var again bytes.Buffer
		w := csv.NewWriter(&again)
		w.WriteAll(append([][]string{columns}, records...))
		if w.Error() != nil || again.Len() > 1<<12 || strings.Contains(again.String(), "\r") {
			return
		}
		o.Delimiter = ","
		if back, p := write(t, &again, o); p != nil || !same(back, good) {
			t.Fatalf("%q\nwritten again reads\n%q, %v\nwas\n%q", src, back, p, good)
		}
	})
}

// FuzzLines: a line of text that holds more than white space is a record, as a split finds
// them, and what is no UTF-8 is told with its place.
func FuzzLines(f *testing.F) {
	for _, b := range corpus(f, "*.txt") {
		f.Add(b, true)
	}
	for _, s := range []string{"a\nb", "\n\n", "\xef\xbb\xbfa\n", "a\x00b\n", "\xff\na", "a\r\n\r\nb\r", strings.Repeat("x", 5000), "<&>\u2028\n", "PAR1\n", "PK\x03\x04"} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, src []byte, skip bool) {
		o := Options{Name: "in.txt", Format: "lines", Most: 1 << 10, Skip: skip}
		got, failed := write(t, bytes.NewReader(src), o)
		if failed != nil && failed.Line == 0 {
			return // it is another format altogether
		}
		n := 0
		text := bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
		for i, line := range bytes.SplitAfter(text, []byte("\n")) {
			if len(line) > int(o.Most) {
				if failed == nil || failed.Line != i+1 {
					t.Fatalf("line %d has %d bytes: %v", i+1, len(line), failed)
				}
				return
			}
			line = bytes.TrimRight(line, "\r\n")
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			if !utf8.Valid(line) && !skip {
				if failed == nil || failed.Line != i+1 || failed.Col < 1 || failed.Col > len(line) || utf8.Valid(line[:failed.Col]) {
					t.Fatalf("line %d is no UTF-8: %v", i+1, failed)
				}
				return
			}
			if n == len(got) {
				t.Fatalf("record %d, %q, does not come out; %v", n, line, failed)
			}
			var back struct{ Line string }
			_, bad := Bad(got[n])
			if bad != !utf8.Valid(line) || !bad && (json.Unmarshal(got[n], &back) != nil || back.Line != string(line)) {
				t.Fatalf("line %d, %q, comes out as %q", i+1, line, got[n])
			}
			n++
		}
		if failed != nil || n != len(got) {
			t.Fatalf("%d records, want %d; %v", len(got), n, failed)
		}
	})
}

// FuzzJSONL: lines that are looked at come out as they stand, or are told.
func FuzzJSONL(f *testing.F) {
	for _, s := range []string{"{\"a\":1}\n\n {} \r\n", "\xef\xbb\xbf{}\n", "{\n", "!record x\n", "[1]\n{}", "{\"a\":\"\xff\"}\n"} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	check := func(b []byte) (string, int) {
		if i := bytes.IndexByte(b, 'x'); i >= 0 {
			return "there is an x", i + 1
		}
		return "", 0
	}
	f.Fuzz(func(t *testing.T, src []byte, skip bool) {
		o := Options{Name: "in.jsonl", Format: "jsonl", Most: 1 << 10, Skip: skip, Check: check}
		got, failed := write(t, bytes.NewReader(src), o)
		if failed != nil {
			return
		}
		var want [][]byte
		for line := range bytes.SplitSeq(bytes.TrimPrefix(src, []byte("\xef\xbb\xbf")), []byte("\n")) {
			if line = bytes.Trim(line, " \t\r\n"); len(line) > 0 {
				want = append(want, line)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d records, want %d", len(got), len(want))
		}
		for i := range want {
			_, marked := Bad(want[i])
			_, bad := Bad(got[i])
			if told := !marked && bytes.IndexByte(want[i], 'x') >= 0; !told && !bytes.Equal(got[i], want[i]) || told && (!bad || !skip) {
				t.Fatalf("%q comes out as %q", want[i], got[i])
			}
		}
		// What comes out, marks and all, goes in again unchanged.
		if again, p := write(t, bytes.NewReader(append(bytes.Join(got, []byte("\n")), '\n')), o); p == nil && !same(again, got) {
			t.Fatalf("%q, a second time %q", got, again)
		}
	})
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// FuzzPacked: what a compressed input unpacks to comes out or is told, in memory that a
// record and a window take, whatever the input says of its size.
func FuzzPacked(f *testing.F) {
	for _, b := range append(corpus(f, "*.gz"), corpus(f, "not.csv.zst")...) {
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Add(pack(f, []byte("a\nb\n"), "zstd"), true)
	f.Add(pack(f, bytes.Repeat([]byte("x"), 1<<16), "zstd"), true)
	f.Add(pack(f, bytes.Repeat([]byte("x\n"), 1<<14), "gzip"), false)
	f.Add([]byte("\x28\xb5\x2f\xfd\x00\xf8"), true)                             // a window of 2 GiB and more
	f.Add([]byte("\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x7f"), true) // a content without end
	f.Add([]byte("\x50\x2a\x4d\x18\xff\xff\xff\xff"), true)                     // a frame to skip
	f.Fuzz(func(t *testing.T, src []byte, zstd bool) {
		o := Options{Name: "in.gz", Format: "lines", Packed: "gzip", Most: 1 << 12, Skip: true, Limit: 1 << 10}
		if zstd {
			o.Packed = "zstd"
		}
		before := allocated()
		lines, failed := write(t, bytes.NewReader(src), o)
		if used := allocated() - before; used > 2*maxWindow+64<<20 {
			t.Fatalf("%d bytes were taken for an input of %d", used, len(src))
		}
		again, p := write(t, iotest.DataErrReader(bytes.NewReader(src)), o)
		if (p == nil) != (failed == nil) || failed == nil && !same(lines, again) {
			t.Fatalf("%d lines, %v; a second time %d, %v", len(lines), failed, len(again), p)
		}
	})
}

// FuzzParquet: an input that is Parquet, or says so, comes out as JSON objects or is told;
// it takes neither the process nor memory that its bytes do not warrant.
func FuzzParquet(f *testing.F) {
	for _, b := range corpus(f, "*.parquet") {
		f.Add(b)
	}
	for _, groups := range []int{1, 3} {
		f.Add(parquetSeed(f, groups))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		before := allocated()
		lines, _ := write(t, bytes.NewReader(src), Options{Name: "in.parquet", Format: "parquet", Limit: 1 << 12})
		if used := allocated() - before; used > 128<<20+uint64(len(src))*1000 {
			t.Fatalf("%d bytes were taken for an input of %d", used, len(src))
		}
		for _, line := range lines {
			if !json.Valid(line) || line[0] != '{' {
				t.Fatalf("%q comes out", line)
			}
		}
	})
}
