package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hayrick"
	"hayrick/manifest"
)

const fullObject = 200 << 10

// childFull meets a disk that is full, and one that is read-only.
func childFull(dir string, args []string) error {
	fill := func() error { return nil }
	free := fill
	switch args[0] {
	case "limit": // no file may grow beyond 150 KiB
		signal.Ignore(syscall.SIGXFSZ)
		old := syscall.Rlimit{}
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			return err
		}
		fill = func() error {
			return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 150 << 10, Max: old.Max})
		}
		free = func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old) }
	case "tmpfs": // a disk of 4 MiB, in a mount namespace of our own
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			fmt.Println("no mounts:", err)
			return nil
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
			fmt.Println("no mounts:", err)
			return nil
		}
		filler := filepath.Join(dir, "filler")
		fill = func() error {
			f, err := os.Create(filler)
			if err != nil {
				return err
			}
			defer f.Close()
			for size := 64 << 10; size > 0; size /= 16 {
				for err = nil; err == nil; {
					_, err = f.Write(make([]byte, size))
				}
			}
			if !errors.Is(err, syscall.ENOSPC) {
				return err
			}
			return nil
		}
		free = func() error { return os.Remove(filler) }
	}

	store := filepath.Join(dir, "store")
	s, err := childStore(store)
	if err != nil {
		return err
	}
	ctx, job := context.Background(), manifest.Job("full")
	put := func(n int) error {
		return s.Put(ctx, job.Rows(manifest.TaskID(int64(n)), "a", "b"), bytes.NewReader(make([]byte, fullObject)))
	}
	if err := put(0); err != nil {
		return err
	}
	if err := fill(); err != nil {
		return err
	}
	for what, do := range map[string]func() error{
		"put": func() error { return put(1) },
		"commit": func() error {
			_, err := s.Commit(ctx, job.Plan(), make([]byte, fullObject))
			return err
		},
		"replace": func() error { return s.Replace(ctx, job.Manifest(), make([]byte, fullObject)) },
		"assemble": func() error {
			_, err := s.Assemble(ctx, job.Part(0, 0, "x"), []manifest.Range{{Key: job.Rows("task-0000", "a", "b"), Length: fullObject}}, nil)
			return err
		},
		"publish": func() error {
			return s.PublishFile(ctx, filepath.Join(dir, "out"), "part-00000.parquet", job.Rows("task-0000", "a", "b"))
		},
		"state": func() error {
			var msgs []hayrick.Outgoing
			for range 3000 { // more than the WAL has room for
				msgs = append(msgs, hayrick.Outgoing{Message: hayrick.Message{JobID: "full", TaskID: strings.Repeat("x", 300)}})
			}
			return s.Send(ctx, hayrick.QueueTasks, msgs...)
		},
	} {
		err := do()
		var u *hayrick.UserError
		if !errors.As(err, &u) || u.Hint == "" || (!strings.Contains(u.What, "no space") && what != "state") {
			return fmt.Errorf("%s on a full disk: %v", what, err)
		}
	}
	keys := 0
	if err := s.List(ctx, manifest.Jobs, func(o manifest.Object) error {
		if keys++; o.Size != fullObject {
			return fmt.Errorf("%s has %d bytes", o.Key, o.Size)
		}
		return nil
	}); err != nil {
		return err
	}
	left, err := os.ReadDir(filepath.Join(store, "tmp"))
	if err != nil {
		return err
	}
	published, err := s.ListOutput(ctx, filepath.Join(dir, "out"))
	if err != nil {
		return err
	}
	if keys != 1 || len(left) != 0 || len(published) != 0 {
		return fmt.Errorf("a full disk left %d objects, %d temps, %d published files", keys, len(left), len(published))
	}
	if n, err := s.Depth(ctx, hayrick.QueueTasks, "full"); err != nil || n.Messages != 0 {
		return fmt.Errorf("a send that failed left %+v messages, %v", n, err)
	}

	if err := free(); err != nil { // and everything goes on
		return err
	}
	if err := put(1); err != nil {
		return err
	}
	if err := s.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "full"}}); err != nil {
		return err
	}
	if args[0] == "tmpfs" {
		if err := syscall.Mount("tmpfs", filepath.Join(store, "jobs"), "tmpfs", 0, ""); err != nil {
			return err
		}
		var u *hayrick.UserError
		if err := s.Replace(ctx, job.Manifest(), nil); !errors.As(err, &u) || u.Hint == "" || !strings.Contains(u.What, "several file systems") {
			return fmt.Errorf("replace where objects lie on a disk of their own: %v", err)
		}
		if _, err := s.Commit(ctx, job.Plan(), nil); !errors.As(err, &u) || u.Hint == "" || !strings.Contains(u.What, "several file systems") {
			return fmt.Errorf("commit where objects lie on a disk of their own: %v", err)
		}
		if err := syscall.Unmount(filepath.Join(store, "jobs"), 0); err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	if args[0] == "tmpfs" {
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			return err
		}
		_, err := childStore(store)
		var u *hayrick.UserError
		if !errors.As(err, &u) || u.Hint == "" || !strings.Contains(u.What, "cannot be written") {
			return fmt.Errorf("open a read-only store: %v", err)
		}
		_, err = childStore(filepath.Join(dir, "new"))
		if !errors.As(err, &u) || u.Hint == "" {
			return fmt.Errorf("make a store on a read-only disk: %v", err)
		}
		if _, err := scratchDir(0, filepath.Join(dir, "scratch")); !errors.As(err, &u) || !strings.Contains(u.What, "read-only") {
			return fmt.Errorf("scratch on a read-only disk: %v", err)
		}
	}
	fmt.Println("done")
	return nil
}

