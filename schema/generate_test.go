package schema

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"

	"hayrick/jobfile"
)

var rewrite = flag.Bool("rewrite", false, "write job.v1.json and docs/reference/job-file.md anew")

const (
	draft = "https://json-schema.org/draft/2020-12/schema"
	page  = "../docs/reference/job-file.md"
)

// The schema and the reference page are what the code says.
func TestSchemaIsFresh(t *testing.T) {
	s := generate(t)
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "job.v1.json", append(b, '\n'))
	golden(t, page, reference(s))
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s is stale; run make golden and review the difference:\n%s", path, d)
	}
}

// generate makes the schema: its shape and descriptions of the structs, the rest of
// what the reader reads.
func generate(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text := func() *jsonschema.Schema { return &jsonschema.Schema{Type: "string"} }
	r := jsonschema.Reflector{
		Anonymous: true, ExpandedStruct: true, RequiredFromJSONSchemaTags: true, CommentMap: map[string]string{},
		Mapper: func(typ reflect.Type) *jsonschema.Schema {
			switch {
			case typ == reflect.TypeFor[json.RawMessage]():
				return &jsonschema.Schema{Type: "object"}
			case reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
				return text()
			}
			return nil
		},
	}
	if err := addComments(r.CommentMap); err != nil {
		t.Fatal(err)
	}
	s := r.Reflect(&jobfile.Document{})
	s.Version = draft
	s.Title = "A job file of hayrick"
	s.Description = "What may be written in jobs/<name>/config.yaml."
	// What a job must say, unless it goes on from another file that says it.
	s.If = &jsonschema.Schema{Not: &jsonschema.Schema{Required: []string{"extends"}}}
	s.Then = &jsonschema.Schema{Required: []string{"version", "name", "handler"}}
	s.Definitions["Rate"].Required = []string{"name", "limit"}
	own := map[string]*jsonschema.Schema{"^x-": {Description: "Keys that begin with x- are yours."}}
	s.PatternProperties = own
	for name, def := range s.Definitions {
		def.PatternProperties = own
		if name == "JobDefinition" {
			def.Properties.Set("store", &jsonschema.Schema{Type: "string", Description: "Where runs with this profile are kept."})
		}
	}
	for _, k := range jobfile.Keys() {
		at := find(s, k.Path)
		if about, ok := jobfile.Shorthands[k.Path]; ok && at == nil {
			parent, name, _ := cutLast(k.Path)
			at = &jsonschema.Schema{Type: "array", Items: text(), Description: about}
			deref(s, find(s, parent)).Properties.Set(name, at)
		}
		if at == nil {
			t.Fatalf("the schema has no place for %s: no field has this key", k.Path)
		}
		describe(at, k)
	}
	return s
}

// addComments reads the comments of the packages whose structs make a job file, and of
// no others: the comments of a whole tree would take long to read.
func addComments(to map[string]string) error {
	words, err := filepath.Glob("../*.go")
	if err != nil {
		return err
	}
	for base, files := range map[string][]string{"hayrick": words, "hayrick/jobfile": {"../jobfile/keys.go"}} {
		for _, f := range files {
			if err := fieldComments(base, f, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// find is the schema at a path of jobfile.KnownKey, through references; nil = none.
func find(root *jsonschema.Schema, path string) *jsonschema.Schema {
	at := root
	steps := strings.FieldsFunc(strings.ReplaceAll(path, "[]", ".[]"), func(r rune) bool { return r == '.' })
	for _, step := range steps {
		at = deref(root, at)
		var next *jsonschema.Schema
		switch {
		case step == "[]":
			next = at.Items
		case step == "*":
			next = at.AdditionalProperties
		case at.Properties != nil:
			next, _ = at.Properties.Get(step)
		}
		if next == nil {
			return nil
		}
		at = next
	}
	return at
}

func deref(root, s *jsonschema.Schema) *jsonschema.Schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok {
		return root.Definitions[name]
	}
	return s
}

func cutLast(path string) (parent, name string, ok bool) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// The forms of quantities. They let through what the reader does not (a unit that is
// too large), never the other way round.
var patterns = map[string]string{
	"duration": `^\+?(0|([0-9.]+(ns|us|µs|μs|ms|s|m|h))+)$`,
	"size":     `^\+?[0-9]+ *([TGMK]iB|[TGM]B|kB|B)$`,
	"rate":     `^ *\+?0*[1-9][0-9]* */([0-9.]+)?(ns|us|µs|μs|ms|s|m|h)([0-9.]+(ns|us|µs|μs|ms|s|m|h))*$`,
}

// describe adds what the reader knows of a key.
func describe(s *jsonschema.Schema, k jobfile.KnownKey) {
	if s.Type == "array" && k.Kind == "text" { // one, or a list of them
		s.OneOf = []*jsonschema.Schema{{Type: "string"}, {Type: "integer"}, {Type: "array", Items: &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "integer"}}}}}
		s.Type, s.Items = "", nil
	}
	switch k.Kind {
	case "word":
		for _, w := range k.Words {
			s.Enum = append(s.Enum, w)
		}
	case "whole":
		s.Minimum, s.Maximum = number(k.Least), number(k.Most)
	case "fraction":
		s.ExclusiveMinimum, s.Maximum = "0", "1"
	case "dollars":
		s.ExclusiveMinimum, s.Maximum = "0", "1000000000"
	case "duration", "size", "rate":
		s.Pattern, s.Examples = patterns[k.Kind], []any{k.Example}
	}
	if d := k.DefaultJSON(); d != nil {
		s.Default = d
	}
}

