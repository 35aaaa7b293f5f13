package aggregator_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
)

func withOutput(uri, ifExists string) shape {
	return shape{def: func(d *hayrick.JobDefinition) { d.Output.URI, d.Output.IfExists = uri, ifExists }}
}

// before puts files into the output folder, before the job ends.
func (j *jobRig) before(files map[string]string) {
	j.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		j.must(j.mem.PublishBytes(j.t.Context(), j.folder(), name, []byte(files[name])))
	}
	j.clock.Sleep(j.t.Context(), time.Minute)
}

// if_exists: error ends the job as FAILED when the folder holds anything, and leaves
// that alone. The parts stay in the store.
func TestOutputRefused(t *testing.T) {
	j := build(t, withOutput("out/shared/", "error"), five()...)
	other := map[string]string{"notes.txt": "mine"}
	j.before(other)
	o := j.aggregate()
	if o.Status != "FAILED" || o.Code != manifest.CodeOutputRefused || o.OK != 4 || o.Permanent != 1 || o.Unfinished != 0 || o.Aggregation != nil || o.RowHash != "0" {
		t.Errorf("%+v", o)
	}
	for _, says := range []string{"out/shared/", "notes.txt", "if_exists"} {
		if !strings.Contains(o.Message, says) {
			t.Errorf("%q does not say %s", o.Message, says)
		}
	}
	j.chained(o)
	if got := j.published(); !maps.Equal(got, other) {
		t.Errorf("the folder holds %v", got)
	}
	parts := 0
	for key := range j.mem.Snapshot() {
		if strings.Contains(key, "aggregation/0/part-") {
			parts++
		}
	}
	if parts != 1 {
		t.Errorf("%d parts are in the store", parts)
	}
}

// if_exists: overwrite removes another dataset, and nothing that is none. Its
// _SUCCESS goes before anything is changed.
func TestOutputOverwritten(t *testing.T) {
	j := build(t, withOutput("out/shared", "overwrite"), five()...)
	j.before(map[string]string{
		"_SUCCESS": "theirs", "part-00000.parquet": "theirs", "part-00007.parquet": "theirs", "A.parquet": "theirs", "x/part-00000.parquet": "theirs",
		"lists/gone.jsonl": "theirs", "lists/deleted_dids.jsonl": "theirs", "report.html": "theirs", "README": "theirs", "lists/notes.txt": "theirs",
	})
	var calls []string
	j.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "RemoveOutput" || c.Op == "PublishFile" || c.Op == "PublishBytes" {
			calls = append(calls, c.Op+" "+c.Key)
		}
		return mem.Fault{}
	}
	j.whole(j.aggregate())
	out := j.published()
	if got, want := slices.Sorted(maps.Keys(out)), []string{"README", "_SUCCESS", "lists/deleted_dids.jsonl", "lists/notes.txt", "part-00000.parquet", "report.html"}; !slices.Equal(got, want) {
		t.Errorf("the folder holds %q, want %q", got, want)
	}
	want := []string{
		"RemoveOutput _SUCCESS", "RemoveOutput A.parquet", "RemoveOutput lists/gone.jsonl", "RemoveOutput part-00007.parquet", "RemoveOutput x/part-00000.parquet",
		"PublishFile part-00000.parquet", "PublishFile lists/deleted_dids.jsonl", "PublishBytes _SUCCESS",
	}
	if !slices.Equal(calls, want) {
		t.Errorf("%q, want %q", calls, want)
	}
}

// if_exists: append adds files under the run's name, parts and lists, so that runs
// share a folder without touching each other's.
func TestOutputAppended(t *testing.T) {
	j := build(t, withOutput("out/shared/", "append"), five()...)
	other := map[string]string{"part-00000.parquet": "theirs", "lists/deleted_dids.jsonl": "theirs", "words-20251120-aaaaaa-part-00000.parquet": "theirs"}
	j.before(other)
	o := j.aggregate()
	j.whole(o)
	if name := o.Aggregation.Parts[0].Name; name != jobID+"-part-00000.parquet" {
		t.Errorf("the part is called %s", name)
	}
	out := j.published()
	if list := out["lists/"+jobID+"-deleted_dids.jsonl"]; manifest.SHA256([]byte(list)) != o.Aggregation.Lists[0].SHA256 {
		t.Errorf("the list is %q", list)
	}
	for name, body := range other {
		if out[name] != body {
			t.Errorf("%s is %q", name, out[name])
		}
	}
	if len(out) != len(other)+3 {
		t.Errorf("the folder holds %d files", len(out))
	}
}

