package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet/file"

	"hayrick"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/worker"
)

// accounts are the five of the example: batches of two, the second has items 2, 3.
var accounts = []string{
	`{"did":"did:plc:aaa"}`, `{"did":"did:plc:aab"}`, `{"did":"did:plc:baa"}`, `{"did":"did:plc:bbb"}`, `{"did":"did:plc:ccc"}`,
}

// throttled ends every item ok with three rows, but item 3 never and item 4 not at
// all.
func throttled(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	it.Host.Add("api_requests", 1)
	switch it.Ordinal {
	case 3:
		_ = emit(jobs.Row{{Name: "did", Value: "of a try that fails"}})
		return jobs.Outcome{Class: "rate_limit", Message: "429 from pds-2", RetryAfter: 1200 * time.Millisecond}
	case 4:
		return jobs.Outcome{Class: "repo_not_found", Message: "gone"}
	}
	for n := range int64(3) {
		if err := emit(jobs.Row{{Name: "did", Value: it.Key}, {Name: "n", Value: n}}); err != nil {
			return jobs.Fail("emit", "%v", err)
		}
	}
	return jobs.OK()
}

func exampleRig(t *testing.T) *rig {
	return newRig(t, accounts, 2, throttled, func(d *hayrick.JobDefinition) {
		d.Input.Key = "did"
		d.Retry.Classes = map[string]hayrick.Disposition{"repo_not_found": hayrick.Permanent}
	})
}

// fields decodes an object as it stands.
func (r *rig) fields(key string) map[string]any {
	r.t.Helper()
	b, err := r.store.Raw(r.t.Context(), key)
	r.must(err)
	var m map[string]any
	r.must(json.Unmarshal(b, &m))
	return m
}

// expect compares fields with literal JSON values; re:... is a pattern of a string.
func expect(t *testing.T, what string, got map[string]any, want map[string]string) {
	t.Helper()
	for name, w := range want {
		v, ok := got[name]
		b, err := json.Marshal(v)
		if pattern, is := strings.CutPrefix(w, "re:"); is {
			if s, isText := v.(string); !isText || !regexp.MustCompile("^"+pattern+"$").MatchString(s) {
				t.Errorf("%s: %s is %s, want %s", what, name, b, w)
			}
		} else if err != nil || !ok || string(b) != w {
			t.Errorf("%s: %s is %s (there: %t), want %s", what, name, b, ok, w)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s is not expected: %v", what, name, got[name])
		}
	}
}

const utc = `re:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`

