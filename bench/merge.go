package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"hayrick/internal/rows"
	"hayrick/local"
)

// benchMerge decodes 300 task files and writes their rows into healthy row groups,
// as a merge of level 1 does, beside DuckDB's COPY of the same files, which keeps
// their order too and has all cores.
func benchMerge(ctx context.Context, b *bench) error {
	c, err := b.corpus(ctx, b.scaled(1_000))
	if err != nil {
		return err
	}
	n := int(min(b.scaled(300), int64(len(c.files))))
	out := filepath.Join(b.dir, "merge.out")
	defer os.Remove(out)
	peak, size := map[string]int64{}, map[string]int64{}
	var ours, theirs merged
	one := func(name string, res *merged, task ...string) contender {
		return contender{name, func() (float64, error) {
			rss, err := child(ctx, res, append(task, c.dir, strconv.Itoa(n), out)...)
			if err != nil {
				return 0, err
			}
			peak[name] = max(peak[name], rss)
			if size[name] == 0 {
				if err := sameRows(ctx, out, c, n); err != nil {
					return 0, err
				}
			}
			info, err := os.Stat(out)
			if err != nil {
				return 0, err
			}
			size[name] = info.Size()
			return res.Seconds, os.Remove(out)
		}}
	}
	took, err := b.interleave(3, one("hayrick", &ours, "merge"), one("duckdb", &theirs, "duckdb", "copy"))
	if err != nil {
		return err
	}
	b.report.add(row{
		What: fmt.Sprintf("merge of %d files", n), Unit: "s", Value: took["hayrick"], PeerOf: "DuckDB COPY", Peer: took["duckdb"],
		Note: fmt.Sprintf("%s in; out %s and %s; reading it back takes %s more; DuckDB reads it, columns equal",
			bytesOf(float64(c.bytes(n))), bytesOf(float64(size["hayrick"])), bytesOf(float64(size["duckdb"])), quantity(ours.Verify, "s")),
	})
	b.report.add(row{What: fmt.Sprintf("merge of %d files, memory", n), Unit: "B", Value: float64(peak["hayrick"]), PeerOf: "DuckDB COPY", Peer: float64(peak["duckdb"])})
	return nil
}

// merged is what the children answer; times are seconds.
type merged struct {
	Seconds float64 `json:"seconds"`
	Verify  float64 `json:"verify"`
}

// childMerge is `child merge <store> <files> <out>`: what a merge task does between
// its claim and its commit.
func childMerge(args []string) (any, error) {
	c, err := openCorpus(args[0])
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	store, err := c.store()
	if err != nil {
		return nil, err
	}
	defer store.Close()
	f, err := os.Create(args[2])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var res merged
	start := time.Now()
	w, err := rows.NewWriter(f, corpusSchema, rows.WriterOptions{})
	if err != nil {
		return nil, err
	}
	var want rows.Hash
	for _, in := range c.files[:n] {
		h, err := appendFile(store, in, w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", in.Key, err)
		}
		want = want.Add(h)
	}
	sum, err := w.Close()
	if err != nil {
		return nil, err
	}
	res.Seconds = time.Since(start).Seconds()
	start = time.Now()
	err = rows.Verify(f, sum.Bytes, sum.Rows, want)
	res.Verify = time.Since(start).Seconds()
	return res, err
}

func appendFile(store *local.Store, in corpusFile, w *rows.Writer) (rows.Hash, error) {
	blob, err := store.OpenAt(context.Background(), in.Key)
	if err != nil {
		return rows.Hash{}, err
	}
	defer blob.Close()
	f, err := rows.Open(blob, blob.Size())
	if err != nil {
		return rows.Hash{}, err
	}
	scan, err := f.Scan(corpusSchema)
	if err != nil {
		return rows.Hash{}, err
	}
	for {
		batch, err := scan.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = w.AppendBatch(batch, 0, batch.Rows)
		}
		if err != nil {
			return rows.Hash{}, err
		}
	}
	n, h := scan.Read()
	if n != in.Rows || h.String() != in.RowHash {
		return h, errors.New("its rows are not those that were written")
	}
	return h, nil
}
