//go:build moto

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/aws"
	"hayrick/doctor"
)

// shell runs one command and returns its result, its story and its exit code.
func shell(t *testing.T, dir string, args ...string) (out, story string, code int) {
	t.Helper()
	c := start(t, dir, args...)
	err := <-c.ended
	return c.out.String(), c.errs.String(), codeOf(err)
}

// The life of a store on an emulator of CloudFormation, S3, DynamoDB, SQS, IAM and
// Lambda's API: looked at, made, made again, examined, used, refused, taken down. What moto
// does not have is not shown here: rolling back, taking a bucket over, event sources'
// bounds. Those are tests of decisions and of the protocol.
//
// 002-08
func TestStoresLifeOnMoto(t *testing.T) {
	dir := workspace(t)
	binary := filepath.Join(t.TempDir(), "hayrick")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	name := fmt.Sprintf("hayrick-test-%x", time.Now().UnixNano())
	store := aws.Scheme + name
	up := []string{"-C", store, "infra", "up", "--binary", binary, "--json"}

	// Looked at, or without a yes: nothing is there afterwards.
	for _, c := range []struct {
		more []string
		want int
	}{
		{nil, 2}, {[]string{"--set", "BudgetEmail=a@example.com"}, 2}, {[]string{"--set", "BudgetEmail=a@example.com", "--dry-run"}, 0},
		{[]string{"--set", "BudgetEmail=a@example.com", "--set", "MaxConcurrency=7", "--yes"}, 2}, {[]string{"--yes", "--set", "Colour"}, 2},
	} {
		if _, story, code := shell(t, dir, append(slices.Clone(up), c.more...)...); code != c.want {
			t.Fatalf("%v: exit %d, want %d\n%s", c.more, code, c.want, story)
		}
	}
	ctx := context.Background()
	cfg, err := aws.LoadConfig(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stacks, st := aws.NewStacks(cfg, hayrick.RealWorld("test"), nil), aws.New(cfg, name, hayrick.RealWorld("test"), nil)
	if e, err := stacks.Look(ctx, "hayrick-"+name); e != nil || err != nil {
		t.Fatalf("after looking: %+v %v", e, err)
	}

	// Made, in three steps; made again, with nothing to do.
	yes := append(slices.Clone(up), "--yes", "--set", "BudgetEmail=a@example.com", "--set", "InputBuckets=genomes,crawl.2026")
	out, story, code := shell(t, dir, yes...)
	var report stackReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 || report.Status != "UPDATE_COMPLETE" || len(report.Changes) < 25 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, story)
	}
	e, err := stacks.Look(ctx, "hayrick-"+name)
	if err != nil || e == nil || e.Values["Architecture"] != "x86_64" && e.Values["Architecture"] != "arm64" {
		t.Fatalf("%+v %v", e, err)
	}
	if has, err := st.Data().Has(ctx, e.Values["CodeKey"]); !has || err != nil {
		t.Errorf("the zip is not in the bucket: %v", err)
	}
	report = stackReport{}
	if out, story, code = shell(t, dir, append(slices.Clone(up), "--yes")...); json.Unmarshal([]byte(out), &report) != nil || code != 0 || len(report.Changes) != 0 {
		t.Errorf("once more: exit %d\n%s%s", code, out, story)
	}
	// Examined, as far as moto makes what the template asks for.
	// What moto leaves out of a bucket is no finding: localstack/smoke goes on after doctor.
	out, story, code = shell(t, dir, "-C", store, "doctor", "--json")
	if code != 0 {
		t.Errorf("doctor: exit %d\n%s%s", code, out, story)
	}
	var d diagnosis
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v\n%s%s", err, out, story)
	}
	status := map[string]doctor.Status{}
	for _, l := range d.Lines {
		status[l.Check] = l.Status
	}
	for _, check := range []string{"credentials", "bucket region", "conditional writes", "encryption", "versioning", "table", "worker function", "sweeper function", "event source", "reserved concurrency", "clock", "queue " + aws.NamesOf(name).Tasks} {
		if status[check] != doctor.OK {
			t.Errorf("%s is %s\n%s", check, status[check], out)
		}
	}

	// Another size. moto gives the event source its new bound and leaves what is reserved as
	// it is: the very trap that doctor is there for.
	if out, story, code = shell(t, dir, append(slices.Clone(up), "--yes", "--set", "MaxConcurrency=100")...); code != 0 {
		t.Errorf("another size: exit %d\n%s%s", code, out, story)
	}
	if e, err := stacks.Look(ctx, "hayrick-"+name); err != nil || e.Values["MaxConcurrency"] != "100" || e.Values["BudgetEmail"] != "a@example.com" {
		t.Errorf("%+v %v", e, err)
	}

	// Used, and then not taken down under a run that has not ended.
	if err := os.WriteFile(filepath.Join(dir, "items.jsonl"), []byte("{\"id\":\"a\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	job := "version: 1\nname: tiny\nhandler: {builtin: noop}\ninput: {uri: ./items.jsonl, format: jsonl, key: id, snapshot: copy}\noutput: {uri: \"" + store + "/out/$(run.id)/\"}\n"
	if err := os.WriteFile(filepath.Join(dir, "tiny.yaml"), []byte(job), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, story, code = shell(t, dir, "-C", store, "submit", "tiny.yaml"); code != 0 {
		t.Fatalf("submit: exit %d\n%s", code, story)
	}
	down := []string{"-C", store, "infra", "down", "--yes"}
	if _, story, code = shell(t, dir, down...); code != 7 || !strings.Contains(story, "tiny-") {
		t.Errorf("down under a run: exit %d\n%s", code, story)
	}
	if _, story, code = shell(t, dir, append(slices.Clone(down), "--delete-data", "another")...); code != 2 {
		t.Errorf("a name mistyped: exit %d\n%s", code, story)
	}

	// Taken down, the data kept; then with the data; then again.
	for range 2 {
		if _, story, code = shell(t, dir, append(slices.Clone(down), "--force")...); code != 0 {
			t.Fatalf("down: exit %d\n%s", code, story)
		}
		if there, objects, err := st.Data().State(ctx); !there || !objects || err != nil {
			t.Fatalf("the data is gone: %v %v %v", there, objects, err)
		}
	}
	if e, err := stacks.Look(ctx, "hayrick-"+name); e != nil || err != nil {
		t.Errorf("the stack stays: %+v %v", e, err)
	}
	for range 2 {
		if _, story, code = shell(t, dir, append(slices.Clone(down), "--force", "--delete-data", name)...); code != 0 {
			t.Fatalf("down with the data: exit %d\n%s", code, story)
		}
		if there, _, err := st.Data().State(ctx); there || err != nil {
			t.Fatalf("the bucket stays: %v", err)
		}
	}
	if _, err := st.Jobs(ctx); !errors.As(err, new(*hayrick.UserError)) {
		t.Errorf("a store that is gone: %v", err)
	}
}
