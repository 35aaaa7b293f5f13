package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
	"hayrick/worker"
)

const (
	// visibility hides a message in hand; the pool extends it. A process that dies frees
	// its messages at once, so this is for one that stands still.
	visibility = time.Minute
	// sweepEvery is how often a run is swept while it is worked on, and lookEvery how
	// often its progress is read.
	sweepEvery = time.Second
	lookEvery  = 500 * time.Millisecond
	// lookShare bounds the reading to a twentieth of the time, however large the run.
	lookShare = 20
	// maxFaults is how often in a row one role may fail before the process gives up.
	maxFaults = 20
)

// stopper ends the draining of a queue, once, for one reason.
type stopper struct {
	stopped chan struct{}
	once    sync.Once
	why     error // nil: the work is done
}

func newStopper() *stopper { return &stopper{stopped: make(chan struct{})} }

// stop makes the pool receive nothing more and the worker end what it has in hand
// and hand it back.
func (s *stopper) stop(why error) {
	s.once.Do(func() {
		s.why = why
		close(s.stopped)
	})
}

// errInterrupted is the end by the first interrupt.
var errInterrupted = errors.New("interrupted")

// pausedError is the end because a job waits for a person.
type pausedError struct {
	jobID, reason, hint string
	exit                int
}

func (e *pausedError) Error() string { return fmt.Sprintf("%s is paused: %s", e.jobID, e.reason) }

// drive works on the queue in this process until a job has ended (or all have), a
// person stops it, or it cannot go on.
type drive struct {
	*roles
	progress *progress // nil: none is shown
	jobID    string    // the run it is to end; "" = all of the store

	wake chan struct{} // something may have ended
	pace pace          // of looks and sweeps
	wait time.Duration // until the next look: longer while nothing changes

	mu      sync.Mutex
	faults  map[hayrick.Role]int // in a row
	inHand  int
	resting bool             // nothing has been delivered since it was idle
	worked  time.Time        // when the last delivery ended
	waits   time.Time        // until then a message waits that met a fault
	left    map[string]error // runs that are left alone, and why
}

// ballastBytes is memory that is asked for and never touched, so that the system
// gives none. To Go it is in use: garbage may grow by as much again before it is
// collected. What work has in use is some MB, whatever the job.
const ballastBytes = 16 << 20

// run drains the queue with slots tasks at once. look is asked again and again, and
// at once when something may have ended, how things stand; done ends the drive. The
// error is why it ended before.
func (d *drive) run(ctx context.Context, slots int, look func(context.Context) (done bool, err error)) error {
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	d.wake, d.pace = make(chan struct{}, 1), d.roles.pace()
	d.wait = d.pace.look
	d.faults, d.worked = map[hayrick.Role]int{}, time.Now()
	pool := d.pool(slots)
	for role, do := range pool.Do {
		pool.Do[role] = d.watched(role, do)
	}
	pool.Idle = func(context.Context) bool { d.idled(); return false }
	pool.GiveUp = func(err error) bool { return exitCode(err) == exitPermission } // a queue that is gone may come back
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.world.Go("interrupt", func() {
		select {
		case <-d.drain:
			d.tell("ending what is in hand; interrupt again to stop at once")
			d.stop.stop(errInterrupted)
		case <-ctx.Done():
		}
	})
	watched := make(chan struct{})
	d.world.Go("watch", func() {
		defer close(watched)
		d.watch(ctx, look)
	})
	err := pool.Run(ctx)
	if ctx.Err() != nil {
		d.stop.stop(errInterrupted) // by the second one
	}
	d.stop.stop(err)
	<-watched
	return d.stop.why
}

