package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"hayrick"
)

// MaxRecordBytes bounds a record that is read whole. Lists that could pass it are
// data objects named by key, SHA-256 and count.
const MaxRecordBytes = 64 << 20

// maxValues bounds the values of a record: lists of more than InlineList entries lie beside
// it. A few bytes of JSON become a hundred in memory, of what somebody has put in its place.
const maxValues = 1 << 20

// Encode returns the canonical JSON of v: sorted keys, no spaces, no HTML escapes.
func Encode(v any) ([]byte, error) { return encode(v, nil) }

// encode is Encode with fields that v does not have.
func encode(v any, more map[string]string) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	switch v.(type) {
	case Block, Index:
		// Declared in canonical order; a test compares both ways. Text that is no UTF-8
		// is the one thing that the detour below spells otherwise.
		if !bytes.Contains(buf.Bytes(), []byte(`\ufffd`)) {
			return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
		}
	}
	// Struct order is the reader's; the wire's is alphabetical. Going through a map
	// sorts the keys at every level, and json.Number keeps numbers as written.
	dec := json.NewDecoder(bytes.NewReader(buf.Bytes()))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	if fields, ok := tree.(map[string]any); ok {
		for name, value := range more {
			fields[name] = value
		}
	}
	buf.Reset()
	if err := enc.Encode(tree); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// Decode reads one record of the given schema. Anything else, bytes before or after
// the object included, is hayrick.ErrCorrupt. Unknown fields are ignored: additive
// changes do not break older readers. v, a pointer, is overwritten whole.
func Decode(b []byte, schema string, v any) error {
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return corrupt("decode %s: %d bytes that are not one JSON object", schema, len(b))
	}
	if n := bytes.Count(b, []byte(",")) + bytes.Count(b, []byte("[")); n > maxValues {
		return corrupt("decode %s: its %d bytes have more than %d values", schema, len(b), maxValues)
	}
	if err := checkSeal(b); err != nil {
		return fmt.Errorf("decode %s: %w", schema, err)
	}
	record := reflect.ValueOf(v).Elem()
	record.SetZero() // what stood there before says nothing of b
	err := json.Unmarshal(b, v)
	if err == nil && record.Kind() == reflect.Struct && record.FieldByName("Schema").String() == schema {
		return nil
	}
	var head struct { // why not
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return corrupt("decode %s: %s", schema, inWords(err))
	}
	if head.Schema != schema {
		return corrupt("decode %s: the object says schema %.64q", schema, head.Schema)
	}
	if err != nil {
		return corrupt("decode %s: %s", schema, inWords(err))
	}
	return nil
}

// seal is the field in which a commit carries its own digest: the SHA-256 of its bytes
// with "" in there. Until a later commit names it, nothing else tells a changed digit
// from the true one.
const seal = "self_sha256"

var sealed = []byte(`"` + seal + `":"`)

// Seal is Encode of a commit: with its own digest.
func Seal(v any) ([]byte, error) {
	b, err := encode(v, map[string]string{seal: ""})
	if err != nil {
		return nil, err
	}
	at := bytes.Index(b, sealed) + len(sealed)
	return slices.Concat(b[:at], []byte(SHA256(b)), b[at:]), nil
}

// checkSeal compares the digest that a record carries with its bytes. Views and data
// carry none.
func checkSeal(b []byte) error {
	before, rest, ok := bytes.Cut(b, sealed) // in a text the quotes would be escaped
	if !ok {
		return nil
	}
	says, after, _ := bytes.Cut(rest, []byte(`"`))
	h := sha256.New()
	for _, part := range [][]byte{before, sealed, {'"'}, after} {
		h.Write(part)
	}
	if len(says) > 0 && hex.EncodeToString(h.Sum(nil)) != string(says) {
		return corrupt("its bytes do not have the digest it carries")
	}
	return nil
}

// inWords is why bytes are no record, in the words of the record.
func inWords(err error) string {
	var bad *json.UnmarshalTypeError
	if errors.As(err, &bad) {
		return fmt.Sprintf("field %q cannot be read from a JSON %.64s", bad.Field, bad.Value)
	}
	return err.Error()
}

// SHA256 is the lower-case hex digest of b.
func SHA256(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// Short is the first 12 hex digits of a digest, as keys carry it.
func Short(sha string) string {
	if len(sha) < 12 {
		return sha
	}
	return sha[:12]
}

// Time is written as RFC 3339 UTC with milliseconds. The zero time is "".
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000Z"

// At is t in UTC, cut to milliseconds, as it will read back.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Millisecond)} }

// MarshalJSON writes the canonical form.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte(`""`), nil
	}
	return []byte(`"` + t.UTC().Format(timeLayout) + `"`), nil
}

// UnmarshalJSON reads the canonical form only.
func (t *Time) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "" {
		*t = Time{}
		return nil
	}
	v, err := time.Parse(timeLayout, s)
	if err != nil {
		return err
	}
	t.Time = v
	return nil
}

// EncodeDefinition is the stored form of a resolved definition: indented JSON with
// sorted keys, which is YAML, so the stored config.yaml is itself a job file. The
// definition's identity is the SHA-256 of these bytes.
func EncodeDefinition(d hayrick.JobDefinition) (body []byte, sha string, err error) {
	c, err := Encode(d)
	if err != nil {
		return nil, "", err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, c, "", "  "); err != nil {
		return nil, "", fmt.Errorf("encode definition: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), SHA256(out.Bytes()), nil
}

// DecodeDefinition reads what EncodeDefinition wrote and checks its digest.
func DecodeDefinition(b []byte, sha string) (hayrick.JobDefinition, error) {
	var d hayrick.JobDefinition
	if got := SHA256(b); got != sha {
		return d, fmt.Errorf("decode definition: SHA-256 %s, want %s: %w", got, sha, hayrick.ErrCorrupt)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, corrupt("decode definition: %s", inWords(err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return d, fmt.Errorf("decode definition: bytes after the end: %w", hayrick.ErrCorrupt)
	}
	return d, nil
}
