package rows

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"hayrick"
)

// ErrKind is the class of a column that no Kind holds: nested, decimal, date,
// unsigned 64-bit and the like. The file is sound, but not ours to read.
var ErrKind = errors.New("not a kind of column that can be read")

// File is an open Parquet file: ours, or anybody's with flat columns of the kinds
// we have. The reader under it is the caller's to close. Not for concurrent use.
type File struct {
	schema   Schema
	rows     int64
	hashRows bool     // HashRows was asked for
	columns  []source // one a field of schema
	file     *file.Reader
	source   *sourceReader
	size     int64
}

// sourceReader remembers how the caller's reader failed, since the Parquet library
// does not always pass it on.
type sourceReader struct {
	io.ReaderAt
	err error
}

func (r *sourceReader) ReadAt(p []byte, at int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, at)
	if err != nil && err != io.EOF && r.err == nil {
		r.err = err
	}
	return n, err
}

// source says how the values of a stored column become ours.
type source struct {
	at       int // its position in the file
	physical parquet.Type
	required bool
	unsigned bool  // 32 bits without a sign
	mul, div int64 // to microseconds
}

// Open reads and checks the footer of a Parquet file of size bytes. Row counts,
// and the place of every chunk, are held against the file's size, so that what is
// read later allocates no more than the file can justify. Damage is a
// hayrick.ErrCorrupt, an unfit column an ErrKind.
func Open(r io.ReaderAt, size int64) (*File, error) {
	footer, err := ReadFooter(r, size)
	if err != nil {
		return nil, err
	}
	f := &File{source: &sourceReader{ReaderAt: r}, size: size}
	err = corruptIfPanics(func() error { return f.open(size, footer) })
	if err != nil {
		return nil, fmt.Errorf("open parquet: %w", err)
	}
	return f, nil
}

func (f *File) open(size int64, footer Footer) error {
	if err := footer.checkFlat(); err != nil {
		return err
	}
	meta, err := metadata.NewFileMetaData(footer.Raw, nil)
	if err != nil {
		return fmt.Errorf("%v: %w", err, hayrick.ErrCorrupt)
	}
	if meta.IsSetEncryptionAlgorithm() {
		return fmt.Errorf("the file is encrypted: %w", ErrKind)
	}
	meta.SetSourceFileSize(size)
	for i := range meta.Schema.NumColumns() {
		c := meta.Schema.Column(i)
		if _, null := c.LogicalType().(schema.NullLogicalType); null {
			continue // typed as nothing, by a writer that saw no value
		}
		field, src, err := kindOf(c)
		if err != nil {
			return err
		}
		src.at = i
		f.schema.Fields = append(f.schema.Fields, field)
		f.columns = append(f.columns, src)
	}
	if err := f.schema.Check(); err != nil {
		return fmt.Errorf("%v: %w", err, hayrick.ErrCorrupt)
	}
	if err := f.checkGroups(meta, footer.At); err != nil {
		return err
	}
	props := parquet.NewReaderProperties(nil)
	props.BufferedStreamEnabled = true // a chunk is read page by page, not whole
	props.BufferSize = 64 << 10
	props.MaxUncompressedPageSize = maxPageBytes
	props.MaxCompressedPageSize = maxPageBytes
	f.file, err = file.NewParquetReader(io.NewSectionReader(f.source, 0, size), file.WithReadProps(props), file.WithMetadata(meta))
	return err
}

