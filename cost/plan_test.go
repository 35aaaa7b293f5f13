package cost

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hayrick"
)

// whole is a job of so many tasks with rows.
func whole(tasks int64) Job {
	return Job{
		Submit: Submit{Copied: 1}, Exists: "error", Publish: true, Processes: 1,
		Groups: []Group{{Planned: tasks, Tasks: tasks, Items: 100 * tasks, Rows: tasks, Closed: true}},
		Merge:  &Merge{Results: tasks, Rows: tasks, Nodes: 3, Done: 3, Parts: 1, Bytes: 1 << 20},
	}
}

// What of a job depends on nothing but its shape, by hand: the writes that are the
// largest part of every bill.
func TestExactCounts(t *testing.T) {
	for _, x := range []struct {
		tasks           int64
		puts, db, lists int64
	}{
		// definition, input, block, index, plan, view: 6. Three a task. Retry plan and view: 2.
		// Merge plan and block: 2. Rows, result, view of each merge: 9. Part: 1. Outcome, two
		// views, _SUCCESS, the part's copy: 5.
		{1, 6 + 3 + 2 + 2 + 9 + 1 + 5, 1 + 2 + 6 + 1, 3},
		{256, 6 + 768 + 2 + 2 + 9 + 1 + 5, 1 + 512 + 6 + 1, 3},
		// A second block, with its index; both are put into their parent.
		{257, 8 + 771 + 2 + 2 + 9 + 1 + 5, 1 + 514 + 2 + 6 + 1, 3},
		// Lists that do not fit their records: results twice; 40 blocks in one parent.
		{10_001, 84 + 30_003 + 3 + 3 + 9 + 1 + 5, 1 + 20_002 + 40 + 6 + 1, 3},
		// 1,025 blocks and their indexes in lists of their own; two levels above the blocks.
		{262_400, 4 + 2*1025 + 2 + 3*262_400 + 3 + 3 + 9 + 1 + 5, 1 + 2*262_400 + 1025 + 5 + 6 + 1, 3},
	} {
		s := CountOf(whole(x.tasks))
		for op, want := range map[Op]int64{S3Write: x.puts, DBWrite: x.db, S3List: x.lists} {
			if got := s.Total(op).N; got != just(want) {
				t.Errorf("%d tasks: %s %+v, want %d\n%+v", x.tasks, op, got, want, s)
			}
		}
		if sent := s[Submitting][SQS].N; !sent.Exact() {
			t.Errorf("%d tasks: submitting takes %+v of the queue", x.tasks, sent)
		}
	}
}

// A second level, over ranges of keys: its block, and of each merge rows, result, view.
func TestExactCountsOfRanges(t *testing.T) {
	j := whole(1)
	j.Merge.Ranges, j.Merge.RangesDone = 300, 300
	more, less := CountOf(j), CountOf(whole(1))
	for op, want := range map[Op]int64{S3Write: 2 + 3*300, DBWrite: 2*300 + 2, S3List: 0} {
		got, was := more.Total(op).N, less.Total(op).N
		if got.Low-was.Low != want || !got.Exact() {
			t.Errorf("%s: %+v, was %+v, want %d more", op, got, was, want)
		}
	}
	// Every one of them reads of each of the three runs.
	if got, was := more.Total(S3Read).N, less.Total(S3Read).N; got.Low-was.Low < 300*3+300*4 {
		t.Errorf("reads %+v, were %+v", got, was)
	}
	j.Merge.RangesDone = 0 // not yet at work on
	if got := CountOf(j).Total(S3Write).N; got != just(less.Total(S3Write).N.Low+2) {
		t.Errorf("writes %+v", got)
	}
}

