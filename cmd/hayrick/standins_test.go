//go:build standins

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hayrick/internal/standins"
)

// The same job on S3, DynamoDB and SQS: the rows of a run on this machine's own store,
// and the audit proves them.
//
// 002-08
func TestDemoOnStandIns(t *testing.T) {
	store := "s3://" + standins.Store(t, standins.Config(t))
	want := calm(t)
	dir := workspace(t)
	// The clocks of several machines ask for larger bursts than that of one.
	file := filepath.Join(dir, "jobs/backfill/config.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	larger := strings.NewReplacer("60/s, burst: 10,", "60/s, burst: 136,", "500/s, burst: 100,", "500/s, burst: 1126,").Replace(string(text))
	if err := os.WriteFile(file, []byte(larger), 0o644); err != nil {
		t.Fatal(err)
	}
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
