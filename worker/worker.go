package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// Worker runs attempts of worker tasks. All fields but Drain, Left,
// GroupBytes, Turns and LiveLogs are required.
type Worker struct {
	Store    *manifest.Store
	Claims   Claims
	Marks    Marks
	Queue    Queue
	Inputs   Inputs
	Limiter  Limiter
	Orders   Orders
	Journals Journals
	Jobs     *Jobs // open jobs: plan, definition, handler
	World    hayrick.World
	Log      *slog.Logger
	// CodeVersion is the binary's; results carry it with the bundle's digest.
	CodeVersion string
	// Drain, when closed, asks attempts to end what is in hand, hand back and leave.
	Drain <-chan struct{}
	// Left is how long the process may still run; nil = as long as it takes. Attempts
	// hand back before it is over (HandBack), as they do at task_timeout.
	Left func() time.Duration
	// GroupBytes is how many bytes of values end a row group of a task's file, so much is
	// held of it while it is written; 0 = rows.DefaultGroupBytes.
	GroupBytes int64
	// Turns has room for as many as may write such files at once; nil = all.
	Turns chan struct{}
	// LiveLogs shows what handlers write while their tasks run; nil = nobody is here to
	// see it.
	LiveLogs LiveLogs
}

// Verdict is what becomes of a message after an attempt.
type Verdict struct {
	Ack   bool          // done with it, whatever the reason
	Again time.Duration // else show it again after this
	// Because says why in words, for the log.
	Because string
}

func ack(because string) Verdict { return Verdict{Ack: true, Because: because} }

func again(d time.Duration, because string, args ...any) Verdict {
	return Verdict{Again: d, Because: fmt.Sprintf(because, args...)}
}

// fault is the verdict of an attempt that could not go on: when to try again is for
// Attempt to say.
func fault(doing string) Verdict { return Verdict{Because: doing} }

// Attempt tries the task that d points at. An error means that the attempt could
// not go on; nothing is committed then and the verdict says when to try again.
func (w *Worker) Attempt(ctx context.Context, d hayrick.Delivery) (Verdict, error) {
	v, err := w.attempt(ctx, d)
	if err != nil {
		v = again(d.AfterFault(), "%s", v.Because)
	}
	return v, err
}

func (w *Worker) attempt(ctx context.Context, d hayrick.Delivery) (Verdict, error) {
	st, err := w.state(ctx, d.JobID)
	if err != nil {
		return fault("read job state"), err
	}
	if because, refused := Refused(st, d.Generation); refused {
		return ack(because), nil
	}
	job, err := w.Jobs.Open(ctx, d.JobID, d.Generation)
	if errors.Is(err, hayrick.ErrNotFound) {
		return ack("the job has no plan"), nil
	}
	if err != nil {
		return fault("open job"), fmt.Errorf("open job %s: %w", d.JobID, err)
	}
	t, err := w.task(ctx, job, d)
	if errors.Is(err, hayrick.ErrNotFound) {
		return ack("no such task"), nil
	}
	if err != nil {
		return fault("read the task"), err
	}
	if d.Count > 1 { // a redelivery: whoever had it may have finished
		switch done, err := t.finished(ctx); {
		case err != nil:
			return fault("read the result"), err
		case done:
			return ack("already done"), nil
		}
	}
	a := &attemptRun{task: t, id: w.World.NewAttemptID(), start: w.World.Clock.Now(), stalls: d.Stalls}
	if w.Left != nil {
		a.lent = w.Left()
	}
	// A lost reply is asked for again: the same attempt gets the claim that it may
	// already have, instead of leaving it to run out.
	err = decided(func() (err error) {
		a.claim, err = w.Claims.Claim(ctx, hayrick.ClaimAsk{
			TaskRef: t.ref, Attempt: a.id, Worker: w.World.Worker, Lease: job.Definition.Run.Lease.D(),
		})
		return err
	})
	if errors.Is(err, hayrick.ErrConflict) {
		return heldBy(d, a.claim, w.World.Clock.Now()), nil
	}
	// A crash from here to the commit leaves a lease that runs out, a journal, and data
	// objects that nothing names.
	v := fault("claim")
	if err != nil {
		err = fmt.Errorf("claim %s: %w", t.ref.TaskID, err)
	} else {
		v, err = a.claimed(ctx)
	}
	if err != nil {
		a.release(ctx) // not a vanished attempt: the next one need not wait for the lease
	}
	return v, err
}

