package audit_test

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hayrick"
	"hayrick/audit"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

func onGroup(name string, fn func(w *world, g *manifest.Group)) func(s *story) {
	return func(s *story) {
		s.onGroup = func(w *world, g *manifest.Group) {
			if g.Name == name {
				fn(w, g)
			}
		}
	}
}

func onBlock(name string, fn func(b *manifest.Block, x *manifest.Index)) func(s *story) {
	return onGroup(name, func(w *world, g *manifest.Group) { w.rewrite(g, 0, fn) })
}

func onGroupWorld(to **world) func(*world, *manifest.Group) {
	return func(w *world, _ *manifest.Group) { *to = w }
}

// wrong is structure that no role would write, under right digests. The roles refuse
// most of it, so each is told up to the plan that opens it and no further.
var wrong = map[string]lie{
	"block of another job":    {do: onBlock("initial_batch", func(b *manifest.Block, _ *manifest.Index) { b.JobID = "other" }), code: audit.CodeForm, key: "groups/initial_batch/block-0-"},
	"block of another group":  {do: onBlock("initial_batch", func(b *manifest.Block, _ *manifest.Index) { b.Group = "retry_batch_1" }), code: audit.CodeForm, key: "groups/initial_batch/block-0-"},
	"block with another role": {do: onBlock("initial_batch", func(b *manifest.Block, _ *manifest.Index) { b.Role = "aggregator" }), code: audit.CodeChain, key: "groups/initial_batch/block-0-"},
	"block of another schema": {do: onBlock("initial_batch", func(b *manifest.Block, _ *manifest.Index) { b.Schema = "hayrick.block/v9" }), code: audit.CodeForm, key: "groups/initial_batch/block-0-"},
	"index of another block":  {do: onBlock("initial_batch", func(_ *manifest.Block, x *manifest.Index) { x.Block = 1 }), code: audit.CodeForm, key: "batches/initial_batch/index-0-"},
	"task under another id": {do: onBlock("initial_batch", func(b *manifest.Block, _ *manifest.Index) { b.Tasks[1].TaskID = "task-0000" }),
		code: audit.CodeBatch, key: "batches/initial_batch/index-0-", says: "it should be batch-0001, of task-0001"},
	"task of another batch": {do: onBlock("initial_batch", func(b *manifest.Block, _ *manifest.Index) { b.Tasks[1].BatchID = ptr("batch-0000") }), code: audit.CodeBatch, key: "batches/initial_batch/index-0-"},
	"batch without items":   {do: onBlock("initial_batch", func(_ *manifest.Block, x *manifest.Index) { x.Batches[1].Items = 0 }), code: audit.CodeBatch, key: "batches/initial_batch/index-0-", says: "0 items"},
	"batch before its object": {do: onBlock("initial_batch", func(_ *manifest.Block, x *manifest.Index) { x.Batches[0].Offset = -1 }),
		code: audit.CodeBatch, key: "batches/initial_batch/index-0-"},
	"batch beyond all files": {do: onBlock("initial_batch", func(_ *manifest.Block, x *manifest.Index) { x.Batches[0].Offset = 1<<63 - 1 }),
		code: audit.CodeBatch, key: "batches/initial_batch/index-0-"},
	"batch of a retry in the input": {do: onBlock("initial_batch", func(_ *manifest.Block, x *manifest.Index) { x.Batches[0].Retry = true }), code: audit.CodeBatch, key: "batches/initial_batch/index-0-"},
	"items that no ledger holds": {do: onBlock("initial_batch", func(_ *manifest.Block, x *manifest.Index) {
		x.Batches[0].Items, x.Batches[0].Length = 1<<40, 1<<40
	}), says: "more than 17179869184 items"},
	"block under another key": {do: onGroup("initial_batch", func(_ *world, g *manifest.Group) { g.Blocks[0].Key += "x" }), code: audit.CodeKey, key: "groups/initial_batch/block-0-"},
	"index under another key": {do: onGroup("initial_batch", func(_ *world, g *manifest.Group) { g.Index[0].Key = "../" + g.Index[0].Key }), code: audit.CodeKey, key: "../batches/initial_batch/index-0-"},
	"block missing in the index": {do: onGroup("initial_batch", func(_ *world, g *manifest.Group) { g.Index = nil }),
		code: audit.CodeChain, key: "plan.json", says: "1 blocks and 0 indexes"},
	"group of another phase": {do: onGroup("initial_batch", func(_ *world, g *manifest.Group) { g.Phase = "retry" }), code: audit.CodeChain, key: "plan.json"},
	"group that begins late": {do: onGroup("initial_batch", func(_ *world, g *manifest.Group) { g.FirstTask = 1 }), code: audit.CodeChain, key: "plan.json"},
	"group with a task less": {do: onGroup("initial_batch", func(_ *world, g *manifest.Group) { g.Tasks-- }), code: audit.CodeTotal, key: "plan.json"},
	"definition that is none": {do: func(s *story) {
		body := []byte("{}x")
		s.copy = func() (string, []byte) { return job.Config(manifest.SHA256(body)), body }
		s.onPlan = func(p *manifest.Plan) { p.DefinitionSHA256 = manifest.SHA256(body) }
	}, code: audit.CodeForm, key: "config-"},
	"input among the groups": {do: func(s *story) { s.onPlan = func(p *manifest.Plan) { p.Input[0].Object = "store:groups/x" } }, code: audit.CodeKey, key: "plan.json"},
}

