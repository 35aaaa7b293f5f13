package main

import (
	"archive/zip"
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"hayrick"
	"hayrick/internal/lambdatest"
	"hayrick/jobs"
	"hayrick/worker"
)

// countedName is a handler of these tests, which only their processes have. It takes
// wait for each item, and then adds a line with its ordinal to file: what was handled,
// and how often.
const countedName = "test.counted"

type countedParams struct {
	Wait hayrick.Duration
	File string
}

func counted(_ context.Context, env jobs.Env) (jobs.Handler, error) {
	var p countedParams
	return p, json.Unmarshal(env.Params, &p)
}

func (p countedParams) Handle(ctx context.Context, it jobs.Item, _ jobs.Emit) jobs.Outcome {
	select {
	case <-time.After(p.Wait.D()):
	case <-ctx.Done():
		return jobs.Fail("stopped", "%v", ctx.Err())
	}
	f, err := os.OpenFile(p.File, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = fmt.Fprintln(f, it.Ordinal)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return jobs.Fail("write", "%v", err)
	}
	return jobs.OK()
}

// logLines are what processes log, a line each.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// self is this test binary under the name that Lambda starts.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), bootstrap)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// sandboxed is a function that is this test binary, on a store that nobody can reach.
func sandboxed(t *testing.T, env ...string) (*lambdatest.Function, *logLines) {
	log := &logLines{}
	f := &lambdatest.Function{
		Name: "hayrick", Binary: self(t), Timeout: 5 * time.Second, Concurrency: 1, MemoryMiB: 512, Dir: t.TempDir(), Log: log,
		Env: append([]string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=testsecret", "AWS_ENDPOINT_URL=http://127.0.0.1:1"}, env...),
	}
	t.Cleanup(f.Close)
	return f, log
}

// A function that cannot start says why, where its owner looks, and ends.
func TestLambdaInitError(t *testing.T) {
	for env, want := range map[string]string{
		"HAYRICK_STORE=":           `$HAYRICK_STORE is "": set it to s3://<name>`,
		"HAYRICK_STORE=/mnt/store": `$HAYRICK_STORE is "/mnt/store": set it to s3://<name>`,
		"HAYRICK_STORE=s3://A_B":   `names no store on AWS`,
	} {
		f, log := sandboxed(t, env)
		_, err := f.Invoke(t.Context(), []byte(`{"hayrick":"sweep"}`))
		var reported *lambdatest.FunctionError
		if !errors.As(err, &reported) || !reported.Init {
			t.Errorf("%s: %v\n%s", env, err, log)
			continue
		}
		var said struct{ ErrorType, ErrorMessage string }
		if err := json.Unmarshal([]byte(reported.Body), &said); err != nil || said.ErrorType != "hayrick.Init" || !strings.Contains(said.ErrorMessage, want) {
			t.Errorf("%s: %+v, %v", env, said, err)
		}
	}
}

// One process answers one invocation after the other, standing still in between. A
// message that cannot be read is named in the answer and spoils nothing; an event that
// is none of ours is an error, and does not end the process. What is logged is one JSON
// object a line, with the invocation's id, and without what an event held.
func TestLambdaAnswers(t *testing.T) {
	f, log := sandboxed(t, "HAYRICK_STORE=s3://lab-hayrick")
	const secret = "AKIA-canary"
	message := func(id, arn, body string) string {
		return fmt.Sprintf(`{"Records":[{"messageId":%q,"receiptHandle":"r1","body":%q,"eventSource":"aws:sqs",%s"attributes":{"ApproximateReceiveCount":"1"}}]}`, id, body, arn)
	}
	const own = `"eventSourceARN":"arn:aws:sqs:eu-west-1:123456789012:lab-hayrick-tasks",`
	unreadable, unknown := message("m1", own, secret), message("m2", own, `{"job_id":"j","role":"gardener"}`)
	for event, want := range map[string]string{
		unreadable: `{"batchItemFailures":[{"itemIdentifier":"m1"}]}`,
		unknown:    `{"batchItemFailures":[{"itemIdentifier":"m2"}]}`,
		message("m3", `"eventSourceARN":"arn:aws:sqs:eu-west-1:123456789012:lab-other-tasks",`, secret): `function error: {"errorMessage":"record 0 of the event is of the queue \"lab-other-tasks\"`,
		message("m4", "", secret):                           "function error: ",
		`{"hayrick":"sleep"}`:                               "function error: ",
		`{"key":"` + secret + `"}`:                          "function error: ",
		`{"Records":[{"s3":{}}]}`:                           "function error: ",
		`{"Records":{"no":"list"}}`:                         "function error: ",
		`{"hayrick":"sweep","Records":[{"messageId":"m"}]}`: "function error: ",
	} {
		got, err := f.Invoke(t.Context(), []byte(event))
		if err != nil {
			got = []byte(err.Error())
		}
		if !strings.HasPrefix(string(got), want) {
			t.Errorf("%s: %s, want %s", event, got, want)
		}
	}
	if _, err := f.Invoke(t.Context(), []byte(unknown)); err != nil { // told before: no word of it again
		t.Error(err)
	}
	// What an invocation left is gone with the next.
	left := filepath.Join(f.Dir, "hayrick-0/tmp/hayrick/scratch/job/j/task/t/t.sqlite")
	must(t, os.MkdirAll(filepath.Dir(left), 0o755))
	must(t, os.WriteFile(left, nil, 0o644))
	if _, err := f.Invoke(t.Context(), []byte(unreadable)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("a journal is left in /tmp")
	}
	if c := f.Counts(); c.Starts != 1 || c.Invocations != 11 || c.Exits+c.Timeouts != 0 {
		t.Errorf("%+v", c)
	}
	if strings.Contains(log.String(), secret) {
		t.Error("the log has what an event held")
	}
	seen := 0
	for line := range strings.Lines(log.String()) {
		var record map[string]any
		if json.Unmarshal([]byte(line), &record) != nil {
			t.Errorf("log line %q", line)
		} else if record["requestId"] != nil && record["level"] == "ERROR" && record["message"] != nil && record["timestamp"] != nil {
			seen++
		}
	}
	if seen != 10 {
		t.Errorf("%d errors are told:\n%s", seen, log)
	}
	if left := f.Leftovers(); len(left) > 0 {
		t.Errorf("written beside /tmp: %v", left)
	}
}

// Who started the process decides what it is; a verb stays a verb on Lambda too.
func TestStartedByLambda(t *testing.T) {
	for _, x := range []struct {
		api  string
		args []string
		want bool
	}{
		{"127.0.0.1:9001", []string{"/var/task/bootstrap"}, true},
		{"", []string{"bootstrap"}, true},
		{"127.0.0.1:9001", []string{"hayrick"}, true},
		{"127.0.0.1:9001", []string{"hayrick", "status", "@"}, false},
		{"", []string{"hayrick"}, false},
	} {
		get := func(name string) string {
			if name == runtimeAPI {
				return x.api
			}
			return ""
		}
		if got := startedByLambda(x.args, get); got != x.want {
			t.Errorf("%v with API %q: %t", x.args, x.api, got)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sqsMessage(id, body string) events.SQSMessage {
	return events.SQSMessage{MessageId: id, ReceiptHandle: "r-" + id, Body: body, EventSource: sourceSQS, Attributes: map[string]string{receiveCount: "3"}}
}

func TestSortMessages(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	s := sortMessages([]events.SQSMessage{
		sqsMessage("a", `{"job_id":"j","generation":1,"role":"worker","group":"initial_batch","block":2,"position":7,"task_id":"task-0519"}`),
		sqsMessage("b", `{"job_id":"j","role":"worker","due":1800000060000}`),
		sqsMessage("c", `{"job_id":"j","role":"worker","due":1799999999999}`),
		sqsMessage("d", `hello`),
		sqsMessage("e", `{"job_id":""}`),
		{MessageId: "f", ReceiptHandle: "r-f", Body: `{"job_id":"j"}`, EventSource: sourceSQS}, // no count
		sqsMessage("g", `{"job_id":"j","role":"gardener"}`),
		sqsMessage("h", `{"job_id":"j"}`),
	}, isWorker, now)
	if len(s.work) != 2 || len(s.early) != 1 || len(s.odd) != 5 {
		t.Fatalf("%+v", s)
	}
	want := hayrick.Delivery{Receipt: "r-a", Count: 3, Message: hayrick.Message{
		JobID: "j", Generation: 1, Role: hayrick.RoleWorker, Group: "initial_batch", Block: 2, Position: 7, TaskID: "task-0519",
	}}
	if s.work[0] != want || s.work[1].Receipt != "r-c" {
		t.Errorf("%+v", s.work)
	}
	if s.early[0].Receipt != "r-b" || !s.until[0].Equal(now.Add(time.Minute)) {
		t.Errorf("%+v until %s", s.early[0], s.until[0])
	}
	for i, begins := range []string{"message d: ", "message e: ", "message f: ", `message g of j asks for the role "gardener"`, `message h of j asks for the role ""`} {
		if !strings.HasPrefix(s.odd[i].why.Error(), begins) || (i < 3) != (s.odd[i].kind == "") {
			t.Errorf("%+v", s.odd[i])
		}
	}
}

func isWorker(r hayrick.Role) bool { return r == hayrick.RoleWorker }

// shown is a queue that notes what is to be shown again.
type shown struct {
	worker.Queue
	mu    sync.Mutex
	again map[string]time.Duration
}

func (q *shown) Extend(_ context.Context, _ string, d time.Duration, ds ...hayrick.Delivery) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, x := range ds {
		q.again[x.Receipt] = d
	}
	return nil
}

func (q *shown) Ack(context.Context, string, ...hayrick.Delivery) error {
	panic("the event source mapping deletes")
}

// The pool of `hayrick worker` over an event: each message is worked on once, at the
// same time; the answer names those that were not acknowledged, and they are shown
// again as they asked; the pool ends with the last of them, and waits for nothing.
func TestPoolOverAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var messages []events.SQSMessage
		for _, id := range []string{"quick", "slow", "again", "fails"} {
			messages = append(messages, sqsMessage(id, fmt.Sprintf(`{"job_id":"j","role":"worker","task_id":%q}`, id)))
		}
		messages = append(messages, sqsMessage("odd", `?`))
		under := &shown{again: map[string]time.Duration{}}
		world := hayrick.RealWorld("test")
		q := newEventQueue(t.Context(), under, world.Clock, sortMessages(messages, isWorker, time.Now()).work)
		defer q.end()
		var mu sync.Mutex
		var ran []string
		do := func(_ context.Context, d hayrick.Delivery) (worker.Verdict, error) {
			defer q.done()
			mu.Lock()
			ran = append(ran, d.TaskID)
			mu.Unlock()
			switch d.TaskID {
			case "slow":
				time.Sleep(90 * time.Second)
			case "again":
				return worker.Verdict{Again: 7 * time.Second}, nil
			case "fails":
				return worker.Verdict{Ack: true, Again: time.Second}, errors.New("no")
			}
			return worker.Verdict{Ack: true}, nil
		}
		p := &worker.Pool{
			Queue: q, World: world, Log: slog.New(slog.DiscardHandler), Slots: 4, Visibility: visibility,
			Do: map[hayrick.Role]worker.Do{hayrick.RoleWorker: do}, Idle: func(context.Context) bool { return true },
		}
		begun := time.Now()
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 90*time.Second {
			t.Errorf("it took %s", took)
		}
		if slices.Sort(ran); strings.Join(ran, " ") != "again fails quick slow" {
			t.Errorf("ran %v", ran)
		}
		got, _ := json.Marshal(answer(messages, q.acked))
		if string(got) != `{"batchItemFailures":[{"itemIdentifier":"again"},{"itemIdentifier":"fails"},{"itemIdentifier":"odd"}]}` {
			t.Errorf("%s", got)
		}
		// The slow one was hidden for longer while it was worked on.
		under.mu.Lock()
		defer under.mu.Unlock()
		if a := under.again; a["r-again"] != 7*time.Second || a["r-slow"] != visibility || a["r-quick"] != 0 {
			t.Errorf("%v", a)
		}
	})
}

