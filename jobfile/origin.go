package jobfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Origin is a key of a resolved job file, its value, and where that comes from.
type Origin struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`           // null = nothing is said, and there is no default
	From  string          `json:"from"`            // default, or the file:line:col, variable or flag
	Layer string          `json:"layer"`           // default, settings, extends, file, profile, variable, set, flag
	About string          `json:"about,omitempty"` // which profile
}

// Origins is every key, in the order of their paths.
func (f File) Origins() ([]Origin, error) {
	b, err := json.Marshal(f.Definition)
	if err != nil {
		return nil, fmt.Errorf("encode the definition: %w", err)
	}
	var tree any
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		return nil, fmt.Errorf("read the definition: %w", err)
	}
	values := map[string]json.RawMessage{}
	for _, k := range Keys() {
		if k.Scalar() && k.Path != extendsKey {
			values[k.Path] = json.RawMessage("null")
			if d := k.DefaultJSON(); k.Kind == "flag" && d != nil { // a definition leaves out what is false
				values[k.Path] = d
			}
		}
	}
	flatten(tree, "", values)
	if f.Store != "" {
		values[storeKey], _ = json.Marshal(f.Store)
	}
	var out []Origin
	for _, path := range slices.Sorted(maps.Keys(values)) {
		o := Origin{Key: path, Value: values[path], From: "default", Layer: "default"}
		if n := f.said(path); n != nil {
			o.From, o.Layer = n.Place.String(), f.layer(path, n.Place)
			if o.Layer == "profile" {
				o.About = "profile " + f.Profile
			}
		}
		out = append(out, o)
	}
	return out, nil
}

// flatten notes every leaf of a value under its path.
func flatten(v any, path string, to map[string]json.RawMessage) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			flatten(x, join(path, k), to)
		}
		if len(v) > 0 {
			return
		}
	case []any:
		for i, x := range v {
			flatten(x, fmt.Sprintf("%s[%d]", path, i), to)
		}
		if len(v) > 0 {
			return
		}
	}
	b, err := json.Marshal(v)
	if err == nil {
		to[path] = b
	}
}

// said is the node that says the value at a path; nil = none does.
func (f File) said(path string) *node {
	if n := f.root.at(path); n != nil && n.kind != null {
		return n
	}
	if class, ok := strings.CutPrefix(path, "retry.classes."); ok { // the short form
		if l := f.root.at("retry.permanent"); l != nil {
			for _, it := range l.items {
				if it.value == class {
					return it
				}
			}
		}
	}
	return nil
}

// layer says which of the things that have a say in a job file a place belongs to.
func (f File) layer(path string, at Place) string {
	switch {
	case strings.HasPrefix(at.File, "--set "):
		return "set"
	case strings.HasPrefix(at.File, "--"):
		return "flag"
	case strings.HasPrefix(at.File, "$"+variablePrefix):
		return "variable"
	case f.profile != nil && f.profile.has(at):
		return "profile"
	case at.File == f.Path:
		return "file"
	case slices.Contains(f.settings, at.File):
		return "settings"
	}
	return "extends"
}

// has says that something below n stands at a place.
func (n *node) has(at Place) bool {
	return n.Place == at || slices.ContainsFunc(n.items, func(it *node) bool { return it.has(at) }) ||
		slices.ContainsFunc(n.pairs, func(p pair) bool { return p.value.has(at) })
}

// at is the node at exactly this path, nil for none.
func (n *node) at(path string) *node {
	for path != "" && n != nil {
		if n.kind == list {
			i, rest, _ := strings.Cut(strings.TrimPrefix(path, "["), "]")
			var k int
			if _, err := fmt.Sscanf(i, "%d", &k); err != nil || k >= len(n.items) {
				return nil
			}
			n, path = n.items[k], strings.TrimPrefix(rest, ".")
			continue
		}
		// A key of the user's may have dots in it: the longest that is there is meant.
		var next *node
		var rest string
		found := -1
		for _, p := range n.pairs {
			if after, ok := strings.CutPrefix(path, p.key); ok && len(p.key) > found && (after == "" || after[0] == '.' || after[0] == '[') {
				next, rest, found = p.value, strings.TrimPrefix(after, "."), len(p.key)
			}
		}
		n, path = next, rest
	}
	return n
}

// SetText makes a text the value.
func (o *Origin) SetText(s string) { o.Value, _ = json.Marshal(s) }

// Text is the value as a person reads it.
func (o Origin) Text() string {
	var s string
	if json.Unmarshal(o.Value, &s) == nil && string(o.Value) != "null" {
		return s
	}
	if string(o.Value) == "null" {
		return ""
	}
	return string(o.Value)
}
