package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"hayrick"
)

// BatchItem is one record of an opened batch.
type BatchItem struct {
	Ordinal int64
	Line    int64           // of the object, from 1
	Data    json.RawMessage // the record's bytes, not yet checked to be JSON
	Tries   int             // spent by earlier tasks
	Losses  int             // likewise
	Classes []string        // of its failures in earlier groups
	Infra   int             // how many of Classes cost the item no try
}

// Label is the item's key: its field named field where that is a string, a number
// or a boolean, else (and for field "") the ordinal in decimal.
func (it BatchItem) Label(field string) string {
	var fields map[string]json.RawMessage
	if field != "" && json.Unmarshal(it.Data, &fields) == nil {
		switch raw := fields[field]; {
		case len(raw) == 0:
		case raw[0] == '"':
			var s string
			if json.Unmarshal(raw, &s) == nil && s != "" {
				return s
			}
		case raw[0] != '{' && raw[0] != '[' && raw[0] != 'n':
			return string(raw)
		}
	}
	return strconv.FormatInt(it.Ordinal, 10)
}

// maxBatch is more than any batch has: one of the input is a quarter of it at most, and in
// a retry its items stand with what was spent on them.
const maxBatch = 4 << 30

// OpenBatch reads a batch whole from r (the batch's range of its object) and
// checks its length and SHA-256 before anything of it is used: a batch whose bytes
// are not the planned ones is hayrick.ErrInputChanged, or ErrCorrupt when the bytes
// are the store's own.
func OpenBatch(b Batch, r io.Reader) ([]BatchItem, error) {
	if b.Length < 0 || b.Length > maxBatch || b.Items < 0 {
		return nil, corrupt("%s of %s: %d items in %d bytes", b.BatchID, b.Object, b.Items, b.Length)
	}
	body := make([]byte, b.Length)
	n, err := io.ReadFull(r, body)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return nil, fmt.Errorf("read %s of %s: %w", b.BatchID, b.Object, err)
	}
	if got := SHA256(body[:n]); got != b.SHA256 || int64(n) != b.Length {
		kind := hayrick.ErrInputChanged
		if b.Retry {
			kind = hayrick.ErrCorrupt
		}
		return nil, fmt.Errorf("bytes %d to %d of %s (lines from %d) have SHA-256 %s, planned %s: %w",
			b.Offset, b.Offset+b.Length, b.Object, b.FirstLine, Short(got), Short(b.SHA256), kind)
	}
	return b.split(body)
}

// split cuts the bytes of a batch into its records. It is the twin of the indexer:
// a record is a line that holds more than white space.
func (b Batch) split(body []byte) ([]BatchItem, error) {
	items := make([]BatchItem, 0, min(b.Items, len(body)/2+1))
	line := b.FirstLine
	for len(body) > 0 {
		var rec []byte
		if i := bytes.IndexByte(body, '\n'); i >= 0 {
			rec, body = body[:i], body[i+1:]
		} else {
			rec, body = body, nil
		}
		rec = TrimRecord(rec)
		if len(rec) == 0 {
			line++
			continue
		}
		it := BatchItem{Ordinal: b.FirstOrdinal + int64(len(items)), Line: line, Data: rec}
		if b.Retry {
			var r RetryItem
			if err := json.Unmarshal(rec, &r); err != nil {
				return nil, corrupt("%s line %d: %v", b.Object, line, err)
			}
			it = BatchItem{Ordinal: r.Ordinal, Line: line, Data: r.Item, Tries: r.Tries, Losses: r.Losses, Classes: r.Classes, Infra: r.Infra}
			if r.Raw != nil {
				it.Data = r.Raw
			}
		}
		items = append(items, it)
		line++
	}
	if len(items) != b.Items {
		return nil, corrupt("%s of %s holds %d items, planned %d", b.BatchID, b.Object, len(items), b.Items)
	}
	return items, nil
}

// TrimRecord drops the white space around a line: a line that has nothing else is
// no record.
func TrimRecord(line []byte) []byte { return bytes.Trim(line, " \t\r") }
