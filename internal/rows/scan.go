package rows

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"

	"hayrick"
)

const (
	// batchRows and batchBytes bound a Scanner's batch, whichever comes first.
	batchRows  = 4096
	batchBytes = 4 << 20
)

// Scanner reads the rows of a File batch by batch, in the file's order. It holds
// one batch and, of each column, one page. Not for concurrent use.
type Scanner struct {
	f      *File
	batch  *Batch
	from   []int // of each column of the batch: the column of the file, or -1
	group  int   // the next row group
	left   int64 // rows left in the current one
	chunks []file.ColumnChunkReader
	step   int // rows read at once: small until values are known to be small
	hasher *batchHasher
	rows   int64
	hash   Hash
	values *valueScratch
	err    error
}

// Scan reads the file's rows in the columns of want: permuted, and null where the
// file has no such column. A column of the file that want lacks, or has with
// another kind, is refused: rows would lose values. The zero Schema means the
// file's own.
func (f *File) Scan(want Schema) (*Scanner, error) { return f.Rescan(want, nil) }

// keptBytes is how much memory of a batch is worth keeping for the next file.
const keptBytes = 2 * batchBytes

// HashRows has what scans the file note the hash of every row in Batch.Hashes.
func (f *File) HashRows() { f.hashRows = true }

// Rescan is Scan with the memory of a scanner that is done with; nil = of none.
func (f *File) Rescan(want Schema, old *Scanner) (*Scanner, error) {
	if want.Fields == nil {
		want = f.schema
	}
	s := f.columnsOf(want, old)
	found := 0
	for i, at := range s.from {
		if at >= 0 {
			found++
			if field, k := want.Fields[i], f.schema.Fields[at].Kind; k != field.Kind {
				return nil, &SchemaConflict{Column: field.Name, A: field.Kind, B: k}
			}
		}
	}
	if found < len(f.schema.Fields) {
		for _, field := range f.schema.Fields {
			if want.Index(field.Name) < 0 {
				return nil, fmt.Errorf("scan parquet: column %q is not asked for: %w", field.Name, ErrSchema)
			}
		}
	}
	return s, nil
}

// columnsOf is Rescan of some columns, of the same kinds.
func (f *File) columnsOf(want Schema, old *Scanner) *Scanner {
	s := &Scanner{f: f, step: 1}
	if old != nil && slices.Equal(old.batch.Schema.Fields, want.Fields) && old.batch.capacity() <= keptBytes {
		old.batch.Reset()
		s.batch, s.hasher, s.values = old.batch, old.hasher, old.values
	} else {
		s.batch, s.hasher, s.values = NewBatch(want), newBatchHasher(want), &valueScratch{}
	}
	for _, field := range want.Fields {
		s.from = append(s.from, f.schema.Index(field.Name))
	}
	s.chunks = make([]file.ColumnChunkReader, len(s.from))
	return s
}

// Next is the next batch, at least one row; it is valid until the next call. After
// the last it returns io.EOF. Damage is a hayrick.ErrCorrupt, as is a column that
// holds fewer rows than the footer says.
func (s *Scanner) Next() (*Batch, error) {
	if s.err != nil {
		return nil, s.err
	}
	s.err = s.f.guarded(s.fill)
	if s.err == nil && s.batch.Rows == 0 {
		s.err = io.EOF
	}
	if s.err != nil {
		s.close()
		if s.err != io.EOF {
			s.err = fmt.Errorf("scan parquet: %w", s.err)
		}
		return nil, s.err
	}
	s.rows += int64(s.batch.Rows)
	var h Hash
	if s.f.hashRows {
		s.batch.Hashes, h = s.hasher.each(s.batch.Hashes[:0], s.batch)
	} else {
		h = s.hasher.rows(s.batch, 0, s.batch.Rows)
	}
	s.hash = s.hash.Add(h)
	return s.batch, nil
}

// Read is what Next has handed out so far: rows, and their hash.
func (s *Scanner) Read() (int64, Hash) { return s.rows, s.hash }

