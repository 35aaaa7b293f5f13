package local

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hayrick/manifest"
)

// FuzzObjectKeys: whatever is asked for as a key, or as a name in an output folder, is a
// file below the store or the folder, or is refused; links that lie there lead nowhere.
func FuzzObjectKeys(f *testing.F) {
	parent := f.TempDir()
	outside := filepath.Join(parent, "outside")
	at, out := filepath.Join(parent, "store"), filepath.Join(parent, "out")
	for _, dir := range []string{outside, out} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644); err != nil {
		f.Fatal(err)
	}
	s, err := Open(context.Background(), at, world(newClock()), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	if err := s.Replace(context.Background(), "jobs/j/manifest.json", nil); err != nil {
		f.Fatal(err)
	}
	// Links in the place of a folder, to one outside and to the file in it.
	for _, link := range []string{filepath.Join(at, "jobs", "link"), filepath.Join(at, "jobs", "j", "link"), filepath.Join(out, "link"), filepath.Join(out, "day=x")} {
		if err := os.Symlink(outside, link); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(at, "jobs", "j", "plan.json")); err != nil {
		f.Fatal(err)
	}
	for _, k := range []string{
		"jobs/j/config-x.yaml", "jobs/link/secret", "jobs/link/new", "jobs/j/link/secret", "jobs/j/plan.json", "jobs/../../outside/secret", "../outside/new", "/etc/passwd", "jobs/j/\x00", "jobs/j/é",
		"part-00000.parquet", "day=x/part-00000.parquet", "link/secret", "lists/x.jsonl", "../outside/secret", "jobs/" + strings.Repeat("a", 255), strings.Repeat("a/", 500) + "b", "jobs/j", "jobs/j/manifest.json/below",
	} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key string) {
		ctx := t.Context()
		body := []byte("object")
		err := s.Replace(ctx, key, body)
		b, rerr := readAll(s, key)
		switch {
		case err == nil && (!manifest.ValidKey(key) || rerr != nil || b != "object"):
			t.Fatalf("%q is stored, and reads %q, %v", key, b, rerr)
		case err == nil:
			if info, err := os.Lstat(filepath.Join(at, filepath.FromSlash(key))); err != nil || !info.Mode().IsRegular() {
				t.Fatalf("%q is stored elsewhere: %v", key, err)
			}
		case rerr == nil && !manifest.ValidKey(key):
			t.Fatalf("%q reads %q", key, b)
		}
		if strings.Contains(b, "secret") {
			t.Fatalf("%q reads what lies outside", key)
		}
		if err := s.Remove(ctx, key); err == nil && !manifest.ValidKey(key) {
			t.Fatalf("%q is removed", key)
		}
		if err := s.PublishBytes(ctx, out+"/", key, body); err == nil {
			if info, err := os.Lstat(filepath.Join(out, filepath.FromSlash(key))); err != nil || !info.Mode().IsRegular() || !manifest.ValidOutputName(key) {
				t.Fatalf("%q is published elsewhere: %v", key, err)
			}
			if err := s.RemoveOutput(ctx, out+"/", key); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := s.OpenOutput(ctx, out+"/", key); err == nil {
			r.Close()
			t.Fatalf("%q is read from the output", key)
		}
		if err := s.RemoveOutput(ctx, out+"/", key); err == nil && !manifest.ValidOutputName(key) {
			t.Fatalf("%q is removed from the output", key)
		}
		// Beside the store and the folder nothing has changed.
		for dir, want := range map[string]string{parent: "out outside store", outside: "secret"} {
			entries, err := os.ReadDir(dir)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if got := strings.Join(names, " "); err != nil || got != want {
				t.Fatalf("%q leaves %s in %s", key, got, dir)
			}
		}
		if b, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(b) != "secret" {
			t.Fatalf("%q changes what lies outside to %q, %v", key, b, err)
		}
	})
}

func readAll(s *Store, key string) (string, error) {
	r, err := s.Open(context.Background(), key, 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	var b strings.Builder
	buf := make([]byte, 64)
	for {
		n, err := r.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String(), nil
		}
	}
}

// FuzzReceipts: a receipt names one delivery of one life of the state, and what is none
// names nothing.
func FuzzReceipts(f *testing.F) {
	for _, s := range []string{"abc.1.2", "abc.1", "abc.1.2.3", "abc.-1.2", "abc.+1.2", "xyz.1.2", ".1.2", "", "abc.9223372036854775808.1", "abc.0x1.1"} {
		f.Add(s, int64(1), int64(2))
	}
	f.Fuzz(func(t *testing.T, r string, id, count int64) {
		const life = "0123abcd"
		if a, b, ok := parseReceipt(receipt(life, id, count), life); !ok || a != id || b != count {
			t.Fatalf("%d, %d come back as %d, %d, %v", id, count, a, b, ok)
		}
		if _, _, ok := parseReceipt(receipt(life, id, count), "abc"); ok {
			t.Fatal("a receipt is taken in another life")
		}
		a, b, ok := parseReceipt(r, "abc")
		if ok && receipt("abc", a, b) != r && !strings.ContainsAny(r, "+0") {
			t.Fatalf("%q is read as %d, %d", r, a, b)
		}
		if ok && !strings.HasPrefix(r, "abc.") {
			t.Fatalf("%q is a receipt", r)
		}
	})
}
