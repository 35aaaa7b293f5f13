package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/jobs"
	"hayrick/manifest"
)

// stubbornName is a handler of these tests: an item fails as often as it says, for good
// when it says -1, and has a row when it is ok.
const stubbornName = "test.stubborn"

type stubborn struct{}

func newStubborn(context.Context, jobs.Env) (jobs.Handler, error) { return stubborn{}, nil }

func (stubborn) Handle(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	var x struct{ Fails int }
	if err := json.Unmarshal(it.Data, &x); err != nil {
		return jobs.Fail("unreadable", "%v", err)
	}
	switch {
	case x.Fails < 0:
		return jobs.Outcome{Class: "gone", Disposition: hayrick.Permanent, Message: "it is gone"}
	case it.Try <= x.Fails:
		return jobs.Fail("flaky", "try %d", it.Try)
	}
	if err := emit(jobs.Row{{Name: "ordinal", Value: it.Ordinal}}); err != nil {
		return jobs.Fail("stopped", "%v", err)
	}
	return jobs.OK()
}

const damagedJob = `version: 1
name: job
handler: {builtin: test.stubborn}
input: {uri: %s/items.jsonl, key: id, snapshot: copy}
batch: {items: 2}
run: {max_parallel: 2, linger: 0s}
retry: {in_task: {attempts: 1, initial: 1ms, max: 1ms}, passes: 2, backoff: {initial: 1ms, max: 1ms}}
merge: {fan_in: 2, by_count: true}
output: {uri: %s/out/}
`

// damageBench is a run of which parts can be taken away, damaged and restored.
type damageBench struct {
	t     *testing.T
	root  string
	store string
	job   string            // its folder
	whole map[string][]byte // every object of the finished run, below job
}

// hayrick runs a command in this process.
func (b *damageBench) hayrick(args ...string) (code int, out, errs string) {
	b.t.Helper()
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	code = run(ctx, environment{in: strings.NewReader(""), out: &o, err: &e, get: func(string) string { return "" }, drain: make(chan struct{}), width: func() int { return 80 }},
		append([]string{"-C", b.store}, args...))
	return code, o.String(), e.String()
}

func newDamageBench(t *testing.T) *damageBench {
	root := t.TempDir()
	b := &damageBench{t: t, root: root, store: filepath.Join(root, "store"), job: filepath.Join(root, "store/jobs/run"), whole: map[string][]byte{}}
	var items strings.Builder
	for i, fails := range []int{0, 1, 0, -1, 0, 99} {
		fmt.Fprintf(&items, "{\"id\":\"i%d\",\"fails\":%d}\n", i, fails)
	}
	for name, text := range map[string]string{"items.jsonl": items.String(), "job.yaml": fmt.Sprintf(damagedJob, root, root)} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"submit", filepath.Join(root, "job.yaml"), "--job-id", "run"}, {"pause", "run"}, {"resume", "run"},
	} {
		if code, out, errs := b.hayrick(args...); code != 0 {
			t.Fatalf("%v: %d\n%s%s", args, code, out, errs)
		}
	}
	must(t, filepath.WalkDir(b.job, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(b.job, path)
			b.whole[rel], err = os.ReadFile(path)
		}
		return err
	}))
	return b
}

// restore makes the run what it was when what begins with one of these was missing; the
// state is lost, which it may be.
func (b *damageBench) restore(missing []string) {
	b.t.Helper()
	keep := func(rel string) bool {
		return !slices.ContainsFunc(missing, func(p string) bool { return strings.HasPrefix(rel, p) })
	}
	must(b.t, os.RemoveAll(b.store))
	must(b.t, os.RemoveAll(filepath.Join(b.root, "out")))
	for rel, body := range b.whole {
		if keep(rel) {
			b.put(rel, body)
		}
	}
}

