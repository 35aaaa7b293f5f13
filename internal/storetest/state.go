package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"hayrick"
)

var stateTests = map[string]func(*harness){
	"ClaimTransitions": testClaimTransitions,
	"ClaimOfTheDead":   testClaimDead,
	"ClaimRace":        testClaimRace,
	"ClaimPatch":       testClaimPatch,
	"ClaimsApart":      testClaimsApart,
	"Linearizable":     testClaimsLinearizable,
	"Mark":             testMark,
	"MarkRefused":      testMarkRefused,
	"MarkRace":         testMarkRace,
	"Blocks":           testBlocks,
	"JobState":         testJobState,
	"Cancelled":        testStateCancelled,
}

func cancelled(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx, cancel
}

func ref(task string) hayrick.TaskRef {
	return hayrick.TaskRef{JobID: string(job), Generation: 1, TaskID: task}
}

func (h *harness) ask(task, attempt string) hayrick.ClaimAsk {
	return hayrick.ClaimAsk{TaskRef: ref(task), Attempt: attempt, Worker: h.Worker, Lease: h.Scale}
}

func (h *harness) claim(task, attempt string) hayrick.Claim {
	h.Helper()
	c, err := h.State.Claim(h.Ctx, h.ask(task, attempt))
	h.must(err)
	return c
}

func (h *harness) readClaim(task string, wantAlive bool) hayrick.Claim {
	h.Helper()
	c, alive, err := h.State.ReadClaim(h.Ctx, ref(task))
	h.must(err)
	if alive != wantAlive {
		h.Fatalf("the claim %+v: alive is %v, want %v", c, alive, wantAlive)
	}
	return c
}

func (h *harness) same(got, want hayrick.Claim) {
	h.Helper()
	if got.TaskRef != want.TaskRef || got.Attempt != want.Attempt || got.Worker != want.Worker || got.Fence != want.Fence ||
		!got.Until.Equal(want.Until) || got.Vanished != want.Vanished || got.Idle != want.Idle || !maps.Equal(got.Lost, want.Lost) {
		h.Fatalf("the claim is %+v, want %+v", got, want)
	}
}

// The life of a claim: nobody's, held, asked for again, run out, taken over,
// released, taken again. Fences strictly increase; what vanished is counted, what
// was released is not.
func testClaimTransitions(h *harness) {
	_, _, err := h.State.ReadClaim(h.Ctx, ref("task-0001"))
	h.is(err, hayrick.ErrNotFound)

	first := h.claim("task-0001", "a")
	if first.Fence != 1 || first.Attempt != "a" || first.Worker != h.Worker || first.Vanished != 0 || first.Lost != nil {
		h.Fatalf("the first claim is %+v", first)
	}
	h.same(h.claim("task-0001", "a"), first) // a lost reply: the same claim
	h.same(h.readClaim("task-0001", true), first)

	held, err := h.State.Claim(h.Ctx, h.ask("task-0001", "b"))
	h.is(err, hayrick.ErrConflict)
	h.same(held, first)
	_, err = h.State.UpdateClaim(h.Ctx, ref("task-0001"), "b", hayrick.ClaimPatch{Until: &time.Time{}})
	h.is(err, hayrick.ErrLeaseLost)

	h.pass(h.Scale + time.Second)
	h.readClaim("task-0001", false)
	second := h.claim("task-0001", "b")
	if second.Fence <= first.Fence || second.Vanished != 1 || second.Idle != 1 {
		h.Fatalf("after the lease ran out the claim is %+v", second)
	}
	_, err = h.State.UpdateClaim(h.Ctx, ref("task-0001"), "a", hayrick.ClaimPatch{Lost: map[int64]int{}})
	h.is(err, hayrick.ErrLeaseLost)

	_, err = h.State.UpdateClaim(h.Ctx, ref("task-0001"), "b", hayrick.ClaimPatch{Until: &time.Time{}})
	h.must(err)
	if c := h.readClaim("task-0001", false); !c.Until.IsZero() {
		h.Fatalf("a released claim runs until %v", c.Until)
	}
	third := h.claim("task-0001", "c")
	if third.Fence <= second.Fence || third.Vanished != 1 || third.Idle != 1 {
		h.Fatalf("after a release the claim is %+v", third)
	}
	h.same(h.another().readClaim("task-0001", true), third)
}

// A claim whose holder's process was killed is free: at once where that is noticed.
func testClaimDead(h *harness) {
	victim := h.another()
	old := victim.claim("task-0001", "a")
	h.readClaim("task-0001", true)
	_, err := h.State.Claim(h.Ctx, h.ask("task-0001", "b"))
	h.is(err, hayrick.ErrConflict)
	victim.die()
	h.readClaim("task-0001", false)
	early := old.Until.After(h.Clock.Now())
	next := h.claim("task-0001", "b")
	if next.Fence <= old.Fence || next.Vanished != 1 || early != (victim.Kill != nil) {
		h.Fatalf("after the death of its holder, until %v, the claim is %+v", old.Until, next)
	}
	h.readClaim("task-0001", true)
}

