package aggregator

import (
	"context"
	"fmt"
	"maps"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// fail ends the generation as FAILED. The results stay in the store.
func (a *Aggregator) fail(ctx context.Context, job *jobOf, code, message string, merges map[string]string) error {
	a.Log.Error("the job failed", hayrick.KeyJobID, job.id, "code", code, "message", message)
	return a.end(ctx, job, manifest.Outcome{
		Status: string(hayrick.JobFailed), Code: code, Message: message, RowHash: rows.Hash{}.String(),
	}, merges)
}

// end commits o, filled in, and publishes it, or the outcome that came first. Every
// item has ended by then, and has been counted: the outcome says how, also of a
// FAILED job. merges are the results.done files of the merges, by key: nothing else
// names them. A crash after the commit leaves the publication to whoever looks next.
func (a *Aggregator) end(ctx context.Context, job *jobOf, o manifest.Outcome, merges map[string]string) error {
	o.Schema, o.JobID, o.Generation = manifest.SchemaOutcome, job.id, job.generation
	if o.DroppedHash == "" {
		o.DroppedHash = rows.Hash{}.String()
	}
	o.Items = job.plan.Items
	o.Permanent, o.Exhausted = job.givenUp()
	o.OK = o.Items - o.Permanent - o.Exhausted
	o.EndedAt = manifest.At(a.World.Clock.Now())
	var err error
	if o.Chain, err = a.Store.Chain(ctx, job.id, job.generation); err != nil {
		return err
	}
	maps.Copy(o.Chain, merges)
	c, err := a.Store.CommitOutcome(ctx, o)
	if err != nil {
		return err
	}
	a.Log.Info("generation ended", hayrick.KeyJobID, job.id, hayrick.KeyGeneration, job.generation, "status", c.Record.Status,
		"items", o.Items, "rows", c.Record.RowCount)
	if err := a.publish(ctx, job, c.Record, c.SHA256); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}
