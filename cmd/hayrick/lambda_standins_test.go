//go:build standins

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"hayrick/aws"
	"hayrick/infra"
	"hayrick/internal/lambdatest"
	"hayrick/internal/standins"
)

// onLambda is a store whose runs are worked on by nothing but functions: those of the
// template, with its event source mapping and its schedule. The worker's time, and with
// it the visibility, is cut to what a test can wait for.
type onLambda struct {
	t       *testing.T
	store   string
	cfg     sdk.Config
	sqs     *sqs.Client
	worker  *lambdatest.Function
	sweeper *lambdatest.Function
	mapping *lambdatest.Mapping
	log     *logLines

	stop func()
}

// timesHidden is the template's proportion of the queue's visibility and the
// function's time.
const timesHidden = 6

func newOnLambda(t *testing.T, binary string, concurrency int, timeout time.Duration) *onLambda {
	t.Helper()
	l := &onLambda{t: t, cfg: standins.Config(t), log: &logLines{}}
	l.sqs = sqs.NewFromConfig(l.cfg)
	name := standins.Store(t, l.cfg)
	l.store = aws.Scheme + name
	stack, err := infra.Resolve(infra.Params{
		Values: map[string]string{
			"Name": name, "BudgetEmail": "nobody@example.invalid", "CodeKey": "code/hayrick.zip",
			"TimeoutSeconds": "60", "MaxConcurrency": strconv.Itoa(concurrency),
		}, Account: "000000000000", Region: l.cfg.Region,
	})
	must(t, err)
	for _, q := range stack.Queues() {
		if hidden := q.Attributes["VisibilityTimeout"]; hidden != strconv.Itoa(timesHidden*60) {
			t.Fatalf("the template hides messages of %s for %s s, which this test does not know", q.Name, hidden)
		}
	}
	l.worker, err = lambdatest.FromStack(stack, "Worker")
	must(t, err)
	l.sweeper, err = lambdatest.FromStack(stack, "Sweeper")
	must(t, err)
	l.mapping, err = lambdatest.MappingFromStack(stack)
	must(t, err)
	if l.mapping.BatchSize != 1 || !l.mapping.Partial || l.mapping.Concurrency >= l.worker.Concurrency {
		t.Fatalf("%+v over %d reserved", l.mapping, l.worker.Concurrency)
	}
	for _, f := range []*lambdatest.Function{l.worker, l.sweeper} {
		f.Binary, f.Dir, f.Log = binary, t.TempDir(), l.log
		for _, v := range os.Environ() { // what the service gives a function of its own, and where the stand-ins are
			if strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "AWS_REGION") {
				f.Env = append(f.Env, v)
			}
		}
	}
	l.worker.Timeout = timeout
	l.mapping.Function, l.mapping.SQS, l.mapping.QueueURL = l.worker, l.sqs, l.queue(aws.NamesOf(name).Tasks)
	_, err = l.sqs.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{
		QueueUrl: &l.mapping.QueueURL, Attributes: map[string]string{"VisibilityTimeout": strconv.Itoa(timesHidden * int(timeout.Seconds()))},
	})
	must(t, err)
	return l
}

func (l *onLambda) queue(name string) string {
	l.t.Helper()
	out, err := l.sqs.GetQueueUrl(l.t.Context(), &sqs.GetQueueUrlInput{QueueName: &name})
	must(l.t, err)
	return *out.QueueUrl
}

// begin lets the functions work until end.
func (l *onLambda) begin() {
	ctx, cancel := context.WithCancel(l.t.Context())
	var running sync.WaitGroup
	running.Add(2)
	go func() {
		defer running.Done()
		l.mapping.Run(ctx, func(err error) { l.t.Errorf("the event source mapping: %v", err) })
	}()
	go func() {
		defer running.Done()
		lambdatest.Schedule(ctx, l.sweeper, `{"hayrick":"sweep"}`, time.Second, func(err error) { l.t.Errorf("the sweeper: %v", err) })
	}()
	once := sync.Once{}
	l.stop = func() {
		once.Do(func() {
			cancel()
			running.Wait()
			l.worker.Close()
			l.sweeper.Close()
		})
	}
	l.t.Cleanup(l.stop)
}

