package audit_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
	"hayrick/mem"
)

const (
	jobID  = "backfill-20261120-kdmqra"
	job    = manifest.Job(jobID)
	folder = "./out/" + jobID + "/"
)

// fate is how one try of an item goes in one group: a class, or rows.
type fate struct {
	class string
	disp  hayrick.Disposition
	rows  int
}

// story is a job to be built: what happens to each item in each group, and what goes
// wrong with the records. A wrong record has right digests all the way up: only a
// contradiction can give it away.
type story struct {
	items  int
	batch  int
	passes int
	fanIn  int
	parts  int
	refs   bool // lists of results and inputs as objects, not inline
	fate   func(ordinal int64, group int) fate
	whole  func(task int64) bool // the batch as a whole FAILED
	broken func(merge int) int   // how often the merge FAILED first

	onBatches  func(group string, bs []manifest.Batch) []manifest.Batch
	onFailures func(task string, fs []manifest.FailureLine) []manifest.FailureLine
	onResult   func(r *manifest.Result)
	onRetried  func(n int, its []manifest.RetryItem) []manifest.RetryItem
	onListed   func(name string, ls []manifest.ListLine) []manifest.ListLine
	onRetry    func(n int, p *manifest.RetryPlan)
	onGroup    func(w *world, g *manifest.Group)
	onPlan     func(p *manifest.Plan)
	onMerge    func(p *manifest.AggregationPlan)
	onMerged   func(r *manifest.Result)
	onList     func(name string, ls []manifest.ListLine) []manifest.ListLine
	onRows     func(task string, rs []rows.Row) []rows.Row
	onParquet  func(body []byte) []byte
	onOutcome  func(o *manifest.Outcome)
	onEnd      func(w *world, o *manifest.Outcome)
	orders     int
	until      string // the last thing that is written: "plan", "tasks" of the first group, "retry", "merged"; "" = all
	cancelled  bool   // with until: the generation ends there
	copy       func() (key string, input []byte)
	ifExists   string
	remade     int                                  // how often the parts were damaged before an outcome named them
	uri        string                               // of the output; "" = a folder of the run's own
	tail       string                               // of every segment, behind its batches
	onCommit   func(rel string, body []byte) []byte // the bytes as they are stored
}

// tiny is the job of five accounts: one deleted, one throttled once.
func tiny() story {
	return story{items: 5, batch: 2, passes: 2, fanIn: 10, parts: 1, orders: 2, fate: func(o int64, group int) fate {
		switch {
		case o == 3 && group == 0:
			return fate{class: "rate_limit", disp: hayrick.RateLimit}
		case o == 4:
			return fate{class: "repo_not_found", disp: hayrick.Permanent}
		}
		return fate{rows: []int{3, 2, 3, 3, 0}[o]}
	}}
}

// world is a store with the finished job.
type world struct {
	t     testing.TB
	mem   *mem.Store
	store *manifest.Store
	story
	def hayrick.JobDefinition

	plan      manifest.Plan
	planSHA   string
	tasks     int64
	inputs    []manifest.MergeInput
	data      map[string][]rows.Row // by file
	okItems   int64
	permanent []manifest.ListLine
	exhausted []manifest.ListLine
	link      manifest.Link
	chain     map[string]string
	attempts  int
	outSHA    string
}

type still struct{}

func (still) Now() time.Time                                   { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }
func (still) Sleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func at(ms int) manifest.Time {
	return manifest.At(still{}.Now().Add(time.Duration(ms) * time.Millisecond))
}

func ptr[T any](v T) *T { return &v }

func did(o int64) string { return fmt.Sprintf("did:plc:%04d", o) }

func record(o int64) []byte { return fmt.Appendf(nil, `{"did": "%s", "pds":"pds-%d"}`, did(o), o%3) }

func (w *world) attempt() string {
	w.attempts++
	return manifest.SHA256(fmt.Append(nil, w.attempts))[:32]
}