// fill reads up to a batch of rows from the current row group.
func (s *Scanner) fill() error {
	s.batch.Reset()
	for s.left == 0 {
		if err := s.close(); err != nil {
			return err
		}
		if s.group == s.f.file.NumRowGroups() {
			return nil
		}
		if err := s.open(s.group); err != nil {
			return err
		}
		s.group++
	}
	for s.left > 0 && s.batch.Rows < batchRows {
		n := int(min(s.left, int64(s.step), int64(batchRows-s.batch.Rows)))
		for i, at := range s.from {
			c := &s.batch.Cols[i]
			if at < 0 {
				c.appendNulls(n)
				continue
			}
			if err := s.values.read(s.chunks[i], s.f.columns[at], c, n); err != nil {
				return fmt.Errorf("row group %d, column %q: %w", s.group-1, s.batch.Schema.Fields[i].Name, err)
			}
		}
		s.batch.Rows += n
		s.left -= int64(n)
		// A dictionary lets a small file hold huge rows, so the step grows only as long
		// as the rows seen leave room, and shrinks with the room left.
		size := s.batch.Size(0, s.batch.Rows)
		if size >= batchBytes {
			s.step = max(1, s.step/2)
			break
		}
		room := (batchBytes - size) * int64(s.batch.Rows) / max(size, 1)
		s.step = int(max(1, min(int64(2*s.step), room, chunkRows)))
	}
	if s.left == 0 {
		return s.close() // its last pages are in the batch
	}
	return nil
}

// open starts the row group.
func (s *Scanner) open(group int) error {
	r := s.f.file.RowGroup(group)
	s.left = r.NumRows()
	if s.left == 0 {
		return nil
	}
	for i, at := range s.from {
		if at < 0 {
			continue
		}
		column := s.f.columns[at].at
		meta, err := r.MetaData().ColumnChunk(column)
		if err != nil {
			return corrupt(err)
		}
		if err := checkPages(s.f.source, claimsOf(meta)); err != nil {
			return fmt.Errorf("row group %d, column %q: %w", group, s.batch.Schema.Fields[i].Name, err)
		}
		chunk, err := r.Column(column)
		if err != nil {
			return corrupt(err)
		}
		s.chunks[i] = chunk
	}
	return nil
}

// close ends the row group: nothing may be left in a column.
func (s *Scanner) close() error {
	var errs []error
	for i, c := range s.chunks {
		if c == nil {
			continue
		}
		if s.err == nil && c.HasNext() {
			errs = append(errs, fmt.Errorf("column %q has more values than its row group: %w", s.batch.Schema.Fields[i].Name, hayrick.ErrCorrupt))
		}
		if err := c.Close(); err != nil {
			errs = append(errs, corrupt(err))
		}
		s.chunks[i] = nil
	}
	return errors.Join(errs...)
}

