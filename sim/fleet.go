package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/coordinator"
	"hayrick/internal/dispatch"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/mem"
	"hayrick/ratelimit"
	"hayrick/retryplanner"
	"hayrick/worker"
)

// Fleet is a simulated world: processes with every role, which run their shipping code
// side by side on one store, one queue and one disk, in virtual time.
type Fleet struct {
	Plan      Plan
	Store     *mem.Store
	Journals  *worker.MemJournals
	Turnstile *Turnstile

	log     *slog.Logger
	scratch string
	closed  chan struct{} // the run is over: nothing is started any more

	running sync.WaitGroup
	mu      sync.Mutex // guards what follows
	procs   map[string]*Proc
	started int
	calls   int
	hash    uint64
	trace   []Event
	done    bool
	failure error
	jobID   string
	struck  int  // faults that were met
	late    bool // messages come once more when the job has ended
	deaths  int  // that an item has caused
	busy    bool // a person is not yet done
	spared  bool // no fault is met any more: the run is over
	ended   time.Duration
	changed []string
	sends   []time.Duration // when items that took a token did what it is for
}

// Plan is what a run of a fleet is made from.
type Plan struct {
	Seed       uint64
	Scenario   Scenario
	Submission coordinator.Submission
	Faults     Schedule
	// Limit ends a run that does not come to an end, in virtual time; 0 = 24 h.
	Limit time.Duration
	Trace bool // keep every event
}

// Event is one call of a port, as it reached the store.
type Event struct {
	N    int // from 1
	At   time.Duration
	Call mem.Call
}

func (e Event) String() string {
	return fmt.Sprintf("#%d %s %s %s.%s %s", e.N, e.At, e.Call.Actor, e.Call.Port, e.Call.Op, e.Call.Key)
}

// Proc is one process of a fleet.
type Proc struct {
	Name string
	dispatch.Roles

	f      *Fleet
	store  *mem.Store
	ctx    context.Context
	cancel context.CancelFunc
	dead   chan struct{}

	mu     sync.Mutex
	skew   time.Duration // of its clock
	frozen time.Time     // it does nothing before
	held   []worker.Journal
}

// what a call takes at least, and by how much it may take longer.
const (
	leastLatency = 2 * time.Millisecond
	moreLatency  = 8 * time.Millisecond
	restartAfter = time.Second
	pollEvery    = 5 * time.Second
	sweepEvery   = 30 * time.Second
)

// NewFleet is a world at Epoch. rest is synctest.Wait.
func NewFleet(plan Plan, scratch string, rest func()) *Fleet {
	f := &Fleet{
		Plan: plan, Turnstile: NewTurnstile(plan.Seed, rest), Journals: &worker.MemJournals{}, closed: make(chan struct{}),
		scratch: scratch, log: slog.New(slog.NewTextHandler(io.Discard, nil)), procs: map[string]*Proc{},
	}
	f.Store = mem.New(storeClock{f})
	f.Store.Poll, f.Store.KeepSent = pollEvery, true
	f.Store.Hook = f.arrive
	f.Store.Crash = func(c mem.Call) { f.Kill(c.Actor) }
	return f
}

// storeClock is that of the store.
type storeClock struct{ f *Fleet }

func (c storeClock) Now() time.Time { return c.f.Turnstile.Now() }
func (c storeClock) Sleep(ctx context.Context, d time.Duration) error {
	if !c.f.Turnstile.Pass(ctx, nil, d, "sleep", d.String()) {
		return ctx.Err()
	}
	return nil
}

// Now is the clock of a process.
func (p *Proc) Now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.f.Turnstile.Now().Add(p.skew)
}

// Sleep is its sleep.
func (p *Proc) Sleep(ctx context.Context, d time.Duration) error {
	if !p.pass(ctx, d, "sleep", d.String()) {
		if err := ctx.Err(); err != nil {
			return err
		}
		return context.Canceled
	}
	return nil
}

// pass is a pass of the turnstile by a process that may be dead, or stand still.
func (p *Proc) pass(ctx context.Context, d time.Duration, kind, what string) bool {
	for {
		if !p.f.Turnstile.Pass(ctx, p.dead, d, p.Name, kind, what) {
			return false
		}
		p.mu.Lock()
		d = p.frozen.Sub(p.f.Turnstile.Now())
		p.mu.Unlock()
		if d <= 0 {
			return true
		}
	}
}

// Go is its go.
func (p *Proc) Go(name string, fn func()) {
	p.f.running.Add(1)
	go func() {
		defer p.f.running.Done()
		p.pass(context.Background(), 0, "go", name) // and when it is dead: somebody waits for fn
		fn()
	}()
}

type procRand struct{ p *Proc }

