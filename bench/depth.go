package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"
)

// drainFor is how long a worker works on the queue: too short for two slots to empty
// the short one, after which it would plan retries and merges.
const drainFor = 3 * time.Second

// benchDepth queues ten thousand and a million tasks of one item each and compares
// the memory: of the submission, and of a worker that drains for a while.
func benchDepth(ctx context.Context, b *bench) error {
	few, many := b.scaled(10_000), b.scaled(1_000_000)
	submit, drain := map[int64]int64{}, map[int64]int64{}
	var took float64
	for _, tasks := range []int64{few, many} {
		path, err := b.input("items", tasks, plainItem)
		if err != nil {
			return err
		}
		dir, err := b.job(noopJob{input: path, batch: 1, parallel: 8})
		if err != nil {
			return err
		}
		p, err := b.run(ctx, dir, io.Discard, "submit", "--quiet", "job.yaml")
		if err != nil {
			return err
		}
		submit[tasks], took = p.PeakRSS-b.version, p.Seconds
		if p, err = b.drain(ctx, dir); err != nil {
			return err
		}
		drain[tasks] = p.PeakRSS - b.version
	}
	for _, x := range []struct {
		what string
		rss  map[int64]int64
		note string
	}{
		{"submit", submit, fmt.Sprintf("%s tasks/s submitted", thousands(float64(many)/took))},
		{"a worker", drain, fmt.Sprintf("%s of draining", drainFor)},
	} {
		b.report.addRatio(row{
			What: fmt.Sprintf("memory of %s, %s tasks", x.what, thousands(float64(many))), Unit: "B", Value: float64(x.rss[many]),
			PeerOf: thousands(float64(few)) + " tasks", Peer: float64(x.rss[few]),
			Note: fmt.Sprintf("above `version`; whole: %s and %s, %sx; %s", bytesOf(float64(x.rss[many]+b.version)), bytesOf(float64(x.rss[few]+b.version)),
				short(float64(x.rss[many]+b.version)/float64(x.rss[few]+b.version)), x.note),
		}, atMost(1.2))
	}
	return nil
}

// drain lets a worker work for a while and interrupts it, as Ctrl-C does.
func (b *bench) drain(ctx context.Context, dir string) (process, error) {
	cmd := command(ctx, b.hayrick, "worker", "--quiet", "--slots", "2")
	cmd.Dir, cmd.Stdout = dir, io.Discard
	interrupt := time.AfterFunc(drainFor, func() { cmd.Process.Signal(syscall.SIGINT) })
	defer interrupt.Stop()
	p, err := measure(cmd)
	switch {
	case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == exitInterrupted:
		return p, nil
	case err == nil:
		return p, errors.New("the worker emptied the queue before it was interrupted")
	}
	return p, err
}

// exitInterrupted is how hayrick ends after an interrupt.
const exitInterrupted = 130
