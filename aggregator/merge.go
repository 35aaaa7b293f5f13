package aggregator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
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
// results.done files as its batch. After an error nothing is committed, and the
// verdict says when to try again.
func (a *Aggregator) Merge(ctx context.Context, d hayrick.Delivery) (Verdict, error) {
	v, err := a.merge(ctx, d)
	if by := (*heldError)(nil); errors.As(err, &by) {
		wait, done := d.WhenHeld(by.Until.Sub(a.World.Clock.Now()))
		return Verdict{Ack: done, Again: wait, Because: err.Error()}, nil
	}
	if errors.Is(err, errHandedBack) {
		return a.handBack(ctx, d, err)
	}
	if err != nil {
		return Verdict{Again: d.AfterFault(), Because: "merge"}, fmt.Errorf("merge %s of %s: %w", d.TaskID, d.JobID, gone(err))
	}
	return v, nil
}

// memoryWait is after what time a merge is tried again for which there was no memory.
const memoryWait = 2 * time.Second

// heldError: another attempt has the claim of a merge.
type heldError struct{ hayrick.Claim }

func (e *heldError) Error() string { return "held by " + e.Worker }

// merge answers a *heldError when another attempt is at it.
func (a *Aggregator) merge(ctx context.Context, d hayrick.Delivery) (Verdict, error) {
	switch _, _, err := a.Store.Outcome(ctx, d.JobID, d.Generation); {
	case err == nil:
		return Verdict{Ack: true, Because: "the generation has ended"}, nil
	case !errors.Is(err, hayrick.ErrNotFound):
		return Verdict{}, err
	}
	m, err := a.merging(ctx, d.JobID, d.Generation)
	if errors.Is(err, hayrick.ErrNotFound) {
		return Verdict{Ack: true, Because: err.Error()}, nil
	}
	if err != nil {
		return Verdict{}, err
	}
	level, u, ok, err := a.unitOf(ctx, m, d)
	if err != nil {
		return Verdict{}, err
	}
	if !ok {
		return Verdict{Ack: true, Because: "no such merge"}, nil
	}
	runs, err := a.runs(ctx, m.jobOf, u.level, u.n)
	if err != nil {
		return Verdict{}, err
	}
	if !runs.ended() {
		done, err := a.turn(ctx)
		if err != nil {
			return Verdict{}, err
		}
		defer done()
		takes, ok := a.enter(a.largestRow(ctx, m, u))
		if !ok {
			return Verdict{Again: memoryWait, Because: "as many merges are at work as memory allows"}, nil
		}
		runs, err = a.run(ctx, m, u, runs)
		a.leave(takes)
		if errors.Is(err, errLevelOpen) {
			return Verdict{Ack: true, Because: err.Error()}, nil // who ends the level sends it again
		}
		if err != nil {
			return Verdict{}, err
		}
	}
	if !runs.ended() {
		return Verdict{Again: d.AfterFault(), Because: "FAILED: " + runs.last().Task.Error.Message}, nil // again under the next id
	}
	full, err := level.MarkDone(ctx, a.State, d.Block, d.Position, 0, 0)
	if err != nil {
		return Verdict{}, err
	}
	if full { // lost, the sweeper derives it from the full root
		err := a.Queue.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{
			JobID: d.JobID, Generation: d.Generation, Role: hayrick.RoleAggregator, Group: d.Group,
		}})
		if err != nil {
			a.Log.Debug("trigger not sent", hayrick.KeyGroup, d.Group, hayrick.KeyError, err)
		}
	}
	return Verdict{Ack: true, Because: "merged"}, nil
}

// unit is what one merge takes: a span of the plan's inputs on level 1, a range of
// keys on level 2.
type unit struct {
	level, n int
	span     manifest.Span
}

func (u unit) group() string {
	if u.level == levelRanges {
		return hayrick.GroupRanges
	}
	return hayrick.GroupAggregation
}

// The levels that decode.
const (
	levelInputs = 1
	levelRanges = 2 // with output.unique_by
)

