package retryplanner

import (
	"context"
	"io"

	"hayrick"
	"hayrick/manifest"
)

// Inputs reads the bytes of a batch: its Object is a path or URI of the input, or
// manifest.StoreScheme and a key below the job's folder. ErrNotFound: the object is
// not there.
type Inputs interface {
	OpenInput(ctx context.Context, jobID string, b manifest.Batch) (io.ReadCloser, error)
}

// Queue is where the tasks of the new group, or the trigger, are sent. Messages are
// hints: an error may leave any of them sent.
type Queue interface {
	Send(ctx context.Context, queue string, msgs ...hayrick.Outgoing) error
}
