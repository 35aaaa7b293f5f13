package aggregator_test

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// placed is a row with its place in the job.
type placed struct {
	row         rows.Row
	item, place int64
}

// keyText is a row's key as the model sees it.
func keyText(r rows.Row, columns []string) string {
	var b strings.Builder
	for _, name := range columns {
		var v any
		for _, c := range r {
			if c.Name == name {
				v = c.Value
			}
		}
		if f, ok := v.(float64); ok && f == 0 {
			v = 0.0 // not -0
		}
		fmt.Fprintf(&b, "%T %v\x00", v, v)
	}
	return b.String()
}

// unique is the naive model: the rows that stay and those that do not.
func unique(all []placed, columns []string, keep string) (stay, drop []rows.Row) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.item, b.item), cmp.Compare(a.place, b.place))
	})
	if keep == hayrick.KeepLast {
		slices.Reverse(all)
	}
	seen := map[string]bool{}
	for _, p := range all {
		if k := keyText(p.row, columns); seen[k] {
			drop = append(drop, p.row)
		} else {
			seen[k] = true
			stay = append(stay, p.row)
		}
	}
	return stay, drop
}

// places gives every row of the groups its item and place.
func places(groups ...[]task) (all []placed) {
	n := int64(0)
	for _, g := range groups {
		for _, x := range g {
			all = append(all, placesOf(n, x)...)
			n++
		}
	}
	return all
}

func placesOf(n int64, x task) (all []placed) {
	at := map[int64]int64{}
	for i, r := range x.rows {
		item := n
		if x.ordinals != nil {
			item = x.ordinals[i]
		}
		all = append(all, placed{r, item, at[item]})
		at[item]++
	}
	return all
}

// checkUnique holds an outcome against the model.
func (j *jobRig) checkUnique(o manifest.Outcome, all []placed) {
	j.t.Helper()
	if o.Status != "SUCCEEDED" {
		j.t.Fatalf("%s %s %s", o.Status, o.Code, o.Message)
	}
	stay, drop := unique(all, j.def.Output.UniqueBy, cmp.Or(j.def.Output.Keep, hayrick.KeepFirst))
	var got []string
	var keys [][]byte
	for _, p := range o.Aggregation.Parts {
		body := j.published()[p.Name]
		h, err := rows.ParseHash(p.RowHash)
		j.must(err)
		j.must(rows.Verify(strings.NewReader(body), p.Bytes, p.Rows, h))
		got = append(got, decoded(j.t, body)...)
		keys = append(keys, keysOf(j.t, body, j.def.Output.UniqueBy)...)
	}
	want := spelled(stay)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		j.t.Fatalf("%d rows came out, the model has %d:\n got %.600q\nwant %.600q", len(got), len(want), got, want)
	}
	for i := range keys[min(1, len(keys)):] {
		if slices.Compare(keys[i], keys[i+1]) >= 0 {
			j.t.Fatalf("row %d is not above the one before", i+1)
		}
	}
	if o.RowCount != int64(len(stay)) || o.RowHash != hashOf(j.t, stay) || o.DroppedRows != int64(len(drop)) || o.DroppedHash != hashOf(j.t, drop) ||
		o.Aggregation.TotalRows != o.RowCount || o.Aggregation.DroppedRows != o.DroppedRows {
		j.t.Fatalf("%d rows with %s and %d dropped with %s; want %d with %s and %d with %s",
			o.RowCount, o.RowHash, o.DroppedRows, o.DroppedHash, len(stay), hashOf(j.t, stay), len(drop), hashOf(j.t, drop))
	}
}

