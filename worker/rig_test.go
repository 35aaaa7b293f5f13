package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/mem"
	"hayrick/worker"
)

const (
	jobID = "words-20261120-abcdef"
	input = "in.jsonl"
)

// handle is a handler that is a function.
type handle func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome

func (h handle) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	return h(ctx, it, emit)
}

// echo emits one row an item: its ordinal and key.
func echo(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	if err := emit(jobs.Row{{Name: "n", Value: it.Ordinal}, {Name: "key", Value: it.Key}}); err != nil {
		return jobs.Fail("emit", "%v", err)
	}
	return jobs.OK()
}

// rig is a submitted job in memory with the tasks of its first group, and the
// queue that has a message for each.
type rig struct {
	t        *testing.T
	clock    *clock
	mem      *mem.Store
	store    *manifest.Store
	def      hayrick.JobDefinition
	members  *manifest.Members
	tasks    int64
	journals *journals
	limiter  *limiter
	orders   *orders
	handler  handle
	make     func(jobs.Env) jobs.Handler // instead of handler
	log      *slog.Logger
}

// words are n lines {"word":"w<i>"}.
func words(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`{"word":"w%d"}`, i))
	}
	return out
}

var tenASecond = hayrick.PerTime{N: 10, Per: time.Second}

func dur(d time.Duration) hayrick.Duration { return hayrick.Duration(d) }

// newRig submits a job of lines in batches, in a world whose time the test makes
// pass.
func newRig(t *testing.T, lines []string, batch int, h handle, edit func(*hayrick.JobDefinition)) *rig {
	t.Helper()
	c := newClock()
	m := mem.New(c)
	m.Poll = time.Second
	r := &rig{
		t: t, clock: c, mem: m, store: &manifest.Store{Objects: m, Clock: c}, handler: h,
		journals: &journals{Journals: &worker.MemJournals{}}, limiter: &limiter{}, orders: &orders{mem: m},
		log: slog.New(slog.DiscardHandler),
	}
	r.def = hayrick.JobDefinition{
		Version: 1, Name: "words", Handler: hayrick.Handler{Builtin: "h"},
		Input: hayrick.Input{URI: input, Format: "jsonl", Key: "word", OnBadItem: "fail"}, Batch: hayrick.Batches{Items: batch},
		Run: hayrick.Run{ItemsInFlight: 1, TaskTimeout: dur(taskTimeout), ItemTimeout: dur(itemTimeout), Lease: dur(lease)},
		Retry: hayrick.Retry{
			InTask: hayrick.InTask{Attempts: 3, Initial: dur(time.Second), Max: dur(time.Minute)}, Passes: 2,
		},
	}
	if edit != nil {
		edit(&r.def)
	}
	config, sha, err := manifest.EncodeDefinition(r.def)
	r.must(err)
	ctx := t.Context()
	r.must(r.store.PutData(ctx, manifest.Job(jobID).Config(sha), config))
	w := manifest.NewGroupWriter(r.store, jobID, hayrick.GroupInitial, hayrick.RoleWorker, 0)
	var text []byte
	for first := 0; first < len(lines); first += batch {
		b := manifest.Batch{Object: input, FirstLine: int64(first) + 1, FirstOrdinal: int64(first), Offset: int64(len(text))}
		for _, line := range lines[first:min(first+batch, len(lines))] {
			text = append(append(text, line...), '\n')
			b.Items++
		}
		b.Length = int64(len(text)) - b.Offset
		b.SHA256 = manifest.SHA256(text[b.Offset:])
		r.must(w.Add(ctx, b))
	}
	m.SetInput(input, text)
	group, err := w.Close(ctx)
	r.must(err)
	_, err = r.store.CommitPlan(ctx, manifest.Plan{
		Schema: manifest.SchemaPlan, JobID: jobID, DefinitionSHA256: sha, BundleSHA256: manifest.SHA256([]byte("bundle")),
		Items: int64(len(lines)), Group: group,
	})
	r.must(err)
	r.members, err = r.store.Members(ctx, jobID, 0, group)
	r.must(err)
	r.tasks = group.Tasks
	for i := range group.Tasks {
		r.must(m.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: r.message(i)}))
	}
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) message(n int64) hayrick.Message {
	return hayrick.Message{
		JobID: jobID, Role: hayrick.RoleWorker, Group: hayrick.GroupInitial, TaskID: manifest.TaskID(n),
		Block: int(n) / hayrick.BlockSize, Position: int(n) % hayrick.BlockSize,
	}
}

