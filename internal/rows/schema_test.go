package rows

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func fields(s string) Schema {
	out := Schema{Fields: []Field{}}
	for _, f := range strings.Fields(s) {
		name, kind, _ := strings.Cut(f, ":")
		var k Kind
		if err := k.UnmarshalText([]byte(kind)); err != nil {
			panic(err)
		}
		out.Fields = append(out.Fields, Field{name, k})
	}
	return out
}

func text(s Schema) string {
	var out []string
	for _, f := range s.Fields {
		out = append(out, fmt.Sprintf("%s:%s", f.Name, f.Kind))
	}
	return strings.Join(out, " ")
}

func TestObserve(t *testing.T) {
	got := schemaOf(t, []Row{
		{{"a", nil}, {"b", "x"}},
		{{"c", time.Now()}, {"b", "y"}, {"d", nil}},
		{{"a", 1}, {"e", true}},
		{{"b", nil}, {"f", 1.5}, {"g", []byte{}}, {"h", json.RawMessage("1")}},
	})
	// d was only ever null: it has no kind and cannot clash with a sibling's.
	if want := "b:string c:time a:int e:bool f:float g:bytes h:string"; text(got) != want {
		t.Errorf("%s, want %s", text(got), want)
	}
	var o Observer
	for _, r := range []Row{{{"a", "x"}}, {{"b", 1}, {"a", 2}}} {
		if err := o.Observe(r); err != nil {
			var c *SchemaConflict
			if !errors.As(err, &c) || *c != (SchemaConflict{"a", KindString, KindInt}) {
				t.Errorf("%v", err)
			}
			return
		}
	}
	t.Error("a column of two kinds is accepted")
}

func TestUnify(t *testing.T) {
	for _, tc := range []struct{ a, b, want string }{
		{"", "", ""},
		{"a:int b:string", "a:int b:string", "a:int b:string"},
		{"a:int b:string", "b:string a:int", "a:int b:string"},
		{"a:int", "", "a:int"},
		{"", "a:int", "a:int"},
		{"a:int c:bool", "b:time a:int d:bytes", "a:int c:bool b:time d:bytes"},
	} {
		got, err := Unify(fields(tc.a), fields(tc.b))
		if err != nil || text(got) != tc.want {
			t.Errorf("%q + %q = %q, %v; want %q", tc.a, tc.b, text(got), err, tc.want)
		}
	}
	for _, tc := range []struct{ a, b string }{
		{"a:int", "a:float"}, {"x:bool a:float", "a:int"}, {"a:string", "a:bytes"}, {"a:time", "a:int"},
	} {
		_, err := Unify(fields(tc.a), fields(tc.b))
		if !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("%q + %q: %v", tc.a, tc.b, err)
		}
	}
}

func TestUnifyIsAssociative(t *testing.T) {
	a, b, c := fields("a:int b:string"), fields("c:bool a:int"), fields("d:time b:string c:bool")
	ab, _ := Unify(a, b)
	left, _ := Unify(ab, c)
	bc, _ := Unify(b, c)
	right, _ := Unify(a, bc)
	if text(left) != text(right) {
		t.Errorf("%q, %q", text(left), text(right))
	}
}

func TestSchemaDigest(t *testing.T) {
	s := fields("a:int b:string")
	j, err := json.Marshal(s)
	if err != nil || string(j) != `{"fields":[{"name":"a","kind":"int"},{"name":"b","kind":"string"}]}` {
		t.Fatalf("%s, %v", j, err)
	}
	var back Schema
	if err := json.Unmarshal(j, &back); err != nil || back.Digest() != s.Digest() {
		t.Errorf("%v, %v", back, err)
	}
	if (Schema{}).Digest() != fields("").Digest() {
		t.Error("no columns have two digests")
	}
	seen := map[string]string{}
	for _, s := range []string{"", "a:int", "a:float", "b:int", "a:int b:string", "b:string a:int"} {
		d := fields(s).Digest()
		if other, ok := seen[d]; ok || len(d) != 64 {
			t.Errorf("%q and %q: %s", s, other, d)
		}
		seen[d] = s
	}
	if err := json.Unmarshal([]byte(`{"fields":[{"name":"a","kind":"date"}]}`), &back); err == nil {
		t.Error("an unknown kind is read")
	}
}

// badRows are rows that cannot be stored, with the word their error must say.
var badRows = []struct {
	row  Row
	says string
}{
	{nil, "no column has a value"},
	{Row{{"a", nil}}, "no column has a value"},
	{Row{{"a", []byte(nil)}}, "no column has a value"},
	{Row{{"a", 1}, {"b", 2}, {"a", 3}}, `"a" is in the row twice`},
	{Row{{"a", uint64(1)}}, `"a": a value of type uint64`},
	{Row{{"a", struct{}{}}}, `"a": a value of type struct {}`},
	{Row{{"a", "\xff"}}, `"a": the string is not valid UTF-8`},
	{Row{{"a", json.RawMessage("\xff")}}, `"a": the JSON text is not valid UTF-8`},
	{Row{{"a", time.Date(400000, 1, 1, 0, 0, 0, 0, time.UTC)}}, `"a": the time`},
	{Row{{"", 1}}, "without a name"},
	{Row{{"\xff", 1}}, "name is not valid UTF-8"},
	{Row{{strings.Repeat("n", MaxNameBytes+1), 1}}, "the limit is 1024"},
}

func TestBadRows(t *testing.T) {
	twice := make(Row, 0, 40)
	for i := range 20 {
		twice = append(twice, Col{fmt.Sprint("c", i), i})
	}
	twice = append(twice, Col{"c7", 1})
	for _, tc := range append(badRows, struct {
		row  Row
		says string
	}{twice, `"c7" is in the row twice`}) {
		err := tc.row.Check()
		if !errors.Is(err, ErrRow) || !strings.Contains(fmt.Sprint(err), tc.says) {
			t.Errorf("%.80v: %v", tc.row, err)
		}
		dst := []byte("before")
		got, err := AppendRow(dst, tc.row)
		if !errors.Is(err, ErrRow) || string(got) != "before" {
			t.Errorf("%.80v appended: %q, %v", tc.row, got, err)
		}
	}
	if err := (Row{{"a", ""}, {"b", nil}, {"c", []byte{}}}).Check(); err != nil {
		t.Error(err)
	}
}
