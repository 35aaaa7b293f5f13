package jobfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
	ModTime    time.Time // of the newest file that went into it
	Profile    string    // the profile that is applied, "" = none
	Store      string    // where its runs are kept, as -C names it; "" = the file does not say

	root     *node
	profile  *node    // what the profile says
	settings []string // the files of settings
}

// At is where the value at path (run.item_timeout, rates[0].limit) stands, or the
// nearest thing above it.
func (f File) At(path string) Place { return f.root.find(path).Place }

// Options is what has a say in a job file beside the file. What comes later in this
// list wins over what comes before it, the file stands between Settings and Profile.
type Options struct {
	Settings []string            // files with keys for every job, the weakest first; one that is not there says nothing
	Profile  string              // of the file or the settings; "" = none
	Getenv   func(string) string // for HAYRICK_<KEY> and $(env.<NAME>); nil = no environment
	Environ  []string            // every variable, to find those that are misspelt
	Sets     []string            // arguments of --set
	Flags    []Flag              // flags that stand for a key
}

// Flag is a flag that stands for a key.
type Flag struct {
	Name  string // --limit
	Path  string // input.limit
	Value string
}

// Load reads the job file at path, or config.yaml in the folder at path, with a
// profile ("" = none) and --set arguments applied. A file that is not valid is
// Problems; one that is not there hayrick.ErrNotFound.
func Load(path, profile string, sets []string) (File, error) {
	return Options{Profile: profile, Sets: sets}.Load(path)
}

// Load is Load with everything that has a say.
func (o Options) Load(path string) (File, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, Name)
	}
	src, st, err := readAll(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return File{}, fmt.Errorf("read job file %s: %w", path, hayrick.ErrNotFound)
	case errors.Is(err, syscall.EISDIR):
		return File{}, Problems{{Place: Place{File: path}, What: "this is a folder; a job file is a file of text"}}
	case err != nil:
		return File{}, fmt.Errorf("read job file: %w", err)
	}
	f := File{Path: path, Dir: filepath.Dir(path), ModTime: st.ModTime(), Profile: o.Profile, settings: o.Settings}
	v := resolver{options: o, texts: map[string]string{}, open: func(path string) (string, error) {
		src, st, err := readAll(path)
		if err == nil && st.ModTime().After(f.ModTime) {
			f.ModTime = st.ModTime()
		}
		return src, err
	}}
	for _, name := range o.Settings {
		other, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && os.SameFile(st, other) {
			continue
		}
		v.settings(name)
	}
	if err := v.resolve(path, src); err != nil {
		return File{}, err
	}
	f.Definition, f.root, f.profile = v.definition, v.root, v.profile
	if n := f.root.get(storeKey); n != nil && n.kind == text {
		f.Store = n.value
	}
	return f, nil
}

func readAll(path string) (string, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+int64(len(bom))+1))
	return string(b), st, err
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

// SettingsFiles are the files whose keys are for every job: the user's, then that of
// the project, which is the working directory.
func SettingsFiles(getenv func(string) string) []string {
	var out []string
	base := getenv("XDG_CONFIG_HOME")
	if home := getenv("HOME"); !filepath.IsAbs(base) && home != "" {
		base = filepath.Join(home, ".config")
	}
	if filepath.IsAbs(base) {
		out = append(out, filepath.Join(base, "hayrick", Name))
	}
	return append(out, ProjectName)
}

// SettledStore is the store that the settings name, "" for none. Of all else that they
// say nothing is looked at.
func SettledStore(settings []string, getenv func(string) string) (store string, err error) {
	var ps Problems
	for _, path := range settings {
		src, _, err := readAll(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read the settings: %w", err)
		}
		root, more := parse(path, src)
		ps = append(ps, more...)
		if n := root.get(storeKey); n != nil && n.kind == text {
			e := expander{getenv: getenv}
			store = e.expand(n, storeKey).value
			ps = append(ps, e.problems...)
		}
	}
	if len(ps) > 0 {
		return "", ps
	}
	return store, nil
}

// ProjectName is the settings file of a project.
const ProjectName = "hayrick.yaml"

// isSecret says that a name is one that secrets have.
func isSecret(name string) bool {
	name = strings.ToUpper(name)
	for _, word := range []string{"SECRET", "TOKEN", "PASSW", "PWD_", "CREDENTIAL", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY", "SESSION"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// Profiles are the names of the profiles that the job file at path, what it goes on
// from and the settings have; of a file that is not valid those that can be read.
func Profiles(path string, settings []string) []string {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, Name)
	}
	v := resolver{texts: map[string]string{}, open: func(path string) (string, error) {
		src, _, err := readAll(path)
		return src, err
	}}
	src, err := v.open(path)
	if err != nil {
		return nil
	}
	for _, name := range settings {
		if _, err := os.Stat(name); err == nil {
			v.settings(name)
		}
	}
	root := v.tree(path, src, nil, false)
	if root == nil {
		return nil
	}
	all := overlay(v.base, root).get(profilesKey)
	if all == nil {
		return nil
	}
	var names []string
	for _, p := range all.pairs {
		names = append(names, p.key)
	}
	return names
}
