package mem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// Call is one call of a port.
type Call struct {
	N     int    // running number over all calls, from 1
	Actor string // who calls: WithActor of its context
	Port  string // Objects, Outputs, Inputs, State, Buckets, Queue
	Op    string // the method
	Key   string // object key, task id, block, bucket or queue
}

func (c Call) String() string {
	return fmt.Sprintf("call %d: %s %s.%s %s", c.N, c.Actor, c.Port, c.Op, c.Key)
}

// Fault is what goes wrong with a call; the zero Fault is nothing. Several fields
// work together, in the order in which they stand here.
type Fault struct {
	StallBefore time.Duration // the call reaches the store late
	CrashBefore bool          // the caller dies before the call has an effect
	ErrBefore   error         // the call fails without effect
	Duplicate   bool          // the request arrives twice; the caller hears the second answer
	Drop        bool          // the request is lost, and the caller hears that all is well; for calls without an answer
	Stale       time.Duration // a listing leaves out what was written so short a time ago, as a file system over a network does
	StallAfter  time.Duration // the reply is late
	CrashAfter  bool          // the caller dies, the effect stays
	ErrAfter    error         // the effect stays, the reply is lost: the caller hears hayrick.ErrUnknown and this
}

// Crash is what a crashing call panics with. The wrapper of an actor recovers it
// and treats the actor's process as killed.
type Crash struct{ Call Call }

func (c Crash) String() string { return "crash at " + c.Call.String() }

// SimulatedCrash marks the panic as the end of a process, which no recover of a
// role may turn into a failure.
func (Crash) SimulatedCrash() {}

type actorKey struct{}

// WithActor names who makes the calls under the returned context.
func WithActor(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, actorKey{}, name)
}

// Actor is the name that WithActor gave, or "".
func Actor(ctx context.Context) string {
	name, _ := ctx.Value(actorKey{}).(string)
	return name
}

// who makes a call.
func (s *Store) who(ctx context.Context) string { return cmp.Or(Actor(ctx), s.actor) }

// do makes one port call: it numbers it, asks the hook, and carries out effect,
// which does its own locking, with what is to go wrong around it.
func do[T any](ctx context.Context, s *Store, port, op, key string, effect func() (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	s.mu.Lock()
	s.n++
	s.calls[op]++
	call := Call{N: s.n, Actor: s.who(ctx), Port: port, Op: op, Key: key}
	s.mu.Unlock()
	var f Fault
	if s.Hook != nil {
		f = s.Hook(call)
	}

	if f.StallBefore > 0 {
		if err := s.clock.Sleep(ctx, f.StallBefore); err != nil {
			return none, err
		}
	}
	if f.CrashBefore {
		return none, s.crash(call)
	}
	if f.ErrBefore != nil {
		return none, fmt.Errorf("%s %s: %w", op, key, f.ErrBefore)
	}
	var v T
	var err error
	if !f.Drop {
		v, err = effect()
		s.saw(call, v, err)
	} else {
		s.saw(call, nil, ErrDropped)
	}
	if f.Duplicate {
		v, err = effect()
		s.saw(call, v, err)
	}
	if f.Stale > 0 {
		v = stale(v, s.now().Add(-f.Stale))
	}
	if f.StallAfter > 0 {
		if err := s.clock.Sleep(ctx, f.StallAfter); err != nil {
			return none, err
		}
	}
	if f.CrashAfter {
		return none, s.crash(call)
	}
	if f.ErrAfter != nil {
		return none, fmt.Errorf("%s %s: %w: %w", op, key, hayrick.ErrUnknown, f.ErrAfter)
	}
	return v, err
}

// stale leaves out of a listing what was written after since.
func stale[T any](v T, since time.Time) T {
	if list, ok := any(v).([]manifest.Object); ok {
		list = slices.DeleteFunc(list, func(o manifest.Object) bool { return o.ModTime.After(since) })
		return any(list).(T)
	}
	return v
}

// ErrDropped is what Saw hears of a call that was lost.
var ErrDropped = errors.New("lost on its way")

func (s *Store) saw(c Call, v any, err error) {
	if s.Saw != nil {
		s.Saw(c, v, err)
	}
}

// crash ends the caller's process: what it still does has no effect.
func (s *Store) crash(call Call) error {
	if s.Crash == nil {
		panic(Crash{call})
	}
	s.Crash(call)
	return context.Canceled
}

// run is do for calls that answer nothing but an error.
func run(ctx context.Context, s *Store, port, op, key string, effect func() error) error {
	return give(ctx, s, port, op, key, nil, effect)
}

// give is run of a call that was given what Saw is to be shown.
func give(ctx context.Context, s *Store, port, op, key string, given any, effect func() error) error {
	_, err := do(ctx, s, port, op, key, func() (any, error) { return given, effect() })
	return err
}
