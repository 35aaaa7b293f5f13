package extproc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hayrick/jobs"
)

// members calls fn with each member of an object: the name unquoted, the value as it
// stands. text is valid JSON (json.Valid); false: it is no object, or fn said so.
func members(text []byte, fn func(name string, value []byte) bool) bool {
	s := scanner{b: text}
	s.space()
	if !s.take('{') {
		return false
	}
	for s.space(); !s.take('}'); s.space() {
		s.take(',')
		s.space()
		name := unquote(s.value())
		s.space()
		s.take(':')
		s.space()
		if !fn(name, s.value()) {
			return false
		}
	}
	return true
}

// scanner walks valid JSON.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\r' || s.b[s.i] == '\n') {
		s.i++
	}
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// value takes one value.
func (s *scanner) value() []byte {
	from, depth := s.i, 0
	for ; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case '"':
			for s.i++; s.b[s.i] != '"'; s.i++ {
				if s.b[s.i] == '\\' {
					s.i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return s.b[from:s.i] // the end of what it is in
			}
			depth--
		case ',', ' ', '\t', '\r', '\n', ':':
			if depth == 0 {
				return s.b[from:s.i]
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			s.i++
			break
		}
	}
	return s.b[from:s.i]
}

// unquote is the text of a JSON string.
func unquote(v []byte) string {
	if len(v) >= 2 && v[0] == '"' && bytes.IndexByte(v, '\\') < 0 {
		return strings.ToValidUTF8(string(v[1:len(v)-1]), "\uFFFD")
	}
	var s string
	json.Unmarshal(v, &s) // "" for what is no string
	return s
}

// errRowForm is a row that no table has a place for.
var errRowForm = errors.New("the row cannot be read")

// rowOf reads a row's columns in the order they were written. A whole number is an
// int64, any other a float64, an object or list its JSON text; {"$time": "..."} is a
// time and {"$bytes": "..."} bytes in base64.
func rowOf(text []byte) (jobs.Row, error) {
	row := make(jobs.Row, 0, 8)
	var err error
	ok := members(text, func(name string, v []byte) bool {
		var x any
		if x, err = valueOf(v); err != nil {
			err = fmt.Errorf("column %q: %v: %w", name, err, errRowForm)
			return false
		}
		row = append(row, jobs.Col{Name: name, Value: x})
		return true
	})
	if err == nil && !ok {
		err = fmt.Errorf("it is not an object of column names and values: %w", errRowForm)
	}
	return row, err
}

func valueOf(v []byte) (any, error) {
	switch v[0] {
	case '"':
		return unquote(v), nil
	case 't', 'f':
		return v[0] == 't', nil
	case 'n':
		return nil, nil
	case '{':
		return typed(v)
	case '[':
		return json.RawMessage(bytes.Clone(v)), nil
	}
	if bytes.ContainsAny(v, ".eE") {
		x, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			return nil, fmt.Errorf("%s does not fit a 64-bit float", v)
		}
		return x, nil
	}
	x, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s does not fit a 64-bit integer; write it as a string", v)
	}
	return x, nil
}

// typed reads an object: a type that JSON lacks, or just its text.
func typed(v []byte) (any, error) {
	const of, as = `{"$time"`, `{"$bytes"`
	if !bytes.HasPrefix(v, []byte(of)) && !bytes.HasPrefix(v, []byte(as)) {
		return json.RawMessage(bytes.Clone(v)), nil
	}
	var x any
	var err error
	n := 0
	members(v, func(name string, v []byte) bool {
		n++
		switch name {
		case "$time":
			x, err = time.Parse(time.RFC3339Nano, unquote(v))
		case "$bytes":
			x, err = base64.StdEncoding.DecodeString(unquote(v))
		}
		return true
	})
	if n != 1 {
		return json.RawMessage(bytes.Clone(v)), nil
	}
	return x, err
}

// quote appends s as a JSON string.
func quote(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			q, _ := json.Marshal(s)
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
