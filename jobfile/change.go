package jobfile

import "strings"

// Change is a definition that is stored beside a run with --set arguments applied, as
// Load would read it. name is what problems call it. Its error is nil or Problems.
func Change(name string, stored []byte, sets []string) (File, error) {
	f := File{Path: name}
	var err error
	f.Definition, f.root, err = resolve(name, string(stored), "", sets)
	return f, err
}

// Key is the key that a --set argument changes.
func Key(arg string) string {
	key, _, _ := strings.Cut(arg, "=")
	return strings.TrimSpace(key)
}
