package rows

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
)

// The defaults of WriterOptions, and what else shapes a file.
const (
	DefaultGroupRows  = 122_880  // what DuckDB writes, and scans fastest
	DefaultGroupBytes = 64 << 20 // of values, before encoding

	// How many rows show how large rows are: so many, or as many as fill such a part of
	// their row group.
	reserveAfter = 1024
	reservePart  = 16

	pageBytes = 256 << 10 // of values in a page, before compression: what a reader holds a column
	// zstdLevel is the library's fastest: half the time of the next one, for files some
	// percent larger. What workers write is read once.
	zstdLevel = 1
	statBytes = 256 // a longer smallest or largest value is left out of the footer
)

// WriterOptions shape a file. Zero values mean the documented default.
type WriterOptions struct {
	// GroupRows and GroupBytes end a row group, whichever comes first. A writer's
	// memory is about GroupBytes plus one row. Defaults DefaultGroupRows and
	// DefaultGroupBytes.
	GroupRows  int64
	GroupBytes int64
	// Dictionary forces dictionaries on or off; nil = where they pay.
	Dictionary *bool
	// Keys are columns of which some keys are noted in the Summary, for who cuts ranges
	// of them. One that the schema lacks is null in all rows.
	Keys []string
	// Rows is about how many rows will come; 0 = nobody knows. Memory for a row group is
	// then taken in one piece, once its first rows show how large it gets.
	Rows int64
	// Group is memory for row groups that a writer of the same schema has left (see
	// Writer.Group); nil = of none.
	Group *Batch
	// Unhashed leaves the row hash out of the Summary, for who reads the file back and
	// takes it from there.
	Unhashed bool
}

// Summary is what a file holds; it is what a commit vouches for.
type Summary struct {
	Rows         int64
	RowHash      Hash
	Bytes        int64
	SHA256       string // of the file, lowercase hex; "" of no rows
	Schema       Schema
	SchemaDigest string
	// KeySamples are keys (see Keyer) of rows at equal distances, each cut to some
	// hundred bytes.
	KeySamples [][]byte
}

// Writer writes rows of one schema to a Parquet file: zstd, every column nullable,
// statistics and page indexes. The same rows, schema and options give the same
// bytes. Nothing is written before the first row group is full, and nothing at all
// when there are no rows: no Parquet file means no rows. What was written is a
// file only once Close has returned nil; before, it has no footer, and a reader
// refuses it. Not for concurrent use.
type Writer struct {
	opts   WriterOptions
	schema Schema
	cols   columns
	group  *Batch // the row group in the making
	bytes  int64  // of its values
	hasher *batchHasher
	sum    Summary
	sink   *sink
	out    *file.Writer              // nil until the first row group is full
	props  *parquet.WriterProperties // of out, which asks them anew for every row group
	dicts  []bool                    // of each column: it is written with a dictionary
	pages  pageScratch
	row    []placed // the values of the row being appended
	items  *itemCounts
	keys   *sampler
	err    error // the first failure of the sink; every later call returns it

	reserved bool // the group has the memory that it will need
}

// placed is a value and its column.
type placed struct {
	col int
	val value
}

// NewWriter writes to w a file of the given schema. The schema must have a column;
// see Observer for how to learn it from the rows.
func NewWriter(w io.Writer, s Schema, opts WriterOptions) (*Writer, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("write parquet: %w", err)
	}
	if len(s.Fields) == 0 {
		return nil, fmt.Errorf("write parquet: a schema without columns: %w", ErrRow)
	}
	if opts.GroupRows <= 0 {
		opts.GroupRows = DefaultGroupRows
	}
	if opts.GroupBytes <= 0 {
		opts.GroupBytes = DefaultGroupBytes
	}
	wr := &Writer{opts: opts, schema: s, group: NewBatch(s), hasher: newBatchHasher(s), sink: newSink(w)}
	if old := opts.Group; old != nil && slices.Equal(old.Schema.Fields, s.Fields) {
		old.Reset()
		wr.group = old
	}
	for _, f := range s.Fields {
		wr.cols.add(f)
	}
	if len(opts.Keys) > 0 {
		wr.keys = newSampler(s, opts.Keys)
	}
	return wr, nil
}

