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
	return b.startup(ctx, "`hayrick run` of one item", fmt.Sprintf("median of 20, a new store each; `version` takes %s", bytesOf(float64(b.version))), func() (float64, error) {
		dir, err := b.job(noopJob{input: path, batch: 100, parallel: 2})
		if err != nil {
			return 0, err
		}
		p, err := b.run(ctx, dir, io.Discard, "run", "--quiet", "job.yaml")
		return p.Seconds, err
	})
}

// startup times something that takes little but a start, in turns with `hayrick
// version`, which takes nothing else.
func (b *bench) startup(ctx context.Context, what, note string, one func() (seconds float64, err error)) error {
	took, err := b.interleave(20,
		contender{what, one},
		contender{"version", func() (float64, error) {
			p, err := b.run(ctx, b.dir, io.Discard, "version")
			return p.Seconds, err
		}},
	)
	if err != nil {
		return err
	}
	b.report.addValue(row{What: what, Unit: "s", Value: took[what], PeerOf: "`hayrick version`", Peer: took["version"], Note: note}, atMost(0.060))
	return nil
}
