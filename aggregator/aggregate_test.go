package aggregator_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/file"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
	"hayrick/mem"
)

// five is the job of five accounts: batches of two, one account deleted, one
// throttled once.
func five() [][]task {
	return [][]task{{
		{ok: 2, rows: []rows.Row{row("did", "a", "n", 1), row("did", "a", "n", 2), row("did", "a", "n", 3), row("did", "b", "n", 1), row("did", "b", "n", 2)}},
		{ok: 1, again: 1, rows: []rows.Row{row("did", "c", "n", 1), row("did", "c", "n", 2), row("did", "c", "n", 3)}},
		{permanent: []item{{4, "repo_not_found"}}},
	}, {
		{ok: 1, rows: []rows.Row{row("did", "d", "n", 1), row("did", "d", "n", 2), row("did", "d", "n", 3)}},
	}}
}

// 002-27: the aggregation manifest has the seed's fields, and total_rows is the sum
// of row_counts_by_batch. 002-28, the aggregator's part: inputs and totals.
func TestOutcome(t *testing.T) {
	j := build(t, shape{}, five()...)
	o := j.aggregate()
	j.whole(o)
	j.chained(o)
	if o.Items != 5 || o.OK != 4 || o.Permanent != 1 || o.Exhausted != 0 || o.RowCount != 11 || o.Code != "" || o.EndedAt.Before(start) {
		t.Errorf("%+v", o)
	}
	var files []string
	for _, r := range j.results {
		if r.File != nil {
			files = append(files, *r.File)
		}
	}
	body, err := j.store.Raw(t.Context(), job.Outcome(0))
	j.must(err)
	var stored struct {
		Aggregation map[string]any `json:"aggregation"`
	}
	j.must(json.Unmarshal(body, &stored))
	if got, want := slices.Sorted(maps.Keys(stored.Aggregation)), []string{
		"dropped_rows", "input_file_count", "input_files", "job_id", "lists", "output_file", "output_hash", "parts", "phase", "row_counts_by_batch", "schema", "total_rows", "written_at",
	}; !slices.Equal(got, want) {
		t.Errorf("its fields are %q, want %q", got, want)
	}
	agg := o.Aggregation
	if agg.Phase != "aggregation" || agg.JobID != jobID || agg.InputFileCount != 3 || !slices.Equal(agg.InputFiles, files) || agg.WrittenAt.Before(start) {
		t.Errorf("%+v", agg)
	}
	if !maps.Equal(agg.RowCountsByBatch, map[string]int64{"batch-0000": 5, "batch-0001": 3, "batch-0003": 3}) {
		t.Errorf("rows by batch: %v", agg.RowCountsByBatch)
	}
	if sum := sumOf(agg.RowCountsByBatch); agg.TotalRows != sum {
		t.Errorf("%d rows in all, %d by batch", agg.TotalRows, sum)
	}
	p := agg.Parts
	if len(p) != 1 || p[0].Name != "part-00000.parquet" || p[0].Rows != 11 || *agg.OutputFile != p[0].Key ||
		p[0].Key != "aggregation/0/part-00000-"+manifest.Short(agg.OutputHash)+".parquet" {
		t.Errorf("parts %+v, output %v with hash %s", p, agg.OutputFile, agg.OutputHash)
	}
	if l := agg.Lists; len(l) != 1 || l[0].Name != "deleted_dids" || l[0].Count != 1 || !strings.HasPrefix(l[0].Key, "aggregation/0/lists/deleted_dids-") {
		t.Errorf("lists %+v", l)
	}
	if got, want := slices.Sorted(maps.Keys(j.published())), []string{"_SUCCESS", "lists/deleted_dids.jsonl", "part-00000.parquet"}; !slices.Equal(got, want) {
		t.Errorf("published %q, want %q", got, want)
	}
	// The views, derived from it.
	view, err := j.store.Raw(t.Context(), job.AggregationManifest())
	j.must(err)
	want, err := manifest.Encode(agg)
	j.must(err)
	if string(view) != string(want) {
		t.Errorf("the aggregation manifest is %s", view)
	}
	if view, err = j.store.Raw(t.Context(), job.Manifest()); err != nil || !strings.Contains(string(view), `"status":"SUCCEEDED"`) {
		t.Errorf("the job manifest is %s, %v", view, err)
	}
	if st, err := j.mem.JobState(t.Context(), jobID); err != nil || st.Status != hayrick.StatusSucceeded {
		t.Errorf("job state %+v, %v", st, err)
	}
	// What was planned, and the merge.
	plan := j.mergePlan()
	if len(plan.Inputs) != 4 || plan.InputsRef != nil || plan.Rows != 11 || plan.OK != 4 || plan.Predecessor.Key != "retries/retry-2/plan.json" ||
		!slices.Equal(plan.Tree.Nodes, []int64{1}) || plan.Group.Name != "final_aggregation" || plan.Group.Tasks != 1 {
		t.Errorf("plan %+v", plan)
	}
	for i, in := range plan.Inputs {
		done, err := j.store.Raw(t.Context(), job.Done(manifest.TaskID(int64(i))))
		r := j.results[i]
		if err != nil || in.TaskID != r.TaskID || in.BatchID != *r.BatchID || in.DoneSHA256 != manifest.SHA256(done) || in.Rows != r.RowCount || in.RowHash != r.RowHash || in.SHA256 != r.SHA256 || in.Bytes != r.Bytes {
			t.Errorf("input %d is %+v, its result %+v", i, in, r)
		}
	}
	m := j.result("agg-0-1-0000")
	if m.BatchID != nil || m.Status != "DONE" || m.RowCount != 11 || m.DroppedRows != 0 || m.Items != 0 || len(m.Inputs) != 3 || m.Inputs[2] != (manifest.InputFile{Key: files[2], SHA256: j.results[3].SHA256, Rows: 3}) ||
		m.Task.Role != "aggregator" || m.Task.Phase != "aggregation" || m.Task.Group != "final_aggregation" || m.Task.Worker != "p" || m.Task.Error != nil {
		t.Errorf("merge %+v", m)
	}
	if view, err = j.store.Raw(t.Context(), job.TaskManifest("agg-0-1-0000")); err != nil || !strings.Contains(string(view), `"type":"system"`) {
		t.Errorf("the task manifest is %s, %v", view, err)
	}
}

