package aggregator_test

import (
	"bytes"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/local"
	"hayrick/manifest"
)

func TestZZ(t *testing.T) {
	for _, tasks := range []int{9_000, 11_000} {
	var ts []task
	for i := range tasks {
		ts = append(ts, one(row("task", i, "text", strings.Repeat("x", 50))))
	}
	j := build(t, shape{refs: true, def: func(d *hayrick.JobDefinition) { d.Merge.FanIn, d.Merge.ByCount = 10, true; d.Output.URI = t.TempDir() + "/out/" }}, ts)
	w := hayrick.RealWorld("p")
	st, err := local.Open(t.Context(), t.TempDir(), w, slog.New(slog.DiscardHandler))
	j.must(err)
	for k, b := range j.mem.Snapshot() {
		j.must(st.Put(t.Context(), k, bytes.NewReader(b)))
	}
	scratch := t.TempDir()
	a := &aggregator.Aggregator{Store: &manifest.Store{Objects: st, Clock: w.Clock}, State: st, Queue: st, Blobs: st, Output: st, World: w, Log: slog.New(slog.DiscardHandler),
		Temp: func() (manifest.Temp, error) {
			f, err := os.CreateTemp(scratch, "x")
			if err == nil {
				os.Remove(f.Name())
			}
			return f, err
		}}
	begin := time.Now()
	j.must(a.Advance(t.Context(), jobID, 0))
	t.Logf("%d: planned in %v", tasks, time.Since(begin))
	begin = time.Now()
	n := 0
	for {
		ds, err := st.Receive(t.Context(), hayrick.QueueTasks, 10, time.Minute, 0)
		j.must(err)
		if len(ds) == 0 {
			break
		}
		for _, d := range ds {
			if d.TaskID == "" {
				t.Logf("%d merges in %v", n, time.Since(begin))
				begin = time.Now()
			}
			v, err := a.Do(t.Context(), d)
			if !v.Ack || err != nil {
				t.Fatal(v, err)
			}
			n++
		}
		j.must(st.Ack(t.Context(), hayrick.QueueTasks, ds...))
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("root in %v; %d MB sys", time.Since(begin), m.Sys>>20)
	o, _, err := a.Store.Outcome(t.Context(), jobID, 0)
	t.Log(o.Status, o.RowCount, err)
	st.Close()
	}
}
