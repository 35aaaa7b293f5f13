package storetest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"hayrick"
)

var queueTests = map[string]func(*harness){
	"SendReceiveAck": testSendReceiveAck,
	"Visibility":     testVisibility,
	"Delay":          testDelay,
	"Extend":         testExtend,
	"DeadLetter":     testDeadLetter,
	"DeadReceiver":   testDeadReceiver,
	"Depth":          testDepth,
	"AtLeastOnce":    testAtLeastOnce,
	"Wait":           testWait,
}

func message(n int) hayrick.Message {
	return hayrick.Message{JobID: string(job), Generation: 1, Role: hayrick.RoleWorker, Group: hayrick.GroupInitial, Block: n / 256, Position: n % 256, TaskID: fmt.Sprintf("task-%04d", n)}
}

func (h *harness) send(queue string, delay time.Duration, ns ...int) {
	h.Helper()
	var out []hayrick.Outgoing
	for _, n := range ns {
		out = append(out, hayrick.Outgoing{Message: message(n), Delay: delay})
	}
	h.must(h.Queue.Send(h.Ctx, queue, out...))
}

func (h *harness) receive(queue string, max int) []hayrick.Delivery {
	h.Helper()
	ds, err := h.Queue.Receive(h.Ctx, queue, max, h.Scale, h.Poll)
	h.must(err)
	if len(ds) > max {
		h.Fatalf("asked for %d messages, got %d", max, len(ds))
	}
	return ds
}

// one receives exactly one message.
func (h *harness) one(queue string) hayrick.Delivery {
	h.Helper()
	ds := h.receive(queue, 10)
	if len(ds) != 1 {
		h.Fatalf("received %d messages, want 1", len(ds))
	}
	return ds[0]
}

func (h *harness) none(queue string) {
	h.Helper()
	if ds := h.receive(queue, 10); len(ds) != 0 {
		h.Fatalf("received %+v, want nothing", ds)
	}
}

func tasks(ds []hayrick.Delivery) (ids []string) {
	for _, d := range ds {
		ids = append(ids, d.TaskID)
	}
	slices.Sort(ids)
	return ids
}

func testSendReceiveAck(h *harness) {
	h.none(hayrick.QueueTasks)
	h.must(h.Queue.Send(h.Ctx, hayrick.QueueTasks))
	h.send(hayrick.QueueTasks, 0, 1, 2, 3)
	h.none(hayrick.QueueDead) // queues are apart
	got := append(h.receive(hayrick.QueueTasks, 2), h.another().receive(hayrick.QueueTasks, 10)...)
	if !slices.Equal(tasks(got), []string{"task-0001", "task-0002", "task-0003"}) {
		h.Fatalf("received %+v", got)
	}
	for _, d := range got {
		if d.Count != 1 || d.Receipt == "" || d.JobID != string(job) || d.Generation != 1 || d.Role != hayrick.RoleWorker || d.Group != hayrick.GroupInitial || fmt.Sprintf("task-%04d", d.Position) != d.TaskID {
			h.Errorf("received %+v", d)
		}
	}
	h.must(h.Queue.Ack(h.Ctx, hayrick.QueueTasks, got...))
	h.must(h.Queue.Ack(h.Ctx, hayrick.QueueTasks, got...)) // gone already: no error
	h.must(h.Queue.Ack(h.Ctx, hayrick.QueueTasks, hayrick.Delivery{Receipt: "of no message"}))
	h.pass(h.Scale * 2)
	h.none(hayrick.QueueTasks)
}

// A message that is not acknowledged comes again, to whoever asks, and counts.
func testVisibility(h *harness) {
	h.send(hayrick.QueueTasks, 0, 1)
	other := h.another()
	for count := 1; count <= 3; count++ {
		d := h.one(hayrick.QueueTasks)
		if d.Count != count {
			h.Fatalf("delivery %d says %d", count, d.Count)
		}
		h.none(hayrick.QueueTasks)
		other.none(hayrick.QueueTasks)
		h.pass(h.Scale + time.Second)
	}
	d := other.one(hayrick.QueueTasks)
	other.must(other.Queue.Ack(other.Ctx, hayrick.QueueTasks, d))
	h.pass(h.Scale + time.Second)
	h.none(hayrick.QueueTasks)
}

