package aggregator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// MaxPartitions is how many folders output.partition_by may make: the outcome names a
// part of each.
const MaxPartitions = 10_000

var errPartitions = fmt.Errorf("more than %d partitions", MaxPartitions)

// notPartitioned says why a dataset cannot have the partitions that are asked for.
func notPartitioned(o hayrick.Output, why error) string {
	return fmt.Sprintf("output.partition_by %v: %v; partition by fewer columns, or by one with fewer values", o.PartitionBy, why)
}

// tooMany says that outputs lie in more partitions than a dataset may have, though no
// merge had that many.
func tooMany(outputs []Source) bool {
	seen := map[string]bool{}
	for _, o := range outputs {
		seen[o.Partition] = true
	}
	return len(seen) > MaxPartitions
}

// finalError ends a merge in a way that another run would repeat; code is that of the
// outcome.
type finalError struct {
	code, message string
}

func (e *finalError) Error() string { return e.message }

// files writes the rows of a merge where they are not one Parquet file: as text, or a
// file for each partition. Partitions are sorted first, so that one file is open at a
// time, however many there are.
type files struct {
	ctx   context.Context
	a     *Aggregator
	m     *merging
	res   *manifest.Result
	text  *rows.Text // nil = Parquet
	keyer *rows.Keyer
	batch *rows.Batch // one row, to see its partition
	order *sorter     // of partitions
	count int64       // rows so far
	key   []byte

	temp    manifest.Temp // of the open file
	parquet *rows.Writer
	lines   *rows.TextWriter
	folder  string // of the open file
	hash    rows.Hash
	done    int64
}

// plain says that the rows of a merge are one Parquet file.
func plain(o hayrick.Output) bool {
	return len(o.PartitionBy) == 0 && (o.Format == "" || o.Format == rows.FormatParquet)
}

func textOf(o hayrick.Output) *rows.Text {
	if o.Format == "" || o.Format == rows.FormatParquet {
		return nil
	}
	return &rows.Text{Format: o.Format, Compression: o.Compression}
}

func (a *Aggregator) files(ctx context.Context, m *merging, res *manifest.Result) (*files, error) {
	f := &files{ctx: ctx, a: a, m: m, res: res, text: textOf(m.def.Output)}
	if columns := m.def.Output.PartitionBy; len(columns) > 0 {
		var err error
		if f.keyer, err = rows.NewKeyer(m.schema, columns); err != nil {
			return nil, fmt.Errorf("output.partition_by: %w", err)
		}
		f.order, f.batch = a.sorter(nil), rows.NewBatch(m.schema)
	}
	return f, nil
}

// add takes in the next row.
func (f *files) add(rec []byte) error {
	if f.order == nil {
		if f.temp == nil {
			if err := f.open(""); err != nil {
				return err
			}
		}
		return f.write(rec)
	}
	f.batch.Reset()
	if err := f.batch.TakeRecord(rec); err != nil {
		return err
	}
	f.key = f.keyer.Append(f.key[:0], f.batch, 0)
	f.count++
	return f.order.addRecord(f.key, f.count, rec)
}

// finish writes what is left and fills in the result.
func (f *files) finish() error {
	if f.order == nil {
		if f.temp == nil {
			return nil
		}
		return f.end()
	}
	sorted, err := f.order.sorted()
	if err != nil {
		return err
	}
	any := false
	f.key = f.key[:0]
	if err := each(f.ctx, sorted, func(e *rows.Entry) error {
		if !any || string(e.Key) != string(f.key) {
			if f.temp != nil {
				if err := f.end(); err != nil {
					return err
				}
			}
			f.batch.Reset()
			if err := f.batch.TakeRecord(e.Record); err != nil {
				return err
			}
			folder, err := folderOf(f.batch, 0, f.m.schema, f.m.def.Output.PartitionBy)
			if err == nil && len(f.res.Files) == MaxPartitions {
				err = errPartitions
			}
			if err != nil {
				return &finalError{manifest.CodePartition, notPartitioned(f.m.def.Output, err)}
			}
			if err := f.open(folder); err != nil {
				return err
			}
			any, f.key = true, append(f.key[:0], e.Key...)
		}
		return f.write(e.Record)
	}); err != nil {
		return err
	}
	if f.temp != nil {
		return f.end()
	}
	return nil
}

