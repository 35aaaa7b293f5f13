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
	// Left is how long the try may take, 0 = as long as it likes. The context of
	// Handle ends with it; only a Session keeps the time itself.
	Left time.Duration
	// Cursor is the last mark of an earlier try in this task, nil when there is none.
	// The rows emitted before that mark are kept: go on behind them.
	Cursor json.RawMessage
	// Alone says that a process died with this item in hand. A handler with processes
	// of its own runs it with no other item beside it.
	Alone bool
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

// Opener is a handler that wants to know the tasks whose items it runs. Open is
// called once an attempt, before its first item; an error means that the handler
// cannot start, and fails the task.
type Opener interface {
	Open(ctx context.Context, t Task) (Session, error)
}

// Task is the attempt that a Session is opened for.
type Task struct {
	Run  string // the job id
	Task string // the task id
	// Log keeps a line in the task's log.
	Log func(LogLine)
	// Host takes the metrics that belong to no item.
	Host Host
}

// LogLine is one line that a handler wrote, for the log of its task.
type LogLine struct {
	Child int     // which of the handler's processes, from 1; 0 = the worker's own
	Items []int64 // ordinals of the items it had in hand
	Text  string
}

// Session is a handler opened for one attempt. Its Handle keeps to Item.Left by
// itself and returns within seconds of the end of ctx, whatever the user's code does,
// so that the worker calls it straight from the slot of an item.
type Session interface {
	Handler
	// Slots is how many items it wants at once. With rated it wants no more than run
	// at this moment: each has a rate token, which must not grow old in a queue.
	Slots(rated bool) int
	// Close ends it, without waiting for what is still in hand. What the handler wrote
	// before its last item ended is in the log then. It may be called twice.
	Close()
}

// Streamer is a Session that can go on with the next item of a slot by itself, so that
// nobody has to be woken for an item that ends as most do.
type Streamer interface {
	Session
	// Stream is Handle for one item after the other. When a try has ended ok, next is
	// called, and gives the item that follows with its emit; it must not wait. Without one
	// (false), or when a try ends otherwise, Stream returns the outcome of that try.
	Stream(ctx context.Context, it Item, emit Emit, next func() (Item, Emit, bool)) Outcome
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
	// Crashed says that the process that had the item in hand died. A second time makes
	// the item poison.
	Crashed bool
	// Late says that the try was ended because its time (Item.Left) was over.
	Late bool
	// NotTried says that the try tells nothing about the item: what ran it was ended for
	// the sake of another. It is run again, and no try is counted.
	NotTried bool
	// Detail is more for people, at most MaxDetail bytes and kept with the failure: the
	// last of what the handler wrote to stderr.
	Detail string
}

// MaxDetail bounds Outcome.Detail.
const MaxDetail = 4 << 10

// MaxCursor bounds the cursor of a mark, in bytes.
const MaxCursor = 64 << 10

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
	// Set makes the metric n, whatever it was.
	Set(metric string, n int64)
	// Observe counts n into <metric>_count, <metric>_sum and <metric>_max.
	Observe(metric string, n int64)
	// Beat says how far the item is: done of that many, 0 when that is not known. A
	// time-out tells it.
	Beat(done, of int64)
	// Mark keeps the rows emitted so far together with cursor, one JSON value of at most
	// MaxCursor bytes: the next try in this task, also on another machine, gets it as
	// Item.Cursor and goes on behind those rows. They still count only when the item
	// ends ok. An error says why the mark was not taken.
	Mark(cursor json.RawMessage) error
	// Log keeps a line in the task's log, with the item.
	Log(text string)
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

	// What follows is for handlers with processes of their own.
	Handler hayrick.Handler  // of the job file
	Timeout hayrick.Duration // run.item_timeout
	Run     string           // the job id; "" when there is no run yet
	// Dir gives the folder that the processes work in: the unpacked bundle of the run,
	// the job's own folder before there is one, "" for the process's own.
	Dir func(ctx context.Context) (string, error)
}

// Factory builds a handler from its params. An error is a user error: it names
// the parameter and what to write instead.
type Factory func(ctx context.Context, env Env) (Handler, error)

// Registry maps handler.builtin to its factory. wire.go holds the one literal.
type Registry map[string]Factory

// External is the entry of a registry for handler.exec. It is no handler.builtin.
const External = "(exec)"

// New builds the handler that env.Handler names.
func (r Registry) New(ctx context.Context, env Env) (Handler, error) {
	name := env.Handler.Builtin
	if len(env.Handler.Exec) > 0 {
		name = External
	} else if name == External {
		name = ""
	}
	env.Params = env.Handler.Params
	f, ok := r[name]
	if !ok {
		return nil, &hayrick.UserError{
			What: fmt.Sprintf("handler.builtin %q is not known", name),
			Hint: "one of: " + r.names(),
		}
	}
	return f(ctx, env)
}
