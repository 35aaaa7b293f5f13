package aggregator

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math"

	"hayrick"
	"hayrick/internal/rows"
)

// Source is one file to be concatenated, as its results.done vouches for it.
type Source struct {
	Name    string // its key below the job's folder
	Size    int64
	SHA256  string // lowercase hex
	Rows    int64
	RowHash rows.Hash

	Partition string // the folder that its rows belong to; "" = none
	Head      int64  // of text: what is left out behind another source
}

// CopyRange is a run of bytes of a source that goes to the output as it is.
type CopyRange struct {
	Source int // its position among the sources
	Offset int64
	Length int64
}

// ConcatPlan says what the output consists of: the ranges one behind the other,
// then the tail. It is the same on every store: Blobs.Assemble carries it out, by
// copy_file_range or as one UploadPartCopy a range and one part for the tail.
type ConcatPlan struct {
	Copies []CopyRange // the first starts at 0 and brings the magic number along
	Tail   []byte      // offset indexes, footer, its length, magic number
	// OutputHash is the SHA-256, in lowercase hex, over the SHA-256s of the sources
	// (32 bytes each, in order) and the new footer's metadata: it identifies the
	// output's content without anybody having read it.
	OutputHash string
	Rows       int64
	RowHash    rows.Hash
	RowGroups  int
	Bytes      int64 // of the output
}

// PlanConcat plans the concatenation of Parquet files at the level of row groups:
// no page is decoded. footers[i] is that of sources[i]. It does no I/O, and the
// same arguments give the same plan. Memory is about 3 KB a row group of six
// columns, the footers included.
//
// Of each source, everything between the magic number and the footer moves as one
// range: data, column indexes and bloom filters, none of which hold offsets. What
// does hold offsets is rewritten: the footer's row groups, and the offset indexes,
// which go to the tail (the old ones are left behind as dead bytes, some ten a
// page). Offsets are shifted, everything else of a row group stays bit for bit.
// Row groups are numbered anew while 16 bits last, beyond which none has a number.
// Of the key-value metadata only an ARROW:schema that all sources share is kept.
//
// Sources whose schema, column orders or class of writer differ are refused with
// ErrUnlike; a footer that contradicts itself, its file's size or its source's
// number of rows with hayrick.ErrCorrupt. Both name the source.
func PlanConcat(sources []Source, footers []SourceFooter) (ConcatPlan, error) {
	if len(sources) == 0 || len(sources) != len(footers) {
		return ConcatPlan{}, fmt.Errorf("plan concat: %d sources, %d footers", len(sources), len(footers))
	}
	p := &planner{digest: sha256.New()}
	size := 0
	for _, f := range footers {
		size += len(f.raw) + len(f.indexes)
	}
	p.plan.Tail = make([]byte, 0, size) // about right: longer offsets for schemas left out
	for i, s := range sources {
		if err := p.take(i, s, footers[i]); err != nil {
			return ConcatPlan{}, fmt.Errorf("plan concat: %s: %w", s.Name, err)
		}
	}
	for i, s := range sources {
		if err := p.moveIndexes(i, footers[i]); err != nil {
			return ConcatPlan{}, fmt.Errorf("plan concat: %s: %w", s.Name, err)
		}
	}
	start := len(p.plan.Tail)
	p.beginFooter()
	for i, s := range sources {
		if err := p.moveGroups(i, footers[i]); err != nil {
			return ConcatPlan{}, fmt.Errorf("plan concat: %s: %w", s.Name, err)
		}
	}
	p.endFooter()
	footer := p.plan.Tail[start:]
	if len(footer) > math.MaxInt32 {
		return ConcatPlan{}, fmt.Errorf("plan concat: a footer of %d bytes for %d row groups: %w", len(footer), p.plan.RowGroups, ErrUnlike)
	}
	p.digest.Write(footer)
	p.plan.OutputHash = hex.EncodeToString(p.digest.Sum(nil))
	p.plan.Tail = binary.LittleEndian.AppendUint32(p.plan.Tail, uint32(len(footer)))
	p.plan.Tail = append(p.plan.Tail, magic...)
	p.plan.Bytes = p.data + int64(len(p.plan.Tail))
	return p.plan, nil
}

