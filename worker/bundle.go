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
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
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
	if err := unpack(r, sha, temp); err != nil {
		return "", fmt.Errorf("unpack the bundle of %s: %w", j.Plan.JobID, err)
	}
	if err := os.Rename(temp, dir); err != nil {
		if st, e := os.Stat(dir); e == nil && st.IsDir() {
			return dir, nil // another process was first
		}
		return "", fmt.Errorf("unpack the bundle of %s: %w", j.Plan.JobID, err)
	}
	return dir, nil
}

// maxUnpacked is a little above what a bundle may hold.
const maxUnpacked = 300 << 20

// unpack writes the files of a bundle below dir. Nothing lands outside of it.
func unpack(r io.Reader, sha, dir string) error {
	h := newHashing(r)
	z, err := zstd.NewReader(h, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(io.LimitReader(z, maxUnpacked))
	for {
		head, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%v: %w", err, hayrick.ErrCorrupt)
		}
		if err := unpackFile(root, head, t); err != nil {
			return fmt.Errorf("%s: %w", head.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, z); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, h); err != nil {
		return err
	}
	if got := h.sum(); got != sha {
		return fmt.Errorf("SHA-256 %s, planned %s: %w", manifest.Short(got), manifest.Short(sha), hayrick.ErrCorrupt)
	}
	return nil
}

func unpackFile(root *os.Root, head *tar.Header, from io.Reader) error {
	if head.Typeflag != tar.TypeReg {
		return fmt.Errorf("not a file: %w", hayrick.ErrCorrupt)
	}
	name := filepath.FromSlash(head.Name)
	if !filepath.IsLocal(name) {
		return fmt.Errorf("outside of the bundle: %w", hayrick.ErrCorrupt)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, fs.FileMode(head.Mode)&0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// hashing reads and hashes.
type hashing struct {
	io.Reader
	h hash.Hash
}

func newHashing(r io.Reader) *hashing {
	h := sha256.New()
	return &hashing{io.TeeReader(r, h), h}
}

func (h *hashing) sum() string { return hex.EncodeToString(h.h.Sum(nil)) }
