package aggregator_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/manifest"
	"hayrick/mem"
)

// unpacked is a published part as its readers see it.
func unpacked(t *testing.T, name, body string) string {
	t.Helper()
	var r io.Reader = strings.NewReader(body)
	var err error
	switch path.Ext(name) {
	case ".gz":
		r, err = gzip.NewReader(r)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(r); err == nil {
			defer z.Close()
			r = z
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var awkward = []task{
	one(row("s", "plain", "n", 1), row("s", `quo"te, comma`, "f", 1.0), row("s", "", "b", true)),
	one(row("s", "two\nlines\r\n", "t", time.Date(2026, 11, 20, 12, 0, 0, 5000, time.UTC)), row("x", []byte{0, 255, 10})),
	one(row("n", math.MinInt64, "s", "käse \x00\x01\x7f\\ \u2028"), row("s", " space ", "f", math.Inf(-1)), row("s", "null", "f", math.NaN())),
	one(row("x", []byte{}, "n", 0), row("s", "a/b=c%d e", "b", false, "t", time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)), row("f", 0.1)),
}

// What is written as text is what the results hold, joined from several merges, with
// one line of names.
func TestTextFormats(t *testing.T) {
	for _, format := range []string{"csv", "jsonl"} {
		for ext, compression := range map[string]string{"": "none", ".gz": "gzip", ".zst": "zstd"} {
			for _, remote := range []bool{false, true} {
				t.Run(format+ext+fmt.Sprint(remote), func(t *testing.T) {
					j := build(t, shape{def: func(d *hayrick.JobDefinition) {
						d.Output.Format, d.Output.Compression = format, compression
						d.Merge.FanIn, d.Merge.ByCount = 2, true
					}}, awkward)
					j.mem.Remote = remote
					o := j.aggregate()
					if o.Status != "SUCCEEDED" || o.RowHash != hashOf(t, j.want) || o.RowCount != 11 || len(o.Aggregation.Parts) != 1 {
						t.Fatalf("%+v", o)
					}
					j.chained(o)
					name := "part-00000." + format + ext
					body, ok := j.published()[name]
					if !ok {
						t.Fatalf("published: %v", slices.Sorted(maps.Keys(j.published())))
					}
					text := unpacked(t, name, body)
					columns := []string{"s", "n", "f", "b", "t", "x"}
					if format == "csv" {
						records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
						if err != nil || len(records) != 12 || !slices.Equal(records[0], columns) {
							t.Fatalf("%v: %q", err, text)
						}
						if want := []string{"two\nlines\n", "", "", "", "2026-11-20T12:00:00.000005Z", ""}; !slices.Equal(records[4], want) { // encoding/csv drops \r
							t.Errorf("%q", records[4])
						}
						if !strings.Contains(text, `"two`+"\nlines\r\n"+`"`) || !strings.Contains(text, "\n\"\",,,true,,\n") || !strings.Contains(text, "\n,,0.1,,,\n") {
							t.Errorf("%q", text)
						}
						return
					}
					lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
					if len(lines) != 11 {
						t.Fatalf("%q", text)
					}
					for i, l := range lines {
						var got map[string]any
						if err := json.Unmarshal([]byte(l), &got); err != nil || len(got) != len(columns) {
							t.Fatalf("%v: %s", err, l)
						}
						for _, c := range j.want[i] {
							if s, ok := c.Value.(string); ok && got[c.Name] != s {
								t.Errorf("%q, want %q", got[c.Name], s)
							}
						}
					}
					if !strings.Contains(lines[6], `"f":"-Infinity"`) || !strings.Contains(lines[1], `"f":1.0,`) || !strings.Contains(lines[0], `"x":null}`) {
						t.Errorf("%s", text)
					}
				})
			}
		}
	}
}

// Every row lies in the folder of its values, in the order of the results, whatever
// the format; with and without unique_by.
func TestPartitions(t *testing.T) {
	tasks := []task{
		one(row("k", "a", "day", "2026-11-20", "n", 1), row("k", "b", "day", "x/y z%", "n", 2)),
		one(row("k", "c", "n", 3), row("k", "d", "day", "", "n", 4), row("k", "e", "day", "2026-11-20", "n", 1)),
		one(row("k", "f", "day", manifest.NullPartition, "n", 5), row("k", "g", "day", "2026-11-20", "n", 1), row("k", "a", "day", "ü")),
	}
	want := map[string][]string{
		"day=2026-11-20/n=1":                      {"a", "e", "g"},
		"day=x%2Fy%20z%25/n=2":                    {"b"},
		"day=__HIVE_DEFAULT_PARTITION__/n=3":      {"c"},
		"day=/n=4":                                {"d"},
		"day=%5F_HIVE_DEFAULT_PARTITION__/n=5":    {"f"},
		"day=%C3%BC/n=__HIVE_DEFAULT_PARTITION__": {"a"},
	}
	for _, format := range []string{"parquet", "csv", "jsonl"} {
		for _, unique := range []bool{false, true} {
			t.Run(fmt.Sprint(format, unique), func(t *testing.T) {
				j := build(t, shape{def: func(d *hayrick.JobDefinition) {
					d.Output.Format, d.Output.PartitionBy = format, []string{"day", "n"}
					d.Merge.FanIn, d.Merge.ByCount, d.Merge.TargetRows = 1, true, 3
					if unique {
						d.Output.UniqueBy = []string{"k"}
					}
				}}, tasks)
				o := j.aggregate()
				if o.Status != "SUCCEEDED" {
					t.Fatalf("%s %s", o.Code, o.Message)
				}
				want := maps.Clone(want)
				if unique {
					delete(want, "day=%C3%BC/n=__HIVE_DEFAULT_PARTITION__") // a is there twice
					if o.RowCount != 7 || o.DroppedRows != 1 {
						t.Errorf("%d rows, %d dropped", o.RowCount, o.DroppedRows)
					}
				} else if o.RowHash != hashOf(t, j.want) {
					t.Error("other rows")
				}
				j.chained(o)
				got := map[string][]string{}
				for name, body := range j.published() {
					folder, file := path.Split(name)
					if name == manifest.SuccessName {
						continue
					}
					if !strings.HasPrefix(file, "part-00000.") || !manifest.ValidOutputName(name) {
						t.Errorf("published %s", name)
					}
					for _, p := range strings.Split(strings.Trim(folder, "/"), "/") {
						if _, err := url.PathUnescape(p); err != nil {
							t.Error(err)
						}
					}
					var keys []string
					if format == "parquet" {
						for _, r := range decoded(t, body) {
							_, k, _ := strings.Cut(r, "k=")
							keys = append(keys, k[:1])
						}
					} else {
						text := unpacked(t, name, body)
						if format == "csv" {
							_, text, _ = strings.Cut(text, "\n")
						}
						for l := range strings.Lines(text) {
							keys = append(keys, strings.TrimPrefix(l, `{"k":"`)[:1])
						}
					}
					got[strings.Trim(folder, "/")] = keys
				}
				if !maps.EqualFunc(got, want, slices.Equal) {
					t.Errorf("got  %q\nwant %q", got, want)
				}
			})
		}
	}
}

// More partitions than a dataset may have, or a value that no folder can be called by,
// end the run by name.
func TestPartitionsThatCannotBe(t *testing.T) {
	many, half, rest := task{ok: 1}, task{ok: 1}, task{ok: 1}
	for n := range 10_001 {
		many.rows = append(many.rows, row("n", n))
	}
	half.rows, rest.rows = many.rows[:5000], many.rows[5000:]
	for _, c := range []struct {
		want  string
		tasks []task
	}{
		{"more than 10000 partitions", []task{many}},
		{"more than 10000 partitions", []task{half, rest}}, // of two merges
		{"a folder name of 301 bytes", []task{one(row("n", strings.Repeat("x", 299)))}},
		{`no row has a column "n"`, []task{one(row("m", 1))}},
	} {
		want := c.want
		j := build(t, shape{def: func(d *hayrick.JobDefinition) {
			d.Output.PartitionBy, d.Merge.FanIn, d.Merge.ByCount = []string{"n"}, 1, true
		}}, c.tasks)
		o := j.aggregate()
		if o.Status != "FAILED" || !strings.Contains(o.Message, want) || !strings.Contains(o.Message, "output.partition_by") {
			t.Errorf("%s %s %s, want %s", o.Status, o.Code, o.Message, want)
		}
	}
}

// Rows too large to sort in the memory there is go through scratch; of a key that all
// rows have, next to nothing does.
func TestSortingThroughScratch(t *testing.T) {
	big := make([]byte, 1<<20)
	for i, x := 0, uint32(1); i < len(big); i++ {
		x = x*1664525 + 1013904223
		big[i] = byte(x >> 24)
	}
	const rows = 6
	var same, distinct []task
	for n := range rows {
		same = append(same, one(row("k", big, "n", n)))
		distinct = append(distinct, one(row("k", append(bytes.Clone(big), byte(99-n)), "n", n)))
	}
	made := map[string]int{}
	for name, tasks := range map[string][]task{"same": same, "distinct": distinct} {
		j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Output.UniqueBy = []string{"k"} }}, tasks)
		a := j.process("p")
		a.Memory = 1 // the least
		j.trigger()
		j.must(j.drain(a))
		o := j.outcome()
		j.checkUnique(o, places(tasks))
		made[name] = j.temps.size >> 20
	}
	// Of each row that goes to scratch there are key and record; then the run, and the
	// part. Of one key two rows fit into memory, and one of the two is dropped there.
	if made["distinct"] < 6*rows || made["same"] > 4*rows {
		t.Errorf("MiB of scratch files: %v", made)
	}
}