// submit makes a run exist, from a folder with its job file.
func (l *onLambda) submit(dir string, args ...string) string {
	l.t.Helper()
	c := start(l.t, dir, append([]string{"submit", "-q", "-C", l.store}, args...)...)
	if err := <-c.ended; err != nil {
		l.t.Fatalf("submit: %v\n%s", err, c.errs.String())
	}
	return strings.TrimSpace(c.out.String())
}

// wait waits for the run to end, with a bound that only a run that stands still comes
// to, and says how.
func (l *onLambda) wait(run string) finished {
	l.t.Helper()
	for range 600 {
		c := start(l.t, l.t.TempDir(), "status", "--json", "-C", l.store, run)
		<-c.ended
		var s struct {
			Status string
			Reason string
			Result *finished
		}
		if err := json.Unmarshal([]byte(c.out.String()), &s); err != nil {
			l.t.Fatalf("status: %v\n%s%s", err, c.out.String(), c.errs.String())
		}
		if s.Result != nil {
			return *s.Result
		}
		if s.Status == "PAUSED" {
			l.t.Fatalf("the run is paused: %s", s.Reason)
		}
		time.Sleep(500 * time.Millisecond)
	}
	l.t.Fatalf("the run does not end\n%s", l.log)
	panic("unreachable")
}

// waitFor waits until what is logged has a text.
func (l *onLambda) waitFor(text string, times int) {
	l.t.Helper()
	for range 1200 {
		if strings.Count(l.log.String(), text) >= times {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	l.t.Fatalf("%q is not logged %d times\n%s", text, times, l.log)
}

// calm checks what must be so however it went: no message died, nothing was written
// beside /tmp, every line logged is JSON, and no secret is in any.
func (l *onLambda) calm() {
	l.t.Helper()
	l.stop()
	out, err := l.sqs.GetQueueAttributes(l.t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl:       sdk.String(l.queue(aws.NamesOf(strings.TrimPrefix(l.store, aws.Scheme)).Dead)),
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessages, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible},
	})
	must(l.t, err)
	for name, n := range out.Attributes {
		if n != "0" {
			l.t.Errorf("dead letters: %s %s", name, n)
		}
	}
	if left := append(l.worker.Leftovers(), l.sweeper.Leftovers()...); len(left) > 0 {
		l.t.Errorf("written beside /tmp: %v", left)
	}
	for line := range strings.Lines(l.log.String()) {
		if !json.Valid([]byte(line)) {
			l.t.Errorf("logged: %s", line)
		}
	}
	if strings.Contains(l.log.String(), os.Getenv("AWS_SECRET_ACCESS_KEY")) {
		l.t.Error("the log has the secret key")
	}
	l.t.Logf("worker %+v, sweeper %+v", l.worker.Counts(), l.sweeper.Counts())
}

// handedBack are the log lines of tasks that were handed back.
func (l *onLambda) handedBack() (out []struct{ Items, Ended, Progress int }) {
	for line := range strings.Lines(l.log.String()) {
		var x struct {
			Message                string
			Items, Ended, Progress int
		}
		if json.Unmarshal([]byte(line), &x) == nil && x.Message == "task handed back" {
			out = append(out, struct{ Items, Ended, Progress int }{x.Items, x.Ended, x.Progress})
		}
	}
	return out
}

