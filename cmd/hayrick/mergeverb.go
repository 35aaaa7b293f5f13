package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/manifest"
)

func mergeCommand(c *cli) *cobra.Command {
	var partial bool
	cmd := &cobra.Command{
		Use: "merge <run> --partial", Short: "Merge what there is of an unfinished run, to look at it", Args: arguments(1, 1),
		Long: `Merge the results that an unfinished run has so far into a folder of their own, beside
that of its dataset: <output>.partial-<time>/. Its files are called partial-..., and
_PARTIAL in it says how much of the run is there. The run goes on as if nothing had been:
it merges its results by itself, once all of them are there.`,
		Example:     "  hayrick merge @ --partial",
		Annotations: endsWith(exitNotFound, exitConflict),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !partial {
				return &hayrick.UserError{What: "a run merges its results by itself when all are there", Hint: "write --partial to merge what there is of an unfinished one"}
			}
			return runMergePartial(cmd.Context(), c, args[0])
		},
	}
	cmd.Flags().BoolVar(&partial, "partial", false, "merge what there is, into a folder that is named so")
	return cmd
}

func runMergePartial(ctx context.Context, c *cli, ref string) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.findIn(ctx, ref, openToWork)
	if err != nil {
		return err
	}
	defer r.close()
	p, err := r.aggregator.Partial(ctx, k.Plan.JobID, k.Generation)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(p)
	}
	return c.sayPartial(p)
}

func (c *cli) sayPartial(p manifest.Partial) error {
	folder := fromHere(p.Folder)
	c.print("%s   %s of %s ok, of %s of its %s", c.paintOut(bold, "partial"), number(p.ItemsOK), count(p.Items, "item"), number(p.TasksEnded), count(p.Tasks, "task"))
	for _, name := range p.Parts[:min(len(p.Parts), 20)] {
		c.print("  %s", below(folder, name))
	}
	if more := len(p.Parts) - 20; more > 0 {
		c.print("  and %d more", more)
	}
	dropped := ""
	if p.DroppedRows > 0 {
		dropped = fmt.Sprintf(", %s dropped as duplicates", number(p.DroppedRows))
	}
	c.print("  %s%s; what is missing is in no file here", count(p.Rows, "row"), dropped)
	return nil
}
