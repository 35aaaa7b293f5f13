package coordinator

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"hayrick"
	"hayrick/manifest"
)

func writeFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pack(t *testing.T, dir string, except ...string) (packed []byte, skipped []string) {
	t.Helper()
	var buf bytes.Buffer
	skipped, err := packBundle(&buf, dir, except, MaxBundleBytes)
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), skipped
}

func unpack(t *testing.T, packed []byte) map[string]string {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(time.Unix(0, 0)) || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s carries %v, uid %d %q", h.Name, h.ModTime, h.Uid, h.Uname)
		}
		if h.Mode == 0o755 {
			h.Name += "*"
		}
		files[h.Name] = string(body)
	}
}

func TestBundleHoldsTheCode(t *testing.T) {
	dir := writeFolder(t, map[string]string{
		"config.yaml": "name: x\n", "lib/deep/a.py": "a", "run.sh": "#!/bin/sh\n", "empty": "",
		".git/HEAD": "ref", ".hayrick/state.db": "db", "lib/.git/HEAD": "ref", "users.jsonl": "{}\n", "out/part.parquet": "PAR1", "outer/keep": "k",
		strings.Repeat("n", 150) + "/" + strings.Repeat("m", 150): "long",
	})
	if err := os.Chmod(filepath.Join(dir, "run.sh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("config.yaml", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	d := submission().Definition
	d.Input.URI, d.Output.URI = filepath.Join(dir, "users.jsonl"), dir+"/out/$(run.id)/"
	packed, skipped := pack(t, dir, notCode(d)...)
	want := map[string]string{
		"config.yaml": "name: x\n", "lib/deep/a.py": "a", "run.sh*": "#!/bin/sh\n", "empty": "", "outer/keep": "k",
		strings.Repeat("n", 150) + "/" + strings.Repeat("m", 150): "long",
	}
	if got := unpack(t, packed); !maps.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if !slices.Equal(skipped, []string{"link"}) {
		t.Errorf("skipped %q", skipped)
	}
}

// Only names, contents and executable bits count: not times, owners, the order of
// creation or the folder's own name.
func TestBundleIsDeterministic(t *testing.T) {
	files := map[string]string{"b": strings.Repeat("b", 70_000), "a/x": "x", "a/y": "y", "c": "c"}
	one, two := writeFolder(t, files), t.TempDir()
	for _, name := range []string{"c", "a/y", "b", "a/x"} {
		path := filepath.Join(two, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := pack(t, one)
	b, _ := pack(t, two)
	if !bytes.Equal(a, b) {
		t.Error("equal folders have different bundles")
	}
	if err := os.Chmod(filepath.Join(two, "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	if c, _ := pack(t, two); bytes.Equal(a, c) {
		t.Error("an executable bit does not show in the bundle")
	}
}

func TestBundleRefuses(t *testing.T) {
	dir := writeFolder(t, map[string]string{"a": "12345", "b": "67890"})
	if _, err := packBundle(io.Discard, dir, nil, 10); err != nil {
		t.Errorf("ten bytes of ten: %v", err)
	}
	var user *hayrick.UserError
	if _, err := packBundle(io.Discard, dir, nil, 9); !errors.As(err, &user) || !strings.Contains(user.What, dir) {
		t.Errorf("ten bytes of nine: %v", err)
	}
	if _, err := packBundle(io.Discard, filepath.Join(dir, "none"), nil, 9); !errors.As(err, &user) {
		t.Errorf("no folder: %v", err)
	}

	// A file that changes between the look and the read.
	path := filepath.Join(dir, "a")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"123456", "1234"} {
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := packFile(tar.NewWriter(io.Discard), path, "a", info); !errors.As(err, &user) || !strings.Contains(user.What, "was written to") {
			t.Errorf("%d bytes instead of 5: %v", len(body), err)
		}
	}
}

func TestSubmitStoresTheBundle(t *testing.T) {
	r := newRig(t)
	s := submission()
	s.BundleDir = writeFolder(t, map[string]string{"config.yaml": "name: x\n"})
	if err := os.Symlink("nowhere", filepath.Join(s.BundleDir, "link")); err != nil {
		t.Fatal(err)
	}
	p := r.submit(t, s).Plan
	body, err := r.Store.Data(t.Context(), manifest.Job(p.JobID).Bundle(p.BundleSHA256), p.BundleSHA256)
	if err != nil {
		t.Fatal(err)
	}
	if got := unpack(t, body); !maps.Equal(got, map[string]string{"config.yaml": "name: x\n"}) {
		t.Errorf("bundle %q", got)
	}
	if want := "hayrick v0.1.0+" + manifest.Short(p.BundleSHA256); p.CodeVersion != want {
		t.Errorf("code version %q, want %q", p.CodeVersion, want)
	}
	if !strings.Contains(r.logs.String(), "link") {
		t.Errorf("no word of the link: %s", r.logs)
	}
	if left, err := os.ReadDir(r.Scratch); err != nil || len(left) > 0 {
		t.Errorf("scratch holds %v: %v", left, err)
	}
}
