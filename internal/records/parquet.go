package records

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

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
	at, ok := src.(parquet.ReaderAtSeeker)
	if !ok {
		return fmt.Errorf("read %s: a Parquet file is read from its end", o.Name)
	}
	props := parquet.NewReaderProperties(memory.DefaultAllocator)
	props.BufferedStreamEnabled = true
	f, err := file.NewParquetReader(at, file.WithReadProps(props))
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
	out := &sink{w: bufio.NewWriterSize(w, 256<<10), o: o, ctx: ctx}
	var n int64
	for records.Next() {
		rec := records.RecordBatch()
		if left := o.Limit - n; o.Limit > 0 && rec.NumRows() > left {
			rec = rec.NewSlice(0, left)
		}
		if err := writeRows(out.w, rec); err != nil {
			return &Problem{Name: o.Name, What: fmt.Sprintf("a row of rows %d to %d has a value that JSON does not have (%v)", n+1, n+rec.NumRows(), err),
				Hint: "leave NaN and infinities out of lists and structs, or write them as null"}
		}
		if n += rec.NumRows(); o.Limit > 0 && n >= o.Limit {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := records.Err(); err != nil && !errors.Is(err, io.EOF) {
		return damaged(err)
	}
	return out.w.Flush()
}

// writeRows writes each row as one JSON object. What of floating point JSON does not have,
// NaN and the infinities, is null.
func writeRows(w io.Writer, rec arrow.RecordBatch) error {
	enc := json.NewEncoder(w)
	row := map[string]any{}
	for i := range int(rec.NumRows()) {
		for j, col := range rec.Columns() {
			v := col.GetOneForMarshal(i)
			if _, named := v.(string); named && arrow.IsFloating(col.DataType().ID()) {
				v = nil // "NaN", "+Inf"
			}
			row[rec.ColumnName(j)] = v
		}
		if err := enc.Encode(row); err != nil {
			return err
		}
	}
	return nil
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
