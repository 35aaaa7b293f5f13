//go:build standins

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"hayrick/infra"
	"hayrick/internal/lambdatest"
	"hayrick/internal/wirelog"
)

// sweepEvent is what the template's schedule sends.
const sweepEvent = `{"hayrick":"sweep"}`

// principal is somebody with the policies of some roles, whose requests are written
// down.
type principal struct {
	name  string
	roles []string
	log   *wirelog.Log
	also  []infra.Request // written down elsewhere
}

// stage is a store on which everybody does what they are there for. Functions are those
// of the template; people type commands.
type stage struct {
	*onLambda
	stack *infra.Stack
	db    *dynamodb.Client
	s3    *s3.Client
	name  string
	other string // another bucket, which the template names for inputs
	cast  []*principal
}

func newStage(t *testing.T) *stage {
	s := &stage{onLambda: newOnLambda(t, self(t), 5, 4*time.Second)}
	s.name = strings.TrimPrefix(s.store, "s3://")
	s.other = s.name + "-inputs"
	var err error
	s.stack, err = infra.Resolve(infra.Params{Account: "000000000000", Region: s.cfg.Region, Values: map[string]string{
		"Name": s.name, "BudgetEmail": "nobody@example.invalid", "InputBuckets": s.other,
	}})
	must(t, err)
	s.db = dynamodb.NewFromConfig(s.cfg)
	s.s3 = s3.NewFromConfig(s.cfg, func(o *s3.Options) { o.UsePathStyle = true })
	_, err = s.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &s.other})
	must(t, err)
	return s
}

// enter adds somebody to the cast.
func (s *stage) enter(name string, roles ...string) *principal {
	s.t.Helper()
	log, err := wirelog.Start(s.cfg.Region)
	must(s.t, err)
	s.t.Cleanup(log.Close)
	p := &principal{name: name, roles: roles, log: log}
	s.cast = append(s.cast, p)
	return p
}

// start begins a command of somebody.
func (s *stage) start(p *principal, dir string, args ...string) *child {
	s.t.Helper()
	return startWith(s.t, p.log.Env(), dir, append([]string{"-C", s.store}, args...)...)
}

// types is a whole command, which ends with that code, and what it printed.
func (s *stage) types(p *principal, code int, dir string, args ...string) string {
	s.t.Helper()
	c := s.start(p, dir, args...)
	select {
	case err := <-c.ended:
		if got := codeOf(err); got != code {
			s.t.Fatalf("the %s: %v exits %d, want %d\n%s%s\n%s", p.name, args, got, code, c.out.String(), c.errs.String(), s.log)
		}
	case <-time.After(3 * time.Minute):
		c.kill()
		s.t.Fatalf("the %s: %v hangs\n%s\n%s", p.name, args, c.errs.String(), s.log)
	}
	return strings.TrimSpace(c.out.String())
}

// work lets the functions work until while is over.
func (s *stage) work(while func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	running.Add(2)
	go func() {
		defer running.Done()
		s.mapping.Run(ctx, func(err error) { s.t.Errorf("the event source mapping: %v", err) })
	}()
	go func() {
		defer running.Done()
		lambdatest.Schedule(ctx, s.sweeper, sweepEvent, time.Second, func(err error) { s.t.Errorf("the sweeper: %v", err) })
	}()
	defer running.Wait()
	defer cancel()
	while()
}

// sweep is one minute's call of the sweeper, with nobody at work.
func (s *stage) sweep() {
	s.t.Helper()
	if _, err := s.sweeper.Invoke(s.t.Context(), []byte(sweepEvent)); err != nil {
		s.t.Errorf("the sweeper: %v", err)
	}
}

