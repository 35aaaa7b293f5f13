package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"hayrick"
	"hayrick/internal/records"
	"hayrick/manifest"
)

// Coordinator submits jobs, sweeps them and gives orders. It holds no state of its
// own: any number of them, in any processes, may work on the same jobs. All fields
// but Money are needed.
type Coordinator struct {
	Store   *manifest.Store
	State   State
	Queue   Queue
	Sources Sources
	Lister  Lister
	World   hayrick.World
	Log     *slog.Logger
	Scratch string // folder for spooled items and bundles; made when it is missing
	Money   *Money // nil: the store costs nothing
}

// Submission is what `run` and `submit` ask for.
type Submission struct {
	Definition  hayrick.JobDefinition // resolved; output.uri still has its $(run.id)
	ConfigFile  string                // where it was read from, for people
	ConfigTime  time.Time             // when that was last changed
	GitCommit   string
	GitDirty    bool
	SubmittedBy string
	CodeVersion string // of the binary
	Folder      string // where relative paths of the definition lie; empty = each process's working directory
	BundleDir   string // the job's folder, which workers get; "" = none

	// Items lists the items of a definition with input.items, in a fixed order.
	Items func(ctx context.Context, emit func(json.RawMessage) error) error

	// Stdin is read for an input.uri of "-"; nil = there is nothing.
	Stdin io.Reader

	New   bool   // start a new run, whatever is unfinished
	JobID string // run under this id; "" = derived

	// Check, unless nil, judges the JSON lines of an input that is shuffled, as a worker
	// would: their places are known only as long as they are read in order.
	Check records.Check

	// Admit, unless nil, is asked before a new run is planned; its error refuses the
	// run, and nothing of it exists then.
	Admit func(ctx context.Context, jobID string) error

	// Progress hears of the bytes and items found so far. total is 0 while the handler
	// lists items. It is called from one goroutine at a time, not always the same one;
	// may be nil.
	Progress func(bytes, total, items int64)
}

// Submitted is a job that exists.
type Submitted struct {
	JobID      string
	Plan       manifest.Plan
	PlanSHA256 string
	Resumed    bool // the plan was there before, or another submission was faster
}

// Submit makes a job exist and its tasks known to workers, or goes on with the
// newest unfinished run of the same name, definition and input. It may be stopped
// anywhere and called again, at once or by several processes: the put of plan.json
// decides, everything before it is data that nothing names yet, everything after it
// is derived from it.
//
// What a person can mend is a *hayrick.UserError. Exit 7: an unfinished run of the
// same name has another definition or input, or JobID is taken.
func (c *Coordinator) Submit(ctx context.Context, s Submission) (Submitted, error) {
	definition, digest, err := manifest.EncodeDefinition(s.Definition)
	if err != nil {
		return Submitted{}, err
	}
	src, err := c.source(ctx, s)
	if err != nil {
		return Submitted{}, err
	}
	defer src.close()
	id := Identity{Name: s.Definition.Name, Definition: digest, Inputs: []InputIdentity{InputIdentityOf(src.id)}}
	run, err := c.chooseRun(ctx, s, id, src)
	if err != nil {
		return Submitted{}, err
	}
	out := Submitted{JobID: run.jobID, Plan: run.plan, PlanSHA256: run.sha, Resumed: run.planned}
	if !run.planned {
		if s.Admit != nil {
			if err := s.Admit(ctx, run.jobID); err != nil {
				return Submitted{}, err
			}
		}
		arranged, err := c.shuffled(ctx, s, run.jobID, src)
		if err != nil {
			return Submitted{}, fmt.Errorf("plan %s: %w", run.jobID, err)
		}
		if arranged != src {
			defer arranged.close()
			src = arranged
		}
		if src.list == nil { // what cannot be read leaves nothing behind
			if err := c.convert(ctx, s, src); err != nil {
				return Submitted{}, fmt.Errorf("plan %s: %w", run.jobID, err)
			}
		}
		p, err := c.plan(ctx, s, run, definition, digest, src)
		if err != nil {
			return Submitted{}, fmt.Errorf("plan %s: %w", run.jobID, err)
		}
		got, err := c.Store.CommitPlan(ctx, p)
		if err != nil {
			return Submitted{}, err
		}
		// Whoever was faster has planned the same job: what this call wrote has the same
		// keys and bytes, or nothing names it.
		if !id.Same(IdentityOf(got.Record)) {
			return Submitted{}, taken(run.jobID)
		}
		out.Plan, out.PlanSHA256, out.Resumed = got.Record, got.SHA256, !got.Won
		c.Log.Info("job planned", hayrick.KeyJobID, run.jobID, "items", got.Record.Items, "tasks", got.Record.Group.Tasks, "won", got.Won)
	}
	if err := c.start(ctx, run.jobID, !out.Resumed); err != nil {
		return Submitted{}, fmt.Errorf("start %s: %w", run.jobID, err)
	}
	return out, nil
}

