package aggregator_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/internal/rows"
	"hayrick/manifest"
	"hayrick/mem"
)

// planned is a job of two merges that is planned, whose messages are taken out of
// the queue.
func planned(t *testing.T) (j *jobRig, a *aggregator.Aggregator, ds []hayrick.Delivery) {
	t.Helper()
	j = build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 2, true }},
		[]task{one(row("a", 1)), one(row("a", 2)), one(row("a", 3))})
	a = j.process("p")
	j.must(a.Advance(t.Context(), jobID, 0))
	ds, err := j.mem.Receive(j.ctx("p"), hayrick.QueueTasks, 10, time.Minute, 0)
	j.must(err)
	if len(ds) != 2 || ds[0].TaskID != "agg-0-1-0000" || ds[1].TaskID != "agg-0-1-0001" || ds[1].Position != 1 || ds[0].Role != hayrick.RoleAggregator || ds[0].Group != "final_aggregation" {
		t.Fatalf("sent %+v", ds)
	}
	return j, a, ds
}

func (j *jobRig) claimOf(id string) (hayrick.Claim, bool) {
	j.t.Helper()
	c, alive, err := j.mem.ReadClaim(context.Background(), hayrick.TaskRef{JobID: jobID, TaskID: id})
	if err != nil && !errors.Is(err, hayrick.ErrNotFound) {
		j.t.Fatal(err)
	}
	return c, alive
}

// Messages that point at nothing of the plan, or that come after its end, are done
// with.
func TestMessagesToNothing(t *testing.T) {
	j, a, ds := planned(t)
	before := len(j.mem.Snapshot())
	for _, m := range []hayrick.Message{
		{TaskID: "agg-0-1-0002", Position: 2}, {TaskID: "agg-0-1-0000", Position: 1}, {TaskID: "agg-0-1-0000", Block: 1},
		{TaskID: "agg-0-1-0000", Position: -1}, {TaskID: "agg-0-1-0000", Block: -1}, {TaskID: "task-0000"}, {TaskID: "agg-0-1-0000", Generation: 1},
	} {
		m.JobID, m.Role = jobID, hayrick.RoleAggregator
		if v, err := a.Do(t.Context(), hayrick.Delivery{Message: m}); !v.Ack || err != nil {
			t.Errorf("%+v: %+v, %v", m, v, err)
		}
	}
	if after := len(j.mem.Snapshot()); after != before {
		t.Errorf("%d objects, %d before", after, before)
	}
	j.trigger()
	for _, d := range ds {
		_, err := a.Do(t.Context(), d)
		j.must(err)
	}
	j.must(j.drainAll(a, ds))
	j.whole(j.outcome())
	calls := j.mem.Calls()["Claim"]
	if v, err := a.Do(t.Context(), ds[0]); !v.Ack || err != nil || j.mem.Calls()["Claim"] != calls {
		t.Errorf("after the end: %+v, %v", v, err)
	}
}

// drainAll acknowledges ds and works until the queue is empty.
func (j *jobRig) drainAll(a *aggregator.Aggregator, ds []hayrick.Delivery) error {
	if err := j.mem.Ack(j.t.Context(), hayrick.QueueTasks, ds...); err != nil {
		return err
	}
	return j.drain(a)
}

// While one attempt holds a merge another one waits; when its process is gone the
// next one goes on at once, and what it commits first stands.
func TestMergeIsClaimed(t *testing.T) {
	j, a, ds := planned(t)
	other := j.process("q")
	waited := false
	j.mem.Hook = hookAt(func(c mem.Call) bool { return c.Op == "Put" && strings.Contains(c.Key, "agg-0-1-0000") }, func() {
		waited = true
		again := ds[0]
		again.Count = 2
		v, err := other.Do(j.ctx("q"), again)
		if v.Ack || v.Again != 2*time.Minute || err != nil { // twice what the lease has left
			t.Errorf("the other says %+v, %v", v, err)
		}
		if v, err = other.Do(j.ctx("q"), ds[0]); !v.Ack || err != nil { // a message of its own: a duplicate
			t.Errorf("the other says %+v, %v", v, err)
		}
		// The first is taken for dead: its lease has run out.
		j.clock.Sleep(t.Context(), 2*time.Minute)
		if v, err = other.Do(j.ctx("q"), ds[0]); !v.Ack || err != nil {
			t.Errorf("the other says %+v, %v", v, err)
		}
	})
	if v, err := a.Do(j.ctx("p"), ds[0]); !v.Ack || err != nil || !waited {
		t.Fatalf("the first says %+v, %v", v, err)
	}
	if r := j.result("agg-0-1-0000"); r.Task.Worker != "q" || r.Fence != 2 || r.Task.Retries != 1 {
		t.Errorf("the result is of %s with fence %d", r.Task.Worker, r.Fence)
	}
	j.must(j.mem.Ack(t.Context(), hayrick.QueueTasks, ds[0]))
	_, err := a.Do(j.ctx("p"), ds[1])
	j.must(err)
	j.must(j.drainAll(a, ds))
	j.whole(j.outcome())
}

