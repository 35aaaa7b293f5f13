package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"hayrick"
)

const (
	batchSize     = 10               // messages a request
	maxDelay      = 15 * time.Minute // SQS holds a new message back no longer
	maxVisibility = 11 * time.Hour   // it refuses to hide one until later than 12 hours after it was received
	maxLongPoll   = 20 * time.Second
)

// body is a message on the wire. Due, in Unix milliseconds, is set where the delay is
// longer than SQS can hold a message back: who receives it earlier hides it again.
type body struct {
	hayrick.Message
	Due int64 `json:"due,omitempty"`
}

// Send enqueues messages, ten a request.
func (s *Store) Send(ctx context.Context, queue string, msgs ...hayrick.Outgoing) error {
	url, err := s.queueURL(ctx, queue)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	n := (len(msgs) + batchSize - 1) / batchSize
	err = s.each(ctx, n, func(ctx context.Context, i int) error {
		return s.sendBatch(ctx, url, msgs[i*batchSize:min((i+1)*batchSize, len(msgs))])
	})
	if err != nil {
		return fmt.Errorf("send to %s: %w", queue, err)
	}
	return nil
}

func (s *Store) sendBatch(ctx context.Context, url string, msgs []hayrick.Outgoing) error {
	entries := make([]types.SendMessageBatchRequestEntry, len(msgs))
	for i, m := range msgs {
		b := body{Message: m.Message}
		if m.Delay > maxDelay {
			b.Due = s.world.Clock.Now().Add(m.Delay).UnixMilli()
		}
		text, err := json.Marshal(b)
		if err != nil {
			return err
		}
		entries[i] = types.SendMessageBatchRequestEntry{
			Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(string(text)), DelaySeconds: seconds(min(m.Delay, maxDelay)),
		}
	}
	for try := 0; len(entries) > 0; try++ {
		out, err := s.sqs.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries})
		if err != nil {
			return unknown(err)
		}
		failed := map[string]types.BatchResultErrorEntry{}
		for _, f := range out.Failed {
			failed[aws.ToString(f.Id)] = f
		}
		var again []types.SendMessageBatchRequestEntry
		for _, e := range entries {
			if f, ok := failed[*e.Id]; ok {
				if f.SenderFault || try == conflictTries {
					return refused(f)
				}
				again = append(again, e)
			}
		}
		if entries = again; len(again) > 0 {
			if err := s.world.Clock.Sleep(ctx, s.jitter(conflictWait<<try)); err != nil {
				return err
			}
		}
	}
	return nil
}

func refused(f types.BatchResultErrorEntry) error {
	return fmt.Errorf("SQS refuses a message: %s: %s", aws.ToString(f.Code), aws.ToString(f.Message))
}

// seconds rounds up: a message is never shown too early.
func seconds(d time.Duration) int32 { return int32((max(d, 0) + time.Second - 1) / time.Second) }

