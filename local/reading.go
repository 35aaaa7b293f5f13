package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"hayrick"
	"hayrick/internal/durable"
)

// reading is the part of a store that only reads: objects, output folders, inputs.
type reading struct {
	root *durable.Root
	path string
	// settle makes a name durable that a power cut might take away; nil for whoever
	// only looks: nothing follows from what it sees.
	settle func(key string) error
}

// ReadOnly is a store that is looked at and not touched: no state, no locks, no file
// that says who has it open. Read permission is enough, also on a read-only file
// system or one of another machine.
type ReadOnly struct{ reading }

// OpenReadOnly opens the objects of the store at dir for reading. ErrNotFound: there
// is none.
func OpenReadOnly(dir string) (*ReadOnly, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	root, err := durable.OpenRoot(abs)
	if err != nil {
		return nil, explainRead(abs, fmt.Errorf("open store %s: %w", dir, err))
	}
	return &ReadOnly{reading{root: root, path: abs}}, nil
}

// Close lets go of the folder.
func (s *ReadOnly) Close() error { return s.root.Close() }

var errReadOnly = errors.New("the store was opened to be read alone")

// Put refuses.
func (s *ReadOnly) Put(_ context.Context, key string, _ io.Reader) error {
	return fmt.Errorf("put %s: %w", key, errReadOnly)
}

// Commit refuses.
func (s *ReadOnly) Commit(_ context.Context, key string, _ []byte) (bool, error) {
	return false, fmt.Errorf("commit %s: %w", key, errReadOnly)
}

// Replace refuses.
func (s *ReadOnly) Replace(_ context.Context, key string, _ []byte) error {
	return fmt.Errorf("replace %s: %w", key, errReadOnly)
}

// openRegular opens a regular file for reading. What else lies at the name is a
// hayrick.ErrCorrupt, but a folder, which is none of our names, is fs.ErrNotExist.
func openRegular(root *durable.Root, name string) (*os.File, error) {
	f, err := root.OpenRegular(name)
	if errors.Is(err, durable.ErrNotRegular) {
		err = fmt.Errorf("%w: %w", err, hayrick.ErrCorrupt)
	}
	return f, err
}
