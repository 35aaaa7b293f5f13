package rows

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"

	"hayrick"
)

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{1, 2, 1000, 1024, 1025, 9000} {
		want := randomRows(uint64(n), n)
		for _, opts := range []WriterOptions{{}, {GroupRows: 700}, {GroupBytes: 40_000}, {Dictionary: new(bool)}, {Dictionary: yes()}} {
			b, sum := encode(t, schemaOf(t, want), opts, want)
			digest := sha256.Sum256(b)
			if sum.Rows != int64(n) || sum.Bytes != int64(len(b)) || sum.SHA256 != hex.EncodeToString(digest[:]) ||
				sum.RowHash != hashRows(t, want) || sum.SchemaDigest != sum.Schema.Digest() {
				t.Fatalf("%d rows: summary %+v", n, sum)
			}
			got, hash, err := decode(b, Schema{})
			if err != nil || hash != sum.RowHash {
				t.Fatalf("%d rows, %+v: hash %s, want %s, %v", n, opts, hash, sum.RowHash, err)
			}
			sameRows(t, got, want)
			if err := Verify(bytes.NewReader(b), int64(len(b)), sum.Rows, sum.RowHash); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func yes() *bool { b := true; return &b }

// 002-47: a file is validated as Parquet, by rows and by content, not by trust.
func TestVerifySeesWhatIsMissing(t *testing.T) {
	rows := randomRows(5, 300)
	s := schemaOf(t, rows)
	_, want := encode(t, s, WriterOptions{}, rows)
	changed := append([]Row(nil), rows...)
	changed[77] = append(Row{}, changed[77]...)
	changed[77][3].Value = "other"
	for name, other := range map[string][]Row{
		"a row lost":    rows[:299],
		"a row doubled": append(append([]Row(nil), rows...), rows[0]),
		"one replaced":  append(append([]Row(nil), rows[:299]...), rows[0]),
		"one changed":   changed,
	} {
		b, _ := encode(t, s, WriterOptions{}, other)
		if err := Verify(bytes.NewReader(b), int64(len(b)), want.Rows, want.RowHash); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWriterIsDeterministic(t *testing.T) {
	rows := randomRows(9, 5000)
	s := schemaOf(t, rows)
	for _, opts := range []WriterOptions{{}, {GroupRows: 2000}, {GroupBytes: 123_456}} {
		first, _ := encode(t, s, opts, rows)
		if again, _ := encode(t, s, opts, rows); !bytes.Equal(first, again) {
			t.Fatal("the same rows gave other bytes")
		}
		// Rows that came as batches, in other portions, are the same file.
		var buf bytes.Buffer
		w, err := NewWriter(&buf, s, opts)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Open(bytes.NewReader(first), int64(len(first)))
		if err != nil {
			t.Fatal(err)
		}
		scan, err := f.Scan(Schema{})
		if err != nil {
			t.Fatal(err)
		}
		for {
			b, err := scan.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.AppendBatch(b, 0, b.Rows/3), w.AppendBatch(b, b.Rows/3, b.Rows)); err != nil {
				t.Fatal(err)
			}
		}
		if sum, err := w.Close(); err != nil || !bytes.Equal(first, buf.Bytes()) {
			t.Errorf("%+v: batches gave other bytes than rows: %+v, %v", opts, sum, err)
		}
	}
}

func TestWriterNoRows(t *testing.T) {
	b, sum := encode(t, fields("a:int"), WriterOptions{}, nil)
	if len(b) != 0 || sum.Rows != 0 || sum.RowHash.String() != "0" || sum.SHA256 != "" {
		t.Errorf("%d bytes, %+v", len(b), sum)
	}
	if _, err := NewWriter(io.Discard, Schema{}, WriterOptions{}); err == nil {
		t.Error("a file without columns is begun")
	}
	if _, err := NewWriter(io.Discard, fields("a:int a:int"), WriterOptions{}); !errors.Is(err, ErrRow) {
		t.Errorf("a column twice: %v", err)
	}
}

// A refused row leaves no trace: the file holds the others.
func TestWriterRefusesRows(t *testing.T) {
	var buf bytes.Buffer
	w, err := NewWriter(&buf, fields("a:int b:string"), WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	good := []Row{{{"a", 1}, {"b", "x"}}, {{"b", "y"}}, {{"a", 2}}}
	bad := []Row{
		{{"a", 9}, {"b", "z"}, {"a", 9}},
		{{"b", "z"}, {"c", 1}},
		{{"b", "z"}, {"a", 1.5}},
		{{"b", "z"}, {"a", "\xff"}},
		{{"a", nil}},
	}
	for i, r := range good {
		for _, b := range bad {
			if err := w.Append(b); !errors.Is(err, ErrRow) && !errors.Is(err, ErrSchema) {
				t.Fatalf("%v: %v", b, err)
			}
		}
		if err := w.Append(r); err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
	}
	sum, err := w.Close()
	if err != nil || sum.RowHash != hashRows(t, good) {
		t.Fatal(sum, err)
	}
	got, _, err := decode(buf.Bytes(), Schema{})
	if err != nil {
		t.Fatal(err)
	}
	sameRows(t, got, good)
	if err := w.Append(good[0]); err == nil {
		t.Error("a closed writer takes rows")
	}
}

// failing refuses to take more than its bytes.
type failing struct{ left int }

var errFull = errors.New("disk full")

func (f *failing) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return 0, errFull
	}
	f.left -= len(p)
	return len(p), nil
}

func TestWriterPassesOnSinkErrors(t *testing.T) {
	rows := randomRows(4, 3000)
	s := schemaOf(t, rows)
	whole, _ := encode(t, s, WriterOptions{GroupRows: 500}, rows)
	for left := 0; left < len(whole); left += len(whole)/20 + 1 {
		w, err := NewWriter(&failing{left}, s, WriterOptions{GroupRows: 500})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if err = w.Append(r); err != nil {
				break
			}
		}
		if _, cerr := w.Close(); !errors.Is(errors.Join(err, cerr), errFull) {
			t.Fatalf("a sink of %d of %d bytes: %v, %v", left, len(whole), err, cerr)
		}
	}
}

// A column has no statistics in a row group where a value of it is larger than a page, and
// has them before and behind it.
func TestHugeValuesHaveNoStatistics(t *testing.T) {
	all := []Row{{{"s", "a"}, {"n", int64(1)}}, {{"s", strings.Repeat("b", pageBytes+1)}, {"n", int64(2)}}, {{"s", strings.Repeat("c", pageBytes)}, {"n", int64(3)}}}
	b, sum := encode(t, fields("s:string n:int"), WriterOptions{GroupRows: 1}, all)
	if err := Verify(bytes.NewReader(b), sum.Bytes, sum.Rows, sum.RowHash); err != nil {
		t.Fatal(err)
	}
	r, err := file.NewParquetReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for g := range all {
		for i := range 2 {
			c, err := r.MetaData().RowGroup(g).ColumnChunk(i)
			if err != nil {
				t.Fatal(err)
			}
			if set, err := c.StatsSet(); err != nil || set == (g == 1 && i == 0) {
				t.Errorf("row group %d, column %d: statistics %t, %v", g, i, set, err)
			}
		}
	}
}

// Row groups end by rows or by bytes, and their footers say what readers prune by.
func TestRowGroups(t *testing.T) {
	open := func(b []byte) *metadata.FileMetaData {
		r, err := file.NewParquetReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		return r.MetaData()
	}
	rows := randomRows(6, 2500)
	b, _ := encode(t, schemaOf(t, rows), WriterOptions{GroupRows: 1000}, rows)
	meta := open(b)
	if n := meta.NumRowGroups(); n != 3 || meta.RowGroup(0).NumRows() != 1000 || meta.RowGroup(2).NumRows() != 500 {
		t.Errorf("%d groups", n)
	}
	for i := range meta.NumColumns() {
		c, err := meta.RowGroup(0).ColumnChunk(i)
		if err != nil {
			t.Fatal(err)
		}
		name := meta.Schema.Column(i).Name()
		if c.Compression().String() != "ZSTD" || meta.Schema.Column(i).MaxDefinitionLevel() != 1 {
			t.Errorf("%s: %s, %s", name, c.Compression(), meta.Schema.Column(i))
		}
		if set, err := c.StatsSet(); !set || err != nil || c.GetOffsetIndexLocation() == nil || c.GetColumnIndexLocation() == nil {
			t.Errorf("%s has no statistics or no page index: %v", name, err)
		}
		if want := name == "lang"; c.HasDictionaryPage() != want {
			t.Errorf("%s has a dictionary: %v", name, c.HasDictionaryPage())
		}
	}

	wide := Row{{"v", strings.Repeat("x", 100_000)}}
	b, _ = encode(t, fields("v:string"), WriterOptions{GroupBytes: 1_000_000}, []Row{wide, wide, wide, wide, wide, wide, wide, wide, wide, wide, wide, wide})
	if n := open(b).NumRowGroups(); n != 2 {
		t.Errorf("12 rows of 100 kB in groups of 1 MB: %d groups", n)
	}
}

func TestDictionaryPays(t *testing.T) {
	for name, tc := range map[string]struct {
		rows  int
		value func(i int) any
		want  bool
	}{
		"two values":                {100_000, func(i int) any { return []string{"a", "b"}[i%2] }, true},
		"sorted, 1,000 values":      {100_000, func(i int) any { return fmt.Sprintf("value %d", i/100) }, true},
		"distinct":                  {100_000, func(i int) any { return fmt.Sprintf("value %d", i) }, false},
		"distinct numbers":          {100_000, func(i int) any { return i }, false},
		"each twice":                {100_000, func(i int) any { return i / 2 }, false},
		"20 numbers":                {100_000, func(i int) any { return i % 20 }, true},
		"constant, mostly null":     {100_000, func(i int) any { return map[bool]any{true: "x"}[i%50 == 0] }, true},
		"few, but too large to fit": {2_000, func(i int) any { return strings.Repeat(fmt.Sprint(i%100), 20_000) }, false},
		"bools":                     {1000, func(i int) any { return i%2 == 0 }, false},
	} {
		c := &Column{}
		for i := range tc.rows {
			v, err := valueOf(&Col{"v", tc.value(i)})
			if err != nil {
				t.Fatal(err)
			}
			if v.kind == 0 {
				c.appendNull()
				continue
			}
			if c.Kind == 0 {
				c.Kind = v.kind
			}
			c.appendValue(&v)
		}
		if got := dictionaryPays(c, tc.rows); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Columns that are missing, permuted or only null in one file are no conflict.
func TestScanIntoWiderSchema(t *testing.T) {
	a := []Row{{{"x", 1}, {"n", nil}, {"y", "a"}}, {{"x", 2}, {"n", nil}}}
	b := []Row{{{"y", "b"}, {"n", 1.5}, {"z", true}}, {{"x", 3}}}
	want, err := Unify(schemaOf(t, a), schemaOf(t, b))
	if err != nil || text(want) != "x:int y:string n:float z:bool" {
		t.Fatal(text(want), err)
	}
	for _, rows := range [][]Row{a, b} {
		data, sum := encode(t, schemaOf(t, rows), WriterOptions{}, rows)
		got, hash, err := decode(data, want)
		if err != nil || hash != sum.RowHash {
			t.Fatal(hash, sum.RowHash, err)
		}
		sameRows(t, got, rows)
	}
	data, _ := encode(t, schemaOf(t, a), WriterOptions{}, a)
	if _, _, err := decode(data, fields("x:int")); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), `"y"`) {
		t.Errorf("a column is left behind: %v", err)
	}
	if _, _, err := decode(data, fields("x:float y:string")); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("a column changes its kind: %v", err)
	}
}