// The objects of one task, as the example of the design has them.
//
// 002-13 002-14: type, task_id, role, job_id, phase, group, batch_id, status, retries
// 002-24: the task manifest and its metrics
// 002-25: the result manifest; file is relative to the job's folder, so that a mirror has the same layout
// 002-28 (the worker's part): it writes the task manifest on exit, with metrics and paths
func TestObjectsOfATask(t *testing.T) {
	r := exampleRig(t)
	if v := r.attempt(r.worker("local-1"), 1); !v.Ack || v.Because != "done" {
		t.Fatalf("%+v", v)
	}
	names := regexp.MustCompile(`^manifest\.json results\.done task-0001_[0-9a-f]{8}_[0-9a-f]{12}\.parquet task-0001_[0-9a-f]{8}_[0-9a-f]{12}_failures\.jsonl$`)
	got := r.objects(1)
	slices.Sort(got)
	if !names.MatchString(strings.Join(got, " ")) {
		t.Errorf("objects: %v", got)
	}
	_, raw := r.failures(1)
	if want := `{"ordinal":3,"key":"did:plc:bbb","class":"rate_limit","disposition":"rate_limit","message":"429 from pds-2","tries":3,"losses":0,"retry_after_ms":1200}` + "\n"; raw != want {
		t.Errorf("failures file: %s\nwant %s", raw, want)
	}
	if got := r.column(1, "did") + " " + r.column(1, "n"); got != "did:plc:baa did:plc:baa did:plc:baa 0 1 2" {
		t.Errorf("rows: %s", got)
	}
	job := manifest.Job(jobID)
	done := r.fields(job.Done("task-0001"))
	task := done["task"].(map[string]any)
	delete(done, "task")
	failures := done["failures"].(map[string]any)
	delete(done, "failures")
	res := r.result(1)
	expect(t, "results.done", done, map[string]string{
		"schema": `"hayrick.result/v1"`, "job_id": `"` + jobID + `"`, "task_id": `"task-0001"`, "batch_id": `"batch-0001"`,
		"generation": "0", "status": `"DONE"`, "attempt": `re:[0-9a-f]{32}`, "fence": "1",
		"file":   `re:tasks/task-0001/task-0001_` + res.Attempt[:8] + `_` + res.SHA256[:12] + `\.parquet`,
		"sha256": `re:[0-9a-f]{64}`, "bytes": fmt.Sprint(res.Bytes), "row_count": "3", "row_hash": `re:[0-9a-f]{1,32}`,
		"schema_digest": `re:[0-9a-f]{64}`, "items": "2", "ok": "1", "failed": "1", "batch_sha256": `re:[0-9a-f]{64}`,
		"dropped_rows": "0", "dropped_hash": `"0"`, "code_version": `re:hayrick test\+[0-9a-f]{12}`, "written_at": utc, "self_sha256": `re:[0-9a-f]{64}`,
	})
	expect(t, "failures", failures, map[string]string{
		"file":   `re:tasks/task-0001/task-0001_` + res.Attempt[:8] + `_` + res.Failures.SHA256[:12] + `_failures\.jsonl`,
		"sha256": `re:[0-9a-f]{64}`, "count": "1", "by_class": `{"rate_limit":1}`,
	})
	expect(t, "task", task, map[string]string{
		"role": `"worker"`, "phase": `"initial"`, "group": `"initial_batch"`, "worker": `"local-1"`,
		"input": `re:in\.jsonl#\d+\+\d+`, "output_file": `re:mem:.*`, "start_time": utc, "end_time": utc, "retries": "0",
		"metrics": `{"api_requests":4,"items_processed":2}`, "error": "null",
	})
	if !res.Task.StartTime.Before(res.Task.EndTime.Time) { // two waits lie between
		t.Errorf("from %v to %v", res.Task.StartTime, res.Task.EndTime)
	}
	expect(t, "task manifest", r.fields(job.TaskManifest("task-0001")), map[string]string{
		"schema": `"hayrick.task/v1"`, "type": `"worker"`, "job_id": `"` + jobID + `"`, "task_id": `"task-0001"`, "batch_id": `"batch-0001"`,
		"role": `"worker"`, "phase": `"initial"`, "group": `"initial_batch"`, "input_s3": `re:in\.jsonl#\d+\+\d+`, "output_file": `re:mem:.*`,
		"status": `"PARTIAL"`, "retries": "0", "start_time": utc, "end_time": utc, "metrics": `{"api_requests":4,"items_processed":2}`, "error": "null",
	})
	// What follows from the commit: the mark.
	blocks, err := r.mem.Blocks(t.Context(), jobID, 0, hayrick.GroupInitial)
	r.must(err)
	if len(blocks) != 1 || blocks[0].Total != 3 || !blocks[0].Done.Has(1) || blocks[0].Done.Count() != 1 || blocks[0].OK != 1 || blocks[0].Fails != 1 {
		t.Errorf("marks: %+v", blocks)
	}
}

// The tasks of the example one after the other: the last one out sends the trigger.
func TestLastTaskOutSendsTheTrigger(t *testing.T) {
	r := exampleRig(t)
	w := r.worker("local-1")
	if attempts, triggers := r.drain(func() *worker.Worker { return w }); attempts != 3 || triggers != 1 {
		t.Errorf("%d attempts, %d triggers", attempts, triggers)
	}
	statuses := map[string]string{}
	for n := range int64(3) {
		m := r.fields(manifest.Job(jobID).TaskManifest(manifest.TaskID(n)))
		statuses[manifest.TaskID(n)] = fmt.Sprint(m["status"])
	}
	if want := map[string]string{"task-0000": "SUCCESS", "task-0001": "PARTIAL", "task-0002": "PARTIAL"}; !maps.Equal(statuses, want) {
		t.Errorf("%v", statuses)
	}
	if got := r.gist(2); got != "4:repo_not_found/1" { // permanent: one try
		t.Error(got)
	}
	if got := r.failuresDispositions(2); got != "permanent" {
		t.Errorf("disposition %s, the job file says permanent", got)
	}
	done := r.fields(manifest.Job(jobID).Done("task-0002"))
	for name, want := range map[string]any{"file": nil, "row_count": 0.0, "row_hash": "0"} { // a task without rows
		if got, ok := done[name]; !ok || got != want {
			t.Errorf("%s is %v", name, got)
		}
	}
}

