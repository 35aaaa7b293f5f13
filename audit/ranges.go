package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// walkRanges checks the merges of level 2: together they have read every row of every
// run, and each has put out or dropped what it read. It returns those with rows.
func (a *auditor) walkRanges(ctx context.Context, plan string, runs []merged) ([]merged, error) {
	g := *a.agg.Ranges
	blocks, index, err := a.groupRefs(ctx, a.look, g)
	if err != nil {
		return nil, err
	}
	if g.Name != hayrick.GroupRanges || g.Phase != string(hayrick.PhaseAggregation) || len(index) > 0 || g.Tasks != int64(len(a.agg.Unique.Bounds))+1 {
		a.broken(CodeChain, plan, "it opens %s of phase %s with %d tasks for %d bounds", g.Name, g.Phase, g.Tasks, len(a.agg.Unique.Bounds))
	}
	for i, b := range a.agg.Unique.Bounds {
		if i > 0 && bytes.Compare(a.agg.Unique.Bounds[i-1], b) >= 0 {
			a.broken(CodeChain, plan, "bound %d of its ranges is not above the one before", i)
		}
	}
	var files []manifest.InputFile
	left := map[string]int64{}
	var in total
	for _, r := range runs {
		files = append(files, manifest.InputFile{Key: r.file, SHA256: r.sha, Rows: r.total.rows})
		left[r.file] = r.total.rows
		in.add(r.total.rows, r.total.hash)
	}
	var all []merged
	for n := range blocks {
		block, ok := a.block(ctx, a.look, g.Name, n, blocks[n])
		if !ok {
			return nil, errTorn
		}
		a.checked.Data++
		for lo := 0; lo < len(block.Tasks); lo += 2 * readers {
			hi := min(lo+2*readers, len(block.Tasks))
			units := make([]mergeUnit, hi-lo)
			for i := range units {
				t, node := block.Tasks[lo+i], len(all)+i
				if t.TaskID != manifest.MergeTaskID(a.n, levelRanges, node, 0) || t.BatchID != nil || t.Merge != nil || t.Range == nil || *t.Range != int64(node) {
					a.lost(CodeChain, blocks[n].Key, "merge %d of level 2 is %s", node, t.TaskID)
					return nil, errTorn
				}
				units[i] = mergeUnit{level: levelRanges, node: node, inputs: files}
			}
			ends := make([]merged, len(units))
			if err := a.each(len(units), func(i int, l *look) { ends[i] = l.readMerge(ctx, units[i]) }); err != nil {
				return nil, err
			}
			all = append(all, ends...)
			a.progress("merge", int64(len(all)), g.Tasks)
		}
	}
	var out total
	var outputs []merged
	for _, m := range all {
		for _, key := range m.used {
			delete(a.mergeSHA, key)
		}
		for _, f := range m.inputs {
			left[f.Key] -= f.Rows
		}
		out.add(m.total.rows, m.total.hash)
		out.add(m.drop.rows, m.drop.hash)
		a.dropped.add(m.drop.rows, m.drop.hash)
		if m.total.rows > 0 {
			outputs = append(outputs, m)
		}
	}
	if a.blind || !a.succeeded() {
		return outputs, a.err
	}
	for _, f := range files {
		if n := left[f.Key]; n != 0 {
			a.broken(CodeRows, f.Key, "the merges of the ranges have read %d of its %d rows", f.Rows-n, f.Rows)
		}
	}
	if out.rows != in.rows || out.hash != in.hash {
		a.broken(CodeRows, plan, "the runs hold %d rows with hash %s, the merges of their ranges put out and dropped %d with %s", in.rows, in.hash, out.rows, out.hash)
	}
	return outputs, a.err
}

// checkRange: it read nothing but runs, and in = out + dropped. What it read of each
// is added up by walkRanges.
func (l *look) checkRange(rel string, u mergeUnit, r manifest.Result, m merged) {
	if l.blind {
		return
	}
	var in int64
	next := 0
	for _, f := range r.Inputs {
		for next < len(u.inputs) && u.inputs[next].Key != f.Key {
			next++
		}
		if next == len(u.inputs) || u.inputs[next].SHA256 != f.SHA256 || f.Rows < 1 || f.Rows > u.inputs[next].Rows {
			l.broken(CodeChain, rel, "%s, with %d rows, is no run of level 1, or is out of order", f.Key, f.Rows)
			return
		}
		next++
		in += f.Rows
	}
	if r.DroppedRows < 0 || in != m.total.rows+m.drop.rows {
		l.broken(CodeRows, rel, "%d rows went in, %d came out and %d were dropped", in, m.total.rows, m.drop.rows)
	}
}