// Append adds one row. A row that cannot be stored (ErrRow, or a *SchemaConflict
// with the writer's schema) is refused whole; the writer goes on without it.
func (w *Writer) Append(r Row) error {
	if w.err != nil {
		return w.err
	}
	w.row = w.row[:0]
	for i := range r {
		v, err := valueOf(&r[i])
		if err != nil {
			return err
		}
		if v.kind == 0 {
			continue
		}
		at := w.cols.find(r[i].Name, i)
		if at < 0 {
			return fmt.Errorf("column %q is not in the file's schema: %w", r[i].Name, ErrRow)
		}
		if k := w.schema.Fields[at].Kind; k != v.kind {
			return &SchemaConflict{Column: r[i].Name, A: k, B: v.kind}
		}
		w.row = append(w.row, placed{at, v})
	}
	if len(w.row) == 0 {
		return fmt.Errorf("no column has a value: %w", ErrRow)
	}
	n := w.group.Rows
	for i := range w.row {
		c := &w.group.Cols[w.row[i].col]
		if len(c.Valid) > n {
			w.takeBack(i)
			return fmt.Errorf("column %q is in the row twice: %w", w.schema.Fields[w.row[i].col].Name, ErrRow)
		}
		c.appendValue(&w.row[i].val)
	}
	for i := range w.group.Cols {
		if c := &w.group.Cols[i]; len(c.Valid) == n {
			c.appendNull()
		}
	}
	w.group.Rows++
	if w.items != nil {
		w.items.count++
	}
	w.bytes += w.group.Size(n, n+1)
	return w.flushIfFull()
}

// Item says that the rows from now on are of the item with the ordinal; the file then
// says of each row which item it is of. To be called before the first row, or never.
func (w *Writer) Item(ordinal int64) {
	if w.items == nil {
		w.items = &itemCounts{}
	}
	w.items.begin(ordinal)
}

// takeBack removes the first n values of the row from the group.
func (w *Writer) takeBack(n int) {
	for i := range n {
		w.group.Cols[w.row[i].col].truncate(w.group.Rows)
	}
}

// AppendBatch adds rows [from, to) of a batch of the writer's schema. Values are
// taken as they are: they were checked when they first became Parquet.
func (w *Writer) AppendBatch(b *Batch, from, to int) error {
	if w.err != nil {
		return w.err
	}
	for from < to {
		n := min(to-from, int(w.opts.GroupRows)-w.group.Rows)
		size := b.Size(from, from+n)
		for n > 1 && w.bytes+size > w.opts.GroupBytes { // halve until it fits; a single row always goes in
			n /= 2
			size = b.Size(from, from+n)
		}
		w.group.Append(b, from, from+n)
		w.bytes += size
		from += n
		if err := w.flushIfFull(); err != nil {
			return err
		}
	}
	return nil
}

// AppendRecord adds a row that AppendRecord of a batch of the writer's schema has made.
func (w *Writer) AppendRecord(rec []byte) error {
	if w.err != nil {
		return w.err
	}
	n := w.group.Rows
	if err := w.group.TakeRecord(rec); err != nil {
		w.err = fmt.Errorf("write parquet: %w", err)
		return w.err
	}
	w.bytes += w.group.Size(n, n+1)
	return w.flushIfFull()
}

// reserve makes room in the group for as many rows as will come, once it holds enough
// of them to tell, or rows that large. A column that grows bit by bit is copied several
// times over, and there twice meanwhile.
func (w *Writer) reserve() {
	have := int64(w.group.Rows)
	if w.reserved || have < reserveAfter && w.bytes < w.opts.GroupBytes/reservePart {
		return
	}
	w.reserved = true
	rows := float64(min(w.opts.Rows, w.opts.GroupRows)) / float64(have)
	full := float64(w.opts.GroupBytes+w.bytes/have) / float64(w.bytes) // with the row that it ends in
	w.group.grow(min(rows, full))
}

func (w *Writer) flushIfFull() error {
	if int64(w.group.Rows) < w.opts.GroupRows && w.bytes < w.opts.GroupBytes {
		w.reserve()
		return nil
	}
	return w.flush()
}

// flush writes the group out as a row group and starts the next.
func (w *Writer) flush() error {
	if !w.opts.Unhashed {
		w.sum.RowHash = w.sum.RowHash.Add(w.hasher.rows(w.group, 0, w.group.Rows))
	}
	w.sum.Rows += int64(w.group.Rows)
	if w.keys != nil {
		w.keys.add(w.group)
	}
	if err := recovered(w.writeGroup); err != nil {
		w.err = fmt.Errorf("write parquet: %w", err)
		return w.err
	}
	if int64(w.group.capacity()) > 2*w.opts.GroupBytes { // of huge rows, which are large enough while they are read
		w.group = NewBatch(w.schema)
	}
	w.group.Reset()
	w.bytes = 0
	return nil
}

