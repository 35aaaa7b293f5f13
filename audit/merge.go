package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

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
	node   int
	inputs []manifest.InputFile // those with rows
	in     total
}

// merged is what came of it.
type merged struct {
	used   []string // of the outcome's chain
	total  total
	drop   total
	sha    string // of its file
	schema *rows.Schema
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
	outputs, err := a.walkMerges(ctx, rel)
	if err != nil {
		return err
	}
	var nodes []int64
	if len(outputs) > 0 {
		nodes = append(nodes, int64(len(outputs)))
	}
	if len(a.agg.Tree.Nodes) < len(nodes) || len(a.agg.Tree.Nodes) > 0 && a.agg.Tree.Nodes[0] != int64(len(outputs)) {
		a.broken(CodeChain, rel, "its tree is %v, its group has %d merges", a.agg.Tree.Nodes, len(outputs))
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
	if err := a.walkParts(ctx, outputs); err != nil {
		return err
	}
	return a.walkLists(ctx)
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
	u := mergeUnit{node: node}
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
		id := manifest.MergeTaskID(l.a.n, 1, u.node, run)
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
		if t := r.Task; t.Role != string(hayrick.RoleAggregator) || t.Group != hayrick.GroupAggregation || t.Phase != string(hayrick.PhaseAggregation) || r.Items != 0 || r.OK != 0 || r.Failed != 0 || r.Failures != nil {
			l.broken(CodeTask, rel, "it is of role %s, group %s, phase %s with %d items", t.Role, t.Group, t.Phase, r.Items)
		}
		schema := l.readRows(ctx, rel, r, h)
		if r.Status == string(hayrick.TaskFailed) {
			continue
		}
		m.schema, m.sha = schema, r.SHA256
		m.total.add(r.RowCount, h)
		m.drop.add(r.DroppedRows, dropped)
		l.checkMerge(rel, u, r, m)
		return m
	}
	if l.a.succeeded() {
		l.lost(CodeMissing, l.a.job.Rel(l.a.job.Done(manifest.MergeTaskID(l.a.n, 1, u.node, 0))), "the merge FAILED %d times", mergeRuns)
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
	var out, drop total
	names := map[string]bool{}
	next := 0
	for lo := 0; lo < len(agg.Parts); lo += readers {
		parts := agg.Parts[lo:min(lo+readers, len(agg.Parts))]
		if err := a.each(len(parts), func(i int, l *look) { l.readPart(ctx, parts[i]) }); err != nil {
			return err
		}
		for i, p := range parts {
			if names[p.Name] || !manifest.ValidOutputName(p.Name) {
				a.broken(CodePublished, rel, "two parts are called %q, or none can be", p.Name)
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
			for next < len(outputs) && sources.rows < p.Rows {
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
				a.broken(CodeKey, p.Key, "with its sources and footer it would be %s", a.job.Rel(a.job.Part(a.n, lo+i, own[lo+i])))
			}
		}
		a.progress("parts", int64(lo+len(parts)), int64(len(agg.Parts)))
	}
	for _, m := range outputs {
		drop.add(m.drop.rows, m.drop.hash)
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
		if key == a.job.Rel(a.job.Part(a.n, n, hash)) {
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
	f, err := rows.ReadFooter(blob, blob.Size())
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
