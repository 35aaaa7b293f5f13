package hayrick

import (
	"fmt"
	"math/bits"
	"time"
)

// The state store is a cache of what objects say, plus what never becomes a
// commit: leases, losses, token buckets. Deleting it costs time, not rows.

// TaskRef names a task of a generation.
type TaskRef struct {
	JobID      string
	Generation int
	TaskID     string
}

// Claim is the lease of one task. It saves work and guards side effects; rows are
// safe without it.
type Claim struct {
	TaskRef
	Attempt string    `json:"attempt"`
	Worker  string    `json:"worker"`
	Fence   int64     `json:"fence"` // strictly increasing per task and incarnation
	Until   time.Time `json:"until"` // the end of the lease; zero = released
	// Vanished counts attempts whose lease ran out unreleased.
	Vanished int `json:"vanished"`
	// Idle counts the vanished ones since an item was last known to be handed out.
	Idle int `json:"idle"`
	// Lost counts, per ordinal, workers that vanished with the item in hand. It
	// belongs to the task, not to the attempt.
	Lost map[int64]int `json:"lost,omitempty"`
}

// ClaimAsk is one attempt's wish for a task.
type ClaimAsk struct {
	TaskRef
	Attempt string
	Worker  string
	Lease   time.Duration
}

// NextClaim is the legal transition of a claim: nil for the first attempt. It
// answers ErrConflict while another attempt holds a lease that has not run out;
// asking again with the same attempt returns the claim as it is, so that a lost
// reply does no harm. dead says that the holder's process is known to be gone, which
// ends its lease at once.
func NextClaim(prev *Claim, ask ClaimAsk, now time.Time, dead bool) (Claim, error) {
	next := Claim{TaskRef: ask.TaskRef, Attempt: ask.Attempt, Worker: ask.Worker, Fence: 1, Until: now.Add(ask.Lease)}
	if prev == nil {
		return next, nil
	}
	if prev.Attempt == ask.Attempt {
		return *prev, nil
	}
	held := !prev.Until.IsZero()
	if held && !dead && now.Before(prev.Until) {
		return *prev, fmt.Errorf("claim %s: held by %s until %s: %w", ask.TaskID, prev.Worker, prev.Until.Format(time.RFC3339), ErrConflict)
	}
	next.Fence = prev.Fence + 1
	next.Vanished, next.Idle, next.Lost = prev.Vanished, prev.Idle, prev.Lost
	if held {
		next.Vanished++
		next.Idle++
	}
	return next, nil
}

// ClaimPatch changes a claim that is still the attempt's; nil fields stay. Any
// patch that carries Lost proves that an item was handed out, and ends Idle.
type ClaimPatch struct {
	Until *time.Time // renew; the zero time releases
	Lost  map[int64]int
}

// Apply is the legal change of a held claim; ErrLeaseLost when it is another's.
func (p ClaimPatch) Apply(c *Claim, attempt string) (Claim, error) {
	if c == nil || c.Attempt != attempt || c.Until.IsZero() {
		return Claim{}, fmt.Errorf("update claim: %w", ErrLeaseLost)
	}
	n := *c
	if p.Until != nil {
		n.Until = *p.Until
	}
	if p.Lost != nil {
		n.Lost = p.Lost
		n.Idle = 0
	}
	return n, nil
}

// BlockSize is how many members one progress record has.
const BlockSize = 256

// BlockID names a progress record. Level 0 is a block of tasks; level l+1 has
// blocks of level l as members. SHA256 is the block file's, or derived from its
// members' above, so that two plans never share a record.
type BlockID struct {
	JobID      string
	Generation int
	Group      string
	Level      int
	N          int
	SHA256     string
}

// Mark is the idempotent addition of one member to a block's set.
type Mark struct {
	Block    BlockID
	Total    int // members of the block; a block that is missing is created with it
	Position int
	OK       int64 // items, set under the position; 0 above level 0
	Failed   int64
}

// BlockState is a progress record: a set of positions, never a counter.
type BlockState struct {
	BlockID
	Total int
	Done  Bits
	OK    int64 // sums over the positions
	Fails int64
}

// Full says that every member is in the set.
func (b BlockState) Full() bool { return b.Total > 0 && b.Done.Count() == b.Total }

// Bits is a set of positions below BlockSize.
type Bits [BlockSize / 64]uint64

// Has says whether i is in the set.
func (b Bits) Has(i int) bool { return i >= 0 && i < BlockSize && b[i/64]&(1<<(i%64)) != 0 }

// Add puts i into the set.
func (b *Bits) Add(i int) { b[i/64] |= 1 << (i % 64) }

// Count is the size of the set.
func (b Bits) Count() int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// JobState is the cached view of a job that workers look at before they claim.
// It decides nothing: what it says comes from the commits and is rebuilt from them.
type JobState struct {
	JobID      string    `json:"job_id"`
	Generation int       `json:"generation"`
	Status     JobStatus `json:"status"`
	Orders     int       `json:"orders"` // control orders seen
	Updated    time.Time `json:"updated"`
	Progress   Progress  `json:"progress,omitzero"`
}

// Progress is what sweepers remember of how a generation gets on, to tell messages
// that are lost from messages that wait. It is a guess: forgotten, or overwritten by
// an older one, it costs time or messages that are sent twice.
type Progress struct {
	Group  string    `json:"group"` // what is waited for: the open group
	Done   int64     `json:"done"`  // members of its progress records
	Since  time.Time `json:"since"` // since when no more of it was done, or sent again
	WaitMS int64     `json:"wait_ms"`
	Lot    int       `json:"lot"`  // tasks that were sent again the last time; 0 = never yet
	Sent   int64     `json:"sent"` // Done at that time
}