// build writes the job as its roles would.
func build(t testing.TB, s story) *world {
	t.Helper()
	m := mem.New(still{})
	w := &world{t: t, story: s, mem: m, store: &manifest.Store{Objects: m, Clock: still{}}, data: map[string][]rows.Row{}, chain: map[string]string{}}
	w.submit()
	if s.until == "plan" {
		return w
	}
	group, opener := w.plan.Group, manifest.Link{Key: "plan.json", SHA256: w.planSHA}
	for n := 1; ; n++ {
		ends := w.run(group, n-1)
		if s.until == "tasks" || s.until == "retry" && n == 2 {
			w.stop()
			return w
		}
		p := w.close(n, group, opener, ends)
		opener = w.link
		if p.Group == nil {
			break
		}
		group = *p.Group
	}
	w.aggregate(opener)
	return w
}

func (w *world) submit() {
	w.def = hayrick.JobDefinition{
		Version: 1, Name: "backfill", Handler: hayrick.Handler{Builtin: "atproto.repo"},
		Input:  hayrick.Input{URI: "./users.jsonl", Format: "jsonl", Key: "did", OnBadItem: "fail", Snapshot: "auto"},
		Batch:  hayrick.Batches{Items: w.batch},
		Retry:  hayrick.Retry{Passes: w.passes, Lists: map[string]string{"repo_not_found": "deleted_dids"}},
		Output: hayrick.Output{URI: cmp.Or(w.uri, "./out/$(run.id)/"), Format: "parquet", Compression: "zstd", IfExists: cmp.Or(w.ifExists, "error")},
		Merge:  hayrick.Merge{FanIn: w.fanIn, ByCount: true},
	}
	config, defSHA, err := manifest.EncodeDefinition(w.def)
	w.must(err)
	w.put(job.Config(defSHA), config)
	bundle := []byte("the folder jobs/backfill")
	w.put(job.Bundle(manifest.SHA256(bundle)), bundle)

	var users []byte
	var batches []manifest.Batch
	line := int64(1)
	for first := 0; first < w.items; first += w.batch {
		b := manifest.Batch{Object: "./users.jsonl", FirstLine: line, FirstOrdinal: int64(first), Offset: int64(len(users))}
		for i := first; i < min(first+w.batch, w.items); i++ {
			users = append(append(users, record(int64(i))...), '\n')
			b.Items++
			line++
		}
		b.Length = int64(len(users)) - b.Offset
		b.SHA256 = manifest.SHA256(users[b.Offset:])
		batches = append(batches, b)
		users = append(users, " \n"...) // a blank line between batches
		line++
	}
	w.mem.SetInput("./users.jsonl", users)
	group := w.group("initial_batch", 0, batches)
	w.plan = manifest.Plan{
		Schema: manifest.SchemaPlan, JobID: jobID, DefinitionSHA256: defSHA, BundleSHA256: manifest.SHA256(bundle),
		CodeVersion: "hayrick v0.1.0+" + manifest.Short(manifest.SHA256(bundle)),
		Job:         manifest.JobFields{JobType: "backfill", Handler: "atproto.repo", GitCommit: "a3c123f", ConfigFile: "jobs/backfill/config.yaml", BatchSize: w.batch, SubmittedBy: "user@host"},
		Input:       []manifest.InputID{{URI: "./users.jsonl", Object: "./users.jsonl", Items: int64(w.items), Pin: manifest.Pin{Size: int64(len(users)), MTime: at(0)}}},
		Items:       int64(w.items), Group: group, SubmittedAt: at(1),
	}
	if w.onPlan != nil {
		w.onPlan(&w.plan)
	}
	if w.copy != nil {
		key, input := w.copy()
		w.put(key, input)
	}
	c, err := w.store.CommitPlan(w.t.Context(), w.plan)
	w.must(err)
	w.planSHA = w.committed(job.Plan(), c.SHA256)
	w.chain["plan.json"] = w.planSHA
	for n := range w.orders {
		c, err := w.store.CommitControl(w.t.Context(), manifest.Control{Schema: manifest.SchemaControl, JobID: jobID, N: n, Order: []string{"pause", "resume"}[n%2], By: "user@host", At: at(10 + n)})
		w.must(err)
		w.chain[job.Rel(job.Control(n))] = w.committed(job.Control(n), c.SHA256)
	}
	w.view(job.Manifest(), manifest.JobView(w.plan, "RUNNING", 0, ptr("4711")))
}

