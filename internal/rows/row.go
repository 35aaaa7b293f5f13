package rows

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// Row is one output row: named, typed values in the order the handler gave them.
// A column that a row leaves out is null in it. Names must be unique in a row.
//
// Values are nil, string, []byte, bool, int64 (int and int32 are accepted),
// float64, time.Time (stored as UTC microseconds) or json.RawMessage (stored as
// its text). nil, a nil []byte and a nil json.RawMessage are null; an empty one is
// not. A row has at least one value that is not null.
type Row []Col

// Col is one value of a row.
type Col struct {
	Name  string
	Value any
}

// The bounds of a row. They keep a damaged length from being believed and a page
// of Parquet from outgrowing its 31-bit size.
const (
	MaxColumns    = 4096      // columns of a row or schema
	MaxNameBytes  = 1024      // bytes of a column's name
	MaxValueBytes = 256 << 20 // bytes of one string or bytes value
)

// ErrRow is what a row that cannot be stored is refused with. It is a mistake of
// the handler that made the row, and names the column.
var ErrRow = errors.New("row cannot be stored")

// value is a Row's value in the form all code below works with.
type value struct {
	kind Kind   // 0 = null
	str  string // KindString
	raw  []byte // KindBytes, and KindString from json.RawMessage
	num  int64  // KindInt, KindTime (microseconds), KindBool (0, 1), KindFloat (its bits)
}

// Times outside these do not fit 64 bits of microseconds.
var (
	minTime = time.UnixMicro(math.MinInt64)
	maxTime = time.UnixMicro(math.MaxInt64)
)

// valueOf reads the value of column c, or says why it cannot be stored.
func valueOf(c *Col) (v value, err error) {
	switch x := c.Value.(type) {
	case nil:
		return v, nil
	case string:
		v.kind, v.str = KindString, x
		if !utf8.ValidString(x) {
			return v, fmt.Errorf("column %q: the string is not valid UTF-8; emit it as []byte: %w", c.Name, ErrRow)
		}
	case json.RawMessage:
		if x == nil {
			return v, nil
		}
		v.kind, v.raw = KindString, x
		if !utf8.Valid(x) {
			return v, fmt.Errorf("column %q: the JSON text is not valid UTF-8: %w", c.Name, ErrRow)
		}
	case []byte:
		if x == nil {
			return v, nil
		}
		v.kind, v.raw = KindBytes, x
	case bool:
		v.kind = KindBool
		if x {
			v.num = 1
		}
	case int64:
		v.kind, v.num = KindInt, x
	case int:
		v.kind, v.num = KindInt, int64(x)
	case int32:
		v.kind, v.num = KindInt, int64(x)
	case float64:
		v.kind, v.num = KindFloat, int64(math.Float64bits(x))
	case time.Time:
		if x.Before(minTime) || x.After(maxTime) {
			return v, fmt.Errorf("column %q: the time %s is out of range: %w", c.Name, x, ErrRow)
		}
		v.kind, v.num = KindTime, x.UnixMicro()
	default:
		return v, fmt.Errorf("column %q: a value of type %T; use string, []byte, bool, int64, float64, time.Time or json.RawMessage: %w", c.Name, c.Value, ErrRow)
	}
	if len(v.str)+len(v.raw) > MaxValueBytes {
		return v, fmt.Errorf("column %q: a value of %d bytes, the limit is %d: %w", c.Name, len(v.str)+len(v.raw), MaxValueBytes, ErrRow)
	}
	return v, nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a column without a name: %w", ErrRow)
	case len(name) > MaxNameBytes:
		return fmt.Errorf("column %.40q...: a name of %d bytes, the limit is %d: %w", name, len(name), MaxNameBytes, ErrRow)
	case !utf8.ValidString(name):
		return fmt.Errorf("column %q: the name is not valid UTF-8: %w", name, ErrRow)
	}
	return nil
}

// Check says whether the row can be stored: its names, that they are unique, its
// values, and that there is one.
func (r Row) Check() error {
	if len(r) > MaxColumns {
		return fmt.Errorf("%d columns, the limit is %d: %w", len(r), MaxColumns, ErrRow)
	}
	var seen map[string]bool
	if len(r) > 16 {
		seen = make(map[string]bool, len(r))
	}
	values := 0
	for i := range r {
		name := r[i].Name
		if err := checkName(name); err != nil {
			return err
		}
		twice := seen[name]
		if seen != nil {
			seen[name] = true
		} else {
			for j := range i {
				twice = twice || r[j].Name == name
			}
		}
		if twice {
			return fmt.Errorf("column %q is in the row twice: %w", name, ErrRow)
		}
		v, err := valueOf(&r[i])
		if err != nil {
			return err
		}
		if v.kind != 0 {
			values++
		}
	}
	if values == 0 {
		return fmt.Errorf("no column has a value: %w", ErrRow)
	}
	return nil
}