// Ranges are in order, and more of anything never costs less.
func TestMoreCostsMore(t *testing.T) {
	base := whole(1000)
	base.Time = Times{time.Minute, time.Minute, time.Minute}
	base.Follow = Follow{Fastest: time.Second, Slowest: time.Minute, End: true}
	for name, change := range map[string]func(*Job){
		"tasks":  func(j *Job) { j.Groups[0].Planned, j.Groups[0].Tasks, j.Merge.Results = 2000, 2000, 2000 },
		"ranges": func(j *Job) { j.Merge.Ranges, j.Merge.RangesDone = 4, 4 },
		"failed": func(j *Job) { j.Groups[0].Failed, j.Groups[0].Lists, j.Lists = 10, 1, 1 },
		"a retry": func(j *Job) {
			j.Groups = append(j.Groups, Group{Planned: 5, Tasks: 5, Items: 50, Rows: 5, Closed: true})
		},
		"merges":    func(j *Job) { j.Merge.Nodes, j.Merge.Done = 100, 100 },
		"bytes":     func(j *Job) { j.Merge.Bytes = 1 << 30 },
		"time":      func(j *Job) { j.Time = Times{time.Hour, time.Hour, time.Hour} },
		"functions": func(j *Job) { j.Function = Function{MiB: 2048} },
		"tokens":    func(j *Job) { j.Groups[0].Tokens = 100_000 },
		"a folder":  func(j *Job) { j.Submit.Bundle = 20 << 20 },
		"long":      func(j *Job) { j.Groups[0].Attempt = Times{time.Hour, time.Hour, time.Hour} },
		"processes": func(j *Job) { j.Processes = 50 },
	} {
		more := base
		more.Groups = append([]Group(nil), base.Groups...)
		merge := *base.Merge
		more.Merge = &merge
		change(&more)
		a, b := CountOf(base), CountOf(more)
		grew := false
		for _, op := range Ops {
			x, y := a.Total(op).N, b.Total(op).N
			if y.Low > y.Expected || y.Expected > y.High {
				t.Errorf("%s: %s is %+v", name, op, y)
			}
			if y.Low < x.Low || y.High < x.High {
				t.Errorf("%s: %s shrinks from %+v to %+v", name, op, x, y)
			}
			grew = grew || y != x
		}
		if !grew {
			t.Errorf("%s: costs nothing", name)
		}
	}
}

// A bill is the sum of its lines, and a bill of what is not certain spans its parts.
func TestEstimate(t *testing.T) {
	p := ListPrices()
	low, high := whole(100), whole(100)
	low.Groups[0].Rows, low.Merge = 0, &Merge{Results: 100}
	b := Estimate(low, high, high, p)
	var sum Dollars
	for _, l := range b.Lines {
		sum = sum.Plus(l.USD)
		if l.Exact != (l.Count.Low == l.Count.High && l.Count.Low == l.Count.Expected) {
			t.Errorf("%+v", l)
		}
	}
	if sum != b.USD || b.USD.Low <= 0 || b.USD.Low >= b.USD.High {
		t.Errorf("lines sum up to %+v, the bill is %+v", sum, b.USD)
	}
	n, _ := b.Total(S3Write)
	if n.Low != CountOf(low).Total(S3Write).N.Low || n.High != CountOf(high).Total(S3Write).N.High {
		t.Errorf("S3 writes are %+v", n)
	}
}

func TestPrices(t *testing.T) {
	p := ListPrices()
	again, err := ReadPrices(p.JSON())
	if err != nil || fmt.Sprint(again) != fmt.Sprint(p) {
		t.Errorf("%v\n%v, %v", p, again, err)
	}
	text := string(p.JSON())
	for name, bad := range map[string]string{
		"no table":     "version: 1",
		"schema":       strings.Replace(text, "prices/v1", "prices/v2", 1),
		"missing":      strings.Replace(text, `"s3_list": 5,`, "", 1),
		"negative":     strings.Replace(text, `"sqs": 0.4`, `"sqs": -1`, 1),
		"unknown":      strings.Replace(text, `"sqs": 0.4`, `"sqs": 0.4, "sns": 1`, 1),
		"unknown name": strings.Replace(text, `"region"`, `"regino"`, 1),
	} {
		var u *hayrick.UserError
		if _, err := ReadPrices([]byte(bad)); bad == text || !errors.As(err, &u) || u.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
