package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// roots opens a folder both ways: as the kernel walks, and as os.Root does.
func roots(t *testing.T, test func(t *testing.T, r *Root, dir string)) {
	for _, way := range []string{"kernel", "os.Root"} {
		t.Run(way, func(t *testing.T) {
			dir := t.TempDir()
			r, err := OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			if runtime.GOOS == "linux" && !r.beneath {
				t.Error("openat2 does not work here")
			}
			r.beneath = r.beneath && way == "kernel"
			test(t, r, dir)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRootStaysBeneath tries to leave a root by every verb and every kind of name.
func TestRootStaysBeneath(t *testing.T) {
	roots(t, func(t *testing.T, r *Root, dir string) {
		outside := t.TempDir()
		must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o644))
		must(t, os.Mkdir(filepath.Join(dir, "a"), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "a", "f"), []byte("f"), 0o644))
		must(t, os.Symlink(outside, filepath.Join(dir, "out")))
		must(t, os.Symlink("../"+filepath.Base(dir)+"/..", filepath.Join(dir, "up")))
		must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "link")))
		for _, name := range []string{"out/secret", "out/new", "../x", "a/../../x", "up/x", "link", filepath.Join(outside, "secret")} {
			if f, err := r.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644); err == nil {
				t.Errorf("OpenFile(%q) opened %s", name, f.Name())
			}
			if f, err := r.OpenRegular(name); err == nil {
				t.Errorf("OpenRegular(%q) opened %s", name, f.Name())
			}
			if name == "link" {
				continue // a name below the folder, to give away and to remove
			}
			for what, err := range map[string]error{
				"Mkdir": r.Mkdir(name, 0o755), "Link": r.Link("a/f", name), "Link from": r.Link(name, "a/g"),
				"Rename": r.Rename("a/f", name), "Rename from": r.Rename(name, "a/g"), "Remove": r.Remove(name), "Rmdir": r.Rmdir(name),
			} {
				if err == nil {
					t.Errorf("%s %q left the folder", what, name)
				}
			}
		}
		for where, want := range map[string]int{outside: 1, filepath.Dir(dir): -1, filepath.Join(dir, "a"): 1} {
			if entries, err := os.ReadDir(where); err != nil || (want >= 0 && len(entries) != want) {
				t.Errorf("%s holds %v, %v", where, entries, err)
			}
		}
	})
}

// TestRootVerbs gives files names, takes them, and says what is wrong as package os does.
func TestRootVerbs(t *testing.T) {
	roots(t, func(t *testing.T, r *Root, dir string) {
		f, err := r.OpenFile("x", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		must(t, err)
		_, err = f.WriteString("hay")
		must(t, err)
		must(t, f.Close())
		must(t, r.Mkdir("a", 0o755))
		must(t, os.Mkdir(filepath.Join(dir, "b"), 0o755))
		must(t, os.Symlink("b", filepath.Join(dir, "inside")))
		must(t, r.Link("x", "a/y"))
		must(t, r.Rename("a/y", "inside/z")) // a folder's link that stays below is a folder
		must(t, r.Remove("x"))
		g, err := r.OpenRegular("b/z")
		must(t, err)
		defer g.Close()
		if got, err := io.ReadAll(g); string(got) != "hay" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
		must(t, os.Symlink("b/z", filepath.Join(dir, "soft")))
		open := func(name string) error { _, err := r.OpenRegular(name); return err }
		for _, c := range []struct {
			what string
			got  error
			want error
		}{
			{"open what is not there", open("b/none"), fs.ErrNotExist},
			{"open below what is not there", open("none/z"), fs.ErrNotExist},
			{"open a folder", open("b"), fs.ErrNotExist},
			{"open a FIFO", open("fifo"), ErrNotRegular},
			{"open a link", open("soft"), ErrNotRegular},
			{"open below a file", open("b/z/y"), unix.ENOTDIR},
			{"mkdir twice", r.Mkdir("a", 0o755), fs.ErrExist},
			{"mkdir below nothing", r.Mkdir("none/a", 0o755), fs.ErrNotExist},
			{"link over", r.Link("b/z", "soft"), fs.ErrExist},
			{"link into nothing", r.Link("b/z", "none/z"), fs.ErrNotExist},
			{"rename nothing", r.Rename("none", "b/q"), fs.ErrNotExist},
			{"remove nothing", r.Remove("none"), fs.ErrNotExist},
			{"remove a folder that is full", r.Rmdir("b"), unix.ENOTEMPTY},
			{"remove a file as a folder", r.Rmdir("b/z"), unix.ENOTDIR},
			{"remove an empty folder", r.Rmdir("a"), nil},
		} {
			if !errors.Is(c.got, c.want) {
				t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
			}
		}
		flags, err := unix.FcntlInt(g.Fd(), unix.F_GETFL, 0)
		if must(t, err); flags&unix.O_NONBLOCK != 0 {
			t.Error("what was opened does not wait for its reads")
		}
		must(t, r.Close())
		if err := open("b/z"); err == nil {
			t.Error("a closed root opens files")
		}
	})
}