// An attempt that finds its merge done under an older claim does not do it again.
func TestMergeDoneMeanwhile(t *testing.T) {
	j, a, ds := planned(t)
	other := j.process("q")
	// a has looked for a result and found none; then q does all of it, and its claim is
	// given back as if it had crashed after the commit.
	j.mem.Hook = hookAt(func(c mem.Call) bool { return c.Op == "Claim" && c.Actor == "p" }, func() {
		if v, err := other.Do(j.ctx("q"), ds[0]); !v.Ack || err != nil {
			t.Errorf("the other says %+v, %v", v, err)
		}
		j.clock.Sleep(t.Context(), 2*time.Minute)
	})
	puts := 0
	if v, err := a.Do(j.ctx("p"), ds[0]); !v.Ack || err != nil {
		t.Fatalf("%+v, %v", v, err)
	}
	for key := range j.mem.Snapshot() {
		if strings.Contains(key, "agg-0-1-0000_") {
			puts++
		}
	}
	if puts != 1 {
		t.Errorf("%d files were written", puts)
	}
}

// The reply to a claim may be lost: the attempt has it all the same.
func TestLostClaimReply(t *testing.T) {
	j, a, ds := planned(t)
	j.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "Claim" && j.mem.Calls()["Claim"] == 1 {
			return mem.Fault{ErrAfter: errors.New("connection reset")}
		}
		return mem.Fault{}
	}
	if v, err := a.Do(j.ctx("p"), ds[0]); !v.Ack || err != nil {
		t.Fatalf("%+v, %v", v, err)
	}
	if r := j.result("agg-0-1-0000"); r.Fence != 1 {
		t.Errorf("fence %d", r.Fence)
	}
}

// After an error nothing is committed, no scratch file is left open, and the claim
// is given back: the next attempt need not wait, and nobody counts as vanished.
func TestFailedAttemptGivesItsClaimBack(t *testing.T) {
	for _, op := range []string{"OpenAt", "ReadAt", "Put", "Commit"} {
		j, a, ds := planned(t)
		broken := errors.New("503 service unavailable")
		j.mem.Hook = func(c mem.Call) mem.Fault {
			if c.Op == op {
				return mem.Fault{ErrBefore: broken}
			}
			return mem.Fault{}
		}
		v, err := a.Do(j.ctx("p"), ds[0])
		if v.Ack || v.Again <= 0 || !errors.Is(err, broken) || !strings.Contains(err.Error(), "agg-0-1-0000") {
			t.Fatalf("%s: %+v, %v", op, v, err)
		}
		j.mem.Hook = nil
		j.absent(job.Done("agg-0-1-0000"))
		if c, alive := j.claimOf("agg-0-1-0000"); alive || c.Fence != 1 || c.Vanished != 0 {
			t.Errorf("%s: claim %+v, alive %v", op, c, alive)
		}
		if j.temps.open != 0 {
			t.Errorf("%s: %d scratch files are open", op, j.temps.open)
		}
		if v, err := a.Do(j.ctx("p"), ds[0]); !v.Ack || err != nil {
			t.Errorf("%s, again: %+v, %v", op, v, err)
		}
		if r := j.result("agg-0-1-0000"); r.Status != "DONE" || r.Fence != 2 {
			t.Errorf("%s, again: %+v", op, r)
		}
	}
}

