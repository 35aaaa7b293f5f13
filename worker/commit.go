package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// finish ends a task all of whose items have ended. A crash before the commit
// leaves data objects that nothing names, and the journal.
func (a *attemptRun) finish(ctx context.Context) (Verdict, error) {
	res := a.result(hayrick.TaskDone)
	res.Items = len(a.items)
	res.Task.Metrics[metricItems] = int64(len(a.items))
	err := a.putRows(ctx, &res)
	if errors.Is(err, errJournal) {
		a.forget()
	}
	if err == nil {
		err = a.putFailures(ctx, &res)
	}
	if err != nil {
		return fault("put the results"), err
	}
	a.putLog(ctx, &res)
	return a.commit(ctx, res)
}

// metricItems is the one metric that the worker itself counts; the others are the
// handler's (jobs.Host.Add) and rate_wait_ms.
const metricItems = "items_processed"

// errJournal: the journal is damaged. It is only a cache, so that the attempt is
// tried again without it.
var errJournal = errors.New("the journal is damaged")

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
			StartTime: manifest.At(a.start), EndTime: now, Retries: a.claim.Fence - 1, Metrics: a.metrics.sum(),
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
	var last *rows.Schema
	for i := range a.items {
		if s := a.items[i].schema; s != nil && s != last { // in ordinal order, whatever ended first
			var err error
			if schema, err = rows.Unify(schema, *s); err != nil {
				return fmt.Errorf("item %d: %w", a.items[i].in.Ordinal, err)
			}
			last = s
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
	sum, err := a.encode(ctx, sink, schema)
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
	res.KeySamples = sum.KeySamples
	return nil
}

// encode writes the rows of the ok items to a Parquet file.
func (a *attemptRun) encode(ctx context.Context, to io.Writer, schema rows.Schema) (sum rows.Summary, err error) {
	if a.w.Turns != nil {
		select {
		case a.w.Turns <- struct{}{}:
			defer func() { <-a.w.Turns }()
		case <-ctx.Done():
			return sum, fmt.Errorf("wait for memory: %w", ctx.Err())
		}
	}
	var count int64
	for i := range a.items {
		if x := &a.items[i]; x.OK {
			count += x.RowCount
		}
	}
	unique := a.job.Definition.Output.UniqueBy
	w, err := rows.NewWriter(to, schema, rows.WriterOptions{
		GroupRows: a.job.Definition.Merge.RowGroup, GroupBytes: a.w.GroupBytes, Dictionary: a.job.Definition.Merge.Dictionary, Keys: unique, Rows: count,
	})
	if err != nil {
		return sum, err
	}
	if err := a.eachRows(ctx, func(ordinal int64, body []byte) error {
		if len(unique) > 0 && len(body) > 0 {
			// "first" and "last" are by record of the input: a retry's items are not in the
			// order of its file, and those of a shuffled run in an order of their own.
			w.Item(a.job.Plan.InputOrdinal(ordinal))
		}
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
		return sum, err
	}
	return w.Close()
}

// eachRows calls fn with the encoded rows of every item, in the order of the batch or
// of ordinals. Only an item that ended ok has any.
func (a *attemptRun) eachRows(ctx context.Context, fn func(ordinal int64, body []byte) error) error {
	if a.journal != nil {
		err := a.journal.Each(ctx, func(e Entry) error { return fn(e.Ordinal, e.Rows) })
		if errors.Is(err, hayrick.ErrCorrupt) {
			err = fmt.Errorf("%w: %v", errJournal, err)
		}
		return err
	}
	for i := range a.items {
		if err := fn(a.items[i].Ordinal, a.memory[i]); err != nil {
			return err
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
			Message: x.Message, Tries: x.Tries, Losses: x.Losses, RetryAfterMS: x.RetryAfterMS, Detail: x.Detail,
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
		return fault("commit"), err
	}
	a.discardJournal(ctx) // its work is in the store now, by us or by another
	a.view(ctx, c.Record)
	if err := a.follow(ctx, c.Record); err != nil {
		return fault("mark"), err
	}
	if !c.Won {
		return ack("another attempt was first"), nil
	}
	return ack("done"), nil
}

func (a *attemptRun) discardJournal(ctx context.Context) {
	switch {
	case a.journal != nil:
		a.journal.Close(true)
		a.journal = nil
	case a.claim.Fence > 1:
		a.dropJournal(ctx)
	}
}

// fail ends the task as FAILED: the batch as a whole could not run. With the same
// put-if-absent as any other end, a DONE that comes first wins.
func (a *attemptRun) fail(ctx context.Context, class, why string) (Verdict, error) {
	res := a.result(hayrick.TaskFailed)
	res.Items, res.Failed = a.batch.Items, a.batch.Items
	res.Task.Error = &manifest.TaskError{Class: class, Message: oneLine(why)}
	a.putLog(ctx, &res)
	a.w.Log.Warn("task failed", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyClass, class, "why", why)
	return a.commit(ctx, res)
}
