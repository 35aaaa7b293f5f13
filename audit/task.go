package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// unit is a worker task as the plans describe it.
type unit struct {
	group string
	task  manifest.BlockTask
	batch manifest.Batch
	// closed: a plan has closed the group, so the task has a result; ref is what the
	// plan says of it.
	closed bool
	ref    manifest.ResultRef
	// void: the plan that closed the group after the end of its generation did not find a
	// result. One that has come since is nobody's.
	void bool
}

// failure is one item that did not end ok in a task.
type failure struct {
	manifest.FailureLine
	whole bool // the batch as a whole could not run; Key is not known
}

// taskEnd is what the objects say of one task.
type taskEnd struct {
	unit
	absent bool // it has no result, and need not have one
	known  bool // the result and its failures could be read
	res    manifest.Result
	sha    string
	hash   rows.Hash
	failed []failure
	items  []manifest.BatchItem // of the batch, where it was read
	schema *rows.Schema         // of its rows, where they were decoded
}

// readTask reads the commit of a task and everything that it names, and checks what
// can be told from the task alone.
func (l *look) readTask(ctx context.Context, u unit) (e taskEnd) {
	e.unit = u
	l.readBatch(ctx, &e)
	rel := l.a.job.Rel(l.a.job.Done(u.task.TaskID))
	if u.void {
		l.name(rel)
		l.name(l.a.job.Rel(l.a.job.TaskManifest(u.task.TaskID)))
		e.absent = true
		return e
	}
	if !u.closed {
		if _, err := l.raw(ctx, rel); errors.Is(err, hayrick.ErrNotFound) {
			l.name(rel) // it may still come
			e.absent = true
			return e
		}
		l.unvouched++
	}
	res, raw, found := record[manifest.Result](ctx, l, rel, u.ref.SHA256, manifest.SchemaResult)
	if !found {
		return e
	}
	if res.JobID != string(l.a.job) || res.TaskID != u.task.TaskID || res.BatchID == nil || *res.BatchID != u.batch.BatchID || res.Generation != l.a.n {
		l.lost(CodeForm, rel, "it is the result of %s of %s", res.TaskID, res.JobID)
		return e
	}
	l.checked.Commits++
	e.res, e.sha = res, manifest.SHA256(raw)
	l.view(ctx, l.a.job.Rel(l.a.job.TaskManifest(u.task.TaskID)), manifest.TaskView(res))

	var err error
	if e.hash, err = rows.ParseHash(res.RowHash); err != nil {
		l.lost(CodeForm, rel, "%v", err)
		return e
	}
	l.checkResult(rel, &e)
	switch hayrick.TaskOutcome(res.Status) {
	case hayrick.TaskDone:
		e.known = l.readFailures(ctx, rel, &e)
	case hayrick.TaskFailed:
		e.known = l.failWhole(rel, &e)
	default:
		l.lost(CodeForm, rel, "its status is %q", res.Status)
	}
	e.schema = l.readRows(ctx, rel, res, e.hash)
	l.readLog(ctx, rel, res)
	return e
}

// checkResult holds a result against its task and batch.
func (l *look) checkResult(rel string, e *taskEnd) {
	r, u := &e.res, &e.unit
	bad := func(format string, args ...any) { l.broken(CodeTask, rel, format, args...) }
	if r.BatchSHA256 != u.batch.SHA256 {
		bad("it is of a batch with SHA-256 %s, the plan's has %s", manifest.Short(r.BatchSHA256), manifest.Short(u.batch.SHA256))
	}
	if r.Items != u.batch.Items || r.OK < 0 || r.Failed < 0 || r.OK+r.Failed != r.Items {
		bad("%d ok and %d failed are not the %d items of its batch", r.OK, r.Failed, u.batch.Items)
	}
	t := r.Task
	if t.Role != string(hayrick.RoleWorker) || t.Group != u.group || t.Phase != string(hayrick.PhaseOf(u.group)) {
		bad("it is of role %s, group %s, phase %s", t.Role, t.Group, t.Phase)
	}
	if sha := l.a.plan.BundleSHA256; sha != "" && !strings.HasSuffix(r.CodeVersion, "+"+manifest.Short(sha)) {
		bad("it was run by %s, the plan's bundle is %s", r.CodeVersion, manifest.Short(sha))
	}
	if len(r.Inputs) > 0 || r.DroppedRows != 0 || r.DroppedHash != (rows.Hash{}).String() {
		bad("a worker merges and drops no rows")
	}
}