// decided calls f again while its effect is unknown.
func decided(f func() error) (err error) {
	for range 3 {
		if err = f(); !errors.Is(err, hayrick.ErrUnknown) {
			break
		}
	}
	return err
}

// state is what is cached of a job, nil when there is nothing.
func (w *Worker) state(ctx context.Context, jobID string) (*hayrick.JobState, error) {
	st, err := w.Marks.JobState(ctx, jobID)
	if errors.Is(err, hayrick.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state of %s: %w", jobID, err)
	}
	return &st, nil
}

// task is one task with everything its attempts share.
type task struct {
	w        *Worker
	job      *Job
	members  *manifest.Members
	ref      hayrick.TaskRef
	group    string
	block    int
	position int
	batch    manifest.Batch
}

func (w *Worker) task(ctx context.Context, job *Job, d hayrick.Delivery) (*task, error) {
	m, err := job.Members(ctx, d.Generation, d.Group)
	if err != nil {
		return nil, fmt.Errorf("open group %s: %w", d.Group, err)
	}
	bt, batch, err := job.Batch(ctx, m, d.Block, d.Position)
	if err != nil {
		return nil, fmt.Errorf("find task %s: %w", d.TaskID, err)
	}
	if bt.TaskID != d.TaskID {
		return nil, fmt.Errorf("find task %s at %d/%d of %s: %w", d.TaskID, d.Block, d.Position, d.Group, hayrick.ErrNotFound)
	}
	return &task{
		w: w, job: job, members: m, batch: batch, group: d.Group, block: d.Block, position: d.Position,
		ref: hayrick.TaskRef{JobID: d.JobID, Generation: d.Generation, TaskID: d.TaskID},
	}, nil
}

// finished looks for the commit of the task and, when it is there, repeats what
// follows from it.
func (t *task) finished(ctx context.Context) (bool, error) {
	res, _, err := t.w.Store.Result(ctx, t.ref.JobID, t.ref.TaskID)
	if errors.Is(err, hayrick.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	t.dropJournal(ctx)
	t.view(ctx, res) // whoever committed it may have crashed before
	return true, t.follow(ctx, res)
}

// view writes the task manifest, which only repeats the commit. Lost, it is written
// by the next to find the commit unmarked; audit says when it is missing.
func (t *task) view(ctx context.Context, res manifest.Result) {
	if err := t.w.Store.PutView(ctx, manifest.Job(t.ref.JobID).TaskManifest(t.ref.TaskID), manifest.TaskView(res)); err != nil {
		t.w.Log.Warn("task manifest not written", hayrick.KeyTaskID, t.ref.TaskID, hayrick.KeyError, err)
	}
}

// dropJournal removes what an attempt that never came to its end left on this
// machine: the commit has its work, or stands in its place.
func (t *task) dropJournal(ctx context.Context) {
	if j, err := t.w.Journals.Open(ctx, t.ref, t.fingerprint()); err == nil {
		j.Close(true)
	}
}

func (t *task) fingerprint() Fingerprint {
	return Fingerprint{BatchSHA256: t.batch.SHA256, DefinitionSHA256: t.job.Plan.DefinitionSHA256, BundleSHA256: t.job.Plan.BundleSHA256}
}

// follow makes known what a commit says. Every step may be repeated by anybody and
// is, when a crash left it out.
func (t *task) follow(ctx context.Context, res manifest.Result) error {
	full, err := t.members.MarkDone(ctx, t.w.Marks, t.block, t.position, int64(res.OK), int64(res.Failed))
	if err != nil {
		return err
	}
	if full {
		// Last one out. Lost, the sweeper derives it from the full root.
		msg := hayrick.Message{JobID: t.ref.JobID, Generation: t.ref.Generation, Role: hayrick.RoleRetryPlanner, Group: t.group}
		if err := t.w.Queue.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: msg}); err != nil {
			t.w.Log.Debug("trigger not sent", hayrick.KeyGroup, t.group, hayrick.KeyError, err)
		}
	}
	return nil
}
