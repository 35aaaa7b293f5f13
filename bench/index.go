package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"hayrick/coordinator"
	"hayrick/manifest"
)

// benchIndex indexes a JSONL of 10 million lines, about 1.5 GB, in batches of 100
// and of 1,000, beside openssl over the same file; all find it in the page cache.
func benchIndex(ctx context.Context, b *bench) error {
	lines := b.scaled(10_000_000)
	path, err := b.input("accounts", lines, func(w *bufio.Writer, i int64) {
		fmt.Fprintf(w, `{"did":"did:plc:%024d","pds":"pds-%d.demo.invalid","handle":"user-%d.demo.invalid","note":"%032d"}`+"\n", i, i%8, i, i)
	})
	if err != nil {
		return err
	}
	size, err := warm(path)
	if err != nil {
		return err
	}
	batches := []string{"100", "1000"}
	peak := map[string]int64{}
	all := []contender{{"openssl", func() (float64, error) {
		p, err := measure(command(ctx, "openssl", "dgst", "-sha256", path))
		return p.Seconds, err
	}}}
	for _, items := range batches {
		all = append(all, contender{items, func() (float64, error) {
			var res indexed
			rss, err := child(ctx, &res, "index", path, items)
			if err == nil && res.Items != lines {
				err = fmt.Errorf("%d items of %d", res.Items, lines)
			}
			peak[items] = max(peak[items], rss)
			return res.Seconds, err
		}})
	}
	took, err := b.interleave(3, all...)
	if err != nil {
		return err
	}
	mb := float64(size) / 1e6
	for _, items := range batches {
		b.report.addRatio(row{
			What: "index, " + items + " a batch", Unit: "MB/s", Value: mb / took[items], PeerOf: "openssl sha256", Peer: mb / took["openssl"],
			Note: fmt.Sprintf("%s lines/s", thousands(float64(lines)/took[items])),
		}, atLeast(0.9))
		b.report.addValue(row{What: "index, " + items + " a batch, memory", Unit: "B", Value: float64(peak[items])}, atMost(64<<20))
	}
	// The whole submission: index, index files and block files made durable, messages.
	took, err = b.interleave(1, contender{"submit", func() (float64, error) {
		dir, err := b.job(noopJob{input: path, batch: 100, parallel: 2})
		if err != nil {
			return 0, err
		}
		p, err := b.run(ctx, dir, io.Discard, "submit", "--quiet", "job.yaml")
		peak["submit"] = p.PeakRSS
		return p.Seconds, err
	}})
	if err != nil {
		return err
	}
	b.report.add(row{
		What: "`hayrick submit`, 100 a batch", Unit: "MB/s", Value: mb / took["submit"],
		Note: fmt.Sprintf("%s tasks queued, %s above `version`", thousands(float64(lines)/100), bytesOf(float64(peak["submit"]-b.version))),
	})
	return nil
}

// indexed is what the child answers.
type indexed struct {
	Seconds float64 `json:"seconds"`
	Items   int64   `json:"items"`
	Batches int64   `json:"batches"`
}

// childIndex is `child index <file> <items a batch>`.
func childIndex(args []string) (any, error) {
	items, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	start := time.Now()
	f, err := os.Open(args[0])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var res indexed
	x := coordinator.Indexer{Object: args[0], Items: items, Go: func(_ string, f func()) { go f() }}
	got, err := x.Index(context.Background(), f, func(b manifest.Batch) error {
		if len(b.SHA256) != 64 {
			return errors.New("a batch without its SHA-256")
		}
		res.Batches++
		return nil
	})
	res.Items, res.Seconds = got.Items, time.Since(start).Seconds()
	return res, err
}

// input is a JSONL file of the given number of lines in the work folder, made where
// it is missing.
func (b *bench) input(name string, lines int64, line func(*bufio.Writer, int64)) (path string, err error) {
	path = filepath.Join(b.dir, fmt.Sprintf("%s-%d.jsonl", name, lines))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	f, err := os.Create(path + ".part")
	if err != nil {
		return "", err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range lines {
		line(w, i)
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return "", err
	}
	return path, os.Rename(f.Name(), path)
}

// warm reads a file once, so that it is in the page cache.
func warm(path string) (size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.Copy(io.Discard, struct{ io.Reader }{f})
}
