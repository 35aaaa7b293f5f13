package aggregator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// mergeLease is the lease of a merge; it is renewed while the merge runs.
const mergeLease = time.Minute

// Merge runs a level-1 merge task: the same commit protocol as a worker's, with
// results.done files as its batch.
func (a *Aggregator) Merge(ctx context.Context, d hayrick.Delivery) (Verdict, error) {
	job, err := a.open(ctx, d.JobID, d.Generation)
	if errors.Is(err, hayrick.ErrNotFound) {
		return Verdict{Ack: true, Because: "the job has no plan"}, nil
	}
	if err != nil {
		return Verdict{Again: againFault, Because: "open the job"}, err
	}
	if _, _, err := a.Store.Outcome(ctx, d.JobID, d.Generation); err == nil {
		return Verdict{Ack: true, Because: "the generation has ended"}, nil
	} else if !errors.Is(err, hayrick.ErrNotFound) {
		return Verdict{Again: againFault, Because: "read the outcome"}, err
	}
	plan, _, err := a.Store.AggregationPlan(ctx, d.JobID, d.Generation)
	if err != nil || plan.Group == nil {
		return Verdict{Ack: true, Because: "no such merge"}, ignoreNotFound(err)
	}
	m, err := a.Store.Members(ctx, d.JobID, d.Generation, *plan.Group)
	if err != nil {
		return Verdict{Again: againFault, Because: "open the group"}, err
	}
	block, err := m.Block(ctx, a.Store, d.Block)
	if err != nil || d.Position < 0 || d.Position >= len(block.Tasks) || block.Tasks[d.Position].TaskID != d.TaskID || block.Tasks[d.Position].Merge == nil {
		return Verdict{Ack: true, Because: "no such merge"}, ignoreNotFound(err)
	}
	res, id, err := a.nodeResult(ctx, job, d.TaskID, nil)
	if errors.Is(err, hayrick.ErrNotFound) {
		res, err = a.run(ctx, job, plan, id, *block.Tasks[d.Position].Merge)
	}
	if errors.Is(err, hayrick.ErrConflict) {
		return Verdict{Again: againHeld, Because: "held by another"}, nil
	}
	if err != nil {
		return Verdict{Again: againFault, Because: "merge"}, fmt.Errorf("merge %s: %w", d.TaskID, err)
	}
	if _, _, err := a.nodeResult(ctx, job, d.TaskID, nil); errors.Is(err, hayrick.ErrNotFound) {
		return Verdict{Again: againFault, Because: "FAILED: " + res.Task.Error.Message}, nil // again under the next id
	}
	full, err := m.MarkDone(ctx, a.State, d.Block, d.Position, 0, 0)
	if err != nil {
		return Verdict{Again: againFault, Because: "mark"}, err
	}
	if full { // lost, the sweeper derives it from the full root
		err := a.Queue.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{
			JobID: d.JobID, Generation: d.Generation, Role: hayrick.RoleAggregator, Group: plan.Group.Name,
		}})
		if err != nil {
			a.Log.Debug("trigger not sent", hayrick.KeyGroup, plan.Group.Name, hayrick.KeyError, err)
		}
	}
	return Verdict{Ack: true, Because: "merged"}, nil
}

func ignoreNotFound(err error) error {
	if errors.Is(err, hayrick.ErrNotFound) {
		return nil
	}
	return err
}

// run is one attempt of a merge under the given id.
func (a *Aggregator) run(ctx context.Context, job *jobOf, plan manifest.AggregationPlan, id string, span manifest.Span) (manifest.Result, error) {
	attempt := a.World.NewAttemptID()
	ref := hayrick.TaskRef{JobID: string(job.id), Generation: job.generation, TaskID: id}
	claim, err := a.State.Claim(ctx, hayrick.ClaimAsk{TaskRef: ref, Attempt: attempt, Worker: a.World.Worker, Lease: mergeLease})
	if err != nil {
		return manifest.Result{}, fmt.Errorf("claim %s: %w", id, err)
	}
	stop := a.renew(ctx, ref, attempt)
	defer stop()
	start := a.World.Clock.Now()
	res := manifest.Result{
		Schema: manifest.SchemaResult, JobID: string(job.id), TaskID: id, Generation: job.generation,
		Status: string(hayrick.TaskDone), Attempt: attempt, Fence: claim.Fence,
		RowHash: rows.Hash{}.String(), DroppedHash: rows.Hash{}.String(), CodeVersion: a.CodeVersion,
		Task: manifest.TaskFields{
			Role: string(hayrick.RoleAggregator), Phase: string(hayrick.PhaseAggregation), Group: hayrick.GroupAggregation,
			Worker: a.World.Worker, Input: fmt.Sprintf("%s#%d+%d", job.id.Rel(job.id.AggregationPlan(job.generation)), span.First, span.Count),
			StartTime: manifest.At(start), Retries: claim.Fence - 1, Metrics: map[string]int64{},
		},
	}
	err = a.decode(ctx, job, plan, span, &res)
	if errors.Is(err, hayrick.ErrCorrupt) || errors.Is(err, rows.ErrSchema) {
		a.Log.Error("merge failed", hayrick.KeyTaskID, id, hayrick.KeyError, err)
		res.Status, res.File, res.SHA256, res.Bytes, res.RowCount, res.RowHash, res.SchemaDigest = string(hayrick.TaskFailed), nil, "", 0, 0, rows.Hash{}.String(), ""
		res.Task.Error = &manifest.TaskError{Class: "merge", Message: err.Error()}
	} else if err != nil {
		return res, err
	}
	res.WrittenAt = manifest.At(a.World.Clock.Now())
	res.Task.EndTime = res.WrittenAt
	c, err := a.Store.CommitResult(ctx, res)
	if err != nil {
		return res, err
	}
	if c.Won {
		if err := a.Store.PutView(ctx, job.id.TaskManifest(id), manifest.TaskView(c.Record)); err != nil {
			a.Log.Warn("task manifest not written", hayrick.KeyTaskID, id, hayrick.KeyError, err)
		}
	}
	return c.Record, nil
}

