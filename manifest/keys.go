package manifest

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Jobs is the folder of all jobs.
const Jobs = "jobs/"

// Job is the key space of one job. Every key below is relative to the store's
// prefix and starts with jobs/<job_id>/. Ids must be valid (hayrick.ValidID).
type Job string

func (j Job) at(parts ...string) string { return Jobs + string(j) + "/" + strings.Join(parts, "/") }

// Prefix is the job's folder, with its final slash.
func (j Job) Prefix() string { return Jobs + string(j) + "/" }

// Rel is the key as records name it: relative to the job's folder.
func (j Job) Rel(key string) string { return strings.TrimPrefix(key, j.Prefix()) }

// Abs is the key of an object that a record of the job names.
func (j Job) Abs(rel string) string { return j.Prefix() + rel }

// Commits.

// Plan is the submission's commit.
func (j Job) Plan() string { return j.at("plan.json") }

// Done is the commit of a task.
func (j Job) Done(task string) string { return j.at("tasks", task, "results.done") }

// RetryPlan is the n-th decision of the retry planner, n >= 1.
func (j Job) RetryPlan(n int) string { return j.at("retries", fmt.Sprintf("retry-%d", n), "plan.json") }

// OrdinalsList is a list of ordinals that an order names.
func (j Job) OrdinalsList(sha string) string { return j.at("control", "ordinals-"+Short(sha)+".jsonl") }

// AggregationPlan is the pinned merge plan of generation g.
func (j Job) AggregationPlan(g int) string { return j.at("aggregation", strconv.Itoa(g), "plan.json") }

// Control is the n-th order, n >= 0.
func (j Job) Control(n int) string { return j.at("control", strconv.Itoa(n)+".json") }

// Outcome is the one end of generation g.
func (j Job) Outcome(g int) string { return j.at(fmt.Sprintf("outcome-%d.json", g)) }

// Views.

// Manifest is the job manifest.
func (j Job) Manifest() string { return j.at("manifest.json") }

// TaskManifest is the task manifest.
func (j Job) TaskManifest(task string) string { return j.at("tasks", task, "manifest.json") }

// RetryManifest is the n-th retry manifest.
func (j Job) RetryManifest(n int) string {
	return j.at("retries", fmt.Sprintf("retry-%d", n), "manifest.json")
}

// AggregationManifest is the aggregation manifest of the current generation.
func (j Job) AggregationManifest() string { return j.at("aggregation", "manifest.json") }

// Data.

// Config is the resolved definition.
func (j Job) Config(sha string) string { return j.at("config-" + Short(sha) + ".yaml") }

// Bundle is the job's folder, packed.
func (j Job) Bundle(sha string) string { return j.at("bundle-" + Short(sha) + ".tar.zst") }

// Input is a copy of the input named name.
func (j Job) Input(name, sha string) string { return j.at("input", Short(sha)+"-"+name) }

// InputObjects is the list of the objects of a folder of inputs.
func (j Job) InputObjects(sha string) string { return j.at("input", "objects-"+Short(sha)+".jsonl") }

// Index is the n-th index object of a group: the batches of its n-th block.
func (j Job) Index(group string, n int, sha string) string {
	return j.at("batches", group, fmt.Sprintf("index-%d-%s", n, Short(sha)))
}

// Segment is the n-th packed segment of a group.
func (j Job) Segment(group string, n int, sha string) string {
	return j.at("batches", group, fmt.Sprintf("seg-%d-%s.jsonl", n, Short(sha)))
}

// Block is the n-th block file of a group.
func (j Job) Block(group string, n int, sha string) string {
	return j.at("groups", group, fmt.Sprintf("block-%d-%s.json", n, Short(sha)))
}

// Rows is the Parquet file of one attempt.
func (j Job) Rows(task, attempt, sha string) string {
	return j.at("tasks", task, fmt.Sprintf("%s_%s_%s.parquet", task, short8(attempt), Short(sha)))
}

// RowsAs is Rows of another format, with the ending of its name.
func (j Job) RowsAs(task, attempt, sha, ext string) string {
	return j.at("tasks", task, fmt.Sprintf("%s_%s_%s%s", task, short8(attempt), Short(sha), ext))
}

