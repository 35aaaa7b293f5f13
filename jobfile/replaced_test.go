package jobfile

import (
	"errors"
	"strings"
	"testing"
)

// 002-51: every key of the job files that people bring is read, or answered with what
// to write instead; and what is written instead is read.
func TestKeysOfOtherJobFiles(t *testing.T) {
	head := "version: 1\nname: small\nhandler: {builtin: noop}\n"
	uri := "input: {uri: ./a.jsonl}\n"
	for _, x := range []struct{ key, src, says string }{
		{"name", head + uri, ""}, {"description", head + uri + "description: What it is for.\n", ""},
		{"extends", "extends: base.yaml\n" + head + uri, "extends: there is no file base.yaml"}, // it looks for it
		{"input.format", head + "input: {uri: ./a.jsonl, format: jsonl}\n", ""},
		{"output.format", head + uri + "output: {format: parquet}\n", ""},
		{"output.compression", head + uri + "output: {compression: zstd}\n", ""},
		{"priority", head + uri + "priority: high\n", "priority is not read here: no run waits for another"},
		{"handler_path", head + uri + "handler_path: jobs/my/handler.py\n", "handler_path is not read here"},
		{"handler_kwargs", head + uri + "handler_kwargs: {a: 1}\n", "write handler: {params: {name: value}}"},
		{"batch_size", head + uri + "batch_size: 250\n", "batch_size is not read here; write batch: {items: 250}"},
		{"contact_email", head + uri + "contact_email: a@b.org\n", "write x-contact: "},
		{"phases", head + uri + "phases: [{name: initial}]\n", "a run splits, retries and merges by itself"},
		{"input.type", head + "input: {uri: ./a.jsonl, type: jsonl}\n", "write input: {format: jsonl}"},
		{"input.path", head + uri + "profiles: {p: {input: {path: ./b.jsonl}}}\n", "write input: {uri: ./b.jsonl}"},
		{"input.file_pattern", head + "input: {uri: ./a/, file_pattern: \"*.jsonl\"}\n", "write input: {uri: ./in/} (every file below a folder is read)"},
		{"input.max_tasks", head + "input: {uri: ./a.jsonl, max_tasks: 5}\n", "write input: {limit: 1000}"},
		{"input.batch_size", head + "input: {uri: ./a.jsonl, batch_size: 7}\n", "input.batch_size is not read here; write batch: {items: 7}"},
		{"compute.partition", head + uri + "compute: {partition: short}\n", "compute.partition is not read here: the machine is that of whoever starts hayrick worker"},
		{"compute.nodes", head + uri + "compute: {nodes: 4}\n", "write run: {max_parallel: 4}"},
		{"compute.ntasks_per_node", head + uri + "compute: {ntasks_per_node: 2}\n", "write run: {max_parallel: 2}"},
		{"compute.memory_gb", head + uri + "compute: {memory_gb: 16}\n", "compute.memory_gb is not read here: the machine"},
		{"compute.max_runtime", head + uri + "compute: {max_runtime: \"02:00:00\"}\n", "write budget: {wall: 6h}"},
		{"compute.gpu_type", head + uri + "compute: {gpu_type: a100}\n", "compute.gpu_type is not read here"},
		{"compute.gpu_count", head + uri + "compute: {gpu_count: 1}\n", "compute.gpu_count is not read here"},
		{"compute.account", head + uri + "compute: {account: p31234}\n", "compute.account is not read here"},
		{"compute.job_name", head + uri + "compute: {job_name: b2}\n", "write name: b2"},
		{"compute.output_log_path", head + uri + "compute: {output_log_path: /x}\n", "is kept with it in the store"},
		{"compute.mail_type", head + uri + "compute: {mail_type: END}\n", "compute.mail_type is not read here"},
		{"compute.mail_user", head + uri + "compute: {mail_user: a}\n", "compute.mail_user is not read here"},
		{"output.write_mode", head + uri + "output: {write_mode: overwrite}\n", "write output: {if_exists: overwrite}"},
		{"output.write_mode", head + uri + "output: {write_mode: error_if_exists}\n", "write output: {if_exists: error}"},
		{"output.task_output_queue_prefix", head + uri + "output: {task_output_queue_prefix: x}\n", "no queue has to hold them"},
		{"output.output_location", head + uri + "output: {output_location: ./final/}\n", "write output: {uri: ./final/}"},
		{"output.partition_keys", head + uri + "output: {partition_keys: [day]}\n", "output.partition_keys is not read here"},
		{"output.output_service_name", head + uri + "output: {output_service_name: x}\n", "output.uri says where the dataset goes"},
		{"advanced.checkpoint_interval_minutes", head + uri + "advanced: {checkpoint_interval_minutes: 5}\n", "keeps a journal of every item"},
		{"advanced.retry_failed_tasks", head + uri + "advanced: {retry_failed_tasks: true}\n", "write retry: {passes: 3} (0 = never)"},
		{"advanced.max_retries", head + uri + "advanced: {max_retries: 5}\n", "write retry: {passes: 5}"},
		{"advanced.backoff_strategy", head + uri + "advanced: {backoff_strategy: linear}\n", "write retry: {backoff: {initial: 1s, max: 5m}}"},
		{"advanced.task_timeout_minutes", head + uri + "advanced: {task_timeout_minutes: 45}\n", "write run: {task_timeout: 45m}"},
		{"slurm.memory", head + uri + "slurm: {memory: 8G}\n", "slurm.memory is not read here"},
		{"slurm.cpus", head + uri + "slurm: {cpus: 4}\n", "slurm.cpus is not read here"},
		{"slurm.time", head + uri + "slurm: {time: \"01:00:00\"}\n", "slurm.time is not read here"},
		{"slurm.partition", head + uri + "slurm: {partition: short}\n", "slurm.partition is not read here"},
		{"retry.max_attempts", head + uri + "retry: {max_attempts: 3}\n", "write retry: {in_task: {attempts: 3}}"},
		{"retry.backoff_factor", head + uri + "retry: {backoff_factor: 2.0}\n", "waits double"},
		{"retry.retry_delay", head + uri + "retry: {retry_delay: 60}\n", "write retry: {backoff: {initial: 60s}}"},
		{"rate_limits.tokens_per_second", head + uri + "rate_limits: {tokens_per_second: 5}\n", "write rates: [{name: api, limit: 5/s}]"},
		{"rate_limits.tokens_per_second", head + uri + "rate_limits: {tokens_per_second: 1.5}\n", "write rates: [{name: api, limit: 10/s}]"},
		{"rate_limits.max_tokens", head + uri + "rate_limits: {max_tokens: 50}\n", "write rates: [{name: api, limit: 10/s, burst: 50}]"},
		{"compute", head + uri + "compute:\n", "compute is not read here; the keys are in `hayrick help job-file`"},
		{"compute.queue", head + uri + "compute: {queue: x}\n", "compute.queue is not read here, as nothing of compute is"},
	} {
		_, _, err := resolve("config.yaml", x.src, "", nil)
		if x.says == "" {
			if err != nil {
				t.Errorf("%s: %v", x.key, err)
			}
			continue
		}
		var ps Problems
		if !errors.As(err, &ps) || len(ps) != 1 || !strings.Contains(ps[0].What, x.says) {
			t.Errorf("%s:\n got %v\nwant %s", x.key, err, x.says)
			continue
		}
		instead, ok := strings.CutPrefix(ps[0].What, strings.SplitN(ps[0].What, "write ", 2)[0]+"write ")
		if !ok {
			continue
		}
		instead, _, _ = strings.Cut(instead, " (")
		root, more := parse("instead", instead)
		base := head + uri
		if strings.Contains(instead, "exec:") { // it stands for the builtin one
			base = strings.Replace(base, "handler: {builtin: noop}\n", "", 1)
		}
		under, _ := parse("config.yaml", base)
		var r reader
		d := Defaults()
		merged := overlay(under, root)
		r.definition(merged, &d)
		for _, p := range append(append(more, r.problems...), check(merged, &d, nil)...) {
			t.Errorf("%s is answered with %q, which is no good: %v", x.key, instead, p)
		}
	}
	for _, f := range formers {
		if knows(f.key) {
			t.Errorf("%s is a key, and answered as if it were none", f.key)
		}
	}
}