func (r procRand) Uint64() uint64 { return r.p.f.Turnstile.Draw(r.p.Name, "rand") }

// arrive is what happens on the way of a call to the store.
func (f *Fleet) arrive(c mem.Call) mem.Fault {
	f.mu.Lock()
	p := f.procs[c.Actor]
	f.mu.Unlock()
	switch {
	case c.Actor == "":
		return mem.Fault{} // nobody of this world
	case p == nil:
		return mem.Fault{ErrBefore: context.Canceled} // it is dead
	}
	kind := c.Port + "." + c.Op
	latency := leastLatency + time.Duration(f.Turnstile.Draw(c.Actor, "latency", kind, c.Key)%uint64(moreLatency))
	if !p.pass(context.Background(), latency, kind, c.Key) {
		return mem.Fault{ErrBefore: context.Canceled}
	}
	at := Event{At: f.Turnstile.Now().Sub(Epoch), Call: c}
	f.mu.Lock()
	if f.spared {
		if changes(c) && strings.HasPrefix(c.Actor, again) {
			f.changed = append(f.changed, kind+" "+c.Key)
		}
		f.mu.Unlock()
		return mem.Fault{}
	}
	f.calls++
	at.N = f.calls
	f.hash = scramble(f.hash ^ mix(uint64(at.At), c.Actor, kind, c.Key))
	if f.Plan.Trace {
		f.trace = append(f.trace, at)
	}
	f.mu.Unlock()
	x := f.Plan.Faults.fault(f, at)
	if f.Plan.Scenario.Echo && c.Op == "Send" {
		x.Duplicate = true
	}
	return x
}

// Kill ends a process now: nothing that it still does has an effect.
func (f *Fleet) Kill(name string) {
	f.mu.Lock()
	p := f.procs[name]
	delete(f.procs, name)
	f.mu.Unlock()
	if p == nil {
		return
	}
	close(p.dead)
	p.cancel()
	p.mu.Lock()
	held := p.held
	p.held = nil
	p.mu.Unlock()
	for _, j := range held {
		j.Close(false)
	}
}

// Cut ends every process at once, as a loss of power does.
func (f *Fleet) Cut() {
	f.mu.Lock()
	names := slices.Sorted(maps.Keys(f.procs))
	f.mu.Unlock()
	for _, name := range names {
		f.Kill(name)
	}
}

// Proc is a process that lives, by its name.
func (f *Fleet) Proc(name string) *Proc {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.procs[name]
}

// Skew sets the clock of a process forward or back.
func (p *Proc) Skew(by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skew += by
}

// Freeze makes a process stand still.
func (p *Proc) Freeze(d time.Duration) {
	now := p.f.Turnstile.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = now.Add(d)
}

// born makes a process that does nothing yet.
func (f *Fleet) born(kind string) *Proc {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started++
	p := &Proc{Name: fmt.Sprintf("%s-%d", kind, f.started), f: f, dead: make(chan struct{})}
	f.procs[p.Name] = p
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.store = f.Store.As(p.Name, p)
	st, store, journals := p.store, &manifest.Store{Objects: p.store, Clock: p}, journals{p}
	world := hayrick.World{Clock: p, Rand: procRand{p}, Go: p.Go, Worker: p.Name}
	p.Coordinator = &coordinator.Coordinator{Store: store, State: st, Queue: st, Sources: st, Lister: st, World: world, Log: f.log, Scratch: f.scratch}
	p.Worker = &worker.Worker{
		Store: store, Claims: st, Marks: st, Queue: st, Inputs: st,
		Limiter: &ratelimit.Limiter{Store: st, World: world, Timing: ratelimit.OneMachine, Log: f.log}, Orders: p.Coordinator, Journals: journals,
		Jobs:  &worker.Jobs{Store: store, Handlers: p.handlers(), World: world, Log: f.log},
		World: world, Log: f.log, CodeVersion: "hayrick sim",
	}
	p.Planner = &retryplanner.Planner{Store: store, Inputs: st, Queue: st, World: world, Log: f.log, Scratch: f.scratch}
	p.Aggregator = &aggregator.Aggregator{
		Store: store, State: st, Queue: st, Blobs: st, Output: st, World: world, Log: f.log, CodeVersion: "hayrick sim",
		Temp: func() (manifest.Temp, error) { return journals.TempFile(p.ctx, hayrick.TaskRef{}, "") },
	}
	p.Queue = st
	return p
}

// handlers are those of a process.
func (p *Proc) handlers() jobs.Registry {
	return jobs.Registry{p.f.Plan.Submission.Definition.Handler.Builtin: func(context.Context, jobs.Env) (jobs.Handler, error) {
		if make := p.f.Plan.Scenario.Handler; make != nil {
			return make(p), nil
		}
		return Scripted{}, nil
	}}
}

