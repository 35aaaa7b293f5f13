package aggregator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// With output.unique_by there are two levels that decode. Level 1 sorts the rows of a
// span of results by their keys and leaves a run behind; level 2 takes a range of keys
// over all runs and writes its rows as part of the dataset. Both let one row of a key
// through: on level 1 that is only to have less to move, for the first (or last) of a
// key among all rows is the first among those of its span.

func (a *Aggregator) sorter(d *dropper) *sorter {
	_, hold := a.share()
	s := &sorter{temp: a.Temp, memory: hold}
	if d != nil {
		s.thin = d.thin
	}
	return s
}

// sortInputs gives the rows of a span of inputs to a sorter that lets one row of each
// key through, and returns their number and hash. The sorter is the caller's to close.
func (a *Aggregator) sortInputs(ctx context.Context, m *merging, span manifest.Span, res *manifest.Result) (s *sorter, drop *dropper, in rows.Hash, count int64, err error) {
	inputs, err := m.pinned(ctx, span)
	if err != nil {
		return nil, nil, in, 0, err
	}
	if drop, err = newDropper(m.schema, m.plan.Unique.Columns, m.plan.Unique.Keep); err != nil {
		return nil, nil, in, 0, err
	}
	s = a.sorter(drop)
	s.buffers = take(a, &a.kept.sorters)
	s.give = func(b buffers) { keep(a, &a.kept.sorters, b) }
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	take := func(f *rows.File) (func(*rows.Batch) error, error) {
		items, err := f.Items()
		if err != nil {
			return nil, err
		}
		f.HashRows()
		return func(b *rows.Batch) error {
			for r := range b.Rows {
				item, place, err := items.Next()
				if err != nil {
					return err
				}
				if err := s.add(drop.keyer, b, r, item, place); err != nil {
					return err
				}
			}
			return nil
		}, nil
	}
	r := reader{blobs: a.Blobs}
	for _, x := range inputs {
		if x.Rows == 0 {
			continue
		}
		h, err := r.copyRows(ctx, m.key.Abs(x.File), x, m.schema, take)
		if err != nil {
			return s, drop, in, count, err
		}
		in, count = in.Add(h), count+x.Rows
		res.Inputs = append(res.Inputs, manifest.InputFile{Key: x.File, SHA256: x.SHA256, Rows: x.Rows})
	}
	return s, drop, in, count, nil
}

// sortRun sorts the rows of a span of inputs and stores them as a run, and fills in
// res. What is written is read back, and together with what was dropped it must be
// what was read. The hash of a row was made when it was read from its file; the run has
// it beside the row, so that nobody makes it again who has not read the row anew.
func (a *Aggregator) sortRun(ctx context.Context, m *merging, span manifest.Span, res *manifest.Result) (err error) {
	s, drop, in, count, err := a.sortInputs(ctx, m, span, res)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	sorted, err := s.sorted()
	if err != nil {
		return err
	}
	temp, err := a.Temp()
	if err != nil {
		return err
	}
	defer temp.Close()
	w := rows.NewRunWriter(temp, true)
	var h rows.Hash // of what is written
	if err := each(ctx, sorted, func(e *rows.Entry) error {
		h = h.Add(e.Hash)
		return w.Add(e)
	}); err != nil {
		return err
	}
	sum, err := w.Close()
	if err != nil {
		return err
	}
	if err := s.close(); err != nil {
		return err
	}
	dropped, dropHash := drop.rows, drop.hash
	n := sum.Rows
	if m.readsBack() {
		if n, h, err = readRun(ctx, temp, sum.Bytes, sum.IndexSHA256, m.schema); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
	}
	if n+dropped != count || h.Add(dropHash) != in {
		return fmt.Errorf("%d rows with hash %s were read, %d with %s written and %d with %s dropped: %w", count, in, n, h, dropped, dropHash, hayrick.ErrCorrupt)
	}
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	at := m.key.Run(res.TaskID, res.Attempt, sum.SHA256)
	if err := a.Store.Objects.Put(ctx, at, temp); err != nil {
		return fmt.Errorf("put %s: %w", at, err)
	}
	rel := m.key.Rel(at)
	res.File, res.SHA256, res.Bytes, res.IndexSHA256 = &rel, sum.SHA256, sum.Bytes, sum.IndexSHA256
	res.RowCount, res.RowHash, res.SchemaDigest = n, h.String(), m.schema.Digest()
	res.DroppedRows, res.DroppedHash = dropped, dropHash.String()
	return nil
}