// readRows checks the Parquet file that a result names; with Deep, row by row. The
// schema is nil when nothing was decoded.
func (l *look) readRows(ctx context.Context, rel string, r manifest.Result, h rows.Hash) *rows.Schema {
	if r.File == nil {
		if r.RowCount != 0 || h != (rows.Hash{}) || r.SHA256 != "" || r.Bytes != 0 {
			l.broken(CodeRows, rel, "it has %d rows and no file", r.RowCount)
		}
		return nil
	}
	if r.RowCount < 1 || r.Status != string(hayrick.TaskDone) {
		l.broken(CodeRows, rel, "it is %s and names a file of %d rows", r.Status, r.RowCount)
	}
	if want := l.a.job.Rel(l.a.job.Rows(r.TaskID, r.Attempt, r.SHA256)); *r.File != want {
		l.broken(CodeKey, rel, "its rows lie under %s, not %s", *r.File, want)
	}
	if _, ok := l.hash(ctx, *r.File, r.SHA256, r.Bytes); !ok {
		return nil
	}
	l.checked.Data++
	if !l.a.Deep {
		return nil
	}
	n, got, schema, ok := l.decode(ctx, *r.File)
	if !ok {
		return nil
	}
	if n != r.RowCount || got != h {
		l.broken(CodeRows, *r.File, "it holds %d rows with hash %s, its commit says %d with %s", n, got, r.RowCount, h)
	}
	if d := schema.Digest(); d != r.SchemaDigest {
		l.broken(CodeRows, *r.File, "its columns have the digest %s, its commit says %s", manifest.Short(d), manifest.Short(r.SchemaDigest))
	}
	return &schema
}

// readLog checks the log that a result names.
func (l *look) readLog(ctx context.Context, rel string, r manifest.Result) {
	if r.Log == nil {
		return
	}
	if want := l.a.job.Rel(l.a.job.Log(r.TaskID, r.Attempt, r.Log.SHA256)); r.Log.File != want {
		l.broken(CodeKey, rel, "its log lies under %s, not %s", r.Log.File, want)
	}
	if _, ok := l.hash(ctx, r.Log.File, r.Log.SHA256, r.Log.Bytes); ok {
		l.checked.Data++
	}
}

// readFailures reads the failed items of a DONE task.
func (l *look) readFailures(ctx context.Context, rel string, e *taskEnd) bool {
	f := e.res.Failures
	if f == nil {
		if e.res.Failed != 0 {
			l.lost(CodeTotal, rel, "%d items failed and none is listed", e.res.Failed)
		}
		return e.res.Failed == 0
	}
	if want := l.a.job.Rel(l.a.job.Failures(e.res.TaskID, e.res.Attempt, f.SHA256)); f.File != want {
		l.broken(CodeKey, rel, "its failures lie under %s, not %s", f.File, want)
	}
	body, found := l.get(ctx, f.File, f.SHA256)
	if !found {
		return false
	}
	l.checked.Data++
	byClass := map[string]int64{}
	for line := range bytes.Lines(body) {
		var x failure
		if err := json.Unmarshal(line, &x.FailureLine); err != nil {
			l.lost(CodeForm, f.File, "line %d: %v", len(e.failed)+1, err)
			return false
		}
		byClass[x.Class]++
		e.failed = append(e.failed, x)
	}
	if len(e.failed) != f.Count || f.Count != e.res.Failed {
		l.broken(CodeTotal, rel, "it says %d failed items and a list of %d, the list has %d", e.res.Failed, f.Count, len(e.failed))
	}
	if !sameCounts(byClass, f.ByClass) {
		l.broken(CodeTotal, rel, "its counts by class are %v, the list has %v", f.ByClass, byClass)
	}
	return true
}

func sameCounts(a, b map[string]int64) bool {
	if len(a) != len(b) {
		return false
	}
	for k, n := range a {
		if b[k] != n {
			return false
		}
	}
	return true
}

// failWhole makes a failure of every item of a FAILED task: infra, one loss more, no
// try charged.
func (l *look) failWhole(rel string, e *taskEnd) bool {
	if e.res.OK != 0 || e.res.Failures != nil {
		l.broken(CodeTask, rel, "it FAILED as a whole and has items of its own")
	}
	if e.res.Task.Error == nil {
		l.broken(CodeTask, rel, "it FAILED without an error")
		return true
	}
	if e.batch.Retry && e.items == nil {
		return false // the segment is damaged, which has been found
	}
	for i := range e.batch.Items {
		x := failure{whole: true, FailureLine: manifest.FailureLine{
			Ordinal: e.batch.FirstOrdinal + int64(i), Class: e.res.Task.Error.Class, Disposition: string(hayrick.Infra),
			Message: e.res.Task.Error.Message, Losses: 1,
		}}
		if e.items != nil {
			it := e.items[i]
			x.Ordinal, x.Tries, x.Losses = it.Ordinal, it.Tries, it.Losses+1
		}
		e.failed = append(e.failed, x)
	}
	return true
}

