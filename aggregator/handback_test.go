package aggregator_test

import (
	"context"
	"errors"
	"fmt"
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

// none is the time of a process that is about to end: it hands back as soon as it has
// done anything.
func none() time.Duration { return 0 }

func TestStop(t *testing.T) {
	const s, m, MiB = time.Second, time.Minute, int64(1) << 20
	for _, x := range []struct {
		whole, left, spent time.Duration
		done, next, keep   int64
		want               bool
	}{
		{15 * m, 0, 0, 0, MiB, 0, false},                                        // nothing done yet: it tries
		{15 * m, 14 * m, m, 60 * MiB, 60 * MiB, 120 * MiB, false},               // another minute, and again
		{15 * m, 3 * m, m, 60 * MiB, 60 * MiB, 120 * MiB, false},                // two, for slow inputs, and 22.5 s to store it
		{15 * m, 2 * m, m, 60 * MiB, 60 * MiB, 120 * MiB, true},                 // and that is too long
		{15 * m, 10 * m, m, 60 * MiB, 600 * MiB, 0, true},                       // a large one
		{15 * m, 16 * s, 0, MiB, 0, 0, false},                                   // what is kept of the time
		{15 * m, 15 * s, 0, MiB, 0, 0, true},                                    // ...
		{8 * s, 3 * s, 0, MiB, 0, 0, false}, {8 * s, 2 * s, 0, MiB, 0, 0, true}, // of a short time a quarter
	} {
		if got := aggregator.Stop(x.whole, x.left, x.spent, x.done, x.next, x.keep); got != x.want {
			t.Errorf("%+v: %t", x, got)
		}
	}
}

// seven is a merge of seven results, one of them without rows, in one node.
func seven(t *testing.T, s shape) *jobRig {
	s.def = func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 6, true }
	return build(t, s, []task{one(row("a", 1), row("a", 2)), one(row("a", 3, "b", "x")), one(row("a", 4)), {ok: 1}, one(row("a", 5)), one(row("b", "y")), one(row("a", 7))})
}

// drainShort works until no message is left, by processes that have no time, and says
// how many deliveries that took. No message is ever delivered twice.
func (j *jobRig) drainShort() (deliveries int) {
	j.t.Helper()
	j.left = none
	for {
		a := j.process(fmt.Sprint("short-", deliveries))
		ds, err := j.mem.Receive(j.ctx(a.World.Worker), hayrick.QueueTasks, 1, time.Minute, 0)
		j.must(err)
		if len(ds) == 0 {
			return deliveries
		}
		deliveries++
		if ds[0].Count != 1 || deliveries > 200 {
			j.t.Fatalf("delivery %d: %+v", deliveries, ds[0])
		}
		v, err := a.Do(j.ctx(a.World.Worker), ds[0])
		if err != nil || !v.Ack {
			j.t.Fatalf("delivery %d: %+v, %v", deliveries, v, err)
		}
		j.must(j.mem.Ack(j.ctx(a.World.Worker), hayrick.QueueTasks, ds[0]))
	}
}

// A merge for which no process has time enough is done by several, an input each, and
// nothing is merged twice; what comes of it is what one process would have made.
func TestMergeOfManyProcesses(t *testing.T) {
	want := seven(t, shape{}).aggregate()
	j := seven(t, shape{})
	j.trigger()
	n := j.drainShort()
	o := j.outcome()
	j.whole(o)
	j.chained(o)
	if o.RowHash != want.RowHash || o.Aggregation.TotalRows != want.Aggregation.TotalRows {
		t.Errorf("%+v, undisturbed %+v", o, want)
	}
	// The trigger, six inputs, joining, the last one out.
	if n != 9 {
		t.Errorf("%d deliveries", n)
	}
	r := j.result("agg-0-1-0000")
	if r.Status != "DONE" || r.RowCount != 7 || len(r.Inputs) != 6 || r.Fence != 7 || r.Task.Retries != 6 {
		t.Errorf("%+v", r)
	}
	var file []byte
	for key, body := range j.mem.Snapshot() {
		if key == job.Abs(*r.File) {
			file = body
		}
	}
	if manifest.SHA256(file) != r.SHA256 || int64(len(file)) != r.Bytes {
		t.Errorf("the file has %d bytes", len(file))
	}
	if dead, err := j.mem.Depth(t.Context(), hayrick.QueueDead, jobID); err != nil || dead.Messages != 0 {
		t.Errorf("%+v, %v", dead, err)
	}
}

