package hayrick

import (
	"errors"
	"fmt"
)

// The sentinels of every port. Adapters wrap them (`%w`) with the verb phrase
// that was attempted; callers test them with errors.Is.
var (
	// ErrNotFound: the object, record or key is not there. A read that answers it
	// is decided, not uncertain.
	ErrNotFound = errors.New("not found")
	// ErrConflict: a condition did not hold (somebody else was first, or the
	// version moved on). Read again before deciding anything.
	ErrConflict = errors.New("conflict")
	// ErrUnknown: the effect may or may not have happened (time-out, 5xx, 409).
	// Read back, then try again.
	ErrUnknown = errors.New("outcome unknown")
	// ErrLeaseLost: the claim is no longer this attempt's. Work may go on (rows are
	// safe without leases) but side effects under the fence must stop.
	ErrLeaseLost = errors.New("lease lost")
	// ErrThrottled: the service asked for less; wait and try again.
	ErrThrottled = errors.New("throttled")
	// ErrCorrupt: bytes do not have the digest, length or form that vouches for
	// them. Never retried blindly: it names a fact that broke.
	ErrCorrupt = errors.New("corrupt")
	// ErrInputChanged: the bytes of an input are not the ones that were planned.
	// Nothing is run on them; the job pauses until a person has decided.
	ErrInputChanged = errors.New("input changed")
	// ErrDenied: this process may not read or write one object, input or output. It is
	// the trouble of who needs that one: a store that refuses as a whole is not this.
	ErrDenied = errors.New("not allowed")
)

// UserError is an error a person can mend. What names the fact, Hint the next
// step to take. Exit is the process exit code of the CLI (2 when zero).
type UserError struct {
	What string
	Hint string
	Exit int
	Err  error // the cause, may be nil
}

func (e *UserError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.What, e.Err)
	}
	return e.What
}

func (e *UserError) Unwrap() error { return e.Err }
