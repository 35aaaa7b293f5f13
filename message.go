package hayrick

import "time"

// Names of the queues.
const (
	QueueTasks = "tasks" // tasks to run and triggers ("last one out")
	QueueDead  = "dead"  // messages received too often; each is a claim to check, not a failure
)

// MaxReceives is how often a message is delivered before it is a dead letter. A
// delivery counts also when the message is only put back.
const MaxReceives = 100

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
	// Stalls counts losses: how often in a row a worker's task was handed back because
	// the time was over before anything of it was done. Lost, it begins anew.
	Stalls int `json:"stalls,omitempty"`
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

// Waits of a message that cannot be worked on now. They grow with every delivery, so
// that a message that is looked at again and again does not become a dead letter.
const (
	faultWait    = time.Second
	maxFaultWait = 15 * time.Minute // so that an outage of most of a day kills no message
	maxHeldWait  = time.Hour
)

// AfterFault is how long a delivery that met a fault waits to be shown again: a
// second, and twice as long each time after.
func (d Delivery) AfterFault() time.Duration { return d.wait(faultWait, maxFaultWait) }

// AfterLease is how long a delivery whose task another attempt holds waits to be shown
// again: until the lease ends, which is left from now. Who still holds it then renews
// it, so that each time after it waits twice as long. When that comes to an hour it is
// done with: the holder lives, and should it die yet, a sweep sends the task again.
func (d Delivery) AfterLease(left time.Duration) (wait time.Duration, done bool) {
	wait = d.wait(max(left, faultWait), maxHeldWait)
	return wait, wait == maxHeldWait
}

// WhenHeld is what becomes of a delivery whose task another attempt holds. The first
// delivery of a message is not the one that the other attempt works on: it is a
// duplicate, and done with. Any other may be, come again because its worker stands still
// or is gone: it is looked at again when the lease ends, a number of times.
func (d Delivery) WhenHeld(left time.Duration) (wait time.Duration, done bool) {
	if d.Count <= 1 {
		return 0, true
	}
	return d.AfterLease(left)
}

func (d Delivery) wait(first, most time.Duration) time.Duration {
	for range d.Count - 1 {
		if first *= 2; first >= most {
			break
		}
	}
	return min(first, most)
}

// Depth is how many messages of a job a queue has: waiting, delayed and in flight.
type Depth struct {
	Messages int
	// Exact: these are the job's messages and no others, now. Else it is an estimate,
	// late by up to a minute, and the messages of other jobs are part of it.
	Exact bool
}