// watch looks how things stand.
func (d *drive) watch(ctx context.Context, look func(context.Context) (bool, error)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for fails := 0; ; {
		select {
		case <-d.wake:
		case <-timer.C:
		case <-d.stop.stopped:
			return
		case <-ctx.Done():
			return
		}
		start := time.Now()
		done, err := look(ctx)
		switch {
		case err == nil && done:
			d.stop.stop(nil)
			return
		case err == nil:
			fails = 0
		case ctx.Err() != nil:
			return
		case fails < maxFaults && !hopeless(err) && !errors.As(err, new(*pausedError)):
			fails++
			d.log.Warn("the run cannot be looked at; trying again", hayrick.KeyError, err)
		default:
			if d.stop.stop(err); errors.As(err, new(*pausedError)) && d.hasInHand() {
				d.tell("it is paused; ending what is in hand (interrupt twice to stop at once)")
			}
			return
		}
		timer.Reset(max(d.wait, lookShare*time.Since(start)))
	}
}

// nudge makes watch look now.
func (d *drive) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// idled is called again and again while there is no work: the first time is a reason to
// look, for what was worked on may have been the last.
func (d *drive) idled() {
	d.mu.Lock()
	first := !d.resting
	d.resting = true
	d.mu.Unlock()
	if first || d.pace == localPace {
		d.nudge()
	}
}

// watched is do, with an eye on what a process cannot mend by trying again: it ends
// then, rather than to try for ever.
func (d *drive) watched(role hayrick.Role, do worker.Do) worker.Do {
	return func(ctx context.Context, m hayrick.Delivery) (worker.Verdict, error) {
		if d.leaves(m.JobID) {
			return worker.Verdict{Again: m.AfterFault(), Because: "its run is left alone"}, nil
		}
		d.count(1)
		defer d.count(-1)
		v, err := do(ctx, m)
		if ofOneRun(err) && m.JobID != d.jobID {
			d.leave(ctx, m.JobID, err)
			return worker.Verdict{Again: m.AfterFault(), Because: "its run is left alone"}, nil
		}
		if err != nil {
			d.await(v.Again)
		}
		if d.judge(role, err, ctx) {
			d.stop.stop(err)
		}
		if err == nil && role == hayrick.RoleAggregator && m.TaskID == "" {
			d.nudge() // it may have been the last step
		}
		return v, err
	}
}

// judge says that err, or having failed so often, is a reason to give up.
func (d *drive) judge(role hayrick.Role, err error, ctx context.Context) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil || ctx.Err() != nil {
		d.faults[role] = 0
		return false
	}
	d.faults[role]++
	return d.faults[role] >= maxFaults || hopeless(err)
}

func (d *drive) count(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inHand += n
	d.resting = false
	d.worked = time.Now()
}

func (d *drive) hasInHand() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inHand > 0
}

// await counts a message that met a fault as work until it is shown again: the last
// process in the store does not leave meanwhile.
func (d *drive) await(again time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at := time.Now().Add(again); at.After(d.waits) {
		d.waits = at
	}
}

// idle is for how long nothing has been in hand, or waited for while there is an
// unfinished run: where there is none, nothing can come of a message that fails.
func (d *drive) idle(unfinished bool) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.inHand > 0:
		return 0
	case !unfinished:
		return time.Since(d.worked)
	}
	return min(time.Since(d.worked), time.Since(d.waits))
}

// corrupted says that err is of what one run consists of.
func corrupted(err error) bool { return errors.Is(err, hayrick.ErrCorrupt) }

// ofOneRun says that err is damage to one run, or that this process may not use what one
// run consists of, reads or publishes. It cannot go on with that run, and it is no reason
// to leave another.
func ofOneRun(err error) bool { return corrupted(err) || errors.Is(err, hayrick.ErrDenied) }

// leave leaves a run alone from now on, and names it once. Its messages are put back: who
// works on the store when it is mended, or is allowed more than this process, goes on
// with them.
func (d *drive) leave(ctx context.Context, jobID string, err error) {
	d.mu.Lock()
	_, known := d.left[jobID]
	if !known {
		if d.left == nil {
			d.left = map[string]error{}
		}
		d.left[jobID] = err
	}
	d.mu.Unlock()
	if known || d.json { // the object at the end names it
		return
	}
	if !corrupted(err) {
		e := complaintOf(err)
		d.mustTell("%s %s is left alone: %s\n  %s; the other runs go on, and %s goes on with this one then",
			d.paint(red, "warning:"), jobID, e.Error, d.advice(e.Hint), d.command("worker"))
		return
	}
	or := ""
	if _, _, err := d.manifests.Plan(ctx, jobID); err == nil { // it takes no more than that
		or = ", and " + d.command("cancel") + " " + jobID + " ends it without"
	}
	d.mustTell("%s %s is damaged and left alone: %s\n  hayrick audit %s names what is damaged; a backup of it, put back, mends the run%s",
		d.paint(red, "warning:"), jobID, firstLine(err.Error()), jobID, or)
}