// readBatch reads the items of a batch: always where they lie in the store, from the
// input where that was asked for.
func (l *look) readBatch(ctx context.Context, e *taskEnd) {
	if l.err != nil {
		return
	}
	b := e.batch
	rel, stored := strings.CutPrefix(b.Object, manifest.StoreScheme)
	var r io.ReadCloser
	var err error
	switch {
	case stored:
		r, err = l.a.Store.Objects.Open(ctx, l.a.job.Abs(rel), b.Offset, b.Length)
	case l.a.Inputs == nil:
		return
	default:
		r, err = l.a.Inputs.OpenInput(ctx, string(l.a.job), b)
	}
	if err == nil {
		e.items, err = manifest.OpenBatch(b, r)
		r.Close()
	}
	damaged := unreadable(err) || errors.Is(err, hayrick.ErrInputChanged) || errors.Is(err, hayrick.ErrNotFound)
	switch {
	case err == nil:
		l.checked.Bytes += b.Length
		if !stored {
			l.checked.Inputs++
		}
	case !damaged && !(!stored && errors.Is(err, hayrick.ErrDenied)): // S3 says no more than that
		l.err = err
	case !stored:
		l.unread++
		if l.why == nil {
			l.why = err
		}
	case b.Retry:
		l.lost(CodeDigest, rel, "%v", err)
	default:
		l.broken(CodeDigest, rel, "%v", err)
	}
}

// account adds a task to the sums of the job and ends its ok items.
func (a *auditor) account(e *taskEnd) {
	if e.void {
		return
	}
	rel := a.job.Rel(a.job.Done(e.task.TaskID))
	for _, pinned := range a.pinned[a.n:] {
		a.merges(pinned, rel, e)
	}
	if e.absent || e.sha == "" {
		return
	}
	if e.res.RowCount > 0 {
		a.in.files++
		a.in.add(e.res.RowCount, e.hash)
		if len(a.files) < manifest.InlineList && e.res.File != nil {
			a.files = append(a.files, *e.res.File)
			a.byBatch[e.batch.BatchID] += e.res.RowCount
		}
	}
	if e.schema != nil {
		u, err := rows.Unify(a.unified, *e.schema)
		if err != nil {
			a.broken(CodeRows, *e.res.File, "%v", err)
		} else {
			a.unified = u
		}
	}
	if e.known {
		a.endOK(rel, e)
	}
}

// merges compares what an aggregation plan says of a task with its result.
func (a *auditor) merges(pinned *inputs, rel string, e *taskEnd) {
	in, there := pinned.next()
	if e.absent || e.sha == "" {
		return
	}
	if !there {
		if pinned.open {
			a.broken(CodeChain, pinned.key, "it does not merge %s", e.res.TaskID)
		}
		return
	}
	want := manifest.MergeInput{
		TaskID: e.res.TaskID, BatchID: e.batch.BatchID, DoneSHA256: e.sha, SHA256: e.res.SHA256,
		Bytes: e.res.Bytes, Rows: e.res.RowCount, RowHash: e.res.RowHash,
	}
	if e.res.File != nil {
		want.File = *e.res.File
	}
	if in != want {
		a.broken(CodeChain, pinned.key, "what it pins of %s is not what %s says", in.TaskID, rel)
	}
}

// endOK ends the items of a task that did not fail. A failed item must be of the
// batch, and is named once.
func (a *auditor) endOK(rel string, e *taskEnd) {
	if e.batch.Retry && e.items == nil {
		return // the segment is damaged, which has been found
	}
	failed := make(map[int64]bool, len(e.failed))
	for _, f := range e.failed {
		if failed[f.Ordinal] {
			a.broken(CodeItem, rel, "item %d failed twice", f.Ordinal)
		}
		failed[f.Ordinal] = true
	}
	matched := 0
	for i := range e.batch.Items {
		ordinal := e.batch.FirstOrdinal + int64(i)
		if e.batch.Retry {
			ordinal = e.items[i].Ordinal
		}
		if failed[ordinal] {
			matched++
			continue
		}
		a.closeItem(rel, ordinal, endOK)
	}
	if matched != len(failed) {
		a.broken(CodeItem, rel, "%s of %s", count(int64(len(failed)-matched), "failed item is not", "failed items are not"), e.batch.BatchID)
	}
	if ended := e.batch.Items - matched; ended != e.res.OK {
		a.broken(CodeTotal, rel, "it says %d ok, %d items did not fail", e.res.OK, ended)
	}
}

// closeItem ends an item in the ledger, as rel says.
func (a *auditor) closeItem(rel string, ordinal int64, e end) {
	was, done := a.ledger.close(ordinal, e)
	switch {
	case done:
	case was == endOpen:
		a.broken(CodeItem, rel, "item %d ends %s and is no item of the job", ordinal, e)
	default:
		a.broken(CodeItem, rel, "item %d ends %s, and had ended %s before", ordinal, e, was)
	}
}
