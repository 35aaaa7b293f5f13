package rows

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"hayrick"
)

// ErrUncopied is what a Copier refuses files with whose pages are not worth copying, or
// cannot be: decode them and write their rows.
var ErrUncopied = errors.New("the pages are not to be copied")

const (
	// copiedBytes is how many bytes of values the pages of a column must have on average,
	// or they are made anew: a reader pays for each page.
	copiedBytes = 16 << 10
	// copiedParts is of how many row groups one is made at most: each is held open for it.
	copiedParts = 1024
)

// Copier writes a Parquet file of row groups that are made of those of other files. What
// lies in plain pages of a sound size is copied as it is, page by page, and the indexes
// and statistics are put together from those of the sources; other columns are decoded
// and encoded as a Writer does it. The same files, schema and options give the same
// bytes. A row is decoded only for such a column, so who needs to know that the rows are
// those of the sources reads what was written. Not for concurrent use.
type Copier struct {
	opts   WriterOptions
	schema Schema
	leaves *schema.Schema
	sum    Summary
	sink   *sink
	at     int64 // in the file
	meta   *metadata.FileMetaDataBuilder
	index  *metadata.PageIndexBuilder

	parts []part // of the row group in the making
	rows  int64
	bytes int64
	sets  int // row groups so far

	batch  *Batch // the columns that are encoded
	scan   *Scanner
	pages  pageScratch
	buffer []byte
	err    error
}

// part is a row group of a source.
type part struct {
	*File
	group int
	rows  int64
}

// NewCopier writes to w a file of the given schema, which has a column.
func NewCopier(w io.Writer, s Schema, opts WriterOptions) (*Copier, error) {
	root, err := parquetSchema(s)
	if err != nil {
		return nil, fmt.Errorf("copy parquet: %w", err)
	}
	if opts.GroupRows <= 0 {
		opts.GroupRows = DefaultGroupRows
	}
	if opts.GroupBytes <= 0 {
		opts.GroupBytes = DefaultGroupBytes
	}
	leaves := schema.NewSchema(root)
	return &Copier{
		opts: opts, schema: s, leaves: leaves, sink: newSink(w),
		meta:  metadata.NewFileMetadataBuilder(leaves, properties(Schema{}, nil, nil), nil),
		index: &metadata.PageIndexBuilder{Schema: leaves},
	}, nil
}

// Add takes the rows of a file, whose reader is used as long as the Copier holds it.
// After an ErrUncopied, now or later, what was written is of no use.
func (c *Copier) Add(f *File) error {
	if c.err == nil {
		c.err = corruptIfPanics(func() error { return c.add(f) })
	}
	return c.failed()
}

// Holds says that not all rows of a file are written yet.
func (c *Copier) Holds(f *File) bool {
	return slices.ContainsFunc(c.parts, func(p part) bool { return p.File == f })
}

func (c *Copier) failed() error {
	if c.err != nil {
		return fmt.Errorf("copy parquet: %w", c.err)
	}
	return nil
}

func uncopied(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrUncopied)
}

func (c *Copier) add(f *File) error {
	for _, field := range f.schema.Fields {
		if i := c.schema.Index(field.Name); i < 0 || c.schema.Fields[i].Kind != field.Kind {
			return uncopied("column %q is not asked for", field.Name)
		}
	}
	if c.opts.Dictionary != nil && *c.opts.Dictionary {
		return uncopied("dictionaries are asked for")
	}
	for g := range f.file.NumRowGroups() {
		group := f.file.MetaData().RowGroup(g)
		p := part{f, g, group.NumRows()}
		var size int64
		for _, src := range f.columns {
			chunk, err := group.ColumnChunk(src.at)
			if err != nil {
				return corrupt(err)
			}
			if n := chunk.TotalUncompressedSize(); n >= 0 && n < math.MaxInt64-size {
				size += n
			}
		}
		if p.rows > 2*c.opts.GroupRows || size > 2*c.opts.GroupBytes {
			return uncopied("a row group of %d rows", p.rows)
		}
		if size > pageBytes*p.rows { // a page holds one: encoding is bounded by what a row takes, and nothing else
			return uncopied("rows of %d bytes", size/max(p.rows, 1))
		}
		// The cut that is nearer to what a row group is to have.
		full := c.rows+p.rows/2 > c.opts.GroupRows || c.bytes+size > c.opts.GroupBytes
		if p.rows == 0 {
			continue
		}
		if full && c.rows > 0 {
			if err := c.flush(); err != nil {
				return err
			}
		}
		if len(c.parts) == copiedParts {
			return uncopied("more than %d files for a row group", copiedParts)
		}
		c.parts = append(c.parts, p)
		c.rows += p.rows
		c.bytes += size
	}
	return nil
}

