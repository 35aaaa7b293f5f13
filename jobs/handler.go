package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"hayrick"
	"hayrick/internal/rows"
)

// Item is one input record, handed to a handler.
type Item struct {
	// Ordinal is the item's identity: its position in the frozen input, from 0.
	Ordinal int64
	// Key is its label: the value of input.key, or the ordinal in decimal.
	Key string
	// Data is the record as it stands in the input, one JSON value.
	Data json.RawMessage
	// Try counts the tries of this item over the whole job, from 1. A vanished
	// worker costs no try.
	Try int
	// Host is what the handler may ask of the worker that runs it. Never nil.
	Host Host
}

// Row is one output row; see rows.Row for the types of its values.
type Row = rows.Row

// Col is one value of a row.
type Col = rows.Col

// Emit hands over one row of the item. Rows count only when the item ends ok. An
// error means that the item cannot go on (its rows are over a limit, the journal
// is full, the attempt is over): return at once.
type Emit func(Row) error

// Handler is the user's code. Handle runs one try of one item; it must be safe
// for concurrent use (run.items_in_flight) and must return soon after ctx is done:
// one that has not ten seconds later is given up, and what it emits or says then is
// refused. A panic is a crash of the item; a panic on a goroutine that the handler
// started itself ends the process.
type Handler interface {
	Handle(ctx context.Context, it Item, emit Emit) Outcome
}

// Lister is a handler that can list its own items: the job's coordinator method.
// Records are JSON values, emitted in a fixed order: listing twice with the same
// params gives the same bytes.
type Lister interface {
	Items(ctx context.Context, emit func(record json.RawMessage) error) error
}

// Closer is a handler that holds something: Close is called once, after the last
// Handle.
type Closer interface{ Close() error }

// Outcome is the end of one try. The zero value is ok.
type Outcome struct {
	Class       string              // "" = ok; else [a-z0-9_]{1,40}, free
	Disposition hayrick.Disposition // a suggestion; the job file's retry.classes wins. "" = by class
	Status      int                 // the HTTP status of the upstream's reply, for retry.classify; 0 = none
	Message     string              // one line for people; no secrets
	RetryAfter  time.Duration       // the upstream's Retry-After, 0 = none
}

// OK says whether the item ended ok.
func (o Outcome) OK() bool { return o.Class == "" }

// OK is the outcome of an item that is done; its rows count.
func OK() Outcome { return Outcome{} }

// Fail is the outcome of a try that failed with class.
func Fail(class, format string, args ...any) Outcome {
	return Outcome{Class: class, Message: fmt.Sprintf(format, args...)}
}

// Host is the worker as a handler sees it.
type Host interface {
	// Need waits for n tokens of the named rate's bucket for key, and returns early
	// with ctx's error or hayrick.ErrThrottled when none can come in time.
	Need(ctx context.Context, rate, key string, n int) error
	// Feedback reports what the upstream said of a bucket.
	Feedback(rate, key string, f Feedback)
	// Add adds n to a metric of the task, such as api_requests or bytes_downloaded.
	Add(metric string, n int64)
}

// Feedback is what an upstream's reply says about a limit.
type Feedback struct {
	Throttled  bool          // 429, or 503 with Retry-After
	RetryAfter time.Duration // 0 = unknown
}

// Env is what a factory may use to build a handler.
type Env struct {
	World  hayrick.World
	Log    *slog.Logger
	Params json.RawMessage // handler.params, a JSON object or nil
}

// Factory builds a handler from its params. An error is a user error: it names
// the parameter and what to write instead.
type Factory func(ctx context.Context, env Env) (Handler, error)

// Registry maps handler.builtin to its factory. wire.go holds the one literal.
type Registry map[string]Factory

// New builds the named handler.
func (r Registry) New(ctx context.Context, name string, env Env) (Handler, error) {
	f, ok := r[name]
	if !ok {
		return nil, &hayrick.UserError{
			What: fmt.Sprintf("handler.builtin %q is not known", name),
			Hint: "one of: " + r.names(),
		}
	}
	return f(ctx, env)
}
