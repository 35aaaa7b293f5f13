package aggregator_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/internal/rows"
	"hayrick/manifest"
	"hayrick/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	jobID = "words-20261120-kdmqra"
	job   = manifest.Job(jobID)
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// testClock is virtual time: it passes by Sleep only.
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

// attempts gives every attempt of the test process an id of its own.
type attempts struct{}

var attemptNumbers atomic.Uint64

func (attempts) Uint64() uint64 { return attemptNumbers.Add(1) << 32 }

// temps counts scratch files that are open.
type temps struct {
	mu   sync.Mutex
	open int
	made int
	size int // of all that was written
}

type tempFile struct {
	*bytes.Reader
	data []byte
	of   *temps
}

func (ts *temps) new() (manifest.Temp, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.open++
	ts.made++
	return &tempFile{Reader: bytes.NewReader(nil), of: ts}, nil
}

// Write appends, as all who use a scratch file do.
func (f *tempFile) Write(p []byte) (int, error) {
	f.data = append(f.data, p...)
	f.of.mu.Lock()
	f.of.size += len(p)
	f.of.mu.Unlock()
	f.Reader.Reset(f.data)
	return len(p), nil
}

func (f *tempFile) Close() error {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.of.open--
	return nil
}

// item is one that was given up.
type item struct {
	ordinal int64
	class   string
}

// task is what a worker task came to.
type task struct {
	rows      []rows.Row
	ok        int
	permanent []item
	exhausted []item
	again     int  // items that the next group runs
	failed    bool // as a whole: every item runs again
	dict      *bool
	ordinals  []int64 // of each row its item; nil = all are of one
}

// one is a task with one item and these rows.
func one(rs ...rows.Row) task { return task{ok: 1, rows: rs} }

func row(cols ...any) rows.Row {
	var r rows.Row
	for i := 0; i < len(cols); i += 2 {
		r = append(r, rows.Col{Name: cols[i].(string), Value: cols[i+1]})
	}
	return r
}

// jobRig is a job whose tasks have ended.
type jobRig struct {
	t     testing.TB
	id    string
	key   manifest.Job
	mem   *mem.Store
	clock *testClock
	store *manifest.Store
	temps *temps
	def   hayrick.JobDefinition

	plan    manifest.Plan
	results []manifest.Result // in task order
	want    []rows.Row        // all rows, in order
	placed  []placed          // the same with their places
	damaged bool              // by the test, so that its store keeps no promise
	left    func() time.Duration
}

// shape is what a job is built from besides its tasks.
type shape struct {
	def  func(*hayrick.JobDefinition)
	with *jobRig // whose store it shares, under another id
	open bool    // the last group is not closed
	refs bool    // lists of results as objects
	bad  func(n int64, r *manifest.Result)
	// retry changes a retry plan before it is stored.
	retry func(r *manifest.RetryPlan)
}

func (j *jobRig) must(err error) {
	j.t.Helper()
	if err != nil {
		j.t.Fatal(err)
	}
}