// readRun checks the run that a merge of level 1 names; with Deep, row by row.
func (l *look) readRun(ctx context.Context, rel string, r manifest.Result, h rows.Hash) {
	if r.File == nil {
		if r.RowCount != 0 || h != (rows.Hash{}) || r.Status == string(hayrick.TaskDone) {
			l.broken(CodeRows, rel, "it has %d rows and no file", r.RowCount)
		}
		return
	}
	if want := l.a.job.Rel(l.a.job.Run(r.TaskID, r.Attempt, r.SHA256)); *r.File != want {
		l.broken(CodeKey, rel, "its rows lie under %s, not %s", *r.File, want)
	}
	if _, ok := l.hash(ctx, *r.File, r.SHA256, r.Bytes); !ok {
		return
	}
	l.checked.Data++
	var schema rows.Schema
	if err := decodeColumns(l.a.agg.Columns, &schema); err != nil || !l.a.Deep {
		return // of the columns walkAggregation says so
	}
	if d := schema.Digest(); d != r.SchemaDigest {
		l.broken(CodeRows, rel, "its columns have the digest %s, the planned ones %s", manifest.Short(r.SchemaDigest), manifest.Short(d))
		return
	}
	n, got, err := l.runRows(ctx, *r.File, r.IndexSHA256, schema)
	switch {
	case err == nil && n == r.RowCount && got == h:
		l.decoded.Decoded++
		l.decoded.ReadRows += n
	case err == nil:
		l.broken(CodeRows, *r.File, "it holds %d rows with hash %s, its commit says %d with %s", n, got, r.RowCount, h)
	case unreadable(err), errors.Is(err, hayrick.ErrNotFound):
		l.broken(CodeRows, *r.File, "its rows cannot be read: %v", err)
	default:
		l.err = fmt.Errorf("read the rows of %s: %w", *r.File, err)
	}
}

// runRows counts and hashes the rows of a run. That their keys are unique and in order
// is looked at too: an error of class ErrCorrupt.
func (l *look) runRows(ctx context.Context, rel, index string, schema rows.Schema) (n int64, h rows.Hash, err error) {
	blob, err := l.a.Blobs.OpenAt(ctx, l.a.job.Abs(rel))
	if err != nil {
		return 0, h, err
	}
	defer blob.Close()
	run, err := rows.OpenRun(blob, blob.Size(), index)
	if err != nil {
		return 0, h, err
	}
	keyer, err := rows.NewKeyer(schema, l.a.agg.Unique.Columns)
	if err != nil {
		return 0, h, err
	}
	b, hashes := rows.NewBatch(schema), rows.NewHashes(schema)
	var key, last []byte
	for c := run.Scan(nil, nil); ; n++ {
		e, err := c.Next()
		if err == io.EOF {
			return n, h, nil
		}
		if err == nil {
			b.Reset()
			err = b.TakeRecord(e.Record)
		}
		if err == nil && n%1024 == 0 {
			err = ctx.Err()
		}
		if err != nil {
			return n, h, err
		}
		key = keyer.Append(key[:0], b, 0)
		if !bytes.Equal(key, e.Key) || n > 0 && bytes.Compare(last, key) >= 0 {
			return n, h, fmt.Errorf("row %d has another key, or that of the row before: %w", n, hayrick.ErrCorrupt)
		}
		last = append(last[:0], key...)
		got, err := hashes.Same(b, []rows.Hash{e.Hash})
		if err != nil {
			return n, h, fmt.Errorf("row %d: %w", n, err)
		}
		h = h.Add(got)
	}
}