func sumOf(m map[string]int64) (n int64) {
	for _, x := range m {
		n += x
	}
	return n
}

// Whatever results look like, their rows come out, once and in order.
func TestRowsAreConserved(t *testing.T) {
	for seed := range uint64(24) {
		rng := rand.New(rand.NewPCG(seed, 3))
		s := shape{refs: seed%3 == 0, def: func(d *hayrick.JobDefinition) {
			d.Merge.FanIn = 2 + rng.IntN(4)
			d.Merge.ByCount = rng.IntN(2) == 0
			d.Merge.TargetRows = 1 + rng.Int64N(40)
			d.Merge.RowGroup = 1 + rng.Int64N(30)
			d.Merge.PartBytes = hayrick.Bytes(rng.IntN(3) * 4000)
		}}
		ordinal := int64(0)
		var groups [][]task
		for g := range 1 + rng.IntN(3) {
			var ts []task
			for i := range 1 + rng.IntN(30) {
				x := task{again: rng.IntN(2), dict: []*bool{nil, yes(true), yes(false)}[rng.IntN(3)]}
				if rng.IntN(8) == 0 {
					x.failed = true
				} else {
					x.ok = rng.IntN(3)
				}
				for range rng.IntN(2) {
					x.permanent = append(x.permanent, item{ordinal, "gone"})
					ordinal++
				}
				if x.ok > 0 {
					for n := range rng.IntN(12) {
						x.rows = append(x.rows, anyRow(rng, g, i, n))
					}
				}
				ts = append(ts, x)
			}
			groups = append(groups, ts)
		}
		j := build(t, s, groups...)
		o := j.aggregate()
		j.whole(o)
		j.chained(o)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// anyRow has some of some columns, in any order.
func anyRow(rng *rand.Rand, of ...int) rows.Row {
	all := rows.Row{
		{Name: "id", Value: fmt.Sprint(of)}, {Name: "n", Value: rng.Int64()}, {Name: "f", Value: rng.NormFloat64()},
		{Name: "b", Value: rng.IntN(2) == 0}, {Name: "raw", Value: []byte{byte(rng.IntN(3))}}, {Name: "null", Value: nil},
	}
	rng.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	r := rows.Row{}
	for _, c := range all {
		if c.Name == "id" || rng.IntN(3) > 0 {
			r = append(r, c)
		}
	}
	return r
}

// Results whose columns are missing, permuted or only null become one schema: the
// columns in the order in which the results bring them.
func TestColumnsUnify(t *testing.T) {
	j := build(t, shape{}, []task{
		one(row("a", 1, "b", "x")), one(row("b", "y", "a", 2)), one(row("c", true, "b", "z")), one(),
		one(row("a", nil, "d", 1.5), row("a", nil, "d", 2.5)), one(row("e", []byte("q"), "c", nil)),
	})
	o := j.aggregate()
	j.whole(o)
	f, err := rows.Open(strings.NewReader(j.published()["part-00000.parquet"]), o.Aggregation.Parts[0].Bytes)
	j.must(err)
	want := rows.Schema{Fields: []rows.Field{
		{Name: "a", Kind: rows.KindInt}, {Name: "b", Kind: rows.KindString}, {Name: "c", Kind: rows.KindBool}, {Name: "d", Kind: rows.KindFloat}, {Name: "e", Kind: rows.KindBytes},
	}}
	if got := f.Schema(); !slices.Equal(got.Fields, want.Fields) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if r := j.result("agg-0-1-0000"); r.SchemaDigest != want.Digest() {
		t.Errorf("the merge has the schema %s", r.SchemaDigest)
	}
}

// A column of two kinds ends the job as FAILED: nothing can be merged. The outcome
// names the file and the column, and counts every item.
func TestKindsThatConflict(t *testing.T) {
	j := build(t, shape{}, []task{one(row("a", 1)), one(row("a", 2, "b", "x")), one(row("b", 7)), {ok: 1, permanent: []item{{4, "gone"}}}})
	o := j.aggregate()
	if o.Status != "FAILED" || o.Code != manifest.CodeNothingToMerge || o.OK != 4 || o.Permanent != 1 || o.Items != 5 || o.Unfinished != 0 || o.RowCount != 0 || o.RowHash != "0" || o.Aggregation != nil {
		t.Errorf("%+v", o)
	}
	for _, says := range []string{*j.results[2].File, `"b"`, "string", "int"} {
		if !strings.Contains(o.Message, says) {
			t.Errorf("%q does not say %s", o.Message, says)
		}
	}
	j.chained(o)
	j.absent(job.AggregationPlan(0))
	if out := j.published(); len(out) != 0 {
		t.Errorf("published %v", out)
	}
	if st, err := j.mem.JobState(t.Context(), jobID); err != nil || st.Status != hayrick.StatusFailed {
		t.Errorf("job state %+v, %v", st, err)
	}
}

// Many columns, none in conflict, can be too many for one file.
func TestTooManyColumns(t *testing.T) {
	var ts []task
	for i := range rows.MaxColumns/500 + 1 {
		r := rows.Row{}
		for c := range 500 {
			r = append(r, rows.Col{Name: fmt.Sprintf("c%d_%d", i, c), Value: 1})
		}
		ts = append(ts, one(r))
	}
	o := build(t, shape{}, ts).aggregate()
	if o.Status != "FAILED" || o.Code != manifest.CodeNothingToMerge || !strings.Contains(o.Message, "columns") {
		t.Errorf("%s %s %s", o.Status, o.Code, o.Message)
	}
}

// Jobs without rows, and jobs of which nothing went well, end like any other: with
// lists, and no part.
func TestNoRows(t *testing.T) {
	for name, tasks := range map[string][]task{
		"ok and empty": {one(), one(), one()},
		"all failed":   {{permanent: []item{{0, "gone"}, {1, "poison"}}}, {exhausted: []item{{2, "timeout"}}}},
	} {
		j := build(t, shape{}, tasks)
		o := j.aggregate()
		j.whole(o)
		j.chained(o)
		agg := o.Aggregation
		if len(agg.Parts) != 0 || agg.OutputFile != nil || agg.TotalRows != 0 || agg.InputFileCount != 0 || agg.OutputHash != manifest.SHA256(nil) {
			t.Errorf("%s: %+v", name, agg)
		}
		p := j.mergePlan()
		if p.Group != nil || len(p.Tree.Nodes) != 0 || len(p.Inputs) != len(tasks) {
			t.Errorf("%s: plan %+v", name, p)
		}
	}
}

// Results without rows at the end need no merge, and those between belong to one.
func TestTrailingEmptyResults(t *testing.T) {
	j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 2, true }},
		[]task{one(row("a", 1)), one(), one(row("a", 2)), one(row("a", 3)), one(), one()})
	o := j.aggregate()
	j.whole(o)
	if p := j.mergePlan(); len(p.Inputs) != 6 || p.Group.Tasks != 2 {
		t.Errorf("%+v", p)
	}
	if r := j.result("agg-0-1-0001"); r.Task.Input != "aggregation/0/plan.json#3+3" || len(r.Inputs) != 1 {
		t.Errorf("the last merge took %s, %d files", r.Task.Input, len(r.Inputs))
	}
}

