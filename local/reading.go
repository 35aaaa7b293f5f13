package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"hayrick"
)

// reading is the part of a store that only reads: objects, output folders, inputs.
type reading struct {
	root *os.Root
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
	root, err := os.OpenRoot(abs)
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

// openRegular opens a regular file for reading. What else lies at the name is neither
// followed nor waited for, as a FIFO would be for its writer: it is a
// hayrick.ErrCorrupt, but a folder, which is none of our names, is fs.ErrNotExist.
func openRegular(root *os.Root, name string) (*os.File, error) {
	dir, err := openFolder(root, path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fail := func(err error) error { return &fs.PathError{Op: "open", Path: name, Err: err} }
	fd := -1
	for err = syscall.EINTR; err == syscall.EINTR; {
		fd, err = unix.Openat(int(dir.Fd()), path.Base(name), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	switch err {
	case nil:
	case syscall.ELOOP, syscall.EMLINK: // by the system
		return nil, fail(fmt.Errorf("it is a symbolic link: %w", hayrick.ErrCorrupt))
	case syscall.ENXIO, syscall.EOPNOTSUPP:
		return nil, fail(fmt.Errorf("it is no file: %w", hayrick.ErrCorrupt))
	default:
		return nil, fail(err)
	}
	err = unix.SetNonblock(fd, false)
	f := os.NewFile(uintptr(fd), path.Join(root.Name(), name))
	var info fs.FileInfo
	if err == nil {
		info, err = f.Stat()
	}
	switch {
	case err != nil:
	case info.IsDir():
		err = fail(fs.ErrNotExist)
	case !info.Mode().IsRegular():
		err = fail(fmt.Errorf("it is no file: %w", hayrick.ErrCorrupt))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
