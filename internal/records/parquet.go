package records

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// How much of a Parquet file is decoded at once.
const (
	groupBytes = 4 << 20
	groupRows  = 4096
)

// writeParquet makes a record of each row, rows and columns in the file's order: numbers as they are,
// binary as base64, times as text, what is null as null. src can be read at any place,
// an *os.File for one.
func writeParquet(ctx context.Context, w io.Writer, src io.Reader, o Options) (err error) {
	damaged := func(why any) error {
		return &Problem{Name: o.Name, What: fmt.Sprintf("the Parquet file is cut short or damaged (%v)", why), Hint: "fetch or make it again; or write the input.format that it has"}
	}
	// The library panics on some of what is no Parquet.
	defer func() {
		if p := recover(); p != nil {
			err = damaged(p)
		}
	}()
	if !readsAnywhere(src) && o.Scratch != nil {
		whole, err := o.Scratch()
		if err != nil {
			return err
		}
		defer whole.Close()
		if _, err := io.Copy(whole, &watched{ctx, src}); err != nil {
			return err
		}
		src = whole
	}
	at, ok := src.(parquet.ReaderAtSeeker)
	if !ok {
		return fmt.Errorf("read %s: a Parquet file is read from its end", o.Name)
	}
	if p := notParquet(at, o); p != nil {
		return p
	}
	props := parquet.NewReaderProperties(memory.DefaultAllocator)
	props.BufferedStreamEnabled = true
	f, err := file.NewParquetReader(borrowed{at}, file.WithReadProps(props))
	if err != nil {
		return damaged(err)
	}
	defer f.Close()
	r, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: rowsAtOnce(f)}, memory.DefaultAllocator)
	if err != nil {
		return damaged(err)
	}
	records, err := r.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return damaged(err)
	}
	defer records.Release()
	if err := errors.Join(oneOfAName(records.Schema().Fields(), o), keyColumn(records.Schema(), o)); err != nil {
		return err
	}
	out := &sink{w: bufio.NewWriterSize(w, 256<<10), o: o, ctx: ctx}
	for records.Next() {
		err := out.rows(records.RecordBatch())
		if errors.Is(err, errLimit) {
			return out.w.Flush()
		}
		if err != nil {
			return err
		}
	}
	if err := records.Err(); err != nil && !errors.Is(err, io.EOF) {
		return damaged(err)
	}
	return out.w.Flush()
}

// notParquet names content that is something else, by how it begins; what only does
// not read as Parquet is left to the library.
func notParquet(at io.ReaderAt, o Options) *Problem {
	buf := make([]byte, 64)
	n, err := at.ReadAt(buf, 0)
	head := buf[:n]
	switch {
	case err != nil && err != io.EOF, bytes.HasPrefix(head, []byte("PAR1")):
		return nil
	case len(head) == 0:
		return &Problem{Name: o.Name, What: "it is empty, and a Parquet file without a row is not", Hint: "fetch or make it again"}
	case bytes.HasPrefix(head, []byte("PARE")):
		return &Problem{Name: o.Name, What: "the Parquet file is encrypted", Hint: "write it without encryption"}
	case bytes.HasPrefix(head, []byte("\x1f\x8b")), bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		return &Problem{Name: o.Name, What: "it is compressed as a whole", Hint: "decompress it: Parquet is compressed inside"}
	}
	o.Packed = "none"
	if p := Refuse(bufio.NewReader(bytes.NewReader(head)), o); p != nil {
		return p
	}
	line, _, _ := strings.Cut(strings.TrimPrefix(string(head), "\ufeff"), "\n")
	line = strings.TrimRight(strings.ToValidUTF8(line, ""), "\r")
	if line == "" || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' }) {
		return nil
	}
	p := &Problem{Name: o.Name, What: fmt.Sprintf("it is no Parquet file: it begins with %q", cut(line, 20)), Hint: "write the input.format that it has"}
	switch {
	case strings.HasPrefix(strings.TrimSpace(line), "{"):
		p.Hint = "if it is JSON lines, write input.format: jsonl"
	case strings.Contains(line, "\t"):
		p.Hint = "if it is text with tabs, write input.format: tsv"
	case strings.Contains(line, ","):
		p.Hint = "if it is CSV, write input.format: csv"
	}
	return p
}

// cut is at most the first n characters of s.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "..."
	}
	return s
}

// borrowed is a file that its reader does not close.
type borrowed struct{ parquet.ReaderAtSeeker }

// oneOfAName checks that no two columns of the file, or of a struct in it, have one name:
// an object has room for one of them.
func oneOfAName(fields []arrow.Field, o Options) error {
	seen := map[string]bool{}
	for _, f := range fields {
		if seen[f.Name] {
			return &Problem{Name: o.Name, What: fmt.Sprintf("two columns are named %q", f.Name), Hint: "rename one of them; an item is an object, and has each name once"}
		}
		seen[f.Name] = true
		if nested, ok := f.Type.(arrow.NestedType); ok {
			if err := oneOfAName(nested.Fields(), o); err != nil {
				return err
			}
		}
	}
	return nil
}