// A full or read-only disk: every call says what is wrong and what to do, nothing
// is left half-done, and with room again the same store goes on.
func TestDiskFull(t *testing.T) {
	for name, attr := range map[string]*syscall.SysProcAttr{"limit": nil, "tmpfs": mountNamespace()} {
		t.Run(name, func(t *testing.T) {
			c, err := startWith(t, attr, "full", t.TempDir(), name)
			if err != nil && attr != nil {
				t.Logf("a tiny disk cannot be mounted here (%v); the limit on file sizes stands for it", err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			said := c.lines()
			if err := c.Wait(); err != nil {
				t.Fatal(err, c.err.String())
			}
			if len(said) == 1 && strings.HasPrefix(said[0], "no mounts") {
				t.Logf("a tiny disk cannot be mounted here (%s); the limit on file sizes stands for it", said[0])
				return
			}
			if len(said) != 1 || said[0] != "done" {
				t.Errorf("the child said %q", said)
			}
		})
	}
}

// mountNamespace lets a child mount without others seeing it.
func mountNamespace() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// 002-34
func TestScratch(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	good, last := filepath.Join(dir, "good"), filepath.Join(dir, "store", "scratch")
	if err := os.Mkdir(good, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		least int64
		dirs  []string
		want  string // "" = refused
		why   string
	}{
		{0, []string{good, last}, good, ""},
		{0, []string{filepath.Join(dir, "missing"), "", last}, last, ""}, // made
		{0, []string{file, good, last}, good, ""},
		{1 << 60, []string{good, last}, "", "MiB are needed"},
		{0, []string{filepath.Join(dir, "missing"), filepath.Join(file, "scratch")}, "", "missing"},
	} {
		got, err := scratchDir(c.least, c.dirs...)
		var u *hayrick.UserError
		if c.want == "" {
			if !errors.As(err, &u) || u.Hint == "" || !strings.Contains(u.What, c.why) {
				t.Errorf("%q: %v", c.dirs, err)
			}
			continue
		}
		if got != c.want || err != nil {
			t.Errorf("of %q: %q, %v; want %q", c.dirs, got, err, c.want)
		}
		if left, err := os.ReadDir(got); err != nil || len(left) != 0 {
			t.Errorf("%s holds %v, %v", got, left, err)
		}
	}
}

func TestInputsThatAreNone(t *testing.T) {
	s, ctx := openAt(t, t.TempDir(), world(newClock())), t.Context()
	for _, uri := range []string{t.TempDir(), "s3://bucket/users.jsonl", ""} {
		var u *hayrick.UserError
		if _, err := s.Stat(ctx, uri); !errors.As(err, &u) || u.Hint == "" {
			t.Errorf("stat %q: %v", uri, err)
		}
	}
	file := filepath.Join(t.TempDir(), "users.jsonl")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if pin, err := s.Stat(ctx, "file://"+file); err != nil || pin.Size != 1 {
		t.Errorf("stat file://: %+v, %v", pin, err)
	}
}
