package coordinator

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"hayrick"
	"hayrick/manifest"
)

// MaxBundleBytes is the most that the files of a job's folder may hold together:
// every worker unpacks them.
const MaxBundleBytes = 256 << 20

// bundle packs the job's folder and stores it under its digest, which it returns;
// "" when the job has none. A crash before the put leaves nothing, after it an
// object that the same folder writes again.
func (c *Coordinator) bundle(ctx context.Context, s Submission, jobID string) (sha string, err error) {
	if s.BundleDir == "" {
		return "", nil
	}
	f, err := c.scratchFile("bundle")
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	skipped, err := packBundle(io.MultiWriter(f, h), s.BundleDir, notCode(s.Definition), MaxBundleBytes)
	if err != nil {
		return "", err
	}
	for _, name := range skipped {
		c.Log.Warn("left out of the bundle: neither a file nor a folder", hayrick.KeyJobID, jobID, "path", filepath.Join(s.BundleDir, name))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("read the bundle: %w", err)
	}
	sha = hex.EncodeToString(h.Sum(nil))
	if err := c.Store.Objects.Put(ctx, manifest.Job(jobID).Bundle(sha), f); err != nil {
		return "", fmt.Errorf("store the bundle of %s: %w", s.BundleDir, err)
	}
	return sha, nil
}

// PackBundle packs a job's folder as a submission would.
func PackBundle(w io.Writer, dir string, d hayrick.JobDefinition) error {
	_, err := packBundle(w, dir, notCode(d), MaxBundleBytes)
	return err
}

// ChangedCode is the first file of the bundle that a plan names which dir, the job's
// folder, has with other bytes or has no more; "" when there is none. Files that came
// into the folder since are no change: reports, logs and data are made there too.
func (c *Coordinator) ChangedCode(ctx context.Context, p manifest.Plan, dir string) (string, error) {
	if p.BundleSHA256 == "" {
		return "", nil
	}
	r, err := c.Store.Objects.Open(ctx, manifest.Job(p.JobID).Bundle(p.BundleSHA256), 0, -1)
	if err != nil {
		return "", fmt.Errorf("read the bundle of %s: %w", p.JobID, err)
	}
	defer r.Close()
	return changedIn(r, dir)
}

func changedIn(bundle io.Reader, dir string) (string, error) {
	z, err := zstd.NewReader(bundle, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return "", fmt.Errorf("unpack a bundle: %w", err)
	}
	defer z.Close()
	for t := tar.NewReader(z); ; {
		head, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return "", nil
		case err != nil:
			return "", fmt.Errorf("unpack a bundle: %w", err)
		case strings.Contains(head.Name, "__pycache__/"): // made from what is beside it
			continue
		}
		same, err := sameBytes(t, filepath.Join(dir, filepath.FromSlash(head.Name)))
		if err != nil || !same {
			return head.Name, err
		}
	}
}

// sameBytes says whether the file has exactly what r has.
func sameBytes(r io.Reader, path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, nil // gone, or not to be read: not what it was
	}
	defer f.Close()
	was, is := sha256.New(), sha256.New()
	if _, err := io.Copy(was, r); err != nil {
		return false, fmt.Errorf("unpack a bundle: %w", err)
	}
	if _, err := io.Copy(is, f); err != nil {
		return false, nil
	}
	return bytes.Equal(was.Sum(nil), is.Sum(nil)), nil
}

// notCode names what may lie in the job's folder and is not handler code: the input
// and the folder that outputs go to.
func notCode(d hayrick.JobDefinition) []string {
	output, _, _ := strings.Cut(d.Output.URI, "$(")
	return []string{d.Input.URI, output}
}

// packBundle writes the regular files below dir as a tar.zst that depends on their
// names, contents and executable bits alone. Folders named .git and .hayrick are
// left out, and what the paths in except name; skipped are links and special files.
// More than max bytes are a *hayrick.UserError.
func packBundle(w io.Writer, dir string, except []string, max int64) (skipped []string, err error) {
	leave, err := statAll(dir, except)
	if err != nil {
		return nil, err
	}
	// One goroutine, so that no bytes depend on scheduling.
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", dir, err)
	}
	t := tar.NewWriter(z)
	var total int64
	// WalkDir goes in lexical order.
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == dir {
			return nil
		}
		if e.IsDir() && (e.Name() == ".git" || e.Name() == ".hayrick") {
			return fs.SkipDir
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		for _, l := range leave {
			if os.SameFile(l, info) {
				if e.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
		}
		switch {
		case e.IsDir():
			return nil
		case !info.Mode().IsRegular():
			skipped = append(skipped, rel)
			return nil
		}
		if total += info.Size(); total > max {
			return &hayrick.UserError{
				What: fmt.Sprintf("the files in %s are larger than %d MiB together", dir, max>>20),
				Hint: "every worker unpacks this folder: move data out of it",
			}
		}
		return packFile(t, path, filepath.ToSlash(rel), info)
	})
	if err == nil {
		err = t.Close()
	}
	if err = errors.Join(err, z.Close()); err != nil {
		return nil, fmt.Errorf("pack %s: %w", dir, err)
	}
	return skipped, nil
}

// packFile adds one file. Its times, owners and most of its mode are left out.
func packFile(t *tar.Writer, path, name string, info fs.FileInfo) error {
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: mode, Format: tar.FormatPAX}); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// One byte more than the header promises shows a file that grew.
	n, err := io.Copy(t, io.LimitReader(f, info.Size()+1))
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && n != info.Size() {
		return &hayrick.UserError{What: fmt.Sprintf("%s was written to while it was packed", path), Hint: "run again when it is complete"}
	}
	return err
}

// statAll looks at those of the paths that exist and are not dir itself.
func statAll(dir string, paths []string) ([]fs.FileInfo, error) {
	root, err := os.Stat(dir)
	if err != nil {
		return nil, &hayrick.UserError{What: "the job's folder cannot be read", Hint: "check the path of the job file", Err: err}
	}
	var infos []fs.FileInfo
	for _, p := range paths {
		// A URI of another kind is no path here; the folder itself is not left out.
		if info, err := os.Stat(p); p != "" && err == nil && !os.SameFile(root, info) {
			infos = append(infos, info)
		}
	}
	return infos, nil
}