func (r *rig) ref(n int64) hayrick.TaskRef {
	return hayrick.TaskRef{JobID: jobID, TaskID: manifest.TaskID(n)}
}

// worker is what a new process runs.
func (r *rig) worker(name string) *worker.Worker {
	world := r.clock.world(name)
	build := func(_ context.Context, env jobs.Env) (jobs.Handler, error) {
		if r.make != nil {
			return r.make(env), nil
		}
		return r.handler, nil
	}
	registry := jobs.Registry{"h": build, jobs.External: build}
	return &worker.Worker{
		Store: r.store, Claims: r.mem, Marks: r.mem, Queue: r.mem, Inputs: r.mem, Limiter: r.limiter, Orders: r.orders, Journals: r.journals,
		Jobs:  &worker.Jobs{Store: r.store, Handlers: registry, World: world, Log: r.log},
		World: world, Log: r.log, CodeVersion: "hayrick test",
	}
}

// attempt delivers task n for the first time.
func (r *rig) attempt(w *worker.Worker, n int64) worker.Verdict {
	r.t.Helper()
	v, err := w.Attempt(r.t.Context(), hayrick.Delivery{Message: r.message(n), Count: 1})
	r.must(err)
	return v
}

// drain takes what the queue has until it is empty, as one slot does, each message
// in a process of its own that next gives. Messages of other roles are only
// counted.
func (r *rig) drain(next func() *worker.Worker) (attempts, triggers int) {
	r.t.Helper()
	ctx := r.t.Context()
	for range 1000 {
		ds, err := r.mem.Receive(ctx, hayrick.QueueTasks, 1, time.Minute, 10*time.Minute)
		r.must(err)
		if len(ds) == 0 {
			return attempts, triggers
		}
		v := worker.Verdict{Ack: true}
		if ds[0].Role == hayrick.RoleWorker {
			attempts++
			v, err = next().Attempt(ctx, ds[0])
			r.must(err)
		} else {
			triggers++
		}
		if v.Ack {
			r.must(r.mem.Ack(ctx, hayrick.QueueTasks, ds[0]))
		} else {
			r.must(r.mem.Extend(ctx, hayrick.QueueTasks, v.Again, ds[0]))
		}
	}
	r.t.Fatal("the queue does not get empty")
	return 0, 0
}

func (r *rig) result(n int64) manifest.Result {
	r.t.Helper()
	res, _, err := r.store.Result(r.t.Context(), jobID, manifest.TaskID(n))
	r.must(err)
	return res
}

// rows are the rows of a task as they stand in its file, checked against the result.
func (r *rig) rows(n int64) []jobs.Row {
	r.t.Helper()
	res := r.result(n)
	if res.File == nil {
		return nil
	}
	body, err := r.store.Data(r.t.Context(), manifest.Job(jobID).Abs(*res.File), res.SHA256)
	r.must(err)
	if int64(len(body)) != res.Bytes {
		r.t.Errorf("the file has %d bytes, the result says %d", len(body), res.Bytes)
	}
	hash, err := rows.ParseHash(res.RowHash)
	r.must(err)
	r.must(rows.Verify(bytes.NewReader(body), res.Bytes, res.RowCount, hash))
	f, err := rows.Open(bytes.NewReader(body), res.Bytes)
	r.must(err)
	sc, err := f.Scan(rows.Schema{})
	r.must(err)
	var out []jobs.Row
	for {
		b, err := sc.Next()
		if err == io.EOF {
			break
		}
		r.must(err)
		for i := range b.Rows {
			out = append(out, b.Row(i))
		}
	}
	return out
}

// column is one column of a task's rows, space-separated.
func (r *rig) column(n int64, name string) string {
	r.t.Helper()
	var out []string
	for _, row := range r.rows(n) {
		for _, c := range row {
			if c.Name == name {
				out = append(out, fmt.Sprint(c.Value))
			}
		}
	}
	return strings.Join(out, " ")
}