func keysOf(t testing.TB, body string, columns []string) (keys [][]byte) {
	t.Helper()
	f, err := rows.Open(strings.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	k, err := rows.NewKeyer(f.Schema(), columns)
	if err != nil {
		t.Fatal(err)
	}
	sc, err := f.Scan(rows.Schema{})
	if err != nil {
		t.Fatal(err)
	}
	for b, err := sc.Next(); err == nil; b, err = sc.Next() {
		for r := range b.Rows {
			keys = append(keys, k.Append(nil, b, r))
		}
	}
	return keys
}

// Rows of one key: the first or last by item, then by emission, whatever task they
// were in; of a retry too, whose items come later and have lower ordinals.
func TestUnique(t *testing.T) {
	first := []task{
		{ok: 1, rows: []rows.Row{row("k", "a", "v", 1), row("k", "b", "v", 2), row("k", "a", "v", 3)}, ordinals: []int64{4, 4, 4}},
		{ok: 1, rows: []rows.Row{row("k", "c", "v", 4), row("v", 5)}, ordinals: []int64{6, 7}, again: 1},
	}
	retry := []task{{ok: 2, rows: []rows.Row{row("k", "b", "v", 6), row("k", "c", "v", 7), row("v", 8)}, ordinals: []int64{1, 2, 9}}}
	for keep, want := range map[string]string{"": "v=5 k=a v=1 k=b v=6 k=c v=7", "first": "v=5 k=a v=1 k=b v=6 k=c v=7", "last": "v=8 k=a v=3 k=b v=2 k=c v=4"} {
		j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Output.UniqueBy, d.Output.Keep = []string{"k"}, keep }}, first, retry)
		o := j.aggregate()
		j.checkUnique(o, places(first, retry))
		got := strings.Join(decoded(t, j.published()["part-00000.parquet"]), " ")
		if got != want {
			t.Errorf("keep %q: %s, want %s", keep, got, want)
		}
		j.chained(o)
	}
}

// keep: error ends the job, and names the key and both items.
func TestUniqueKeepError(t *testing.T) {
	for name, c := range map[string]struct {
		tasks []task
		fanIn int
		want  string
	}{
		"one item":      {[]task{{ok: 1, rows: []rows.Row{row("k", "a", "n", 1), row("k", "a", "n", 1)}, ordinals: []int64{3, 3}}}, 10, `the key {k: "a", n: 1} is twice in item 3`},
		"one merge":     {[]task{one(row("k", "a", "n", 1)), one(row("k", "b", "n", 1)), one(row("k", "a", "n", 1))}, 10, `the key {k: "a", n: 1} is in items 0 and 2`},
		"two merges":    {[]task{one(row("k", "a", "n", 1)), one(row("k", "a", "n", 1))}, 1, `the key {k: "a", n: 1} is in items 0 and 1`},
		"nulls":         {[]task{one(row("k", "a")), one(row("k", "a")), one(row("n", 1))}, 1, `the key {k: "a", n: null} is in items 0 and 1`},
		"no duplicates": {[]task{one(row("k", "a", "n", 1)), one(row("k", "a", "n", 2)), one(row("k", "b", "n", 1))}, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			j := build(t, shape{def: func(d *hayrick.JobDefinition) {
				d.Output.UniqueBy, d.Output.Keep = []string{"k", "n"}, "error"
				d.Merge.FanIn, d.Merge.ByCount = c.fanIn, true
			}}, c.tasks)
			o := j.aggregate()
			if c.want == "" {
				j.checkUnique(o, places(c.tasks))
				return
			}
			if o.Status != "FAILED" || o.Code != manifest.CodeDuplicateKey || !strings.Contains(o.Message, c.want) {
				t.Errorf("%s %s %s", o.Status, o.Code, o.Message)
			}
			j.chained(o)
		})
	}
}

// A column that no row has is a mistake of the job file: every row would be equal to
// every other.
func TestUniqueByNothing(t *testing.T) {
	j := build(t, shape{def: func(d *hayrick.JobDefinition) { d.Output.UniqueBy = []string{"urn"} }}, []task{one(row("uri", "a", "n", 1))})
	o := j.aggregate()
	if o.Status != "FAILED" || !strings.Contains(o.Message, `output.unique_by: no row has a column "urn"; the columns are uri, n`) {
		t.Errorf("%s %s", o.Status, o.Message)
	}
	j.absent(j.key.AggregationPlan(0))
}

