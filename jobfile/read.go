package jobfile

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"hayrick"
)

// reader turns nodes into the fields of a definition and collects what is wrong.
type reader struct {
	problems Problems
	failed   []string   // paths whose values are wrong in themselves
	keys     []KnownKey // what a probe has found
}

// read puts the node at path into a field. Null leaves the field as it is: its
// default.
type read func(n *node, path string)

// fields are the keys of a mapping.
type fields map[string]read

func (r *reader) bad(n *node, path, format string, args ...any) {
	r.failed = append(r.failed, path)
	what := fmt.Sprintf(format, args...)
	if path != "" {
		what = shortened(path) + ": " + what
	}
	r.problems.add(n.Place, "%s", what)
}

// object reads a mapping with these keys and no others; keys that begin with x- are
// the user's own.
func (r *reader) object(n *node, path string, fs fields) {
	switch {
	case n.asks:
		r.probeObject(path, fs)
		return
	case n.kind == null:
		return
	}
	if n.kind != mapping {
		r.bad(n, path, "%s; write one of its keys a line: %s", n.kind, strings.Join(fs.names(), ", "))
		return
	}
	for _, p := range n.pairs {
		f, ok := fs[p.key]
		switch {
		case ok:
			f(p.value, join(path, p.key))
		case strings.HasPrefix(p.key, "x-"):
		case r.former(p, join(path, p.key)):
		default:
			where := ""
			if path != "" {
				where = " in " + path
			}
			near := ""
			if head, tail, dotted := strings.Cut(p.key, "."); dotted && knows(join(path, p.key)) {
				near = fmt.Sprintf("; write %s: {%s: ...}", head, tail)
			} else if len(r.problems) < maxProblems { // more are not told
				near = meant(p.key, fs.names())
			}
			r.problems.add(p.Place, "unknown key %s%s%s", quoted(p.key), where, near)
		}
	}
}

func (fs fields) names() []string { return slices.Sorted(maps.Keys(fs)) }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// text reads a word or sentence. A number is one too.
func (r *reader) text(to *string) read {
	return func(n *node, path string) {
		switch n.kind {
		case null:
		case probe:
			r.found(KnownKey{Path: path, Kind: "text", Default: *to})
		case text, number:
			*to = n.value
		case boolean:
			r.bad(n, path, "%s is read as true or false; put it in quotes", n.value)
		default:
			r.bad(n, path, "%s; write text", n.kind)
		}
	}
}

// oneOf reads one of a few words.
func (r *reader) oneOf(to *string, words ...string) read {
	return func(n *node, path string) {
		switch n.kind {
		case null:
			return
		case probe:
			r.found(KnownKey{Path: path, Kind: "word", Words: words, Default: *to})
			return
		}
		if (n.kind != text && n.kind != number && n.kind != boolean) || !slices.Contains(words, n.value) {
			r.bad(n, path, "%s is not one of %s%s", quoted(n.value), strings.Join(words, ", "), hint(n.value, words))
			return
		}
		*to = n.value
	}
}

// hint is meant without the list, which the message has already.
func hint(word string, known []string) string {
	if s := meant(word, known); strings.HasPrefix(s, "; did") {
		return s
	}
	return ""
}

// flag reads true or false.
func (r *reader) flag(to *bool) read {
	return func(n *node, path string) {
		switch n.kind {
		case null:
		case probe:
			r.found(KnownKey{Path: path, Kind: "flag", Default: *to})
		case boolean:
			*to = n.value == "true"
		default:
			r.bad(n, path, "%s; write true or false", n.described())
		}
	}
}

// optional reads true or false into a field that is nil when nothing is said.
func (r *reader) optional(to **bool) read {
	return func(n *node, path string) {
		if n.kind == probe {
			r.found(KnownKey{Path: path, Kind: "flag", Default: nil})
			return
		}
		var v bool
		before := len(r.problems)
		r.flag(&v)(n, path)
		if n.kind != null && len(r.problems) == before {
			*to = &v
		}
	}
}

// whole reads a whole number from least to most.
func whole[T int | int64](r *reader, to *T, least, most T) read {
	return func(n *node, path string) {
		switch n.kind {
		case null:
			return
		case probe:
			r.found(KnownKey{Path: path, Kind: "whole", Least: int64(least), Most: int64(most), Default: *to})
			return
		}
		v, err := strconv.ParseInt(n.value, 10, 64)
		switch {
		case n.kind == number && zeroed.MatchString(n.value):
			r.bad(n, path, "%s begins with a zero, which some read as octal; write %s", n.value, strings.TrimLeft(n.value, "+0"))
		case n.kind != number || err != nil:
			r.bad(n, path, "%s; write a whole number such as %d", n.described(), max(*to, least, 1))
		case least == most && T(v) != most:
			r.bad(n, path, "%d; write %d", v, most)
		case T(v) < least && int64(most) >= 1<<62:
			r.bad(n, path, "%d; write %d or more", v, least)
		case T(v) < least || v > int64(most):
			r.bad(n, path, "%d; write %d to %d", v, least, most)
		default:
			*to = T(v)
		}
	}
}

