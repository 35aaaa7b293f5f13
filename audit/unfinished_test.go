package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"hayrick"
	"hayrick/audit"
	"hayrick/manifest"
)

// sound fails the test when anything is broken or promised.
func sound(t *testing.T, r audit.Report, status, says string) {
	t.Helper()
	if !r.Sound() || r.Proven || r.Status != status || !strings.Contains(r.Line, says) || strings.Contains(r.Line, "hashes equal") {
		t.Errorf("proven %v, %s: %s\n%v", r.Proven, r.Status, r.Line, r.Findings)
	}
}

func TestUnfinished(t *testing.T) {
	for until, says := range map[string]string{
		"tasks":  "5 items = 3 ok + 0 permanent + 0 exhausted + 2 without an end; 8 rows in 2 results",
		"retry":  "5 items = 4 ok + 1 permanent + 0 exhausted + 0 without an end; 11 rows in 3 results",
		"merged": "5 items = 4 ok + 1 permanent + 0 exhausted + 0 without an end; 11 rows in 3 results",
	} {
		s := tiny()
		s.until = until
		w := build(t, s)
		r := w.audit(true)
		sound(t, r, audit.Unfinished, says)
		if len(r.Findings) > 0 {
			t.Errorf("%s: %v", until, r.Findings)
		}
		if !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "covered by no digest yet") }) {
			t.Errorf("%s: notes %v", until, r.Notes)
		}
	}
}

// A cancelled job ends with items that have no end. A task that commits after the
// outcome does no harm; one whose result is gone does.
func TestCancelled(t *testing.T) {
	s := tiny()
	s.until, s.cancelled = "tasks", true
	w := build(t, s)
	sound(t, w.audit(true), "CANCELLED", "3 ok + 0 permanent + 0 exhausted + 2 without an end")

	s.onOutcome = func(o *manifest.Outcome) { o.OK, o.Unfinished = o.OK-2, o.Unfinished+2 }
	late := build(t, s)
	r := late.audit(false)
	sound(t, r, "CANCELLED", "3 ok")
	if !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "2 items are ok in results that came after") }) {
		t.Errorf("notes %v", r.Notes)
	}

	r = w.damaged(job.Done("task-0000"), nil)
	if f, broken := r.First(); !broken || f.Code != audit.CodeTotal {
		t.Errorf("a result of a cancelled job is gone: %v", r.Findings)
	}
}

func TestOutcomeIsGone(t *testing.T) {
	w := build(t, tiny())
	w.mem.Damage(job.Manifest(), nil) // only _SUCCESS is left to tell
	r := w.damaged(job.Outcome(0), nil)
	if f, broken := r.First(); !broken || f.Key != "outcome-0.json" || f.Code != audit.CodeMissing {
		t.Errorf("%v", r.Findings)
	}
}

