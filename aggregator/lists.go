package aggregator

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"hayrick"
	"hayrick/manifest"
)

// lists merges the items that every retry plan gave up into the lists of the
// dataset, each in ordinal order. An empty list is not written.
func (a *Aggregator) lists(ctx context.Context, job *jobOf) ([]manifest.List, error) {
	writers := map[string]*manifest.ListWriter{}
	defer func() {
		for _, w := range writers {
			w.Close()
		}
	}()
	for _, exhausted := range []bool{false, true} {
		var refs []manifest.Ref
		for _, r := range job.retries {
			ref := r.PermanentList
			if exhausted {
				ref = r.ExhaustedList
			}
			if ref != nil {
				refs = append(refs, *ref)
			}
		}
		var lines int64
		if err := a.mergeLists(ctx, job, refs, func(l manifest.ListLine) error {
			lines++
			name := ListName(job.def.Retry.Lists, l.Class, exhausted)
			w := writers[name]
			if w == nil {
				temp, err := a.Temp()
				if err != nil {
					return err
				}
				w = manifest.NewListWriter(temp)
				writers[name] = w
			}
			l.Ordinal = job.plan.InputOrdinal(l.Ordinal)
			return w.Add(l)
		}); err != nil {
			return nil, err
		}
		permanent, due := job.givenUp()
		if !exhausted {
			due = permanent
		}
		if lines != due {
			return nil, fmt.Errorf("the retry plans gave up %d items and list %d: %w", due, lines, hayrick.ErrCorrupt)
		}
	}
	out := []manifest.List{}
	for _, name := range slices.Sorted(maps.Keys(writers)) {
		ref, err := writers[name].Put(ctx, a.Store, job.id, func(sha string) string { return job.key.List(job.generation, name, sha) })
		if err != nil {
			return nil, err
		}
		out = append(out, manifest.List{Name: name, Key: ref.Key, SHA256: ref.SHA256, Count: ref.Count})
	}
	return out, nil
}

// mergeLists calls fn for the lines of lists that are each sorted by ordinal, in
// the order of all of them.
func (a *Aggregator) mergeLists(ctx context.Context, job *jobOf, refs []manifest.Ref, fn func(manifest.ListLine) error) error {
	type head struct {
		next func() (manifest.ListLine, error, bool)
		line manifest.ListLine
	}
	var heads []*head
	for _, ref := range refs {
		next, stop := iter.Pull2(a.lines(ctx, job, ref))
		defer stop()
		h := &head{next: next}
		line, err, ok := next()
		if err != nil {
			return err
		}
		if ok {
			h.line = line
			heads = append(heads, h)
		}
	}
	for len(heads) > 0 {
		least := 0
		for i, h := range heads {
			if h.line.Ordinal < heads[least].line.Ordinal {
				least = i
			}
		}
		if err := fn(heads[least].line); err != nil {
			return err
		}
		line, err, ok := heads[least].next()
		if err != nil {
			return err
		}
		if !ok {
			heads = slices.Delete(heads, least, least+1)
			continue
		}
		heads[least].line = line
	}
	return nil
}

// errStop ends the reading of a list that nobody wants more of.
var errStop = errors.New("stopped")

// lines yields the lines of a list; an error comes last.
func (a *Aggregator) lines(ctx context.Context, job *jobOf, ref manifest.Ref) iter.Seq2[manifest.ListLine, error] {
	return func(yield func(manifest.ListLine, error) bool) {
		err := manifest.ReadLines(ctx, a.Store, job.id, ref, func(l manifest.ListLine) error {
			if !yield(l, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && err != errStop {
			yield(manifest.ListLine{}, err)
		}
	}
}