// Whatever the rows, their keys, the way they are split over items, tasks, groups and
// merges, and the memory to sort in: what comes out is what the naive model says.
func TestUniqueModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		value := func(kind int, label string) any {
			if rapid.IntRange(0, 4).Draw(rt, label+" null") == 0 {
				return nil
			}
			switch kind {
			case 0:
				return rapid.SampledFrom([]string{"", "a", "a\x00", "a\x00b", "at://x/1", "at://x/2", "at://x", strings.Repeat("k", 3000)}).Draw(rt, label)
			case 1:
				return rapid.SampledFrom([]int64{math.MinInt64, -1, 0, 1, 255, 256, math.MaxInt64}).Draw(rt, label)
			case 2:
				return rapid.SampledFrom([]float64{math.Inf(-1), -1.5, math.Copysign(0, -1), 0, 1e-300, 2, math.Inf(1)}).Draw(rt, label)
			case 3:
				return rapid.Bool().Draw(rt, label)
			case 4:
				return rapid.SampledFrom([][]byte{{}, {0}, {0, 0}, {0, 255}, {1}, {255}}).Draw(rt, label)
			}
			return time.UnixMicro(rapid.Int64Range(-2, 2).Draw(rt, label)).UTC()
		}
		kinds := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 4).Draw(rt, "kinds")
		keys := rapid.IntRange(1, len(kinds)).Draw(rt, "key columns")
		serial := 0
		makeRow := func() rows.Row {
			r := row("serial", serial)
			serial++
			for i, k := range kinds {
				r = append(r, rows.Col{Name: fmt.Sprint("c", i), Value: value(k, fmt.Sprint("c", i))})
			}
			if rapid.Bool().Draw(rt, "permuted") {
				slices.Reverse(r)
			}
			return r
		}
		var groups [][]task
		ordinals := rapid.Permutation([]int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}).Draw(rt, "ordinals")
		for range rapid.IntRange(1, 2).Draw(rt, "groups") {
			var g []task
			for range rapid.IntRange(1, 5).Draw(rt, "tasks") {
				x := task{}
				for range rapid.IntRange(0, 2).Draw(rt, "items") {
					x.ok++
					for range rapid.IntRange(0, 4).Draw(rt, "rows") {
						x.rows = append(x.rows, makeRow())
						x.ordinals = append(x.ordinals, ordinals[0])
					}
					ordinals = ordinals[1:]
				}
				g = append(g, x)
			}
			groups = append(groups, g)
		}
		if len(groups) == 2 {
			groups[0][0].again = 1
		}
		var columns []string
		for i := range keys {
			columns = append(columns, fmt.Sprint("c", i))
		}
		j := build(t, shape{def: func(d *hayrick.JobDefinition) {
			d.Output.UniqueBy, d.Output.Keep = columns, rapid.SampledFrom([]string{"first", "last"}).Draw(rt, "keep")
			d.Merge.FanIn, d.Merge.ByCount = rapid.IntRange(1, 4).Draw(rt, "fan in"), rapid.Bool().Draw(rt, "by count")
			d.Merge.TargetRows = rapid.Int64Range(1, 20).Draw(rt, "target rows")
		}}, groups...)
		all := places(groups...)
		o := j.aggregate()
		if o.Status == "FAILED" { // a column that is null everywhere
			for _, p := range all {
				full := len(columns)
				for _, c := range p.row {
					if slices.Contains(columns, c.Name) && c.Value != nil {
						full--
					}
				}
				if full == 0 {
					rt.Fatalf("%s %s", o.Code, o.Message)
				}
			}
			return
		}
		j.checkUnique(o, all)
	})
}