// keyColumn checks that there is a column for the key.
func keyColumn(schema *arrow.Schema, o Options) error {
	if o.Key == "" || schema.HasField(o.Key) {
		return nil
	}
	names := make([]string, schema.NumFields())
	for i, f := range schema.Fields() {
		names[i] = f.Name
	}
	return noColumn(o, 0, names)
}

// rows writes each row as one JSON object, its columns in the order of the file.
func (s *sink) rows(rec arrow.RecordBatch) error {
	row := rowWriter{names: map[string][]byte{}}
	row.enc = json.NewEncoder(&row.line)
	row.enc.SetEscapeHTML(false)
	for i := range int(rec.NumRows()) {
		row.line.Reset()
		var label []byte
		row.line.WriteByte('{')
		for j, col := range rec.Columns() {
			at, err := row.member(j, rec.ColumnName(j), col, i)
			if err != nil {
				return fmt.Errorf("write row %d as JSON: %w", s.n+1, err)
			}
			if rec.ColumnName(j) == s.o.Key {
				label = row.line.Bytes()[at:]
			}
		}
		row.line.WriteByte('}')
		if s.o.Key != "" {
			if why := noLabel(label); why != "" {
				if err := s.bad(noKey(s.o, 0, fmt.Sprintf("row %d: ", s.n+1), why)); err != nil {
					return err
				}
				continue
			}
		}
		s.begin(int(s.n) + 1)
		s.w.Write(row.line.Bytes())
		if err := s.end(); err != nil {
			return err
		}
	}
	return nil
}

// rowWriter makes the JSON of one row after another.
type rowWriter struct {
	line  bytes.Buffer
	enc   *json.Encoder     // to line
	names map[string][]byte // of columns and of what is in them, as JSON
}

// member writes the j-th member of an object and says where its value begins.
func (x *rowWriter) member(j int, name string, col arrow.Array, i int) (at int, err error) {
	if j > 0 {
		x.line.WriteByte(',')
	}
	quoted, known := x.names[name]
	if !known {
		at := x.line.Len()
		if err := x.plain(name); err != nil {
			return 0, err
		}
		x.names[name] = bytes.Clone(x.line.Bytes()[at:])
	} else {
		x.line.Write(quoted)
	}
	x.line.WriteByte(':')
	at = x.line.Len()
	return at, x.value(col, i)
}

// value writes one value. What is in a list or a struct is written as it would be in a
// column of its own: in the order of the file, and a map as a list of key and value.
func (x *rowWriter) value(col arrow.Array, i int) error {
	if col.IsNull(i) {
		return x.plain(nil)
	}
	switch a := col.(type) {
	case array.ListLike:
		x.line.WriteByte('[')
		from, to := a.ValueOffsets(i)
		for k := from; k < to; k++ {
			if k > from {
				x.line.WriteByte(',')
			}
			if err := x.value(a.ListValues(), int(k)); err != nil {
				return err
			}
		}
		x.line.WriteByte(']')
		return nil
	case *array.Struct:
		x.line.WriteByte('{')
		for j, f := range a.DataType().(*arrow.StructType).Fields() {
			if _, err := x.member(j, f.Name, a.Field(j), i); err != nil {
				return err
			}
		}
		x.line.WriteByte('}')
		return nil
	case *array.Dictionary:
		return x.value(a.Dictionary(), a.GetValueIndex(i))
	}
	v := col.GetOneForMarshal(i)
	if !arrow.IsFloating(col.DataType().ID()) {
		return x.plain(v)
	}
	// What of floating point JSON does not have, NaN and the infinities, is null, and
	// what is whole is 1.0: a handler that passes it on passes on a float, as the column is.
	switch f := v.(type) {
	case string: // "NaN", "+Inf"
		return x.plain(nil)
	case float32: // half precision, too
		if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
			return x.plain(nil)
		}
	}
	at := x.line.Len()
	if err := x.plain(v); err != nil {
		return err
	}
	if !bytes.ContainsAny(x.line.Bytes()[at:], ".e") {
		x.line.WriteString(".0")
	}
	return nil
}

// plain writes what JSON has a word for.
func (x *rowWriter) plain(v any) error {
	if err := x.enc.Encode(v); err != nil {
		return err
	}
	x.line.Truncate(x.line.Len() - 1) // the newline
	return nil
}

// noLabel says why a value, as JSON, labels no record; "" = it does.
func noLabel(b []byte) string {
	switch {
	case len(b) == 0 || b[0] == 'n':
		return "null"
	case string(b) == `""`:
		return "empty"
	case b[0] == '{', b[0] == '[':
		return "neither text nor a number"
	}
	return ""
}

// rowsAtOnce is how many rows take groupBytes, by the largest row group.
func rowsAtOnce(f *file.Reader) int64 {
	n := int64(groupRows)
	for i := range f.NumRowGroups() {
		g := f.MetaData().RowGroup(i)
		if size := g.TotalByteSize(); size > 0 {
			n = min(n, max(1, groupBytes*max(g.NumRows(), 1)/size))
		}
	}
	return n
}

// readsAnywhere says that r has an end to begin with: a file, and no pipe.
func readsAnywhere(r io.Reader) bool {
	if f, ok := r.(*os.File); ok {
		info, err := f.Stat()
		return err == nil && info.Mode().IsRegular()
	}
	_, ok := r.(parquet.ReaderAtSeeker)
	return ok
}
