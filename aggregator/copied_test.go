package aggregator_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// large is a task whose rows lie in pages that are worth copying, all but those of a
// column with few values.
func large(n int) task {
	langs := []string{"de", "en", "fr"}
	many := make([]rows.Row, 2100)
	for i := range many {
		many[i] = row("key", fmt.Sprintf("%x", manifest.SHA256([]byte{byte(n), byte(i), byte(i >> 8)})), "at", n<<40+i*i, "lang", langs[i*i%3])
	}
	if n == 1 {
		for i := range many {
			many[i] = append(many[i], rows.Col{Name: "late", Value: int64(i)})
		}
	}
	return one(many...)
}

func largeJob(t testing.TB, s shape) *jobRig {
	def := s.def
	s.def = func(d *hayrick.JobDefinition) {
		d.Merge.FanIn, d.Merge.ByCount = 3, true
		if def != nil {
			def(d)
		}
	}
	return build(t, s, []task{large(0), large(1), large(2), one(row("at", 7, "small", true)), one(row("key", "x"))})
}

// pagesOf is the front of a source's first column: the header of a page and its body.
func (j *jobRig) pagesOf(result int) string {
	return string(j.mem.Snapshot()[job.Abs(*j.results[result].File)][4:8000])
}

// A merge copies the pages of its inputs where it can, and is one with merges that
// cannot; two runs of it leave the same bytes.
func TestMergesCopyPages(t *testing.T) {
	j := largeJob(t, shape{})
	o := j.aggregate()
	j.whole(o)
	merged := string(j.mem.Snapshot()[job.Abs(*j.result("agg-0-1-0000").File)])
	for i := range 3 {
		if !strings.Contains(merged, j.pagesOf(i)) {
			t.Errorf("the pages of result %d were made anew", i)
		}
	}
	again := largeJob(t, shape{})
	if b := again.aggregate(); !slices.Equal(b.Aggregation.Parts, o.Aggregation.Parts) {
		t.Errorf("other bytes: %+v, %+v", b.Aggregation.Parts, o.Aggregation.Parts)
	}
	// A process at a time for an input each, the copies are joined.
	short := largeJob(t, shape{})
	short.trigger()
	if n := short.drainShort(); n < 8 {
		t.Errorf("%d deliveries", n)
	}
	short.whole(short.outcome())
	// Dictionaries that are asked for are not in the sources.
	yes := true
	with := largeJob(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.Dictionary = &yes }})
	with.whole(with.aggregate())
	if merged := string(with.mem.Snapshot()[job.Abs(*with.result("agg-0-1-0000").File)]); strings.Contains(merged, with.pagesOf(0)) {
		t.Error("pages without a dictionary were copied")
	}
}

// Copied or not, an input is held against what its results.done vouches for: a byte that
// has changed is named with its file, and so is a result that lies about its rows. Without
// merge.read_back too: what is copied was never decoded before.
func TestCopiedPagesAreVouchedFor(t *testing.T) {
	no := false
	trusting := func(d *hayrick.JobDefinition) { d.Merge.ReadBack = &no }
	for _, def := range []func(*hayrick.JobDefinition){nil, trusting} {
		j := largeJob(t, shape{def: def})
		a := j.process("p")
		j.must(a.Advance(t.Context(), jobID, 0))
		key := job.Abs(*j.results[2].File)
		sound := j.mem.Snapshot()[key]
		for n, at := range flips(len(sound)) {
			if def != nil && n%8 != 0 {
				continue
			}
			j.mem.Damage(key, flipped(sound, at))
			j.trigger()
			err := j.drain(a)
			if !errors.Is(err, hayrick.ErrCorrupt) || !strings.Contains(err.Error(), *j.results[2].File+", the rows of "+j.results[2].TaskID+", is damaged: ") {
				t.Fatalf("byte %d: %v", at, err)
			}
			j.absent(job.Done("agg-0-1-0000"))
		}
		j.mem.Damage(key, sound)
		j.trigger()
		j.must(j.drain(a))
		j.whole(j.outcome())
		if j.temps.open != 0 {
			t.Errorf("%d scratch files are open", j.temps.open)
		}
	}
	for name, bad := range map[string]func(r *manifest.Result){
		"a row more": func(r *manifest.Result) { r.RowCount++ },
		"other rows": func(r *manifest.Result) { r.RowHash = "1" },
	} {
		j := largeJob(t, shape{def: trusting, bad: func(n int64, r *manifest.Result) {
			if n == 1 {
				bad(r)
			}
		}})
		if o := j.aggregate(); o.Status != "FAILED" || !strings.Contains(o.Message, *j.results[1].File) {
			t.Errorf("%s: %+v", name, o)
		}
	}
}