// A run that is not the one that level 1 committed stops every merge of level 2 that
// needs it, by name, and nothing is dropped or published for it; restored, the job ends as
// if nothing had been.
func TestTamperedRuns(t *testing.T) {
	tasks := []task{
		one(row("a", 1, "b", "x"), row("a", 3, "b", "x")),
		one(row("a", 2, "b", "y"), row("a", 3, "b", "y")),
		one(row("a", 1, "b", "z"), row("a", 4, "b", "z")),
	}
	fresh := func() (*jobRig, []string) {
		j := build(t, shape{def: func(d *hayrick.JobDefinition) {
			d.Merge.FanIn, d.Merge.ByCount, d.Merge.TargetRows, d.Output.UniqueBy = 1, true, 2, []string{"a"}
		}}, tasks)
		a := j.process("level 1")
		j.must(a.Advance(t.Context(), jobID, 0))
		for {
			ds, err := j.mem.Receive(t.Context(), hayrick.QueueTasks, 1, time.Minute, 0)
			j.must(err)
			if len(ds) == 0 || ds[0].TaskID == "" { // the trigger, once level 1 is full
				break
			}
			if _, err := a.Do(j.ctx("level 1"), ds[0]); err != nil {
				t.Fatal(err)
			}
			j.must(j.mem.Ack(t.Context(), hayrick.QueueTasks, ds[0]))
		}
		var runs []string
		for key := range j.mem.Snapshot() {
			if strings.HasSuffix(key, ".run") {
				runs = append(runs, key)
			}
		}
		slices.Sort(runs)
		if len(runs) != len(tasks) {
			t.Fatalf("level 1 left %q", runs)
		}
		return j, runs
	}
	j, runs := fresh()
	size := len(j.mem.Snapshot()[runs[0]])
	type tamper struct {
		name string
		with func(all map[string][]byte) map[string][]byte // nil = gone
	}
	to := func(name string, f func(b []byte) []byte) tamper {
		return tamper{name, func(all map[string][]byte) map[string][]byte { return map[string][]byte{runs[0]: f(all[runs[0]])} }}
	}
	all := []tamper{
		to("deleted", func([]byte) []byte { return nil }),
		to("emptied", func([]byte) []byte { return []byte{} }),
		to("truncated", func(b []byte) []byte { return b[:len(b)-1] }),
		to("its first half", func(b []byte) []byte { return b[:len(b)/2] }),
		{"swapped", func(all map[string][]byte) map[string][]byte {
			return map[string][]byte{runs[0]: all[runs[1]], runs[1]: all[runs[0]]}
		}},
	}
	for _, at := range flips(size) {
		all = append(all, to(fmt.Sprintf("byte %d", at), func(b []byte) []byte { return flipped(b, at) }))
	}
	for _, x := range all {
		j, runs = fresh()
		sound := j.mem.Snapshot()
		for key, body := range x.with(sound) {
			j.mem.Damage(key, body)
		}
		// An hour of deliveries, by processes that do not know what the one before read.
		named := false
		for n := range 60 {
			a := j.process(fmt.Sprint("p-", n))
			_, err := j.step(a)
			if err != nil {
				for _, key := range runs[:2] {
					named = named || strings.Contains(err.Error(), job.Rel(key)) && errors.Is(err, hayrick.ErrCorrupt)
				}
			}
			j.clock.Sleep(t.Context(), time.Minute)
		}
		if _, _, err := j.store.Outcome(t.Context(), jobID, 0); !errors.Is(err, hayrick.ErrNotFound) {
			t.Fatalf("%s: the run has ended: %v", x.name, err)
		}
		if !named {
			t.Fatalf("%s: no error named the run", x.name)
		}
		for key := range x.with(sound) {
			j.mem.Damage(key, sound[key])
		}
		j.must(j.mem.Send(t.Context(), hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: jobID, Role: hayrick.RoleAggregator}}))
		j.must(j.drain(j.process("after")))
		j.checkUnique(j.outcome(), places(tasks))
	}
}