// checkKeys says whether the rows of a merge of level 2 are unique, in order and in
// its range: then all rows are unique.
func (l *look) checkKeys(ctx context.Context, u mergeUnit, r manifest.Result) {
	if u.level != levelRanges || !l.a.Deep || l.err != nil || r.RowCount == 0 {
		return
	}
	if len(r.Files) > 0 {
		l.checkKeysOf(ctx, u, r)
		return
	}
	lo, hi, ok := l.a.agg.Unique.Range(int64(u.node))
	if !ok {
		return // of which walkRanges speaks
	}
	var last []byte
	n := 0
	err := l.eachKey(ctx, *r.File, func(key []byte) bool {
		if n > 0 && bytes.Compare(last, key) >= 0 {
			l.broken(CodeRows, *r.File, "row %d has the key of an earlier one, or is out of order: rows are not unique by %v", n, l.a.agg.Unique.Columns)
			return false
		}
		if lo != nil && bytes.Compare(key, lo) < 0 || hi != nil && bytes.Compare(key, hi) >= 0 {
			l.broken(CodeRows, *r.File, "the key of row %d is not of its range", n)
			return false
		}
		last = append(last[:0], key...)
		n++
		return true
	})
	if err != nil && !unreadable(err) && !errors.Is(err, hayrick.ErrNotFound) && !errors.Is(err, rows.ErrKind) { // of these readRows has spoken
		l.err = fmt.Errorf("read the keys of %s: %w", *r.File, err)
	}
}

// eachKey calls f with the keys of a Parquet file's rows until it says false.
func (l *look) eachKey(ctx context.Context, rel string, f func(key []byte) bool) error {
	blob, err := l.a.Blobs.OpenAt(ctx, l.a.job.Abs(rel))
	if err != nil {
		return err
	}
	defer blob.Close()
	file, err := rows.Open(blob, blob.Size())
	if err != nil {
		return err
	}
	keyer, err := rows.NewKeyer(file.Schema(), l.a.agg.Unique.Columns)
	if err != nil {
		l.broken(CodeRows, rel, "%v", err)
		return nil
	}
	sc, err := file.Scan(rows.Schema{})
	if err != nil {
		return err
	}
	var key []byte
	for {
		b, err := sc.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		for r := range b.Rows {
			if key = keyer.Append(key[:0], b, r); !f(key) {
				return nil
			}
		}
	}
}

// checkKeysOf is checkKeys of a merge with a file a partition, or of text. Keys are in
// order in each file; that none is in two of them is seen by 16 bytes of each key, of
// this range alone.
func (l *look) checkKeysOf(ctx context.Context, u mergeUnit, r manifest.Result) {
	lo, hi, ok := l.a.agg.Unique.Range(int64(u.node))
	var planned rows.Schema
	if err := decodeColumns(l.a.agg.Columns, &planned); err != nil || !ok {
		return
	}
	keyer, err := rows.NewKeyer(planned, l.a.agg.Unique.Columns)
	if err != nil {
		return
	}
	seen := map[[16]byte]bool{}
	for _, f := range r.Files {
		var key, last []byte
		n := 0
		each := func(b *rows.Batch) error {
			for at := range b.Rows {
				key = keyer.Append(key[:0], b, at)
				if n > 0 && bytes.Compare(last, key) >= 0 || lo != nil && bytes.Compare(key, lo) < 0 || hi != nil && bytes.Compare(key, hi) >= 0 {
					return fmt.Errorf("row %d has the key of an earlier one, is out of order, or is not of its range: %w", n, hayrick.ErrCorrupt)
				}
				if len(r.Files) > 1 {
					sum := sha256.Sum256(key)
					if x := [16]byte(sum[:16]); seen[x] {
						return fmt.Errorf("row %d has the key of a row of another partition: %w", n, hayrick.ErrCorrupt)
					} else {
						seen[x] = true
					}
				}
				last = append(last[:0], key...)
				n++
			}
			return ctx.Err()
		}
		err := l.eachBatch(ctx, f.File, planned, each)
		switch {
		case unreadable(err), errors.Is(err, hayrick.ErrNotFound), errors.Is(err, rows.ErrKind):
			l.broken(CodeRows, f.File, "rows are not unique by %v, or cannot be read: %v", l.a.agg.Unique.Columns, err)
		case err != nil:
			l.err = fmt.Errorf("read the keys of %s: %w", f.File, err)
		}
	}
}

// eachBatch calls f with all rows of a file of the dataset.
func (l *look) eachBatch(ctx context.Context, rel string, planned rows.Schema, f func(*rows.Batch) error) error {
	blob, err := l.a.Blobs.OpenAt(ctx, l.a.job.Abs(rel))
	if err != nil {
		return err
	}
	defer blob.Close()
	if text := l.a.text(); text != nil {
		_, _, err := rows.ReadText(io.NewSectionReader(blob, 0, blob.Size()), planned, *text, f)
		return err
	}
	file, err := rows.Open(blob, blob.Size())
	if err != nil {
		return err
	}
	sc, err := file.Scan(planned)
	if err != nil {
		return err
	}
	for {
		b, err := sc.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = f(b)
		}
		if err != nil {
			return err
		}
	}
}