// Schemas that cannot be one end the job with both tasks, their files and the column.
func TestUnlikeSchemasAreNamed(t *testing.T) {
	j := build(t, shape{}, []task{one(row("a", 1, "b", "x")), one(row("c", 1)), one(row("b", 2))})
	o := j.aggregate()
	for _, want := range []string{`column "b" is string in task-0000 (tasks/task-0000/`, `int in task-0002 (tasks/task-0002/`, "output.schema"} {
		if o.Status != "FAILED" || !strings.Contains(o.Message, want) {
			t.Errorf("%s %s: no %q", o.Status, o.Message, want)
		}
	}
	j.absent(j.key.AggregationPlan(0))
}

// A declared schema is that of the dataset, also in columns that no row has.
func TestDeclaredSchema(t *testing.T) {
	j := build(t, shape{def: func(d *hayrick.JobDefinition) {
		d.Output.Schema = []hayrick.Column{{Name: "z", Type: "float"}, {Name: "b", Type: "string"}, {Name: "a", Type: "int"}}
	}}, []task{one(row("a", 1)), one(row("b", "x"))})
	o := j.aggregate()
	j.whole(o)
	if got := string(j.mergePlan().Columns); got != `{"fields":[{"kind":"float","name":"z"},{"kind":"string","name":"b"},{"kind":"int","name":"a"}]}` {
		t.Error(got)
	}
}