// until waits until somebody who looks sees a run in one of these states, with a bound
// that only a run that stands still comes to.
func (s *stage) until(p *principal, run string, want ...string) {
	s.t.Helper()
	status := ""
	for range 400 {
		c := s.start(p, s.t.TempDir(), "status", "--json", run)
		<-c.ended
		var v struct{ Status string }
		if err := json.Unmarshal([]byte(c.out.String()), &v); err != nil {
			s.t.Fatalf("status: %v\n%s%s", err, c.out.String(), c.errs.String())
		}
		if status = v.Status; slices.Contains(want, status) {
			return
		}
		time.Sleep(300 * time.Millisecond)
	}
	s.t.Fatalf("%s is %s, not %v\n%s", run, status, want, s.log)
}

// wipe empties the table, as anybody may at any time.
func (s *stage) wipe() {
	s.t.Helper()
	pages := dynamodb.NewScanPaginator(s.db, &dynamodb.ScanInput{TableName: &s.name, ConsistentRead: sdk.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(s.t.Context())
		must(s.t, err)
		for _, it := range page.Items {
			_, err := s.db.DeleteItem(s.t.Context(), &dynamodb.DeleteItemInput{TableName: &s.name, Key: map[string]dbtypes.AttributeValue{"pk": it["pk"], "sk": it["sk"]}})
			must(s.t, err)
		}
	}
}

func (s *stage) put(key, body string) { s.t.Helper(); s.putIn(s.name, key, body) }

// putIn stores an object and returns its version, "" where the bucket keeps none.
func (s *stage) putIn(bucket, key, body string) (version string) {
	s.t.Helper()
	out, err := s.s3.PutObject(s.t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(body)})
	must(s.t, err)
	return sdk.ToString(out.VersionId)
}

// versions lets a bucket keep versions, from now on or no longer.
func (s *stage) versions(bucket string, status s3types.BucketVersioningStatus) {
	s.t.Helper()
	_, err := s.s3.PutBucketVersioning(s.t.Context(), &s3.PutBucketVersioningInput{
		Bucket: &bucket, VersioningConfiguration: &s3types.VersioningConfiguration{Status: status},
	})
	must(s.t, err)
}

// keptInputs are runs whose inputs S3 keeps: an object with versions and a folder, in the
// store's bucket and in another. What they were submitted with is replaced, and an object
// that has no versions is gone.
type keptInputs struct {
	pinned, ours, theirs string // run ids: of the versions, of the folders
	missing, body        string // the object of theirs that is gone
}

func (s *stage) submitInputs(submitter *principal, dir, out string) (in keptInputs) {
	t := s.t
	t.Helper()
	lines := func(id string) string {
		return itemLines(4, func(i int) string { return fmt.Sprintf(`{"id":"%s%d","rows":1}`, id, i) })
	}
	submit := func(name, uri string) string {
		return s.types(submitter, exitDone, dir, "submit", "-q", s.job(dir, name, "fickle", uri, "batch: {items: 2}", out))
	}
	in.missing, in.body = "days/2/b.jsonl", lines("tb")
	for key, body := range map[string]string{"days/1.jsonl": lines("ta"), in.missing: in.body} {
		s.put("in/"+key, strings.ReplaceAll(body, "t", "o"))
		s.putIn(s.other, key, body)
	}
	in.ours, in.theirs = submit("ours", s.in("in/days/")), submit("theirs", "s3://"+s.other+"/days/")
	for bucket, key := range map[string]string{s.name: "in/pinned.jsonl", s.other: "pinned.jsonl"} {
		s.versions(bucket, s3types.BucketVersioningStatusEnabled)
		if s.putIn(bucket, key, lines("p")) == "" {
			t.Fatalf("%s keeps no versions", bucket)
		}
		in.pinned += " " + submit("pinned"+fmt.Sprint(len(bucket)), "s3://"+bucket+"/"+key)
		s.putIn(bucket, key, "{}\n")
		s.versions(bucket, s3types.BucketVersioningStatusSuspended)
	}
	s.remove(s.other, in.missing)
	return in
}

func (s *stage) remove(bucket, key string) {
	s.t.Helper()
	_, err := s.s3.DeleteObject(s.t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key})
	must(s.t, err)
}

