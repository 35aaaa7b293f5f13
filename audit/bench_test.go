package audit_test

import (
	"flag"
	"runtime"
	"testing"

	"hayrick"
	"hayrick/audit"
)

var benchTasks = flag.Int("tasks", 2000, "tasks of the benchmark's job")

// BenchmarkAudit reports the memory that an audit holds beside the store, and tasks a
// second.
func BenchmarkAudit(b *testing.B) {
	w := build(b, story{items: 4 * *benchTasks, batch: 4, passes: 1, fanIn: 100, parts: 1, refs: true, fate: func(o int64, group int) fate {
		if o%50 == 0 && group == 0 {
			return fate{class: "timeout", disp: hayrick.Timeout}
		}
		return fate{rows: 1}
	}})
	var before, now runtime.MemStats
	for range 3 { // pools empty themselves over two
		runtime.GC()
	}
	runtime.ReadMemStats(&before)
	var most uint64
	o := w.options()
	o.Inputs = nil
	o.Progress = func(p audit.Progress) {
		if p.Done%1024 == 0 || p.Stage != "initial_batch" {
			runtime.GC() // what is left is held
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc-min(now.HeapAlloc, before.HeapAlloc))
		}
	}
	if _, err := audit.Run(b.Context(), o); err != nil {
		b.Fatal(err)
	}
	o.Progress = nil
	for b.Loop() {
		r, err := audit.Run(b.Context(), o)
		if err != nil || !r.Proven {
			b.Fatal(err, r.Line)
		}
	}
	runtime.KeepAlive(w) // its rows would make room otherwise
	b.ReportMetric(float64(most)/(1<<20), "MiB-held")
	b.ReportMetric(float64(*benchTasks)*float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}
