package aggregator

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"hayrick"
	"hayrick/internal/rows"
)

// ErrUnlike is what files are refused with that are sound but cannot be
// concatenated without decoding them. It names the file, and the column where it
// is one.
var ErrUnlike = errors.New("files cannot be concatenated as they are")

// The fields of the footer's structs that concatenation reads or changes, by their
// ids in parquet.thrift. Ids above the last are fields of the future, which could
// hold an offset that this code would leave behind: they are refused.
const (
	fileVersion    = 1
	fileSchema     = 2
	fileRows       = 3
	fileGroups     = 4
	fileKeyValues  = 5
	fileCreatedBy  = 6
	fileOrders     = 7
	fileEncryption = 8
	fileSigningKey = 9
	fileLast       = 9

	elementName     = 4
	elementChildren = 5

	groupColumns = 1
	groupRows    = 3
	groupOffset  = 5
	groupOrdinal = 7
	groupLast    = 7

	chunkPath              = 1
	chunkOffset            = 2
	chunkMeta              = 3
	chunkOffsetIndex       = 4
	chunkOffsetIndexLength = 5
	chunkColumnIndex       = 6
	chunkColumnIndexLength = 7
	chunkCrypto            = 8
	chunkEncrypted         = 9
	chunkLast              = 9

	metaCompressed  = 7
	metaDataPage    = 9
	metaIndexPage   = 10
	metaDictionary  = 11
	metaBloom       = 14
	metaBloomLength = 15
	metaLast        = 17

	indexLocations = 1 // of an offset index
	indexLast      = 2
	pageOffset     = 1 // of a page location
)

// SourceFooter is what of a source is needed to plan: its footer and its offset
// indexes. About 1 KB for a row group of six columns.
type SourceFooter struct {
	raw     []byte // the footer's metadata
	at      int64  // where it starts, and the source's data and indexes end
	indexes []byte // the offset indexes of all chunks that have one, in their order
}

// ReadSourceFooter reads the footer of a Parquet file of size bytes and its offset
// indexes, for PlanConcat. It takes a read at the front and two or three at the end;
// no more than the file's own size is allocated. Damage is a hayrick.ErrCorrupt.
func ReadSourceFooter(r io.ReaderAt, size int64) (SourceFooter, error) {
	f, err := rows.ReadFooter(r, size)
	if err != nil {
		return SourceFooter{}, err
	}
	s := SourceFooter{raw: f.Raw, at: f.At}
	var from, to int64 // a run of indexes that lie one behind the other
	read := func() error {
		n := len(s.indexes)
		s.indexes = append(s.indexes, make([]byte, to-from)...)
		if got, err := r.ReadAt(s.indexes[n:], from); got < int(to-from) {
			if err == io.EOF {
				err = hayrick.ErrCorrupt
			}
			return fmt.Errorf("read offset indexes: %w", err)
		}
		return nil
	}
	total := int64(0)
	err = s.eachChunk(f.Meta, func(_ int, chunk rows.Compact) error {
		at, length, err := s.span(chunk, chunkOffsetIndex, chunkOffsetIndexLength)
		if err != nil || length == 0 {
			return err
		}
		if total += length; total > s.at {
			return corrupt("offset indexes overlap")
		}
		if at == to {
			to += length
			return nil
		}
		if to > from {
			if err := read(); err != nil {
				return err
			}
		}
		from, to = at, at+length
		return nil
	})
	if err == nil && to > from {
		err = read()
	}
	if err != nil {
		return SourceFooter{}, err
	}
	return s, nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("footer: %s: %w", fmt.Sprintf(format, args...), hayrick.ErrCorrupt)
}

// split reads one struct and refuses fields of the future.
func split(raw []byte, what string, last int16) (rows.Compact, error) {
	s, _, err := rows.SplitCompact(raw)
	if err != nil {
		return nil, err
	}
	if n := len(s); n > 0 && s[n-1].ID > last {
		return nil, fmt.Errorf("field %d of a %s is not known: %w", s[n-1].ID, what, ErrUnlike)
	}
	return s, nil
}

// span is the place of something outside the footer, by the ids of its offset and
// length; 0, 0 when it is not there. It lies within the source's data and indexes.
func (s SourceFooter) span(of rows.Compact, offset, length int16) (at, n int64, err error) {
	if _, ok := of.Get(offset); !ok {
		return 0, 0, nil
	}
	if at, err = of.Int(offset); err != nil {
		return 0, 0, err
	}
	if n, err = of.Int(length); err != nil {
		return 0, 0, err
	}
	if at < 4 || n < 0 || at > s.at || n > s.at-at {
		return 0, 0, corrupt("%d bytes at %d lie outside the file", n, at)
	}
	return at, n, nil
}

// eachChunk calls f for every column chunk of every row group, with the column's
// position.
func (s SourceFooter) eachChunk(meta rows.Compact, f func(column int, chunk rows.Compact) error) error {
	groups, err := meta.Structs(fileGroups)
	if err != nil {
		return err
	}
	for _, raw := range groups {
		g, err := split(raw, "row group", groupLast)
		if err != nil {
			return err
		}
		chunks, err := g.Structs(groupColumns)
		if err != nil {
			return err
		}
		for i, raw := range chunks {
			chunk, err := split(raw, "column chunk", chunkLast)
			if err != nil {
				return err
			}
			if err := f(i, chunk); err != nil {
				return err
			}
		}
	}
	return nil
}

