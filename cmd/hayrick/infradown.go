package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/aws"
	"hayrick/infra"
	"hayrick/manifest"
)

type infraDownOptions struct {
	deleteData         string
	force, yes, dryRun bool
}

func infraDownCommand(c *cli) *cobra.Command {
	var o infraDownOptions
	cmd := &cobra.Command{
		Use: "down", Short: "Take down the store that -C names; its bucket stays", Args: arguments(0, 0),
		Long: `Delete the stack of the store that -C names: the functions, the queues, the table and
the policies. The bucket stays, with all results: a later infra up of the same name takes
it over. It is deleted only when --delete-data names it. A store with runs that have not
ended is left alone, unless --force. It may be run again at any point.`,
		Example: `  hayrick -C s3://lab-hayrick infra down
  hayrick -C s3://lab-hayrick infra down --delete-data lab-hayrick`,
		Annotations: endsWith(exitNotFound, exitConflict),
		RunE:        func(cmd *cobra.Command, _ []string) error { return runInfraDown(cmd.Context(), c, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.deleteData, "delete-data", "", "delete the bucket too, with every object: the `name` of the store, typed again")
	f.BoolVar(&o.force, "force", false, "also while runs have not ended")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be done, and leave")
	return cmd
}

func runInfraDown(ctx context.Context, c *cli, o infraDownOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	d, report, err := openDeployer(ctx, c, nil, o.yes, o.dryRun)
	if err != nil {
		return err
	}
	t := infra.Teardown{Store: report.Store, Force: o.force, DeleteData: o.deleteData != ""}
	if t.DeleteData && o.deleteData != t.Store {
		return &hayrick.UserError{What: fmt.Sprintf("--delete-data %s: the store is %s", plain(o.deleteData), t.Store), Hint: "type the store's name: what is deleted cannot be brought back"}
	}
	there, _, err := d.Data.State(ctx)
	if err != nil {
		return err
	}
	if there && !o.force {
		if t.Unfinished, err = unfinishedRuns(ctx, c); err != nil {
			return err
		}
	}
	_, err = d.Down(ctx, t)
	if errors.Is(err, infra.ErrLookedOnly) {
		return c.printStack(report, nil)
	}
	if err != nil {
		return stackInterrupted(err)
	}
	if there && !t.DeleteData {
		c.tell("the bucket %s stays: hayrick -C %s infra up takes it over, --delete-data %s deletes it", t.Store, aws.Scheme+t.Store, t.Store)
	}
	return c.printStack(report, nil)
}

// unfinishedRuns are the runs of the store without an outcome, from the objects alone:
// the table may be gone already. A run that cannot be read counts as one.
func unfinishedRuns(ctx context.Context, c *cli) ([]string, error) {
	r, st, err := openToRead(ctx, c)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	ids, err := r.lister.Jobs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the runs: %w", err)
	}
	states, err := each(ids, func(id string) (bool, error) {
		if !hayrick.ValidID(id) {
			return false, nil
		}
		ended, err := hasEnded(ctx, r.manifests, id)
		if errors.Is(err, hayrick.ErrCorrupt) {
			return true, nil
		}
		return !ended, err
	})
	if err != nil {
		return nil, err
	}
	var out []string
	for i, open := range states {
		if open {
			out = append(out, ids[i])
		}
	}
	return out, nil
}

// hasEnded says that the newest generation of a run has its outcome. A submission that
// never got to its plan is no run.
func hasEnded(ctx context.Context, m *manifest.Store, id string) (bool, error) {
	if _, _, err := m.Plan(ctx, id); err != nil {
		return errors.Is(err, hayrick.ErrNotFound), ignore(err, hayrick.ErrNotFound)
	}
	orders, _, err := m.Orders(ctx, id)
	if err != nil {
		return false, err
	}
	newest := manifest.Current(orders)
	if o := manifest.Opening(orders, newest); o != nil && o.Order == manifest.OrderPurge {
		return true, nil
	}
	_, _, err = m.Outcome(ctx, id, newest)
	return err == nil, ignore(err, hayrick.ErrNotFound)
}

// ignore is err, unless it is of kind what.
func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}