// unitOf finds what a message asks to be merged; ok is false when it is no task of
// the plan.
func (a *Aggregator) unitOf(ctx context.Context, m *merging, d hayrick.Delivery) (level *manifest.Members, u unit, ok bool, err error) {
	level, u.level = m.members, levelInputs
	if d.Group == hayrick.GroupRanges {
		level, u.level = m.ranges, levelRanges
	}
	if level == nil || d.Block < 0 || d.Block >= level.Blocks() {
		return nil, u, false, nil
	}
	block, err := level.Block(ctx, a.Store, d.Block)
	if err != nil {
		return nil, u, false, err
	}
	if d.Position < 0 || d.Position >= len(block.Tasks) || block.Tasks[d.Position].TaskID != d.TaskID {
		return nil, u, false, nil
	}
	u.n = d.Block*manifest.BlockTasks + d.Position
	switch t := block.Tasks[d.Position]; {
	case u.level == levelRanges:
		return level, u, t.Range != nil && *t.Range == int64(u.n), nil
	case t.Merge != nil:
		u.span = *t.Merge
		return level, u, true, nil
	}
	return nil, u, false, nil
}

// largestRow is about how many bytes the rows of a merge have: of what it reads, the most
// that they have on average in one file. What cannot be read counts for nothing here; the
// merge says so.
func (a *Aggregator) largestRow(ctx context.Context, m *merging, u unit) (most int64) {
	if a.Memory <= 0 {
		return 0
	}
	if u.level == levelRanges {
		all, err := a.sortedRuns(ctx, m)
		if err != nil {
			return 0
		}
		for _, x := range all {
			most = max(most, x.bytes/max(x.rows, 1))
		}
		return most
	}
	all, err := m.pinned(ctx, u.span)
	if err != nil {
		return 0
	}
	for _, in := range all {
		most = max(most, in.Bytes/max(in.Rows, 1))
	}
	return most
}

// runs are the results of a merge: of its task and, after each that FAILED,
// of its repetition.
type runs []run

type run struct {
	manifest.Result
	sha string // of its results.done
}

// ended says that no run follows.
func (rs runs) ended() bool {
	return len(rs) == Runs || len(rs) > 0 && (rs.last().Status == string(hayrick.TaskDone) || rs.last().final())
}

// final says that a merge FAILED in a way that another run would repeat.
func (r *run) final() bool {
	e := r.Task.Error
	return e != nil && (e.Class == manifest.CodeDuplicateKey || e.Class == manifest.CodePartition)
}

func (rs runs) last() *run { return &rs[len(rs)-1] }

