package extproc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"hayrick/jobs"
)

// itemColumn names the item that a row of an Arrow stream belongs to, by the id of its
// frame.
const itemColumn = "_item"

// The bounds of one Arrow message, so that a length is not believed that no handler
// means.
const (
	maxArrowMeta = 16 << 20
	maxArrowBody = 256 << 20
)

// readArrow reads the program's Arrow stream until it ends.
func (c *child) readArrow() {
	err := c.arrowRows()
	if err == nil || errors.Is(err, io.EOF) || c.ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broke(jobs.Outcome{Class: classProtocol, Message: fmt.Sprintf("the Arrow stream on rows_fd cannot be read: %v", err), Detail: string(c.tail)})
}

func (c *child) arrowRows() error {
	var any [1]byte
	if _, err := io.ReadFull(c.proc.rows, any[:]); err != nil {
		return nil // no rows at all
	}
	mr := ipc.NewMessageReader(io.MultiReader(bytes.NewReader(any[:]), c.proc.rows), ipc.WithMetadataSizeLimit(maxArrowMeta), ipc.WithBodySizeLimit(maxArrowBody))
	r, err := ipc.NewReaderFromMessageReader(mr)
	if err != nil {
		return err
	}
	defer r.Release()
	for r.Next() {
		if err := c.arrowBatch(r.RecordBatch()); err != nil {
			return err
		}
	}
	if err := r.Err(); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return nil // a stream that is cut off is the end of its program, which says more
}

// arrowBatch emits the rows of a record batch, each for its item. What is of an item
// that has ended is passed over.
func (c *child) arrowBatch(b arrow.RecordBatch) error {
	at := b.Schema().FieldIndices(itemColumn)
	if len(at) != 1 {
		return fmt.Errorf("it has no column %s with the id of each row's item", itemColumn)
	}
	ids, ok := b.Column(at[0]).(*array.Int64)
	if !ok || ids.NullN() > 0 {
		return fmt.Errorf("column %s is %s, want int64 without nulls", itemColumn, b.Column(at[0]).DataType())
	}
	cells := make([]func(int) any, b.NumCols())
	for i := range cells {
		if i == at[0] {
			continue
		}
		var err error
		if cells[i], err = cellsOf(b.Column(i)); err != nil {
			return fmt.Errorf("column %q: %w", b.ColumnName(i), err)
		}
	}
	for n := range int(b.NumRows()) {
		c.mu.Lock()
		k := c.calls[ids.Value(n)]
		c.mu.Unlock()
		if k == nil {
			continue
		}
		row := make(jobs.Row, 0, len(cells)-1)
		for i, cell := range cells {
			if cell != nil {
				row = append(row, jobs.Col{Name: b.ColumnName(i), Value: cell(n)})
			}
		}
		c.row(k, row)
	}
	return nil
}

// cellsOf reads the values of a column as a row has them.
func cellsOf(a arrow.Array) (func(int) any, error) {
	var get func(int) any
	switch a := a.(type) {
	case *array.Null:
		return func(int) any { return nil }, nil
	case *array.Boolean:
		get = func(i int) any { return a.Value(i) }
	case *array.Int8:
		get = func(i int) any { return int64(a.Value(i)) }
	case *array.Int16:
		get = func(i int) any { return int64(a.Value(i)) }
	case *array.Int32:
		get = func(i int) any { return int64(a.Value(i)) }
	case *array.Int64:
		get = func(i int) any { return a.Value(i) }
	case *array.Uint8:
		get = func(i int) any { return int64(a.Value(i)) }
	case *array.Uint16:
		get = func(i int) any { return int64(a.Value(i)) }
	case *array.Uint32:
		get = func(i int) any { return int64(a.Value(i)) }
	case *array.Uint64:
		for i := range a.Len() {
			if !a.IsNull(i) && a.Value(i) > math.MaxInt64 {
				return nil, fmt.Errorf("%d does not fit a signed 64-bit integer", a.Value(i))
			}
		}
		get = func(i int) any { return int64(a.Value(i)) }
	case *array.Float32:
		get = func(i int) any { return float64(a.Value(i)) }
	case *array.Float64:
		get = func(i int) any { return a.Value(i) }
	case *array.String:
		get = func(i int) any { return strings.Clone(a.Value(i)) }
	case *array.LargeString:
		get = func(i int) any { return strings.Clone(a.Value(i)) }
	case *array.Binary:
		get = func(i int) any { return bytes.Clone(a.Value(i)) }
	case *array.LargeBinary:
		get = func(i int) any { return bytes.Clone(a.Value(i)) }
	case *array.FixedSizeBinary:
		get = func(i int) any { return bytes.Clone(a.Value(i)) }
	case *array.Timestamp:
		unit := a.DataType().(*arrow.TimestampType).Unit
		get = func(i int) any { return a.Value(i).ToTime(unit) }
	case *array.Date32:
		get = func(i int) any { return a.Value(i).ToTime() }
	case *array.Date64:
		get = func(i int) any { return a.Value(i).ToTime() }
	case *array.Dictionary:
		of, err := cellsOf(a.Dictionary())
		if err != nil {
			return nil, err
		}
		get = func(i int) any { return of(a.GetValueIndex(i)) }
	case *array.Struct, *array.List, *array.LargeList, *array.FixedSizeList, *array.Map:
		get = func(i int) any {
			text, err := json.Marshal(a.GetOneForMarshal(i))
			if err != nil {
				return a.ValueStr(i)
			}
			return json.RawMessage(text)
		}
	default:
		return nil, fmt.Errorf("%s is not a type that rows have; cast it to int64, float64, string, binary, bool or timestamp", a.DataType())
	}
	return func(i int) any {
		if a.IsNull(i) {
			return nil
		}
		return get(i)
	}, nil
}
