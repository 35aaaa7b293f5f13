package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"hayrick/aggregator"
	"hayrick/internal/rows"
	"hayrick/local"
	"hayrick/manifest"
)

// benchConcat joins 1,000 task files by their row groups, as the root of the merge
// tree does: read the footers, plan, let the store assemble the ranges. Beside it
// cat writes the same bytes. Both with an fsync at the end, which is what the store
// does, and both without: then the same process has its fsyncs answered at once.
func benchConcat(ctx context.Context, b *bench) error {
	c, err := b.corpus(ctx, b.scaled(1_000))
	if err != nil {
		return err
	}
	out := filepath.Join(b.dir, "concat.out")
	defer os.Remove(out)
	var joined concatenated
	var peak int64
	var readBack []float64
	checked := map[string]bool{}
	cat := func(durable bool) func() (float64, error) {
		return func() (float64, error) { return catFiles(ctx, out, c.paths(), durable) }
	}
	concat := func(mode string) func() (float64, error) {
		return func() (float64, error) {
			rss, err := child(ctx, &joined, "concat", mode, c.dir)
			if err != nil {
				return 0, err
			}
			peak = max(peak, rss)
			readBack = append(readBack, joined.ReadBack)
			if !checked[mode] {
				if err := sameRows(ctx, joined.Path, c, len(c.files)); err != nil {
					return 0, err
				}
				checked[mode] = true
			}
			return joined.Seconds, os.Remove(joined.Path)
		}
	}
	took, err := b.interleave(7,
		contender{"cat", cat(false)}, contender{"concat", concat("unsynced")},
		contender{"cat, fsync", cat(true)}, contender{"concat, fsync", concat("durable")},
		contender{"openssl", func() (float64, error) {
			if _, err := catFiles(ctx, out, c.paths(), false); err != nil {
				return 0, err
			}
			defer os.Remove(out)
			p, err := measure(command(ctx, "openssl", "dgst", "-sha256", out))
			return p.Seconds, err
		}},
	)
	if err != nil {
		return err
	}
	size := fmt.Sprintf("%s of %d files", bytesOf(float64(c.bytes(len(c.files)))), len(c.files))
	b.report.addRatio(row{
		What: "concat, durable: Assemble", Unit: "s", Value: took["concat, fsync"], PeerOf: "cat + fsync", Peer: took["cat, fsync"],
		Note: fmt.Sprintf("%s; footers and plan %s of it; DuckDB reads it, columns equal", size, quantity(joined.Plan, "s")),
	}, atMost(1.3))
	b.report.addRatio(row{
		What: "concat, without fsync", Unit: "s", Value: took["concat"], PeerOf: "cat", Peer: took["cat"],
		Note: fmt.Sprintf("%s MB/s; DuckDB reads it, columns equal", thousands(float64(c.bytes(len(c.files)))/1e6/took["concat"])),
	}, atMost(1.3))
	b.report.addValue(row{What: "concat, memory", Unit: "B", Value: float64(peak), Note: "read-back included"}, atMost(32<<20))
	b.report.add(row{
		What: "read-back after concat", Unit: "s", Value: median(readBack), PeerOf: "openssl sha256", Peer: took["openssl"],
		Note: "two SHA-256 of each byte: the source's and the whole file's",
	})
	return nil
}

// catFiles is cat of files into out, perhaps with an fsync.
func catFiles(ctx context.Context, out string, files []string, durable bool) (float64, error) {
	f, err := os.Create(out)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	cmd := command(ctx, "cat", files...)
	cmd.Stdout = f
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, err
	}
	if durable {
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return time.Since(start).Seconds(), nil
}

// concatenated is what the child answers; times are seconds.
type concatenated struct {
	Path     string  `json:"path"`
	Seconds  float64 `json:"seconds"` // footers, plan and copy
	Plan     float64 `json:"plan"`    // footers and plan
	ReadBack float64 `json:"read_back"`
}

// childConcat is `child concat <durable|unsynced> <store>`: the way of the root,
// through the store.
func childConcat(args []string) (any, error) {
	if args[0] == "unsynced" {
		if err := withoutFsync(); err != nil {
			return nil, err
		}
	}
	ctx := context.Background()
	c, err := openCorpus(args[1])
	if err != nil {
		return nil, err
	}
	store, err := c.store()
	if err != nil {
		return nil, err
	}
	defer store.Close()
	sources := make([]aggregator.Source, len(c.files))
	for i, f := range c.files {
		hash, err := rows.ParseHash(f.RowHash)
		if err != nil {
			return nil, err
		}
		sources[i] = aggregator.Source{Name: f.Key, Size: f.Size, SHA256: f.SHA256, Rows: f.Rows, RowHash: hash}
	}
	return assemble(ctx, c, store, sources)
}

// footersAtOnce is how many footers the root reads side by side.
const footersAtOnce = 16

func assemble(ctx context.Context, c corpus, store *local.Store, sources []aggregator.Source) (concatenated, error) {
	var res concatenated
	start := time.Now()
	footers := make([]aggregator.SourceFooter, len(sources))
	reads, rctx := errgroup.WithContext(ctx)
	reads.SetLimit(footersAtOnce)
	for i, s := range sources {
		reads.Go(func() error {
			r, err := store.OpenAt(rctx, s.Name)
			if err != nil {
				return err
			}
			footers[i], err = aggregator.ReadSourceFooter(r, s.Size)
			return errors.Join(err, r.Close())
		})
	}
	if err := reads.Wait(); err != nil {
		return res, err
	}
	plan, err := aggregator.PlanConcat(sources, footers)
	if err != nil {
		return res, err
	}
	res.Plan = time.Since(start).Seconds()
	ranges := make([]manifest.Range, len(plan.Copies))
	for i, r := range plan.Copies {
		ranges[i] = manifest.Range{Key: sources[r.Source].Name, Offset: r.Offset, Length: r.Length}
	}
	key := corpusJob.Part(0, 0, plan.OutputHash)
	res.Path = c.path(key)
	if _, err := store.Assemble(ctx, key, ranges, plan.Tail); err != nil {
		return res, err
	}
	res.Seconds = time.Since(start).Seconds()
	start = time.Now()
	err = readBack(ctx, store, key, plan, sources)
	res.ReadBack = time.Since(start).Seconds()
	return res, err
}

// readBack checks every byte of what was assembled against the sources' SHA-256s,
// and takes that of the whole, as the root does before it commits.
func readBack(ctx context.Context, store *local.Store, key string, plan aggregator.ConcatPlan, sources []aggregator.Source) error {
	blob, err := store.OpenAt(ctx, key)
	if err != nil {
		return err
	}
	defer blob.Close()
	whole, at := sha256.New(), int64(0)
	for _, r := range plan.Copies {
		s, one := sources[r.Source], sha256.New()
		src, err := store.OpenAt(ctx, s.Name)
		if err != nil {
			return err
		}
		for _, part := range []struct {
			to   io.Writer
			from io.Reader
		}{
			{one, io.NewSectionReader(src, 0, r.Offset)},
			{io.MultiWriter(whole, one), io.NewSectionReader(blob, at, r.Length)},
			{one, io.NewSectionReader(src, r.Offset+r.Length, s.Size-r.Offset-r.Length)},
		} {
			if _, err := io.Copy(part.to, part.from); err != nil {
				return errors.Join(err, src.Close())
			}
		}
		if err := src.Close(); err != nil {
			return err
		}
		if got := hex.EncodeToString(one.Sum(nil)); got != s.SHA256 {
			return fmt.Errorf("%s has SHA-256 %s in the result", s.Name, got)
		}
		at += r.Length
	}
	return nil
}