// build writes what the coordinator, the workers and the retry planner leave behind:
// groups[0] is the initial group, the others are retries.
func build(t testing.TB, s shape, groups ...[]task) *jobRig {
	t.Helper()
	c := &testClock{now: start}
	m := mem.New(c)
	j := &jobRig{t: t, id: jobID, key: job, mem: m, clock: c, store: &manifest.Store{Objects: m, Clock: c}, temps: &temps{}}
	if s.with != nil {
		c, m = s.with.clock, s.with.mem
		j.id, j.key = "more-"+jobID, "more-"+job
		j.clock, j.mem, j.store = c, m, s.with.store
	}
	j.def = hayrick.JobDefinition{
		Version: 1, Name: "words", Handler: hayrick.Handler{Builtin: "h"}, Batch: hayrick.Batches{Items: 2},
		Retry:  hayrick.Retry{Passes: 2, Lists: map[string]string{"repo_not_found": "deleted_dids"}},
		Output: hayrick.Output{URI: "out/$(run.id)/", Format: "parquet", Compression: "zstd", IfExists: "error"},
		Merge:  hayrick.Merge{FanIn: 10, TargetRows: 122_880, TargetBytes: 64 << 20, RowGroup: 122_880},
	}
	if s.def != nil {
		s.def(&j.def)
	}
	ctx := t.Context()
	config, sha, err := manifest.EncodeDefinition(j.def)
	j.must(err)
	j.must(j.store.PutData(ctx, j.key.Config(sha), config))
	j.plan = manifest.Plan{Schema: manifest.SchemaPlan, JobID: j.id, DefinitionSHA256: sha, SubmittedAt: manifest.At(start)}
	for _, g := range groups {
		for _, x := range g {
			j.plan.Items += int64(x.ok + len(x.permanent) + len(x.exhausted))
		}
	}
	var first int64
	opened := j.group(hayrick.GroupInitial, first, len(groups[0]))
	j.plan.Group = opened
	p, err := j.store.CommitPlan(ctx, j.plan)
	j.must(err)
	opener := manifest.Link{Key: "plan.json", SHA256: p.SHA256}
	for n, g := range groups {
		r := manifest.RetryPlan{
			Schema: manifest.SchemaRetryPlan, JobID: j.id, RetryID: manifest.RetryID(n + 1), Closed: opened.Name, Predecessor: opener,
			Next: manifest.NextAggregation, ErrorTypes: map[string]int64{}, SubmittedAt: manifest.At(c.Now()),
		}
		var permanent, exhausted []manifest.ListLine
		for i, x := range g {
			id := first + int64(i)
			ref := j.end(id, opened.Name, x, s.bad)
			ref.Retried = x.again
			r.Results = append(r.Results, ref)
			r.Items += int64(x.again)
			permanent, exhausted = append(permanent, lines(id, x.permanent)...), append(exhausted, lines(id, x.exhausted)...)
		}
		if s.open && n == len(groups)-1 {
			break
		}
		r.Permanent, r.PermanentList = int64(len(permanent)), j.list(n+1, "permanent", permanent)
		r.Exhausted, r.ExhaustedList = int64(len(exhausted)), j.list(n+1, "exhausted", exhausted)
		if s.refs {
			r.ResultsRef, r.Results = list(j, n+1, "results", r.Results), nil
		}
		first += int64(len(g))
		if n < len(groups)-1 {
			r.Next = hayrick.RetryGroup(n + 1)
			opened = j.group(r.Next, first, len(groups[n+1]))
			r.Group, r.Tasks = &opened, opened.Tasks
		}
		if s.retry != nil {
			s.retry(&r)
		}
		c, err := j.store.CommitRetryPlan(ctx, n+1, r)
		j.must(err)
		opener = manifest.Link{Key: j.key.Rel(j.key.RetryPlan(n + 1)), SHA256: c.SHA256}
	}
	c.Sleep(ctx, time.Minute)
	t.Cleanup(func() {
		if bad := m.Illegal(); len(bad) > 0 && !j.damaged {
			t.Errorf("illegal writes: %q", bad)
		}
	})
	return j
}

func (j *jobRig) group(name string, first int64, tasks int) manifest.Group {
	w := manifest.NewGroupWriter(j.store, j.id, name, hayrick.RoleWorker, first)
	for range tasks {
		j.must(w.Add(j.t.Context(), manifest.Batch{Object: "in.jsonl", Items: 1, SHA256: "0"}))
	}
	g, err := w.Close(j.t.Context())
	j.must(err)
	return g
}

func lines(task int64, items []item) (out []manifest.ListLine) {
	for _, it := range items {
		out = append(out, manifest.ListLine{
			Ordinal: it.ordinal, Key: fmt.Sprint("w", it.ordinal), Class: it.class, Message: "no luck", TaskID: manifest.TaskID(task), Tries: 1,
		})
	}
	return out
}

// list stores a list of the n-th retry plan.
func list[T any](j *jobRig, n int, name string, lines []T) *manifest.Ref {
	temp, err := j.temps.new()
	j.must(err)
	w := manifest.NewListWriter(temp)
	defer w.Close()
	for _, l := range lines {
		j.must(w.Add(l))
	}
	ref, err := w.Put(j.t.Context(), j.store, j.id, func(sha string) string { return j.key.RetryList(n, name, sha) })
	j.must(err)
	return ref
}

