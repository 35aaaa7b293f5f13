package audit

import (
	"cmp"
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

// inputs is the list of results that the aggregation plan pins.
type inputs = stream[manifest.MergeInput]

// openPinned starts reading the inputs of every aggregation plan: each pins the results
// of its generation and of those before, in the order in which they are walked.
func (a *auditor) openPinned(ctx context.Context) (stop func()) {
	at := a.generation
	var stops []func()
	for _, g := range a.gens {
		a.generation = g
		stops = append(stops, a.openInputs(ctx))
		in := a.inputs
		a.pinned = append(a.pinned, &in)
	}
	a.generation = at
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// openInputs starts reading the aggregation plan's inputs, where there are any.
func (a *auditor) openInputs(ctx context.Context) (stop func()) {
	a.inputs = inputs{}
	if a.agg == nil {
		return func() {}
	}
	if ref := a.agg.InputsRef; ref != nil && !a.list(ctx, *ref, func(sha string) string { return a.job.AggregationInputs(a.n, sha) }) {
		return func() {}
	}
	var stops []func()
	a.inputs = streamOf(lines(ctx, a.look, a.agg.Inputs, a.agg.InputsRef), &stops)
	a.inputs.key = a.aggKey()
	return stops[0]
}

// mergeUnit is a merge as the plan describes it.
type mergeUnit struct {
	level, node int
	inputs      []manifest.InputFile // those with rows; of level 2, all runs that it may have read
	in          total                // of level 1
}

// group is the group that a level's merges are of.
func (u mergeUnit) group() string {
	if u.level == levelRanges {
		return hayrick.GroupRanges
	}
	return hayrick.GroupAggregation
}

// The levels that decode; the second is there with output.unique_by.
const (
	levelInputs = 1
	levelRanges = 2
)

// merged is what came of it.
type merged struct {
	used   []string // of the outcome's chain
	folder string   // of its partition
	files  []merged // of a merge whose rows are not one Parquet file
	file   string   // "" = it has no rows
	total  total
	drop   total
	sha    string // of its file
	schema *rows.Schema
	inputs []manifest.InputFile // of level 2: what it has read
}

// walkAggregation checks the merges, parts and lists against the results.
func (a *auditor) walkAggregation(ctx context.Context) error {
	if a.agg == nil {
		return nil
	}
	rel := a.aggKey()
	if !a.blind && !a.in.same(a.agg.Rows, a.agg.RowHash) {
		a.broken(CodeRows, rel, "it merges %d rows with hash %s, the results have %d with %s", a.agg.Rows, a.agg.RowHash, a.in.rows, a.in.hash)
	}
	if o, u := a.definition.Output, a.agg.Unique; (u != nil) != (len(o.UniqueBy) > 0) ||
		u != nil && (!slices.Equal(u.Columns, o.UniqueBy) || u.Keep != cmp.Or(o.Keep, hayrick.KeepFirst) || (a.agg.Ranges == nil) != (a.agg.Group == nil)) {
		a.broken(CodeChain, rel, "it makes rows unique by %+v, the job file by %v, keep %q", u, o.UniqueBy, o.Keep)
	}
	outputs, err := a.walkMerges(ctx, rel)
	if err != nil {
		return err
	}
	nodes := []int64{int64(len(outputs))}
	a.dropped = total{} // each generation merges all results anew
	for _, m := range outputs {
		a.dropped.add(m.drop.rows, m.drop.hash)
	}
	if a.agg.Unique != nil && a.agg.Ranges != nil {
		if outputs, err = a.walkRanges(ctx, rel, outputs); err != nil {
			return err
		}
		nodes = append(nodes, a.agg.Ranges.Tasks)
	}
	if nodes[0] == 0 {
		nodes = nil
	}
	if len(a.agg.Tree.Nodes) < len(nodes) || !slices.Equal(a.agg.Tree.Nodes[:len(nodes)], nodes) {
		a.broken(CodeChain, rel, "its tree is %v, its groups have %v merges", a.agg.Tree.Nodes, nodes)
	}
	for _, key := range slices.Sorted(maps.Keys(a.mergeSHA)) {
		a.name(key)
		a.broken(CodeChain, a.outcomeKey(), "its chain names %s, which is no merge of the plan", key)
	}
	if a.Deep && !a.blind {
		var want rows.Schema
		if err := decodeColumns(a.agg.Columns, &want); err != nil || want.Digest() != a.unified.Digest() {
			a.broken(CodeRows, rel, "its columns are not those of the results together")
		}
		for _, m := range outputs {
			if m.schema != nil && m.schema.Digest() != want.Digest() {
				a.broken(CodeRows, rel, "the columns of a merge are not the planned ones")
			}
		}
	}
	if a.outcome == nil || a.outcome.Aggregation == nil {
		return nil
	}
	if err := a.walkParts(ctx, joined(outputs)); err != nil {
		return err
	}
	return a.walkLists(ctx)
}

// joined are the files that parts are made of, in their order: partition by partition.
func joined(outputs []merged) (all []merged) {
	for _, m := range outputs {
		if m.files != nil {
			all = append(all, m.files...)
		} else {
			all = append(all, m)
		}
	}
	slices.SortStableFunc(all, func(x, y merged) int { return strings.Compare(x.folder, y.folder) })
	return all
}

// text is the form of the dataset where it is not Parquet.
func (a *auditor) text() *rows.Text {
	if o := a.definition.Output; o.Format != "" && o.Format != rows.FormatParquet {
		return &rows.Text{Format: o.Format, Compression: o.Compression}
	}
	return nil
}

// readFiles checks the files of a merge whose rows are not one Parquet file; nil when
// they are.
func (l *look) readFiles(ctx context.Context, rel string, r manifest.Result, h rows.Hash) []merged {
	o := l.a.definition.Output
	if plain := len(o.PartitionBy) == 0 && l.a.text() == nil; len(r.Files) == 0 && (plain || r.RowCount == 0) {
		return nil
	} else if plain || r.File != nil || len(o.PartitionBy) == 0 && len(r.Files) > 1 {
		l.broken(CodeForm, rel, "it names %d files", len(r.Files))
		return nil
	}
	all := []merged{}
	var sum total
	for _, f := range r.Files {
		if want := l.a.job.Rel(l.a.job.RowsAs(r.TaskID, r.Attempt, f.SHA256, manifest.PartExt(o))); f.File != want {
			l.broken(CodeKey, rel, "its rows lie under %s, not %s", f.File, want)
		}
		x, err := rows.ParseHash(f.RowHash)
		if err != nil {
			l.lost(CodeForm, rel, "%v", err)
			continue
		}
		m := merged{folder: f.Partition, file: f.File, sha: f.SHA256}
		m.total.add(f.Rows, x)
		sum.add(f.Rows, x)
		all = append(all, m)
		if _, ok := l.hash(ctx, f.File, f.SHA256, f.Bytes); !ok {
			continue
		}
		l.checked.Data++
		if l.a.Deep {
			l.decodeFile(ctx, f.File, f.Rows, x, f.Partition)
		}
	}
	if sum.rows != r.RowCount || sum.hash != h {
		l.broken(CodeRows, rel, "its files hold %d rows with hash %s, it says %d with %s", sum.rows, sum.hash, r.RowCount, h)
	}
	return all
}

// decodeFile decodes a file of the dataset, of a merge or a part, and compares what it
// holds with what is said of it; all its rows must be of its partition.
func (l *look) decodeFile(ctx context.Context, rel string, want int64, wantHash rows.Hash, folder string) {
	var planned rows.Schema
	if err := decodeColumns(l.a.agg.Columns, &planned); err != nil || l.err != nil {
		return // of which walkAggregation speaks
	}
	n, h, schema, err := l.datasetRows(ctx, rel, planned, folder)
	switch {
	case err == nil && (n != want || h != wantHash):
		l.broken(CodeRows, rel, "it holds %d rows with hash %s, its commit says %d with %s", n, h, want, wantHash)
	case err == nil && schema.Digest() != planned.Digest():
		l.broken(CodeRows, rel, "its columns are not the planned ones")
	case err == nil:
		l.decoded.Decoded++
		l.decoded.ReadRows += n
	case unreadable(err), errors.Is(err, hayrick.ErrNotFound), errors.Is(err, rows.ErrKind):
		l.broken(CodeRows, rel, "its rows cannot be read: %v", err)
	default:
		l.err = fmt.Errorf("read the rows of %s: %w", rel, err)
	}
}

// datasetRows reads a file of the dataset in whatever format it is.
func (l *look) datasetRows(ctx context.Context, rel string, planned rows.Schema, folder string) (n int64, h rows.Hash, s rows.Schema, err error) {
	each := func(b *rows.Batch) error {
		for r := range b.Rows {
			if got := partitionOf(b, r, l.a.definition.Output.PartitionBy); got != folder {
				return fmt.Errorf("row %d is of the partition %q, not %q: %w", n, got, folder, hayrick.ErrCorrupt)
			}
			n++
		}
		return ctx.Err()
	}
	blob, err := l.a.Blobs.OpenAt(ctx, l.a.job.Abs(rel))
	if err != nil {
		return 0, h, s, err
	}
	defer blob.Close()
	if text := l.a.text(); text != nil {
		_, h, err = rows.ReadText(io.NewSectionReader(blob, 0, blob.Size()), planned, *text, each)
		return n, h, planned, err
	}
	f, err := rows.Open(blob, blob.Size())
	if err != nil {
		return 0, h, s, err
	}
	sc, err := f.Scan(rows.Schema{})
	if err != nil {
		return 0, h, s, err
	}
	for {
		b, err := sc.Next()
		if err == io.EOF {
			_, h = sc.Read()
			return n, h, f.Schema(), nil
		}
		if err == nil {
			err = each(b)
		}
		if err != nil {
			return n, h, s, err
		}
	}
}

// partitionOf is the folder of a row's partition; "" of one that can have none.
func partitionOf(b *rows.Batch, r int, columns []string) string {
	var parts []string
	for _, name := range columns {
		at := b.Schema.Index(name)
		if at < 0 {
			return ""
		}
		var value *string
		if c := &b.Cols[at]; c.Valid[r] {
			v := c.Text(r)
			value = &v
		}
		part, err := manifest.PartitionFolder(name, value)
		if err != nil {
			return ""
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "/")
}

// walkMerges checks every level-1 merge: what it took in is what the plan pins, and
// what it gave out has the same rows.
func (a *auditor) walkMerges(ctx context.Context, plan string) ([]merged, error) {
	stop := a.openInputs(ctx)
	defer stop()
	var outputs []merged
	if g := a.agg.Group; g != nil {
		blocks, index, err := a.groupRefs(ctx, a.look, *g)
		if err != nil {
			return nil, err
		}
		if g.Name != hayrick.GroupAggregation || g.Phase != string(hayrick.PhaseAggregation) || len(index) > 0 {
			a.broken(CodeChain, plan, "it opens %s of phase %s", g.Name, g.Phase)
		}
		var first int64 // input of the next merge
		for n := range blocks {
			block, ok := a.block(ctx, a.look, g.Name, n, blocks[n])
			if !ok {
				return nil, errTorn
			}
			a.checked.Data++
			for lo := 0; lo < len(block.Tasks); lo += 2 * readers {
				hi := min(lo+2*readers, len(block.Tasks))
				units := make([]mergeUnit, hi-lo)
				for i := range units {
					t := block.Tasks[lo+i]
					node := len(outputs) + i
					if t.TaskID != manifest.MergeTaskID(a.n, 1, node, 0) || t.BatchID != nil || t.Merge == nil || t.Merge.First != first || t.Merge.Count < 1 {
						a.lost(CodeChain, blocks[n].Key, "merge %d is %s of inputs %+v, the merges before it took %d", node, t.TaskID, t.Merge, first)
						return nil, errTorn
					}
					first += t.Merge.Count
					units[i] = a.mergeUnit(node, t.Merge.Count)
				}
				ends := make([]merged, len(units))
				if err := a.each(len(units), func(i int, l *look) { ends[i] = l.readMerge(ctx, units[i]) }); err != nil {
					return nil, err
				}
				for _, e := range ends {
					for _, key := range e.used {
						delete(a.mergeSHA, key)
					}
				}
				outputs = append(outputs, ends...)
				a.progress("merge", int64(len(outputs)), g.Tasks)
			}
		}
		if int64(len(outputs)) != g.Tasks {
			a.broken(CodeTotal, plan, "it opens %s with %d tasks, its blocks have %d", g.Name, g.Tasks, len(outputs))
		}
	}
	for {
		in, more := a.inputs.next()
		if !more {
			break
		}
		if in.Rows != 0 {
			a.broken(CodeRows, plan, "no merge takes the %d rows of %s", in.Rows, in.TaskID)
		}
	}
	return outputs, a.err
}

// mergeUnit takes the next inputs of the plan.
func (a *auditor) mergeUnit(node int, inputs int64) mergeUnit {
	u := mergeUnit{level: levelInputs, node: node}
	for range inputs {
		in, more := a.inputs.next()
		if !more {
			break
		}
		if in.Rows == 0 {
			continue
		}
		h, err := rows.ParseHash(in.RowHash)
		if err != nil {
			a.broken(CodeForm, a.inputs.key, "%s: %v", in.TaskID, err)
		}
		u.inputs = append(u.inputs, manifest.InputFile{Key: in.File, SHA256: in.SHA256, Rows: in.Rows})
		u.in.add(in.Rows, h)
	}
	return u
}

// mergeRuns is how often a merge that FAILED may be tried, each time under an id of
// its own.
const mergeRuns = 3

// readMerge reads the results of one merge, up to the one that is DONE.
func (l *look) readMerge(ctx context.Context, u mergeUnit) (m merged) {
	for run := range mergeRuns {
		id := manifest.MergeTaskID(l.a.n, u.level, u.node, run)
		rel := l.a.job.Rel(l.a.job.Done(id))
		want := l.a.mergeSHA[rel]
		if want != "" {
			m.used = append(m.used, rel)
		} else if _, err := l.raw(ctx, rel); errors.Is(err, hayrick.ErrNotFound) {
			if l.a.succeeded() {
				l.lost(CodeMissing, rel, "the merge has no result")
			}
			l.name(rel) // it may still come
			return m
		} else if l.a.succeeded() {
			l.broken(CodeUnvouched, rel, "the outcome does not name it: a change in it would not be seen")
		} else {
			l.unvouched++
		}
		r, _, ok := record[manifest.Result](ctx, l, rel, want, manifest.SchemaResult)
		if !ok {
			return m
		}
		if r.JobID != string(l.a.job) || r.TaskID != id || r.BatchID != nil || r.Generation != l.a.n {
			l.lost(CodeForm, rel, "it is the result of %s of %s", r.TaskID, r.JobID)
			return m
		}
		l.checked.Commits++
		l.view(ctx, l.a.job.Rel(l.a.job.TaskManifest(id)), manifest.TaskView(r))
		h, err := rows.ParseHash(r.RowHash)
		if err != nil {
			l.lost(CodeForm, rel, "%v", err)
			return m
		}
		dropped, err := rows.ParseHash(r.DroppedHash)
		if err != nil {
			l.lost(CodeForm, rel, "%v", err)
			return m
		}
		if t := r.Task; t.Role != string(hayrick.RoleAggregator) || t.Group != u.group() || t.Phase != string(hayrick.PhaseAggregation) || r.Items != 0 || r.OK != 0 || r.Failed != 0 || r.Failures != nil {
			l.broken(CodeTask, rel, "it is of role %s, group %s, phase %s with %d items", t.Role, t.Group, t.Phase, r.Items)
		}
		var schema *rows.Schema
		if u.level == levelInputs && l.a.agg.Unique != nil {
			l.readRun(ctx, rel, r, h)
		} else {
			if m.files = l.readFiles(ctx, rel, r, h); m.files == nil {
				schema = l.readRows(ctx, rel, r, h)
			}
			l.checkKeys(ctx, u, r)
		}
		if r.Status == string(hayrick.TaskFailed) {
			continue
		}
		m.schema, m.sha = schema, r.SHA256
		if r.File != nil {
			m.file = *r.File
		}
		m.total.add(r.RowCount, h)
		m.drop.add(r.DroppedRows, dropped)
		if u.level == levelRanges {
			m.inputs = r.Inputs
			l.checkRange(rel, u, r, m)
		} else {
			l.checkMerge(rel, u, r, m)
		}
		return m
	}
	if l.a.succeeded() {
		l.lost(CodeMissing, l.a.job.Rel(l.a.job.Done(manifest.MergeTaskID(l.a.n, u.level, u.node, 0))), "the merge FAILED %d times", mergeRuns)
	}
	return m
}

// checkMerge: in = out + dropped, and in is what the plan says.
func (l *look) checkMerge(rel string, u mergeUnit, r manifest.Result, m merged) {
	if l.blind {
		return
	}
	if !slices.Equal(r.Inputs, u.inputs) {
		l.broken(CodeChain, rel, "the %d files it merged are not the %d that the plan pins", len(r.Inputs), len(u.inputs))
	}
	if out := m.total.hash.Add(m.drop.hash); r.DroppedRows < 0 || m.total.rows+m.drop.rows != u.in.rows || out != u.in.hash {
		l.broken(CodeRows, rel, "%d rows with hash %s went in, %d came out and %d were dropped, together with %s",
			u.in.rows, u.in.hash, m.total.rows, m.drop.rows, out)
	}
}

// walkParts checks that the parts are the merged files one behind the other.
func (a *auditor) walkParts(ctx context.Context, outputs []merged) error {
	agg, rel := a.outcome.Aggregation, a.outcomeKey()
	own := make([]string, len(agg.Parts)) // output hashes
	var out total
	drop := a.dropped
	names := map[string]bool{}
	next := 0
	for lo := 0; lo < len(agg.Parts); lo += readers {
		parts := agg.Parts[lo:min(lo+readers, len(agg.Parts))]
		if err := a.each(len(parts), func(i int, l *look) { l.readPart(ctx, parts[i]) }); err != nil {
			return err
		}
		for i, p := range parts {
			folder := ""
			if next < len(outputs) {
				folder = outputs[next].folder
			}
			if names[p.Name] || !manifest.ValidOutputName(p.Name) || !strings.HasPrefix(p.Name, folder) {
				a.broken(CodePublished, rel, "two parts are called %q, or none can be, or it is of the partition %q", p.Name, folder)
			}
			names[p.Name] = true
			h, err := rows.ParseHash(p.RowHash)
			if err != nil {
				a.lost(CodeForm, rel, "%s: %v", p.Key, err)
				continue
			}
			out.files++
			out.add(p.Rows, h)
			// Merged files have rows, so the sum says where the part ends.
			var sources total
			from := next
			for next < len(outputs) && sources.rows < p.Rows && outputs[next].folder == outputs[from].folder {
				sources.add(outputs[next].total.rows, outputs[next].total.hash)
				next++
			}
			if !a.blind && (sources.rows != p.Rows || sources.hash != h) {
				a.broken(CodeRows, p.Key, "it has %d rows with hash %s, the merges it is made of %d with %s", p.Rows, h, sources.rows, sources.hash)
			}
			if own[lo+i], err = a.outputHash(ctx, p, outputs[from:next]); err != nil {
				return err
			}
			if own[lo+i] != "" && !a.blind && !a.partKey(p.Key, lo+i, own[lo+i]) {
				a.broken(CodeKey, p.Key, "with its sources and footer it would be %s", a.job.Rel(a.job.PartAs(a.n, lo+i, own[lo+i], manifest.PartExt(a.definition.Output))))
			}
		}
		a.progress("parts", int64(lo+len(parts)), int64(len(agg.Parts)))
	}
	a.report.Rows.Parts, a.report.Rows.Out, a.report.Rows.OutHash, a.report.Rows.Dropped = out.files, out.rows, out.hash.String(), drop.rows
	if a.blind {
		return nil
	}
	if next < len(outputs) {
		a.broken(CodeRows, rel, "%s in no part", count(int64(len(outputs)-next), "merge is", "merges are"))
	}
	if in := out.hash.Add(drop.hash); out.rows+drop.rows != a.in.rows || in != a.in.hash {
		a.broken(CodeRows, rel, "%d rows with hash %s in the results, %d in the parts and %d dropped, together with %s", a.in.rows, a.in.hash, out.rows, drop.rows, in)
	}
	if o := a.outcome; !out.same(o.RowCount, o.RowHash) || !drop.same(o.DroppedRows, o.DroppedHash) || agg.TotalRows != out.rows || agg.DroppedRows != drop.rows {
		a.broken(CodeTotal, rel, "it says %d rows and %d dropped, there are %d and %d", o.RowCount, o.DroppedRows, out.rows, drop.rows)
	}
	if a.Blobs != nil && !slices.Contains(own, "") {
		if want := jointHash(own); agg.OutputHash != want {
			a.broken(CodeTotal, rel, "its output_hash is %s, sources and footers give %s", manifest.Short(agg.OutputHash), manifest.Short(want))
		}
	}
	a.checkAggregation(rel)
	return nil
}

// partTries is under how many keys a root may put a part: the next one when what lay
// under the ones before was damaged.
const partTries = 4

// partKey says that a part with that output hash may lie under key.
func (a *auditor) partKey(key string, n int, hash string) bool {
	for range partTries {
		if key == a.job.Rel(a.job.PartAs(a.n, n, hash, manifest.PartExt(a.definition.Output))) {
			return true
		}
		hash = manifest.SHA256([]byte(hash))
	}
	return false
}

func (l *look) readPart(ctx context.Context, p manifest.Part) {
	if _, ok := l.hash(ctx, p.Key, p.SHA256, p.Bytes); !ok {
		return
	}
	l.checked.Data++
	if !l.a.Deep {
		if p.SHA256 == "" {
			l.note("%s was joined by the store itself, and nobody has read it since: audit --deep does", p.Key)
		}
		return
	}
	if l.a.text() != nil || len(l.a.definition.Output.PartitionBy) > 0 {
		h, err := rows.ParseHash(p.RowHash)
		if err == nil { // else walkParts says so
			folder := path.Dir(p.Name)
			if folder == "." {
				folder = ""
			}
			l.decodeFile(ctx, p.Key, p.Rows, h, folder)
		}
		return
	}
	n, h, schema, ok := l.decode(ctx, p.Key)
	if !ok {
		return
	}
	if n != p.Rows || h.String() != p.RowHash {
		l.broken(CodeRows, p.Key, "it holds %d rows with hash %s, the outcome says %d with %s", n, h, p.Rows, p.RowHash)
	}
	var want rows.Schema
	if err := decodeColumns(l.a.agg.Columns, &want); err != nil || want.Digest() != schema.Digest() {
		l.broken(CodeRows, p.Key, "its columns are not the planned ones")
	}
}

// outputHash is the SHA-256 over the digests of a part's sources and its footer; ""
// when the footer cannot be read, which has been found, or was not asked for.
func (a *auditor) outputHash(ctx context.Context, p manifest.Part, sources []merged) (string, error) {
	if a.Blobs == nil {
		return "", nil
	}
	blob, err := a.Blobs.OpenAt(ctx, a.job.Abs(p.Key))
	if errors.Is(err, hayrick.ErrNotFound) || unreadable(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("open %s: %w", p.Key, err)
	}
	defer blob.Close()
	var f rows.Footer
	if a.text() == nil { // which has none
		f, err = rows.ReadFooter(blob, blob.Size())
	}
	if unreadable(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", p.Key, err)
	}
	h := sha256.New()
	for _, s := range sources {
		sum, err := hex.DecodeString(s.sha)
		if err != nil {
			return "", nil
		}
		h.Write(sum)
	}
	h.Write(f.Raw)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// jointHash is the output_hash of several parts.
func jointHash(parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	h := sha256.New()
	for _, p := range parts {
		io.WriteString(h, p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
