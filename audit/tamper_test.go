package audit_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hayrick"
	"hayrick/audit"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// lie is a job that was written wrong, with every digest as it should be: what found
// it is the recount, never a digest.
type lie struct {
	do   func(s *story)
	from func() story // tiny unless given
	code string
	key  string // that is in the finding's key
	says string // that is in the finding
	deep bool   // the rows themselves tell
	only bool   // ... and nothing else does
}

// retell counts the items of the outcome anew after fn changed it.
func retell(fn func(o *manifest.Outcome)) func(s *story) {
	return func(s *story) { s.onOutcome = fn }
}

var lies = map[string]lie{
	// Totals.
	"outcome says one more ok, one permanent less": {do: retell(func(o *manifest.Outcome) { o.OK++; o.Permanent-- }),
		code: audit.CodeTotal, key: "outcome-0.json", says: "5 ok + 0 permanent"},
	"outcome says six items":       {do: retell(func(o *manifest.Outcome) { o.Items++; o.OK++ }), code: audit.CodeTotal, key: "outcome-0.json"},
	"outcome says unfinished":      {do: retell(func(o *manifest.Outcome) { o.Unfinished = 1; o.OK-- }), code: audit.CodeTotal, key: "outcome-0.json"},
	"outcome says a row more":      {do: retell(func(o *manifest.Outcome) { o.RowCount++ }), code: audit.CodeTotal, key: "outcome-0.json"},
	"outcome has another row hash": {do: retell(func(o *manifest.Outcome) { o.RowHash = "1" }), code: audit.CodeTotal, key: "outcome-0.json"},
	"outcome says dropped rows":    {do: retell(func(o *manifest.Outcome) { o.DroppedRows = 1; o.RowCount-- }), code: audit.CodeTotal, key: "outcome-0.json"},
	"total_rows":                   {do: retell(func(o *manifest.Outcome) { o.Aggregation.TotalRows++ }), code: audit.CodeTotal, key: "outcome-0.json"},
	"row_counts_by_batch":          {do: retell(func(o *manifest.Outcome) { o.Aggregation.RowCountsByBatch["batch-0000"]++ }), code: audit.CodeTotal, says: "row_counts_by_batch"},
	"input_files":                  {do: retell(func(o *manifest.Outcome) { slices.Reverse(o.Aggregation.InputFiles) }), code: audit.CodeTotal, says: "input_files"},
	"output_hash":                  {do: retell(func(o *manifest.Outcome) { o.Aggregation.OutputHash = manifest.SHA256(nil) }), code: audit.CodeTotal, says: "output_hash"},
	"output_file":                  {do: retell(func(o *manifest.Outcome) { o.Aggregation.OutputFile = nil }), code: audit.CodeTotal, says: "output_file"},
	"no aggregation manifest":      {do: retell(func(o *manifest.Outcome) { o.Aggregation = nil }), code: audit.CodeForm, key: "outcome-0.json"},
	"plan says six items":          {do: func(s *story) { s.onPlan = func(p *manifest.Plan) { p.Items++ } }, code: audit.CodeTotal, key: "plan.json"},
	"plan's input has six items":   {do: func(s *story) { s.onPlan = func(p *manifest.Plan) { p.Input[0].Items++ } }, code: audit.CodeTotal, key: "plan.json"},
	"group says another number of items": {do: func(s *story) { s.onPlan = func(p *manifest.Plan) { p.Group.Items++ } },
		code: audit.CodeTotal, key: "plan.json"},
	"result says an item less failed": {do: func(s *story) {
		s.onResult = func(r *manifest.Result) {
			if r.TaskID == "task-0001" {
				r.OK, r.Failed = 2, 0
			}
		}
	}, code: audit.CodeTotal, key: "tasks/task-0001/results.done"},
	"result counts its failures wrong": {do: resultOf("task-0001", func(r *manifest.Result) { r.Failures.Count = 2 }), code: audit.CodeTotal, key: "tasks/task-0001/results.done", says: "a list of 2, the list has 1"},
	"result's counts by class": {do: func(s *story) {
		s.onResult = func(r *manifest.Result) {
			if r.Failures != nil {
				r.Failures.ByClass["timeout"] = 1
			}
		}
	}, code: audit.CodeTotal, key: "tasks/task-0001/results.done"},
	"retry plan says no permanent item": {do: onRetry(1, func(p *manifest.RetryPlan) { p.Permanent = 0 }), code: audit.CodeTotal, key: "retries/retry-1/plan.json"},
	"retry plan says two exhausted":     {do: onRetry(1, func(p *manifest.RetryPlan) { p.Exhausted = 2 }), code: audit.CodeTotal, key: "retries/retry-1/plan.json"},
	"retry plan's error types":          {do: onRetry(1, func(p *manifest.RetryPlan) { p.ErrorTypes["timeout"] = 1 }), code: audit.CodeTotal, key: "retries/retry-1/plan.json"},
	"retry plan's failed tasks":         {do: onRetry(1, func(p *manifest.RetryPlan) { p.FailedTasks++ }), code: audit.CodeTotal, key: "retries/retry-1/plan.json"},
	"retry plan's items a task":         {do: onRetry(1, func(p *manifest.RetryPlan) { p.Results[0].Retried = 1 }), code: audit.CodeTotal, key: "retries/retry-1/plan.json", says: "of task-0000"},
	"retry plan's items":                {do: onRetry(1, func(p *manifest.RetryPlan) { p.Items++ }), code: audit.CodeTotal, key: "retries/retry-1/plan.json"},
	"aggregation plan's ok":             {do: func(s *story) { s.onMerge = func(p *manifest.AggregationPlan) { p.OK++ } }, code: audit.CodeTotal, key: "aggregation/0/plan.json"},
	"aggregation plan's rows":           {do: func(s *story) { s.onMerge = func(p *manifest.AggregationPlan) { p.Rows++ } }, code: audit.CodeRows, key: "aggregation/0/plan.json"},
	"aggregation plan's row hash":       {do: func(s *story) { s.onMerge = func(p *manifest.AggregationPlan) { p.RowHash = "2" } }, code: audit.CodeRows, key: "aggregation/0/plan.json"},

	// Items.
	"a failed item is left out of the failures": {do: func(s *story) {
		s.onFailures = func(task string, fs []manifest.FailureLine) []manifest.FailureLine {
			if task == "task-0002" {
				return nil // item 4 would be ok, with no list to name it
			}
			return fs
		}
		s.onListed = func(name string, ls []manifest.ListLine) []manifest.ListLine {
			if name == "permanent" && ls == nil {
				return []manifest.ListLine{{Ordinal: 4, Key: did(4), Class: "repo_not_found", Message: "x", TaskID: "task-0002", Tries: 1}}
			}
			return ls
		}
	}, code: audit.CodeItem, key: "retries/retry-1/permanent-", says: "item 4 did not fail"},
	"a permanent item is not listed": {do: func(s *story) {
		s.onListed = func(string, []manifest.ListLine) []manifest.ListLine { return nil }
	}, code: audit.CodeItem, key: "retries/retry-1/plan.json", says: "item 4 failed in task-0002 and is neither"},
	"a permanent item is listed twice": {do: func(s *story) {
		s.onListed = func(_ string, ls []manifest.ListLine) []manifest.ListLine { return append(ls, ls...) }
	}, code: audit.CodeItem, key: "retries/retry-1/permanent-", says: "item 4"},
	"a permanent item is retried too": {do: func(s *story) {
		s.onRetried = func(n int, its []manifest.RetryItem) []manifest.RetryItem {
			if n == 1 {
				its = append(its, manifest.RetryItem{Ordinal: 4, Item: record(4), Tries: 1, Classes: []string{"repo_not_found"}})
			}
			return its
		}
	}, code: audit.CodeItem, says: "item 4"},
	"an ok item is run again": {do: func(s *story) {
		s.onRetried = func(n int, its []manifest.RetryItem) []manifest.RetryItem {
			if n == 1 {
				its = append([]manifest.RetryItem{{Ordinal: 1, Item: record(1), Tries: 1}}, its...)
			}
			return its
		}
	}, code: audit.CodeItem, key: "batches/retry_batch_1/seg-0-", says: "item 1 did not fail in task-0000"},
	"a failed item is forgotten": {do: func(s *story) {
		s.onRetried = func(n int, its []manifest.RetryItem) []manifest.RetryItem { return nil }
	}, code: audit.CodeItem, key: "retries/retry-1/plan.json", says: "item 3 failed in task-0001"},
	"another record is retried under the item": {do: func(s *story) {
		s.onRetried = retriedAs(func(it *manifest.RetryItem) { it.Item = record(2) })
	}, code: audit.CodeItem, key: "batches/retry_batch_1/seg-0-", says: "with another record"},
	"a retried item forgets its tries": {do: func(s *story) {
		s.onRetried = retriedAs(func(it *manifest.RetryItem) { it.Tries = 0 })
	}, code: audit.CodeItem, says: "with 0 tries"},
	"a retried item forgets its classes": {do: func(s *story) {
		s.onRetried = retriedAs(func(it *manifest.RetryItem) { it.Classes = nil })
	}, code: audit.CodeItem, says: "with the classes []"},
	"an item is retried beyond its passes": {from: func() story {
		s := tiny()
		s.passes = 1
		s.fate = func(o int64, group int) fate {
			if o == 3 && group < 2 {
				return fate{class: "timeout", disp: hayrick.Timeout}
			}
			return fate{rows: 1}
		}
		return s
	}, do: func(s *story) {
		s.onListed = func(string, []manifest.ListLine) []manifest.ListLine { return nil }
		s.onRetried = func(n int, its []manifest.RetryItem) []manifest.RetryItem {
			if n == 2 {
				return []manifest.RetryItem{{Ordinal: 3, Item: record(3), Tries: 2, Classes: []string{"timeout", "timeout"}}}
			}
			return its
		}
	}, code: audit.CodeItem, key: "batches/retry_batch_2/seg-0-", says: "failed in 2 groups, retry.passes is 1"},
	"an item is given up too early": {do: func(s *story) {
		s.onRetried = func(int, []manifest.RetryItem) []manifest.RetryItem { return nil }
		s.onListed = func(name string, ls []manifest.ListLine) []manifest.ListLine {
			if name == "exhausted" {
				return []manifest.ListLine{{Ordinal: 3, Key: did(3), Class: "rate_limit", Message: "rate_limit of " + did(3), TaskID: "task-0001", Tries: 1}}
			}
			return ls
		}
	}, code: audit.CodeItem, key: "retries/retry-1/exhausted-", says: "it may be run again"},
	"a transient item is listed as permanent": {do: func(s *story) {
		s.onRetried = func(int, []manifest.RetryItem) []manifest.RetryItem { return nil }
		s.onListed = func(name string, ls []manifest.ListLine) []manifest.ListLine {
			if name == "permanent" {
				return append([]manifest.ListLine{{Ordinal: 3, Key: did(3), Class: "rate_limit", Message: "rate_limit of " + did(3), TaskID: "task-0001", Tries: 1}}, ls...)
			}
			return ls
		}
	}, code: audit.CodeItem, key: "retries/retry-1/permanent-", says: "as permanent, task-0001 says rate_limit"},
	"a list says another class": {do: listedAs(func(l *manifest.ListLine) { l.Class = "repo_takendown" }), code: audit.CodeItem, key: "retries/retry-1/permanent-"},
	"a list says another task":  {do: listedAs(func(l *manifest.ListLine) { l.TaskID = "task-0001" }), code: audit.CodeItem, key: "retries/retry-1/permanent-"},
	"a list says another key":   {do: listedAs(func(l *manifest.ListLine) { l.Key = "did:plc:other" }), code: audit.CodeItem, key: "retries/retry-1/permanent-"},
	"a failure of another batch": {do: func(s *story) {
		s.onFailures = func(task string, fs []manifest.FailureLine) []manifest.FailureLine {
			if task == "task-0002" {
				fs[0].Ordinal = 0
			}
			return fs
		}
	}, code: audit.CodeItem, key: "tasks/task-0002/results.done", says: "not of batch-0002"},
	"a published list lacks a line": {do: func(s *story) {
		s.onList = func(string, []manifest.ListLine) []manifest.ListLine { return nil }
	}, code: audit.CodeItem, key: "outcome-0.json", says: "no list deleted_dids"},
	"a published list has a line twice": {do: func(s *story) {
		s.onList = func(_ string, ls []manifest.ListLine) []manifest.ListLine { return append(ls, ls...) }
	}, code: audit.CodeItem, key: "aggregation/0/lists/deleted_dids-"},
	"a published list names an ok item": {do: func(s *story) {
		s.onList = func(_ string, ls []manifest.ListLine) []manifest.ListLine {
			ls[0].Ordinal = 0
			return ls
		}
	}, code: audit.CodeItem, key: "aggregation/0/lists/deleted_dids-", says: "item 0 is listed, and ended ok"},
	"a published list says another message": {do: func(s *story) {
		s.onList = func(_ string, ls []manifest.ListLine) []manifest.ListLine {
			ls[0].Message = "all is well"
			return ls
		}
	}, code: audit.CodeItem, key: "aggregation/0/lists/deleted_dids-"},

	// Batches and tasks.
	"a batch is left out": {do: func(s *story) {
		s.onBatches = initial(func(bs []manifest.Batch) []manifest.Batch { return slices.Delete(bs, 1, 2) })
	}, code: audit.CodeBatch, key: "batches/initial_batch/index-0-", says: "its first item is 4"},
	"a batch overlaps the one before it": {do: func(s *story) {
		s.onBatches = initial(func(bs []manifest.Batch) []manifest.Batch {
			bs[1].Offset, bs[1].FirstLine, bs[1].Length, bs[1].SHA256 = bs[0].Offset, bs[0].FirstLine, bs[0].Length, bs[0].SHA256
			return bs
		})
	}, code: audit.CodeBatch, key: "batches/initial_batch/index-0-", says: "it begins at byte 0"},
	"a batch of another input": {do: func(s *story) {
		s.onPlan = func(p *manifest.Plan) { p.Input[0].Object = "./other.jsonl" }
	}, code: audit.CodeBatch, says: "no input of the plan"},
	"a result of another batch's bytes": {do: resultOf("task-0000", func(r *manifest.Result) { r.BatchSHA256 = manifest.SHA256(nil) }),
		code: audit.CodeTask, key: "tasks/task-0000/results.done"},
	"a result of another group": {do: resultOf("task-0000", func(r *manifest.Result) { r.Task.Group = "retry_batch_1" }), code: audit.CodeTask, key: "tasks/task-0000/results.done"},
	"a result of other code":    {do: resultOf("task-0000", func(r *manifest.Result) { r.CodeVersion = "hayrick v9+123456123456" }), code: audit.CodeTask, key: "tasks/task-0000/results.done"},
	"a result of another generation": {do: resultOf("task-0000", func(r *manifest.Result) { r.Generation = 1 }),
		code: audit.CodeForm, key: "tasks/task-0000/results.done"},
	"a result with a file and no rows": {do: resultOf("task-0000", func(r *manifest.Result) { r.RowCount = 0 }), code: audit.CodeRows, key: "tasks/task-0000/results.done"},
	"a result with rows and no file":   {do: resultOf("task-0000", func(r *manifest.Result) { r.File = nil }), code: audit.CodeRows, key: "tasks/task-0000/results.done"},
	"a result says a row more":         {do: resultOf("task-0000", func(r *manifest.Result) { r.RowCount++ }), code: audit.CodeRows},
	"a result says fewer bytes":        {do: resultOf("task-0000", func(r *manifest.Result) { r.Bytes-- }), code: audit.CodeDigest, key: ".parquet"},
	"a result names the file of another attempt": {do: resultOf("task-0000", func(r *manifest.Result) { r.Attempt = manifest.SHA256(nil)[:32] }),
		code: audit.CodeKey, key: "tasks/task-0000/results.done"},

	// The chain.
	"retry plan follows another plan":    {do: onRetry(2, func(p *manifest.RetryPlan) { p.Predecessor.Key = "plan.json" }), code: audit.CodeChain, key: "retries/retry-2/plan.json"},
	"retry plan follows another version": {do: onRetry(1, func(p *manifest.RetryPlan) { p.Predecessor.SHA256 = manifest.SHA256(nil) }), code: audit.CodeChain, key: "retries/retry-1/plan.json"},
	"retry plan closes another group":    {do: onRetry(2, func(p *manifest.RetryPlan) { p.Closed = "initial_batch" }), code: audit.CodeChain, key: "retries/retry-2/plan.json"},
	"retry plan of another generation":   {do: onRetry(2, func(p *manifest.RetryPlan) { p.Generation = 1 }), code: audit.CodeChain, key: "retries/retry-2/plan.json"},
	"retry plan applied orders to come":  {do: onRetry(2, func(p *manifest.RetryPlan) { p.Orders = 3 }), code: audit.CodeChain, key: "retries/retry-2/plan.json"},
	"retry plan forgets an order":        {do: onRetry(2, func(p *manifest.RetryPlan) { p.Orders = 1 }), code: audit.CodeChain, key: "retries/retry-2/plan.json"},
	"retry plan leaves out a result":     {do: onRetry(1, func(p *manifest.RetryPlan) { p.Results = p.Results[:2] }), code: audit.CodeChain, key: "retries/retry-1/plan.json"},
	"retry plan names another result": {do: onRetry(1, func(p *manifest.RetryPlan) { p.Results[0].SHA256 = manifest.SHA256(nil) }),
		code: audit.CodeDigest, key: "tasks/task-0000/results.done"},
	"aggregation follows another plan": {do: func(s *story) { s.onMerge = func(p *manifest.AggregationPlan) { p.Predecessor.Key = "plan.json" } }, code: audit.CodeChain, key: "aggregation/0/plan.json"},
	"aggregation pins another file":    {do: func(s *story) { s.onMerge = func(p *manifest.AggregationPlan) { p.Inputs[0].File = p.Inputs[1].File } }, code: audit.CodeChain, key: "aggregation/0/plan.json"},
	"aggregation leaves a task out":    {do: func(s *story) { s.onMerge = func(p *manifest.AggregationPlan) { p.Inputs = p.Inputs[:3] } }, code: audit.CodeChain, key: "aggregation/0/plan.json", says: "does not merge task-0003"},
	"aggregation takes a task twice": {do: func(s *story) {
		s.onMerge = func(p *manifest.AggregationPlan) { p.Inputs = append(p.Inputs, p.Inputs[0]) }
	}, code: audit.CodeChain, key: "aggregation/0/plan.json"},
	"aggregation's tree":          {do: func(s *story) { s.onMerge = func(p *manifest.AggregationPlan) { p.Tree.Nodes = []int64{2, 1} } }, code: audit.CodeChain, key: "aggregation/0/plan.json"},
	"outcome leaves out an order": {do: retell(func(o *manifest.Outcome) { delete(o.Chain, "control/1.json") }), code: audit.CodeChain},
	"outcome leaves out a plan":   {do: retell(func(o *manifest.Outcome) { delete(o.Chain, "plan.json") }), code: audit.CodeChain, key: "outcome-0.json"},
	"outcome leaves out the last retry plan": {do: retell(func(o *manifest.Outcome) { delete(o.Chain, "retries/retry-2/plan.json") }),
		code: audit.CodeChain, key: "aggregation/0/plan.json"},
	"outcome leaves out the aggregation plan": {do: retell(func(o *manifest.Outcome) { delete(o.Chain, "aggregation/0/plan.json") }), code: audit.CodeChain, key: "outcome-0.json"},
	"outcome leaves out a merge":              {do: retell(func(o *manifest.Outcome) { delete(o.Chain, "tasks/agg-0-1-0000/results.done") }), code: audit.CodeUnvouched, key: "tasks/agg-0-1-0000/results.done"},
	"outcome names what is no plan":           {do: retell(func(o *manifest.Outcome) { o.Chain["extra.json"] = manifest.SHA256(nil) }), code: audit.CodeChain, key: "outcome-0.json"},
	"outcome names a merge of no plan":        {do: retell(func(o *manifest.Outcome) { o.Chain["tasks/agg-0-1-0009/results.done"] = manifest.SHA256(nil) }), code: audit.CodeChain, key: "outcome-0.json"},

	// Rows.
	"a merge loses a row":         {do: rowsOf("agg-0-1-0000", func(rs []rows.Row) []rows.Row { return rs[1:] }), code: audit.CodeRows, key: "tasks/agg-0-1-0000/results.done"},
	"a merge has a row twice":     {do: rowsOf("agg-0-1-0000", func(rs []rows.Row) []rows.Row { return append(rs, rs[0]) }), code: audit.CodeRows, key: "tasks/agg-0-1-0000/results.done"},
	"a merge changes a value":     {do: rowsOf("agg-0-1-0000", changed), code: audit.CodeRows, key: "tasks/agg-0-1-0000/results.done"},
	"a merge leaves a file out":   {do: func(s *story) { s.onMerged = func(r *manifest.Result) { r.Inputs = r.Inputs[1:] } }, code: audit.CodeChain, key: "tasks/agg-0-1-0000/results.done"},
	"a merge says it dropped one": {do: func(s *story) { s.onMerged = func(r *manifest.Result) { r.DroppedRows = 1 } }, code: audit.CodeRows, key: "tasks/agg-0-1-0000/results.done"},
	"a part loses a row":          {do: rowsOf("part-0", func(rs []rows.Row) []rows.Row { return rs[1:] }), code: audit.CodeRows, key: "aggregation/0/part-00000-"},
	"a part changes a value":      {do: rowsOf("part-0", changed), code: audit.CodeRows, key: "aggregation/0/part-00000-"},
	"a file's rows are not its commit's": {deep: true, do: resultOf("task-0000", func(r *manifest.Result) { r.RowHash = "abc" }),
		code: audit.CodeRows, key: "tasks/task-0000/task-0000_"},
	"a file's columns are not its commit's": {deep: true, do: resultOf("task-0000", func(r *manifest.Result) { r.SchemaDigest = manifest.SHA256(nil) }),
		code: audit.CodeRows, key: "tasks/task-0000/task-0000_"},
	"the planned columns are others": {deep: true, do: func(s *story) {
		s.onMerge = func(p *manifest.AggregationPlan) {
			p.Columns = json.RawMessage(`{"fields":[{"name":"did","kind":"string"}]}`)
		}
	}, code: audit.CodeRows, key: "aggregation/0/plan.json", says: "not those of the results"},
	"the part's columns are others": {deep: true, do: func(s *story) {
		s.onMerge = func(p *manifest.AggregationPlan) {
			p.Columns = json.RawMessage(`{"fields":[{"name":"did","kind":"string"}]}`)
		}
	}, code: audit.CodeRows, key: "aggregation/0/part-00000-", says: "its columns"},
	"a part is not what its outcome claims": {deep: true, only: true, do: func(s *story) {
		var hash string
		s.onMerge = func(p *manifest.AggregationPlan) { hash = p.RowHash }
		s.onOutcome = func(o *manifest.Outcome) { o.RowHash, o.Aggregation.Parts[0].RowHash = hash, hash }
		rowsOf("part-0", changed)(s)
	}, code: audit.CodeRows, key: "aggregation/0/part-00000-", says: "it holds 11 rows"},
	"rows are lost on the way": {do: rowsOf("agg-0-1-0000", func(rs []rows.Row) []rows.Row { return rs[1:] }), code: audit.CodeRows, key: "outcome-0.json", says: "in the results, 10 in the parts"},
	"the merged columns are others": {deep: true, do: func(s *story) {
		s.onMerge = func(p *manifest.AggregationPlan) {
			p.Columns = json.RawMessage(`{"fields":[{"name":"did","kind":"string"}]}`)
		}
	}, code: audit.CodeRows, key: "aggregation/0/plan.json", says: "the columns of a merge"},
}