// kinship is what must be alike in files that become one.
type kinship struct {
	version int64
	schema  []rows.Compact // the elements, the root first
	leaves  []string       // the names of the columns that hold values
	orders  string         // how the columns are ordered, encoded
	writer  string         // created_by
	arrow   string         // the ARROW:schema entry, encoded; "" = none
	rows    int64
	groups  int
}

const arrowSchemaKey = "ARROW:schema"

// kin reads a footer's kinship and checks what it says of rows.
func (s SourceFooter) kin() (k kinship, err error) {
	meta, err := split(s.raw, "file", fileLast)
	if err != nil {
		return k, err
	}
	for _, id := range []int16{fileEncryption, fileSigningKey} {
		if _, ok := meta.Get(id); ok {
			return k, fmt.Errorf("the file is encrypted or signed: %w", ErrUnlike)
		}
	}
	if k.version, err = meta.Int(fileVersion); err != nil {
		return k, err
	}
	if k.rows, err = meta.Int(fileRows); err != nil {
		return k, err
	}
	if k.writer, err = meta.Text(fileCreatedBy); err != nil {
		return k, err
	}
	if f, ok := meta.Get(fileOrders); ok {
		k.orders = string(f.Raw)
	}
	elements, err := meta.Structs(fileSchema)
	if err != nil {
		return k, err
	}
	if len(elements) == 0 {
		return k, corrupt("no schema")
	}
	for _, raw := range elements {
		e, _, err := rows.SplitCompact(raw)
		if err != nil {
			return k, err
		}
		name, err := e.Text(elementName)
		if err != nil {
			return k, err
		}
		children, err := e.Int(elementChildren)
		if err != nil {
			return k, err
		}
		if len(k.schema) > 0 && children == 0 {
			k.leaves = append(k.leaves, name)
		}
		k.schema = append(k.schema, e)
	}
	pairs, err := meta.Structs(fileKeyValues)
	if err != nil {
		return k, err
	}
	for _, raw := range pairs {
		p, _, err := rows.SplitCompact(raw)
		if err != nil {
			return k, err
		}
		if key, err := p.Text(1); err != nil {
			return k, err
		} else if key == arrowSchemaKey {
			k.arrow = string(raw)
		}
	}
	groups, err := meta.Structs(fileGroups)
	if err != nil {
		return k, err
	}
	k.groups = len(groups)
	left := k.rows
	for _, raw := range groups {
		g, err := split(raw, "row group", groupLast)
		if err != nil {
			return k, err
		}
		n, err := g.Int(groupRows)
		if err != nil {
			return k, err
		}
		if n < 0 || n > left {
			return k, corrupt("a row group of %d rows, %d are left of the file's", n, left)
		}
		left -= n
	}
	if left != 0 {
		return k, corrupt("%d rows announced, %d in the row groups", k.rows, k.rows-left)
	}
	return k, nil
}

// alike says whether files of k and of the first one can become one file.
func (k kinship) alike(first kinship, firstName string) error {
	if len(k.schema) != len(first.schema) {
		return fmt.Errorf("%d columns, %s has %d: %w", len(k.leaves), firstName, len(first.leaves), ErrUnlike)
	}
	for i := range k.schema {
		a, b := k.schema[i], first.schema[i]
		if i == 0 { // the root's name means nothing, its number of children does
			x, errX := a.Int(elementChildren)
			y, errY := b.Int(elementChildren)
			if err := errors.Join(errX, errY); err != nil {
				return err
			}
			if x != y {
				return fmt.Errorf("%d columns at the root, %s has %d: %w", x, firstName, y, ErrUnlike)
			}
			continue
		}
		if string(a.Append(nil)) == string(b.Append(nil)) {
			continue
		}
		x, errX := a.Text(elementName)
		y, errY := b.Text(elementName)
		if err := errors.Join(errX, errY); err != nil {
			return err
		}
		if x != y {
			return fmt.Errorf("column %d is %q, in %s it is %q: %w", i-1, x, firstName, y, ErrUnlike)
		}
		return fmt.Errorf("column %q is of another type than in %s: %w", x, firstName, ErrUnlike)
	}
	if k.orders != first.orders {
		return fmt.Errorf("the columns are ordered otherwise than in %s: %w", firstName, ErrUnlike)
	}
	if a, b := writerClass(k.writer), writerClass(first.writer); a != b {
		return fmt.Errorf("written by %q, %s by %q: %w", k.writer, firstName, first.writer, ErrUnlike)
	}
	return nil
}

// writerClass is what of created_by decides how readers take a file's statistics:
// the program and its major version.
func writerClass(createdBy string) string {
	program, version, ok := strings.Cut(createdBy, " version ")
	if !ok {
		return createdBy
	}
	major, _, _ := strings.Cut(version, ".")
	return program + " version " + major
}
