package rows

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"pgregory.net/rapid"

	"hayrick"
)

// columnsAt are n rows in which each column has values of a size of its own.
func columnsAt(seed uint64, s Schema, n int) *Batch {
	rng := rand.New(rand.NewPCG(seed, 2))
	b := NewBatch(s)
	for i := range b.Cols {
		c := &b.Cols[i]
		nulls := []int{0, 0, 3, 100}[rng.IntN(4)]
		few := rng.IntN(8) == 0
		length := []int{8, 12, 40, 240}[rng.IntN(4)]
		for range n {
			if rng.IntN(100) < nulls {
				c.appendNull()
				continue
			}
			v := value{kind: c.Kind, num: int64(rng.Uint64())}
			if few {
				v.num = int64(rng.IntN(5))
			}
			switch c.Kind {
			case KindString, KindBytes:
				v.str = strings.Repeat(string(strconv.AppendUint(nil, uint64(v.num)|1<<60, 16)), length/8)
			case KindFloat:
				v.num = int64(math.Float64bits([]float64{math.NaN(), math.Copysign(0, -1), math.Inf(1), rng.NormFloat64(), float64(v.num)}[rng.IntN(5)]))
			case KindBool:
				v.num &= 1
			}
			c.appendValue(&v)
		}
	}
	b.Rows = n
	return b
}

// fataler is a test, of rapid's or not.
type fataler interface {
	Helper()
	Fatal(...any)
}

func write(t fataler, b *Batch, opts WriterOptions) ([]byte, Summary) {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewWriter(&buf, b.Schema, opts)
	if err == nil {
		err = w.AppendBatch(b, 0, b.Rows)
	}
	if err != nil {
		t.Fatal(err)
	}
	sum, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), sum
}

// readAll reads the rows of files in the columns of want, one behind the other.
func readAll(t fataler, want Schema, files ...[]byte) (*Batch, Hash) {
	t.Helper()
	all, sum := NewBatch(want), Hash{}
	for _, body := range files {
		f, err := Open(bytes.NewReader(body), int64(len(body)))
		if err != nil {
			t.Fatal(err)
		}
		s, err := f.Scan(want)
		if err != nil {
			t.Fatal(err)
		}
		for {
			b, err := s.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			all.Append(b, 0, b.Rows)
		}
		_, h := s.Read()
		sum = sum.Add(h)
	}
	return all, sum
}

func copied(s Schema, opts WriterOptions, files ...[]byte) ([]byte, Summary, error) {
	var buf bytes.Buffer
	c, err := NewCopier(&buf, s, opts)
	if err != nil {
		return nil, Summary{}, err
	}
	for _, body := range files {
		f, err := Open(bytes.NewReader(body), int64(len(body)))
		if err == nil {
			err = c.Add(f)
		}
		if err != nil {
			return nil, Summary{}, err
		}
	}
	sum, err := c.Close()
	return buf.Bytes(), sum, err
}

