package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/worker"
)

// An item that takes more than one attempt goes on behind its last mark, with the rows
// of that mark and no others, on this machine and on another.
func TestMarksOutliveTheAttempt(t *testing.T) {
	for name, wipe := range map[string]bool{"one machine": false, "another machine each time": true} {
		t.Run(name, func(t *testing.T) {
			var r *rig
			attempts := 0
			r = newRig(t, words(2), 2, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
				if it.Ordinal == 1 {
					return echo(ctx, it, emit)
				}
				attempts++
				page := 0
				if it.Cursor != nil {
					if err := json.Unmarshal(it.Cursor, &page); err != nil {
						return jobs.Fail("cursor", "%v", err)
					}
				}
				for range 2 {
					page++
					_ = emit(jobs.Row{{Name: "n", Value: int64(page)}})
					if err := it.Host.Mark(fmt.Appendf(nil, "%d", page)); err != nil {
						return jobs.Fail("mark", "%v", err)
					}
				}
				if page == 6 {
					return jobs.OK()
				}
				_ = emit(jobs.Row{{Name: "n", Value: int64(1000)}}) // behind the mark: dropped
				r.clock.fire(taskTimeout)
				<-ctx.Done()
				return jobs.Fail("stopped", "%v", ctx.Err())
			}, nil)
			n := 0
			js := worker.FileJournals{Dir: t.TempDir(), BootID: "b"}
			r.drain(func() *worker.Worker {
				w := r.worker("w")
				if n++; wipe {
					js = worker.FileJournals{Dir: t.TempDir(), BootID: fmt.Sprint(n)}
				}
				w.Journals = js
				return w
			})
			if attempts != 3 {
				t.Errorf("%d attempts of the item", attempts)
			}
			if got := r.column(0, "n"); got != "1 2 3 4 5 6 1" {
				t.Errorf("rows: %s", got)
			}
			if got := r.gist(0); got != "" {
				t.Errorf("failed: %s", got)
			}
		})
	}
}

// An item that fails for good leaves none of its marked rows behind.
func TestMarkedRowsOfAFailureAreDropped(t *testing.T) {
	r := newRig(t, words(2), 2, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		_ = echo(ctx, it, emit)
		if it.Ordinal == 0 {
			if err := it.Host.Mark([]byte(`{"page": 1}`)); err != nil {
				return jobs.Fail("mark", "%v", err)
			}
			for _, bad := range []string{"{", `"` + strings.Repeat("x", jobs.MaxCursor) + `"`} {
				if it.Host.Mark([]byte(bad)) == nil {
					t.Errorf("the cursor %.10q... is taken", bad)
				}
			}
			return jobs.Fail("never", "no")
		}
		return jobs.OK()
	}, nil)
	r.attempt(r.worker("w"), 0)
	if got := r.column(0, "n"); got != "1" {
		t.Errorf("rows: %s", got)
	}
	if got := r.gist(0); got != "0:never/3" {
		t.Errorf("failed: %s", got)
	}
}

// A log keeps its beginning and its end, and says what it left out.
func TestLogOfATaskIsBounded(t *testing.T) {
	const lines = 20_000
	r := newRig(t, words(1), 1, func(_ context.Context, it jobs.Item, _ jobs.Emit) jobs.Outcome {
		for n := range lines {
			it.Host.Log(fmt.Sprintf("line %d %s", n, strings.Repeat("x", 50)))
		}
		it.Host.Log(`{"level":"info","msg":"structured"}`)
		it.Host.Log(strings.Repeat("y", 1<<20))
		return jobs.OK()
	}, nil)
	r.attempt(r.worker("w"), 0)
	res := r.result(0)
	if res.Log == nil || res.Log.Bytes > 300<<10 || res.Log.Lines != lines+2 {
		t.Fatalf("%+v", res.Log)
	}
	got := r.logLines(0)
	var dropped int64
	kept := int64(0)
	for _, l := range got {
		if dropped += l.Dropped; l.Dropped == 0 {
			kept++
		}
	}
	if dropped != res.Log.Dropped || kept+dropped != lines+2 {
		t.Errorf("%d kept and %d dropped, of %d; the result says %+v", kept, dropped, lines+2, res.Log)
	}
	last := got[len(got)-2]
	if !strings.HasPrefix(got[0].Text, "line 0 ") || string(last.Log) != `{"level":"info","msg":"structured"}` || last.Text != "" || len(last.Items) != 1 {
		t.Errorf("first %+v, last %+v", got[0], last)
	}
	if key := manifest.Job(jobID).Rel(manifest.Job(jobID).Log(manifest.TaskID(0), res.Attempt, res.Log.SHA256)); key != res.Log.File {
		t.Errorf("it lies under %s, want %s", res.Log.File, key)
	}
}

// What a handler said last before its worker was killed is in the log of the task, if
// the next attempt is on the same machine; nothing is left behind.
func TestLogOfAKilledWorkerIsKept(t *testing.T) {
	files := worker.FileLogs{Dir: t.TempDir()}
	r := newRig(t, words(1), 1, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		it.Host.Log("after")
		return echo(ctx, it, emit)
	}, nil)
	for _, said := range []string{"old", "before"} {
		live, err := files.Create(r.ref(0), said+"-0123456789")
		r.must(err)
		_, err = fmt.Fprintf(live, "{\"at\":\"2026-11-20T12:00:00.000Z\",\"items\":[0],\"text\":%q}\n{\"at\":", said)
		r.must(err)
	}
	r.vanish(0)
	w := r.worker("w")
	w.LiveLogs = files
	r.drain(func() *worker.Worker { return w })
	var got []string
	for _, l := range r.logLines(0) {
		got = append(got, l.Text)
	}
	if want := []string{"before", "hayrick: the worker that had this task vanished here; another goes on", "after"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	r.must(files.Logs(jobID, func(_, path string) error { return fmt.Errorf("%s is left behind", path) }))
}
