package rows

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"hayrick"
)

// itemsKey is where a file's footer says which item each row is of: the base64 of a
// uvarint pair for each item with rows, the distance of its ordinal from the one
// before (zigzag) and its number of rows.
const itemsKey = "hayrick.items"

// itemCounts notes which item rows are of.
type itemCounts struct {
	body  []byte
	last  int64 // ordinal
	count int64 // rows of it so far
	any   bool
}

func (c *itemCounts) begin(ordinal int64) {
	c.end()
	c.body = binary.AppendVarint(c.body, ordinal-c.last)
	c.last, c.any = ordinal, true
}

func (c *itemCounts) end() {
	if c.any {
		c.body = binary.AppendUvarint(c.body, uint64(c.count))
		c.count = 0
	}
}

func (c *itemCounts) text() string {
	c.end()
	c.any = false
	return base64.RawStdEncoding.EncodeToString(c.body)
}

// Items walks the items of a file's rows, in the file's order.
type Items struct {
	body []byte
	item int64
	left int64 // rows of it
	at   int64 // rows of it so far
}

// Next is the item and the place within it of the next row. Running out of them, with
// rows left, is damage.
func (w *Items) Next() (item, place int64, err error) {
	for w.left == 0 {
		d, n := binary.Varint(w.body)
		if n <= 0 {
			return 0, 0, fmt.Errorf("it says of fewer rows than it has which item they are of: %w", hayrick.ErrCorrupt)
		}
		count, m := binary.Uvarint(w.body[n:])
		if m <= 0 || count > 1<<62 || w.item+d < 0 {
			return 0, 0, fmt.Errorf("which item its rows are of: %w", hayrick.ErrCorrupt)
		}
		w.body = w.body[n+m:]
		w.item, w.left, w.at = w.item+d, int64(count), 0
	}
	w.left--
	w.at++
	return w.item, w.at - 1, nil
}

// Items says which item each row is of, in a file whose writer was told.
func (f *File) Items() (*Items, error) {
	v := f.file.MetaData().KeyValueMetadata().FindValue(itemsKey)
	if v == nil {
		return nil, fmt.Errorf("it does not say which item each row is of: %w", hayrick.ErrCorrupt)
	}
	body, err := base64.RawStdEncoding.DecodeString(*v)
	if err != nil {
		return nil, fmt.Errorf("which item its rows are of: %v: %w", err, hayrick.ErrCorrupt)
	}
	return &Items{body: body}, nil
}
