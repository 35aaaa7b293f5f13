package main

import (
	"context"
	"fmt"
	"io"
)

// benchStart runs a job of one item, from exec to exit, in a new store each time.
func benchStart(ctx context.Context, b *bench) error {
	path, err := b.input("items", 1, plainItem)
	if err != nil {
		return err
	}
	took, err := b.interleave(20,
		contender{"run", func() (float64, error) {
			dir, err := b.job(noopJob{input: path, batch: 100, parallel: 2})
			if err != nil {
				return 0, err
			}
			p, err := b.run(ctx, dir, io.Discard, "run", "--quiet", "job.yaml")
			return p.Seconds, err
		}},
		contender{"version", func() (float64, error) {
			p, err := b.run(ctx, b.dir, io.Discard, "version")
			return p.Seconds, err
		}},
	)
	if err != nil {
		return err
	}
	b.report.addValue(row{
		What: "`hayrick run` of one item", Unit: "s", Value: took["run"], PeerOf: "`hayrick version`", Peer: took["version"],
		Note: fmt.Sprintf("median of 20, a new store each; `version` takes %s", bytesOf(float64(b.version))),
	}, atMost(0.060))
	return nil
}
