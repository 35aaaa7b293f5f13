package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/local"
	"hayrick/manifest"
)

// benchMerge writes the rows of 300 task files into healthy row groups, in their order,
// beside DuckDB's COPY of the same files, which keeps it too. Once as a run does it, from
// the plan to the outcome: two merges at a time, for as many cores as DuckDB has threads,
// everything read back. And once as a single merge on one core, with nothing around it,
// that decodes and encodes every row, as where pages cannot be copied. Then DuckDB scans what both have left.
func benchMerge(ctx context.Context, b *bench) error {
	n := b.scaled(300)
	dir, err := b.endedJob(ctx, ended{Files: n, Each: corpusRows})
	if err != nil {
		return err
	}
	trusted, err := b.endedJob(ctx, ended{Files: n, Each: corpusRows, Trusted: true})
	if err != nil {
		return err
	}
	out := filepath.Join(b.dir, "merge.out")
	defer os.Remove(out)
	var whole, bare, theirs aggregated
	var task merged
	peak := map[string]int64{}
	one := func(name string, res any, seconds *float64, args ...string) contender {
		return contender{name, func() (float64, error) {
			rss, err := child(ctx, res, args...)
			peak[name] = max(peak[name], rss)
			return *seconds, err
		}}
	}
	took, err := b.interleave(5,
		one("run", &whole, &whole.Seconds, "aggregate", dir),
		one("run, not read back", &bare, &bare.Seconds, "aggregate", trusted),
		one("task", &task, &task.Seconds, "merge", dir, out+".task"),
		one("duckdb", &theirs, &theirs.Seconds, "duckcopy", dir, out),
	)
	defer os.Remove(out + ".task")
	if err != nil {
		return err
	}
	for _, path := range []string{whole.Path, out + ".task"} {
		if _, err := ask(ctx, nil, "ducksame", path, out); err != nil {
			return err
		}
	}
	info, err := os.Stat(whole.Path)
	if err != nil {
		return err
	}
	size, err := os.Stat(out)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("merge of %d files", n)
	b.report.addRatio(row{
		What: what + ", plan to outcome, all read back", Unit: "s", Value: took["run"], PeerOf: "DuckDB COPY", Peer: took["duckdb"],
		Note: fmt.Sprintf("%s rows, out %s and %s; CPU %s and %s; DuckDB reads it, columns equal", thousands(float64(whole.Rows)),
			bytesOf(float64(info.Size())), bytesOf(float64(size.Size())), quantity(whole.CPU, "s"), quantity(theirs.CPU, "s")),
	}, atMost(1))
	b.report.add(row{
		What: what + ", merge.read_back: false", Unit: "s", Value: took["run, not read back"], PeerOf: "DuckDB COPY", Peer: took["duckdb"],
		Note: fmt.Sprintf("CPU %s; copied pages are read back all the same", quantity(bare.CPU, "s")),
	})
	b.report.add(row{
		What: what + ", every row encoded anew, one merge on one core", Unit: "s", Value: took["task"], PeerOf: "DuckDB COPY, two threads", Peer: took["duckdb"],
		Note: fmt.Sprintf("CPU %s; reading it back takes %s more", quantity(task.CPU, "s"), quantity(task.Verify, "s")),
	})
	b.report.addValue(row{
		What: what + ", memory", Unit: "B", Value: float64(peak["run"]), PeerOf: "DuckDB COPY", Peer: float64(peak["duckdb"]), Ratio: float64(peak["run"]) / float64(peak["duckdb"]),
		Note: "two merges at a time; of one " + bytesOf(float64(peak["task"])),
	}, atMost(256e6))
	var ours, own scanned
	scans, err := b.interleave(7,
		one("ours", &ours, &ours.Seconds, "duckscan", whole.Path),
		one("own", &own, &own.Seconds, "duckscan", out),
	)
	if err != nil {
		return err
	}
	b.report.addRatio(row{
		What: "DuckDB scans all columns of it", Unit: "s", Value: scans["ours"], PeerOf: "of its own", Peer: scans["own"], Note: "the best of five scans in a process, the median of seven",
	}, atMost(1.1))
	return nil
}

// merged is what the children answer; times are seconds.
type merged struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
	Verify  float64 `json:"verify"`
}

// childMerge is `child merge <dir> <out>`: what a merge task of all results of an ended
// job does between its claim and its commit where no page can be copied.
func childMerge(args []string) (any, error) {
	ctx := context.Background()
	st, err := openStore(filepath.Join(args[0], "store"))
	if err != nil {
		return nil, err
	}
	defer st.Close()
	store := &manifest.Store{Objects: st, Clock: hayrick.RealWorld("bench").Clock}
	ended, _, err := store.RetryPlan(ctx, endedID, 1)
	if err != nil {
		return nil, err
	}
	f, err := os.Create(args[1])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var res merged
	start, cpu := time.Now(), cpuSeconds()
	w, err := rows.NewWriter(f, corpusSchema, rows.WriterOptions{})
	if err != nil {
		return nil, err
	}
	var want rows.Hash
	if err := store.Results(ctx, ended, func(ref manifest.ResultRef) error {
		done, _, err := store.Result(ctx, endedID, ref.TaskID)
		if err != nil {
			return err
		}
		h, err := appendFile(st, done, w)
		if err != nil {
			return fmt.Errorf("%s: %w", ref.TaskID, err)
		}
		want = want.Add(h)
		return nil
	}); err != nil {
		return nil, err
	}
	sum, err := w.Close()
	if err != nil {
		return nil, err
	}
	res.Seconds, res.CPU = time.Since(start).Seconds(), cpuSeconds()-cpu
	start = time.Now()
	err = rows.Verify(f, sum.Bytes, sum.Rows, want)
	res.Verify = time.Since(start).Seconds()
	return res, err
}

func appendFile(store *local.Store, in manifest.Result, w *rows.Writer) (rows.Hash, error) {
	blob, err := store.OpenAt(context.Background(), manifest.Job(endedID).Abs(*in.File))
	if err != nil {
		return rows.Hash{}, err
	}
	defer blob.Close()
	body := make([]byte, blob.Size())
	if _, err := io.ReadFull(io.NewSectionReader(blob, 0, blob.Size()), body); err != nil {
		return rows.Hash{}, err
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != in.SHA256 {
		return rows.Hash{}, errors.New("its bytes are not those that were written")
	}
	f, err := rows.Open(bytes.NewReader(body), blob.Size())
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
	if n != in.RowCount || h.String() != in.RowHash {
		return h, errors.New("its rows are not those that were written")
	}
	return h, nil
}
