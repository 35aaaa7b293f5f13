package manifest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hayrick"
	. "hayrick/manifest"
)

// damages is what happens to a record on a disk or in somebody's editor.
var damages = map[string]func(body []byte) []byte{
	"empty":             func([]byte) []byte { return nil },
	"cut in the middle": func(b []byte) []byte { return b[:len(b)/2] },
	"last byte gone":    func(b []byte) []byte { return b[:len(bytes.TrimSpace(b))-1] },
	"zeros":             func(b []byte) []byte { return make([]byte, len(b)) },
	"a hole of zeros":   func(b []byte) []byte { return edit(b, func(b []byte) { clear(b[len(b)/3 : len(b)/2]) }) },
	"twice":             func(b []byte) []byte { return slices.Concat(b, b) },
	"a line behind it":  func(b []byte) []byte { return slices.Concat(b, []byte("\nx")) },
	"a BOM before it":   func(b []byte) []byte { return slices.Concat([]byte("\ufeff"), b) },
	"a list":            func(b []byte) []byte { return slices.Concat([]byte("["), b, []byte("]")) },
	"null":              func([]byte) []byte { return []byte("null") },
	"text":              func([]byte) []byte { return []byte("there was a record here") },
	"HTML":              func([]byte) []byte { return []byte("<html>503 Slow Down</html>") },
	"another schema":    set("schema", "hayrick.future/v9"),
	"no schema":         set("schema", nil),
	"schema of a MiB":   set("schema", strings.Repeat("x", 1<<20)),
	"schema a number":   set("schema", 5),
	"another job":       set("job_id", "other-20261120-abcdef"),
	"job id a list":     set("job_id", []string{"x"}),
	"deep": func(b []byte) []byte {
		return slices.Concat([]byte(`{"x":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)+","), b[1:])
	},
}

func edit(b []byte, f func([]byte)) []byte {
	b = slices.Clone(b)
	f(b)
	return b
}

// set changes one field, or drops it, and drops the digest that would tell of it.
func set(field string, value any) func([]byte) []byte {
	return func(b []byte) []byte {
		var v map[string]json.RawMessage
		if err := json.Unmarshal(b, &v); err != nil {
			panic(err)
		}
		delete(v, field)
		delete(v, "self_sha256")
		if value != nil {
			raw, err := json.Marshal(value)
			if err != nil {
				panic(err)
			}
			v[field] = raw
		}
		out, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return out
	}
}

// kinds are the records of a run: where one lies, and how it is read.
var kinds = []struct {
	name string
	key  string
	read func(ctx context.Context, s *Store) error
	more map[string]func([]byte) []byte
}{
	{"plan", Job(storyJob).Plan(), func(ctx context.Context, s *Store) error { _, _, err := s.Plan(ctx, storyJob); return err },
		map[string]func([]byte) []byte{
			"items as text": set("items", "five"), "items too large": set("items", json.RawMessage("99999999999999999999")), "items in half": set("items", 2.5),
			"group a list": set("group", []int{1}), "a time of day": set("submitted_at", "12:00"), "input a mapping": set("input", map[string]int{}),
		}},
	{"result", Job(storyJob).Done("task-0001"), func(ctx context.Context, s *Store) error {
		_, _, err := s.Result(ctx, storyJob, "task-0001")
		return err
	}, map[string]func([]byte) []byte{
		"another task": set("task_id", "task-0002"), "task a number": set("task", 1), "row count negative text": set("row_count", "-1"), "failures as text": set("failures", "none"),
	}},
	{"retry plan", Job(storyJob).RetryPlan(1), func(ctx context.Context, s *Store) error {
		_, _, err := s.RetryPlan(ctx, storyJob, 1)
		return err
	}, map[string]func([]byte) []byte{
		"another number": set("retry_id", "retry-batch-2"), "results as text": set("results", "all"), "error types a list": set("error_types", []string{"timeout"}),
	}},
	{"aggregation plan", Job(storyJob).AggregationPlan(0), func(ctx context.Context, s *Store) error {
		_, _, err := s.AggregationPlan(ctx, storyJob, 0)
		return err
	}, map[string]func([]byte) []byte{"another generation": set("generation", 1), "generation as text": set("generation", "0")}},
	{"order", Job(storyJob).Control(0), func(ctx context.Context, s *Store) error {
		_, _, err := s.Control(ctx, storyJob, 0)
		return err
	}, map[string]func([]byte) []byte{"another number": set("n", 7), "number as text": set("n", "0")}},
	{"outcome", Job(storyJob).Outcome(0), func(ctx context.Context, s *Store) error {
		_, _, err := s.Outcome(ctx, storyJob, 0)
		return err
	}, map[string]func([]byte) []byte{"one item more": set("ok", 5), "its digest gone": set("self_sha256", nil), "chain a list": set("chain", []string{"plan.json"})}},
}

// What is damaged in the store is said in one line that names the object and says that
// it is damaged, whatever the damage is.
func TestDamagedRecords(t *testing.T) {
	story := tell(t)
	whole := story.mem.Snapshot()
	var got strings.Builder
	n := 0
	say := func(name string, read func() error) {
		n++
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := read()
		runtime.ReadMemStats(&after)
		switch used := after.TotalAlloc - before.TotalAlloc; {
		case !errors.Is(err, hayrick.ErrCorrupt):
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
			return
		case used > 64<<20:
			t.Errorf("%s: allocates %d MiB", name, used>>20)
		case len(err.Error()) > 400 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }):
			t.Errorf("%s: this is no line to read: %.500q", name, err)
		}
		fmt.Fprintf(&got, "%s\t%v\n", name, err)
	}
	for _, k := range kinds {
		if whole[k.key] == nil {
			t.Fatalf("the story has no %s", k.key)
		}
		all := maps.Clone(damages)
		maps.Copy(all, k.more)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if err := story.Objects.Replace(t.Context(), k.key, all[name](whole[k.key])); err != nil {
				t.Fatal(err)
			}
			say(k.name+": "+name, func() error { return k.read(t.Context(), story.Store) })
		}
		if err := story.Objects.Replace(t.Context(), k.key, whole[k.key]); err != nil {
			t.Fatal(err)
		}
		if err := k.read(t.Context(), story.Store); err != nil {
			t.Errorf("%s, whole again: %v", k.name, err)
		}
	}

	// The definition, under the digest of what is there.
	config := whole[Job(storyJob).Config(story.plan.DefinitionSHA256)]
	definitions := map[string][]byte{
		"cut in the middle": config[:len(config)/2], "empty": nil, "twice": slices.Concat(config, config), "an unknown key": set("wait", 1)(config),
		"a time without unit": []byte(`{"run":{"item_timeout":"90"}}`), "a size without unit": []byte(`{"merge":{"target_bytes":"64"}}`),
		"a rate without time": []byte(`{"rates":[{"limit":"10"}]}`), "a number too large": []byte(`{"batch":{"items":99999999999999999999}}`),
	}
	for _, name := range slices.Sorted(maps.Keys(definitions)) {
		body := definitions[name]
		say("definition: "+name, func() error { _, err := DecodeDefinition(body, SHA256(body)); return err })
	}
	say("definition: another digest", func() error { _, err := DecodeDefinition(config, strings.Repeat("0", 64)); return err })

	// A list, line by line.
	lists := map[string]string{
		"a line cut": "{\"ordinal\":1}\n{\"ordi\n", "a line of text": "none\n", "another type": "{\"ordinal\":\"one\"}\n", "an empty line": "\n",
	}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		key, body := Job(storyJob).Abs("lists/damaged.jsonl"), []byte(lists[name])
		if err := story.Objects.Replace(t.Context(), key, body); err != nil {
			t.Fatal(err)
		}
		say("list: "+name, func() error {
			ref := Ref{Key: "lists/damaged.jsonl", SHA256: SHA256(body), Count: int64(bytes.Count(body, []byte("\n")))}
			return ReadLines(t.Context(), story.Store, storyJob, ref, func(ListLine) error { return nil })
		})
	}
	if n < 100 {
		t.Errorf("only %d damages", n)
	}

	const golden = "testdata/damaged.txt"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// A record that is as large as one may be, and all of it lists, is refused before its lists
// are made: a results.done of 64 MiB would be gigabytes.
func TestRecordsOfManyValues(t *testing.T) {
	s, m := newStore()
	for name, many := range map[string]string{
		"inputs": `{},`, "key_samples": `"",`,
	} {
		body := `{"schema":"hayrick.result/v1","job_id":"` + storyJob + `","task_id":"task-0001","` + name + `":[` + strings.Repeat(many, (MaxRecordBytes-200)/len(many)) + many[:len(many)-1] + `]}`
		if err := m.Replace(t.Context(), Job(storyJob).Done("task-0001"), []byte(body)); err != nil {
			t.Fatal(err)
		}
		before := allocated()
		_, _, err := s.Result(t.Context(), storyJob, "task-0001")
		used := allocated() - before
		oneLine(t, err)
		if used > 6*MaxRecordBytes { // to read its bytes takes most of it
			t.Errorf("%s: %d MiB were taken for %d", name, used>>20, len(body)>>20)
		}
	}
	// What is written at its largest is far from that.
	r := Result{Schema: SchemaResult, JobID: storyJob, TaskID: "task-0001"}
	for range InlineList {
		r.Inputs = append(r.Inputs, InputFile{Key: "tasks/task-0001/task-0001_7f3a90c1_4be0d2c19a77.parquet", SHA256: told("x"), Rows: 1})
	}
	if _, err := s.CommitResult(t.Context(), r); err == nil {
		t.Error("a result was committed over another")
	}
	r.TaskID = "task-0002"
	if _, err := s.CommitResult(t.Context(), r); err != nil {
		t.Error(err)
	}
}
