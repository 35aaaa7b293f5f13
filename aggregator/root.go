package aggregator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// merges is how far the merges of a level are. It holds a few hundred bytes of each.
type merges struct {
	missing []hayrick.Outgoing // those that have not ended
	outputs []Source           // of those that are DONE and have rows, in order
	tasks   []string           // of each output: its task
	indexes []string           // of each output: the SHA-256 of its index, where it is a run
	rows    int64              // of all outputs
	hash    rows.Hash
	dropped int64 // by all of them, and on the level below
	drops   rows.Hash
	failed  string            // why the first one FAILED for good; "" = none has
	code    string            // of the outcome that follows from failed
	chain   map[string]string // the SHA-256 of every results.done that was read, by key
}

// level reads the results of the merges of a level. Their messages are a hint and so
// are the blocks: a merge has ended when its results say so.
func (a *Aggregator) level(ctx context.Context, job *jobOf, g manifest.Group, level int) (merges, error) {
	members, err := a.Store.Members(ctx, job.id, job.generation, g)
	if err != nil {
		return merges{}, err
	}
	return a.merges(ctx, job, members, level)
}

func (a *Aggregator) merges(ctx context.Context, job *jobOf, members *manifest.Members, level int) (m merges, err error) {
	m.chain = map[string]string{}
	for n := range members.Blocks() {
		block, err := members.Block(ctx, a.Store, n)
		if err != nil {
			return m, err
		}
		all := make([]runs, len(block.Tasks))
		if err := a.each(len(all), func(i int) (err error) {
			all[i], err = a.runs(ctx, job, level, n*manifest.BlockTasks+i)
			return err
		}); err != nil {
			return m, err
		}
		for i, rs := range all {
			if err := m.add(job, rs, hayrick.Message{
				JobID: job.id, Generation: job.generation, Role: hayrick.RoleAggregator,
				Group: members.Group.Name, Block: n, Position: i, TaskID: block.Tasks[i].TaskID,
			}); err != nil {
				return m, err
			}
		}
	}
	return m, nil
}

// add takes in what came of the next merge, which task sends.
func (m *merges) add(job *jobOf, rs runs, task hayrick.Message) error {
	for _, r := range rs {
		m.chain[job.key.Rel(job.key.Done(r.TaskID))] = r.sha
	}
	if !rs.ended() {
		m.missing = append(m.missing, hayrick.Outgoing{Message: task})
		return nil
	}
	r := rs.last()
	if r.Status != string(hayrick.TaskDone) {
		if m.failed == "" {
			m.failed, m.code = fmt.Sprintf("merge %s failed %d times: %s", task.TaskID, len(rs), r.Task.Error.Message), manifest.CodeNothingToMerge
			if r.final() {
				m.failed, m.code = r.Task.Error.Message, r.Task.Error.Class
			}
		}
		return nil
	}
	h, err := rows.ParseHash(r.RowHash)
	drop, derr := rows.ParseHash(r.DroppedHash)
	if err != nil || derr != nil || r.DroppedRows < 0 || r.RowCount == 0 && task.Group != hayrick.GroupRanges {
		return fmt.Errorf("results.done of %s names no rows: %w", r.TaskID, hayrick.ErrCorrupt)
	}
	m.dropped, m.drops = m.dropped+r.DroppedRows, m.drops.Add(drop)
	m.rows, m.hash = m.rows+r.RowCount, m.hash.Add(h)
	for _, f := range r.Files {
		h, err := rows.ParseHash(f.RowHash)
		if err != nil || f.Rows < 1 || f.Head < 0 || f.Head > f.Bytes {
			return fmt.Errorf("results.done of %s, %s: %w", r.TaskID, f.File, hayrick.ErrCorrupt)
		}
		m.outputs = append(m.outputs, Source{Name: f.File, Size: f.Bytes, SHA256: f.SHA256, Rows: f.Rows, RowHash: h, Partition: f.Partition, Head: f.Head})
	}
	if r.File == nil { // a range without rows, or files
		return nil
	}
	m.outputs = append(m.outputs, Source{Name: *r.File, Size: r.Bytes, SHA256: r.SHA256, Rows: r.RowCount, RowHash: h})
	m.tasks, m.indexes = append(m.tasks, r.TaskID), append(m.indexes, r.IndexSHA256)
	return nil
}

// over is the level above, with what went before it: what m has put out must come
// out again there, or be dropped.
func (m merges) over(up merges) (merges, error) {
	maps.Copy(up.chain, m.chain)
	if len(up.missing) == 0 && up.failed == "" && (up.rows+up.dropped != m.rows || up.hash.Add(up.drops) != m.hash) {
		return up, fmt.Errorf("the runs hold %d rows with hash %s, the merges of their ranges %d and %d dropped, together with %s: %w",
			m.rows, m.hash, up.rows, up.dropped, up.hash.Add(up.drops), hayrick.ErrCorrupt)
	}
	up.dropped, up.drops = up.dropped+m.dropped, up.drops.Add(m.drops)
	return up, nil
}

