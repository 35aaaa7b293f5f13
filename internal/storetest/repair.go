package storetest

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
)

// The sweeper on an adapter: that what is said of queues and of the state is enough to
// find messages that are lost, beside a job that always has one.
var repairTests = map[string]func(*harness){
	"LostMessages": testLostMessages,
	"Pause":        testPause,
}

// later is the store's clock, moved on by a test.
type later struct {
	hayrick.Clock
	by time.Duration
}

func (c *later) Now() time.Time { return c.Clock.Now().Add(c.by) }

// repaired is a submitted job of five tasks, and a coordinator whose time a test moves.
type repaired struct {
	*harness
	*coordinator.Coordinator
	clock *later
	jobID string
}

const repairTasks = 5

func newRepaired(h *harness) *repaired {
	h.Helper()
	// Too early to be seen by the test, and never too late.
	h.must(h.Queue.Send(h.Ctx, hayrick.QueueTasks, hayrick.Outgoing{
		Message: hayrick.Message{JobID: "other-20261120-abcdef", Role: hayrick.RoleWorker}, Delay: 10 * time.Minute,
	}))
	clock := &later{Clock: h.Clock}
	r := &repaired{harness: h, clock: clock, jobID: "lost-20261120-abcdef"}
	world := hayrick.RealWorld(h.Worker)
	world.Clock, world.Go = clock, func(_ string, f func()) { f() }
	r.Coordinator = &coordinator.Coordinator{
		Store: &manifest.Store{Objects: h.Objects, Clock: clock}, State: h.State, Queue: h.Queue, Sources: h.Inputs,
		World: world, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Scratch: h.TempDir(),
	}
	uri := h.SetInput("lost.jsonl", []byte(strings.Repeat("{\"n\":1}\n", repairTasks)))
	_, err := r.Submit(h.Ctx, coordinator.Submission{
		JobID: r.jobID, ConfigTime: clock.Now(), SubmittedBy: "user@host", CodeVersion: "hayrick storetest",
		Definition: hayrick.JobDefinition{
			Version: 1, Name: "lost", Handler: hayrick.Handler{Builtin: "none"}, Batch: hayrick.Batches{Items: 1},
			Input: hayrick.Input{URI: uri, Format: "jsonl", OnBadItem: "fail", Snapshot: "auto"},
		},
	})
	h.must(err)
	return r
}

// take receives the messages of all tasks and acknowledges them: nobody has them now.
func (r *repaired) take() {
	r.Helper()
	var all []hayrick.Delivery
	for range 20 {
		ds := r.receive(hayrick.QueueTasks, 10)
		r.must(r.harness.Queue.Ack(r.Ctx, hayrick.QueueTasks, ds...))
		if all = append(all, ds...); len(all) >= repairTasks {
			break
		}
	}
	want := []string{"task-0000", "task-0001", "task-0002", "task-0003", "task-0004"}
	if got := tasks(all); !slices.Equal(got, want) {
		r.Fatalf("the queue has %q, want %q", got, want)
	}
}

// sweep sweeps after d, and says whether it had to send anything.
func (r *repaired) sweep(d time.Duration) bool {
	r.Helper()
	r.clock.by += d
	dec, err := r.Sweep(r.Ctx, r.jobID)
	r.must(err)
	return len(dec.Scan) > 0
}

// Messages that are lost come again, each once, and again when they are lost again.
func testLostMessages(h *harness) {
	r := newRepaired(h)
	depth, err := h.Queue.Depth(h.Ctx, hayrick.QueueTasks, r.jobID)
	h.must(err)
	if r.sweep(0) {
		h.Error("messages are sent again that have not been received")
	}
	for _, wait := range []time.Duration{2 * time.Minute, 2 * time.Minute, 4 * time.Minute} {
		r.take()
		if depth.Exact {
			if !r.sweep(0) {
				h.Fatal("nothing is sent again at once, though the queue counts")
			}
			continue
		}
		if r.sweep(wait / 2) {
			h.Errorf("messages are sent again after %v", wait/2)
		}
		if !r.sweep(wait/2 + time.Minute) {
			h.Fatalf("nothing is sent again after %v", wait+time.Minute)
		}
	}
	r.take()
}

// What is received while a job is paused is sent again by the sweep after its resume.
func testPause(h *harness) {
	r := newRepaired(h)
	order := func(what string) {
		h.Helper()
		_, err := r.Order(context.WithoutCancel(h.Ctx), r.jobID, manifest.Control{Order: what, By: "user@host"})
		h.must(err)
	}
	order(manifest.OrderPause)
	if r.sweep(time.Second) {
		h.Error("a paused job's messages are sent again")
	}
	st, err := h.State.JobState(h.Ctx, r.jobID)
	h.must(err)
	if st.Status != hayrick.StatusPaused {
		h.Fatalf("the state of a paused job is %+v", st)
	}
	r.take()
	if r.sweep(24 * time.Hour) {
		h.Error("a paused job's messages are sent again")
	}
	order(manifest.OrderResume)
	if !r.sweep(time.Second) {
		h.Fatal("the sweep after the resume sends nothing")
	}
	r.take()
}
