package retryplanner

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"hayrick"
	"hayrick/manifest"
)

const (
	// readers is how many results are read at once. One of S3 takes some 30 ms: so many at
	// a time, a million are read within ten minutes, which an invocation of a function has.
	readers = 64
	// openers is of how many tasks batches and failures are read at once, and so how many
	// are in memory.
	openers = 16
)

// survey is what the results of a closed group say: its sums in memory, and what
// grows with the group on the scratch disk.
type survey struct {
	tally tally
	// results has a ResultRef of every task; few is the same as long as they are at
	// most manifest.InlineList.
	results *spool
	few     []manifest.ResultRef
	// retry has RetryItems, the others ListLines; all in ordinal order.
	retry, permanent, exhausted *spool

	dir string
}

func newSurvey(dir string) *survey {
	in := func(name string) *spool { return newSpool(filepath.Join(dir, name)) }
	return &survey{tally: newTally(), dir: dir, results: in("results"), retry: in("retry"), permanent: in("permanent"), exhausted: in("exhausted")}
}

func (s *survey) close() {
	spilled := false
	for _, sp := range []*spool{s.results, s.retry, s.permanent, s.exhausted} {
		spilled = sp.close() || spilled
	}
	if spilled {
		os.RemoveAll(s.dir)
	}
}

// survey reads every result of the group, in task order. One that is missing ends
// it: the group is not closed.
func (c *closing) survey(ctx context.Context, s *survey) ([]Missing, error) {
	members, err := c.Store.Members(ctx, c.jobID, c.generation, c.opened)
	if err != nil {
		return nil, gone(err)
	}
	for n := range members.Blocks() {
		block, err := members.Block(ctx, c.Store, n)
		if err != nil {
			return nil, gone(err)
		}
		index, err := members.Index(ctx, c.Store, n)
		if err != nil {
			return nil, gone(err)
		}
		if len(index.Batches) != len(block.Tasks) {
			return nil, fmt.Errorf("block %d has %d tasks and %d batches: %w", n, len(block.Tasks), len(index.Batches), hayrick.ErrCorrupt)
		}
		for lo := 0; lo < len(block.Tasks); lo += readers {
			hi := min(lo+readers, len(block.Tasks))
			results, err := c.readResults(ctx, block.Tasks[lo:hi])
			var missing []Missing
			for i, r := range results {
				if r.missing {
					missing = append(missing, Missing{Block: n, Position: lo + i, TaskID: block.Tasks[lo+i].TaskID})
				}
			}
			if len(missing) > 0 {
				return missing, nil
			}
			if err != nil {
				return nil, err
			}
			for at := lo; at < hi; at += openers {
				to := min(at+openers, hi)
				ends, err := c.readTasks(ctx, block.Tasks[at:to], index.Batches[at:to], results[at-lo:to-lo])
				if err != nil {
					return nil, err
				}
				for i, e := range ends {
					if err := c.note(s, e); err != nil {
						return nil, fmt.Errorf("%s: %w", block.Tasks[at+i].TaskID, err)
					}
				}
			}
		}
	}
	return nil, nil
}

// noteResult adds the result of one task to the survey.
func (s *survey) noteResult(ref manifest.ResultRef) error {
	if err := s.results.add(ref); err != nil {
		return err
	}
	if s.results.lines <= manifest.InlineList {
		s.few = append(s.few, ref)
	} else {
		s.few = nil
	}
	if ref.Retried > 0 {
		s.tally.tasks++
	}
	return nil
}