// list stores lines in order of ordinals.
func (j *jobRig) list(n int, name string, lines []manifest.ListLine) *manifest.Ref {
	slices.SortFunc(lines, func(a, b manifest.ListLine) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	return list(j, n, name, lines)
}

// parquetFile is what encoded has made of some rows.
type parquetFile struct {
	body []byte
	sum  rows.Summary
}

// files remembers them: tests that repeat a job a thousand times encode it once.
var files sync.Map

// encoded is rows as a worker writes them; no rows are no file.
func encoded(t testing.TB, in []rows.Row, dict *bool) ([]byte, rows.Summary) {
	t.Helper()
	if len(in) == 0 {
		return nil, rows.Summary{}
	}
	key := ""
	if len(in) < 5 && dict == nil {
		key = fmt.Sprintf("%#v", in)
		if f, ok := files.Load(key); ok {
			return f.(parquetFile).body, f.(parquetFile).sum
		}
	}
	var seen rows.Observer
	for _, r := range in {
		if err := seen.Observe(r); err != nil {
			t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	w, err := rows.NewWriter(&buf, seen.Schema(), rows.WriterOptions{Dictionary: dict})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range in {
		if err := w.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		files.Store(key, parquetFile{buf.Bytes(), sum})
	}
	return buf.Bytes(), sum
}

// encodedItems is the rows of the n-th task as a worker writes them where rows are to
// be unique.
func encodedItems(t testing.TB, x task, n int64, keys []string) ([]byte, rows.Summary) {
	t.Helper()
	if len(x.rows) == 0 {
		return nil, rows.Summary{}
	}
	var seen rows.Observer
	for _, r := range x.rows {
		if err := seen.Observe(r); err != nil {
			t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	w, err := rows.NewWriter(&buf, seen.Schema(), rows.WriterOptions{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	last := int64(-1)
	for i, r := range x.rows {
		item := n
		if x.ordinals != nil {
			item = x.ordinals[i]
		}
		if item != last {
			w.Item(item)
			last = item
		}
		if err := w.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), sum
}

// end writes the result of a task.
func (j *jobRig) end(n int64, group string, x task, bad func(int64, *manifest.Result)) manifest.ResultRef {
	ctx := j.t.Context()
	id, batch := manifest.TaskID(n), manifest.BatchID(n)
	attempt := manifest.SHA256([]byte(id))[:32]
	r := manifest.Result{
		Schema: manifest.SchemaResult, JobID: j.id, TaskID: id, BatchID: &batch, Status: string(hayrick.TaskDone), Attempt: attempt, Fence: 1,
		RowHash: "0", DroppedHash: "0", OK: x.ok, Failed: len(x.permanent) + len(x.exhausted) + x.again, WrittenAt: manifest.At(j.clock.Now()),
		Task: manifest.TaskFields{Role: "worker", Phase: string(hayrick.PhaseOf(group)), Group: group, Metrics: map[string]int64{}},
	}
	r.Items = r.OK + r.Failed
	if x.failed {
		r.Status, r.Task.Error = string(hayrick.TaskFailed), &manifest.TaskError{Class: hayrick.ClassBatchFailed, Message: "lost"}
	}
	body, sum := encoded(j.t, x.rows, x.dict)
	if keys := j.def.Output.UniqueBy; len(keys) > 0 {
		body, sum = encodedItems(j.t, x, n, keys)
	}
	if body != nil {
		key := j.key.Rows(id, attempt, sum.SHA256)
		j.must(j.store.PutData(ctx, key, body))
		rel := j.key.Rel(key)
		r.File, r.SHA256, r.Bytes, r.RowCount, r.RowHash, r.SchemaDigest = &rel, sum.SHA256, sum.Bytes, sum.Rows, sum.RowHash.String(), sum.SchemaDigest
		r.KeySamples = sum.KeySamples
	}
	if bad != nil {
		bad(n, &r)
	}
	c, err := j.store.CommitResult(ctx, r)
	j.must(err)
	j.results = append(j.results, r)
	j.want = append(j.want, x.rows...)
	j.placed = append(j.placed, placesOf(n, x)...)
	return manifest.ResultRef{TaskID: id, SHA256: c.SHA256}
}

// process is one that may aggregate. It has no goroutines: what would watch the
// clock is left out, since that one jumps.
func (j *jobRig) process(name string) *aggregator.Aggregator {
	return &aggregator.Aggregator{
		Store: j.store, State: j.mem, Queue: j.mem, Blobs: j.mem, Output: j.mem, Temp: j.temps.new,
		Log: slog.New(slog.DiscardHandler), CodeVersion: "hayrick test", Left: j.left,
		World: hayrick.World{Clock: j.clock, Rand: attempts{}, Worker: name, Go: func(what string, f func()) {
			if what != "renew" {
				f()
			}
		}},
	}
}

func (j *jobRig) ctx(name string) context.Context { return mem.WithActor(j.t.Context(), name) }

// trigger is what the retry planner sends after the last group.
func (j *jobRig) trigger() {
	j.t.Helper()
	j.must(j.mem.Send(j.t.Context(), hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: j.id, Role: hayrick.RoleAggregator}}))
}

// step takes one message and settles it; false when there is none.
func (j *jobRig) step(a *aggregator.Aggregator) (bool, error) {
	ctx := j.ctx(a.World.Worker)
	ds, err := j.mem.Receive(ctx, hayrick.QueueTasks, 1, time.Minute, 0)
	if err != nil || len(ds) == 0 {
		return false, err
	}
	v, err := a.Do(ctx, ds[0])
	if v.Ack {
		return true, errors.Join(err, j.mem.Ack(ctx, hayrick.QueueTasks, ds[0]))
	}
	if v.Again <= 0 || v.Because == "" {
		j.t.Errorf("verdict %+v", v)
	}
	return true, errors.Join(err, j.mem.Extend(ctx, hayrick.QueueTasks, v.Again, ds[0]))
}

// drain works until no message is left or one cannot be carried out.
func (j *jobRig) drain(a *aggregator.Aggregator) error {
	for range 5000 {
		depth, err := j.mem.Depth(j.t.Context(), hayrick.QueueTasks, j.id)
		if err != nil || depth.Messages == 0 {
			return err
		}
		worked, err := j.step(a)
		if err != nil {
			return err
		}
		if !worked {
			j.clock.Sleep(j.t.Context(), time.Second)
		}
	}
	return errors.New("the queue does not get empty")
}

// aggregate runs the job to its end and returns that.
func (j *jobRig) aggregate() manifest.Outcome {
	j.t.Helper()
	j.trigger()
	j.must(j.drain(j.process("p")))
	return j.outcome()
}

func (j *jobRig) outcome() manifest.Outcome {
	j.t.Helper()
	o, _, err := j.store.Outcome(j.t.Context(), j.id, 0)
	j.must(err)
	if j.temps.open != 0 {
		j.t.Errorf("%d of %d scratch files are open", j.temps.open, j.temps.made)
	}
	return o
}

func (j *jobRig) mergePlan() manifest.AggregationPlan {
	j.t.Helper()
	p, _, err := j.store.AggregationPlan(j.t.Context(), j.id, 0)
	j.must(err)
	return p
}

func (j *jobRig) result(id string) manifest.Result {
	j.t.Helper()
	r, _, err := j.store.Result(j.t.Context(), j.id, id)
	j.must(err)
	return r
}

func (j *jobRig) absent(key string) {
	j.t.Helper()
	if _, ok := j.mem.Snapshot()[key]; ok {
		j.t.Errorf("%s is there", key)
	}
}

// folder is where generation 0 is published.
func (j *jobRig) folder() string { return manifest.OutputURI(j.def, "", j.id, 0) }

// published are the files of the output folder.
func (j *jobRig) published() map[string]string {
	j.t.Helper()
	there, err := j.mem.ListOutput(context.Background(), j.folder())
	j.must(err)
	out := map[string]string{}
	for _, o := range there {
		b, err := j.mem.Output(j.folder(), o.Key)
		j.must(err)
		out[o.Key] = string(b)
	}
	return out
}

// decoded are the rows of a Parquet file, in order, each as its names and values
// sorted by name.
func decoded(t testing.TB, body string) (out []string) {
	t.Helper()
	f, err := rows.Open(strings.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	sc, err := f.Scan(rows.Schema{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := sc.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		for r := range b.Rows {
			out = append(out, spell(b.Row(r)))
		}
	}
}

func spell(r rows.Row) string {
	var cols []string
	for _, c := range r {
		if c.Value != nil {
			cols = append(cols, fmt.Sprintf("%s=%v", c.Name, c.Value))
		}
	}
	slices.Sort(cols)
	return strings.Join(cols, " ")
}

func spelled(rs []rows.Row) (out []string) {
	for _, r := range rs {
		out = append(out, spell(r))
	}
	return out
}

func hashOf(t testing.TB, rs []rows.Row) string {
	t.Helper()
	var h rows.Hasher
	var sum rows.Hash
	for _, r := range rs {
		x, err := h.Row(r)
		if err != nil {
			t.Fatal(err)
		}
		sum = sum.Add(x)
	}
	return sum.String()
}

// whole checks that a job SUCCEEDED with exactly the rows of its results, in their
// order, in the store as in the output folder, and that every total says so.
func (j *jobRig) whole(o manifest.Outcome) {
	j.t.Helper()
	if o.Status != "SUCCEEDED" || o.Aggregation == nil {
		j.t.Fatalf("%s %s %s", o.Status, o.Code, o.Message)
	}
	agg := o.Aggregation
	out := j.published()
	var got []string
	var hash rows.Hash
	for _, p := range agg.Parts {
		body := out[p.Name]
		if manifest.SHA256([]byte(body)) != p.SHA256 && !(j.mem.Remote && p.SHA256 == "") || int64(len(body)) != p.Bytes || string(j.mem.Snapshot()[j.key.Abs(p.Key)]) != body {
			j.t.Fatalf("%s is published with %d bytes, the outcome says %d", p.Name, len(body), p.Bytes)
		}
		h, err := rows.ParseHash(p.RowHash)
		j.must(err)
		if err := rows.Verify(strings.NewReader(body), p.Bytes, p.Rows, h); err != nil {
			j.t.Errorf("%s: %v", p.Name, err)
		}
		hash = hash.Add(h)
		got = append(got, decoded(j.t, body)...)
	}
	if want := spelled(j.want); !slices.Equal(got, want) {
		j.t.Fatalf("%d rows came out, %d went in; or they differ:\n got %.300q\nwant %.300q", len(got), len(want), got, want)
	}
	n := int64(len(j.want))
	if want := hashOf(j.t, j.want); hash.String() != want || o.RowHash != want || o.RowCount != n || agg.TotalRows != n || o.DroppedRows != 0 || o.DroppedHash != "0" {
		j.t.Errorf("%d rows with hash %s, total %d; want %d with %s", o.RowCount, o.RowHash, agg.TotalRows, n, want)
	}
	if o.OK+o.Permanent+o.Exhausted != o.Items || o.Items != j.plan.Items || o.Unfinished != 0 {
		j.t.Errorf("%d ok, %d permanent, %d exhausted of %d items", o.OK, o.Permanent, o.Exhausted, o.Items)
	}
	body, err := j.store.Raw(j.t.Context(), j.key.Outcome(0))
	j.must(err)
	want := fmt.Sprintf(`{"generation":0,"job_id":%q,"outcome_sha256":%q,"schema":"hayrick.success/v1"}`, j.id, manifest.SHA256(body))
	if out[manifest.SuccessName] != want {
		j.t.Errorf("_SUCCESS is %s, want %s", out[manifest.SuccessName], want)
	}
}

// chained checks that the outcome vouches for every commit there is, but for itself
// and the workers' results, which the aggregation plan and the retry plans name.
func (j *jobRig) chained(o manifest.Outcome) {
	j.t.Helper()
	want := map[string]string{}
	for _, c := range j.mem.Commits() {
		rel := j.key.Rel(c.Key)
		if rel != "outcome-0.json" && !strings.HasPrefix(rel, "tasks/task-") {
			want[rel] = c.SHA256
		}
	}
	if !maps.Equal(o.Chain, want) {
		j.t.Errorf("the chain is %v, want %v", o.Chain, want)
	}
}

// hookAt calls f once, before the first call that is meant.
func hookAt(meant func(mem.Call) bool, f func()) func(mem.Call) mem.Fault {
	done := false
	return func(c mem.Call) mem.Fault {
		if !done && meant(c) {
			done = true
			f()
		}
		return mem.Fault{}
	}
}
