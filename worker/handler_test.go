package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/worker"
)

// A panic is a crash of the item: tried again once, then poison. The other items of
// the batch are not touched.
func TestPanics(t *testing.T) {
	var seen calls
	r := newRig(t, words(4), 4, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		n := seen.add(it.Ordinal)
		_ = emit(jobs.Row{{Name: "n", Value: it.Ordinal}})
		switch {
		case it.Ordinal == 1 && n == 1:
			panic("once")
		case it.Ordinal == 2:
			panic(errors.New("every time"))
		case it.Ordinal == 3 && n == 1:
			runtime.Goexit()
		}
		return jobs.OK()
	}, func(d *hayrick.JobDefinition) { d.Run.ItemsInFlight = 4 })
	r.attempt(r.worker("w"), 0)
	if got := r.gist(0); got != "2:poison/2" {
		t.Errorf("failed: %s", got)
	}
	if lines, _ := r.failures(0); lines[0].Disposition != string(hayrick.Poison) || lines[0].Message != "panic: every time" {
		t.Errorf("%+v", lines[0])
	}
	if got := r.column(0, "n"); got != "0 1 3" {
		t.Errorf("rows: %s", got)
	}
}

// With one try a task, the crash of an earlier group counts.
func TestCrashesAddUpOverGroups(t *testing.T) {
	r := newRig(t, words(1), 1, func(context.Context, jobs.Item, jobs.Emit) jobs.Outcome { panic("boom") },
		func(d *hayrick.JobDefinition) { d.Retry.InTask.Attempts = 1 })
	w := r.worker("w")
	r.attempt(w, 0)
	if got := r.gist(0); got != "0:handler_crash/1" {
		t.Errorf("first group: %s", got)
	}
	v, err := w.Attempt(t.Context(), hayrick.Delivery{Message: r.openRetry(manifest.RetryItem{
		Ordinal: 0, Item: []byte(`{"word":"w0"}`), Tries: 1, Classes: []string{hayrick.ClassCrash},
	}), Count: 1})
	if !v.Ack || err != nil {
		t.Fatalf("%+v, %v", v, err)
	}
	if got := r.gist(1); got != "0:poison/2" {
		t.Errorf("second group: %s", got)
	}
	if res := r.result(1); res.Task.Group != "retry_batch_1" || res.Task.Phase != "retry" {
		t.Errorf("%+v", res.Task)
	}
}

// openRetry opens retry_batch_1 with one task and returns its message.
func (r *rig) openRetry(items ...manifest.RetryItem) hayrick.Message {
	r.t.Helper()
	ctx := r.t.Context()
	var seg []byte
	for _, it := range items {
		line, err := manifest.EncodeLine(it)
		r.must(err)
		seg = append(seg, line...)
	}
	sha := manifest.SHA256(seg)
	key := manifest.Job(jobID).Segment("retry_batch_1", 0, sha)
	r.must(r.store.PutData(ctx, key, seg))
	w := manifest.NewGroupWriter(r.store, jobID, "retry_batch_1", hayrick.RoleWorker, r.tasks)
	r.must(w.Add(ctx, manifest.Batch{
		Object: manifest.StoreScheme + manifest.Job(jobID).Rel(key), FirstLine: 1, Items: len(items), Length: int64(len(seg)), Retry: true, SHA256: sha,
	}))
	g, err := w.Close(ctx)
	r.must(err)
	_, err = r.store.CommitRetryPlan(ctx, 1, manifest.RetryPlan{
		Schema: manifest.SchemaRetryPlan, JobID: jobID, RetryID: manifest.RetryID(1), Closed: hayrick.GroupInitial, Next: "retry_batch_1",
		Tasks: 1, Items: int64(len(items)), Group: &g,
	})
	r.must(err)
	return hayrick.Message{JobID: jobID, Role: hayrick.RoleWorker, Group: "retry_batch_1", TaskID: manifest.TaskID(r.tasks)}
}

