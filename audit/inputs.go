package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// sources yields the objects that the items of the job lie in, in the order of their
// ordinals: the inputs of the plan, and of a folder what it held.
func (a *auditor) sources(ctx context.Context) iter.Seq[manifest.InputID] {
	return func(yield func(manifest.InputID) bool) {
		for _, in := range a.plan.Input {
			if len(in.Objects) == 0 && in.ObjectsRef == nil {
				if !yield(in) {
					return
				}
				continue
			}
			for member := range lines(ctx, a.look, in.Objects, in.ObjectsRef) {
				if !yield(member) {
					return
				}
			}
		}
	}
}

// readInputs checks the lists of folders, and the copies of inputs in the store.
func (a *auditor) readInputs(ctx context.Context) error {
	for _, in := range a.plan.Input {
		if in.ObjectsRef != nil && !a.list(ctx, *in.ObjectsRef, a.job.InputObjects) {
			return errTorn
		}
	}
	for in := range a.sources(ctx) {
		rel, stored := strings.CutPrefix(in.Object, manifest.StoreScheme)
		if !stored {
			continue
		}
		if !strings.HasPrefix(rel, "input/") {
			a.broken(CodeKey, a.job.Rel(a.job.Plan()), "the copy of its input lies under %s", rel)
			continue
		}
		// A clone has no digest of its own; its batches have.
		if _, ok := a.hash(ctx, rel, in.SHA256, in.Length()); ok {
			a.checked.Data++
			a.copyAgain(ctx, in)
		}
	}
	return a.err
}

// copies counts what became of making copies again.
type copies struct {
	differ, not       int64 // from what they are today; and not made
	different, notWhy string
}

// copyAgain makes the copy of an input again, and compares.
func (a *auditor) copyAgain(ctx context.Context, in manifest.InputID) {
	if !a.Deep || a.Copier == nil || in.SHA256 == "" || a.err != nil {
		return
	}
	name := cmp.Or(in.URI, "the handler's list")
	sha, err := a.Copier.CopyAgain(ctx, a.plan, in)
	var user *hayrick.UserError
	switch {
	case err == nil && sha == in.SHA256:
		a.checked.Copies++
	case err == nil:
		if a.copies.differ++; a.copies.differ == 1 {
			a.copies.different = name
		}
	case ctx.Err() == nil && (errors.As(err, &user) || unreadable(err) || errors.Is(err, hayrick.ErrInputChanged) ||
		errors.Is(err, hayrick.ErrNotFound) || errors.Is(err, hayrick.ErrDenied)):
		if a.copies.not++; a.copies.not == 1 {
			a.copies.notWhy = fmt.Sprintf("%s: %v", name, err)
		}
	default:
		a.err = fmt.Errorf("make the copy of %s again: %w", name, err)
	}
}

// noteCopies says which copies were not compared with what they were made of, or are not
// what they would be today.
func (a *auditor) noteCopies() {
	if n := a.copies.differ; n > 0 {
		a.note("made again today, %s otherwise than when the run was submitted, the first: that of %s; the items are those of the copy. Another version of hayrick may make it otherwise; else the file was changed and kept its size and time",
			count(n, "copy of the input comes out", "copies of inputs come out"), a.copies.different)
	}
	if n := a.copies.not; n > 0 {
		a.note("%s not compared with what it was made of, the first: %s", count(n, "copy of the input was", "copies of inputs were, each,"), a.copies.notWhy)
	}
}

// reading is how far the batches of the initial group have come in the inputs.
type reading struct {
	a       *auditor
	sources stream[manifest.InputID]
	in      manifest.InputID
	open    bool
	items   int64 // of the batches in it so far
}

// to moves on to the object that a batch lies in; ok is false where it is none of the
// plan, or stands in another order. moved says that it is not the one before.
func (r *reading) to(object string) (moved, ok bool) {
	for !r.open || r.in.Object != object {
		r.leave()
		if r.in, r.open = r.sources.next(); !r.open {
			return true, false
		}
		moved, r.items = true, 0
	}
	return moved, true
}

// leave compares the items of an object with its batches. Of an input that is but one
// object the totals of the plan tell.
func (r *reading) leave() {
	if whole := len(r.a.plan.Input) == 1 && r.a.plan.Input[0].URI == r.in.URI; r.open && !whole && r.items != r.in.Items {
		r.a.broken(CodeTotal, r.a.job.Rel(r.a.job.Plan()), "it says %d items in %s, the batches have %d", r.in.Items, r.in.URI, r.items)
	}
}

// end checks what no batch lies in.
func (r *reading) end() {
	for r.leave(); r.open; r.leave() {
		r.in, r.open = r.sources.next()
		r.items = 0
	}
}

// startReading reads the sources beside the batches of the initial group.
func (a *auditor) startReading(ctx context.Context, group string, stops *[]func()) *reading {
	if group != hayrick.GroupInitial {
		return nil
	}
	return &reading{a: a, sources: streamOf(a.sources(ctx), stops)}
}
