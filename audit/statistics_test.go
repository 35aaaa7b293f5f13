package audit_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/file"

	"hayrick/audit"
	"hayrick/internal/rows"
)

// variedRows have a column of each kind, nulls, NaN and both zeros.
func variedRows(task string, rs []rows.Row) []rows.Row {
	if !strings.HasPrefix(task, "task-") {
		return rs // merged of those
	}
	for i := range rs {
		rs[i] = append(rs[i], rows.Col{Name: "i", Value: int64(i) - 3}, rows.Col{Name: "b", Value: i%2 == 0}, rows.Col{Name: "raw", Value: []byte{0xff, byte(i)}},
			rows.Col{Name: "long", Value: strings.Repeat("x", 1+i*200)}) // too long to be said
		if i%3 == 0 {
			rs[i] = append(rs[i], rows.Col{Name: "sometimes", Value: []float64{math.Copysign(0, -1), 2.5, math.NaN(), 0}[i%4]})
		}
	}
	return rs
}

// said is what the library reads of a file's statistics, as text; "" where it cannot.
func said(body []byte) (says string) {
	defer func() {
		if recover() != nil {
			says = ""
		}
	}()
	f, err := file.NewParquetReader(bytes.NewReader(body))
	if err != nil {
		return ""
	}
	for g := range f.NumRowGroups() {
		index, err := f.GetPageIndexReader().RowGroup(g)
		if err != nil {
			return ""
		}
		for c := range f.MetaData().Schema.NumColumns() {
			chunk, err := f.MetaData().RowGroup(g).ColumnChunk(c)
			if err != nil {
				return ""
			}
			if s, err := chunk.Statistics(); err != nil {
				return ""
			} else if s != nil {
				says += fmt.Sprintln(s.HasMinMax(), s.HasNullCount(), s.NullCount())
				if s.HasMinMax() {
					says += fmt.Sprintln(s.EncodeMin(), s.EncodeMax())
				}
			}
			if chunk.GetColumnIndexLocation() == nil {
				continue
			}
			x, err := index.GetColumnIndex(c)
			if err != nil {
				return ""
			}
			says += fmt.Sprintln(x.GetMinValues(), x.GetMaxValues(), x.IsSetNullCounts(), x.GetNullCounts(), x.GetNullPages())
		}
	}
	return says
}

// Statistics that are not those of the rows are found in every file, whatever they
// lose: a footer is written again with one of its numbers changed, and of the page
// indexes each byte is changed that a reader would see. All digests are right.
func TestStatisticsAreThoseOfTheRows(t *testing.T) {
	s := tiny()
	s.onRows = variedRows
	var sound []byte
	s.onParquet = func(body []byte) []byte { sound = body; return body }
	w := build(t, s)
	clean(t, w.audit(true))
	if n := strings.Count(said(sound), "true true"); n < 6 {
		t.Fatalf("%d columns have bounds: %s", n, said(sound))
	}
	f, err := file.NewParquetReader(bytes.NewReader(sound))
	w.must(err)
	lies := map[string][]byte{}
	chunk := func(i int) reflect.Value {
		return reflect.ValueOf(f.MetaData().RowGroups[0].Columns[i].MetaData.Statistics).Elem()
	}
	footer := int(binary.LittleEndian.Uint32(sound[len(sound)-8:]))
	for i := range f.MetaData().Schema.NumColumns() {
		name := f.MetaData().Schema.Column(i).Name()
		tell := func(what string) {
			var b bytes.Buffer
			b.Write(sound[:len(sound)-8-footer])
			n, err := f.MetaData().WriteTo(&b, nil)
			w.must(err)
			b.Write(binary.LittleEndian.AppendUint32(nil, uint32(n)))
			b.WriteString("PAR1")
			lies[what+" of "+name] = b.Bytes()
		}
		nulls := chunk(i).FieldByName("NullCount")
		*nulls.Interface().(*int64)++
		tell("nulls")
		*nulls.Interface().(*int64)--
		for _, bound := range []string{"MinValue", "MaxValue", "Min", "Max"} {
			if v := chunk(i).FieldByName(bound).Bytes(); len(v) > 0 {
				v[0] ^= 1
				tell(bound)
				v[0] ^= 1
			}
		}
		if c, err := f.MetaData().RowGroup(0).ColumnChunk(i); err == nil && c.GetColumnIndexLocation() != nil {
			at := c.GetColumnIndexLocation()
			for k := at.Offset; k < at.Offset+int64(at.Length); k++ {
				b := bytes.Clone(sound)
				b[k] ^= 1
				if said(b) != said(sound) {
					lies[fmt.Sprintf("byte %d of the page index of %s", k-at.Offset, name)] = b
				}
			}
		}
	}
	if len(lies) < 80 {
		t.Errorf("only %d lies", len(lies))
	}
	for what, lie := range lies {
		s := tiny()
		s.onRows = variedRows
		s.onParquet = func(body []byte) []byte {
			if bytes.Equal(body, sound) { // the last one, a part, and the merge it is made of
				return lie
			}
			return body
		}
		w := build(t, s)
		clean(t, w.audit(false)) // only the rows tell
		r := w.audit(true)
		if f, broken := r.First(); !broken || f.Code != audit.CodeRows || !strings.HasSuffix(f.Key, ".parquet") {
			t.Errorf("%s: %s", what, r.Line)
		}
	}
}

// A part that a root had to make again has its key from the try.
func TestRemadePart(t *testing.T) {
	for n := range 5 {
		s := tiny()
		s.remade = n
		r := build(t, s).audit(true)
		if f, broken := r.First(); broken != (n > 3) || broken && (f.Code != audit.CodeKey || !strings.HasPrefix(f.Key, "aggregation/0/part-00000-")) {
			t.Errorf("made again %d times: %v", n, r.Findings)
		}
	}
}