// 002-46: 1,000 results are merged as 1,000 -> 100 -> 10 -> 1 with a fan-in of 10.
func TestTree(t *testing.T) {
	var ts []task
	for i := range 1000 {
		var x task
		for n := range 5 {
			x.rows = append(x.rows, row("task", i, "n", n))
		}
		x.ok = 5
		ts = append(ts, x)
	}
	j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.ByCount = true }}, ts)
	o := j.aggregate()
	j.whole(o)
	j.chained(o)
	p := j.mergePlan()
	if p.Tree.FanIn != 10 || !slices.Equal(p.Tree.Nodes, []int64{100, 10, 1}) || p.Group.Tasks != 100 {
		t.Errorf("tree %+v, %d merges", p.Tree, p.Group.Tasks)
	}
	for n := range 100 {
		r := j.result(manifest.MergeTaskID(0, 1, n, 0))
		if len(r.Inputs) != 10 || r.RowCount != 50 || r.Inputs[0].Key != *j.results[10*n].File {
			t.Fatalf("merge %d took %d files with %d rows", n, len(r.Inputs), r.RowCount)
		}
	}
	if g := openArrow(t, []byte(j.published()["part-00000.parquet"])).NumRowGroups(); g != 100 {
		t.Errorf("%d row groups", g)
	}
}