func number(n int64) json.Number { return json.Number(fmt.Sprint(n)) }

// reference is the page of every key.
func reference(s *jsonschema.Schema) []byte {
	var b bytes.Buffer
	words := map[string][]string{}
	for _, k := range jobfile.Keys() {
		words[k.Path] = k.Words
	}
	b.WriteString(`# Every key of a job file

Made from the code, as ` + "`schema/job.v1.json`" + ` is; an example with all of them is in ` + "`hayrick help job-file`" + `.
A path names a key: ` + "`run.item_timeout`" + ` is ` + "`item_timeout`" + ` below ` + "`run`" + `, ` + "`rates[].limit`" + ` that of each item of ` + "`rates`" + `, and ` + "`*`" + ` a name of your own.
The same paths go into ` + "`--set`" + `; a key with a variable can be set by that as well. Keys that begin with ` + "`x-`" + ` are yours.

## Who wins

What is said more than once is taken from the first of these that says it: a flag (` + "`--limit`, `--budget`, `--wall`" + `), ` + "`--set`" + `, the
variable ` + "`HAYRICK_<KEY>`" + `, the profile (` + "`-p`" + `), the job file, the file it ` + "`extends`" + `, ` + "`hayrick.yaml`" + ` in the working directory,
` + "`$XDG_CONFIG_HOME/hayrick/config.yaml`" + ` (` + "`~/.config/hayrick/config.yaml`" + `), the default. Mappings are merged key by key, lists and single values are replaced.
` + "`hayrick plan <job> --show-origin`" + ` prints every key with its value and where that comes from.

## Templates

| template | where | what it is |
|---|---|---|
| ` + "`$(run.id)`" + ` | ` + "`output.uri`" + ` | the id of the run |
| ` + "`$(job.name)`" + ` | ` + "`input.uri`, `output.uri`, `store`" + ` | the name of the job |
| ` + "`$(profile)`" + ` | the same | the profile that is applied |
| ` + "`$(env.NAME)`" + ` | the same | a variable of whoever submits. What it comes to is stored beside the run, so names that secrets have are refused |
| ` + "`$(item.field)`" + ` | ` + "`rates[].key`" + ` | a field of each item: one bucket a value |

## The keys

| key | value | default | what it is | variable |
|---|---|---|---|---|
`)
	for _, k := range jobfile.Keys() {
		at := find(s, k.Path)
		about := at.Description
		if about == "" {
			about = deref(s, at).Description
		}
		if strings.HasSuffix(k.Path, "[]") || strings.HasSuffix(k.Path, "*") {
			continue // the list, or the names, say it
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.Path, value(k, words), code(string(k.DefaultJSON())), cell(about), code(k.Variable()))
	}
	return b.Bytes()
}

// value says in words what a key takes.
func value(k jobfile.KnownKey, words map[string][]string) string {
	switch k.Kind {
	case "word":
		return "`" + strings.Join(k.Words, "` \\| `") + "`"
	case "whole":
		if k.Most >= 1<<62 {
			return fmt.Sprintf("a whole number from %d", k.Least)
		}
		return fmt.Sprintf("a whole number, %d to %d", k.Least, k.Most)
	case "flag":
		return "`true` \\| `false`"
	case "fraction":
		return "above 0, up to 1"
	case "dollars":
		return "US dollars above 0"
	case "duration", "size", "rate":
		return "a " + k.Kind + " such as `" + k.Example + "`"
	case "object":
		return "keys"
	case "names":
		if w := words[k.Path+".*"]; len(w) > 0 {
			return "names, each with `" + strings.Join(w, "` \\| `") + "`"
		}
		return "names and values"
	case "list":
		return "a list"
	case "json":
		return "anything below it"
	}
	return "text"
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.Trim(s, `"`) + "`"
}

func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(strings.Join(strings.Fields(s), " "))
}
