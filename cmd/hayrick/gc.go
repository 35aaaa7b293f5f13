package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/manifest"
)

// forgets is a state store from which a job can be taken out. One that cannot do so lets
// what nobody writes to run out by itself.
type forgets interface {
	Forget(ctx context.Context, jobID string) error
}

// removal is what gc or purge removes of a run.
type removal struct {
	Schema  string `json:"schema"`
	JobID   string `json:"job_id"`
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes"`
	State   bool   `json:"state"` // and what the state store holds of it
	Removed bool   `json:"removed"`

	all []manifest.Object
}

type gcOptions struct {
	all, yes, dry bool
}

func gcCommand(c *cli) *cobra.Command {
	var o gcOptions
	cmd := &cobra.Command{
		Use: "gc [run]", Short: "Remove what no commit of a run names", Args: arguments(0, 1),
		Long: `Remove what attempts, planners and submissions have left behind that crashed or came
second, snapshots of tasks that have ended, and the state of runs that have ended. Nothing
goes that a commit names or could come to name, so it may run beside workers. The objects
that it finds are shown first, and removed after a yes; where there are none it asks
nothing. State is a cache, and made again by whoever needs it.`,
		Example:     "  hayrick gc @ --dry-run\n  hayrick gc --all --yes",
		Annotations: endsWith(exitNotFound),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.all == (len(args) == 1) {
				return &hayrick.UserError{What: "gc takes a run, or --all", Hint: "write hayrick gc <run>, or hayrick gc --all"}
			}
			return runGC(cmd.Context(), c, strings.Join(args, ""), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "of every run of the store")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dry, "dry-run", false, "only show what would be removed")
	return cmd
}

func runGC(ctx context.Context, c *cli, ref string, o gcOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	if err := c.storeExists(); err != nil {
		return err
	}
	r, err := open(ctx, c)
	if err != nil {
		return err
	}
	defer r.close()
	var ids []string
	if o.all {
		plans, err := r.plans(ctx, func(string) bool { return true })
		if err != nil {
			return err
		}
		for _, p := range plans {
			ids = append(ids, p.JobID)
		}
		slices.Sort(ids)
	} else {
		id, err := r.findRun(ctx, ref)
		if err != nil {
			return err
		}
		ids = []string{id}
	}
	var found []removal
	var objects, bytes int64
	for _, id := range ids {
		x, err := r.leftovers(ctx, id)
		if errors.Is(err, hayrick.ErrCorrupt) && o.all {
			c.log.Warn("this run is damaged and left alone; hayrick audit says more", hayrick.KeyJobID, id, hayrick.KeyError, err)
			continue
		}
		if err != nil {
			return err
		}
		if x.Objects > 0 || x.State {
			found, objects, bytes = append(found, x), objects+x.Objects, bytes+x.Bytes
		}
		if !c.json {
			for _, obj := range x.all[:min(len(x.all), shownItems)] {
				c.print("  %s  %s", obj.Key, size(obj.Size))
			}
			if more := len(x.all) - shownItems; more > 0 {
				c.print("  and %s more of %s", number(int64(more)), id)
			}
		}
	}
	if len(found) == 0 || o.dry {
		return c.sayRemoval("would remove", found)
	}
	// The state of a run that has ended is a cache of its objects: without it nothing is
	// lost, and nobody needs to be asked.
	if objects > 0 && !o.yes {
		if err := c.confirm(fmt.Sprintf("Remove %s, %s, that no commit names?", count(objects, "object"), size(bytes))); err != nil {
			return err
		}
	}
	rm, err := r.remover()
	if err != nil {
		return err
	}
	for i := range found {
		if err := r.coordinator.Remove(ctx, rm, found[i].all); err != nil {
			return err
		}
		if f, ok := r.store.(forgets); ok && found[i].State {
			if err := f.Forget(ctx, found[i].JobID); err != nil {
				return err
			}
		}
		found[i].Removed = true
	}
	return c.sayRemoval("removed", found)
}

// remover is the store, where objects can be taken out of it.
func (r *roles) remover() (manifest.Remover, error) {
	if rm, ok := r.store.(manifest.Remover); ok {
		return rm, nil
	}
	return nil, &hayrick.UserError{What: "nothing can be removed from this store", Hint: "remove the folder of the run by hand"}
}

// leftovers is what gc would remove of a run.
func (r *roles) leftovers(ctx context.Context, id string) (removal, error) {
	x := removal{Schema: "hayrick.gc/v1", JobID: id}
	if err := r.coordinator.Leftovers(ctx, id, func(o manifest.Object) error {
		x.all, x.Objects, x.Bytes = append(x.all, o), x.Objects+1, x.Bytes+o.Size
		return nil
	}); err != nil {
		return x, err
	}
	k, d, err := r.known(ctx, id)
	if err != nil {
		return x, err
	}
	_, can := r.store.(forgets)
	x.State = can && d.Complete && k.Cached != nil
	return x, nil
}