func (a *Aggregator) renew(ctx context.Context, ref hayrick.TaskRef, attempt string) (stop func()) {
	ctx, stop = context.WithCancel(ctx)
	a.World.Go("renew", func() {
		for a.World.Clock.Sleep(ctx, mergeLease/3) == nil {
			until := a.World.Clock.Now().Add(mergeLease)
			if _, err := a.State.UpdateClaim(ctx, ref, attempt, hayrick.ClaimPatch{Until: &until}); errors.Is(err, hayrick.ErrLeaseLost) {
				return
			}
		}
	})
	return stop
}

// decode merges the rows of a span of inputs into one file of the unified schema
// and fills in res. What is read must have the rows and row hash that its
// results.done vouches for; what is written is read back and must have their sum.
func (a *Aggregator) decode(ctx context.Context, job *jobOf, plan manifest.AggregationPlan, span manifest.Span, res *manifest.Result) error {
	var schema rows.Schema
	if err := json.Unmarshal(plan.Columns, &schema); err != nil {
		return fmt.Errorf("read the plan's columns: %v: %w", err, hayrick.ErrCorrupt)
	}
	inputs, err := a.inputs(ctx, plan, span)
	if err != nil {
		return err
	}
	temp, err := a.Temp()
	if err != nil {
		return err
	}
	defer temp.Close()
	w, err := rows.NewWriter(temp, schema, rows.WriterOptions{GroupRows: job.def.Merge.RowGroup, Dictionary: job.def.Merge.Dictionary})
	if err != nil {
		return err
	}
	var want rows.Hash
	for _, in := range inputs {
		if in.Rows == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := a.copyRows(ctx, job, in, schema, w)
		if err != nil {
			return fmt.Errorf("read %s: %w", in.File, err)
		}
		want = want.Add(h)
		res.Inputs = append(res.Inputs, manifest.InputFile{Key: in.File, SHA256: in.SHA256, Rows: in.Rows})
	}
	sum, err := w.Close()
	if err != nil {
		return err
	}
	if sum.RowHash != want {
		return fmt.Errorf("the rows read have hash %s, the rows written %s: %w", want, sum.RowHash, hayrick.ErrCorrupt)
	}
	if job.def.Merge.ReadBack == nil || *job.def.Merge.ReadBack {
		if err := rows.Verify(temp, sum.Bytes, sum.Rows, want); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
	}
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	key := job.id.Rows(res.TaskID, res.Attempt, sum.SHA256)
	if err := a.Store.Objects.Put(ctx, key, temp); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	rel := job.id.Rel(key)
	res.File, res.SHA256, res.Bytes = &rel, sum.SHA256, sum.Bytes
	res.RowCount, res.RowHash, res.SchemaDigest = sum.Rows, sum.RowHash.String(), sum.SchemaDigest
	return nil
}

// copyRows appends the rows of one result to w and returns their hash.
func (a *Aggregator) copyRows(ctx context.Context, job *jobOf, in manifest.MergeInput, schema rows.Schema, w *rows.Writer) (rows.Hash, error) {
	blob, err := a.Blobs.OpenAt(ctx, job.id.Abs(in.File))
	if errors.Is(err, hayrick.ErrNotFound) {
		err = fmt.Errorf("it is gone: %w", hayrick.ErrCorrupt)
	}
	if err != nil {
		return rows.Hash{}, err
	}
	defer blob.Close()
	if blob.Size() != in.Bytes {
		return rows.Hash{}, fmt.Errorf("%d bytes, its results.done says %d: %w", blob.Size(), in.Bytes, hayrick.ErrCorrupt)
	}
	f, err := rows.Open(blob, blob.Size())
	if err != nil {
		return rows.Hash{}, err
	}
	sc, err := f.Scan(schema)
	if err != nil {
		return rows.Hash{}, err
	}
	for {
		b, err := sc.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return rows.Hash{}, err
		}
		if err := w.AppendBatch(b, 0, b.Rows); err != nil {
			return rows.Hash{}, err
		}
	}
	n, h := sc.Read()
	if n != in.Rows || h.String() != in.RowHash {
		return rows.Hash{}, fmt.Errorf("%d rows with hash %s, its results.done says %d with %s: %w", n, h, in.Rows, in.RowHash, hayrick.ErrCorrupt)
	}
	return h, nil
}
