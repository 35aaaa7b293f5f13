package jobfile

import (
	"cmp"
	"encoding"
	"encoding/json"
	"slices"
	"strings"

	"hayrick"
)

// KnownKey is a key that a job file may have, as the reader of job files knows it. The
// schema, the reference page and the names of environment variables are made of these,
// so that none of them can differ from what is read.
type KnownKey struct {
	Path        string // run.item_timeout; [] stands for an item of a list, * for a name of the user's
	Kind        string // object, text, word, flag, whole, fraction, dollars, duration, size, rate, list, names, json; any = read in a way of its own
	Words       []string
	Least, Most int64  // of a whole
	Example     string // of a duration, size or rate
	Default     any    // what it is where nothing is said; "" and nil = nothing
}

// Scalar says that the key has one value, which fits into a word.
func (k KnownKey) Scalar() bool {
	return !slices.Contains([]string{"object", "list", "names", "json", "any"}, k.Kind) && !strings.ContainsAny(k.Path, "*[")
}

// Keys is every key that a job file may have, in the order of their paths. A probe
// goes the way that a file goes: a key is here because it is read.
func Keys() []KnownKey {
	var r reader
	d := Defaults()
	r.definition(&node{kind: probe, asks: true}, &d)
	slices.SortStableFunc(r.keys, func(a, b KnownKey) int { return cmp.Compare(a.Path, b.Path) })
	return r.keys
}

// topOnly reads a key that is taken off the file before the rest is read: where it is
// found all the same, it stands too deep.
func (r *reader) topOnly(kind string) read {
	return func(n *node, path string) {
		if n.kind == probe {
			r.found(KnownKey{Path: path, Kind: kind})
			return
		}
		r.bad(n, path, "is read at the top of a job file only")
	}
}

// found notes a key that a probe has come to.
func (r *reader) found(k KnownKey) {
	switch v := k.Default.(type) {
	case encoding.TextMarshaler:
		b, _ := v.MarshalText()
		k.Default = string(b)
		if zero(v) {
			k.Default = nil
		}
	case hayrick.Disposition:
		k.Default = string(v)
	}
	switch v := k.Default.(type) {
	case int:
		if int64(v) < k.Least {
			k.Default = nil
		}
	case float64:
		if v == 0 {
			k.Default = nil
		}
	}
	r.keys = append(r.keys, k)
}

// zero says that a quantity is the one that stands for nothing.
func zero(v any) bool {
	switch v := v.(type) {
	case *hayrick.Duration:
		return *v == 0
	case *hayrick.Bytes:
		return *v == 0
	case *hayrick.PerTime:
		return v.N == 0
	}
	return false
}

// probeObject notes a mapping and every key of it.
func (r *reader) probeObject(path string, fs fields) {
	if path != "" {
		r.found(KnownKey{Path: path, Kind: "object"})
	}
	for _, name := range fs.names() {
		r.probeValue(join(path, name), fs[name])
	}
}

// probeValue notes what is at a path. A reader of its own kind may look at the value
// before it reads it: the probe comes as a mapping then, and what is not known after
// that is noted as it is.
func (r *reader) probeValue(path string, read read) {
	known := func() bool { return slices.ContainsFunc(r.keys, func(k KnownKey) bool { return k.Path == path }) }
	for _, as := range []kind{probe, mapping} {
		if !known() {
			read(&node{kind: as, asks: true}, path)
		}
	}
	if !known() {
		r.found(KnownKey{Path: path, Kind: "any"})
	}
}

func unitKind(to encoding.TextUnmarshaler) string {
	switch to.(type) {
	case *hayrick.Duration:
		return "duration"
	case *hayrick.Bytes:
		return "size"
	case *hayrick.PerTime:
		return "rate"
	}
	return "text"
}

// Document is a job file as it is written: a definition, and the keys that only say
// how it is read.
type Document struct {
	Extends string `json:"extends,omitempty"` // a job file that this one goes on from, relative to it; what is written here comes first
	hayrick.JobDefinition
	Store    string                           `json:"store,omitempty"`    // where runs are kept, if neither -C nor $HAYRICK_STORE says; s3://name on AWS
	Profiles map[string]hayrick.JobDefinition `json:"profiles,omitempty"` // name -> the keys that it changes; hayrick run -p <name>
}

// Shorthands are the keys that are read into another one, and what they are.
var Shorthands = map[string]string{
	"retry.permanent": "Classes that are not tried again; short for classes: {<class>: permanent}.",
}

// DefaultJSON is the default as JSON, nil for none.
func (k KnownKey) DefaultJSON() json.RawMessage {
	if k.Default == nil || k.Default == "" {
		return nil
	}
	b, err := json.Marshal(k.Default)
	if err != nil {
		return nil
	}
	return b
}

// Variable is the environment variable that sets the key: HAYRICK_RUN_ITEM_TIMEOUT
// for run.item_timeout; "" for what does not fit into one, or is a job's own.
func (k KnownKey) Variable() string {
	if !k.Scalar() || slices.Contains([]string{extendsKey, "version", "name", "description"}, k.Path) {
		return ""
	}
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(k.Path, ".", "_"))
}

const variablePrefix = "HAYRICK_"
