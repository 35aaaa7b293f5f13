package manifest_test

import (
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"hayrick"
	. "hayrick/manifest"
)

const h = "0123456789abcdef" // a digest's first digits; keys carry 12 of them

// The keys of the contract, letter by letter.
func TestKeys(t *testing.T) {
	j := Job("job-1")
	for got, want := range map[string]string{
		j.Plan():                                     "plan.json",
		j.Manifest():                                 "manifest.json",
		j.Config(h):                                  "config-0123456789ab.yaml", // 002-56
		j.Bundle(h):                                  "bundle-0123456789ab.tar.zst",
		j.Input("users.jsonl", h):                    "input/0123456789ab-users.jsonl",
		j.Index("initial_batch", 7, h):               "batches/initial_batch/index-7-0123456789ab",
		j.Segment("retry_batch_1", 7, h):             "batches/retry_batch_1/seg-7-0123456789ab.jsonl",
		j.Block("initial_batch", 7, h):               "groups/initial_batch/block-7-0123456789ab.json",
		j.Rows(TaskID(7), "7f3a90c1aa", h):           "tasks/task-0007/task-0007_7f3a90c1_0123456789ab.parquet",
		j.Failures(TaskID(7), "7f3a90c1", h):         "tasks/task-0007/task-0007_7f3a90c1_0123456789ab_failures.jsonl",
		j.Done("task-0007"):                          "tasks/task-0007/results.done",
		j.TaskManifest("task-0007"):                  "tasks/task-0007/manifest.json",
		j.Checkpoint("task-0007", 42, "7f3a90c1", h): "tasks/task-0007/checkpoint/00000042-7f3a90c1-0123456789ab",
		j.RetryPlan(3):                               "retries/retry-3/plan.json",
		j.RetryManifest(3):                           "retries/retry-3/manifest.json",
		j.RetryList(3, "permanent", h):               "retries/retry-3/permanent-0123456789ab.jsonl",
		j.Control(0):                                 "control/0.json",
		j.AggregationPlan(1):                         "aggregation/1/plan.json",
		j.AggregationInputs(1, h):                    "aggregation/1/inputs-0123456789ab.jsonl",
		j.Part(1, 0, h):                              "aggregation/1/part-00000-0123456789ab.parquet",
		j.List(1, "deleted_dids", h):                 "aggregation/1/lists/deleted_dids-0123456789ab.jsonl",
		j.Outcome(1):                                 "outcome-1.json",
		j.AggregationManifest():                      "aggregation/manifest.json",
		j.Done(MergeTaskID(1, 2, 3, 0)):              "tasks/agg-1-2-0003/results.done",
		j.Done(MergeTaskID(1, 2, 3, 2)):              "tasks/agg-1-2-0003-r2/results.done",
	} {
		if got != "jobs/job-1/"+want {
			t.Errorf("%s, want jobs/job-1/%s", got, want)
		}
		if !ValidKey(got) {
			t.Errorf("%s is no key for an object store", got)
		}
		if j.Rel(got) != want || j.Abs(want) != got {
			t.Errorf("%s is %s below its job, and back %s", got, j.Rel(got), j.Abs(want))
		}
	}
	if TaskID(9999) != "task-9999" || TaskID(1234567) != "task-1234567" || BatchID(3) != "batch-0003" || RetryID(2) != "retry-batch-2" {
		t.Error("ids are not the documented ones")
	}
}

// No valid id leads out of the job's folder or into another's key.
func TestKeysStayInside(t *testing.T) {
	id := rapid.StringMatching(`[a-z0-9][a-z0-9._-]{0,40}`).Filter(hayrick.ValidID)
	sha := rapid.StringMatching(`[0-9a-f]{64}`)
	rapid.Check(t, func(t *rapid.T) {
		j, a, b, s, n := Job(id.Draw(t, "job")), id.Draw(t, "a"), id.Draw(t, "b"), sha.Draw(t, "sha"), rapid.IntRange(0, 1e6).Draw(t, "n")
		make := func(id string) []string {
			return []string{
				j.Done(id), j.TaskManifest(id), j.Rows(id, s[:32], s), j.Failures(id, s[:32], s), j.Checkpoint(id, n, s[:32], s),
				j.Index(id, n, s), j.Segment(id, n, s), j.Block(id, n, s), j.List(n, id, s), j.RetryList(n, id, s), j.Input(id, s),
			}
		}
		of := make(a)
		seen := map[string]bool{}
		for _, k := range of {
			if !strings.HasPrefix(k, j.Prefix()) || path.Clean(k) != k || !ValidKey(k) {
				t.Fatalf("key %q of job %q", k, j)
			}
			if seen[k] {
				t.Fatalf("two kinds of objects have the key %s", k)
			}
			seen[k] = true
		}
		if a != b {
			for i, k := range make(b) {
				if k == of[i] {
					t.Fatalf("%s and %s have one key, %s", a, b, k)
				}
			}
		}
	})
}

// An id that passes ValidID is one harmless part of a path, whatever it was made of.
func FuzzValidID(f *testing.F) {
	for _, s := range []string{"task-0001", "..", "a..b", "a/b", "a\x00", "A", ".hidden", "-x", "a\n", strings.Repeat("a", 128), strings.Repeat("a", 129), "é", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if !hayrick.ValidID(id) {
			return
		}
		k := Job("j").Done(id)
		if path.Clean(k) != k || !strings.HasPrefix(k, "jobs/j/tasks/") || strings.Count(k, "/") != 4 || !ValidKey(k) {
			t.Errorf("id %q makes the key %q", id, k)
		}
	})
}

func TestRetryNumber(t *testing.T) {
	for n := 1; n < 2000; n += 7 {
		if got, ok := RetryNumber(hayrick.RetryGroup(n)); !ok || got != n {
			t.Errorf("%s has number %d, %v", hayrick.RetryGroup(n), got, ok)
		}
	}
	for _, s := range []string{"initial_batch", "retry_batch_", "retry_batch_0", "retry_batch_-1", "retry_batch_01", "retry_batch_+1", "retry_batch_1x"} {
		if n, ok := RetryNumber(s); ok {
			t.Errorf("%s has number %d", s, n)
		}
	}
}