func testDelay(h *harness) {
	h.send(hayrick.QueueTasks, 5*time.Second, 1)
	h.send(hayrick.QueueTasks, 0, 2)
	early := h.receive(hayrick.QueueTasks, 10)
	if got := tasks(early); !slices.Equal(got, []string{"task-0002"}) {
		h.Fatalf("received %q before the delay", got)
	}
	h.must(h.Queue.Ack(h.Ctx, hayrick.QueueTasks, early...))
	h.pass(5*time.Second + time.Millisecond)
	if d := h.one(hayrick.QueueTasks); d.TaskID != "task-0001" || d.Count != 1 {
		h.Fatalf("received %+v", d)
	}
}

func testExtend(h *harness) {
	h.send(hayrick.QueueTasks, 0, 1)
	first := h.one(hayrick.QueueTasks)
	h.pass(h.Scale * 2 / 3)
	h.must(h.Queue.Extend(h.Ctx, hayrick.QueueTasks, 2*h.Scale, first))
	h.pass(h.Scale * 2 / 3)
	h.none(hayrick.QueueTasks)
	h.must(h.Queue.Extend(h.Ctx, hayrick.QueueTasks, 0, first)) // zero shows it at once
	second := h.one(hayrick.QueueTasks)
	if second.Count != 2 {
		h.Fatalf("received %+v", second)
	}
	h.must(h.Queue.Extend(h.Ctx, hayrick.QueueTasks, 0, first)) // of an older delivery: too late
	h.none(hayrick.QueueTasks)
	h.must(h.Queue.Ack(h.Ctx, hayrick.QueueTasks, second))
	h.must(h.Queue.Extend(h.Ctx, hayrick.QueueTasks, 0, second)) // gone: no error
	h.none(hayrick.QueueTasks)
}

func testDeadLetter(h *harness) {
	h.send(hayrick.QueueTasks, 0, 1)
	last := 0
	for {
		ds := h.receive(hayrick.QueueTasks, 10)
		if len(ds) == 0 {
			break
		}
		if last++; ds[0].Count != last || last > hayrick.MaxReceives {
			h.Fatalf("delivery %d is %+v", last, ds[0])
		}
		h.must(h.Queue.Extend(h.Ctx, hayrick.QueueTasks, 0, ds...))
	}
	if last != hayrick.MaxReceives {
		h.Fatalf("a message is a dead letter after %d deliveries", last)
	}
	d := h.one(hayrick.QueueDead)
	if d.Message != message(1) {
		h.Fatalf("the dead letter is %+v", d)
	}
	n, err := h.Queue.Depth(h.Ctx, hayrick.QueueTasks, string(job))
	h.must(err)
	dead, err := h.Queue.Depth(h.Ctx, hayrick.QueueDead, string(job))
	h.must(err)
	if n.Messages != 0 || dead.Messages != 1 {
		h.Errorf("depth is %+v, of the dead %+v", n, dead)
	}
	h.must(h.Queue.Ack(h.Ctx, hayrick.QueueDead, d))
	h.pass(h.Scale + time.Second)
	h.none(hayrick.QueueDead)
}

// What a killed process had in flight comes again.
func testDeadReceiver(h *harness) {
	victim := h.another()
	h.send(hayrick.QueueTasks, 0, 1, 2)
	if got := victim.receive(hayrick.QueueTasks, 1); len(got) != 1 {
		h.Fatalf("received %+v", got)
	}
	kept := h.one(hayrick.QueueTasks)
	h.must(h.Queue.Extend(h.Ctx, hayrick.QueueTasks, 4*h.Scale, kept))
	victim.die()
	again := h.one(hayrick.QueueTasks)
	if again.TaskID == kept.TaskID || again.Count != 2 {
		h.Fatalf("kept %+v, received %+v", kept, again)
	}
}