// A scan's memory does not follow the file: batches are bounded by rows and
// by bytes, also where a dictionary makes a small file of huge rows.
func TestScanBatchesAreBounded(t *testing.T) {
	var rows []Row
	for i := range 60 {
		rows = append(rows, Row{{"big", strings.Repeat(string(rune('a'+i%3)), 300_000)}, {"i", i}})
	}
	for i := range 20_000 {
		rows = append(rows, Row{{"big", "small"}, {"i", i}})
	}
	b, sum := encode(t, schemaOf(t, rows), WriterOptions{Dictionary: yes(), GroupBytes: 1 << 40}, rows)
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := f.Scan(Schema{})
	for {
		batch, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if size := batch.Size(0, batch.Rows); batch.Rows > batchRows || size > 2*batchBytes {
			t.Fatalf("a batch of %d rows, %d bytes", batch.Rows, size)
		}
	}
	if n, h := s.Read(); n != sum.Rows || h != sum.RowHash {
		t.Errorf("%d rows, %s", n, h)
	}
}

func TestLargeValues(t *testing.T) {
	rows := []Row{
		{{"v", strings.Repeat("a", 3<<20)}, {"n", 1}},
		{{"v", strings.Repeat("b", 20<<20)}, {"n", 2}},
		{{"v", ""}, {"n", 3}},
	}
	b, sum := encode(t, schemaOf(t, rows), WriterOptions{}, rows)
	if err := Verify(bytes.NewReader(b), int64(len(b)), 3, sum.RowHash); err != nil {
		t.Fatal(err)
	}
	f, err := ReadFooter(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(f.Raw) > 2000 {
		t.Errorf("a footer of %d bytes: large values are in its statistics, %v", len(f.Raw), err)
	}
}

func TestManyColumns(t *testing.T) {
	var r Row
	for i := range MaxColumns {
		r = append(r, Col{fmt.Sprintf("column %d", i), i})
	}
	b, sum := encode(t, schemaOf(t, []Row{r}), WriterOptions{}, []Row{r})
	if err := Verify(bytes.NewReader(b), int64(len(b)), 1, sum.RowHash); err != nil {
		t.Fatal(err)
	}
	var o Observer
	if err := o.Observe(append(r, Col{"one more", 1})); !errors.Is(err, ErrRow) || !strings.Contains(err.Error(), "one more") {
		t.Errorf("%v", err)
	}
}

func TestTimesAreMicroseconds(t *testing.T) {
	at := time.Date(2026, 7, 1, 12, 0, 0, 123_456_789, time.FixedZone("", 7200))
	b, _ := encode(t, fields("at:time"), WriterOptions{}, []Row{{{"at", at}}})
	got, _, err := decode(b, Schema{})
	if err != nil || got[0][0].Value != time.Date(2026, 7, 1, 10, 0, 0, 123_456_000, time.UTC) {
		t.Errorf("%v, %v", got, err)
	}
}

func BenchmarkWriter(b *testing.B) {
	rows := randomRows(1, 50_000)
	s := schemaOf(b, rows)
	b.ReportAllocs()
	var size int64
	for b.Loop() {
		w, err := NewWriter(io.Discard, s, WriterOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range rows {
			if err := w.Append(r); err != nil {
				b.Fatal(err)
			}
		}
		sum, err := w.Close()
		if err != nil {
			b.Fatal(err)
		}
		size = sum.Bytes
	}
	b.ReportMetric(float64(b.N)*float64(len(rows))/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(size)/float64(len(rows)), "file-B/row")
}

func BenchmarkScan(b *testing.B) {
	rows := randomRows(1, 50_000)
	data, _ := encode(b, schemaOf(b, rows), WriterOptions{}, rows)
	b.ReportAllocs()
	for b.Loop() {
		f, err := Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			b.Fatal(err)
		}
		s, err := f.Scan(Schema{})
		for err == nil {
			_, err = s.Next()
		}
		if err != io.EOF {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(len(rows))/b.Elapsed().Seconds(), "rows/s")
}
