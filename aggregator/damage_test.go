package aggregator_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/internal/rows"
	"hayrick/manifest"
	"hayrick/mem"
)

// three is a job whose second result has another schema than the others.
func three(t *testing.T, s shape) *jobRig {
	return build(t, s, []task{one(row("a", 1), row("a", 2)), one(row("a", 3, "b", "x")), one(row("a", 4))})
}

// flips are positions all over a file of n bytes.
func flips(n int) (at []int) {
	for i := 0; i < n; i += 1 + n/61 {
		at = append(at, i)
	}
	return append(at, n-1)
}

func flipped(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 0x10
	return b
}

// edited is a commit that says something else, and carries no digest of its own.
func edited(t *testing.T, commit []byte, was, now string) []byte {
	t.Helper()
	s := strings.Replace(string(commit), was, now, 1)
	if s == string(commit) {
		t.Fatalf("%s is not in %s", was, commit)
	}
	return regexp.MustCompile(`"self_sha256":"[0-9a-f]{64}"`).ReplaceAll([]byte(s), []byte(`"self_sha256":""`))
}

// refuses checks that the aggregation stops with an error that says all of it, and
// that the job has no outcome.
func (j *jobRig) refuses(says ...string) {
	j.t.Helper()
	a := j.process("p")
	err := a.Advance(j.t.Context(), jobID, 0)
	if damage := errors.Is(err, hayrick.ErrCorrupt) || errors.Is(err, aggregator.ErrUnlike); !damage || errors.Is(err, hayrick.ErrNotFound) {
		j.t.Fatalf("%v", err)
	}
	for _, x := range says {
		if !strings.Contains(err.Error(), x) {
			j.t.Errorf("%q does not say %s", err, x)
		}
	}
	// As a message it is not acknowledged: somebody is told.
	v, err := a.Do(j.t.Context(), hayrick.Delivery{Message: hayrick.Message{JobID: jobID, Role: hayrick.RoleAggregator}})
	if v.Ack || v.Again <= 0 || err == nil {
		j.t.Errorf("%+v, %v", v, err)
	}
	j.absent(job.Outcome(0))
	if j.temps.open != 0 {
		j.t.Errorf("%d scratch files are open", j.temps.open)
	}
}

// 002-48: a results.done that is not the one its group was closed with is an error,
// and so is one that is gone, or contradicts itself.
func TestResultsThatAreNotVouchedFor(t *testing.T) {
	for _, refs := range []bool{false, true} {
		j := three(t, shape{refs: refs})
		done := job.Done("task-0001")
		sound := j.mem.Snapshot()[done]
		for _, at := range flips(len(sound)) {
			j.mem.Damage(done, flipped(sound, at))
			j.refuses("task-0001")
		}
		j.mem.Damage(done, sound[:len(sound)-1])
		j.refuses("task-0001")
		j.mem.Damage(done, edited(t, sound, `"ok":1`, `"ok":2`)) // sound, but another
		j.refuses("task-0001", "retry plan")
		j.mem.Damage(done, nil)
		j.refuses("task-0001", "gone")
		j.absent(job.AggregationPlan(0))
		j.mem.Damage(done, sound)
		j.whole(j.aggregate()) // restored, all is well
	}
	for name, bad := range map[string]func(r *manifest.Result){
		"rows without a file":     func(r *manifest.Result) { r.File = nil },
		"a file without rows":     func(r *manifest.Result) { r.RowCount = 0 },
		"a number of rows":        func(r *manifest.Result) { r.RowCount = -1 },
		"a hash that is none":     func(r *manifest.Result) { r.RowHash = "x" },
		"FAILED with rows":        func(r *manifest.Result) { r.Status = string(hayrick.TaskFailed) },
		"of another generation":   func(r *manifest.Result) { r.Generation = 1 },
		"a hash of no rows":       func(r *manifest.Result) { r.File, r.RowCount = nil, 0 },
		"another schema":          func(r *manifest.Result) { r.SchemaDigest = strings.Repeat("0", 64) },
		"more items than it has":  func(r *manifest.Result) { r.OK++ },
		"fewer items than it has": func(r *manifest.Result) { r.OK-- },
	} {
		t.Run(name, func(t *testing.T) {
			j := three(t, shape{bad: func(n int64, r *manifest.Result) {
				if n == 1 {
					bad(r)
				}
			}})
			j.refuses()
			j.absent(job.AggregationPlan(0))
		})
	}
}

