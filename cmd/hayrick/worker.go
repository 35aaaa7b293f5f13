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
)

// workerOptions are the flags of worker.
type workerOptions struct {
	slots  int
	linger time.Duration
}

func workerCommand(c *cli) *cobra.Command {
	var o workerOptions
	cmd := &cobra.Command{
		Use: "worker", Short: "Work on all unfinished runs of the store until they have ended", Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := parseWorker(&o); err != nil {
				return err
			}
			return runWorker(cmd.Context(), c, o)
		},
	}
	cmd.Flags().IntVar(&o.slots, "slots", 2*runtime.GOMAXPROCS(0), "tasks at once")
	cmd.Flags().DurationVar(&o.linger, "linger", 0, "how long to wait for more when nothing is left to do, such as 5m")
	return cmd
}

func parseWorker(o *workerOptions) error {
	if o.slots < 1 {
		return &hayrick.UserError{What: fmt.Sprintf("--slots %d", o.slots), Hint: "write how many tasks to run at once, from 1"}
	}
	return nil
}

// runWorker drains the queue and sweeps every unfinished run. It ends when none is
// left that can go on, or when others have had all the work for run.linger.
func runWorker(ctx context.Context, c *cli, o workerOptions) error {
	r, err := openToWork(ctx, c)
	if err != nil {
		return err
	}
	defer r.close()
	w := &crew{drive: drive{roles: r}, linger: o.linger, over: map[string]bool{}}
	err = w.run(ctx, o.slots, w.look)
	if errors.Is(err, errInterrupted) {
		c.tell("interrupted; nothing is lost. Go on with: hayrick worker")
		return ended(exitInterrupted)
	}
	if err != nil {
		return fmt.Errorf("worker stopped: %w", err)
	}
	for _, p := range w.paused {
		c.tell("%s", p)
	}
	if len(w.paused) > 0 {
		return ended(exitUnwell)
	}
	return nil
}

// crew drives all unfinished runs of a store.
type crew struct {
	drive
	linger time.Duration

	begun  bool
	over   map[string]bool // runs that have ended
	paused []*pausedError  // runs that wait for a person
	swept  time.Time
}

// look sweeps every unfinished run. It is done when nothing has been left to do for
// as long as it is to linger; while runs are unfinished, the last process in the
// store stays.
func (w *crew) look(ctx context.Context) (bool, error) {
	if time.Since(w.swept) < sweepEvery {
		return false, nil
	}
	w.swept = time.Now()
	ids, err := w.store.Jobs(ctx)
	if err != nil {
		return false, fmt.Errorf("list the runs: %w", err)
	}
	slices.Sort(ids)
	unfinished, linger := 0, w.linger
	w.paused = nil
	for _, id := range ids {
		if w.over[id] || !hayrick.ValidID(id) {
			continue
		}
		dec, err := w.coordinator.Sweep(ctx, id)
		if errors.Is(err, hayrick.ErrNotFound) {
			continue // a submission that never got to its plan
		}
		if err != nil {
			return false, err
		}
		switch {
		case dec.Complete:
			w.over[id] = true
			if w.begun {
				w.tell("%s %s", id, dec.Status)
			}
		case dec.Status == hayrick.StatusPaused:
			k, _, err := w.known(ctx, id)
			if err != nil {
				return false, err
			}
			w.paused = append(w.paused, pausedBy(k))
		default:
			unfinished++
			job, err := w.jobs.Open(ctx, id)
			if err != nil {
				return false, err
			}
			linger = max(linger, job.Definition.Run.Linger.D())
		}
	}
	if !w.begun {
		w.begun = true
		w.tell("working on %s of %s", count(int64(unfinished), "unfinished run"), w.storeDir)
	}
	if w.idle() < linger {
		return false, nil
	}
	others, err := w.store.Others()
	if unfinished > 0 && others > 0 && err == nil {
		w.tell("leaving %s to %s", count(int64(unfinished), "run"), count(int64(others), "other process"))
	}
	return unfinished == 0 || others > 0, err
}