func (r *rig) failuresDispositions(n int64) string {
	r.t.Helper()
	lines, _ := r.failures(n)
	var out []string
	for _, f := range lines {
		out = append(out, f.Disposition)
	}
	return strings.Join(out, " ")
}

// A handler that cannot start is the end of the batch as a whole, with the same
// manifests.
//
// 002-28 (the worker's part): also on failure
func TestHandlerThatCannotStart(t *testing.T) {
	r := newRig(t, words(4), 2, nil, nil)
	w := r.worker("local-1")
	w.Jobs.Handlers = jobs.Registry{}
	if v := r.attempt(w, 0); !v.Ack {
		t.Fatalf("%+v", v)
	}
	res := r.result(0)
	if res.Status != "FAILED" || res.Items != 2 || res.OK != 0 || res.Failed != 2 || res.File != nil || res.Failures != nil || res.RowCount != 0 {
		t.Errorf("%+v", res)
	}
	if e := res.Task.Error; e == nil || e.Class != hayrick.ClassHandler || !strings.Contains(e.Message, `"h" is not known`) {
		t.Errorf("%+v", res.Task.Error)
	}
	m := r.fields(manifest.Job(jobID).TaskManifest("task-0000"))
	if m["status"] != "FAILED" || m["error"].(map[string]any)["class"] != hayrick.ClassHandler {
		t.Errorf("%v", m)
	}
	blocks, err := r.mem.Blocks(t.Context(), jobID, 0, hayrick.GroupInitial)
	r.must(err)
	if len(blocks) != 1 || !blocks[0].Done.Has(0) || blocks[0].Fails != 2 {
		t.Errorf("%+v", blocks)
	}
}

// Rows lie in ordinal order, and columns in the order in which the ordinals first
// have them, whatever item ends first.
func TestRowsAreInOrdinalOrder(t *testing.T) {
	var ended [11]chan struct{}
	wait := false
	backwards := func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		if wait { // for all that come after
			<-ended[it.Ordinal+1]
			defer close(ended[it.Ordinal])
		}
		for i := range it.Ordinal%3 + 1 {
			row := jobs.Row{{Name: fmt.Sprintf("c%d", it.Ordinal%4), Value: "x"}, {Name: "at", Value: it.Ordinal*10 + i}, {Name: "null", Value: nil}}
			if err := emit(row); err != nil {
				return jobs.Fail("emit", "%v", err)
			}
		}
		return jobs.OK()
	}
	var hashes []string
	for _, inFlight := range []int{1, 10} {
		wait = inFlight == 10
		for i := range ended {
			ended[i] = make(chan struct{})
		}
		close(ended[10])
		r := newRig(t, words(10), 10, backwards, func(d *hayrick.JobDefinition) { d.Run.ItemsInFlight = inFlight })
		r.attempt(r.worker("w"), 0)
		if got, want := r.column(0, "at"), "0 10 11 20 21 22 30 40 41 50 51 52 60 70 71 80 81 82 90"; got != want {
			t.Errorf("%d in flight: %s", inFlight, got)
		}
		var names []string
		for _, row := range r.rows(0) {
			for _, c := range row {
				if !slices.Contains(names, c.Name) {
					names = append(names, c.Name)
				}
			}
		}
		if got := strings.Join(names, " "); got != "c0 at c1 c2 c3" { // a column that is only null is in no schema
			t.Errorf("%d in flight: columns %s", inFlight, got)
		}
		res := r.result(0)
		hashes = append(hashes, res.SHA256)
	}
	if len(slices.Compact(hashes)) != 1 {
		t.Errorf("the same rows in different files: %v", hashes)
	}
}

