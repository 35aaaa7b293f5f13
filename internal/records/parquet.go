package records

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/apache/arrow-go/v18/arrow"
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

// writeParquet makes a record of each row, in the file's order: numbers as they are,
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
	if err := keyColumn(records.Schema(), o); err != nil {
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

// borrowed is a file that its reader does not close.
type borrowed struct{ parquet.ReaderAtSeeker }

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

// rows writes each row as one JSON object. What of floating point JSON does not have,
// NaN and the infinities, is null, and what is whole is 1.0: a handler that passes it on
// passes on a float, as the column is.
func (s *sink) rows(rec arrow.RecordBatch) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	row := map[string]any{}
	for i := range int(rec.NumRows()) {
		line.Reset()
		for j, col := range rec.Columns() {
			v := col.GetOneForMarshal(i)
			if arrow.IsFloating(col.DataType().ID()) {
				v = floating(v)
			}
			row[rec.ColumnName(j)] = v
		}
		var bad *Problem
		if err := enc.Encode(row); err != nil {
			bad = &Problem{Name: s.o.Name, What: fmt.Sprintf("row %d has a value that JSON does not have (%v)", s.n+1, err),
				Hint: "leave NaN and infinities out of lists and structs, or write them as null"}
		} else if s.o.Key != "" {
			if why := noLabel(row[s.o.Key]); why != "" {
				bad = noKey(s.o, 0, fmt.Sprintf("row %d: ", s.n+1), why)
			}
		}
		if bad != nil {
			if err := s.bad(bad); err != nil {
				return err
			}
			continue
		}
		s.begin(int(s.n) + 1)
		s.w.Write(bytes.TrimSuffix(line.Bytes(), []byte("\n")))
		if err := s.end(); err != nil {
			return err
		}
	}
	return nil
}

// floating is a number of a column of floats as JSON that says so.
func floating(v any) any {
	if _, named := v.(string); named { // "NaN", "+Inf"
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil || v == nil || bytes.ContainsAny(b, ".e") {
		return v
	}
	return json.RawMessage(append(b, ".0"...))
}

// noLabel says why a value labels no record; "" = it does.
func noLabel(v any) string {
	b, err := json.Marshal(v)
	switch {
	case err != nil || len(b) == 0 || b[0] == 'n':
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
