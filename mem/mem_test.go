package mem_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/internal/storetest"
	"hayrick/manifest"
	"hayrick/mem"
)

// clock is virtual time: it passes only by Sleep.
type clock struct {
	mu      sync.Mutex
	now     time.Time
	onSleep func()
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	c.now = c.now.Add(d)
	f := c.onSleep
	c.mu.Unlock()
	if f != nil {
		f()
	}
	return ctx.Err()
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Ports {
		clk := newClock()
		s := mem.New(clk)
		s.CanClone = true
		t.Cleanup(func() {
			if v := s.Illegal(); len(v) > 0 {
				t.Errorf("illegal: %q", v)
			}
		})
		processes := 0
		var view func(t *testing.T) storetest.Ports
		view = func(t *testing.T) storetest.Ports {
			processes++
			name := fmt.Sprintf("worker-%d", processes)
			return storetest.Ports{
				Ctx: mem.WithActor(t.Context(), name), Clock: clk, Worker: name,
				Objects: s, Outputs: s, State: s, Queue: s, Buckets: s, Inputs: s,
				OutputURI: "out/run/",
				SetInput:  func(name string, data []byte) string { s.SetInput("./"+name, data); return "./" + name },
				Another:   view,
				Kill:      func() { s.Kill(name) },
			}
		}
		return view(t)
	})
}

func TestReceiveIsWokenBySend(t *testing.T) {
	clk := newClock()
	s := mem.New(clk)
	slept := 0
	clk.onSleep = func() {
		if slept++; slept == 3 {
			if err := s.Send(t.Context(), hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "j"}}); err != nil {
				t.Error(err)
			}
		}
	}
	ds, err := s.Receive(t.Context(), hayrick.QueueTasks, 1, time.Minute, time.Hour)
	if err != nil || len(ds) != 1 || slept != 3 {
		t.Fatalf("received %+v, %v after %d looks", ds, err, slept)
	}
}

// Each kind of fault, on each call of a small run: where the effect happened, who
// heard of it, and that the same run has the same calls again.
func TestFaults(t *testing.T) {
	job := manifest.Job("j")
	scenario := func(s *mem.Store) (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("crashed: %v", r.(mem.Crash))
			}
		}()
		ctx := mem.WithActor(context.Background(), "worker-1")
		if err := s.Put(ctx, job.Config("c"), strings.NewReader("c")); err != nil {
			return err
		}
		if stored, err := s.Commit(ctx, job.Plan(), []byte("p")); err != nil || !stored {
			return fmt.Errorf("stored %v, %w", stored, err)
		}
		return s.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "j"}})
	}
	present := func(s *mem.Store, n int) bool { // the effect of the n-th call
		switch n {
		case 1:
			return s.Snapshot()[job.Config("c")] != nil
		case 2:
			return s.Snapshot()[job.Plan()] != nil
		}
		depth, err := s.Depth(context.Background(), hayrick.QueueTasks, "j")
		return err == nil && depth.Messages > 0
	}
	var calls []mem.Call
	s := mem.New(newClock())
	s.Hook = func(c mem.Call) mem.Fault { calls = append(calls, c); return mem.Fault{} }
	if err := scenario(s); err != nil {
		t.Fatal(err)
	}
	if len(calls) != 3 || calls[1].String() != "call 2: worker-1 Objects.Commit jobs/j/plan.json" {
		t.Fatalf("the calls are %v", calls)
	}
	broken := errors.New("broken")
	for _, k := range calls {
		for name, c := range map[string]struct {
			fault          mem.Fault
			effect, failed bool
			is             error
		}{
			"error before": {mem.Fault{ErrBefore: broken}, false, true, broken},
			"lost reply":   {mem.Fault{ErrAfter: broken}, true, true, hayrick.ErrUnknown},
			"crash before": {mem.Fault{CrashBefore: true}, false, true, nil},
			"crash after":  {mem.Fault{CrashAfter: true}, true, true, nil},
			"stall before": {mem.Fault{StallBefore: time.Hour}, true, false, nil},
			"stall after":  {mem.Fault{StallAfter: time.Hour}, true, false, nil},
			"duplicate":    {mem.Fault{Duplicate: true}, true, k.Op == "Commit", nil}, // hears that it exists
		} {
			clk := newClock()
			begin := clk.Now()
			s := mem.New(clk)
			s.Hook = func(now mem.Call) mem.Fault {
				if now.N > len(calls) {
					return mem.Fault{}
				}
				if now != calls[now.N-1] {
					t.Errorf("%s at %v: call %v was %v", name, k, now, calls[now.N-1])
				}
				if now.N == k.N {
					return c.fault
				}
				return mem.Fault{}
			}
			err := scenario(s)
			if (err != nil) != c.failed || (c.is != nil && !errors.Is(err, c.is)) {
				t.Errorf("%s at %v: error %v", name, k, err)
			}
			if present(s, k.N) != c.effect {
				t.Errorf("%s at %v: effect %v", name, k, !c.effect)
			}
			if stalled := clk.Now().Sub(begin); stalled != c.fault.StallBefore+c.fault.StallAfter {
				t.Errorf("%s at %v: %v passed", name, k, stalled)
			}
		}
	}
}

