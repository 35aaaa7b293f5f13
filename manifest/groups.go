package manifest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"hayrick"
)

// GroupWriter writes the block files and index objects of a new group as batches
// arrive, so that a job of any size is planned in bounded memory. Nothing of it
// exists for a reader until a plan that holds the Group is committed; a crash
// leaves unnamed data objects, which the same input writes again under the same
// keys.
type GroupWriter struct {
	Store *Store
	JobID string
	Role  hayrick.Role
	// Go, when set, runs puts concurrently, so that they share fsyncs; nil puts one
	// object after the other.
	Go func(name string, f func())

	group  Group
	blocks []node // written so far
	index  []node
	tasks  []BlockTask // of the block in the making
	batch  []Batch
	puts   chan struct{} // one entry a put under way
	errs   chan error    // the first failure of a put
}

// putsAtOnce bounds the objects under way, each at most 250 KB.
const putsAtOnce = 8

// NewGroupWriter opens a group whose first task has number firstTask.
func NewGroupWriter(s *Store, job, group string, role hayrick.Role, firstTask int64) *GroupWriter {
	return &GroupWriter{Store: s, JobID: job, Role: role, group: Group{
		Name: group, Phase: string(hayrick.PhaseOf(group)), FirstTask: firstTask,
	}}
}

// Add appends a worker task for b, whose BatchID is filled in.
func (w *GroupWriter) Add(ctx context.Context, b Batch) error {
	n := w.group.FirstTask + w.group.Tasks
	b.BatchID = BatchID(n)
	w.batch = append(w.batch, b)
	w.group.Items += int64(b.Items)
	id := b.BatchID
	return w.add(ctx, BlockTask{TaskID: TaskID(n), BatchID: &id})
}

// AddMerge appends an aggregator task that merges a span of the plan's inputs.
func (w *GroupWriter) AddMerge(ctx context.Context, taskID string, span Span) error {
	return w.add(ctx, BlockTask{TaskID: taskID, Merge: &span})
}

// AddRange appends an aggregator task that merges a range of keys.
func (w *GroupWriter) AddRange(ctx context.Context, taskID string, n int64) error {
	return w.add(ctx, BlockTask{TaskID: taskID, Range: &n})
}

func (w *GroupWriter) add(ctx context.Context, t BlockTask) error {
	w.tasks = append(w.tasks, t)
	w.group.Tasks++
	if len(w.tasks) == BlockTasks {
		return w.flush(ctx)
	}
	return nil
}

func (w *GroupWriter) flush(ctx context.Context) error {
	if len(w.tasks) == 0 {
		return nil
	}
	n := len(w.blocks)
	job := Job(w.JobID)
	body, err := Encode(Block{Schema: SchemaBlock, JobID: w.JobID, Group: w.group.Name, Block: n, Role: string(w.Role), Tasks: w.tasks})
	if err != nil {
		return err
	}
	x := madeNode(body, len(w.tasks))
	if err := w.put(ctx, job.Block(w.group.Name, n, x.hex()), body); err != nil {
		return err
	}
	w.blocks = append(w.blocks, x)
	if len(w.batch) > 0 {
		if body, err = Encode(Index{Schema: SchemaIndex, JobID: w.JobID, Group: w.group.Name, Block: n, Batches: w.batch}); err != nil {
			return err
		}
		x := madeNode(body, len(w.batch))
		if err := w.put(ctx, job.Index(w.group.Name, n, x.hex()), body); err != nil {
			return err
		}
		w.index = append(w.index, x)
	}
	w.tasks, w.batch = w.tasks[:0], w.batch[:0]
	return nil
}

// put stores an object, perhaps later; a failure is answered by a later put or by
// Close.
func (w *GroupWriter) put(ctx context.Context, key string, body []byte) error {
	if w.Go == nil {
		return w.Store.PutData(ctx, key, body)
	}
	if w.puts == nil {
		w.puts, w.errs = make(chan struct{}, putsAtOnce), make(chan error, 1)
	}
	select {
	case w.puts <- struct{}{}:
	case err := <-w.errs:
		w.errs <- err
		return err
	}
	w.Go("put", func() {
		if err := w.Store.PutData(ctx, key, body); err != nil {
			select {
			case w.errs <- err:
			default: // the first one is answered
			}
		}
		<-w.puts
	})
	return nil
}