// Whatever the columns of files are, a copy has their rows in their order, says the
// truth of them in its footer and its page indexes, and is the same bytes every time.
func TestCopierKeepsRows(t *testing.T) {
	var done, refused, pages int
	rapid.Check(t, func(t *rapid.T) {
		opts := WriterOptions{GroupRows: int64(rapid.IntRange(1500, 6000).Draw(t, "rows of a group")), GroupBytes: int64(rapid.IntRange(700_000, 3_000_000).Draw(t, "bytes of a group"))}
		var files [][]byte
		var want Schema
		var sum Hash
		for n := range rapid.IntRange(1, 3).Draw(t, "files") {
			s := Schema{Fields: rapid.Permutation(sortedSchema.Fields).Draw(t, "columns")}
			if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
				s.Fields = s.Fields[:rapid.IntRange(1, len(s.Fields)).Draw(t, "of them")]
			}
			s.Fields = slices.Clone(s.Fields)
			b := columnsAt(rapid.Uint64().Draw(t, "seed"), s, rapid.SampledFrom([]int{1, 600, 2100, 2100, 2600}).Draw(t, "rows"))
			body, x := write(t, b, WriterOptions{GroupRows: rapid.SampledFrom([]int64{2100, 0, 0}).Draw(t, "group")})
			if x.Rows != int64(b.Rows) {
				t.Fatalf("file %d has %d rows", n, x.Rows)
			}
			sum = sum.Add(x.RowHash)
			files = append(files, body)
			var err error
			if want, err = Unify(want, s); err != nil {
				t.Fatal(err)
			}
		}
		body, got, err := copied(want, opts, files...)
		if errors.Is(err, ErrUncopied) {
			refused++
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		done++
		rows, hash := readAll(t, want, files...)
		have, _ := readAll(t, Schema{Fields: want.Fields}, body)
		if got.Rows != int64(rows.Rows) || hash != sum || got.Bytes != int64(len(body)) || got.SchemaDigest != want.Digest() {
			t.Fatalf("%+v of %d rows in %d bytes", got, rows.Rows, len(body))
		}
		if err := Verify(bytes.NewReader(body), got.Bytes, got.Rows, sum); err != nil {
			t.Fatal(err)
		}
		for i := range rows.Cols {
			if x, y := &rows.Cols[i], &have.Cols[i]; !slices.Equal(x.Valid, y.Valid) || !slices.Equal(x.Nums, y.Nums) || !slices.Equal(x.Ends, y.Ends) || !bytes.Equal(x.Data, y.Data) {
				t.Fatalf("column %q is another", want.Fields[i].Name)
			}
		}
		pages += truths(t, body, have)
		if again, _, err := copied(want, opts, files...); err != nil || !bytes.Equal(again, body) {
			t.Fatalf("other bytes the second time, %v", err)
		}
		table, err := pqarrow.ReadTable(t.Context(), bytes.NewReader(body), nil, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Release()
		if table.NumRows() != got.Rows {
			t.Fatalf("arrow reads %d rows", table.NumRows())
		}
	})
	if done < 5 || refused < 3 || pages < 5*done { // -short makes 20 checks
		t.Errorf("%d copied with %d pages, %d refused", done, pages, refused)
	}
}

// truths holds what a file says of its row groups and pages against its rows, and says
// of how many pages it says anything.
func truths(t *rapid.T, body []byte, rows *Batch) (pages int) {
	f, err := file.NewParquetReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for g := range f.NumRowGroups() {
		meta := f.MetaData().RowGroup(g)
		of := int(meta.NumRows())
		group, err := f.GetPageIndexReader().RowGroup(g)
		if err != nil {
			t.Fatal(err)
		}
		size := int64(0)
		for i := range rows.Cols {
			c, name := &rows.Cols[i], rows.Schema.Fields[i].Name
			said := f.MetaData().RowGroups[g].Columns[i].MetaData
			size += said.TotalUncompressedSize
			nulls, lo, hi := boundsOf(c, at, at+of)
			if s := said.Statistics; s == nil || s.GetNullCount() != nulls {
				t.Fatalf("column %q of %d rows with %d nulls: %v", name, of, nulls, s)
			} else if s.IsSetMinValue() && !same(c.Kind, s.MinValue, lo) || s.IsSetMaxValue() && !same(c.Kind, s.MaxValue, hi) {
				t.Fatalf("column %q: %x to %x is said to be %x to %x", name, lo, hi, s.MinValue, s.MaxValue)
			} else if lo != nil && (c.Kind == KindInt || c.Kind == KindTime) && !s.IsSetMinValue() {
				t.Fatalf("column %q has lost its bounds", name)
			}
			offsets, err := group.GetOffsetIndex(i)
			if err != nil {
				t.Fatal(err)
			}
			index, err := group.GetColumnIndex(i)
			if err != nil {
				t.Fatal(err)
			}
			places, total := offsets.GetPageLocations(), int64(0)
			for n, p := range places {
				total += int64(p.CompressedPageSize)
				to := of
				if n+1 < len(places) {
					to = int(places[n+1].FirstRowIndex)
				}
				from := int(p.FirstRowIndex)
				if h, _, err := readPageHeader(bytes.NewReader(body), p.Offset, int64(len(body))); err != nil {
					t.Fatal(err)
				} else if v1, err := h.Struct(pageHeaderV1); err != nil {
					t.Fatal(err)
				} else if has, err := v1.Int(1); err != nil || has != int64(to-from) {
					t.Fatalf("column %q, page %d: %d rows at %d, %d are said", name, n, has, p.Offset, to-from)
				}
				if index == nil {
					continue
				}
				pages++
				nulls, lo, hi := boundsOf(c, at+from, at+to)
				if index.GetNullPages()[n] != (nulls == int64(to-from)) || index.GetNullCounts()[n] != nulls {
					t.Fatalf("column %q, page %d: %d nulls, %v", name, n, nulls, index)
				}
				if nulls < int64(to-from) && (!same(c.Kind, index.GetMinValues()[n], lo) || !same(c.Kind, index.GetMaxValues()[n], hi)) {
					t.Fatalf("column %q, page %d: %x to %x, %v", name, n, lo, hi, index)
				}
			}
			if chunk, err := meta.ColumnChunk(i); err != nil {
				t.Fatal(err)
			} else if dict := chunk.HasDictionaryPage(); said.NumValues != int64(of) || !dict && said.TotalCompressedSize != total {
				t.Fatalf("column %q: %d values in %d bytes, %d in pages", name, said.NumValues, said.TotalCompressedSize, total)
			}
		}
		if size != meta.TotalByteSize() {
			t.Fatalf("row group %d is %d bytes, its columns %d", g, meta.TotalByteSize(), size)
		}
		at += of
	}
	if at != rows.Rows {
		t.Fatalf("%d rows in row groups, %d in all", at, rows.Rows)
	}
	return pages
}

// boundsOf are the nulls, the smallest and the largest value of some rows, as a footer
// has them; NaN is neither.
func boundsOf(c *Column, from, to int) (nulls int64, lo, hi []byte) {
	for r := from; r < to; r++ {
		if !c.Valid[r] {
			nulls++
			continue
		}
		var v []byte
		switch {
		case c.wide():
			v = append([]byte{}, c.Bytes(r)...)
		case c.Kind == KindBool:
			v = []byte{byte(c.Nums[r])}
		case c.Kind == KindFloat && math.IsNaN(math.Float64frombits(uint64(c.Nums[r]))):
			continue
		default:
			v = binary.LittleEndian.AppendUint64(nil, uint64(c.Nums[r]))
		}
		if lo == nil || less(c.Kind, v, lo) {
			lo = v
		}
		if hi == nil || less(c.Kind, hi, v) {
			hi = v
		}
	}
	return nulls, lo, hi
}

func less(k Kind, x, y []byte) bool {
	switch k {
	case KindFloat:
		return math.Float64frombits(binary.LittleEndian.Uint64(x)) < math.Float64frombits(binary.LittleEndian.Uint64(y))
	case KindInt, KindTime:
		return cmp.Less(int64(binary.LittleEndian.Uint64(x)), int64(binary.LittleEndian.Uint64(y)))
	}
	return bytes.Compare(x, y) < 0
}

func same(k Kind, x, y []byte) bool {
	return len(x) == len(y) && y != nil && !less(k, x, y) && !less(k, y, x)
}

// Files that lie in small pages, in dictionaries or in huge row groups are not copied,
// and their rows are not lost silently.
func TestCopierRefuses(t *testing.T) {
	ints := Schema{Fields: []Field{{"i", KindInt}}}
	no := false
	plain, _ := write(t, columnsAt(1, ints, 9000), WriterOptions{Dictionary: &no})
	small, _ := write(t, columnsAt(1, ints, 500), WriterOptions{Dictionary: &no})
	forced, _ := write(t, columnsAt(1, ints, 9000), WriterOptions{Dictionary: yes()})
	huge, _ := encode(t, fields("s:string"), WriterOptions{Dictionary: &no}, []Row{{{"s", strings.Repeat("x", 300<<10)}}, {{"s", strings.Repeat("y", 300<<10)}}})
	for name, x := range map[string]struct {
		schema Schema
		opts   WriterOptions
		files  [][]byte
		refuse bool
	}{
		"sound":                  {ints, WriterOptions{}, [][]byte{plain, plain}, false},
		"one small among others": {ints, WriterOptions{}, [][]byte{plain, plain, small}, false},
		"small pages":            {ints, WriterOptions{}, [][]byte{small, small}, true},
		"a dictionary":           {ints, WriterOptions{}, [][]byte{forced, forced}, true},
		"dictionaries asked for": {ints, WriterOptions{Dictionary: yes()}, [][]byte{plain}, true},
		"row groups too large":   {ints, WriterOptions{GroupRows: 4000}, [][]byte{plain}, true},
		"huge rows":              {fields("s:string"), WriterOptions{}, [][]byte{huge}, true},
		"another kind":           {Schema{Fields: []Field{{"i", KindTime}}}, WriterOptions{}, [][]byte{plain}, true},
		"a column too many":      {Schema{Fields: []Field{{"j", KindInt}}}, WriterOptions{}, [][]byte{plain}, true},
	} {
		_, sum, err := copied(x.schema, x.opts, x.files...)
		if errors.Is(err, ErrUncopied) != x.refuse || !x.refuse && err != nil {
			t.Errorf("%s: %d rows, %v", name, sum.Rows, err)
		}
	}
	if body, sum, err := copied(ints, WriterOptions{}); err != nil || len(body) > 0 || sum.Rows != 0 {
		t.Errorf("of no files: %d bytes, %+v, %v", len(body), sum, err)
	}
}

// A damaged source is an error or a copy that is found to have other rows: no byte of it
// may change a row unseen, and none panics.
func TestCopierOfDamage(t *testing.T) {
	no := false
	b := columnsAt(3, Schema{Fields: []Field{{"i", KindInt}, {"s", KindString}, {"o", KindBool}}}, 2100)
	sound, sum := write(t, b, WriterOptions{Dictionary: &no})
	footer := len(sound) - 8 - int(binary.LittleEndian.Uint32(sound[len(sound)-8:]))
	seen := 0
	for at := 0; at < len(sound); at++ {
		if at > 150 && at < footer-100 && at%509 != 0 || at > footer && at%3 != 0 { // most of it are values
			continue
		}
		body := bytes.Clone(sound)
		body[at] ^= 1 << (at % 8)
		out, got, err := copied(b.Schema, WriterOptions{}, body)
		if err != nil {
			if !errors.Is(err, hayrick.ErrCorrupt) && !errors.Is(err, ErrUncopied) && !errors.Is(err, ErrKind) {
				t.Fatalf("byte %d: %v", at, err)
			}
			seen++
			continue
		}
		if err := Verify(bytes.NewReader(out), got.Bytes, sum.Rows, sum.RowHash); err != nil {
			seen++
		}
	}
	if seen < 200 {
		t.Errorf("%d seen", seen)
	}
}