func TestDuplicateSendAndCounters(t *testing.T) {
	s := mem.New(newClock())
	s.Hook = func(c mem.Call) mem.Fault { return mem.Fault{Duplicate: c.Op == "Send"} }
	if err := s.Send(t.Context(), hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "j"}}); err != nil {
		t.Fatal(err)
	}
	ds, err := s.Receive(t.Context(), hayrick.QueueTasks, 10, time.Minute, 0)
	if err != nil || len(ds) != 2 {
		t.Fatalf("received %+v, %v", ds, err)
	}
	if c := s.Calls(); c["Send"] != 1 || c["Receive"] != 1 || len(c) != 2 {
		t.Errorf("calls are %v", c)
	}
}

func TestIllegalRewritesAreSeen(t *testing.T) {
	job := manifest.Job("j")
	s := mem.New(newClock())
	ctx := mem.WithActor(t.Context(), "worker-1")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Put(ctx, job.Config("c"), strings.NewReader("one")))
	must(s.Put(ctx, job.Config("c"), strings.NewReader("one")))
	_, err := s.Commit(ctx, job.Plan(), []byte("p"))
	must(err)
	_, err = s.Commit(ctx, job.Plan(), []byte("q"))
	must(err)
	must(s.Replace(ctx, job.Manifest(), []byte("1")))
	must(s.Replace(ctx, job.Manifest(), []byte("2")))
	if v := s.Illegal(); len(v) != 0 {
		t.Fatalf("legal writes are called illegal: %q", v)
	}
	must(s.Put(ctx, job.Config("c"), strings.NewReader("two")))
	must(s.Replace(ctx, job.Plan(), []byte("r")))
	if v := s.Illegal(); len(v) != 2 || !strings.Contains(v[0], job.Config("c")) || !strings.Contains(v[1], job.Plan()) {
		t.Errorf("illegal writes are %q", v)
	}
	if c := s.Commits(); len(c) != 1 || c[0].Key != job.Plan() || c[0].Actor != "worker-1" || c[0].SHA256 != manifest.SHA256([]byte("p")) {
		t.Errorf("commits are %+v", c)
	}
}

func TestWipe(t *testing.T) {
	s, ctx := mem.New(newClock()), t.Context()
	ref := hayrick.TaskRef{JobID: "j", TaskID: "task-0000"}
	if _, err := s.Claim(ctx, hayrick.ClaimAsk{TaskRef: ref, Attempt: "a", Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "j"}}); err != nil {
		t.Fatal(err)
	}
	old, err := s.Receive(ctx, hayrick.QueueTasks, 1, 0, 0)
	if err != nil || len(old) != 1 {
		t.Fatal(old, err)
	}
	s.WipeState()
	s.WipeQueue()
	if _, _, err := s.ReadClaim(ctx, ref); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("after the wipe the claim reads %v", err)
	}
	if n, err := s.Depth(ctx, hayrick.QueueTasks, "j"); err != nil || n.Messages != 0 {
		t.Errorf("depth %+v, %v", n, err)
	}
	// A receipt of before the wipe names no message of after it.
	if err := s.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "j"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack(ctx, hayrick.QueueTasks, old...); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Depth(ctx, hayrick.QueueTasks, "j"); err != nil || n.Messages != 1 {
		t.Errorf("depth %+v, %v", n, err)
	}
}
