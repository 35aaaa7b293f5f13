package worker

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"hayrick"
	"hayrick/manifest"
)

// packed is a bundle of files as the headers say; a body is as long as its header.
func packed(t testing.TB, heads ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, h := range heads {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Mode = 0o755
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, letters{}, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// letters never ends.
type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// A bundle that is damaged, or made to do harm, is refused by name: nothing lands outside
// of its folder, and no more in it than a bundle may hold.
func TestDamagedBundles(t *testing.T) {
	const most = 1 << 20
	good := packed(t, tar.Header{Name: "handler.py", Size: 5000}, tar.Header{Name: "lib/a.py", Size: 7})
	noise := make([]byte, 5000)
	rand.Read(noise)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	long := strings.Repeat("n", 300)
	var window bytes.Buffer
	wide, err := zstd.NewWriter(&window, zstd.WithWindowSize(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	wide.Write(make([]byte, 100))
	wide.Flush() // so that the size is not known, and the window counts
	wide.Write(noise)
	wide.Close()
	for name, c := range map[string]struct {
		body   []byte
		sha    string // "" = its own
		says   string
		intact bool
	}{
		"whole":         {body: good, intact: true},
		"cut":           {body: good[:len(good)-3], sha: manifest.SHA256(good), says: "planned " + manifest.Short(manifest.SHA256(good))},
		"empty":         {body: nil, sha: manifest.SHA256(good), says: "planned "},
		"a bit":         {body: flipped, sha: manifest.SHA256(good), says: "planned "},
		"another":       {body: packed(t, tar.Header{Name: "handler.py", Size: 1}), sha: manifest.SHA256(good), says: "planned "},
		"no zstd":       {body: noise, says: "magic number mismatch"},
		"no tar":        {body: zstdOf(t, noise), says: "invalid tar header"},
		"cut when made": {body: zstdOf(t, tarOf(t, good)[:3000]), says: `"handler.py": unexpected EOF`},
		"traversal":     {body: packed(t, tar.Header{Name: "../outside", Size: 5}), says: `"../outside": outside of the bundle`},
		"deep":          {body: packed(t, tar.Header{Name: "lib/../../outside", Size: 5}), says: "outside of the bundle"},
		"absolute":      {body: packed(t, tar.Header{Name: "/outside", Size: 5}), says: `"/outside": outside of the bundle`},
		"symlink":       {body: packed(t, tar.Header{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: ".."}, tar.Header{Name: "lib/outside", Size: 5}), says: `"lib": not a file`},
		"hard link":     {body: packed(t, tar.Header{Name: "lib", Typeflag: tar.TypeLink, Linkname: "../secret"}), says: `"lib": not a file`},
		"device":        {body: packed(t, tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}), says: `"null": not a file`},
		"twice":         {body: packed(t, tar.Header{Name: "a", Size: 5}, tar.Header{Name: "a", Size: 5}), says: `"a": openat a: file exists`},
		"through":       {body: packed(t, tar.Header{Name: "a", Size: 5}, tar.Header{Name: "a/outside", Size: 5}), says: `"a/outside": `},
		"long name":     {body: packed(t, tar.Header{Name: long, Size: 5}), says: "file name too long"},
		"huge":          {body: packed(t, tar.Header{Name: "huge", Size: 64 << 20}), says: `"huge": it holds more than a bundle may`},
		"huge behind":   {body: append(bytes.Clone(good), zstdOf(t, make([]byte, 64<<20))...), says: "it holds more than a bundle may"},
		"window":        {body: window.Bytes(), says: "window size exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "bundle")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(parent, "secret"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if c.sha == "" {
				c.sha = manifest.SHA256(c.body)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := unpack(bytes.NewReader(c.body), c.sha, dir, most)
			runtime.ReadMemStats(&after)
			if c.intact != (err == nil) || err != nil && (!errors.Is(err, hayrick.ErrCorrupt) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 48<<20 {
				t.Errorf("it took %d bytes", got)
			}
			var size int64
			filepath.WalkDir(parent, func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := d.Info()
				if err == nil && info.Mode().IsRegular() {
					size += info.Size()
				}
				if name := d.Name(); name == "outside" || !info.Mode().IsRegular() && !d.IsDir() {
					t.Errorf("%s is there", path)
				}
				return err
			})
			if size > most+1<<20 {
				t.Errorf("it left %d bytes", size)
			}
		})
	}
	// What the store or this machine does is no damage.
	err = unpack(iotest.TimeoutReader(bytes.NewReader(good)), manifest.SHA256(good), t.TempDir(), most)
	if !errors.Is(err, iotest.ErrTimeout) || errors.Is(err, hayrick.ErrCorrupt) {
		t.Errorf("a store that does not answer: %v", err)
	}
	if err := unpack(bytes.NewReader(good), manifest.SHA256(good), filepath.Join(t.TempDir(), "gone"), most); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, hayrick.ErrCorrupt) {
		t.Errorf("a folder that is gone: %v", err)
	}
}

func zstdOf(t testing.TB, b []byte) []byte {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(b, nil)
}

// tarOf is what is packed in a bundle.
func tarOf(t testing.TB, bundle []byte) []byte {
	z, err := zstd.NewReader(bytes.NewReader(bundle))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