// put makes an object what body says; nil = gone.
func (b *damageBench) put(rel string, body []byte) {
	b.t.Helper()
	path := filepath.Join(b.job, rel)
	_ = os.Remove(path)
	if body == nil {
		return
	}
	must(b.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(b.t, os.WriteFile(path, body, 0o644))
}

// How far a run is: what of the finished one is not there yet.
var (
	whole    = []string{}
	merging  = append(whole, "outcome-0.json", "manifest.json", "aggregation/manifest.json", "aggregation/0/part", "aggregation/0/lists", "tasks/agg-")
	closed   = append(merging, "aggregation/", "groups/final")
	retrying = append(closed, "retries/retry-2", "retries/retry-3", "groups/retry_batch_2", "batches/retry_batch_2", "tasks/task-0003", "tasks/task-0004")
	initial  = append(retrying, "retries/", "groups/retry", "batches/retry")
)

// What becomes of the verbs.
const (
	all     = "status inspect failures pause resume worker watch"
	working = "resume worker"
)

// damaged objects, and the verbs that cannot go on: the others say what they always do.
var damageTable = []struct {
	name   string
	stage  []string
	object string // the beginning of its key
	stops  string // verbs that need it
	gone   string // ... when it is gone; "" = the same, "-" = none, for it is made again
	cancel bool   // can be cancelled
}{
	{"plan", merging, "plan.json", all, "none", false},
	{"definition", merging, "config-", all, "", true},
	{"first order", merging, "control/0.json", all, "", true},
	{"last order", merging, "control/1.json", all, "", true},
	{"first retry plan", merging, "retries/retry-1/plan.json", all, "", true},
	{"last retry plan", merging, "retries/retry-3/plan.json", all, "", true},
	{"last retry plan before the merge", closed, "retries/retry-3/plan.json", all, "-", true},
	{"aggregation plan", merging, "aggregation/0/plan.json", all, "-", true},
	{"block of the merge", merging, "groups/final_aggregation/", working, "", true},
	{"rows", merging, "tasks/task-0002/task-0002_*.parquet", working, "", true},
	{"permanent list", merging, "retries/retry-1/permanent-", "failures " + working, "", true},
	{"result", closed, "tasks/task-0001/results.done", working, "", true},
	{"block", retrying, "groups/retry_batch_1/", "failures " + working, "", true},
	{"index", retrying, "batches/retry_batch_1/index-", working, "", true},
	{"segment", retrying, "batches/retry_batch_1/seg-", working, "", true},
	{"failures", initial, "tasks/task-0002/task-0002_*.jsonl", "failures " + working, "", true},
	{"outcome", whole, "outcome-0.json", all, "-", false},
}

// Whatever record of a run is damaged, every verb says which, and what to do, or does
// what does not depend on it; and the run that it is put back into ends as if nothing
// had happened.
func TestEveryVerbOnEveryDamage(t *testing.T) {
	for _, x := range damageTable {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			b := newDamageBench(t)
			want := b.outcome()
			object := b.find(x.object)
			sound := b.whole[object]
			flip := bytes.Clone(sound)
			flip[len(flip)/2] ^= 1
			for what, body := range map[string][]byte{"flipped": flip, "empty": {}, "gone": nil} {
				stops := strings.Fields(x.stops)
				if body == nil && x.gone != "" {
					stops = strings.Fields(x.gone)
				}
				disturb := func() {
					b.restore(x.stage)
					b.mayFail("ls") // which makes the state
					b.put(object, body)
				}
				if body == nil && x.gone == "none" {
					disturb()
					b.noRun()
				} else if body != nil || x.gone != "-" {
					disturb()
					b.verbs(what, object, stops)
					b.cancel(what, object, x.cancel, disturb)
					disturb()
					b.mayFail("resume", "run")
				} else { // made again
					disturb()
				}
				if x.gone != "-" || body != nil {
					b.put(object, sound)
				}
				if code, out, errs := b.hayrick("resume", "run"); code != 0 {
					t.Fatalf("%s, and restored: resume exits %d\n%s%s", what, code, out, errs)
				}
				if got := b.outcome(); got != want {
					t.Errorf("%s, and restored: %+v, undisturbed %+v", what, got, want)
				}
				if code, out, errs := b.hayrick("audit", "--deep", "run"); code != 0 {
					t.Errorf("%s, and restored: audit exits %d\n%s%s", what, code, out, errs)
				}
			}
		})
	}
}