// A cancelled context ends a merge between two reads, like any error.
func TestCancelledMerge(t *testing.T) {
	j, a, ds := planned(t)
	reads := 0
	count := func(c mem.Call) mem.Fault {
		if c.Op == "ReadAt" {
			reads++
		}
		return mem.Fault{}
	}
	j.mem.Hook = count
	probe := j.process("q")
	if _, err := probe.Do(j.ctx("q"), ds[1]); err != nil {
		t.Fatal(err)
	}
	if reads == 0 {
		t.Fatal("a merge reads nothing")
	}
	ctx, cancel := context.WithCancel(j.ctx("p"))
	j.mem.Hook = hookAt(func(c mem.Call) bool { return c.Op == "ReadAt" }, cancel)
	v, err := a.Do(ctx, ds[0])
	if v.Ack || !errors.Is(err, context.Canceled) {
		t.Fatalf("%+v, %v", v, err)
	}
	j.mem.Hook = nil
	j.absent(job.Done("agg-0-1-0000"))
	if _, alive := j.claimOf("agg-0-1-0000"); alive || j.temps.open != 0 {
		t.Errorf("its claim is alive: %v; %d scratch files are open", alive, j.temps.open)
	}
}

// A paused job hands out no merges and plans none; its messages are done with, for a
// resume sends what is open again.
func TestPaused(t *testing.T) {
	j, a, ds := planned(t)
	state := func(s hayrick.JobStatus, g int) {
		j.must(j.mem.PutJobState(t.Context(), hayrick.JobState{JobID: jobID, Generation: g, Status: s}))
	}
	state(hayrick.StatusPaused, 0)
	before := len(j.mem.Snapshot())
	trigger := hayrick.Delivery{Message: hayrick.Message{JobID: jobID, Role: hayrick.RoleAggregator}}
	for _, d := range []hayrick.Delivery{ds[0], trigger} {
		if v, err := a.Do(t.Context(), d); !v.Ack || err != nil {
			t.Errorf("%+v, %v", v, err)
		}
	}
	if after := len(j.mem.Snapshot()); after != before {
		t.Errorf("%d objects, %d before", after, before)
	}
	state(hayrick.StatusPaused, 1) // another generation's
	if v, err := a.Do(t.Context(), ds[0]); !v.Ack || err != nil {
		t.Errorf("%+v, %v", v, err)
	}
	state(hayrick.StatusRunning, 0)
	j.must(j.drainAll(a, ds[:1]))
	j.clock.Sleep(t.Context(), time.Minute)
	j.must(j.drain(a))
	j.whole(j.outcome())
}

// A result that is too large to be read in one piece is held against its SHA-256
// all the same.
func TestLargeResult(t *testing.T) {
	noise := make([]byte, 3<<20)
	x := uint64(88172645463325252)
	for i := range noise {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		noise[i] = byte(x)
	}
	big := task{ok: 1}
	for i := range 7 {
		noise[0] = byte(i)
		big.rows = append(big.rows, row("n", i, "raw", append([]byte(nil), noise...)))
	}
	j := build(t, shape{}, []task{one(row("n", 100)), big})
	key := job.Abs(*j.results[1].File)
	sound := j.mem.Snapshot()[key]
	if len(sound) < 20<<20 {
		t.Fatalf("%d bytes", len(sound))
	}
	a := j.process("p")
	j.must(a.Advance(t.Context(), jobID, 0))
	j.mem.Damage(key, flipped(sound, len(sound)/2))
	if _, err := j.step(a); !errors.Is(err, hayrick.ErrCorrupt) || !strings.Contains(err.Error(), "SHA-256") {
		t.Error(err)
	}
	j.mem.Damage(key, sound)
	j.must(j.drain(a))
	o := j.outcome()
	if o.Status != "SUCCEEDED" || o.RowCount != 8 || o.RowHash != hashOf(t, j.want) {
		t.Errorf("%+v", o)
	}
}

// meter counts the bytes that are read of some objects.
type meter struct {
	manifest.Objects
	of   func(key string) bool
	read int64
}

func (m *meter) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := m.Objects.Open(ctx, key, offset, length)
	if err != nil || !m.of(key) {
		return r, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.TeeReader(r, m), r}, nil
}

func (m *meter) Write(p []byte) (int, error) { m.read += int64(len(p)); return len(p), nil }