// visit has a person come, and come again where the process dies or cannot go on.
func (f *Fleet) visit() {
	p := f.born("person")
	p.Go("main", func() {
		err := f.Plan.Scenario.Person(&Person{p})
		f.mu.Lock()
		delete(f.procs, p.Name)
		if err == nil && p.ctx.Err() == nil {
			f.busy = false
		}
		again := f.busy && f.failure == nil
		f.mu.Unlock()
		if again && f.Turnstile.Pass(context.Background(), f.closed, restartAfter, p.Name, "restart", "") {
			f.visit()
		}
	})
}

// start starts a process; submits says that it submits the job at first.
func (f *Fleet) start(submits bool) {
	p := f.born("process")
	if left := f.Plan.Scenario.Left; left > 0 {
		begun := f.Turnstile.Now()
		p.Worker.Left = func() time.Duration { return left - f.Turnstile.Now().Sub(begun) }
		p.Aggregator.Left = p.Worker.Left
		p.Go("end of time", func() {
			if p.pass(p.ctx, left, "end of time", "") {
				f.Kill(p.Name)
			}
		})
	}
	pool := &worker.Pool{Queue: p.Queue, World: p.Worker.World, Log: f.log, Slots: 1, Visibility: visibility, Do: p.Do()}
	p.Go("main", func() {
		defer f.replace(p, submits)
		if submits && !p.submit() {
			return
		}
		p.Go("sweep", p.sweep)
		pool.Run(p.ctx)
	})
}

func (p *Proc) submit() bool {
	for {
		s, err := p.Coordinator.Submit(p.ctx, p.f.Plan.Submission)
		if err == nil {
			p.f.mu.Lock()
			p.f.jobID = s.JobID
			p.f.mu.Unlock()
			return true
		}
		if p.Sleep(p.ctx, time.Second) != nil {
			return false
		}
	}
}

func (p *Proc) sweep() {
	every := sweepEvery
	for p.Sleep(p.ctx, every) == nil {
		p.f.mu.Lock()
		id := p.f.jobID
		p.f.mu.Unlock()
		if id == "" {
			continue
		}
		d, err := p.Coordinator.Sweep(p.ctx, id)
		if err == nil && d.Complete {
			p.f.mu.Lock()
			p.f.done = !p.f.busy
			p.f.mu.Unlock()
		}
	}
}

// replace starts a process in the place of one that has ended.
func (f *Fleet) replace(p *Proc, submits bool) {
	f.mu.Lock()
	again := !f.done && f.failure == nil
	submits = submits && f.jobID == ""
	f.mu.Unlock()
	if !again {
		return
	}
	f.running.Add(1)
	go func() {
		defer f.running.Done()
		if f.Turnstile.Pass(context.Background(), f.closed, restartAfter, p.Name, "restart", "") {
			f.start(submits)
		}
	}()
}

func (f *Fleet) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done || f.failure != nil
}

// errEndless is a run that does not end.
var errEndless = errors.New("the job does not end")

// Run runs the job to its end, and ends every process.
func (f *Fleet) Run() error {
	limit := f.Plan.Limit
	if limit == 0 {
		limit = 6 * time.Hour
	}
	for i := range max(1, f.Plan.Scenario.Processes) {
		f.start(i < max(1, f.Plan.Scenario.Submitters))
	}
	if f.Plan.Scenario.Person != nil {
		f.busy = true
		f.visit()
	}
	for !f.over() {
		if !f.Turnstile.Step() {
			f.fail(fmt.Errorf("%w: nobody waits for anything", errEndless))
		}
		if f.Turnstile.Now().Sub(Epoch) > limit {
			f.fail(fmt.Errorf("%w in %s", errEndless, limit))
		}
	}
	if f.failure == nil {
		f.resume()
	}
	if f.late && f.failure == nil {
		f.echo()
	}
	close(f.closed)
	f.Cut()
	for f.Turnstile.Step() {
	}
	f.running.Wait()
	return f.failure
}

// again is the process that does once more what has been done.
const again = "again"

// resume does once more what has been done, and asserts that nothing comes of it. The
// first time may mend what the last fault has broken.
func (f *Fleet) resume() {
	f.mu.Lock()
	f.spared, f.ended = true, f.Turnstile.Now().Sub(Epoch)
	f.mu.Unlock()
	p := f.born(again)
	ended := make(chan error, 1)
	p.Go("main", func() {
		var err error
		for range 2 {
			f.mu.Lock()
			f.changed = nil
			f.mu.Unlock()
			err = errors.Join(err, p.redo())
		}
		ended <- err
	})
	for len(ended) == 0 && f.failure == nil {
		if !f.Turnstile.Step() {
			f.fail(errors.New("what has ended is done again without end"))
		}
	}
	f.Kill(p.Name)
	if f.failure != nil {
		return
	}
	if err := <-ended; err != nil {
		f.fail(fmt.Errorf("I20: done again: %w", err))
	}
	if len(f.changed) > 0 {
		f.fail(fmt.Errorf("I20: what has ended and is done again calls %v", f.changed))
	}
}