// Rows that cannot be stored are the handler's mistake, which another try would
// repeat: the item is permanent, the others are not touched.
func TestBadRows(t *testing.T) {
	for name, c := range map[string]struct {
		emit func(it jobs.Item, emit jobs.Emit)
		want string
		says string
	}{
		"two kinds within an item": {func(it jobs.Item, emit jobs.Emit) {
			_ = emit(jobs.Row{{Name: "v", Value: "text"}})
			if it.Ordinal == 1 {
				_ = emit(jobs.Row{{Name: "v", Value: 7}}) // and goes on as if nothing had been
				_ = emit(jobs.Row{{Name: "v", Value: "more"}})
			}
		}, "1:bad_rows/1", `column "v" is string in one place and int in another`},
		"two kinds in two items": {func(it jobs.Item, emit jobs.Emit) {
			if it.Ordinal == 1 {
				_ = emit(jobs.Row{{Name: "v", Value: 7}})
			} else {
				_ = emit(jobs.Row{{Name: "v", Value: "text"}})
			}
		}, "1:bad_rows/1", `column "v"`},
		"only nulls": {func(it jobs.Item, emit jobs.Emit) {
			if it.Ordinal == 1 {
				_ = emit(jobs.Row{{Name: "v", Value: nil}})
			} else {
				_ = emit(jobs.Row{{Name: "v", Value: "text"}})
			}
		}, "1:bad_rows/1", "no column has a value"},
		"a type that is none": {func(it jobs.Item, emit jobs.Emit) {
			if it.Ordinal == 1 {
				_ = emit(jobs.Row{{Name: "v", Value: struct{}{}}})
			} else {
				_ = emit(jobs.Row{{Name: "v", Value: "text"}})
			}
		}, "1:bad_rows/1", "struct {}"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, words(3), 3, func(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
				c.emit(it, emit)
				return jobs.OK()
			}, nil)
			r.attempt(r.worker("w"), 0)
			if got := r.gist(0); got != c.want {
				t.Errorf("failed: %s, want %s", got, c.want)
			}
			lines, _ := r.failures(0)
			if lines[0].Disposition != string(hayrick.Permanent) || !strings.Contains(lines[0].Message, c.says) {
				t.Errorf("%+v", lines[0])
			}
			if got := r.column(0, "v"); got != "text text" {
				t.Errorf("rows: %s", got)
			}
		})
	}
}

// A task of less than 200 ms and 64 KiB makes no journal; what it commits is the
// same as with one.
func TestShortTasksCommitFromMemory(t *testing.T) {
	for name, c := range map[string]struct {
		wait    time.Duration // of each of 3 items
		bytes   int           // likewise
		created int
	}{
		"short":                      {0, 10, 0},
		"just below both bounds":     {66 * time.Millisecond, 21_000, 0},
		"200 ms":                     {100 * time.Millisecond, 10, 1},
		"64 KiB":                     {0, 22_000, 1},
		"one item is long and large": {time.Second, 1 << 20, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var r *rig
			r = newRig(t, words(3), 3, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
				_ = emit(jobs.Row{{Name: "n", Value: it.Ordinal}, {Name: "text", Value: strings.Repeat("x", c.bytes)}})
				r.clock.pass(c.wait)
				return jobs.OK()
			}, nil)
			r.attempt(r.worker("w"), 0)
			if r.journals.created != c.created {
				t.Errorf("%d journals made, want %d", r.journals.created, c.created)
			}
			if got := r.column(0, "n"); got != "0 1 2" {
				t.Errorf("rows: %s", got)
			}
			if res := r.result(0); res.OK != 3 || (res.Task.OutputFile != "") != (c.created > 0) {
				t.Errorf("%+v", res)
			}
			if _, err := r.journals.Open(t.Context(), r.ref(0), r.fingerprint(0)); !errors.Is(err, hayrick.ErrNotFound) {
				t.Errorf("the journal outlives its commit: %v", err)
			}
		})
	}
}

// fingerprint is that of a task's journal.
func (r *rig) fingerprint(n int64) worker.Fingerprint {
	r.t.Helper()
	p, _, err := r.store.Plan(r.t.Context(), jobID)
	r.must(err)
	index, err := r.members.Index(r.t.Context(), r.store, int(n)/hayrick.BlockSize)
	r.must(err)
	return worker.Fingerprint{
		BatchSHA256: index.Batches[int(n)%hayrick.BlockSize].SHA256, DefinitionSHA256: p.DefinitionSHA256, BundleSHA256: p.BundleSHA256,
	}
}