// each calls f for all entries.
func each(ctx context.Context, all entries, f func(*rows.Entry) error) error {
	for n := 0; ; n++ {
		if n%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		e, err := all.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(e); err != nil {
			return err
		}
	}
}

// readRun counts the rows of a run and hashes them. The hash that it has beside each row
// must be that of the row.
func readRun(ctx context.Context, r io.ReaderAt, size int64, index string, s rows.Schema) (n int64, h rows.Hash, err error) {
	run, err := rows.OpenRun(r, size, index)
	if err != nil {
		return 0, h, err
	}
	b, hashes := rows.NewBatch(s), rows.NewHashes(s)
	var beside []rows.Hash
	settle := func() error {
		got, err := hashes.Same(b, beside)
		if err != nil {
			return fmt.Errorf("row %d and those behind it: %w", n, err)
		}
		n, h = n+int64(b.Rows), h.Add(got)
		b.Reset()
		beside = beside[:0]
		return nil
	}
	err = each(ctx, run.Scan(nil, nil), func(e *rows.Entry) error {
		if err := b.TakeRecord(e.Record); err != nil {
			return err
		}
		beside = append(beside, e.Hash)
		if b.Rows == 1024 || b.Size(0, b.Rows) > 1<<20 {
			return settle()
		}
		return nil
	})
	if err == nil {
		err = settle()
	}
	return n, h, err
}

// errLevelOpen: a merge of level 1 has not ended.
var errLevelOpen = errors.New("level 1 has not ended")

// sortedRun is what a merge of level 1 has left behind.
type sortedRun struct {
	taskID, file, sha, index string
	bytes, rows              int64
}

// sortedRuns reads what all merges of level 1 have left, once.
func (a *Aggregator) sortedRuns(ctx context.Context, m *merging) ([]sortedRun, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.runs != nil {
		return m.runs, nil
	}
	all, err := a.merges(ctx, m.jobOf, m.members, levelInputs)
	if err != nil {
		return nil, err
	}
	if len(all.missing) > 0 || all.failed != "" {
		return nil, errLevelOpen
	}
	var out []sortedRun
	for i, o := range all.outputs {
		out = append(out, sortedRun{taskID: all.tasks[i], file: o.Name, sha: o.SHA256, index: all.indexes[i], bytes: o.Size, rows: o.Rows})
	}
	m.runs = out
	return out, nil
}

// mergeRange writes the rows of a range of keys, over all runs, and fills in res.
func (a *Aggregator) mergeRange(ctx context.Context, m *merging, u unit, res *manifest.Result) (err error) {
	lo, hi, ok := m.plan.Unique.Range(int64(u.n))
	if !ok {
		return fmt.Errorf("range %d of %d: %w", u.n, len(m.plan.Unique.Bounds)+1, hayrick.ErrCorrupt)
	}
	all, err := a.sortedRuns(ctx, m)
	if err != nil {
		return err
	}
	drop, err := newDropper(m.schema, m.plan.Unique.Columns, m.plan.Unique.Keep)
	if err != nil {
		return err
	}
	a.forgo()
	parts, err := a.slices(ctx, m, all, lo, hi)
	if err != nil {
		return err
	}
	defer func() {
		for _, x := range parts {
			x.blob.Close()
		}
	}()
	s := a.sorter(drop)
	defer func() { err = errors.Join(err, s.close()) }()
	var sources []source
	var most int64 // rows, about
	for _, x := range parts {
		most += x.run.Rows()
		sources = append(sources, source{run: x.run, scan: x.scan})
	}
	merged, err := s.merge(sources)
	if err != nil {
		return err
	}
	if err := a.store(ctx, m, merged, most, res); err != nil {
		return err
	}
	var count int64
	for _, x := range parts {
		if x.rows > 0 {
			res.Inputs = append(res.Inputs, manifest.InputFile{Key: x.of.file, SHA256: x.of.sha, Rows: x.rows})
			count += x.rows
		}
	}
	dropped, dropHash := drop.rows, drop.hash
	if res.RowCount+dropped != count {
		return fmt.Errorf("%d rows were read, %d written and %d dropped: %w", count, res.RowCount, dropped, hayrick.ErrCorrupt)
	}
	res.DroppedRows, res.DroppedHash = dropped, dropHash.String()
	return nil
}

