package sim

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/mem"
	"hayrick/worker"
)

// A worker task without rates and failures costs at most three object writes, 2.02
// state writes and 0.35 queue calls, counted on the ports of a whole job.
func TestPortCallsOfAFaultFreeTask(t *testing.T) {
	const tasks = 1000
	var input strings.Builder
	for i := range tasks {
		fmt.Fprintf(&input, `{"id":"i%d","rows":1}`+"\n", i)
	}
	w := New(1, registry(), t.TempDir())
	w.Store = mem.New(hayrick.SystemClock{}) // the pool runs in real time
	w.Store.SetInput("items.jsonl", []byte(input.String()))
	def := definition()
	def.Batch.Items = 1
	p := w.Start()
	ctx := context.Background()
	s, err := p.Coordinator.Submit(ctx, coordinator.Submission{Definition: def, ConfigTime: Epoch, CodeVersion: "hayrick sim"})
	if err != nil {
		t.Fatal(err)
	}
	submitted := w.Store.Calls()
	closed := make(chan struct{})
	var first atomic.Bool
	pool := &worker.Pool{
		Queue: w.Store, World: hayrick.RealWorld("count"), Log: w.Log, Slots: 2, Visibility: visibility,
		Do: map[hayrick.Role]worker.Do{
			hayrick.RoleWorker: p.Worker.Attempt,
			hayrick.RoleRetryPlanner: func(context.Context, hayrick.Delivery) (worker.Verdict, error) {
				if first.CompareAndSwap(false, true) {
					close(closed) // the group is full: all its tasks are done
				}
				return worker.Verdict{Ack: true}, nil
			},
		},
		Drain: closed,
	}
	if err := pool.Run(ctx); err != nil {
		t.Fatal(err)
	}
	k, err := p.Coordinator.Known(ctx, s.JobID)
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	for _, r := range k.Open.Records {
		if r.Level == 0 {
			done += r.Done.Count()
		}
	}
	if done != tasks {
		t.Fatalf("%d of %d tasks are done", done, tasks)
	}
	ran := w.Store.Calls()
	per := func(from map[string]int, ops ...string) float64 {
		n := 0
		for _, op := range ops {
			n += ran[op] - from[op]
		}
		return float64(n) / tasks
	}
	for _, c := range []struct {
		what string
		got  float64
		most float64
	}{
		{"object writes", per(submitted, "Put", "Commit", "Replace"), 3},
		{"state writes", per(submitted, "Claim", "UpdateClaim", "Mark", "PutJobState"), 2.02},
		{"queue calls, the submission's included", per(map[string]int{}, "Send", "Receive", "Ack", "Extend"), 0.35},
	} {
		t.Logf("%s: %.3f a task", c.what, c.got)
		if c.got > c.most {
			t.Errorf("%s: %.3f a task, at most %.2f", c.what, c.got, c.most)
		}
	}
}