// 002-48: a file that is not what its results.done says is never skipped, nor is it a
// reason to end the job: its merge stops and names it, as often as it is tried, and
// goes on once the file is restored.
func TestFilesThatAreNotVouchedFor(t *testing.T) {
	clean := three(t, shape{})
	key := job.Abs(*clean.results[2].File)
	sound := clean.mem.Snapshot()[key]
	want := clean.aggregate()
	damages := map[string][]byte{"gone": nil, "empty": {}, "cut": sound[:len(sound)-1], "longer": append(slices.Clone(sound), 0)}
	for _, at := range flips(len(sound)) {
		damages[fmt.Sprint("flipped at ", at)] = flipped(sound, at)
	}
	for name, b := range damages {
		j := three(t, shape{})
		a := j.process("p")
		j.must(a.Advance(t.Context(), jobID, 0))
		j.mem.Damage(key, b)
		for range aggregator.Runs + 1 {
			worked, err := j.step(a)
			if !worked || !errors.Is(err, hayrick.ErrCorrupt) || errors.Is(err, hayrick.ErrNotFound) ||
				!strings.Contains(err.Error(), *j.results[2].File+", the rows of "+j.results[2].TaskID+", is damaged: ") {
				t.Fatalf("%s: %v, %v", name, worked, err)
			}
			j.clock.Sleep(t.Context(), 16*time.Minute)
		}
		j.absent(job.Done("agg-0-1-0000"))
		j.absent(job.Outcome(0))
		j.mem.Damage(key, sound)
		j.must(j.drain(a))
		o := j.outcome()
		j.whole(o)
		if o.RowHash != want.RowHash || o.Aggregation.Parts[0].SHA256 != want.Aggregation.Parts[0].SHA256 {
			t.Errorf("%s: %+v, undisturbed %+v", name, o, want)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

// So it is where the merge is planned: what a damaged file seems to say of its columns
// is no reason to end the job either.
func TestFilesDamagedBeforeTheMergeIsPlanned(t *testing.T) {
	j := three(t, shape{})
	key := job.Abs(*j.results[1].File) // the first of its schema: its footer is read
	sound := j.mem.Snapshot()[key]
	for at := len(sound) - 1; at > len(sound)/2; at-- {
		j.mem.Damage(key, flipped(sound, at))
		if err := j.process("p").Advance(t.Context(), jobID, 0); err == nil { // the byte is not part of what was read
			j.mem.Damage(job.AggregationPlan(0), nil)
			continue
		}
		j.refuses(*j.results[1].File, j.results[1].TaskID)
	}
	j.absent(job.Outcome(0))
	j.mem.Damage(key, nil)
	j.refuses(*j.results[1].File, j.results[1].TaskID)
	j.mem.Damage(key, sound)
	j.mem.WipeQueue()
	j.trigger()
	j.must(j.drain(j.process("p")))
	j.whole(j.outcome())
}

// A large file is read twice, once for its SHA-256. Damaged in between it is damaged
// all the same.
func TestFileDamagedWhileItIsRead(t *testing.T) {
	noise := rand.NewChaCha8([32]byte{})
	many := make([]rows.Row, 2200)
	for i := range many {
		b := make([]byte, 8<<10)
		noise.Read(b)
		many[i] = row("a", i, "noise", b)
	}
	j := build(t, shape{}, []task{one(many...)})
	a := j.process("p")
	j.must(a.Advance(t.Context(), jobID, 0))
	key, size := job.Abs(*j.results[0].File), j.results[0].Bytes
	if size <= 16<<20 {
		t.Fatalf("%d bytes are read in one piece", size)
	}
	whole := a.Blobs
	a.Blobs = &rotting{Blobs: whole, key: key, after: size}
	if _, err := j.step(a); !errors.Is(err, hayrick.ErrCorrupt) || !strings.Contains(err.Error(), *j.results[0].File) {
		t.Fatal(err)
	}
	j.absent(job.Done("agg-0-1-0000"))
	a.Blobs = whole
	j.must(j.drain(a))
	j.whole(j.outcome())
}

// rotting are blobs of which one has other bytes once so many of it were read.
type rotting struct {
	aggregator.Blobs
	key   string
	after int64
	read  int64
}

func (r *rotting) OpenAt(ctx context.Context, key string) (manifest.Blob, error) {
	b, err := r.Blobs.OpenAt(ctx, key)
	if err == nil && key == r.key {
		b = rottingBlob{b, r}
	}
	return b, err
}

type rottingBlob struct {
	manifest.Blob
	of *rotting
}

func (b rottingBlob) ReadAt(p []byte, at int64) (int, error) {
	n, err := b.Blob.ReadAt(p, at)
	if b.of.read >= b.of.after {
		for i := range p[:n] {
			p[i] ^= 0x40
		}
	}
	b.of.read += int64(n)
	return n, err
}

// A retry plan whose lists are not what it counts is refused: an item would be lost.
func TestListsThatAreNotWhole(t *testing.T) {
	j := build(t, shape{retry: func(r *manifest.RetryPlan) { r.PermanentList = nil }}, []task{one(row("a", 1)), {permanent: []item{{1, "gone"}}}})
	a := j.process("p")
	j.must(a.Advance(t.Context(), jobID, 0))
	if _, err := j.step(a); err != nil {
		t.Fatal(err)
	}
	j.refuses("1 items", "list 0")
}

// 002-48: a results.done that was vouched for and lies about its rows does not get them
// merged. Its merge FAILS, three times; then the job does, and says which file it was.
func TestResultsThatLie(t *testing.T) {
	for name, bad := range map[string]func(r *manifest.Result){
		"one row more": func(r *manifest.Result) { r.RowCount++ },
		"other rows":   func(r *manifest.Result) { r.RowHash = "1" },
	} {
		j := three(t, shape{bad: func(n int64, r *manifest.Result) {
			if n == 2 {
				bad(r)
			}
		}})
		o := j.aggregate()
		if o.Status != "FAILED" || o.Code != manifest.CodeNothingToMerge || !strings.Contains(o.Message, *j.results[2].File) ||
			!strings.Contains(o.Message, "agg-0-1-0000") || o.OK != 3 || o.Unfinished != 0 || o.Aggregation != nil {
			t.Errorf("%s: %+v", name, o)
		}
		j.chained(o)
		for run, id := range []string{"agg-0-1-0000", "agg-0-1-0000-r1", "agg-0-1-0000-r2"} {
			r := j.result(id)
			if r.Status != "FAILED" || r.File != nil || r.RowCount != 0 || r.RowHash != "0" || len(r.Inputs) != 0 || r.Task.Error == nil || !strings.Contains(r.Task.Error.Message, *j.results[2].File) {
				t.Errorf("%s, run %d: %+v", name, run, r)
			}
			if o.Chain[job.Rel(job.Done(id))] == "" {
				t.Errorf("the chain does not name %s", id)
			}
		}
		j.absent(job.Done("agg-0-1-0000-r3"))
		if out := j.published(); len(out) != 0 {
			t.Errorf("published %v", out)
		}
	}
}

// A file of which only bytes that no reader decodes have changed is another file.
func TestUndecodedBytesCount(t *testing.T) {
	j := three(t, shape{})
	key := job.Abs(*j.results[2].File)
	sound := j.mem.Snapshot()[key]
	other := rewrite(t, sound, func(meta rows.Compact) rows.Compact {
		by, err := meta.Text(6)
		j.must(err)
		by = strings.ToUpper(by[:1]) + by[1:] // created_by: the same length
		return meta.Set(6, rows.CompactBinary, append([]byte{byte(len(by))}, by...))
	})
	if len(other) != len(sound) || string(other) == string(sound) {
		t.Fatalf("%d bytes, %d", len(other), len(sound))
	}
	j.must(j.process("p").Advance(t.Context(), jobID, 0))
	j.mem.Damage(key, other)
	if _, err := j.step(j.process("p")); !errors.Is(err, hayrick.ErrCorrupt) || !strings.Contains(err.Error(), "SHA-256") {
		t.Error(err)
	}
}

// A merge that FAILED is run again under another id: a scratch disk that errs is not
// the end of the job.
func TestMergeThatFailedRunsAgain(t *testing.T) {
	for failed := range 3 {
		j := three(t, shape{})
		a := j.process("p")
		j.must(a.Advance(t.Context(), jobID, 0))
		for run := range failed {
			j.failMerge(a, run)
			j.clock.Sleep(t.Context(), 2e9)
		}
		j.must(j.drain(a))
		o := j.outcome()
		j.whole(o)
		j.chained(o)
		if r := j.result(manifest.MergeTaskID(0, 1, 0, failed)); r.Status != "DONE" || r.RowCount != 4 {
			t.Errorf("after %d: %+v", failed, r)
		}
		j.absent(job.Done(manifest.MergeTaskID(0, 1, 0, failed+1)))
	}
}

// failMerge makes a merge FAIL its n-th run.
func (j *jobRig) failMerge(a *aggregator.Aggregator, n int) {
	j.t.Helper()
	a.Temp = func() (manifest.Temp, error) {
		temp, err := j.temps.new()
		return &rotten{temp}, err
	}
	defer func() { a.Temp = j.temps.new }()
	if worked, err := j.step(a); !worked || err != nil {
		j.t.Fatalf("%v, %v", worked, err)
	}
	if r := j.result(manifest.MergeTaskID(0, 1, 0, n)); r.Status != "FAILED" {
		j.t.Fatalf("%+v", r)
	}
}

// A repetition that nobody was told of is found by whoever looks: the message of a
// merge that FAILED may be lost, and its block may say that it is done.
func TestRepetitionIsFound(t *testing.T) {
	j := three(t, shape{})
	a := j.process("p")
	j.must(a.Advance(t.Context(), jobID, 0))
	j.failMerge(a, 0)
	j.mem.WipeQueue()
	j.trigger()
	j.must(j.drain(a))
	j.whole(j.outcome())
}

// merge plans the aggregation and carries its n merges out: what is left is the
// root's.
func (j *jobRig) merge(n int) *aggregator.Aggregator {
	j.t.Helper()
	a := j.process("p")
	j.must(a.Advance(j.t.Context(), jobID, 0))
	for range n {
		_, err := j.step(a)
		j.must(err)
	}
	j.absent(job.Outcome(0))
	return a
}

// What the merges wrote is held against their results.done once more: no damage
// between the levels gets into the dataset.
func TestMergedFilesThatAreNotVouchedFor(t *testing.T) {
	prepare := func() (*jobRig, string, []byte) {
		j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 2, true }},
			[]task{one(row("a", 1)), one(row("a", 2)), one(row("a", 3)), one(row("a", 4)), one(row("a", 5))})
		j.merge(3)
		key := job.Abs(*j.result("agg-0-1-0001").File)
		return j, key, j.mem.Snapshot()[key]
	}
	j, _, sound := prepare()
	damages := [][]byte{nil, {}, sound[:len(sound)-1], append(slices.Clone(sound), 0)}
	for _, at := range flips(len(sound)) {
		damages = append(damages, flipped(sound, at))
	}
	for _, b := range damages {
		j, key, _ := prepare() // the same rows give the same bytes
		j.mem.Damage(key, b)
		j.refuses(job.Rel(key))
	}
	// A merge's results.done that was changed would break the sums.
	done := job.Done("agg-0-1-0001")
	was := j.mem.Snapshot()[done]
	hash := `"row_hash":"` + j.result("agg-0-1-0001").RowHash
	for _, edit := range [][2]string{{`"row_count":2`, `"row_count":3`}, {hash, `"row_hash":"1`}, {hash, `"row_hash":"`}, {`"file":"`, `"file":null,"x":"`}} {
		j.mem.Damage(done, edited(t, was, edit[0], edit[1]))
		j.refuses()
	}
	j.mem.Damage(done, was)
	j.trigger()
	j.must(j.drain(j.process("p")))
	j.whole(j.outcome())
}

