package schema

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	check "github.com/santhosh-tekuri/jsonschema/v6"

	"hayrick/jobfile"
)

// committed is the file: after a rewrite it is newer than what this binary embeds.
func committed(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("job.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compile(t *testing.T) *check.Schema {
	t.Helper()
	doc, err := check.UnmarshalJSON(bytes.NewReader(committed(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := check.NewCompiler()
	if err := c.AddResource("job.v1.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("job.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keysOf walks the committed schema as an editor does.
func keysOf(root, s map[string]any, path string, out map[string]bool) {
	if ref, ok := s["$ref"].(string); ok {
		s = root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
	}
	if items, ok := s["items"].(map[string]any); ok {
		keysOf(root, items, path+"[]", out)
	}
	props, _ := s["properties"].(map[string]any)
	for name, p := range props {
		at := strings.TrimPrefix(path+"."+name, ".")
		out[at] = true
		if at != "profiles" { // a profile has the keys of the file again
			keysOf(root, p.(map[string]any), at, out)
		}
	}
}

// What the schema lets one write is what is read, key for key.
func TestKeysOfSchemaAndReader(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(committed(t), &root); err != nil {
		t.Fatal(err)
	}
	inSchema, inReader := map[string]bool{}, map[string]bool{}
	keysOf(root, root, "", inSchema)
	for _, k := range jobfile.Keys() {
		if !strings.HasSuffix(k.Path, "[]") && !strings.HasSuffix(k.Path, "*") {
			inReader[k.Path] = true
		}
	}
	for _, path := range slices.Sorted(maps.Keys(inSchema)) {
		if !inReader[path] {
			t.Errorf("the schema has %s, which the reader does not know", path)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(inReader)) {
		if !inSchema[path] {
			t.Errorf("the reader knows %s, which the schema does not have", path)
		}
	}
}

// Every key says what it is: editors show it, and the reference page is made of it.
func TestEveryKeyIsDescribed(t *testing.T) {
	s := generate(t)
	for _, k := range jobfile.Keys() {
		if strings.HasSuffix(k.Path, "[]") || strings.HasSuffix(k.Path, "*") {
			continue
		}
		if at := find(s, k.Path); at == nil || at.Description == "" {
			t.Errorf("%s has no comment in the struct that it is a field of", k.Path)
		}
	}
}

// The files that are shipped are valid by the schema as by the reader.
func TestExamples(t *testing.T) {
	s := compile(t)
	for _, path := range []string{"../jobs/backfill/config.yaml", "../cmd/hayrick/jobfile.yaml", "../jobfile/testdata/full.yaml"} {
		doc, err := jobfile.Generic(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(doc); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What an editor can see to be wrong, the schema refuses; what only a run can judge, it
// lets pass. The names of the corpus say which is which.
func TestCorpusOfBadFiles(t *testing.T) {
	s := compile(t)
	passes := map[string]string{
		"missing-builtin": "which handler it is may be said in one of several keys", "missing-input": "the handler may list the items, and a profile say so",
		"missing-uri": "the same", "unit-overflow": "a pattern does not count", "unit-size-overflow": "the same", "unit-rate-zero-time": "the same",
	}
	files, err := filepath.Glob("../jobfile/testdata/bad/one/*.yaml")
	if err != nil || len(files) < 250 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	judged := map[string]int{}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		kind, _, _ := strings.Cut(name, "-")
		doc, err := jobfile.Generic(path)
		if err != nil {
			continue // no editor gets as far as the schema
		}
		switch verdict := s.Validate(doc); kind {
		case "typo", "type", "word", "number", "unit", "missing", "null", "seed":
			judged[kind]++
			if _, may := passes[name]; (verdict == nil) != may {
				t.Errorf("%s passes the schema: %v", name, verdict == nil)
			}
		case "rule", "template", "set":
			judged[kind]++
			if verdict != nil && name != "template-in-number" { // a template is text
				t.Errorf("%s does not pass the schema: %v", name, verdict)
			}
		}
	}
	for _, kind := range []string{"typo", "type", "word", "number", "unit", "missing", "null", "seed", "rule", "template"} {
		if judged[kind] < 4 {
			t.Errorf("only %d files of kind %s", judged[kind], kind)
		}
	}
}
