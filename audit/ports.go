package audit

import (
	"context"
	"io"

	"hayrick/manifest"
)

// Blobs reads objects at random places, which decoding Parquet needs.
type Blobs interface {
	// OpenAt opens an object, or answers hayrick.ErrNotFound.
	OpenAt(ctx context.Context, key string) (manifest.Blob, error)
}

// Output reads the published folder.
type Output interface {
	// ListOutput returns what is in the folder, by names relative to it; none when the
	// folder is not there.
	ListOutput(ctx context.Context, folder string) ([]manifest.Object, error)
	// OpenOutput reads a published file, or answers hayrick.ErrNotFound.
	OpenOutput(ctx context.Context, folder, name string) (io.ReadCloser, error)
}

// Inputs reads the bytes of a batch of the pinned input. ErrNotFound: the object is
// not there.
type Inputs interface {
	OpenInput(ctx context.Context, jobID string, b manifest.Batch) (io.ReadCloser, error)
}

// Copier makes once more what the store holds of an input that does not stand there as
// it is: JSON lines of a CSV file, a shuffled input, a copy that was asked for.
type Copier interface {
	// CopyAgain returns the SHA-256 that the copy in, of the run of p, has when it is made
	// today. A *hayrick.UserError, ErrInputChanged, ErrNotFound, ErrDenied: what it was made of
	// is not there as it was, or cannot be read, or was there to be read once.
	CopyAgain(ctx context.Context, p manifest.Plan, in manifest.InputID) (sha256 string, err error)
}

// Lister names the runs of the store, of which several may publish in one folder.
type Lister interface {
	Jobs(ctx context.Context) ([]string, error)
}
