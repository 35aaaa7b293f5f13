//go:build standins

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"hayrick"
	"hayrick/audit"
	"hayrick/aws"
	"hayrick/coordinator"
	"hayrick/internal/standins"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/ratelimit"
	"hayrick/sim"
	"hayrick/worker"
)

// fickle is the simulator's handler, with items that take time.
type fickle struct{ sim.Scripted }

func (f fickle) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	var rec struct {
		WaitMS int `json:"wait_ms"`
	}
	if json.Unmarshal(it.Data, &rec) == nil {
		time.Sleep(time.Duration(rec.WaitMS) * time.Millisecond)
	}
	return f.Scripted.Handle(ctx, it, emit)
}

func init() {
	handlers["fickle"] = func(context.Context, jobs.Env) (jobs.Handler, error) { return fickle{}, nil }
}

// The items of the small job: two batches, one item that a second group ends, one that
// is gone. On S3 they lie in two objects, with an empty one between.
var fickleItems = []string{
	`{"id":"a","rows":2}` + "\n" + `{"id":"b","rows":1,"fail_until":2}` + "\n",
	"",
	`{"id":"c","permanent":true}` + "\n" + `{"id":"d","rows":4}` + "\n",
}

// fickleJob is the simulator's job where time costs time, and where each run of a store
// publishes beside the others.
func fickleJob(input, output string) hayrick.JobDefinition {
	def := sim.Definition("fickle", input, output)
	def.Run.Lease = hayrick.Duration(2 * time.Second)
	def.Retry.Backoff = hayrick.Backoff{Initial: hayrick.Duration(time.Millisecond), Max: hayrick.Duration(time.Millisecond)}
	def.Output.IfExists = "append"
	return def
}

// machine is what one machine runs, one step at a time: the production wiring on a
// store, without goroutines that only watch a clock.
type machine struct {
	*roles
	t   *testing.T
	job string
	do  map[hayrick.Role]worker.Do

	patience time.Duration // how long the job may take, faults and all
	stepped  func()        // after each message, and each sweep without one
}

func startMachine(t *testing.T, st backend, timing ratelimit.Timing, clock hayrick.Clock, scratch string) *machine {
	c := &cli{environment: environment{get: func(string) string { return "" }}, world: hayrick.RealWorld("process-1"), log: slog.New(slog.DiscardHandler)}
	c.world.Clock = clock
	c.world.Go = sim.InOrder
	r := on(c, st, timing)
	r.work(scratch)
	return &machine{roles: r, t: t, do: r.pool(1).Do, patience: 5 * time.Minute, stepped: func() {}}
}

// run submits and works until the job has its outcome and nothing is left to be done.
func (p *machine) run(ctx context.Context, s coordinator.Submission) (manifest.Outcome, error) {
	var last error
	end := time.Now().Add(p.patience)
	for {
		got, err := p.coordinator.Submit(ctx, s)
		if err == nil {
			p.job = got.JobID
			break
		}
		if last = err; time.Now().After(end) {
			return manifest.Outcome{}, fmt.Errorf("the job cannot be submitted: %w", last)
		}
	}
	for {
		if time.Now().After(end) {
			return manifest.Outcome{}, fmt.Errorf("the job does not end; the last error: %w", last)
		}
		ds, err := p.store.Receive(ctx, hayrick.QueueTasks, 1, 2*time.Second, time.Second)
		if err == nil && len(ds) > 0 {
			if err := p.deliver(ctx, ds[0]); err != nil {
				last = err
			}
			p.stepped()
			continue
		}
		if err != nil {
			last = err
		}
		d, err := p.coordinator.Sweep(ctx, p.job)
		switch {
		case err != nil:
			last = err
		case d.Complete:
			o, _, err := p.manifests.Outcome(ctx, p.job, 0)
			if err == nil {
				return o, nil
			}
			last = err
		}
		p.stepped()
		p.world.Clock.Sleep(ctx, 20*time.Millisecond)
	}
}

// deliver does what the pool does with a message.
func (p *machine) deliver(ctx context.Context, d hayrick.Delivery) error {
	v, err := p.do[d.Role](ctx, d)
	if err == nil && v.Ack {
		return p.store.Ack(ctx, hayrick.QueueTasks, d)
	}
	return errors.Join(err, p.store.Extend(ctx, hayrick.QueueTasks, min(v.Again, time.Second), d))
}