// note adds the end of one task to the survey.
func (c *closing) note(s *survey, e taskEnd) error {
	if err := s.noteResult(e.ref); err != nil {
		return err
	}
	for _, f := range e.items {
		if err := s.tally.add(f.failed, f.verdict); err != nil {
			return err
		}
		var err error
		if f.verdict == retry {
			err = s.retry.add(c.policy.again(f.failed, f.record))
		} else {
			to := s.permanent
			if f.verdict == exhausted {
				to = s.exhausted
			}
			err = to.add(manifest.ListLine{
				Ordinal: f.Ordinal, Key: f.Key, Class: f.Class, Message: f.Message,
				TaskID: e.ref.TaskID, Tries: f.Tries, Losses: f.Losses,
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// result is the results.done of one task.
type result struct {
	missing bool
	sha     string
	manifest.Result
}

// taskEnd is what one task came to.
type taskEnd struct {
	missing bool
	ref     manifest.ResultRef
	whole   bool                // the task FAILED as a whole
	why     *manifest.TaskError // then
	items   []failedItem        // in ordinal order
}

type failedItem struct {
	failed
	verdict verdict
	record  []byte // nil unless it is to be retried
}

// each calls f for every task at once. The error is that of the first one in task order;
// what f did for the others is whole.
func (c *closing) each(tasks []manifest.BlockTask, f func(i int) error) error {
	errs := make([]error, len(tasks))
	var wg sync.WaitGroup
	for i := range tasks {
		wg.Add(1)
		c.World.Go("read result", func() {
			defer wg.Done()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", tasks[i].TaskID, err)
		}
	}
	return nil
}

func (c *closing) eachTask(tasks []manifest.BlockTask, read func(i int) (taskEnd, error)) ([]taskEnd, error) {
	ends := make([]taskEnd, len(tasks))
	return ends, c.each(tasks, func(i int) (err error) {
		ends[i], err = read(i)
		return err
	})
}

func (c *closing) readResults(ctx context.Context, tasks []manifest.BlockTask) ([]result, error) {
	results := make([]result, len(tasks))
	return results, c.each(tasks, func(i int) (err error) {
		results[i], err = c.fetch(ctx, tasks[i])
		return err
	})
}

// fetch reads the results.done of a task, if there is one.
func (c *closing) fetch(ctx context.Context, t manifest.BlockTask) (r result, err error) {
	r.Result, r.sha, err = c.Store.Result(ctx, c.jobID, t.TaskID)
	if r.missing = errors.Is(err, hayrick.ErrNotFound); r.missing {
		err = nil
	}
	return r, err
}

// readTasks reads what some tasks came to, at once. The error is that of the first one
// in task order; the others are whole.
func (c *closing) readTasks(ctx context.Context, tasks []manifest.BlockTask, batches []manifest.Batch, results []result) ([]taskEnd, error) {
	return c.eachTask(tasks, func(i int) (taskEnd, error) { return c.readTask(ctx, tasks[i], batches[i], results[i]) })
}

// readResult reads what the result of a task says: of one that is DONE, its failed items.
// A FAILED one has its error, and all items of its batch failed.
func (c *closing) readResult(ctx context.Context, t manifest.BlockTask, b manifest.Batch, res result) (end taskEnd, fs []failed, err error) {
	if res.BatchID == nil || *res.BatchID != b.BatchID || res.Generation != c.generation {
		return end, nil, fmt.Errorf("its result is not of %s in generation %d: %w", b.BatchID, c.generation, hayrick.ErrCorrupt)
	}
	end.ref = manifest.ResultRef{TaskID: t.TaskID, SHA256: res.sha}
	switch hayrick.TaskOutcome(res.Status) {
	case hayrick.TaskFailed:
		end.whole, end.why = true, res.Task.Error
		return end, make([]failed, b.Items), nil
	case hayrick.TaskDone:
		if res.Items != b.Items || res.OK < 0 || res.OK+res.Failed != res.Items {
			return end, nil, fmt.Errorf("its result says %d ok and %d failed of %d items: %w", res.OK, res.Failed, b.Items, hayrick.ErrCorrupt)
		}
		fs, err = c.failures(ctx, res.Result)
		return end, fs, err
	}
	return end, nil, fmt.Errorf("its result says %q: %w", res.Status, hayrick.ErrCorrupt)
}

func (c *closing) readTask(ctx context.Context, t manifest.BlockTask, b manifest.Batch, res result) (taskEnd, error) {
	end, fs, err := c.readResult(ctx, t, b, res)
	if err != nil {
		return end, err
	}
	var records map[int64]manifest.BatchItem
	if end.whole {
		items, err := c.openBatch(ctx, b)
		if err != nil {
			return taskEnd{}, err
		}
		fs, records = whole(items, c.label, end.why), byOrdinal(items)
	} else {
		// A retry's batch says what its items have spent; the input's is read only where
		// an item of it runs again.
		again := func(f failed) bool { v, _ := c.policy.decide(f); return v == retry }
		if len(fs) > 0 && (b.Retry || slices.ContainsFunc(fs, again)) {
			items, err := c.openBatch(ctx, b)
			if err != nil {
				return taskEnd{}, err
			}
			records = byOrdinal(items)
		}
	}
	for _, f := range fs {
		x := failedItem{failed: f}
		if records != nil {
			it, ok := records[f.Ordinal]
			if !ok {
				return taskEnd{}, fmt.Errorf("failed item %d is not of %s: %w", f.Ordinal, b.BatchID, hayrick.ErrCorrupt)
			}
			x.record, x.classes, x.infra = it.Data, it.Classes, it.Infra
		} else if f.Ordinal < b.FirstOrdinal || f.Ordinal >= b.FirstOrdinal+int64(b.Items) {
			return taskEnd{}, fmt.Errorf("failed item %d is not of %s: %w", f.Ordinal, b.BatchID, hayrick.ErrCorrupt)
		}
		var because string
		x.verdict, because = c.policy.decide(x.failed)
		switch x.verdict {
		case retry:
			end.ref.Retried++
		case exhausted:
			c.Log.Debug("item exhausted", hayrick.KeyJobID, c.jobID, hayrick.KeyTaskID, t.TaskID, hayrick.KeyOrdinal, x.Ordinal, "because", because)
		}
		end.items = append(end.items, x)
	}
	return end, nil
}

// failures reads the failed items of a task, in ordinal order.
func (c *closing) failures(ctx context.Context, res manifest.Result) ([]failed, error) {
	if res.Failed == 0 && res.Failures == nil {
		return nil, nil
	}
	if res.Failures == nil || res.Failures.Count != res.Failed {
		return nil, fmt.Errorf("its result says %d failed items and lists others: %w", res.Failed, hayrick.ErrCorrupt)
	}
	body, err := c.Store.Data(ctx, c.job.Abs(res.Failures.File), res.Failures.SHA256)
	if err != nil {
		return nil, gone(err)
	}
	fs := make([]failed, 0, res.Failed)
	for line := range bytes.Lines(body) {
		var f failed
		if err := json.Unmarshal(line, &f.FailureLine); err != nil {
			return nil, fmt.Errorf("read %s: %v: %w", res.Failures.File, err, hayrick.ErrCorrupt)
		}
		fs = append(fs, f)
	}
	if len(fs) != res.Failed {
		return nil, fmt.Errorf("read %s: %d lines, want %d: %w", res.Failures.File, len(fs), res.Failed, hayrick.ErrCorrupt)
	}
	slices.SortStableFunc(fs, func(a, b failed) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	return fs, nil
}

// openBatch reads the records of a batch. ErrInputChanged: an input is not what was
// planned, or is no more, and a person has to decide.
func (c *closing) openBatch(ctx context.Context, b manifest.Batch) ([]manifest.BatchItem, error) {
	r, err := c.Inputs.OpenInput(ctx, c.jobID, b)
	if errors.Is(err, hayrick.ErrNotFound) {
		if b.Retry {
			return nil, gone(err)
		}
		return nil, fmt.Errorf("%s is not there: %w", b.Object, hayrick.ErrInputChanged)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", b.BatchID, b.Object, err)
	}
	defer r.Close()
	return manifest.OpenBatch(b, r)
}

func byOrdinal(items []manifest.BatchItem) map[int64]manifest.BatchItem {
	m := make(map[int64]manifest.BatchItem, len(items))
	for _, it := range items {
		m[it.Ordinal] = it
	}
	return m
}

// gone turns "not found" of an object that a commit names into what it is: a fact
// that broke, not an answer.
func gone(err error) error {
	if errors.Is(err, hayrick.ErrNotFound) {
		return fmt.Errorf("a named object is gone: %v: %w", err, hayrick.ErrCorrupt)
	}
	return err
}
