//go:build standins

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"hayrick/internal/standins"
	"hayrick/internal/wirecount"
)

// The job file of a store on AWS runs on one on this machine: inputs in S3 are pinned,
// read by workers of this and of other processes, and audited. An input of this machine
// asks nothing of AWS and needs nothing of its configuration; one in S3 says what it
// misses, and is the trouble of its run alone.
func TestInputsOfThisMachinesStoreOnStandIns(t *testing.T) {
	t.Parallel() // it mostly waits
	cfg := standins.Config(t)
	bucket := standins.Store(t, cfg)
	client := standins.S3(cfg)
	if _, err := client.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	}); err != nil {
		t.Fatal(err)
	}
	put := func(key, text string) {
		t.Helper()
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(text)}); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	var all strings.Builder
	for i := range 4 {
		text := ""
		for n := range 5 {
			text += fmt.Sprintf("{\"id\":\"i%d\",\"rows\":%d,\"fail_until\":%d,\"permanent\":%t}\n", 5*i+n, 1+n%3, 1+n/4, n == 3)
		}
		put(fmt.Sprintf("in/%d.jsonl", i), text)
		all.WriteString(text)
	}
	put("all.jsonl", all.String())
	for file, text := range map[string]string{"items.jsonl": all.String(), "job.yaml": `
version: 1
name: inputs
handler: {builtin: fickle}
input: {uri: ./items.jsonl, key: id}
batch: {items: 4}
retry: {passes: 2, in_task: {attempts: 1}, backoff: {initial: 50ms, max: 50ms}}
`} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	meter, err := wirecount.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meter.Close)
	proxied := os.Environ()
	for name, at := range meter.Env() {
		proxied = append(proxied, name+"="+at)
	}
	var without []string // what is set of AWS
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AWS_") {
			without = append(without, v)
		}
	}
	without = append(without, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true")
	hayrick := func(env []string, args ...string) *child {
		t.Helper()
		c := &child{cmd: process(t, dir, args...), ended: make(chan error, 1)}
		c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = env, &c.out, &c.errs
		c.ended <- c.cmd.Run()
		return c
	}
	run := func(env []string, args ...string) finished {
		t.Helper()
		c := hayrick(env, append([]string{"run", "job.yaml", "--new", "--json", "-q"}, args...)...)
		return c.result(t, <-c.ended)
	}
	requests := func() (n int64) {
		for _, calls := range meter.Counts() {
			n += calls
		}
		return n
	}
	folder, object := "input.uri=s3://"+bucket+"/in/", "input.uri=s3://"+bucket+"/all.jsonl"

	want := run(proxied)
	if n := requests(); n != 0 {
		t.Errorf("an input of this machine takes %d requests of AWS: %v", n, meter.Counts())
	}
	if got := run(without); got != want {
		t.Errorf("without any configuration %+v, want %+v", got, want)
	}
	if got := run(proxied, "--set", object); got != want {
		t.Errorf("an object: %+v, want %+v", got, want)
	}
	counts := meter.Counts()
	if counts["s3.GetObject"] == 0 || counts["s3.PutObject"] != 0 || counts["dynamodb.PutItem"] != 0 || counts["sqs.SendMessageBatch"] != 0 {
		t.Errorf("asked of AWS: %v", counts)
	}
	if got := run(proxied, "--set", object, "--set", "input.snapshot=copy"); got != want {
		t.Errorf("copied: %+v, want %+v", got, want)
	}
	if got := run(proxied, "--set", folder); got != want {
		t.Errorf("a folder: %+v, want %+v", got, want)
	}
	for _, args := range [][]string{{"audit", "--deep", "@"}, {"inspect", "--item", "i19"}, {"plan", "job.yaml", "--new", "--set", folder}} {
		if c := hayrick(proxied, args...); codeOf(<-c.ended) != exitDone {
			t.Errorf("%v: %s%s", args, c.out.String(), c.errs.String())
		} else if args[0] == "plan" && !strings.Contains(c.out.String(), "S3 bills the reading of the input") {
			t.Error(c.out.String())
		}
	}

	// Another process works on it, and reads the versions that were pinned.
	submit := func(id, set string) {
		t.Helper()
		if c := hayrick(proxied, "submit", "job.yaml", "--job-id", id, "--set", set); codeOf(<-c.ended) != exitDone {
			t.Fatalf("submit %s: %s", id, c.errs.String())
		}
	}
	status := func(id, want string) {
		t.Helper()
		if c := hayrick(without, "status", id, "--json"); !strings.Contains(c.out.String(), `"status":"`+want+`"`) {
			t.Errorf("%s is not %s: %s%s", id, want, c.out.String(), c.errs.String())
		}
	}
	submit("a-there", folder)
	submit("b-here", "batch.items=4")
	put("in/2.jsonl", "{\"id\":\"other\",\"rows\":9}\n")
	c := hayrick(without, "worker")
	if code := codeOf(<-c.ended); code != exitPermission || strings.Count(c.errs.String(), "a-there is left alone: the input s3://"+bucket+"/in/") != 1 || !strings.Contains(c.errs.String(), "no AWS region is set") || !strings.Contains(c.errs.String(), "set AWS_REGION") {
		t.Errorf("a worker without a region: exit %d\n%s", code, c.errs.String())
	}
	status("b-here", "SUCCEEDED")
	if c := hayrick(proxied, "worker"); codeOf(<-c.ended) != exitDone {
		t.Error(c.errs.String())
	}
	c = hayrick(proxied, "resume", "a-there", "--json", "-q")
	if got := c.result(t, <-c.ended); got != want {
		t.Errorf("by another process: %+v, want %+v", got, want)
	}

	// What is missing is said, and nothing is there afterwards.
	for says, env := range map[string][]string{
		"no AWS region is set":                without,
		"there are no AWS credentials":        append(without[:len(without):len(without)], "AWS_REGION=eu-central-1"),
		"AWS does not take these credentials": append(os.Environ(), "AWS_SECRET_ACCESS_KEY=another"),
	} {
		c := hayrick(env, "run", "job.yaml", "--job-id", "never", "--set", folder)
		if code := codeOf(<-c.ended); code != exitPermission || !strings.Contains(c.errs.String(), "error: the input s3://"+bucket+"/in/ cannot be read: "+says) || !strings.Contains(c.errs.String(), "hint: ") {
			t.Errorf("%s: exit %d\n%s", says, code, c.errs.String())
		}
	}
	if c := hayrick(without, "status", "never"); codeOf(<-c.ended) != exitNotFound {
		t.Error("a run exists without its input")
	}
}
