package lambdatest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"hayrick/infra"
)

// Function is a Lambda function. Its fields are not changed once it is invoked.
type Function struct {
	Name        string
	Binary      string   // bootstrap
	Env         []string // beside what Lambda sets
	MemoryMiB   int      // told, not enforced
	Timeout     time.Duration
	Concurrency int       // reserved: so many sandboxes at most
	Dir         string    // for their files
	Log         io.Writer // what the processes say; written to by several at once
	// Heard gets every event with its answer; nil = nobody does. It is called by several
	// at once.
	Heard func(event, answer []byte, err error)
	// Fault is what befalls the n-th invocation, from 0; nil = nothing.
	Fault func(n int) Fault

	mu     sync.Mutex // guards what follows
	idle   []*sandbox // the last used one last
	all    []*sandbox
	counts Counts
}

// Fault befalls an invocation when it has run for After; zero = none.
type Fault struct {
	After time.Duration
	Stall bool // stand still until the time is over; else end at once
}

// Counts are what happened to a function.
type Counts struct {
	Invocations int
	Starts      int // of processes
	Errors      int // that the function reported
	Exits       int // of the process in the middle
	Timeouts    int
}

// ErrThrottled: all the reserved concurrency is in use.
var ErrThrottled = errors.New("rate exceeded")

// FromStack reads a function's properties from the template: its logical id is Worker
// or Sweeper.
func FromStack(stack *infra.Stack, id string) (*Function, error) {
	r, ok := stack.Resource(id)
	if !ok {
		return nil, fmt.Errorf("the stack has no resource %s", id)
	}
	var p struct {
		FunctionName                 string
		Runtime, Handler             string
		Timeout, MemorySize          json.Number
		ReservedConcurrentExecutions json.Number
		Environment                  struct{ Variables map[string]string }
	}
	if err := convert(r.Properties, &p); err != nil {
		return nil, fmt.Errorf("read %s: %w", id, err)
	}
	if p.Runtime != "provided.al2023" || p.Handler != "bootstrap" {
		return nil, fmt.Errorf("%s runs %s on %s", id, p.Handler, p.Runtime)
	}
	f := &Function{Name: p.FunctionName}
	seconds, err1 := p.Timeout.Int64()
	memory, err2 := p.MemorySize.Int64()
	reserved, err3 := p.ReservedConcurrentExecutions.Int64()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("read %s: %w", id, err)
	}
	f.Timeout, f.MemoryMiB, f.Concurrency = time.Duration(seconds)*time.Second, int(memory), int(reserved)
	for name, value := range p.Environment.Variables {
		f.Env = append(f.Env, name+"="+value)
	}
	return f, nil
}

// convert decodes properties, whose numbers may be texts.
func convert(from, to any) error {
	b, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

// ARN is the function's.
func (f *Function) ARN() string { return "arn:aws:lambda:us-east-1:000000000000:function:" + f.Name }

// Invoke calls the function and waits for its answer.
func (f *Function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	s, n, err := f.take()
	if err != nil {
		return nil, err
	}
	i := &invocation{id: rand.Text(), payload: payload, ended: make(chan answer, 1)}
	var fault Fault
	if f.Fault != nil {
		fault = f.Fault(n)
	}
	body, err := s.invoke(ctx, i, fault)
	if f.Heard != nil {
		f.Heard(payload, body, err)
	}
	f.count(func(c *Counts) {
		var reported *FunctionError
		switch {
		case errors.Is(err, ErrTimeout):
			c.Timeouts++
		case errors.Is(err, ErrExit):
			c.Exits++
		case errors.As(err, &reported):
			c.Errors++
		}
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, s)
	return body, err
}

// take gives a warm sandbox, or a new one while there may be more.
func (f *Function) take() (s *sandbox, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(f.idle) > 0:
		s = f.idle[len(f.idle)-1]
		f.idle = f.idle[:len(f.idle)-1]
	case len(f.all) >= f.Concurrency:
		return nil, 0, ErrThrottled
	default:
		if s, err = newSandbox(f, len(f.all)); err != nil {
			return nil, 0, err
		}
		f.all = append(f.all, s)
	}
	f.counts.Invocations++
	return s, f.counts.Invocations - 1, nil
}

func (f *Function) count(add func(*Counts)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	add(&f.counts)
}

// Counts is what has happened so far.
func (f *Function) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts
}

// Close ends all processes. Nothing may be under way.
func (f *Function) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.all {
		s.stop()
	}
}

// Leftovers lists what the processes wrote where Lambda lets nobody write.
func (f *Function) Leftovers() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, s := range f.all {
		out = append(out, s.leftovers()...)
	}
	return out
}
