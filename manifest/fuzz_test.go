package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"hayrick"
	. "hayrick/manifest"
)

// recordTypes are the kinds of records, by schema.
var recordTypes = map[string]func() any{
	SchemaPlan: func() any { return new(Plan) }, SchemaJob: func() any { return new(JobManifest) },
	SchemaBlock: func() any { return new(Block) }, SchemaIndex: func() any { return new(Index) },
	SchemaResult: func() any { return new(Result) }, SchemaTask: func() any { return new(TaskManifest) },
	SchemaRetryPlan: func() any { return new(RetryPlan) }, SchemaRetry: func() any { return new(RetryManifest) },
	SchemaAggregationPlan: func() any { return new(AggregationPlan) }, SchemaAggregation: func() any { return new(Aggregation) },
	SchemaOutcome: func() any { return new(Outcome) }, SchemaControl: func() any { return new(Control) },
}

// goldenRecords are the golden files whose names match, as the store has them.
func goldenRecords(f *testing.F, pattern string) (out [][]byte) {
	f.Helper()
	names, err := filepath.Glob("testdata/" + pattern + goldenSuffix)
	if err != nil || len(names) == 0 {
		f.Fatalf("no golden files %s: %v", pattern, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var tight bytes.Buffer
		if json.Compact(&tight, b) != nil {
			continue // a list
		}
		out = append(out, tight.Bytes())
	}
	return out
}

// oneLine says that an error is a line for people that wraps ErrCorrupt.
func oneLine(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, hayrick.ErrCorrupt) {
		t.Fatalf("%v, want ErrCorrupt", err)
	}
	if s := err.Error(); len(s) > 600 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) {
		t.Fatalf("this is no line to read: %.800q", s)
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// bounded fails where reading n bytes took far more memory than they have.
func bounded(t *testing.T, before uint64, n int) {
	t.Helper()
	if used := allocated() - before; used > 1<<20+uint64(n)*2000 {
		t.Fatalf("%d bytes were taken for %d", used, n)
	}
}

// FuzzRecord: bytes are one kind of record or none. What is read is written in the
// canonical form, reads back as itself, and sealed no byte of it changes unseen.
func FuzzRecord(f *testing.F) {
	for i, b := range goldenRecords(f, "*") {
		f.Add(b, uint16(i*7))
	}
	for _, s := range []string{
		`{"schema":"hayrick.control/v1"}`, `{"schema":"hayrick.control/v1","at":"2026-11-20T12:00:00,000Z"}`, `{"SCHEMA":"hayrick.plan/v1","Items":1e3}`,
		`{"schema":"hayrick.plan/v1","self_sha256":""}`, `{"schema":"hayrick.outcome/v1","ok":1,"ok":2}`, `{"schema":"hayrick.index/v1","batches":[{"length":-1}]}`,
		`{"schema":"hayrick.block/v1","job_id":"` + "\xff" + `"}`, `{"schema":"hayrick.aggregationplan/v1","columns":{"b":1,"a": 2}}`,
	} {
		f.Add([]byte(s), uint16(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		before := allocated()
		var head struct {
			Schema string `json:"schema"`
		}
		_ = json.Unmarshal(b, &head)
		for schema, fresh := range recordTypes {
			v := fresh()
			err := Decode(b, schema, v)
			if err != nil {
				oneLine(t, err)
				continue
			}
			if schema != head.Schema {
				t.Fatalf("a record of schema %q is read as %s", head.Schema, schema)
			}
			encode := Encode
			if schema == SchemaOutcome { // it has its digest as a field
				encode = func(v any) ([]byte, error) { return v.(*Outcome).Seal() }
			}
			once, err := encode(v)
			if err != nil {
				t.Fatal(err)
			}
			if err := canonical(once); err != nil {
				t.Fatalf("%v: %s", err, once)
			}
			back := fresh()
			if err := Decode(once, schema, back); err != nil {
				t.Fatalf("%v: %s", err, once)
			}
			if twice, err := encode(back); err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("%v: written once\n%s, twice\n%s", err, once, twice)
			}
			if schema == SchemaOutcome {
				continue
			}
			seal, err := Seal(v)
			if err != nil {
				t.Fatal(err)
			}
			if err := Decode(seal, schema, fresh()); err != nil {
				t.Fatalf("sealed: %v", err)
			}
			i := int(at) % len(seal)
			from := bytes.Index(seal, sealed)
			seal[i] ^= 1 << (at % 8)
			if err := Decode(seal, schema, fresh()); err == nil && (i < from || i >= from+len(sealed)) {
				t.Fatalf("byte %d changed unseen: %s", i, seal)
			}
		}
		bounded(t, before, len(b)*len(recordTypes))
	})
}

// FuzzResultsDone: what lies at the key of a task's commit is that task's result or
// damage that names the key. A result that is read can be committed as it is, and its
// view is a record too.
func FuzzResultsDone(f *testing.F) {
	for _, b := range goldenRecords(f, "*_result") {
		f.Add(b)
		f.Add(bytes.Replace(b, []byte(`"self_sha256"`), []byte(`"x"`), 1))
		f.Add(bytes.Replace(b, []byte(`"items":2`), []byte(`"items":-9223372036854775808`), 1))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const task = "task-0001"
		s, m := newStore()
		key := Job(storyJob).Done(task)
		if err := m.Replace(t.Context(), key, b); err != nil {
			t.Fatal(err)
		}
		before := allocated()
		r, sha, err := s.Result(t.Context(), storyJob, task)
		bounded(t, before, len(b))
		if err != nil {
			if oneLine(t, err); !strings.Contains(err.Error(), key) {
				t.Fatalf("%v does not name %s", err, key)
			}
			return
		}
		if r.JobID != storyJob || r.TaskID != task || sha != SHA256(b) {
			t.Fatalf("%s of %s, %s", r.TaskID, r.JobID, sha)
		}
		view, err := Encode(TaskView(r))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(canonical(view), Decode(view, SchemaTask, new(TaskManifest))); err != nil {
			t.Fatal(err)
		}
		other, _ := newStore()
		c, err := other.CommitResult(t.Context(), r)
		if err != nil || !c.Won {
			t.Fatalf("%+v, %v", c, err)
		}
		back, _, err := other.Result(t.Context(), storyJob, task)
		if err != nil || !reflect.DeepEqual(back, c.Record) {
			t.Fatalf("%v: committed\n%+v, read\n%+v", err, c.Record, back)
		}
	})
}

