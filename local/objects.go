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
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"hayrick"
	"hayrick/internal/durable"
	"hayrick/manifest"
)

// Open reads a range of an object. A name that may not survive a power cut yet is
// made durable first: nothing follows from what could vanish.
func (s *reading) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	f, err := s.openKey(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	return section(f, offset, length)
}

// Put stores data under a key that only ever gets these bytes. A crash before the
// link leaves a temp, which the next Open of the store removes; after it, the
// whole object.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) error {
	_, err := s.store(ctx, key, func(f *os.File) error {
		_, err := io.Copy(f, body) // by copy_file_range where body is a file
		return err
	})
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// Commit stores body if the key is absent. Every answer, also that it was there,
// means that what is there is durable.
func (s *Store) Commit(ctx context.Context, key string, body []byte) (bool, error) {
	stored, err := s.store(ctx, key, func(f *os.File) error {
		_, err := f.Write(body)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("commit %s: %w", key, err)
	}
	return stored, nil
}

// Replace stores a view over what is there, without fsync.
func (s *Store) Replace(ctx context.Context, key string, body []byte) error {
	err := s.write(ctx, key, func(t *durable.Temp) error {
		if _, err := t.Write(body); err != nil {
			return err
		}
		return t.Replace(key)
	})
	if err != nil {
		return fmt.Errorf("replace %s: %w", key, err)
	}
	return nil
}

// Remove takes an object away. After a power cut it may be there again.
func (s *Store) Remove(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !manifest.ValidKey(key) {
		return fmt.Errorf("remove: %q is not an object key", key)
	}
	if err := ignoreMissing(s.root.Remove(key)); err != nil {
		return fmt.Errorf("remove %s: %w", key, explain(s.path, err))
	}
	return nil
}

// List calls fn for every object whose key starts with prefix, in no order, and for
// what lies there and is no file: whoever opens that is told so. It holds a few
// hundred names in memory, however large the folders.
func (s *reading) List(ctx context.Context, prefix string, fn func(manifest.Object) error) error {
	dir := strings.TrimSuffix(prefix[:strings.LastIndex(prefix, "/")+1], "/")
	if dir == "" {
		dir = strings.TrimSuffix(manifest.Jobs, "/")
	}
	if !fs.ValidPath(dir) || !strings.HasPrefix(dir+"/", manifest.Jobs) {
		return fmt.Errorf("list %q: not the beginning of an object key", prefix)
	}
	if err := s.walk(ctx, dir, prefix, fn); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("list %s: %w", prefix, explainRead(s.at(dir), err))
	} else if err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	return nil
}

