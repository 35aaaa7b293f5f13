package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
)

// watchOptions are the flags of watch.
type watchOptions struct {
	ref     string
	timeout time.Duration
	until   string
	strict  bool
}

// What a run can be watched until.
const (
	untilDone  = "done"
	untilRetry = "retry"
	untilMerge = "merge"
)

var untils = []string{untilRetry, untilMerge, untilDone}

func watchCommand(c *cli) *cobra.Command {
	var o watchOptions
	cmd := &cobra.Command{
		Use: "watch [run]", Short: "Follow a run that others work on", Args: arguments(0, 1),
		Long: `Follow a run (the latest when none is named) until it has ended, from any machine that
reaches the store. It works on nothing, but repairs what a crash or a lost message left
out, as any sweeper does. The exit code is that of the run. Ctrl-C ends the watching and
leaves the run alone.

On a terminal it is a block that is drawn anew: how far the run is, its speed and when it
may end, its groups, and what was tried again for which class of failure. Elsewhere it is
a line at each change of group and now and then.

With --json every change is a line of JSON, as status --json prints it.

On AWS a look is up to ` + fmt.Sprint(lookRequests) + ` requests, every ` + word(remotePace.look) + ` while something happens and every ` + word(remotePace.slowest) + ` while
nothing does: for a job of some thousand tasks 1 to 12 US cents a day.`,
		Example:     "  hayrick watch @\n  hayrick -C s3://lab-hayrick watch @backfill --timeout 1h\n  hayrick watch --until merge --json | jq .ok",
		Annotations: endsWith(exitUnwell, exitNotFound, exitBudget, exitConflict, exitTimeout),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref = refOf(args)
			if err := parseWatch(&o, cmd.Flags().Changed); err != nil {
				return err
			}
			return runWatch(cmd.Context(), c, o)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.timeout, "timeout", 0, "stop watching after this, such as 1h, and exit 124")
	f.StringVar(&o.until, "until", untilDone, "watch until `phase`: retry (the first tasks have ended), merge (all items have) or done")
	f.BoolVar(&o.strict, "strict", false, "exit 3 when any item failed")
	return cmd
}

// lookRequests is what a look asks of AWS at most: see coordinator.Known, of which the
// plan, the definition, and what was found of orders and retry plans, are remembered.
const lookRequests = 19

func word(d time.Duration) string {
	b, _ := hayrick.Duration(d).MarshalText()
	return string(b)
}

func parseWatch(o *watchOptions, given func(string) bool) error {
	if given("timeout") && o.timeout <= 0 {
		return &hayrick.UserError{What: fmt.Sprintf("--timeout %v", o.timeout), Hint: "write a time such as 1h, or leave it out"}
	}
	for _, u := range untils {
		if o.until == u {
			return nil
		}
	}
	return &hayrick.UserError{What: fmt.Sprintf("--until %q", o.until), Hint: "write one of " + strings.Join(untils, ", ")}
}

// errWatched is the end of the time to watch.
var errWatched = errors.New("watched long enough")

// runWatch looks again and again until the run has ended, or come as far as asked for.
func runWatch(ctx context.Context, c *cli, o watchOptions) error {
	start := c.world.Clock.Now()
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.openRun(ctx, o.ref)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.store.Watching(); err != nil {
		return err
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, errWatched)
		defer cancel()
	}
	id := k.Plan.JobID
	w := &watcher{roles: r, pace: c.pace(), until: o.until, progress: newProgress(c, nil)}
	k, err = w.follow(ctx, k)
	c.screen.clear()
	var paused *pausedError
	switch {
	case errors.Is(context.Cause(ctx), errWatched):
		return c.stopped(exitTimeout, fmt.Sprintf("%s has not ended after %s", id, o.timeout), "hayrick watch "+id,
			"%s has not ended after %s; go on with: hayrick watch %s", id, ago(o.timeout), id)
	case ctx.Err() != nil:
		return c.stopped(exitInterrupted, "no longer watched; the run was left alone", "hayrick watch "+id,
			"no longer watched; the run was left alone. Come back with: hayrick watch %s", id)
	case errors.As(err, &paused):
		return c.stopped(paused.exit, paused.Error(), paused.hint, "%s %s", c.paint(bold, "paused:"), paused.reason)
	case err != nil:
		return err
	case k.Outcome == nil:
		return nil // as far as was asked for
	case c.json:
		return resultOf(k).exit(o.strict)
	}
	return c.printResult(ctx, r, k, c.world.Clock.Now().Sub(start), o.strict)
}

// watcher follows one run.
type watcher struct {
	*roles
	*progress
	pace  pace
	until string

	said string // the last change that was printed
}

// follow looks until there is no more to see; the pace follows what changes.
func (w *watcher) follow(ctx context.Context, k *coordinator.Known) (*coordinator.Known, error) {
	id := k.Plan.JobID
	var swept time.Time
	seen, wait := "", w.pace.look
	for fails := 0; ; {
		dec := coordinator.Decide(k, w.roles.world.Clock.Now())
		if w.progress != nil {
			w.progress.show(k, dec)
		}
		if err := w.line(ctx, k); err != nil {
			return k, err
		}
		switch now := changeOf(k); {
		case dec.Complete, w.reached(k):
			return k, nil
		case dec.Status == hayrick.StatusPaused && dec.State == nil && !dec.View && dec.Pause == nil:
			return k, w.roles.pausedBy(k)
		case now != seen:
			seen, wait = now, w.pace.look
		default:
			wait = min(2*wait, w.pace.slowest)
		}
		if dec.Pause != nil || w.roles.world.Clock.Now().Sub(swept) >= w.pace.sweep {
			swept = w.roles.world.Clock.Now()
			if _, err := w.coordinator.Repair(ctx, k); err != nil && ctx.Err() == nil {
				w.roles.log.Warn("the run could not be repaired; trying again", hayrick.KeyError, err)
			}
		}
		if err := w.roles.world.Clock.Sleep(ctx, wait); err != nil {
			return k, err
		}
		next, _, err := w.known(ctx, id)
		switch {
		case err == nil:
			k, fails = next, 0
		case ctx.Err() != nil:
			return k, ctx.Err()
		case fails >= maxFaults || hopeless(err):
			return k, err
		default:
			fails++
			w.roles.log.Warn("the run cannot be looked at; trying again", hayrick.KeyError, err)
		}
	}
}

// reached says that the run has come as far as it was to be watched.
func (w *watcher) reached(k *coordinator.Known) bool {
	switch w.until {
	case untilRetry:
		return len(k.Retries) > 0 || k.Outcome != nil
	case untilMerge:
		unplanned := k.Opening != nil && len(k.Retries) == 0 && k.Outcome == nil
		return !unplanned && (k.Open == nil || k.Open.Name == hayrick.GroupAggregation)
	}
	return false
}

// line prints a change, with --json.
func (w *watcher) line(ctx context.Context, k *coordinator.Known) error {
	now := changeOf(k)
	if !w.roles.json || now == w.said {
		return nil
	}
	w.said = now
	s, err := w.statusOf(ctx, k)
	if err != nil {
		return err
	}
	return w.roles.printJSON(s)
}

// changeOf is what of a run has to differ for somebody to hear of it.
func changeOf(k *coordinator.Known) string {
	t := tallyOf(k)
	var done int64
	for _, g := range t.Groups {
		done += g.Done
	}
	return fmt.Sprint(k.Generation, k.ViewStatus, k.Outcome != nil, len(k.Orders), len(t.Groups), done, t.OK, t.Failed)
}
