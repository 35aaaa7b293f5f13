package audit

import (
	"fmt"

	"hayrick"
)

// Schema is the schema of a Report.
const Schema = "hayrick.audit/v1"

// Severity says what a finding means for the dataset.
type Severity string

// The severities, worst first.
const (
	// Broken: a commit, or data that one names, is not what it has to be. The promise
	// is not proven.
	Broken Severity = "broken"
	// View: something derived is missing or differs: a crash between a commit and its
	// view leaves that out. It can be derived again, and no row depends on it.
	View Severity = "view"
	// Stranger: an object that no commit names and no crash explains.
	Stranger Severity = "stranger"
	// Leftover: what an attempt, planner or submission left behind that crashed or came
	// second. It is in nobody's way.
	Leftover Severity = "leftover"
)

// Codes of findings. docs/audit.md has the invariant behind each.
const (
	CodeMissing   = "missing"   // a commit names it, and it is not there
	CodeDigest    = "digest"    // its bytes do not have the SHA-256 or size that vouches for them
	CodeForm      = "form"      // its bytes cannot be read, or speak of another unit
	CodeKey       = "key"       // it is named under a key that its content does not lead to
	CodeUnvouched = "unvouched" // a commit that no digest of a finished job covers
	CodeChain     = "chain"     // plans, orders and groups do not follow from each other
	CodeBatch     = "batch"     // batches do not cover the items once, in order
	CodeTask      = "task"      // a result is not of its task and batch
	CodeItem      = "item"      // an item does not end exactly once, or two records tell its end differently
	CodeTotal     = "total"     // a stored total is not the recomputed one
	CodeRows      = "rows"      // rows or row hashes are not conserved, or not what the file holds
	CodePublished = "published" // a published file is not the committed one

	CodeView     = "view"
	CodeStranger = "stranger"
	CodeLeftover = "leftover"
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"`
	// Key is the object: relative to the job's folder, or a path in the output folder.
	Key  string `json:"key"`
	What string `json:"what"`
}

func (f Finding) String() string {
	if f.Code == string(f.Severity) {
		return fmt.Sprintf("%s %s: %s", f.Severity, f.Key, f.What)
	}
	return fmt.Sprintf("%s %s %s: %s", f.Severity, f.Code, f.Key, f.What)
}

// maxFindings bounds the findings of each severity that a report lists; Counts has
// all of them.
const maxFindings = 1000

// Unfinished is Report.Status of a job without an outcome.
const Unfinished = "UNFINISHED"

// Items is the ends of all items, counted one by one. Open ones have no end: of a
// cancelled or unfinished job.
type Items struct {
	Total     int64 `json:"total"`
	OK        int64 `json:"ok"`
	Permanent int64 `json:"permanent"`
	Exhausted int64 `json:"exhausted"`
	Open      int64 `json:"open"`
}

// Rows is what became of the rows, on each level.
type Rows struct {
	Results  int64  `json:"results"` // with rows
	In       int64  `json:"in"`      // rows of the results
	InHash   string `json:"in_hash"`
	Dropped  int64  `json:"dropped"`
	Parts    int64  `json:"parts"`
	Out      int64  `json:"out"` // rows of the parts
	OutHash  string `json:"out_hash"`
	Decoded  int64  `json:"decoded_files"` // files whose rows were read again
	ReadRows int64  `json:"decoded_rows"`
}

// Checked counts what was read.
type Checked struct {
	Commits   int64 `json:"commits"`
	Data      int64 `json:"data"`
	Views     int64 `json:"views"`
	Published int64 `json:"published"`
	Inputs    int64 `json:"input_batches"` // read again
	Copies    int64 `json:"input_copies"`  // made again, and found equal
	Bytes     int64 `json:"bytes"`
}

// Report is what an audit found.
type Report struct {
	Schema     string `json:"schema"`
	JobID      string `json:"job_id"`
	Generation int    `json:"generation"`
	Status     string `json:"status"` // of the outcome, or UNFINISHED
	Deep       bool   `json:"deep"`
	// Proven: the job SUCCEEDED and nothing is broken.
	Proven   bool             `json:"proven"`
	Line     string           `json:"line"`
	Items    Items            `json:"items"`
	Rows     Rows             `json:"rows"`
	Checked  Checked          `json:"checked"`
	Counts   map[Severity]int `json:"counts"`
	Findings []Finding        `json:"findings"` // worst first, else in the order of the walk
	Notes    []string         `json:"notes"`
}

// Sound says that nothing is broken; of a job that has not succeeded it is all that
// can be said.
func (r *Report) Sound() bool { return r.Counts[Broken] == 0 }

// First is the first broken thing in the order of the walk.
func (r *Report) First() (Finding, bool) {
	for _, f := range r.Findings {
		if f.Severity == Broken {
			return f, true
		}
	}
	return Finding{}, false
}

func (r *Report) add(f Finding) {
	r.Counts[f.Severity]++
	if r.Counts[f.Severity] <= maxFindings {
		r.Findings = append(r.Findings, f)
	}
}

// conclude writes the line.
func (r *Report) conclude() {
	r.Proven = r.Status == string(hayrick.JobSucceeded) && r.Sound()
	n := r.Items
	if !r.Sound() {
		f, _ := r.First()
		r.Line = fmt.Sprintf("NOT PROVEN: %s broken, first %s: %s", count(int64(r.Counts[Broken]), "thing is", "things are"), f.Key, f.What)
		return
	}
	items := fmt.Sprintf("%s = %d ok + %d permanent + %d exhausted", count(n.Total, "item", "items"), n.OK, n.Permanent, n.Exhausted)
	rows := fmt.Sprintf("%s in %s", count(r.Rows.In, "row", "rows"), count(r.Rows.Results, "result", "results"))
	if r.Proven {
		rows += fmt.Sprintf(" = %s in %s", count(r.Rows.Out, "row", "rows"), count(r.Rows.Parts, "part", "parts"))
		if r.Rows.Dropped > 0 {
			rows += fmt.Sprintf(" + %d dropped", r.Rows.Dropped)
		}
		rows += "; hashes equal"
		if r.Deep {
			rows += fmt.Sprintf(", %s decoded", count(r.Rows.Decoded, "file", "files"))
			if r.Checked.Copies > 0 {
				rows += fmt.Sprintf(", %s made again", count(r.Checked.Copies, "copy of the input", "copies of inputs"))
			}
		}
	} else {
		items += fmt.Sprintf(" + %d without an end", n.Open)
	}
	r.Line = fmt.Sprintf("%s; %s; %s checked, %s re-derived, %s",
		items, rows, count(r.Checked.Commits+r.Checked.Data, "commit or data object", "commits and data objects"),
		count(r.Checked.Views, "view", "views"), count(int64(r.Counts[Stranger]), "stranger", "strangers"))
	if left := r.Counts[Leftover]; left > 0 {
		r.Line += ", " + count(int64(left), "leftover", "leftovers")
	}
	if bad := r.Counts[View]; bad > 0 {
		r.Line += ", " + count(int64(bad), "view", "views") + " missing or different"
	}
	if !r.Proven {
		r.Line += fmt.Sprintf("; the job is %s: nothing is broken in what is there, and nothing is promised", r.Status)
	}
}

func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
