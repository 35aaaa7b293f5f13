package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hayrick/manifest"
)

// demoRun is how the run of endedRun is typed.
func demoRun(ifExists string, more ...string) []string {
	return append([]string{"run", "jobs/backfill", "--profile", "demo", "--set", "handler.params.demo.accounts=40", "--set", "batch.items=10",
		"--set", "retry.backoff.initial=50ms", "--set", "output.uri=./out/", "--set", "output.if_exists=" + ifExists}, more...)
}

// endedRun is a folder with a run of forty items that has SUCCEEDED, its output in
// out.
func endedRun(t *testing.T, ifExists string) (dir string, job manifest.Job) {
	t.Helper()
	dir = workspace(t)
	exitsWith(t, dir, 0, demoRun(ifExists)...)
	found, err := os.ReadDir(filepath.Join(dir, ".hayrick", "jobs"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	return dir, manifest.Job(found[0].Name())
}

func write(t *testing.T, path, body string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

// exitsWith runs hayrick in dir and returns all that it says. It must end by itself,
// which who waits for a pipe does not.
func exitsWith(t *testing.T, dir string, code int, args ...string) string {
	t.Helper()
	c := start(t, dir, args...)
	select {
	case err := <-c.ended:
		if got := codeOf(err); got != code {
			t.Fatalf("%v exits %d, want %d\n%s%s", args, got, code, c.out.String(), c.errs.String())
		}
	case <-time.After(time.Minute):
		c.kill()
		t.Fatalf("%v hangs", args)
	}
	return c.out.String() + c.errs.String()
}

// listing is all that lies below dir: kind, permission, owner, bytes and times.
func listing(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var body []byte
		if info.Mode().IsRegular() {
			if body, err = os.ReadFile(p); err != nil {
				return err
			}
		}
		st := info.Sys().(*syscall.Stat_t)
		all = append(all, fmt.Sprintln(p, info.Mode(), st.Ino, st.Uid, st.Nlink, info.ModTime().UnixNano(), st.Ctim, manifest.SHA256(body)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// An audit changes nothing: not a byte, not a time, not a name, while the store is
// open elsewhere or not; and needs no permission to.
func TestAuditWritesNothing(t *testing.T) {
	dir, job := endedRun(t, "error")
	chmod := func(change func(fs.FileMode) fs.FileMode) {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			return os.Chmod(p, change(info.Mode().Perm()))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, without := range []string{"", "state.db", "procs"} {
		if without != "" {
			if err := os.RemoveAll(filepath.Join(dir, ".hayrick", without)); err != nil {
				t.Fatal(err)
			}
		}
		chmod(func(m fs.FileMode) fs.FileMode { return m &^ 0o222 })
		before := listing(t, dir)
		for _, args := range [][]string{{"audit"}, {"audit", "--deep", string(job)}, {"audit", "--json", "@backfill"}} {
			exitsWith(t, dir, 0, args...)
		}
		if after := listing(t, dir); !slices.Equal(before, after) {
			t.Errorf("without %q: before\n%s\nafter\n%s", without, strings.Join(before, ""), strings.Join(after, ""))
		}
		chmod(func(m fs.FileMode) fs.FileMode { return m | 0o200 })
	}
}

// What is no file in the place of an object, or of a published one, is named; the walk
// goes on, and the exit code says that somebody has to look.
func TestAuditMeetsWhatIsNoFile(t *testing.T) {
	dir, job := endedRun(t, "error")
	store := filepath.Join(dir, ".hayrick", "jobs", string(job))
	var objects []string
	for _, top := range []string{store, filepath.Join(dir, "out")} {
		err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				objects = append(objects, p)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	spare := filepath.Join(dir, "spare")
	places := map[string]func(p string) error{
		"FIFO":                   func(p string) error { return syscall.Mkfifo(p, 0o644) },
		"folder":                 func(p string) error { return os.Mkdir(p, 0o755) },
		"link to the same bytes": func(p string) error { return os.Symlink(spare, p) },
		"link to nothing":        func(p string) error { return os.Symlink("nothing", p) },
		"link within its folder": func(p string) error { return os.Symlink(filepath.Base(p)+"~", p) },
		"socket":                 func(p string) error { return syscall.Mknod(p, syscall.S_IFSOCK|0o644, 0) },
	}
	kinds := map[string]bool{}
	for _, p := range objects {
		// One of each kind of object is enough.
		kind := strings.Trim(strings.Map(func(r rune) rune {
			if strings.ContainsRune("0123456789abcdef", r) {
				return -1
			}
			return r
		}, strings.TrimPrefix(p, dir)), "/")
		if kinds[kind] {
			continue
		}
		kinds[kind] = true
		for what, put := range places {
			if err := os.Rename(p, spare); err != nil {
				t.Fatal(err)
			}
			if err := put(p); err != nil {
				t.Fatal(err)
			}
			key := strings.TrimPrefix(p, store+"/")
			code := exitUnwell
			if strings.HasSuffix(p, "manifest.json") {
				code = exitDone // a view
			}
			if says := exitsWith(t, dir, code, "audit", string(job)); !strings.Contains(says, key) || strings.Contains(says, "bug") || strings.Contains(says, "written") {
				t.Errorf("a %s in place of %s: %s", what, key, says)
			}
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(spare, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(kinds) < 12 {
		t.Errorf("only %d kinds of objects in %q", len(kinds), objects)
	}
	exitsWith(t, dir, 0, "audit")
	// A later outcome that no plan leads to is a stranger, whatever it holds.
	later := filepath.Join(store, "outcome-1.json")
	write(t, later, "")
	if says := exitsWith(t, dir, 0, "audit"); !strings.Contains(says, "stranger outcome-1.json") {
		t.Error(says)
	}
	if err := os.Remove(later); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(later, 0o644); err != nil {
		t.Fatal(err)
	}
	if says := exitsWith(t, dir, 0, "audit"); !strings.Contains(says, "stranger outcome-1.json") {
		t.Error(says)
	}
}

// What was published and is gone or cut comes back with a resume, as the audit says;
// what others put there stays.
func TestResumePublishesAgain(t *testing.T) {
	for _, ifExists := range []string{"error", "overwrite", "append"} {
		dir, job := endedRun(t, ifExists)
		out := filepath.Join(dir, "out")
		parts, err := filepath.Glob(filepath.Join(out, "*part-00000.parquet"))
		if err != nil || len(parts) != 1 {
			t.Fatalf("%v, %v", parts, err)
		}
		sound, err := os.ReadFile(parts[0])
		if err != nil {
			t.Fatal(err)
		}
		mine := filepath.Join(out, "mine.parquet")
		write(t, mine, "mine")
		flipped := bytes.Clone(sound)
		flipped[len(flipped)/2] ^= 1
		success := filepath.Join(out, manifest.SuccessName)
		for name, harm := range map[string]func() error{
			"gone": func() error { return os.Remove(parts[0]) },
			"cut":  func() error { return os.Truncate(parts[0], 10) },
			"a link": func() error {
				elsewhere := filepath.Join(dir, "elsewhere")
				if err := os.Rename(parts[0], elsewhere); err != nil {
					return err
				}
				return os.Symlink(elsewhere, parts[0])
			},
			"flipped":        func() error { return os.WriteFile(parts[0], flipped, 0o644) },
			"not marked":     func() error { return os.Remove(success) },
			"marked wrongly": func() error { return os.WriteFile(success, []byte("x"), 0o644) },
			"all gone":       func() error { return os.RemoveAll(out) },
		} {
			if err := harm(); err != nil {
				t.Fatal(err)
			}
			if says := exitsWith(t, dir, exitUnwell, "audit"); !strings.Contains(says, "`hayrick resume "+string(job)+"`") {
				t.Errorf("%s, %s: %s", ifExists, name, says)
			}
			if name == "flipped" { // which a resume does not look for: the audit has said to remove it
				if err := os.Remove(parts[0]); err != nil {
					t.Fatal(err)
				}
			}
			if says := exitsWith(t, dir, 0, "resume", "@"); !strings.Contains(says, "published again") {
				t.Errorf("%s, %s: %s", ifExists, name, says)
			}
			if says := exitsWith(t, dir, 0, "audit"); strings.Contains(says, "broken") {
				t.Errorf("%s, %s: %s", ifExists, name, says)
			}
			if got, err := os.ReadFile(parts[0]); err != nil || !bytes.Equal(got, sound) {
				t.Errorf("%s, %s: the part has %d bytes: %v", ifExists, name, len(got), err)
			}
			if got, err := os.ReadFile(mine); name != "all gone" && (err != nil || string(got) != "mine") {
				t.Errorf("%s, %s: the file of another is %q: %v", ifExists, name, got, err)
			}
			if says := exitsWith(t, dir, 0, "resume", "@"); strings.Contains(says, "published again") {
				t.Errorf("%s, %s: a whole folder is published again: %s", ifExists, name, says)
			}
			write(t, mine, "mine")
		}
		if err := os.Remove(parts[0]); err != nil {
			t.Fatal(err)
		}
		if says := exitsWith(t, dir, 0, demoRun(ifExists, "--job-id", string(job))...); !strings.Contains(says, "published again") {
			t.Errorf("%s: run on the finished run: %s", ifExists, says)
		}
		exitsWith(t, dir, 0, "audit")
	}
}

// A part that was spoilt before the outcome named it is made again under another key,
// which the audit knows for what it is.
func TestSpoiltPartIsMadeAgain(t *testing.T) {
	dir, job := endedRun(t, "overwrite")
	store := filepath.Join(dir, ".hayrick", "jobs", string(job))
	parts, err := filepath.Glob(filepath.Join(store, "aggregation", "0", "part-*"))
	if err != nil || len(parts) != 1 {
		t.Fatalf("%v, %v", parts, err)
	}
	body, err := os.ReadFile(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	body[len(body)/3] ^= 1
	write(t, parts[0], string(body))
	for _, name := range []string{"outcome-0.json", "manifest.json", "aggregation/manifest.json", "../../../out"} { // as if the root had died
		if err := os.RemoveAll(filepath.Join(store, name)); err != nil {
			t.Fatal(err)
		}
	}
	exitsWith(t, dir, 0, "resume", "@")
	if says := exitsWith(t, dir, 0, "audit", "--deep"); !strings.Contains(says, "1 leftover") || !strings.Contains(says, "40 items = ") {
		t.Error(says)
	}
}
