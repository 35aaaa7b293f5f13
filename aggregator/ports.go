package aggregator

import (
	"context"
	"io"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// State is the lease of merge tasks, the progress of their group, and what is cached
// of the job.
type State interface {
	// Claim applies hayrick.NextClaim in one atomic step. ErrConflict: held by another.
	Claim(ctx context.Context, ask hayrick.ClaimAsk) (hayrick.Claim, error)
	// UpdateClaim applies a patch to a claim that is still the attempt's.
	UpdateClaim(ctx context.Context, ref hayrick.TaskRef, attempt string, patch hayrick.ClaimPatch) (hayrick.Claim, error)
	// Mark adds one position to a block's set.
	Mark(ctx context.Context, m hayrick.Mark) (hayrick.BlockState, error)
	// JobState is what is cached of a job, or ErrNotFound.
	JobState(ctx context.Context, jobID string) (hayrick.JobState, error)
	// PutJobState caches what the commits say of a job.
	PutJobState(ctx context.Context, s hayrick.JobState) error
}

// Queue is where merge tasks and triggers are sent.
type Queue interface {
	Send(ctx context.Context, queue string, msgs ...hayrick.Outgoing) error
}

// Blobs reads objects at random places and joins stretches of them.
type Blobs interface {
	// OpenAt opens an object for random reads, or ErrNotFound.
	OpenAt(ctx context.Context, key string) (manifest.Blob, error)
	// Assemble stores under key the given stretches of other objects in order, then
	// tail, without the bytes passing through the caller where the store can do that.
	// Durable on return, like Put. remote: the store copied them by itself, from the
	// versions that it looked at first, and to read them back would move them all.
	Assemble(ctx context.Context, key string, parts []manifest.Range, tail []byte) (remote bool, err error)
}

// Output is the published folder.
type Output interface {
	// PublishFile copies a stored object to name in the folder, atomically.
	PublishFile(ctx context.Context, folder, name, key string) error
	// PublishBytes writes name in the folder, atomically.
	PublishBytes(ctx context.Context, folder, name string, body []byte) error
	// ListOutput returns what is in the folder; none when it is not there.
	ListOutput(ctx context.Context, folder string) ([]manifest.Object, error)
	// OpenOutput reads a published file. ErrNotFound: there is none; ErrCorrupt: what is
	// there is no file.
	OpenOutput(ctx context.Context, folder, name string) (io.ReadCloser, error)
	// RemoveOutput deletes name; one that is not there is no error.
	RemoveOutput(ctx context.Context, folder, name string) error
}

// Verdict is what becomes of a message.
type Verdict struct {
	Ack     bool
	Again   time.Duration // else show it again after this
	Because string
}