func (c *cli) sayRemoval(verb string, found []removal) error {
	var objects, bytes int64
	states := 0
	for _, x := range found {
		objects, bytes = objects+x.Objects, bytes+x.Bytes
		if x.State {
			states++
		}
		if c.json {
			if err := c.printJSON(x); err != nil {
				return err
			}
		}
	}
	switch {
	case c.json:
	case len(found) == 0:
		c.tell("nothing to remove")
	case objects == 0:
		c.print("nothing to remove but the state of %s, a cache of what is kept: %s", count(int64(states), "run"), verb)
	case states == 0:
		c.print("%s %s, %s", verb, count(objects, "object"), size(bytes))
	default:
		c.print("%s %s, %s, and the state of %s", verb, count(objects, "object"), size(bytes), count(int64(states), "run"))
	}
	return nil
}

type purgeOptions struct {
	output, yes, dry bool
}

func purgeCommand(c *cli) *cobra.Command {
	var o purgeOptions
	cmd := &cobra.Command{
		Use: "purge <run>", Short: "Remove a run that has ended from the store", Args: arguments(1, 1),
		Long: `Remove everything that the store holds of a run that has ended: commits, results, copies
of its input. What it has published stays, unless --output. There is no way back, and no
audit of the run any more. Cut off, it may be typed again and goes on.`,
		Example:     "  hayrick purge backfill-20260101-abcdef\n  hayrick purge @ --output --yes",
		Annotations: endsWith(exitNotFound, exitConflict),
		RunE:        func(cmd *cobra.Command, args []string) error { return runPurge(cmd.Context(), c, args[0], o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.output, "output", false, "remove what it has published too")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dry, "dry-run", false, "only show what would be removed")
	return cmd
}

func runPurge(ctx context.Context, c *cli, ref string, o purgeOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	if err := c.storeExists(); err != nil {
		return err
	}
	r, err := openToWork(ctx, c)
	if err != nil {
		return err
	}
	defer r.close()
	id, err := r.findAudited(ctx, ref) // of one that was cut off the plan may be gone
	if err != nil {
		return err
	}
	ended, err := hasEnded(ctx, r.manifests, id)
	if err != nil && !errors.Is(err, hayrick.ErrCorrupt) {
		return err
	}
	if !ended {
		return &hayrick.UserError{What: id + " has not ended", Hint: "hayrick cancel " + id + " ends it", Exit: exitConflict}
	}
	x := removal{Schema: "hayrick.purge/v1", JobID: id}
	if err := r.manifests.Objects.List(ctx, manifest.Job(id).Prefix(), func(obj manifest.Object) error {
		x.Objects, x.Bytes = x.Objects+1, x.Bytes+obj.Size
		return nil
	}); err != nil {
		return err
	}
	_, x.State = r.store.(forgets)
	if o.dry {
		return c.sayPurge("would remove", x)
	}
	if !o.yes {
		what := "what it has published stays"
		if o.output {
			what = "and what it has published"
		}
		if err := c.confirm(fmt.Sprintf("Purge %s, %s, %s? %s; there is no way back", id, count(x.Objects, "object"), size(x.Bytes), what)); err != nil {
			return err
		}
	}
	rm, err := r.remover()
	if err != nil {
		return err
	}
	if err := r.purge(ctx, id, rm, o); err != nil {
		return err
	}
	x.Removed = true
	return c.sayPurge("removed", x)
}

func (r *roles) purge(ctx context.Context, id string, rm manifest.Remover, o purgeOptions) error {
	if err := r.coordinator.BeginPurge(ctx, id); errors.Is(err, hayrick.ErrConflict) {
		return &hayrick.UserError{What: id + " has been opened again meanwhile", Hint: "hayrick status " + id, Exit: exitConflict}
	} else if err != nil {
		return err
	}
	if o.output {
		for g := 0; ; g++ {
			if _, _, err := r.manifests.Outcome(ctx, id, g); err != nil {
				break // there is no such generation, or it is damaged and its files are not known
			}
			folder, taken, err := r.aggregator.Unpublish(ctx, id, g)
			if errors.Is(err, hayrick.ErrNotFound) { // an earlier purge got further than that
				break
			}
			if err != nil {
				return err
			}
			if taken {
				r.tell("%s holds what other runs have published, and was left alone", fromHere(folder))
			}
		}
	}
	if _, _, err := r.coordinator.Purge(ctx, id, rm); err != nil {
		return err
	}
	if f, ok := r.store.(forgets); ok {
		return f.Forget(ctx, id)
	}
	return nil
}

func beingPurged(id string) error {
	return &hayrick.UserError{What: id + " is being purged", Hint: "hayrick purge " + id + " goes on with it", Exit: exitConflict}
}

func (c *cli) sayPurge(verb string, x removal) error {
	if c.json {
		return c.printJSON(x)
	}
	c.print("%s %s: %s, %s", verb, x.JobID, count(x.Objects, "object"), size(x.Bytes))
	return nil
}