// The demo, submitted from here and then run by functions alone, out of the zip that
// would be deployed: three invocations are killed in the middle, one stands still until
// its time is over. The rows are those of a run on this machine, and the audit proves
// them.
//
// 002-08
func TestDemoOnLambdaOnStandIns(t *testing.T) {
	t.Parallel() // it mostly waits
	want := calm(t)
	zipped := filepath.Join(t.TempDir(), "hayrick.zip")
	f, err := os.Create(zipped)
	must(t, err)
	_, _, err = lambdaZip(f, release(t))
	must(t, err)
	must(t, f.Close())

	l := newOnLambda(t, unzipped(t, zipped), 5, 5*time.Second)
	l.worker.Fault = func(n int) lambdatest.Fault {
		switch n {
		case 2, 6, 11:
			return lambdatest.Fault{After: 300 * time.Millisecond}
		case 8:
			return lambdatest.Fault{After: 200 * time.Millisecond, Stall: true}
		}
		return lambdatest.Fault{}
	}
	dir := workspace(t)
	var args []string
	for _, a := range demoArgs[1:] {
		if a != "--json" && a != "-q" {
			args = append(args, a)
		}
	}
	run := l.submit(dir, append(args, "--set", "output.uri="+l.store+"/out/$(run.id)/", "--set", "run.lease=5s")...)
	l.begin()
	if got := l.wait(run); got != want {
		t.Errorf("on Lambda %+v, here %+v", got, want)
	}
	l.calm()
	if n := l.worker.Counts(); n.Exits < 2 || n.Timeouts < 1 || n.Starts < n.Exits+n.Timeouts {
		t.Errorf("the faults did not happen: %+v", n)
	}
	audit := start(t, dir, "-C", l.store, "audit", "--deep", run)
	if err := <-audit.ended; err != nil {
		t.Errorf("audit: %v\n%s%s", err, audit.out.String(), audit.errs.String())
	}
}

// countedJob writes a job of the handler that notes what it has handled, and says where.
func (l *onLambda) countedJob(dir string, items, batch int, wait string) (record string) {
	t := l.t
	t.Helper()
	record = filepath.Join(dir, "handled")
	var lines strings.Builder
	for i := range items {
		fmt.Fprintf(&lines, "{\"n\":%d}\n", i)
	}
	must(t, os.WriteFile(filepath.Join(dir, "items.jsonl"), []byte(lines.String()), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "job.yaml"), fmt.Appendf(nil, `
version: 1
name: counted
handler:
  builtin: %s
  params: {wait: %s, file: %s}
input: {uri: items.jsonl}
batch: {items: %d}
run: {items_in_flight: 1, lease: 10s}
output: {uri: %s/out/$(run.id)/}
`, countedName, wait, record, batch, l.store), 0o644))
	return record
}

// handled counts the lines of each ordinal.
func handled(t *testing.T, record string) map[string]int {
	t.Helper()
	b, err := os.ReadFile(record)
	must(t, err)
	n := map[string]int{}
	for _, ordinal := range strings.Fields(string(b)) {
		n[ordinal]++
	}
	return n
}

// A task that takes longer than any invocation is finished by more than ten of them.
// Each hands back what it has come to by a new message and a success: no hand-off is a
// batch failure, none is a second delivery, and nothing gets near the dead letter
// queue. One invocation is killed in the middle: what it did since the checkpoint is done
// again, and nothing that was in it.
func TestTaskLongerThanInvocationsOnStandIns(t *testing.T) {
	t.Parallel()
	const items, killed = 320, 5
	l := newOnLambda(t, self(t), 2, 4*time.Second)
	l.worker.Fault = func(n int) lambdatest.Fault {
		if n == killed {
			return lambdatest.Fault{After: 2 * time.Second}
		}
		return lambdatest.Fault{}
	}
	var mu sync.Mutex
	again, answers := 0, map[string]int{}
	l.worker.Heard = func(event, answer []byte, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			answers[string(answer)]++
		}
		if !strings.Contains(string(event), `"ApproximateReceiveCount":"1"`) {
			again++
		}
	}
	dir := t.TempDir()
	record := l.countedJob(dir, items, items, "100ms")
	run := l.submit(dir, "job.yaml")
	l.begin()
	got := l.wait(run)
	if got.Status != "SUCCEEDED" || got.OK != items {
		t.Errorf("%+v", got)
	}
	l.calm()
	backs := l.handedBack()
	checkpoints := map[int]bool{}
	before := 0
	for i, b := range backs {
		if b.Items != items || b.Progress == 0 || b.Ended != before+b.Progress {
			t.Errorf("hand-off %d: %+v after %d", i, b, before)
		}
		before = b.Ended
		checkpoints[before] = true
	}
	if len(backs) < 10 {
		t.Errorf("%d hand-offs", len(backs))
	}
	c := l.worker.Counts()
	lost := c.Exits + c.Timeouts
	if c.Exits != 1 || c.Errors != 0 {
		t.Errorf("%+v", c)
	}
	if again > lost {
		t.Errorf("%d second deliveries, %d invocations were lost", again, lost)
	}
	if len(answers) != 1 || answers[`{"batchItemFailures":[]}`] == 0 {
		t.Errorf("answers: %v", answers)
	}
	// One item after the other; where the order breaks, it goes on from a checkpoint.
	b, err := os.ReadFile(record)
	must(t, err)
	next, breaks := 0, 0
	for _, text := range strings.Fields(string(b)) {
		n, err := strconv.Atoi(text)
		must(t, err)
		if n != next {
			breaks++
			if n > next || !checkpoints[n] {
				t.Errorf("item %d was handled when %d was to be, and no checkpoint is there", n, next)
			}
		}
		next = n + 1
	}
	if next != items || breaks > lost {
		t.Errorf("%d items were handled in the end, with %d breaks", next, breaks)
	}
}

