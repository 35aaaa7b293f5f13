package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/internal/heldclock"
	"hayrick/jobs"
	"hayrick/jobs/extproc"
	"hayrick/manifest"
)

// The conformance suite: what a handler can say and what the worker makes of it, the
// same for a handler in Go and for programs in other languages.

// handlerKinds are the handlers that the suite runs with.
var handlerKinds = []struct {
	name     string
	exec     []string // empty: Go
	inFlight int
	detail   string // what stderr said before the crash
	crash    string // in the message of the crash
}{
	{name: "go", crash: "panic: as told"},
	{name: "python", exec: []string{"python3", "handler.py"}, inFlight: 8, detail: "about to die", crash: "was ended by signal 9 (killed) with the item in hand"},
	{name: "node", exec: []string{"node", "handler.mjs"}, inFlight: 8, detail: "about to die", crash: "was ended by signal 9 (killed) with the item in hand"},
	{name: "shell", exec: []string{"sh", "handler.sh"}, inFlight: 1, detail: "about to die", crash: "was ended by signal 9 (killed) with the item in hand"},
}

// conforming does in Go what the programs of testdata/conform do.
type conforming struct{ h func(jobs.Item) }

func (c conforming) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	var in struct{ Do string }
	if err := json.Unmarshal(it.Data, &in); err != nil {
		return jobs.Fail("input", "%v", err)
	}
	num := func(s string) int64 { n, _ := strconv.ParseInt(s, 10, 64); return n }
	row := func(n int64) { _ = emit(jobs.Row{{Name: "key", Value: it.Key}, {Name: "n", Value: n}}) }
	for cmd := range strings.SplitSeq(in.Do, ";") {
		w := strings.Fields(cmd)
		if w[0] == "try" {
			if num(w[1]) != int64(it.Try) {
				continue
			}
			w = w[2:]
		}
		switch w[0] {
		case "row":
			row(num(w[1]))
		case "cursor":
			var s string
			_ = json.Unmarshal(it.Cursor, &s)
			row(num(s))
		case "ok":
			return jobs.OK()
		case "err":
			out := jobs.Fail(w[1], "as told")
			if out.Class == "rate_limited" {
				out.Class = hayrick.ClassRateLimit
			}
			if len(w) > 2 && w[2] == "final" {
				out.Disposition = hayrick.Permanent
			}
			if len(w) > 3 {
				out.RetryAfter = time.Duration(num(w[3])) * time.Millisecond
			}
			if len(w) > 4 {
				out.Status = int(num(w[4]))
			}
			return out
		case "need":
			n := int(num(w[3]))
			if it.Host.Need(ctx, w[1], w[2], n) != nil {
				n = 0
			}
			row(int64(n))
		case "back":
			it.Host.Feedback("api", "k", jobs.Feedback{Throttled: true, RetryAfter: 2 * time.Second})
		case "beat":
			it.Host.Beat(num(w[1]), num(w[2]))
		case "mark":
			text, _ := json.Marshal(w[1])
			if err := it.Host.Mark(text); err != nil {
				return jobs.Fail("mark", "%v", err)
			}
		case "metric":
			map[string]func(string, int64){"add": it.Host.Add, "set": it.Host.Set, "observe": it.Host.Observe}[w[1]](w[2], num(w[3]))
		case "log":
			it.Host.Log("log of " + it.Key + " " + w[1])
		case "crash":
			panic("as told")
		case "hang":
			c.h(it)
			<-ctx.Done()
			return jobs.Fail("cancelled", "as asked")
		case "stuck":
			it.Host.Beat(num(w[1]), num(w[2]))
			c.h(it)
			<-ctx.Done()
			select {} // for ever: the test's process ends it
		}
	}
	return jobs.Fail("unfinished", "the item does not say how it ends")
}

// conformRig is a rig whose one task has an item for each do.
func conformRig(t *testing.T, kind int, held *heldclock.Clock, beats func(), dos ...string) *rig {
	t.Helper()
	var lines []string
	for i, do := range dos {
		lines = append(lines, fmt.Sprintf(`{"word":"w%d","do":%q}`, i, do))
	}
	k := handlerKinds[kind]
	r := newRig(t, lines, len(lines), nil, func(d *hayrick.JobDefinition) {
		d.Run.ItemsInFlight = 4
		d.Retry.Classify = []hayrick.ClassRule{{Status: []hayrick.StatusCode{"41x"}, As: "gone"}}
		d.Retry.Classes = map[string]hayrick.Disposition{"gone": hayrick.Permanent}
		d.Rates = []hayrick.Rate{{Name: "api", Limit: tenASecond, Burst: 10, Learn: true}}
		if k.exec != nil {
			d.Handler = hayrick.Handler{Exec: k.exec, ItemsInFlight: k.inFlight}
		}
	})
	r.make = func(env jobs.Env) jobs.Handler {
		if k.exec == nil {
			return conforming{h: func(jobs.Item) { beats() }}
		}
		if _, err := exec.LookPath(k.exec[0]); err != nil {
			t.Fatalf("the suite runs with %s: %v", k.exec[0], err)
		}
		env.World.Clock = held
		env.Dir = func(context.Context) (string, error) { return filepath.Abs("../jobs/extproc/testdata/conform") }
		h := extproc.New(env)
		h.Trace = func(fromHost bool, line []byte) {
			if !fromHost && strings.Contains(string(line), `"beat"`) {
				beats()
			}
		}
		return h
	}
	return r
}

