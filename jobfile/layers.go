package jobfile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"hayrick"
)

// maxExtends is how many files a job file may go on from, one from the other.
const maxExtends = 8

// resolver puts a definition together of everything that has a say in it.
type resolver struct {
	options Options
	open    func(path string) (string, error) // the text of another file
	texts   map[string]string                 // of every file that was read, for excerpts

	base     *node // of the settings
	root     *node // of everything
	profile  *node // of the chosen profile
	problems Problems
	damaged  bool // a file is not whole: rules between its fields would only be noise

	definition hayrick.JobDefinition
}

// tree parses one file and what it goes on from. chain are the files that led here. A
// file of settings may be empty, and has neither a name nor anything it goes on from.
func (v *resolver) tree(name, src string, chain []string, settings bool) *node {
	v.texts[name] = src
	root, ps := parse(name, src)
	v.problems = append(v.problems, ps...)
	v.damaged = v.damaged || len(ps) > 0
	top := Place{File: name, Line: 1, Col: 1}
	switch {
	case root == nil && len(ps) > 0, root == nil && settings:
		return nil
	case root == nil:
		v.fault(top, "the file is empty; begin with version: 1")
		return nil
	case root.kind != mapping:
		v.fault(root.Place, "the file is %s; begin with version: 1", root.kind)
		return nil
	case !settings && len(root.pairs) > 0 && !known(root.pairs):
		v.fault(root.pairs[0].Place, "this is no job file: none of its keys, such as %s, is one of a job file; begin with version: 1", quoted(root.pairs[0].key))
		return nil
	}
	if settings {
		for _, p := range root.pairs {
			if slices.Contains([]string{"name", "description", extendsKey}, p.key) {
				v.problems.add(p.Place, "%s belongs to one job; the settings of every job cannot have it", p.key)
			}
		}
	}
	i := slices.IndexFunc(root.pairs, func(p pair) bool { return p.key == extendsKey })
	if i < 0 {
		return root
	}
	from := root.pairs[i].value
	root = without(root, extendsKey)
	if from.kind == null || settings {
		return root
	}
	if under := v.extended(name, from, chain); under != nil {
		return overlay(under, root)
	}
	return root
}

// known says that a key of the top of a file is one of a job file, or was meant to be.
func known(top []pair) bool {
	var names []string
	for _, k := range Keys() {
		if !strings.Contains(k.Path, ".") {
			names = append(names, k.Path)
		}
	}
	var r reader
	return slices.ContainsFunc(top[:min(len(top), maxProblems)], func(p pair) bool {
		return slices.Contains(names, p.key) || hint(p.key, names) != "" || r.former(p, p.key)
	})
}

// fault is a problem that leaves nothing whole to judge.
func (v *resolver) fault(at Place, format string, args ...any) {
	v.damaged = true
	v.problems.add(at, format, args...)
}

// extended is the tree that a file goes on from.
func (v *resolver) extended(name string, from *node, chain []string) *node {
	if from.kind != text || from.value == "" || strings.Contains(from.value, "://") || strings.Contains(from.value, "$(") {
		v.fault(from.Place, "extends: %s; write the path of a job file, relative to this one", from.described())
		return nil
	}
	path := filepath.FromSlash(from.value)
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(name), path)
	}
	chain = append(slices.Clone(chain), filepath.Clean(name))
	if i := slices.Index(chain, path); i >= 0 {
		v.fault(from.Place, "extends: %s goes in a circle; drop one of them", strings.Join(append(chain[i:], path), " -> "))
		return nil
	}
	if len(chain) > maxExtends {
		v.fault(from.Place, "extends: more than %d files, one from the other; join some of them", maxExtends)
		return nil
	}
	src, err := v.open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		v.fault(from.Place, "extends: there is no file %s; a path is relative to the file that names it", path)
	case errors.Is(err, syscall.EISDIR):
		v.fault(from.Place, "extends: %s is a folder; write the file, such as %s", path, filepath.ToSlash(filepath.Join(from.value, Name)))
	case errors.Is(err, fs.ErrPermission):
		v.fault(from.Place, "extends: %s may not be read by you; change its mode", path)
	case err != nil:
		v.fault(from.Place, "extends: %v", err)
	default:
		return v.tree(path, src, chain, false)
	}
	return nil
}

// settings takes in a file of settings: what it says is weaker than any job file, and
// stronger than the settings before it.
func (v *resolver) settings(name string) {
	src, err := v.open(name)
	if err != nil {
		v.fault(Place{File: name}, "%v", err)
		return
	}
	if n := v.tree(name, src, nil, true); n != nil {
		v.base = overlay(v.base, n)
	}
}