// PlanText plans the concatenation of text: of every source but the first, what lies
// behind its head. There is no tail, and the OutputHash is over the sources' SHA-256s
// alone.
func PlanText(sources []Source) (ConcatPlan, error) {
	var p ConcatPlan
	digest := sha256.New()
	for i, s := range sources {
		sum, err := hex.DecodeString(s.SHA256)
		if err != nil || len(sum) != sha256.Size {
			return p, fmt.Errorf("plan concat: %s: %q is not a SHA-256", s.Name, s.SHA256)
		}
		digest.Write(sum)
		r := CopyRange{Source: i, Length: s.Size}
		if i > 0 {
			r.Offset, r.Length = s.Head, s.Size-s.Head
		}
		p.Copies = append(p.Copies, r)
		p.Bytes += r.Length
		p.Rows += s.Rows
		p.RowHash = p.RowHash.Add(s.RowHash)
	}
	p.OutputHash = hex.EncodeToString(digest.Sum(nil))
	return p, nil
}

const magic = "PAR1"

// planner gathers a plan, source by source, in three rounds: what the output is
// made of, the offset indexes, the row groups.
type planner struct {
	plan    ConcatPlan
	digest  hash.Hash
	first   kinship
	name    string  // of the first source
	data    int64   // bytes of all ranges so far
	shift   []int64 // of each source: from its offsets to the output's
	indexes []int   // of each chunk of each source, in order: the length of its moved offset index
	chunk   int     // the next of indexes
	index   int64   // where that one lies in the output
	group   int     // the next row group
	list    []byte  // scratch: the elements of the list in the making
}

// take adds the source's bytes to the output.
func (p *planner) take(i int, s Source, f SourceFooter) error {
	sum, err := hex.DecodeString(s.SHA256)
	if err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("%q is not a SHA-256", s.SHA256)
	}
	p.digest.Write(sum)
	k, err := f.kin()
	if err != nil {
		return err
	}
	if f.rows != s.Rows {
		return fmt.Errorf("%d rows, its results.done says %d: %w", f.rows, s.Rows, hayrick.ErrCorrupt)
	}
	if i == 0 {
		p.first, p.name = k, s.Name
		p.plan.Copies = append(p.plan.Copies, CopyRange{0, 0, f.at})
		p.data = f.at
		p.shift = append(p.shift, 0)
	} else {
		if err := k.alike(p.first, p.name); err != nil {
			return err
		}
		p.first.version = max(p.first.version, k.version)
		if k.arrow != p.first.arrow {
			p.first.arrow = ""
		}
		p.shift = append(p.shift, p.data-int64(len(magic)))
		if n := f.at - int64(len(magic)); n > 0 {
			p.plan.Copies = append(p.plan.Copies, CopyRange{i, int64(len(magic)), n})
			p.data += n
		}
	}
	if p.plan.Rows > math.MaxInt64-f.rows {
		return corrupt("more than 2^63 rows")
	}
	p.plan.Rows += f.rows
	p.plan.RowHash = p.plan.RowHash.Add(s.RowHash)
	p.plan.RowGroups += f.groups
	return nil
}

// moveIndexes writes the source's offset indexes, shifted, to the tail.
func (p *planner) moveIndexes(i int, f SourceFooter) error {
	left := f.indexes
	for _, n := range f.lengths {
		before := len(p.plan.Tail)
		if n > 0 {
			if err := p.moveIndex(left[:n], p.shift[i], f.at); err != nil {
				return err
			}
			left = left[n:]
		}
		p.indexes = append(p.indexes, len(p.plan.Tail)-before)
	}
	return nil
}

