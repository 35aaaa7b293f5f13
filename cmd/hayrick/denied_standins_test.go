//go:build standins

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"hayrick/infra"
	"hayrick/internal/standins"
	"hayrick/internal/wirelog"
)

// On AWS an input that a worker may not read is its run's trouble alone, said once with the
// right, the object and what to do; what is refused of the table or the queue ends the
// worker. Nobody who is refused at the submission has made anything.
func TestDeniedOnStandIns(t *testing.T) {
	t.Parallel() // it mostly waits
	cfg := standins.Config(t)
	store := standins.Store(t, cfg)
	theirs := store + "-theirs"
	client := standins.S3(cfg)
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &theirs}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for bucket, key := range map[string]string{store: "in/a.jsonl", theirs: "a.jsonl"} {
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("{\"id\":\"a\"}\n{\"id\":\"b\"}\n")}); err != nil {
			t.Fatal(err)
		}
	}
	for name, uri := range map[string]string{"ours": "s3://" + store + "/in/a.jsonl", "theirs": "s3://" + theirs + "/a.jsonl"} {
		text := "version: 1\nname: " + name + "\nhandler: {builtin: noop, params: {rows: 1}}\ninput: {uri: \"" + uri + "\"}\noutput: {uri: \"s3://" + store + "/out/$(run.id)/\"}\n"
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	log, err := wirelog.Start(cfg.Region)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	hayrick := func(args ...string) (code int, out, errs string) {
		t.Helper()
		c := startWith(t, log.Env(), dir, append([]string{"-C", "s3://" + store}, args...)...)
		err := <-c.ended
		return codeOf(err), c.out.String(), c.errs.String()
	}
	deny := func(action, resource string) {
		log.Deny(func(r infra.Request) bool { return r.Action == action && strings.HasPrefix(r.Resource, resource) })
	}
	allow := func() { log.Deny(func(infra.Request) bool { return false }) }
	submit := func(name, id string) {
		t.Helper()
		if code, _, errs := hayrick("submit", name+".yaml", "--job-id", id); code != exitDone {
			t.Fatalf("submit %s: exit %d\n%s", id, code, errs)
		}
	}
	status := func(id, want string) {
		t.Helper()
		if _, out, errs := hayrick("status", id, "--json"); !strings.Contains(out, `"status":"`+want+`"`) {
			t.Errorf("%s is not %s: %s%s", id, want, out, errs)
		}
	}

	deny("s3:GetObject", "arn:aws:s3:::"+theirs+"/")
	code, _, errs := hayrick("run", "theirs.yaml", "--job-id", "never")
	if code != exitPermission || !strings.Contains(errs, "error: AWS refuses s3:GetObject on s3://"+theirs+"/a.jsonl\n") || !strings.Contains(errs, "InputBuckets="+theirs) || strings.Count(errs, "\n") > 4 {
		t.Errorf("submitted: exit %d\n%s", code, errs)
	}
	if code, _, errs := hayrick("status", "never"); code != exitNotFound {
		t.Errorf("a run exists: exit %d\n%s", code, errs)
	}

	allow()
	submit("theirs", "a-theirs")
	submit("ours", "b-ours")
	deny("s3:GetObject", "arn:aws:s3:::"+theirs+"/")
	code, _, errs = hayrick("worker")
	if code != exitPermission || strings.Count(errs, "a-theirs is left alone: AWS refuses s3:GetObject on s3://"+theirs+"/a.jsonl") != 1 ||
		strings.Count(errs, "InputBuckets="+theirs) != 1 || strings.Contains(errs, "tried again") {
		t.Errorf("an input is refused: exit %d\n%s", code, errs)
	}
	status("b-ours", "SUCCEEDED")
	status("a-theirs", "RUNNING")

	for action, what := range map[string]string{"dynamodb:PutItem": "the table " + store, "sqs:ReceiveMessage": "the queue " + store + "-tasks"} {
		deny(action, "arn:aws:")
		code, _, errs := hayrick("worker")
		if code != exitPermission || !strings.Contains(errs, "AWS refuses "+action+" on "+what+"\n") || strings.Contains(errs, "left alone") || !strings.Contains(errs, "docs/aws.md") {
			t.Errorf("the store refuses %s: exit %d\n%s", action, code, errs)
		}
	}
	allow()
	if code, _, errs := hayrick("worker"); code != exitDone {
		t.Errorf("allowed: exit %d\n%s", code, errs)
	}
	status("a-theirs", "SUCCEEDED")
}