// committed lets the story change a commit's bytes before anything names them.
func (w *world) committed(key, sha string) string {
	if w.onCommit == nil {
		return sha
	}
	body := w.onCommit(job.Rel(key), w.mem.Snapshot()[key])
	w.mem.Damage(key, body)
	return manifest.SHA256(body)
}

func (w *world) put(key string, body []byte) { w.must(w.store.PutData(w.t.Context(), key, body)) }
func (w *world) view(key string, v any)      { w.must(w.store.PutView(w.t.Context(), key, v)) }

func (w *world) group(name string, first int64, batches []manifest.Batch) manifest.Group {
	if w.onBatches != nil {
		batches = w.onBatches(name, batches)
	}
	g := manifest.NewGroupWriter(w.store, jobID, name, hayrick.RoleWorker, first)
	for _, b := range batches {
		w.must(g.Add(w.t.Context(), b))
	}
	group, err := g.Close(w.t.Context())
	w.must(err)
	w.seal(&group)
	return group
}

// seal changes a group that a plan is about to open.
func (w *world) seal(g *manifest.Group) {
	if w.onGroup != nil {
		w.onGroup(w, g)
	}
	if !w.refs {
		return
	}
	g.BlocksRef, g.Blocks = list(w, func(sha string) string {
		return job.Abs("groups/" + g.Name + "/blocks-" + manifest.Short(sha) + ".jsonl")
	}, g.Blocks), nil
	g.IndexRef, g.Index = list(w, func(sha string) string {
		return job.Abs("batches/" + g.Name + "/indexes-" + manifest.Short(sha) + ".jsonl")
	}, g.Index), nil
}

// rewrite stores the n-th block file and index object of a group anew.
func (w *world) rewrite(g *manifest.Group, n int, fn func(b *manifest.Block, x *manifest.Index)) {
	ctx := w.t.Context()
	b, err := w.store.Block(ctx, jobID, g.Name, n, g.Blocks[n])
	w.must(err)
	var x manifest.Index
	if len(g.Index) > 0 {
		x, err = w.store.Index(ctx, jobID, g.Name, n, g.Index[n])
		w.must(err)
	}
	fn(&b, &x)
	body, err := manifest.Encode(b)
	w.must(err)
	sha := manifest.SHA256(body)
	w.put(job.Block(g.Name, n, sha), body)
	g.Blocks[n].Key, g.Blocks[n].SHA256 = job.Rel(job.Block(g.Name, n, sha)), sha
	if len(g.Index) > 0 {
		body, err = manifest.Encode(x)
		w.must(err)
		sha = manifest.SHA256(body)
		w.put(job.Index(g.Name, n, sha), body)
		g.Index[n].Key, g.Index[n].SHA256 = job.Rel(job.Index(g.Name, n, sha)), sha
	}
}

// taskDone is a task as the planner sees it.
type taskDone struct {
	id     string
	sha    string
	failed []failedItem
}

type failedItem struct {
	manifest.FailureLine
	manifest.BatchItem
}

// run writes the results of a group.
func (w *world) run(g manifest.Group, n int) (ends []taskDone) {
	ctx := w.t.Context()
	m, err := w.store.Members(ctx, jobID, 0, g)
	w.must(err)
	for i := range m.Blocks() {
		block, err := m.Block(ctx, w.store, i)
		w.must(err)
		index, err := m.Index(ctx, w.store, i)
		w.must(err)
		for j := range block.Tasks {
			ends = append(ends, w.task(g.Name, n, block.Tasks[j].TaskID, index.Batches[j]))
		}
	}
	return ends
}

