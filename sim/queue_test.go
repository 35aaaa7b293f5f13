package sim

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
)

// besideOthers puts the job into a queue that does not tell jobs apart and is never
// empty: another job has a message in it that nobody works on.
func (j *job) besideOthers() *job {
	j.t.Helper()
	j.world.Store.OneDepth = true
	other := hayrick.Outgoing{Message: hayrick.Message{JobID: "other-20260101-abcdef", Role: hayrick.RoleWorker}, Delay: 1 << 62}
	if err := j.world.Store.Send(context.Background(), hayrick.QueueTasks, other); err != nil {
		j.t.Fatal(err)
	}
	return j
}

// loseMessages loses every message of the job, also those in flight.
func (j *job) loseMessages() {
	j.t.Helper()
	j.world.Store.WipeQueue()
	j.besideOthers()
}

// Every message there is, lost after any step, comes again, though the queue is never
// empty; so does one that is lost alone.
//
// 002-45
func TestLostMessagesComeAgainBesideOthers(t *testing.T) {
	calm := newJob(t).besideOthers()
	steps := calm.count(calm.submit(calm.world.Start()))
	want := Gist(calm.outcome())
	for name, lose := range map[string]func(*job){
		"all": (*job).loseMessages,
		"one": func(j *job) {
			ds, err := j.world.Store.Receive(context.Background(), hayrick.QueueTasks, 1, 0, 0)
			if err == nil {
				err = j.world.Store.Ack(context.Background(), hayrick.QueueTasks, ds...)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		for at := range steps {
			j := newJob(t).besideOthers()
			p := j.submit(j.world.Start())
			for range at {
				if _, err := p.Step(context.Background(), j.id); err != nil {
					t.Fatal(err)
				}
			}
			lose(j)
			begin := j.world.Clock.Now()
			j.finish(p)
			j.check()
			if got := Gist(j.outcome()); got != want {
				t.Errorf("%s lost after step %d: got %s, want %s", name, at, got, want)
			}
			// A standstill of two minutes finds what is lost; the job waits by itself for a
			// backoff of up to a minute.
			if took := j.world.Clock.Now().Sub(begin); took > 4*time.Minute {
				t.Errorf("%s lost after step %d: the rest takes %v", name, at, took)
			}
		}
	}
}

// Every queue call meets every fault, in a queue that is never empty.
func TestQueueFaultsBesideOthers(t *testing.T) {
	calm := newJob(t).besideOthers()
	var calls []int
	calm.world.Store.Hook = func(c mem.Call) mem.Fault {
		if c.Port == "Queue" {
			calls = append(calls, c.N)
		}
		return mem.Fault{}
	}
	calm.finish(calm.submit(calm.world.Start()))
	want := Gist(calm.outcome())
	for _, kind := range kinds {
		for _, n := range calls {
			j := newJob(t).besideOthers()
			at := j.struck(n, kind.fault)
			j.check()
			if got := Gist(j.outcome()); got != want {
				t.Fatalf("%s at %s:\n got %s\nwant %s", kind.name, at, got, want)
			}
		}
	}
	t.Logf("%d calls x %d kinds", len(calls), len(kinds))
}

// pauseAt submits a job, pauses it after some steps and lets a day pass.
func pauseAt(t *testing.T, at int, beside bool) (*job, *Process) {
	t.Helper()
	j := newJob(t)
	if beside {
		j.besideOthers()
	}
	p := j.submit(j.world.Start())
	for range at {
		if _, err := p.Step(context.Background(), j.id); err != nil {
			t.Fatal(err)
		}
	}
	j.order(p, manifest.OrderPause)
	if _, err := p.Coordinator.Sweep(context.Background(), j.id); err != nil { // as `pause` does
		t.Fatal(err)
	}
	for range 6 {
		for range 5 {
			if _, err := p.Step(context.Background(), j.id); err != nil {
				t.Fatal(err)
			}
		}
		j.world.Clock.Sleep(context.Background(), 4*time.Hour)
	}
	return j, p
}

// A job that is paused after any step, for a day, and then resumed ends as if nothing
// had been. While it is paused each of its messages is delivered once, none becomes a
// dead letter; the resume sends what is open at once, also when it is cut off between
// its order and its messages.
func TestAPausedJobGoesOn(t *testing.T) {
	calm := newJob(t)
	steps := calm.count(calm.submit(calm.world.Start()))
	want := Gist(calm.outcome())
	for _, beside := range []bool{false, true} {
		for at := range steps - 1 {
			for _, cut := range []string{"", "PutJobState", "Send"} {
				name := fmt.Sprintf("beside others: %t, paused after step %d, resume cut off at %q", beside, at, cut)
				j, p := pauseAt(t, at, beside)
				ctx := context.Background()
				if d, err := j.world.Store.Depth(ctx, hayrick.QueueTasks, j.id); err != nil || d.Exact && d.Messages > 0 || !d.Exact && d.Messages > 1 {
					t.Fatalf("%s: %+v messages are left, %v", name, d, err)
				}
				if d, err := j.world.Store.Depth(ctx, hayrick.QueueDead, j.id); err != nil || d.Messages > 0 {
					t.Errorf("%s: %+v dead letters, %v", name, d, err)
				}
				begin := j.world.Clock.Now()
				j.order(p, manifest.OrderResume)
				late := 90 * time.Second
				if cut != "" {
					late = 5 * time.Minute
					j.world.Store.Hook = func(c mem.Call) mem.Fault { return mem.Fault{CrashBefore: c.Op == cut} }
					err := guard(func() error { _, err := p.Coordinator.Sweep(ctx, j.id); return err })
					if err != nil && !errors.Is(err, errCrashed) {
						t.Fatal(err)
					}
					j.world.Store.Hook = nil
					j.world.Journals.Unlock()
					p = j.world.Start()
				}
				j.finish(p)
				j.check()
				if got := Gist(j.outcome()); got != want {
					t.Errorf("%s: got %s, want %s", name, got, want)
				}
				if took := j.world.Clock.Now().Sub(begin); took > late {
					t.Errorf("%s: the rest takes %v", name, took)
				}
			}
		}
	}
}

// A task that is held for three days: its message, come again, is looked at some times and
// does not die; when the holder is gone the task goes on.
func TestAHeldTaskKillsNoMessage(t *testing.T) {
	for _, beside := range []bool{false, true} {
		j := newJob(t)
		if beside {
			j.besideOthers()
		}
		p := j.submit(j.world.Start())
		ctx := context.Background()
		ds, err := j.world.Store.Receive(ctx, hayrick.QueueTasks, 1, time.Second, 0) // too short: it comes again
		if err != nil || len(ds) != 1 {
			t.Fatalf("%+v, %v", ds, err)
		}
		ref := hayrick.TaskRef{JobID: j.id, TaskID: ds[0].TaskID}
		ask := hayrick.ClaimAsk{TaskRef: ref, Attempt: "holder", Worker: "holder", Lease: time.Minute}
		if _, err := j.world.Store.Claim(ctx, ask); err != nil {
			t.Fatal(err)
		}
		for end := j.world.Clock.Now().Add(3 * 24 * time.Hour); j.world.Clock.Now().Before(end); {
			until := j.world.Clock.Now().Add(ask.Lease)
			if _, err := j.world.Store.UpdateClaim(ctx, ref, "holder", hayrick.ClaimPatch{Until: &until}); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Step(ctx, j.id); err != nil {
				t.Fatal(err)
			}
			j.world.Clock.Sleep(ctx, ask.Lease/2)
		}
		dead, err := j.world.Store.Receive(ctx, hayrick.QueueDead, 1, 0, 0)
		if err != nil || len(dead) > 0 {
			t.Errorf("dead letters %+v, %v", dead, err)
		}
		if n := j.world.Store.Calls()["Claim"]; n > 20 { // of the other tasks too
			t.Errorf("%d claims were asked for", n)
		}
		begin := j.world.Clock.Now()
		j.finish(p) // the holder is gone
		j.check()
		if took := j.world.Clock.Now().Sub(begin); took > 5*time.Minute {
			t.Errorf("beside others: %t: the rest takes %v", beside, took)
		}
	}
}

// A message that is delivered too often dies. Its task does not: it has no message then,
// and a sweep sends it one.
func TestADeadLetterIsNotTheEndOfItsTask(t *testing.T) {
	calm := newJob(t)
	calm.finish(calm.submit(calm.world.Start()))
	want := Gist(calm.outcome())
	for _, beside := range []bool{false, true} {
		j := newJob(t)
		if beside {
			j.besideOthers()
		}
		ctx := context.Background()
		p := j.submit(j.world.Start())
		for range 2 * hayrick.MaxReceives { // by processes that die before they claim anything
			if _, err := j.world.Store.Receive(ctx, hayrick.QueueTasks, 10, 0, 0); err != nil {
				t.Fatal(err)
			}
		}
		dead, err := j.world.Store.Receive(ctx, hayrick.QueueDead, 10, 0, 0)
		if err != nil || len(dead) != 3 {
			t.Fatalf("dead letters %+v, %v", dead, err)
		}
		j.finish(p)
		j.check()
		if got := Gist(j.outcome()); got != want {
			t.Errorf("beside others: %t: got %s, want %s", beside, got, want)
		}
	}
}
