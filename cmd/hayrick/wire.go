package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"hayrick/aggregator"
	"hayrick/coordinator"
	"hayrick/internal/dispatch"
	"hayrick/internal/rows"
	"hayrick/jobs"
	"hayrick/jobs/backfill"
	"hayrick/jobs/extproc"
	"hayrick/jobs/noop"
	"hayrick/local"
	"hayrick/manifest"
	"hayrick/ratelimit"
	"hayrick/retryplanner"
	"hayrick/worker"
)

// handlers is what a job file may name as handler.builtin.
var handlers = jobs.Registry{
	backfill.Name: backfill.Factory,
	noop.Name:     noop.Factory,
	jobs.External: extproc.Supervised,
}

// roles is the whole of Hayrick on one store, wired as the diagram of the design:
//
//	store -> coordinator -> tasks -> worker -> results -> retry planner -> aggregator
//	           limits ----------------^
type roles struct {
	*cli

	store       backend
	timing      ratelimit.Timing
	lister      coordinator.Lister
	manifests   *manifest.Store
	coordinator *coordinator.Coordinator
	limits      *meter
	jobs        *worker.Jobs
	worker      *worker.Worker
	planner     *retryplanner.Planner
	aggregator  *aggregator.Aggregator

	stop *stopper // ends the draining of the queue
}

// open opens the store, making it where it is missing, with what it takes to look
// at runs and to give orders.
func open(ctx context.Context, c *cli) (*roles, error) {
	st, timing, err := openBackend(ctx, c)
	if err != nil {
		return nil, err
	}
	return on(c, st, timing), nil
}

// on is open on a store at hand.
func on(c *cli, st backend, timing ratelimit.Timing) *roles {
	r := &roles{cli: c, store: st, timing: timing, lister: st, stop: newStopper()}
	r.manifests = &manifest.Store{Objects: st, Clock: c.world.Clock}
	r.coordinator = &coordinator.Coordinator{
		Store: r.manifests, State: st, Queue: st, Sources: st, Lister: st, World: c.world, Log: c.log, Money: c.money(),
	}
	if c.onAWS() { // it looks again and again, and each look has a price
		r.coordinator.Store = &manifest.Store{Objects: remember(st), Clock: c.world.Clock}
	}
	return r
}

// openToRead opens a store that is there to look at its objects alone: nothing in it is
// touched, and read permission is enough.
func openToRead(ctx context.Context, c *cli) (*roles, reads, error) {
	st, err := openReads(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	return &roles{cli: c, lister: st, manifests: &manifest.Store{Objects: st, Clock: c.world.Clock}}, st, nil
}

// openToWork is open with every role, and the scratch that they need.
func openToWork(ctx context.Context, c *cli) (*roles, error) {
	r, err := open(ctx, c)
	if err != nil {
		return nil, err
	}
	scratch, err := local.ScratchDir(c.scratchBase(), c.get)
	if err != nil {
		return nil, errors.Join(temporary(err), r.close())
	}
	r.work(scratch)
	return r, nil
}

// work adds the roles that do something.
func (r *roles) work(scratch string) {
	c, st := r.cli, r.store
	r.coordinator.Scratch = scratch
	r.limits = &meter{granted: map[string]int64{}, Limiter: &ratelimit.Limiter{Store: st, World: c.world, Timing: r.timing, Log: c.log}}
	r.jobs = &worker.Jobs{Store: r.manifests, Handlers: handlers, World: c.world, Log: c.log, Bundles: scratch}
	r.worker = &worker.Worker{
		Store: r.manifests, Claims: st, Marks: st, Queue: st, Inputs: st, Limiter: r.limits, Orders: r.coordinator,
		Journals: worker.FileJournals{Dir: scratch, BootID: bootID()}, Jobs: r.jobs,
		World: c.world, Log: c.log, CodeVersion: codeVersion(), Drain: r.stop.stopped,
	}
	if c.memoryMax > 0 {
		r.worker.Turns, r.worker.GroupBytes = fileShare(int64(c.memoryMax), runtime.GOMAXPROCS(0))
	}
	if c.get(runtimeAPI) == "" { // nobody looks into the scratch of a function
		r.worker.LiveLogs = worker.FileLogs{Dir: scratch}
	}
	r.planner = &retryplanner.Planner{Store: r.manifests, Inputs: st, Queue: st, World: c.world, Log: c.log, Scratch: scratch}
	r.aggregator = &aggregator.Aggregator{
		Store: r.manifests, State: st, Queue: st, Blobs: st, Output: st, World: c.world, Log: c.log, CodeVersion: codeVersion(), Memory: int64(c.memoryMax), Cores: runtime.GOMAXPROCS(0), Busy: c.collectMore,
		Temp: func() (manifest.Temp, error) { return unnamedFile(scratch) },
	}
}

// fileShare is how many tasks may write the files of their rows at once, in so much memory
// and on so many cores, and how large the row groups of these may get: a row group in the
// making takes its values twice, and some MB of pages.
func fileShare(memory int64, cores int) (turns chan struct{}, groupBytes int64) {
	const others, least = 64 << 20, 4 << 20 // of a process that writes none; of a row group
	free := max(memory-others, others)
	n := max(1, min(int64(cores), free/others))
	return make(chan struct{}, n), min(max(free/n/5, least), rows.DefaultGroupBytes)
}

// collectMore has the collector leave half as much garbage as usual while files are
// merged: the heap is then a few large pieces without pointers, which cost nothing to
// mark and much to have twice.
func (c *cli) collectMore(merging bool) {
	switch {
	case c.get("GOGC") != "":
	case merging:
		debug.SetGCPercent(50)
	default:
		debug.SetGCPercent(100)
	}
}

func (r *roles) close() error {
	var err error
	if r.jobs != nil {
		err = r.jobs.Close()
	}
	return errors.Join(err, r.store.Close())
}

// pool drains the queue of tasks with every role.
func (r *roles) pool(slots int) *worker.Pool {
	return &worker.Pool{
		Queue: r.store, World: r.world, Log: r.log, Slots: slots, Visibility: visibility, Drain: r.stop.stopped,
		Do: r.plays().Do(),
	}
}

// plays is what the process does with messages.
func (r *roles) plays() *dispatch.Roles {
	return &dispatch.Roles{Coordinator: r.coordinator, Worker: r.worker, Planner: r.planner, Aggregator: r.aggregator, Queue: r.store}
}

// bootID names this start of the machine: journals of an earlier one are not used.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // not Linux: a journal is taken for what it says
	}
	return strings.TrimSpace(string(b))
}

// unnamedFile is a scratch file that is gone with the process, however that ends.
func unnamedFile(dir string) (manifest.Temp, error) {
	f, err := os.CreateTemp(dir, "merge-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("make a scratch file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("unlink a scratch file: %w", err)
	}
	return f, nil
}
