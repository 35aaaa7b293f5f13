package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"hayrick/audit"
)

func auditCommand(c *cli) *cobra.Command {
	var deep bool
	var generation int
	cmd := &cobra.Command{
		Use: "audit [run]", Short: "Prove from the objects what became of every item of a run",
		Long: `Walk the hash chain of a run from its outcome down to the rows, derive every view
again, and name whatever differs, is missing or is a stranger. The first line is the
proof; exit 3 when there is none: the run has not SUCCEEDED, or a finding is "broken".
Views, strangers and leftovers are told and change nothing: exit 0. Nothing is
written, not to the store either.`,
		Example:     "  hayrick audit\n  hayrick audit --deep @backfill     decode every row too",
		Annotations: endsWith(exitUnwell, exitNotFound),
		Args:        arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var which *int
			if cmd.Flags().Changed("generation") {
				which = &generation
			}
			return runAudit(cmd.Context(), c, refOf(args), deep, which)
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "decode every row of every file too")
	cmd.Flags().IntVar(&generation, "generation", 0, "prove this generation rather than the current one; those before it are walked too")
	return cmd
}

func runAudit(ctx context.Context, c *cli, ref string, deep bool, generation *int) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	if err := c.storeExists(); err != nil {
		return err
	}
	r, store, err := openToRead(ctx, c)
	if err != nil {
		return err
	}
	defer store.Close()
	id, err := r.findAudited(ctx, ref)
	if err != nil {
		return err
	}
	rep, err := audit.Run(ctx, audit.Options{
		Generation: generation,
		Store:      r.manifests, JobID: id, World: c.world, Blobs: store, Deep: deep, Output: store, Inputs: store, Lister: store,
	})
	if err != nil {
		return err
	}
	if c.json {
		err = c.printJSON(rep)
	} else {
		c.sayAudit(rep)
	}
	if err == nil && !rep.Proven {
		err = ended(exitUnwell)
	}
	return err
}

func (c *cli) sayAudit(rep audit.Report) {
	colour := green
	if !rep.Proven {
		colour = red
	}
	fmt.Fprintf(c.out, "%s  %s\n", c.paintOut(bold, rep.JobID), c.paintOut(colour, rep.Line))
	listed := map[audit.Severity]int{}
	for _, f := range rep.Findings {
		c.print("%s", f)
		listed[f.Severity]++
	}
	for severity, n := range rep.Counts {
		if n > listed[severity] {
			c.print("showing %d of %s that are %s", listed[severity], count(int64(n), "finding"), severity)
		}
	}
	for _, n := range rep.Notes {
		c.tell("note: %s", n)
	}
}
