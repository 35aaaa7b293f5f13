//go:build standins

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/cost"
	"hayrick/internal/standins"
	"hayrick/internal/wirecount"
)

// countedRun runs a command in this process with a meter before every service. It ends
// with the code; stdout is returned.
func countedRun(t *testing.T, code int, args ...string) (*wirecount.Meter, string) {
	t.Helper()
	start := time.Now()
	m, err := wirecount.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	for name, url := range m.Env() {
		was := os.Getenv(name)
		os.Setenv(name, url)
		defer os.Setenv(name, was)
	}
	var out, errs bytes.Buffer
	got := run(t.Context(), environment{in: os.Stdin, out: &out, err: &errs, get: os.Getenv, drain: make(chan struct{}), width: func() int { return 80 }}, args)
	t.Logf("%v: %v", args[2:], time.Since(start).Round(time.Millisecond))
	if got != code {
		t.Fatalf("%v exits %d, want %d\n%s%s", args, got, code, out.String(), errs.String())
	}
	return m, out.String()
}

// opOf is the price that a request on the wire has; "" = it costs nothing.
func opOf(wire string) cost.Op {
	switch wire {
	case "s3.ListObjectsV2":
		return cost.S3List
	case "s3.GetObject", "s3.HeadObject":
		return cost.S3Read
	case "s3.PutObject", "s3.CopyObject", "s3.UploadPart", "s3.UploadPartCopy", "s3.CreateMultipartUpload", "s3.CompleteMultipartUpload":
		return cost.S3Write
	case "s3.DeleteObject", "s3.AbortMultipartUpload":
		return ""
	case "dynamodb.GetItem", "dynamodb.Query":
		return cost.DBRead
	case "dynamodb.PutItem", "dynamodb.UpdateItem", "dynamodb.DeleteItem":
		return cost.DBWrite
	}
	if len(wire) > 4 && wire[:4] == "sqs." {
		return cost.SQS
	}
	return cost.Op("unknown request " + wire)
}

func byPrice(m *wirecount.Meter) map[cost.Op]int64 {
	n := map[cost.Op]int64{}
	for wire, k := range m.Counts() {
		if op := opOf(wire); op != "" {
			n[op] += k
		}
	}
	return n
}

