package storetest

import (
	"errors"
	"slices"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

var inputTests = map[string]func(*harness){
	"Stat":  testStat,
	"Open":  testOpenInput,
	"Store": testOpenStored,
	"Clone": testClone,
	"List":  testListSources,
}

func testStat(h *harness) {
	uri := h.SetInput("users.jsonl", []byte("0123456789"))
	pin, err := h.Inputs.Stat(h.Ctx, uri)
	h.must(err)
	if pin.Size != 10 || pin.MTime.IsZero() || pin.DevInode+pin.ETag == "" {
		h.Errorf("pin is %+v", pin)
	}
	again, err := h.Inputs.Stat(h.Ctx, uri)
	h.must(err)
	if again != pin {
		h.Errorf("an unchanged input has pins %+v and %+v", pin, again)
	}
	h.pass(2_000_000) // 2 ms: what a pin can tell apart
	h.SetInput("users.jsonl", []byte("9876543210, longer"))
	if changed, err := h.Inputs.Stat(h.Ctx, uri); err != nil || changed == pin {
		h.Errorf("a changed input has pin %+v, %v", changed, err)
	}
	_, err = h.Inputs.Stat(h.Ctx, uri+".no")
	h.is(err, hayrick.ErrNotFound)
}

func (h *harness) batch(object string, offset, length int64) (string, error) {
	h.Helper()
	r, err := h.Inputs.OpenInput(h.Ctx, string(job), manifest.Batch{Object: object, Offset: offset, Length: length})
	if err != nil {
		return "", err
	}
	return h.drain(r), nil
}

func testOpenInput(h *harness) {
	uri := h.SetInput("users.jsonl", []byte("0123456789"))
	want, err := h.Inputs.Stat(h.Ctx, uri)
	h.must(err)
	r, pin, err := h.Inputs.OpenSource(h.Ctx, uri)
	h.must(err)
	if got := h.drain(r); got != "0123456789" || pin != want {
		h.Errorf("%q with pin %+v, it is %+v", got, pin, want)
	}
	for _, c := range []struct {
		offset, length int64
		want           string
	}{{2, 3, "234"}, {0, 10, "0123456789"}, {8, 5, "89"}, {10, 1, ""}, {50, 2, ""}} {
		if got, err := h.batch(uri, c.offset, c.length); err != nil || got != c.want {
			h.Errorf("[%d, +%d) is %q, %v", c.offset, c.length, got, err)
		}
	}
	empty := h.SetInput("empty.jsonl", []byte{})
	r, pin, err = h.Inputs.OpenSource(h.Ctx, empty)
	h.must(err)
	if got := h.drain(r); got != "" || pin.Size != 0 {
		h.Errorf("an empty input is %q, %+v", got, pin)
	}
	_, _, err = h.Inputs.OpenSource(h.Ctx, uri+".no")
	h.is(err, hayrick.ErrNotFound)
	_, err = h.batch(uri+".no", 0, 1)
	h.is(err, hayrick.ErrNotFound)
}

func testOpenStored(h *harness) {
	key := job.Segment("retry_batch_1", 0, "abc")
	h.put(key, "0123456789")
	if got, err := h.batch(manifest.StoreScheme+job.Rel(key), 5, 2); err != nil || got != "56" {
		h.Errorf("[5, +2) is %q, %v", got, err)
	}
	_, err := h.batch(manifest.StoreScheme+"batches/no", 0, 1)
	h.is(err, hayrick.ErrNotFound)
	if _, err := h.batch(manifest.StoreScheme+"../../../etc/passwd", 0, 10); err == nil {
		h.Error("a stored object may lie outside the store")
	}
}

// A folder is what lies below it, in the bytewise order of names, whatever the order
// of its folders; bookkeeping is left out.
func testListSources(h *harness) {
	want := []string{"in/a-b/1.jsonl", "in/a/1.jsonl", "in/a/b/c", "in/a0", "in/empty.jsonl", "in/b c+é%20.jsonl", "in/x.jsonl"}
	slices.Sort(want)
	uris := map[string]string{}
	for _, name := range append([]string{"in/_SUCCESS", "in/.git/config", "in/_tmp/part", "in/a/.x", "inside.jsonl", "i/y"}, want...) {
		data := []byte(name)
		if name == "in/empty.jsonl" {
			data = []byte{}
		}
		uris[name] = h.SetInput(name, data)
	}
	root := strings.TrimSuffix(uris["in/x.jsonl"], "x.jsonl")
	var got []string
	h.must(h.Inputs.ListSources(h.Ctx, root, func(object string, pin manifest.Pin) error {
		name := "in/" + strings.TrimPrefix(object, root)
		got = append(got, name)
		if object != uris[name] {
			h.Errorf("%s is listed as %s, want %s", name, object, uris[name])
		}
		r, opened, err := h.Inputs.OpenSource(h.Ctx, object)
		h.must(err)
		text := h.drain(r)
		if opened.Version = ""; opened != pin || name != "in/empty.jsonl" && text != name {
			h.Errorf("%s is listed with %+v, it is %q with %+v", name, pin, text, opened)
		}
		return nil
	}))
	if !slices.Equal(got, want) {
		h.Errorf("got %q\nwant %q", got, want)
	}
	enough := errors.New("enough")
	n := 0
	err := h.Inputs.ListSources(h.Ctx, root, func(string, manifest.Pin) error { n++; return enough })
	if !errors.Is(err, enough) || n != 1 {
		h.Errorf("a list that is not wanted any more went on to %d: %v", n, err)
	}
	n = 0
	if err := h.Inputs.ListSources(h.Ctx, root+"no/", func(string, manifest.Pin) error { n++; return nil }); err != nil {
		h.is(err, hayrick.ErrNotFound)
	}
	if n > 0 {
		h.Errorf("a folder that is not there has %d inputs", n)
	}
}

// A clone either is the input's bytes under the key, or leaves no trace.
func testClone(h *harness) {
	uri := h.SetInput("users.jsonl", []byte("0123456789"))
	did, err := h.Inputs.Clone(h.Ctx, uri, job.Input("users.jsonl", "abc"))
	h.must(err)
	if did {
		if got := h.read(job.Input("users.jsonl", "abc"), 0, -1); got != "0123456789" {
			h.Errorf("the clone is %q", got)
		}
	} else {
		_, err := h.Objects.Open(h.Ctx, job.Input("users.jsonl", "abc"), 0, -1)
		h.is(err, hayrick.ErrNotFound)
	}
	if did, err := h.Inputs.Clone(h.Ctx, uri+".no", job.Input("no", "abc")); did || err != nil && !errors.Is(err, hayrick.ErrNotFound) {
		h.Errorf("what is not there was cloned: %v, %v", did, err)
	}
}
