package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
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
		Example:     "  hayrick worker\n  hayrick worker --slots 32 --linger 10m",
		Annotations: endsWith(exitUnwell, exitNotFound),
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
	if err := c.storeExists(); err != nil {
		return err
	}
	r, err := openToWork(ctx, c)
	if err != nil {
		return err
	}
	defer r.close()
	w := &crew{drive: drive{roles: r}, linger: o.linger, over: map[string]bool{}, shown: map[string]*progress{}}
	err = w.run(ctx, o.slots, w.look)
	if errors.Is(err, errInterrupted) {
		return c.stopped(exitInterrupted, "interrupted; nothing is lost", "go on with hayrick worker",
			"interrupted; nothing is lost. Go on with: hayrick worker")
	}
	if err != nil {
		return fmt.Errorf("worker stopped: %w", err)
	}
	return w.ended()
}

// ended is how the worker ends: what is left to a person.
func (w *crew) ended() error {
	var what, words []string
	code := exitDone
	for _, p := range w.paused {
		code, what, words = exitUnwell, append(what, p.Error()), append(words, plain(p.Error()))
	}
	hint, damaged, denied := "mend what is wrong, then hayrick resume <run>", 0, 0
	ids := slices.Sorted(maps.Keys(w.left))
	for _, id := range ids {
		if corrupted(w.left[id]) {
			damaged++
			what = append(what, fmt.Sprintf("%s is damaged: %v", id, w.left[id]))
			continue
		}
		if denied++; denied == 1 {
			hint = complaintOf(w.left[id]).Hint + "; then hayrick worker"
		}
		what = append(what, fmt.Sprintf("%s is left alone: %v", id, w.left[id]))
	}
	if len(ids) > 0 {
		code = exitCode(w.left[ids[0]])
	}
	if damaged > 0 {
		words = append(words, "left alone: "+count(int64(damaged), "damaged run"))
	}
	if denied > 0 {
		words = append(words, "left alone: "+count(int64(denied), "run")+" that this process may not go on with")
	}
	if code == exitDone {
		return nil
	}
	return w.stopped(code, strings.Join(what, "; "), hint, "%s", painted(strings.Join(words, "\n")))
}

// crew drives all unfinished runs of a store.
type crew struct {
	drive
	linger time.Duration

	begun  bool
	over   map[string]bool      // runs that have ended
	shown  map[string]*progress // how each run gets on
	paused []*pausedError       // runs that wait for a person
	swept  time.Time
}

// look sweeps every unfinished run. It is done when nothing has been left to do for
// as long as it is to linger; while runs are unfinished, the last process in the
// store stays, and where nobody can be certain to be the last, everybody does.
func (w *crew) look(ctx context.Context) (bool, error) {
	if time.Since(w.swept) < w.pace.sweep {
		return false, nil
	}
	w.swept = time.Now()
	ids, err := w.store.Jobs(ctx)
	if err != nil {
		return false, fmt.Errorf("list the runs: %w", err)
	}
	slices.Sort(ids)
	unfinished, linger := 0, w.linger
	var moved []string // runs that were worked on
	w.paused = nil
	for _, id := range ids {
		if w.over[id] || w.leaves(id) || !hayrick.ValidID(id) {
			continue
		}
		s, err := w.sweep(ctx, id)
		switch {
		case ofOneRun(err):
			w.leave(ctx, id, err)
		case err != nil:
			return false, err
		case s.over:
			w.over[id] = true
			if w.begun {
				moved = append(moved, id)
			}
		case s.paused != nil:
			w.paused = append(w.paused, s.paused)
		case s.unfinished:
			unfinished++
			moved = append(moved, id)
			linger = max(linger, s.linger)
		}
	}
	if !w.begun {
		w.begun = true
		w.tell("working on %s of %s", count(int64(unfinished), "unfinished run"), w.storeDir)
	}
	for _, id := range moved {
		switch err := w.show(ctx, id); {
		case ofOneRun(err):
			w.leave(ctx, id, err)
		case err != nil:
			return false, err
		}
	}
	if w.idle(unfinished > 0) < linger {
		return false, nil
	}
	if unfinished == 0 {
		return true, nil
	}
	others, certain, err := w.store.Others()
	leave := certain && others > 0 && err == nil
	if leave {
		w.tell("leaving %s to %s", count(int64(unfinished), "run"), count(int64(others), "other process"))
	}
	return leave, err
}

// swept is what a sweep says of a run; nothing of a submission that never got to its
// plan.
type swept struct {
	over, unfinished bool
	paused           *pausedError
	linger           time.Duration // of an unfinished run
}

func (w *crew) sweep(ctx context.Context, id string) (swept, error) {
	dec, err := w.coordinator.Sweep(ctx, id)
	switch {
	case errors.Is(err, hayrick.ErrNotFound):
		return swept{}, nil
	case err != nil:
		return swept{}, err
	case dec.Complete:
		return swept{over: true}, nil
	case dec.Status == hayrick.StatusPaused:
		k, _, err := w.known(ctx, id)
		if err != nil {
			return swept{}, err
		}
		return swept{paused: w.pausedBy(k)}, nil
	}
	job, err := w.jobs.Open(ctx, id, dec.Generation)
	if err != nil {
		return swept{}, err
	}
	return swept{unfinished: true, linger: job.Definition.Run.Linger.D()}, nil
}

// show tells how a run gets on, as run does where it draws nothing, and at its end
// whether anything went well.
func (w *crew) show(ctx context.Context, id string) error {
	k, dec, err := w.known(ctx, id)
	if err != nil {
		return err
	}
	p, ok := w.shown[id]
	if !ok {
		p = newProgress(w.cli, w.limits.grants)
		w.shown[id] = p
	}
	if p != nil {
		p.lines = true // any number of runs may be under way
		p.show(k, dec)
	}
	if k.Outcome == nil {
		return nil
	}
	_, err = w.warnPoor(ctx, w.err, k, resultOf(k))
	return err
}