// once is true for the first request of an operation on a key with that end.
func once(operation, end string) (f func(string, string) bool, happened *atomic.Bool) {
	happened = new(atomic.Bool)
	return func(op, resource string) bool {
		return op == operation && strings.HasSuffix(resource, end) && happened.CompareAndSwap(false, true)
	}, happened
}

// itemLines are the lines of an input.
func itemLines(n int, line func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(line(i) + "\n")
	}
	return b.String()
}

// job writes a job file of the handlers of these tests; input and output are in its
// name, more are lines of YAML.
func (s *stage) job(dir, name, handler, input string, more ...string) (file string) {
	s.t.Helper()
	file = filepath.Join(dir, name+".yaml")
	must(s.t, os.WriteFile(file, fmt.Appendf(nil, `version: 1
name: %s
handler: {builtin: %s}
input: {uri: "%s", key: id}
run: {items_in_flight: 1, lease: 5s}
%s
`, name, handler, input, strings.Join(more, "\n")), 0o644))
	return file
}

// in is the URI of a key of the store's bucket.
func (s *stage) in(key string) string { return s.store + "/" + key }

// count is how many objects there are below a prefix whose keys have that end.
func (s *stage) count(prefix, end string) (n int) {
	s.t.Helper()
	for _, key := range s.keys(s.s3, prefix) {
		if strings.HasSuffix(key, end) {
			n++
		}
	}
	return n
}

func (s *stage) keys(client *s3.Client, prefix string) (keys []string) {
	s.t.Helper()
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &s.name, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(s.t.Context())
		must(s.t, err)
		for _, o := range page.Contents {
			keys = append(keys, *o.Key)
		}
	}
	return keys
}

