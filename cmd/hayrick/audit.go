package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/audit"
	"hayrick/coordinator"
	"hayrick/manifest"
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
written, not to the store either. --deep decodes every row of every file, and makes
the copies of inputs again (CSV as JSON lines, a shuffled input), where what they were
made of is there unchanged: a shuffle needs room in the folder of temporary files.`,
		Example:     "  hayrick audit\n  hayrick audit --deep @backfill     decode every row too, make copies again",
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
	cmd.Flags().BoolVar(&deep, "deep", false, "decode every row of every file, and make the copies of inputs again")
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
	scratch := filepath.Join(os.TempDir(), "hayrick-audit-"+c.world.NewAttemptID())
	defer os.Remove(scratch) // what lies in it has no name
	rep, err := audit.Run(ctx, audit.Options{
		Generation: generation, Copier: &copier{store: r.manifests, coordinator: &coordinator.Coordinator{
			Store: r.manifests, Sources: noClones{store.(planStore)}, Lister: store, World: c.world, Log: c.log, Scratch: scratch,
		}},
		Store: r.manifests, JobID: id, World: c.world, Blobs: store, Deep: deep, Output: store, Inputs: store, Lister: store,
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

// copier makes copies of inputs again for an audit.
type copier struct {
	store       *manifest.Store
	coordinator *coordinator.Coordinator
	def         *hayrick.JobDefinition // of the run; nil: not read yet
}

// CopyAgain returns the SHA-256 of the copy of an input, made today.
func (x *copier) CopyAgain(ctx context.Context, p manifest.Plan, in manifest.InputID) (string, error) {
	if x.def == nil {
		def, err := x.store.Definition(ctx, p)
		if err != nil {
			return "", err
		}
		x.def = &def
	}
	return x.coordinator.CopyAgain(ctx, coordinator.Submission{
		Definition: *x.def, Folder: p.Job.Folder,
		Check: func(record []byte) (string, int) { return damage(record, *x.def) },
	}, p.JobID, in)
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
