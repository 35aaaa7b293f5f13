package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"hayrick"
	"hayrick/audit"
	"hayrick/manifest"
)

// inFolder is a story whose items lie in two objects, with one that is empty between;
// ref lists them beside the plan.
func inFolder(ref bool, change func(os []manifest.InputID, bs []manifest.Batch)) story {
	s := tiny()
	os := []manifest.InputID{
		{URI: "./in/a", Object: "./in/a", Items: 4, Pin: manifest.Pin{MTime: at(0), ETag: "1"}},
		{URI: "./in/b", Object: "./in/b", Items: 0, Pin: manifest.Pin{MTime: at(0), ETag: "2"}},
		{URI: "./in/c", Object: "./in/c", Items: 1, Pin: manifest.Pin{MTime: at(0), ETag: "3", Version: "v1"}},
	}
	var listed *manifest.Ref
	s.onBatches = initial(func(bs []manifest.Batch) []manifest.Batch {
		bs[0].Object, bs[1].Object, bs[2].Object = "./in/a", "./in/a", "./in/c"
		bs[2].Version = "v1"
		if change != nil {
			change(os, bs)
		}
		return bs
	})
	s.onGroup = func(w *world, g *manifest.Group) {
		if g.Name != hayrick.GroupInitial {
			return
		}
		r, _, err := w.mem.OpenSource(w.t.Context(), "./users.jsonl")
		w.must(err)
		all, err := io.ReadAll(r)
		w.must(err)
		w.mem.SetInput("./in/a", all) // the batches keep their offsets
		w.mem.SetInput("./in/c", all)
		if ref {
			listed = list(w, job.InputObjects, os)
		}
	}
	s.onPlan = func(p *manifest.Plan) {
		in := manifest.InputID{URI: "./in/", Object: "./in/", Pin: manifest.Pin{MTime: at(0), ETag: "list:x"}, Items: 5, ObjectsRef: listed}
		if !ref {
			in.Objects = os
		}
		p.Input = []manifest.InputID{in}
	}
	return s
}

// The objects of a folder are walked beside the batches, whether the plan holds their
// list or names it.
func TestAFolderOfInputs(t *testing.T) {
	for name, c := range map[string]struct {
		change func(os []manifest.InputID, bs []manifest.Batch)
		code   string
		says   string
	}{
		"as it was":                    {},
		"an object says more items":    {func(os []manifest.InputID, _ []manifest.Batch) { os[0].Items++ }, audit.CodeTotal, "5 items in ./in/a, the batches have 4"},
		"an empty object says an item": {func(os []manifest.InputID, _ []manifest.Batch) { os[1].Items++ }, audit.CodeTotal, "1 items in ./in/b, the batches have 0"},
		"another order":                {func(os []manifest.InputID, _ []manifest.Batch) { os[0], os[2] = os[2], os[0] }, audit.CodeBatch, "not in its place"},
		"an object that is not listed": {func(os []manifest.InputID, _ []manifest.Batch) { os[2].Object = "./in/d" }, audit.CodeBatch, "./in/c is no input"},
		"another version":              {func(os []manifest.InputID, _ []manifest.Batch) { os[2].Pin.Version = "v2" }, audit.CodeBatch, `version "v1" of ./in/c, the plan has "v2"`},
	} {
		for _, ref := range []bool{false, true} {
			r := build(t, inFolder(ref, c.change)).audit(true)
			if c.code == "" {
				if !r.Proven || r.Checked.Inputs == 0 {
					t.Errorf("%s (ref %v): %s %+v", name, ref, r.Line, r.Findings)
				}
				continue
			}
			found := false
			for _, f := range r.Findings {
				found = found || f.Code == c.code && strings.Contains(f.What, c.says)
			}
			if r.Proven || !found {
				t.Errorf("%s (ref %v): %s %+v, want %s: %s", name, ref, r.Line, r.Findings, c.code, c.says)
			}
		}
	}
	w := build(t, inFolder(true, nil))
	key := job.Abs(w.plan.Input[0].ObjectsRef.Key)
	w.mem.Damage(key, append(w.mem.Snapshot()[key], "{}\n"...))
	if r := w.audit(false); r.Proven || r.Findings[0].Key != job.Rel(key) {
		t.Errorf("a damaged list: %+v", r.Findings)
	}
}

// copier makes a copy again, or cannot.
type copier struct {
	sha string
	err error
}

func (c copier) CopyAgain(context.Context, manifest.Plan, manifest.InputID) (string, error) {
	return c.sha, c.err
}

// An audit that goes deep makes copies again. That one comes out otherwise, or that it
// cannot be made, is told and breaks nothing: the promise is about what was run. A store
// that does not answer ends the audit.
func TestCopiesAreMadeAgain(t *testing.T) {
	w := build(t, copied(true))
	sha := w.plan.Input[0].SHA256
	down := errors.New("connection refused")
	for _, c := range []struct {
		copier
		line, note string
		end        error
	}{
		{copier{sha: sha}, "5 files decoded, 1 copy of the input made again; ", "", nil},
		{copier{sha: "0"}, "5 files decoded; ", "the first: that of ./users.jsonl; the items are those of the copy", nil},
		{copier{err: fmt.Errorf("open: %w", hayrick.ErrInputChanged)}, "5 files decoded; ", "1 copy of the input was not compared with what it was made of, the first: ./users.jsonl: open: input changed", nil},
		{copier{err: &hayrick.UserError{What: "standard input is read once"}}, "5 files decoded; ", "./users.jsonl: standard input is read once", nil},
		{copier{err: down}, "", "", down},
	} {
		o := w.options()
		o.Deep, o.Copier = true, c.copier
		r, err := audit.Run(t.Context(), o)
		if !errors.Is(err, c.end) || c.end == nil && err != nil {
			t.Errorf("%+v: %v", c.copier, err)
			continue
		}
		notes := strings.Join(r.Notes, "\n")
		if err == nil && (!r.Proven || !strings.Contains(r.Line, c.line) || !strings.Contains(notes, c.note) || (notes == "") != (c.note == "")) {
			t.Errorf("%+v: proven %v\n%s\n%s", c.copier, r.Proven, r.Line, notes)
		}
	}
	o := w.options()
	o.Copier = copier{err: down}
	if r, err := audit.Run(t.Context(), o); err != nil || !r.Proven {
		t.Errorf("not deep: %v", err)
	}
}
