package hayrick

import (
	"fmt"
	"regexp"
	"strings"
)

// Role is the category of a task.
type Role string

// The roles. A worker task is the only one that runs a handler.
const (
	RoleCoordinator  Role = "coordinator"
	RoleWorker       Role = "worker"
	RoleRetryPlanner Role = "retryplanner"
	RoleAggregator   Role = "aggregator"
)

// Phase is an ordered stretch of a job with a barrier after it.
type Phase string

// The phases, in order.
const (
	PhaseInitial     Phase = "initial"
	PhaseRetry       Phase = "retry"
	PhaseAggregation Phase = "aggregation"
)

// Names of task groups. Retry groups are RetryGroup(n).
const (
	GroupCoordinator = "coordinator"
	GroupInitial     = "initial_batch"
	GroupAggregation = "final_aggregation"
	GroupRanges      = "final_aggregation_ranges" // the second decoding level, with output.unique_by
)

// RetryGroup is the name of the n-th retry group, n >= 1.
func RetryGroup(n int) string { return fmt.Sprintf("retry_batch_%d", n) }

// PhaseOf is the phase a task group belongs to.
func PhaseOf(group string) Phase {
	switch {
	case group == GroupAggregation, group == GroupRanges:
		return PhaseAggregation
	case strings.HasPrefix(group, "retry_batch_"):
		return PhaseRetry
	}
	return PhaseInitial
}

// TaskOutcome is what a results.done says. A task has no other end.
type TaskOutcome string

// DONE accounts for every item of the batch (items = ok + failed). FAILED means
// the batch as a whole could not run; it has no rows.
const (
	TaskDone   TaskOutcome = "DONE"
	TaskFailed TaskOutcome = "FAILED"
)

// JobOutcome is what an outcome-<g>.json says: the one end of a generation.
type JobOutcome string

// The ends of a generation.
const (
	JobSucceeded JobOutcome = "SUCCEEDED"
	JobFailed    JobOutcome = "FAILED"
	JobCancelled JobOutcome = "CANCELLED"
)

// JobStatus is the word a job manifest and `status` show.
type JobStatus string

// The statuses; the last three equal the outcomes.
const (
	StatusRunning   JobStatus = "RUNNING"
	StatusPaused    JobStatus = "PAUSED"
	StatusSucceeded JobStatus = JobStatus(JobSucceeded)
	StatusFailed    JobStatus = JobStatus(JobFailed)
	StatusCancelled JobStatus = JobStatus(JobCancelled)
	StatusPurging   JobStatus = "PURGING" // it has ended, and is being removed
)

// Terminal says whether the status is the end of a generation.
func (s JobStatus) Terminal() bool {
	return s == StatusSucceeded || s == StatusFailed || s == StatusCancelled
}

// Disposition is what follows from a failure.
type Disposition string

// The dispositions.
const (
	Permanent Disposition = "permanent"  // never run again; listed with its class
	RateLimit Disposition = "rate_limit" // run again; feeds the limiter
	Timeout   Disposition = "timeout"    // run again
	Transient Disposition = "transient"  // run again
	Infra     Disposition = "infra"      // run again; costs the item no try
	Poison    Disposition = "poison"     // killed its process twice; never run again
)

// Final says that no retry follows.
func (d Disposition) Final() bool { return d == Permanent || d == Poison }

// Reserved classes: the ones the host itself gives.
const (
	ClassBadItem     = "bad_item"      // the input record is damaged or has no key
	ClassRateLimit   = "rate_limit"    // the host could not get a token in time
	ClassTimeout     = "timeout"       // the item ran past its deadline
	ClassCrash       = "handler_crash" // the handler panicked or its process died with the item in hand
	ClassPoison      = "poison"        // it did so twice
	ClassLostWorker  = "lost_worker"   // five workers vanished with the item in hand
	ClassBatchFailed = "batch_failed"  // the batch as a whole could not run
	ClassHandler     = "handler_start" // the handler could not start
	ClassNoTime      = "no_time"       // what its task has done so far leaves a function no time for it

	// ClassUnfinished counts items that had no end when their generation ended, and no
	// failure either.
	ClassUnfinished = "unfinished"
)

// Failure is one failed item, as data: a handler's failure is not a Go error.
type Failure struct {
	Class       string      `json:"class"`
	Disposition Disposition `json:"disposition"`
	Message     string      `json:"message"`
}

var (
	idPattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)
	classPattern = regexp.MustCompile(`^[a-z0-9_]{1,40}$`)
)

// ValidID says whether s may be a part of an object key: [a-z0-9][a-z0-9._-]{0,127}
// without "..".
func ValidID(s string) bool { return idPattern.MatchString(s) && !strings.Contains(s, "..") }

// ValidClass says whether s may be the class of a failure.
func ValidClass(s string) bool { return classPattern.MatchString(s) }
