package worker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hayrick"
	"hayrick/jobs"
	"hayrick/worker"
)

// streaming is a handler of one slot whose session goes on by itself; it notes how each
// try came to it.
type streaming struct {
	handle
	seen []string // "<ordinal>/<try>": began; "+<ordinal>/<try>": followed; "=": asked for alone
}

func (s *streaming) Open(context.Context, jobs.Task) (jobs.Session, error) { return s, nil }
func (s *streaming) Slots(bool) int                                        { return 1 }
func (s *streaming) Close()                                                {}

func (s *streaming) note(how string, it jobs.Item) {
	s.seen = append(s.seen, fmt.Sprintf("%s%d/%d", how, it.Ordinal, it.Try))
}

func (s *streaming) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	s.note("=", it)
	return s.handle(ctx, it, emit)
}

func (s *streaming) Stream(ctx context.Context, it jobs.Item, emit jobs.Emit, next func() (jobs.Item, jobs.Emit, bool)) jobs.Outcome {
	s.note("", it)
	for {
		out := s.handle(ctx, it, emit)
		if !out.OK() {
			return out
		}
		after := emit
		var ok bool
		if it, emit, ok = next(); !ok {
			return out
		}
		if after(jobs.Row{{Name: "n", Value: int64(-1)}}) == nil {
			return jobs.Fail("late", "a row is taken of an item that has ended")
		}
		s.note("+", it)
	}
}

// A session that goes on by itself hands out the items that follow and ends those that
// are ok, each once, with its own rows and tries. Whatever else an item needs, it comes
// back: one that is none, one that fails and is tried again, and one whose rows do not
// fit the others'.
func TestASessionGoesOn(t *testing.T) {
	const broken, failing, clashing = 2, 3, 4
	lines := words(7)
	lines[broken] = "none"
	h := &streaming{handle: func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		switch {
		case it.Ordinal == failing && it.Try < 3:
			emit(jobs.Row{{Name: "n", Value: int64(-2)}})
			return jobs.Fail("flaky", "as told")
		case it.Ordinal == clashing:
			emit(jobs.Row{{Name: "n", Value: "text"}})
			return jobs.OK()
		}
		return echo(ctx, it, emit)
	}}
	r := newRig(t, lines, len(lines), nil, func(d *hayrick.JobDefinition) { d.Input.OnBadItem = "skip" })
	r.make = func(jobs.Env) jobs.Handler { return h }
	r.drain(func() *worker.Worker { return r.worker("w") })

	// Behind a broken line, a failure and a clash somebody has to begin again.
	if got, want := strings.Join(h.seen, " "), "0/1 +1/1 3/1 3/2 3/3 +4/1 5/1 +6/1"; got != want {
		t.Errorf("tries %s, want %s", got, want)
	}
	if got, want := r.column(0, "n"), "0 1 3 5 6"; got != want {
		t.Errorf("rows of %s, want %s", got, want)
	}
	if got, want := r.gist(0), "2:bad_item/0 4:bad_rows/1"; got != want {
		t.Errorf("failed %s, want %s", got, want)
	}
	if res := r.result(0); res.Items != 7 || res.RowCount != 5 {
		t.Errorf("%+v", res)
	}
}

// Where each item needs something of the worker before it is handed out, a session is
// asked for one at a time: a rate token, and alone, the note that it is in hand.
func TestASessionIsAskedForOneItem(t *testing.T) {
	for name, c := range map[string]struct {
		edit    func(*hayrick.JobDefinition)
		vanish  int
		streams bool
	}{
		"as ever": {streams: true},
		"rated": {edit: func(d *hayrick.JobDefinition) {
			d.Rates = []hayrick.Rate{{Name: "api", Limit: tenASecond, Burst: 10, Auto: true}}
		}},
		"alone": {vanish: 2},
	} {
		h := &streaming{handle: echo}
		r := newRig(t, words(3), 3, nil, c.edit)
		r.make = func(jobs.Env) jobs.Handler { return h }
		for range c.vanish {
			r.vanish(0)
		}
		r.drain(func() *worker.Worker { return r.worker("w") })
		want := []string{"=0/1", "=1/1", "=2/1"}
		if c.streams {
			want = []string{"0/1", "+1/1", "+2/1"}
		}
		if !slices.Equal(h.seen, want) || r.column(0, "n") != "0 1 2" {
			t.Errorf("%s: %v, want %v; rows of %s", name, h.seen, want, r.column(0, "n"))
		}
	}
}