// log is what the handler of a task wrote.
func (r *rig) logLines(n int64) (out []manifest.LogLine) {
	r.t.Helper()
	res := r.result(n)
	if res.Log == nil {
		return nil
	}
	body, err := r.store.Data(r.t.Context(), manifest.Job(jobID).Abs(res.Log.File), res.Log.SHA256)
	r.must(err)
	for line := range strings.Lines(string(body)) {
		var l manifest.LogLine
		r.must(json.Unmarshal([]byte(line), &l))
		out = append(out, l)
	}
	return out
}

// 002-35, 002-43: both handlerKinds of handler have one contract, and classes are what the
// handler says.
func TestConformance(t *testing.T) {
	for i, k := range handlerKinds {
		t.Run(k.name, func(t *testing.T) {
			r := conformRig(t, i, heldclock.New(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)), func() {},
				"row 1;row 2;ok",
				"ok",
				"row 1;err bad_input final",
				"row 1;err io retry",
				"try 1 row 9;try 1 err io retry;row 1;ok",
				"row 1;crash",
				"try 1 crash;row 1;ok",
				"need api k 2;row 1;ok",
				"need api k 1;back;ok",
				"metric add x 2;metric add x 3;metric set y 7;metric set y 6;metric observe z 4;metric observe z 6;ok",
				"try 1 row 1;try 1 mark 41;try 1 row 2;try 1 err io retry;cursor;row 3;ok",
				"log hello;ok",
				"err Bad-Class final",
				"try 1 err rate_limited retry 50;ok",
				"need nothing k 1;ok",
				"try 1 row 1;try 1 mark 7;try 1 crash;cursor;ok",
				"err api - 0 410",
			)
			w := r.worker("w")
			defer w.Jobs.Close()
			r.attempt(w, 0)
			if got := r.gist(0); got != "2:bad_input/1 3:io/3 5:poison/2 12:other/1 16:gone/1" {
				t.Errorf("failed: %s", got)
			}
			var rows []string
			for _, row := range r.rows(0) {
				rows = append(rows, fmt.Sprintf("%v=%v", row[0].Value, row[1].Value))
			}
			if got := strings.Join(rows, " "); got != "w0=1 w0=2 w4=1 w6=1 w7=2 w7=1 w8=1 w10=1 w10=41 w10=3 w14=0 w15=1 w15=7" {
				t.Errorf("rows: %s", got)
			}
			m := r.result(0).Task.Metrics
			if m["x"] != 5 || m["y"] != 6 || m["z_count"] != 2 || m["z_sum"] != 10 || m["z_max"] != 6 {
				t.Errorf("metrics: %v", m)
			}
			slices.Sort(r.limiter.taken)
			if got := strings.Join(r.limiter.taken, " "); got != "api/k/1 api/k/2" {
				t.Errorf("taken: %s", got)
			}
			if len(r.limiter.feedback) != 1 || !strings.HasPrefix(r.limiter.feedback[0], "api/k/2s ") {
				t.Errorf("feedback: %q", r.limiter.feedback)
			}
			lines, _ := r.failures(0)
			for _, f := range lines {
				if f.Class == hayrick.ClassPoison && (!strings.Contains(f.Message, k.crash) || !strings.Contains(f.Detail, k.detail)) {
					t.Errorf("the crash is told as %q with the detail %q", f.Message, f.Detail)
				}
			}
			logged := r.logLines(0)
			if !slices.ContainsFunc(logged, func(l manifest.LogLine) bool { return l.Text == "log of w11 hello" }) {
				t.Errorf("log: %+v", logged)
			}
		})
	}
}

// An item that does not end when its time is over is a time-out that tells how far it
// was, whether it heeds its end or not. Nothing is slept for.
func TestConformanceOfTime(t *testing.T) {
	for i, k := range handlerKinds {
		t.Run(k.name, func(t *testing.T) {
			for _, do := range []string{"try 1 beat 3 10;try 1 hang;row 1;ok", "try 1 stuck 3 10;row 1;ok"} {
				if k.exec == nil && strings.Contains(do, "stuck") {
					continue // a goroutine that is stuck is given up: TestHandlerThatNeverReturns
				}
				held := heldclock.New(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
				beats := make(chan struct{}, 8)
				r := conformRig(t, i, held, func() { beats <- struct{}{} }, do, "row 2;ok")
				r.def.Retry.InTask.Attempts = 2
				w := r.worker("w")
				done := make(chan struct{})
				go func() { defer close(done); r.attempt(w, 0) }()
				<-beats
				if k.exec == nil {
					r.clock.fire(itemTimeout)
				} else {
					held.End(itemTimeout)
				}
				if strings.Contains(do, "stuck") {
					held.End(extproc.CancelTime)
					held.End(extproc.TermTime)
				}
				<-done
				w.Jobs.Close()
				if got := r.gist(0); got != "" {
					t.Errorf("%s: failed: %s", do, got)
				}
				if got := r.column(0, "n"); got != "1 2" {
					t.Errorf("%s: rows: %s", do, got)
				}
			}
		})
	}
}
