package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"hayrick"

	. "hayrick/manifest"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

const goldenSuffix = ".golden.json"

// The golden files are the objects of one tiny job, spread out for reading: without
// their white space they are the bytes of the store.
func TestGolden(t *testing.T) {
	got := tell(t).objects(t)
	if *rewrite {
		old, _ := filepath.Glob("testdata/*" + goldenSuffix)
		for _, f := range old {
			os.Remove(f)
		}
		for name, body := range got {
			if err := os.WriteFile("testdata/"+name+goldenSuffix, spread(t, body), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	files, err := filepath.Glob("testdata/*" + goldenSuffix)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), goldenSuffix))
	}
	if want := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
		t.Fatalf("golden files %v, objects %v", names, want)
	}
	for _, name := range names {
		want, err := os.ReadFile("testdata/" + name + goldenSuffix)
		if err != nil {
			t.Fatal(err)
		}
		if s := spread(t, got[name]); !bytes.Equal(s, want) {
			t.Errorf("%s is now\n%s\nwas\n%s", name, s, want)
		}
	}
}

// spread indents a record, or each line of a list.
func spread(t *testing.T, body []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	dec := json.NewDecoder(bytes.NewReader(body))
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
		if err := json.Indent(&out, raw, "", "  "); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// Every record reads back as itself, and encodes to the bytes it came from.
func TestGoldenRoundTrip(t *testing.T) {
	objects := tell(t).objects(t)
	seen := map[string]bool{}
	for name, body := range objects {
		var head struct {
			Schema string `json:"schema"`
		}
		if json.Unmarshal(body, &head) != nil || head.Schema == "" {
			continue // the definition and the lists
		}
		fresh := recordTypes[head.Schema]
		if fresh == nil {
			t.Errorf("%s has the unknown schema %s", name, head.Schema)
			continue
		}
		seen[head.Schema] = true
		v := fresh()
		if err := Decode(body, head.Schema, v); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, x := range []any{v, reflect.ValueOf(v).Elem().Interface()} {
			encode := Encode
			if bytes.Contains(body, sealed) {
				encode = Seal
			}
			if again, err := encode(x); err != nil || !bytes.Equal(again, body) {
				t.Errorf("%s encodes as\n%s (%v), it came from\n%s", name, again, err, body)
			}
		}
	}
	if len(seen) != len(recordTypes) {
		t.Errorf("the story has %d of %d kinds of records", len(seen), len(recordTypes))
	}
}

// sealed begins the digest that a commit carries.
var sealed = []byte(`"self_sha256":"`)

// Every commit carries its own digest: whichever byte of one changes, it is refused.
func TestNoByteOfACommitChanges(t *testing.T) {
	commits := 0
	for name, body := range tell(t).objects(t) {
		if !bytes.Contains(body, sealed) {
			continue
		}
		commits++
		var head struct {
			Schema string `json:"schema"`
		}
		if err := json.Unmarshal(body, &head); err != nil {
			t.Fatal(err)
		}
		for at := range body {
			bad := bytes.Clone(body)
			bad[at] ^= 1 << (at % 8)
			var any map[string]any
			err := Decode(bad, head.Schema, &any)
			if errors.Is(err, hayrick.ErrCorrupt) {
				continue
			}
			// Without the name of the digest there is none, and all else is as it was.
			if i := bytes.Index(body, sealed); err != nil || at < i || at >= i+len(sealed) {
				t.Fatalf("%s with byte %d changed to %q: %v", name, at, bad[at], err)
			}
		}
		for _, cut := range []int{0, 1, len(body) / 2, len(body) - 1} {
			var any map[string]any
			if err := Decode(body[:cut], head.Schema, &any); !errors.Is(err, hayrick.ErrCorrupt) {
				t.Errorf("%s cut to %d bytes: %v", name, cut, err)
			}
		}
	}
	if commits < 8 {
		t.Errorf("the story has %d commits", commits)
	}
}

// 002-23, 002-24, 002-25: the founding document's fields stand under its names.
func TestSeedFields(t *testing.T) {
	objects := tell(t).objects(t)
	for name, fields := range map[string]string{
		"job": "job_id job_type handler git_commit config_file input_file batch_size task_count slurm_array_id submitted_at submitted_by phases status",
		"task-0001_manifest": "job_id task_id batch_id role phase group input_s3 output_file status start_time end_time metrics error" +
			" type retries", // 002-13, 002-14: the task's namespace and metadata
		"task-0001_result":         "job_id batch_id file status row_count sha256 written_at",
		"retries_retry-1_manifest": "retry_id parent_job_id failed_tasks error_types retries_launched submitted_at",
		"aggregation_manifest":     "job_id phase input_files output_file total_rows output_hash row_counts_by_batch written_at",
	} {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(objects[name], &m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for f := range strings.FieldsSeq(fields) {
			if _, ok := m[f]; !ok {
				t.Errorf("%s has no field %s", name, f)
			}
		}
	}
}

// The status of a task view says whether something is left to look at.
func TestTaskViewStatus(t *testing.T) {
	for want, r := range map[string]Result{
		"SUCCESS": {Status: "DONE", Items: 2, OK: 2},
		"PARTIAL": {Status: "DONE", Items: 2, OK: 1, Failed: 1},
		"FAILED":  {Status: "FAILED"},
	} {
		if v := TaskView(r); v.Status != want || v.Type != "system" {
			t.Errorf("%+v shows as %s, %s", r, v.Status, v.Type)
		}
	}
	if v := TaskView(Result{Task: TaskFields{Role: "worker"}}); v.Type != "worker" {
		t.Errorf("a worker task is of type %s", v.Type)
	}
}

// What the plan of the story names is there with the digest it names.
func TestGoldenChain(t *testing.T) {
	s := tell(t)
	ctx := t.Context()
	o, _, err := s.Outcome(ctx, storyJob, 0)
	if err != nil {
		t.Fatal(err)
	}
	for rel, sha := range o.Chain {
		body, err := s.Raw(ctx, Job(storyJob).Abs(rel))
		if err != nil || SHA256(body) != sha {
			t.Errorf("%s has SHA-256 %s (%v), the outcome names %s", rel, SHA256(body), err, sha)
		}
	}
	for i, group := range []string{"initial_batch", "retry_batch_1", "final_aggregation"} {
		g, link, err := s.OpenGroup(ctx, storyJob, 0, group)
		if err != nil {
			t.Fatal(err)
		}
		if o.Chain[link.Key] != link.SHA256 || g.Tasks != []int64{3, 1, 1}[i] {
			t.Errorf("%s: %d tasks, opened by %v", group, g.Tasks, link)
		}
	}
}
