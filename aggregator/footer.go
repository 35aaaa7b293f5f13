package aggregator

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
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
// indexes. About 1.5 KB for a row group of nine columns.
type SourceFooter struct {
	raw     []byte // the footer's metadata, split anew where it is used: it is held for every source at once
	at      int64  // where it starts, and the source's data and indexes end
	rows    int64
	groups  int
	indexes []byte  // the offset indexes of the chunks, one behind the other
	lengths []int32 // of each chunk, over all row groups; 0 = it has none
}

// ReadSourceFooter reads the footer of a Parquet file of size bytes and its offset
// indexes, for PlanConcat. It takes a read at the front and mostly one at the end;
// no more than the file's own size is allocated. Damage is a hayrick.ErrCorrupt.
func ReadSourceFooter(r io.ReaderAt, size int64) (SourceFooter, error) {
	f, err := rows.ReadFooter(r, size)
	if err != nil {
		return SourceFooter{}, err
	}
	if err := known(f.Meta, "file", fileLast); err != nil {
		return SourceFooter{}, err
	}
	s := SourceFooter{raw: slices.Clone(f.Raw), at: f.At} // the clone lets go of the rest of the file's end
	tail := &tailReader{r, f.Tail, size - int64(len(f.Tail))}
	err = f.Meta.Structs(fileGroups, func(g rows.Compact, _ []byte) error {
		n, err := g.Int(groupRows)
		if err != nil {
			return err
		}
		if n < 0 || n > math.MaxInt64-s.rows {
			return corrupt("a row group of %d rows", n)
		}
		s.rows += n
		s.groups++
		return g.Structs(groupColumns, func(chunk rows.Compact, _ []byte) error { return s.readIndex(tail, chunk) })
	})
	if err != nil {
		return SourceFooter{}, err
	}
	if n, err := f.Meta.Int(fileRows); err != nil {
		return SourceFooter{}, err
	} else if n != s.rows {
		return SourceFooter{}, corrupt("%d rows announced, %d in the row groups", n, s.rows)
	}
	return s, nil
}

// readIndex takes in the offset index of the next chunk.
func (s *SourceFooter) readIndex(r io.ReaderAt, chunk rows.Compact) error {
	at, n, err := s.span(chunk, chunkOffsetIndex, chunkOffsetIndexLength)
	if err != nil {
		return err
	}
	if n > math.MaxInt32 || n > s.at-int64(len(s.indexes)) {
		return corrupt("offset indexes larger than the file")
	}
	s.lengths = append(s.lengths, int32(n))
	if n == 0 {
		return nil
	}
	had := len(s.indexes)
	s.indexes = append(s.indexes, make([]byte, n)...)
	if got, err := r.ReadAt(s.indexes[had:], at); got < int(n) {
		if err == nil || err == io.EOF {
			err = hayrick.ErrCorrupt
		}
		return fmt.Errorf("read offset index: %w", err)
	}
	return nil
}

// tailReader has the end of a file at hand. What lies before it is read in pieces
// of at least its length, as offset indexes are small and lie side by side.
type tailReader struct {
	r    io.ReaderAt
	tail []byte
	at   int64
}

func (t *tailReader) ReadAt(p []byte, at int64) (int, error) {
	if at < t.at || at+int64(len(p)) > t.at+int64(len(t.tail)) {
		b := make([]byte, max(len(p), len(t.tail)))
		n, err := t.r.ReadAt(b, at)
		if n < len(p) {
			return n, err
		}
		t.tail, t.at = b[:n], at
	}
	return copy(p, t.tail[at-t.at:]), nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("footer: %s: %w", fmt.Sprintf(format, args...), hayrick.ErrCorrupt)
}

// known refuses fields of the future.
func known(s rows.Compact, what string, last int16) error {
	if n := len(s); n > 0 && s[n-1].ID > last {
		return fmt.Errorf("field %d of a %s is not known: %w", s[n-1].ID, what, ErrUnlike)
	}
	return nil
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

// kinship is what must be alike in files that become one.
type kinship struct {
	schema  []rows.Compact // the elements, the root first
	leaves  []string       // the names of the columns that hold values
	version int64
	writer  string // created_by
	orders  string // how the columns are ordered, encoded
	arrow   string // the ARROW:schema entry, encoded; "" = none
}

const arrowSchemaKey = "ARROW:schema"

// kin reads the kinship of a file.
func (s SourceFooter) kin() (k kinship, err error) {
	meta, _, err := rows.SplitCompact(s.raw)
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
	if k.writer, err = meta.Text(fileCreatedBy); err != nil {
		return k, err
	}
	if f, ok := meta.Get(fileOrders); ok {
		k.orders = string(f.Raw)
	}
	err = meta.Structs(fileSchema, func(e rows.Compact, _ []byte) error {
		name, err := e.Text(elementName)
		if err != nil {
			return err
		}
		children, err := e.Int(elementChildren)
		if err != nil {
			return err
		}
		if len(k.schema) > 0 && children == 0 {
			k.leaves = append(k.leaves, name)
		}
		k.schema = append(k.schema, e)
		return nil
	})
	if err != nil {
		return k, err
	}
	if len(k.schema) == 0 {
		return k, corrupt("no schema")
	}
	return k, meta.Structs(fileKeyValues, func(pair rows.Compact, raw []byte) error {
		key, err := pair.Text(1)
		if key == arrowSchemaKey {
			k.arrow = string(raw)
		}
		return err
	})
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
