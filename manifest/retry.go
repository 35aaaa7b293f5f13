package manifest

import (
	"strconv"
	"strings"
)

import "context"

// SchemaRetryPlan is the schema of RetryPlan.
const SchemaRetryPlan = "hayrick.retryplan/v1"

// NextAggregation is RetryPlan.Next when there is nothing to retry.
const NextAggregation = "aggregation"

// RetryPlan is the planner's decision about one closed group, also when it is
// "nothing to retry". It is taken from the results it names and nothing else.
type RetryPlan struct {
	Schema     string `json:"schema"`
	JobID      string `json:"job_id"`
	RetryID    string `json:"retry_id"`
	Generation int    `json:"generation"`
	// Control is the order that the plan carries out: of the first plan of a generation
	// above 0, which closes what the end of the one before left open, if anything, and
	// says of every item that had not ended ok whether it runs again. Its lists are of
	// those that do not.
	Control     *int             `json:"control,omitempty"`
	Closed      string           `json:"closed"`      // the group that was closed
	Predecessor Link             `json:"predecessor"` // the plan that opened it; of a first plan the outcome before
	Orders      int              `json:"orders"`      // control orders applied so far: 0..orders-1
	Next        string           `json:"next"`        // the group this plan opens, or aggregation
	Tasks       int64            `json:"tasks"`
	Items       int64            `json:"items"`        // to be retried
	Permanent   int64            `json:"permanent"`    // newly listed
	Exhausted   int64            `json:"exhausted"`    // newly listed
	FailedTasks int64            `json:"failed_tasks"` // tasks of the closed group with an item to be retried
	ErrorTypes  map[string]int64 `json:"error_types"`  // items to be retried, by the class of their failure
	NotBefore   Time             `json:"not_before"`   // backoff: the earliest start of the group that is opened
	Results     []ResultRef      `json:"results,omitempty"`
	ResultsRef  *Ref             `json:"results_ref,omitempty"`
	// PermanentList and ExhaustedList name lists of ListLine, sorted by ordinal.
	PermanentList *Ref   `json:"permanent_list,omitempty"`
	ExhaustedList *Ref   `json:"exhausted_list,omitempty"`
	Group         *Group `json:"group,omitempty"` // nil when next is aggregation
	SubmittedAt   Time   `json:"submitted_at"`
}

// Link names a commit by its key, relative to the job's folder, and its digest.
type Link struct {
	Key    string `json:"key"`
	SHA256 string `json:"sha256"`
}

// ResultRef is the digest of one task's results.done, and how many of its items the
// plan retries.
type ResultRef struct {
	TaskID  string `json:"task_id"`
	SHA256  string `json:"sha256"`
	Retried int    `json:"retried,omitempty"`
}

// Results yields every result that a retry plan was taken from, in task order.
func (s *Store) Results(ctx context.Context, p RetryPlan, fn func(ResultRef) error) error {
	if p.ResultsRef != nil {
		return ReadLines(ctx, s, p.JobID, *p.ResultsRef, fn)
	}
	for _, r := range p.Results {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// ListLine is one line of a list of items that did not end ok.
type ListLine struct {
	Ordinal int64  `json:"ordinal"`
	Key     string `json:"key"`
	Class   string `json:"class"`
	Message string `json:"message"`
	TaskID  string `json:"task_id"`
	Tries   int    `json:"tries"`
	Losses  int    `json:"losses"`
}

// SchemaRetry is the schema of RetryManifest.
const SchemaRetry = "hayrick.retry/v1"

// RetryManifest is the seed's retry manifest, a view. FailedTasks lists the first
// InlineList of FailedTaskCount.
type RetryManifest struct {
	Schema          string           `json:"schema"`
	RetryID         string           `json:"retry_id"`
	ParentJobID     string           `json:"parent_job_id"`
	FailedTasks     []string         `json:"failed_tasks"`
	FailedTaskCount int64            `json:"failed_task_count"`
	ErrorTypes      map[string]int64 `json:"error_types"`
	RetriesLaunched int64            `json:"retries_launched"`
	SubmittedAt     Time             `json:"submitted_at"`
}

// RetryView derives the retry manifest. failed has the tasks of the closed group
// with an item to be retried, in task order, up to InlineList of them (FailedTasks).
func RetryView(p RetryPlan, failed []string) RetryManifest {
	m := RetryManifest{
		Schema: SchemaRetry, RetryID: p.RetryID, ParentJobID: p.JobID, FailedTasks: failed,
		FailedTaskCount: p.FailedTasks, ErrorTypes: p.ErrorTypes, RetriesLaunched: p.Tasks,
		SubmittedAt: p.SubmittedAt,
	}
	if m.FailedTasks == nil {
		m.FailedTasks = []string{}
	}
	if len(m.FailedTasks) > InlineList {
		m.FailedTasks = m.FailedTasks[:InlineList]
	}
	return m
}

// FailedTasks is the first InlineList tasks with an item that a retry plan retries.
func (s *Store) FailedTasks(ctx context.Context, p RetryPlan) ([]string, error) {
	var failed []string
	err := s.Results(ctx, p, func(r ResultRef) error {
		if r.Retried > 0 && len(failed) < InlineList {
			failed = append(failed, r.TaskID)
		}
		return nil
	})
	return failed, err
}

// RetryPlanNumber is n of a retry plan's id.
func RetryPlanNumber(p RetryPlan) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(p.RetryID, "retry-batch-"))
	return n
}