// store writes rows in order as a file of the dataset, or several, reads it back, puts it into
// the store and fills in res. Of no rows there is no file.
func (a *Aggregator) store(ctx context.Context, m *merging, in entries, most int64, res *manifest.Result) error {
	if !plain(m.def.Output) {
		f, err := a.files(ctx, m, res)
		if err != nil {
			return err
		}
		defer f.close()
		if err := each(ctx, in, func(e *rows.Entry) error { return f.add(e.Record) }); err != nil {
			return err
		}
		return f.finish()
	}
	temp, err := a.Temp()
	if err != nil {
		return err
	}
	defer temp.Close()
	// What is read back must have the hash that the rows came with.
	opts := a.writerOptions(m, most)
	opts.Unhashed, opts.Group = true, take(a, &a.kept.groups)
	w, err := rows.NewWriter(temp, m.schema, opts)
	if err != nil {
		return err
	}
	var want rows.Hash
	if err := each(ctx, in, func(e *rows.Entry) error {
		want = want.Add(e.Hash)
		return w.AppendRecord(e.Record)
	}); err != nil {
		return err
	}
	sum, err := w.Close()
	if err != nil || sum.Rows == 0 {
		return err
	}
	keep(a, &a.kept.groups, w.Group())
	sum.RowHash = want
	if err := m.readBack(temp, sum); err != nil {
		return err
	}
	return a.putParquet(ctx, m, temp, sum, res)
}

// slice is what one run has of a range of keys.
type slice struct {
	of     sortedRun
	run    *rows.Run
	blob   *lateBlob
	rows   int64 // read so far, of the range
	lo, hi []byte
	cursor *rows.RunCursor
}

// slices opens what all runs have of a range of keys.
func (a *Aggregator) slices(ctx context.Context, m *merging, all []sortedRun, lo, hi []byte) ([]*slice, error) {
	out := make([]*slice, len(all))
	if err := a.each(len(all), func(i int) error {
		x := all[i]
		b := &lateBlob{open: func() (manifest.Blob, error) { return a.Blobs.OpenAt(ctx, m.key.Abs(x.file)) }}
		defer b.Close()
		run, err := rows.OpenRun(b, x.bytes, x.index)
		if err != nil {
			return damaged(x.file, x.taskID, err)
		}
		out[i] = &slice{of: x, run: run.Within(lo, hi), blob: b, lo: lo, hi: hi}
		return nil
	}); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(out, func(x *slice) bool { return x.run.Rows() == 0 }), nil
}

func (x *slice) scan() entries {
	x.cursor = x.run.Scan(x.lo, x.hi)
	return x
}

// Next is entries.
func (x *slice) Next() (*rows.Entry, error) {
	e, err := x.cursor.Next()
	if err == nil {
		x.rows++
		return e, nil
	}
	x.blob.Close()
	if err != io.EOF {
		err = damaged(x.of.file, x.of.taskID, err)
	}
	return nil, err
}

// lateBlob is open from the first read until it is closed, and again from the next
// one: of thousands of runs only those that are read are open.
type lateBlob struct {
	open func() (manifest.Blob, error)
	blob manifest.Blob
}

func (b *lateBlob) ReadAt(p []byte, at int64) (int, error) {
	if b.blob == nil {
		var err error
		if b.blob, err = b.open(); err != nil {
			return 0, err
		}
	}
	return b.blob.ReadAt(p, at)
}

func (b *lateBlob) Close() error {
	if b.blob == nil {
		return nil
	}
	err := b.blob.Close()
	b.blob = nil
	return err
}