// proven audits the job, every row of it.
func (p *machine) proven(ctx context.Context) error {
	r, err := audit.Run(ctx, audit.Options{
		Store: p.manifests, JobID: p.job, World: p.world, Blobs: p.store, Output: p.store, Inputs: p.store, Deep: true,
	})
	if err == nil && (!r.Proven || r.Checked.Inputs == 0) {
		err = fmt.Errorf("not proven: %s %v", r.Line, r.Findings)
	}
	return err
}

// here is the end of the job on this machine's store, with all items in one file.
func here(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "items.jsonl")
	if err := os.WriteFile(file, []byte(strings.Join(fickleItems, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	c := &cli{world: hayrick.RealWorld("here"), log: slog.New(slog.DiscardHandler), storeDir: filepath.Join(dir, "store")}
	st, timing, err := openBackend(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	p := startMachine(t, st, timing, c.world.Clock, t.TempDir())
	o, err := p.run(t.Context(), coordinator.Submission{Definition: fickleJob(file, filepath.Join(dir, "out")), CodeVersion: "test"})
	if err == nil {
		err = p.proven(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return sim.Gist(o)
}

// fault is what goes wrong with a call of the SDK, which may take several requests.
type fault struct {
	name       string
	always     bool // every request of the call, else its first
	everywhere bool // it takes any call
	takes      func(*http.Request) bool
	strike     func(*wire, *http.Request) (*http.Response, error)
}

var faults = func() (all []fault) {
	anything := func(*http.Request) bool { return true }
	conditional := func(r *http.Request) bool { return r.Header.Get("If-None-Match") != "" }
	action := func(name string) func(*http.Request) bool {
		return func(r *http.Request) bool { return strings.HasPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS."+name) }
	}
	for _, always := range []bool{false, true} {
		how := map[bool]string{false: "once", true: "always"}[always]
		all = append(all,
			fault{"throttled " + how, always, true, anything, throttled},
			fault{"500 " + how, always, true, anything, failed},
			fault{"time-out after the effect " + how, always, true, anything, timedOut},
			fault{"reset before the effect " + how, always, true, anything, reset},
			fault{"409 " + how, always, false, conditional, conflicting},
		)
	}
	return append(all,
		fault{"sent twice", false, false, action("SendMessage"), twice},
		fault{"sent and lost", false, false, action("SendMessage"), purged},
		fault{"delivered again", false, false, action("ReceiveMessage"), shownAgain},
		fault{"not deleted", false, false, action("DeleteMessage"), timedOut},
	)
}()

// wire is the HTTP client of one process. It counts calls, and strikes the n-th.
type wire struct {
	http.RoundTripper
	sqs *sqs.Client // past the wire
	ctx context.Context

	mu     sync.Mutex
	calls  []*http.Request // the first of each, in order
	number map[string]int  // invocation -> its place in calls
	plan   map[int]fault   // what strikes which call
	struck map[int]bool
	last   int // how many calls there were when the faults ended
}

func newWire(transport http.RoundTripper, past sdk.Config, plan map[int]fault) *wire {
	return &wire{RoundTripper: transport, sqs: sqs.NewFromConfig(past), ctx: context.Background(), number: map[string]int{}, plan: plan, struck: map[int]bool{}}
}

func (w *wire) Do(r *http.Request) (*http.Response, error) {
	id := r.Header.Get("Amz-Sdk-Invocation-Id")
	w.mu.Lock()
	n, known := w.number[id]
	if !known {
		n = len(w.calls)
		w.number[id] = n
		w.calls = append(w.calls, r)
	}
	f, ok := w.plan[n]
	strike := ok && f.takes(r) && (f.always || !w.struck[n])
	if strike {
		w.struck[n] = true
	}
	w.mu.Unlock()
	if strike {
		return f.strike(w, r)
	}
	return w.RoundTrip(r)
}

// callOf names a request for people.
func callOf(r *http.Request) string {
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		return target[strings.LastIndexByte(target, '.')+1:]
	}
	how := ""
	if r.Header.Get("If-None-Match") != "" {
		how = "if absent "
	}
	return r.Method + " " + how + r.URL.Path + "?" + r.URL.RawQuery
}

func service(r *http.Request) string {
	switch target := r.Header.Get("X-Amz-Target"); {
	case strings.HasPrefix(target, "DynamoDB"):
		return "dynamodb"
	case target != "":
		return "sqs"
	}
	return "s3"
}

// says is a reply that no server gave.
func says(r *http.Request, status int, code string) (*http.Response, error) {
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
	}
	body, kind := `{"__type":"com.amazonaws#`+code+`","message":"injected"}`, "application/x-amz-json-1.0"
	if service(r) == "s3" {
		body, kind = "<Error><Code>"+code+"</Code><Message>injected</Message></Error>", "application/xml"
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}, nil
}

func throttled(_ *wire, r *http.Request) (*http.Response, error) {
	switch service(r) {
	case "dynamodb":
		return says(r, 400, "ProvisionedThroughputExceededException")
	case "sqs":
		return says(r, 400, "ThrottlingException")
	}
	return says(r, 503, "SlowDown")
}

func failed(_ *wire, r *http.Request) (*http.Response, error) {
	return says(r, 500, map[string]string{"s3": "InternalError", "dynamodb": "InternalServerError", "sqs": "InternalFailure"}[service(r)])
}

func conflicting(_ *wire, r *http.Request) (*http.Response, error) {
	return says(r, 409, "ConditionalRequestConflict")
}

// lateError is a client's own time-out.
type lateError struct{}

func (lateError) Error() string   { return "time-out awaiting response headers (injected)" }
func (lateError) Timeout() bool   { return true }
func (lateError) Temporary() bool { return true }

func timedOut(w *wire, r *http.Request) (*http.Response, error) {
	resp, err := w.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return nil, lateError{}
}

func reset(_ *wire, r *http.Request) (*http.Response, error) {
	return nil, errors.New("connection reset by peer (injected)")
}

// twice sends a message two times, as SQS may deliver it.
func twice(w *wire, r *http.Request) (*http.Response, error) {
	again := r.Clone(r.Context())
	body, err := bodyOf(r)
	if err != nil {
		return nil, err
	}
	again.Body = io.NopCloser(strings.NewReader(body))
	resp, err := w.RoundTrip(again)
	if err != nil {
		return nil, err
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return w.RoundTrip(r)
}

// bodyOf reads what a request says, and leaves it to be read again.
func bodyOf(r *http.Request) (string, error) {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	return string(body), err
}

// queueOf reads the queue's URL from a request.
func queueOf(r *http.Request) (url string, err error) {
	body, err := bodyOf(r)
	if err != nil {
		return "", err
	}
	var in struct{ QueueUrl string }
	err = json.Unmarshal([]byte(body), &in)
	return in.QueueUrl, err
}

// purged loses what was sent, and whatever else is in the queue.
func purged(w *wire, r *http.Request) (*http.Response, error) {
	url, err := queueOf(r)
	if err != nil {
		return nil, err
	}
	resp, err := w.RoundTrip(r)
	if err == nil {
		_, err = w.sqs.PurgeQueue(w.ctx, &sqs.PurgeQueueInput{QueueUrl: &url})
	}
	return resp, err
}

// shownAgain gives a message to this receiver and to the next one.
func shownAgain(w *wire, r *http.Request) (*http.Response, error) {
	url, err := queueOf(r)
	if err != nil {
		return nil, err
	}
	resp, err := w.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	var out struct{ Messages []types.Message }
	if err == nil {
		err = json.Unmarshal(body, &out)
	}
	for _, m := range out.Messages {
		if err == nil { // the receipt is still good for a deletion
			_, err = w.sqs.ChangeMessageVisibility(w.ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
		}
	}
	return resp, err
}

// ground is a store that runs the job again and again, under new ids.
type ground struct {
	t         *testing.T
	cfg       sdk.Config
	name      string
	transport http.RoundTripper
	scratch   string
	runs      int
}

func newGround(t *testing.T, cfg sdk.Config) *ground {
	return &ground{
		t: t, cfg: cfg, name: standins.Store(t, cfg), scratch: t.TempDir(),
		transport: http.DefaultTransport.(*http.Transport).Clone(),
	}
}

// input stores the items, in several objects, and returns their prefix.
func (g *ground) input() string {
	for i, part := range fickleItems {
		if _, err := standins.S3(g.cfg).PutObject(g.t.Context(), &s3.PutObjectInput{
			Bucket: &g.name, Key: sdk.String(fmt.Sprintf("in/part-%d.jsonl", i)), Body: strings.NewReader(part),
		}); err != nil {
			g.t.Fatal(err)
		}
	}
	return "s3://" + g.name + "/in/"
}

// run runs the job with the faults of plan and audits it: how it ended, and which
// faults struck which of how many calls.
func (g *ground) run(ctx context.Context, input string, plan map[int]fault) (got string, w *wire, err error) {
	return g.meddled(ctx, input, plan, func() {})
}

// meddled is run with somebody who does something to the store after each step.
func (g *ground) meddled(ctx context.Context, input string, plan map[int]fault, stepped func()) (got string, w *wire, err error) {
	g.runs++
	cfg := g.cfg.Copy()
	w = newWire(g.transport, g.cfg, plan)
	cfg.HTTPClient = w
	cfg.RetryMaxAttempts = 2 // as AWS_MAX_ATTEMPTS: a fault of all of them costs little time then
	world := hayrick.RealWorld("process-1")
	world.Go = sim.InOrder
	st := aws.New(cfg, g.name, world, nil)
	p := startMachine(g.t, awsStore{st}, ratelimit.ServiceTime, st.Clock(), g.scratch)
	defer p.close()
	p.stepped = stepped
	o, err := p.run(ctx, coordinator.Submission{
		Definition: fickleJob(input, fmt.Sprintf("s3://%s/out/%d/", g.name, g.runs)), JobID: fmt.Sprintf("fickle-%d", g.runs), CodeVersion: "test",
	})
	w.calm()
	if err == nil {
		err = p.proven(ctx)
	}
	return sim.Gist(o), w, err
}

// calm ends the faults and the counting.
func (w *wire) calm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plan, w.last = nil, len(w.calls)
}

// Every request of a job of two batches meets every fault that S3, DynamoDB and SQS
// know, and the job ends as on a calm day: same rows, and an audit proves it. What one
// retry of the SDK mends strikes several calls of a run, far apart; what outlasts it,
// one call a run.
//
// 002-05 002-45 002-52
func TestEveryFaultOfAWSIsSurvivedOnStandIns(t *testing.T) {
	t.Parallel() // it mostly waits
	cfg := standins.Config(t)
	start := time.Now()
	want := here(t)
	first := newGround(t, cfg)
	input := first.input()
	got, calm, err := first.run(t.Context(), input, nil)
	if err != nil || got != want {
		t.Fatalf("calm: got %s, %v; want %s", got, err, want)
	}
	calls := calm.last
	plans := plansOf(calm.calls[:calls])

	todo := make(chan map[int]fault, len(plans))
	for _, p := range plans {
		todo <- p
	}
	close(todo)
	var mu sync.Mutex // guards met
	met := map[string]int{}
	var working sync.WaitGroup
	for range grounds {
		g := newGround(t, cfg)
		working.Go(func() {
			for plan := range todo {
				if t.Failed() {
					return
				}
				got, w, err := g.run(t.Context(), input, plan)
				if err != nil || got != want {
					t.Errorf("%s:\n got %s, %v\nwant %s", w.told(plan), got, err, want)
				}
				mu.Lock()
				for n := range w.struck {
					met[plan[n].name]++
				}
				mu.Unlock()
			}
		})
	}
	working.Wait()
	for _, f := range faults {
		if n := met[f.name]; f.everywhere && n < calls || n == 0 {
			t.Errorf("%s struck %d of %d calls", f.name, n, calls)
		}
	}
	t.Logf("%v: %d calls, %d runs: %v", time.Since(start).Round(time.Second), calls, len(plans), met)
}

// grounds is how many runs go on at once: most of their time they wait for a second of
// SQS to pass.
const grounds = 32

// apart is how many calls lie between two faults of one run.
const apart = 12

// plansOf puts every fault on every call that it takes.
func plansOf(calls []*http.Request) (plans []map[int]fault) {
	var mended []fault
	for _, f := range faults {
		if !f.always && f.everywhere {
			mended = append(mended, f)
			continue
		}
		for n, r := range calls {
			if f.takes(r) {
				plans = append(plans, map[int]fault{n: f})
			}
		}
	}
	for from := range apart {
		for shift := range mended {
			plan := map[int]fault{}
			for n := from; n < len(calls); n += apart {
				plan[n] = mended[(n/apart+shift)%len(mended)]
			}
			plans = append(plans, plan)
		}
	}
	return plans
}

// told names the calls that were struck.
func (w *wire) told(plan map[int]fault) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, n := range slices.Sorted(maps.Keys(w.struck)) {
		out = append(out, fmt.Sprintf("%s at call %d, %s", plan[n].name, n, callOf(w.calls[n])))
	}
	return strings.Join(out, "; ")
}