func (w *world) task(group string, n int, id string, b manifest.Batch) taskDone {
	ctx := w.t.Context()
	r, err := w.mem.OpenInput(ctx, jobID, b)
	w.must(err)
	items, err := manifest.OpenBatch(b, r)
	w.must(err)
	res := manifest.Result{
		Schema: manifest.SchemaResult, JobID: jobID, TaskID: id, BatchID: ptr(b.BatchID), Status: "DONE", Attempt: w.attempt(), Fence: 1,
		RowHash: "0", DroppedHash: "0", Items: b.Items, BatchSHA256: b.SHA256, CodeVersion: w.plan.CodeVersion, WrittenAt: at(100),
		Task: manifest.TaskFields{Role: "worker", Phase: string(hayrick.PhaseOf(group)), Group: group, Worker: "local-1", Input: b.Object,
			StartTime: at(50), EndTime: at(99), Metrics: map[string]int64{"items_processed": int64(b.Items)}},
	}
	whole := w.whole != nil && w.whole(w.tasks)
	w.tasks++
	end := taskDone{id: id}
	var lines []manifest.FailureLine
	var out []rows.Row
	for _, it := range items {
		f := w.fate(it.Ordinal, n)
		if whole {
			f = fate{class: "handler_start", disp: hayrick.Infra}
		}
		if f.class == "" {
			for k := range f.rows {
				out = append(out, rows.Row{{Name: "did", Value: it.Label("did")}, {Name: "n", Value: int64(k)}, {Name: "at", Value: still{}.Now()}})
			}
			continue
		}
		x := manifest.FailureLine{Ordinal: it.Ordinal, Key: it.Label("did"), Class: f.class, Disposition: string(f.disp), Message: f.class + " of " + did(it.Ordinal), Tries: it.Tries + 1, Losses: it.Losses}
		if whole {
			x.Tries, x.Losses, x.Message = it.Tries, it.Losses+1, "no such binary"
		}
		lines = append(lines, x)
	}
	if w.onFailures != nil {
		lines = w.onFailures(id, lines)
	}
	for _, x := range lines {
		i := slices.IndexFunc(items, func(it manifest.BatchItem) bool { return it.Ordinal == x.Ordinal })
		var it manifest.BatchItem
		if i >= 0 {
			it = items[i]
		}
		end.failed = append(end.failed, failedItem{x, it})
	}
	res.OK, res.Failed = b.Items-len(lines), len(lines)
	if w.onRows != nil {
		out = w.onRows(id, out)
	}
	switch {
	case whole:
		res.Status, res.Task.Error = "FAILED", &manifest.TaskError{Class: "handler_start", Message: "no such binary"}
	case len(lines) > 0:
		var body []byte
		res.Failures = &manifest.Failures{Count: len(lines), ByClass: map[string]int64{}}
		for _, f := range lines {
			line, err := manifest.EncodeLine(f)
			w.must(err)
			body = append(body, line...)
			res.Failures.ByClass[f.Class]++
		}
		key := job.Failures(id, res.Attempt, manifest.SHA256(body))
		w.put(key, body)
		res.Failures.File, res.Failures.SHA256 = job.Rel(key), manifest.SHA256(body)
	}
	w.file(&res, out)
	if w.onResult != nil {
		w.onResult(&res)
	}
	w.okItems += int64(res.OK)
	c, err := w.store.CommitResult(ctx, res)
	w.must(err)
	end.sha = c.SHA256
	w.view(job.TaskManifest(id), manifest.TaskView(res))
	in := manifest.MergeInput{TaskID: id, BatchID: b.BatchID, DoneSHA256: c.SHA256, SHA256: res.SHA256, Bytes: res.Bytes, Rows: res.RowCount, RowHash: res.RowHash}
	if res.File != nil {
		in.File = *res.File
	}
	w.inputs = append(w.inputs, in)
	return end
}

// parquet encodes rows.
func (w *world) parquet(out []rows.Row) ([]byte, rows.Summary) {
	var o rows.Observer
	for _, r := range out {
		w.must(o.Observe(r))
	}
	var buf bytes.Buffer
	pw, err := rows.NewWriter(&buf, o.Schema(), rows.WriterOptions{GroupRows: 50})
	w.must(err)
	for _, r := range out {
		w.must(pw.Append(r))
	}
	sum, err := pw.Close()
	w.must(err)
	body := buf.Bytes()
	if w.onParquet != nil {
		body = w.onParquet(body)
		sum.SHA256, sum.Bytes = manifest.SHA256(body), int64(len(body))
	}
	return body, sum
}