// A trigger that comes late or twice does not copy the dataset again; one that finds
// it half published does the rest.
func TestPublishedAgain(t *testing.T) {
	for _, ifExists := range []string{"error", "overwrite", "append"} {
		j := build(t, withOutput("out/shared/", ifExists), five()...)
		j.whole(j.aggregate())
		out := j.published()
		calls := j.mem.Calls()["PublishFile"]
		a := j.process("q")
		j.must(a.Advance(t.Context(), jobID, 0))
		if again := j.mem.Calls()["PublishFile"]; again != calls {
			t.Errorf("%s: %d files were published again", ifExists, again-calls)
		}
		j.must(j.mem.Replace(t.Context(), job.Manifest(), []byte("damaged")))
		for _, name := range []string{"_SUCCESS", j.outcome().Aggregation.Parts[0].Name} {
			j.must(j.mem.RemoveOutput(t.Context(), j.folder(), name))
		}
		j.must(a.Advance(t.Context(), jobID, 0))
		if now := j.published(); !maps.Equal(now, out) {
			t.Errorf("%s: published %q, before %q", ifExists, slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(out)))
		}
	}
}

// Two publishers, one of which stands still at any of its writes while the other
// does everything, leave the same bytes.
func TestTwoPublishers(t *testing.T) {
	for _, ifExists := range []string{"error", "overwrite", "append"} {
		for n := range 20 {
			j := build(t, withOutput("out/shared/", ifExists), five()...)
			if ifExists == "overwrite" {
				j.before(map[string]string{"_SUCCESS": "theirs", "part-00001.parquet": "theirs"})
			}
			a, b := j.process("p"), j.process("q")
			j.must(a.Advance(t.Context(), jobID, 0))
			if _, err := j.step(a); err != nil { // the merge
				t.Fatal(err)
			}
			seen, met := 0, false
			j.mem.Hook = func(c mem.Call) mem.Fault {
				write := c.Port == "Outputs" || c.Op == "Commit" || c.Op == "Put" || c.Op == "Replace" || c.Op == "Assemble"
				if c.Actor == "p" && write {
					if seen++; seen == n+1 {
						met = true
						j.clock.Sleep(context.Background(), time.Minute)
						j.must(b.Advance(j.ctx("q"), jobID, 0))
					}
				}
				return mem.Fault{}
			}
			err := a.Advance(j.ctx("p"), jobID, 0)
			j.mem.Hook = nil
			j.must(err)
			j.whole(j.outcome())
			names := []string{"_SUCCESS", "lists/deleted_dids.jsonl", "part-00000.parquet"}
			if ifExists == "append" {
				names = []string{"_SUCCESS", "lists/" + jobID + "-deleted_dids.jsonl", jobID + "-part-00000.parquet"}
			}
			if got := slices.Sorted(maps.Keys(j.published())); !slices.Equal(got, names) {
				t.Fatalf("%s, after write %d: the folder holds %q", ifExists, n, got)
			}
			if !met {
				if n < 8 {
					t.Errorf("%s: the root makes %d writes", ifExists, n)
				}
				break
			}
		}
	}
}

// A publisher that was overtaken, and then dies, takes nothing from the dataset that
// the faster one has finished.
func TestOvertakenPublisherDies(t *testing.T) {
	for _, last := range []string{"PublishFile", "PublishBytes"} {
		j := build(t, withOutput("out/shared/", "overwrite"), five()...)
		j.before(map[string]string{"part-00001.parquet": "theirs"})
		a, b := j.process("p"), j.process("q")
		j.must(a.Advance(t.Context(), jobID, 0))
		if _, err := j.step(a); err != nil { // the merge
			t.Fatal(err)
		}
		j.mem.Hook = func(c mem.Call) mem.Fault {
			if c.Actor == "p" && c.Op == "ListOutput" {
				j.must(b.Advance(j.ctx("q"), jobID, 0))
			}
			return mem.Fault{CrashBefore: c.Actor == "p" && c.Op == last}
		}
		if _, crashed := guarded(func() error { return a.Advance(j.ctx("p"), jobID, 0) }); !crashed {
			t.Fatal("it has not died")
		}
		j.mem.Hook = nil
		j.whole(j.outcome())
	}
}

// A folder that cannot be written leaves the outcome, and says so; the next look
// publishes.
func TestFolderOutOfReach(t *testing.T) {
	j := build(t, shape{}, five()...)
	denied := errors.New("permission denied")
	j.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "PublishFile" {
			return mem.Fault{ErrBefore: denied}
		}
		return mem.Fault{}
	}
	j.trigger()
	err := j.drain(j.process("p"))
	if !errors.Is(err, denied) || !strings.Contains(err.Error(), "part-00000.parquet in "+j.folder()) {
		t.Fatal(err)
	}
	if o := j.outcome(); o.Status != "SUCCEEDED" {
		t.Errorf("%+v", o)
	}
	if _, err := j.store.Raw(t.Context(), job.Manifest()); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("the job manifest: %v", err)
	}
	j.mem.Hook = nil
	j.must(j.drain(j.process("p")))
	j.whole(j.outcome())
}