func TestAnswerNamesNothing(t *testing.T) {
	if got, _ := json.Marshal(answer([]events.SQSMessage{sqsMessage("a", "")}, map[string]bool{"r-a": true})); string(got) != `{"batchItemFailures":[]}` {
		t.Errorf("%s", got)
	}
}

// Sweeps go round: what one did not get to is first in the next, and what has ended is
// left alone for a while.
func TestSweepsGoRound(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := sweeps{over: map[string]time.Time{"b": now.Add(-lookAgain / 2), "c": now.Add(-2 * lookAgain)}}
	ids := []string{"d", "a", "Not/an id", "c", "b", "e"}
	for last, want := range map[string]string{"": "a c d e", "a": "c d e a", "d": "e a c d", "e": "a c d e", "b": "c d e a", "z": "a c d e"} {
		s.last = last
		if got := strings.Join(s.next(ids, now), " "); got != want {
			t.Errorf("after %q: %s, want %s", last, got, want)
		}
	}
}

// What is left for an answer is never all of a short time.
func TestTimeOfInvocation(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for lentFor, want := range map[time.Duration]time.Duration{15 * time.Minute: 898 * time.Second, 2 * time.Second: 1800 * time.Millisecond} {
		l := lent{now: func() time.Time { return now }, end: now.Add(lentFor), whole: lentFor}
		ctx, cancel := l.until(t.Context())
		end, _ := ctx.Deadline()
		if got := time.Until(end).Round(100 * time.Millisecond); got != want {
			t.Errorf("of %s roles have %s, want %s", lentFor, got, want)
		}
		cancel()
	}
}

