package main

import (
	"context"
	"fmt"

	"hayrick/manifest"
)

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
