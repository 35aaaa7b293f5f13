package extproc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"hayrick/jobs"
)

// itemColumn names the item that a row of an Arrow stream belongs to, by the id of its
// frame.
const itemColumn = "_item"

// maxArrowMeta and maxArrowBody bound one Arrow message, so that a length is not believed
// that no handler means. What a message becomes when its buffers are decompressed is
// bounded by maxArrowBody again.
const (
	maxArrowMeta = 16 << 20
	maxArrowBody = 256 << 20
)

// readArrow reads the program's Arrow stream until it ends.
func (c *child) readArrow() {
	err := arrowRows(c.proc.rows, maxArrowMeta, maxArrowBody, c.arrowBatch)
	if err == nil || c.ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broke(jobs.Outcome{Class: classProtocol, Message: fmt.Sprintf("the Arrow stream on rows_fd cannot be read: %v", err), Detail: c.words()})
}

// arrowRows reads a stream and calls take with each of its batches, which is take's until
// it returns.
func arrowRows(from io.Reader, maxMeta, maxBody int64, take func(*arrowBatch) error) error {
	var any [1]byte
	if _, err := io.ReadFull(from, any[:]); err != nil {
		return nil // no rows at all
	}
	room := &room{Allocator: memory.DefaultAllocator, left: maxBody}
	in := &messages{from: io.MultiReader(bytes.NewReader(any[:]), from), maxMeta: maxMeta, maxBody: maxBody}
	defer in.Release()
	r, err := ipc.NewReaderFromMessageReader(in, ipc.WithAllocator(room))
	if err != nil {
		return unlessCut(err)
	}
	defer r.Release()
	for r.Next() {
		b, err := newArrowBatch(r.RecordBatch())
		if err == nil {
			err = take(b)
		}
		if err != nil {
			return err
		}
		room.left = maxBody
	}
	return unlessCut(r.Err())
}

// unlessCut leaves out that a stream is cut off: that is the end of its program, which
// says more.
func unlessCut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// room is what one batch may take: the length of what is compressed stands in front of it,
// and the library believes it. It answers a panic of ours with an error.
type room struct {
	memory.Allocator
	left int64
}

func (m *room) take(n int) {
	if m.left -= int64(n); m.left < 0 || n < 0 {
		panic("a batch that is larger than a message may be when it is unpacked, or says so")
	}
}

// Allocate is memory.Allocator's.
func (m *room) Allocate(n int) []byte {
	m.take(n)
	return m.Allocator.Allocate(n)
}

// Reallocate is memory.Allocator's.
func (m *room) Reallocate(n int, b []byte) []byte {
	m.take(max(n-len(b), 0))
	return m.Allocator.Reallocate(n, b)
}

// arrowBatch is a record batch as rows.
type arrowBatch struct {
	ids   *array.Int64 // of the items
	names []string
	cells []func(int) any // one a name
}

func newArrowBatch(b arrow.RecordBatch) (_ *arrowBatch, err error) {
	defer damaged(&err)
	at := b.Schema().FieldIndices(itemColumn)
	if len(at) != 1 {
		return nil, fmt.Errorf("it has no column %s with the id of each row's item", itemColumn)
	}
	x := &arrowBatch{}
	var ok bool
	if x.ids, ok = b.Column(at[0]).(*array.Int64); !ok || x.ids.NullN() > 0 {
		return nil, fmt.Errorf("column %s is %s, want int64 without nulls", itemColumn, b.Column(at[0]).DataType())
	}
	for i, col := range b.Columns() {
		if i == at[0] {
			continue
		}
		cell, err := cellsOf(col)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", b.ColumnName(i), err)
		}
		x.names, x.cells = append(x.names, b.ColumnName(i)), append(x.cells, cell)
	}
	return x, nil
}

// row is the n-th row. It shares no memory with the batch.
func (b *arrowBatch) row(n int) (row jobs.Row, err error) {
	defer damaged(&err)
	row = make(jobs.Row, len(b.cells))
	for i, cell := range b.cells {
		row[i] = jobs.Col{Name: b.names[i], Value: cell(n)}
	}
	return row, nil
}

// damaged makes an error of a panic: some of what is wrong with a batch the library finds
// when a value is looked at, an offset that leads out of its buffer for one.
func damaged(err *error) {
	switch p := recover().(type) {
	case nil:
	case runtime.Error:
		*err = fmt.Errorf("something lies outside of it (%v)", p)
	default:
		*err = fmt.Errorf("%v", p)
	}
}

// arrowBatch emits the rows of a record batch, each for its item. What is of an item
// that has ended is passed over.
func (c *child) arrowBatch(b *arrowBatch) error {
	for n := range b.ids.Len() {
		c.mu.Lock()
		k := c.calls[b.ids.Value(n)]
		c.mu.Unlock()
		if k == nil {
			continue
		}
		row, err := b.row(n)
		if err != nil {
			return err
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
