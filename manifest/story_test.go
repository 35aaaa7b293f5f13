package manifest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	. "hayrick/manifest"
	"hayrick/mem"
)

const storyJob = "backfill-20261120-kdmqra"

// testClock moves only when somebody sleeps.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}

// clock is the time of the story in milliseconds after 12:00:00.
func clock(ms int) Time {
	return At(time.Date(2026, 11, 20, 12, 0, 0, ms*int(time.Millisecond), time.UTC))
}

func newStore() (*Store, *mem.Store) {
	c := &testClock{now: clock(0).Time}
	m := mem.New(c)
	return &Store{Objects: m, Clock: c}, m
}

// story writes, through the Store, what the job of five accounts leaves behind: two
// an account batch, one account deleted, one throttled once. It answers what is no
// object of its own.
type story struct {
	*Store
	mem   *mem.Store
	plan  Plan
	index Index
	block Block
	retry [2]RetryPlan
	views map[string]any // by key
}

// told stands for bytes that this package does not make: Parquet and the like.
func told(what string) string { return SHA256([]byte(what)) }

func ptr[T any](v T) *T { return &v }

var accounts = []struct{ did, pds string }{
	{"did:plc:aaa", "pds-1"}, {"did:plc:aab", "pds-1"}, {"did:plc:aac", "pds-2"}, {"did:plc:bbb", "pds-2"}, {"did:plc:ccc", "pds-3"},
}

func account(i int) []byte {
	return fmt.Appendf(nil, `{"did":"%s","pds":"%s"}`, accounts[i].did, accounts[i].pds)
}

