package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"hayrick"
	"hayrick/aws"
	"hayrick/worker"
)

// lambdaEvent is what an invocation is for: a sweep, or messages of the queue.
type lambdaEvent struct {
	sweep    bool
	messages []events.SQSMessage
}

// sourceSQS is how an event source mapping of a queue signs its records.
const sourceSQS = "aws:sqs"

// readEvent tells the two events of the template apart. Anything else was sent by
// mistake, and says so: nothing of it would come again or be missed. What it holds is
// not repeated, for nobody knows what that is. Messages of another queue than the one
// named stay in theirs: acknowledged here they would be lost there, and hidden here
// they would not be hidden at all.
func readEvent(payload []byte, queue string) (lambdaEvent, error) {
	var raw struct {
		Hayrick string
		Records []events.SQSMessage
	}
	if err := json.Unmarshal(payload, &raw); err != nil {
		return lambdaEvent{}, errors.New("the event is not the JSON of a queue's event source mapping or of a sweep")
	}
	switch {
	case raw.Hayrick == "sweep" && len(raw.Records) == 0:
		return lambdaEvent{sweep: true}, nil
	case raw.Hayrick == "" && len(raw.Records) > 0:
	default:
		return lambdaEvent{}, errors.New(`the event is neither {"hayrick":"sweep"} nor messages of a queue`)
	}
	for i, m := range raw.Records {
		// Without its id a message could not be named in the answer.
		if m.EventSource != sourceSQS || m.MessageId == "" || m.ReceiptHandle == "" {
			return lambdaEvent{}, fmt.Errorf("record %d of the event is from %.64q, not a message of a queue", i, m.EventSource)
		}
		if from := m.EventSourceARN[strings.LastIndex(m.EventSourceARN, ":")+1:]; from != queue {
			return lambdaEvent{}, &hayrick.UserError{
				What: fmt.Sprintf("record %d of the event is of the queue %.80q, and the store's own is %q", i, from, queue),
				Hint: "delete the event source mapping that sends it here, or set $HAYRICK_STORE to the store whose queue it is",
			}
		}
	}
	return lambdaEvent{messages: raw.Records}, nil
}

// receiveCount is the attribute that counts deliveries.
const receiveCount = "ApproximateReceiveCount"

// sorted is what becomes of the messages of an event before any is looked into.
type sorted struct {
	work  []hayrick.Delivery
	early []hayrick.Delivery // not due yet, and when they are, in Until
	until []time.Time
	odd   []odd
}

// odd is a message that is none of ours, or of a hayrick that is newer than this one.
type odd struct {
	kind string // told once in a sandbox; "" = each time
	why  error
}

// sortMessages reads the messages. One that cannot be read spoils none of the others:
// it is left to the queue, whose dead letter queue shows it to a person in the end.
// Dropping it might drop what somebody else has sent here by mistake.
func sortMessages(messages []events.SQSMessage, plays func(hayrick.Role) bool, now time.Time) sorted {
	var s sorted
	for _, m := range messages {
		switch d, due, err := aws.Delivered(m.Body, m.ReceiptHandle, m.Attributes[receiveCount]); {
		case err != nil:
			s.odd = append(s.odd, odd{"", fmt.Errorf("message %s: %w", m.MessageId, err)})
		case !plays(d.Role):
			s.odd = append(s.odd, odd{"role " + string(d.Role), fmt.Errorf("message %s of %s asks for the role %.40q", m.MessageId, d.JobID, d.Role)})
		case due.After(now):
			s.early, s.until = append(s.early, d), append(s.until, due)
		default:
			s.work = append(s.work, d)
		}
	}
	return s
}

// answer names the messages that are to come again: all that were not acknowledged.
// The event source mapping deletes the others.
func answer(messages []events.SQSMessage, acked map[string]bool) events.SQSEventResponse {
	out := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	for _, m := range messages {
		if !acked[m.ReceiptHandle] {
			out.BatchItemFailures = append(out.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
	}
	return out
}

// eventQueue is the store's queue as a pool of one invocation sees it: what it
// receives is the event's, once, and what it acknowledges is only noted, because the
// event source mapping deletes it. Sending and hiding go to SQS.
type eventQueue struct {
	worker.Queue
	clock hayrick.Clock

	over context.Context // nothing of the event is in hand any more
	end  context.CancelFunc

	mu      sync.Mutex // guards what follows
	waiting []hayrick.Delivery
	left    int             // waiting or in hand
	acked   map[string]bool // by receipt
}

func newEventQueue(ctx context.Context, q worker.Queue, clock hayrick.Clock, ds []hayrick.Delivery) *eventQueue {
	e := &eventQueue{Queue: q, clock: clock, waiting: ds, left: len(ds), acked: map[string]bool{}}
	e.over, e.end = context.WithCancel(ctx)
	if e.left == 0 {
		e.end()
	}
	return e
}

// Receive hands the event's messages out. Then nothing comes any more; it waits as a
// long poll does, but not for longer than something is in hand.
func (e *eventQueue) Receive(ctx context.Context, _ string, max int, _, wait time.Duration) ([]hayrick.Delivery, error) {
	e.mu.Lock()
	n := min(max, len(e.waiting))
	ds := e.waiting[:n:n]
	e.waiting = e.waiting[n:]
	e.mu.Unlock()
	if n > 0 {
		return ds, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.over, cancel)()
	_ = e.clock.Sleep(ctx, wait) // ended early by either
	return nil, nil
}

// Ack notes that the messages are done with. A crash before the answer is given brings
// them back: what they ask for is found done.
func (e *eventQueue) Ack(_ context.Context, _ string, ds ...hayrick.Delivery) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range ds {
		e.acked[d.Receipt] = true
	}
	return nil
}

// done says that a message is no longer in hand, whatever came of it.
func (e *eventQueue) done() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.left--; e.left == 0 {
		e.end()
	}
}
