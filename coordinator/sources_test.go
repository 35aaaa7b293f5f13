package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
)

const folderURI = "./in/"

// folder is a submission of the objects, which are made.
func (r *rig) folder(objects map[string]string) Submission {
	for name, data := range objects {
		r.mem.SetInput(folderURI+name, []byte(data))
	}
	s := submission()
	s.Definition.Input.URI = folderURI
	return s
}

var threeObjects = map[string]string{
	"b.jsonl":       "{\"did\":4}\n\n{\"did\":5}",
	"a.jsonl":       "\xef\xbb\xbf{\"did\":1}\n{\"did\":2}\n{\"did\":3}\n",
	"a/empty.jsonl": " \n\n",
	"z.jsonl":       "{\"did\":6}\n",
	"_SUCCESS":      "{}",
	".x/y.jsonl":    "{\"did\":7}\n",
}

var objectItems = []string{`{"did":1}`, `{"did":2}`, `{"did":3}`, `{"did":4}`, `{"did":5}`, `{"did":6}`}

// Several objects are one input: in the order of their names, ordinals run on, a batch
// lies in one of them, and what is empty or bookkeeping has no items.
func TestAFolderIsOneInput(t *testing.T) {
	for _, snapshot := range []string{"auto", "clone", "copy"} {
		t.Run(snapshot, func(t *testing.T) {
			r := newRig(t)
			s := r.folder(threeObjects)
			if snapshot == "copy" {
				s.Definition.Input.Snapshot = snapshot
			}
			r.mem.CanClone = snapshot == "clone"
			var bytes, total, items int64
			s.Progress = func(b, n, i int64) { bytes, total, items = b, n, i }
			got := r.submit(t, s)
			if have := r.items(t, got.Plan); !slices.Equal(have, objectItems) {
				t.Fatalf("items %q", have)
			}
			in := got.Plan.Input[0]
			if len(got.Plan.Input) != 1 || in.URI != folderURI || in.Items != 6 || in.Pin.Size != total || bytes != total || items != 6 {
				t.Errorf("input %+v; %d of %d bytes, %d items", in, bytes, total, items)
			}
			var about []string
			for _, o := range in.Objects {
				if stored := strings.HasPrefix(o.Object, manifest.StoreScheme+"input/"); stored != (snapshot != "auto") {
					t.Errorf("object %+v", o)
				}
				about = append(about, fmt.Sprintf("%s %d", o.URI, o.Items))
			}
			if want := []string{"./in/a.jsonl 3", "./in/a/empty.jsonl 0", "./in/b.jsonl 2", "./in/z.jsonl 1"}; !slices.Equal(about, want) {
				t.Errorf("objects %q", about)
			}
			if got.Plan.Group.Tasks != 4 {
				t.Errorf("%d tasks, want 2 + 1 + 1", got.Plan.Group.Tasks)
			}
			if again := r.submit(t, s); again.JobID != got.JobID || !again.Resumed {
				t.Errorf("the same folder gave %s", again.JobID)
			}
			r.mem.SetInput(folderURI+"c.jsonl", []byte("{\"did\":8}\n"))
			_, err := r.Submit(t.Context(), s)
			if user := (*hayrick.UserError)(nil); !errors.As(err, &user) || user.Exit != 7 || !strings.Contains(user.What, "the input has changed") {
				t.Errorf("another object beside an unfinished run: %v", err)
			}
		})
	}
}

// The limit counts items over objects, and what lies behind it is not opened.
func TestAFolderLimited(t *testing.T) {
	for limit, objects := range map[int64]int{1: 1, 3: 1, 4: 3, 5: 3, 6: 4, 99: 4} {
		r := newRig(t)
		s := r.folder(threeObjects)
		s.Definition.Input.Limit = limit
		got := r.submit(t, s)
		want := objectItems[:min(limit, 6)]
		if have := r.items(t, got.Plan); !slices.Equal(have, want) || len(got.Plan.Input[0].Objects) != objects {
			t.Errorf("limit %d: items %q of %d objects, want %d", limit, have, len(got.Plan.Input[0].Objects), objects)
		}
	}
}