// What somebody has taken from the folder, or cut, is published again, and nothing
// else is touched: not what others put there, not what is whole.
func TestRepublish(t *testing.T) {
	for _, ifExists := range []string{"error", "overwrite", "append"} {
		j := build(t, withOutput("out/shared/", ifExists), five()...)
		j.whole(j.aggregate())
		a := j.process("q")
		again := func(what string, want ...string) {
			t.Helper()
			r, err := a.Republish(t.Context(), jobID, 0)
			if err != nil || !slices.Equal(r.Files, want) || r.Taken != "" || r.Folder != j.folder() {
				t.Errorf("%s, %s: %+v, %v, want %q", ifExists, what, r, err, want)
			}
		}
		j.must(j.mem.PublishBytes(t.Context(), j.folder(), "mine.parquet", []byte("mine")))
		out := j.published()
		part := j.outcome().Aggregation.Parts[0].Name
		list := manifest.PublishedName(j.def, jobID, "lists/deleted_dids.jsonl")
		before := j.mem.Calls()
		again("nothing is wrong")
		if now := j.mem.Calls(); now["PublishFile"] != before["PublishFile"] || now["PublishBytes"] != before["PublishBytes"] || now["RemoveOutput"] != 0 && ifExists != "overwrite" {
			t.Errorf("%s: a whole folder is written to", ifExists)
		}
		for _, name := range []string{part, list, "_SUCCESS"} {
			j.must(j.mem.RemoveOutput(t.Context(), j.folder(), name))
			again(name+" is gone", name)
			j.must(j.mem.PublishBytes(t.Context(), j.folder(), name, []byte(out[name][1:])))
			again(name+" is cut", name)
		}
		sound := []byte(out["_SUCCESS"])
		for at := range sound {
			j.must(j.mem.PublishBytes(t.Context(), j.folder(), "_SUCCESS", flipped(sound, at)))
			again("_SUCCESS with a byte flipped", "_SUCCESS")
		}
		for _, name := range []string{part, list, "_SUCCESS"} {
			j.must(j.mem.RemoveOutput(t.Context(), j.folder(), name))
		}
		// A crash at any write leaves less to do.
		for n, done := 0, false; !done; n++ {
			seen := 0
			j.mem.Hook = func(c mem.Call) mem.Fault {
				if c.Op == "PublishFile" || c.Op == "PublishBytes" {
					seen++
				}
				return mem.Fault{CrashBefore: seen == 2}
			}
			_, crashed := guarded(func() error { _, err := a.Republish(j.ctx("q"), jobID, 0); return err })
			j.mem.Hook = nil
			done = !crashed
			if _, whole := j.published()["_SUCCESS"]; whole != done || n > 3 {
				t.Fatalf("%s, crash %d: _SUCCESS is there: %v", ifExists, n, whole)
			}
		}
		if now := j.published(); !maps.Equal(now, out) {
			t.Errorf("%s: published %q, before %q", ifExists, slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(out)))
		}
	}
}

// A folder that another run has overwritten is that run's. Where runs append, each
// looks after its own.
func TestRepublishBesideOthers(t *testing.T) {
	for _, ifExists := range []string{"error", "overwrite", "append"} {
		j := build(t, withOutput("out/shared/", ifExists), five()...)
		j.whole(j.aggregate())
		theirs, err := manifest.Encode(manifest.Success{Schema: manifest.SchemaSuccess, JobID: "words-20261121-aaaaaa", OutcomeSHA256: manifest.SHA256([]byte("x"))})
		j.must(err)
		part := j.outcome().Aggregation.Parts[0].Name
		j.must(j.mem.PublishBytes(t.Context(), j.folder(), "_SUCCESS", theirs))
		j.must(j.mem.PublishBytes(t.Context(), j.folder(), part, []byte("theirs")))
		r, err := j.process("q").Republish(t.Context(), jobID, 0)
		j.must(err)
		out := j.published()
		if out["_SUCCESS"] != string(theirs) {
			t.Errorf("%s: _SUCCESS is %s", ifExists, out["_SUCCESS"])
		}
		if ifExists == "append" {
			if !slices.Equal(r.Files, []string{part}) || r.Taken != "" || out[part] == "theirs" {
				t.Errorf("append: %+v, the part is %d bytes", r, len(out[part]))
			}
		} else if len(r.Files) != 0 || r.Taken != "words-20261121-aaaaaa" || out[part] != "theirs" {
			t.Errorf("%s: %+v, the part is %q", ifExists, r, out[part])
		}
	}
}

// Of a generation that has not SUCCEEDED there is nothing to publish.
func TestRepublishOfNothing(t *testing.T) {
	j := build(t, withOutput("out/shared/", "error"), five()...)
	if _, err := j.process("q").Republish(t.Context(), jobID, 0); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("of an unfinished run: %v", err)
	}
	j.before(map[string]string{"notes.txt": "mine"})
	j.aggregate()
	r, err := j.process("q").Republish(t.Context(), jobID, 0)
	if err != nil || len(r.Files) != 0 || len(j.published()) != 1 {
		t.Errorf("of a FAILED run: %+v, %v", r, err)
	}
}