// Structure is checked before it is followed, so the job need not go on behind it.
func TestWrongStructure(t *testing.T) {
	for name, l := range wrong {
		t.Run(name, func(t *testing.T) {
			s := tiny()
			s.until = "plan"
			l.do(&s)
			w := build(t, s)
			o := w.options()
			o.Inputs = nil
			r, err := audit.Run(t.Context(), o)
			if l.code == "" {
				if err == nil || !strings.Contains(err.Error(), l.says) {
					t.Errorf("%v, want %s", err, l.says)
				}
				return
			}
			w.must(err)
			hit := func(f audit.Finding) bool {
				return f.Severity == audit.Broken && f.Code == l.code && strings.HasPrefix(f.Key, l.key) && strings.Contains(f.What, l.says)
			}
			if r.Sound() || !slices.ContainsFunc(r.Findings, hit) {
				t.Errorf("want %s of %q: %q; findings %v", l.code, l.key, l.says, r.Findings)
			}
		})
	}
}

// More lies, about what comes late in a job.
var late = map[string]lie{
	"a segment has bytes of no batch": {do: func(s *story) { s.tail = "x\n" }, code: audit.CodeDigest, key: "batches/retry_batch_1/seg-0-", says: "its batches"},
	"a segment lies elsewhere": {do: func(s *story) {
		s.onGroup = func(w *world, g *manifest.Group) {
			if g.Name == "retry_batch_1" {
				w.rewrite(g, 0, func(_ *manifest.Block, x *manifest.Index) { // of the same bytes
					rel := strings.Replace(x.Batches[0].Object, "seg-0-", "seg-1-", 1)
					old := strings.TrimPrefix(x.Batches[0].Object, manifest.StoreScheme)
					w.put(job.Abs(strings.TrimPrefix(rel, manifest.StoreScheme)), w.mem.Snapshot()[job.Abs(old)])
					x.Batches[0].Object = rel
				})
			}
		}
	}, code: audit.CodeBatch, key: "batches/retry_batch_1/index-0-", says: "it lies in"},
	"a retry batch begins late": {do: func(s *story) {
		s.onBatches = func(group string, bs []manifest.Batch) []manifest.Batch {
			if group == "retry_batch_1" {
				bs[0].FirstLine = 2
			}
			return bs
		}
	}, code: audit.CodeBatch, key: "batches/retry_batch_1/index-0-"},
	"items are retried out of order": {from: func() story {
		s := tiny()
		s.fate = func(o int64, group int) fate {
			if group == 0 {
				return fate{class: "timeout", disp: hayrick.Timeout}
			}
			return fate{rows: 1}
		}
		return s
	}, do: func(s *story) {
		s.onRetried = func(_ int, its []manifest.RetryItem) []manifest.RetryItem { slices.Reverse(its); return its }
	}, code: audit.CodeItem, says: "stands behind item 4"},
	"an item fails twice in a task": {do: func(s *story) {
		s.onFailures = func(task string, fs []manifest.FailureLine) []manifest.FailureLine {
			if task == "task-0001" {
				return append(fs, fs...)
			}
			return fs
		}
	}, code: audit.CodeItem, key: "tasks/task-0001/results.done", says: "item 3 failed twice"},
	"failures lie elsewhere": {do: resultOf("task-0001", func(r *manifest.Result) { r.Failures.File = "tasks/task-0001/failures" }), code: audit.CodeKey, key: "tasks/task-0001/results.done"},
	"failures are not counted": {do: resultOf("task-0001", func(r *manifest.Result) { r.Failures = nil }), code: audit.CodeTotal, key: "tasks/task-0001/results.done",
		says: "1 items failed and none is listed"},
	"a worker drops rows":        {do: resultOf("task-0001", func(r *manifest.Result) { r.DroppedRows = 1 }), code: audit.CodeTask, key: "tasks/task-0001/results.done"},
	"a result of unknown status": {do: resultOf("task-0000", func(r *manifest.Result) { r.Status = "OK" }), code: audit.CodeForm, key: "tasks/task-0000/results.done"},
	"a result's row hash":        {do: func(s *story) { s.onMerged = func(r *manifest.Result) { r.RowHash = "xyz" } }, code: audit.CodeForm, key: "tasks/agg-0-1-0000/results.done"},
	"a whole batch has items": {from: func() story { s := tiny(); s.whole = func(n int64) bool { return n == 0 }; return s },
		do: resultOf("task-0000", func(r *manifest.Result) { r.OK, r.Failed = 1, 1 }), code: audit.CodeTask, key: "tasks/task-0000/results.done"},
	"a whole batch has no error": {from: func() story { s := tiny(); s.whole = func(n int64) bool { return n == 0 }; return s },
		do: resultOf("task-0000", func(r *manifest.Result) { r.Task.Error = nil }), code: audit.CodeTask, key: "tasks/task-0000/results.done"},
	"an exhausted list has a permanent item": {do: func(s *story) {
		s.onListed = func(name string, ls []manifest.ListLine) []manifest.ListLine {
			if name == "permanent" {
				return nil
			}
			return []manifest.ListLine{{Ordinal: 4, Key: did(4), Class: "repo_not_found", Message: "repo_not_found of " + did(4), TaskID: "task-0002", Tries: 1}}
		}
	}, code: audit.CodeItem, key: "retries/retry-1/exhausted-", says: "as exhausted, task-0002 says permanent"},
	"a permanent item is run again": {do: func(s *story) {
		s.onListed = func(string, []manifest.ListLine) []manifest.ListLine { return nil }
		s.onRetried = func(n int, its []manifest.RetryItem) []manifest.RetryItem {
			if n == 1 {
				its = append(its, manifest.RetryItem{Ordinal: 4, Item: record(4), Tries: 1, Classes: []string{"repo_not_found"}})
			}
			return its
		}
	}, code: audit.CodeItem, key: "batches/retry_batch_1/seg-0-", says: "never run again"},
	"a list under another key":              {do: onRetry(1, func(p *manifest.RetryPlan) { p.PermanentList.Key += "l" }), code: audit.CodeKey, key: "retries/retry-1/permanent-"},
	"a list counts wrong":                   {do: onRetry(1, func(p *manifest.RetryPlan) { p.PermanentList.Count = 2 }), code: audit.CodeTotal, key: "retries/retry-1/permanent-"},
	"a plan that retries nothing has tasks": {do: onRetry(2, func(p *manifest.RetryPlan) { p.Tasks = 1 }), code: audit.CodeChain, key: "retries/retry-2/plan.json"},
	"a plan names a task too many": {do: onRetry(2, func(p *manifest.RetryPlan) { p.Results = append(p.Results, p.Results[0]) }),
		code: audit.CodeChain, key: "retries/retry-2/plan.json", says: "no task of retry_batch_1"},
	"aggregation has applied no order": {do: func(s *story) { s.onMerge = func(p *manifest.AggregationPlan) { p.Orders = 0 } }, code: audit.CodeChain, key: "aggregation/0/plan.json"},
	"a merge under another id":         {do: onBlock("final_aggregation", func(b *manifest.Block, _ *manifest.Index) { b.Tasks[0].TaskID = "agg-0-1-0001" }), code: audit.CodeChain, key: "groups/final_aggregation/block-0-"},
	"a merge leaves inputs out": {do: onBlock("final_aggregation", func(b *manifest.Block, _ *manifest.Index) { b.Tasks[0].Merge.Count = 2 }),
		code: audit.CodeRows, key: "aggregation/0/plan.json", says: "no merge takes the 3 rows of task-0003"},
	"a merge of role worker": {do: func(s *story) { s.onMerged = func(r *manifest.Result) { r.Task.Role = "worker" } }, code: audit.CodeTask, key: "tasks/agg-0-1-0000/results.done"},
	"a merge of a batch":     {do: func(s *story) { s.onMerged = func(r *manifest.Result) { r.BatchID = ptr("batch-0000") } }, code: audit.CodeForm, key: "tasks/agg-0-1-0000/results.done"},
	"every merge failed": {do: func(s *story) { s.onMerged = func(r *manifest.Result) { r.Status = "FAILED" } },
		code: audit.CodeRows, key: "tasks/agg-0-1-0000/results.done"},
	"a merge says nonsense of what it dropped": {do: func(s *story) { s.onMerged = func(r *manifest.Result) { r.DroppedHash = "xyz" } }, code: audit.CodeForm, key: "tasks/agg-0-1-0000/results.done"},
	"a merge group of another phase":           {do: onGroup("final_aggregation", func(_ *world, g *manifest.Group) { g.Phase = "retry" }), code: audit.CodeChain, key: "aggregation/0/plan.json", says: "of phase retry"},
	"a merge group with a task more":           {do: onGroup("final_aggregation", func(_ *world, g *manifest.Group) { g.Tasks++ }), code: audit.CodeTotal, key: "aggregation/0/plan.json"},
	"an input without a row hash": {do: func(s *story) { s.onMerge = func(p *manifest.AggregationPlan) { p.Inputs[0].RowHash = "xyz" } }, code: audit.CodeForm, key: "aggregation/0/plan.json",
		says: "is not a row hash"},
	"a plan behind the last": {do: onGroup("final_aggregation", func(w *world, g *manifest.Group) {
		c, err := w.store.CommitRetryPlan(w.t.Context(), 3, manifest.RetryPlan{Schema: manifest.SchemaRetryPlan, JobID: jobID, RetryID: manifest.RetryID(3),
			Closed: "aggregation", Predecessor: w.link, Orders: 2, Next: "aggregation"})
		w.must(err)
		w.chain["retries/retry-3/plan.json"] = c.SHA256
	}), code: audit.CodeChain, key: "retries/retry-2/plan.json", says: "another plan follows"},
	"a plan opens another group": {do: onRetry(1, func(p *manifest.RetryPlan) { p.Next = "retry_batch_7" }), code: audit.CodeChain, key: "retries/retry-1/plan.json", says: "retry_batch_7"},
	"an item of nobody is listed": {do: func(s *story) {
		s.onListed = func(name string, ls []manifest.ListLine) []manifest.ListLine {
			if name == "permanent" {
				ls = append(ls, manifest.ListLine{Ordinal: 99, Class: "repo_not_found", TaskID: "task-0002"})
			}
			return ls
		}
	}, code: audit.CodeItem, key: "retries/retry-1/permanent-", says: "item 99 is of no task of initial_batch"},
	"an item goes on for ever": {from: func() story {
		s := tiny()
		s.passes = 0
		s.fate = func(o int64, group int) fate {
			if o == 3 && group < 4 {
				return fate{class: "spot_gone", disp: hayrick.Infra}
			}
			return fate{rows: 1}
		}
		return s
	}, do: func(s *story) {
		s.onListed = func(string, []manifest.ListLine) []manifest.ListLine { return nil }
		s.onRetried = func(n int, its []manifest.RetryItem) []manifest.RetryItem {
			if n == 4 {
				its = []manifest.RetryItem{{Ordinal: 3, Item: record(3), Tries: 4, Classes: []string{"spot_gone", "spot_gone", "spot_gone", "spot_gone"}, Infra: 4}}
			}
			return its
		}
	}, code: audit.CodeItem, key: "batches/retry_batch_4/seg-0-", says: "3 retry groups have run"},
	"an item has no end": {do: func(s *story) {
		s.onListed = func(string, []manifest.ListLine) []manifest.ListLine { return nil }
	}, code: audit.CodeItem, key: "outcome-0.json", says: "1 item has no end, the first is item 4"},
	"a part lies under another digest": {do: func(s *story) {
		s.onEnd = func(w *world, o *manifest.Outcome) {
			p := &o.Aggregation.Parts[0]
			body := w.mem.Snapshot()[job.Abs(p.Key)]
			p.Key = job.Rel(job.Part(0, 0, manifest.SHA256(nil)))
			w.put(job.Abs(p.Key), body)
		}
	}, code: audit.CodeKey, key: "aggregation/0/part-00000-e3b0c44298fc", says: "with its sources and footer"},
	"a result names what is outside the job": {do: resultOf("task-0000", func(r *manifest.Result) { r.File = ptr("../../x") }),
		code: audit.CodeKey, key: "../../x", says: "cannot be an object"},
	"a list of nonsense": {do: func(s *story) {
		var world *world
		s.onGroup = onGroupWorld(&world)
		s.onRetry = func(n int, p *manifest.RetryPlan) {
			if n == 1 {
				body := []byte("no line of JSON\n")
				key := job.RetryList(1, "permanent", manifest.SHA256(body))
				world.put(key, body)
				p.PermanentList = &manifest.Ref{Key: job.Rel(key), SHA256: manifest.SHA256(body), Count: 1}
			}
		}
	}, code: audit.CodeForm, key: "retries/retry-1/permanent-"},
	"a failures file of nonsense": {do: func(s *story) {
		var world *world
		s.onGroup = onGroupWorld(&world)
		s.onResult = func(r *manifest.Result) {
			if f := r.Failures; f != nil && r.TaskID == "task-0001" {
				body := []byte("no line of JSON\n")
				f.SHA256 = manifest.SHA256(body)
				f.File = job.Rel(job.Failures(r.TaskID, r.Attempt, f.SHA256))
				world.put(job.Abs(f.File), body)
			}
		}
	}, code: audit.CodeForm, key: "tasks/task-0001/task-0001_"},
	"rows that are no Parquet": {deep: true, do: func(s *story) {
		var world *world
		s.onGroup = onGroupWorld(&world)
		s.onResult = func(r *manifest.Result) {
			if r.TaskID == "task-0000" {
				body := []byte("PAR1 and so on PAR1")
				rs := world.data[*r.File]
				r.SHA256, r.Bytes = manifest.SHA256(body), int64(len(body))
				*r.File = job.Rel(job.Rows(r.TaskID, r.Attempt, r.SHA256))
				world.put(job.Abs(*r.File), body)
				world.data[*r.File] = rs
			}
		}
	}, code: audit.CodeRows, key: "tasks/task-0000/task-0000_", says: "its rows cannot be read"},
	"a row hash of nonsense": {from: func() story { s := tiny(); s.until = "retry"; return s },
		do: resultOf("task-0000", func(r *manifest.Result) { r.RowHash = "xyz" }), code: audit.CodeForm, key: "tasks/task-0000/results.done", says: "is not a row hash"},
	"a result of more items": {do: resultOf("task-0000", func(r *manifest.Result) { r.Failed = -1 }), code: audit.CodeTask, key: "tasks/task-0000/results.done", says: "2 ok and -1 failed"},
	"a merge that never worked": {from: func() story { s := tiny(); s.broken = func(int) int { return 3 }; return s },
		do: func(*story) {}, code: audit.CodeMissing, key: "tasks/agg-0-1-0000/results.done", says: "FAILED 3 times"},
	"a result says too many are ok": {do: resultOf("task-0001", func(r *manifest.Result) { r.OK, r.Failed = 2, 0 }), code: audit.CodeTotal, key: "tasks/task-0001/results.done", says: "2 ok, 1 items"},
	"an ok item ends again": {do: func(s *story) {
		s.onRetried = func(n int, its []manifest.RetryItem) []manifest.RetryItem {
			return append([]manifest.RetryItem{{Ordinal: 1, Item: record(1), Tries: 1}}, its...)[:min(len(its)+1, 2*len(its))]
		}
	}, code: audit.CodeItem, key: "tasks/task-0003/results.done", says: "item 1 ends ok, and had ended ok before"},
	"an item of nobody is run": {from: func() story {
		s := tiny()
		s.fate = func(o int64, group int) fate {
			if o == 3 && group == 0 {
				return fate{class: "timeout", disp: hayrick.Timeout}
			}
			return fate{rows: 1}
		}
		return s
	}, do: func(s *story) {
		s.onRetried = func(n int, its []manifest.RetryItem) []manifest.RetryItem {
			if n == 1 {
				its = append(its, manifest.RetryItem{Ordinal: 99, Item: record(99), Tries: 1})
			}
			return its
		}
	}, code: audit.CodeItem, key: "tasks/task-0003/results.done", says: "item 99 ends ok and is no item of the job"},
	"rows of two kinds": {deep: true, from: func() story { s := tiny(); s.until = "retry"; return s }, do: rowsOf("task-0001", func(rs []rows.Row) []rows.Row {
		for i := range rs {
			rs[i] = rows.Row{{Name: "n", Value: "seven"}}
		}
		return rs
	}), code: audit.CodeRows, key: "tasks/task-0001/task-0001_"},
	"two parts of one name": {from: func() story { s := rich(); return s },
		do: retell(func(o *manifest.Outcome) { o.Aggregation.Parts[1].Name = o.Aggregation.Parts[0].Name }), code: audit.CodePublished, key: "outcome-0.json"},
	"a part is left out": {from: func() story { s := rich(); return s },
		do: retell(func(o *manifest.Outcome) { o.Aggregation.Parts = o.Aggregation.Parts[:1] }), code: audit.CodeRows, key: "outcome-0.json", says: "in no part"},
	"a part under another key":   {do: retell(func(o *manifest.Outcome) { o.Aggregation.Parts[0].RowHash = "zz" }), code: audit.CodeForm, key: "outcome-0.json"},
	"a list under another name":  {do: retell(func(o *manifest.Outcome) { o.Aggregation.Lists[0].Name = "gone" }), code: audit.CodeKey, key: "aggregation/0/lists/deleted_dids-"},
	"a list is named twice":      {do: retell(func(o *manifest.Outcome) { o.Aggregation.Lists = append(o.Aggregation.Lists, o.Aggregation.Lists[0]) }), code: audit.CodeChain, key: "outcome-0.json"},
	"a list is counted wrong":    {do: retell(func(o *manifest.Outcome) { o.Aggregation.Lists[0].Count++ }), code: audit.CodeTotal, key: "aggregation/0/lists/deleted_dids-"},
	"manifest of another job":    {do: retell(func(o *manifest.Outcome) { o.Aggregation.JobID = "other" }), code: audit.CodeForm, key: "outcome-0.json"},
	"input_file_count":           {do: retell(func(o *manifest.Outcome) { o.Aggregation.InputFileCount++ }), code: audit.CodeTotal, says: "input_file_count"},
	"rows of a job that stopped": {do: retell(func(o *manifest.Outcome) { o.Status = "FAILED" }), code: audit.CodeForm, key: "outcome-0.json"},
}

