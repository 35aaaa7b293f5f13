package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
)

// workerOptions are the flags of worker.
type workerOptions struct {
	slots  int
	linger time.Duration // below 0: what the job files say
}

func workerCommand(c *cli) *cobra.Command {
	var o workerOptions
	cmd := &cobra.Command{
		Use: "worker", Short: "Work on all unfinished runs of the store until they have ended", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := parseWorker(&o, cmd); err != nil {
				return err
			}
			return runWorker(cmd.Context(), c, o)
		},
	}
	cmd.Flags().IntVar(&o.slots, "slots", 2*runtime.GOMAXPROCS(0), "tasks at once")
	cmd.Flags().DurationVar(&o.linger, "linger", 0, "how long to wait for more when nothing is left to do, such as 5m")
	return cmd
}

func parseWorker(o *workerOptions, cmd *cobra.Command) error {
	if o.slots < 1 {
		return &hayrick.UserError{What: fmt.Sprintf("--slots %d", o.slots), Hint: "write how many tasks to run at once, from 1"}
	}
	return nil
}

// runWorker drains the queue and sweeps every unfinished run. It ends when none is
// left that can go on, or when others have had all the work for run.linger.
func runWorker(ctx context.Context, c *cli, o workerOptions) error {
	r, err := open(ctx, c)
	if err != nil {
		return err
	}
	defer r.close()
	crew := &crew{drive: drive{cli: c, roles: r}, linger: o.linger, ended: map[string]bool{}, busy: time.Now()}
	err = crew.run(ctx, o.slots, crew.look)
	if errors.Is(err, errInterrupted) {
		c.tell("interrupted; nothing is lost. Go on with: hayrick worker")
		return ended(exitInterrupted)
	}
	if err != nil {
		return fmt.Errorf("worker stopped: %w", err)
	}
	if len(crew.paused) > 0 {
		for _, p := range crew.paused {
			c.tell("%s", p)
		}
		return ended(exitUnwell)
	}
	return nil
}

// crew drives all unfinished runs of a store.
type crew struct {
	drive
	linger time.Duration

	ended  map[string]bool // runs that are over
	paused []*pausedError  // runs that wait for a person
	swept  time.Time
	busy   time.Time // when there was last something to do
}

// look sweeps every unfinished run and is done when nothing has been left to do for
// as long as it is to linger.
func (w *crew) look(ctx context.Context) (bool, error) {
	if time.Since(w.swept) < sweepEvery {
		return false, nil
	}
	w.swept = time.Now()
	ids, err := w.store.Jobs(ctx)
	if err != nil {
		return false, fmt.Errorf("list the runs: %w", err)
	}
	open, linger := 0, w.linger
	w.paused = w.paused[:0]
	slices.Sort(ids)
	for _, id := range ids {
		if w.ended[id] || !hayrick.ValidID(id) {
			continue
		}
		k, dec, err := w.known(ctx, id)
		switch {
		case errors.Is(err, hayrick.ErrNotFound):
			continue // a submission that never got to its plan
		case err != nil:
			return false, err
		case complete(k, dec):
			w.ended[id] = true
			w.log.Info("run ended", hayrick.KeyJobID, id, "status", dec.Status)
			continue
		case dec.Status == hayrick.StatusPaused:
			w.paused = append(w.paused, pausedBy(k).(*pausedError))
		default:
			open++
			linger = max(linger, k.Definition.Run.Linger.D())
		}
		if _, err := w.coordinator.Sweep(ctx, id); err != nil {
			return false, err
		}
	}
	now := time.Now()
	if w.working() || (open > 0 && w.progressed()) {
		w.busy = now
	}
	return now.Sub(w.busy) >= linger, nil
}
