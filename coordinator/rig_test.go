package coordinator

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
)

// testClock is virtual time: it passes only by Sleep.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}

// counter is randomness that no test depends on.
type counter struct {
	mu sync.Mutex
	n  uint64
}

func (c *counter) Uint64() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n * 0x9e3779b97f4a7c15
}

// rig is a coordinator on an empty store in memory.
type rig struct {
	*Coordinator
	mem   *mem.Store
	clock *testClock
	logs  *strings.Builder
}

const inputURI = "./users.jsonl"

func newRig(t *testing.T) *rig {
	t.Helper()
	clock := &testClock{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	store := mem.New(clock)
	store.SetInput(inputURI, []byte("{\"did\":1}\n{\"did\":2}\n\n{\"did\":3}\n{\"did\":3}\n{\"did\":5}"))
	logs := &strings.Builder{}
	r := &rig{mem: store, clock: clock, logs: logs}
	r.Coordinator = &Coordinator{
		Store: &manifest.Store{Objects: store, Clock: clock}, State: store, Queue: store, Sources: store, Lister: store,
		World:   hayrick.World{Clock: clock, Rand: &counter{}, Go: goPlainly, Worker: "coordinator-1"},
		Log:     slog.New(slog.NewTextHandler(&lockedWriter{w: logs}, nil)),
		Scratch: t.TempDir(),
	}
	t.Cleanup(func() {
		for _, v := range store.Illegal() {
			t.Error("illegal: ", v)
		}
	})
	return r
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func submission() Submission {
	return Submission{
		Definition: hayrick.JobDefinition{
			Version: 1, Name: "backfill", Handler: hayrick.Handler{Builtin: "atproto.repo"},
			Input:  hayrick.Input{URI: inputURI, Format: "jsonl", Key: "did", OnBadItem: "fail", Snapshot: "auto"},
			Batch:  hayrick.Batches{Items: 2},
			Output: hayrick.Output{URI: "./out/$(run.id)/", Format: "parquet", Compression: "zstd", IfExists: "error"},
		},
		ConfigFile: "jobs/backfill/config.yaml", ConfigTime: time.Date(2026, 11, 19, 23, 0, 0, 0, time.UTC),
		GitCommit: "a3c123f", SubmittedBy: "user@host", CodeVersion: "hayrick v0.1.0",
	}
}

func (r *rig) submit(t *testing.T, s Submission) Submitted {
	t.Helper()
	got, err := r.Submit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// items reads what the batches of a plan hold, as workers would.
func (r *rig) items(t *testing.T, p manifest.Plan) []string {
	t.Helper()
	m, err := r.Store.Members(t.Context(), p.JobID, 0, p.Group)
	if err != nil {
		t.Fatal(err)
	}
	var records []string
	for n := range m.Blocks() {
		x, err := m.Index(t.Context(), r.Store, n)
		if err != nil {
			t.Fatal(err)
		}
		block, err := m.Block(t.Context(), r.Store, n)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range x.Batches {
			if id := block.Tasks[i].BatchID; id == nil || *id != b.BatchID {
				t.Errorf("task %d of block %d does not name batch %s", i, n, b.BatchID)
			}
			body, err := r.mem.OpenInput(t.Context(), p.JobID, b)
			if err != nil {
				t.Fatal(err)
			}
			items, err := manifest.OpenBatch(b, body)
			if err != nil {
				t.Fatal(err)
			}
			for _, it := range items {
				if it.Ordinal != int64(len(records)) {
					t.Errorf("ordinal %d of %s, want %d", it.Ordinal, b.BatchID, len(records))
				}
				records = append(records, string(it.Data))
			}
		}
	}
	return records
}

// messages takes every message of the tasks queue.
func (r *rig) messages(t *testing.T) []hayrick.Message {
	t.Helper()
	ds, err := r.mem.Receive(t.Context(), hayrick.QueueTasks, 1<<20, time.Hour, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.mem.Ack(t.Context(), hayrick.QueueTasks, ds...); err != nil {
		t.Fatal(err)
	}
	out := make([]hayrick.Message, len(ds))
	for i, d := range ds {
		out[i] = d.Message
	}
	return out
}

// end gives the first generation an outcome.
func (r *rig) end(t *testing.T, jobID string) {
	t.Helper()
	_, err := r.Store.CommitOutcome(t.Context(), manifest.Outcome{
		Schema: manifest.SchemaOutcome, JobID: jobID, Status: string(hayrick.JobCancelled), RowHash: "0", DroppedHash: "0",
		Chain: map[string]string{}, EndedAt: manifest.At(r.clock.Now()),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// plans lists the plan.json that were ever committed.
func (r *rig) plans() (keys []string) {
	for _, c := range r.mem.Commits() {
		if strings.HasSuffix(c.Key, "/plan.json") {
			keys = append(keys, c.Key)
		}
	}
	return keys
}
