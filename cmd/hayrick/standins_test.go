//go:build standins

package main

import (
	"slices"
	"testing"

	"hayrick/internal/standins"
)

// demoArgs run the demo with fewer accounts: about six seconds undisturbed.
var demoArgs = []string{
	"run", "jobs/backfill", "--profile", "demo", "--json", "-q",
	"--set", "handler.params.demo.accounts=300", "--set", "batch.items=20", "--set", "retry.backoff.initial=50ms",
}

// calm is how the demo ends on this machine, undisturbed.
func calm(t *testing.T) finished {
	t.Helper()
	c := start(t, workspace(t), demoArgs...)
	return c.result(t, <-c.ended)
}

// The same job file on S3, DynamoDB and SQS: the rows of a run on this machine's own
// store, and the audit proves them.
//
// 002-08
func TestDemoOnStandIns(t *testing.T) {
	t.Parallel()
	store := "s3://" + standins.Store(t, standins.Config(t))
	want := calm(t)
	dir := workspace(t)
	args := append(slices.Clone(demoArgs), "-C", store, "--set", "output.uri="+store+"/out/$(run.id)/")
	c := start(t, dir, args...)
	if got := c.result(t, <-c.ended); got != want {
		t.Errorf("on the stand-ins %+v, here %+v", got, want)
	}
	audit := start(t, dir, "-C", store, "audit", "--deep", "@")
	if err := <-audit.ended; err != nil {
		t.Errorf("audit: %v\n%s%s", err, audit.out.String(), audit.errs.String())
	}
}