// Whatever happened to a merged file after its commit, it is an error that names it,
// and never a part that looks whole.
func TestMergedFilesDamagedAtRandom(t *testing.T) {
	j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount, d.Merge.RowGroup = 1, true, 100 }},
		[]task{one(concatRows(1, 500)...), one(concatRows(2, 300)...)})
	j.merge(2)
	j.damaged = true // a part of damaged bytes has the key of the sound one
	key := job.Abs(*j.result("agg-0-1-0001").File)
	victim := j.mem.Snapshot()[key]
	if _, plan := concat(t, victim); plan.RowGroups != 3 {
		t.Fatalf("%d row groups", plan.RowGroups)
	}
	try := func(b []byte) {
		t.Helper()
		j.mem.Damage(key, b)
		if j.refuses(job.Rel(key)); t.Failed() {
			t.FailNow()
		}
	}
	for n := 0; n < len(victim); n += 1 + len(victim)/53 {
		try(victim[:n])
	}
	footer := len(victim) - 8 - int(binary.LittleEndian.Uint32(victim[len(victim)-8:]))
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range 600 {
		b := slices.Clone(victim)
		from := []int{0, footer, footer}[i%3]
		for range 1 + rng.IntN(3) {
			b[from+rng.IntN(len(b)-from)] ^= byte(1 + rng.IntN(255))
		}
		try(b)
	}
	// Once the merged file is mended the job ends by itself, though the key of the part
	// keeps what was made of the damaged one.
	j.mem.Damage(key, victim)
	j.trigger()
	j.must(j.drain(j.process("p")))
	j.whole(j.outcome())
}

