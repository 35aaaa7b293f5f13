package jobfile

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hayrick"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/bad/*.txt and testdata/bad/one/expected.txt anew")

// Each file of testdata/bad has beside it what is said of it, all problems at once.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = resolve("config.yaml", string(src), "", nil)
			var ps Problems
			if !errors.As(err, &ps) || len(ps) == 0 {
				t.Fatalf("err = %v, want Problems", err)
			}
			got := ps.Error() + "\n"
			golden := strings.TrimSuffix(path, ".yaml") + ".txt"
			if *rewrite {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

const small = `version: 1
name: small
handler: {builtin: noop}
input: {uri: ./a.jsonl}
`

func load(t *testing.T, src, profile string, sets ...string) hayrick.JobDefinition {
	t.Helper()
	d, _, err := resolve("config.yaml", src, profile, sets)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// What a file leaves out is filled in, so that the stored copy says everything.
func TestDefaults(t *testing.T) {
	want := Defaults()
	want.Version, want.Name, want.Handler.Builtin, want.Input.URI = 1, "small", "noop", "./a.jsonl"
	if d := cmp.Diff(want, load(t, small, "")); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if want.Batch.Items != 100 || want.Output.URI != "./out/$(run.id)/" || want.Merge.FanIn != 10 {
		t.Errorf("defaults are %+v", want)
	}
}

func TestEveryKey(t *testing.T) {
	no := false
	yes := true
	want := hayrick.JobDefinition{
		Version: 1, Name: "full", Description: "Every key of a job file.",
		Handler: hayrick.Handler{Builtin: "noop", Params: json.RawMessage(
			`{"date":"2024-07-01","list":["a",{"b":"c"}],"none":null,"on":true,"part":0.5,"text":"1","whole":1}`)},
		Input: hayrick.Input{URI: "./items.jsonl", Format: "jsonl", Key: "id", Limit: 1000, OnBadItem: "skip", Snapshot: "copy"},
		Batch: hayrick.Batches{Items: 10},
		Run: hayrick.Run{MaxParallel: 2, ItemsInFlight: 3, TaskTimeout: dur(90 * time.Minute), ItemTimeout: dur(2 * time.Minute),
			Lease: dur(20 * time.Second), Linger: dur(5 * time.Second)},
		Rates: []hayrick.Rate{
			{Name: "api", Limit: hayrick.PerTime{N: 3000, Per: 5 * time.Minute}, Burst: 12, Scope: "store", Learn: true, Auto: true, Idle: dur(24 * time.Hour)},
			{Name: "host", Key: "$(item.host)", Limit: hayrick.PerTime{N: 10, Per: time.Second}, Burst: 5, Scope: "job", Idle: dur(time.Hour)},
		},
		Retry: hayrick.Retry{
			InTask:  hayrick.InTask{Attempts: 5, Initial: dur(200 * time.Millisecond), Max: dur(10 * time.Second)},
			Passes:  2,
			Backoff: hayrick.Backoff{Initial: dur(2 * time.Second), Max: dur(time.Minute)},
			Classify: []hayrick.ClassRule{
				{Status: []hayrick.StatusCode{"404", "41x"}, As: "gone"},
				{Class: "io", Message: expression(t, "(?i)connection reset|broken pipe"), As: "network"},
			},
			Classes: map[string]hayrick.Disposition{"gone": "permanent", "refused": "permanent", "slow_down": "rate_limit"},
			Lists:   map[string]string{"gone": "gone_items"},
			StopIf:  &hayrick.StopIf{FailedFraction: 0.25, AfterItems: 2000},
		},
		Output: hayrick.Output{URI: "./final/$(run.id)/", Format: "parquet", Compression: "zstd", IfExists: "overwrite",
			Schema:   []hayrick.Column{{Name: "did", Type: "string"}, {Name: "day", Type: "string"}, {Name: "size", Type: "int"}},
			UniqueBy: []string{"did"}, Keep: "last", PartitionBy: []string{"day"}},
		Merge: hayrick.Merge{FanIn: 4, TargetRows: 1000, TargetBytes: 1 << 20, ByCount: true, RowGroup: 500, PartBytes: 10 << 20,
			Dictionary: &yes, ReadBack: &no},
		Budget: &hayrick.Budget{USD: 25.5, Wall: dur(6 * time.Hour)},
	}
	if d := cmp.Diff(want, load(t, readFile(t, "testdata/full.yaml"), "")); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func expression(t *testing.T, source string) (e hayrick.Expression) {
	t.Helper()
	if err := e.UnmarshalText([]byte(source)); err != nil {
		t.Fatal(err)
	}
	return e
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Where a run is kept is no part of what it is.
func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "job.yaml")
	text := small + "store: s3://lab\nprofiles: {here: {store: ./here}}\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for profile, want := range map[string]string{"": "s3://lab", "here": "./here"} {
		f, err := Load(path, profile, nil)
		if err != nil {
			t.Fatal(err)
		}
		if f.Store != want {
			t.Errorf("profile %q: the store is %q, want %q", profile, f.Store, want)
		}
		if d := cmp.Diff(load(t, small, ""), f.Definition); d != "" {
			t.Errorf("profile %q: the definition differs:\n%s", profile, d)
		}
	}
}

// A profile changes what it names; lists and single values are replaced whole.
func TestProfile(t *testing.T) {
	full := readFile(t, "testdata/full.yaml")
	base, d := load(t, full, ""), load(t, full, "small")
	base.Input.Limit, base.Retry.StopIf.AfterItems = 5, 10
	base.Handler.Params = json.RawMessage(strings.Replace(string(base.Handler.Params), `"text":"1"`, `"text":"other"`, 1))
	if d := cmp.Diff(base, d); d != "" {
		t.Errorf("small: -want +got\n%s", d)
	}
	own := load(t, full, "own")
	if !own.Input.Items || own.Input.URI != "" || len(own.Rates) != 0 || own.Input.Limit != 1000 {
		t.Errorf("own: input %+v, %d rates", own.Input, len(own.Rates))
	}
	_, _, err := resolve("config.yaml", full, "smal", nil)
	if got, want := fmt.Sprint(err), `config.yaml: there is no profile "smal"; did you mean "small"?`; got != want {
		t.Errorf("err = %s, want %s", got, want)
	}
	_, _, err = resolve("config.yaml", full, "nothing-like-it", nil)
	if got, want := fmt.Sprint(err), `config.yaml: there is no profile "nothing-like-it"; one of: small, own`; got != want {
		t.Errorf("err = %s, want %s", got, want)
	}
}

func TestSet(t *testing.T) {
	d := load(t, readFile(t, "testdata/full.yaml"), "small",
		"run.max_parallel=64", "input.limit=9", "handler.params.demo.accounts=40", "rates.host.limit=7/s", "rates.0.burst=3",
		"output.uri=./elsewhere/$(run.id)", "retry.permanent=[a, b]", "input.key=", "merge.read_back=true")
	if d.Run.MaxParallel != 64 || d.Input.Limit != 9 || d.Rates[1].Limit.N != 7 || d.Rates[0].Burst != 3 ||
		d.Output.URI != "./elsewhere/$(run.id)" || d.Retry.Classes["b"] != hayrick.Permanent || d.Input.Key != "" || !*d.Merge.ReadBack {
		t.Errorf("got %+v", d)
	}
	if !strings.Contains(string(d.Handler.Params), `"demo":{"accounts":40}`) || !strings.Contains(string(d.Handler.Params), `"whole":1`) {
		t.Errorf("params %s", d.Handler.Params)
	}
	for arg, want := range map[string]string{
		"run.max_parallel":     "--set run.max_parallel: write --set a.b=value, such as --set run.max_parallel=4",
		"run.max_paralel=3":    `--set run.max_paralel=3: unknown key "max_paralel" in run; did you mean "max_parallel"?`,
		"run.item_timeout=90":  "--set run.item_timeout=90: run.item_timeout: 90 has no unit; write it as 90s",
		"rates.3.limit=1/s":    `--set rates.3.limit=1/s: the list has no item "3"; name one by its number from 0 or by its name`,
		"batch={items: 1":      `--set batch={items: 1: this { is not closed; write } behind the last of it`,
		"name.x=1":             "--set name.x=1: name: a mapping; write text",
		"batch.items=&a 1":     "--set batch.items=&a 1: anchors (&) and aliases (*) are not read; write the value out, or quote it",
		"run.item_timeout=40m": "--set run.item_timeout=40m: run.item_timeout: 40m is not below run.task_timeout, 30m; a task must have time for an item",
	} {
		src := small + "rates: [{name: a, limit: 1/s}]\n"
		_, _, err := resolve("config.yaml", src, "", []string{arg})
		if got := fmt.Sprint(err); got != want {
			t.Errorf("--set %s:\n got %s\nwant %s", arg, got, want)
		}
	}
}

// 002-56: the resolved definition, as it is stored beside a run, is itself a job file
// that resolves to the same definition.
func TestStoredFormIsAJobFile(t *testing.T) {
	for _, profile := range []string{"", "small", "own"} {
		d := load(t, readFile(t, "testdata/full.yaml"), profile)
		stored, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		again := load(t, string(stored), "")
		again.Handler.Params, d.Handler.Params = compact(t, again.Handler.Params), compact(t, d.Handler.Params)
		if diff := cmp.Diff(d, again); diff != "" {
			t.Errorf("profile %q: -stored +read again\n%s", profile, diff)
		}
	}
}

func compact(t *testing.T, raw json.RawMessage) json.RawMessage {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The job that is shipped, in both its forms.
func TestShippedJob(t *testing.T) {
	for _, profile := range []string{"", "demo"} {
		f, err := Load("../jobs/backfill", profile, nil)
		if err != nil {
			t.Fatal(err)
		}
		if f.Path != "../jobs/backfill/config.yaml" || f.Dir != "../jobs/backfill" || f.Profile != profile || f.ModTime.IsZero() {
			t.Errorf("file %+v", f)
		}
		if f.Definition.Name != "backfill" || f.Definition.Input.Items != (profile == "demo") {
			t.Errorf("profile %q: %+v", profile, f.Definition.Input)
		}
		if at := f.At("rates[1].limit"); at.Line == 0 || !strings.HasPrefix(at.String(), "../jobs/backfill/config.yaml:") {
			t.Errorf("rates[1].limit is at %s", at)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	if _, err := Load(t.TempDir(), "", nil); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("an empty folder: %v, want ErrNotFound", err)
	}
	for name, src := range map[string]string{
		"large":  small + "# " + strings.Repeat("x", maxBytes),
		"tokens": small + strings.Repeat("a: b\n", maxTokens),
	} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
		var ps Problems
		if _, err := Load(path, "", nil); !errors.As(err, &ps) || len(ps) != 1 || !strings.Contains(ps[0].What, "put items into the input file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSuggestions(t *testing.T) {
	known := []string{"run", "rates", "retry", "max_parallel", "items"}
	for word, want := range map[string]string{
		"rtaes": `; did you mean "rates"?`, "retrys": `; did you mean "retry"?`, "max_paralell": `; did you mean "max_parallel"?`,
		"unrelated": "; one of: run, rates, retry, max_parallel, items", "": "; one of: run, rates, retry, max_parallel, items",
	} {
		if got := meant(word, known); got != want {
			t.Errorf("%q%s, want %s", word, got, want)
		}
	}
}

// Whatever the bytes are, reading them ends in a definition or in problems that say
// where.
func FuzzResolve(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, path := range append(files, "testdata/full.yaml", "../jobs/backfill/config.yaml") {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b), "small", "run.max_parallel=3")
	}
	for _, src := range []string{
		"{", "[", "]", "- - - -", "? ", ": ", "a:\n  - b\n c", "%YAML 1.2\n---\na", "!!binary x", "a: |\n  b\n", "a: >-\n", "\xff\xfe", "\x00",
		"a: 'b", "a: \"\\u12\"", "*a", "&a", "<<: {}", "--- ---", "...", "\t", "{a: {b: {c: d}}}", "profiles: {x: null}", "rates: [null, {}, 1]",
	} {
		f.Add(src, "x", "a.b=c")
		f.Add(small, src, src)
	}
	f.Fuzz(func(t *testing.T, src, profile, arg string) {
		d, root, err := resolve("config.yaml", src, profile, []string{arg})
		var ps Problems
		switch {
		case err == nil:
			if d.Version != 1 || !hayrick.ValidID(d.Name) || root == nil {
				t.Errorf("valid, but %+v", d)
			}
			if _, err := json.Marshal(d); err != nil {
				t.Errorf("the definition cannot be stored: %v", err)
			}
		case !errors.As(err, &ps) || len(ps) == 0:
			t.Errorf("err = %v, want Problems", err)
		default:
			for _, p := range ps {
				if p.File == "" || p.What == "" || strings.ContainsAny(p.What, "\n") {
					t.Errorf("problem %q", p)
				}
			}
		}
	})
}