// Receive returns up to max messages; it waits up to wait for the first, in long
// polls of whole seconds. One that is not due yet is hidden until it is. Messages that
// came while ctx ended are returned: whoever does not want them shows them again.
func (s *Store) Receive(ctx context.Context, queue string, max int, visibility, wait time.Duration) ([]hayrick.Delivery, error) {
	url, err := s.queueURL(ctx, queue)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	var ds []hayrick.Delivery
	for end := s.world.Clock.Now().Add(wait); ; {
		left := end.Sub(s.world.Clock.Now())
		if len(ds) > 0 {
			left = 0
		}
		out, err := s.poll(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: int32(min(max-len(ds), batchSize)), VisibilityTimeout: seconds(min(visibility, maxVisibility)),
			WaitTimeSeconds:             seconds(min(left, maxLongPoll)),
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameApproximateReceiveCount},
		})
		switch {
		case err != nil && len(ds) > 0: // what came before is the caller's already
			return ds, nil
		case overLimit(err): // until some are acknowledged, as if there were none
			return nil, s.world.Clock.Sleep(ctx, end.Sub(s.world.Clock.Now()))
		case err != nil:
			return nil, fmt.Errorf("receive from %s: %w", queue, explain(err))
		}
		for _, m := range out.Messages {
			d, due, err := Delivered(aws.ToString(m.Body), aws.ToString(m.ReceiptHandle), m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
			if err != nil {
				s.log.Warn("a message that is none of ours is left in the queue", "queue", queue, hayrick.KeyError, err)
				continue // the dead letter queue gets it
			}
			if early := due.Sub(s.world.Clock.Now()); early > 0 {
				if err := s.Extend(context.WithoutCancel(ctx), queue, early, d); err != nil { // it comes again, and is too early again
					s.log.Debug("a message that is not due yet is not put off", "queue", queue, hayrick.KeyError, err)
				}
				continue
			}
			ds = append(ds, d)
		}
		if len(ds) >= max || len(ds) > 0 && len(out.Messages) < batchSize || len(ds) == 0 && left <= 0 {
			return ds, nil
		}
	}
}

// pollGrace is how much longer than it says a poll may take.
const pollGrace = 5 * time.Second

// poll asks once. What is under way when ctx ends is not given up: SQS hides what it
// hands to nobody for the whole visibility, and the poll is over soon by itself.
func (s *Store) poll(ctx context.Context, in *sqs.ReceiveMessageInput) (*sqs.ReceiveMessageOutput, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(in.WaitTimeSeconds)*time.Second+pollGrace)
	defer cancel()
	return s.sqs.ReceiveMessage(ctx, in)
}

// Delivered reads a message as SQS, or an event source mapping, hands it over. due is
// when it may be looked at, in the past for most.
func Delivered(text, receipt, count string) (d hayrick.Delivery, due time.Time, err error) {
	var b body
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return d, due, fmt.Errorf("read a message: %w", err)
	}
	n, err := strconv.Atoi(count)
	if err != nil || !hayrick.ValidID(b.JobID) {
		return d, due, fmt.Errorf("read a message: it names job %.64q and was received %.20q times", b.JobID, count)
	}
	return hayrick.Delivery{Message: b.Message, Receipt: receipt, Count: n}, time.UnixMilli(b.Due), nil
}

// Ack removes deliveries; one that is already gone is no error.
func (s *Store) Ack(ctx context.Context, queue string, ds ...hayrick.Delivery) error {
	return s.change(ctx, "acknowledge", queue, ds, func(ctx context.Context, url string, ds []hayrick.Delivery) ([]types.BatchResultErrorEntry, error) {
		entries := make([]types.DeleteMessageBatchRequestEntry, len(ds))
		for i, d := range ds {
			entries[i] = types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: aws.String(d.Receipt)}
		}
		out, err := s.sqs.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &url, Entries: entries})
		if err != nil {
			return nil, err
		}
		return out.Failed, nil
	})
}

// Extend hides deliveries for visibility from now; zero shows them at once.
func (s *Store) Extend(ctx context.Context, queue string, visibility time.Duration, ds ...hayrick.Delivery) error {
	return s.change(ctx, "extend", queue, ds, func(ctx context.Context, url string, ds []hayrick.Delivery) ([]types.BatchResultErrorEntry, error) {
		entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(ds))
		for i, d := range ds {
			entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{
				Id: aws.String(strconv.Itoa(i)), ReceiptHandle: aws.String(d.Receipt), VisibilityTimeout: seconds(min(visibility, maxVisibility)),
			}
		}
		out, err := s.sqs.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &url, Entries: entries})
		if err != nil {
			return nil, err
		}
		return out.Failed, nil
	})
}