// file stores the rows of a result.
func (w *world) file(r *manifest.Result, out []rows.Row) {
	if len(out) == 0 {
		return
	}
	body, sum := w.parquet(out)
	key := job.Rows(r.TaskID, r.Attempt, sum.SHA256)
	w.put(key, body)
	r.File, r.SHA256, r.Bytes, r.RowCount, r.RowHash, r.SchemaDigest = ptr(job.Rel(key)), sum.SHA256, sum.Bytes, sum.Rows, sum.RowHash.String(), sum.SchemaDigest
	w.data[*r.File] = out
}

// list stores lines as a list; nil for none.
func list[T any](w *world, key func(sha string) string, ls []T) *manifest.Ref {
	if len(ls) == 0 {
		return nil
	}
	var body []byte
	for _, l := range ls {
		line, err := manifest.EncodeLine(l)
		w.must(err)
		body = append(body, line...)
	}
	sha := manifest.SHA256(body)
	w.put(key(sha), body)
	return &manifest.Ref{Key: job.Rel(key(sha)), SHA256: sha, Count: int64(len(ls))}
}

// close writes the n-th retry plan.
func (w *world) close(n int, g manifest.Group, opener manifest.Link, ends []taskDone) manifest.RetryPlan {
	p := manifest.RetryPlan{
		Schema: manifest.SchemaRetryPlan, JobID: jobID, RetryID: manifest.RetryID(n), Closed: g.Name, Predecessor: opener,
		Orders: w.orders, Next: manifest.NextAggregation, ErrorTypes: map[string]int64{}, SubmittedAt: at(1000 * n),
	}
	var again []manifest.RetryItem
	var permanent, exhausted []manifest.ListLine
	var failed []string
	for _, e := range ends {
		ref := manifest.ResultRef{TaskID: e.id, SHA256: e.sha}
		for _, f := range e.failed {
			x := f.FailureLine
			l := manifest.ListLine{Ordinal: x.Ordinal, Key: x.Key, Class: x.Class, Message: x.Message, TaskID: e.id, Tries: x.Tries, Losses: x.Losses}
			it := manifest.RetryItem{Ordinal: x.Ordinal, Item: f.Data, Tries: x.Tries, Losses: x.Losses, Infra: f.Infra, Classes: append(slices.Clone(f.Classes), x.Class)}
			charged := len(f.Classes) - f.Infra
			disposition := w.def.Retry.DispositionOf(x.Class, hayrick.Disposition(x.Disposition))
			if disposition == hayrick.Infra {
				it.Infra++
			} else {
				charged++
			}
			switch {
			case disposition.Final():
				permanent = append(permanent, l)
			case charged > w.passes || n-1 >= w.passes+3:
				exhausted = append(exhausted, l)
			default:
				again = append(again, it)
				p.ErrorTypes[x.Class]++
				ref.Retried++
			}
		}
		if ref.Retried > 0 {
			p.FailedTasks++
			failed = append(failed, e.id)
		}
		p.Results = append(p.Results, ref)
	}
	if w.onRetried != nil {
		again = w.onRetried(n, again)
	}
	if w.onListed != nil {
		permanent, exhausted = w.onListed("permanent", permanent), w.onListed("exhausted", exhausted)
	}
	p.PermanentList = list(w, func(sha string) string { return job.RetryList(n, "permanent", sha) }, permanent)
	p.ExhaustedList = list(w, func(sha string) string { return job.RetryList(n, "exhausted", sha) }, exhausted)
	p.Items, p.Permanent, p.Exhausted = int64(len(again)), int64(len(permanent)), int64(len(exhausted))
	w.permanent, w.exhausted = append(w.permanent, permanent...), append(w.exhausted, exhausted...)
	if w.refs {
		p.ResultsRef, p.Results = list(w, func(sha string) string { return job.RetryList(n, "results", sha) }, p.Results), nil
	}
	if len(again) > 0 {
		p.Next = hayrick.RetryGroup(n)
		group := w.group(p.Next, g.FirstTask+g.Tasks, w.segments(p.Next, again))
		p.Group, p.Tasks = &group, group.Tasks
	}
	if w.onRetry != nil {
		w.onRetry(n, &p)
	}
	c, err := w.store.CommitRetryPlan(w.t.Context(), n, p)
	w.must(err)
	key := job.Rel(job.RetryPlan(n))
	sha := w.committed(job.RetryPlan(n), c.SHA256)
	w.chain[key], w.link = sha, manifest.Link{Key: key, SHA256: sha}
	w.view(job.RetryManifest(n), manifest.RetryView(p, failed))
	return p
}