// Try counts over the whole job; classes and keys of the item are as in the input.
func TestItemsOfARetry(t *testing.T) {
	var saw []string
	r := newRig(t, words(3), 3, func(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		saw = append(saw, fmt.Sprintf("%d %s try %d %s", it.Ordinal, it.Key, it.Try, it.Data))
		return jobs.Fail("busy", "still")
	}, func(d *hayrick.JobDefinition) { d.Retry.InTask.Attempts = 2 })
	v, err := r.worker("w").Attempt(t.Context(), hayrick.Delivery{Message: r.openRetry(manifest.RetryItem{
		Ordinal: 2, Item: []byte(`{"word": "w2"}`), Tries: 5, Losses: 4, Classes: []string{"busy", "lost_worker"}, Infra: 1,
	}), Count: 1})
	if !v.Ack || err != nil {
		t.Fatalf("%+v, %v", v, err)
	}
	if got := strings.Join(saw, "; "); got != `2 w2 try 6 {"word": "w2"}; 2 w2 try 7 {"word": "w2"}` {
		t.Error(got)
	}
	if lines, _ := r.failures(1); len(lines) != 1 || lines[0].Tries != 7 || lines[0].Losses != 4 {
		t.Errorf("%+v", lines)
	}
}

// An item that runs past item_timeout is tried again, then listed as timeout.
func TestItemTimeout(t *testing.T) {
	var r *rig
	var seen calls
	r = newRig(t, words(2), 2, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		n := seen.add(it.Ordinal)
		_ = emit(jobs.Row{{Name: "try", Value: int64(n)}})
		if it.Ordinal == 0 && n == 3 {
			return jobs.OK()
		}
		r.clock.fire(itemTimeout)
		<-ctx.Done()
		return jobs.Fail("stopped", "%v", ctx.Err())
	}, nil)
	var said bytes.Buffer
	r.log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r.attempt(r.worker("w"), 0)
	if n := strings.Count(said.String(), "ran out of its time"); n != 1 { // of five that did
		t.Errorf("told %d times:\n%s", n, &said)
	}
	if got := r.gist(0); got != "1:timeout/3" {
		t.Errorf("failed: %s", got)
	}
	lines, _ := r.failures(0)
	if want := "still running after 1m0s: context canceled"; lines[0].Message != want || lines[0].Disposition != string(hayrick.Timeout) {
		t.Errorf("%+v", lines[0])
	}
	if got := r.column(0, "try"); got != "3" { // rows of failed tries do not count
		t.Errorf("rows: %s", got)
	}
}

// A handler that does not heed its context is given up: the attempt commits what
// the other items came to, and what the forgotten one still does reaches nothing.
func TestHandlerThatHangsIsGivenUp(t *testing.T) {
	var r *rig
	woken, late := make(chan struct{}), make(chan error)
	r = newRig(t, words(3), 3, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		it.Host.Add("calls", 1)
		_ = emit(jobs.Row{{Name: "n", Value: it.Ordinal}})
		if it.Ordinal == 1 {
			r.clock.fireOf(ctx, itemTimeout)
			<-woken
			it.Host.Add("calls", 100)
			it.Host.Feedback("nosuch", "", jobs.Feedback{Throttled: true})
			if err := it.Host.Need(ctx, "all", "", 1); !errors.Is(err, context.Canceled) {
				late <- fmt.Errorf("need: %v", err)
			}
			late <- emit(jobs.Row{{Name: "n", Value: int64(99)}})
		}
		return jobs.OK()
	}, func(d *hayrick.JobDefinition) {
		d.Run.ItemsInFlight = 3
		d.Retry.InTask.Attempts = 1
		d.Rates = []hayrick.Rate{{Name: "all", Limit: tenASecond}}
	})
	var acked sync.WaitGroup
	acked.Go(func() {
		if v := r.attempt(r.worker("w"), 0); !v.Ack {
			t.Errorf("%+v", v)
		}
	})
	r.clock.fire(grace)
	acked.Wait()
	if got := r.gist(0); got != "1:timeout/1" {
		t.Errorf("failed: %s", got)
	}
	if got := r.column(0, "n"); got != "0 2" {
		t.Errorf("rows: %s", got)
	}
	close(woken)
	if err := <-late; err == nil || strings.HasPrefix(err.Error(), "need") {
		t.Errorf("a row of a try that has ended: %v", err)
	}
	if got := r.result(0).Task.Metrics["calls"]; got != 3 {
		t.Errorf("metric calls is %d", got)
	}
}