// Who has all the time goes on where those stopped who had none.
func TestMergeGoesOnWithoutADeadline(t *testing.T) {
	for stopped := range 7 {
		j := seven(t, shape{})
		j.left = none
		a := j.process("short")
		j.must(a.Advance(t.Context(), jobID, 0))
		for range stopped {
			_, err := j.step(a)
			j.must(err)
		}
		j.left = nil
		reads := map[string]bool{}
		long := j.process("long")
		long.Blobs = &watching{long.Blobs, reads}
		j.must(j.drain(long))
		j.whole(j.outcome())
		for i, r := range j.results {
			if merged := i < stopped || i == 4 && stopped == 4; r.File != nil && i < 3 && reads[job.Abs(*r.File)] == merged {
				t.Errorf("after %d: %s was read again: %t", stopped, r.TaskID, !merged)
			}
		}
	}
}

// watching notes which blobs are opened.
type watching struct {
	aggregator.Blobs
	opened map[string]bool
}

func (w *watching) OpenAt(ctx context.Context, key string) (manifest.Blob, error) {
	w.opened[key] = true
	return w.Blobs.OpenAt(ctx, key)
}

// A checkpoint that is damaged, or of something else, is passed over: the merge goes on
// from the one before. A piece that is damaged is named, and what to remove.
func TestDamagedCheckpoints(t *testing.T) {
	checkpoints := func(j *jobRig) (keys []string) {
		for key := range j.mem.Snapshot() {
			if strings.HasPrefix(key, job.Checkpoints("agg-0-1-0000")) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		return keys
	}
	prepare := func() (*jobRig, []string) {
		j := seven(t, shape{})
		j.left = none
		a := j.process("short")
		j.must(a.Advance(t.Context(), jobID, 0))
		for range 3 {
			_, err := j.step(a)
			j.must(err)
		}
		keys := checkpoints(j)
		if len(keys) != 3 {
			t.Fatalf("%v", keys)
		}
		return j, keys
	}
	j, keys := prepare()
	size := len(j.mem.Snapshot()[keys[2]])
	for _, damage := range []func(b []byte) []byte{
		func([]byte) []byte { return nil }, func([]byte) []byte { return []byte{} }, func(b []byte) []byte { return flipped(b, size/2) },
		func(b []byte) []byte { return edited(t, b, `"inputs":4`, `"inputs":2`) },
		func(b []byte) []byte { return edited(t, b, `"task_id":"agg-0-1-0000"`, `"task_id":"agg-0-1-0001"`) },
	} {
		j, keys := prepare()
		j.mem.Damage(keys[2], damage(j.mem.Snapshot()[keys[2]]))
		j.drainShort()
		j.whole(j.outcome())
	}
	for _, damage := range []func(b []byte) []byte{
		func([]byte) []byte { return nil }, func([]byte) []byte { return []byte{} }, func(b []byte) []byte { return flipped(b, 40) },
		func(b []byte) []byte { return flipped(b, len(b)-20) }, func(b []byte) []byte { return b[:len(b)-1] },
	} {
		j, keys := prepare()
		for key, body := range j.mem.Snapshot() {
			if strings.HasPrefix(key, job.Prefix()+"tasks/agg-") && strings.HasSuffix(key, ".parquet") {
				j.mem.Damage(key, damage(body))
			}
		}
		j.left = nil
		a := j.process("p")
		if _, err := j.step(a); !errors.Is(err, hayrick.ErrCorrupt) || !strings.Contains(err.Error(), "remove "+keys[2]) {
			t.Fatalf("%v", err)
		}
		for _, key := range keys {
			j.mem.Damage(key, nil)
		}
		j.must(j.drain(a))
		j.whole(j.outcome())
	}
}

// The root's parts are made by several processes too.
func TestPartsOfManyProcesses(t *testing.T) {
	var tasks []task
	for i := range 5 {
		var rs []rows.Row
		for n := range 100 {
			rs = append(rs, row("a", 1000*i+n))
		}
		tasks = append(tasks, one(rs...))
	}
	j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount, d.Merge.PartBytes = 1, true, 1 }}, tasks)
	j.mem.Remote = true
	j.trigger()
	made := 0
	j.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "Assemble" {
			made++
		}
		return mem.Fault{}
	}
	j.drainShort()
	j.mem.Hook = nil
	o := j.outcome()
	if o.Status != "SUCCEEDED" || len(o.Aggregation.Parts) != 5 || made != 5 || o.RowCount != 500 {
		t.Errorf("%d times: %+v", made, o)
	}
}