// resolve puts the job file over the settings, and everything else over that. Its
// error is nil or Problems.
func (v *resolver) resolve(name, src string) error {
	root := v.tree(name, src, nil, false)
	if root == nil {
		return v.verdict()
	}
	if v.base != nil {
		root = overlay(v.base, root)
	}
	var r reader
	root = v.chooseProfile(&r, name, root)
	root = v.variables(root)
	for _, arg := range v.options.Sets {
		var more Problems
		root, more = set(root, arg)
		v.problems = append(v.problems, more...)
	}
	for _, f := range v.options.Flags {
		root = put(root, strings.Split(f.Path, "."), scalar(Place{File: f.Name}, f.Value, kindOf(f.Path)), &v.problems)
	}
	if root.kind != mapping {
		return v.verdict()
	}
	e := expander{getenv: v.options.Getenv, profile: v.options.Profile}
	if n := root.get("name"); n != nil {
		e.name = n.value
	}
	root = e.expand(root, "")
	r.problems = append(r.problems, e.problems...)
	v.definition = Defaults()
	r.definition(root, &v.definition)
	if !v.damaged {
		r.problems = append(r.problems, check(root, &v.definition, append(r.failed, e.failed...))...)
	}
	v.problems = append(v.problems, r.problems...)
	v.root = root
	return v.verdict()
}

// verdict is the problems in the order of their lines, each with its line.
func (v *resolver) verdict() error {
	if len(v.problems) == 0 {
		return nil
	}
	ps := v.problems.Sorted()
	for i := range ps {
		ps[i].Excerpt = excerpt(v.texts[ps[i].File], ps[i].Line, ps[i].Col)
	}
	return ps
}

// chooseProfile takes the profiles off the tree and puts the chosen one over it. One
// that is not in use is checked all the same.
func (v *resolver) chooseProfile(r *reader, name string, root *node) *node {
	profiles, ps := cutProfiles(root)
	v.problems = append(v.problems, ps...)
	names := make([]string, len(profiles))
	var scratch hayrick.JobDefinition
	for i, p := range profiles {
		names[i] = p.key
		if p.key == v.options.Profile {
			v.profile = p.value
			continue
		}
		r.definition(p.value, &scratch)
	}
	root = without(root, profilesKey)
	switch want := v.options.Profile; {
	case v.profile != nil:
		return overlay(root, v.profile)
	case want != "" && len(names) == 0:
		v.problems.add(Place{File: name}, "there is no profile %s: the file has no profiles", quoted(want))
	case want != "":
		v.problems.add(Place{File: name}, "there is no profile %s%s", quoted(want), meant(want, names))
	}
	return root
}

// variables puts HAYRICK_<KEY> over the tree, and finds those that mean no key.
func (v *resolver) variables(root *node) *node {
	if v.options.Getenv == nil {
		return root
	}
	known, sections := map[string]KnownKey{}, map[string]bool{}
	for _, k := range Keys() {
		if name := k.Variable(); name != "" {
			known[name] = k
		}
		if section, _, below := strings.Cut(k.Path, "."); below {
			sections[strings.TrimSuffix(strings.ToUpper(section), "[]")] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		value := v.options.Getenv(name)
		if value == "" {
			continue
		}
		k := known[name]
		root = put(root, strings.Split(k.Path, "."), scalar(Place{File: "$" + name}, value, k.Kind), &v.problems)
	}
	names := slices.Sorted(maps.Keys(known))
	for _, entry := range v.options.Environ {
		name, value, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, variablePrefix)
		section, _, below := strings.Cut(rest, "_")
		if _, ok := known[name]; ok || !ours || !below || !sections[section] || value == "" {
			continue
		}
		near := hint(name, names)
		if near == "" {
			near = "; what a variable cannot say goes into --set, and the keys are in `hayrick help job-file`"
		}
		v.problems.add(Place{File: "$" + name}, "no key is set by this variable%s", near)
	}
	return root
}

// kindOf is how the key at a path is read.
func kindOf(path string) string {
	for _, k := range Keys() {
		if k.Path == path {
			return k.Kind
		}
	}
	return "any"
}

// scalar is a value that was given as a word, for a key of a kind: where text is
// wanted, every word is text.
func scalar(at Place, value, kind string) *node {
	if kind == "whole" || kind == "fraction" || kind == "dollars" || kind == "flag" {
		if n, ps := parse(at.File, value); len(ps) == 0 && n != nil && n.kind != mapping && n.kind != list {
			n.move(at)
			return n
		}
	}
	return &node{Place: at, kind: text, value: value}
}

// without is a mapping without one of its keys.
func without(n *node, key string) *node {
	out := *n
	out.pairs = slices.DeleteFunc(slices.Clone(n.pairs), func(p pair) bool { return p.key == key })
	return &out
}

// resolve is Load of one text, without the disk.
func resolve(name, src, profile string, sets []string) (hayrick.JobDefinition, *node, error) {
	v := resolver{
		options: Options{Profile: profile, Sets: sets}, texts: map[string]string{},
		open: func(path string) (string, error) { return "", fmt.Errorf("open %s: %w", path, fs.ErrNotExist) },
	}
	err := v.resolve(name, src)
	return v.definition, v.root, err
}
