package coordinator

import (
	"context"
	"io"

	"hayrick"
	"hayrick/manifest"
)

// State is what the coordinator and the sweeper read and repair.
type State interface {
	// Mark adds one position to a block's set, creating the block where it is missing.
	Mark(ctx context.Context, m hayrick.Mark) (hayrick.BlockState, error)
	// Blocks returns every progress record of a group, in any order.
	Blocks(ctx context.Context, jobID string, generation int, group string) ([]hayrick.BlockState, error)
	// ReadClaim returns the claim of a task as it stands, or ErrNotFound; alive says
	// that its lease holds now.
	ReadClaim(ctx context.Context, ref hayrick.TaskRef) (c hayrick.Claim, alive bool, err error)
	// JobState returns what is cached of a job, or ErrNotFound.
	JobState(ctx context.Context, jobID string) (hayrick.JobState, error)
	// PutJobState caches it. Last writer wins: it is derived from commits.
	PutJobState(ctx context.Context, s hayrick.JobState) error
}

// Queue is where tasks and triggers are sent.
type Queue interface {
	Send(ctx context.Context, queue string, msgs ...hayrick.Outgoing) error
	// Depth says how many messages of a job are waiting, delayed or in flight.
	Depth(ctx context.Context, queue, jobID string) (hayrick.Depth, error)
}

// Sources opens the inputs of job files.
type Sources interface {
	// Stat identifies the object at uri now; ErrNotFound when it is not there.
	Stat(ctx context.Context, uri string) (manifest.Pin, error)
	// ListSources calls fn for each object of the folder at uri, which ends in a slash,
	// in the bytewise order of their names, down through all its folders, and leaves
	// out what manifest.IsSource does; object is the URI of one. A pin may lack what
	// only OpenSource tells, its Version. ErrNotFound: there is no such folder; where
	// folders are but prefixes, nothing is listed then.
	ListSources(ctx context.Context, uri string, fn func(object string, pin manifest.Pin) error) error
	// OpenSource reads the object whole, and says which version of it that is.
	OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error)
	// Clone puts a copy of the object at uri under key where that costs no bytes, and
	// says whether it did. It need not look at an object that it does not clone.
	Clone(ctx context.Context, uri, key string) (bool, error)
}

// Lister names the jobs of the store.
type Lister interface {
	// Jobs returns the names of the folders directly below jobs/, in any order: the
	// jobs there are, and submissions that never got to their plan. It does not list
	// what lies in them.
	Jobs(ctx context.Context) ([]string, error)
}