// One that hangs when the attempt's time is over does not keep it from handing
// back.
func TestHandlerThatHangsAtTheDeadline(t *testing.T) {
	woken, hung := make(chan struct{}), make(chan struct{})
	var seen calls
	r := newRig(t, words(2), 2, func(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		if n := seen.add(it.Ordinal); it.Ordinal == 1 && n == 1 {
			close(hung)
			<-woken
			return jobs.OK() // too late
		}
		return echo(context.Background(), it, emit)
	}, nil)
	var handed sync.WaitGroup
	handed.Go(func() {
		if v := r.attempt(r.worker("w1"), 0); v.Because != "handed back" {
			t.Errorf("%+v", v)
		}
	})
	<-hung
	r.clock.fire(taskTimeout)
	r.clock.fire(grace)
	handed.Wait()
	if v := r.attempt(r.worker("w2"), 0); v.Because != "done" {
		t.Errorf("%+v", v)
	}
	close(woken)
	if seen.of(0) != 1 || seen.of(1) != 2 || r.column(0, "n") != "0 1" {
		t.Errorf("calls %v, rows %s", seen.n, r.column(0, "n"))
	}
}

// A handler may do to its item's bytes what it likes: the next item's are its own.
func TestItemsDoNotShareBytes(t *testing.T) {
	var saw []string
	r := newRig(t, words(3), 3, func(_ context.Context, it jobs.Item, _ jobs.Emit) jobs.Outcome {
		saw = append(saw, string(it.Data))
		_ = append(it.Data, strings.Repeat("x", 40)...)
		return jobs.OK()
	}, nil)
	r.attempt(r.worker("w"), 0)
	if got, want := strings.Join(saw, " "), strings.Join(words(3), " "); got != want {
		t.Errorf("items: %s", got)
	}
}

// Many items in flight share the journal, the metrics and the schema; every one
// ends once. (Run with -race.)
func TestManyItemsInFlight(t *testing.T) {
	const items = 400
	var r *rig
	var seen calls
	r = newRig(t, words(items), items, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		n := seen.add(it.Ordinal)
		it.Host.Add("api_requests", 1)
		r.clock.pass(time.Millisecond) // the journal is made in the middle
		for i := range 3 {
			_ = emit(jobs.Row{{Name: "n", Value: it.Ordinal}, {Name: fmt.Sprintf("c%d", it.Ordinal%5), Value: strings.Repeat("x", i)}})
		}
		switch {
		case it.Ordinal%10 == 3 && n == 1:
			return jobs.Fail("busy", "once")
		case it.Ordinal%10 == 7:
			return jobs.Outcome{Class: "gone", Disposition: hayrick.Permanent}
		}
		return jobs.OK()
	}, func(d *hayrick.JobDefinition) { d.Run.ItemsInFlight = 16 })
	r.journals.Journals = worker.FileJournals{Dir: t.TempDir(), BootID: "boot-1"}
	r.attempt(r.worker("w"), 0)
	res := r.result(0)
	if res.OK != items*9/10 || res.Failed != items/10 || res.RowCount != items*9/10*3 || r.journals.created != 1 {
		t.Errorf("ok %d, failed %d, %d rows, %d journals", res.OK, res.Failed, res.RowCount, r.journals.created)
	}
	if got := res.Task.Metrics["api_requests"]; got != items+items/10 {
		t.Errorf("%d requests", got)
	}
	var want []string
	for i := range items {
		if i%10 != 7 {
			want = append(want, fmt.Sprint(i, i, i))
		}
	}
	if got := r.column(0, "n"); got != strings.Join(want, " ") {
		t.Errorf("rows: %s", got)
	}
}

// The metrics of a task are bounded in number.
func TestMetricsAreBounded(t *testing.T) {
	r := newRig(t, words(1), 1, func(_ context.Context, it jobs.Item, _ jobs.Emit) jobs.Outcome {
		for i := range 1000 {
			it.Host.Add(fmt.Sprintf("m%d", i), 1)
			it.Host.Add("m0", 1)
		}
		return jobs.OK()
	}, nil)
	r.attempt(r.worker("w"), 0)
	m := r.result(0).Task.Metrics
	if len(m) > 65 || m["m0"] != 1001 || m["items_processed"] != 1 {
		t.Errorf("%d metrics, m0 %d", len(m), m["m0"])
	}
}