// A store that fails amid the joining, and a root that is called off, are errors
// that say so; the next root goes on.
func TestJoiningThatStops(t *testing.T) {
	full := errors.New("no space left on device")
	for _, op := range []string{"OpenAt", "ReadAt", "Assemble"} {
		j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 1, true }},
			[]task{one(row("a", 1)), one(row("a", 2))})
		a := j.merge(2)
		stops := func(ctx context.Context, want error, meant func(), f mem.Fault) {
			t.Helper()
			met := false
			j.mem.Hook = func(c mem.Call) mem.Fault {
				if met || c.Op != op {
					return mem.Fault{}
				}
				met = true
				meant()
				return f
			}
			if err := a.Advance(ctx, jobID, 0); !met || !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", op, err, want)
			}
			j.mem.Hook = nil
			j.absent(job.Outcome(0))
		}
		ctx, cancel := context.WithCancel(t.Context())
		stops(ctx, context.Canceled, cancel, mem.Fault{})
		stops(t.Context(), full, func() {}, mem.Fault{ErrBefore: full})
		j.trigger()
		j.must(j.drain(a))
		j.whole(j.outcome())
	}
}

// badPart is a job whose merges have ended and whose part has been made; meant hears of
// it.
func badPart(t *testing.T, meant func(j *jobRig, part string, body []byte)) (*jobRig, *aggregator.Aggregator) {
	j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 1, true }},
		[]task{one(row("a", 1)), one(row("a", 2))})
	a := j.merge(2)
	part, body := "", []byte(nil)
	j.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "OpenAt" && strings.Contains(c.Key, "/part-") {
			part, body = c.Key, j.mem.Snapshot()[c.Key]
			return mem.Fault{ErrBefore: errors.New("503")}
		}
		return mem.Fault{}
	}
	if err := a.Advance(t.Context(), jobID, 0); err == nil || part == "" {
		t.Fatalf("%v", err)
	}
	j.mem.Hook = nil
	j.damaged = true
	meant(j, part, body)
	return j, a
}