// Level 1 writes healthy row groups whatever the results are like, none of them a
// rest; above it each column chunk has the bytes it had.
func TestRowGroups(t *testing.T) {
	const each, tasks = 6000, 45
	var ts []task
	for i := range tasks {
		x := task{ok: 1}
		for n := range each {
			x.rows = append(x.rows, row("task", i, "n", n))
		}
		ts = append(ts, x)
	}
	j := build(t, shape{}, ts)
	o := j.aggregate()
	j.whole(o)
	// 21 results have 126,000 rows, the least above 122,880.
	var files [][]byte
	for n := range 3 {
		r := j.result(manifest.MergeTaskID(0, 1, n, 0))
		files = append(files, j.mem.Snapshot()[job.Abs(*r.File)])
	}
	if p := j.mergePlan(); p.Group.Tasks != 3 {
		t.Errorf("%d merges", p.Group.Tasks)
	}
	part := []byte(j.published()["part-00000.parquet"])
	r := openArrow(t, part)
	for g := range r.NumRowGroups() {
		want := int64(21 * each)
		if g == 2 {
			want = 3 * each // what is left
		}
		if n := r.RowGroup(g).NumRows(); n != want {
			t.Errorf("row group %d has %d rows, want %d", g, n, want)
		}
	}
	chunks := 0
	eachChunkPair(t, files, part, func(where string, src, dst []byte, in, to *file.RowGroupReader, c int) {
		chunks++
		if string(chunkBytes(src, chunkOf(t, in.MetaData(), c))) != string(chunkBytes(dst, chunkOf(t, to.MetaData(), c))) {
			t.Errorf("%s: its bytes differ", where)
		}
	})
	if chunks != 6 {
		t.Errorf("%d chunks", chunks)
	}
}

