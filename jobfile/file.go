package jobfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hayrick"
)

// Name is the file that is meant when a folder is given.
const Name = "config.yaml"

// File is a job file that was read.
type File struct {
	Definition hayrick.JobDefinition
	Path       string    // of the file, as problems name it
	Dir        string    // its folder: what the bundle packs
	ModTime    time.Time // of the file
	Profile    string    // the profile that is applied, "" = none
	Store      string    // where its runs are kept, as -C names it; "" = the file does not say

	root *node
}

// At is where the value at path (run.item_timeout, rates[0].limit) stands, or the
// nearest thing above it.
func (f File) At(path string) Place { return f.root.find(path).Place }

// Load reads the job file at path, or config.yaml in the folder at path, with a
// profile ("" = none) and --set arguments applied. A file that is not valid is
// Problems; one that is not there hayrick.ErrNotFound.
func Load(path, profile string, sets []string) (File, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, Name)
	}
	src, modified, err := readAll(path)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, fmt.Errorf("read job file %s: %w", path, hayrick.ErrNotFound)
	}
	if err != nil {
		return File{}, fmt.Errorf("read job file: %w", err)
	}
	f := File{Path: path, Dir: filepath.Dir(path), ModTime: modified, Profile: profile}
	if f.Definition, f.root, err = resolve(path, src, profile, sets); err != nil {
		return File{}, err
	}
	if n := f.root.get(storeKey); n != nil && n.kind == text {
		f.Store = n.value
	}
	return f, nil
}

func readAll(path string) (string, time.Time, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", time.Time{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", time.Time{}, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	return string(b), st.ModTime(), err
}

// resolve is Load without the disk. Its error is nil or Problems.
func resolve(name, src, profile string, sets []string) (d hayrick.JobDefinition, root *node, err error) {
	root, ps := parse(name, src)
	top := Place{File: name, Line: 1, Col: 1}
	if root == nil && len(ps) == 0 {
		ps.add(top, "the file is empty; begin with version: 1")
	}
	if root == nil {
		return d, nil, ps
	}
	if root.kind != mapping {
		ps.add(root.Place, "the file is %s; begin with version: 1", root.kind)
		return d, nil, ps
	}
	var r reader
	profiles, more := cutProfiles(root)
	r.problems = append(ps, more...)
	names := make([]string, len(profiles))
	var chosen *node
	for i, p := range profiles {
		names[i] = p.key
		if p.key == profile {
			chosen = p.value
			continue
		}
		var scratch hayrick.JobDefinition // a profile that is not in use is checked all the same
		r.definition(p.value, &scratch)
	}
	switch {
	case chosen != nil:
		root = overlay(root, chosen)
	case profile != "" && len(names) == 0:
		r.problems.add(Place{File: name}, "there is no profile %q: the file has no profiles", profile)
	case profile != "":
		r.problems.add(Place{File: name}, "there is no profile %q%s", profile, meant(profile, names))
	}
	for _, arg := range sets {
		var more Problems
		root, more = set(root, arg)
		r.problems = append(r.problems, more...)
	}
	if root.kind != mapping {
		return d, nil, r.problems.Sorted()
	}
	d = Defaults()
	r.definition(root, &d)
	if len(ps) == 0 { // rules between the fields of a damaged tree are only noise
		r.problems = append(r.problems, check(root, &d, r.failed)...)
	}
	if len(r.problems) > 0 {
		return d, root, r.problems.Sorted()
	}
	return d, root, nil
}

// Generic is the file at path as the values that JSON has, for a check against the
// schema: nothing is applied to it.
func Generic(path string) (any, error) {
	src, _, err := readAll(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	root, ps := parse(path, src)
	if root == nil || len(ps) > 0 {
		return nil, ps
	}
	var r reader
	v := r.any(root, "")
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return v, nil
}