// flush writes the parts as a row group.
func (c *Copier) flush() error {
	chunks := make([][]*pagesOf, len(c.schema.Fields)) // nil of a column that is encoded
	var copied, all int64
	var left Schema
	for i, field := range c.schema.Fields {
		n := int64(0)
		for _, p := range c.parts {
			n += p.compressed(field.Name)
		}
		all += n
		var err error
		if chunks[i], err = c.copies(i); err != nil {
			return err
		}
		if chunks[i] != nil {
			copied += n
		} else {
			left.Fields = append(left.Fields, field)
		}
	}
	if c.sets == 0 && copied < all/2 {
		return uncopied("%d of %d bytes lie in plain pages", copied, all)
	}
	if err := c.decode(left); err != nil {
		return err
	}
	if c.sets == 0 {
		if _, err := c.Write([]byte(magic)); err != nil {
			return err
		}
	}
	group := c.meta.AppendRowGroup()
	if err := c.index.AppendRowGroup(); err != nil {
		return err
	}
	props, encoded := properties(left, c.batch, dictionaries(left, c.batch, c.opts.Dictionary)), 0
	for i := range c.schema.Fields {
		chunk := group.NextColumnChunk()
		var err error
		if chunks[i] != nil {
			err = c.copy(chunk, i, chunks[i])
		} else {
			err = c.encode(chunk, i, &c.batch.Cols[encoded], props)
			encoded++
		}
		if err != nil {
			return fmt.Errorf("column %q: %w", c.schema.Fields[i].Name, err)
		}
	}
	group.SetNumRows(int(c.rows))
	if c.sets++; c.sets > math.MaxInt16 {
		return uncopied("more than %d row groups", math.MaxInt16)
	}
	if err := group.Finish(0, int16(c.sets-1)); err != nil {
		return err
	}
	c.sum.Rows += c.rows
	clear(c.parts)
	c.parts, c.rows, c.bytes = c.parts[:0], 0, 0
	return nil
}

// compressed is the size of a column, 0 where there is none.
func (p part) compressed(column string) int64 {
	if at := p.schema.Index(column); at >= 0 {
		if chunk, err := p.file.MetaData().RowGroup(p.group).ColumnChunk(p.columns[at].at); err == nil {
			return chunk.TotalCompressedSize()
		}
	}
	return 0
}

// pagesOf is what is copied of a source's chunk.
type pagesOf struct {
	of     *File
	claims chunkClaims
	pages  []pageAt
	index  metadata.ColumnIndex // nil = it has none
	stats  metadata.EncodedStatistics
}

// copies are the chunks of a column, or nil where they cannot be copied.
func (c *Copier) copies(i int) ([]*pagesOf, error) {
	var out []*pagesOf
	var size, pages int64
	for _, p := range c.parts {
		var x *pagesOf
		err := p.guarded(func() (err error) {
			x, err = p.plain(c.schema.Fields[i], c.leaves.Column(i))
			return err
		})
		if x == nil || err != nil {
			return nil, err
		}
		for _, page := range x.pages {
			size += page.uncompressed
		}
		pages += int64(len(x.pages))
		out = append(out, x)
	}
	if size < pages*copiedBytes {
		return nil, nil
	}
	return out, nil
}

