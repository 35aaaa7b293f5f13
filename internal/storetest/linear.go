package storetest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"hayrick"
	"hayrick/ratelimit"
)

// What commits, claims and buckets promise is that each call takes effect at one moment
// between its beginning and its end. The tests of this file write down what many callers
// did at once and what they were told, and search for an order in which one caller after
// the other would have been told the same (linearizability, by porcupine). The models
// below say what one caller at a time is told.

// history is what callers did, in the order in which calls began and ended.
type history struct {
	now atomic.Int64
	mu  sync.Mutex
	ops []porcupine.Operation // guarded by mu
}

// do writes a call down. Its times count calls, not seconds: nothing is before another
// that did not end before it began.
func (h *history) do(client int, in any, call func() (out any)) {
	op := porcupine.Operation{ClientId: client, Input: in, Call: h.now.Add(1)}
	op.Output = call()
	op.Return = h.now.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// searchFor bounds the search for an order, which may take for ever. These take
// milliseconds.
const searchFor = time.Minute

// check says of a history whether there is such an order; "" = there is.
func (h *history) check(m porcupine.NondeterministicModel) string {
	model := m.ToModel()
	switch porcupine.CheckOperationsTimeout(model, h.ops, searchFor) {
	case porcupine.Ok:
		return ""
	case porcupine.Unknown:
		return "no order of the calls was found in time"
	}
	var b strings.Builder
	b.WriteString("no order of these calls explains what they were told:\n")
	slices.SortFunc(h.ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, op := range h.ops {
		fmt.Fprintf(&b, "%4d to %4d, client %d: %+v: %+v\n", op.Call, op.Return, op.ClientId, op.Input, op.Output)
	}
	return b.String()
}

const linearClients = 6

// clients runs f of every client at once, each on the view of one of two processes and
// with random numbers of its own.
func (h *harness) clients(f func(client int, v *harness, rng *rand.Rand)) {
	views := []*harness{h, h.another()}
	together(linearClients, func(i int) { f(i, views[i%2], rand.New(rand.NewPCG(7, uint64(i)))) })
}

func (h *harness) linear(histories map[string]*history, m porcupine.NondeterministicModel) {
	h.Helper()
	for name, x := range histories {
		if len(x.ops) < linearClients {
			h.Errorf("%s: only %d calls", name, len(x.ops))
		}
		if what := x.check(m); what != "" {
			h.Errorf("%s: %s", name, what)
		}
	}
}

// Commits of keys, and reads of them.

type commitIn struct{ Body string } // "" = a read

type commitOut struct {
	Stored, Unknown bool
	Body            string // that was read; "" = not found
}

// commitModel: one commit is stored; from then on every other is told that there is one,
// and every read has its bytes. What is undecided has happened or has not. A caller that
// was told "exists" may have been told so of its own bytes, whose first answer was lost.
var commitModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, input, output any) []any {
		there, in, out := state.(string), input.(commitIn), output.(commitOut)
		switch {
		case in.Body == "" && out.Body == there:
			return []any{there}
		case in.Body == "":
			return nil
		case out.Unknown && there == "":
			return []any{there, in.Body}
		case out.Stored == (there == ""), out.Unknown:
			return []any{cmpOr(there, in.Body)}
		case !out.Stored: // its own earlier try
			return []any{in.Body}
		}
		return nil
	},
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

const linearKeys = 4

func (h *harness) commitHistory() map[string]*history {
	out := map[string]*history{}
	for k := range linearKeys {
		out[job.Control(k)] = &history{}
	}
	h.clients(func(c int, v *harness, rng *rand.Rand) {
		for n := range 3 * linearKeys {
			key, in := job.Control(rng.IntN(linearKeys)), commitIn{}
			if n == 0 {
				key = job.Control(0) // all begin there
			}
			if n == 0 || rng.IntN(2) == 0 {
				in.Body = fmt.Sprintf("of client %d, its call %d", c, n)
			}
			out[key].do(c, in, func() any { return v.commitOrRead(key, in) })
		}
	})
	return out
}

func (h *harness) commitOrRead(key string, in commitIn) (out commitOut) {
	if in.Body != "" {
		stored, err := h.Objects.Commit(h.Ctx, key, []byte(in.Body))
		if err != nil && !errors.Is(err, hayrick.ErrUnknown) {
			h.Errorf("commit %s: %v", key, err)
		}
		return commitOut{Stored: stored, Unknown: err != nil}
	}
	r, err := h.Objects.Open(h.Ctx, key, 0, -1)
	if errors.Is(err, hayrick.ErrNotFound) {
		return commitOut{}
	}
	var b []byte
	if err == nil {
		b, err = io.ReadAll(r)
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		h.Errorf("read %s: %v", key, err)
	}
	return commitOut{Body: string(b)}
}

func testCommitsLinearizable(h *harness) { h.linear(h.commitHistory(), commitModel) }

// The claim of one task.

type claimIn struct {
	Verb    string // claim, renew, release, read
	Attempt string
	Until   int64 // of a renewal, Unix milliseconds
}

type claimOut struct {
	Claim         claimState
	Alive         bool
	Err           error // ErrConflict, ErrLeaseLost, ErrNotFound, ErrUnknown or nil
	before, after int64 // the clock at the beginning and the end of the call
}

// claimState is what of a claim there is to compare.
type claimState struct {
	Attempt        string
	Fence          int64
	Until          int64 // Unix nanoseconds; 0 = released
	Vanished, Idle int
}

func claimStateOf(c hayrick.Claim) claimState {
	s := claimState{Attempt: c.Attempt, Fence: c.Fence, Vanished: c.Vanished, Idle: c.Idle}
	if !c.Until.IsZero() {
		s.Until = c.Until.UnixNano()
	}
	return s
}

// claimModel: fences count up by one, a lease that runs has one holder, and what ran out
// unreleased is counted. Between the beginning and the end of a call a lease may run out.
func claimModel(lease time.Duration) porcupine.NondeterministicModel {
	return porcupine.NondeterministicModel{
		Init: func() []any { return []any{claimState{}} },
		Step: func(state, input, output any) []any {
			s, in, out := state.(claimState), input.(claimIn), output.(claimOut)
			none, held := s == claimState{}, s.Until != 0
			is := func(ok bool, next claimState) []any {
				if ok {
					return []any{next}
				}
				return nil
			}
			switch in.Verb {
			case "claim":
				if out.Err != nil {
					return is(held && s.Attempt != in.Attempt && out.before < s.Until && out.Claim == s, s)
				}
				if s.Attempt == in.Attempt {
					return is(out.Claim == s, s)
				}
				next := claimState{Attempt: in.Attempt, Fence: s.Fence + 1, Until: out.Claim.Until, Vanished: s.Vanished, Idle: s.Idle}
				if held {
					next.Vanished++
					next.Idle++
				}
				return is(out.Claim == next && (!held || out.after >= s.Until) &&
					next.Until >= out.before+int64(lease) && next.Until <= out.after+int64(lease), next)
			case "read":
				if out.Err != nil {
					return is(none, s)
				}
				return is(!none && out.Claim == s && (!out.Alive || held && out.before < s.Until) && (out.Alive || !held || out.after >= s.Until), s)
			}
			mine := s.Attempt == in.Attempt && held
			next := s
			if next.Until = 0; in.Verb == "renew" {
				next.Until = in.Until * int64(time.Millisecond)
			}
			switch {
			case out.Err == nil:
				return is(mine, next)
			case errors.Is(out.Err, hayrick.ErrUnknown) && mine:
				return []any{s, next}
			}
			return is(!mine || errors.Is(out.Err, hayrick.ErrUnknown), s)
		},
	}
}

func (h *harness) claimHistory() map[string]*history {
	x := &history{}
	h.clients(func(c int, v *harness, rng *rand.Rand) {
		attempt, n := "", 0
		for i := range 14 {
			in := claimIn{Verb: []string{"claim", "claim", "read", "renew", "release"}[rng.IntN(5)], Attempt: attempt}
			if in.Verb == "claim" && (attempt == "" || rng.IntN(3) > 0) || attempt == "" {
				n++
				attempt = fmt.Sprintf("%d.%d", c, n)
				in.Verb, in.Attempt = "claim", attempt
			}
			if in.Verb == "renew" {
				in.Until = v.Clock.Now().Add(v.Scale).UnixMilli()
			}
			x.do(c, in, func() any { return v.onClaim(in) })
			if c == 0 && i%4 == 3 { // leases run out
				v.pass(v.Scale/2 + time.Millisecond)
			}
		}
	})
	return map[string]*history{"task-0001": x}
}

func (h *harness) onClaim(in claimIn) (out claimOut) {
	const task = "task-0001"
	out.before = h.Clock.Now().UnixNano()
	var c hayrick.Claim
	var err error
	switch in.Verb {
	case "claim":
		for range 5 { // a lost answer is asked for again
			if c, err = h.State.Claim(h.Ctx, h.ask(task, in.Attempt)); !errors.Is(err, hayrick.ErrUnknown) {
				break
			}
		}
	case "read":
		c, out.Alive, err = h.State.ReadClaim(h.Ctx, ref(task))
	default:
		until := time.Time{}
		if in.Verb == "renew" {
			until = time.UnixMilli(in.Until).UTC()
		}
		_, err = h.State.UpdateClaim(h.Ctx, ref(task), in.Attempt, hayrick.ClaimPatch{Until: &until})
	}
	out.after = h.Clock.Now().UnixNano()
	out.Claim = claimStateOf(c)
	for _, known := range []error{hayrick.ErrConflict, hayrick.ErrLeaseLost, hayrick.ErrNotFound, hayrick.ErrUnknown} {
		if errors.Is(err, known) {
			out.Err = known
			return out
		}
	}
	if err != nil {
		h.Errorf("%s: %v", in.Verb, err)
	}
	return out
}

func testClaimsLinearizable(h *harness) { h.linear(h.claimHistory(), claimModel(h.Scale)) }

// The bucket of one limit.

type bucketIn struct {
	Ask      ratelimit.Ask
	Throttle time.Duration // instead: the upstream wants to be left alone
}

type bucketOut struct {
	Grant ratelimit.Grant
	Nows  []time.Time // one of these it was granted by
	Err   error       // ErrConflict or ErrUnknown, or nil
}

// bucketModel is the arithmetic of package ratelimit, one caller at a time.
var bucketModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{ratelimit.State{}} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(ratelimit.State), input.(bucketIn), output.(bucketOut)
		if errors.Is(out.Err, hayrick.ErrConflict) {
			return []any{s}
		}
		var to []any
		if out.Err != nil {
			to = append(to, s)
		}
		for _, now := range out.Nows {
			next, grant := s, ratelimit.Grant{}
			if in.Throttle > 0 {
				next = ratelimit.Obey(s, limits, ratelimit.Feedback{Throttled: true, RetryAfter: in.Throttle}, now)
			} else {
				next, grant = ratelimit.Reserve(s, limits, in.Ask, now)
			}
			if out.Err != nil || grant == out.Grant {
				to = append(to, next)
			}
		}
		return to
	},
}