// root ends the generation once every merge has ended: it joins the level-1
// outputs by their footers, copies each byte once, reads the result back, checks
// that no row was lost on any level, and commits the outcome. All that it writes
// before lies under keys of its content: another root writes the same.
func (a *Aggregator) root(ctx context.Context, job *jobOf, plan manifest.AggregationPlan, m merges) error {
	if err := job.balance(plan.OK); err != nil {
		return err
	}
	if m.failed != "" {
		return a.fail(ctx, job, m.code, m.failed, m.chain)
	}
	if tooMany(m.outputs) {
		return a.fail(ctx, job, manifest.CodePartition, notPartitioned(job.def.Output, errPartitions), m.chain)
	}
	agg := &manifest.Aggregation{Schema: manifest.SchemaAggregation, JobID: job.id, Phase: string(hayrick.PhaseAggregation)}
	var err error
	if agg.Parts, agg.OutputHash, err = a.parts(ctx, job, m.outputs); err != nil {
		return err
	}
	if err := conserved(plan, m, agg.Parts); err != nil {
		return err
	}
	agg.TotalRows, agg.DroppedRows = m.rows, m.dropped
	if len(agg.Parts) > 0 {
		agg.OutputFile = &agg.Parts[0].Key
	}
	if err := a.inputFiles(ctx, job, plan, agg); err != nil {
		return err
	}
	if agg.Lists, err = a.lists(ctx, job); err != nil {
		return err
	}
	if refused, err := a.refused(ctx, job); err != nil {
		return err
	} else if refused != "" {
		return a.fail(ctx, job, manifest.CodeOutputRefused, refused, m.chain)
	}
	agg.WrittenAt = manifest.At(a.World.Clock.Now())
	return a.end(ctx, job, manifest.Outcome{
		Status: string(hayrick.JobSucceeded), RowCount: m.rows, RowHash: m.hash.String(), DroppedRows: m.dropped, DroppedHash: m.drops.String(), Aggregation: agg,
	}, m.chain)
}

// parts joins the outputs of the merges into the files of the dataset. The hash is
// the manifest's output_hash: of a single part, its own; of several, the SHA-256 over
// theirs, in hex and in order.
func (a *Aggregator) parts(ctx context.Context, job *jobOf, outputs []Source) ([]manifest.Part, string, error) {
	slices.SortStableFunc(outputs, func(a, b Source) int { return strings.Compare(a.Partition, b.Partition) })
	parts := []manifest.Part{}
	all := sha256.New()
	var hash string
	var done int64 // bytes of the parts that this process has made
	l := a.lend()
	many := len(PartsOf(sizesOf(outputs), int64(job.def.Merge.PartBytes))) > 1
	for len(outputs) > 0 {
		in := outputs[0].Partition
		k := 0
		for k < len(outputs) && outputs[k].Partition == in {
			k++
		}
		many = many || k < len(outputs)
		for i, span := range PartsOf(sizesOf(outputs[:k]), int64(job.def.Merge.PartBytes)) {
			sources := outputs[span.First : span.First+span.Count]
			var size int64
			for _, s := range sources {
				size += s.Size
			}
			if l.stops(done, size, 0) { // whoever goes on finds those that are made
				a.Log.Info("merge handed back", hayrick.KeyJobID, job.id, "parts", len(parts))
				return nil, "", errHandedBack
			}
			name := path.Join(in, fmt.Sprintf("part-%05d%s", i, manifest.PartExt(job.def.Output)))
			p, outputHash, made, err := a.part(ctx, job, len(parts), name, sources, l.left != nil && many)
			if err != nil {
				return nil, "", fmt.Errorf("write part %d: %w", len(parts), err)
			}
			if made {
				done += p.Bytes
			}
			parts = append(parts, p)
			hash = outputHash
			io.WriteString(all, outputHash)
		}
		outputs = outputs[k:]
	}
	if len(parts) != 1 {
		hash = hex.EncodeToString(all.Sum(nil))
	}
	return parts, hash, nil
}

func sizesOf(outputs []Source) []int64 {
	sizes := make([]int64, len(outputs))
	for i, o := range outputs {
		sizes[i] = o.Size
	}
	return sizes
}