// plain is a chunk of nothing but plain pages, in the form in which a Writer would have
// it; nil = it is not.
func (p part) plain(field Field, want *schema.Column) (*pagesOf, error) {
	at := p.schema.Index(field.Name)
	if at < 0 {
		return nil, nil
	}
	at = p.columns[at].at
	meta := p.file.MetaData()
	chunk, err := meta.RowGroup(p.group).ColumnChunk(at)
	if err != nil {
		return nil, corrupt(err)
	}
	has := meta.Schema.Column(at)
	if has.PhysicalType() != want.PhysicalType() || has.MaxDefinitionLevel() != want.MaxDefinitionLevel() ||
		!has.LogicalType().Equals(want.LogicalType()) || chunk.Compression() != compress.Codecs.Zstd || chunk.HasDictionaryPage() {
		return nil, nil
	}
	x := &pagesOf{of: p.File, claims: claimsOf(chunk)}
	plain := true
	if err := walkPages(p.source, x.claims, func(page pageAt) {
		plain = plain && page.kind == pageHeaderV1 && page.encoding == 0 && page.levels == 3
		x.pages = append(x.pages, page)
	}); err != nil {
		return nil, err
	}
	if !plain || len(x.pages) == 0 {
		return nil, nil
	}
	if where := chunk.GetColumnIndexLocation(); where != nil {
		if where.Offset < 0 || where.Length < 0 || where.Offset > p.size-int64(where.Length) {
			return nil, fmt.Errorf("a page index lies beyond the file's end: %w", hayrick.ErrCorrupt)
		}
		all := p.file.GetPageIndexReader()
		if err := all.WillNeed([]int32{int32(p.group)}, []int32{int32(at)}, metadata.PageIndexSelection{ColumnIndex: true}); err != nil {
			return nil, corrupt(err)
		}
		group, err := all.RowGroup(p.group)
		if err != nil {
			return nil, corrupt(err)
		}
		if x.index, err = group.GetColumnIndex(at); err != nil {
			return nil, corrupt(err)
		}
		n := len(x.pages)
		if len(x.index.GetNullPages()) != n || len(x.index.GetMinValues()) != n || len(x.index.GetMaxValues()) != n ||
			x.index.IsSetNullCounts() && len(x.index.GetNullCounts()) != n {
			return nil, fmt.Errorf("a page index of other pages: %w", hayrick.ErrCorrupt)
		}
	}
	if said := meta.RowGroups[p.group].Columns[at].MetaData.Statistics; said != nil {
		x.stats.Min, x.stats.HasMin = said.MinValue, said.IsSetMinValue()
		x.stats.Max, x.stats.HasMax = said.MaxValue, said.IsSetMaxValue()
		x.stats.NullCount, x.stats.HasNullCount = said.GetNullCount(), said.IsSetNullCount()
		x.stats.AllNullValue = x.stats.HasNullCount && x.stats.NullCount == p.rows
	}
	return x, nil
}

