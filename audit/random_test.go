package audit_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hayrick"
	"hayrick/audit"
	"hayrick/manifest"
)

// dice gives each (ordinal, group) its fate from a seed, so that telling a story
// twice tells the same.
type dice struct {
	seed   int
	failed int // of 16 tries
}

func (d dice) roll(what string, x, y int64) int {
	sum := manifest.SHA256(fmt.Append(nil, d.seed, what, x, y))
	var n int
	fmt.Sscanf(sum[:6], "%x", &n)
	return n
}

func (d dice) fate(o int64, group int) fate {
	if d.roll("fails", o, int64(group))%16 >= d.failed {
		return fate{rows: d.roll("rows", o, 0) % 4}
	}
	switch d.roll("class", o, int64(group)) % 6 {
	case 0:
		return fate{class: "repo_not_found", disp: hayrick.Permanent}
	case 1:
		return fate{class: "poison", disp: hayrick.Poison}
	case 2:
		return fate{class: "rate_limit", disp: hayrick.RateLimit}
	case 3:
		return fate{class: "lost_worker", disp: hayrick.Infra}
	}
	return fate{class: "timeout", disp: hayrick.Timeout}
}

// ends plays the job item by item: how each ends, counted apart from batches, lists
// and tasks. Batches that could not run are left to the story.
func (s story) ends() (ok, permanent, exhausted, rows int64) {
	for o := range int64(s.items) {
		charged := 0
		for group := 0; ; group++ {
			f := s.fate(o, group)
			if f.class == "" {
				ok, rows = ok+1, rows+int64(f.rows)
				break
			}
			if f.disp.Final() {
				permanent++
				break
			}
			if f.disp != hayrick.Infra {
				charged++
			}
			if charged > s.passes || group >= s.passes+3 {
				exhausted++
				break
			}
		}
	}
	return ok, permanent, exhausted, rows
}

func TestRandomJobs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := dice{seed: rapid.IntRange(0, 1<<20).Draw(rt, "seed"), failed: rapid.IntRange(0, 14).Draw(rt, "failed")}
		s := story{
			items: rapid.IntRange(1, 90).Draw(rt, "items"), batch: rapid.IntRange(1, 9).Draw(rt, "batch"),
			passes: rapid.IntRange(0, 3).Draw(rt, "passes"), fanIn: rapid.IntRange(2, 5).Draw(rt, "fan_in"),
			parts: rapid.IntRange(1, 3).Draw(rt, "parts"), refs: rapid.Bool().Draw(rt, "refs"), orders: rapid.IntRange(0, 2).Draw(rt, "orders"),
			fate: d.fate,
		}
		wholes := rapid.Bool().Draw(rt, "whole")
		if wholes {
			s.whole = func(task int64) bool { return d.roll("whole", task, 0)%8 == 0 }
		}
		w := build(t, s)
		r := w.audit(true)
		clean(rt, r)
		if r.Items.Total != int64(s.items) || r.Items.OK+r.Items.Permanent+r.Items.Exhausted != r.Items.Total || r.Items.Open != 0 {
			rt.Fatalf("%+v", r.Items)
		}
		if ok, permanent, exhausted, rows := s.ends(); !wholes && (r.Items != audit.Items{Total: int64(s.items), OK: ok, Permanent: permanent, Exhausted: exhausted} || r.Rows.Out != rows) {
			rt.Fatalf("audit: %+v and %d rows; played: %d ok, %d permanent, %d exhausted, %d rows", r.Items, r.Rows.Out, ok, permanent, exhausted, rows)
		}
		objects := w.mem.Snapshot()
		for range 4 {
			key := rapid.SampledFrom(slices.Sorted(maps.Keys(objects))).Draw(rt, "object")
			rel := job.Rel(key)
			i := rapid.SampledFrom(positions(rel, objects[key])).Draw(rt, "byte")
			b := bytes.Clone(objects[key])
			b[i] ^= 1 << (i % 8)
			named(rt, w.damaged(key, b), rel, fmt.Sprintf("with byte %d flipped", i))
		}
	})
}