// verbs tries every verb that looks, works or orders on a damaged run.
func (b *damageBench) verbs(what, object string, stops []string) {
	b.t.Helper()
	for _, args := range [][]string{
		{"status", "run"}, {"ls"}, {"inspect", "run"}, {"failures", "run"}, {"audit", "run"}, {"worker"}, {"resume", "run"}, {"watch", "run", "--timeout", "100ms"}, {"pause", "run"},
	} {
		code, out, errs := b.hayrick(args...)
		said := fmt.Sprintf("%s %s: %v exits %d\n%s%s", object, what, args, code, out, errs)
		named := strings.Contains(out+errs, object)
		switch verb := args[0]; {
		case strings.Contains(out+errs, "panic"), strings.Contains(errs, "this looks like a bug"), code < 0:
			b.t.Errorf("%s", said)
		case verb == "audit":
			if code != exitUnwell || !named || !strings.Contains(out, "NOT PROVEN") {
				b.t.Errorf("%s", said)
			}
		case verb == "ls":
			if code != exitDone || slices.Contains(stops, "status") && !(named && strings.Contains(errs, "audit run")) {
				b.t.Errorf("%s", said)
			}
		case !slices.Contains(stops, verb):
			if ok := code == exitDone || verb == "watch" && code == exitTimeout; !ok {
				b.t.Errorf("%s", said)
			}
		case code != exitBug || !named || !strings.Contains(errs, "audit run"):
			b.t.Errorf("%s", said)
		}
	}
}

// cancel ends a damaged run, where its plan can be read and it has not ended, and says
// what is missing in the count.
func (b *damageBench) cancel(what, object string, can bool, disturb func()) {
	b.t.Helper()
	disturb()
	code, out, errs := b.hayrick("cancel", "run", "--yes")
	if !can {
		if code != exitBug || !strings.Contains(errs, object) || !strings.Contains(errs, "audit run") {
			b.t.Errorf("%s %s: cancel exits %d\n%s%s", object, what, code, out, errs)
		}
		return
	}
	if code != exitDone || !strings.Contains(out, "CANCELLED") {
		b.t.Errorf("%s %s: cancel exits %d\n%s%s", object, what, code, out, errs)
		return
	}
	o := b.outcome()
	if o.Status != "CANCELLED" || o.Items != 6 || o.OK+o.Permanent+o.Exhausted+o.Unfinished != 6 || o.OK > 4 || o.Permanent > 1 || o.Exhausted > 1 {
		b.t.Errorf("%s %s: %+v", object, what, o)
	}
	if code, out, errs := b.hayrick("status", "run"); code != exitUnwell || !strings.Contains(out, "CANCELLED") {
		b.t.Errorf("%s %s: then status exits %d\n%s%s", object, what, code, out, errs)
	}
	if code, out, errs := b.hayrick("worker"); code != exitDone {
		b.t.Errorf("%s %s: then worker exits %d\n%s%s", object, what, code, out, errs)
	}
}

// noRun tries the verbs on a run whose plan is gone: there is none.
func (b *damageBench) noRun() {
	b.t.Helper()
	for _, verb := range []string{"status", "inspect", "failures", "watch", "pause", "resume", "cancel"} {
		if code, out, errs := b.hayrick(verb, "run"); code != exitNotFound || !strings.Contains(errs, "hint: ") {
			b.t.Errorf("%s exits %d\n%s%s", verb, code, out, errs)
		}
	}
	if code, _, errs := b.hayrick("audit", "run"); code != exitNotFound || !strings.Contains(errs, "plan.json") {
		b.t.Errorf("audit exits %d\n%s", code, errs)
	}
}

func (b *damageBench) mayFail(args ...string) { b.hayrick(args...) }

// find is the key of the object that a pattern means: the beginning of its key.
func (b *damageBench) find(pattern string) string {
	b.t.Helper()
	for rel := range b.whole {
		if ok, _ := path.Match(pattern, rel); ok || strings.HasPrefix(rel, pattern) {
			return rel
		}
	}
	b.t.Fatalf("there is no %s", pattern)
	return ""
}

// gist is what a run came to, times left out.
type gist struct {
	Status                                            string
	Items, OK, Permanent, Exhausted, Unfinished, Rows int64
	Hash, Parts                                       string
}

func (b *damageBench) outcome() gist {
	b.t.Helper()
	body, err := os.ReadFile(filepath.Join(b.job, "outcome-0.json"))
	must(b.t, err)
	o, err := manifest.OpenOutcome(body)
	must(b.t, err)
	e := gist{o.Status, o.Items, o.OK, o.Permanent, o.Exhausted, o.Unfinished, o.RowCount, o.RowHash, ""}
	if o.Aggregation != nil {
		e.Parts = fmt.Sprint(o.Aggregation.OutputHash, o.Aggregation.Lists)
	}
	return e
}
