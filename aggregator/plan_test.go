package aggregator_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/manifest"
)

// cut runs inputs through a Cutter.
func cut(m hayrick.Merge, in []manifest.MergeInput) (spans []manifest.Span) {
	c := aggregator.Cutter{Merge: m}
	for _, x := range in {
		if s, ok := c.Add(x); ok {
			spans = append(spans, s)
		}
	}
	if s, ok := c.Close(); ok {
		spans = append(spans, s)
	}
	return spans
}

func sized(ns ...int64) (in []manifest.MergeInput) {
	for _, n := range ns {
		in = append(in, manifest.MergeInput{Rows: n, Bytes: 10 * n})
	}
	return in
}

func TestCutter(t *testing.T) {
	m := hayrick.Merge{FanIn: 2, TargetRows: 100, TargetBytes: 5000}
	for _, c := range []struct {
		name string
		m    hayrick.Merge
		in   []manifest.MergeInput
		want string // first+count of each node
	}{
		{"nothing", m, nil, ""},
		{"no rows at all", m, sized(0, 0, 0), ""},
		{"less than a node", m, sized(1), "0+1"},
		{"rows fill it", m, sized(50, 49, 1, 7), "0+3 3+1"},
		{"bytes fill it", m, []manifest.MergeInput{{Rows: 1, Bytes: 4999}, {Rows: 1, Bytes: 1}, {Rows: 1, Bytes: 1}}, "0+2 2+1"},
		{"one is never enough", m, sized(1000, 1, 1000, 1), "0+2 2+2"},
		{"those without rows do not count", m, sized(0, 1000, 0, 0, 1, 0, 1000, 1), "0+5 5+3"},
		{"trailing ones are in no node", m, sized(100, 100, 0, 0), "0+2"},
		{"... nor after a node that is not full", m, sized(100, 100, 3, 0, 0), "0+2 2+3"},
		{"by count", hayrick.Merge{FanIn: 3, ByCount: true, TargetRows: 1}, sized(9, 9, 0, 9, 9, 9, 9, 9), "0+4 4+3 7+1"},
		{"a fan-in of none is one of one", hayrick.Merge{ByCount: true}, sized(0, 5, 5), "0+2 2+1"},
		{"rows without a target", hayrick.Merge{FanIn: 2}, sized(1, 1, 1), "0+2 2+1"},
	} {
		got := ""
		for _, s := range cut(c.m, c.in) {
			got += fmt.Sprintf(" %d+%d", s.First, s.Count)
		}
		if got != "" {
			got = got[1:]
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Every input with rows is in exactly one node, in order; every node but the last
// has fan_in of them and what it takes; no input that would have been too much.
func TestCutterCoversAllInputs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := hayrick.Merge{
			FanIn: rapid.IntRange(1, 12).Draw(t, "fan_in"), ByCount: rapid.Bool().Draw(t, "by_count"),
			TargetRows: rapid.Int64Range(1, 500).Draw(t, "rows"), TargetBytes: hayrick.Bytes(rapid.Int64Range(1, 5000).Draw(t, "bytes")),
		}
		in := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) manifest.MergeInput {
			n := rapid.Int64Range(0, 60).Draw(t, "n")
			return manifest.MergeInput{Rows: n, Bytes: n * rapid.Int64Range(1, 20).Draw(t, "width")}
		}), 0, 200).Draw(t, "inputs")
		spans := cut(m, in)
		next := int64(0)
		enough := func(in []manifest.MergeInput) bool {
			full, rows, bytes := 0, int64(0), int64(0)
			for _, x := range in {
				if x.Rows > 0 {
					full, rows, bytes = full+1, rows+x.Rows, bytes+x.Bytes
				}
			}
			return full >= m.FanIn && (m.ByCount || rows >= m.TargetRows || bytes >= int64(m.TargetBytes))
		}
		for i, s := range spans {
			if s.First != next || s.Count < 1 {
				t.Fatalf("node %d is %+v, the one before ends at %d", i, s, next)
			}
			next += s.Count
			of := in[s.First:next]
			if i < len(spans)-1 && !enough(of) {
				t.Fatalf("node %d is cut too early: %+v", i, of)
			}
			if enough(of[:len(of)-1]) {
				t.Fatalf("node %d is cut too late: %+v", i, of)
			}
			if !slices.ContainsFunc(of, func(x manifest.MergeInput) bool { return x.Rows > 0 }) {
				t.Fatalf("node %d has nothing to merge", i)
			}
		}
		for _, x := range in[next:] {
			if x.Rows > 0 {
				t.Fatalf("%d rows are in no node", x.Rows)
			}
		}
	})
}