// FuzzDefinition: a stored definition is one, or damage; what is read is stored under the
// same digest again and again.
func FuzzDefinition(f *testing.F) {
	for _, b := range goldenRecords(f, "config") {
		f.Add(b)
	}
	for _, s := range []string{`{"run":{"lease":"1h0m0.5s"}}`, `{"rates":[{"limit":"1/.5s"}]}`, `{"merge":{"target_bytes":"1 TiB"}}`, `{"handler":{"params":{"b":1.50,"a":1e400}}}`,
		`{"rAtes":[{}]}`, `{"retry":{"classify":[{"message":"(?i)x","status":["4xx"],"as":"y"}]}}`, `{"budget":{"usd":1e-7}}`, `{"batch":{"items":1},"batch":{"items":2}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := allocated()
		d, err := DecodeDefinition(b, SHA256(b))
		bounded(t, before, len(b))
		if err != nil {
			oneLine(t, err)
			return
		}
		if slices.ContainsFunc(d.Rates, func(r hayrick.Rate) bool { return r.Limit == hayrick.PerTime{} }) {
			return // no job file may leave it out, and it has no words
		}
		body, sha, err := EncodeDefinition(d)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeDefinition(body, sha)
		if err != nil {
			t.Fatalf("%v:\n%s", err, body)
		}
		if again, sha2, err := EncodeDefinition(back); err != nil || sha2 != sha {
			t.Fatalf("%v: stored once\n%s, twice\n%s", err, body, again)
		}
	})
}

// FuzzOpenBatch: the records of a batch are the lines that hold more than white space, in
// order; and whatever an index says of a batch, nothing is believed that is not there.
func FuzzOpenBatch(f *testing.F) {
	f.Add([]byte("{\"a\":1}\n\n  {\"a\":2}\t\r\nnone"), int64(0), int64(0), false)
	f.Add([]byte(`{"ordinal":7,"item":{"a":1},"tries":1,"losses":0,"classes":["x"]}`), int64(0), int64(0), true)
	f.Add([]byte(`{"ordinal":-1,"item":null,"raw":"AP8="}`), int64(1)<<62, int64(-1)<<63, true)
	f.Add([]byte("x"), int64(-2), int64(1)<<40, false)
	f.Add([]byte(""), int64(61), int64(1), false) // found: what was not read is no record
	f.Fuzz(func(t *testing.T, body []byte, moreBytes, moreItems int64, retry bool) {
		var want [][]byte
		for line := range bytes.SplitSeq(body, []byte("\n")) {
			if line = bytes.Trim(line, " \t\r"); len(line) > 0 {
				want = append(want, line)
			}
		}
		b := Batch{BatchID: "batch-0001", Object: "o", FirstLine: 1, FirstOrdinal: 10, Items: len(want), Length: int64(len(body)), SHA256: SHA256(body), Retry: retry}
		items, err := OpenBatch(b, bytes.NewReader(body))
		switch {
		case err != nil && !retry:
			t.Fatal(err)
		case err != nil:
			if !errors.Is(err, hayrick.ErrCorrupt) {
				t.Fatal(err)
			}
		case len(items) != len(want):
			t.Fatalf("%d items, want %d", len(items), len(want))
		default:
			for i, it := range items {
				if !retry && (!bytes.Equal(it.Data, want[i]) || it.Ordinal != 10+int64(i)) {
					t.Fatalf("item %d is %d %q, want %q", i, it.Ordinal, it.Data, want[i])
				}
				if label := it.Label("a"); label == "" {
					t.Fatalf("item %d has no label", i)
				}
			}
		}
		if moreBytes == 0 && moreItems == 0 {
			return
		}
		b.Length, b.Items = b.Length+moreBytes, b.Items+int(moreItems)
		b.Length = min(b.Length, 1<<62) // where it is believed that is 4 GiB of nothing
		if b.Length > int64(len(body)) && b.Length < 1<<40 {
			b.Length = int64(len(body)) + b.Length%100
		}
		before := allocated()
		if _, err := OpenBatch(b, bytes.NewReader(body)); err == nil && (b.Items != len(want) || b.Length < 0) {
			t.Fatalf("%+v is opened", b)
		}
		bounded(t, before, len(body))
	})
}

// FuzzKeys: what is a key, or a name in an output folder, lies below the store or the
// folder on every system, and is written in one way.
func FuzzKeys(f *testing.F) {
	for _, s := range []string{
		"jobs/a/plan.json", "jobs/../x", "jobs/..", "/etc/passwd", "jobs/a//b", "jobs/a/.", "jobs/\x00", "jobs/é", "jobs/a\\..\\b", "jobs/CON", "jobs/a:b",
		"part-00000.parquet", "../part-00000.parquet", "lists/x.jsonl", "_SUCCESS", "day=2026-11-20/part-00000.parquet", "a/..", "a/../../b", ".hidden", "a/.b", "~", "C:\\x",
		"day=%2E%2E/part-00000.parquet", strings.Repeat("a/", 600) + "a", "jobs/" + strings.Repeat("a", 256), "jobs/\u202e", "jobs/a\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !ValidKey(s) && !ValidOutputName(s) {
			return
		}
		if path.Clean(s) != s || !filepath.IsLocal(s) || !filepath.IsLocal(filepath.FromSlash(s)) || path.IsAbs(s) || len(s) > 1024 {
			t.Fatalf("%q is taken for a key or a name", s)
		}
		for part := range strings.SplitSeq(s, "/") {
			if part == "" || strings.Trim(part, ".") == "" || len(part) > 255 || strings.ContainsAny(part, "\\:\x00\n") {
				t.Fatalf("%q has the part %q", s, part)
			}
		}
		if ValidKey(s) && !strings.HasPrefix(s, Jobs) {
			t.Fatalf("%q is a key", s)
		}
		if ValidOutputName(s) && (s[0] == '.' || strings.Contains(s, "/.")) {
			t.Fatalf("%q hides what is published", s)
		}
	})
}

// FuzzPartitionFolder: a row's values, whatever they are, name one folder level that can be
// published, and no other values the same.
func FuzzPartitionFolder(f *testing.F) {
	for _, s := range []string{"2026-11-20", "..", ".", "", "a/b", "../../etc", NullPartition, "%2E", "=", "\x00", "é", "a b", strings.Repeat("x", 300), "\u202e"} {
		f.Add("day", s)
		f.Add(s, "x")
	}
	f.Fuzz(func(t *testing.T, column, value string) {
		name, err := PartitionFolder(column, &value)
		null, nullErr := PartitionFolder(column, nil)
		if err != nil {
			if len(column)+len(value) < 80 {
				t.Fatal(err)
			}
			return
		}
		full := name + "/part-00000.parquet"
		if strings.Contains(name, "/") || !ValidOutputName(full) || !filepath.IsLocal(full) {
			t.Fatalf("%q = %q lies in %q", column, value, name)
		}
		if nullErr == nil && name == null {
			t.Fatalf("%q is null", value)
		}
		c, v, ok := strings.Cut(name, "=")
		if !ok || unescape(t, c) != column || unescape(t, v) != value {
			t.Fatalf("%q = %q reads back from %q as %q = %q", column, value, name, unescape(t, c), unescape(t, v))
		}
	})
}

// unescape is what readers of such folders do.
func unescape(t *testing.T, s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		const digits = "0123456789ABCDEF"
		if i+2 >= len(s) || strings.IndexByte(digits, s[i+1]) < 0 || strings.IndexByte(digits, s[i+2]) < 0 {
			t.Fatalf("%q is cut", s)
		}
		out = append(out, byte(strings.IndexByte(digits, s[i+1])<<4|strings.IndexByte(digits, s[i+2])))
		i += 2
	}
	return string(out)
}

// FuzzLists: a list is given out line by line, and is whole or damaged, whatever its name
// says of it.
func FuzzLists(f *testing.F) {
	f.Add([]byte("{\"ordinal\":1}\n{\"ordinal\":2}\n"), int64(2))
	f.Add([]byte("{}\n\n{}"), int64(3))
	f.Add([]byte("[1]"), int64(-1))
	f.Fuzz(func(t *testing.T, body []byte, count int64) {
		s, m := newStore()
		if err := m.Replace(t.Context(), Job(storyJob).Abs("lists/x.jsonl"), body); err != nil {
			t.Fatal(err)
		}
		var got []ListLine
		err := ReadLines(t.Context(), s, storyJob, Ref{Key: "lists/x.jsonl", SHA256: SHA256(body), Count: count}, func(l ListLine) error {
			got = append(got, l)
			return nil
		})
		if err != nil {
			oneLine(t, err)
			return
		}
		if int64(len(got)) != count {
			t.Fatalf("%d lines, its name says %d", len(got), count)
		}
		for _, l := range got {
			line, err := EncodeLine(l)
			var back ListLine
			if err != nil || bytes.Count(line, []byte("\n")) != 1 || json.Unmarshal(line, &back) != nil || !reflect.DeepEqual(l, back) {
				t.Fatalf("%+v is written as %q (%v)", l, line, err)
			}
		}
	})
}