func (f *files) open(folder string) (err error) {
	if f.temp, err = f.a.Temp(); err != nil {
		return err
	}
	f.folder = folder
	if f.text != nil {
		f.lines, err = rows.NewTextWriter(f.temp, f.m.schema, *f.text)
		return err
	}
	f.parquet, err = rows.NewWriter(f.temp, f.m.schema, f.a.writerOptions(f.m, 0))
	return err
}

func (f *files) write(rec []byte) error {
	if f.text != nil {
		return f.lines.AppendRecord(rec)
	}
	return f.parquet.AppendRecord(rec)
}

// end closes the open file, reads it back and puts it into the store.
func (f *files) end() error {
	x := manifest.RowFile{Partition: f.folder}
	var h rows.Hash
	if f.text != nil {
		sum, err := f.lines.Close()
		if err != nil {
			return err
		}
		x.SHA256, x.Bytes, x.Head, x.Rows, h = sum.SHA256, sum.Bytes, sum.Head, sum.Rows, sum.RowHash
		n, got, err := rows.ReadText(io.NewSectionReader(f.temp, 0, x.Bytes), f.m.schema, *f.text, nil)
		if err == nil && (n != x.Rows || got != h) {
			err = fmt.Errorf("%d rows with hash %s, %d with %s were written: %w", n, got, x.Rows, h, hayrick.ErrCorrupt)
		}
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
	} else {
		sum, err := f.parquet.Close()
		if err != nil {
			return err
		}
		x.SHA256, x.Bytes, x.Rows, h = sum.SHA256, sum.Bytes, sum.Rows, sum.RowHash
		if err := rows.Verify(f.temp, x.Bytes, x.Rows, h); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
	}
	if _, err := f.temp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	key := f.m.key.RowsAs(f.res.TaskID, f.res.Attempt, x.SHA256, manifest.PartExt(f.m.def.Output))
	if err := f.a.Store.Objects.Put(f.ctx, key, f.temp); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	x.File, x.RowHash = f.m.key.Rel(key), h.String()
	f.res.Files = append(f.res.Files, x)
	f.done, f.hash = f.done+x.Rows, f.hash.Add(h)
	f.res.RowCount, f.res.RowHash, f.res.SchemaDigest = f.done, f.hash.String(), f.m.schema.Digest()
	err := f.temp.Close()
	f.temp, f.parquet, f.lines = nil, nil, nil
	return err
}

// close frees the scratch.
func (f *files) close() error {
	var err error
	if f.temp != nil {
		err = f.temp.Close()
		f.temp = nil
	}
	if f.order != nil {
		err = errors.Join(err, f.order.close())
	}
	return err
}

// folderOf is the folder of a row's partition.
func folderOf(b *rows.Batch, r int, s rows.Schema, columns []string) (string, error) {
	var parts []string
	for _, name := range columns {
		c := &b.Cols[s.Index(name)]
		var value *string
		if c.Valid[r] {
			v := c.Text(r)
			value = &v
		}
		part, err := manifest.PartitionFolder(name, value)
		if err != nil {
			return "", err
		}
		parts = append(parts, part)
	}
	return path.Join(parts...), nil
}

// decodeFiles is decode where the rows do not become one Parquet file.
func (a *Aggregator) decodeFiles(ctx context.Context, m *merging, span manifest.Span, res *manifest.Result) (err error) {
	inputs, err := m.pinned(ctx, span)
	if err != nil {
		return err
	}
	f, err := a.files(ctx, m, res)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	var rec []byte
	take := func(*rows.File) (func(*rows.Batch) error, error) {
		return func(b *rows.Batch) error {
			for r := range b.Rows {
				rec = b.AppendRecord(rec[:0], r)
				if err := f.add(rec); err != nil {
					return err
				}
			}
			return nil
		}, nil
	}
	r := reader{blobs: a.Blobs}
	var want rows.Hash
	var total int64
	for _, in := range inputs {
		if in.Rows == 0 {
			continue
		}
		h, err := r.copyRows(ctx, m.key.Abs(in.File), in, m.schema, take)
		if err != nil {
			return err
		}
		want, total = want.Add(h), total+in.Rows
		res.Inputs = append(res.Inputs, manifest.InputFile{Key: in.File, SHA256: in.SHA256, Rows: in.Rows})
	}
	r.buf = nil
	if err := f.finish(); err != nil {
		return err
	}
	if f.done != total || f.hash != want {
		return fmt.Errorf("%d rows with hash %s were read, %d with %s written: %w", total, want, f.done, f.hash, hayrick.ErrCorrupt)
	}
	return nil
}