// checkGroups holds the claims of every row group against the bytes before end.
func (f *File) checkGroups(meta *metadata.FileMetaData, end int64) error {
	for g := range meta.NumRowGroups() {
		group := meta.RowGroup(g)
		bad := func(what string, args ...any) error {
			return fmt.Errorf("row group %d: %s: %w", g, fmt.Sprintf(what, args...), hayrick.ErrCorrupt)
		}
		n := group.NumRows()
		if n < 0 || n > math.MaxInt64-f.rows {
			return bad("%d rows", n)
		}
		f.rows += n
		if group.NumColumns() != meta.Schema.NumColumns() {
			return bad("%d columns of %d", group.NumColumns(), meta.Schema.NumColumns())
		}
		for i, src := range f.columns {
			chunk, err := group.ColumnChunk(src.at)
			if err != nil {
				return bad("%v", err)
			}
			c := claimsOf(chunk)
			name := f.schema.Fields[i].Name
			switch {
			case chunk.FilePath() != "":
				return bad("column %q lies in another file", name)
			case c.from < int64(len(magic)) || c.size < 0 || c.from > end || c.size > end-c.from:
				return bad("column %q lies outside the file", name)
			case c.rows != n:
				return bad("column %q has %d values for %d rows", name, c.rows, n)
			case chunk.Type() != src.physical:
				return bad("column %q is stored as %s", name, chunk.Type())
			}
		}
	}
	if f.rows != meta.GetNumRows() {
		return fmt.Errorf("%d rows announced, %d in the row groups: %w", meta.GetNumRows(), f.rows, hayrick.ErrCorrupt)
	}
	return nil
}

// kindOf maps a stored column to a field. Timestamps of other units become
// microseconds, those without a zone are taken as UTC, narrow numbers are widened.
func kindOf(c *schema.Column) (Field, source, error) {
	f := Field{Name: c.Name()}
	s := source{physical: c.PhysicalType(), required: c.MaxDefinitionLevel() == 0, mul: 1, div: 1}
	if c.MaxRepetitionLevel() > 0 || c.MaxDefinitionLevel() > 1 {
		return f, s, fmt.Errorf("column %q is repeated or nested: %w", f.Name, ErrKind)
	}
	logical := c.LogicalType()
	switch t := logical.(type) {
	case schema.StringLogicalType, schema.EnumLogicalType, schema.JSONLogicalType:
		if s.physical == parquet.Types.ByteArray {
			f.Kind = KindString
		}
	case schema.BSONLogicalType, schema.UUIDLogicalType:
		f.Kind = KindBytes
	case schema.IntLogicalType:
		s.unsigned = !t.IsSigned()
		if s.physical == parquet.Types.Int32 || s.physical == parquet.Types.Int64 && t.IsSigned() {
			f.Kind = KindInt
		}
	case schema.TimestampLogicalType:
		if s.physical == parquet.Types.Int64 {
			f.Kind = KindTime
			switch t.TimeUnit() {
			case schema.TimeUnitMillis:
				s.mul = 1000
			case schema.TimeUnitNanos:
				s.div = 1000
			case schema.TimeUnitMicros:
			default:
				f.Kind = 0
			}
		}
	default:
		if logical != nil && !logical.IsNone() {
			break
		}
		switch s.physical {
		case parquet.Types.Boolean:
			f.Kind = KindBool
		case parquet.Types.Int32, parquet.Types.Int64:
			f.Kind = KindInt
		case parquet.Types.Float, parquet.Types.Double:
			f.Kind = KindFloat
		case parquet.Types.ByteArray, parquet.Types.FixedLenByteArray:
			f.Kind = KindBytes
		}
	}
	if f.Kind == 0 {
		return f, s, fmt.Errorf("column %q is %s (%s): %w", f.Name, s.physical, logical, ErrKind)
	}
	return f, s, nil
}

// Schema is the file's columns in their order.
func (f *File) Schema() Schema { return f.schema }

// Rows is the number of rows.
func (f *File) Rows() int64 { return f.rows }

// ReadSchema is the schema of a Parquet file, from its footer alone.
func ReadSchema(r io.ReaderAt, size int64) (Schema, error) {
	f, err := Open(r, size)
	if err != nil {
		return Schema{}, err
	}
	return f.schema, nil
}

// guarded runs do, which reads the file; what failed is the reading, where that did,
// whatever the library made of it.
func (f *File) guarded(do func() error) error {
	err := corruptIfPanics(do)
	if err != nil && f.source.err != nil {
		return f.source.err
	}
	return err
}

// corruptIfPanics runs f; a panic of the Parquet library is damage.
func corruptIfPanics(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v: %w", p, hayrick.ErrCorrupt)
		}
	}()
	return f()
}
