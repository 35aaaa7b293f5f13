package audit_test

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"hayrick"
	"hayrick/audit"
	"hayrick/manifest"
)

var everyByte = flag.Bool("every-byte", false, "flip each byte of each object, not a sample")

// rich is a job with everything in it: two retry groups, permanent, exhausted, a batch
// that could not run, a merge that failed, two parts, lists as objects, orders.
func rich() story {
	return story{items: 23, batch: 3, passes: 1, fanIn: 2, parts: 2, orders: 2, refs: true,
		whole:  func(task int64) bool { return task == 2 },
		broken: func(merge int) int { return []int{0, 1, 0, 0, 0}[merge] },
		fate: func(o int64, group int) fate {
			switch {
			case o == 4 && group == 0:
				return fate{class: "repo_not_found", disp: hayrick.Permanent}
			case o%5 == 1 && group < 3:
				return fate{class: "timeout", disp: hayrick.Timeout}
			case o == 17:
				return fate{class: "bad_item"} // the class says permanent
			}
			return fate{rows: int(o % 4)}
		}}
}

// damaged audits the world with other bytes in one object; nil is none.
func (w *world) damaged(key string, body []byte) audit.Report {
	old := w.mem.Snapshot()[key]
	w.mem.Damage(key, body)
	defer w.mem.Damage(key, old)
	return w.audit(false)
}

func isView(rel string) bool { return strings.HasSuffix(rel, "manifest.json") }

// named fails the test unless the report names the object, and, of what is broken,
// names it first.
func named(t checker, r audit.Report, rel, how string) {
	t.Helper()
	at := slices.IndexFunc(r.Findings, func(f audit.Finding) bool { return f.Key == rel })
	if at < 0 {
		t.Errorf("%s %s: not found; %s, findings %v", rel, how, r.Line, r.Findings)
		return
	}
	if isView(rel) {
		if f := r.Findings[at]; f.Severity != audit.View || !r.Proven {
			t.Errorf("%s %s: %v, proven %v", rel, how, f, r.Proven)
		}
		return
	}
	if first, broken := r.First(); !broken || first.Key != rel || r.Proven {
		t.Errorf("%s %s: the first broken thing is %v, proven %v", rel, how, first, r.Proven)
	}
}

// 002-48: what disagrees with the commit that names it is an error, never passed over.
func TestEveryObjectIsGuarded(t *testing.T) {
	for name, s := range map[string]story{"tiny": tiny(), "rich": rich()} {
		t.Run(name, func(t *testing.T) {
			w := build(t, s)
			clean(t, w.audit(true))
			objects := w.mem.Snapshot()
			for _, key := range slices.Sorted(maps.Keys(objects)) {
				rel, body := job.Rel(key), objects[key]
				at := positions(rel, body)
				if name == "rich" && !*everyByte {
					at = at[len(at)/2:]
				}
				for _, i := range at {
					b := bytes.Clone(body)
					b[i] ^= 1 << (i % 8)
					named(t, w.damaged(key, b), rel, fmt.Sprintf("with byte %d of %d flipped", i, len(body)))
				}
				named(t, w.damaged(key, body[:len(body)-1]), rel, "cut by a byte")
				named(t, w.damaged(key, nil), rel, "deleted")
				if name == "tiny" {
					named(t, w.damaged(key, []byte{}), rel, "emptied")
					named(t, w.damaged(key, append(bytes.Clone(body), '\n')), rel, "with a byte more")
				}
			}
			clean(t, w.audit(true))
		})
	}
}

// positions are the bytes to flip. What slurm_array_id says is the launcher's alone.
func positions(rel string, body []byte) (at []int) {
	from, to := -1, -1
	if rel == "manifest.json" {
		from = bytes.Index(body, []byte(`"slurm_array_id":`)) + len(`"slurm_array_id":`)
		to = from + bytes.IndexByte(body[from:], ',')
	}
	step := max(1, len(body)/6)
	if *everyByte {
		step = 1
	}
	for i := 0; i < len(body); i += step {
		if i < from || i >= to {
			at = append(at, i)
		}
	}
	return append(at, len(body)-1)
}

// Two whole, valid objects in each other's place.
func TestSwapped(t *testing.T) {
	w := build(t, rich())
	objects := w.mem.Snapshot()
	keys := slices.Sorted(maps.Keys(objects))
	kinds := map[string][]string{}
	for _, key := range keys {
		kinds[kind(key)] = append(kinds[kind(key)], key)
	}
	for _, keys := range kinds { // any two would do; those of one kind are the hard ones
		for i, a := range keys {
			b := keys[(i+1)%len(keys)]
			if bytes.Equal(objects[a], objects[b]) {
				continue
			}
			w.mem.Damage(a, objects[b])
			w.mem.Damage(b, objects[a])
			r := w.audit(false)
			w.mem.Damage(a, objects[a])
			w.mem.Damage(b, objects[b])
			for _, key := range []string{a, b} {
				rel := job.Rel(key)
				if !slices.ContainsFunc(r.Findings, func(f audit.Finding) bool { return f.Key == rel }) {
					first, _ := r.First()
					// Behind a damaged plan nothing is followed.
					if !slices.Contains([]string{job.Rel(a), job.Rel(b)}, first.Key) {
						t.Errorf("%s and %s swapped: %s is not named: %v", a, b, rel, r.Findings)
					}
				}
			}
			if !isView(a) && r.Proven {
				t.Errorf("%s and %s swapped: proven", a, b)
			}
		}
	}
}

func kind(key string) string {
	switch {
	case isView(key):
		return "view"
	case strings.HasSuffix(key, ".parquet"):
		return "rows"
	case strings.HasSuffix(key, ".jsonl"):
		return "lines"
	}
	return "json"
}