// part_bytes makes a dataset of several parts; together they are the same rows.
func TestParts(t *testing.T) {
	var ts []task
	for i := range 40 {
		ts = append(ts, one(row("task", i, "text", strings.Repeat(fmt.Sprint(i, " "), 50))))
	}
	j := build(t, shape{def: func(d *hayrick.JobDefinition) {
		d.Merge.FanIn, d.Merge.ByCount, d.Merge.PartBytes = 4, true, 4000
	}}, ts)
	o := j.aggregate()
	j.whole(o)
	parts := o.Aggregation.Parts
	if len(parts) < 3 || len(parts) == 10 {
		t.Fatalf("%d parts of 10 merges", len(parts))
	}
	for i, p := range parts {
		if p.Name != fmt.Sprintf("part-%05d.parquet", i) || !strings.HasPrefix(p.Key, fmt.Sprintf("aggregation/0/part-%05d-", i)) {
			t.Errorf("part %d is %+v", i, p)
		}
	}
	if *o.Aggregation.OutputFile != parts[0].Key {
		t.Errorf("the output is %s", *o.Aggregation.OutputFile)
	}
	// The same job again: rows and hash agree, and here, where the same items went
	// well, all bytes.
	again := build(t, shape{def: func(d *hayrick.JobDefinition) {
		d.Merge.FanIn, d.Merge.ByCount, d.Merge.PartBytes = 4, true, 4000
	}}, ts)
	if p := again.aggregate(); p.Aggregation.OutputHash != o.Aggregation.OutputHash || p.RowHash != o.RowHash {
		t.Errorf("another run has the output hash %s, this one %s", p.Aggregation.OutputHash, o.Aggregation.OutputHash)
	}
}

// The lists of a dataset have each item that was given up once, in order of
// ordinals, by class or by how it ended.
func TestLists(t *testing.T) {
	j := build(t, shape{},
		[]task{
			{again: 4, permanent: []item{{7, "repo_not_found"}, {3, "bad_item"}}},
			{ok: 1, permanent: []item{{1, "repo_not_found"}}, exhausted: []item{{9, "lost_worker"}}},
		},
		[]task{{again: 2, permanent: []item{{5, "repo_not_found"}, {0, "poison"}}}},
		[]task{{permanent: []item{{2, "repo_not_found"}}, exhausted: []item{{8, "timeout"}}}},
	)
	o := j.aggregate()
	j.whole(o)
	if o.Permanent != 6 || o.Exhausted != 2 {
		t.Errorf("%d permanent, %d exhausted", o.Permanent, o.Exhausted)
	}
	want := map[string]string{"deleted_dids": "1 2 5 7", "permanent": "0 3", "exhausted": "8 9"}
	got := map[string]string{}
	for _, l := range o.Aggregation.Lists {
		body := j.published()["lists/"+l.Name+".jsonl"]
		if manifest.SHA256([]byte(body)) != l.SHA256 || l.Key != "aggregation/0/lists/"+l.Name+"-"+manifest.Short(l.SHA256)+".jsonl" {
			t.Errorf("%+v is published with SHA-256 %s", l, manifest.SHA256([]byte(body)))
		}
		var ordinals []string
		for line := range strings.Lines(body) {
			var x manifest.ListLine
			j.must(json.Unmarshal([]byte(line), &x))
			if x.Key != fmt.Sprint("w", x.Ordinal) || x.Message != "no luck" || x.TaskID == "" || x.Class == "" {
				t.Errorf("%s: %s", l.Name, line)
			}
			ordinals = append(ordinals, fmt.Sprint(x.Ordinal))
		}
		if int64(len(ordinals)) != l.Count {
			t.Errorf("%s has %d lines, the outcome says %d", l.Name, len(ordinals), l.Count)
		}
		got[l.Name] = strings.Join(ordinals, " ")
	}
	if !maps.Equal(got, want) || !slices.IsSortedFunc(o.Aggregation.Lists, func(a, b manifest.List) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("%v, want %v", got, want)
	}
}