// segments packs items two batches a segment.
func (w *world) segments(group string, items []manifest.RetryItem) (batches []manifest.Batch) {
	for seg := 0; len(items) > 0; seg++ {
		var body []byte
		var part []manifest.Batch
		for range 2 {
			if len(items) == 0 {
				break
			}
			n := min(w.batch, len(items))
			b := manifest.Batch{Retry: true, FirstOrdinal: items[0].Ordinal, FirstLine: 1, Offset: int64(len(body)), Items: n}
			if len(part) > 0 {
				b.FirstLine = part[0].FirstLine + int64(part[0].Items)
			}
			for _, it := range items[:n] {
				line, err := manifest.EncodeLine(it)
				w.must(err)
				body = append(body, line...)
			}
			b.Length = int64(len(body)) - b.Offset
			b.SHA256 = manifest.SHA256(body[b.Offset:])
			part, items = append(part, b), items[n:]
		}
		body = append(body, w.tail...)
		key := job.Segment(group, seg, manifest.SHA256(body))
		w.put(key, body)
		for _, b := range part {
			b.Object = manifest.StoreScheme + job.Rel(key)
			batches = append(batches, b)
		}
	}
	return batches
}

// stop leaves the job as it is, or cancels it.
func (w *world) stop() {
	if !w.cancelled {
		return
	}
	o := manifest.Outcome{
		Schema: manifest.SchemaOutcome, JobID: jobID, Status: "CANCELLED", Items: int64(w.items), OK: w.okItems,
		Permanent: int64(len(w.permanent)), Exhausted: int64(len(w.exhausted)), RowHash: "0", DroppedHash: "0", Chain: w.chain, EndedAt: at(9000),
	}
	o.Unfinished = o.Items - o.OK - o.Permanent - o.Exhausted
	w.end(o)
}

func (w *world) end(o manifest.Outcome) {
	if w.onOutcome != nil {
		w.onOutcome(&o)
	}
	if w.onEnd != nil {
		w.onEnd(w, &o)
	}
	c, err := w.store.CommitOutcome(w.t.Context(), o)
	w.must(err)
	w.outSHA = c.SHA256
	w.view(job.Manifest(), manifest.JobView(w.plan, o.Status, 0, ptr("4711")))
}

