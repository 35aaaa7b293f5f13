package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"hayrick"
	"hayrick/internal/durable"
	"hayrick/manifest"
)

// Files are inputs on this machine, for any store.
type Files struct{}

// Stat identifies the file at uri now.
func (Files) Stat(ctx context.Context, uri string) (manifest.Pin, error) {
	f, err := openInput(ctx, uri)
	if err != nil {
		return manifest.Pin{}, fmt.Errorf("stat input %s: %w", uri, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return manifest.Pin{}, fmt.Errorf("stat input %s: %w", uri, err)
	}
	st := info.Sys().(*syscall.Stat_t)
	dev := uint64(st.Dev)
	return manifest.Pin{
		Size:     info.Size(),
		MTime:    manifest.At(info.ModTime()),
		DevInode: fmt.Sprintf("%d:%d/%d", unix.Major(dev), unix.Minor(dev), st.Ino),
	}, nil
}

// Open reads a range of a file.
func (Files) Open(ctx context.Context, uri string, offset, length int64) (io.ReadCloser, error) {
	f, err := openInput(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("open input %s: %w", uri, err)
	}
	return section(f, offset, length)
}

// Stat identifies the file at uri now.
func (s *reading) Stat(ctx context.Context, uri string) (manifest.Pin, error) {
	return Files{}.Stat(ctx, uri)
}

// OpenSource reads the file at uri from offset to its end.
func (s *reading) OpenSource(ctx context.Context, uri string, offset int64) (io.ReadCloser, error) {
	return Files{}.Open(ctx, uri, offset, -1)
}

// OpenInput reads a range of a file, or of an object below the job's folder.
func (s *reading) OpenInput(ctx context.Context, jobID, object string, offset, length int64) (io.ReadCloser, error) {
	if rel, ok := strings.CutPrefix(object, manifest.StoreScheme); ok {
		return s.Open(ctx, manifest.Job(jobID).Abs(rel), offset, length)
	}
	return Files{}.Open(ctx, object, offset, length)
}

// Clone lets the object under key share the bytes of the file at uri, where the
// file system can (btrfs, XFS, and both on the same one).
func (s *Store) Clone(ctx context.Context, uri, key string) (bool, error) {
	src, err := openInput(ctx, uri)
	if err != nil {
		return false, fmt.Errorf("clone input %s: %w", uri, err)
	}
	defer src.Close()
	cloned := false
	err = s.write(ctx, key, func(t *durable.Temp) error {
		if cloned = durable.Clone(t.File, src); !cloned {
			return nil // and the temp goes
		}
		_, err := t.Link(key)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("clone input %s: %w", uri, err)
	}
	return cloned, nil
}

func openInput(ctx context.Context, uri string) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, err := localPath(uri)
	if err != nil {
		return nil, err
	}
	// Opening a pipe would wait for somebody to write to it.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, explainRead(name, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() { // for who looks for the file that was planned: it is not there
		err = &hayrick.UserError{What: uri + " is not a file", Hint: "name one file of records", Err: hayrick.ErrNotFound}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// localPath is the path that uri names: a path, relative to the working directory,
// or file:///path.
func localPath(uri string) (string, error) {
	if p, ok := strings.CutPrefix(uri, "file://"); ok && strings.HasPrefix(p, "/") {
		return p, nil
	}
	if uri == "" || strings.Contains(uri, "://") {
		return "", &hayrick.UserError{
			What: fmt.Sprintf("%q is not a path on this machine", uri),
			Hint: "write a path, such as ./users.jsonl, or use a store that can reach it",
		}
	}
	return uri, nil
}
