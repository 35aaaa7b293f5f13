package rows

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"time"
)

// Batch is a run of rows held by column. A batch that a Scanner hands out is
// reused by it; one that is built by the caller is the caller's.
type Batch struct {
	Schema Schema
	Rows   int
	Cols   []Column // one a field of Schema
	// Hashes are those of the rows where a Scanner notes them (File.HashRows); nothing
	// else fills them in.
	Hashes []Hash
}

// Column is the values of one column: one slot a row, also for a null.
type Column struct {
	Kind  Kind
	Valid []bool
	// Nums holds ints, times (microseconds), bools (0, 1) and floats (their IEEE 754
	// bits); 0 for a null. Empty for strings and bytes.
	Nums []int64
	// Data holds strings and bytes back to back; the value of row r is
	// Data[Ends[r-1]:Ends[r]], from 0 for the first. Empty for the other kinds.
	Data []byte
	Ends []int
}

// Bytes is the string or bytes of row r; it aliases the column.
func (c *Column) Bytes(r int) []byte {
	return c.Data[c.end(r):c.Ends[r]]
}

// wide says whether values lie in Data rather than in Nums.
func (c *Column) wide() bool { return c.Kind == KindString || c.Kind == KindBytes }

func (c *Column) appendNull() {
	c.Valid = append(c.Valid, false)
	if c.wide() {
		c.Ends = append(c.Ends, len(c.Data))
	} else {
		c.Nums = append(c.Nums, 0)
	}
}

func (c *Column) appendNulls(n int) {
	c.Valid = slices.Grow(c.Valid, n)
	for range n {
		c.appendNull()
	}
}

func (c *Column) appendValue(v *value) {
	c.Valid = append(c.Valid, true)
	if c.wide() {
		c.Data = append(append(c.Data, v.str...), v.raw...)
		c.Ends = append(c.Ends, len(c.Data))
	} else {
		c.Nums = append(c.Nums, v.num)
	}
}

// appendRows copies rows [from, to) of src, a column of the same kind.
func (c *Column) appendRows(src *Column, from, to int) {
	if from == to {
		return
	}
	c.Valid = append(c.Valid, src.Valid[from:to]...)
	if !c.wide() {
		c.Nums = append(c.Nums, src.Nums[from:to]...)
		return
	}
	start := src.end(from)
	shift := len(c.Data) - start
	c.Data = append(c.Data, src.Data[start:src.Ends[to-1]]...)
	for _, e := range src.Ends[from:to] {
		c.Ends = append(c.Ends, e+shift)
	}
}

// truncate leaves the first n rows.
func (c *Column) truncate(n int) {
	c.Valid = c.Valid[:n]
	if !c.wide() {
		c.Nums = c.Nums[:n]
		return
	}
	c.Ends = c.Ends[:n]
	c.Data = c.Data[:c.end(n)]
}

// end is where the values of the first n rows end in Data.
func (c *Column) end(n int) int {
	if n == 0 {
		return 0
	}
	return c.Ends[n-1]
}

// cut is the end of the longest run of rows in [from, to) whose strings or bytes
// take at most size, or of one row if that takes more.
func (c *Column) cut(from, to, size int) int {
	start := c.end(from)
	n := sort.Search(to-from, func(i int) bool { return c.Ends[from+i]-start > size })
	return from + max(n, 1)
}

// longest is the size of the longest string or bytes.
func (c *Column) longest() (n int) {
	start := 0
	for _, end := range c.Ends {
		n, start = max(n, end-start), end
	}
	return n
}

// NewBatch is an empty batch.
func NewBatch(s Schema) *Batch {
	b := &Batch{Schema: s, Cols: make([]Column, len(s.Fields))}
	for i, f := range s.Fields {
		b.Cols[i].Kind = f.Kind
		if b.Cols[i].wide() {
			b.Cols[i].Data = []byte{} // so that an empty value is never nil: the library's statistics tell them apart
		}
	}
	return b
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.Rows = 0
	for i := range b.Cols {
		b.Cols[i].truncate(0)
	}
}

// grow makes room for so many times the rows that are in the batch, and some more:
// values differ in length.
func (b *Batch) grow(times float64) {
	more := func(have int) int { return max(0, int(float64(have)*(times-1))) }
	for i := range b.Cols {
		c := &b.Cols[i]
		c.Valid = slices.Grow(c.Valid, more(len(c.Valid)))
		c.Nums = slices.Grow(c.Nums, more(len(c.Nums)))
		c.Ends = slices.Grow(c.Ends, more(len(c.Ends)))
		c.Data = slices.Grow(c.Data, more(len(c.Data)+len(c.Data)/32))
	}
}

// capacity is how many bytes of strings and bytes fit into the batch's memory.
func (b *Batch) capacity() (n int) {
	for i := range b.Cols {
		n += cap(b.Cols[i].Data)
	}
	return n
}

// Append copies rows [from, to) of src, a batch of the same schema.
func (b *Batch) Append(src *Batch, from, to int) {
	for i := range b.Cols {
		b.Cols[i].appendRows(&src.Cols[i], from, to)
	}
	b.Rows += to - from
}

// Size is the number of bytes that the values of rows [from, to) take in memory.
func (b *Batch) Size(from, to int) int64 {
	var n int64
	for i := range b.Cols {
		if c := &b.Cols[i]; c.wide() {
			n += int64(c.end(to) - c.end(from))
		} else {
			n += 8 * int64(to-from)
		}
	}
	return n
}

// Row is row r on its own, without its null columns: strings as string, times in
// UTC.
func (b *Batch) Row(r int) Row {
	row := make(Row, 0, len(b.Cols))
	for i := range b.Cols {
		c := &b.Cols[i]
		if !c.Valid[r] {
			continue
		}
		v := value{kind: c.Kind}
		if c.wide() {
			v.raw = c.Bytes(r)
		} else {
			v.num = c.Nums[r]
		}
		row = append(row, Col{b.Schema.Fields[i].Name, v.native()})
	}
	return row
}

// native is the value as a Row holds it; it shares no memory with v.
func (v *value) native() any {
	switch v.kind {
	case KindString:
		return v.str + string(v.raw)
	case KindBytes:
		return append([]byte{}, v.raw...)
	case KindInt:
		return v.num
	case KindFloat:
		return math.Float64frombits(uint64(v.num))
	case KindBool:
		return v.num != 0
	case KindTime:
		return time.UnixMicro(v.num).UTC()
	}
	return nil
}

// Text is the value of row r in words, without a sign of its kind. Values that are one
// to a Keyer have one text, and of one kind no two others do.
func (c *Column) Text(r int) string {
	switch c.Kind {
	case KindString:
		return string(c.Bytes(r))
	case KindBytes:
		return fmt.Sprintf("%x", c.Bytes(r))
	case KindFloat:
		return strconv.FormatFloat(math.Float64frombits(floatBits(c.Nums[r])), 'g', -1, 64)
	case KindBool:
		return strconv.FormatBool(c.Nums[r] != 0)
	case KindTime:
		return time.UnixMicro(c.Nums[r]).UTC().Format("2006-01-02T15:04:05.999999Z")
	}
	return strconv.FormatInt(c.Nums[r], 10)
}
