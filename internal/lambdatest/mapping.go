package lambdatest

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"hayrick/infra"
)

// Mapping is an event source mapping: it brings the messages of a queue to a function.
type Mapping struct {
	Function    *Function
	SQS         *sqs.Client
	QueueURL    string
	QueueARN    string
	BatchSize   int
	Concurrency int  // invocations at once
	Partial     bool // ReportBatchItemFailures
}

// MappingFromStack reads the properties of the template's mapping, WorkerTasks.
func MappingFromStack(stack *infra.Stack) (*Mapping, error) {
	r, ok := stack.Resource("WorkerTasks")
	if !ok {
		return nil, fmt.Errorf("the stack has no event source mapping")
	}
	var p struct {
		EventSourceArn        string
		BatchSize             json.Number
		FunctionResponseTypes []string
		ScalingConfig         struct{ MaximumConcurrency json.Number }
	}
	if err := convert(r.Properties, &p); err != nil {
		return nil, fmt.Errorf("read WorkerTasks: %w", err)
	}
	m := &Mapping{QueueARN: p.EventSourceArn}
	for _, t := range p.FunctionResponseTypes {
		m.Partial = m.Partial || t == "ReportBatchItemFailures"
	}
	for text, n := range map[json.Number]*int{p.BatchSize: &m.BatchSize, p.ScalingConfig.MaximumConcurrency: &m.Concurrency} {
		v, err := strconv.Atoi(text.String())
		if err != nil {
			return nil, fmt.Errorf("read WorkerTasks: %w", err)
		}
		*n = v
	}
	return m, nil
}

// poll is how long one long poll of a test waits; Lambda's last 20 seconds.
const poll = 1

// Run brings messages until ctx ends, and returns when no invocation is under way.
// Errors of the queue are passed to failed.
func (m *Mapping) Run(ctx context.Context, failed func(error)) {
	var pollers sync.WaitGroup
	for range m.Concurrency {
		pollers.Add(1)
		go func() {
			defer pollers.Done()
			for ctx.Err() == nil {
				if err := m.batch(ctx); err != nil && ctx.Err() == nil {
					failed(err)
					time.Sleep(100 * time.Millisecond)
				}
			}
		}()
	}
	pollers.Wait()
}

// batch receives one batch, invokes the function, and deletes what it is done with.
func (m *Mapping) batch(ctx context.Context) error {
	// Not cut off: what an answer that nobody hears holds would be hidden for as long as
	// what is worked on.
	got, err := m.SQS.ReceiveMessage(context.WithoutCancel(ctx), &sqs.ReceiveMessageInput{
		QueueUrl: &m.QueueURL, MaxNumberOfMessages: int32(m.BatchSize), WaitTimeSeconds: poll, // hidden for what the queue says
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if len(got.Messages) == 0 {
		return nil
	}
	payload, err := json.Marshal(m.event(got.Messages))
	if err != nil {
		return err
	}
	body, err := m.Function.Invoke(context.WithoutCancel(ctx), payload)
	if err != nil {
		return nil // the whole batch comes again
	}
	again, ok := m.failures(body, got.Messages)
	if !ok {
		return fmt.Errorf("the answer %q cannot be understood: the whole batch comes again", body)
	}
	var done []types.DeleteMessageBatchRequestEntry
	for i, x := range got.Messages {
		if !again[sdk.ToString(x.MessageId)] {
			done = append(done, types.DeleteMessageBatchRequestEntry{Id: sdk.String(strconv.Itoa(i)), ReceiptHandle: x.ReceiptHandle})
		}
	}
	if len(done) == 0 {
		return nil
	}
	if _, err = m.SQS.DeleteMessageBatch(context.WithoutCancel(ctx), &sqs.DeleteMessageBatchInput{QueueUrl: &m.QueueURL, Entries: done}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// event is what the function gets.
func (m *Mapping) event(ms []types.Message) any {
	type record map[string]any
	var records []record
	for _, x := range ms {
		records = append(records, record{
			"messageId": sdk.ToString(x.MessageId), "receiptHandle": sdk.ToString(x.ReceiptHandle), "body": sdk.ToString(x.Body),
			"attributes": x.Attributes, "messageAttributes": record{}, "md5OfBody": sdk.ToString(x.MD5OfBody),
			"eventSource": "aws:sqs", "eventSourceARN": m.QueueARN, "awsRegion": "us-east-1",
		})
	}
	return record{"Records": records}
}

// failures reads an answer. ok is false where all of the batch has failed: it is no
// JSON, or names a message that was not in it, or none by an empty name.
func (m *Mapping) failures(body []byte, ms []types.Message) (again map[string]bool, ok bool) {
	again = map[string]bool{}
	if !m.Partial || len(body) == 0 || string(body) == "null" {
		return again, true
	}
	var r struct {
		BatchItemFailures []struct{ ItemIdentifier *string }
	}
	if json.Unmarshal(body, &r) != nil {
		return nil, false
	}
	known := map[string]bool{}
	for _, x := range ms {
		known[sdk.ToString(x.MessageId)] = true
	}
	for _, f := range r.BatchItemFailures {
		if id := sdk.ToString(f.ItemIdentifier); !known[id] {
			return nil, false
		}
		again[*f.ItemIdentifier] = true
	}
	return again, true
}

// Schedule invokes a function with payload once a period until ctx ends. Errors of the
// function are passed to failed.
func Schedule(ctx context.Context, f *Function, payload string, every time.Duration, failed func(error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if _, err := f.Invoke(context.WithoutCancel(ctx), []byte(payload)); err != nil {
			failed(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