// The policies allow what is asked for, and nothing else is asked for. A cast of
// people, machines and functions does on the stand-ins what there is to do: it submits,
// retries, hands back, merges without moving bytes, pauses and resumes, cancels, loses
// the table, is refused and killed, looks and cleans up. All that they send is written
// down, and put to the policies of the template.
func TestRolesOnStandIns(t *testing.T) {
	t.Parallel() // it mostly waits
	s := newStage(t)
	t.Cleanup(s.worker.Close)
	t.Cleanup(s.sweeper.Close)
	submitter := s.enter("submitter", infra.Submitter)
	worker := s.enter("worker function", infra.Worker)
	sweeper := s.enter("sweeper function", infra.Sweeper)
	viewer := s.enter("viewer", infra.Viewer)
	// Who works along with what he submits does what a worker does.
	runner := s.enter("runner", infra.Submitter, infra.Worker)
	machine := s.enter("machine", infra.Worker, infra.Sweeper)
	operator := s.enter("operator", infra.Operator)
	s.worker.Env = append(s.worker.Env, worker.log.Env()...)
	s.sweeper.Env = append(s.sweeper.Env, sweeper.log.Env()...)
	// The event source uses the function's role.
	s.mapping.SQS = sqs.NewFromConfig(s.cfg, func(o *sqs.Options) { o.BaseEndpoint = sdk.String(worker.log.URL("sqs")) })
	s.worker.Fault = func(n int) lambdatest.Fault {
		if n == 3 {
			return lambdatest.Fault{After: 300 * time.Millisecond}
		}
		return lambdatest.Fault{}
	}
	dir := t.TempDir()
	out := "output: {uri: " + s.in("out/$(run.id)/") + "}"

	// A run that never begins: ordered to wait, then to end.
	s.put("in/some.jsonl", itemLines(4, func(i int) string { return fmt.Sprintf(`{"id":"s%d","rows":1}`, i) }))
	file := s.job(dir, "idle", "fickle", s.in("in/some.jsonl"), out)
	s.types(submitter, exitDone, dir, "plan", file)
	idle := s.types(submitter, exitDone, dir, "submit", "-q", file)
	s.types(submitter, exitDone, dir, "pause", idle)
	s.types(submitter, exitDone, dir, "cancel", "--yes", idle)

	// A large input of the submitter's machine, of which a part is refused: the upload is
	// given up, and what was not submitted is submitted again. Its first task is longer
	// than an invocation; an item needs a second group, one is gone, one never ends well.
	acts := filepath.Join(dir, "acts")
	must(t, os.Mkdir(acts, 0o755))
	must(t, os.Rename(s.job(dir, "acts", "fickle", "./items.jsonl", out, `batch: {items: 10}
rates: [{name: api, key: $(item.host), limit: 60/s, burst: 136, auto: true}]
retry: {passes: 2, in_task: {attempts: 1}, backoff: {initial: 50ms, max: 50ms}, lists: {gone: gone_ids}}`), filepath.Join(acts, "config.yaml")))
	pad := strings.Repeat("x", 256<<10)
	must(t, os.WriteFile(filepath.Join(dir, "items.jsonl"), []byte(itemLines(40, func(i int) string {
		wait, until, gone := 0, 1, i == 12
		switch {
		case i < 10:
			wait = 500
		case i == 11:
			until = 2
		case i == 13:
			until = 9
		}
		return fmt.Sprintf(`{"id":"a%d","host":"h%d","rows":1,"wait_ms":%d,"fail_until":%d,"permanent":%t,"pad":"%s"}`, i, i%2, wait, until, gone, pad)
	})), 0o644))
	refuse, refusedUpload := once("UploadPart", "")
	submitter.log.Refuse(refuse)
	if c := s.start(submitter, dir, "submit", "acts"); <-c.ended == nil {
		t.Errorf("nothing is refused: %s%s", c.out.String(), c.errs.String())
	}
	long := s.types(submitter, exitDone, dir, "submit", "-q", "acts")

	// Bytes enough for S3 to join by itself, into a folder that holds something. The first
	// copy is refused, and the upload given up.
	s.put("in/bulk.jsonl", itemLines(24, func(i int) string { return fmt.Sprintf(`{"id":"b%d"}`, i) }))
	s.put("out/bulk/part-00007.parquet", "old")
	bulk := s.types(submitter, exitDone, dir, "submit", "-q", s.job(dir, "bulk", "bulky", s.in("in/bulk.jsonl"),
		"batch: {items: 1}", "merge: {fan_in: 10, target_bytes: 8MiB}", "output: {uri: "+s.in("out/bulk/")+", if_exists: overwrite}"))
	refuse, refusedCopy := once("UploadPartCopy", "")
	worker.log.Refuse(refuse)

	// An input that is another when its batches are read: the worker pauses the run.
	moody := itemLines(4, func(i int) string { return fmt.Sprintf(`{"id":"m%d","rows":1}`, i) })
	s.put("in/moody.jsonl", moody)
	changed := s.types(submitter, exitDone, dir, "submit", "-q", s.job(dir, "moody", "fickle", s.in("in/moody.jsonl"), "batch: {items: 2}", out))
	s.put("in/moody.jsonl", strings.ReplaceAll(moody, "m", "n"))

	in := s.submitInputs(submitter, dir, out)

	// Too many items that fail: the sweeper pauses the run.
	s.put("in/grim.jsonl", itemLines(12, func(i int) string {
		return fmt.Sprintf(`{"id":"g%d","permanent":%t,"wait_ms":%d}`, i, i < 4, 1500*min(1, i/4))
	}))
	grim := s.types(submitter, exitDone, dir, "submit", "-q", s.job(dir, "grim", "fickle", s.in("in/grim.jsonl"), "batch: {items: 4}",
		"retry: {stop_if: {failed_fraction: 0.2, after_items: 4}}", out))

	s.types(viewer, exitDone, dir, "ls")
	s.types(viewer, exitDone, dir, "inspect", long, "--task", "task-0000") // who has it in hand

	s.work(func() {
		s.until(viewer, grim, "PAUSED")
		s.until(viewer, changed, "PAUSED")
		s.until(viewer, bulk, "SUCCEEDED")
		s.until(viewer, long, "SUCCEEDED")
		s.until(viewer, in.theirs, "PAUSED")
		for _, id := range append(strings.Fields(in.pinned), in.ours) {
			s.until(viewer, id, "SUCCEEDED")
		}
	})
	// The order to end is given, and then who gave it is cut off: the sweeper ends the run.
	refuse, refusedEnd := once("PutObject", "/outcome-0.json")
	submitter.log.Refuse(refuse)
	if c := s.start(submitter, dir, "cancel", "--yes", grim); <-c.ended == nil {
		t.Errorf("the cancel is not cut off: %s%s", c.out.String(), c.errs.String())
	}
	s.sweep()
	s.until(viewer, grim, "CANCELLED")
	for what, b := range map[string]*atomic.Bool{"part of an upload": refusedUpload, "copy into a part": refusedCopy, "outcome": refusedEnd} {
		if !b.Load() {
			t.Errorf("no %s was refused", what)
		}
	}

	// The table is lost in the middle of a run, twice: once for who submits it again, once
	// for the sweeper.
	s.put("in/slow.jsonl", itemLines(64, func(i int) string { return fmt.Sprintf(`{"id":"w%d","rows":1,"wait_ms":200}`, i) }))
	file = s.job(dir, "slow", "fickle", s.in("in/slow.jsonl"), "batch: {items: 2}", out)
	slow := s.types(submitter, exitDone, dir, "submit", "-q", file)
	s.types(submitter, exitDone, dir, "status", slow)
	s.work(func() {
		for range 600 {
			if s.count("jobs/"+slow+"/tasks/", "/results.done") >= 3 {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatalf("%s does not begin\n%s", slow, s.log)
	})
	if n := s.count("jobs/"+slow+"/tasks/", "/results.done"); n == 32 {
		t.Fatal("all of the run is done: nothing is left to be repaired")
	}
	s.wipe()
	if again := s.types(submitter, exitDone, dir, "submit", "-q", file); again != slow {
		t.Errorf("%s goes on as %s", slow, again)
	}
	s.wipe()
	s.sweep()
	// Meanwhile the run that was paused goes on, with its input as it was.
	s.put("in/moody.jsonl", moody)
	s.putIn(s.other, in.missing, in.body)
	// What a run has listed below out/ is another's input.
	listed := s.types(submitter, exitDone, dir, "submit", "-q", s.job(dir, "listed", "fickle", s.in("out/"+long+"/lists/gone_ids.jsonl"), out), "--set", "input.key=key")
	s.work(func() {
		s.types(submitter, exitDone, dir, "resume", "--detach", changed)
		s.types(submitter, exitDone, dir, "resume", "--detach", in.theirs)
		s.until(viewer, in.theirs, "SUCCEEDED")
		s.until(viewer, listed, "SUCCEEDED")
		s.types(submitter, exitDone, dir, "watch", slow)
		s.until(viewer, changed, "SUCCEEDED")
	})

	// A machine that works on its own, beside one that runs a job from the beginning.
	s.types(submitter, exitDone, dir, "submit", "-q", s.job(dir, "small", "fickle", s.in("in/some.jsonl"), "batch: {items: 1}", out))
	helper := s.start(machine, dir, "worker")
	s.types(runner, exitDone, workspace(t), "run", "jobs/backfill", "--profile", "demo", "-q", "--set", "handler.params.demo.accounts=40",
		"--set", "batch.items=10", "--set", "retry.backoff.initial=50ms", "--set", "output.uri="+s.in("out/$(run.id)/"))
	if err := <-helper.ended; err != nil {
		t.Errorf("the machine: %v\n%s", err, helper.errs.String())
	}

	// Looking, by who may do nothing else and by who submitted.
	s.types(viewer, exitDone, dir, "failures", long, "--class", "gone")
	s.types(viewer, exitDone, dir, "inspect", long)
	s.types(viewer, exitDone, dir, "inspect", long, "--item", "a12")
	s.types(viewer, exitDone, dir, "audit", "--deep", long)
	s.types(viewer, exitDone, dir, "audit", "--deep", bulk)
	s.types(submitter, exitDone, dir, "status", long)
	s.types(submitter, exitDone, dir, "audit", long)
	for _, id := range append(strings.Fields(in.pinned), in.ours, in.theirs) {
		s.types(viewer, exitDone, dir, "audit", "--deep", id)
		s.types(submitter, exitDone, dir, "audit", "--deep", id)
	}
	s.remove(s.other, in.missing)
	s.types(viewer, exitDone, dir, "inspect", in.theirs, "--item", "5")
	s.diagnose(submitter)
	s.until(viewer, idle, "CANCELLED")
	s.clean(operator, idle)

	// What the acts were there for has happened.
	for _, key := range []string{"/checkpoint/", "/retries/retry-1/plan.json", "/aggregation/0/lists/gone_ids-", "/aggregation/0/lists/exhausted-"} {
		if !slices.ContainsFunc(worker.log.Asked(), func(r infra.Request) bool {
			return r.Action == "s3:PutObject" && strings.HasPrefix(r.Resource, "arn:aws:s3:::"+s.name+"/jobs/"+long) && strings.Contains(r.Resource, key)
		}) {
			t.Errorf("the functions wrote no %s", key)
		}
	}
	s.judge()
}

// diagnose lets an administrator run doctor, and takes its race of conditional writes for
// the submitter's: the one part of it that is his, and the rest is no role's of a store.
func (s *stage) diagnose(submitter *principal) {
	s.t.Helper()
	log, err := wirelog.Start(s.cfg.Region)
	must(s.t, err)
	defer log.Close()
	admin := &principal{name: "administrator", log: log}
	s.types(admin, exitDone, s.t.TempDir(), "doctor")
	n := 0
	for _, r := range log.Asked() {
		if strings.HasPrefix(r.Resource, s.stack.Bucket().ARN+"/doctor/") {
			submitter.also = append(submitter.also, r)
			n++
		}
	}
	if n == 0 {
		s.t.Error("doctor has not raced")
	}
}

// clean removes a run that has ended, and a dead letter, as docs/aws.md says: with the
// requests of `aws s3 rm --recursive` and `aws sqs`.
func (s *stage) clean(operator *principal, run string) {
	t := s.t
	t.Helper()
	bucket := s3.NewFromConfig(s.cfg, func(o *s3.Options) {
		o.UsePathStyle, o.BaseEndpoint = true, sdk.String(operator.log.URL("s3"))
	})
	prefix := "jobs/" + run + "/"
	for _, key := range s.keys(bucket, prefix) {
		_, err := bucket.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &s.name, Key: &key})
		must(t, err)
	}
	if left := s.keys(s.s3, prefix); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	dead := s.stack.Queues()[0].Name
	_, err := s.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: sdk.String(s.queue(dead)), MessageBody: sdk.String("{}")})
	must(t, err)
	client := sqs.NewFromConfig(s.cfg, func(o *sqs.Options) { o.BaseEndpoint = sdk.String(operator.log.URL("sqs")) })
	at, err := client.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: &dead})
	must(t, err)
	got, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: at.QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 5})
	must(t, err)
	if len(got.Messages) == 0 {
		t.Fatal("the dead letter is not there")
	}
	_, err = client.DeleteMessageBatch(t.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: at.QueueUrl, Entries: []types.DeleteMessageBatchRequestEntry{{Id: sdk.String("0"), ReceiptHandle: got.Messages[0].ReceiptHandle}}})
	must(t, err)
}

