package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/audit"
	"hayrick/coordinator"
	"hayrick/manifest"
	"hayrick/ratelimit"
	"hayrick/retryplanner"
	"hayrick/worker"
)

// Objects is the object store of all roles.
type Objects interface {
	manifest.Objects
	manifest.Remover
	aggregator.Blobs
	audit.Blobs
}

// Outputs are the published folders.
type Outputs interface {
	aggregator.Output
	audit.Output
}

// State is the state store of all roles.
type State interface {
	worker.Claims
	worker.Marks
	coordinator.State
	aggregator.State
}

// Queue is the queue of all roles.
type Queue interface {
	worker.Queue
	coordinator.Queue
	retryplanner.Queue
	aggregator.Queue
}

// Inputs are the inputs of job files, for all roles.
type Inputs interface {
	worker.Inputs
	coordinator.Sources
	retryplanner.Inputs
	audit.Inputs
}

// Ports is one process's view of a store. A nil port is not tested.
type Ports struct {
	Ctx     context.Context // of every call; nil = context.Background()
	Clock   hayrick.Clock   // the store's
	Worker  string          // the name of the process
	Objects Objects
	Outputs Outputs
	State   State
	Queue   Queue
	Buckets ratelimit.Store
	Inputs  Inputs

	// Scale is how long leases and visibilities last; 0 = 30 s, for a clock that costs
	// no time. Queues of some services count whole seconds.
	Scale time.Duration
	// Poll is how long a queue may take to show what is there.
	Poll time.Duration

	OutputURI string                                // a folder that does not exist yet
	SetInput  func(name string, data []byte) string // stores an input and returns its uri
	Another   func(t *testing.T) Ports              // the same store, seen by another process
	Kill      func()                                // ends this process as kill -9 does; nil = nobody notices
}

// Run tries every promise of the ports, each on a fresh store.
func Run(t *testing.T, open func(t *testing.T) Ports) {
	start := func(t *testing.T) *harness {
		p := open(t)
		return newHarness(t, p)
	}
	for _, group := range []struct {
		name  string
		has   func(Ports) bool
		tests map[string]func(*harness)
	}{
		{"Objects", func(p Ports) bool { return p.Objects != nil }, objectTests},
		{"Outputs", func(p Ports) bool { return p.Outputs != nil }, outputTests},
		{"Inputs", func(p Ports) bool { return p.Inputs != nil }, inputTests},
		{"State", func(p Ports) bool { return p.State != nil }, stateTests},
		{"Queue", func(p Ports) bool { return p.Queue != nil }, queueTests},
		{"Repair", func(p Ports) bool { return p.Objects != nil && p.State != nil && p.Queue != nil && p.Inputs != nil }, repairTests},
		{"Buckets", func(p Ports) bool { return p.Buckets != nil }, bucketTests},
	} {
		for _, name := range slices.Sorted(maps.Keys(group.tests)) {
			t.Run(group.name+"/"+name, func(t *testing.T) {
				if h := start(t); group.has(h.Ports) {
					group.tests[name](h)
				}
			})
		}
	}
}

// harness is a test with its view of the store.
type harness struct {
	*testing.T
	Ports
}

// another is the store as another process sees it, under the same test.
func (h *harness) another() *harness {
	p := h.Another(h.T)
	if p.Ctx == nil {
		p.Ctx = h.Ctx
	}
	return newHarness(h.T, p)
}

func newHarness(t *testing.T, p Ports) *harness {
	if p.Ctx == nil {
		p.Ctx = t.Context()
	}
	if p.Scale == 0 {
		p.Scale = 30 * time.Second
	}
	return &harness{T: t, Ports: p}
}

// die ends the process as kill -9 does, and lets the others notice: at once where
// the store knows its processes, else when its leases and visibilities end.
func (h *harness) die() {
	h.Helper()
	if h.Kill != nil {
		h.Kill()
		h.pass(time.Second)
		return
	}
	h.pass(h.Scale + time.Second)
}

// must ends the test when a call that has to work does not.
func (h *harness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// is checks which sentinel an error wraps.
func (h *harness) is(err, want error) {
	h.Helper()
	if !errors.Is(err, want) {
		h.Fatalf("error is %v, want %v", err, want)
	}
}

// pass lets d pass on the store's clock.
func (h *harness) pass(d time.Duration) {
	h.Helper()
	h.must(h.Clock.Sleep(h.Ctx, d))
}

// read returns a range of an object.
func (h *harness) read(key string, offset, length int64) string {
	h.Helper()
	r, err := h.Objects.Open(h.Ctx, key, offset, length)
	h.must(err)
	return h.drain(r)
}

func (h *harness) drain(r io.ReadCloser) string {
	h.Helper()
	b, err := io.ReadAll(r)
	h.must(err)
	h.must(r.Close())
	return string(b)
}

func (h *harness) put(key, data string) {
	h.Helper()
	h.must(h.Objects.Put(h.Ctx, key, bytes.NewReader([]byte(data))))
}

// together runs f n times at once and waits for all.
func together(n int, f func(i int)) {
	var start, done sync.WaitGroup
	start.Add(1)
	for i := range n {
		done.Go(func() {
			start.Wait()
			f(i)
		})
	}
	start.Done()
	done.Wait()
}
