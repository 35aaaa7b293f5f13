package sim

import (
	"context"
	"errors"
	"strings"
	"testing"

	"hayrick"
	"hayrick/audit"
	"hayrick/manifest"
	"hayrick/mem"
)

// collect removes what gc would, and says how much that was.
func (j *job) collect(p *Process) (n int) {
	j.t.Helper()
	ctx := context.Background()
	var all []manifest.Object
	if err := p.Coordinator.Leftovers(ctx, j.id, func(o manifest.Object) error { all = append(all, o); return nil }); err != nil {
		j.t.Fatal(err)
	}
	if err := p.Coordinator.Remove(ctx, j.world.Store, all); err != nil {
		j.t.Fatal(err)
	}
	return len(all)
}

// A crash after each write of a run and of its redrive leaves something behind. All of
// it can be collected, after every step beside the workers, and nothing that is needed.
func TestWhatCrashesLeaveIsCollected(t *testing.T) {
	calm, p := fewEnded(t)
	calm.finish(calm.open(p, everything))
	want := Gist(calm.outcomeOf(1))
	collected := 0
	for n := 1; ; n++ {
		j, _ := sickJobOf(t, few)
		writes := 0
		j.world.Store.Hook = func(c mem.Call) mem.Fault {
			if c.Op != "Put" && c.Op != "Assemble" && c.Op != "Commit" {
				return mem.Fault{}
			}
			if writes++; writes != n {
				return mem.Fault{}
			}
			return mem.Fault{CrashAfter: c.Op != "Commit", CrashBefore: c.Op == "Commit"}
		}
		def := definition()
		def.Retry.Passes = 0
		p := j.world.Start()
		err := guard(func() error { p = j.submitOnly(def); return nil })
		if errors.Is(err, errCrashed) {
			j.world.Journals.Unlock()
			p = j.submitOnly(def)
		}
		for g := range 2 {
			if g == 1 {
				p = j.open(p, everything)
			}
			for finished := false; !finished; {
				if err := guard(func() (err error) { finished, err = p.Step(context.Background(), j.id); return err }); err != nil {
					p = j.after(p, err)
				}
				collected += j.collect(p)
			}
		}
		j.world.Store.Hook = nil
		if got := Gist(j.outcomeOf(1)); got != want {
			t.Errorf("write %d: got %s, want %s", n, got, want)
		}
		for _, r := range j.audited(1) {
			if r.Counts[audit.Leftover] > 0 {
				t.Errorf("write %d: %v", n, r.Findings)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
		if writes < n {
			break // there are fewer
		}
	}
	if collected == 0 {
		t.Error("nothing was ever left behind")
	}
}

// A purge that is cut off at any removal is gone on with by the next. Until all is gone
// no sweep revives the run, no redrive opens it, and no new run gets its id.
func TestAPurgeMayBeCutOff(t *testing.T) {
	ctx := context.Background()
	purge := func(j *job, p *Process) error {
		return guard(func() error {
			if err := p.Coordinator.BeginPurge(ctx, j.id); err != nil {
				return err
			}
			_, _, err := p.Coordinator.Purge(ctx, j.id, j.world.Store)
			return err
		})
	}
	left := func(j *job) (n int) {
		for key := range j.world.Store.Snapshot() {
			if strings.HasPrefix(key, manifest.Job(j.id).Prefix()) {
				n++
			}
		}
		return n
	}
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			j, p := fewEnded(t)
			removals := 0
			j.world.Store.Hook = func(c mem.Call) mem.Fault {
				if c.Op != "Remove" {
					return mem.Fault{}
				}
				removals++
				return mem.Fault{CrashBefore: removals == n && !after, CrashAfter: removals == n && after}
			}
			err := purge(j, p)
			j.world.Store.Hook = nil
			if err == nil {
				if left(j) > 0 {
					t.Errorf("%d objects are left", left(j))
				}
				break // fewer removals than that
			}
			if !errors.Is(err, errCrashed) {
				t.Fatal(err)
			}
			j.world.Journals.Unlock()
			p = j.world.Start()
			for range 3 {
				if d, err := p.Coordinator.Sweep(ctx, j.id); err == nil && (!d.Complete || d.Status != hayrick.StatusPurging) || err != nil && !errors.Is(err, hayrick.ErrNotFound) {
					t.Fatalf("a sweep after %d removals: %+v, %v", n, d, err)
				}
			}
			if _, err := p.Coordinator.Order(ctx, j.id, everything); !errors.Is(err, hayrick.ErrConflict) && !errors.Is(err, hayrick.ErrNotFound) {
				t.Fatalf("a redrive after %d removals: %v", n, err)
			}
			if left(j) > 0 {
				old := j.id
				def := definition()
				def.Retry.Passes = 0
				j.submitOnly(def)
				if j.id == old {
					t.Fatalf("after %d removals the run's id is given to another", n)
				}
				j.id = old
			}
			if err := purge(j, p); err != nil && !(errors.Is(err, hayrick.ErrNotFound) && left(j) == 0) {
				t.Fatal(err)
			}
			if left(j) > 0 {
				t.Fatalf("%d objects are left", left(j))
			}
		}
	}
	j, _ := sickJobOf(t, few)
	p := j.submitOnly(definition())
	if err := p.Coordinator.BeginPurge(ctx, j.id); !errors.Is(err, hayrick.ErrConflict) {
		t.Errorf("a run that has not ended is purged: %v", err)
	}
}