func TestPublishedFolder(t *testing.T) {
	w := build(t, rich())
	ctx := t.Context()
	there, err := w.mem.ListOutput(ctx, folder)
	w.must(err)
	if len(there) != 6 { // two parts, three lists, _SUCCESS
		t.Fatalf("published %v", there)
	}
	for _, o := range there {
		whole, err := w.mem.Output(folder, o.Key)
		w.must(err)
		key := "./out/" + jobID + "/" + o.Key
		for _, i := range positions(o.Key, whole) {
			b := bytes.Clone(whole)
			b[i] ^= 4
			w.must(w.mem.PublishBytes(ctx, folder, o.Key, b))
			r := w.audit(false)
			if f, broken := r.First(); !broken || f.Key != key || f.Code != audit.CodePublished {
				t.Errorf("%s with byte %d flipped: %v", o.Key, i, r.Findings)
			}
		}
		w.must(w.mem.RemoveOutput(ctx, folder, o.Key))
		r := w.audit(false)
		if len(r.Findings) != 1 || r.Findings[0].Key != key || r.Findings[0].Severity != audit.Broken || r.Proven || !strings.Contains(r.Findings[0].What, "`hayrick resume "+jobID+"`") {
			t.Errorf("%s removed: %v", o.Key, r.Findings)
		}
		// What is no file, or must not be read, is named, and the walk goes on.
		for _, why := range []error{hayrick.ErrCorrupt, fs.ErrPermission, syscall.EIO} {
			w.mem.Hook = func(c memCall) (f memFault) {
				if c.Op == "OpenOutput" && c.Key == o.Key {
					f.ErrBefore = why
				}
				return f
			}
			opts := w.options()
			opts.Output = w.mem
			r, err := audit.Run(ctx, opts)
			w.mem.Hook = nil
			if err != nil || len(r.Findings) != 1 || r.Findings[0].Key != key || r.Findings[0].Severity != audit.Broken {
				t.Errorf("%s, %v: %v %v", o.Key, why, r.Findings, err)
			}
		}
		w.must(w.mem.PublishBytes(ctx, folder, o.Key, whole))
	}
	w.must(w.mem.PublishBytes(ctx, folder, "part-00009.parquet", []byte("mine")))
	r := w.audit(false)
	if len(r.Findings) != 1 || r.Findings[0].Severity != audit.Stranger || !strings.HasSuffix(r.Findings[0].Key, "/part-00009.parquet") || !r.Proven {
		t.Errorf("a foreign file: %v", r.Findings)
	}
}

func TestStrangersAndLeftovers(t *testing.T) {
	w := build(t, tiny())
	sha := manifest.SHA256([]byte("x"))
	attempt := sha[:32]
	want := map[string]audit.Severity{
		job.Rows("task-0001", attempt, sha):                      audit.Leftover,
		job.Failures("task-0001", attempt, sha):                  audit.Leftover,
		job.Checkpoint("task-0001", 1, attempt, sha):             audit.Leftover,
		job.Rows("agg-0-1-0000", attempt, sha):                   audit.Leftover,
		job.Segment("retry_batch_1", 0, sha):                     audit.Leftover,
		job.Index("initial_batch", 0, sha):                       audit.Leftover,
		job.Block("retry_batch_9", 0, sha):                       audit.Leftover,
		job.RetryList(1, "exhausted", sha):                       audit.Leftover,
		job.Part(0, 0, sha):                                      audit.Leftover,
		job.List(0, "deleted_dids", sha):                         audit.Leftover,
		job.AggregationInputs(0, sha):                            audit.Leftover,
		job.Config(sha):                                          audit.Leftover,
		job.Bundle(sha):                                          audit.Leftover,
		job.Input("users.jsonl", sha):                            audit.Leftover,
		job.Rows("task-0099", attempt, sha):                      audit.Stranger, // of no task
		job.Done("task-0099"):                                    audit.Stranger, // an outcome outside the plan
		job.Done("agg-0-1-0000-r1"):                              audit.Stranger,
		job.RetryPlan(3):                                         audit.Stranger,
		job.Control(2):                                           audit.Stranger,
		job.Outcome(1):                                           audit.Stranger, // which no plan leads to
		job.Outcome(2):                                           audit.Stranger,
		job.AggregationPlan(1):                                   audit.Stranger,
		job.Prefix() + "notes.txt":                               audit.Stranger,
		job.Prefix() + "tasks/task-0001/rows.parquet":            audit.Stranger,
		job.Prefix() + "aggregation/0/part-00000-copy.parquet":   audit.Stranger,
		job.TaskManifest("task-0099"):                            audit.Stranger,
		job.Prefix() + "tasks/task-0001/results.done.bak":        audit.Stranger,
		job.Prefix() + "batches/initial_batch/index-0-5d21e0aa9": audit.Stranger,
	}
	for key := range want {
		w.put(key, []byte("x"))
	}
	// Another job's objects are nobody's business here.
	w.put(manifest.Job(jobID+"x").Plan(), []byte("x"))
	r := w.audit(true)
	if !r.Proven || len(r.Findings) != len(want) {
		t.Errorf("proven %v, %d findings for %d objects", r.Proven, len(r.Findings), len(want))
	}
	for _, f := range r.Findings {
		if s, ok := want[job.Abs(f.Key)]; !ok || s != f.Severity {
			t.Errorf("%v, want %s", f, s)
		}
	}
	if !strings.Contains(r.Line, "14 strangers, 14 leftovers") {
		t.Error(r.Line)
	}
}
