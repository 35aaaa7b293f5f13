package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"hayrick"
	"hayrick/manifest"
)

// What is no file in the place of an object or of a published file is damage, and
// nobody waits for it or follows it; a folder is no object.
func TestWhatIsNoFile(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s := openAt(t, filepath.Join(dir, "store"), hayrick.RealWorld("test"))
	look, err := OpenReadOnly(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	out := filepath.Join(dir, "out")
	job := manifest.Job("j")
	if err := errors.Join(s.Put(ctx, job.Config("x"), strings.NewReader("bytes")), s.PublishBytes(ctx, out, "sound", []byte("bytes"))); err != nil {
		t.Fatal(err)
	}
	object := func(name string) string { return filepath.Join(dir, "store", filepath.FromSlash(job.Abs(name))) }
	for name, c := range map[string]struct {
		put  func(p string) error
		want error
	}{
		"fifo":    {func(p string) error { return syscall.Mkfifo(p, 0o644) }, hayrick.ErrCorrupt},
		"socket":  {func(p string) error { return syscall.Mknod(p, syscall.S_IFSOCK|0o644, 0) }, hayrick.ErrCorrupt},
		"link":    {func(p string) error { return os.Symlink(object("config-x.yaml"), p) }, hayrick.ErrCorrupt},
		"nowhere": {func(p string) error { return os.Symlink("nowhere-else", p) }, hayrick.ErrCorrupt},
		"loop":    {func(p string) error { return os.Symlink("loop", p) }, hayrick.ErrCorrupt},
		"folder":  {func(p string) error { return os.Mkdir(p, 0o755) }, hayrick.ErrNotFound},
	} {
		if err := errors.Join(c.put(object(name)), c.put(filepath.Join(out, name))); err != nil {
			t.Fatal(err)
		}
		for who, r := range map[string]*reading{"store": &s.reading, "reader": &look.reading} {
			if _, err := r.Open(ctx, job.Abs(name), 0, -1); !errors.Is(err, c.want) {
				t.Errorf("%s opens a %s: %v", who, name, err)
			}
			if _, err := r.OpenAt(ctx, job.Abs(name)); !errors.Is(err, c.want) {
				t.Errorf("%s opens a %s at random: %v", who, name, err)
			}
			if _, err := r.OpenOutput(ctx, out, name); !errors.Is(err, c.want) {
				t.Errorf("%s opens a published %s: %v", who, name, err)
			}
		}
	}
	// In the place of a folder, too.
	if err := syscall.Mkfifo(object("tasks"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := look.Open(ctx, job.Done("task-0000"), 0, -1); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("below a pipe: %v", err)
	}
	if _, err := look.OpenOutput(ctx, object("tasks"), "part"); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("a pipe for an output folder: %v", err)
	}
	// Who looks for strangers is told of all of them but the folder.
	var listed []string
	if err := look.List(ctx, job.Prefix(), func(o manifest.Object) error { listed = append(listed, job.Rel(o.Key)); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(listed)
	if want := []string{job.Rel(job.Config("x")), "fifo", "link", "loop", "nowhere", "socket", "tasks"}; !slices.Equal(listed, want) {
		t.Errorf("listed %q, want %q", listed, want)
	}
}

// What must not be read is not said to be in want of writing.
func TestUnreadable(t *testing.T) {
	err := explainRead("/store", &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES})
	var user *hayrick.UserError
	if !errors.As(err, &user) || !strings.Contains(user.What, "cannot be read") || !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

// A store that is read leaves no trace, not even where a writer has died between the
// link and the durable name; and reads the same.
func TestReadOnly(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	path := filepath.Join(dir, "store")
	if _, err := OpenReadOnly(path); !errors.Is(err, hayrick.ErrNotFound) {
		t.Fatalf("no store: %v", err)
	}
	s := openAt(t, path, hayrick.RealWorld("test"))
	job := manifest.Job("j")
	if err := errors.Join(s.Put(ctx, job.Config("x"), strings.NewReader("bytes")), s.PublishBytes(ctx, filepath.Join(dir, "out"), "part", []byte("rows"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(path, filepath.FromSlash(job.Config("x")))
	if err := os.Link(key, filepath.Join(path, "tmp", "dead-1")); err != nil {
		t.Fatal(err)
	}
	list := func() (all []string) {
		if err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			all = append(all, fmt.Sprint(p, info.Mode(), info.Size(), info.ModTime().UnixNano(), info.Sys().(*syscall.Stat_t).Ctim))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := list()
	look, err := OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, open := range []func() (io.ReadCloser, error){
		func() (io.ReadCloser, error) { return look.Open(ctx, job.Config("x"), 1, 3) },
		func() (io.ReadCloser, error) {
			return look.OpenInput(ctx, "j", manifest.Batch{Object: manifest.StoreScheme + job.Rel(job.Config("x")), Offset: 1, Length: 3})
		},
		func() (io.ReadCloser, error) {
			return look.OpenInput(ctx, "j", manifest.Batch{Object: key, Offset: 1, Length: 3})
		},
	} {
		r, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != "yte" || r.Close() != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
	if jobs, err := look.Jobs(ctx); err != nil || !slices.Equal(jobs, []string{"j"}) {
		t.Errorf("jobs %q, %v", jobs, err)
	}
	if there, err := look.ListOutput(ctx, filepath.Join(dir, "out")); err != nil || len(there) != 1 || there[0].Key != "part" {
		t.Errorf("published %v, %v", there, err)
	}
	if _, err := look.Commit(ctx, job.Plan(), []byte("x")); err == nil {
		t.Error("it commits")
	}
	if look.Put(ctx, job.Plan(), strings.NewReader("x")) == nil || look.Replace(ctx, job.Manifest(), []byte("x")) == nil {
		t.Error("it writes")
	}
	if err := look.Close(); err != nil {
		t.Fatal(err)
	}
	if after := list(); !slices.Equal(before, after) {
		t.Errorf("before %q\nafter %q", before, after)
	}
}