// moveIndex appends the offset index with every page's offset shifted. Pages lie
// before end.
func (p *planner) moveIndex(raw []byte, shift, end int64) error {
	index, _, err := rows.SplitCompact(raw)
	if err == nil {
		err = known(index, "offset index", indexLast)
	}
	if err != nil {
		return err
	}
	pages := 0
	list := p.list[:0]
	err = index.Structs(indexLocations, func(page rows.Compact, _ []byte) error {
		at, err := page.Int(pageOffset)
		if err != nil {
			return err
		}
		if at < int64(len(magic)) || at >= end {
			return corrupt("a page at %d", at)
		}
		pages++
		list = page.SetInt(pageOffset, rows.CompactI64, at+shift).Append(list)
		return nil
	})
	p.list = list
	if err != nil {
		return err
	}
	raw = append(rows.AppendCompactList(nil, rows.CompactStruct, pages), list...)
	p.plan.Tail = index.Set(indexLocations, rows.CompactList, raw).Append(p.plan.Tail)
	return nil
}

// beginFooter writes the footer up to its row groups.
func (p *planner) beginFooter() {
	p.index = p.data
	schema := rows.AppendCompactList(nil, rows.CompactStruct, len(p.first.schema))
	for _, e := range p.first.schema {
		schema = e.Append(schema)
	}
	head := rows.Compact{}.SetInt(fileVersion, rows.CompactI32, p.first.version).
		Set(fileSchema, rows.CompactList, schema).SetInt(fileRows, rows.CompactI64, p.plan.Rows)
	t := head.Append(p.plan.Tail)
	t[len(t)-1] = (fileGroups-fileRows)<<4 | rows.CompactList // in place of the struct's end
	p.plan.Tail = rows.AppendCompactList(t, rows.CompactStruct, p.plan.RowGroups)
}

// moveGroups writes the source's row groups, shifted, to the footer.
func (p *planner) moveGroups(i int, f SourceFooter) error {
	meta, _, err := rows.SplitCompact(f.raw)
	if err != nil {
		return err
	}
	return meta.Structs(fileGroups, func(g rows.Compact, _ []byte) error {
		if err := known(g, "row group", groupLast); err != nil {
			return err
		}
		columns := 0
		list := p.list[:0]
		err := g.Structs(groupColumns, func(chunk rows.Compact, _ []byte) (err error) {
			if columns == len(p.first.leaves) {
				return corrupt("a row group of more than %d columns", columns)
			}
			if chunk, err = p.moveChunk(chunk, p.shift[i], f); err != nil {
				return fmt.Errorf("column %q: %w", p.first.leaves[columns], err)
			}
			columns++
			list = chunk.Append(list)
			return nil
		})
		p.list = list
		if err != nil {
			return err
		}
		if columns != len(p.first.leaves) {
			return corrupt("a row group of %d columns, the schema has %d", columns, len(p.first.leaves))
		}
		g = g.Set(groupColumns, rows.CompactList, append(rows.AppendCompactList(nil, rows.CompactStruct, columns), list...))
		if at, err := g.Int(groupOffset); err != nil {
			return err
		} else if at >= int64(len(magic)) && at < f.at {
			g = g.SetInt(groupOffset, rows.CompactI64, at+p.shift[i])
		} else {
			g = g.Drop(groupOffset) // 0 and the like: a writer that did not know
		}
		if p.plan.RowGroups <= math.MaxInt16+1 {
			g = g.SetInt(groupOrdinal, rows.CompactI16, int64(p.group))
		} else {
			g = g.Drop(groupOrdinal)
		}
		p.group++
		p.plan.Tail = g.Append(p.plan.Tail)
		return nil
	})
}