// A record that is no item pauses the job once and says where; after a resume all
// such items are permanent, without a try.
func TestBadItems(t *testing.T) {
	lines := []string{`{"word":"a","pds":"p"}`, `{"word":`, `{"pds":"p"}`, `{"word":"d"}`, `[]`, `{"word":"f","pds":"p"}`}
	rates := func(d *hayrick.JobDefinition) {
		d.Rates = []hayrick.Rate{{Name: "pds", Key: "$(item.pds)", Limit: tenASecond, Auto: true}}
	}
	want := "1:bad_item/0 2:bad_item/0 3:bad_item/0 4:bad_item/0"
	r := newRig(t, lines, 6, echo, rates)
	w := r.worker("w")
	if v := r.attempt(w, 0); !v.Ack { // a resume sends it again
		t.Fatalf("%+v", v)
	}
	if len(r.orders.given) != 1 || !strings.Contains(r.orders.given[0], "in.jsonl:2: the line is not one JSON object") {
		t.Fatalf("pauses: %q", r.orders.given)
	}
	if !r.claim(0).Until.IsZero() {
		t.Error("a paused task keeps its claim")
	}
	if v := r.attempt(w, 0); !v.Ack || v.Because != "the job is paused" {
		t.Errorf("%+v", v)
	}
	r.must(r.orders.resume(t.Context()))
	if v := r.attempt(w, 0); !v.Ack {
		t.Fatalf("%+v", v)
	}
	if got := r.gist(0); got != want {
		t.Errorf("failed: %s", got)
	}
	failed, _ := r.failures(0)
	for i, says := range []string{"not one JSON object", `"word" is missing`, `rates.pds: the item has no field "pds"`, "not one JSON object"} {
		if !strings.Contains(failed[i].Message, says) || failed[i].Disposition != string(hayrick.Permanent) {
			t.Errorf("%+v, want %s", failed[i], says)
		}
	}
	if got := strings.Join(r.limiter.taken, " "); got != "pds/p/1 pds/p/1" {
		t.Errorf("tokens: %s", got)
	}
	if len(r.orders.given) != 1 || r.orders.asked != 2 { // one answer goes for all items
		t.Errorf("asked %d times, pauses: %q", r.orders.asked, r.orders.given)
	}

	skip := newRig(t, lines, 6, echo, func(d *hayrick.JobDefinition) { rates(d); d.Input.OnBadItem = "skip" })
	if v := skip.attempt(skip.worker("w"), 0); !v.Ack || len(skip.orders.given) != 0 || skip.gist(0) != want {
		t.Errorf("skip: %+v, pauses %q, failed %s", v, skip.orders.given, skip.gist(0))
	}
}

// Input that is not what was planned: no outcome, no try charged, one pause a look.
func TestChangedInputPauses(t *testing.T) {
	r := newRig(t, words(4), 2, func(context.Context, jobs.Item, jobs.Emit) jobs.Outcome {
		t.Error("an item of changed input is run")
		return jobs.OK()
	}, nil)
	w := r.worker("w")
	for n, text := range [][]byte{[]byte("{\"word\":\"other\"}\n"), nil} { // changed; not there at all
		r.mem.SetInput(input, text)
		if v := r.attempt(w, 1); !v.Ack { // a resume sends it again
			t.Fatalf("%+v", v)
		}
		rule := []string{"input_changed: ", "input_changed-2: "}[n]
		if len(r.orders.given) != n+1 || !strings.HasPrefix(r.orders.given[n], rule) || !strings.Contains(r.orders.given[n], "in.jsonl") || !strings.Contains(r.orders.given[n], "hayrick resume "+jobID) {
			t.Fatalf("pauses: %q", r.orders.given)
		}
		r.must(r.orders.resume(t.Context()))
	}
	if got := r.objects(1); len(got) != 0 {
		t.Errorf("objects: %v", got)
	}
	if c := r.claim(1); c.Vanished != 0 || !c.Until.IsZero() {
		t.Errorf("%+v", c)
	}
}

