//go:build standins

package main

import (
	"slices"
	"testing"

	"hayrick/internal/standins"
)

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