// spare is what a policy allows and nobody here asks for, by role, with the reason.
var spare = map[string]map[string]string{
	infra.Worker: {
		"DrainTasks: sqs:GetQueueAttributes": "AWS refuses to make an event source for a role without it; the mapping of these tests is not made by AWS",
	},
}

// without are a policy's parts, and the policy without each.
func without(p infra.Policy) map[string]infra.Policy {
	out := map[string]infra.Policy{}
	for i, st := range p.Statements {
		leave := func(what string, change func(*infra.Statement)) {
			less := p
			less.Statements = slices.Clone(p.Statements)
			change(&less.Statements[i])
			if st := less.Statements[i]; len(st.Action)*len(st.Resource) == 0 {
				less.Statements = slices.Delete(less.Statements, i, i+1)
			}
			out[st.Sid+": "+what] = less
		}
		for n, a := range st.Action {
			leave(a, func(st *infra.Statement) { st.Action = slices.Delete(slices.Clone(st.Action), n, n+1) })
		}
		for n, r := range st.Resource {
			leave(r, func(st *infra.Statement) { st.Resource = slices.Delete(slices.Clone(st.Resource), n, n+1) })
		}
		for op, keys := range st.Condition {
			for key, values := range keys {
				for n, v := range values {
					if len(values) > 1 {
						leave(key+"="+v, func(st *infra.Statement) {
							st.Condition = maps.Clone(st.Condition)
							st.Condition[op] = map[string]infra.Strings{key: slices.Delete(slices.Clone(values), n, n+1)}
						})
					}
				}
			}
		}
	}
	return out
}

