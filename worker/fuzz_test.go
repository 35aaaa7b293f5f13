package worker

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/klauspost/compress/zstd"

	"hayrick"
	"hayrick/manifest"
)

// FuzzUnpack: a bundle is unpacked into its folder, the same each time, or is damage;
// nothing of it lies beside the folder, is no file, or passes what a bundle may hold.
func FuzzUnpack(f *testing.F) {
	for _, heads := range [][]tar.Header{
		nil, {{Name: "handler.py", Size: 600}, {Name: "lib/a.py", Size: 7}}, {{Name: "../outside", Size: 5}}, {{Name: "/outside", Size: 1}},
		{{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "lib/outside", Size: 5}}, {{Name: "lib", Typeflag: tar.TypeLink, Linkname: "../secret"}},
		{{Name: "a", Size: 1}, {Name: "a/b", Size: 1}}, {{Name: "a/./b/../c", Size: 1}}, {{Name: "x", Typeflag: tar.TypeChar}}, {{Name: "sparse", Typeflag: tar.TypeGNUSparse}},
	} {
		whole := packed(f, heads...)
		f.Add(tarOf(f, whole), true)
		f.Add(whole, false)
	}
	const most = 64 << 10
	parent := f.TempDir()
	must := func(err error) {
		if err != nil {
			f.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(parent, "secret"), []byte("s"), 0o600))
	pack, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(zstd.MinWindowSize))
	must(err)
	f.Fuzz(func(t *testing.T, body []byte, isTar bool) {
		if isTar { // so that changes are not lost in the compression
			body = pack.EncodeAll(body, nil)
		}
		var trees []map[string]string
		for range 2 {
			dir, err := os.MkdirTemp(parent, "bundle-")
			if err != nil {
				t.Fatal(err)
			}
			err = unpack(bytes.NewReader(body), manifest.SHA256(body), dir, most)
			if err != nil && !errors.Is(err, hayrick.ErrCorrupt) {
				t.Fatal(err)
			}
			tree, size := map[string]string{}, 0
			if e := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				info, err := d.Info()
				if err != nil || !info.Mode().IsRegular() {
					t.Errorf("%s is there, %v", path, err)
					return err
				}
				b, err := os.ReadFile(path)
				rel, _ := filepath.Rel(dir, path)
				tree[rel], size = string(b), size+len(b)
				if errors.Is(err, fs.ErrPermission) {
					err = nil // as the bundle says
				}
				return err
			}); e != nil && !errors.Is(e, fs.ErrPermission) {
				t.Fatal(e)
			}
			if size > most+32<<10 {
				t.Fatalf("%d bytes are left", size)
			}
			trees = append(trees, tree)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(trees[0], trees[1]) {
			t.Fatalf("it is unpacked as %v, and as %v", trees[0], trees[1])
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Fatalf("beside it there are %v, %v", entries, err)
		}
	})
}

// FuzzFields: whether a record is an item, and its label, is one answer, whoever is asked.
func FuzzFields(f *testing.F) {
	for _, s := range []string{`{"id":"a"}`, `{"id":1.50}`, `{"id":null}`, `{"id":[1]}`, `{"id":""}`, `{"ID":"a","id":"b","id":"c"}`, ` {"id":true} `, `[]`, `"x"`, `{"id":"\ud800"}`, "{\"id\":\"\xff\"}", "\ufeff{}", `{"id":"a"}x`, `{"id":"\u0000"}`} {
		f.Add([]byte(s), "id")
		f.Add([]byte(s), "")
	}
	f.Fuzz(func(t *testing.T, record []byte, field string) {
		fields, ok := ParseFields(record)
		if is := isObject(record); is != ok {
			t.Fatalf("%q has fields: %v, is an object: %v", record, ok, is)
		}
		text, has := fields.Text(field)
		it := manifest.BatchItem{Ordinal: 7, Data: record}
		want := "7"
		if has && field != "" {
			want = text
		}
		if got := it.Label(field); got != want {
			t.Fatalf("%q of %q is %q, and as a label %q", field, record, want, got)
		}
		key, err := RateKey("$(item."+field+")", fields)
		if (err == nil) != has || key != text {
			t.Fatalf("%q of %q is %q, %v, and as the key of a rate %q, %v", field, record, text, has, key, err)
		}
		if has && !json.Valid(record) {
			t.Fatalf("%q has a field", record)
		}
	})
}

// FuzzRestore: what lies where a checkpoint is to be is a journal of the work, or damage
// that leaves nothing behind; its entries can be read, or are damage too.
func FuzzRestore(f *testing.F) {
	ref := hayrick.TaskRef{JobID: "job-1", TaskID: "task-0001"}
	work := Fingerprint{BatchSHA256: "ba", DefinitionSHA256: "de", BundleSHA256: "bu"}
	const attempt = "aaaaaaaa00000000aaaaaaaa00000000"
	js := FileJournals{Dir: f.TempDir(), BootID: "boot-1"}
	j, err := js.Create(f.Context(), ref, attempt, work)
	if err != nil {
		f.Fatal(err)
	}
	if err := j.Record(f.Context(), Entry{Ordinal: 3, Ended: true, OK: true, Key: "k", Tries: 1, RowCount: 1, Rows: []byte("rows")}, Entry{Ordinal: 4, Class: "x", Tries: 2}); err != nil {
		f.Fatal(err)
	}
	r, err := j.Snapshot(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	var snapshot bytes.Buffer
	if _, err := snapshot.ReadFrom(r); err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(r.Close(), j.Close(true)); err != nil {
		f.Fatal(err)
	}
	whole := snapshot.Bytes()
	f.Add(whole, uint16(0), byte(0))
	for at := range 24 {
		f.Add(whole, uint16(at*4), byte(0xff))
	}
	f.Add([]byte(nil), uint16(0), byte(0))
	f.Add([]byte("SQLite format 3\x00"), uint16(0), byte(0))
	f.Add([]byte(`{"Fingerprint":{}}`), uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, body []byte, at uint16, flip byte) {
		if body = bytes.Clone(body); len(body) > 0 {
			body[int(at)%len(body)] ^= flip
		}
		j, err := js.Restore(t.Context(), ref, attempt, work, bytes.NewReader(body))
		if err != nil {
			if !errors.Is(err, hayrick.ErrCorrupt) {
				t.Fatal(err)
			}
		} else {
			n := 0
			err := j.Each(t.Context(), func(e Entry) error {
				n++
				_ = bytes.Clone(e.Rows)
				return nil
			})
			if err != nil && !errors.Is(err, hayrick.ErrCorrupt) {
				t.Fatal(err)
			}
			if bytes.Equal(body, whole) && (err != nil || n != 2) {
				t.Fatalf("a sound checkpoint has %d entries, %v", n, err)
			}
			if err := j.Close(true); err != nil {
				t.Logf("closed with %v", err)
			}
		}
		if left, err := os.ReadDir(filepath.Join(js.Dir, "job", ref.JobID, "task")); err == nil && len(left) > 0 {
			t.Fatalf("%v is left", left)
		}
	})
}