// wait returns when no put is under way.
func (w *GroupWriter) wait() error {
	for range cap(w.puts) {
		w.puts <- struct{}{}
	}
	select {
	case err := <-w.errs:
		return err
	default:
		return nil
	}
}

// Close writes what is left, waits until all of it is stored, and returns the
// group for the plan to hold.
func (w *GroupWriter) Close(ctx context.Context) (Group, error) {
	err := w.flush(ctx)
	if werr := w.wait(); err == nil {
		err = werr
	}
	if err != nil {
		return Group{}, err
	}
	g := w.group
	g.Blocks, g.BlocksRef, err = refs(ctx, w, "groups/"+g.Name+"/blocks", len(w.blocks), func(i int) BlockRef { return w.blocks[i].blockRef(Job(w.JobID), g.Name, i) })
	if err != nil {
		return Group{}, err
	}
	g.Index, g.IndexRef, err = refs(ctx, w, "batches/"+g.Name+"/indexes", len(w.index), func(i int) IndexRef { return w.index[i].indexRef(Job(w.JobID), g.Name, i) })
	if err != nil {
		return Group{}, err
	}
	return g, nil
}

// refs is a list as a record holds it: inline, or stored as a data object under
// stem-<h>.jsonl.
func refs[T any](ctx context.Context, w *GroupWriter, stem string, n int, at func(i int) T) (inline []T, ref *Ref, err error) {
	if n <= InlineBlocks {
		for i := range n {
			inline = append(inline, at(i))
		}
		return inline, nil, nil
	}
	var buf bytes.Buffer
	for i := range n {
		line, err := Encode(at(i))
		if err != nil {
			return nil, nil, err
		}
		buf.Write(line)
		buf.WriteByte('\n')
	}
	sha := SHA256(buf.Bytes())
	rel := stem + "-" + Short(sha) + ".jsonl"
	if err := w.Store.PutData(ctx, Job(w.JobID).Abs(rel), buf.Bytes()); err != nil {
		return nil, nil, err
	}
	return nil, &Ref{Key: rel, SHA256: sha, Count: int64(n)}, nil
}

// Members is a group with its lists loaded: the tree of progress records above its
// tasks, and readers for its blocks.
type Members struct {
	JobID      string
	Generation int
	Group      Group

	index  []node   // of each block its index object; none for merges
	levels [][]node // the lowest is the block files
}

// node is an object or a progress record in few bytes: of a million tasks there are
// thousands. Keys follow from numbers and digests.
type node struct {
	sha   [sha256.Size]byte
	total int32 // tasks, batches, or members
}

// madeNode is that of an object which is being written.
func madeNode(body []byte, total int) node { return node{sha256.Sum256(body), int32(total)} }

func (n node) hex() string { return hex.EncodeToString(n.sha[:]) }

func (n node) blockRef(j Job, group string, i int) BlockRef {
	return BlockRef{Key: j.Rel(j.Block(group, i, n.hex())), SHA256: n.hex(), Tasks: int(n.total)}
}

func (n node) indexRef(j Job, group string, i int) IndexRef {
	return IndexRef{Key: j.Rel(j.Index(group, i, n.hex())), SHA256: n.hex(), Batches: int(n.total)}
}

// nodeOf reads a digest; the caller compares the reference that it makes.
func nodeOf(sha string, total int) (n node, ok bool) {
	d, err := hex.AppendDecode(n.sha[:0], []byte(sha))
	n.total = int32(total)
	return n, err == nil && len(d) == len(n.sha) && total >= 1 && total <= BlockTasks
}

// openGroups is how many groups a Store keeps loaded: sweeps ask for the same one
// again and again, and of a large job it is a megabyte.
const openGroups = 4