// countJob writes a job of so many one-item tasks whose items have a row each.
func countJob(t *testing.T, store string, tasks int, more string) {
	t.Helper()
	t.Chdir(t.TempDir())
	text := fmt.Sprintf(`version: 1
name: count
handler: {builtin: noop, params: {items: %d, rows: 1}}
input: {items: true}
batch: {items: 1}
run: {max_parallel: 16}
output: {uri: %s/out/}
%s`, tasks, store, more)
	if err := os.WriteFile(filepath.Join("job.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ranAs is the finished run as the cost package counts it.
func ranAs(t *testing.T, store string, took time.Duration) cost.Job {
	t.Helper()
	c := &cli{environment: environment{out: io.Discard, err: io.Discard, get: os.Getenv}, storeDir: store, world: hayrick.RealWorld("test"), log: slog.New(slog.DiscardHandler)}
	r, k, err := c.openRun(t.Context(), latest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	j := coordinator.CostOf(k, took, cost.Function{})
	j.Follow.End = true
	for i := range j.Groups {
		j.Groups[i].Attempt = cost.Times{}
	}
	return j
}

// What the function counts is what passes on the wire: the same number where it says
// that it is exact, and within its range else. The bars are those of the issue.
func TestCountsOnStandIns(t *testing.T) {
	const byTwo = "merge: {fan_in: 2, by_count: true, target_rows: 40}\n"
	for _, c := range []struct {
		tasks  int
		more   string
		unique bool
	}{{1000, "", false}, {3, byTwo, false}, {300, byTwo, false}, {3, byTwo, true}, {100, byTwo, true}} {
		name := fmt.Sprint(c.tasks)
		if c.unique {
			name += " unique"
		}
		t.Run(name, func(t *testing.T) {
			store := "s3://" + standins.Store(t, standins.Config(t))
			countJob(t, store, c.tasks, c.more)
			start := time.Now()
			args := []string{"-C", store, "run", "job.yaml", "-q"}
			if c.unique {
				args = append(args, "--set", "output.unique_by=[ordinal]")
			}
			m, _ := countedRun(t, exitDone, args...)
			job := ranAs(t, store, time.Since(start))
			sheet := cost.CountOf(job)
			wire := byPrice(m)
			for _, op := range cost.Ops {
				n := sheet.Total(op).N
				if got := wire[op]; got < n.Low || got > n.High {
					t.Errorf("%s: %d on the wire, counted %+v\n%+v\n%s%v", op, got, n, sheet, m.Keys(), m.Counts())
				}
				t.Logf("%s: %d on the wire, counted %+v", op, wire[op], n)
				delete(wire, op)
			}
			for op, n := range wire {
				t.Errorf("%d of %s", n, op)
			}
			for _, op := range []cost.Op{cost.S3Write, cost.S3List, cost.DBWrite} {
				for _, step := range cost.Steps {
					if n := sheet[step][op].N; !n.Exact() && step != cost.Following {
						t.Errorf("%s of %s is %+v, which is not exact", op, step, n)
					}
				}
			}
			var billed [2]int64
			for op, units := range m.Units() {
				i := 0
				if opOf(op) == cost.DBRead {
					i = 1
				}
				billed[i] += int64(units)
			}
			for i, op := range []cost.Op{cost.DBWrite, cost.DBRead} {
				if u := sheet.Total(op).Units; billed[i] < u.Low || billed[i] > u.High {
					t.Errorf("%s: %d units billed, counted %+v", op, billed[i], u)
				}
				t.Logf("%s: %d units billed, counted %+v", op, billed[i], sheet.Total(op).Units)
			}
			if c.tasks < 1000 {
				return
			}
			wires := m.Counts()
			for what, bar := range map[string]struct{ n, most float64 }{
				"S3 PUT":         {float64(m.Of("s3.PutObject", "tasks/task")), 3.0},
				"DynamoDB write": {float64(wires["dynamodb.PutItem"] + wires["dynamodb.UpdateItem"] - sheet[cost.Submitting][cost.DBWrite].N.Low - sheet[cost.Merging][cost.DBWrite].N.Low - sheet[cost.Publishing][cost.DBWrite].N.Low), 2.02},
				"SQS":            {float64(wires["sqs.SendMessageBatch"] + wires["sqs.ReceiveMessage"] + wires["sqs.DeleteMessageBatch"]), 0.35},
			} {
				if each := bar.n / float64(c.tasks); each > bar.most {
					t.Errorf("%.3f %s a worker task, more than %g", each, what, bar.most)
				}
			}
			work := byPrice(m)
			for op, most := range map[cost.Op]float64{cost.S3Write: 3.4, cost.DBWrite: 2.3, cost.SQS: 0.4} {
				if each := float64(work[op]) / float64(c.tasks); each > most {
					t.Errorf("%s: %.3f a task in the whole job, more than %g", op, each, most)
				}
			}
		})
	}
}

// A plan writes nothing, and the run that follows asks for what the plan said.
func TestPlanOnStandIns(t *testing.T) {
	t.Run("plain", func(t *testing.T) { planAndRun(t, 300) })
	t.Run("unique", func(t *testing.T) { planAndRun(t, 30, "--set", "output.unique_by=[ordinal]") })
}

func planAndRun(t *testing.T, tasks int, sets ...string) {
	t.Helper()
	store := "s3://" + standins.Store(t, standins.Config(t))
	countJob(t, store, tasks, "")
	m, out := countedRun(t, exitDone, append([]string{"-C", store, "plan", "job.yaml", "--item-rows", "1", "--item-time", "1ms", "--json"}, sets...)...)
	if n := byPrice(m); n[cost.S3Write]+n[cost.DBWrite]+n[cost.SQS] > 0 {
		t.Errorf("planning writes: %v", m.Counts())
	}
	var p plan
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	m, _ = countedRun(t, exitDone, append([]string{"-C", store, "run", "job.yaml", "-q"}, sets...)...)
	n := byPrice(m)
	exact := 0
	for _, op := range cost.Ops {
		planned, usd := cost.Bill{Lines: p.Lines}.Total(op)
		if n[op] < planned.Low || n[op] > planned.High || usd.Low > usd.High {
			t.Errorf("%s: %d on the wire, planned %+v\n%s", op, n[op], planned, m.Keys())
		}
	}
	for _, l := range p.Lines {
		if l.Exact {
			exact++
		}
		if !l.Exact && l.Op == cost.S3Write {
			t.Errorf("%+v is not exact", l)
		}
	}
	if exact < 12 {
		t.Errorf("only %d lines are exact: %+v", exact, p.Lines)
	}
	if p.USD.Low <= 0 || p.USD.Low > p.USD.Expected || p.USD.Expected > p.USD.High {
		t.Errorf("it costs %+v", p.USD)
	}
}

// A run whose budget is below the least that it costs is refused before anything is
// written; one that is found out on the way is paused, and goes on with more.
func TestBudgetOnStandIns(t *testing.T) {
	store := "s3://" + standins.Store(t, standins.Config(t))
	countJob(t, store, 600, "")
	for _, verb := range []string{"run", "submit"} {
		if m, _ := countedRun(t, exitBudget, "-C", store, verb, "job.yaml", "--budget", "0.000001"); byPrice(m)[cost.S3Write] > 0 {
			t.Errorf("%s: refused, and yet written: %s", verb, m.Keys())
		}
	}
	_, out := countedRun(t, exitDone, "-C", store, "plan", "job.yaml", "--item-time", "1ms", "--json")
	var p plan
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	// What the plan takes for possible, if no item has rows; every item has one.
	budget := strconv.FormatFloat(p.USD.Low*1.05, 'g', 4, 64)
	m, _ := countedRun(t, exitBudget, "-C", store, "run", "job.yaml", "--budget", budget, "-q")
	spent := 0.0
	for op, n := range byPrice(m) {
		spent += float64(n) * cost.ListPrices().USD[op] / 1e6
	}
	if spent > p.USD.Low*1.05 {
		t.Errorf("paused after %g of a budget of %s", spent, budget)
	}
	countedRun(t, exitBudget, "-C", store, "status")
	countedRun(t, exitBudget, "-C", store, "watch")
	countedRun(t, exitBudget, "-C", store, "resume")
	if _, out := countedRun(t, exitDone, "-C", store, "resume", "--budget", "1", "--detach"); !strings.HasSuffix(out, " RUNNING\n") {
		t.Errorf("with a higher budget: %s", out)
	}
}

// A look of who watches asks for no more than the help says, however long it goes on.
func TestWatchOnStandIns(t *testing.T) {
	store := "s3://" + standins.Store(t, standins.Config(t))
	countJob(t, store, 300, "")
	countedRun(t, exitDone, "-C", store, "submit", "job.yaml", "-q")
	m, _ := countedRun(t, exitTimeout, "-C", store, "watch", "--timeout", "8s", "-q")
	var all int64
	for _, n := range m.Counts() {
		all += n
	}
	looks := m.Counts()["sqs.GetQueueAttributes"]
	const found = 12 // the run's name, and its plan
	if looks < 2 || all > found+looks*lookRequests {
		t.Errorf("%d looks ask for %d requests: %v\n%s", looks, all, m.Counts(), m.Keys())
	}
	if n := byPrice(m)[cost.S3Write] + byPrice(m)[cost.DBWrite]; n > 0 {
		t.Errorf("watching a run that is well writes %d times", n)
	}
}
