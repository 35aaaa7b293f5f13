package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hayrick"
)

// An item that no function lives long enough for is refused where functions are meant
// to work on it, and nowhere else.
func TestItemsThatOutliveFunctions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "job.yaml")
	text := "version: 1\nname: long\nhandler: {builtin: noop}\ninput: {uri: ./items.jsonl}\nrun: {task_timeout: 1h, item_timeout: 15m}\noutput: {uri: s3://lab/out/}\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		store, set string
		detach     bool
		want       string
	}{
		{"s3://lab", "", true, path + ":5:39: run.item_timeout: 15m, and no function of AWS lives longer than 15m0s"},
		{"s3://lab", "run.item_timeout=14m59s", true, ""},
		{"s3://lab", "", false, ""},
		{".hayrick", "output.uri=./out/", true, ""},
	} {
		c := &cli{environment: environment{err: io.Discard, get: func(string) string { return "" }}, storeDir: x.store, storeNamed: true,
			world: hayrick.RealWorld("test"), log: slog.New(slog.DiscardHandler)}
		o := submitOptions{job: path, detach: x.detach}
		if x.set != "" {
			o.sets = []string{x.set}
		}
		_, _, err := c.load(t.Context(), o)
		if got := ""; x.want == "" && err != nil || x.want != "" && (err == nil || !strings.HasPrefix(err.Error(), x.want)) {
			if err != nil {
				got = err.Error()
			}
			t.Errorf("%s, --detach %v, %s: %q, want %q", x.store, x.detach, x.set, got, x.want)
		}
	}
}