func TestNoSuchJob(t *testing.T) {
	w := build(t, tiny())
	for _, id := range []string{"other-20261120-aaaaaa", "", "../x", jobID + "x"} {
		o := w.options()
		o.JobID = id
		if _, err := audit.Run(t.Context(), o); !errors.Is(err, hayrick.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// What the store cannot read is no finding: the audit says so and ends.
func TestStoreFails(t *testing.T) {
	down := errors.New("the store is down")
	w := build(t, tiny())
	o := w.options()
	o.Deep, o.World.Go = true, func(_ string, f func()) { f() } // one call after the other
	calls := 0
	w.mem.Hook = func(c memCall) memFault { calls++; return memFault{} }
	r, err := audit.Run(t.Context(), o)
	w.must(err)
	clean(t, r)
	for k := 1; k <= calls; k += 3 {
		n := 0
		w.mem.Hook = func(c memCall) memFault {
			if n++; n == k {
				return memFault{ErrBefore: down}
			}
			return memFault{}
		}
		r, err := audit.Run(t.Context(), o)
		if !errors.Is(err, down) || r.Proven || r.Counts[audit.Broken] > 0 {
			t.Fatalf("call %d of %d fails: %v, proven %v, findings %v", k, calls, err, r.Proven, r.Findings)
		}
	}
}

// A store that knows its bytes to be damaged says so itself.
func TestStoreFindsDamage(t *testing.T) {
	w := build(t, rich())
	for _, key := range slices.Sorted(maps.Keys(w.mem.Snapshot())) {
		for _, why := range []error{hayrick.ErrCorrupt, fs.ErrPermission, syscall.EIO} {
			w.mem.Hook = func(c memCall) (f memFault) {
				if (c.Op == "Open" || c.Op == "OpenAt") && c.Key == key {
					f.ErrBefore = why
				}
				return f
			}
			named(t, w.audit(false), job.Rel(key), fmt.Sprint("of which the store says: ", why))
		}
	}
}

func TestStopsWithItsContext(t *testing.T) {
	w := build(t, tiny())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := audit.Run(ctx, w.options()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// The promise is about what was run: an input that changed is told, no more.
func TestInputChangedSince(t *testing.T) {
	w := build(t, tiny())
	r, _, _ := w.mem.OpenSource(t.Context(), "./users.jsonl")
	users, err := io.ReadAll(r)
	w.must(err)
	for _, change := range []func(){
		func() { w.mem.SetInput("./users.jsonl", append([]byte("x"), users...)) },
		func() { w.mem.SetInput("./users.jsonl", users[:len(users)-5]) },
		func() { w.mem.SetInput("./users.jsonl", nil) },
	} {
		change()
		r := w.audit(true)
		clean(t, r)
		if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "the input is not what was run any more") || r.Checked.Inputs == 3 {
			t.Errorf("%+v, notes %v", r.Checked, r.Notes)
		}
	}
	o := w.options()
	o.Inputs = nil
	if r, err := audit.Run(t.Context(), o); err != nil || !r.Proven || r.Checked.Inputs != 0 || len(r.Notes) > 0 {
		t.Errorf("%v: %+v, %v", err, r.Checked, r.Notes)
	}
}

// copied is a story whose input was copied into the store; a clone has no digest.
func copied(withDigest bool) story {
	s := tiny()
	var key string
	var users []byte
	s.onBatches = initial(func(bs []manifest.Batch) []manifest.Batch {
		for i := range bs {
			bs[i].Object = manifest.StoreScheme + "input/" + strings.Repeat("a", 12) + "-users.jsonl"
		}
		key = job.Prefix() + strings.TrimPrefix(bs[0].Object, manifest.StoreScheme)
		return bs
	})
	s.onPlan = func(p *manifest.Plan) {
		p.Input[0].Object = manifest.StoreScheme + job.Rel(key)
		for o := range int64(s.items) {
			users = append(append(users, record(o)...), '\n')
			if o%2 == 1 || o == 4 {
				users = append(users, " \n"...)
			}
		}
		if withDigest {
			p.Input[0].SHA256 = manifest.SHA256(users)
		}
	}
	s.copy = func() (string, []byte) { return key, users }
	return s
}

// A copy of the input in the store is an object like any other.
func TestInputCopyIsGuarded(t *testing.T) {
	for name, withDigest := range map[string]bool{"copy": true, "clone": false} {
		w := build(t, copied(withDigest))
		clean(t, w.audit(true))
		key, users := w.copy()
		for i := range users {
			if !withDigest && users[i] == ' ' && users[i+1] == '\n' || !withDigest && i > 0 && users[i-1] == ' ' && users[i] == '\n' {
				continue // between batches, where nothing is run
			}
			b := slices.Clone(users)
			b[i] ^= 1
			r := w.damaged(key, b)
			if f, broken := r.First(); !broken || f.Key != job.Rel(key) {
				t.Errorf("%s with byte %d flipped: %v", name, i, r.Findings)
			}
		}
		if r := w.damaged(key, nil); r.Proven {
			t.Errorf("%s deleted: proven", name)
		}
	}
}

type lister []string

func (l lister) Jobs(context.Context) ([]string, error) { return l, nil }

// otherID is a run that has published in the folder of the first one.
const otherID = "backfill-20261121-aaaaaa"

// another stores the commits of the run again under otherID, with what fn makes of its
// outcome, and returns the content of its _SUCCESS.
func (w *world) another(uri string, fn func(o *manifest.Outcome)) manifest.Success {
	p := w.plan
	d := w.def
	d.Output.URI = uri
	body, sha, err := manifest.EncodeDefinition(d)
	w.must(err)
	p.JobID, p.DefinitionSHA256 = otherID, sha
	w.put(manifest.Job(otherID).Config(sha), body)
	_, err = w.store.CommitPlan(w.t.Context(), p)
	w.must(err)
	o, _, err := w.store.Outcome(w.t.Context(), jobID, 0)
	w.must(err)
	o.JobID, o.Aggregation.JobID = otherID, otherID
	fn(&o)
	got, err := w.store.CommitOutcome(w.t.Context(), o)
	w.must(err)
	return manifest.Success{Schema: manifest.SchemaSuccess, JobID: otherID, OutcomeSHA256: got.SHA256}
}

// Runs of a store that append share a folder: what the others have published there is
// theirs, and nothing else is.
func TestAppended(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		s := tiny()
		s.ifExists, s.uri = "append", folder
		w := build(t, s)
		part := otherID + "-part-00000.parquet"
		list := "lists/" + otherID + "-deleted_dids.jsonl"
		uri := strings.TrimSuffix(folder, "/")
		if elsewhere {
			uri = "./elsewhere/"
		}
		theirs := w.another(uri, func(o *manifest.Outcome) { o.Aggregation.Parts[0].Name = part })
		for _, name := range []string{part, list, "notes.txt"} {
			w.must(w.mem.PublishBytes(t.Context(), folder, name, []byte("x")))
		}
		audited := func() audit.Report {
			o := w.options()
			o.Lister = lister{jobID, otherID, "Not an id", "nothing"}
			r, err := audit.Run(t.Context(), o)
			w.must(err)
			return r
		}
		var strangers []string
		for _, f := range audited().Findings {
			if f.Severity != audit.Stranger {
				t.Errorf("%v", f)
			}
			strangers = append(strangers, strings.TrimPrefix(f.Key, folder))
		}
		want := []string{"notes.txt"}
		if elsewhere {
			want = []string{part, list, "notes.txt"}
			slices.Sort(want)
		}
		if !slices.Equal(strangers, want) {
			t.Errorf("strangers %q, want %q", strangers, want)
		}
		// Its _SUCCESS, which is nobody's with any byte changed.
		body, err := manifest.Encode(theirs)
		w.must(err)
		w.must(w.mem.PublishBytes(t.Context(), folder, manifest.SuccessName, body))
		if r := audited(); r.Proven == elsewhere {
			t.Errorf("elsewhere %v: with its _SUCCESS: %v", elsewhere, r.Findings)
		}
		for i := range body {
			b := slices.Clone(body)
			b[i] ^= 1 << (i % 8)
			w.must(w.mem.PublishBytes(t.Context(), folder, manifest.SuccessName, b))
			r := audited()
			if f, broken := r.First(); !broken || f.Key != folder+manifest.SuccessName || f.Code != audit.CodePublished {
				t.Fatalf("with byte %d of %s changed: %v", i, b, f)
			}
		}
		for _, b := range [][]byte{append(slices.Clone(body), '\n'), append([]byte(`{"x":1,`), body[1:]...), nil} {
			w.must(w.mem.PublishBytes(t.Context(), folder, manifest.SuccessName, b))
			if r := audited(); r.Proven {
				t.Errorf("%q passes", b)
			}
		}
	}
}

// A folder that another run has overwritten is no damage of this one; one that a run
// of no store has is.
func TestOverwritten(t *testing.T) {
	s := tiny()
	s.ifExists, s.uri = "overwrite", folder
	w := build(t, s)
	theirs := w.another(folder, func(*manifest.Outcome) {})
	w.must(w.mem.PublishBytes(t.Context(), folder, "part-00000.parquet", []byte("theirs")))
	if r := w.audit(false); r.Proven {
		t.Error("a part that is another's: proven")
	}
	body, err := manifest.Encode(theirs)
	w.must(err)
	w.must(w.mem.PublishBytes(t.Context(), folder, manifest.SuccessName, body))
	r := w.audit(false)
	clean(t, r)
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], otherID) {
		t.Error(r.Notes)
	}
	w.mem.Damage(manifest.Job(otherID).Outcome(0), nil)
	if r := w.audit(false); r.Proven {
		t.Error("overwritten by a run that is not there: proven")
	}
}