// corrupt marks an error of the Parquet library: it met bytes it cannot read.
func corrupt(err error) error {
	if err == nil || errors.Is(err, hayrick.ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%v: %w", err, hayrick.ErrCorrupt)
}

// valueScratch is the memory into which the library decodes.
type valueScratch struct {
	levels  [chunkRows]int16
	ints    [chunkRows]int64
	ints32  [chunkRows]int32
	floats  [chunkRows]float64
	floats4 [chunkRows]float32
	bools   [chunkRows]bool
	slices  [chunkRows]parquet.ByteArray
	fixed   [chunkRows]parquet.FixedLenByteArray
}

// read appends n rows, at most chunkRows, of the chunk to c.
func (v *valueScratch) read(chunk file.ColumnChunkReader, src source, c *Column, n int) error {
	for n > 0 {
		var (
			rows   int64
			values int
			err    error
		)
		// In-page reads: values of strings alias the page, which lives until the next
		// one is read, and are copied out below before that.
		switch r := chunk.(type) {
		case *file.Int64ColumnChunkReader:
			rows, values, err = r.ReadBatchInPage(int64(n), v.ints[:], v.levels[:], nil)
		case *file.Int32ColumnChunkReader:
			rows, values, err = r.ReadBatchInPage(int64(n), v.ints32[:], v.levels[:], nil)
		case *file.Float64ColumnChunkReader:
			rows, values, err = r.ReadBatchInPage(int64(n), v.floats[:], v.levels[:], nil)
		case *file.Float32ColumnChunkReader:
			rows, values, err = r.ReadBatchInPage(int64(n), v.floats4[:], v.levels[:], nil)
		case *file.BooleanColumnChunkReader:
			rows, values, err = r.ReadBatchInPage(int64(n), v.bools[:], v.levels[:], nil)
		case *file.ByteArrayColumnChunkReader:
			rows, values, err = r.ReadBatchInPage(int64(n), v.slices[:], v.levels[:], nil)
		case *file.FixedLenByteArrayColumnChunkReader:
			rows, values, err = r.ReadBatchInPage(int64(n), v.fixed[:], v.levels[:], nil)
		default:
			err = fmt.Errorf("a chunk reader of type %T", chunk)
		}
		if err == nil {
			err = chunk.Err()
		}
		if err != nil {
			return corrupt(err)
		}
		if rows <= 0 || rows > int64(n) {
			return fmt.Errorf("%d rows are missing: %w", n, hayrick.ErrCorrupt)
		}
		if err := v.appendTo(c, src, int(rows), values); err != nil {
			return err
		}
		n -= int(rows)
	}
	return nil
}

// appendTo spreads the values over the rows, by the levels.
func (v *valueScratch) appendTo(c *Column, src source, rows, values int) error {
	next := 0
	for r := range rows {
		if !src.required && v.levels[r] == 0 {
			c.appendNull()
			continue
		}
		if next == values {
			return fmt.Errorf("fewer values than its levels say: %w", hayrick.ErrCorrupt)
		}
		c.Valid = append(c.Valid, true)
		switch src.physical {
		case parquet.Types.ByteArray:
			c.Data = append(c.Data, v.slices[next]...)
			c.Ends = append(c.Ends, len(c.Data))
		case parquet.Types.FixedLenByteArray:
			c.Data = append(c.Data, v.fixed[next]...)
			c.Ends = append(c.Ends, len(c.Data))
		default:
			x, err := v.number(src, next)
			if err != nil {
				return err
			}
			c.Nums = append(c.Nums, x)
		}
		next++
	}
	if next != values {
		return fmt.Errorf("more values than its levels say: %w", hayrick.ErrCorrupt)
	}
	return nil
}

// number is value i as a Column holds it.
func (v *valueScratch) number(src source, i int) (int64, error) {
	switch src.physical {
	case parquet.Types.Boolean:
		if v.bools[i] {
			return 1, nil
		}
		return 0, nil
	case parquet.Types.Double:
		return int64(math.Float64bits(v.floats[i])), nil
	case parquet.Types.Float:
		return int64(math.Float64bits(float64(v.floats4[i]))), nil
	case parquet.Types.Int32:
		if src.unsigned {
			return int64(uint32(v.ints32[i])), nil
		}
		return int64(v.ints32[i]), nil
	}
	x := v.ints[i]
	switch {
	case src.div > 1 && x%src.div != 0:
		return 0, fmt.Errorf("a time of %d ns is no whole microsecond: %w", x, ErrKind)
	case src.div > 1:
		return x / src.div, nil
	case src.mul > 1 && (x > math.MaxInt64/src.mul || x < math.MinInt64/src.mul):
		return 0, fmt.Errorf("a time of %d ms is out of range: %w", x, ErrKind)
	}
	return x * src.mul, nil
}

// Verify reads every row of a Parquet file and compares their number and hash with
// what is claimed. A difference is a hayrick.ErrCorrupt.
func Verify(r io.ReaderAt, size int64, wantRows int64, want Hash) error {
	f, err := Open(r, size)
	if err != nil {
		return err
	}
	s, err := f.Scan(Schema{})
	for err == nil {
		_, err = s.Next()
	}
	if err != io.EOF {
		return err
	}
	if n, h := s.Read(); n != wantRows || h != want {
		return fmt.Errorf("verify parquet: %d rows with hash %s, expected %d with %s: %w", n, h, wantRows, want, hayrick.ErrCorrupt)
	}
	return nil
}