// judge puts what was written down to the policies.
func (s *stage) judge() {
	t := s.t
	t.Helper()
	resources := []infra.Policy{s.stack.Bucket().Policy}
	for _, q := range s.stack.Queues() {
		resources = append(resources, q.Policy)
	}
	logs := map[string][]infra.Request{} // of those who have one role
	for _, p := range s.cast {
		for _, what := range p.log.Strange() {
			t.Errorf("the %s: %s", p.name, what)
		}
		policies := slices.Clone(resources)
		asked := slices.Concat(p.log.Asked(), p.also)
		for _, role := range p.roles {
			policies = append(policies, s.stack.Policy(role))
		}
		if len(p.roles) == 1 {
			logs[p.roles[0]] = append(logs[p.roles[0]], asked...)
		}
		denied := map[string]bool{} // one of a kind says it
		for _, r := range asked {
			d, err := infra.Evaluate(policies, r)
			must(t, err)
			kind := fmt.Sprint(r.Action, " ", filepath.Ext(r.Resource), d.Because)
			if !d.Allowed && !denied[kind] {
				denied[kind] = true
				t.Errorf("the %s asks for %s %v: %s", p.name, r, r.Context, d.Because)
			}
		}
		t.Logf("%-17s %4d different requests: %v", p.name, len(asked), p.log.Calls())
	}
	for _, role := range infra.Roles() {
		p := s.stack.Policy(role)
		seen := map[string]bool{}
		idle := func(what string) {
			what = strings.ReplaceAll(what, s.stack.Bucket().ARN, "bucket")
			if seen[what] {
				return
			}
			if seen[what] = true; spare[role][what] == "" {
				t.Errorf("nobody needs what the %s may: %s", role, what)
			}
		}
		unused, err := infra.Unused(p, logs[role])
		must(t, err)
		for _, i := range unused {
			idle(i.String())
		}
		for what, less := range without(p) { // of two that allow the same, one is too much
			if !slices.ContainsFunc(logs[role], func(r infra.Request) bool { return s.allows(p, r) && !s.allows(less, r) }) {
				idle(what)
			}
		}
		for what := range spare[role] {
			if !seen[what] {
				t.Errorf("the %s needs %s after all: take it off the list", role, what)
			}
		}
	}
}

func (s *stage) allows(p infra.Policy, r infra.Request) bool {
	s.t.Helper()
	if len(p.Statements) == 0 {
		return false
	}
	d, err := infra.Evaluate([]infra.Policy{p}, r)
	must(s.t, err)
	return d.Allowed
}