func onRetry(n int, fn func(p *manifest.RetryPlan)) func(s *story) {
	return func(s *story) {
		s.onRetry = func(i int, p *manifest.RetryPlan) {
			if i == n {
				fn(p)
			}
		}
	}
}

func retriedAs(fn func(it *manifest.RetryItem)) func(int, []manifest.RetryItem) []manifest.RetryItem {
	return func(_ int, its []manifest.RetryItem) []manifest.RetryItem {
		for i := range its {
			fn(&its[i])
		}
		return its
	}
}

func listedAs(fn func(l *manifest.ListLine)) func(s *story) {
	return func(s *story) {
		s.onListed = func(_ string, ls []manifest.ListLine) []manifest.ListLine {
			for i := range ls {
				fn(&ls[i])
			}
			return ls
		}
	}
}

func initial(fn func(bs []manifest.Batch) []manifest.Batch) func(string, []manifest.Batch) []manifest.Batch {
	return func(group string, bs []manifest.Batch) []manifest.Batch {
		if group == hayrick.GroupInitial {
			return fn(bs)
		}
		return bs
	}
}

func resultOf(task string, fn func(r *manifest.Result)) func(s *story) {
	return func(s *story) {
		s.onResult = func(r *manifest.Result) {
			if r.TaskID == task {
				fn(r)
			}
		}
	}
}