func tell(t *testing.T) *story {
	t.Helper()
	ctx := t.Context()
	st, m := newStore()
	s := &story{Store: st, mem: m, views: map[string]any{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	job := Job(storyJob)

	// 1. Submission.
	def := hayrick.JobDefinition{
		Version: 1, Name: "backfill", Handler: hayrick.Handler{Builtin: "atproto.repo"},
		Input: hayrick.Input{URI: "./users.jsonl", Format: "jsonl", Key: "did", OnBadItem: "fail", Snapshot: "auto"},
		Batch: hayrick.Batches{Items: 2},
		Rates: []hayrick.Rate{{Name: "pds", Key: "$(item.pds)", Limit: hayrick.PerTime{N: 10, Per: time.Second}, Burst: 10, Learn: true, Auto: true}},
		Retry: hayrick.Retry{Passes: 2, Classes: map[string]hayrick.Disposition{"repo_not_found": hayrick.Permanent},
			Lists: map[string]string{"repo_not_found": "deleted_dids"}},
		Output: hayrick.Output{URI: "./out/$(run.id)/", Format: "parquet", Compression: "zstd", IfExists: "error"},
	}
	config, defSHA, err := EncodeDefinition(def)
	must(err)
	must(s.PutData(ctx, job.Config(defSHA), config))
	bundle := []byte("the folder jobs/backfill")
	must(s.PutData(ctx, job.Bundle(SHA256(bundle)), bundle))

	group := NewGroupWriter(st, storyJob, hayrick.GroupInitial, hayrick.RoleWorker, 0)
	var users []byte
	for first := 0; first < len(accounts); first += 2 {
		b := Batch{Object: "./users.jsonl", FirstLine: int64(first) + 1, FirstOrdinal: int64(first), Offset: int64(len(users))}
		for i := first; i < min(first+2, len(accounts)); i++ {
			users = append(append(users, account(i)...), '\n')
			b.Items++
		}
		b.Length = int64(len(users)) - b.Offset
		b.SHA256 = SHA256(users[b.Offset:])
		must(group.Add(ctx, b))
	}
	m.SetInput("./users.jsonl", users)
	initial, err := group.Close(ctx)
	must(err)
	s.plan = Plan{
		Schema: SchemaPlan, JobID: storyJob, DefinitionSHA256: defSHA, BundleSHA256: SHA256(bundle),
		CodeVersion: "hayrick v0.1.0+" + Short(SHA256(bundle)),
		Job: JobFields{JobType: "backfill", Handler: "atproto.repo", GitCommit: "a3c123f", ConfigFile: "jobs/backfill/config.yaml",
			BatchSize: 2, SubmittedBy: "user@host"},
		Input: []InputID{{URI: "./users.jsonl", Object: "./users.jsonl", Items: 5, Pin: Pin{Size: int64(len(users)), MTime: clock(0), DevInode: "8:1/77"}}},
		Items: 5, Group: initial, SubmittedAt: clock(1000),
	}
	planned, err := s.CommitPlan(ctx, s.plan)
	must(err)
	view := func(key string, v any) {
		t.Helper()
		s.views[key] = v
		must(s.PutView(ctx, key, v))
	}
	view(job.Manifest(), JobView(s.plan, string(hayrick.StatusRunning), 0, nil))
	members, err := s.Members(ctx, storyJob, 0, initial)
	must(err)
	s.block, err = members.Block(ctx, st, 0)
	must(err)
	s.index, err = members.Index(ctx, st, 0)
	must(err)

	// 2. The worker tasks.
	var inputs []MergeInput
	run := func(group string, n int64, b Batch, rows int64, requests int64, startMS int, failed ...FailureLine) ResultRef {
		t.Helper()
		id := TaskID(n)
		attempt := told("attempt of " + id)[:32]
		r := Result{
			Schema: SchemaResult, JobID: storyJob, TaskID: id, BatchID: ptr(b.BatchID), Status: string(hayrick.TaskDone),
			Attempt: attempt, Fence: 1, RowHash: "0", DroppedHash: "0", Items: b.Items, OK: b.Items - len(failed), Failed: len(failed),
			BatchSHA256: b.SHA256, CodeVersion: s.plan.CodeVersion, WrittenAt: clock(startMS + 2120),
			Task: TaskFields{
				Role: string(hayrick.RoleWorker), Phase: string(hayrick.PhaseOf(group)), Group: group, Worker: "local-1",
				Input:      fmt.Sprintf("%s#%d-%d", b.Object, b.Offset, b.Offset+b.Length),
				OutputFile: fmt.Sprintf("job/%s/task/%s/%s.sqlite", storyJob, id, id),
				StartTime:  clock(startMS), EndTime: clock(startMS + 2100),
				Metrics: map[string]int64{"items_processed": int64(b.Items), "api_requests": requests, "rate_wait_ms": 310, "bytes_downloaded": 235126, "cpu_ms": 41, "rss_bytes_max": 61000000},
			},
		}
		if rows > 0 {
			body := []byte("rows of " + id)
			key := job.Rows(id, attempt, SHA256(body))
			must(s.PutData(ctx, key, body))
			r.File, r.SHA256, r.Bytes, r.RowCount = ptr(job.Rel(key)), SHA256(body), int64(len(body)), rows
			r.RowHash, r.SchemaDigest = told("hash of " + id)[:32], told("schema")
		}
		if len(failed) > 0 {
			var body []byte
			r.Failures = &Failures{Count: len(failed), ByClass: map[string]int64{}}
			for _, f := range failed {
				line, err := EncodeLine(f)
				must(err)
				body = append(body, line...)
				r.Failures.ByClass[f.Class]++
			}
			key := job.Failures(id, attempt, SHA256(body))
			must(s.PutData(ctx, key, body))
			r.Failures.File, r.Failures.SHA256 = job.Rel(key), SHA256(body)
		}
		done, err := s.CommitResult(ctx, r)
		must(err)
		view(job.TaskManifest(id), TaskView(r))
		in := MergeInput{TaskID: id, BatchID: b.BatchID, DoneSHA256: done.SHA256, SHA256: r.SHA256, Bytes: r.Bytes, Rows: rows, RowHash: r.RowHash}
		if r.File != nil {
			in.File = *r.File
		}
		inputs = append(inputs, in)
		ref := ResultRef{TaskID: id, SHA256: done.SHA256}
		for _, f := range failed {
			if !hayrick.Disposition(f.Disposition).Final() {
				ref.Retried++
			}
		}
		return ref
	}
	throttled := FailureLine{Ordinal: 3, Key: "did:plc:bbb", Class: "rate_limit", Disposition: string(hayrick.RateLimit), Message: "429 from pds-2", Tries: 3, RetryAfterMS: 1200}
	deleted := FailureLine{Ordinal: 4, Key: "did:plc:ccc", Class: "repo_not_found", Disposition: string(hayrick.Permanent), Message: "RepoNotFound: could not find repo", Tries: 1}
	first := []ResultRef{
		run(hayrick.GroupInitial, 0, s.index.Batches[0], 5, 2, 2000),
		run(hayrick.GroupInitial, 1, s.index.Batches[1], 3, 4, 2000, throttled),
		run(hayrick.GroupInitial, 2, s.index.Batches[2], 0, 1, 2000, deleted),
	}

	// 3. The retry planner, twice.
	again, err := EncodeLine(RetryItem{Ordinal: 3, Item: account(3), Tries: 3, Classes: []string{"rate_limit"}})
	must(err)
	segment := job.Segment("retry_batch_1", 0, SHA256(again))
	must(s.PutData(ctx, segment, again))
	group = NewGroupWriter(st, storyJob, "retry_batch_1", hayrick.RoleWorker, 3)
	must(group.Add(ctx, Batch{Object: StoreScheme + job.Rel(segment), FirstLine: 1, FirstOrdinal: 3, Items: 1, Length: int64(len(again)), SHA256: SHA256(again), Retry: true}))
	retried, err := group.Close(ctx)
	must(err)
	gone, err := EncodeLine(ListLine{Ordinal: 4, Key: "did:plc:ccc", Class: "repo_not_found", Message: deleted.Message, TaskID: "task-0002", Tries: 1})
	must(err)
	listed := job.RetryList(1, "permanent", SHA256(gone))
	must(s.PutData(ctx, listed, gone))
	s.retry[0] = RetryPlan{
		Schema: SchemaRetryPlan, JobID: storyJob, RetryID: RetryID(1), Closed: hayrick.GroupInitial,
		Predecessor: Link{Key: "plan.json", SHA256: planned.SHA256}, Next: "retry_batch_1", Tasks: 1, Items: 1, Permanent: 1,
		FailedTasks: 1, ErrorTypes: map[string]int64{"rate_limit": 1}, NotBefore: clock(5320), Results: first,
		PermanentList: &Ref{Key: job.Rel(listed), SHA256: SHA256(gone), Count: 1}, Group: &retried, SubmittedAt: clock(4200),
	}
	opened, err := s.CommitRetryPlan(ctx, 1, s.retry[0])
	must(err)
	failed, err := s.FailedTasks(ctx, opened.Record)
	must(err)
	view(job.RetryManifest(1), RetryView(opened.Record, failed))

	members, err = s.Members(ctx, storyJob, 0, retried)
	must(err)
	index, err := members.Index(ctx, st, 0)
	must(err)
	second := []ResultRef{run("retry_batch_1", 3, index.Batches[0], 3, 1, 5320)}
	s.retry[1] = RetryPlan{
		Schema: SchemaRetryPlan, JobID: storyJob, RetryID: RetryID(2), Closed: "retry_batch_1",
		Predecessor: Link{Key: "retries/retry-1/plan.json", SHA256: opened.SHA256}, Next: NextAggregation,
		ErrorTypes: map[string]int64{}, Results: second, SubmittedAt: clock(7500),
	}
	nothing, err := s.CommitRetryPlan(ctx, 2, s.retry[1])
	must(err)
	view(job.RetryManifest(2), RetryView(nothing.Record, nil))

	// 4. Aggregation.
	group = NewGroupWriter(st, storyJob, hayrick.GroupAggregation, hayrick.RoleAggregator, 0)
	must(group.AddMerge(ctx, MergeTaskID(0, 1, 0, 0), Span{First: 0, Count: 4}))
	merges, err := group.Close(ctx)
	must(err)
	_, err = s.CommitAggregationPlan(ctx, AggregationPlan{
		Schema: SchemaAggregationPlan, JobID: storyJob, Predecessor: Link{Key: "retries/retry-2/plan.json", SHA256: nothing.SHA256},
		Columns: json.RawMessage(`{"fields":[{"name":"did","kind":"string"}]}`), Tree: Tree{FanIn: 10, Nodes: []int64{1}},
		OK: 4, Rows: 11, RowHash: told("hash of all")[:32], Inputs: inputs, Group: &merges, PlannedAt: clock(7600),
	})
	must(err)
	mergeID := MergeTaskID(0, 1, 0, 0)
	attempt := told("attempt of " + mergeID)[:32]
	body := []byte("rows of " + mergeID)
	merged := Result{
		Schema: SchemaResult, JobID: storyJob, TaskID: mergeID, Status: string(hayrick.TaskDone), Attempt: attempt, Fence: 1,
		File: ptr(job.Rel(job.Rows(mergeID, attempt, SHA256(body)))), SHA256: SHA256(body), Bytes: int64(len(body)),
		RowCount: 11, RowHash: told("hash of all")[:32], DroppedHash: "0", CodeVersion: s.plan.CodeVersion, WrittenAt: clock(8000),
		Task: TaskFields{Role: string(hayrick.RoleAggregator), Phase: string(hayrick.PhaseAggregation), Group: hayrick.GroupAggregation,
			Worker: "local-1", StartTime: clock(7700), EndTime: clock(7990), Metrics: map[string]int64{"cpu_ms": 12}},
	}
	for _, in := range inputs {
		if in.File != "" {
			merged.Inputs = append(merged.Inputs, InputFile{Key: in.File, SHA256: in.SHA256, Rows: in.Rows})
		}
	}
	must(s.PutData(ctx, job.Abs(*merged.File), body))
	mergeDone, err := s.CommitResult(ctx, merged)
	must(err)
	view(job.TaskManifest(mergeID), TaskView(merged))
	part := []byte("11 rows")
	partKey := job.Part(0, 0, SHA256(part))
	must(s.PutData(ctx, partKey, part))
	line := bytes.Clone(gone)
	listKey := job.List(0, "deleted_dids", SHA256(line))
	must(s.PutData(ctx, listKey, line))
	agg := Aggregation{
		Schema: SchemaAggregation, JobID: storyJob, Phase: string(hayrick.PhaseAggregation), InputFileCount: 3,
		OutputFile: ptr(job.Rel(partKey)), OutputHash: told("sources and footer"), TotalRows: 11, RowCountsByBatch: map[string]int64{},
		Parts:     []Part{{Name: "part-00000.parquet", Key: job.Rel(partKey), SHA256: SHA256(part), Bytes: int64(len(part)), Rows: 11, RowHash: told("hash of all")[:32]}},
		Lists:     []List{{Name: "deleted_dids", Key: job.Rel(listKey), SHA256: SHA256(line), Count: 1}},
		WrittenAt: clock(9000),
	}
	for _, in := range inputs {
		if in.File != "" {
			agg.InputFiles = append(agg.InputFiles, in.File)
			agg.RowCountsByBatch[in.BatchID] = in.Rows
		}
	}
	chain, err := s.Chain(ctx, storyJob, 0)
	must(err)
	chain[job.Rel(job.Done(mergeID))] = mergeDone.SHA256 // nothing else names it
	_, err = s.CommitOutcome(ctx, Outcome{
		Schema: SchemaOutcome, JobID: storyJob, Status: string(hayrick.JobSucceeded), Items: 5, OK: 4, Permanent: 1,
		RowCount: 11, RowHash: told("hash of all")[:32], DroppedHash: "0",
		Chain: chain, Aggregation: &agg, EndedAt: clock(9010),
	})
	must(err)
	view(job.AggregationManifest(), agg)

	// An order, as `pause` gives it.
	_, err = s.CommitControl(ctx, Control{Schema: SchemaControl, JobID: storyJob, N: 0, Order: OrderPause, Rule: "input_changed",
		Group: hayrick.GroupInitial, Reason: "bytes 50 to 100 of ./users.jsonl changed; restore the file and resume", By: "local-1", At: clock(3000)})
	must(err)
	return s
}

// objects is every JSON object of the story under the name of its golden file.
func (s *story) objects(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for key, body := range s.mem.Snapshot() {
		rel := Job(storyJob).Rel(key)
		name := strings.NewReplacer("/", "_", ".json", "").Replace(rel)
		switch {
		case strings.HasSuffix(rel, ".parquet"), strings.HasPrefix(rel, "bundle-"):
			continue
		case rel == "plan.json":
			name = "plan"
		case rel == "manifest.json":
			name = "job"
		case strings.HasPrefix(rel, "config-"):
			name = "config"
		case strings.HasPrefix(rel, "batches/"), strings.HasPrefix(rel, "groups/"):
			name = name[:strings.LastIndexByte(name, '-')]
		case strings.HasSuffix(rel, "_failures.jsonl"):
			name = strings.Split(rel, "/")[1] + "_failures"
		case strings.HasSuffix(rel, "results.done"):
			name = strings.Split(rel, "/")[1] + "_result"
		case strings.HasPrefix(rel, "tasks/"):
			name = strings.Split(rel, "/")[1] + "_manifest"
		case strings.HasPrefix(rel, "retries/"), strings.HasPrefix(rel, "aggregation/"):
			if strings.HasSuffix(rel, ".jsonl") {
				name = name[:strings.LastIndexByte(name, '-')]
			}
		}
		if _, ok := out[name]; ok {
			t.Fatalf("two objects are called %s", name)
		}
		out[name] = body
	}
	return out
}