// plan writes what a plan names and returns the plan, not yet committed. A crash
// anywhere leaves data objects that nothing names; the same steps write them again
// under the same keys.
func (c *Coordinator) plan(ctx context.Context, s Submission, run jobRun, definition []byte, digest string, src *source) (manifest.Plan, error) {
	if err := c.Store.PutData(ctx, manifest.Job(run.jobID).Config(digest), definition); err != nil {
		return manifest.Plan{}, err
	}
	bundle, err := c.bundle(ctx, s, run.jobID)
	if err != nil {
		return manifest.Plan{}, err
	}
	code := s.CodeVersion
	if bundle != "" {
		code += "+" + manifest.Short(bundle)
	}
	group, err := c.index(ctx, s, run.jobID, src)
	if err != nil {
		return manifest.Plan{}, err
	}
	p := manifest.Plan{
		Schema: manifest.SchemaPlan, JobID: run.jobID, DefinitionSHA256: digest, BundleSHA256: bundle, CodeVersion: code,
		Job: manifest.JobFields{
			JobType: s.Definition.Name, Handler: s.Definition.Handler.Label(), GitCommit: s.GitCommit, GitDirty: s.GitDirty,
			ConfigFile: s.ConfigFile, Folder: s.Folder, BatchSize: s.Definition.Batch.Items, SubmittedBy: s.SubmittedBy, Run: run.number,
		},
		Input: []manifest.InputID{src.id}, Items: group.Items, Group: group,
		SubmittedAt: manifest.At(c.World.Clock.Now()),
	}
	if s.Definition.Batch.Order == hayrick.OrderShuffle {
		p.Shuffle = manifest.ShuffleOf(run.jobID)
	}
	return p, nil
}

// index takes the snapshot of the input, cuts it and writes the initial group. A
// batch lies in one object; ordinals run on from one to the next.
func (c *Coordinator) index(ctx context.Context, s Submission, jobID string, src *source) (manifest.Group, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a read that is under way when something fails is given up
	group := manifest.NewGroupWriter(c.Store, jobID, hayrick.GroupInitial, hayrick.RoleWorker, 0)
	group.Go = c.World.Go
	x := c.newIndexing(s, jobID, src)
	defer x.close()
	x.open = func(ctx context.Context, src *source) (io.ReadCloser, error) { return c.snapshot(ctx, s, jobID, src) }
	x.add = group.Add
	if err := x.all(ctx); err != nil {
		return manifest.Group{}, err
	}
	if err := x.put(ctx); err != nil {
		return manifest.Group{}, err
	}
	return group.Close(ctx)
}

// indexing is the indexing of one input, object by object.
type indexing struct {
	c     *Coordinator
	s     Submission
	jobID string
	src   *source
	cut   Indexer
	open  func(context.Context, *source) (io.ReadCloser, error) // one object
	add   func(context.Context, manifest.Batch) error           // one batch, in order
	tasks int64                                                 // batches so far
	bytes int64                                                 // of the objects before
	list  *objects                                              // of a folder
	look  io.Writer                                             // is shown what is read; may be nil
}

func (c *Coordinator) newIndexing(s Submission, jobID string, src *source) *indexing {
	return &indexing{c: c, s: s, jobID: jobID, src: src, cut: Indexer{Items: s.Definition.Batch.Items, Bytes: int64(s.Definition.Batch.Bytes), Limit: s.Definition.Input.Limit, Go: c.World.Go}}
}

// all indexes the input.
func (x *indexing) all(ctx context.Context) error {
	if err := x.each(ctx); err != nil {
		return err
	}
	if x.src.id.Items == 0 {
		return noItems(x.src, x.s.Definition.Input.Format)
	}
	return nil
}