// redo sweeps, plans and publishes what has been.
func (p *Proc) redo() error {
	d, err := p.Coordinator.Sweep(p.ctx, p.f.jobID)
	if err != nil {
		return err
	}
	if !d.Complete {
		return fmt.Errorf("a sweep finds it incomplete: %v", d)
	}
	g := 0
	for ; ; g++ {
		o, _, err := p.Coordinator.Store.Outcome(p.ctx, p.f.jobID, g)
		if errors.Is(err, hayrick.ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if o.Status != string(hayrick.JobSucceeded) {
			continue
		}
		if _, err := p.Planner.Plan(p.ctx, p.f.jobID, g, hayrick.GroupInitial); err != nil && !errors.Is(err, hayrick.ErrNotFound) {
			return err
		}
	}
	return p.Aggregator.Advance(p.ctx, p.f.jobID, g-1)
}

// echo delivers every message that was ever sent once more, and asserts that nothing
// comes of it.
func (f *Fleet) echo() {
	commits, objects := len(f.Store.Commits()), len(f.Store.Snapshot())
	var out []hayrick.Outgoing
	for _, m := range f.Store.Sent(hayrick.QueueTasks) {
		out = append(out, hayrick.Outgoing{Message: m})
	}
	if err := f.Store.Send(context.Background(), hayrick.QueueTasks, out...); err != nil {
		f.fail(err)
	}
	end := f.Turnstile.Now().Add(2 * time.Hour)
	for f.failure == nil {
		d, err := f.Store.Depth(context.Background(), hayrick.QueueTasks, f.jobID)
		if err != nil || !f.Turnstile.Step() || f.Turnstile.Now().After(end) {
			f.fail(fmt.Errorf("messages of a job that has ended are not worked off: %d are left, %v", d.Messages, err))
		}
		if d.Messages == 0 {
			break
		}
	}
	if c, o := len(f.Store.Commits()), len(f.Store.Snapshot()); c != commits || o != objects {
		f.fail(fmt.Errorf("messages that came after the end made %d commits and %d objects", c-commits, o-objects))
	}
}

func (f *Fleet) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure == nil {
		f.failure = err
	}
}

// JobID is the job that was submitted.
func (f *Fleet) JobID() string { return f.jobID }

// Hash is that of all events in order.
func (f *Fleet) Hash() uint64 { return f.hash }

// Calls is how many calls reached the store.
func (f *Fleet) Calls() int { return f.calls }

// Events are all events in order, where Plan.Trace asks for them.
func (f *Fleet) Events() []Event { return f.trace }

// journals are those of the machine, as one process holds them.
type journals struct{ p *Proc }

func (j journals) of(held worker.Journal, err error) (worker.Journal, error) {
	if err != nil {
		return nil, err
	}
	j.p.mu.Lock()
	j.p.held = append(j.p.held, held)
	j.p.mu.Unlock()
	return held, nil
}

func (j journals) alive() error {
	select {
	case <-j.p.dead:
		return context.Canceled
	default:
		return nil
	}
}

func (j journals) Open(ctx context.Context, ref hayrick.TaskRef, fp worker.Fingerprint) (worker.Journal, error) {
	if err := j.alive(); err != nil {
		return nil, err
	}
	return j.of(j.p.f.Journals.Open(ctx, ref, fp))
}

func (j journals) Create(ctx context.Context, ref hayrick.TaskRef, attempt string, fp worker.Fingerprint) (worker.Journal, error) {
	if err := j.alive(); err != nil {
		return nil, err
	}
	return j.of(j.p.f.Journals.Create(ctx, ref, attempt, fp))
}

func (j journals) Restore(ctx context.Context, ref hayrick.TaskRef, attempt string, fp worker.Fingerprint, snapshot io.Reader) (worker.Journal, error) {
	if err := j.alive(); err != nil {
		return nil, err
	}
	return j.of(j.p.f.Journals.Restore(ctx, ref, attempt, fp, snapshot))
}

func (j journals) TempFile(ctx context.Context, ref hayrick.TaskRef, attempt string) (manifest.Temp, error) {
	return j.p.f.Journals.TempFile(ctx, ref, attempt)
}
