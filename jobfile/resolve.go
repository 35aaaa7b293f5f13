package jobfile

import (
	"slices"
	"strconv"
	"strings"
)

// The keys of a file that say how it is read.
const (
	extendsKey  = "extends"
	profilesKey = "profiles"
)

// cutProfiles is the profiles of a tree.
func cutProfiles(root *node) (profiles []pair, ps Problems) {
	all := root.get(profilesKey)
	if all == nil {
		return nil, nil
	}
	if all.kind != mapping && all.kind != null {
		ps.add(all.Place, "profiles is %s; write one name a line, with the keys that it changes below it", all.kind)
	}
	for _, p := range all.pairs {
		if p.value.kind != mapping && p.value.kind != null {
			ps.add(p.value.Place, "profiles.%s is %s; write the keys that it changes below it", p.key, p.value.kind)
			continue
		}
		profiles = append(profiles, p)
	}
	return profiles, ps
}

// overlay is base with what over says: mappings are merged, everything else is
// replaced. Neither is changed.
func overlay(base, over *node) *node {
	if base == nil || base.kind != mapping || over.kind != mapping {
		return over
	}
	out := *base
	out.pairs = slices.Clone(base.pairs)
	for _, p := range over.pairs {
		i := slices.IndexFunc(out.pairs, func(q pair) bool { return q.key == p.key })
		if i < 0 {
			out.pairs = append(out.pairs, p)
			continue
		}
		out.pairs[i] = pair{p.Place, p.key, overlay(out.pairs[i].value, p.value)}
	}
	return &out
}

// set is root with one --set: a path of keys joined by dots, = and a YAML value. An
// item of a list is named by its number from 0, or by its own key name.
func set(root *node, arg string) (*node, Problems) {
	var ps Problems
	at := Place{File: "--set " + arg}
	path, src, ok := strings.Cut(arg, "=")
	if !ok || path == "" {
		ps.add(at, "write --set a.b=value, such as --set run.max_parallel=4")
		return root, ps
	}
	value, ps := given(at, src, kindOf(path))
	if len(ps) > 0 {
		return root, ps
	}
	return put(root, strings.Split(path, "."), value, &ps), ps
}

// given is the value of a --set. It is YAML; where text is wanted, what is no text as
// YAML is taken as it stands.
func given(at Place, src, kind string) (*node, Problems) {
	if src == "" {
		return &node{Place: at, kind: text}, nil
	}
	value, ps := parse(at.File, src)
	if kind == "text" && (len(ps) > 0 || value == nil || value.kind != text) {
		return &node{Place: at, kind: text, value: src}, nil
	}
	for i := range ps {
		ps[i].Place = at
	}
	if value == nil {
		value = &node{kind: null}
	}
	value.move(at)
	return value, ps
}

// put returns a copy of n with value at path.
func put(n *node, path []string, value *node, ps *Problems) *node {
	if len(path) == 0 {
		return value
	}
	if n != nil && n.kind == list {
		i := slices.IndexFunc(n.items, func(it *node) bool {
			name := it.get("name")
			return name != nil && name.value == path[0]
		})
		if k, err := strconv.Atoi(path[0]); i < 0 && err == nil && k >= 0 && k < len(n.items) {
			i = k
		}
		if i < 0 {
			ps.add(value.Place, "the list has no item %s; name one by its number from 0 or by its name", quoted(path[0]))
			return n
		}
		out := *n
		out.items = slices.Clone(n.items)
		out.items[i] = put(n.items[i], path[1:], value, ps)
		return &out
	}
	over := &node{Place: value.Place, kind: mapping, pairs: []pair{{value.Place, path[0], put(n.get(path[0]), path[1:], value, ps)}}}
	out := *over
	if n != nil && n.kind == mapping {
		out = *n
		out.pairs = slices.DeleteFunc(slices.Clone(n.pairs), func(p pair) bool { return p.key == path[0] })
		out.pairs = append(out.pairs, over.pairs[0])
	}
	return &out
}

// move gives n and everything below it the place at.
func (n *node) move(at Place) {
	n.Place = at
	for _, it := range n.items {
		it.move(at)
	}
	for i := range n.pairs {
		n.pairs[i].Place = at
		n.pairs[i].value.move(at)
	}
}

// find is the node at a path such as rates[0].limit, or the nearest one above it.
func (n *node) find(path string) *node {
	for step := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		next := n.get(step)
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.items) {
			next = n.items[i]
		}
		if next == nil {
			return n
		}
		n = next
	}
	return n
}
