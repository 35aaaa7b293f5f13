package aggregator

import (
	"bytes"
	"fmt"
	"io"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// dropper lets one row of each key through and counts those that it does not.
type dropper struct {
	keep   string
	keyer  *rows.Keyer
	schema rows.Schema

	rows int64 // dropped
	hash rows.Hash
}

func newDropper(s rows.Schema, columns []string, keep string) (*dropper, error) {
	k, err := rows.NewKeyer(s, columns)
	if err != nil {
		return nil, fmt.Errorf("output.unique_by: %w", err)
	}
	return &dropper{keep: keep, keyer: k, schema: s}, nil
}

// keyText is how much of a value a message shows.
const keyText = 200

// drop counts a row that does not stay.
func (d *dropper) drop(e *rows.Entry) {
	d.rows++
	d.hash = d.hash.Add(e.Hash)
}

// duplicate is the error that two rows have one key where the job file says that none
// do.
func (d *dropper) duplicate(first int64, e *rows.Entry) error {
	b := rows.NewBatch(d.schema)
	if err := b.TakeRecord(e.Record); err != nil {
		return err
	}
	where := fmt.Sprintf("in items %d and %d", first, e.Item)
	if first == e.Item {
		where = fmt.Sprintf("twice in item %d", first)
	}
	return &finalError{manifest.CodeDuplicateKey, fmt.Sprintf("output.unique_by: the key %s is %s, and output.keep is error: write keep: first or keep: last, or let the handler emit it once",
		d.keyer.Text(b, 0, keyText), where)}
}

// thin lets one row of each key of in through. in has the rows of a key one behind
// the other, in the order of their places, so that the first and the last are what
// they are called; and whatever was dropped of them before was neither.
func (d *dropper) thin(in entries) entries {
	if d.keep == hayrick.KeepLast {
		return &lastOfKey{d: d, in: in}
	}
	return &firstOfKey{d: d, in: in}
}

type firstOfKey struct {
	d    *dropper
	in   entries
	any  bool
	key  []byte // of the row that was let through
	item int64
}

func (f *firstOfKey) Next() (*rows.Entry, error) {
	for {
		e, err := f.in.Next()
		if err != nil {
			return nil, err
		}
		if !f.any || !bytes.Equal(e.Key, f.key) {
			f.any, f.key, f.item = true, append(f.key[:0], e.Key...), e.Item
			return e, nil
		}
		if f.d.keep == hayrick.KeepError {
			return nil, f.d.duplicate(f.item, e)
		}
		f.d.drop(e)
	}
}

type lastOfKey struct {
	d          *dropper
	in         entries
	held, out  rows.Entry // held is the last one so far of its key
	heldBuffer []byte
	outBuffer  []byte
	any, end   bool
}

func (l *lastOfKey) hold(e *rows.Entry) {
	l.heldBuffer = e.AppendTo(l.heldBuffer[:0])
	l.held, _ = rows.DecodeEntry(l.heldBuffer)
	l.any = true
}

func (l *lastOfKey) Next() (*rows.Entry, error) {
	for !l.end {
		e, err := l.in.Next()
		switch {
		case err == io.EOF:
			l.end = true
			if l.any {
				return &l.held, nil
			}
		case err != nil:
			return nil, err
		case !l.any:
			l.hold(e)
		case bytes.Equal(e.Key, l.held.Key):
			l.d.drop(&l.held)
			l.hold(e)
		default:
			l.out, l.outBuffer, l.heldBuffer = l.held, l.heldBuffer, l.outBuffer
			l.hold(e)
			return &l.out, nil
		}
	}
	return nil, io.EOF
}
