//go:build standins

package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/cost"
	"hayrick/internal/standins"
	"hayrick/internal/wirecount"
)

// metered runs a command in this process with a meter before every service, and
// returns what passed.
func metered(t *testing.T, args ...string) (*wirecount.Meter, string) {
	t.Helper()
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
	code := run(t.Context(), environment{in: os.Stdin, out: &out, err: &errs, get: os.Getenv, drain: make(chan struct{}), width: func() int { return 80 }}, args)
	if code != exitDone {
		t.Fatalf("%v exits %d\n%s%s", args, code, out.String(), errs.String())
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

func priced(m *wirecount.Meter) map[cost.Op]int64 {
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
	for _, c := range []struct {
		tasks int
		more  string
	}{{1000, ""}, {3, "merge: {fan_in: 2, by_count: true}\n"}, {300, "merge: {fan_in: 2, by_count: true}\n"}} {
		t.Run(fmt.Sprint(c.tasks), func(t *testing.T) {
			store := "s3://" + standins.Store(t, standins.Config(t))
			countJob(t, store, c.tasks, c.more)
			start := time.Now()
			m, _ := metered(t, "-C", store, "run", "job.yaml", "-q")
			job := ranAs(t, store, time.Since(start))
			sheet := cost.CountOf(job)
			wire := priced(m)
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
				if n := sheet.Total(op).N; !n.Exact() {
					t.Errorf("%s is %+v, which is not exact", op, n)
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
			work := priced(m)
			for op, most := range map[cost.Op]float64{cost.S3Write: 3.4, cost.DBWrite: 2.3, cost.SQS: 0.4} {
				if each := float64(work[op]) / float64(c.tasks); each > most {
					t.Errorf("%s: %.3f a task in the whole job, more than %g", op, each, most)
				}
			}
		})
	}
}