func (w *world) aggregate(last manifest.Link) {
	ctx := w.t.Context()
	p := manifest.AggregationPlan{
		Schema: manifest.SchemaAggregationPlan, JobID: jobID, Predecessor: last, Orders: w.orders, OK: w.okItems,
		Tree: manifest.Tree{FanIn: w.fanIn, Nodes: []int64{}}, PlannedAt: at(5000),
	}
	var hash rows.Hash
	var schema rows.Schema
	g := manifest.NewGroupWriter(w.store, jobID, hayrick.GroupAggregation, hayrick.RoleAggregator, 0)
	var spans []manifest.Span
	open := manifest.Span{}
	full := 0
	for _, in := range w.inputs {
		h, err := rows.ParseHash(in.RowHash)
		w.must(err)
		p.Rows, hash = p.Rows+in.Rows, hash.Add(h)
		open.Count++
		if in.Rows > 0 {
			full++
			var o rows.Observer
			for _, r := range w.data[in.File] {
				w.must(o.Observe(r))
			}
			if schema, err = rows.Unify(schema, o.Schema()); err != nil {
				w.must(err)
			}
		}
		if full == w.fanIn {
			spans, open, full = append(spans, open), manifest.Span{First: open.First + open.Count}, 0
		}
	}
	if full > 0 {
		spans = append(spans, open)
	}
	p.RowHash = hash.String()
	columns, err := json.Marshal(schema)
	w.must(err)
	p.Columns, p.Inputs = columns, w.inputs
	if w.refs {
		p.Inputs, p.InputsRef = nil, list(w, func(sha string) string { return job.AggregationInputs(0, sha) }, w.inputs)
	}
	if len(spans) > 0 {
		for i, s := range spans {
			w.must(g.AddMerge(ctx, manifest.MergeTaskID(0, 1, i, 0), s))
		}
		group, err := g.Close(ctx)
		w.must(err)
		w.seal(&group)
		p.Group = &group
		p.Tree.Nodes = append(p.Tree.Nodes, group.Tasks)
		if group.Tasks > 1 {
			p.Tree.Nodes = append(p.Tree.Nodes, 1)
		}
	}
	if w.onMerge != nil {
		w.onMerge(&p)
	}
	c, err := w.store.CommitAggregationPlan(ctx, p)
	w.must(err)
	w.chain["aggregation/0/plan.json"] = w.committed(job.AggregationPlan(0), c.SHA256)
	var outputs []manifest.Result
	for i, s := range spans {
		outputs = append(outputs, w.merge(i, s))
	}
	if w.until == "merged" {
		w.stop()
		return
	}
	w.finish(p, outputs)
}

// merge writes the result of a level-1 merge.
func (w *world) merge(node int, s manifest.Span) manifest.Result {
	for run := 0; ; run++ {
		id := manifest.MergeTaskID(0, 1, node, run)
		r := manifest.Result{
			Schema: manifest.SchemaResult, JobID: jobID, TaskID: id, Status: "DONE", Attempt: w.attempt(), Fence: 1, RowHash: "0", DroppedHash: "0",
			CodeVersion: w.plan.CodeVersion, WrittenAt: at(6000),
			Task: manifest.TaskFields{Role: "aggregator", Phase: "aggregation", Group: "final_aggregation", Worker: "local-1", StartTime: at(5500), EndTime: at(5999), Metrics: map[string]int64{}},
		}
		failed := w.broken != nil && run < w.broken(node)
		var out []rows.Row
		for _, in := range w.inputs[s.First : s.First+s.Count] {
			if in.Rows > 0 {
				r.Inputs = append(r.Inputs, manifest.InputFile{Key: in.File, SHA256: in.SHA256, Rows: in.Rows})
				out = append(out, w.data[in.File]...)
			}
		}
		if failed {
			r.Status, r.Inputs, r.Task.Error = "FAILED", nil, &manifest.TaskError{Class: "merge", Message: "corrupt"}
		} else {
			if w.onRows != nil {
				out = w.onRows(id, out)
			}
			w.file(&r, out)
			if w.onMerged != nil {
				w.onMerged(&r)
			}
		}
		c, err := w.store.CommitResult(w.t.Context(), r)
		w.must(err)
		w.chain[job.Rel(job.Done(id))] = c.SHA256
		w.view(job.TaskManifest(id), manifest.TaskView(r))
		if !failed {
			return r
		}
	}
}

