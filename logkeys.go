package hayrick

// Log keys are wire names: the same words as in JSON, columns and docs.
const (
	KeyJobID      = "job_id"
	KeyTaskID     = "task_id"
	KeyBatchID    = "batch_id"
	KeyAttempt    = "attempt"
	KeyFence      = "fence"
	KeyGroup      = "group"
	KeyPhase      = "phase"
	KeyRole       = "role"
	KeyGeneration = "generation"
	KeyOrdinal    = "ordinal"
	KeyClass      = "class"
	KeyKey        = "key"
	KeyError      = "error"
)
