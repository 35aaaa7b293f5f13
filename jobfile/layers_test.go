package jobfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hayrick"
)

// folder writes files into a folder of its own and makes it the working directory.
func folder(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func getenv(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// 002-51: a job file goes on from a base file, which is found beside it.
func TestExtends(t *testing.T) {
	folder(t, map[string]string{
		"jobs/a/config.yaml": "extends: ../base.yaml\nname: a\nbatch: {items: 5}\n",
		"jobs/base.yaml":     "extends: deep/root.yaml\nversion: 1\nhandler: {builtin: noop, params: {a: 1}}\ninput: {uri: ./a.jsonl}\nrates: [{name: api, limit: 1/s}]\n",
		"jobs/deep/root.yaml": "handler: {params: {a: 0, b: 2}}\nbatch: {items: 7}\nrun: {max_parallel: 3}\nrates: [{name: x, limit: 2/s}, {name: y, limit: 2/s}]\n" +
			"profiles: {small: {input: {limit: 4}}}\n",
	})
	later := time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := os.Chtimes("jobs/deep/root.yaml", later, later); err != nil {
		t.Fatal(err)
	}
	f, err := Load("jobs/a", "small", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Version, want.Name, want.Handler.Builtin, want.Input.URI = 1, "a", "noop", "./a.jsonl"
	want.Handler.Params, want.Batch.Items, want.Run.MaxParallel, want.Input.Limit = []byte(`{"a":1,"b":2}`), 5, 3, 4
	want.Rates = []hayrick.Rate{{Name: "api", Limit: hayrick.PerTime{N: 1, Per: time.Second}, Burst: 3, Scope: "store", Learn: true, Auto: true, Idle: dur(24 * time.Hour)}}
	if d := cmp.Diff(want, f.Definition); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if !f.ModTime.Equal(later) {
		t.Errorf("the file is from %v; the newest that went into it is from %v", f.ModTime, later)
	}
	if at := f.At("run.max_parallel").String(); at != filepath.FromSlash("jobs/deep/root.yaml:3:21") {
		t.Errorf("run.max_parallel is at %s", at)
	}
}

func TestExtendsProblems(t *testing.T) {
	head := "version: 1\nname: a\nhandler: {builtin: noop}\ninput: {uri: ./a.jsonl}\n"
	files := map[string]string{
		"self.yaml": "extends: self.yaml\n" + head, "a.yaml": "extends: ./b.yaml\n" + head, "b.yaml": "extends: sub/../a.yaml\n",
		"none.yaml": "extends: nowhere.yaml\n" + head, "dir.yaml": "extends: folder\n" + head, "folder/x": "",
		"typo.yaml": "extends: folder/base.yaml\n" + head, "folder/base.yaml": "bacth: {items: 1}\nrun: {max_parallel: many}\n",
		"list.yaml": "extends: [a.yaml]\n" + head, "env.yaml": "extends: $(env.X)\n" + head, "url.yaml": "extends: https://x/y\n" + head,
		"profile.yaml": head + "profiles: {p: {extends: a.yaml}}\n", "broken.yaml": "extends: folder/broken.yaml\n" + head, "folder/broken.yaml": "run: {\n",
		"empty.yaml": "extends: folder/empty.yaml\n" + head, "folder/empty.yaml": "# nothing\n",
	}
	for i := range 10 {
		files[fmt.Sprintf("d%d.yaml", i)] = fmt.Sprintf("extends: d%d.yaml\n%s", i+1, head)
	}
	folder(t, files)
	for name, want := range map[string]string{
		"self.yaml":    "self.yaml:1:10: extends: self.yaml -> self.yaml goes in a circle; drop one of them",
		"a.yaml":       "b.yaml:1:10: extends: a.yaml -> b.yaml -> a.yaml goes in a circle; drop one of them",
		"none.yaml":    "none.yaml:1:10: extends: there is no file nowhere.yaml; a path is relative to the file that names it",
		"dir.yaml":     "dir.yaml:1:10: extends: folder is a folder; write the file, such as folder/config.yaml",
		"typo.yaml":    "folder/base.yaml:1:1: unknown key \"bacth\"; did you mean \"batch\"?\nfolder/base.yaml:2:21: run.max_parallel: \"many\"; write a whole number such as 8",
		"list.yaml":    "list.yaml:1:10: extends: a list; write the path of a job file, relative to this one",
		"env.yaml":     "env.yaml:1:10: extends: \"$(env.X)\"; write the path of a job file, relative to this one",
		"url.yaml":     "url.yaml:1:10: extends: \"https://x/y\"; write the path of a job file, relative to this one",
		"profile.yaml": "profile.yaml:5:25: extends: is read at the top of a job file only",
		"broken.yaml":  "folder/broken.yaml:1:6: this { is not closed; write } behind the last of it",
		"empty.yaml":   "folder/empty.yaml:1:1: the file is empty; begin with version: 1",
		"d0.yaml":      "d8.yaml:1:10: extends: more than 8 files, one from the other; join some of them",
	} {
		_, err := Load(name, "", nil)
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

// What is said more than once is taken from whoever comes first: flag, --set,
// variable, profile, job file, base file, project, user, default.
func TestPrecedence(t *testing.T) {
	folder(t, map[string]string{
		"user/hayrick/config.yaml": "run: {max_parallel: 1, items_in_flight: 1, lease: 11s, linger: 1s}\nbatch: {items: 1}\ninput: {limit: 1}\nmerge: {fan_in: 11}\nstore: ./user\nretry: {passes: 11}\n",
		"hayrick.yaml":             "run: {max_parallel: 2, items_in_flight: 2, lease: 12s, linger: 2s}\nbatch: {items: 2}\ninput: {limit: 2}\nmerge: {fan_in: 12}\nstore: ./project\n",
		"base.yaml":                "run: {max_parallel: 3, items_in_flight: 3, lease: 13s, linger: 3s}\nbatch: {items: 3}\ninput: {limit: 3}\n",
		"job.yaml": "extends: base.yaml\nversion: 1\nname: job\nhandler: {builtin: noop}\ninput: {uri: a.jsonl, limit: 4}\nrun: {max_parallel: 4, items_in_flight: 4, lease: 14s}\nbatch: {items: 4}\n" +
			"profiles: {p: {run: {max_parallel: 5, items_in_flight: 5}, batch: {items: 5}, input: {limit: 5}}}\n",
	})
	env := getenv(map[string]string{"XDG_CONFIG_HOME": mustAbs(t, "user"), "HAYRICK_RUN_MAX_PARALLEL": "6", "HAYRICK_BATCH_ITEMS": "6", "HAYRICK_INPUT_LIMIT": "6"})
	f, err := Options{
		Settings: SettingsFiles(env), Profile: "p", Getenv: env, Sets: []string{"batch.items=7", "input.limit=7"},
		Flags: []Flag{{"--limit", "input.limit", "8"}},
	}.Load("job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all, err := f.Origins()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, o := range all {
		got[o.Key] = strings.ReplaceAll(o.Text()+" "+o.Layer+" "+o.From, mustAbs(t, "user"), "USER")
	}
	for key, want := range map[string]string{
		"input.limit":         "8 flag --limit",
		"batch.items":         "7 set --set batch.items=7",
		"run.max_parallel":    "6 variable $HAYRICK_RUN_MAX_PARALLEL",
		"run.items_in_flight": "5 profile job.yaml:8:56",
		"run.lease":           "14s file job.yaml:6:51",
		"run.linger":          "3s extends base.yaml:1:64",
		"merge.fan_in":        "12 settings hayrick.yaml:4:17",
		"retry.passes":        "11 settings USER/hayrick/config.yaml:6:17",
		"store":               "./project settings hayrick.yaml:5:8",
		"run.task_timeout":    "30m default default",
		"budget.usd":          " default default",
		"merge.by_count":      "false default default",
	} {
		if got[key] != want {
			t.Errorf("%s: %q, want %q", key, got[key], want)
		}
	}
	if f.Definition.Input.Limit != 8 || f.Definition.Batch.Items != 7 || f.Definition.Run.MaxParallel != 6 || f.Definition.Run.ItemsInFlight != 5 {
		t.Errorf("the definition says otherwise: %+v", f.Definition)
	}
	if store, err := SettledStore(SettingsFiles(env), env); store != "./project" || err != nil {
		t.Errorf("store %q, %v", store, err)
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// Every key that fits into a variable is set by that variable and by no other.
func TestVariables(t *testing.T) {
	names := map[string]string{}
	for _, k := range Keys() {
		name := k.Variable()
		if name == "" {
			continue
		}
		if other, twice := names[name]; twice {
			t.Errorf("%s stands for %s and for %s", name, other, k.Path)
		}
		names[name] = k.Path
	}
	if len(names) < 20 {
		t.Errorf("only %d variables", len(names))
	}
	folder(t, map[string]string{"job.yaml": small})
	for _, x := range []struct{ name, value, want string }{
		{"HAYRICK_RUN_ITEM_TIMEOUT", "5", `$HAYRICK_RUN_ITEM_TIMEOUT: run.item_timeout: "5" is not a duration; write it with a unit, such as 90s or 5m`},
		{"HAYRICK_RUN_MAX_PARALLEL", "four", `$HAYRICK_RUN_MAX_PARALLEL: run.max_parallel: "four"; write a whole number such as 8`},
		{"HAYRICK_RUN_MAX_PARALEL", "4", `$HAYRICK_RUN_MAX_PARALEL: no key is set by this variable; did you mean "HAYRICK_RUN_MAX_PARALLEL"?`},
		{"HAYRICK_RATES_API_LIMIT", "4/s", "$HAYRICK_RATES_API_LIMIT: no key is set by this variable; what a variable cannot say goes into --set, and the keys are in `hayrick help job-file`"},
		{"HAYRICK_MERGE_BY_COUNT", "yes", `$HAYRICK_MERGE_BY_COUNT: merge.by_count: "yes"; write true or false`},
		{"HAYRICK_STANDINS", "x", "<nil>"}, {"HAYRICK_RUN_FOO", "", "<nil>"}, {"HAYRICK_INPUT_KEY", "on", "<nil>"}, {"HAYRICK_INPUT_URI", "a: b", "<nil>"},
	} {
		vars := map[string]string{x.name: x.value}
		_, err := Options{Getenv: getenv(vars), Environ: []string{"PATH=/bin", x.name + "=" + x.value}}.Load("job.yaml")
		if got := fmt.Sprint(err); got != x.want {
			t.Errorf("%s=%s:\n got %s\nwant %s", x.name, x.value, got, x.want)
		}
	}
}

func TestTemplates(t *testing.T) {
	folder(t, map[string]string{"job.yaml": `version: 1
name: tidy
handler: {builtin: noop}
input: {uri: "$(env.DATA)/$(job.name)/$(profile).jsonl"}
rates: [{name: api, key: $(item.host), limit: 1/s}]
output: {uri: "./out/$(job.name)-$(profile)/$(run.id)/"}
x-note: $(whatever)
store: ./$(profile)
profiles: {p: {}}
`})
	env := getenv(map[string]string{"DATA": "./in", "EVIL": "a\nb", "API_TOKEN": "s3cret"})
	f, err := Options{Profile: "p", Getenv: env}.Load("job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := f.Definition
	if d.Input.URI != "./in/tidy/p.jsonl" || d.Output.URI != "./out/tidy-p/$(run.id)/" || d.Rates[0].Key != "$(item.host)" || f.Store != "./p" {
		t.Errorf("input %s, output %s, rate %s, store %s", d.Input.URI, d.Output.URI, d.Rates[0].Key, f.Store)
	}
	for set, want := range map[string]string{
		"input.uri=$(env.NONE)":             "input.uri: $(env.NONE): the variable is not set; export NONE=..",
		"input.uri=$(env.API_TOKEN)":        "input.uri: $(env.API_TOKEN) looks like a secret, and what is written here is stored beside the run; let the handler look at its own environment",
		"input.uri=$(env.EVIL)":             "input.uri: $(env.EVIL): the variable holds control characters; export it anew",
		"input.uri=$(env.A-B)":              "input.uri: $(env.A-B) names no variable; write $(env.<NAME>)",
		"input.uri=$(run.id)":               "input.uri: $(run.id) is not read here; here it takes $(job.name), $(profile), $(env.<NAME>)",
		"output.uri=$(run.di)":              `output.uri: there is no template $(run.di); did you mean "run.id"?`,
		"output.uri=$(run.id":               "output.uri: $(run.id has no end; close it with )",
		"output.uri=$(item.x)":              "output.uri: $(item.x) is not read here; here it takes $(run.id), $(job.name), $(profile), $(env.<NAME>)",
		"description=$(job.name)":           "description: $(job.name) is not read here; a uri takes $(run.id), $(job.name), $(profile), $(env.<NAME>), the key of a rate takes $(item.<field>)",
		"handler.params.token=$(env.TOKEN)": "handler.params.token: $(env.TOKEN) is not read here: what is written here is stored beside the run, and may be a secret; let the handler look at its own environment",
		"rates.api.key=$(item.)":            "rates[0].key: $(item.) names no field; write $(item.<field>)",
		"rates.api.key=$(item.a)-x":         `rates[0].key: "$(item.a)-x"; write $(item.<field>) for a bucket a value, or leave it out for one bucket`,
	} {
		_, err := Options{Profile: "p", Getenv: env, Sets: []string{set}}.Load("job.yaml")
		if got, want := fmt.Sprint(err), "--set "+set+": "+want; got != want {
			t.Errorf("--set %s:\n got %s\nwant %s", set, got, want)
		}
	}
	_, err = Load("job.yaml", "", nil)
	if got := fmt.Sprint(err); !strings.Contains(got, "$(profile): no profile is applied; say -p <name>") {
		t.Errorf("without a profile: %s", got)
	}
}

// What is stored beside a run has no variable in it, and no name of one.
func TestNothingOfTheEnvironmentIsStored(t *testing.T) {
	folder(t, map[string]string{"job.yaml": small})
	asked := map[string]bool{}
	_, err := Options{Getenv: func(name string) string { asked[name] = true; return "" }}.Load("job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name := range asked {
		if !strings.HasPrefix(name, variablePrefix) {
			t.Errorf("%s was looked at, and no key says so", name)
		}
	}
}

func TestSettingsProblems(t *testing.T) {
	folder(t, map[string]string{"job.yaml": small, "name.yaml": "name: x\nextends: job.yaml\n", "list.yaml": "[]\n", "none.yaml": "\n", "typo.yaml": "stroe: x\n"})
	for name, want := range map[string]string{
		"name.yaml":    "name.yaml:1:1: name belongs to one job; the settings of every job cannot have it\nname.yaml:2:1: extends belongs to one job; the settings of every job cannot have it",
		"list.yaml":    "list.yaml:1:1: the file is a list; begin with version: 1",
		"typo.yaml":    `typo.yaml:1:1: unknown key "stroe"; did you mean "store"?`,
		"none.yaml":    "<nil>",
		"missing.yaml": "<nil>",
		"job.yaml":     "<nil>", // the job file itself, which some keep under this name
	} {
		_, err := Options{Settings: []string{name}}.Load("job.yaml")
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestExcerpt(t *testing.T) {
	for _, x := range []struct {
		src       string
		line, col int
		want      string
	}{
		{"a: b\nrun: {executor: lamda, x: 1}\n", 2, 17, "    2 | run: {executor: lamda, x: 1}\n      |                 ^^^^^"},
		{"a: \"b c\" # d", 1, 4, "    1 | a: \"b c\" # d\n      |    ^^^^^"},
		{"\ufeffkey: 1\r\n", 1, 1, "    1 | key: 1\n      | ^^^"},
		{"é: ü1 x\n", 1, 4, "    1 | é: ü1 x\n      |    ^^"},
		{"\ta: b", 1, 2, "    1 |  a: b\n      |  ^"},
		{"a", 2, 1, ""}, {"a", 1, 9, ""}, {"", 0, 0, ""}, {"", 1, 1, ""},
		{strings.Repeat("x", 300) + " y: z", 1, 302, "    1 | " + strings.Repeat("x", 95) + " y: z\n      | " + strings.Repeat(" ", 96) + "^"},
	} {
		if got := excerpt(x.src, x.line, x.col); got != x.want {
			t.Errorf("%.20q %d:%d:\n%s\nwant\n%s", x.src, x.line, x.col, got, x.want)
		}
	}
	_, _, err := resolve("config.yaml", small+"batchs: 1\n", "", nil)
	var ps Problems
	if !errors.As(err, &ps) || ps[0].Excerpt != "    5 | batchs: 1\n      | ^^^^^^" {
		t.Errorf("%+v", err)
	}
}

// What is no file of text is said in one line too.
func TestOddPaths(t *testing.T) {
	folder(t, map[string]string{"dir/config.yaml/x": "", "file": small, "empty/x": ""})
	for name, to := range map[string]string{"loop": "loop", "dangling": "nowhere", "link": "file"} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"dir":                    "dir/config.yaml: this is a folder; a job file is a file of text",
		"empty":                  "read job file empty/config.yaml: not found",
		"nowhere.yaml":           "read job file nowhere.yaml: not found",
		"dangling":               "read job file dangling: not found",
		"loop":                   "read job file: open loop: too many levels of symbolic links",
		"file/config.yaml":       "read job file: open file/config.yaml: not a directory",
		strings.Repeat("x", 300): "read job file: open " + strings.Repeat("x", 300) + ": file name too long",
		"a\x00b":                 "read job file: open a\x00b: invalid argument",
		"/dev/zero":              "/dev/zero: more than 256 KiB; a job file is a page or two: put items into the input file",
		"/dev/null":              "/dev/null:1:1: the file is empty; begin with version: 1",
		"link":                   "<nil>",
	} {
		_, err := Load(name, "", nil)
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%.40q:\n got %s\nwant %s", name, got, want)
		}
	}
}