// 002-46: 1,000 results become 100, 10, 1 with a fan-in of 10; the fan-in is the job
// file's.
func TestTreeOf(t *testing.T) {
	for _, c := range []struct {
		level1 int64
		fanIn  int
		want   []int64
	}{
		{0, 10, []int64{}}, {1, 10, []int64{1}}, {2, 10, []int64{2, 1}}, {10, 10, []int64{10, 1}}, {11, 10, []int64{11, 2, 1}},
		{100, 10, []int64{100, 10, 1}}, {101, 10, []int64{101, 11, 2, 1}}, {27, 3, []int64{27, 9, 3, 1}}, {5, 1, []int64{5, 3, 2, 1}},
	} {
		got := aggregator.TreeOf(c.level1, c.fanIn)
		if got.FanIn != c.fanIn || got.Nodes == nil || !slices.Equal(got.Nodes, c.want) {
			t.Errorf("%d nodes with fan-in %d: %+v, want %v", c.level1, c.fanIn, got, c.want)
		}
	}
}

func TestPartsOf(t *testing.T) {
	for _, c := range []struct {
		sizes []int64
		part  int64
		want  []manifest.Span
	}{
		{nil, 100, nil},
		{[]int64{5, 6, 7}, 0, []manifest.Span{{First: 0, Count: 3}}},
		{[]int64{50, 50, 1, 99, 100}, 100, []manifest.Span{{First: 0, Count: 2}, {First: 2, Count: 2}, {First: 4, Count: 1}}},
		{[]int64{500, 1, 500}, 100, []manifest.Span{{First: 0, Count: 1}, {First: 1, Count: 1}, {First: 2, Count: 1}}}, // never none
		{slices.Repeat([]int64{1}, 2*aggregator.MaxSources+1), 0, []manifest.Span{
			{First: 0, Count: aggregator.MaxSources}, {First: aggregator.MaxSources, Count: aggregator.MaxSources}, {First: 2 * aggregator.MaxSources, Count: 1}}},
	} {
		if got := aggregator.PartsOf(c.sizes, c.part); !slices.Equal(got, c.want) {
			t.Errorf("%v in parts of %d: %+v, want %+v", c.sizes, c.part, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOf(rapid.Int64Range(1, 50)).Draw(t, "sizes")
		part := rapid.Int64Range(0, 200).Draw(t, "part")
		next := int64(0)
		parts := aggregator.PartsOf(sizes, part)
		for i, p := range parts {
			if p.First != next || p.Count < 1 {
				t.Fatalf("part %d is %+v, the one before ends at %d", i, p, next)
			}
			next += p.Count
			var size int64
			for _, n := range sizes[p.First:next] {
				size += n
			}
			if part > 0 && p.Count > 1 && size > part {
				t.Fatalf("part %d has %d bytes in %d outputs", i, size, p.Count)
			}
			if part > 0 && i < len(parts)-1 && size+sizes[next] <= part {
				t.Fatalf("part %d has room for the next output", i)
			}
		}
		if next != int64(len(sizes)) {
			t.Fatalf("%d of %d outputs are in a part", next, len(sizes))
		}
	})
}

// Row groups have about the size that is asked for, also the last one.
func TestGroupRows(t *testing.T) {
	if got := aggregator.GroupRows(5, 0); got != 0 {
		t.Errorf("no target: %d", got)
	}
	if got := aggregator.GroupRows(0, 7); got != 7 {
		t.Errorf("no rows: %d", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		target := rapid.Int64Range(1, 1<<30).Draw(t, "target")
		total := rapid.Int64Range(1, 1<<40).Draw(t, "total")
		got := aggregator.GroupRows(total, target)
		groups := (total + got - 1) / got
		last := total - (groups-1)*got
		if groups == 1 {
			if 2*total >= 3*target+2 {
				t.Fatalf("one group of %d rows, asked for %d", total, target)
			}
			return
		}
		if 2*got > 3*target+2 || 3*got < 2*target-3 {
			t.Fatalf("groups of %d rows, asked for %d", got, target)
		}
		if last < 1 || got-last >= groups {
			t.Fatalf("%d groups of %d rows and one of %d", groups-1, got, last)
		}
	})
}

func TestListName(t *testing.T) {
	lists := map[string]string{"repo_not_found": "deleted_dids"}
	for _, c := range []struct {
		class     string
		exhausted bool
		want      string
	}{{"repo_not_found", false, "deleted_dids"}, {"poison", false, "permanent"}, {"repo_not_found", true, "exhausted"}, {"timeout", true, "exhausted"}} {
		if got := aggregator.ListName(lists, c.class, c.exhausted); got != c.want {
			t.Errorf("%s, exhausted %v: %s, want %s", c.class, c.exhausted, got, c.want)
		}
	}
}
