package jobfile

import (
	"slices"
	"strings"
)

// former is a key that job files of the same kind have elsewhere, and what says the
// same here.
type former struct {
	key     string // path of the key
	write   string // the keys that say it here, in flow style; %s is its value. "" = nothing does
	example string // the value where the file's own does not fit
	needs   string // the key that write sets, where not every build has it: without it, nothing does
	because string // what happens instead, or what else to know
}

// formers are the keys of 002-51 that are not ours. What is ours (name, description,
// extends, input.format, output.format, output.compression) is read as it is.
var formers = []former{
	{key: "priority", because: "no run waits for another; run.max_parallel bounds what one takes"},
	{key: "handler_path", write: "handler: {exec: [python3, %s]}", example: "handler.py", needs: "handler.exec", because: "a handler is a builtin: hayrick help job-file"},
	{key: "handler_kwargs", write: "handler: {params: {name: value}}"},
	{key: "batch_size", write: "batch: {items: %s}", example: "100"},
	{key: "contact_email", write: "x-contact: %s", example: "you@example.org", because: "nothing is mailed"},
	{key: "phases", because: "a run splits, retries and merges by itself: what there is to say is in retry and merge"},

	{key: "input.type", write: "input: {format: jsonl}"},
	{key: "input.path", write: "input: {uri: %s}", example: "./items.jsonl"},
	{key: "input.file_pattern", write: "input: {uri: ./in/}", because: "every file below a folder is read"},
	{key: "input.max_tasks", write: "input: {limit: 1000}", because: "tasks are counted by batch.items; a limit is one of items"},
	{key: "input.batch_size", write: "batch: {items: %s}", example: "100"},

	{key: "compute.partition", because: workersAre}, {key: "compute.account", because: workersAre}, {key: "compute.gpu_type", because: workersAre},
	{key: "compute.gpu_count", because: workersAre}, {key: "compute.memory_gb", because: workersAre}, {key: "compute.mail_type", because: workersAre},
	{key: "compute.mail_user", because: workersAre},
	{key: "compute.nodes", write: "run: {max_parallel: %s}", example: "8", because: "tasks at once, wherever they run"},
	{key: "compute.ntasks_per_node", write: "run: {max_parallel: %s}", example: "8", because: "tasks at once in one process"},
	{key: "compute.max_runtime", write: "budget: {wall: 6h}", because: "after that the run is paused"},
	{key: "compute.job_name", write: "name: %s", example: "backfill"},
	{key: "compute.output_log_path", because: "what a task tells is kept with it in the store"},
	{key: "slurm.memory", because: workersAre}, {key: "slurm.cpus", because: workersAre}, {key: "slurm.time", because: workersAre}, {key: "slurm.partition", because: workersAre},

	{key: "output.write_mode", write: "output: {if_exists: %s}", example: "error"},
	{key: "output.output_location", write: "output: {uri: %s}", example: "./out/$(run.id)/"},
	{key: "output.partition_keys", write: "output: {partition_by: [%s]}", example: "column", needs: "output.partition_by", because: "a dataset is one folder of parts, sorted as its items are"},
	{key: "output.task_output_queue_prefix", because: "results are objects of the store: no queue has to hold them"},
	{key: "output.output_service_name", because: "output.uri says where the dataset goes"},

	{key: "advanced.checkpoint_interval_minutes", because: "an attempt keeps a journal of every item, and hands it on when it must end"},
	{key: "advanced.retry_failed_tasks", write: "retry: {passes: 3}", because: "0 = never"},
	{key: "advanced.max_retries", write: "retry: {passes: %s}", example: "3"},
	{key: "advanced.backoff_strategy", write: "retry: {backoff: {initial: 1s, max: 5m}}", because: "it doubles from the one to the other, with jitter"},
	{key: "advanced.task_timeout_minutes", write: "run: {task_timeout: %sm}", example: "30"},

	{key: "retry.max_attempts", write: "retry: {in_task: {attempts: %s}}", example: "3"},
	{key: "retry.backoff_factor", because: "waits double, from retry.backoff.initial to retry.backoff.max"},
	{key: "retry.retry_delay", write: "retry: {backoff: {initial: %ss}}", example: "60"},
	{key: "rate_limits.tokens_per_second", write: "rates: [{name: api, limit: %s/s}]", example: "10"},
	{key: "rate_limits.max_tokens", write: "rates: [{name: api, limit: 10/s, burst: %s}]", example: "100"},
}

const workersAre = "the machine is that of whoever starts hayrick worker, in a batch script as on a server"

// answer is what to write instead.
func (f former) answer(n *node) string {
	if f.write == "" || f.needs != "" && !knows(f.needs) {
		return "is not read here: " + f.because
	}
	value := f.example
	if scalar := n.kind == text && n.value != "" && plainWord(n.value) || n.kind == number; scalar && f.fits(n.value) {
		value = n.value
	}
	out := "is not read here; write " + strings.ReplaceAll(f.write, "%s", value)
	if f.because != "" && f.needs == "" {
		out += " (" + f.because + ")"
	}
	return out
}

// fits says that the value of a file can stand where the example does.
func (f former) fits(value string) bool {
	if f.key == "output.write_mode" {
		return slices.Contains([]string{"append", "overwrite"}, value)
	}
	if strings.Trim(f.example, "0123456789") == "" { // a whole number is wanted
		return value != "" && len(value) < 7 && strings.Trim(value, "0123456789") == "" && value[0] != '0'
	}
	return true
}

// plainWord says that a text needs no quotes inside { }.
func plainWord(s string) bool {
	return len(s) <= 64 && !strings.ContainsAny(s, " \t\n,:{}[]\"'#&*!|>%@`$?-\\") || strings.HasPrefix(s, "./") && !strings.ContainsAny(s, " \t\n,:{}[]\"'#&*!|>%@`$?\\")
}

// knows says that this build reads a key.
func knows(path string) bool {
	return slices.ContainsFunc(Keys(), func(k KnownKey) bool { return k.Path == path })
}

// former reports a key that another one says here, and says that it is such a key. Of
// a mapping that has only such keys it reports each.
func (r *reader) former(p pair, path string) bool {
	for _, f := range formers {
		if f.key == path {
			r.problems.add(p.Place, "%s %s", path, f.answer(p.value))
			return true
		}
	}
	if !slices.ContainsFunc(formers, func(f former) bool { return strings.HasPrefix(f.key, path+".") }) {
		return false
	}
	if len(p.value.pairs) == 0 {
		r.problems.add(p.Place, "%s is not read here; the keys are in `hayrick help job-file`", path)
	}
	for _, q := range p.value.pairs {
		if at := join(path, q.key); !r.former(q, at) {
			r.problems.add(q.Place, "%s is not read here, as nothing of %s is; the keys are in `hayrick help job-file`", shortened(at), path)
		}
	}
	return true
}
