package coordinator

import (
	"context"
	"fmt"
	"io"

	"hayrick/manifest"
)

// Preview is what Submit would come to, found out without writing to the store.
type Preview struct {
	JobID   string
	Resumed bool // there is such a run, and Submit would go on with it
	Plan    manifest.Plan
	Items   int64
	Tasks   int64
	Input   manifest.InputID // as it is now

	Bytes  int64 // of the input
	Files  int64 // it is made of; 0 where the handler lists its items
	Bundle int64 // bytes of the packed folder; 0 = none
	Listed int   // jobs of the store; -1: none was looked for
	Named  int   // of them, of the same name
}

// Preview does what Submit does up to its first write: the same checks, the same choice
// of a run, the same indexing, in the same memory. Only the store's objects, sources and
// listing are needed. look, unless nil, is shown the bytes of the input as they are
// indexed.
func (c *Coordinator) Preview(ctx context.Context, s Submission, look io.Writer) (Preview, error) {
	_, digest, err := manifest.EncodeDefinition(s.Definition)
	if err != nil {
		return Preview{}, err
	}
	src, err := c.source(ctx, s)
	if err != nil {
		return Preview{}, err
	}
	defer src.close()
	id := Identity{Name: s.Definition.Name, Definition: digest, Inputs: []InputIdentity{InputIdentityOf(src.id)}}
	run, err := c.chooseRun(ctx, s, id, src)
	if err != nil {
		return Preview{}, err
	}
	p := Preview{JobID: run.jobID, Resumed: run.planned, Plan: run.plan, Input: src.id, Bytes: src.size, Listed: run.listed, Named: run.named}
	if run.planned {
		p.Items, p.Tasks = run.plan.Items, run.plan.Group.Tasks
		return p, nil
	}
	if s.Admit != nil {
		if err := s.Admit(ctx, run.jobID); err != nil {
			return Preview{}, err
		}
	}
	switch {
	case src.list != nil:
		p.Files = src.list.objects
	case src.spool == nil:
		p.Files = 1
	}
	if s.BundleDir != "" {
		var n length
		if _, err := packBundle(&n, s.BundleDir, notCode(s.Definition), MaxBundleBytes); err != nil {
			return Preview{}, err
		}
		p.Bundle = int64(n)
	}
	if err := c.previewIndex(ctx, s, src, look, &p); err != nil {
		return Preview{}, fmt.Errorf("plan %s: %w", run.jobID, err)
	}
	return p, nil
}

// length counts the bytes that are written to it.
type length int64

func (n *length) Write(p []byte) (int, error) { *n += length(len(p)); return len(p), nil }

// previewIndex indexes the input as it lies.
func (c *Coordinator) previewIndex(ctx context.Context, s Submission, src *source, look io.Writer, p *Preview) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Where batches end depends on the order, as far as batch.bytes decides.
	whole, err := c.shuffled(ctx, s, p.JobID, src)
	if err != nil {
		return err
	}
	if whole != src {
		defer whole.close()
		src = whole
	}
	x := c.newIndexing(s, p.JobID, src)
	defer x.close()
	x.look = look
	x.open = func(ctx context.Context, src *source) (io.ReadCloser, error) {
		if err := c.convert(ctx, s, src); err != nil {
			return nil, err
		}
		if src.spool != nil {
			return src.spooled(), nil
		}
		return c.openSource(ctx, src)
	}
	x.add = func(context.Context, manifest.Batch) error { return nil }
	err = x.all(ctx)
	p.Items, p.Tasks = src.id.Items, x.tasks
	return err
}