func (x *indexing) each(ctx context.Context) error {
	if x.src.list == nil {
		r, err := x.open(ctx, x.src)
		if err != nil {
			return err
		}
		defer r.Close()
		if err := x.one(ctx, x.src, r); err != nil {
			return err
		}
		if x.src.pinned() {
			return x.c.unchanged(ctx, x.src, "read")
		}
		return nil
	}
	list, err := x.c.newObjects()
	if err != nil {
		return err
	}
	x.list = list
	if x.cut.Items > 0 {
		x.cut.free = x.cut.chunks()
	}
	pinned := false
	if err := x.c.each(ctx, x.s, x.src.list, x.open, func(src *source, r io.Reader) (bool, error) {
		if err := x.one(ctx, src, r); err != nil {
			return false, err
		}
		pinned = pinned || src.pinned()
		x.src.id.Items += src.id.Items
		return x.s.Definition.Input.Limit > 0 && x.src.id.Items == x.s.Definition.Input.Limit, list.add(src.id)
	}); err != nil {
		return err
	}
	if pinned {
		if err := x.c.unchangedList(ctx, x.src.id.URI, x.src.list, list.list.Count()); err != nil {
			return err
		}
	}
	if batch := x.s.Definition.Batch.Items; x.s.Definition.Batch.Bytes == 0 && smallBatches(x.src.id.Items, x.tasks, batch) {
		x.c.Log.Warn("the objects of the input are small, and a batch lies in one of them: joined, they would make fewer tasks",
			hayrick.KeyJobID, x.jobID, "objects", list.list.Count(), "items", x.src.id.Items, "tasks", x.tasks, "batch_items", batch)
	}
	return nil
}

// put stores the list of the objects of a folder.
func (x *indexing) put(ctx context.Context) error {
	if x.list == nil {
		return nil
	}
	return x.list.put(ctx, x.c.Store, x.jobID, &x.src.id)
}

// close frees the scratch.
func (x *indexing) close() {
	if x.list != nil {
		x.list.list.Close()
	}
}

// one indexes one object.
func (x *indexing) one(ctx context.Context, src *source, r io.Reader) error {
	cut := x.cut
	cut.Object, cut.Version, cut.First = src.id.Object, src.id.Pin.Version, x.src.id.Items
	if strings.HasPrefix(cut.Object, manifest.StoreScheme) {
		cut.Version = "" // that of the original
	}
	if cut.Limit > 0 {
		cut.Limit -= x.src.id.Items
	}
	if x.s.Progress != nil {
		cut.Progress = func(bytes, items int64) { x.s.Progress(x.bytes+bytes, x.src.size, cut.First+items) }
	}
	if x.look != nil {
		r = io.TeeReader(r, x.look)
		defer io.WriteString(x.look, "\n") // no line goes on in the next object
	}
	got, err := cut.Index(ctx, r, func(b manifest.Batch) error { x.tasks++; return x.add(ctx, b) })
	if errors.Is(err, hayrick.ErrInputChanged) {
		return changed(src.name(), "read")
	}
	if err != nil {
		return err
	}
	if (cut.Limit == 0 || got.Items < cut.Limit) && got.Bytes != src.size {
		return changed(src.name(), "read")
	}
	x.bytes += got.Bytes
	src.id.Items = got.Items
	return nil
}

// start makes what follows from a plan: view, cached state, messages. It is a sweep
// that knows when nothing was ever sent, and then sends every task without looking
// for its result and its claim first. That is known when this call made the plan, or
// when the state store knows the job but no task of it. A crash leaves some of it
// undone, and calling Submit again, or any sweep, does the rest.
func (c *Coordinator) start(ctx context.Context, jobID string, fresh bool) error {
	k, err := c.Known(ctx, jobID)
	if err != nil {
		return err
	}
	d := Decide(k, c.World.Clock.Now())
	open := k.Open
	unsent := d.Status == hayrick.StatusRunning && open != nil && open.Name == hayrick.GroupInitial && open.Members != nil && len(open.Records) == 0
	if k.Depth.Exact {
		unsent = unsent && k.Depth.Messages == 0 && (fresh || k.Cached != nil)
	} else {
		unsent = unsent && fresh
	}
	if unsent {
		d.Scan = nil
	}
	if err := c.apply(ctx, k, d); err != nil || !unsent {
		return err
	}
	return c.sendGroup(ctx, k.Generation, k.Plan)
}

// sendGroup sends one message a task of the initial group, a block a call. A crash
// leaves some sent: the sweeper sends the rest once those are done with.
func (c *Coordinator) sendGroup(ctx context.Context, generation int, p manifest.Plan) error {
	out := make([]hayrick.Outgoing, 0, manifest.BlockTasks)
	for first := int64(0); first < p.Group.Tasks; first += manifest.BlockTasks {
		out = out[:0]
		for i := range min(manifest.BlockTasks, p.Group.Tasks-first) {
			out = append(out, hayrick.Outgoing{Message: hayrick.Message{
				JobID: p.JobID, Generation: generation, Role: hayrick.RoleWorker, Group: p.Group.Name,
				Block: int(first / manifest.BlockTasks), Position: int(i), TaskID: manifest.TaskID(p.Group.FirstTask + first + i),
			}})
		}
		if err := c.Queue.Send(ctx, hayrick.QueueTasks, out...); err != nil {
			return fmt.Errorf("send the tasks of block %d: %w", first/manifest.BlockTasks, err)
		}
	}
	return nil
}