// Members loads the lists of a group, or returns them as it loaded them before:
// they are named by digests and never change.
func (s *Store) Members(ctx context.Context, job string, generation int, g Group) (*Members, error) {
	if m := s.loaded(job, generation, g); m != nil {
		return m, nil
	}
	m, err := s.load(ctx, job, generation, g)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = append([]*Members{m}, s.groups[:min(len(s.groups), openGroups-1)]...)
	return m, nil
}

func (s *Store) loaded(job string, generation int, g Group) *Members {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.groups {
		if m.JobID == job && m.Generation == generation && reflect.DeepEqual(m.Group, g) {
			return m
		}
	}
	return nil
}

func (s *Store) load(ctx context.Context, job string, generation int, g Group) (*Members, error) {
	m := &Members{JobID: job, Generation: generation, Group: g}
	j := Job(job)
	var leaf []node
	var tasks int64
	block := func(r BlockRef) error {
		n, ok := nodeOf(r.SHA256, r.Tasks)
		last := len(leaf) - 1
		if !ok || r != n.blockRef(j, g.Name, len(leaf)) || last >= 0 && leaf[last].total != BlockTasks {
			return corrupt("group %s of %s: block %d is %+v", g.Name, job, len(leaf), r)
		}
		leaf = append(leaf, n)
		tasks += int64(r.Tasks)
		return nil
	}
	index := func(r IndexRef) error {
		n, ok := nodeOf(r.SHA256, r.Batches)
		if !ok || r != n.indexRef(j, g.Name, len(m.index)) {
			return corrupt("group %s of %s: index %d is %+v", g.Name, job, len(m.index), r)
		}
		m.index = append(m.index, n)
		return nil
	}
	if err := eachRef(ctx, s, job, g.Blocks, g.BlocksRef, block); err != nil {
		return nil, err
	}
	if err := eachRef(ctx, s, job, g.Index, g.IndexRef, index); err != nil {
		return nil, err
	}
	if tasks != g.Tasks || (len(m.index) > 0 && len(m.index) != len(leaf)) {
		return nil, corrupt("group %s of %s: %d tasks in %d blocks with %d indexes, want %d tasks", g.Name, job, tasks, len(leaf), len(m.index), g.Tasks)
	}
	m.levels = [][]node{leaf}
	for len(leaf) > 1 {
		var up []node
		for i := 0; i < len(leaf); i += hayrick.BlockSize {
			part := leaf[i:min(i+hayrick.BlockSize, len(leaf))]
			h := sha256.New()
			for _, c := range part {
				h.Write([]byte(c.hex()))
			}
			n := node{total: int32(len(part))}
			h.Sum(n.sha[:0])
			up = append(up, n)
		}
		m.levels = append(m.levels, up)
		leaf = up
	}
	return m, nil
}

