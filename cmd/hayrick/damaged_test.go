package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/jobfile"
	"hayrick/manifest"
	"hayrick/worker"
)

// localRoles are the roles on a new local store in an empty working directory, and a
// way to submit a run of one item to it.
func localRoles(t *testing.T) (r *roles, submit func(jobID string)) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"items.jsonl": "{}\n", "job.yaml": "version: 1\nname: job\nhandler: {builtin: noop}\ninput: {uri: ./items.jsonl}\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := &cli{
		environment: environment{out: io.Discard, err: io.Discard, get: func(string) string { return "" }},
		storeDir:    ".hayrick", world: hayrick.RealWorld("w"), screen: newScreen(io.Discard, nil), log: slog.New(slog.DiscardHandler),
	}
	r, err := openToWork(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.close() })
	f, err := jobfile.Load("job.yaml", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r, func(jobID string) {
		t.Helper()
		if _, err := r.coordinator.Submit(t.Context(), coordinator.Submission{
			Definition: f.Definition, ConfigFile: f.Path, ConfigTime: f.ModTime, New: true, JobID: jobID,
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// A message that fails again and again is nothing to stay for when no run is
// unfinished; beside one that is, it is.
func TestWorkerLeavesMessagesOfNothing(t *testing.T) {
	r, submit := localRoles(t)
	look := func() bool {
		t.Helper()
		now := time.Now()
		w := &crew{drive: drive{roles: r, worked: now.Add(-time.Minute), waits: now.Add(time.Hour)}, over: map[string]bool{}, shown: map[string]*progress{}}
		done, err := w.look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	if !look() {
		t.Error("the worker stays where no run is")
	}
	submit("unfinished")
	if look() {
		t.Error("the worker leaves while a message of an unfinished run waits")
	}
}

// Damage in one run keeps a sweep from no other, and is an error in the end.
func TestLambdaSweepsBesideDamage(t *testing.T) {
	r, submit := localRoles(t)
	const good = "m-good"
	for _, id := range []string{"a-plan", "b-config", good, "z-plan"} {
		submit(id)
	}
	for _, id := range []string{"a-plan", "z-plan"} {
		path := filepath.Join(".hayrick/jobs", id, "plan.json")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".half", b[:len(b)/2], 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".half", path); err != nil {
			t.Fatal(err)
		}
	}
	configs, err := filepath.Glob(".hayrick/jobs/b-config/config-*")
	if err != nil || len(configs) != 1 {
		t.Fatal(configs, err)
	}
	if err := os.Remove(configs[0]); err != nil {
		t.Fatal(err)
	}
	// What a sweep of the good one has to do.
	view := filepath.Join(".hayrick/jobs", good, "manifest.json")
	if err := os.Remove(view); err != nil {
		t.Fatal(err)
	}
	f := &function{roles: r, now: time.Now}
	_, err = f.Invoke(t.Context(), []byte(`{"hayrick":"sweep"}`))
	for _, id := range []string{"a-plan", "b-config", "z-plan"} {
		if err == nil || !strings.Contains(err.Error(), "sweep "+id) {
			t.Errorf("the error does not name %s: %v", id, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), good) {
		t.Errorf("the good run is an error: %v", err)
	}
	if _, err := os.Stat(view); err != nil {
		t.Errorf("the good run was not swept: %v", err)
	}
}

// What cannot be handed back and does not get done in an invocation, time after time, is
// no dead letter: the run is paused, and says who can do it.
func TestLambdaPausesWhatTakesTooLong(t *testing.T) {
	r, submit := localRoles(t)
	submit("long")
	f := &function{roles: r, now: time.Now, told: map[string]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	slow := func(ctx context.Context, _ hayrick.Delivery) (worker.Verdict, error) {
		return worker.Verdict{Again: time.Second, Because: "merge"}, ctx.Err()
	}
	deliver := func(role hayrick.Role, count int) (worker.Verdict, error) {
		q := newEventQueue(t.Context(), r.store, r.world.Clock, nil)
		defer q.end()
		return f.inTime(q, slow)(ctx, hayrick.Delivery{Count: count, Message: hayrick.Message{JobID: "long", Role: role, Group: hayrick.GroupInitial}})
	}
	status := func() (hayrick.JobStatus, string) {
		t.Helper()
		k, d, err := r.known(t.Context(), "long")
		if err != nil {
			t.Fatal(err)
		}
		return d.Status, coordinator.Apply(k.Orders, k.Generation).Reason
	}
	for _, x := range []struct {
		role  hayrick.Role
		count int
	}{{hayrick.RoleRetryPlanner, 1}, {hayrick.RoleAggregator, triesInTime - 1}, {hayrick.RoleWorker, triesInTime - 1}} {
		if v, err := deliver(x.role, x.count); v.Ack || err == nil {
			t.Errorf("%v: %+v, %v", x, v, err)
		}
	}
	if got, _ := status(); got != hayrick.StatusRunning {
		t.Fatal(got)
	}
	for n := range 3 { // no resume silences it
		if v, err := deliver(hayrick.RoleRetryPlanner, triesInTime); !v.Ack || err != nil {
			t.Errorf("%+v, %v", v, err)
		}
		got, reason := status()
		if got != hayrick.StatusPaused || !strings.Contains(reason, "planning what follows initial_batch takes longer than an invocation") || !strings.Contains(reason, "`hayrick resume long`") {
			t.Errorf("%d: %s, %s", n, got, reason)
		}
		if _, err := r.coordinator.Order(t.Context(), "long", manifest.Control{Order: manifest.OrderResume}); err != nil {
			t.Fatal(err)
		}
	}
}
