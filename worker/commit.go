package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// put stores the rows and the failures of a finished batch and returns the result
// that names them. A crash before or after leaves data objects that nothing names.
func (a *attemptRun) put(ctx context.Context) (manifest.Result, error) {
	res := a.result(hayrick.TaskDone)
	res.Items = len(a.items)
	if err := a.putRows(ctx, &res); err != nil {
		return res, err
	}
	return res, a.putFailures(ctx, &res)
}

func (a *attemptRun) result(status hayrick.TaskOutcome) manifest.Result {
	now := manifest.At(a.w.World.Clock.Now())
	batch := a.batch.BatchID
	res := manifest.Result{
		Schema: manifest.SchemaResult, JobID: a.ref.JobID, TaskID: a.ref.TaskID, BatchID: &batch,
		Generation: a.ref.Generation, Status: string(status), Attempt: a.id, Fence: a.claim.Fence,
		RowHash: rows.Hash{}.String(), DroppedHash: rows.Hash{}.String(), BatchSHA256: a.batch.SHA256,
		CodeVersion: a.w.CodeVersion + bundleSuffix(a.job.Plan.BundleSHA256), WrittenAt: now,
		Task: manifest.TaskFields{
			Role: string(hayrick.RoleWorker), Phase: string(hayrick.PhaseOf(a.group)), Group: a.group,
			Worker:    a.w.World.Worker,
			Input:     fmt.Sprintf("%s#%d+%d", a.batch.Object, a.batch.Offset, a.batch.Length),
			StartTime: manifest.At(a.start), EndTime: now, Retries: a.claim.Fence - 1, Metrics: a.metrics,
		},
	}
	if a.journal != nil {
		res.Task.OutputFile = a.journal.Path()
	}
	return res
}

// bundleSuffix is the part of a code version that names the bundle.
func bundleSuffix(sha string) string {
	if sha == "" {
		return ""
	}
	return "+" + manifest.Short(sha)
}

// putRows writes the rows of the ok items, in ordinal order, to one Parquet file.
func (a *attemptRun) putRows(ctx context.Context, res *manifest.Result) error {
	var schema rows.Schema
	for i := range a.items {
		if s := a.items[i].schema; s != nil {
			var err error
			if schema, err = rows.Unify(schema, *s); err != nil {
				return fmt.Errorf("item %d: %w", a.items[i].in.Ordinal, err)
			}
		}
	}
	if len(schema.Fields) == 0 {
		return nil
	}
	// A short task's file fits memory; a journaled one goes through scratch.
	var buf bytes.Buffer
	var sink io.Writer = &buf
	var temp manifest.Temp
	if a.journal != nil {
		var err error
		if temp, err = a.w.Journals.TempFile(ctx, a.ref, a.id); err != nil {
			return fmt.Errorf("make a scratch file: %w", err)
		}
		defer temp.Close()
		sink = temp
	}
	w, err := rows.NewWriter(sink, schema, rows.WriterOptions{
		GroupRows: a.job.Definition.Merge.RowGroup, Dictionary: a.job.Definition.Merge.Dictionary,
	})
	if err != nil {
		return err
	}
	if err := a.eachRows(ctx, func(body []byte) error {
		for r, err := range rows.Rows(body) {
			if err != nil {
				return err
			}
			if err := w.Append(r); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("write the rows of %s: %w", a.ref.TaskID, err)
	}
	sum, err := w.Close()
	if err != nil {
		return fmt.Errorf("write the rows of %s: %w", a.ref.TaskID, err)
	}
	key := manifest.Job(a.ref.JobID).Rows(a.ref.TaskID, a.id, sum.SHA256)
	var body io.Reader = bytes.NewReader(buf.Bytes())
	if temp != nil {
		if _, err := temp.Seek(0, io.SeekStart); err != nil {
			return err
		}
		body = temp
	}
	if err := a.w.Store.Objects.Put(ctx, key, body); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	rel := manifest.Job(a.ref.JobID).Rel(key)
	res.File, res.SHA256, res.Bytes = &rel, sum.SHA256, sum.Bytes
	res.RowCount, res.RowHash, res.SchemaDigest = sum.Rows, sum.RowHash.String(), sum.SchemaDigest
	return nil
}

// eachRows calls fn with the encoded rows of every ok item, in ordinal order.
func (a *attemptRun) eachRows(ctx context.Context, fn func(body []byte) error) error {
	if a.journal != nil {
		return a.journal.Each(ctx, func(e Entry) error {
			if !e.Ended || !e.OK || e.RowCount == 0 {
				return nil
			}
			return fn(e.Rows)
		})
	}
	for i := range a.items {
		if body := a.memory[i]; len(body) > 0 && a.items[i].OK {
			if err := fn(body); err != nil {
				return err
			}
		}
	}
	return nil
}

// putFailures lists the items that did not end ok. A batch without any has no list.
func (a *attemptRun) putFailures(ctx context.Context, res *manifest.Result) error {
	var buf bytes.Buffer
	f := manifest.Failures{ByClass: map[string]int64{}}
	for i := range a.items {
		x := &a.items[i]
		if x.OK {
			res.OK++
			continue
		}
		line, err := manifest.EncodeLine(manifest.FailureLine{
			Ordinal: x.in.Ordinal, Key: x.Key, Class: x.Class, Disposition: string(x.Disposition),
			Message: x.Message, Tries: x.Tries, Losses: x.Losses, RetryAfterMS: x.RetryAfterMS,
		})
		if err != nil {
			return err
		}
		buf.Write(line)
		f.Count++
		f.ByClass[x.Class]++
	}
	res.Failed = f.Count
	if f.Count == 0 {
		return nil
	}
	f.SHA256 = manifest.SHA256(buf.Bytes())
	key := manifest.Job(a.ref.JobID).Failures(a.ref.TaskID, a.id, f.SHA256)
	f.File = manifest.Job(a.ref.JobID).Rel(key)
	res.Failures = &f
	return a.w.Store.PutData(ctx, key, buf.Bytes())
}

// commit ends the task: the result that is stored first is its outcome, ours or
// another attempt's, and everything after it only repeats what that one says.
func (a *attemptRun) commit(ctx context.Context, res manifest.Result) (Verdict, error) {
	c, err := a.w.Store.CommitResult(ctx, res)
	if err != nil {
		// Undecided: the next attempt reads the key before it runs anything.
		return again(againFault, "commit"), err
	}
	a.discardJournal() // its work is in the store now, by us or by another
	if c.Won {
		// A crash before the view leaves it out; audit and the next sweep derive it.
		if err := a.w.Store.PutView(ctx, manifest.Job(a.ref.JobID).TaskManifest(a.ref.TaskID), manifest.TaskView(c.Record)); err != nil {
			a.w.Log.Warn("task manifest not written", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyError, err)
		}
	} else {
		a.w.Log.Debug("another attempt was first", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyAttempt, a.id)
	}
	if err := a.follow(ctx, c.Record); err != nil {
		return again(againFault, "mark"), err
	}
	if !c.Won {
		return ack("another attempt was first"), nil
	}
	return ack("done"), nil
}

func (a *attemptRun) discardJournal() {
	if a.journal != nil {
		a.journal.Close(true)
		a.journal = nil
	}
}

// fail ends the task as FAILED: the batch as a whole could not run. With the same
// put-if-absent as any other end, a DONE that comes first wins.
func (a *attemptRun) fail(ctx context.Context, class, why string) (Verdict, error) {
	res := a.result(hayrick.TaskFailed)
	res.Items, res.Failed = a.batch.Items, a.batch.Items
	res.Task.Error = &manifest.TaskError{Class: class, Message: oneLine(why)}
	a.w.Log.Warn("task failed", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyClass, class, "why", why)
	return a.commit(ctx, res)
}

// handBack gives a task up that is not done: at its deadline or for a drain. What
// has ended is saved where any machine finds it; the new message is sent before
// the old one is acknowledged, so that a crash between leaves two, never none.
func (a *attemptRun) handBack(ctx context.Context) (Verdict, error) {
	ctx = context.WithoutCancel(ctx)
	if a.late && a.progress == 0 {
		// A whole attempt went into items that do not end: charge those in hand.
		if err := a.chargeTimeout(ctx); err != nil {
			return again(againFault, "charge the time-out"), err
		}
		if a.ended == len(a.items) {
			res, err := a.put(ctx)
			if err != nil {
				return again(againFault, "put the results"), err
			}
			return a.commit(ctx, res)
		}
	}
	if a.progress > 0 {
		if err := a.checkpoint(ctx); err != nil {
			return again(againFault, "checkpoint"), err
		}
	}
	a.release(ctx)
	msg := hayrick.Message{
		JobID: a.ref.JobID, Generation: a.ref.Generation, Role: hayrick.RoleWorker, Group: a.group,
		Block: a.block, Position: a.position, TaskID: a.ref.TaskID,
	}
	if err := a.w.Queue.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: msg}); err != nil {
		return again(0, "hand back"), nil // the old message stays and says the same
	}
	return ack("handed back"), nil
}