// moveChunk shifts the offsets of a chunk's description.
func (p *planner) moveChunk(chunk rows.Compact, shift int64, f SourceFooter) (rows.Compact, error) {
	if err := known(chunk, "column chunk", chunkLast); err != nil {
		return nil, err
	}
	for _, id := range []int16{chunkPath, chunkCrypto, chunkEncrypted} {
		if _, ok := chunk.Get(id); ok {
			return nil, fmt.Errorf("it is encrypted or lies in another file: %w", ErrUnlike)
		}
	}
	field, ok := chunk.Get(chunkMeta)
	if !ok || field.Type != rows.CompactStruct {
		return nil, corrupt("a column chunk without metadata")
	}
	meta, _, err := rows.SplitCompact(field.Raw)
	if err == nil {
		err = known(meta, "column's metadata", metaLast)
	}
	if err != nil {
		return nil, err
	}
	if meta, err = f.shiftMeta(meta, shift); err != nil {
		return nil, err
	}
	chunk = chunk.Set(chunkMeta, rows.CompactStruct, meta.Append(nil))
	chunk = chunk.SetInt(chunkOffset, rows.CompactI64, 0) // deprecated; 0 is what the format asks for
	if at, n, err := f.span(chunk, chunkColumnIndex, chunkColumnIndexLength); err != nil {
		return nil, err
	} else if n > 0 {
		chunk = chunk.SetInt(chunkColumnIndex, rows.CompactI64, at+shift)
	} else {
		chunk = chunk.Drop(chunkColumnIndex).Drop(chunkColumnIndexLength)
	}
	n := p.indexes[p.chunk]
	p.chunk++
	if n > 0 {
		chunk = chunk.SetInt(chunkOffsetIndex, rows.CompactI64, p.index).SetInt(chunkOffsetIndexLength, rows.CompactI32, int64(n))
		p.index += int64(n)
	} else {
		chunk = chunk.Drop(chunkOffsetIndex).Drop(chunkOffsetIndexLength)
	}
	return chunk, nil
}

// shiftMeta shifts the offsets of a column chunk's metadata, once they are known
// to lie within the file.
func (f SourceFooter) shiftMeta(meta rows.Compact, shift int64) (rows.Compact, error) {
	start := int64(math.MaxInt64)
	for _, id := range []int16{metaDataPage, metaIndexPage, metaDictionary} {
		at, err := meta.Int(id)
		if err != nil {
			return nil, err
		}
		if at <= 0 && id != metaDataPage {
			meta = meta.Drop(id) // some writers say 0 for "none"
			continue
		}
		if at < int64(len(magic)) || at > f.at {
			return nil, corrupt("its pages at %d", at)
		}
		start = min(start, at)
		meta = meta.SetInt(id, rows.CompactI64, at+shift)
	}
	size, err := meta.Int(metaCompressed)
	if err != nil {
		return nil, err
	}
	if size < 0 || size > f.at-start {
		return nil, corrupt("%d bytes at %d lie outside the file", size, start)
	}
	if _, ok := meta.Get(metaBloom); ok {
		// The filter moved with the data; a writer that gives no length has it end
		// somewhere before the footer, which is what span then checks.
		at, _, err := f.span(meta, metaBloom, metaBloomLength)
		if err != nil {
			return nil, err
		}
		meta = meta.SetInt(metaBloom, rows.CompactI64, at+shift)
	}
	return meta, nil
}

// endFooter writes what follows the row groups.
func (p *planner) endFooter() {
	var rest rows.Compact
	if p.first.arrow != "" {
		list := rows.AppendCompactList(nil, rows.CompactStruct, 1)
		rest = rest.Set(fileKeyValues, rows.CompactList, append(list, p.first.arrow...))
	}
	if w := p.first.writer; w != "" {
		raw := binary.AppendUvarint(nil, uint64(len(w)))
		rest = rest.Set(fileCreatedBy, rows.CompactBinary, append(raw, w...))
	}
	if p.first.orders != "" {
		rest = rest.Set(fileOrders, rows.CompactList, []byte(p.first.orders))
	}
	p.plan.Tail = rest.AppendAfter(fileGroups, p.plan.Tail)
}
