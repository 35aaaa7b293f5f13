package manifest

import (
	"encoding/json"

	"hayrick"
)

// SchemaResult is the schema of Result.
const SchemaResult = "hayrick.result/v1"

// Result is a results.done: the commit of one task. DONE accounts for every item
// of the batch, items = ok + failed. FAILED has no rows: the batch as a whole
// could not run, and Error says why.
type Result struct {
	Schema       string      `json:"schema"`
	JobID        string      `json:"job_id"`
	TaskID       string      `json:"task_id"`
	BatchID      *string     `json:"batch_id"` // nil for an aggregator task
	Generation   int         `json:"generation"`
	Status       string      `json:"status"`
	Attempt      string      `json:"attempt"`
	Fence        int64       `json:"fence"`
	File         *string     `json:"file"` // nil when there are no rows
	SHA256       string      `json:"sha256,omitempty"`
	Bytes        int64       `json:"bytes"`
	RowCount     int64       `json:"row_count"`
	RowHash      string      `json:"row_hash"`
	Files        []RowFile   `json:"files,omitempty"` // of a merge whose rows are not one Parquet file
	SchemaDigest string      `json:"schema_digest,omitempty"`
	KeySamples   [][]byte    `json:"key_samples,omitempty"`  // with output.unique_by, of a worker: keys of some rows
	IndexSHA256  string      `json:"index_sha256,omitempty"` // of a merge whose File is a run of sorted rows: of its index
	Failures     *Failures   `json:"failures,omitempty"`
	Log          *LogFile    `json:"log,omitempty"` // nil when the handler wrote nothing
	Items        int         `json:"items"`
	OK           int         `json:"ok"`
	Failed       int         `json:"failed"`
	BatchSHA256  string      `json:"batch_sha256,omitempty"`
	Inputs       []InputFile `json:"inputs,omitempty"` // an aggregator task: what it merged
	DroppedRows  int64       `json:"dropped_rows"`
	DroppedHash  string      `json:"dropped_hash"`
	CodeVersion  string      `json:"code_version"`
	WrittenAt    Time        `json:"written_at"`
	Task         TaskFields  `json:"task"`
}

// RowFile is one of several files of rows of a merge: of a partition, in any format.
type RowFile struct {
	Partition string `json:"partition,omitempty"` // its folder: day=2026-11-20/kind=x
	File      string `json:"file"`
	SHA256    string `json:"sha256"`
	Bytes     int64  `json:"bytes"`
	Head      int64  `json:"head,omitempty"` // of CSV the line of names, left out behind another file
	Rows      int64  `json:"rows"`
	RowHash   string `json:"row_hash"`
}

// Failures names the list of failed items of an attempt.
type Failures struct {
	File    string           `json:"file"`
	SHA256  string           `json:"sha256"`
	Count   int              `json:"count"`
	ByClass map[string]int64 `json:"by_class"`
}

// LogFile names the log of an attempt: lines of LogLine.
type LogFile struct {
	File    string `json:"file"`
	SHA256  string `json:"sha256"`
	Bytes   int64  `json:"bytes"`
	Lines   int64  `json:"lines"`   // that were written
	Dropped int64  `json:"dropped"` // of these, left out between the beginning and the end
}

// LogLine is one line that a handler wrote: to its stderr, or by jobs.Host.Log.
type LogLine struct {
	At      Time            `json:"at,omitzero"`
	Child   int             `json:"child,omitempty"`   // which of the worker's processes; 0 = a Go handler
	Items   []int64         `json:"items,omitempty"`   // ordinals of the items it had in hand
	Text    string          `json:"text,omitempty"`    // the line
	Log     json.RawMessage `json:"log,omitempty"`     // instead of text: a line that was JSON itself
	Dropped int64           `json:"dropped,omitempty"` // instead of both: so many lines are left out here
}

// InputFile is one file that a merge read.
type InputFile struct {
	Key    string `json:"key"`
	SHA256 string `json:"sha256"`
	Rows   int64  `json:"rows"`
}

// TaskFields is all of the task manifest that the result does not say itself.
type TaskFields struct {
	Role       string           `json:"role"`
	Phase      string           `json:"phase"`
	Group      string           `json:"group"`
	Worker     string           `json:"worker"`
	Input      string           `json:"input"`       // object and range
	OutputFile string           `json:"output_file"` // the journal's path, "" when none was made
	StartTime  Time             `json:"start_time"`
	EndTime    Time             `json:"end_time"`
	Retries    int64            `json:"retries"` // attempts before this one
	Metrics    map[string]int64 `json:"metrics"`
	Error      *TaskError       `json:"error"`
}

// TaskError is why a batch as a whole could not run.
type TaskError struct {
	Class   string `json:"class"`
	Message string `json:"message"`
}

// FailureLine is one line of a failures file: an item that did not end ok in this
// task.
type FailureLine struct {
	Ordinal      int64  `json:"ordinal"`
	Key          string `json:"key"`
	Class        string `json:"class"`
	Disposition  string `json:"disposition"`
	Message      string `json:"message"`
	Tries        int    `json:"tries"`  // of the item so far, over all its tasks
	Losses       int    `json:"losses"` // workers that vanished with it in hand, likewise
	RetryAfterMS int64  `json:"retry_after_ms"`
	Detail       string `json:"detail,omitempty"` // the last of its handler's stderr, where its process ended
}

// SchemaTask is the schema of TaskManifest.
const SchemaTask = "hayrick.task/v1"

// TaskManifest is the seed's task manifest, a view of a Result.
type TaskManifest struct {
	Schema     string           `json:"schema"`
	Type       string           `json:"type"` // worker | system
	JobID      string           `json:"job_id"`
	TaskID     string           `json:"task_id"`
	BatchID    *string          `json:"batch_id"`
	Role       string           `json:"role"`
	Phase      string           `json:"phase"`
	Group      string           `json:"group"`
	InputS3    string           `json:"input_s3"`
	OutputFile string           `json:"output_file"`
	Status     string           `json:"status"` // SUCCESS | PARTIAL | FAILED
	Retries    int64            `json:"retries"`
	StartTime  Time             `json:"start_time"`
	EndTime    Time             `json:"end_time"`
	Metrics    map[string]int64 `json:"metrics"`
	Error      *TaskError       `json:"error"`
}

// TaskView derives the task manifest from the result.
func TaskView(r Result) TaskManifest {
	m := TaskManifest{
		Schema: SchemaTask, Type: "worker", JobID: r.JobID, TaskID: r.TaskID, BatchID: r.BatchID,
		Role: r.Task.Role, Phase: r.Task.Phase, Group: r.Task.Group, InputS3: r.Task.Input,
		OutputFile: r.Task.OutputFile, Status: "SUCCESS", Retries: r.Task.Retries,
		StartTime: r.Task.StartTime, EndTime: r.Task.EndTime, Metrics: r.Task.Metrics, Error: r.Task.Error,
	}
	if r.Task.Role != string(hayrick.RoleWorker) {
		m.Type = "system"
	}
	switch {
	case r.Status == string(hayrick.TaskFailed):
		m.Status = "FAILED"
	case r.Failed > 0:
		m.Status = "PARTIAL"
	}
	return m
}