// Jobs returns the names of the folders directly below jobs/.
func (s *reading) Jobs(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := openFolder(s.root, strings.TrimSuffix(manifest.Jobs, "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// OpenAt opens an object for reads at random places.
func (s *reading) OpenAt(ctx context.Context, key string) (manifest.Blob, error) {
	f, err := s.openKey(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &blob{f, info.Size()}, nil
}

// blob is an opened object.
type blob struct {
	*os.File
	size int64
}

func (b *blob) Size() int64 { return b.size }

// Assemble builds an object from ranges of others and a literal tail, as Put
// stores it; the bytes are copied inside the kernel, or shared where the file
// system can. A range that its source does not have is hayrick.ErrCorrupt.
func (s *Store) Assemble(ctx context.Context, key string, parts []manifest.Range, tail []byte) (remote bool, err error) {
	_, err = s.store(ctx, key, func(dst *os.File) error {
		var src *os.File
		var open string // the key of src: consecutive ranges often have the same
		var begun, written int64
		defer func() {
			if src != nil {
				src.Close()
			}
		}()
		for _, p := range parts {
			if err := ctx.Err(); err != nil {
				return err
			}
			if src == nil || open != p.Key {
				if src != nil {
					src.Close()
				}
				var err error
				if src, err = s.openKey(ctx, p.Key); err != nil {
					return fmt.Errorf("from %s: %w", p.Key, err)
				}
				open = p.Key
			}
			if err := copyRange(dst, src, p); err != nil {
				return fmt.Errorf("from %s: %w", p.Key, err)
			}
			if written += p.Length; written-begun >= writeEvery {
				durable.StartWriting(dst, begun, written-begun)
				begun = written
			}
		}
		_, err := dst.Write(tail)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("assemble %s: %w", key, err)
	}
	return false, nil
}

// writeEvery is after how many bytes of a large object the disk gets to work on them,
// while the rest is copied.
const writeEvery = 16 << 20

func copyRange(dst, src *os.File, p manifest.Range) error {
	if p.Offset < 0 || p.Length < 0 {
		return fmt.Errorf("[%d, +%d): %w", p.Offset, p.Length, hayrick.ErrCorrupt)
	}
	if _, err := src.Seek(p.Offset, io.SeekStart); err != nil {
		return err
	}
	n, err := io.CopyN(dst, src, p.Length)
	if err == io.EOF {
		return fmt.Errorf("it ends %d bytes into [%d, +%d): %w", n, p.Offset, p.Length, hayrick.ErrCorrupt)
	}
	return err
}

// store fills a temp and links it to key; linked = false means that the key was
// there. Both end durable.
func (s *Store) store(ctx context.Context, key string, fill func(*os.File) error) (linked bool, err error) {
	err = s.write(ctx, key, func(t *durable.Temp) error {
		if err := fill(t.File); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		linked, err = t.Link(key)
		return err
	})
	return linked, err
}

// write lets use write a temp; whatever use leaves of it is removed.
func (s *Store) write(ctx context.Context, key string, use func(*durable.Temp) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !manifest.ValidKey(key) {
		return fmt.Errorf("%q is not an object key", key)
	}
	t, err := s.dir.Create()
	if err != nil {
		return explain(s.dir.Path(), err)
	}
	defer t.Discard()
	err = use(t)
	if errors.Is(err, fs.ErrPermission) { // the store took the temp: this is about the one object
		return ofOne(explain(s.at(key), err))
	}
	return explain(s.dir.Path(), err)
}

func (s *reading) openKey(ctx context.Context, key string) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !manifest.ValidKey(key) {
		return nil, fmt.Errorf("%q is not an object key", key)
	}
	f, err := openRegular(s.root, key)
	if err == nil && s.settle != nil {
		err = s.settled(f, key)
	}
	if err != nil {
		return nil, explainRead(s.at(key), err)
	}
	return f, nil
}

// at is where an object lies, for people.
func (s *reading) at(key string) string { return filepath.Join(s.path, filepath.FromSlash(key)) }

// settled makes the name of an open file durable: with two links its writer is in the
// middle of linking it, or died there. On an error f is closed.
func (s *reading) settled(f *os.File, key string) error {
	info, err := f.Stat()
	if err == nil && info.Sys().(*syscall.Stat_t).Nlink > 1 {
		err = s.settle(key)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// openFolder opens a folder, and waits for nothing that lies in its place.
func openFolder(root *durable.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
}

// section is f from offset, up to length bytes if that is not negative.
func section(f *os.File, offset, length int64) (io.ReadCloser, error) {
	if _, err := f.Seek(max(offset, 0), io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if length < 0 {
		return f, nil // as a file: whoever copies it lets the kernel do so
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, length), f}, nil
}

// walk lists the objects below dir that start with prefix. What vanishes meanwhile
// is left out.
func (s *reading) walk(ctx context.Context, dir, prefix string, fn func(manifest.Object) error) error {
	f, err := openFolder(s.root, dir)
	if err != nil {
		return ignoreMissing(err)
	}
	defer f.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := f.ReadDir(256)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return ignoreMissing(err)
		}
		for _, e := range entries {
			key := path.Join(dir, e.Name())
			switch {
			case e.IsDir():
				if below := key + "/"; strings.HasPrefix(below, prefix) || strings.HasPrefix(prefix, below) {
					if err := s.walk(ctx, key, prefix, fn); err != nil {
						return err
					}
				}
			case strings.HasPrefix(key, prefix):
				info, err := s.root.Lstat(key)
				if err != nil {
					if err := ignoreMissing(err); err != nil {
						return err
					}
					continue
				}
				if err := fn(manifest.Object{Key: key, Size: info.Size(), ModTime: info.ModTime()}); err != nil {
					return err
				}
			}
		}
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}