// Run is the file of sorted rows of one attempt at a merge.
func (j Job) Run(task, attempt, sha string) string {
	return j.at("tasks", task, fmt.Sprintf("%s_%s_%s.run", task, short8(attempt), Short(sha)))
}

// Failures is the list of failed items of one attempt.
func (j Job) Failures(task, attempt, sha string) string {
	return j.at("tasks", task, fmt.Sprintf("%s_%s_%s_failures.jsonl", task, short8(attempt), Short(sha)))
}

// Log is what the handler of one attempt wrote.
func (j Job) Log(task, attempt, sha string) string {
	return j.at("tasks", task, fmt.Sprintf("%s_%s_%s_log.jsonl", task, short8(attempt), Short(sha)))
}

// Checkpoints is the folder of a task's journal snapshots.
func (j Job) Checkpoints(task string) string { return j.at("tasks", task, "checkpoint") + "/" }

// Checkpoint is a journal snapshot with itemsDone items ended.
func (j Job) Checkpoint(task string, itemsDone int, attempt, sha string) string {
	return j.Checkpoints(task) + fmt.Sprintf("%08d-%s-%s", itemsDone, short8(attempt), Short(sha))
}

// RetryList is a list that the n-th retry plan names: permanent, exhausted, results.
func (j Job) RetryList(n int, name, sha string) string {
	return j.at("retries", fmt.Sprintf("retry-%d", n), fmt.Sprintf("%s-%s.jsonl", name, Short(sha)))
}

// Inputs is the list of results that an aggregation plan pins.
func (j Job) AggregationInputs(g int, sha string) string {
	return j.at("aggregation", strconv.Itoa(g), "inputs-"+Short(sha)+".jsonl")
}

// Part is the n-th part of generation g's output.
func (j Job) Part(g, n int, sha string) string {
	return j.at("aggregation", strconv.Itoa(g), fmt.Sprintf("part-%05d-%s.parquet", n, Short(sha)))
}

// PartAs is Part of another format, with the ending of its name.
func (j Job) PartAs(g, n int, sha, ext string) string {
	return j.at("aggregation", strconv.Itoa(g), fmt.Sprintf("part-%05d-%s%s", n, Short(sha), ext))
}

// List is a named list of generation g's output.
func (j Job) List(g int, name, sha string) string {
	return j.at("aggregation", strconv.Itoa(g), "lists", fmt.Sprintf("%s-%s.jsonl", name, Short(sha)))
}

// Decides says that key is that of a job's definition, or of a commit about the job as a
// whole: what was read there once never changes.
func Decides(key string) bool {
	rest, ok := strings.CutPrefix(key, Jobs)
	_, rest, inJob := strings.Cut(rest, "/")
	dir, name := path.Split(rest)
	switch {
	case !ok || !inJob:
		return false
	case dir == "":
		return name == "plan.json" || strings.HasPrefix(name, "config-") || strings.HasPrefix(name, "outcome-")
	}
	top, below, _ := strings.Cut(dir, "/")
	return top == "control" && below == "" || (top == "retries" || top == "aggregation") && name == "plan.json"
}

// TaskID is the id of the n-th task of a job, counted over all its groups.
func TaskID(n int64) string { return fmt.Sprintf("task-%04d", n) }

// BatchID is the id of the batch of the n-th task.
func BatchID(n int64) string { return fmt.Sprintf("batch-%04d", n) }

// MergeTaskID is the n-th merge of a level of generation g's tree; run > 0 is its
// repetition after a FAILED one.
func MergeTaskID(g, level, n, run int) string {
	id := fmt.Sprintf("agg-%d-%d-%04d", g, level, n)
	if run > 0 {
		id += fmt.Sprintf("-r%d", run)
	}
	return id
}

// RetryID is the seed's name of the n-th retry.
func RetryID(n int) string { return fmt.Sprintf("retry-batch-%d", n) }

func short8(attempt string) string {
	if len(attempt) < 8 {
		return attempt
	}
	return attempt[:8]
}