// A store that joins files wrongly is found out by reading back, wherever the wrong
// byte is, and the part is made again under another key.
func TestReadBackFindsABadCopy(t *testing.T) {
	var size int
	badPart(t, func(_ *jobRig, _ string, body []byte) { size = len(body) })
	damages := []func(body []byte) []byte{
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { return append(slices.Clone(b), 0) },
		func(b []byte) []byte { return []byte{} },
	}
	for _, at := range flips(size) {
		damages = append(damages, func(b []byte) []byte { return flipped(b, at) })
	}
	for i, damage := range damages {
		var part string
		var sound []byte
		j, a := badPart(t, func(j *jobRig, key string, body []byte) {
			part, sound = key, body
			j.mem.Damage(key, damage(body))
		})
		j.must(a.Advance(t.Context(), jobID, 0))
		j.must(a.Advance(t.Context(), jobID, 0)) // and publishes
		o := j.outcome()
		j.whole(o)
		p := o.Aggregation.Parts[0]
		if job.Abs(p.Key) == part || p.SHA256 != manifest.SHA256(sound) || !slices.Equal(j.mem.Snapshot()[job.Abs(p.Key)], sound) {
			t.Fatalf("damage %d of %s: the part is %+v", i, part, p)
		}
	}
}

// Where every copy comes out wrong the root stops, and says what to remove.
func TestEveryCopyIsBad(t *testing.T) {
	j, a := badPart(t, func(j *jobRig, key string, body []byte) {})
	seen := map[string]bool{}
	last := ""
	j.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "OpenAt" && strings.Contains(c.Key, "/part-") && !seen[c.Key] {
			seen[c.Key], last = true, c.Key
			j.mem.Damage(c.Key, flipped(j.mem.Snapshot()[c.Key], 9))
		}
		return mem.Fault{}
	}
	err := a.Advance(t.Context(), jobID, 0)
	if !errors.Is(err, hayrick.ErrCorrupt) || len(seen) < 2 || !strings.Contains(err.Error(), "remove "+last) {
		t.Fatalf("%d keys, %v", len(seen), err)
	}
	j.absent(job.Outcome(0))
	j.mem.Hook = nil
	j.mem.Damage(last, nil)
	j.must(a.Advance(t.Context(), jobID, 0))
	j.must(a.Advance(t.Context(), jobID, 0))
	j.whole(j.outcome())
}

