package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/mem"
	"hayrick/ratelimit"
)

// clock is virtual time: it passes only by Sleep.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}

// broken is a sound store with one fault, of the kinds that adapters have.
type broken struct {
	*mem.Store
	fault string
	clock *clock

	mu      sync.Mutex // guards what follows
	calls   int
	buckets []byte
	met     chan struct{} // closed when two have looked
}

// second says that this is the second call to have come here.
func (b *broken) second() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	return b.calls == 2
}

// meet lets the first two who looked go on together: what each of them saw is old then.
func (b *broken) meet() {
	b.mu.Lock()
	b.calls++
	switch b.calls {
	case 1:
	case 2:
		close(b.met)
	default:
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	<-b.met
}

func (b *broken) Commit(ctx context.Context, key string, body []byte) (bool, error) {
	if key != job.Control(0) {
		return b.Store.Commit(ctx, key, body)
	}
	switch b.fault {
	case "commits by looking first":
		r, err := b.Store.Open(ctx, key, 0, -1)
		if err == nil {
			return false, r.Close()
		}
		b.meet()
		return true, b.Store.Put(ctx, key, bytes.NewReader(body))
	case "takes exists for stored":
		stored, err := b.Store.Commit(ctx, key, body)
		return stored || b.second(), err
	case "forgets a commit":
		if b.second() {
			return true, nil
		}
	}
	return b.Store.Commit(ctx, key, body)
}

func (b *broken) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := b.Store.Open(ctx, key, offset, length)
	if err == nil && b.fault == "reads what was there before" && key == job.Control(0) {
		r.Close()
		return nil, hayrick.ErrNotFound
	}
	return r, err
}

func (b *broken) Claim(ctx context.Context, ask hayrick.ClaimAsk) (hayrick.Claim, error) {
	c, err := b.Store.Claim(ctx, ask)
	switch {
	case b.fault == "gives a claim to two" && errors.Is(err, hayrick.ErrConflict) && b.second():
		c.Attempt, c.Fence, c.Until = ask.Attempt, c.Fence+1, b.clock.Now().Add(ask.Lease)
		return c, nil
	case b.fault == "gives a fence twice" && err == nil && c.Fence > 1:
		c.Fence--
	case b.fault == "counts no losses" && err == nil:
		c.Vanished, c.Idle = 0, 0
	}
	return c, err
}

func (b *broken) UpdateClaim(ctx context.Context, ref hayrick.TaskRef, attempt string, p hayrick.ClaimPatch) (hayrick.Claim, error) {
	c, err := b.Store.UpdateClaim(ctx, ref, attempt, p)
	if b.fault == "renews what is lost" && errors.Is(err, hayrick.ErrLeaseLost) {
		return c, nil
	}
	return c, err
}

func (b *broken) Reserve(ctx context.Context, key string, lim ratelimit.Limits, ask ratelimit.Ask, now func() time.Time) (ratelimit.Grant, error) {
	switch b.fault {
	case "writes over another's reservation":
		b.mu.Lock()
		seen := b.buckets
		b.mu.Unlock()
		next, g := ratelimit.ApplyReserve(seen, lim, ask, now())
		if g.Count > 0 {
			b.meet()
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if next != nil {
			b.buckets = next
		}
		return g, nil
	case "starts full":
		return ratelimit.Grant{First: now(), Every: time.Millisecond, Count: ask.N}, nil
	}
	return b.Store.Reserve(ctx, key, lim, ask, now)
}

// The search for an order has teeth: of a sound adapter it finds one, of each of these
// none.
func TestBrokenAdaptersAreRefused(t *testing.T) {
	tests := map[string]func(*harness) string{
		"commit": func(h *harness) string { return h.commitHistory()[job.Control(0)].check(commitModel) },
		"claim":  func(h *harness) string { return h.claimHistory()["task-0001"].check(claimModel(h.Scale)) },
		"bucket": func(h *harness) string { return h.bucketHistory()["bucket"].check(bucketModel) },
	}
	for fault, of := range map[string]string{
		"": "",

		"commits by looking first": "commit", "takes exists for stored": "commit", "forgets a commit": "commit", "reads what was there before": "commit",
		"gives a claim to two": "claim", "gives a fence twice": "claim", "counts no losses": "claim", "renews what is lost": "claim",
		"writes over another's reservation": "bucket", "starts full": "bucket",
	} {
		for name, run := range tests {
			if of != "" && of != name {
				continue
			}
			c := &clock{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
			b := &broken{Store: mem.New(c), fault: fault, clock: c, met: make(chan struct{})}
			p := Ports{Clock: c, Worker: "w", Objects: b, State: b, Buckets: b}
			p.Another = func(*testing.T) Ports { return p }
			what := run(newHarness(t, p))
			if refused := strings.HasPrefix(what, "no order of these calls"); refused != (fault != "") {
				t.Errorf("an adapter that %s: %s", cmpOr(fault, "is sound"), cmpOr(what, "an order was found"))
			}
		}
	}
}

// The model of a commit, call by call.
func TestCommitModel(t *testing.T) {
	for _, x := range []struct {
		there string
		in    string
		out   commitOut
		want  string
	}{
		{"", "", commitOut{}, `[""]`},
		{"", "", commitOut{Body: "a"}, `[]`},
		{"a", "", commitOut{Body: "a"}, `["a"]`},
		{"a", "", commitOut{}, `[]`},
		{"", "b", commitOut{Stored: true}, `["b"]`},
		{"a", "b", commitOut{Stored: true}, `[]`},
		{"a", "b", commitOut{}, `["a"]`},
		{"", "b", commitOut{}, `["b"]`}, // an earlier try of its own
		{"", "b", commitOut{Unknown: true}, `["" "b"]`},
		{"a", "b", commitOut{Unknown: true}, `["a"]`},
	} {
		if got := fmt.Sprintf("%q", commitModel.Step(x.there, commitIn{x.in}, x.out)); got != x.want {
			t.Errorf("%q, %q: %+v leads to %s, want %s", x.there, x.in, x.out, got, x.want)
		}
	}
}