// zeroed is a number that YAML 1.1 reads as octal.
var zeroed = regexp.MustCompile(`^\+?0[0-9]*[1-9]$|^\+?0[0-9]+$`)

// fraction reads a number above 0, up to 1.
func (r *reader) fraction(to *float64) read {
	return func(n *node, path string) {
		switch n.kind {
		case null:
			return
		case probe:
			r.found(KnownKey{Path: path, Kind: "fraction", Default: *to})
			return
		}
		v, err := strconv.ParseFloat(n.value, 64)
		if n.kind != number || err != nil || !(v > 0 && v <= 1) {
			r.bad(n, path, "%s; write a fraction above 0 and up to 1, such as 0.25", n.described())
			return
		}
		*to = v
	}
}

// dollars reads an amount above 0.
func (r *reader) dollars(to *float64) read {
	return func(n *node, path string) {
		switch n.kind {
		case null:
			return
		case probe:
			r.found(KnownKey{Path: path, Kind: "dollars", Default: *to})
			return
		}
		v, err := strconv.ParseFloat(n.value, 64)
		if n.kind != number || err != nil || !(v > 0 && v <= 1e9) {
			r.bad(n, path, "%s; write US dollars above 0, such as 25 or 0.5", n.described())
			return
		}
		*to = v
	}
}

// unit reads a quantity that is written with its unit.
func (r *reader) unit(to encoding.TextUnmarshaler, example string) read {
	return func(n *node, path string) {
		switch n.kind {
		case null:
		case probe:
			r.found(KnownKey{Path: path, Kind: unitKind(to), Example: example, Default: to})
		case number:
			if err := to.UnmarshalText([]byte(n.value + strings.TrimLeft(example, "0123456789"))); err == nil {
				r.bad(n, path, "%s has no unit; write it as %s", n.value, likely(to, n.value, example))
				return
			}
			r.bad(n, path, "%s has no unit; write it as %s", n.value, example)
		case text:
			if err := to.UnmarshalText([]byte(n.value)); err != nil {
				r.bad(n, path, "%s", strings.Replace(err.Error(), strconv.Quote(n.value), quoted(n.value), 1))
			}
		default:
			r.bad(n, path, "%s; write it with its unit, such as %s", n.described(), example)
		}
	}
}

// likely is a number with the unit that was meant: that of the example, but for
// numbers that are too large for it.
func likely(to encoding.TextUnmarshaler, value, example string) string {
	v, err := strconv.ParseInt(value, 10, 64)
	switch to.(type) {
	case *hayrick.Bytes:
		if err == nil && v >= 1<<16 {
			text, _ := hayrick.Bytes(v).MarshalText()
			return string(text)
		}
	case *hayrick.Duration:
		if err == nil && v > 120 && !strings.HasSuffix(example, "ms") {
			return value + "s"
		}
	}
	return value + strings.TrimLeft(example, "0123456789")
}

// each reads a list of f.
func (r *reader) each(f func(n *node, path string)) read {
	return func(n *node, path string) {
		switch n.kind {
		case null:
		case probe:
			r.found(KnownKey{Path: path, Kind: "list"})
			r.probeValue(path+"[]", f)
		case list:
			for i, it := range n.items {
				f(it, fmt.Sprintf("%s[%d]", path, i))
			}
		default:
			r.bad(n, path, "%s; write a list, such as %s", n.described(), listLike(n, path))
		}
	}
}

// texts reads a list of words.
func (r *reader) texts(to *[]string) read {
	return func(n *node, path string) {
		if n.kind != null {
			*to = nil
		}
		r.each(func(n *node, path string) {
			var s string
			r.text(&s)(n, path)
			*to = append(*to, s)
		})(n, path)
	}
}

// columns reads a list of names, each once.
func (r *reader) columns(to *[]string) read {
	return func(n *node, path string) {
		if n.kind == null {
			return
		}
		*to = nil
		r.each(func(n *node, path string) {
			var name string
			r.text(&name)(n, path)
			switch {
			case n.kind == null, n.kind == text && name == "":
				r.bad(n, path, "no name; write the name of a column")
			case slices.Contains(*to, name):
				r.bad(n, path, "%q is there twice", name)
			case name != "":
				*to = append(*to, name)
			}
		})(n, path)
	}
}