func TestFoldersThatHoldNothing(t *testing.T) {
	for want, objects := range map[string]map[string]string{
		"there is nothing below the input ./in/": {"_SUCCESS": "", ".x/a": "1\n"},
		"./in/ holds no items":                   {"a": "", "b": "\n"},
	} {
		r := newRig(t)
		_, err := r.Submit(t.Context(), r.folder(objects))
		if user := (*hayrick.UserError)(nil); !errors.As(err, &user) || user.What != want || user.Hint == "" {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A folder of many objects is listed beside the plan, and no part of a submission
// holds all of it.
func TestAFolderOfManyObjects(t *testing.T) {
	const n = manifest.InlineObjects + 300
	r := newRig(t)
	objects := map[string]string{}
	for i := range n {
		objects[fmt.Sprintf("part-%05d", i)] = fmt.Sprintf("{\"did\":%d}\n", i)
	}
	s := r.folder(objects)
	s.Definition.Batch.Items = 11
	got := r.submit(t, s)
	if !strings.Contains(r.logs.String(), "the objects of the input are small") {
		t.Errorf("nobody is told: %s", r.logs)
	}
	in := got.Plan.Input[0]
	if in.Objects != nil || in.ObjectsRef == nil || in.ObjectsRef.Count != n || in.Items != n {
		t.Fatalf("input %+v", in)
	}
	var i int64
	if err := manifest.ReadLines(t.Context(), r.Store, got.JobID, *in.ObjectsRef, func(o manifest.InputID) error {
		if o.URI != fmt.Sprintf("./in/part-%05d", i) || o.Items != 1 || o.Pin.ETag == "" {
			return fmt.Errorf("object %d is %+v", i, o)
		}
		i++
		return nil
	}); err != nil {
		t.Error(err)
	}
	if items := r.items(t, got.Plan); len(items) != n {
		t.Errorf("%d items", len(items))
	}
}

// What changes while a folder is read is named, and nothing is planned; what comes
// into it is of the next run.
func TestAFolderChangesWhileItIsRead(t *testing.T) {
	for name, tc := range map[string]struct {
		at     string // the object whose opening it happens at
		change func(*rig)
		names  string // "" = it is planned
	}{
		"replaced before it is opened": {"a.jsonl", func(r *rig) { r.mem.SetInput(folderURI+"z.jsonl", []byte("1\n")) }, "z.jsonl"},
		"deleted before it is opened":  {"a.jsonl", func(r *rig) { r.mem.SetInput(folderURI+"z.jsonl", nil) }, "z.jsonl"},
		"replaced after it was read":   {"z.jsonl", func(r *rig) { r.mem.SetInput(folderURI+"a.jsonl", []byte("1\n")) }, "a.jsonl"},
		"deleted after it was read":    {"z.jsonl", func(r *rig) { r.mem.SetInput(folderURI+"a.jsonl", nil) }, "a.jsonl"},
		"the last one goes at the end": {"z.jsonl", func(r *rig) { r.mem.SetInput(folderURI+"z.jsonl", nil) }, "z.jsonl"},
		"touched, with the same bytes": {"z.jsonl", func(r *rig) { r.mem.SetInput(folderURI+"a.jsonl", []byte(threeObjects["a.jsonl"])) }, "a.jsonl"},
		"another one comes in between": {"z.jsonl", func(r *rig) { r.mem.SetInput(folderURI+"aa", []byte("9\n")) }, ""},
		"another one comes at the ends": {"z.jsonl", func(r *rig) {
			r.mem.SetInput(folderURI+"0", []byte("9\n"))
			r.mem.SetInput(folderURI+"zz", []byte("9\n"))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			s := r.folder(threeObjects)
			r.World.Go = func(name string, f func()) {
				if name == "open source" { // in their order
					f()
					return
				}
				goPlainly(name, f)
			}
			done := false
			r.mem.Hook = func(c mem.Call) mem.Fault {
				if c.Op == "OpenSource" && c.Key == folderURI+tc.at && !done {
					done = true
					r.clock.Sleep(t.Context(), time.Second)
					tc.change(r)
				}
				return mem.Fault{}
			}
			got, err := r.Submit(t.Context(), s)
			if tc.names == "" {
				if err != nil || got.Plan.Items != 6 {
					t.Errorf("%d items, %v", got.Plan.Items, err)
				}
				return
			}
			var user *hayrick.UserError
			if !errors.As(err, &user) || !errors.Is(err, hayrick.ErrInputChanged) || !strings.Contains(user.What, tc.names) || len(r.plans()) != 0 {
				t.Errorf("got %v, plans %q; want an error that names %s", err, r.plans(), tc.names)
			}
		})
	}
}

// unordered lists a folder backwards, as some stores do.
type unordered struct{ Sources }

func (u unordered) ListSources(ctx context.Context, uri string, fn func(string, manifest.Pin) error) error {
	var all []func() error
	err := u.Sources.ListSources(ctx, uri, func(object string, pin manifest.Pin) error {
		all = append(all, func() error { return fn(object, pin) })
		return nil
	})
	for _, f := range slices.Backward(all) {
		err = errors.Join(err, f())
	}
	return err
}

// A folder whose store has no order of names has no ordinals.
func TestAFolderWithoutOrder(t *testing.T) {
	r := newRig(t)
	s := r.folder(threeObjects)
	r.Sources = unordered{r.Sources}
	if _, err := r.Submit(t.Context(), s); err == nil || !strings.Contains(err.Error(), "no order of names") {
		t.Error(err)
	}
}