// 002-52 (optimistic locking)
func testClaimRace(h *harness) {
	const tasks, racers = 20, 16
	views := []*harness{h, h.another()}
	var wins, fences [tasks]atomic.Int64
	together(racers, func(r int) {
		v := views[r%2]
		for k := range tasks {
			task := fmt.Sprintf("task-%04d", k)
			c, err := v.State.Claim(v.Ctx, v.ask(task, fmt.Sprintf("attempt-%d", r)))
			switch {
			case err == nil:
				wins[k].Add(1)
				fences[k].Add(c.Fence)
			case c.Attempt == "" || c.Fence != 1:
				h.Errorf("%s was refused with %v, and names as its holder %+v", task, err, c)
			}
		}
	})
	for k := range tasks {
		if wins[k].Load() != 1 || fences[k].Load() != 1 {
			h.Errorf("task %d was won %d times, sum of fences %d", k, wins[k].Load(), fences[k].Load())
		}
	}
}

func testClaimPatch(h *harness) {
	_, err := h.State.UpdateClaim(h.Ctx, ref("task-0001"), "a", hayrick.ClaimPatch{})
	h.is(err, hayrick.ErrLeaseLost)
	h.claim("task-0001", "vanished")
	h.pass(h.Scale + time.Second)
	c := h.claim("task-0001", "a")
	until := c.Until.Add(h.Scale)
	for range 2 { // doing it twice is harmless
		got, err := h.State.UpdateClaim(h.Ctx, ref("task-0001"), "a", hayrick.ClaimPatch{Until: &until, Lost: map[int64]int{7: 1, 1 << 40: 4}})
		h.must(err)
		c.Until, c.Lost, c.Idle = until, map[int64]int{7: 1, 1 << 40: 4}, 0 // c.Vanished stays 1
		h.same(got, c)
		h.same(h.readClaim("task-0001", true), c)
	}
	h.pass(h.Scale + time.Second)
	h.readClaim("task-0001", true) // it was renewed
	got, err := h.State.UpdateClaim(h.Ctx, ref("task-0001"), "a", hayrick.ClaimPatch{Lost: map[int64]int{}})
	h.must(err)
	if len(got.Lost) != 0 {
		h.Errorf("losses taken back are %v", got.Lost)
	}
}

func testClaimsApart(h *harness) {
	h.claim("task-0001", "a")
	for _, other := range []hayrick.TaskRef{
		{JobID: string(job), Generation: 2, TaskID: "task-0001"}, {JobID: "other", Generation: 1, TaskID: "task-0001"}, {JobID: string(job), Generation: 1, TaskID: "task-0002"},
	} {
		c, err := h.State.Claim(h.Ctx, hayrick.ClaimAsk{TaskRef: other, Attempt: "b", Worker: h.Worker, Lease: h.Scale})
		h.must(err)
		if c.Fence != 1 {
			h.Errorf("%+v shares a claim: %+v", other, c)
		}
	}
}

func blockID(n int) hayrick.BlockID {
	return hayrick.BlockID{JobID: string(job), Generation: 1, Group: hayrick.GroupInitial, N: n, SHA256: "aa"}
}

func (h *harness) mark(m hayrick.Mark) hayrick.BlockState {
	h.Helper()
	b, err := h.State.Mark(h.Ctx, m)
	h.must(err)
	return b
}

func (h *harness) sums(b hayrick.BlockState, done, total int, ok, failed int64) {
	h.Helper()
	if b.Done.Count() != done || b.Total != total || b.OK != ok || b.Fails != failed || b.Full() != (done == total) {
		h.Fatalf("the block is %+v, want %d of %d done, %d ok, %d failed", b, done, total, ok, failed)
	}
}

// A block that is missing is created; a mark that is repeated changes nothing; one
// that says something else replaces what its position said.
func testMark(h *harness) {
	m := hayrick.Mark{Block: blockID(0), Total: 256, Position: 255, OK: 90, Failed: 10}
	for range 3 {
		b := h.mark(m)
		h.sums(b, 1, 256, 90, 10)
		if b.BlockID != m.Block || !b.Done.Has(255) {
			h.Fatalf("the block is %+v", b)
		}
	}
	m.OK, m.Failed = 100, 0
	h.sums(h.mark(m), 1, 256, 100, 0)
	for p := range 255 {
		b := h.mark(hayrick.Mark{Block: blockID(0), Total: 256, Position: p, OK: 1, Failed: int64(p)})
		h.sums(b, p+2, 256, 100+int64(p)+1, int64(p*(p+1)/2))
	}
	h.sums(h.mark(hayrick.Mark{Block: blockID(1), Total: 1, Position: 0}), 1, 1, 0, 0)
	large := hayrick.Mark{Block: blockID(2), Total: 2, Position: 1, OK: 3_000_000_000, Failed: 4_000_000_000}
	h.sums(h.mark(large), 1, 2, large.OK, large.Failed)
	upper := blockID(0)
	upper.Level = 1
	h.sums(h.mark(hayrick.Mark{Block: upper, Total: 3, Position: 2}), 1, 3, 0, 0)
}

