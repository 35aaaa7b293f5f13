package retryplanner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
	"hayrick/retryplanner"
)

const jobID = "words-20261120-abcdef"

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// testClock moves only when somebody sleeps or a test moves it.
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

// counter numbers scratch folders: no two planners of the tests share one.
type counter struct{ n *atomic.Uint64 }

func (c counter) Uint64() uint64 { return c.n.Add(1) }

var scratchNumbers atomic.Uint64

// job is a submitted job in memory, whose tasks end as the test says.
type job struct {
	t     *testing.T
	mem   *mem.Store
	clock *testClock
	store *manifest.Store
	dir   string
	lines []string
}

const inputURI = "in.jsonl"

// submit plans a job of items in batches.
func submit(t *testing.T, items, batch int, edit func(*hayrick.JobDefinition)) *job {
	t.Helper()
	c := &testClock{now: start}
	m := mem.New(c)
	j := &job{t: t, mem: m, clock: c, store: &manifest.Store{Objects: m, Clock: c}, dir: t.TempDir()}
	def := hayrick.JobDefinition{
		Version: 1, Name: "words", Handler: hayrick.Handler{Builtin: "h"},
		Input: hayrick.Input{URI: inputURI, Format: "jsonl", Key: "word"}, Batch: hayrick.Batches{Items: batch},
		Retry: hayrick.Retry{Passes: 2, Backoff: hayrick.Backoff{Initial: hayrick.Duration(30 * time.Second), Max: hayrick.Duration(10 * time.Minute)}},
	}
	if edit != nil {
		edit(&def)
	}
	config, sha, err := manifest.EncodeDefinition(def)
	j.must(err)
	ctx := t.Context()
	j.must(j.store.PutData(ctx, manifest.Job(jobID).Config(sha), config))
	w := manifest.NewGroupWriter(j.store, jobID, hayrick.GroupInitial, hayrick.RoleWorker, 0)
	var input []byte
	for first := 0; first < items; first += batch {
		b := manifest.Batch{Object: inputURI, FirstLine: int64(first) + 1, FirstOrdinal: int64(first), Offset: int64(len(input))}
		for i := first; i < min(first+batch, items); i++ {
			j.lines = append(j.lines, fmt.Sprintf(`{"word": "w%d"}`, i)) // with a space: it must come back so
			input = append(append(input, j.lines[i]...), '\n')
			b.Items++
		}
		b.Length = int64(len(input)) - b.Offset
		b.SHA256 = manifest.SHA256(input[b.Offset:])
		j.must(w.Add(ctx, b))
	}
	m.SetInput(inputURI, input)
	group, err := w.Close(ctx)
	j.must(err)
	_, err = j.store.CommitPlan(ctx, manifest.Plan{
		Schema: manifest.SchemaPlan, JobID: jobID, DefinitionSHA256: sha, Items: int64(items), Group: group, SubmittedAt: manifest.At(start),
	})
	j.must(err)
	return j
}

func (j *job) must(err error) {
	j.t.Helper()
	if err != nil {
		j.t.Fatal(err)
	}
}

// planner is a process that may close groups.
func (j *job) planner() *retryplanner.Planner {
	return &retryplanner.Planner{
		Store: j.store, Inputs: j.mem, Queue: j.mem, Log: slog.New(slog.DiscardHandler), Scratch: j.dir,
		World: hayrick.World{Clock: j.clock, Rand: counter{&scratchNumbers}, Go: func(_ string, f func()) { f() }},
	}
}

func (j *job) plan(group string) retryplanner.Planned {
	j.t.Helper()
	done, err := j.planner().Plan(j.t.Context(), jobID, 0, group)
	j.must(err)
	return done
}

// end is what a task comes to: a class for each item that fails, by its place in the
// batch; or FAILED as a whole.
type end struct {
	items  map[int]string
	failed string // the class of the task's error
	edit   func(*manifest.FailureLine)
}

func fail(class string, places ...int) end {
	e := end{items: map[int]string{}}
	for _, p := range places {
		e.items[p] = class
	}
	return e
}

// task is one task of a group, as its block file and index have it.
type task struct {
	id    string
	batch manifest.Batch
	items []manifest.BatchItem
}

