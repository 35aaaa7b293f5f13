package rows

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// Kind is the type of a column. The numbers are wire values: they are in every
// row hash and in every journal.
type Kind uint8

// The kinds.
const (
	KindString Kind = 1 // UTF-8 text
	KindBytes  Kind = 2
	KindInt    Kind = 3 // signed, of any width up to 64 bits
	KindFloat  Kind = 4 // 64 bits
	KindBool   Kind = 5
	KindTime   Kind = 6 // an instant, in microseconds since 1970 UTC
)

var kindNames = [...]string{KindString: "string", KindBytes: "bytes", KindInt: "int", KindFloat: "float", KindBool: "bool", KindTime: "time"}

func (k Kind) valid() bool { return k >= KindString && k <= KindTime }

// String is the kind's word: string, bytes, int, float, bool, time.
func (k Kind) String() string {
	if !k.valid() {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// MarshalText writes the kind's word.
func (k Kind) MarshalText() ([]byte, error) {
	if !k.valid() {
		return nil, fmt.Errorf("%s is not a kind", k)
	}
	return []byte(kindNames[k]), nil
}

// UnmarshalText reads the kind's word.
func (k *Kind) UnmarshalText(b []byte) error {
	for i := KindString; i <= KindTime; i++ {
		if kindNames[i] == string(b) {
			*k = i
			return nil
		}
	}
	return fmt.Errorf("%q is not a kind of column", b)
}

// Field is one column of a schema.
type Field struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
}

// Schema is the columns of a file, in its order. Every column is nullable. A
// column that was only ever null is in no schema.
type Schema struct {
	Fields []Field `json:"fields"`
}

// Digest is the SHA-256, in lowercase hex, of the schema's JSON. The order of the
// columns counts: files of one digest can be concatenated as they are.
func (s Schema) Digest() string {
	if s.Fields == nil {
		s.Fields = []Field{} // no columns, written one way
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic("rows: a schema with an invalid kind: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Index is the position of the named column, or -1.
func (s Schema) Index(name string) int {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return i
		}
	}
	return -1
}

// Check says whether the schema can be written: names valid and unique, kinds
// known.
func (s Schema) Check() error {
	if len(s.Fields) > MaxColumns {
		return fmt.Errorf("%d columns, the limit is %d: %w", len(s.Fields), MaxColumns, ErrRow)
	}
	seen := make(map[string]bool, len(s.Fields))
	for _, f := range s.Fields {
		if err := checkName(f.Name); err != nil {
			return err
		}
		if !f.Kind.valid() {
			return fmt.Errorf("column %q has no kind: %w", f.Name, ErrRow)
		}
		if seen[f.Name] {
			return fmt.Errorf("column %q is in the schema twice: %w", f.Name, ErrRow)
		}
		seen[f.Name] = true
	}
	return nil
}

// ErrSchema is the class of a SchemaConflict.
var ErrSchema = errors.New("schemas cannot be unified")

// SchemaConflict is one column with two kinds. An int and a float conflict too: a
// row's hash covers the kind, so turning 1 into 1.0 on the way would make rows
// unequal to what was committed. The handler decides, by emitting one of the two.
type SchemaConflict struct {
	Column string
	A, B   Kind
}

func (e *SchemaConflict) Error() string {
	return fmt.Sprintf("column %q is %s in one place and %s in another: emit one kind everywhere%s", e.Column, e.A, e.B, e.help())
}

// help is what else there is for the commonest of them: JSON of some languages has no
// 1.0, and output.schema makes floats of its ints before they are stored.
func (e *SchemaConflict) help() string {
	if (e.A == KindInt && e.B == KindFloat) || (e.A == KindFloat && e.B == KindInt) {
		return fmt.Sprintf("; or write output.schema, where {name: %s, type: float} takes whole numbers too", e.Column)
	}
	return ""
}

// Unwrap makes it an ErrSchema.
func (e *SchemaConflict) Unwrap() error { return ErrSchema }

// Unify is the schema that holds the rows of both: the columns of a in a's order,
// then those that only b has. It is associative, so that unifying many schemas in
// a fixed order gives one result however they are grouped. The error is a
// *SchemaConflict, or the limit on columns.
func Unify(a, b Schema) (Schema, error) {
	at := make(map[string]Kind, len(a.Fields))
	out := Schema{Fields: append([]Field(nil), a.Fields...)}
	for _, f := range a.Fields {
		at[f.Name] = f.Kind
	}
	for _, f := range b.Fields {
		k, ok := at[f.Name]
		switch {
		case !ok:
			out.Fields = append(out.Fields, f)
		case k != f.Kind:
			return Schema{}, &SchemaConflict{Column: f.Name, A: k, B: f.Kind}
		}
	}
	if len(out.Fields) > MaxColumns {
		return Schema{}, fmt.Errorf("%d columns, the limit is %d: %w", len(out.Fields), MaxColumns, ErrSchema)
	}
	return out, nil
}

// Observer learns the schema of rows: columns in the order in which their first
// value comes. The zero value is ready.
type Observer struct {
	cols columns
}

// Observe takes in one row. After an error the schema may hold columns of the
// refused row.
func (o *Observer) Observe(r Row) error {
	for i := range r {
		v, err := valueOf(&r[i])
		if err != nil {
			return err
		}
		if v.kind == 0 {
			continue
		}
		at := o.cols.find(r[i].Name, i)
		if at < 0 {
			if err := checkName(r[i].Name); err != nil {
				return err
			}
			if len(o.cols.fields) == MaxColumns {
				return fmt.Errorf("column %q: more than %d columns: %w", r[i].Name, MaxColumns, ErrRow)
			}
			o.cols.add(Field{r[i].Name, v.kind})
		} else if k := o.cols.fields[at].Kind; k != v.kind {
			return &SchemaConflict{Column: r[i].Name, A: k, B: v.kind}
		}
	}
	return nil
}

// Schema is what was learned so far.
func (o *Observer) Schema() Schema {
	return Schema{Fields: append([]Field(nil), o.cols.fields...)}
}

// columns finds a column by name; rows mostly have the columns in the same places,
// so the caller's guess is tried first.
type columns struct {
	fields []Field
	at     map[string]int
}

func (c *columns) add(f Field) {
	if c.at == nil {
		c.at = map[string]int{}
	}
	c.at[f.Name] = len(c.fields)
	c.fields = append(c.fields, f)
}

func (c *columns) find(name string, guess int) int {
	if guess < len(c.fields) && c.fields[guess].Name == name {
		return guess
	}
	if i, ok := c.at[name]; ok {
		return i
	}
	return -1
}

// Declared is a schema that rows must fit.
type Declared struct {
	schema Schema
	at     map[string]Kind
}

// Declare is the schema of columns with the given names and words of kinds, or nil of
// no columns.
func Declare(columns ...[2]string) (*Declared, error) {
	if len(columns) == 0 {
		return nil, nil
	}
	d := &Declared{at: map[string]Kind{}}
	for _, c := range columns {
		f := Field{Name: c[0]}
		if err := f.Kind.UnmarshalText([]byte(c[1])); err != nil {
			return nil, err
		}
		d.schema.Fields = append(d.schema.Fields, f)
		d.at[f.Name] = f.Kind
	}
	return d, d.schema.Check()
}

// Schema is what was declared; the zero Schema when nothing was.
func (d *Declared) Schema() Schema {
	if d == nil {
		return Schema{}
	}
	return d.schema
}

// maxWhole is up to where every int is a float too.
const maxWhole = 1 << 53

// Fit is the row as it is stored under the schema: an int of a float column becomes a
// float, where it is the same number. A value that does not fit is an ErrRow that
// names its column.
func (d *Declared) Fit(r Row) (Row, error) {
	if d == nil {
		return r, nil
	}
	var out Row
	for i := range r {
		v, err := valueOf(&r[i])
		if err != nil {
			return nil, err
		}
		want, ok := d.at[r[i].Name]
		switch {
		case !ok && v.kind != 0:
			return nil, fmt.Errorf("column %q is not in output.schema: %w", r[i].Name, ErrRow)
		case !ok || v.kind == 0 || v.kind == want:
		case v.kind == KindInt && want == KindFloat && v.num >= -maxWhole && v.num <= maxWhole:
			if out == nil {
				out = append(Row(nil), r...)
			}
			out[i].Value = float64(v.num)
		default:
			return nil, fmt.Errorf("column %q is %s in output.schema, the row has %s: %w", r[i].Name, want, v.kind, ErrRow)
		}
	}
	if out != nil {
		return out, nil
	}
	return r, nil
}
