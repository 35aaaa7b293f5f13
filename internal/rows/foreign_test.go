package rows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// foreign is a file as Arrow's own writer makes it, from JSON rows.
func foreign(t *testing.T, rows string, fields ...arrow.Field) []byte {
	t.Helper()
	s := arrow.NewSchema(fields, nil)
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, s, strings.NewReader(rows))
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Release()
	var buf bytes.Buffer
	w, err := pqarrow.NewFileWriter(s, &buf, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy)),
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Write(rec), w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestForeignKinds(t *testing.T) {
	utc := func(u arrow.TimeUnit) arrow.DataType { return &arrow.TimestampType{Unit: u, TimeZone: "UTC"} }
	dict := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
	for _, tc := range []struct {
		typ  arrow.DataType
		json string
		kind Kind
		want any
	}{
		{arrow.BinaryTypes.String, `"x"`, KindString, "x"},
		{arrow.BinaryTypes.LargeString, `"x"`, KindString, "x"},
		{dict, `"x"`, KindString, "x"},
		{arrow.BinaryTypes.Binary, `"eHk="`, KindBytes, []byte("xy")},
		{arrow.BinaryTypes.LargeBinary, `"eHk="`, KindBytes, []byte("xy")},
		{&arrow.FixedSizeBinaryType{ByteWidth: 2}, `"eHk="`, KindBytes, []byte("xy")},
		{arrow.PrimitiveTypes.Int8, `-5`, KindInt, int64(-5)},
		{arrow.PrimitiveTypes.Int16, `-5`, KindInt, int64(-5)},
		{arrow.PrimitiveTypes.Int32, `-5`, KindInt, int64(-5)},
		{arrow.PrimitiveTypes.Int64, `-5`, KindInt, int64(-5)},
		{arrow.PrimitiveTypes.Uint8, `200`, KindInt, int64(200)},
		{arrow.PrimitiveTypes.Uint16, `60000`, KindInt, int64(60000)},
		{arrow.PrimitiveTypes.Uint32, `4000000000`, KindInt, int64(4000000000)},
		{arrow.PrimitiveTypes.Float32, `1.5`, KindFloat, 1.5},
		{arrow.PrimitiveTypes.Float64, `1.5`, KindFloat, 1.5},
		{arrow.FixedWidthTypes.Boolean, `true`, KindBool, true},
		{utc(arrow.Millisecond), `"2026-01-02T03:04:05.006Z"`, KindTime, time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)},
		{utc(arrow.Microsecond), `"2026-01-02T03:04:05.000006Z"`, KindTime, time.Date(2026, 1, 2, 3, 4, 5, 6e3, time.UTC)},
		{utc(arrow.Nanosecond), `"2026-01-02T03:04:05.000006Z"`, KindTime, time.Date(2026, 1, 2, 3, 4, 5, 6e3, time.UTC)},
		{&arrow.TimestampType{Unit: arrow.Microsecond}, `"2026-01-02T03:04:05"`, KindTime, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	} {
		for _, required := range []bool{false, true} {
			rows := fmt.Sprintf(`[{"c":%s},{"c":%s}]`, tc.json, tc.json)
			if !required {
				rows = fmt.Sprintf(`[{"c":%s},{"c":null},{"c":%s}]`, tc.json, tc.json)
			}
			b := foreign(t, rows, arrow.Field{Name: "c", Type: tc.typ, Nullable: !required}, arrow.Field{Name: "k", Type: arrow.PrimitiveTypes.Int64, Nullable: true})
			s, err := ReadSchema(bytes.NewReader(b), int64(len(b)))
			if err != nil || s.Fields[0] != (Field{"c", tc.kind}) {
				t.Errorf("%s: %v, %v", tc.typ, s, err)
				continue
			}
			got, hash, err := decode(b, Schema{})
			if err != nil {
				t.Errorf("%s: %v", tc.typ, err)
				continue
			}
			want := []Row{{{"c", tc.want}}, {{"c", tc.want}}}
			if !required {
				want = []Row{{{"c", tc.want}}, nil, {{"c", tc.want}}}
			}
			sameRows(t, got, want)
			// A narrow column and a wide one hold the same rows.
			if hash != hashRows(t, want) {
				t.Errorf("%s: the rows' hash depends on how they are stored", tc.typ)
			}
		}
	}
}

func TestForeignRefused(t *testing.T) {
	for _, tc := range []struct {
		typ  arrow.DataType
		json string
	}{
		{arrow.PrimitiveTypes.Uint64, `1`},
		{arrow.FixedWidthTypes.Date32, `"2026-01-02"`},
		{arrow.FixedWidthTypes.Time64us, `"03:04:05"`},
		{&arrow.Decimal128Type{Precision: 10, Scale: 2}, `"1.25"`},
		{arrow.FixedWidthTypes.Float16, `1.5`},
		{arrow.ListOf(arrow.PrimitiveTypes.Int64), `[1]`},
		{arrow.StructOf(arrow.Field{Name: "in", Type: arrow.PrimitiveTypes.Int64, Nullable: true}), `{"in":1}`},
		{arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64), `[{"key":"a","value":1}]`},
	} {
		b := foreign(t, fmt.Sprintf(`[{"odd":%s}]`, tc.json), arrow.Field{Name: "odd", Type: tc.typ, Nullable: true})
		if s, err := ReadSchema(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), `"odd"`) {
			t.Errorf("%s: %v, %v", tc.typ, s, err)
		}
	}
	nanos := &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"}
	b := foreign(t, `[{"at":"2026-01-02T03:04:05.000000007Z"}]`, arrow.Field{Name: "at", Type: nanos, Nullable: true})
	if _, _, err := decode(b, Schema{}); !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), `"at"`) {
		t.Errorf("nanoseconds are dropped: %v", err)
	}
}

// A column that a writer typed as nothing, having seen no value, is no column.
func TestForeignNullColumn(t *testing.T) {
	b := foreign(t, `[{"n":null,"a":1,"m":null},{"n":null,"a":2,"m":null}]`,
		arrow.Field{Name: "n", Type: arrow.Null, Nullable: true},
		arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		arrow.Field{Name: "m", Type: arrow.Null, Nullable: true})
	got, _, err := decode(b, fields("m:float a:int n:string"))
	if err != nil {
		t.Fatal(err)
	}
	sameRows(t, got, []Row{{{"a", 1}}, {{"a", 2}}})
}

// What we write, Arrow's own reader reads: types, values, nulls.
func TestArrowReadsOurs(t *testing.T) {
	rows := []Row{
		{{"s", "ü"}, {"b", []byte{0, 255}}, {"i", math.MinInt64}, {"f", 2.5}, {"t", true}, {"at", time.UnixMicro(-7)}, {"j", json.RawMessage(`{"a":1}`)}},
		{{"s", ""}},
	}
	data, _ := encode(t, schemaOf(t, rows), WriterOptions{}, rows)
	table, err := pqarrow.ReadTable(t.Context(), bytes.NewReader(data), nil, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Release()
	var types, values []string
	for i := range int(table.NumCols()) {
		types = append(types, table.Schema().Field(i).Type.String())
		col := table.Column(i).Data().Chunk(0)
		for r := range col.Len() {
			values = append(values, col.ValueStr(r))
		}
	}
	if got, want := strings.Join(types, " "), "utf8 binary int64 float64 bool timestamp[us, tz=UTC] utf8"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := strings.Join(values, " | "), `ü |  | AP8= | (null) | -9223372036854775808 | (null) | 2.5 | (null) | true | (null) | 1969-12-31T23:59:59.999993Z | (null) | {"a":1} | (null)`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
