package jobfile

import (
	"encoding"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// structKeys are the keys that the fields of a type stand for.
func structKeys(typ reflect.Type, path string, out map[string]bool) {
	switch {
	case typ.Kind() == reflect.Pointer:
		structKeys(typ.Elem(), path, out)
	case typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct:
		structKeys(typ.Elem(), path+"[]", out)
	case reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
	case typ.Kind() == reflect.Struct:
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous {
				structKeys(f.Type, path, out)
				continue
			}
			out[join(path, name)] = true
			structKeys(f.Type, join(path, name), out)
		}
	}
}

// A field of a definition that no job file can set, or a key that sets none, is a
// mistake: one of the two was forgotten.
func TestKeysAreTheFields(t *testing.T) {
	fields := map[string]bool{}
	structKeys(reflect.TypeFor[Document](), "", fields)
	for path := range Shorthands {
		fields[path] = true
	}
	read := map[string]bool{}
	for _, k := range Keys() {
		if !strings.HasSuffix(k.Path, "[]") && !strings.HasSuffix(k.Path, "*") {
			read[k.Path] = true
		}
		if k.Kind == "" {
			t.Errorf("%s has no kind", k.Path)
		}
	}
	for path := range fields {
		if !read[path] {
			t.Errorf("%s is a field of the definition, and no line of schema.go reads it", path)
		}
	}
	for path := range read {
		if !fields[path] {
			t.Errorf("%s is read by schema.go, and is no field of the definition", path)
		}
	}
}

// What a key is said to be by default is what an empty file comes to.
func TestKeysHaveTheDefaults(t *testing.T) {
	at := func(path string) KnownKey {
		i := slices.IndexFunc(Keys(), func(k KnownKey) bool { return k.Path == path })
		if i < 0 {
			t.Fatalf("no key %s", path)
		}
		return Keys()[i]
	}
	for path, want := range map[string]string{
		"run.item_timeout": `"1m30s"`, "batch.items": "100", "output.if_exists": `"error"`, "merge.target_bytes": `"64MiB"`,
		"rates[].learn": "true", "rates[].idle": `"24h"`, "input.key": "", "merge.dictionary": "", "budget.wall": "",
	} {
		if got := string(at(path).DefaultJSON()); got != want {
			t.Errorf("%s: default %s, want %s", path, got, want)
		}
	}
	if k := at("retry.classes.*"); k.Kind != "word" || !slices.Contains(k.Words, "rate_limit") {
		t.Errorf("retry.classes.*: %+v", k)
	}
	if k := at("batch.items"); k.Least != 1 || k.Most != maxBatchItems {
		t.Errorf("batch.items: %+v", k)
	}
}