// part joins consecutive level-1 outputs into one file, copying each row group as
// it stands. A crash before or after leaves a data object under a key that the next
// root computes again. The key follows from what the results say: of the n-th try, from
// the SHA-256 of the one before. look: it may be there. made says that it was not.
func (a *Aggregator) part(ctx context.Context, job *jobOf, n int, name string, sources []Source, look bool) (p manifest.Part, outputHash string, made bool, err error) {
	plan, err := a.planPart(ctx, job, sources)
	if err != nil {
		return p, "", false, err
	}
	ranges := make([]manifest.Range, len(plan.Copies))
	for i, c := range plan.Copies {
		ranges[i] = manifest.Range{Key: job.key.Abs(sources[c.Source].Name), Offset: c.Offset, Length: c.Length}
	}
	p = manifest.Part{
		Name:  manifest.PublishedName(job.def, job.id, name),
		Bytes: plan.Bytes, Rows: plan.Rows, RowHash: plan.RowHash.String(),
	}
	hash := plan.OutputHash
	for try := 1; ; try++ {
		key := job.key.PartAs(job.generation, n, hash, manifest.PartExt(job.def.Output))
		p.Key = job.key.Rel(key)
		p.SHA256, made, err = a.assemble(ctx, job, key, plan, ranges, sources, look)
		if err == nil || !errors.Is(err, hayrick.ErrCorrupt) {
			return p, plan.OutputHash, made, err
		}
		// Either a source is damaged, and then every part of it would be; or what lies
		// under the key is, since a source was when it was made, or the disk erred. A key
		// keeps what it has, so the part is made again under the next one.
		for _, s := range sources {
			sum, serr := a.sum(ctx, job.key.Abs(s.Name))
			if serr != nil && !errors.Is(serr, hayrick.ErrCorrupt) {
				return p, "", false, serr
			}
			if sum != s.SHA256 {
				return p, "", false, err
			}
		}
		if try == partTries {
			return p, "", false, fmt.Errorf("%w; its sources are sound: remove %s and try again", err, key)
		}
		a.Log.Warn("a part in the store is damaged; making it again", hayrick.KeyJobID, job.id, hayrick.KeyKey, key, hayrick.KeyError, err)
		next := sha256.Sum256([]byte(hash))
		hash = hex.EncodeToString(next[:])
	}
}

// planPart plans how outputs of merges are joined: Parquet by footers, text as it is.
func (a *Aggregator) planPart(ctx context.Context, job *jobOf, sources []Source) (ConcatPlan, error) {
	if textOf(job.def.Output) != nil {
		return PlanText(sources)
	}
	footers := make([]SourceFooter, len(sources))
	if err := a.each(len(sources), func(i int) (err error) {
		footers[i], err = a.footer(ctx, job.key.Abs(sources[i].Name), sources[i])
		if err != nil {
			err = fmt.Errorf("read %s: %w", sources[i].Name, err)
		}
		return err
	}); err != nil {
		return ConcatPlan{}, err
	}
	return PlanConcat(sources, footers)
}

// partTries is under how many keys a root tries to make a part.
const partTries = 4

// assemble makes a part, or finds it made, and reads it back: all of it and its
// SHA-256, or, where the store has joined it in another place and the job file does not
// ask for more, its length and its end. The sources were read back where they were
// encoded.
func (a *Aggregator) assemble(ctx context.Context, job *jobOf, key string, plan ConcatPlan, ranges []manifest.Range, sources []Source, look bool) (sha string, made bool, err error) {
	ends := job.def.Merge.ReadBack == nil || !*job.def.Merge.ReadBack
	if look && ends && a.readEnd(ctx, key, plan) == nil {
		return "", false, nil
	}
	remote, err := a.Blobs.Assemble(ctx, key, ranges, plan.Tail)
	if err != nil {
		return "", false, err
	}
	if remote && ends {
		return "", true, a.readEnd(ctx, key, plan)
	}
	sha, err = a.readBack(ctx, key, plan, ranges, sources)
	return sha, true, err
}

// readEnd checks the length of a part, and its tail.
func (a *Aggregator) readEnd(ctx context.Context, key string, plan ConcatPlan) error {
	blob, err := a.Blobs.OpenAt(ctx, key)
	if err != nil {
		return err
	}
	defer blob.Close()
	if blob.Size() != plan.Bytes {
		return fmt.Errorf("%s has %d bytes, planned %d: %w", key, blob.Size(), plan.Bytes, hayrick.ErrCorrupt)
	}
	return checkTail(key, blob, plan)
}

// checkTail compares the end of a part with the planned one.
func checkTail(key string, blob manifest.Blob, plan ConcatPlan) error {
	tail := make([]byte, len(plan.Tail))
	if _, err := io.ReadFull(io.NewSectionReader(blob, plan.Bytes-int64(len(tail)), int64(len(tail))), tail); err != nil {
		return fmt.Errorf("read back %s: %w", key, short(err))
	}
	if string(tail) != string(plan.Tail) {
		return fmt.Errorf("the footer of %s is not the planned one: %w", key, hayrick.ErrCorrupt)
	}
	return nil
}