// schema reads a list of columns.
func (r *reader) schema(to *[]hayrick.Column) read {
	return func(n *node, path string) {
		if n.kind == null {
			return
		}
		*to = nil
		r.each(func(n *node, path string) {
			var c hayrick.Column
			if n.kind != mapping {
				r.bad(n, path, "%s; write {name: uri, type: string}", n.described())
				return
			}
			before := len(r.problems)
			r.object(n, path, fields{
				"name": r.text(&c.Name),
				"type": r.oneOf(&c.Type, "string", "bytes", "int", "float", "bool", "time"),
			})
			switch {
			case len(r.problems) > before:
			case c.Name == "" || c.Type == "":
				r.bad(n, path, "a column without name or type; write {name: uri, type: string}")
			case slices.ContainsFunc(*to, func(x hayrick.Column) bool { return x.Name == c.Name }):
				r.bad(n, path, "column %q is there twice", c.Name)
			default:
				*to = append(*to, c)
			}
		})(n, path)
	}
}

// entries reads a mapping whose keys are the user's.
func (r *reader) entries(f func(key pair, path string)) read {
	return func(n *node, path string) {
		switch n.kind {
		case null:
		case probe:
			r.found(KnownKey{Path: path, Kind: "names"})
			r.probeValue(path+".*", func(n *node, at string) { f(pair{key: "*", value: n}, at) })
		case mapping:
			for _, p := range n.pairs {
				f(p, join(path, p.key))
			}
		default:
			r.bad(n, path, "%s; write it as {name: value}", n.described())
		}
	}
}

// json takes a mapping as it is, as JSON.
func (r *reader) json(to *json.RawMessage) read {
	return func(n *node, path string) {
		switch n.kind {
		case null:
			return
		case probe:
			r.found(KnownKey{Path: path, Kind: "json"})
			return
		}
		if n.kind != mapping {
			r.bad(n, path, "%s; write one parameter a line below it", n.described())
			return
		}
		b, err := json.Marshal(r.any(n, path))
		if err != nil {
			r.bad(n, path, "%v", err)
			return
		}
		*to = b
	}
}

func (r *reader) any(n *node, path string) any {
	switch n.kind {
	case text:
		return n.value
	case boolean:
		return n.value == "true"
	case number:
		if json.Valid([]byte(n.value)) {
			return json.Number(n.value)
		}
		if v, err := strconv.ParseInt(n.value, 0, 64); err == nil { // 0x1f, 1_000
			return v
		}
		if v, err := strconv.ParseFloat(n.value, 64); err == nil && !math.IsInf(v, 0) && !math.IsNaN(v) { // .5, +1
			return v
		}
		r.bad(n, path, "%s is a number that JSON does not have; put it in quotes", n.value)
	case list:
		out := make([]any, len(n.items))
		for i, it := range n.items {
			out[i] = r.any(it, fmt.Sprintf("%s[%d]", path, i))
		}
		return out
	case mapping:
		out := map[string]any{}
		for _, p := range n.pairs {
			out[p.key] = r.any(p.value, join(path, p.key))
		}
		return out
	}
	return nil
}

// listLike is a list as it might be meant where none is: of lists of mappings one that
// may be, of words these words.
func listLike(n *node, path string) string {
	switch path {
	case "rates":
		return "[{name: api, limit: 10/s}]"
	case "output.schema":
		return "[{name: id, type: int}]"
	case "retry.classify":
		return "[{status: [404], as: gone}]"
	}
	if words := strings.Fields(n.value); n.kind == text && len(words) > 0 && !strings.ContainsAny(n.value, "[]{},:#&*!|>'\"%@`") {
		return "[" + strings.Join(words, ", ") + "]"
	}
	return "[a, b]"
}

// described is the node as a message quotes it.
func (n *node) described() string {
	switch n.kind {
	case text:
		return quoted(n.value)
	case number, boolean:
		return n.value
	}
	return n.kind.String()
}

// disposition reads what follows from a class.
func (r *reader) disposition(to *hayrick.Disposition) read {
	return func(n *node, path string) {
		var s string
		r.oneOf(&s, string(hayrick.Permanent), string(hayrick.RateLimit), string(hayrick.Timeout),
			string(hayrick.Transient), string(hayrick.Infra), string(hayrick.Poison))(n, path)
		if s != "" {
			*to = hayrick.Disposition(s)
		}
	}
}