// Where memory is bounded, a merge that comes while as many are at work as fit is
// tried again; it is not lost, and none waits with a claim in hand. Merges of huge rows
// are fewer.
func TestMergesWaitForMemory(t *testing.T) {
	huge := make([]byte, 14<<20)
	for i, x := 0, uint32(1); i < len(huge); i++ {
		x = x*1664525 + 1013904223
		huge[i] = byte(x >> 24)
	}
	for name, c := range map[string]struct {
		memory int64
		row    []byte
		waits  bool
	}{
		"little memory":                {1, []byte("x"), true},
		"enough for two":               {390 << 20, []byte("x"), false},
		"enough for two, but not such": {390 << 20, huge, true},
	} {
		t.Run(name, func(t *testing.T) {
			j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 1, true }},
				[]task{one(row("a", c.row)), one(row("a", c.row))})
			a := j.process("p")
			j.must(a.Advance(t.Context(), jobID, 0))
			ds, err := j.mem.Receive(t.Context(), hayrick.QueueTasks, 10, time.Hour, 0)
			j.must(err)
			a.Memory = c.memory
			j.waitForMemory(a, ds, c.waits)
			if len(c.row) == 1 { // the rest of the huge ones takes long, and is the same
				if v, err := a.Do(j.ctx("p"), ds[1]); !v.Ack || err != nil {
					t.Errorf("%+v, %v", v, err)
				}
				j.must(j.drainAll(a, ds))
				j.whole(j.outcome())
			}
		})
	}
}

func (j *jobRig) waitForMemory(a *aggregator.Aggregator, ds []hayrick.Delivery, waits bool) {
	t := j.t
	tried := false
	j.mem.Hook = hookAt(func(c mem.Call) bool { return c.Op == "Put" && strings.Contains(c.Key, "agg-0-1-0000") }, func() {
		tried = true
		v, err := a.Do(j.ctx("p"), ds[1])
		if v.Ack == waits || err != nil || waits && (v.Again <= 0 || !strings.Contains(v.Because, "memory")) {
			t.Errorf("%+v, %v", v, err)
		}
		if _, held := j.claimOf("agg-0-1-0001"); held && waits {
			t.Error("it has a claim")
		}
	})
	if v, err := a.Do(j.ctx("p"), ds[0]); !v.Ack || err != nil {
		t.Errorf("%+v, %v", v, err)
	}
	if !tried {
		t.Error("no merge was tried meanwhile")
	}
}
