package mem

import (
	"fmt"
	"sync"
	"time"

	"hayrick"
)

// Store is all ports in one, as one process sees it. The exported fields are set before
// the first call.
type Store struct {
	// Hook is asked before every port call what is to go wrong with it; nil = nothing.
	// It runs without locks held and may block.
	Hook func(Call) Fault
	// Saw is told of every effect right after it, before anybody hears of it: with what the
	// call answers or, where that is nothing, with what it was given. nil = nobody looks.
	// The error is ErrDropped of a call that was lost on its way.
	Saw func(c Call, v any, err error)
	// Crash is called where a fault says that the caller's process dies; nil = a panic
	// with Crash. When it returns the call does, with context.Canceled.
	Crash func(Call)
	// Poll is how often a waiting Receive looks for a message; 0 = 20 ms.
	Poll time.Duration
	// CanClone makes Clone copy inputs, as a file system with reflinks does.
	CanClone bool
	// KeepSent remembers every message that was sent.
	KeepSent bool
	// OneDepth makes Depth an estimate over all jobs, as that of SQS is.
	OneDepth bool
	// Remote makes Assemble say that it has joined bytes in another place, as S3 does.
	Remote bool

	actor string        // who calls, where no context says it
	clock hayrick.Clock // of the process: what leases are compared with, and waits on
	*contents
}

// contents is what the store holds, whoever looks at it.
type contents struct {
	now func() time.Time // of the store

	mu          sync.Mutex // guards everything below
	n           int
	calls       map[string]int
	objects     map[string]object
	commits     []Commit
	illegal     []string
	outputs     map[string]map[string]object
	inputs      map[string]input
	claims      map[hayrick.TaskRef]claim
	blocks      map[hayrick.BlockID]*block
	jobs        map[string]hayrick.JobState
	buckets     map[string][]byte
	queues      map[string]*queue
	lastMessage int64
	sent        map[string][]hayrick.Message
}

// New returns an empty store on clock.
func New(clock hayrick.Clock) *Store {
	s := &Store{clock: clock, contents: &contents{
		now:     clock.Now,
		calls:   map[string]int{},
		objects: map[string]object{},
		outputs: map[string]map[string]object{},
		inputs:  map[string]input{},
		sent:    map[string][]hayrick.Message{},
	}}
	s.WipeState()
	s.WipeQueue()
	return s
}

// As is the store as a process of its own name and clock sees it. What it holds is one.
func (s *Store) As(actor string, clock hayrick.Clock) *Store {
	c := *s
	c.actor, c.clock = actor, clock
	return &c
}

// WipeState deletes the state store: claims, blocks, job states and buckets.
func (s *Store) WipeState() {
	defer s.saw(Call{Port: "State", Op: "WipeState"}, nil, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims = map[hayrick.TaskRef]claim{}
	s.blocks = map[hayrick.BlockID]*block{}
	s.jobs = map[string]hayrick.JobState{}
	s.buckets = map[string][]byte{}
}

// WipeQueue loses every message, also those in flight.
func (s *Store) WipeQueue() {
	defer s.saw(Call{Port: "Queue", Op: "WipeQueue"}, nil, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queues = map[string]*queue{}
}

// Kill tells the store that the process called worker is gone: the claims it holds
// count as dead at once, and messages that were delivered to it (WithActor) are
// visible again. A process that starts under the same name is a new one.
func (s *Store) Kill(worker string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, c := range s.claims { // the order does not matter: each is marked alone
		if c.Worker == worker {
			c.dead = true
			s.claims[ref] = c
		}
	}
	now := s.now()
	for _, q := range s.queues {
		q.release(worker, now)
	}
}

// Calls returns how many times each operation ("Put", "Claim" ..) was called.
func (s *Store) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int, len(s.calls))
	for op, n := range s.calls {
		out[op] = n
	}
	return out
}

// Illegal lists what no correct program does: other bytes under a key that was
// written before, a view over a commit.
func (s *Store) Illegal() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.illegal...)
}

func (s *Store) violation(format string, args ...any) {
	s.illegal = append(s.illegal, fmt.Sprintf("call %d: ", s.n)+fmt.Sprintf(format, args...))
}
