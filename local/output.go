package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"hayrick"
	"hayrick/internal/durable"
	"hayrick/manifest"
)

// PublishFile copies a stored object into an output folder, over what has that
// name: readers see the old file or the new one, whole. The bytes are shared where
// the file system can, else copied inside the kernel.
func (s *Store) PublishFile(ctx context.Context, outputURI, name, key string) error {
	src, err := s.openKey(ctx, key)
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	defer src.Close()
	return publish(ctx, outputURI, name, func(dst *os.File) error {
		if durable.Clone(dst, src) {
			return nil
		}
		_, err := io.Copy(dst, src)
		return err
	})
}

// PublishBytes writes a small file into an output folder.
func (s *Store) PublishBytes(ctx context.Context, outputURI, name string, body []byte) error {
	return publish(ctx, outputURI, name, func(dst *os.File) error {
		_, err := dst.Write(body)
		return err
	})
}

// ListOutput returns what an output folder holds, in order of names.
func (s *reading) ListOutput(ctx context.Context, outputURI string) ([]manifest.Object, error) {
	folder, err := localPath(outputURI)
	if err != nil {
		return nil, fmt.Errorf("list output: %w", err)
	}
	var out []manifest.Object
	err = fs.WalkDir(os.DirFS(folder), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		if e.IsDir() || durable.IsPublishTemp(e.Name()) {
			return ctx.Err()
		}
		info, err := e.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		out = append(out, manifest.Object{Key: name, Size: info.Size(), ModTime: info.ModTime()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list output %s: %w", outputURI, explainRead(folder, err))
	}
	slices.SortFunc(out, func(a, b manifest.Object) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

// OpenOutput reads a published file. What lies at its name and is no file is
// hayrick.ErrCorrupt.
func (s *reading) OpenOutput(ctx context.Context, outputURI, name string) (io.ReadCloser, error) {
	root, folder, err := openOutput(ctx, outputURI, name)
	if err != nil {
		return nil, fmt.Errorf("open output %s: %w", name, explainRead(folder, err))
	}
	defer root.Close()
	f, err := openRegular(root, name)
	if err != nil {
		return nil, fmt.Errorf("open output %s: %w", name, explainRead(folder, err))
	}
	return f, nil
}

// RemoveOutput deletes a file of an output folder; one that is gone is no error.
func (s *Store) RemoveOutput(ctx context.Context, outputURI, name string) error {
	root, folder, err := openOutput(ctx, outputURI, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not even the folder is there
	}
	if err != nil {
		return fmt.Errorf("remove output %s: %w", name, ofOne(explain(folder, err)))
	}
	defer root.Close()
	if err := ignoreMissing(root.Remove(name)); err != nil {
		return fmt.Errorf("remove output %s: %w", name, ofOne(explain(folder, err)))
	}
	return nil
}

func publish(ctx context.Context, outputURI, name string, fill func(*os.File) error) error {
	root, folder, err := openOutput(ctx, outputURI, name)
	if errors.Is(err, fs.ErrNotExist) {
		if err = durable.MkdirAll(folder); err == nil {
			root, folder, err = openOutput(ctx, outputURI, name)
		}
	}
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, ofOne(explain(folder, noFolder(folder, err))))
	}
	defer root.Close()
	if err := durable.Publish(root, name, fill); err != nil {
		return fmt.Errorf("publish %s: %w", name, ofOne(explain(folder, err)))
	}
	return nil
}

// noFolder is err of a folder that cannot be made, where that is because of what its path
// says: trying again changes nothing.
func noFolder(folder string, err error) error {
	for _, x := range []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.ELOOP, syscall.EINVAL} {
		if errors.Is(err, x) {
			return fmt.Errorf("%w: %w", hayrick.ErrDenied, &hayrick.UserError{
				What: folder + " cannot be made",
				Hint: "make it, or make room for it, and run the same command again: it goes on where it stopped",
				Exit: exitPermission,
				Err:  err,
			})
		}
	}
	return err
}

// openOutput opens the folder of an output file called name.
func openOutput(ctx context.Context, outputURI, name string) (root *durable.Root, folder string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if !manifest.ValidOutputName(name) {
		return nil, "", fmt.Errorf("%q is not a name of an output file", name)
	}
	if folder, err = localPath(outputURI); err != nil {
		return nil, "", err
	}
	if info, err := os.Stat(folder); err == nil && !info.IsDir() {
		return nil, folder, &fs.PathError{Op: "open", Path: folder, Err: syscall.ENOTDIR} // not to wait for a FIFO
	}
	root, err = durable.OpenRoot(folder)
	return root, folder, err
}
