package infra

import "context"

// Stacks are CloudFormation's, of one account and region. A call that changes something
// is safe to repeat.
type Stacks interface {
	// Look tells of a stack by its name or id; nil = there is none of that name. By its id
	// a deleted one is found too, for a while.
	Look(ctx context.Context, stack string) (*Existing, error)
	// Delete begins to delete a stack. One that is gone is no error.
	Delete(ctx context.Context, id string) error
	// Events are those of a stack's newest operation at least, oldest first.
	Events(ctx context.Context, id string) ([]Event, error)
}

// ChangeSets are what a stack would become. One that is never executed changes nothing.
type ChangeSets interface {
	// Prepare makes a change set of the template and waits until it can be executed; "" =
	// there is nothing to change. With create the stack is new, and what already exists
	// under a name of the template and belongs to no stack is taken over, never made anew:
	// the bucket that an earlier stack left.
	Prepare(ctx context.Context, stack string, create bool, template []byte, values map[string]string) (set string, changes []Change, err error)
	// Execute begins to carry a change set out, and returns when its stack shows that.
	Execute(ctx context.Context, set string) error
	// Drop forgets a change set, and a stack that was only ever prepared.
	Drop(ctx context.Context, set string) error
}

// Data is the store's bucket, which outlives its stack.
type Data interface {
	// Has says whether an object is there.
	Has(ctx context.Context, key string) (bool, error)
	// PutCode stores the function's zip.
	PutCode(ctx context.Context, key string) error
	// State says whether the bucket is there and whether anything is in it.
	State(ctx context.Context) (there, objects bool, err error)
	// Empty removes every object, version and upload in parts.
	Empty(ctx context.Context) error
	// Remove removes the empty bucket. One that is gone is no error.
	Remove(ctx context.Context) error
}
