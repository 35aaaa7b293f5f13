package worker

import (
	"context"
	"io"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// Claims is the lease table of tasks.
type Claims interface {
	// Claim applies hayrick.NextClaim in one atomic step and returns the claim that
	// now stands. ErrConflict: held by another attempt, whose claim is returned.
	Claim(ctx context.Context, ask hayrick.ClaimAsk) (hayrick.Claim, error)
	// UpdateClaim applies a patch to a claim that is still the attempt's, else
	// ErrLeaseLost. Doing it twice is harmless.
	UpdateClaim(ctx context.Context, ref hayrick.TaskRef, attempt string, patch hayrick.ClaimPatch) (hayrick.Claim, error)
}

// Marks is the progress record of a group, and the cached state of the job.
type Marks interface {
	// Mark adds one position to a block's set in one atomic step, creating the block
	// with m.Total where it is missing, and returns the block as it now is.
	Mark(ctx context.Context, m hayrick.Mark) (hayrick.BlockState, error)
	// JobState returns what is cached of a job, or ErrNotFound.
	JobState(ctx context.Context, jobID string) (hayrick.JobState, error)
}

// Queue carries hints, at least once, in any order.
type Queue interface {
	// Send enqueues messages. An error may leave any of them sent.
	Send(ctx context.Context, queue string, msgs ...hayrick.Outgoing) error
	// Receive returns up to max messages and hides them for visibility; it waits up
	// to wait for the first. No message is an empty slice, not an error.
	Receive(ctx context.Context, queue string, max int, visibility, wait time.Duration) ([]hayrick.Delivery, error)
	// Ack removes deliveries; one that is already gone is no error.
	Ack(ctx context.Context, queue string, ds ...hayrick.Delivery) error
	// Extend hides a delivery for visibility from now; zero shows it at once.
	Extend(ctx context.Context, queue string, visibility time.Duration, ds ...hayrick.Delivery) error
}

// Inputs reads the bytes of a batch: its Object is a path or URI of the input, or
// manifest.StoreScheme and a key below the job's folder. Of an object with versions
// the one that was indexed is read where it is still there, else the newest: the
// batch's SHA-256 decides. ErrNotFound: the object is not there.
type Inputs interface {
	OpenInput(ctx context.Context, jobID string, b manifest.Batch) (io.ReadCloser, error)
}

// Limiter hands out tokens of global buckets.
type Limiter interface {
	// Take waits for n tokens and returns how long it waited. hayrick.ErrThrottled, before
	// any wait: the key stays closed beyond ctx's deadline; the error's Until() time.Time,
	// if it has one, says for how long.
	Take(ctx context.Context, jobID string, rate hayrick.Rate, key string, n int) (time.Duration, error)
	// Feedback closes or slows a bucket as the upstream asked.
	Feedback(ctx context.Context, jobID string, rate hayrick.Rate, key string, retryAfter time.Duration)
}

// Orders pauses a job when a person has to decide something.
type Orders interface {
	// Pause gives the one automatic pause of (job, generation, group, rule). silenced
	// says that it had been given before and that a person has resumed the job since.
	Pause(ctx context.Context, jobID string, generation int, group, rule, reason string) (silenced bool, err error)
}

// Journals keeps the per-task cache of work. It belongs to the machine, not to the
// job: losing one costs time.
type Journals interface {
	// Open returns the journal that an earlier attempt of the task left here, or
	// ErrNotFound when there is none that fits the fingerprint. A journal that a live
	// attempt holds is none.
	Open(ctx context.Context, ref hayrick.TaskRef, fp Fingerprint) (Journal, error)
	// Create makes an empty one, discarding what does not fit. Beside a journal that a
	// live attempt holds it makes one of the attempt's own.
	Create(ctx context.Context, ref hayrick.TaskRef, attempt string, fp Fingerprint) (Journal, error)
	// Restore makes one from a snapshot, or ErrCorrupt when it does not fit.
	Restore(ctx context.Context, ref hayrick.TaskRef, attempt string, fp Fingerprint, snapshot io.Reader) (Journal, error)
	// TempFile returns scratch for one output file; Close removes it.
	TempFile(ctx context.Context, ref hayrick.TaskRef, attempt string) (manifest.Temp, error)
}

// Journal holds the ended items of one attempt with their rows.
type Journal interface {
	// Record stores ends of items, or what they are without one so far (tries spent, a
	// mark), with their rows, in one transaction that replaces their earlier entries.
	Record(ctx context.Context, es ...Entry) error
	// Each calls fn for every entry in ordinal order. Entry.Rows is valid only until fn
	// returns.
	Each(ctx context.Context, fn func(Entry) error) error
	// Snapshot is the journal as bytes for another machine.
	Snapshot(ctx context.Context) (io.ReadCloser, error)
	// Path names the journal for people.
	Path() string
	// Close ends its use; remove deletes it.
	Close(remove bool) error
}

// LiveLogs is where the logs of running attempts can be read on this machine. Nothing
// depends on it.
type LiveLogs interface {
	// Create makes the log of an attempt, in the place of those of earlier attempts of the
	// task here; it gets whole lines. Close removes it.
	Create(ref hayrick.TaskRef, attempt string) (io.WriteCloser, error)
	// Left is what an attempt of the task has left here that ended without Close: its
	// worker was killed. It may end in the middle of a line; nil where there is nothing.
	Left(ref hayrick.TaskRef) []byte
}

// Fingerprint says what a journal was made from: when any of it differs, the
// journal is not of this work.
type Fingerprint struct {
	BatchSHA256      string
	DefinitionSHA256 string
	BundleSHA256     string
}

// Entry is what a journal knows of one item.
type Entry struct {
	Ordinal      int64
	Ended        bool
	OK           bool
	Key          string
	Class        string
	Disposition  hayrick.Disposition
	Message      string
	Detail       string // more of the last failure; see jobs.Outcome
	Tries        int    // over all tasks
	Losses       int    // over all tasks
	Crashes      int    // of its handler in this task
	RetryAfterMS int64
	RowCount     int64
	// Cursor is the last mark of an item that has not ended; RowCount and Rows are then
	// what it had emitted at the mark.
	Cursor []byte
	Rows   []byte // rows.AppendRow encodings, each with its length before it
}