func rowsOf(file string, fn func(rs []rows.Row) []rows.Row) func(s *story) {
	return func(s *story) {
		s.onRows = func(name string, rs []rows.Row) []rows.Row {
			if name == file {
				return fn(slices.Clone(rs))
			}
			return rs
		}
	}
}

func changed(rs []rows.Row) []rows.Row {
	rs[0] = append(rows.Row{}, rs[0]...)
	rs[0][1].Value = int64(7)
	return rs
}

// 002-27: totals that do not follow from the parts are found, also under right
// digests.
func TestLiesUnderRightDigests(t *testing.T) {
	for name, l := range lies {
		t.Run(name, func(t *testing.T) { l.tell(t) })
	}
}

// tell builds the job and expects the audit to see through it.
func (l lie) tell(t *testing.T) {
	s := tiny()
	if l.from != nil {
		s = l.from()
	}
	l.do(&s)
	w := build(t, s)
	r := w.audit(l.deep)
	if l.only {
		clean(t, w.audit(false))
	}
	hit := func(f audit.Finding) bool {
		return f.Severity == audit.Broken && f.Code == l.code && strings.Contains(f.Key, l.key) && strings.Contains(f.What, l.says)
	}
	if r.Proven || r.Sound() || !slices.ContainsFunc(r.Findings, hit) {
		t.Errorf("proven %v, want %s of %q: %q; findings\n%s", r.Proven, l.code, l.key, l.says, strings.ReplaceAll(fmt.Sprint(r.Findings), "} {", "}\n{"))
	}
}