// Depth is an estimate: it counts the job's messages, and those of other jobs where
// the queue does not tell them apart.
func testDepth(h *harness) {
	others := 0
	depth := func(want int) {
		h.Helper()
		most := others
		d, err := h.Queue.Depth(h.Ctx, hayrick.QueueTasks, string(job))
		if d.Exact {
			most = 0
		}
		if err != nil || d.Messages < want || d.Messages > want+most {
			h.Fatalf("depth is %+v, %v; want %d, and no more than %d beside", d, err, want, most)
		}
	}
	depth(0)
	h.send(hayrick.QueueTasks, 0, 1, 2, 3)
	h.send(hayrick.QueueTasks, time.Hour, 4)
	h.must(h.Queue.Send(h.Ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "other"}}))
	others = 1
	depth(4)
	ds := h.receive(hayrick.QueueTasks, 4)
	ds = slices.DeleteFunc(ds, func(d hayrick.Delivery) bool { return d.JobID == "other" })
	depth(4) // in flight counts
	h.must(h.Queue.Ack(h.Ctx, hayrick.QueueTasks, ds...))
	h.must(h.Queue.Ack(h.Ctx, hayrick.QueueTasks, ds...))
	depth(1)
}

// Senders and receivers of two processes at once: nothing is lost, and nothing
// comes twice while its first delivery is hidden.
func testAtLeastOnce(h *harness) {
	const each, senders = 50, 4
	views := []*harness{h, h.another()}
	var mu sync.Mutex
	seen := map[string]int{}
	together(senders*2, func(i int) {
		v := views[i%2]
		if i < senders {
			for n := range each {
				if err := v.Queue.Send(v.Ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: message(i*each + n)}); err != nil {
					h.Error(err)
				}
			}
			return
		}
		for range each {
			ds, err := v.Queue.Receive(v.Ctx, hayrick.QueueTasks, 3, time.Hour, 0)
			if err == nil {
				err = v.Queue.Ack(v.Ctx, hayrick.QueueTasks, ds...)
			}
			if err != nil {
				h.Error(err)
			}
			mu.Lock()
			for _, d := range ds {
				seen[d.TaskID]++
			}
			mu.Unlock()
		}
	})
	for {
		ds := h.receive(hayrick.QueueTasks, 10)
		if len(ds) == 0 {
			break
		}
		for _, d := range ds {
			seen[d.TaskID]++
		}
	}
	if len(seen) != each*senders {
		h.Errorf("%d of %d messages came", len(seen), each*senders)
	}
	for id, n := range seen {
		if n != 1 {
			h.Errorf("%s came %d times", id, n)
		}
	}
}

func testWait(h *harness) {
	begin := h.Clock.Now()
	ds, err := h.Queue.Receive(h.Ctx, hayrick.QueueTasks, 1, h.Scale, 300*time.Millisecond)
	h.must(err)
	if waited := h.Clock.Now().Sub(begin); len(ds) != 0 || waited < 300*time.Millisecond {
		h.Errorf("received %+v after %v", ds, waited)
	}
	h.send(hayrick.QueueTasks, 200*time.Millisecond, 1)
	ds, err = h.Queue.Receive(h.Ctx, hayrick.QueueTasks, 1, h.Scale, time.Minute) // becomes visible meanwhile
	h.must(err)
	if waited := h.Clock.Now().Sub(begin); len(ds) != 1 || waited > 30*time.Second {
		h.Errorf("received %+v after %v", ds, waited)
	}
	ctx, cancel := cancelled(h.Ctx)
	defer cancel()
	if ds, err := h.Queue.Receive(ctx, hayrick.QueueTasks, 1, h.Scale, time.Minute); err == nil {
		h.Errorf("received %+v under a cancelled context", ds)
	}
}