// failures are the lines of a task's failures file, and the file as it stands.
func (r *rig) failures(n int64) (lines []manifest.FailureLine, raw string) {
	r.t.Helper()
	res := r.result(n)
	if res.Failures == nil {
		return nil, ""
	}
	body, err := r.store.Data(r.t.Context(), manifest.Job(jobID).Abs(res.Failures.File), res.Failures.SHA256)
	r.must(err)
	for line := range bytes.Lines(body) {
		var f manifest.FailureLine
		r.must(json.Unmarshal(line, &f))
		lines = append(lines, f)
	}
	return lines, string(body)
}

// gist is class and tries of each failed item: "3:timeout/2".
func (r *rig) gist(n int64) string {
	r.t.Helper()
	lines, _ := r.failures(n)
	var out []string
	for _, f := range lines {
		out = append(out, fmt.Sprintf("%d:%s/%d", f.Ordinal, f.Class, f.Tries))
	}
	return strings.Join(out, " ")
}

func (r *rig) claim(n int64) hayrick.Claim {
	r.t.Helper()
	c, _, err := r.mem.ReadClaim(r.t.Context(), r.ref(n))
	r.must(err)
	return c
}

// vanish is an attempt at task n whose process dies right after its claim.
func (r *rig) vanish(n int64) {
	r.t.Helper()
	ctx := r.t.Context()
	_, err := r.mem.Claim(ctx, hayrick.ClaimAsk{
		TaskRef: r.ref(n), Attempt: r.clock.world("").NewAttemptID(), Worker: "doomed", Lease: time.Hour,
	})
	r.must(err)
	r.mem.Kill("doomed")
}

// objects are the keys of a task's folder without their folder and hashes' values:
// what kinds of object there are.
func (r *rig) objects(n int64) []string {
	var out []string
	prefix := manifest.Jobs + jobID + "/tasks/" + manifest.TaskID(n) + "/"
	r.must(r.mem.List(r.t.Context(), prefix, func(o manifest.Object) error {
		out = append(out, strings.TrimPrefix(o.Key, prefix))
		return nil
	}))
	return out
}

// calls counts a handler's calls by ordinal.
type calls struct {
	mu sync.Mutex
	n  map[int64]int
}

func (c *calls) add(ordinal int64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[int64]int{}
	}
	c.n[ordinal]++
	return c.n[ordinal]
}

func (c *calls) of(ordinal int64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[ordinal]
}

// journals counts what is made.
type journals struct {
	worker.Journals
	mu      sync.Mutex
	created int
}

func (j *journals) Create(ctx context.Context, ref hayrick.TaskRef, attempt string, fp worker.Fingerprint) (worker.Journal, error) {
	j.mu.Lock()
	j.created++
	j.mu.Unlock()
	return j.Journals.Create(ctx, ref, attempt, fp)
}

// limiter grants at once, or as take says.
type limiter struct {
	take func(ctx context.Context, rate, key string, n int) error

	mu       sync.Mutex
	taken    []string
	feedback []string
}

func (l *limiter) Take(ctx context.Context, _ string, rate hayrick.Rate, key string, n int) (time.Duration, error) {
	l.mu.Lock()
	l.taken = append(l.taken, fmt.Sprintf("%s/%s/%d", rate.Name, key, n))
	l.mu.Unlock()
	if l.take != nil {
		return 0, l.take(ctx, rate.Name, key, n)
	}
	return 0, ctx.Err()
}

func (l *limiter) Feedback(ctx context.Context, _ string, rate hayrick.Rate, key string, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.feedback = append(l.feedback, fmt.Sprintf("%s/%s/%v ctx=%v", rate.Name, key, after, ctx.Err()))
}

// orders pauses the job, once a rule; resume silences all that was given.
type orders struct {
	mem      *mem.Store
	mu       sync.Mutex
	asked    int
	given    []string
	silenced map[string]bool
}

func (o *orders) Pause(ctx context.Context, job string, generation int, group, rule, reason string) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	if o.silenced[rule] {
		return true, nil
	}
	o.given = append(o.given, rule+": "+reason)
	return false, o.mem.PutJobState(ctx, hayrick.JobState{JobID: job, Generation: generation, Status: hayrick.StatusPaused})
}

func (o *orders) resume(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.silenced = map[string]bool{}
	for _, g := range o.given {
		rule, _, _ := strings.Cut(g, ":")
		o.silenced[rule] = true
	}
	return o.mem.PutJobState(ctx, hayrick.JobState{JobID: jobID, Status: hayrick.StatusRunning})
}

var errBroken = errors.New("503 service unavailable")
