package manifest

import (
	"bytes"
	"encoding/json"
	"slices"
)

// SchemaAggregationPlan is the schema of AggregationPlan.
const SchemaAggregationPlan = "hayrick.aggregationplan/v1"

// AggregationPlan pins a merge before any of it is done: what is merged, under
// which schema, and in which tree.
type AggregationPlan struct {
	Schema      string          `json:"schema"`
	JobID       string          `json:"job_id"`
	Generation  int             `json:"generation"`
	Predecessor Link            `json:"predecessor"` // the retry plan that said aggregation
	Orders      int             `json:"orders"`
	Columns     json.RawMessage `json:"columns"` // the unified schema, as internal/rows writes it
	Tree        Tree            `json:"tree"`
	OK          int64           `json:"ok"` // items that ended ok, over all tasks
	Rows        int64           `json:"rows"`
	RowHash     string          `json:"row_hash"`
	Inputs      []MergeInput    `json:"inputs,omitempty"` // of all tasks in order, also those without rows
	InputsRef   *Ref            `json:"inputs_ref,omitempty"`
	Group       *Group          `json:"group,omitempty"`  // level-1 merges; nil when there are no rows
	Unique      *Unique         `json:"unique,omitempty"` // output.unique_by
	Ranges      *Group          `json:"ranges,omitempty"` // with Unique: a merge a range of keys, over all merges of level 1
	PlannedAt   Time            `json:"planned_at"`
}

// Unique is how rows of one key are told apart and dropped. The n-th merge of Ranges
// takes the keys from Bounds[n-1] up to, not including, Bounds[n]; the first and the
// last have no bound there. Keys are byte strings as internal/rows makes them.
type Unique struct {
	Columns []string `json:"columns"`
	Keep    string   `json:"keep"`
	Bounds  [][]byte `json:"bounds,omitempty"`
}

// Range is the n-th range of keys; nil is no bound.
func (u *Unique) Range(n int64) (lo, hi []byte, ok bool) {
	if n < 0 || n > int64(len(u.Bounds)) {
		return nil, nil, false
	}
	if n > 0 {
		lo = u.Bounds[n-1]
	}
	if n < int64(len(u.Bounds)) {
		hi = u.Bounds[n]
	}
	return lo, hi, true
}

// Tree is the shape of the merge: Nodes[i] is the number of nodes of level i+1;
// level 1 decodes, the levels above it copy row groups.
type Tree struct {
	FanIn int     `json:"fan_in"`
	Nodes []int64 `json:"nodes"`
}

// MergeInput is one task's result as the plan pins it.
type MergeInput struct {
	TaskID     string `json:"task_id"`
	BatchID    string `json:"batch_id"`
	DoneSHA256 string `json:"done_sha256"` // of its results.done
	File       string `json:"file,omitempty"`
	SHA256     string `json:"sha256,omitempty"`
	Bytes      int64  `json:"bytes"`
	Rows       int64  `json:"rows"`
	RowHash    string `json:"row_hash"`
}

// SchemaAggregation is the schema of Aggregation.
const SchemaAggregation = "hayrick.aggregation/v1"

// Aggregation is the seed's aggregation manifest; the outcome embeds it and a view
// repeats it.
type Aggregation struct {
	Schema           string           `json:"schema"`
	JobID            string           `json:"job_id"`
	Phase            string           `json:"phase"`
	InputFiles       []string         `json:"input_files,omitempty"` // left out past InlineList: the plan's inputs_ref has them
	InputFileCount   int64            `json:"input_file_count"`
	OutputFile       *string          `json:"output_file"` // the first part; nil when there are no rows
	OutputHash       string           `json:"output_hash"` // SHA-256 over the ordered source SHA-256s and the footer
	TotalRows        int64            `json:"total_rows"`
	RowCountsByBatch map[string]int64 `json:"row_counts_by_batch,omitempty"`
	Parts            []Part           `json:"parts"`
	Lists            []List           `json:"lists"`
	DroppedRows      int64            `json:"dropped_rows"`
	WrittenAt        Time             `json:"written_at"`
}

// Part is one file of the output.
type Part struct {
	Name    string `json:"name"` // as published
	Key     string `json:"key"`
	SHA256  string `json:"sha256,omitempty"` // "" where the store joined it by itself: nobody read it
	Bytes   int64  `json:"bytes"`
	Rows    int64  `json:"rows"`
	RowHash string `json:"row_hash"`
}

// List is one published list of items.
type List struct {
	Name   string `json:"name"`
	Key    string `json:"key"`
	SHA256 string `json:"sha256"`
	Count  int64  `json:"count"`
}

// SchemaOutcome is the schema of Outcome.
const SchemaOutcome = "hayrick.outcome/v1"

// Codes of a FAILED outcome.
const (
	CodeNothingToMerge = "nothing_to_merge" // results cannot be merged: schemas that do not unify, three failed merges
	CodeOutputRefused  = "output_refused"   // the output folder holds what this run did not write
	CodeBudget         = "budget"
	CodePartition      = "partition"     // output.partition_by makes too many folders, or names that no folder can have
	CodeDuplicateKey   = "duplicate_key" // two rows have one key of output.unique_by, and output.keep is error
)

// Outcome is the one end of a generation. Chain holds the SHA-256 of its plans and
// of every control order they applied, by key.
type Outcome struct {
	Schema      string            `json:"schema"`
	JobID       string            `json:"job_id"`
	Generation  int               `json:"generation"`
	Status      string            `json:"status"`
	Code        string            `json:"code,omitempty"`
	Message     string            `json:"message,omitempty"`
	Items       int64             `json:"items"`
	OK          int64             `json:"ok"`
	Permanent   int64             `json:"permanent"`
	Exhausted   int64             `json:"exhausted"`
	Unfinished  int64             `json:"unfinished"`
	RowCount    int64             `json:"row_count"`
	RowHash     string            `json:"row_hash"`
	DroppedRows int64             `json:"dropped_rows"`
	DroppedHash string            `json:"dropped_hash"`
	Chain       map[string]string `json:"chain"`
	Aggregation *Aggregation      `json:"aggregation,omitempty"`
	EndedAt     Time              `json:"ended_at"`
	SelfSHA256  string            `json:"self_sha256"`
}

// Seal returns the canonical bytes of o with its own digest filled in: the SHA-256
// of the same bytes with self_sha256 "".
func (o Outcome) Seal() ([]byte, error) { return Seal(o) }

// OpenOutcome reads an outcome and checks its own digest.
func OpenOutcome(b []byte) (Outcome, error) {
	var o Outcome
	if err := Decode(b, SchemaOutcome, &o); err != nil {
		return o, err
	}
	// Decode has compared a digest that stands where Seal puts it; JSON finds others too.
	if o.SelfSHA256 == "" || !bytes.Contains(b, slices.Concat(sealed, []byte(o.SelfSHA256+`"`))) {
		return o, corrupt("outcome-%d.json of %s carries no digest", o.Generation, o.JobID)
	}
	return o, nil
}