// Tokens come before the item; what a handler says of a bucket reaches it, also
// when the item's time is over.
func TestRates(t *testing.T) {
	var need error
	r := newRig(t, []string{`{"word":"a","pds":"p"}`}, 1, func(ctx context.Context, it jobs.Item, _ jobs.Emit) jobs.Outcome {
		if it.Try > 1 {
			return jobs.OK()
		}
		need = it.Host.Need(ctx, "nosuch", "", 1)
		if err := it.Host.Need(ctx, "plc", "k", 2); err != nil {
			return jobs.Fail("need", "%v", err)
		}
		it.Host.Feedback("plc", "k", jobs.Feedback{Throttled: true, RetryAfter: time.Second})
		it.Host.Feedback("plc", "k", jobs.Feedback{})
		it.Host.Feedback("deaf", "k", jobs.Feedback{Throttled: true})
		return jobs.Outcome{Class: hayrick.ClassRateLimit, RetryAfter: 2 * time.Second}
	}, func(d *hayrick.JobDefinition) {
		d.Rates = []hayrick.Rate{
			{Name: "pds", Key: "$(item.pds)", Limit: tenASecond, Auto: true, Learn: true}, {Name: "all", Limit: tenASecond, Auto: true},
			{Name: "plc", Limit: tenASecond, Learn: true}, {Name: "deaf", Limit: tenASecond},
		}
	})
	r.attempt(r.worker("w"), 0)
	if got := strings.Join(r.limiter.taken, " "); got != "pds/p/1 all//1 plc/k/2 pds/p/1 all//1" {
		t.Errorf("tokens: %s", got)
	}
	if got := strings.Join(r.limiter.feedback, "; "); got != "plc/k/1s ctx=<nil>; pds/p/2s ctx=<nil>" {
		t.Errorf("feedback: %s", got)
	}
	var u *hayrick.UserError
	if !errors.As(need, &u) || u.Hint == "" {
		t.Errorf("a rate that is not there: %v", need)
	}
	if res := r.result(0); res.OK != 1 {
		t.Errorf("%+v", res)
	}
}

// A message may speak of what is not, or not any more.
func TestMessagesThatLeadNowhere(t *testing.T) {
	r := newRig(t, words(2), 1, echo, nil)
	w := r.worker("w")
	for what, change := range map[string]func(*hayrick.Message){
		"another task at the position": func(m *hayrick.Message) { m.TaskID = "task-0001" },
		"a position that is not":       func(m *hayrick.Message) { m.Position = 2 },
		"a block that is not":          func(m *hayrick.Message) { m.Block = 1 },
		"a group that is not":          func(m *hayrick.Message) { m.Group = "retry_batch_1" },
		"a job that is not":            func(m *hayrick.Message) { m.JobID = "other-20261120-abcdef" },
	} {
		m := r.message(0)
		change(&m)
		if v, err := w.Attempt(t.Context(), hayrick.Delivery{Message: m, Count: 1}); !v.Ack || err != nil {
			t.Errorf("%s: %+v, %v", what, v, err)
		}
	}
	for status, want := range map[hayrick.JobStatus]string{
		hayrick.StatusSucceeded: "the generation has ended", hayrick.StatusCancelled: "the generation has ended", hayrick.StatusPaused: "the job is paused",
	} {
		r.must(r.mem.PutJobState(t.Context(), hayrick.JobState{JobID: jobID, Status: status}))
		if v := r.attempt(w, 0); v.Because != want || !v.Ack {
			t.Errorf("%s: %+v", status, v)
		}
	}
	r.must(r.mem.PutJobState(t.Context(), hayrick.JobState{JobID: jobID, Generation: 1, Status: hayrick.StatusRunning}))
	if v := r.attempt(w, 0); !v.Ack || v.Because != "the generation has ended" {
		t.Errorf("a message of an older generation: %+v", v)
	}
	if r.mem.Calls()["Claim"] != 0 {
		t.Error("something is claimed")
	}
}

// A block file that the plan names and the store has not is no "there is no such
// task": the message stays, and a person hears of it.
func TestNamedObjectThatIsGone(t *testing.T) {
	r := newRig(t, words(2), 1, echo, nil)
	r.mem.Damage(manifest.Job(jobID).Abs(r.members.Group.Blocks[0].Key), nil)
	v, err := r.worker("w").Attempt(t.Context(), hayrick.Delivery{Message: r.message(0), Count: 1})
	if v.Ack || !errors.Is(err, hayrick.ErrCorrupt) {
		t.Errorf("%+v, %v", v, err)
	}
}

// Files of rows are written as many at once as there are turns, and in row groups as large
// as there is memory for.
func TestFilesTakeTurns(t *testing.T) {
	r := exampleRig(t)
	w := r.worker("w-1")
	w.Turns, w.GroupBytes = make(chan struct{}, 1), 1
	if v := r.attempt(w, 0); v.Because != "done" {
		t.Fatal(v)
	}
	res := r.result(0)
	body, err := r.store.Data(t.Context(), manifest.Job(jobID).Abs(*res.File), res.SHA256)
	r.must(err)
	f, err := file.NewParquetReader(bytes.NewReader(body))
	r.must(err)
	if n := int64(f.NumRowGroups()); n != res.RowCount || n != 6 || len(w.Turns) != 0 {
		t.Errorf("%d row groups of %d rows, %d turns taken", n, res.RowCount, len(w.Turns))
	}
}
