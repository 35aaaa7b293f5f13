package retryplanner

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hayrick"
	"hayrick/manifest"
)

var rewrite = flag.Bool("rewrite", false, "write the answers of testdata/*.txt anew")

// Each file of testdata is a conversation: what tasks came to and a request to plan,
// a line of dashes, and what the planner says. The retry groups of one answer are
// the tasks of the next question.
//
//	policy passes=2 backoff=30s..10m batch=4
//	tasks group=initial_batch: task-0000=DONE(failed: 2 rate_limit retry_after=90s, 1 bad/permanent) task-0001=FAILED(lost_worker)
//	plan now=10m
//
// A failure takes the next items of its task; class/disposition is the handler's
// wish, losses=n are workers that vanished with the item. Tasks of a retry group that
// are not named are DONE.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			talk := &conversation{t: t, group: hayrick.GroupInitial}
			var asked, answer []string
			answering := false
			flush := func() {
				if len(asked) == 0 {
					return
				}
				said := talk.ask(asked)
				out.WriteString(strings.Join(asked, "\n") + "\n----\n" + said + "\n")
				if want := strings.Join(answer, "\n") + "\n"; said != want && !*rewrite {
					t.Errorf("asked\n%s\nsays\n%swant\n%s", strings.Join(asked, "\n"), said, want)
				}
				asked, answer, answering = nil, nil, false
			}
			for line := range strings.Lines(string(text)) {
				switch line = strings.TrimSuffix(line, "\n"); {
				case strings.HasPrefix(line, "#"):
					out.WriteString(line + "\n")
				case line == "----":
					answering = true
				case line == "":
					flush()
				case answering:
					answer = append(answer, line)
				default:
					asked = append(asked, line)
				}
			}
			flush()
			if *rewrite {
				if err := os.WriteFile(file, []byte(strings.TrimRight(out.String(), "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// conversation is the state between questions.
type conversation struct {
	t       *testing.T
	policy  policy
	batch   int
	group   string
	n       int // plans so far
	next    int64
	tasks   []string
	batches map[string][]manifest.BatchItem
	ends    map[string]string
}

func (c *conversation) ask(lines []string) string {
	var out strings.Builder
	for _, line := range lines {
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "policy":
			c.setPolicy(rest)
		case "tasks":
			c.setTasks(rest)
		case "plan":
			now, err := time.ParseDuration(strings.TrimPrefix(rest, "now="))
			if err != nil {
				c.t.Fatal(err)
			}
			c.plan(&out, time.Unix(0, 0).Add(now))
		default:
			c.t.Fatalf("what is %q?", line)
		}
	}
	return out.String()
}

func (c *conversation) setPolicy(s string) {
	c.policy.retry.Classes = map[string]hayrick.Disposition{}
	for word := range strings.FieldsSeq(s) {
		name, value, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "passes":
			c.policy.retry.Passes, err = strconv.Atoi(value)
		case "batch":
			c.batch, err = strconv.Atoi(value)
		case "backoff":
			from, to, _ := strings.Cut(value, "..")
			err = errors.Join(c.policy.retry.Backoff.Initial.UnmarshalText([]byte(from)), c.policy.retry.Backoff.Max.UnmarshalText([]byte(to)))
		default:
			c.policy.retry.Classes[name] = hayrick.Disposition(value)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// setTasks reads "group=g: task-0000=END task-0001=END".
func (c *conversation) setTasks(s string) {
	group, list, _ := strings.Cut(s, ":")
	if group = strings.TrimPrefix(group, "group="); group != c.group {
		c.t.Fatalf("the open group is %s, not %s", c.group, group)
	}
	c.ends = map[string]string{}
	for word := range strings.SplitSeq(strings.TrimSpace(list), " task-") {
		word = "task-" + strings.TrimPrefix(word, "task-")
		id, end, _ := strings.Cut(word, "=")
		c.ends[id] = end
		if group == hayrick.GroupInitial {
			if c.batches == nil {
				c.batches = map[string][]manifest.BatchItem{}
			}
			for range c.batch {
				n := int64(len(c.tasks)*c.batch + len(c.batches[id]))
				c.batches[id] = append(c.batches[id], manifest.BatchItem{Ordinal: n, Data: fmt.Appendf(nil, `{"key":"k%d"}`, n)})
			}
			c.tasks = append(c.tasks, id)
			c.next = int64(len(c.tasks))
		} else if c.batches[id] == nil {
			c.t.Fatalf("%s has no task %s", group, id)
		}
	}
}

// failed is what a task's end says of its items.
func (c *conversation) failed(id string) []failed {
	end, spec, _ := strings.Cut(strings.TrimSuffix(c.ends[id], ")"), "(")
	items := c.batches[id]
	switch end {
	case "", "DONE":
	case "FAILED":
		return whole(items, func(it manifest.BatchItem) string { return it.Label("key") }, &manifest.TaskError{Class: spec, Message: "why"})
	default:
		c.t.Fatalf("%s=%s?", id, end)
	}
	var out []failed
	for part := range strings.SplitSeq(strings.TrimPrefix(spec, "failed: "), ", ") {
		words := strings.Fields(part)
		if len(words) < 2 {
			continue
		}
		count, err := strconv.Atoi(words[0])
		if err != nil || len(out)+count > len(items) {
			c.t.Fatalf("%q of %d items: %v", part, len(items), err)
		}
		class, wish, _ := strings.Cut(words[1], "/")
		for range count {
			it := items[len(out)]
			f := failed{classes: it.Classes, infra: it.Infra, FailureLine: manifest.FailureLine{
				Ordinal: it.Ordinal, Key: it.Label("key"), Class: class, Tries: it.Tries + 1, Losses: it.Losses,
				Disposition: string(c.policy.retry.DispositionOf(class, hayrick.Disposition(wish))),
			}}
			for _, w := range words[2:] {
				name, value, _ := strings.Cut(w, "=")
				switch name {
				case "losses":
					n, _ := strconv.Atoi(value)
					f.Losses += n
				case "retry_after":
					d, _ := time.ParseDuration(value)
					f.RetryAfterMS = d.Milliseconds()
				default:
					c.t.Fatalf("what is %q?", w)
				}
			}
			out = append(out, f)
		}
	}
	return out
}

func (c *conversation) plan(out *strings.Builder, now time.Time) {
	c.n++
	sum, pack := newTally(), newPacker(c.batch, 0)
	var lines [][]byte
	var listed []string
	because := map[int64]string{}
	for _, id := range c.tasks {
		retried := false
		for _, f := range c.failed(id) {
			v, why := c.policy.decide(f)
			if err := sum.add(f, v); err != nil {
				c.t.Fatal(err)
			}
			if v != retry {
				listed = append(listed, fmt.Sprintf("  item %d %s because=%s", f.Ordinal, v, why))
				continue
			}
			retried = true
			because[f.Ordinal] = why
			line, err := manifest.EncodeLine(c.policy.again(f, []byte(`{"key":"k"}`)))
			if err != nil {
				c.t.Fatal(err)
			}
			lines = append(lines, line)
			pack.add(f.Ordinal, line)
		}
		if retried {
			sum.tasks++
		}
	}
	next := manifest.NextAggregation
	if sum.items > 0 {
		next = hayrick.RetryGroup(c.n)
	}
	fmt.Fprintf(out, "retry-%d closes=%s next=%s items=%d failed-tasks=%d permanent=%d exhausted=%d", c.n, c.group, next, sum.items, sum.tasks, sum.permanent, sum.exhausted)
	for i, class := range slices.Sorted(maps.Keys(sum.errorTypes)) {
		fmt.Fprintf(out, "%s%s:%d", []string{" error-types=", ","}[min(i, 1)], class, sum.errorTypes[class])
	}
	out.WriteString("\n")
	c.group, c.tasks, c.batches = next, nil, map[string][]manifest.BatchItem{}
	seg, _ := pack.end()
	for _, b := range seg.batches {
		// What the next task reads is what the segment holds.
		items, err := manifest.OpenBatch(b, bytes.NewReader(bytes.Join(lines, nil)[b.Offset:]))
		if err != nil {
			c.t.Fatal(err)
		}
		id := manifest.TaskID(c.next)
		c.next++
		c.tasks, c.batches[id] = append(c.tasks, id), items
		at := c.policy.notBefore(now, "job", next, sum.retryAfter).Sub(time.Unix(0, 0)).Truncate(time.Millisecond)
		fmt.Fprintf(out, "%s/%s items=%d ordinals=", next, id, b.Items)
		var why []string
		for i, it := range items {
			fmt.Fprintf(out, "%s%d", []string{"", ","}[min(i, 1)], it.Ordinal)
			why = append(why, because[it.Ordinal])
		}
		slices.Sort(why)
		fmt.Fprintf(out, " not-before=%s because=%s\n", at, strings.Join(slices.Compact(why), ","))
	}
	for _, l := range listed {
		out.WriteString(l + "\n")
	}
	c.policy.groups++
}

// Whatever fails in whatever way, an item is retried a bounded number of times, and
// its line stays small; what cost it nothing is never charged.
func TestEveryItemComesToAnEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policy{retry: hayrick.Retry{Passes: rapid.IntRange(0, 5).Draw(t, "passes")}}
		it := manifest.BatchItem{Ordinal: 1}
		charged := 0
		for {
			d := rapid.SampledFrom([]hayrick.Disposition{hayrick.RateLimit, hayrick.Timeout, hayrick.Transient, hayrick.Infra, "unheard_of", ""}).Draw(t, "disposition")
			f := failed{classes: it.Classes, infra: it.Infra, FailureLine: manifest.FailureLine{
				Ordinal: 1, Class: "c", Disposition: string(d), Losses: it.Losses + rapid.IntRange(0, 6).Draw(t, "losses"),
			}}
			if d != hayrick.Infra {
				charged++
			}
			v, because := p.decide(f)
			if v == exhausted {
				if charged <= p.retry.Passes && p.groups < p.retry.Passes+3 {
					t.Fatalf("given up too early: %s", because)
				}
				return
			}
			if v != retry || charged > p.retry.Passes || p.groups >= p.retry.Passes+3 {
				t.Fatalf("%s after %d charged failures, %d groups, %d losses", v, charged, p.groups, f.Losses)
			}
			a := p.again(f, []byte("{}"))
			if len(a.Classes)-a.Infra != charged || len(a.Classes) > p.retry.Passes+3 {
				t.Fatalf("line %+v after %d charged failures", a, charged)
			}
			it.Classes, it.Infra, it.Losses = a.Classes, a.Infra, a.Losses
			p.groups++
		}
	})
}

// A final disposition is never retried, whatever else is known.
func TestFinalIsFinal(t *testing.T) {
	for _, d := range []hayrick.Disposition{hayrick.Permanent, hayrick.Poison} {
		if v, _ := (policy{retry: hayrick.Retry{Passes: 9}}).decide(failed{FailureLine: manifest.FailureLine{Class: "c", Disposition: string(d)}}); v != permanent {
			t.Errorf("%s is %s", d, v)
		}
	}
	// Without the worker's word the job file's stands.
	p := policy{retry: hayrick.Retry{Passes: 9, Classes: map[string]hayrick.Disposition{"gone": hayrick.Permanent}}}
	if v, _ := p.decide(failed{FailureLine: manifest.FailureLine{Class: "gone"}}); v != permanent {
		t.Errorf("a permanent class without a disposition is %s", v)
	}
}

// The backoff of a group is the same for every planner, spread over the jobs, below
// its exponential bound, and never earlier than the (capped) Retry-After.
func TestNotBefore(t *testing.T) {
	now := time.Unix(1e9, 0)
	initial, most := 30*time.Second, 10*time.Minute
	p := policy{retry: hayrick.Retry{Backoff: hayrick.Backoff{Initial: hayrick.Duration(initial), Max: hayrick.Duration(most)}}}
	for groups, bound := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, most, most} {
		p.groups = groups
		var below int
		for i := range 1000 {
			job := fmt.Sprint("job-", i)
			d := p.notBefore(now, job, "retry_batch_1", 0).Sub(now)
			if d < 0 || d >= bound {
				t.Fatalf("%s after %d groups, the bound is %s", d, groups, bound)
			}
			if d < bound/2 {
				below++
			}
			if again := p.notBefore(now, job, "retry_batch_1", 0).Sub(now); again != d {
				t.Fatalf("%s, then %s", d, again)
			}
		}
		if below < 440 || below > 560 {
			t.Errorf("%d of 1000 jobs wait less than half of %s", below, bound)
		}
	}
	p.groups = 1 << 30
	if d := p.notBefore(now, "j", "g", math.MaxInt64).Sub(now); d != most {
		t.Errorf("an absurd Retry-After gives %s", d)
	}
	p.groups = 0
	if d := p.notBefore(now, "j", "g", time.Minute).Sub(now); d != time.Minute {
		t.Errorf("Retry-After of a minute gives %s", d)
	}
	if d := (policy{}).notBefore(now, "j", "g", time.Minute).Sub(now); d != 0 {
		t.Errorf("no backoff gives %s", d)
	}
}

// A handler that puts an id into its class does not make the plan grow with the job.
func TestErrorTypesAreBounded(t *testing.T) {
	sum := newTally()
	for i := range int64(5000) {
		if err := sum.add(failed{FailureLine: manifest.FailureLine{Ordinal: i, Class: fmt.Sprint("c", i)}}, retry); err != nil {
			t.Fatal(err)
		}
	}
	var total int64
	for _, n := range sum.errorTypes {
		total += n
	}
	if len(sum.errorTypes) != maxClasses+1 || total != 5000 || sum.errorTypes[otherClasses] != 4000 {
		t.Errorf("%d classes, %d items, %d of other classes", len(sum.errorTypes), total, sum.errorTypes[otherClasses])
	}
	if err := sum.add(failed{FailureLine: manifest.FailureLine{Ordinal: 4999}}, retry); !errors.Is(err, hayrick.ErrCorrupt) {
		t.Errorf("an item twice: %v", err)
	}
}

// Segments follow each other without a gap, each batch in one of them, all of the
// same size but the last.
func TestPacker(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size, n := rapid.IntRange(1, 5).Draw(t, "batch"), rapid.IntRange(1, 3*segmentBatches).Draw(t, "items")
		most := rapid.SampledFrom([]int64{0, 0, 1, 30, 60}).Draw(t, "bytes")
		p := newPacker(size, most)
		var all []byte
		var segs []segment
		for i := range n {
			line := fmt.Appendf(nil, "{\"ordinal\":%d}\n", i)
			all = append(all, line...)
			if p.add(int64(i), line) {
				seg, _ := p.end()
				segs = append(segs, seg)
			}
		}
		if seg, ok := p.end(); ok {
			segs = append(segs, seg)
		}
		var at int64
		next := 0
		for i, s := range segs {
			body := all[s.offset : s.offset+s.length]
			if s.offset != at || s.sha != manifest.SHA256(body) || len(s.batches) == 0 || len(s.batches) > segmentBatches {
				t.Fatalf("segment %d: %d batches at %d, want at %d", i, len(s.batches), s.offset, at)
			}
			at += s.length
			for k, b := range s.batches {
				items, err := manifest.OpenBatch(b, bytes.NewReader(body[b.Offset:]))
				if err != nil {
					t.Fatal(err)
				}
				if last := i == len(segs)-1 && k == len(s.batches)-1; b.Items != size && (most == 0 || b.Length < most) && !last || b.Items > size || b.FirstOrdinal != int64(next) || items[0].Ordinal != int64(next) {
					t.Fatalf("batch %+v, the next item is %d", b, next)
				}
				next += b.Items
			}
		}
		if at != int64(len(all)) || next != n {
			t.Fatalf("%d bytes and %d items packed of %d and %d", at, next, len(all), n)
		}
	})
}