// change does something to deliveries, ten a request. What SQS refuses for one of
// them, because it is gone or was delivered again since, is no error: a message is a
// hint. What fails on its side is tried again, and does not keep it from the others.
func (s *Store) change(ctx context.Context, what, queue string, ds []hayrick.Delivery, do func(context.Context, string, []hayrick.Delivery) ([]types.BatchResultErrorEntry, error)) error {
	url, err := s.queueURL(ctx, queue)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var errs []error
	for batch := range slices.Chunk(ds, batchSize) {
		if err := s.changeBatch(ctx, batch, func(ds []hayrick.Delivery) ([]types.BatchResultErrorEntry, error) { return do(ctx, url, ds) }); err != nil {
			errs = append(errs, fmt.Errorf("%s in %s: %w", what, queue, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) changeBatch(ctx context.Context, ds []hayrick.Delivery, do func([]hayrick.Delivery) ([]types.BatchResultErrorEntry, error)) error {
	for try := 0; ; try++ {
		failed, err := do(ds)
		if err != nil {
			return explain(err)
		}
		var again []hayrick.Delivery
		var last types.BatchResultErrorEntry
		for _, f := range failed {
			i, err := strconv.Atoi(aws.ToString(f.Id))
			if f.SenderFault || err != nil || i < 0 || i >= len(ds) {
				continue
			}
			again, last = append(again, ds[i]), f
		}
		if len(again) == 0 {
			return nil
		}
		if try == conflictTries {
			return refused(last)
		}
		if err := s.world.Clock.Sleep(ctx, s.jitter(conflictWait<<try)); err != nil {
			return err
		}
		ds = again
	}
}

// overLimit says that as many messages of the queue are in flight as there may be.
func overLimit(err error) bool {
	var over *types.OverLimit
	return errors.As(err, &over)
}

// Depth estimates how many messages wait or are in flight. SQS does not tell jobs
// apart: it is the depth of all jobs' messages.
func (s *Store) Depth(ctx context.Context, queue, jobID string) (hayrick.Depth, error) {
	var d hayrick.Depth
	url, err := s.queueURL(ctx, queue)
	if err != nil {
		return d, fmt.Errorf("depth: %w", err)
	}
	names := []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible, types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	}
	out, err := s.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: names})
	if err != nil {
		return d, fmt.Errorf("depth of %s: %w", queue, explain(err))
	}
	for _, name := range names {
		n, err := strconv.Atoi(out.Attributes[string(name)])
		if err != nil {
			return hayrick.Depth{}, fmt.Errorf("depth of %s: %s is %q", queue, name, out.Attributes[string(name)])
		}
		d.Messages += n
	}
	return d, nil
}

// queueURL is asked for once.
func (s *Store) queueURL(ctx context.Context, queue string) (string, error) {
	s.mu.Lock()
	url, ok := s.queues[queue]
	s.mu.Unlock()
	if ok {
		return url, ctx.Err()
	}
	n := NamesOf(s.name)
	name, ok := map[string]string{hayrick.QueueTasks: n.Tasks, hayrick.QueueDead: n.Dead}[queue]
	if !ok {
		return "", fmt.Errorf("there is no queue %q", queue)
	}
	out, err := s.sqs.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return "", fmt.Errorf("find queue %s: %w", name, explain(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queues[queue] = aws.ToString(out.QueueUrl)
	return s.queues[queue], nil
}

// Others estimates whether anybody else is at work on the store: whoever has messages
// in hand. It is asked by who has none. It is never certain: what a killed process had
// in hand, and what waits to be tried again, is hidden just the same.
func (s *Store) Others() (n int, certain bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), maxLongPoll)
	defer cancel()
	url, err := s.queueURL(ctx, hayrick.QueueTasks)
	if err != nil {
		return 0, false, err
	}
	name := types.QueueAttributeNameApproximateNumberOfMessagesNotVisible
	out, err := s.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{name}})
	if err != nil {
		return 0, false, fmt.Errorf("look for messages in hand: %w", explain(err))
	}
	n, err = strconv.Atoi(out.Attributes[string(name)])
	return n, false, err
}
