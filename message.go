package hayrick

import "time"

// Names of the queues.
const (
	QueueTasks    = "tasks"    // tasks to run and triggers ("last one out")
	QueueFailures = "failures" // pointers to tasks with failed items: wakes stop_if
	QueueDead     = "dead"     // messages received too often; each is a claim to check, not a failure
)

// Message is a pointer: it says what to look at, never what is true. Losing or
// doubling one costs time. Its JSON stays below 2 KB.
type Message struct {
	JobID      string `json:"job_id"`
	Generation int    `json:"generation"`
	Role       Role   `json:"role"`
	Group      string `json:"group"`              // worker: the group of the task; a trigger: the group that closed
	Block      int    `json:"block,omitempty"`    // worker, merge: the block of the group
	Position   int    `json:"position,omitempty"` // ... and the position in it
	TaskID     string `json:"task_id,omitempty"`  // "" for a trigger
}

// Outgoing is a message to send, visible not before Delay has passed.
type Outgoing struct {
	Message
	Delay time.Duration
}

// Delivery is one received message. It is hidden from others until its visibility
// ends, and comes again unless it is acknowledged.
type Delivery struct {
	Message
	Receipt string // names this delivery to Ack and Extend
	Count   int    // how often the message has been received, from 1; an estimate
}