// A plan of more inputs than a record holds names them in a list. A merge reads its
// own of them, checked, and not the whole list.
func TestLongPlan(t *testing.T) {
	const tasks = 10_300
	var ts []task
	for i := range tasks {
		ts = append(ts, one())
		if i%10 == 0 { // 1,030 with rows: most of a list may be empty results
			ts[i] = one(row("task", i))
		}
	}
	j := build(t, shape{refs: true, def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 20, true }}, ts)
	list := &meter{Objects: j.mem, of: func(key string) bool { return strings.Contains(key, "/inputs-") }}
	a := j.process("p")
	a.Store = &manifest.Store{Objects: list, Clock: j.clock}
	j.trigger()
	j.must(j.drain(a))
	o := j.outcome()
	j.whole(o)
	j.chained(o)
	p := j.mergePlan()
	if p.Inputs != nil || p.InputsRef == nil || p.InputsRef.Count != tasks || p.Group.Tasks != 52 || !strings.HasPrefix(p.InputsRef.Key, "aggregation/0/inputs-") {
		t.Fatalf("%d inputs, %+v, %d merges", len(p.Inputs), p.InputsRef, p.Group.Tasks)
	}
	if agg := o.Aggregation; agg.InputFileCount != 1030 || agg.InputFiles != nil || agg.RowCountsByBatch != nil {
		t.Errorf("%d input files, %d listed", agg.InputFileCount, len(agg.InputFiles))
	}
	size := int64(len(j.mem.Snapshot()[job.Abs(p.InputsRef.Key)]))
	// Once whole for all merges, once in pieces that overlap, once to count files.
	t.Logf("%d bytes read of a list of %d", list.read, size)
	if list.read > 6*size {
		t.Errorf("%d bytes read of a list of %d by %d merges", list.read, size, p.Group.Tasks)
	}
	for n, want := range map[int]string{0: "#0+191", 1: "#191+200", 51: "#10191+109"} {
		if r := j.result(manifest.MergeTaskID(0, 1, n, 0)); !strings.HasSuffix(r.Task.Input, want) {
			t.Errorf("merge %d took %s", n, r.Task.Input)
		}
	}
}

// A list of inputs that has changed after it was read, or before, gives no rows.
func TestLongPlanDamaged(t *testing.T) {
	const tasks = 10_001
	var ts []task
	for i := range tasks {
		ts = append(ts, one())
		if i%1000 == 0 {
			ts[i] = one(row("task", i))
		}
	}
	j := build(t, shape{refs: true, def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 3, true }}, ts)
	a := j.process("p")
	j.must(a.Advance(t.Context(), jobID, 0))
	key := job.Abs(j.mergePlan().InputsRef.Key)
	sound := j.mem.Snapshot()[key]
	if _, err := j.step(a); err != nil { // which remembers the list
		t.Fatal(err)
	}
	j.mem.Damage(key, []byte(strings.Replace(string(sound), `"rows":1,`, `"rows":0,`, 9)))
	for what, a := range map[string]*aggregator.Aggregator{"remembered": a, "new": j.process("q")} {
		ds, err := j.mem.Receive(t.Context(), hayrick.QueueTasks, 1, time.Minute, 0)
		j.must(err)
		if v, err := a.Do(t.Context(), ds[0]); v.Ack || !errors.Is(err, hayrick.ErrCorrupt) || !strings.Contains(err.Error(), "inputs-") {
			t.Fatalf("%s: %+v, %v", what, v, err)
		}
		j.absent(job.Done(ds[0].TaskID))
	}
	j.mem.Damage(key, sound)
	j.clock.Sleep(t.Context(), time.Minute)
	j.must(j.drain(a))
	j.whole(j.outcome())
}

// read_back may be switched off for merges; the root's own stays.
func TestWithoutReadBack(t *testing.T) {
	j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.ReadBack = yes(false) }}, []task{one(row("a", 1)), one(row("a", 2))})
	j.whole(j.aggregate())
}