// release builds the command as a release is.
func release(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hayrick")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// unzipped is the one file of the zip of a binary.
func unzipped(t *testing.T, zipped string) string {
	t.Helper()
	z, err := zip.OpenReader(zipped)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if len(z.File) != 1 || z.File[0].Name != bootstrap || z.File[0].Mode() != 0o755 {
		t.Fatalf("the zip has %d files, the first is %s %s", len(z.File), z.File[0].Mode(), z.File[0].Name)
	}
	in, err := z.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), bootstrap)
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err == nil {
		_, err = io.Copy(out, in)
		err = errors.Join(err, out.Close(), in.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// The zip holds this very program, small enough; the same binary gives the same bytes,
// also when it comes out of a zip. What runs from it still knows how it was built.
func TestZip(t *testing.T) {
	binary, dir := release(t), t.TempDir()
	first, second, third := filepath.Join(dir, "1.zip"), filepath.Join(dir, "2.zip"), filepath.Join(dir, "3.zip")
	var z zipped
	out, err := exec.Command(binary, "infra", "zip", "--json", "-q", "-o", first).Output()
	if err == nil {
		err = json.Unmarshal(out, &z)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	boot := unzipped(t, first)
	for path, by := range map[string]string{second: binary, third: boot} {
		cmd := exec.Command(binary, "infra", "zip", "--binary", by, "-o", path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	a, _ := os.ReadFile(first)
	b, _ := os.ReadFile(second)
	c, _ := os.ReadFile(third)
	if len(a) == 0 || !bytes.Equal(a, b) || !bytes.Equal(a, c) {
		t.Errorf("zips of %d, %d, %d bytes differ", len(a), len(b), len(c))
	}
	if z.Bytes != int64(len(a)) || z.Bytes > 25<<20 {
		t.Errorf("%d bytes, said %d", len(a), z.Bytes)
	}
	page, err := os.ReadFile("../../docs/lambda.md")
	if err != nil {
		t.Fatal(err)
	}
	var mib int64
	if m := regexp.MustCompile("hayrick infra zip .*; about ([0-9]+) MiB").FindSubmatch(page); m != nil {
		mib, _ = strconv.ParseInt(string(m[1]), 10, 64)
	}
	if off := mib<<20 - z.Bytes; off > 2<<20 || off < -2<<20 {
		t.Errorf("docs/lambda.md says about %d MiB, and it has %.1f", mib, float64(z.Bytes)/(1<<20))
	}
	info, err := buildinfo.ReadFile(boot)
	if err != nil || info.Path != "hayrick/cmd/hayrick" {
		t.Errorf("%+v, %v", info, err)
	}
}

// What cannot run there is refused with the way out.
func TestZipRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755)
	foreign := filepath.Join(dir, "foreign")
	cmd := exec.Command("go", "build", "-o", foreign, "../../internal/lambdatest/testdata/hello.go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=riscv64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cut := filepath.Join(dir, "cut")
	whole, _ := os.ReadFile(foreign)
	os.WriteFile(cut, whole[:4096], 0o755)
	for path, want := range map[string]string{text: "is not for Linux", foreign: "EM_RISCV"} {
		_, _, err := lambdaZip(io.Discard, path)
		var user *hayrick.UserError
		if !errors.As(err, &user) || !strings.Contains(user.What, want) || !strings.Contains(user.Hint, "GOOS=linux") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, _, err := lambdaZip(io.Discard, cut); err == nil {
		t.Error("half a binary is zipped")
	}
}

// What a function may take is what its merges go by.
func TestFunctionMemory(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	for size, want := range map[string]int64{"512": 512 << 20, "": 0, "lots": 0} {
		env := map[string]string{
			"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": size, "HAYRICK_STORE": "s3://lab-hayrick",
			"GOMEMLIMIT": "1TiB", // that of this process stays
		}
		f, err := newFunction(t.Context(), func(name string) string { return env[name] }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if f.aggregator.Memory != want {
			t.Errorf("%q: merges go by %d", size, f.aggregator.Memory)
		}
		must(t, f.close())
	}
}
