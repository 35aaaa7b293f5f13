package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"hayrick"
	"hayrick/jobs"
	"hayrick/manifest"
)

// Jobs keeps what attempts of the same job share: its plan, definition and
// handler, the groups it has opened and the blocks last used. All of it is
// immutable, so nothing here is ever stale.
type Jobs struct {
	Store    *manifest.Store
	Handlers jobs.Registry
	World    hayrick.World
	Log      *slog.Logger
	// Bundles is the folder that bundles are unpacked in, for handlers with processes of
	// their own; "" = none can be.
	Bundles string

	mu   sync.Mutex
	open map[jobAt]*Job
}

// jobAt names a job in one of its generations: an order that opens one may change the
// definition and the code.
type jobAt struct {
	id         string
	generation int
}

// Job is an open job in one generation.
type Job struct {
	Plan       manifest.Plan // as it stands in the generation
	Definition hayrick.JobDefinition

	jobs    *Jobs
	once    sync.Once
	handler jobs.Handler
	err     error

	loading sync.Mutex // held while a group or a block is read: attempts that want the same read it once

	mu       sync.Mutex // guards what follows
	timedOut bool       // it was told that an item ran out of its time
	groups   map[groupID]*manifest.Members
	blocks   []*openBlock // most recently used first, at most maxOpenBlocks
}

type groupID struct {
	generation int
	group      string
}

type openBlock struct {
	members *manifest.Members
	n       int
	block   manifest.Block
	index   manifest.Index
}

// maxOpenBlocks bounds the block files kept in memory, about 100 KB each.
const maxOpenBlocks = 8

// Open returns the job as it stands in a generation, reading it on first use.
// ErrNotFound: it has no plan, or no such generation.
func (j *Jobs) Open(ctx context.Context, id string, generation int) (*Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if job, ok := j.open[jobAt{id, generation}]; ok {
		return job, nil
	}
	plan, err := j.Store.PlanOf(ctx, id, generation)
	if err != nil {
		return nil, err
	}
	def, err := j.Store.Definition(ctx, plan)
	if errors.Is(err, hayrick.ErrNotFound) {
		err = fmt.Errorf("the plan's definition is gone: %w", hayrick.ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	job := &Job{Plan: plan, Definition: def, jobs: j, groups: map[groupID]*manifest.Members{}}
	if j.open == nil {
		j.open = map[jobAt]*Job{}
	}
	j.open[jobAt{id, generation}] = job
	return job, nil
}

// Close ends the handlers.
func (j *Jobs) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, job := range j.open {
		if c, ok := job.handler.(jobs.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	j.open = nil
	return errors.Join(errs...)
}

// Handler builds the job's handler on first use; all attempts of the process share
// it.
func (j *Job) Handler(ctx context.Context) (jobs.Handler, error) {
	j.once.Do(func() {
		j.handler, j.err = j.jobs.Handlers.New(context.WithoutCancel(ctx), jobs.Env{
			World: j.jobs.World, Log: j.jobs.Log, Handler: j.Definition.Handler, Timeout: j.Definition.Run.ItemTimeout,
			Run: j.Plan.JobID, Dir: j.unpacked,
		})
	})
	return j.handler, j.err
}

// Members returns an opened group of a generation.
func (j *Job) Members(ctx context.Context, generation int, group string) (*manifest.Members, error) {
	id := groupID{generation, group}
	if m := j.group(id); m != nil {
		return m, nil
	}
	j.loading.Lock()
	defer j.loading.Unlock()
	if m := j.group(id); m != nil {
		return m, nil // another attempt has read it meanwhile
	}
	g, _, err := j.jobs.Store.OpenGroup(ctx, j.Plan.JobID, generation, group)
	if err != nil {
		return nil, err
	}
	m, err := j.jobs.Store.Members(ctx, j.Plan.JobID, generation, g)
	if err != nil {
		return nil, gone(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.groups[id] = m
	return m, nil
}

// firstTimeout is true once.
func (j *Job) firstTimeout() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := !j.timedOut
	j.timedOut = true
	return first
}

func (j *Job) group(id groupID) *manifest.Members {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.groups[id]
}

// Batch returns a task of a block and its batch.
func (j *Job) Batch(ctx context.Context, m *manifest.Members, block, position int) (manifest.BlockTask, manifest.Batch, error) {
	b, err := j.block(ctx, m, block)
	if err != nil {
		return manifest.BlockTask{}, manifest.Batch{}, err
	}
	if position < 0 || position >= len(b.block.Tasks) || position >= len(b.index.Batches) {
		return manifest.BlockTask{}, manifest.Batch{}, fmt.Errorf("position %d of block %d: %w", position, block, hayrick.ErrNotFound)
	}
	return b.block.Tasks[position], b.index.Batches[position], nil
}

func (j *Job) block(ctx context.Context, m *manifest.Members, n int) (*openBlock, error) {
	if b := j.cached(m, n); b != nil {
		return b, nil
	}
	if n < 0 || n >= m.Blocks() {
		return nil, fmt.Errorf("block %d of group %s: %w", n, m.Group.Name, hayrick.ErrNotFound)
	}
	j.loading.Lock()
	defer j.loading.Unlock()
	if b := j.cached(m, n); b != nil {
		return b, nil // another attempt has read it meanwhile
	}
	b := &openBlock{members: m, n: n}
	var err error
	if b.block, err = m.Block(ctx, j.jobs.Store, n); err != nil {
		return nil, gone(err)
	}
	if b.index, err = m.Index(ctx, j.jobs.Store, n); err != nil {
		return nil, gone(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.blocks = append([]*openBlock{b}, j.blocks...)
	if len(j.blocks) > maxOpenBlocks {
		j.blocks = j.blocks[:maxOpenBlocks]
	}
	return b, nil
}

// gone turns "not found" of an object that a commit names into what it is: a fact
// that broke, not the answer that there is no such task.
func gone(err error) error {
	if errors.Is(err, hayrick.ErrNotFound) {
		return fmt.Errorf("a named object is gone: %v: %w", err, hayrick.ErrCorrupt)
	}
	return err
}

func (j *Job) cached(m *manifest.Members, n int) *openBlock {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, b := range j.blocks {
		if b.members == m && b.n == n {
			copy(j.blocks[1:i+1], j.blocks[:i])
			j.blocks[0] = b
			return b
		}
	}
	return nil
}