// chargeTimeout spends a try of every item that was in hand when the deadline came
// without anything having ended.
func (a *attemptRun) chargeTimeout(ctx context.Context) error {
	for i := range a.next {
		x := &a.items[i]
		if x.Ended {
			continue
		}
		x.Tries++
		n := NextTry(a.job.Definition.Retry, Try{
			Outcome: failTimeout(a.job.Definition.Run.TaskTimeout),
			InTask:  x.Tries - x.in.Tries,
		}, 0)
		var err error
		if n.Again {
			err = a.spent(ctx, i)
		} else {
			err = a.end(ctx, i, n.Failure, nil, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkpoint saves the journal to the store. The key says how far it is, so the
// best one is found without reading any.
func (a *attemptRun) checkpoint(ctx context.Context) error {
	if a.journal == nil {
		if err := a.spill(ctx); err != nil {
			return err
		}
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
func (a *attemptRun) restore(ctx context.Context, fp Fingerprint) error {
	var keys []string
	prefix := manifest.Job(a.ref.JobID).Checkpoints(a.ref.TaskID)
	if err := a.w.Store.Objects.List(ctx, prefix, func(o manifest.Object) error {
		keys = append(keys, o.Key)
		return nil
	}); err != nil {
		return fmt.Errorf("list checkpoints of %s: %w", a.ref.TaskID, err)
	}
	sortDescending(keys)
	for _, key := range keys {
		var done int
		if _, err := fmt.Sscanf(strings.TrimPrefix(key, prefix), "%d-", &done); err != nil || done <= a.ended {
			continue
		}
		err := a.restoreFrom(ctx, key, fp)
		if err == nil {
			return nil
		}
		if !errors.Is(err, hayrick.ErrCorrupt) && !errors.Is(err, hayrick.ErrNotFound) {
			return err
		}
		a.w.Log.Warn("checkpoint passed over", hayrick.KeyKey, key, hayrick.KeyError, err)
	}
	return nil
}

func (a *attemptRun) restoreFrom(ctx context.Context, key string, fp Fingerprint) error {
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
	j, err := a.w.Journals.Restore(ctx, a.ref, a.id, fp, temp)
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