func (w *Writer) writeGroup() error {
	if w.out == nil {
		// The first group decides on dictionaries for the whole file: it is a fair sample.
		w.dicts = dictionaries(w.schema, w.group, w.opts.Dictionary)
	}
	props := properties(w.schema, w.group, w.dicts)
	if w.out == nil {
		root, err := parquetSchema(w.schema)
		if err != nil {
			return err
		}
		w.props = props
		w.out, err = file.NewParquetWriterWithError(w.sink, root, file.WithWriterProps(props))
		if err != nil {
			return err
		}
	}
	*w.props = *props
	group, err := w.out.AppendRowGroupChecked()
	if err != nil {
		return err
	}
	for i := range w.group.Cols {
		chunk, err := group.NextColumn()
		if err != nil {
			return err
		}
		if err := w.pages.write(chunk, &w.group.Cols[i]); err != nil {
			return fmt.Errorf("column %q: %w", w.schema.Fields[i].Name, err)
		}
		if err := chunk.Close(); err != nil {
			return fmt.Errorf("column %q: %w", w.schema.Fields[i].Name, err)
		}
	}
	return group.Close()
}

// dictionaries says of which columns of a batch dictionaries are made: of those where
// they pay, or as forced.
func dictionaries(s Schema, b *Batch, forced *bool) []bool {
	out := make([]bool, len(s.Fields))
	for i, f := range s.Fields {
		if forced != nil {
			out[i] = *forced && f.Kind != KindBool
		} else {
			out[i] = dictionaryPays(&b.Cols[i], b.Rows)
		}
	}
	return out
}

// properties are those of a row group of the rows of a batch.
func properties(s Schema, b *Batch, dictionaries []bool) *parquet.WriterProperties {
	props := []parquet.WriterProperty{
		parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithCompressionLevel(zstdLevel),
		parquet.WithStats(true),
		parquet.WithMaxStatsSize(statBytes),
		parquet.WithPageIndexEnabled(true),
		parquet.WithDataPageSize(pageBytes),
		parquet.WithDictionaryPageSizeLimit(dictionaryBytes),
		parquet.WithDictionaryDefault(false),
	}
	for i, f := range s.Fields {
		if dictionaries[i] {
			props = append(props, parquet.WithDictionaryPath(parquet.ColumnPath{f.Name}, true))
		}
		// The library keeps the smallest and the largest value of a page and of a chunk,
		// and copies them once more, before it finds them too long for the footer.
		if b.Cols[i].longest() > pageBytes {
			props = append(props, parquet.WithStatsPath(parquet.ColumnPath{f.Name}, false))
		}
	}
	return parquet.NewWriterProperties(props...)
}

// Close writes what is left and the footer, and says what the file holds. Nothing
// is synced or closed below: that, and giving the file its name, is the caller's.
func (w *Writer) Close() (Summary, error) {
	if w.err != nil {
		return Summary{}, w.err
	}
	if w.group.Rows > 0 {
		if err := w.flush(); err != nil {
			return Summary{}, err
		}
	}
	w.sum.Schema, w.sum.SchemaDigest = w.schema, w.schema.Digest()
	if w.keys != nil {
		w.sum.KeySamples = w.keys.keys
	}
	if w.out != nil {
		if w.items != nil {
			if err := w.out.AppendKeyValueMetadata(itemsKey, w.items.text()); err != nil {
				return Summary{}, fmt.Errorf("write parquet: %w", err)
			}
		}
		if err := errors.Join(recovered(w.out.Close), w.sink.buf.Flush()); err != nil {
			w.err = fmt.Errorf("write parquet: %w", err)
			return Summary{}, w.err
		}
		w.sum.Bytes, w.sum.SHA256 = w.sink.n, hex.EncodeToString(w.sink.sha.Sum(nil))
	}
	w.err = errors.New("write parquet: the writer is closed")
	return w.sum, nil
}

// Group is the memory that row groups were made in, for the next writer. This one is
// closed.
func (w *Writer) Group() *Batch { return w.group }

// sink counts and digests what goes to the caller's writer, which it does not
// close: the Parquet library closes whatever can be closed.
type sink struct {
	buf *bufio.Writer // in front of the digest: page headers are a few bytes each
	w   io.Writer
	sha hash.Hash
	n   int64
}

func newSink(w io.Writer) *sink {
	s := &sink{w: w, sha: sha256.New()}
	s.buf = bufio.NewWriterSize(digesting{s}, 64<<10)
	return s
}

func (s *sink) Write(p []byte) (int, error) { return s.buf.Write(p) }

// digesting is the far side of a sink's buffer.
type digesting struct{ s *sink }

func (d digesting) Write(p []byte) (int, error) {
	n, err := d.s.w.Write(p)
	d.s.sha.Write(p[:n])
	d.s.n += int64(n)
	return n, err
}

// recovered runs f and turns a panic into an error. The Parquet library panics
// where it believes it cannot go on.
func recovered(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return f()
}