// eachRef calls fn for the entries of a list that is inline or an object.
func eachRef[T any](ctx context.Context, s *Store, job string, inline []T, ref *Ref, fn func(T) error) error {
	if ref != nil {
		return ReadLines(ctx, s, job, *ref, fn)
	}
	for _, r := range inline {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// Blocks is the number of blocks of tasks.
func (m *Members) Blocks() int { return len(m.levels[0]) }

// Levels is the height of the tree of progress records, at least 1.
func (m *Members) Levels() int { return len(m.levels) }

// Width is the number of progress records on a level.
func (m *Members) Width(level int) int { return len(m.levels[level]) }

// At names the n-th progress record of a level and says how many members it has.
func (m *Members) At(level, n int) (id hayrick.BlockID, total int) {
	x := m.levels[level][n]
	return hayrick.BlockID{
		JobID: m.JobID, Generation: m.Generation, Group: m.Group.Name,
		Level: level, N: n, SHA256: x.hex(),
	}, int(x.total)
}

// Up is the mark that records a full block in its parent; ok is false for the root.
func (m *Members) Up(id hayrick.BlockID) (mark hayrick.Mark, ok bool) {
	if id.Level+1 >= len(m.levels) {
		return hayrick.Mark{}, false
	}
	parent, total := m.At(id.Level+1, id.N/hayrick.BlockSize)
	return hayrick.Mark{Block: parent, Total: total, Position: id.N % hayrick.BlockSize}, true
}

// Block reads the n-th block file.
func (m *Members) Block(ctx context.Context, s *Store, n int) (Block, error) {
	if n < 0 || n >= m.Blocks() {
		return Block{}, fmt.Errorf("block %d of group %s: %w", n, m.Group.Name, hayrick.ErrNotFound)
	}
	return s.Block(ctx, m.JobID, m.Group.Name, n, m.levels[0][n].blockRef(Job(m.JobID), m.Group.Name, n))
}

// EachIndex calls fn for the index object of every block; merges have none.
func (m *Members) EachIndex(fn func(ref IndexRef, n int) error) error {
	for i, x := range m.index {
		if err := fn(x.indexRef(Job(m.JobID), m.Group.Name, i), i); err != nil {
			return err
		}
	}
	return nil
}

// Index reads the batches of the n-th block.
func (m *Members) Index(ctx context.Context, s *Store, n int) (Index, error) {
	if n < 0 || n >= len(m.index) {
		return Index{}, fmt.Errorf("index %d of group %s: %w", n, m.Group.Name, hayrick.ErrNotFound)
	}
	return s.Index(ctx, m.JobID, m.Group.Name, n, m.index[n].indexRef(Job(m.JobID), m.Group.Name, n))
}

// OpenGroup finds the plan that opened a group in a generation: its group, and the
// link to the plan. ErrNotFound: no plan of this generation opens it.
func (s *Store) OpenGroup(ctx context.Context, job string, generation int, group string) (Group, Link, error) {
	switch {
	case group == hayrick.GroupInitial:
		p, sha, err := s.Plan(ctx, job)
		return p.Group, link(Job(job), Job(job).Plan(), sha), err
	case group == hayrick.GroupAggregation:
		p, sha, err := s.AggregationPlan(ctx, job, generation)
		if err == nil && p.Group == nil {
			err = fmt.Errorf("open group %s: %w", group, hayrick.ErrNotFound)
		}
		if err != nil {
			return Group{}, Link{}, err
		}
		return *p.Group, link(Job(job), Job(job).AggregationPlan(generation), sha), nil
	}
	n, ok := RetryNumber(group)
	if !ok {
		return Group{}, Link{}, fmt.Errorf("open group %q: %w", group, hayrick.ErrNotFound)
	}
	p, sha, err := s.RetryPlan(ctx, job, n)
	if err == nil && (p.Group == nil || p.Next != group || p.Generation != generation) {
		err = fmt.Errorf("open group %s of generation %d: %w", group, generation, hayrick.ErrNotFound)
	}
	if err != nil {
		return Group{}, Link{}, err
	}
	return *p.Group, link(Job(job), Job(job).RetryPlan(n), sha), nil
}

// link names a commit as records do: relative to the job's folder.
func link(j Job, key, sha string) Link { return Link{Key: j.Rel(key), SHA256: sha} }

// RetryNumber is n of retry_batch_<n>.
func RetryNumber(group string) (int, bool) {
	s, ok := strings.CutPrefix(group, "retry_batch_")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 1 && hayrick.RetryGroup(n) == group
}

// Marker adds members to progress records: one atomic, idempotent step.
type Marker interface {
	Mark(ctx context.Context, m hayrick.Mark) (hayrick.BlockState, error)
}

// MarkDone records that a task has its outcome: it adds the position to the block
// and, as long as a record becomes full, the record to its parent. full says that
// the root is full now; several callers may see it. A crash between two steps
// leaves a full record that its parent does not know, which the sweeper adds.
func (m *Members) MarkDone(ctx context.Context, s Marker, block, position int, ok, failed int64) (full bool, err error) {
	id, total := m.At(0, block)
	mark := hayrick.Mark{Block: id, Total: total, Position: position, OK: ok, Failed: failed}
	for {
		st, err := s.Mark(ctx, mark)
		if err != nil {
			return false, fmt.Errorf("mark position %d of block %d of %s: %w", mark.Position, mark.Block.N, m.Group.Name, err)
		}
		if !st.Full() {
			return false, nil
		}
		up, more := m.Up(mark.Block)
		if !more {
			return true, nil
		}
		mark = up
	}
}