// leaves says that a run is left alone.
func (d *drive) leaves(jobID string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left[jobID] != nil
}

// hopeless says that trying again here and now changes nothing. A file that is gone
// may be one that another process had in hand; an object that is gone stays so.
func hopeless(err error) bool {
	switch exitCode(err) {
	case exitPermission, exitUsage:
		return true
	case exitNotFound:
		var user *hayrick.UserError
		return errors.Is(err, hayrick.ErrNotFound) || errors.As(err, &user)
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, hayrick.ErrCorrupt)
}

// follow looks at one job, which has just been swept: it sweeps it again and again,
// shows its progress, and is done when its generation has ended and everything that
// follows from that is there.
func (d *drive) follow(jobID string) func(context.Context) (bool, error) {
	begun := time.Now()
	swept, seen := begun, ""
	return func(ctx context.Context) (bool, error) {
		k, dec, err := d.known(ctx, jobID)
		if err != nil {
			return false, err
		}
		if now := changeOf(k); now != seen {
			seen, d.wait = now, d.pace.look
		} else {
			d.wait = min(2*d.wait, d.pace.slowest)
		}
		if b := coordinator.BudgetOf(k, coordinator.Apply(k.Orders, k.Generation)); b != nil && b.USD > 0 {
			// No look may come so late that the run has gone far beyond what the last one saw.
			d.wait = min(d.wait, max(lookEvery, time.Since(begun)/10))
		}
		if d.progress != nil {
			d.progress.show(k, dec)
		}
		switch {
		case dec.Complete:
			return true, nil
		case dec.Status == hayrick.StatusPaused && dec.State == nil && !dec.View && dec.Pause == nil:
			return false, d.pausedBy(k)
		case time.Since(swept) < d.pace.sweep && dec.Pause == nil: // a budget does not wait
			return false, nil
		}
		swept = time.Now()
		if dec, err = d.coordinator.Repair(ctx, k); dec.Cancel || dec.View || dec.Pause != nil {
			d.nudge() // what was looked for may be there now
		}
		return false, err
	}
}

// pausedBy is why a run is paused, and what a person does next.
func (c *cli) pausedBy(k *coordinator.Known) *pausedError {
	e := &pausedError{jobID: k.Plan.JobID, reason: c.reasonOf(k), hint: "hayrick resume " + k.Plan.JobID, exit: pausedExit(k)}
	for _, o := range k.Orders { // the last pause is the one in force
		if o.Order != manifest.OrderPause || o.Generation != k.Generation {
			continue
		}
		e.hint = "hayrick resume " + k.Plan.JobID
		switch {
		case strings.HasPrefix(o.Rule, coordinator.RuleBudget):
			e.hint += " --budget <more>"
		case strings.HasPrefix(o.Rule, coordinator.RuleWall):
			e.hint += " --wall <more>"
		case strings.HasPrefix(o.Rule, worker.RuleInputChanged):
			e.hint = "restore the file first, then " + e.hint
		}
	}
	return e
}

// pausedExit is the exit code of a run that is paused.
func pausedExit(k *coordinator.Known) int {
	if coordinator.ByBudget(coordinator.Apply(k.Orders, k.Generation).Rule) {
		return exitBudget
	}
	return exitUnwell
}

// reasonOf is why a run is paused, as its order says it, with commands that work as
// they are pasted.
func (c *cli) reasonOf(k *coordinator.Known) string {
	return c.advise(coordinator.Apply(k.Orders, k.Generation).Reason, c.again(k.Plan))
}
