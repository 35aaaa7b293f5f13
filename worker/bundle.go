package worker

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"hayrick"
	"hayrick/manifest"
)

// unpacked gives the folder of the job's bundle on this machine, unpacking it on first
// use: <Bundles>/job/<job_id>/bundle-<h>. Two processes may unpack it at once: the
// first to rename its copy wins. A crash leaves a copy that nobody uses, or the whole.
func (j *Job) unpacked(ctx context.Context) (dir string, err error) {
	sha := j.Plan.BundleSHA256
	if sha == "" || j.jobs.Bundles == "" {
		return "", nil
	}
	parent := filepath.Join(j.jobs.Bundles, "job", j.Plan.JobID)
	dir, err = filepath.Abs(filepath.Join(parent, "bundle-"+manifest.Short(sha)))
	if err != nil {
		return "", fmt.Errorf("find the scratch folder: %w", err)
	}
	if st, err := os.Lstat(dir); err == nil && st.IsDir() {
		return dir, nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("unpack the bundle of %s: %w", j.Plan.JobID, err)
	}
	temp, err := os.MkdirTemp(parent, ".bundle-*")
	if err != nil {
		return "", fmt.Errorf("unpack the bundle of %s: %w", j.Plan.JobID, err)
	}
	defer os.RemoveAll(temp)
	r, err := j.jobs.Store.Objects.Open(ctx, manifest.Job(j.Plan.JobID).Bundle(sha), 0, -1)
	if err != nil {
		return "", gone(fmt.Errorf("read the bundle of %s: %w", j.Plan.JobID, err))
	}
	defer r.Close()
	if err := unpack(r, sha, temp, maxUnpacked); err != nil {
		return "", fmt.Errorf("unpack the bundle of %s: %w", j.Plan.JobID, err)
	}
	if err := os.Rename(temp, dir); err != nil {
		if st, e := os.Lstat(dir); e == nil && st.IsDir() {
			return dir, nil // another process was first
		}
		return "", fmt.Errorf("unpack the bundle of %s: %w", j.Plan.JobID, err)
	}
	return dir, nil
}

// maxUnpacked is a little above what a bundle may hold.
const maxUnpacked = 300 << 20

// maxWindow bounds what a bundle may ask its reader to hold; those of this tool ask for
// 8 MiB.
const maxWindow = 32 << 20

// unpack writes the files of a bundle below dir. Nothing lands outside of it, and no more
// than most bytes. hayrick.ErrCorrupt: it is not the one that was planned, or none.
func unpack(r io.Reader, sha, dir string, most int64) error {
	h := newHashing(r)
	failed := unpackFiles(h, dir, most)
	// Whatever stands in the way of its files, what is not the planned one is to blame.
	if _, err := io.Copy(io.Discard, h); err != nil {
		return err
	}
	if got := h.sum(); got != sha {
		return fmt.Errorf("its SHA-256 is %s, planned %s: %w", manifest.Short(got), manifest.Short(sha), hayrick.ErrCorrupt)
	}
	return failed
}

func unpackFiles(r *hashing, dir string, most int64) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return err
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	// What goes wrong in reading is damage, in writing not.
	damaged := func(err error) error {
		if r.err != nil {
			return r.err // the store does not answer
		}
		return fmt.Errorf("%v: %w", err, hayrick.ErrCorrupt)
	}
	bound := &bounded{z, most}
	t := tar.NewReader(bound)
	for {
		head, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if err := unpackFile(root, head, readOnly{t, damaged}); err != nil {
			return fmt.Errorf("%q: %w", head.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, bound); err != nil {
		return damaged(err)
	}
	return nil
}

// bounded fails where more than left bytes come.
type bounded struct {
	io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errors.New("it holds more than a bundle may")
	}
	return n, err
}

// readOnly marks the errors of reading.
type readOnly struct {
	io.Reader
	damaged func(error) error
}

func (r readOnly) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = r.damaged(err)
	}
	return n, err
}

func unpackFile(root *os.Root, head *tar.Header, from io.Reader) error {
	if head.Typeflag != tar.TypeReg {
		return fmt.Errorf("not a file: %w", hayrick.ErrCorrupt)
	}
	name := filepath.FromSlash(head.Name)
	if !filepath.IsLocal(name) {
		return fmt.Errorf("outside of the bundle: %w", hayrick.ErrCorrupt)
	}
	if filepath.Clean(name) != name {
		return fmt.Errorf("a name that no file of a bundle has: %w", hayrick.ErrCorrupt)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return unfit(err)
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, fs.FileMode(head.Mode)&0o755)
	if err != nil {
		return unfit(err)
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// unfit is damage where a name is at fault: it is there twice, goes through a file, or no
// system has such.
func unfit(err error) error {
	for _, fault := range []error{fs.ErrExist, syscall.ENOTDIR, syscall.EISDIR, syscall.EINVAL, syscall.ENAMETOOLONG} {
		if errors.Is(err, fault) {
			return fmt.Errorf("%v: %w", err, hayrick.ErrCorrupt)
		}
	}
	return err
}

// hashing reads and hashes.
type hashing struct {
	r   io.Reader
	h   hash.Hash
	err error // of r, io.EOF left out
}

func newHashing(r io.Reader) *hashing { return &hashing{r: r, h: sha256.New()} }

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.h.Write(p[:n])
	if err != nil && err != io.EOF {
		h.err = err
	}
	return n, err
}

func (h *hashing) sum() string { return hex.EncodeToString(h.h.Sum(nil)) }