// 002-18: as long as a group has not been closed, nothing is aggregated, whoever asks.
func TestOpenGroup(t *testing.T) {
	for name, j := range map[string]*jobRig{
		"initial": build(t, shape{open: true}, []task{one(row("a", 1))}),
		"retry":   build(t, shape{open: true}, []task{{ok: 1, again: 1, rows: []rows.Row{row("a", 1)}}}, []task{one(row("a", 2))}),
	} {
		before := j.mem.Snapshot()
		a := j.process("p")
		if err := a.Advance(t.Context(), jobID, 0); !errors.Is(err, hayrick.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		v, err := a.Do(t.Context(), hayrick.Delivery{Message: hayrick.Message{JobID: jobID, Role: hayrick.RoleAggregator}})
		if !v.Ack || err != nil {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		v, err = a.Do(t.Context(), hayrick.Delivery{Message: hayrick.Message{JobID: jobID, Role: hayrick.RoleAggregator, TaskID: "agg-0-1-0000"}})
		if !v.Ack || err != nil {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		if after := j.mem.Snapshot(); len(after) != len(before) {
			t.Errorf("%s: %d objects, %d before", name, len(after), len(before))
		}
		if depth, err := j.mem.Depth(t.Context(), hayrick.QueueTasks, jobID); depth.Messages != 0 || err != nil {
			t.Errorf("%s: %d messages", name, depth.Messages)
		}
	}
}

func TestNoSuchJob(t *testing.T) {
	j := build(t, shape{}, []task{one()})
	a := j.process("p")
	if err := a.Advance(t.Context(), "another-20261120-abcdef", 0); !errors.Is(err, hayrick.ErrNotFound) {
		t.Error(err)
	}
	for _, task := range []string{"", "agg-0-1-0000"} {
		v, err := a.Do(t.Context(), hayrick.Delivery{Message: hayrick.Message{JobID: "another-20261120-abcdef", Role: hayrick.RoleAggregator, TaskID: task}})
		if !v.Ack || err != nil {
			t.Errorf("%q: %+v, %v", task, v, err)
		}
	}
}

// Orders that were given are in the chain, and in what is cached of the job.
func TestOrdersAreNamed(t *testing.T) {
	j := build(t, shape{}, []task{one(row("a", 1))})
	for n, order := range []string{manifest.OrderPause, manifest.OrderResume} {
		_, err := j.store.CommitControl(t.Context(), manifest.Control{Schema: manifest.SchemaControl, JobID: jobID, N: n, Order: order})
		j.must(err)
	}
	o := j.aggregate()
	j.chained(o)
	if o.Chain["control/1.json"] == "" {
		t.Errorf("%v", o.Chain)
	}
	if st, err := j.mem.JobState(t.Context(), jobID); err != nil || st.Orders != 2 {
		t.Errorf("job state %+v, %v", st, err)
	}
}

// A cancel that is stored first stands: nothing is published.
func TestCancelledFirst(t *testing.T) {
	j := build(t, shape{}, []task{one(row("a", 1))})
	j.trigger()
	a := j.process("p")
	cancelled := false
	j.mem.Hook = hookAt(func(c mem.Call) bool { return c.Op == "Commit" && c.Key == job.Outcome(0) }, func() {
		cancelled = true
		_, err := j.store.CommitOutcome(t.Context(), manifest.Outcome{
			Schema: manifest.SchemaOutcome, JobID: jobID, Status: "CANCELLED", Items: 1, Unfinished: 1, RowHash: "0", DroppedHash: "0",
		})
		j.must(err)
	})
	j.must(j.drain(a))
	if o := j.outcome(); !cancelled || o.Status != "CANCELLED" {
		t.Errorf("%s", o.Status)
	}
	if out := j.published(); len(out) != 0 {
		t.Errorf("published %v", out)
	}
	if st, err := j.mem.JobState(t.Context(), jobID); err != nil || st.Status != hayrick.StatusCancelled {
		t.Errorf("job state %+v, %v", st, err)
	}
}