// sum is the SHA-256 of a stored object.
func (a *Aggregator) sum(ctx context.Context, key string) (string, error) {
	r, err := a.Store.Objects.Open(ctx, key, 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// footer reads what of a level-1 output is needed to join it.
func (a *Aggregator) footer(ctx context.Context, key string, s Source) (SourceFooter, error) {
	blob, err := a.Blobs.OpenAt(ctx, key)
	if err != nil {
		return SourceFooter{}, err
	}
	defer blob.Close()
	if blob.Size() != s.Size {
		return SourceFooter{}, fmt.Errorf("%d bytes, its results.done says %d: %w", blob.Size(), s.Size, hayrick.ErrCorrupt)
	}
	return ReadSourceFooter(blob, s.Size)
}

// readBack reads the assembled file once, checks every byte of it and returns its
// SHA-256: each copied stretch, with the source's own bytes around it, must have the
// SHA-256 that the source's results.done vouches for, and the tail must be the
// planned one.
func (a *Aggregator) readBack(ctx context.Context, key string, plan ConcatPlan, ranges []manifest.Range, sources []Source) (string, error) {
	blob, err := a.Blobs.OpenAt(ctx, key)
	if err != nil {
		return "", err
	}
	defer blob.Close()
	if blob.Size() != plan.Bytes {
		return "", fmt.Errorf("%s has %d bytes, planned %d: %w", key, blob.Size(), plan.Bytes, hayrick.ErrCorrupt)
	}
	whole := sha256.New()
	buf := make([]byte, 1<<20)
	var at int64
	for i, c := range plan.Copies {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		s := sources[c.Source]
		sum, err := a.sourceSum(ctx, ranges[i], s.Size, io.TeeReader(io.NewSectionReader(blob, at, c.Length), whole), buf)
		if err != nil {
			return "", fmt.Errorf("read back %s: %w", s.Name, err)
		}
		if sum != s.SHA256 {
			return "", fmt.Errorf("the rows of %s in %s have SHA-256 %s, its results.done says %s: %w", s.Name, key, sum, s.SHA256, hayrick.ErrCorrupt)
		}
		at += c.Length
	}
	if err := checkTail(key, blob, plan); err != nil {
		return "", err
	}
	whole.Write(plan.Tail)
	return hex.EncodeToString(whole.Sum(nil)), nil
}

// sourceSum is the SHA-256 of a source of size bytes in which copied stands for the
// range.
func (a *Aggregator) sourceSum(ctx context.Context, r manifest.Range, size int64, copied io.Reader, buf []byte) (string, error) {
	src, err := a.Blobs.OpenAt(ctx, r.Key)
	if err != nil {
		return "", err
	}
	defer src.Close()
	h := sha256.New()
	end := r.Offset + r.Length
	all := io.MultiReader(io.NewSectionReader(src, 0, r.Offset), copied, io.NewSectionReader(src, end, size-end))
	if _, err := io.CopyBuffer(h, all, buf); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// conserved compares rows and row hash across the levels: results, merges, parts.
func conserved(plan manifest.AggregationPlan, m merges, parts []manifest.Part) error {
	var out int64
	var joined rows.Hash
	for _, p := range parts {
		h, err := rows.ParseHash(p.RowHash)
		if err != nil {
			return err
		}
		out, joined = out+p.Rows, joined.Add(h)
	}
	if m.rows+m.dropped != plan.Rows || m.hash.Add(m.drops).String() != plan.RowHash || out != m.rows || joined != m.hash {
		return fmt.Errorf("results hold %d rows with hash %s, merges %d with %s and %d with %s dropped, parts %d with %s: %w",
			plan.Rows, plan.RowHash, m.rows, m.hash, m.dropped, m.drops, out, joined, hayrick.ErrCorrupt)
	}
	return nil
}

// inputFiles fills in the seed's input_files and row_counts_by_batch, which are
// left out for plans too long to repeat.
func (a *Aggregator) inputFiles(ctx context.Context, job *jobOf, plan manifest.AggregationPlan, agg *manifest.Aggregation) error {
	if plan.InputsRef != nil {
		return manifest.ReadLines(ctx, a.Store, job.id, *plan.InputsRef, func(in manifest.MergeInput) error {
			if in.Rows > 0 {
				agg.InputFileCount++
			}
			return nil
		})
	}
	agg.RowCountsByBatch = map[string]int64{}
	for _, in := range plan.Inputs {
		if in.Rows > 0 {
			agg.InputFileCount++
			agg.InputFiles = append(agg.InputFiles, in.File)
			agg.RowCountsByBatch[in.BatchID] += in.Rows
		}
	}
	return nil
}