// runs reads the results of the n-th merge of a level, in order.
func (a *Aggregator) runs(ctx context.Context, job *jobOf, level, n int) (rs runs, err error) {
	for !rs.ended() {
		res, sha, err := a.Store.Result(ctx, job.id, manifest.MergeTaskID(job.generation, level, n, len(rs)))
		if errors.Is(err, hayrick.ErrNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		if res.Status == string(hayrick.TaskFailed) && res.Task.Error == nil || (res.RowCount > 0) != (res.File != nil || len(res.Files) > 0) {
			return nil, fmt.Errorf("results.done of %s contradicts itself: %w", res.TaskID, hayrick.ErrCorrupt)
		}
		rs = append(rs, run{res, sha})
	}
	return rs, nil
}

// run is one attempt of a merge under its next id. It returns the runs with
// what came of it, this attempt's result or the one that was first.
func (a *Aggregator) run(ctx context.Context, m *merging, u unit, rs runs) (_ runs, err error) {
	ask := hayrick.ClaimAsk{
		TaskRef: hayrick.TaskRef{JobID: m.id, Generation: m.generation, TaskID: manifest.MergeTaskID(m.generation, u.level, u.n, len(rs))},
		Attempt: a.World.NewAttemptID(), Worker: a.World.Worker, Lease: mergeLease,
	}
	claim, err := a.claim(ctx, ask)
	if err != nil {
		return nil, err
	}
	stop := a.renew(ctx, ask)
	defer func() {
		stop()
		if err == nil {
			return
		}
		released := a.release(ctx, ask) // not a vanished attempt: the next one need not wait
		if errors.Is(err, errHandedBack) && !released {
			err = &handedBackLater{ask.Lease} // found held, a message is taken for a duplicate
		}
	}()
	// A crash from here to the commit leaves a lease that runs out, and a data object
	// that nothing names.
	if claim.Fence > 1 { // whoever had it may have finished since
		if now, err := a.runs(ctx, m.jobOf, u.level, u.n); err != nil || len(now) > len(rs) {
			return now, err
		}
	}
	res := manifest.Result{
		Schema: manifest.SchemaResult, JobID: m.id, TaskID: ask.TaskID, Generation: m.generation,
		Status: string(hayrick.TaskDone), Attempt: ask.Attempt, Fence: claim.Fence,
		RowHash: rows.Hash{}.String(), DroppedHash: rows.Hash{}.String(), CodeVersion: a.CodeVersion,
		Task: manifest.TaskFields{
			Role: string(hayrick.RoleAggregator), Phase: string(hayrick.PhaseAggregation), Group: u.group(),
			Worker: a.World.Worker, Input: u.input(m),
			StartTime: manifest.At(a.World.Clock.Now()), Retries: claim.Fence - 1, Metrics: map[string]int64{},
		},
	}
	merged := res
	switch {
	case u.level == levelRanges:
		err = a.mergeRange(ctx, m, u, &merged)
	case m.plan.Unique != nil:
		err = a.sortRun(ctx, m, u.span, &merged)
	case !plain(m.def.Output):
		err = a.decodeFiles(ctx, m, u.span, &merged)
	default:
		err = a.decode(ctx, m, u.span, &merged)
	}
	var final *finalError
	switch {
	case err == nil:
		res = merged
	case errors.As(err, new(*damagedError)), errors.Is(err, errHandedBack): // no result is written of what can be merged yet
		return nil, err
	case errors.As(err, &final):
		res.Status = string(hayrick.TaskFailed)
		res.Task.Error = &manifest.TaskError{Class: final.code, Message: final.message}
	case unmergeable(err):
		a.Log.Error("merge failed", hayrick.KeyTaskID, ask.TaskID, hayrick.KeyError, err)
		res.Status = string(hayrick.TaskFailed)
		res.Task.Error = &manifest.TaskError{Class: "merge", Message: gone(err).Error()}
	default:
		return nil, err
	}
	res.WrittenAt = manifest.At(a.World.Clock.Now())
	res.Task.EndTime = res.WrittenAt
	c, err := a.Store.CommitResult(ctx, res)
	if err != nil {
		return nil, err
	}
	if c.Won {
		if err := a.Store.PutView(ctx, m.key.TaskManifest(ask.TaskID), manifest.TaskView(c.Record)); err != nil {
			a.Log.Warn("task manifest not written", hayrick.KeyTaskID, ask.TaskID, hayrick.KeyError, err)
		}
	}
	return append(rs, run{c.Record, c.SHA256}), nil
}

// damagedError: an object that a commit names is gone, or has other bytes than were
// named. A FAILED result would say so for ever; whoever restores the object mends it.
type damagedError struct {
	key    string // of the object, below the job's folder
	taskID string // whose rows it holds; "" = it is no task's
	why    error
}

func (e *damagedError) Error() string {
	whose := ""
	if e.taskID != "" {
		whose = ", the rows of " + e.taskID + ","
	}
	return fmt.Sprintf("%s%s is damaged: %v", e.key, whose, e.why)
}

func (e *damagedError) Unwrap() error { return hayrick.ErrCorrupt }

// damaged makes err one about an object that a commit names, unless it is about the
// store.
func damaged(key, taskID string, err error) error {
	if err == nil || !errors.Is(gone(err), hayrick.ErrCorrupt) {
		return err
	}
	return &damagedError{key, taskID, err}
}

// unmergeable says that what was read is at fault though it is what was named, and
// another try of the same attempt would read the same.
func unmergeable(err error) bool {
	for _, class := range []error{hayrick.ErrNotFound, hayrick.ErrCorrupt, rows.ErrSchema, rows.ErrKind, rows.ErrRow} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// claim asks for a task. A reply that was lost is asked for again: the same attempt
// gets the claim that it may already have, instead of leaving it to run out. A
// *heldError says that another attempt has it.
func (a *Aggregator) claim(ctx context.Context, ask hayrick.ClaimAsk) (c hayrick.Claim, err error) {
	for range 3 {
		if c, err = a.State.Claim(ctx, ask); !errors.Is(err, hayrick.ErrUnknown) {
			break
		}
	}
	if errors.Is(err, hayrick.ErrConflict) {
		err = &heldError{c}
	}
	return c, err
}

// release ends the claim without counting it as vanished. Lost, it runs out.
func (a *Aggregator) release(ctx context.Context, ask hayrick.ClaimAsk) bool {
	var none time.Time
	_, err := a.State.UpdateClaim(context.WithoutCancel(ctx), ask.TaskRef, ask.Attempt, hayrick.ClaimPatch{Until: &none})
	if err != nil && !errors.Is(err, hayrick.ErrLeaseLost) {
		a.Log.Debug("claim not released", hayrick.KeyTaskID, ask.TaskID, hayrick.KeyError, err)
		return false
	}
	return true
}

// renew keeps the lease while the merge runs. A lost one only costs work: whoever
// commits first wins.
func (a *Aggregator) renew(ctx context.Context, ask hayrick.ClaimAsk) (stop func()) {
	ctx, stop = context.WithCancel(ctx)
	a.World.Go("renew", func() {
		for a.World.Clock.Sleep(ctx, ask.Lease/3) == nil {
			until := a.World.Clock.Now().Add(ask.Lease)
			if _, err := a.State.UpdateClaim(ctx, ask.TaskRef, ask.Attempt, hayrick.ClaimPatch{Until: &until}); errors.Is(err, hayrick.ErrLeaseLost) {
				return
			}
		}
	})
	return stop
}

// input says what of the plan a merge takes.
func (u unit) input(m *merging) string {
	plan := m.key.Rel(m.key.AggregationPlan(m.generation))
	if u.level == levelRanges {
		return fmt.Sprintf("%s#range %d", plan, u.n)
	}
	return fmt.Sprintf("%s#%d+%d", plan, u.span.First, u.span.Count)
}

// decode merges the rows of a span of inputs into one file of the unified schema
// and fills in res, from where earlier attempts came to. What is read must be the bytes,
// rows and row hash that its results.done vouches for, by itself or, where pages are
// copied, in sum; what is written is read back and must have their sum. errHandedBack: what was done of it is saved.
func (a *Aggregator) decode(ctx context.Context, m *merging, span manifest.Span, res *manifest.Result) error {
	inputs, err := m.pinned(ctx, span)
	if err != nil {
		return err
	}
	l := a.lend()
	at := progress{}
	if res.Fence > 1 {
		if at, err = a.recall(ctx, m, res.TaskID, inputs); err != nil {
			return err
		}
	}
	at.Schema, at.JobID, at.TaskID = schemaProgress, m.id, res.TaskID
	temp, sum, n, done, err := a.some(ctx, m, inputs, at.Inputs, l)
	if err != nil {
		return err
	}
	defer temp.Close()
	at.Inputs += n
	over := at.Inputs == len(inputs)
	if !over || len(at.Pieces) > 0 {
		if sum.Rows > 0 {
			key, err := a.putRows(ctx, m, res, sum, temp)
			if err != nil {
				return err
			}
			at.Pieces = append(at.Pieces, piece{key, sum.SHA256, sum.Bytes, sum.Rows, sum.RowHash.String()})
		}
		if !over || l.stops(done, 0, 2*at.bytes()) { // read, and stored again
			if err := a.save(ctx, m, res.Attempt, at); err != nil {
				return err
			}
			a.Log.Info("merge handed back", hayrick.KeyJobID, m.id, hayrick.KeyTaskID, res.TaskID, hayrick.KeyFence, res.Fence,
				"inputs", len(inputs), "merged", at.Inputs, "now", n)
			return errHandedBack
		}
		whole, err := a.Temp()
		if err != nil {
			return err
		}
		defer whole.Close()
		if sum, err = a.join(ctx, m, at, whole); err != nil {
			return err
		}
		temp = whole
	}
	for _, in := range inputs {
		if in.Rows > 0 {
			res.Inputs = append(res.Inputs, manifest.InputFile{Key: in.File, SHA256: in.SHA256, Rows: in.Rows})
		}
	}
	return a.putParquet(ctx, m, temp, sum, res)
}

// putRows stores a file of rows under a key of the attempt, relative to the job's folder.
func (a *Aggregator) putRows(ctx context.Context, m *merging, res *manifest.Result, sum rows.Summary, temp manifest.Temp) (string, error) {
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	key := m.key.Rows(res.TaskID, res.Attempt, sum.SHA256)
	if err := a.Store.Objects.Put(ctx, key, temp); err != nil {
		return "", fmt.Errorf("put %s: %w", key, err)
	}
	return m.key.Rel(key), nil
}

// some merges inputs from one on into a scratch file, the caller's to close, as many as
// there is time for, and says how many those were and how many bytes they had.
func (a *Aggregator) some(ctx context.Context, m *merging, inputs []manifest.MergeInput, from int, l lent) (temp manifest.Temp, sum rows.Summary, n int, done int64, err error) {
	var total int64
	for _, in := range inputs {
		total += in.Rows
	}
	// Whatever is at fault with the inputs, decoding them names it, and so only that says
	// what cannot be merged.
	for _, way := range []func(context.Context, *merging, []manifest.MergeInput, int64, manifest.Temp, lent) (rows.Summary, int, int64, error){a.copied, a.decoded} {
		if temp, err = a.Temp(); err != nil {
			return nil, sum, 0, 0, err
		}
		if sum, n, done, err = way(ctx, m, inputs[from:], total, temp, l); err == nil {
			return temp, sum, n, done, nil
		}
		temp.Close()
		if !errors.Is(err, rows.ErrUncopied) && !unmergeable(err) {
			break
		}
	}
	return nil, sum, 0, 0, err
}

// copied is decoded where the pages of the inputs can mostly be copied as they are: all
// bytes of a file are compared with its SHA-256, as ever, and the rows and the row hash
// that the results.done files vouch for with what is read back, which is the one time
// that it is decoded.
func (a *Aggregator) copied(ctx context.Context, m *merging, inputs []manifest.MergeInput, total int64, temp manifest.Temp, l lent) (sum rows.Summary, n int, done int64, err error) {
	c, err := rows.NewCopier(temp, m.schema, a.writerOptions(m, total))
	if err != nil {
		return sum, 0, 0, err
	}
	open := map[*rows.File]manifest.Blob{} // those that are too large to be held whole
	release := func(held func(*rows.File) bool) {
		for f, blob := range open {
			if !held(f) {
				blob.Close()
				delete(open, f)
			}
		}
	}
	defer release(func(*rows.File) bool { return false })
	var want rows.Hash
	var count int64
	for _, in := range inputs {
		if in.Rows > 0 {
			if l.stops(done, in.Bytes, 2*done) {
				break
			}
			if err := ctx.Err(); err != nil {
				return sum, 0, 0, err
			}
			h, err := rows.ParseHash(in.RowHash)
			if err != nil {
				return sum, 0, 0, fmt.Errorf("%v: %w", err, hayrick.ErrCorrupt)
			}
			f, blob, err := a.openChecked(ctx, m, in)
			if err != nil {
				return sum, 0, 0, err
			}
			if blob != nil {
				open[f] = blob
			}
			if err := c.Add(f); err != nil {
				return sum, 0, 0, err
			}
			release(c.Holds)
			want, count, done = want.Add(h), count+in.Rows, done+in.Bytes
		}
		n++
	}
	if sum, err = c.Close(); err != nil {
		return sum, 0, 0, err
	}
	sum.RowHash = want
	if sum.Rows > 0 {
		err = rows.Verify(temp, sum.Bytes, count, want)
	}
	return sum, n, done, err
}

// openChecked opens an input all bytes of which are the named ones, and the blob that it
// is read from, the caller's to close; nil = it is in memory.
func (a *Aggregator) openChecked(ctx context.Context, m *merging, in manifest.MergeInput) (*rows.File, manifest.Blob, error) {
	blob, err := a.Blobs.OpenAt(ctx, m.key.Abs(in.File))
	if err != nil {
		return nil, nil, damaged(in.File, in.TaskID, err)
	}
	r := reader{}
	body, err := r.checked(blob, in)
	if err != nil {
		blob.Close()
		return nil, nil, damaged(in.File, in.TaskID, err)
	}
	if body != io.ReaderAt(blob) {
		blob.Close()
		blob = nil
	}
	f, err := rows.Open(body, in.Bytes)
	if err != nil && blob != nil {
		blob.Close()
	}
	return f, blob, err
}

// decoded decodes inputs and encodes their rows anew.
func (a *Aggregator) decoded(ctx context.Context, m *merging, inputs []manifest.MergeInput, total int64, temp manifest.Temp, l lent) (sum rows.Summary, n int, done int64, err error) {
	// The hash of what is read back stands for that of what was written.
	opts := a.writerOptions(m, total)
	opts.Unhashed = m.readsBack()
	w, err := rows.NewWriter(temp, m.schema, opts)
	if err != nil {
		return sum, 0, 0, err
	}
	r := reader{blobs: a.Blobs}
	var want rows.Hash
	var count int64
	take := func(*rows.File) (func(*rows.Batch) error, error) {
		return func(b *rows.Batch) error { return w.AppendBatch(b, 0, b.Rows) }, nil
	}
	for _, in := range inputs {
		if in.Rows > 0 {
			if l.stops(done, in.Bytes, 2*done) {
				break
			}
			h, err := r.copyRows(ctx, m.key.Abs(in.File), in, m.schema, take)
			if err != nil {
				return sum, 0, 0, err
			}
			want, count, done = want.Add(h), count+in.Rows, done+in.Bytes
		}
		n++
	}
	if sum, err = w.Close(); err != nil {
		return sum, 0, 0, err
	}
	if opts.Unhashed {
		sum.RowHash = want
	}
	if sum.Rows != count || sum.RowHash != want {
		return sum, 0, 0, fmt.Errorf("%d rows with hash %s were read, %d with %s written: %w", count, want, sum.Rows, sum.RowHash, hayrick.ErrCorrupt)
	}
	return sum, n, done, m.readBack(temp, sum)
}

// writerOptions shape a file of about total rows.
func (a *Aggregator) writerOptions(m *merging, total int64) rows.WriterOptions {
	target := m.def.Merge.RowGroup
	if target <= 0 {
		target = rows.DefaultGroupRows
	}
	_, hold := a.share()
	return rows.WriterOptions{GroupRows: GroupRows(total, target), GroupBytes: hold, Dictionary: m.def.Merge.Dictionary, Rows: total}
}

// readsBack says that what is written is to be read again.
func (m *merging) readsBack() bool { return m.def.Merge.ReadBack == nil || *m.def.Merge.ReadBack }

// readBack reads a file in scratch again, where that is asked for.
func (m *merging) readBack(temp manifest.Temp, sum rows.Summary) error {
	if sum.Rows == 0 || !m.readsBack() {
		return nil
	}
	if err := rows.Verify(temp, sum.Bytes, sum.Rows, sum.RowHash); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return nil
}

// putParquet puts a file in scratch into the store and fills in res.
func (a *Aggregator) putParquet(ctx context.Context, m *merging, temp manifest.Temp, sum rows.Summary, res *manifest.Result) error {
	rel, err := a.putRows(ctx, m, res, sum, temp)
	if err != nil {
		return err
	}
	res.File, res.SHA256, res.Bytes = &rel, sum.SHA256, sum.Bytes
	res.RowCount, res.RowHash, res.SchemaDigest = sum.Rows, sum.RowHash.String(), sum.SchemaDigest
	return nil
}

// wholeBytes is up to what size a result is read in one piece, which spares the
// store a request a page.
const wholeBytes = 16 << 20

// reader reads results, one after the other.
type reader struct {
	blobs Blobs
	buf   []byte
	scan  *rows.Scanner // of the last one: its memory
}

// taker is asked of every file what takes its rows.
type taker func(*rows.File) (func(*rows.Batch) error, error)

// copyRows gives the rows of one result to take and returns their hash. A
// *damagedError: it is not the file that its results.done names. Any other that is
// unmergeable: it is, and no such rows are in it.
func (r *reader) copyRows(ctx context.Context, key string, in manifest.MergeInput, schema rows.Schema, take taker) (rows.Hash, error) {
	var none rows.Hash
	blob, err := r.blobs.OpenAt(ctx, key)
	if err != nil {
		return none, damaged(in.File, in.TaskID, err)
	}
	defer blob.Close()
	body, err := r.checked(blob, in)
	if err != nil {
		return none, damaged(in.File, in.TaskID, err)
	}
	h, err := r.decodeRows(ctx, body, in, schema, take)
	if unmergeable(err) && body == io.ReaderAt(blob) {
		// It was read a second time: it may have been damaged since the first.
		if _, err := r.checked(blob, in); err != nil {
			return none, damaged(in.File, in.TaskID, err)
		}
	}
	if err != nil {
		return none, fmt.Errorf("read %s: %w", in.File, err)
	}
	return h, nil
}

// decodeRows reads the rows of a file, all bytes of which are the named ones.
func (r *reader) decodeRows(ctx context.Context, body io.ReaderAt, in manifest.MergeInput, schema rows.Schema, take taker) (rows.Hash, error) {
	var none rows.Hash
	f, err := rows.Open(body, in.Bytes)
	if err != nil {
		return none, err
	}
	sc, err := f.Rescan(schema, r.scan)
	if err != nil {
		return none, err
	}
	r.scan = sc
	each, err := take(f)
	if err != nil {
		return none, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return none, err
		}
		b, err := sc.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return none, err
		}
		if err := each(b); err != nil {
			return none, err
		}
	}
	n, h := sc.Read()
	if n != in.Rows || h.String() != in.RowHash {
		return none, fmt.Errorf("%d rows with hash %s, its results.done says %d with %s: %w", n, h, in.Rows, in.RowHash, hayrick.ErrCorrupt)
	}
	return h, nil
}