// copy writes the chunks one behind the other as one.
func (c *Copier) copy(chunk *metadata.ColumnChunkMetaDataBuilder, i int, all []*pagesOf) error {
	pageIndex, offsets, err := c.indexes(i)
	if err != nil {
		return err
	}
	if c.buffer == nil {
		c.buffer = make([]byte, 256<<10)
	}
	info := metadata.ChunkMetaInfo{IndexPageOffset: -1, DataPageOffset: c.at}
	var pages int32
	stats := newStatisticsOf(c.schema.Fields[i].Kind)
	for _, x := range all {
		shift := c.at - x.claims.from
		if _, err := io.CopyBuffer(onlyWriter{c}, io.NewSectionReader(x.of.source, x.claims.from, x.claims.size), c.buffer); err != nil {
			return err
		}
		if c.at != shift+x.claims.from+x.claims.size {
			return fmt.Errorf("a chunk of %d bytes is cut off: %w", x.claims.size, hayrick.ErrCorrupt)
		}
		for n, page := range x.pages {
			if err := offsets.AddPage(shift+page.at, info.NumValues, int32(page.header+page.compressed)); err != nil {
				return err
			}
			var said metadata.EncodedStatistics
			if x.index != nil {
				said = metadata.EncodedStatistics{Min: x.index.GetMinValues()[n], Max: x.index.GetMaxValues()[n], AllNullValue: x.index.GetNullPages()[n]}
				said.HasMin, said.HasMax = !said.AllNullValue, !said.AllNullValue
				if said.HasNullCount = x.index.IsSetNullCounts(); said.HasNullCount {
					said.NullCount = x.index.GetNullCounts()[n]
				}
			}
			if err := pageIndex.AddPage(&said); err != nil {
				return err
			}
			info.NumValues += page.values
			info.CompressedSize += page.header + page.compressed
			info.UncompressedSize += page.header + page.uncompressed
			pages++
		}
		if err := stats.join(x.stats); err != nil {
			return err
		}
	}
	if err := errors.Join(pageIndex.Finish(), offsets.Finish(0)); err != nil {
		return err
	}
	plain := map[parquet.Encoding]int32{parquet.Encodings.Plain: pages}
	if err := chunk.Finish(info, false, false, metadata.EncodingStats{DataEncodingStats: plain}); err != nil {
		return err
	}
	if said := stats.sum; said.IsSet() {
		said.Signed = chunk.Descr().SortOrder() == schema.SortSIGNED
		chunk.SetStats(said)
	}
	return nil
}

// onlyWriter hides what else a Copier can.
type onlyWriter struct{ io.Writer }

// statisticsOf are those of chunks of one column together.
type statisticsOf struct {
	kind    Kind
	sum     metadata.EncodedStatistics
	noLo    bool // not of all values
	noHi    bool
	noNulls bool
}

func newStatisticsOf(k Kind) *statisticsOf { return &statisticsOf{kind: k} }

func (s *statisticsOf) join(x metadata.EncodedStatistics) error {
	if s.noNulls = s.noNulls || !x.HasNullCount; s.noNulls {
		s.sum.HasNullCount, s.sum.NullCount = false, 0
	} else {
		s.sum.HasNullCount = true
		s.sum.NullCount += x.NullCount
	}
	if x.AllNullValue {
		return nil
	}
	for _, side := range []struct {
		none     *bool
		has      *bool
		sum      *[]byte
		with     bool
		value    []byte
		smallest int
	}{{&s.noLo, &s.sum.HasMin, &s.sum.Min, x.HasMin, x.Min, -1}, {&s.noHi, &s.sum.HasMax, &s.sum.Max, x.HasMax, x.Max, 1}} {
		if *side.none = *side.none || !side.with; *side.none {
			*side.has, *side.sum = false, nil
			continue
		}
		order, err := compareBounds(s.kind, side.value, *side.sum, *side.has)
		if err != nil {
			return err
		}
		if !*side.has || order == side.smallest {
			*side.has, *side.sum = true, slices.Clone(side.value)
		}
	}
	return nil
}

// compareBounds compares values as they stand in statistics; y counts where it is there.
func compareBounds(k Kind, x, y []byte, there bool) (int, error) {
	length := map[Kind]int{KindInt: 8, KindTime: 8, KindFloat: 8, KindBool: 1}[k]
	if length > 0 && len(x) != length {
		return 0, fmt.Errorf("a %s of %d bytes in its statistics: %w", k, len(x), hayrick.ErrCorrupt)
	}
	if !there {
		return 0, nil
	}
	switch k {
	case KindString, KindBytes, KindBool:
		return bytes.Compare(x, y), nil
	case KindFloat:
		return cmp.Compare(math.Float64frombits(binary.LittleEndian.Uint64(x)), math.Float64frombits(binary.LittleEndian.Uint64(y))), nil
	}
	return cmp.Compare(int64(binary.LittleEndian.Uint64(x)), int64(binary.LittleEndian.Uint64(y))), nil
}