func testMarkRefused(h *harness) {
	for _, m := range []hayrick.Mark{{Total: 257, Position: 256}, {Total: 4, Position: 4}, {Total: 4, Position: -1}, {Total: 0}, {Total: 257, Position: 0}} {
		m.Block = blockID(0)
		if b, err := h.State.Mark(h.Ctx, m); err == nil {
			h.Errorf("mark %+v is accepted: %+v", m, b)
		}
	}
	if bs, err := h.State.Blocks(h.Ctx, string(job), 1, hayrick.GroupInitial); err != nil || len(bs) != 0 {
		h.Errorf("refused marks left %+v, %v", bs, err)
	}
}

// Everybody marks everything: each mark answers a block that has at least its own
// position, somebody sees it full, and no count is doubled.
func testMarkRace(h *harness) {
	views := []*harness{h, h.another()}
	var full atomic.Int64
	together(16, func(r int) {
		v := views[r%2]
		for i := range 64 {
			p := (i + r*4) % 64
			b, err := v.State.Mark(v.Ctx, hayrick.Mark{Block: blockID(0), Total: 64, Position: p, OK: int64(p), Failed: 1})
			if err != nil || !b.Done.Has(p) {
				h.Errorf("mark %d: %+v, %v", p, b, err)
			}
			if b.Full() {
				full.Add(1)
			}
		}
	})
	if full.Load() == 0 {
		h.Error("nobody saw the block full")
	}
	bs, err := h.State.Blocks(h.Ctx, string(job), 1, hayrick.GroupInitial)
	h.must(err)
	if len(bs) != 1 {
		h.Fatalf("%d blocks", len(bs))
	}
	h.sums(bs[0], 64, 64, 63*32, 64)
}

func testBlocks(h *harness) {
	var want []string
	for level := range 2 {
		for n := range 3 {
			id := blockID(n)
			id.Level = level
			h.mark(hayrick.Mark{Block: id, Total: 5, Position: n, OK: int64(10 * n)})
			want = append(want, fmt.Sprint(id, 10*n))
		}
	}
	for _, other := range []hayrick.BlockID{{JobID: string(job), Generation: 0, Group: hayrick.GroupInitial}, {JobID: string(job), Generation: 1, Group: "retry_batch_1"}, {JobID: "other", Generation: 1, Group: hayrick.GroupInitial}} {
		h.mark(hayrick.Mark{Block: other, Total: 1})
	}
	twin := blockID(0)
	twin.SHA256 = "bb" // of another plan: another record
	h.mark(hayrick.Mark{Block: twin, Total: 5, OK: 1})
	want = append(want, fmt.Sprint(twin, 1))
	bs, err := h.another().State.Blocks(h.Ctx, string(job), 1, hayrick.GroupInitial)
	h.must(err)
	var got []string
	for _, b := range bs {
		got = append(got, fmt.Sprint(b.BlockID, b.OK))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		h.Errorf("blocks are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func testJobState(h *harness) {
	_, err := h.State.JobState(h.Ctx, string(job))
	h.is(err, hayrick.ErrNotFound)
	for _, want := range []hayrick.JobState{
		{JobID: string(job), Generation: 0, Status: hayrick.StatusRunning, Orders: 1, Updated: h.Clock.Now().UTC().Truncate(time.Millisecond)},
		{JobID: string(job), Generation: 1, Status: hayrick.StatusPaused, Orders: 2, Updated: h.Clock.Now().UTC().Truncate(time.Millisecond)},
		{JobID: string(job), Generation: 1, Status: hayrick.StatusRunning, Orders: 3, Updated: h.Clock.Now().UTC().Truncate(time.Millisecond), Progress: hayrick.Progress{
			Group: hayrick.GroupInitial, Done: 1 << 40, Since: h.Clock.Now().UTC().Truncate(time.Millisecond), WaitMS: 120_000, Lot: 1024, Sent: 77,
		}},
	} {
		h.must(h.State.PutJobState(h.Ctx, want))
		got, err := h.another().State.JobState(h.Ctx, string(job))
		h.must(err)
		if got != want {
			h.Errorf("the job's state is %+v, want %+v", got, want)
		}
	}
	if err := h.State.PutJobState(h.Ctx, hayrick.JobState{}); err == nil {
		h.Error("the state of no job is accepted")
	}
}

func testStateCancelled(h *harness) {
	ctx, cancel := cancelled(h.Ctx)
	defer cancel()
	if _, err := h.State.Claim(ctx, h.ask("task-0001", "a")); err == nil {
		h.Error("claim under a cancelled context")
	}
	if _, err := h.State.Mark(ctx, hayrick.Mark{Block: blockID(0), Total: 1}); err == nil {
		h.Error("mark under a cancelled context")
	}
}