// The queue is emptied in the middle of a run: the sweeper sends what is missing, and
// the run ends as if nothing had happened.
func TestSweeperHealsPurgeOnStandIns(t *testing.T) {
	t.Parallel()
	const tasks, batch = 24, 5
	l := newOnLambda(t, self(t), 2, 5*time.Second)
	dir := t.TempDir()
	record := l.countedJob(dir, tasks*batch, batch, "100ms")
	run := l.submit(dir, "job.yaml")
	l.begin()
	for seen := 0; seen < 3*batch; { // some tasks have ended, most have not begun
		time.Sleep(20 * time.Millisecond)
		if _, err := os.Stat(record); err == nil {
			seen = len(handled(t, record))
		}
	}
	_, err := l.sqs.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &l.mapping.QueueURL})
	must(t, err)
	before := len(handled(t, record))
	if before > tasks*batch/2 {
		t.Fatalf("the queue was emptied too late: %d items are done", before)
	}
	got := l.wait(run)
	if got.Status != "SUCCEEDED" || got.OK != tasks*batch {
		t.Errorf("%+v", got)
	}
	l.waitFor("messages sent again", 1)
	l.calm()
	if seen := handled(t, record); len(seen) != tasks*batch {
		t.Errorf("%d items were handled: %v", len(seen), slices.Sorted(func(yield func(string) bool) {
			for o := range seen {
				if !yield(o) {
					return
				}
			}
		}))
	}
}

// A merge that takes longer than an invocation is finished by several: each goes on behind
// the last input that is merged, by a new message. No row is lost, and no message dies.
func TestMergeLongerThanInvocationsOnStandIns(t *testing.T) {
	t.Parallel()
	const items, rows = 40, 240_000
	l := newOnLambda(t, self(t), 2, 3*time.Second)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "job.yaml"), fmt.Appendf(nil, `
version: 1
name: merged
handler: {builtin: noop, params: {items: %d, rows: %d}}
input: {items: true}
batch: {items: 1}
run: {lease: 10s}
merge: {fan_in: %d, by_count: true, dictionary: true} # pages are not copied, which would take no time
output: {uri: %s/out/$(run.id)/}
`, items, rows, items, l.store), 0o644))
	run := l.submit(dir, "job.yaml")
	l.begin()
	if got := l.wait(run); got.Status != "SUCCEEDED" || got.OK != items || got.Rows != items*rows {
		t.Errorf("%+v", got)
	}
	l.calm()
	backs, before := 0, 0
	for line := range strings.Lines(l.log.String()) {
		var x struct {
			Message             string
			Inputs, Merged, Now int
		}
		if json.Unmarshal([]byte(line), &x) == nil && x.Message == "merge handed back" {
			backs++
			if x.Inputs != items || x.Merged != before+x.Now {
				t.Errorf("hand-off %d: %+v after %d", backs, x, before)
			}
			before = x.Merged
		}
	}
	if backs == 0 {
		t.Error("the merge fits an invocation")
	}
	t.Logf("%d hand-offs", backs)
	c := start(t, dir, "audit", "-C", l.store, run)
	if err := <-c.ended; err != nil {
		t.Errorf("audit: %v\n%s%s", err, c.out.String(), c.errs.String())
	}
}