// decode reads the columns that are not copied into the batch.
func (c *Copier) decode(left Schema) error {
	if c.batch == nil || !slices.Equal(c.batch.Schema.Fields, left.Fields) {
		c.batch, c.scan = NewBatch(left), nil
	}
	c.batch.Reset()
	if len(left.Fields) == 0 {
		return nil
	}
	for _, p := range c.parts {
		s := p.columnsOf(left, c.scan)
		s.group = p.group
		for n := int64(0); n < p.rows; {
			if err := p.guarded(s.fill); err != nil {
				return errors.Join(err, s.close())
			}
			if s.batch.Rows == 0 {
				return fmt.Errorf("a row group of fewer rows than %d: %w", p.rows, hayrick.ErrCorrupt)
			}
			n += int64(s.batch.Rows)
			c.batch.Append(s.batch, 0, s.batch.Rows)
			if c.batch.Size(0, c.batch.Rows) > 2*c.opts.GroupBytes { // of dictionaries, which hide how large rows are
				return errors.Join(uncopied("values of more than %d bytes", 2*c.opts.GroupBytes), s.close())
			}
		}
		if err := s.close(); err != nil {
			return err
		}
		c.scan = s
	}
	return nil
}

// indexes are what takes the page indexes of a column of the row group in the making.
func (c *Copier) indexes(i int) (metadata.ColumnIndexBuilder, *metadata.OffsetIndexBuilder, error) {
	pages, err := c.index.GetColumnIndexBuilder(i)
	if err != nil {
		return nil, nil, err
	}
	offsets, err := c.index.GetOffsetIndexBuilder(i)
	return pages, offsets, err
}

// encode writes a column as a Writer does it.
func (c *Copier) encode(chunk *metadata.ColumnChunkMetaDataBuilder, i int, col *Column, props *parquet.WriterProperties) error {
	path := chunk.Descr().Path()
	pager, err := file.NewPageWriter(c, props.CompressionFor(path), props.CompressionLevelFor(path), chunk, int16(c.sets), int16(i), memory.DefaultAllocator, false, nil, nil)
	if err != nil {
		return err
	}
	pageIndex, offsets, err := c.indexes(i)
	if err != nil {
		return err
	}
	pager.SetIndexBuilders(pageIndex, offsets)
	w := file.NewColumnChunkWriter(chunk, pager, props)
	if err := c.pages.write(w, col); err != nil {
		return err
	}
	return w.Close()
}

// Write writes to the file. It and Tell are for the Parquet library.
func (c *Copier) Write(p []byte) (int, error) {
	n, err := c.sink.Write(p)
	c.at += int64(n)
	return n, err
}

// Tell is how long the file is so far.
func (c *Copier) Tell() int64 { return c.at }

// Close writes what is left and the footer, and says what the file holds; without a row
// hash, which only who reads it knows.
func (c *Copier) Close() (Summary, error) {
	if c.err == nil {
		c.err = corruptIfPanics(c.finish)
	}
	if err := c.failed(); err != nil {
		return Summary{}, err
	}
	c.err = errors.New("the copier is closed")
	return c.sum, nil
}

func (c *Copier) finish() error {
	if c.rows > 0 {
		if err := c.flush(); err != nil {
			return err
		}
	}
	c.sum.Schema, c.sum.SchemaDigest = c.schema, c.schema.Digest()
	if c.sets == 0 {
		return nil
	}
	var where metadata.PageIndexLocation
	c.index.Finish()
	if err := c.index.WriteTo(c, &where); err != nil {
		return err
	}
	if err := c.meta.SetPageIndexLocation(where); err != nil {
		return err
	}
	meta, err := c.meta.Finish()
	if err != nil {
		return err
	}
	n, err := meta.WriteTo(c, nil)
	if err != nil {
		return err
	}
	if _, err := c.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(n)), magic...)); err != nil {
		return err
	}
	if err := c.sink.buf.Flush(); err != nil {
		return err
	}
	c.sum.Bytes, c.sum.SHA256 = c.sink.n, hex.EncodeToString(c.sink.sha.Sum(nil))
	return nil
}
