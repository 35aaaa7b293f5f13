package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
)

// benchMemory has `hayrick worker --memory` merge results whose rows have between a
// kilobyte and a hundred megabytes, and looks at the most memory that it ever has. It
// is the process itself, from exec to exit, that is measured: nothing is taken off.
func benchMemory(ctx context.Context, b *bench) error {
	for _, c := range []struct {
		rows   string
		blob   int
		memory string
		limit  float64
		files  int64
		each   int
	}{
		{"1 KB", 1e3, "256MiB", 256 << 20, 60, 5_000},
		{"100 KB", 1e5, "256MiB", 256 << 20, 60, 50},
		{"1 MB", 1e6, "256MiB", 256 << 20, 30, 10},
		{"10 MB", 1e7, "256MiB", 256 << 20, 10, 3},
		{"100 MB", 1e8, "1GiB", 1 << 30, 4, 1},
	} {
		for _, unique := range []bool{false, true} {
			dir, err := b.endedJob(ctx, ended{Files: max(2, b.scaled(c.files)), Each: c.each, Blob: c.blob, Unique: unique})
			if err != nil {
				return err
			}
			if err := unmerge(dir); err != nil {
				return err
			}
			p, err := b.run(ctx, dir, io.Discard, "-C", filepath.Join(dir, "store"), "-q", "worker", "--memory", c.memory)
			if err != nil {
				return err
			}
			if found, err := filepath.Glob(filepath.Join(dir, "out", "_SUCCESS")); err != nil || len(found) == 0 {
				return fmt.Errorf("rows of %s: the worker ended before the job: %w", c.rows, err)
			}
			what := "merge"
			if unique {
				what = "unique merge"
			}
			b.report.addRatio(row{
				What: fmt.Sprintf("%s of rows of %s, memory", what, c.rows), Unit: "B", Value: float64(p.PeakRSS), PeerOf: "--memory", Peer: c.limit,
				Note: fmt.Sprintf("%d results of %d rows; the whole process", max(2, b.scaled(c.files)), c.each),
			}, atMost(1.15))
		}
	}
	return nil
}
