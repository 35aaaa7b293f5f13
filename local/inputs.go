package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

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
	return pinOf(info), nil
}

func pinOf(info fs.FileInfo) manifest.Pin {
	st := info.Sys().(*syscall.Stat_t)
	dev := uint64(st.Dev)
	return manifest.Pin{
		Size:     info.Size(),
		MTime:    manifest.At(info.ModTime()),
		DevInode: fmt.Sprintf("%d:%d/%d", unix.Major(dev), unix.Minor(dev), st.Ino),
	}
}

// ListSources calls fn for each file below the folder at uri. It holds the names of
// one folder, and of those it lies in, at a time.
func (Files) ListSources(ctx context.Context, uri string, fn func(object string, pin manifest.Pin) error) error {
	dir, err := localPath(uri)
	if err != nil {
		return err
	}
	if err := listFolder(ctx, uri, dir, fn); err != nil {
		return fmt.Errorf("list the input %s: %w", uri, err)
	}
	return nil
}

func listFolder(ctx context.Context, uri, dir string, fn func(string, manifest.Pin) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, syscall.ENOTDIR) {
			return &hayrick.UserError{What: dir + " is not a folder", Hint: "name a file without the slash at its end", Err: hayrick.ErrNotFound}
		}
		return explainRead(dir, err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if name := e.Name(); manifest.IsSource(name) {
			if e.IsDir() {
				name += "/" // sorts it among its neighbours as its files do
			}
			names = append(names, name)
		}
	}
	entries = nil
	slices.Sort(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !utf8.ValidString(name) {
			return &hayrick.UserError{What: fmt.Sprintf("%q in %s is not UTF-8", name, dir), Hint: "rename it: a plan names inputs in JSON"}
		}
		at := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := listFolder(ctx, uri+name, at, fn); err != nil && !(errors.Is(err, fs.ErrNotExist) || errors.Is(err, hayrick.ErrNotFound)) {
				return err // one that has gone since has nothing to list
			}
			continue
		}
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // likewise
		case err != nil:
			return explainRead(at, err)
		case !info.Mode().IsRegular():
			return &hayrick.UserError{What: at + " is not a file", Hint: "move it out of the folder; a link to a folder is not followed"}
		}
		if err := fn(uri+name, pinOf(info)); err != nil {
			return err
		}
	}
	return nil
}

// OpenSource reads a file whole.
func (Files) OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error) {
	f, err := openInput(ctx, uri)
	if err != nil {
		return nil, manifest.Pin{}, fmt.Errorf("open input %s: %w", uri, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, manifest.Pin{}, fmt.Errorf("open input %s: %w", uri, err)
	}
	return f, pinOf(info), nil
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

// ListSources calls fn for each file below the folder at uri.
func (s *reading) ListSources(ctx context.Context, uri string, fn func(object string, pin manifest.Pin) error) error {
	return Files{}.ListSources(ctx, uri, fn)
}

// OpenSource reads the file at uri whole.
func (s *reading) OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error) {
	return Files{}.OpenSource(ctx, uri)
}

// OpenInput reads the bytes of a batch: a range of a file, or of an object below the
// job's folder.
func (s *reading) OpenInput(ctx context.Context, jobID string, b manifest.Batch) (io.ReadCloser, error) {
	if rel, ok := strings.CutPrefix(b.Object, manifest.StoreScheme); ok {
		return s.Open(ctx, manifest.Job(jobID).Abs(rel), b.Offset, b.Length)
	}
	return Files{}.Open(ctx, b.Object, b.Offset, b.Length)
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
		hint := "name a file of records"
		if info.IsDir() {
			hint += ", or end the name with a slash: that takes every file in the folder"
		}
		err = &hayrick.UserError{What: uri + " is not a file", Hint: hint, Err: hayrick.ErrNotFound}
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
			Hint: "write a path, such as ./users.jsonl; an input may be s3://bucket/key as well",
		}
	}
	return uri, nil
}