func init() {
	for rel, says := range map[string]string{
		"plan.json": "it is the plan of other", "control/1.json": "it is order 1 of other", "retries/retry-2/plan.json": "it is retry-batch-2 of other",
		"aggregation/0/plan.json": "it is of generation 0 of other",
	} {
		late[rel+" of another job"] = lie{do: func(s *story) {
			s.onCommit = func(key string, body []byte) []byte {
				if key == rel {
					body = bytes.Replace(body, []byte(`"job_id":"`+jobID), []byte(`"job_id":"other`), 1)
					body = ownDigest.ReplaceAll(body, []byte(`"self_sha256":""`))
				}
				return body
			}
		}, code: audit.CodeForm, key: rel, says: says}
	}
}

// ownDigest is what a commit carries; without one it is not compared.
var ownDigest = regexp.MustCompile(`"self_sha256":"[0-9a-f]{64}"`)

func TestLateLies(t *testing.T) {
	for name, l := range late {
		if _, twice := lies[name]; twice {
			t.Fatalf("two lies are called %q", name)
		}
		t.Run(name, func(t *testing.T) { l.tell(t) })
	}
}

// A merge that FAILED as often as it may ends no job well.
func TestMergeThatNeverWorked(t *testing.T) {
	s := tiny()
	s.broken = func(int) int { return 1 }
	w := build(t, s)
	clean(t, w.audit(true))
	done := job.Rel(job.Done("agg-0-1-0000-r1"))
	r := w.damaged(job.Abs(done), nil)
	if f, broken := r.First(); !broken || f.Key != done {
		t.Errorf("%v", fmt.Sprint(r.Findings))
	}

	s.onOutcome = func(o *manifest.Outcome) { delete(o.Chain, done) }
	r = build(t, s).damaged(job.Abs(done), nil)
	if !slices.ContainsFunc(r.Findings, func(f audit.Finding) bool {
		return f.Code == audit.CodeMissing && f.Key == done
	}) {
		t.Errorf("a merge without a DONE: %v", r.Findings)
	}
}
