package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"sync"

	"hayrick/jobs"
)

// Recorder runs the tries of somebody's handler outside of simulated worlds, each once,
// and has every world play them: a thousand runs call the handler as often as one does,
// and a handler with processes of its own never meets virtual time.
//
// It is made and served outside of the bubbles that play it.
type Recorder struct {
	handler jobs.Handler
	ask     chan jobs.Item
	answer  chan recorded

	mu    sync.Mutex // guards tries, and is held while one is run
	tries map[triedAs]recorded
}

// triedAs is what a try is taken to follow from.
type triedAs struct {
	ordinal int64
	try     int
	cursor  string
}

// recorded is a try: what the handler asked for and emitted, in order, and how it ended.
type recorded struct {
	steps []step
	rows  []jobs.Row
	end   jobs.Outcome
}

type step func(ctx context.Context, h jobs.Host, emit jobs.Emit) error

// NewRecorder is a recorder of the tries of h, which may be a jobs.Session.
func NewRecorder(h jobs.Handler) *Recorder {
	return &Recorder{handler: h, ask: make(chan jobs.Item), answer: make(chan recorded), tries: map[triedAs]recorded{}}
}

// Serve runs tries as worlds ask for them, until ctx is done.
func (r *Recorder) Serve(ctx context.Context) {
	for {
		select {
		case it := <-r.ask:
			r.answer <- r.run(ctx, it)
		case <-ctx.Done():
			return
		}
	}
}

// Steady runs the first try of an item twice, and says whether both have the same rows
// and the same end. Worlds play the first.
func (r *Recorder) Steady(ctx context.Context, it jobs.Item) bool {
	first, second := r.run(ctx, it), r.run(ctx, it)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries[as(it)] = first
	return reflect.DeepEqual(first.rows, second.rows) && first.end.Class == second.end.Class
}

// Tries is how many were recorded.
func (r *Recorder) Tries() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.tries)
}

func as(it jobs.Item) triedAs { return triedAs{it.Ordinal, it.Try, string(it.Cursor)} }

// run runs a try.
func (r *Recorder) run(ctx context.Context, it jobs.Item) recorded {
	t := &tape{}
	it.Host = t
	if it.Left > 0 {
		limited, cancel := context.WithTimeout(ctx, it.Left)
		defer cancel()
		ctx = limited
	}
	var rows []jobs.Row
	end := r.handler.Handle(ctx, it, func(row jobs.Row) error {
		if err := row.Check(); err != nil {
			return err
		}
		kept := make(jobs.Row, len(row))
		for i, c := range row {
			kept[i] = jobs.Col{Name: c.Name, Value: own(c.Value)}
		}
		t.add(func(_ context.Context, _ jobs.Host, emit jobs.Emit) error { return emit(kept) })
		rows = append(rows, kept)
		return nil
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	return recorded{t.steps, rows, end}
}

// own is a value that its handler does not change any more.
func own(v any) any {
	switch v := v.(type) {
	case []byte:
		return bytes.Clone(v)
	case json.RawMessage:
		return json.RawMessage(bytes.Clone(v))
	}
	return v
}

// Handle plays a try in a world.
func (r *Recorder) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	r.mu.Lock()
	x, ok := r.tries[as(it)]
	if !ok {
		asked := it
		asked.Host = nil
		r.ask <- asked
		x = <-r.answer
		r.tries[as(it)] = x
	}
	r.mu.Unlock()
	for _, s := range x.steps {
		if err := s(ctx, it.Host, emit); err != nil {
			return jobs.Fail("cut", "%v", err)
		}
	}
	return x.end
}

// tape is a host that grants everything and remembers it.
type tape struct {
	mu    sync.Mutex
	steps []step
}

func (t *tape) add(s step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps = append(t.steps, s)
}

// do is add of something that cannot fail.
func (t *tape) do(fn func(jobs.Host)) {
	t.add(func(_ context.Context, h jobs.Host, _ jobs.Emit) error { fn(h); return nil })
}

func (t *tape) Need(_ context.Context, rate, key string, n int) error {
	t.add(func(ctx context.Context, h jobs.Host, _ jobs.Emit) error { return h.Need(ctx, rate, key, n) })
	return nil
}

func (t *tape) Mark(cursor json.RawMessage) error {
	kept := json.RawMessage(bytes.Clone(cursor))
	t.add(func(_ context.Context, h jobs.Host, _ jobs.Emit) error { return h.Mark(kept) })
	return nil
}

func (t *tape) Feedback(rate, key string, f jobs.Feedback) {
	t.do(func(h jobs.Host) { h.Feedback(rate, key, f) })
}

func (t *tape) Add(metric string, n int64)     { t.do(func(h jobs.Host) { h.Add(metric, n) }) }
func (t *tape) Set(metric string, n int64)     { t.do(func(h jobs.Host) { h.Set(metric, n) }) }
func (t *tape) Observe(metric string, n int64) { t.do(func(h jobs.Host) { h.Observe(metric, n) }) }
func (t *tape) Beat(done, of int64)            { t.do(func(h jobs.Host) { h.Beat(done, of) }) }
func (t *tape) Log(text string)                { t.do(func(h jobs.Host) { h.Log(text) }) }
