package worker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"hayrick"
	"hayrick/jobs"
	"hayrick/manifest"
)

// handBack gives a task up that is not done: at its deadline or for a drain. What
// has ended is saved where any machine finds it; the new message is sent before
// the old one is acknowledged, so that a crash between leaves two, never none.
func (a *attemptRun) handBack(ctx context.Context) (Verdict, error) {
	ctx = context.WithoutCancel(ctx)
	if a.late && a.progress == 0 && a.fair() {
		// A whole attempt went into items that do not end: charge those in hand.
		if err := a.chargeTimeout(ctx); err != nil {
			return fault("charge the time-out"), err
		}
		if a.ended == len(a.items) {
			return a.finish(ctx)
		}
	}
	if a.progress > 0 {
		if err := a.checkpoint(ctx); err != nil {
			return fault("checkpoint"), err
		}
	}
	a.release(ctx)
	msg := hayrick.Message{
		JobID: a.ref.JobID, Generation: a.ref.Generation, Role: hayrick.RoleWorker, Group: a.group,
		Block: a.block, Position: a.position, TaskID: a.ref.TaskID,
	}
	if a.w.Left != nil && a.progress == 0 && a.wait == 0 && !a.drained() {
		msg.Stalls = a.stalls + 1
	}
	if err := a.w.Queue.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: msg, Delay: a.wait}); err != nil {
		// The old message stays and says the same.
		return fault("hand back"), fmt.Errorf("hand back %s: %w", a.ref.TaskID, err)
	}
	a.w.Log.Info("task handed back", hayrick.KeyJobID, a.ref.JobID, hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyFence, a.claim.Fence,
		"items", len(a.items), "ended", a.ended, "progress", a.progress, "delay", a.wait)
	return ack("handed back"), nil
}

// fair says that what was in hand at the end had most of the attempt's time, and not what
// came before the first item.
func (a *attemptRun) fair() bool {
	return a.w.Left == nil || a.w.World.Clock.Now().Sub(a.began) >= min(a.lent, a.job.Definition.Run.TaskTimeout.D())/2
}

// drained says that the process was asked to leave.
func (a *attemptRun) drained() bool {
	select {
	case <-a.w.Drain:
		return true
	default:
		return false
	}
}

// chargeTimeout spends a try of every item that the handler had when the deadline
// came without anything having ended. An item that only waited for a token has not
// been tried.
func (a *attemptRun) chargeTimeout(ctx context.Context) error {
	over := fmt.Sprintf("task's %s", a.job.Definition.Run.TaskTimeout.D())
	if took := a.w.World.Clock.Now().Sub(a.began); took < a.job.Definition.Run.TaskTimeout.D() {
		over = fmt.Sprintf("worker's %s", a.lent.Round(time.Second))
	}
	for i := range a.items {
		x := &a.items[i]
		if !x.inHand {
			continue
		}
		a.update(func() { x.Tries++ })
		n := NextTry(a.job.Definition.Retry, Try{
			Outcome: jobs.Fail(hayrick.ClassTimeout, "in hand when the %s were over and nothing had ended", over),
			InTask:  x.Tries - x.in.Tries,
		}, 0)
		var err error
		if n.Again {
			err = a.spent(ctx, i)
		} else {
			err = a.end(ctx, i, n.Failure, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkpointEvery is how often a solo attempt saves its journal to the store.
const checkpointEvery = 30 * time.Second

// checkpoint saves the journal to the store. The key says how far it is, so the
// best one is found without reading any.
func (a *attemptRun) checkpoint(ctx context.Context) error {
	if a.journal == nil {
		if err := a.spill(ctx); err != nil {
			return err
		}
	}
	for i := range a.items {
		if err := a.keepMark(ctx, i); err != nil {
			return err
		}
	}
	if err := a.flush(ctx); err != nil {
		return err
	}
	if err := a.saveLog(ctx); err != nil {
		return err
	}
	a.saved = a.w.World.Clock.Now()
	snap, err := a.journal.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("snapshot the journal of %s: %w", a.ref.TaskID, err)
	}
	defer snap.Close()
	temp, err := a.w.Journals.TempFile(ctx, a.ref, a.id)
	if err != nil {
		return fmt.Errorf("make a scratch file: %w", err)
	}
	defer temp.Close()
	sha, err := copyHashed(temp, snap)
	if err != nil {
		return fmt.Errorf("snapshot the journal of %s: %w", a.ref.TaskID, err)
	}
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	key := manifest.Job(a.ref.JobID).Checkpoint(a.ref.TaskID, a.ended, a.id, sha)
	if err := a.w.Store.Objects.Put(ctx, key, temp); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// restore loads the checkpoint that is furthest, when it is further than the
// journal at hand. One that is damaged or of other work is passed over.
func (a *attemptRun) restore(ctx context.Context) error {
	var found []saved
	prefix := manifest.Job(a.ref.JobID).Checkpoints(a.ref.TaskID)
	if err := a.w.Store.Objects.List(ctx, prefix, func(o manifest.Object) error {
		var done int
		if _, err := fmt.Sscanf(strings.TrimPrefix(o.Key, prefix), "%d-", &done); err == nil {
			found = append(found, saved{o, done})
		}
		return nil
	}); err != nil {
		return fmt.Errorf("list checkpoints of %s: %w", a.ref.TaskID, err)
	}
	slices.SortFunc(found, furthest)
	for _, c := range found {
		if c.done < a.ended || (c.done == a.ended && a.journal != nil) {
			continue
		}
		err := a.restoreFrom(ctx, c.Key)
		if err == nil {
			return nil
		}
		if !errors.Is(err, hayrick.ErrCorrupt) && !errors.Is(err, hayrick.ErrNotFound) {
			return err
		}
		a.w.Log.Warn("checkpoint passed over", hayrick.KeyKey, c.Key, hayrick.KeyError, err)
	}
	return nil
}

// saved is a checkpoint with so many items done.
type saved struct {
	manifest.Object
	done int
}

// furthest puts the checkpoint with the most items done first. Of two with as many
// the later one knows of more tries: without it an item that takes the whole time
// of every attempt would never run out of them.
func furthest(a, b saved) int {
	return cmp.Or(cmp.Compare(b.done, a.done), b.ModTime.Compare(a.ModTime))
}

func (a *attemptRun) restoreFrom(ctx context.Context, key string) error {
	r, err := a.w.Store.Objects.Open(ctx, key, 0, -1)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	defer r.Close()
	temp, err := a.w.Journals.TempFile(ctx, a.ref, a.id)
	if err != nil {
		return err
	}
	defer temp.Close()
	sha, err := copyHashed(temp, r)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if !strings.HasSuffix(key, "-"+manifest.Short(sha)) {
		return fmt.Errorf("read %s: SHA-256 %s: %w", key, manifest.Short(sha), hayrick.ErrCorrupt)
	}
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if a.journal != nil {
		a.forget()
	}
	j, err := a.w.Journals.Restore(ctx, a.ref, a.id, a.fingerprint(), temp)
	if err != nil {
		return err
	}
	a.journal = j
	if err := a.load(ctx); err != nil {
		a.forget()
		return err
	}
	return nil
}

// copyHashed copies src to dst and returns the SHA-256 of what went through.
func copyHashed(dst io.Writer, src io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(dst, h), src); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