// Objects that commits name and that are gone are damage, not a reason to wait.
func TestNamedObjectsThatAreGone(t *testing.T) {
	j := build(t, shape{refs: true}, []task{{ok: 1, rows: []rows.Row{row("a", 1)}, permanent: []item{{1, "gone"}}}})
	a := j.process("p")
	objects := func() (keys []string) {
		for key := range j.mem.Snapshot() {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		return keys
	}
	lost := 0
	without := func(meant func(rel string) bool) {
		for _, key := range objects() {
			if rel := job.Rel(key); meant(rel) {
				was := j.mem.Snapshot()[key]
				j.mem.Damage(key, nil)
				j.refuses(rel)
				j.mem.Damage(key, was)
				lost++
			}
		}
	}
	without(func(rel string) bool {
		return strings.HasPrefix(rel, "config-") || strings.Contains(rel, "results-") || strings.HasPrefix(rel, "tasks/")
	})
	if lost != 4 { // the definition, the list of results, results.done, the rows
		t.Errorf("%d objects were lost", lost)
	}
	j.must(a.Advance(t.Context(), jobID, 0))
	if _, err := j.step(a); err != nil {
		t.Fatal(err)
	}
	without(func(rel string) bool {
		return strings.HasPrefix(rel, "groups/final_") || strings.Contains(rel, "permanent-") || strings.HasPrefix(rel, "tasks/agg-") && strings.HasSuffix(rel, ".parquet")
	})
	if lost != 7 {
		t.Errorf("%d objects were lost", lost)
	}
	j.must(j.drain(a))
	j.whole(j.outcome())
}
