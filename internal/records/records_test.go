package records

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"hayrick"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/*.txt anew")

// testdata/<name>.<format>[.<compression>] are inputs; beside each lies what becomes of
// it: with on_bad_item fail, and where that is an error, with skip.
func TestInputs(t *testing.T) {
	files, err := filepath.Glob("testdata/*")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, path := range files {
		if strings.HasSuffix(path, ".said") {
			continue
		}
		tried++
		t.Run(filepath.Base(path), func(t *testing.T) {
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			o := Options{Name: filepath.Base(path), Format: hayrick.FormatOf(path), Packed: PackedOf(path), Most: 1 << 16}
			if strings.HasPrefix(o.Name, "headless") {
				o.Columns = []string{"a", "b"}
			}
			got := say(t, src, o)
			if strings.Contains(got, "error: ") {
				o.Skip = true
				got += "----\n" + say(t, src, o)
			}
			golden := path + ".said"
			if *rewrite {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("said now (-rewrite, then review the diff):\n%s\nwant:\n%s", got, want)
			}
		})
	}
	if tried < 20 {
		t.Errorf("only %d inputs", tried)
	}
}

func say(t *testing.T, src []byte, o Options) string {
	var out bytes.Buffer
	err := Write(context.Background(), &out, bytes.NewReader(src), o)
	for line := range bytes.Lines(out.Bytes()) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if _, bad := Bad(line); !bad && o.Format != "jsonl" && !json.Valid(line) {
			t.Errorf("not JSON: %q", line)
		}
	}
	if err == nil {
		return out.String()
	}
	var p *Problem
	var user *hayrick.UserError
	if !errors.As(err, &p) || !errors.As(err, &user) || user.Hint == "" || strings.Contains(p.Error(), "\n") {
		t.Errorf("err = %v, want a problem of one line with a hint", err)
		return ""
	}
	return out.String() + "error: " + p.Error() + "; " + p.Hint + "\n"
}

func gather(t interface{ Fatal(...any) }, src io.Reader, o Options) []map[string]any {
	var out bytes.Buffer
	if err := Write(context.Background(), &out, src, o); err != nil {
		t.Fatal(err)
	}
	var all []map[string]any
	for line := range bytes.Lines(out.Bytes()) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(fmt.Sprintf("%q: %v", line, err))
		}
		all = append(all, m)
	}
	return all
}

// Whatever text is in the fields, it comes back, quoted newlines and compression
// included.
func TestCSVRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-z", é\n\t\\<&0-9']{0,12}`)
		columns := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,4}`), 1, 5, rapid.ID).Draw(t, "columns")
		records := rapid.SliceOfN(rapid.SliceOfN(text, len(columns), len(columns)), 0, 20).Draw(t, "records")
		packed := rapid.SampledFrom([]string{"none", "gzip", "zstd"}).Draw(t, "packed")
		format := rapid.SampledFrom([]string{"csv", "tsv"}).Draw(t, "format")
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		w.UseCRLF = rapid.Bool().Draw(t, "crlf")
		if format == "tsv" {
			w.Comma = '\t'
		}
		w.Write(columns)
		var want []map[string]string
		for _, r := range records {
			if len(r) == 1 && r[0] == "" {
				continue // an empty line is no record
			}
			w.Write(r)
			m := map[string]string{}
			for i, c := range columns {
				m[c] = strings.ReplaceAll(r[i], "\r\n", "\n")
			}
			want = append(want, m)
		}
		w.Flush()
		got := gather(t, bytes.NewReader(pack(t, b.Bytes(), packed)), Options{Name: "x", Format: format, Packed: packed, Most: 1 << 20})
		if len(got) != len(want) {
			t.Fatalf("%d records, want %d", len(got), len(want))
		}
		for i, m := range want {
			for c, v := range m {
				if got[i][c] != v {
					t.Fatalf("record %d: %s is %q, want %q", i, c, got[i][c], v)
				}
			}
		}
	})
}

func pack(t interface{ Fatal(...any) }, b []byte, packed string) []byte {
	var out bytes.Buffer
	var w io.WriteCloser
	switch packed {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "zstd":
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	default:
		return b
	}
	// In two members, as tools that append make them.
	half := len(b) / 2
	w.Write(b[:half])
	w.Close()
	switch z := w.(type) {
	case *gzip.Writer:
		z.Reset(&out)
	case *zstd.Encoder:
		z.Reset(&out)
	}
	w.Write(b[half:])
	w.Close()
	return out.Bytes()
}

// Numbers, nulls and text of a Parquet file are what they were; NaN is null.
func TestParquet(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "x", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "raw", Type: arrow.BinaryTypes.Binary},
	}, nil)
	var file bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &file, nil, pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	const n = 2_000
	for group := range 4 {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for i := group * n / 4; i < (group+1)*n/4; i++ {
			b.Field(0).(*array.Int64Builder).Append(math.MaxInt64 - int64(i))
			b.Field(3).(*array.BinaryBuilder).Append([]byte{0, byte(i)})
			switch i % 3 {
			case 0:
				b.Field(1).(*array.Float64Builder).Append(math.NaN())
				b.Field(2).(*array.StringBuilder).AppendNull()
			default:
				b.Field(1).(*array.Float64Builder).Append(float64(i) / 2)
				b.Field(2).(*array.StringBuilder).Append(fmt.Sprintf("row <%d>", i))
			}
		}
		if err := w.Write(b.NewRecordBatch()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{0, 1, 500, 501, n} {
		var out bytes.Buffer
		if err := Write(t.Context(), &out, bytes.NewReader(file.Bytes()), Options{Name: "x", Format: "parquet", Limit: limit}); err != nil {
			t.Fatal(err)
		}
		i := 0
		for line := range bytes.Lines(out.Bytes()) {
			want := fmt.Sprintf(`{"id":%d,"x":%s,"s":"row <%d>","raw":"%s"}`, int64(math.MaxInt64)-int64(i), number(float64(i)/2), i, b64(byte(i)))
			if i%3 == 0 {
				want = fmt.Sprintf(`{"id":%d,"x":null,"s":null,"raw":"%s"}`, int64(math.MaxInt64)-int64(i), b64(byte(i)))
			}
			if got := strings.TrimSpace(string(line)); got != want {
				t.Fatalf("row %d: %s, want %s", i, got, want)
			}
			i++
		}
		if want := max(limit, 0); limit > 0 && int64(i) != want || limit == 0 && i != n {
			t.Errorf("limit %d: %d rows", limit, i)
		}
	}
	// Any damage is told, and never a panic.
	for cut := 0; cut < file.Len(); cut += 997 {
		for _, b := range [][]byte{file.Bytes()[:cut], flip(file.Bytes(), cut)} {
			err := Write(t.Context(), io.Discard, bytes.NewReader(b), Options{Name: "x", Format: "parquet"})
			var p *Problem
			if err != nil && !errors.As(err, &p) {
				t.Fatalf("at %d: %v", cut, err)
			}
			if len(b) == cut && err == nil {
				t.Fatalf("cut at %d: no error", cut)
			}
		}
	}
}

// What is in lists, structs and maps is what it would be in a column: a whole float is
// one, NaN is null, and names stand in the order of the file. A name stands once.
func TestParquetNested(t *testing.T) {
	float, half := arrow.PrimitiveTypes.Float64, arrow.FixedWidthTypes.Float16
	field := func(name string, of arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: of, Nullable: true}
	}
	point := arrow.StructOf(field("z", float), field("a", arrow.BinaryTypes.String), field("h", half))
	fields := []arrow.Field{
		field("pts", arrow.ListOf(point)), field("by", arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Float32)),
		field("deep", arrow.ListOf(arrow.ListOf(float))), field("id", arrow.BinaryTypes.String),
	}
	const rows = `[
		{"id": "x", "pts": [{"z": 1, "a": "<b>", "h": 2}, null, {"z": 1.5, "a": null, "h": "NaN"}], "by": [{"key": "k", "value": 3}, {"key": "b", "value": 1e30}], "deep": [[1, 2.5], [], null]},
		{"id": "y", "pts": [], "by": null, "deep": [[100]]}]`
	const want = `{"pts":[{"z":1.0,"a":"<b>","h":2.0},null,{"z":1.5,"a":null,"h":null}],"by":[{"key":"k","value":3.0},{"key":"b","value":1e+30}],"deep":[[1.0,2.5],[],null],"id":"x"}
{"pts":[],"by":null,"deep":[[100.0]],"id":"y"}
`
	write := func(fields []arrow.Field, rows string) []byte {
		schema := arrow.NewSchema(fields, nil)
		rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(rows))
		if err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		w, err := pqarrow.NewFileWriter(schema, &file, nil, pqarrow.DefaultWriterProps())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Write(rec), w.Close()); err != nil {
			t.Fatal(err)
		}
		return file.Bytes()
	}
	var out bytes.Buffer
	if err := Write(t.Context(), &out, bytes.NewReader(write(fields, rows)), Options{Name: "x", Format: "parquet", Key: "id"}); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("%s, want\n%s", out.String(), want)
	}
	err := Write(t.Context(), io.Discard, bytes.NewReader(write([]arrow.Field{field("a", float), field("a", half)}, `[]`)), Options{Name: "x", Format: "parquet"})
	var p *Problem
	if !errors.As(err, &p) || p.What != `two columns are named "a"` {
		t.Errorf("two columns of one name: %v", err)
	}
}

func b64(x byte) string { b, _ := json.Marshal([]byte{0, x}); return strings.Trim(string(b), `"`) }

func number(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", f), "") }

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0xff
	return b
}

// repeated is n times the same bytes, made as they are read.
type repeated struct {
	what string
	n    int
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, io.EOF
	}
	k := copy(p, r.what[r.at:])
	if r.at += k; r.at == len(r.what) {
		r.at, r.n = 0, r.n-1
	}
	return k, nil
}

// What is kept does not grow with the input, and a quote that is never closed or a line
// that never ends takes no more than the longest record.
func TestMemory(t *testing.T) {
	const most = 1 << 20
	for name, c := range map[string]struct {
		src    io.Reader
		format string
		bad    string
	}{
		"many":     {&repeated{what: "some,thing\n", n: 200_000}, "csv", ""},
		"unclosed": {io.MultiReader(strings.NewReader("a,\""), &repeated{what: "b\nc", n: 20_000_000}), "csv", "longer than"},
		"endless":  {&repeated{what: "abcdefgh", n: 20_000_000}, "lines", "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			o := Options{Name: "x", Format: c.format, Most: most, Skip: true}
			if name == "unclosed" {
				o.Columns = []string{"a", "b"}
			}
			err := Write(t.Context(), io.Discard, c.src, o)
			runtime.ReadMemStats(&after)
			if c.bad == "" && err != nil || c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)) {
				t.Fatalf("err = %v", err)
			}
			if got := after.TotalAlloc - before.TotalAlloc; c.bad != "" && got > 16*most {
				t.Errorf("%d bytes were taken for records of up to %d", got, most)
			}
		})
	}
}

// parquetSeed is a small Parquet file of so many row groups, with nulls and lists.
func parquetSeed(t interface{ Fatal(...any) }, groups int) []byte {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "s", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int32)},
	}, nil)
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &out, nil, pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	for g := range groups {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for i := range 3 {
			b.Field(0).(*array.Int64Builder).Append(int64(g*3 + i))
			b.Field(1).(*array.StringBuilder).AppendNull()
			b.Field(2).(*array.ListBuilder).Append(true)
			b.Field(2).(*array.ListBuilder).ValueBuilder().(*array.Int32Builder).Append(7)
		}
		if err := w.Write(b.NewRecordBatch()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
