package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/coordinator"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/mem"
	"hayrick/ratelimit"
	"hayrick/retryplanner"
	"hayrick/worker"
)

// World is a store, a clock and the handlers of the jobs that run in it.
type World struct {
	Store    *mem.Store
	Clock    *Clock
	Rand     *Rand
	Handlers jobs.Registry
	Journals *worker.MemJournals // the disk of the one machine there is
	Log      *slog.Logger
	Scratch  string // a real folder, for spools

	started int
}

// New is an empty world.
func New(seed uint64, handlers jobs.Registry, scratch string) *World {
	clock := NewClock()
	return &World{
		Store: mem.New(clock), Clock: clock, Rand: NewRand(seed), Handlers: handlers,
		Journals: &worker.MemJournals{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Scratch: scratch,
	}
}

// Process is one process of the world, with all roles.
type Process struct {
	Name        string
	Coordinator *coordinator.Coordinator
	Worker      *worker.Worker
	Planner     *retryplanner.Planner
	Aggregator  *aggregator.Aggregator

	world *World
}

// Start starts a process under a name of its own.
func (w *World) Start() *Process {
	w.started++
	name := fmt.Sprintf("process-%d", w.started)
	world := hayrick.World{Clock: w.Clock, Rand: w.Rand, Go: InOrder, Worker: name}
	store := &manifest.Store{Objects: w.Store, Clock: w.Clock}
	c := &coordinator.Coordinator{
		Store: store, State: w.Store, Queue: w.Store, Sources: w.Store, Lister: w.Store, World: world, Log: w.Log, Scratch: w.Scratch,
	}
	return &Process{
		Name: name, world: w, Coordinator: c,
		Worker: &worker.Worker{
			Store: store, Claims: w.Store, Marks: w.Store, Queue: w.Store, Inputs: w.Store,
			Limiter: &ratelimit.Limiter{Store: w.Store, World: world}, Orders: c, Journals: w.Journals,
			Jobs:  &worker.Jobs{Store: store, Handlers: w.Handlers, World: world, Log: w.Log},
			World: world, Log: w.Log, CodeVersion: "hayrick sim",
		},
		Planner: &retryplanner.Planner{Store: store, Inputs: w.Store, Queue: w.Store, World: world, Log: w.Log, Scratch: w.Scratch},
		Aggregator: &aggregator.Aggregator{
			Store: store, State: w.Store, Queue: w.Store, Blobs: w.Store, Output: w.Store, World: world, Log: w.Log, CodeVersion: "hayrick sim",
			Temp: func() (manifest.Temp, error) { return w.Journals.TempFile(context.Background(), hayrick.TaskRef{}, "") },
		},
	}
}

// InOrder is the goroutine of a World that has none. What only watches a clock would
// spin on one that jumps, and is left out; anything else runs to its end at once.
func InOrder(name string, f func()) {
	switch name {
	case "renew", "deadline", "timeout", "drain", "keep":
		return
	}
	f()
}

// visibility hides a received message, as a lease holds a task.
const visibility = time.Minute

// Step takes one message and plays its role, or sweeps the job when there is none.
// It answers whether the job has its outcome and nothing is left to be done.
func (p *Process) Step(ctx context.Context, jobID string) (finished bool, err error) {
	ctx = mem.WithActor(ctx, p.Name)
	ds, err := p.world.Store.Receive(ctx, hayrick.QueueTasks, 1, visibility, 0)
	if err != nil {
		return false, fmt.Errorf("receive: %w", err)
	}
	if len(ds) == 0 {
		p.world.Clock.Sleep(ctx, time.Second)
		d, err := p.Coordinator.Sweep(ctx, jobID)
		if err != nil {
			return false, err
		}
		return d.Complete, nil
	}
	return false, p.Deliver(ctx, ds[0])
}

// Deliver plays the role of a message and settles it.
func (p *Process) Deliver(ctx context.Context, d hayrick.Delivery) error {
	again, ack, err := p.play(ctx, d)
	if err == nil && ack {
		return p.world.Store.Ack(ctx, hayrick.QueueTasks, d)
	}
	return errors.Join(err, p.world.Store.Extend(ctx, hayrick.QueueTasks, again, d))
}

func (p *Process) play(ctx context.Context, d hayrick.Delivery) (again time.Duration, ack bool, err error) {
	switch d.Role {
	case hayrick.RoleWorker:
		v, err := p.Worker.Attempt(ctx, d)
		return v.Again, v.Ack, err
	case hayrick.RoleRetryPlanner:
		_, err := p.Planner.Plan(ctx, d.JobID, d.Generation, d.Group)
		return time.Second, true, err // not closed: the sweeper repairs the block
	case hayrick.RoleAggregator:
		v, err := p.Aggregator.Do(ctx, d)
		return v.Again, v.Ack, err
	}
	return 0, true, fmt.Errorf("a message of role %q", d.Role)
}
