package rows

import (
	"encoding/binary"
	"fmt"
	"io"

	"hayrick"
)

const (
	magic = "PAR1"
	// tailBytes are read from the end of a file in one go: the footer of a file of
	// some row groups, and mostly its offset indexes too.
	tailBytes = 8 << 10
)

// Footer is the footer of a Parquet file as it stands, and where it stands.
type Footer struct {
	Raw  []byte  // the file's metadata, in the compact protocol
	Meta Compact // its first level
	At   int64   // its offset: everything before it is data and indexes
	Tail []byte  // the end of the file, as far as it was read for this; Raw may alias it
}

// ReadFooter reads the footer of a file of size bytes. Both magic numbers are
// checked, the footer's length against the file's before anything is allocated,
// and its structure to the last byte. Damage is a hayrick.ErrCorrupt.
func ReadFooter(r io.ReaderAt, size int64) (Footer, error) {
	if size < int64(len(magic)+4+len(magic)) {
		return Footer{}, fmt.Errorf("read footer: %d bytes are no Parquet file: %w", size, hayrick.ErrCorrupt)
	}
	var head [len(magic)]byte
	if err := readAt(r, head[:], 0); err != nil {
		return Footer{}, fmt.Errorf("read footer: %w", err)
	}
	tail := make([]byte, min(size, tailBytes))
	if err := readAt(r, tail, size-int64(len(tail))); err != nil {
		return Footer{}, fmt.Errorf("read footer: %w", err)
	}
	end := tail[len(tail)-8:]
	if string(head[:]) != magic || string(end[4:]) != magic {
		return Footer{}, fmt.Errorf("read footer: not a Parquet file, or not all of it: %w", hayrick.ErrCorrupt)
	}
	n := int64(binary.LittleEndian.Uint32(end))
	f := Footer{At: size - 8 - n, Tail: tail}
	if f.At < int64(len(magic)) {
		return Footer{}, fmt.Errorf("read footer: a footer of %d bytes in a file of %d: %w", n, size, hayrick.ErrCorrupt)
	}
	if n+8 <= int64(len(tail)) {
		f.Raw = tail[int64(len(tail))-8-n : len(tail)-8]
	} else {
		f.Raw = make([]byte, n)
		if err := readAt(r, f.Raw, f.At); err != nil {
			return Footer{}, fmt.Errorf("read footer: %w", err)
		}
	}
	meta, rest, err := SplitCompact(f.Raw)
	if err == nil && len(rest) > 0 {
		err = badMetadata(fmt.Sprintf("%d bytes too many", len(rest)))
	}
	if err != nil {
		return Footer{}, fmt.Errorf("read footer: %w", err)
	}
	f.Meta = meta
	return f, nil
}

// readAt fills p; a file that ends early is damaged.
func readAt(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	switch {
	case n == len(p):
		return nil
	case err == nil, err == io.EOF, err == io.ErrUnexpectedEOF:
		return fmt.Errorf("%d bytes at %d, %d are there: %w", len(p), at, n, hayrick.ErrCorrupt)
	}
	return err
}

// The fields of the footer's structs that are looked at here, by their ids in
// parquet.thrift.
const (
	metaSchema     = 2
	schemaChildren = 5
	schemaName     = 4
)

// checkFlat refuses what the library would recurse into: columns within columns.
func (f Footer) checkFlat() error {
	announced, described := int64(0), int64(-1)
	err := f.Meta.Structs(metaSchema, func(e Compact, _ []byte) error {
		children, err := e.Int(schemaChildren)
		if err != nil {
			return err
		}
		if described++; described == 0 {
			announced = children
		} else if children != 0 {
			name, err := e.Text(schemaName)
			if err != nil {
				return err
			}
			return fmt.Errorf("column %q is nested: %w", name, ErrKind)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if announced != described {
		return badMetadata(fmt.Sprintf("%d columns announced, %d described", announced, described))
	}
	if announced < 1 || announced > MaxColumns {
		return fmt.Errorf("%d columns: %w", announced, ErrKind)
	}
	return nil
}