func (j *job) tasks(group string) []task {
	j.t.Helper()
	ctx := j.t.Context()
	g, _, err := j.store.OpenGroup(ctx, jobID, 0, group)
	j.must(err)
	m, err := j.store.Members(ctx, jobID, 0, g)
	j.must(err)
	var out []task
	for n := range m.Blocks() {
		block, err := m.Block(ctx, j.store, n)
		j.must(err)
		index, err := m.Index(ctx, j.store, n)
		j.must(err)
		for i, t := range block.Tasks {
			b := index.Batches[i]
			r, err := j.mem.OpenInput(ctx, jobID, b)
			j.must(err)
			items, err := manifest.OpenBatch(b, r)
			j.must(err)
			out = append(out, task{id: t.TaskID, batch: b, items: items})
		}
	}
	return out
}

// finish ends every task of a group: as ends says, else with all items ok.
func (j *job) finish(group string, ends map[string]end) {
	j.t.Helper()
	for _, t := range j.tasks(group) {
		j.finishTask(group, t, ends[t.id])
	}
}

func (j *job) finishTask(group string, t task, e end) {
	j.t.Helper()
	ctx := j.t.Context()
	attempt := manifest.SHA256([]byte(t.id))[:32]
	r := manifest.Result{
		Schema: manifest.SchemaResult, JobID: jobID, TaskID: t.id, BatchID: &t.batch.BatchID, Status: string(hayrick.TaskDone),
		Attempt: attempt, RowHash: "0", DroppedHash: "0", BatchSHA256: t.batch.SHA256, WrittenAt: manifest.At(j.clock.Now()),
		Task: manifest.TaskFields{Role: string(hayrick.RoleWorker), Group: group},
	}
	if e.failed != "" {
		r.Status, r.Task.Error = string(hayrick.TaskFailed), &manifest.TaskError{Class: e.failed, Message: "it could not run"}
	} else {
		r.Items, r.Failed = t.batch.Items, len(e.items)
		r.OK = r.Items - r.Failed
	}
	if len(e.items) > 0 {
		var body []byte
		r.Failures = &manifest.Failures{Count: len(e.items), ByClass: map[string]int64{}}
		places := slices.Sorted(maps.Keys(e.items))
		slices.Reverse(places) // a worker lists items as they end, in any order
		for _, p := range places {
			it := t.items[p]
			f := manifest.FailureLine{
				Ordinal: it.Ordinal, Key: it.Label("word"), Class: e.items[p], Message: "no luck", Tries: it.Tries + 1, Losses: it.Losses,
				Disposition: string(hayrick.Retry{Classes: map[string]hayrick.Disposition{"gone": hayrick.Permanent}}.DispositionOf(e.items[p], "")),
			}
			if e.edit != nil {
				e.edit(&f)
			}
			line, err := manifest.EncodeLine(f)
			j.must(err)
			body = append(body, line...)
			r.Failures.ByClass[f.Class]++
		}
		key := manifest.Job(jobID).Failures(t.id, attempt, manifest.SHA256(body))
		j.must(j.store.PutData(ctx, key, body))
		r.Failures.File, r.Failures.SHA256 = manifest.Job(jobID).Rel(key), manifest.SHA256(body)
	}
	_, err := j.store.CommitResult(ctx, r)
	j.must(err)
}

// messages takes what is visible in the tasks queue, each message once.
func (j *job) messages() []hayrick.Message {
	j.t.Helper()
	seen := map[hayrick.Message]bool{}
	for {
		ds, err := j.mem.Receive(j.t.Context(), hayrick.QueueTasks, 100, time.Hour, 0)
		j.must(err)
		if len(ds) == 0 {
			break
		}
		for _, d := range ds {
			seen[d.Message] = true
		}
		j.must(j.mem.Ack(j.t.Context(), hayrick.QueueTasks, ds...))
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b hayrick.Message) int {
		if a.Block != b.Block {
			return a.Block - b.Block
		}
		return a.Position - b.Position
	})
}

// list reads a list that a plan names.
func (j *job) list(ref *manifest.Ref) []manifest.ListLine {
	j.t.Helper()
	if ref == nil {
		return nil
	}
	var out []manifest.ListLine
	j.must(manifest.ReadLines(j.t.Context(), j.store, jobID, *ref, func(l manifest.ListLine) error { out = append(out, l); return nil }))
	return out
}

func (j *job) view(n int) manifest.RetryManifest {
	j.t.Helper()
	b, err := j.store.Raw(j.t.Context(), manifest.Job(jobID).RetryManifest(n))
	j.must(err)
	var v manifest.RetryManifest
	j.must(manifest.Decode(b, manifest.SchemaRetry, &v))
	return v
}

// snapshot is every object but for what a test says is to be left out.
func (j *job) snapshot() map[string]string {
	out := map[string]string{}
	for k, v := range j.mem.Snapshot() {
		out[k] = string(v)
	}
	return out
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