func (h *harness) bucketHistory() map[string]*history {
	x := &history{}
	h.clients(func(c int, v *harness, rng *rand.Rand) {
		for i := range 12 {
			in := bucketIn{Ask: ratelimit.Ask{N: 1 + rng.IntN(8)}}
			if c == 1 && i == 6 {
				in = bucketIn{Throttle: 50 * time.Millisecond}
			}
			x.do(c, in, func() any { return v.onBucket(in) })
			if rng.IntN(2) == 0 {
				v.pass(time.Duration(rng.IntN(200)) * time.Millisecond)
			}
		}
	})
	return map[string]*history{"bucket": x}
}

func (h *harness) onBucket(in bucketIn) (out bucketOut) {
	now := func() time.Time { // an adapter that tries again, or asks how late it is, asks anew
		t := h.Clock.Now()
		out.Nows = append(out.Nows, t)
		return t
	}
	var err error
	if in.Throttle > 0 {
		err = h.Buckets.Feedback(h.Ctx, "store/linear/~", limits, ratelimit.Feedback{Throttled: true, RetryAfter: in.Throttle}, now)
	} else {
		out.Grant, err = h.Buckets.Reserve(h.Ctx, "store/linear/~", limits, in.Ask, now)
	}
	switch {
	case errors.Is(err, hayrick.ErrConflict):
		out.Err = hayrick.ErrConflict
	case errors.Is(err, hayrick.ErrUnknown):
		out.Err = hayrick.ErrUnknown
	case err != nil:
		h.Errorf("bucket: %v", err)
	}
	return out
}

func testBucketsLinearizable(h *harness) { h.linear(h.bucketHistory(), bucketModel) }