// finish writes parts, lists and outcome, and publishes.
func (w *world) finish(p manifest.AggregationPlan, outputs []manifest.Result) {
	ctx := w.t.Context()
	agg := &manifest.Aggregation{
		Schema: manifest.SchemaAggregation, JobID: jobID, Phase: "aggregation", RowCountsByBatch: map[string]int64{},
		Parts: []manifest.Part{}, Lists: []manifest.List{}, WrittenAt: at(8000),
	}
	for _, in := range w.inputs {
		if in.Rows > 0 {
			agg.InputFileCount++
			if !w.refs {
				agg.InputFiles = append(agg.InputFiles, in.File)
				agg.RowCountsByBatch[in.BatchID] += in.Rows
			}
		}
	}
	var hashes []string
	o := manifest.Outcome{Schema: manifest.SchemaOutcome, JobID: jobID, Status: "SUCCEEDED", Items: int64(w.items), OK: w.okItems, DroppedHash: "0", EndedAt: at(8001), Chain: w.chain, Aggregation: agg}
	var sum rows.Hash
	for i, cut := range cuts(len(outputs), w.parts) {
		var all []rows.Row
		h := sha256.New()
		for _, r := range outputs[cut[0]:cut[1]] {
			all = append(all, w.data[*r.File]...)
			raw, err := hex.DecodeString(r.SHA256)
			w.must(err)
			h.Write(raw)
		}
		if w.onRows != nil {
			all = w.onRows(fmt.Sprint("part-", i), all)
		}
		body, s := w.parquet(all)
		f, err := rows.ReadFooter(bytes.NewReader(body), int64(len(body)))
		w.must(err)
		h.Write(f.Raw)
		own := hex.EncodeToString(h.Sum(nil))
		hashes = append(hashes, own)
		for range w.remade {
			own = manifest.SHA256([]byte(own))
		}
		key := job.Part(0, i, own)
		w.put(key, body)
		name := fmt.Sprintf("part-%05d.parquet", i)
		agg.Parts = append(agg.Parts, manifest.Part{Name: name, Key: job.Rel(key), SHA256: s.SHA256, Bytes: s.Bytes, Rows: s.Rows, RowHash: s.RowHash.String()})
		o.RowCount, sum = o.RowCount+s.Rows, sum.Add(s.RowHash)
	}
	o.RowHash, agg.TotalRows = sum.String(), o.RowCount
	agg.OutputHash = manifest.SHA256([]byte(strings.Join(hashes, "")))
	if len(hashes) == 1 {
		agg.OutputHash = hashes[0]
	}
	if len(agg.Parts) > 0 {
		agg.OutputFile = &agg.Parts[0].Key
	}
	lists := map[string][]manifest.ListLine{}
	for _, l := range w.permanent {
		name := "permanent"
		if l.Class == "repo_not_found" {
			name = "deleted_dids"
		}
		lists[name] = append(lists[name], l)
	}
	if len(w.exhausted) > 0 {
		lists["exhausted"] = w.exhausted
	}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		ls := slices.Clone(lists[name])
		slices.SortFunc(ls, func(x, y manifest.ListLine) int { return cmp.Compare(x.Ordinal, y.Ordinal) })
		if w.onList != nil {
			ls = w.onList(name, ls)
		}
		if ref := list(w, func(sha string) string { return job.List(0, name, sha) }, ls); ref != nil {
			agg.Lists = append(agg.Lists, manifest.List{Name: name, Key: ref.Key, SHA256: ref.SHA256, Count: ref.Count})
		}
	}
	o.Permanent, o.Exhausted = int64(len(w.permanent)), int64(len(w.exhausted))
	w.end(o)
	w.view(job.AggregationManifest(), agg)
	for _, p := range agg.Parts {
		w.must(w.mem.PublishFile(ctx, folder, p.Name, job.Abs(p.Key)))
	}
	for _, l := range agg.Lists {
		w.must(w.mem.PublishFile(ctx, folder, manifest.PublishedName(w.def, string(job), "lists/"+l.Name+".jsonl"), job.Abs(l.Key)))
	}
	done, err := manifest.Encode(manifest.Success{Schema: manifest.SchemaSuccess, JobID: jobID, OutcomeSHA256: w.outSHA})
	w.must(err)
	w.must(w.mem.PublishBytes(ctx, folder, manifest.SuccessName, done))
}

// cuts divides n into at most parts runs.
func cuts(n, parts int) (out [][2]int) {
	parts = min(max(parts, 1), n)
	for i := range parts {
		out = append(out, [2]int{i * n / parts, (i + 1) * n / parts})
	}
	return out
}

type (
	memCall  = mem.Call
	memFault = mem.Fault
)

// outputs reads the published folder of a mem.Store.
type outputs struct{ *mem.Store }

func (o outputs) OpenOutput(_ context.Context, folder, name string) (io.ReadCloser, error) {
	b, err := o.Output(folder, name)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}