// A merge whose scratch file does not give back what was written FAILS, on either
// level and whatever it writes.
func TestMergeReadsBack(t *testing.T) {
	for name, c := range map[string]struct {
		def   func(*hayrick.Output)
		group string // whose scratch is rotten
	}{
		"rows":            {func(o *hayrick.Output) {}, hayrick.GroupAggregation},
		"a run":           {func(o *hayrick.Output) { o.UniqueBy = []string{"a"} }, hayrick.GroupAggregation},
		"a range of keys": {func(o *hayrick.Output) { o.UniqueBy = []string{"a"} }, hayrick.GroupRanges},
		"a partition":     {func(o *hayrick.Output) { o.PartitionBy = []string{"a"} }, hayrick.GroupAggregation},
	} {
		t.Run(name, func(t *testing.T) {
			j := build(t, shape{def: func(d *hayrick.JobDefinition) { c.def(&d.Output) }}, []task{one(row("a", 1), row("a", 2))})
			a := j.process("p")
			j.must(a.Advance(t.Context(), jobID, 0))
			for range 10 {
				ds, err := j.mem.Receive(t.Context(), hayrick.QueueTasks, 1, time.Minute, 0)
				j.must(err)
				if len(ds) == 0 {
					break
				}
				if rotting := ds[0].TaskID != "" && ds[0].Group == c.group; rotting {
					a.Temp = func() (manifest.Temp, error) {
						temp, err := j.temps.new()
						return &rotten{temp}, err
					}
					if v, err := a.Do(j.ctx("p"), ds[0]); v.Ack || err != nil {
						t.Fatalf("%+v, %v", v, err)
					}
					r := j.result(ds[0].TaskID)
					if r.Status != "FAILED" || !strings.Contains(r.Task.Error.Message, "read back") {
						t.Fatalf("%+v", r)
					}
					a.Temp = j.temps.new
					j.clock.Sleep(t.Context(), 2*time.Minute)
					j.must(j.drain(a)) // and the next run of it is sound
					if o := j.outcome(); o.Status != "SUCCEEDED" || o.RowCount != 2 {
						t.Fatalf("%+v", o)
					}
					return
				}
				v, err := a.Do(j.ctx("p"), ds[0])
				if err != nil || !v.Ack {
					t.Fatalf("%+v, %v", v, err)
				}
				j.must(j.mem.Ack(t.Context(), hayrick.QueueTasks, ds[0]))
			}
			t.Fatal("no such merge")
		})
	}
}

// rotten is a scratch file that reads one bit wrong.
type rotten struct{ manifest.Temp }

func (r *rotten) ReadAt(p []byte, at int64) (int, error) {
	n, err := r.Temp.ReadAt(p, at)
	if at <= 20 && at+int64(n) > 20 {
		p[20-at] ^= 1
	}
	return n, err
}

// The rows of a merge are those of its inputs even where the dictionary is forced.
func TestDictionary(t *testing.T) {
	for _, dict := range []*bool{nil, yes(true), yes(false)} {
		j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.Dictionary = dict }},
			[]task{one(row("a", "x"), row("a", "y")), one(row("a", "x"))})
		j.whole(j.aggregate())
		part := []byte(j.published()["part-00000.parquet"])
		has := chunkOf(t, openArrow(t, part).RowGroup(0).MetaData(), 0).HasDictionaryPage()
		if dict != nil && has != *dict {
			t.Errorf("dictionary forced to %v: %v", *dict, has)
		}
	}
}

// Scratch that cannot be made is an error that ends nothing.
func TestNoScratch(t *testing.T) {
	full := errors.New("no space left on device")
	j, a, ds := planned(t)
	a.Temp = func() (manifest.Temp, error) { return nil, full }
	if v, err := a.Do(j.ctx("p"), ds[0]); v.Ack || !errors.Is(err, full) {
		t.Errorf("merge: %+v, %v", v, err)
	}
	j = build(t, shape{}, []task{{ok: 1, rows: []rows.Row{row("a", 1)}, permanent: []item{{1, "gone"}}}})
	b := j.process("p")
	b.Temp = func() (manifest.Temp, error) { return nil, full }
	if err := b.Advance(t.Context(), jobID, 0); !errors.Is(err, full) {
		t.Errorf("plan: %v", err)
	}
	b.Temp = j.temps.new
	j.must(b.Advance(t.Context(), jobID, 0))
	if _, err := j.step(b); err != nil {
		t.Fatal(err)
	}
	b.Temp = func() (manifest.Temp, error) { return nil, full }
	if err := b.Advance(t.Context(), jobID, 0); !errors.Is(err, full) {
		t.Errorf("lists: %v", err)
	}
	j.absent(job.Outcome(0))
	b.Temp = j.temps.new
	j.must(j.drain(b))
	j.whole(j.outcome())
}
