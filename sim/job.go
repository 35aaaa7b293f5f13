package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"hayrick"
	"hayrick/jobs"
	"hayrick/manifest"
)

// Scripted is a handler whose outcomes are a function of the item, which says them, and
// the try: so the end of a job does not depend on what happens to its processes.
type Scripted struct{}

// Handle emits an item's rows, and ends it as it says.
func (Scripted) Handle(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	var rec struct {
		ID        string `json:"id"`
		Rows      int    `json:"rows"`
		FailUntil int    `json:"fail_until"`
		Permanent bool   `json:"permanent"`
	}
	if err := json.Unmarshal(it.Data, &rec); err != nil {
		return jobs.Fail("bad_item", "%v", err)
	}
	for i := range rec.Rows {
		if err := emit(jobs.Row{{Name: "id", Value: rec.ID}, {Name: "n", Value: int64(i)}}); err != nil {
			return jobs.Fail("emit", "%v", err)
		}
	}
	switch {
	case rec.Permanent:
		return jobs.Outcome{Class: "gone", Disposition: hayrick.Permanent, Message: "gone"}
	case it.Try < rec.FailUntil:
		return jobs.Fail("busy", "try %d", it.Try)
	}
	return jobs.OK()
}

// Definition is a job of batches of two items, whose handler is registered under the
// job's name.
func Definition(name, input, output string) hayrick.JobDefinition {
	return hayrick.JobDefinition{
		Version: 1, Name: name, Handler: hayrick.Handler{Builtin: name},
		Input: hayrick.Input{URI: input, Format: "jsonl", Key: "id", OnBadItem: "fail", Snapshot: "auto"},
		Batch: hayrick.Batches{Items: 2},
		Run: hayrick.Run{
			MaxParallel: 1, ItemsInFlight: 1, TaskTimeout: hayrick.Duration(time.Hour), ItemTimeout: hayrick.Duration(time.Minute),
			Lease: hayrick.Duration(time.Minute),
		},
		Retry: hayrick.Retry{
			InTask: hayrick.InTask{Attempts: 1}, Passes: 2,
			Backoff: hayrick.Backoff{Initial: hayrick.Duration(time.Second), Max: hayrick.Duration(time.Minute)},
			Lists:   map[string]string{"gone": "gone_ids"},
		},
		Output: hayrick.Output{URI: output, Format: "parquet", Compression: "zstd", IfExists: "error"},
		Merge:  hayrick.Merge{FanIn: 10, TargetRows: 122880, TargetBytes: 64 << 20, RowGroup: 122880},
	}
}

// Gist is what two runs of a job must agree on, whatever happened to them.
func Gist(o manifest.Outcome) string {
	if o.Aggregation == nil {
		return fmt.Sprintf("%s %s", o.Status, o.Message)
	}
	lists := ""
	for _, l := range o.Aggregation.Lists {
		lists += fmt.Sprintf(" %s=%d", l.Name, l.Count)
	}
	return fmt.Sprintf("%s items=%d ok=%d permanent=%d exhausted=%d unfinished=%d rows=%d hash=%s%s",
		o.Status, o.Items, o.OK, o.Permanent, o.Exhausted, o.Unfinished, o.RowCount, o.RowHash, lists)
}
