package retryplanner_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"hayrick"
	"hayrick/manifest"
	"hayrick/retryplanner"
)

// bigGroup stands in for stores that hold what would not fit: a group all of whose
// tasks FAILED, with inputs that are made as they are read and segments that are
// checked as they are written. It samples the heap at every call.
type bigGroup struct {
	manifest.Objects
	tasks, batch int
	cancelled    bool // and no task has a result

	mu       sync.Mutex
	peak     uint64
	reading  int
	most     int // batches open at once
	segments int
	bytes    int64
}

const bigRecord = 16 << 10

func (g *bigGroup) sample() {
	g.mu.Lock()
	defer g.mu.Unlock()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	g.peak = max(g.peak, m.HeapAlloc)
}

// input is the bytes of a batch.
func (g *bigGroup) input(task int64) []byte {
	pad := strings.Repeat("x", bigRecord)
	var b []byte
	for i := range g.batch {
		b = fmt.Appendf(b, "{\"word\":\"w%d\",\"pad\":\"%s\"}\n", task*int64(g.batch)+int64(i), pad)
	}
	return b
}

func (g *bigGroup) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	var n int64
	if _, err := fmt.Sscanf(key, "jobs/"+jobID+"/tasks/task-%d/results.done", &n); err != nil {
		return g.Objects.Open(ctx, key, offset, length)
	}
	g.sample()
	if g.cancelled {
		return nil, hayrick.ErrNotFound
	}
	id, batch := manifest.TaskID(n), manifest.BatchID(n)
	body, err := manifest.Encode(manifest.Result{Schema: manifest.SchemaResult, JobID: jobID, TaskID: id, BatchID: &batch, Status: string(hayrick.TaskFailed)})
	return io.NopCloser(bytes.NewReader(body)), err
}

func (g *bigGroup) OpenInput(_ context.Context, _ string, b manifest.Batch) (io.ReadCloser, error) {
	g.sample()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reading++
	g.most = max(g.most, g.reading)
	return &bigInput{bytes.NewReader(g.input(b.Offset)), g}, nil // offset is the task's number
}

type bigInput struct {
	io.Reader
	g *bigGroup
}

func (b *bigInput) Close() error {
	b.g.mu.Lock()
	defer b.g.mu.Unlock()
	b.g.reading--
	return nil
}

func (g *bigGroup) Put(ctx context.Context, key string, body io.Reader) error {
	_, name, ok := strings.Cut(key, "/seg-")
	if !ok {
		return g.Objects.Put(ctx, key, body)
	}
	g.sample()
	h := sha256.New()
	n, err := io.Copy(h, body)
	if err != nil {
		return err
	}
	if sha := hex.EncodeToString(h.Sum(nil)); name != fmt.Sprintf("%d-%s.jsonl", g.segments, sha[:12]) {
		return fmt.Errorf("segment %s has SHA-256 %s", name, sha)
	}
	g.segments++
	g.bytes += n
	return nil
}

// A group of 80 MiB of records is planned in a fraction of them: some batches at a
// time are in memory, and no segment ever is.
func TestMemoryIsBounded(t *testing.T) {
	t.Run("all tasks FAILED", func(t *testing.T) { memoryIsBounded(t, false) })
	t.Run("redrive of what was cancelled", func(t *testing.T) { memoryIsBounded(t, true) })
}

func memoryIsBounded(t *testing.T, cancelled bool) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	j := submit(t, 0, 8, nil)
	g := &bigGroup{Objects: j.mem, tasks: 640, batch: 8}
	store := &manifest.Store{Objects: g, Clock: j.clock}
	plan, _, err := j.store.Plan(t.Context(), jobID)
	j.must(err)
	w := manifest.NewGroupWriter(j.store, jobID, hayrick.GroupInitial, hayrick.RoleWorker, 0)
	for n := range int64(g.tasks) {
		body := g.input(n)
		j.must(w.Add(t.Context(), manifest.Batch{Object: inputURI, Offset: n, FirstOrdinal: n * 8, Items: 8, Length: int64(len(body)), SHA256: manifest.SHA256(body)}))
	}
	plan.Group, err = w.Close(t.Context())
	j.must(err)
	body, err := manifest.Encode(plan)
	j.must(err)
	j.mem.Damage(manifest.Job(jobID).Plan(), body)

	p := j.planner()
	p.Store, p.Inputs = store, g
	p.World.Go = func(_ string, f func()) { go f() }
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	generation, group := 0, hayrick.GroupInitial
	if g.cancelled = cancelled; cancelled {
		_, err := j.store.CommitOutcome(t.Context(), manifest.Outcome{Schema: manifest.SchemaOutcome, JobID: jobID, Status: string(hayrick.JobCancelled)})
		j.must(err)
		_, err = j.store.CommitControl(t.Context(), manifest.Control{Schema: manifest.SchemaControl, JobID: jobID, Order: manifest.OrderRedrive, Generation: 1})
		j.must(err)
		generation, group = 1, retryplanner.Redrive
	}
	done, err := p.Plan(t.Context(), jobID, generation, group)
	j.must(err)
	if done.Plan.Tasks != 640 || done.Plan.Items != 5120 || g.segments != 2 || g.bytes < 80<<20 {
		t.Errorf("%d tasks, %d items, %d segments of %d bytes", done.Plan.Tasks, done.Plan.Items, g.segments, g.bytes)
	}
	grown := int64(g.peak) - int64(before.HeapAlloc)
	t.Logf("%d MiB of records, heap grown by at most %d MiB, %d batches at once", g.bytes>>20, grown>>20, g.most)
	if grown > 24<<20 || g.most > 16 {
		t.Errorf("heap grown by %d MiB, %d batches at once", grown>>20, g.most)
	}
}