// checked compares all bytes of a result with its SHA-256 before any is decoded. A
// large one is read twice, once for this.
func (r *reader) checked(blob manifest.Blob, in manifest.MergeInput) (io.ReaderAt, error) {
	if blob.Size() != in.Bytes {
		return nil, fmt.Errorf("%d bytes, its results.done says %d: %w", blob.Size(), in.Bytes, hayrick.ErrCorrupt)
	}
	var body io.ReaderAt = blob
	var sum [sha256.Size]byte
	if in.Bytes <= wholeBytes {
		if int64(len(r.buf)) < in.Bytes {
			r.buf = make([]byte, in.Bytes)
		}
		b := r.buf[:in.Bytes]
		if _, err := io.ReadFull(io.NewSectionReader(blob, 0, in.Bytes), b); err != nil {
			return nil, short(err)
		}
		body, sum = bytes.NewReader(b), sha256.Sum256(b)
	} else {
		if len(r.buf) < 1<<20 {
			r.buf = make([]byte, 1<<20)
		}
		h := sha256.New()
		n, err := io.CopyBuffer(h, io.NewSectionReader(blob, 0, in.Bytes), r.buf)
		if err == nil && n != in.Bytes {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, short(err)
		}
		h.Sum(sum[:0])
	}
	if got := hex.EncodeToString(sum[:]); got != in.SHA256 {
		return nil, fmt.Errorf("SHA-256 %s, its results.done says %s: %w", got, in.SHA256, hayrick.ErrCorrupt)
	}
	return body, nil
}

// short makes the early end of a file what it is: damage.
func short(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%v: %w", err, hayrick.ErrCorrupt)
	}
	return err
}
