package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"hayrick"
)

// FuzzLambdaEvent: an invocation is a sweep, or messages of the store's own queue, or an
// error that repeats nothing of what it held. Of messages each becomes one of work, a
// thing to do later, or a thing that is told; and the answer names exactly those that were
// not acknowledged.
func FuzzLambdaEvent(f *testing.F) {
	const arn = "arn:aws:sqs:eu-west-1:123456789012:lab-hayrick-tasks"
	record := func(id, arn, body string) string {
		b, err := json.Marshal(events.SQSMessage{MessageId: id, ReceiptHandle: "r" + id, Body: body, EventSource: sourceSQS, EventSourceARN: arn, Attributes: map[string]string{receiveCount: "1"}})
		if err != nil {
			f.Fatal(err)
		}
		return string(b)
	}
	work := `{"job_id":"count-20261120-abcdef","role":"worker","group":"initial_batch","task_id":"task-0001"}`
	for _, s := range []string{
		`{"hayrick":"sweep"}`, `{"Hayrick":"sweep","records":null}`, `{"hayrick":"sweep","Records":[{}]}`, `{}`, `[]`, `null`, `"x"`,
		`{"Records":[` + record("1", arn, work) + `,` + record("2", arn, "canary-of-a-secret") + `,` + record("3", arn, strings.Replace(work, "worker", "gardener", 1)) + `]}`,
		`{"Records":[` + record("1", arn, strings.Replace(work, "{", `{"due":4102444800000,`, 1)) + `]}`,
		`{"Records":[` + record("1", arn+"x", work) + `]}`, `{"Records":[` + record("", arn, work) + `]}`,
		`{"version":"0","id":"x","detail-type":"Scheduled Event","source":"aws.events","time":"2026-11-20T12:00:00Z","detail":{}}`,
		`{"Records":[{"eventSource":"aws:s3","s3":{"bucket":{"name":"b"}}}]}`, `{"Records":[{"messageId":1}]}`,
	} {
		f.Add([]byte(s))
	}
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, payload []byte) {
		e, err := readEvent(payload, "lab-hayrick-tasks")
		var held struct{ Records []events.SQSMessage }
		_ = json.Unmarshal(payload, &held)
		quiet := func(err error) {
			for _, m := range held.Records {
				if len(m.Body) >= 12 && !strings.Contains(m.Body, `"`) && strings.Contains(err.Error(), m.Body) {
					t.Fatalf("%v repeats what a message held", err)
				}
			}
			if len(err.Error()) > 1000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
		}
		if err != nil {
			if quiet(err); e.sweep || e.messages != nil {
				t.Fatalf("%v, and %+v", err, e)
			}
			return
		}
		if e.sweep == (len(e.messages) > 0) {
			t.Fatalf("%q is a sweep: %v, with %d messages", payload, e.sweep, len(e.messages))
		}
		for _, m := range e.messages {
			if m.MessageId == "" || m.ReceiptHandle == "" || !strings.HasSuffix(m.EventSourceARN, "lab-hayrick-tasks") {
				t.Fatalf("%+v is taken", m)
			}
		}
		s := sortMessages(e.messages, func(r hayrick.Role) bool { return r == hayrick.RoleWorker }, now)
		if len(s.work)+len(s.early)+len(s.odd) != len(e.messages) || len(s.early) != len(s.until) {
			t.Fatalf("%d messages become %+v", len(e.messages), s)
		}
		acked := map[string]bool{}
		for i, d := range s.work {
			if d.Role != hayrick.RoleWorker || !hayrick.ValidID(d.JobID) {
				t.Fatalf("%+v is worked on", d)
			}
			acked[d.Receipt] = i%2 == 0
		}
		for i := range s.early {
			if !s.until[i].After(now) {
				t.Fatalf("%v is early", s.until[i])
			}
		}
		for _, o := range s.odd {
			if len(o.why.Error()) > 2000 {
				t.Fatalf("a message is told of in %d bytes", len(o.why.Error()))
			}
		}
		again := answer(e.messages, acked)
		n := 0
		for _, m := range e.messages {
			if acked[m.ReceiptHandle] {
				continue
			}
			if n == len(again.BatchItemFailures) || again.BatchItemFailures[n].ItemIdentifier != m.MessageId {
				t.Fatalf("the answer is %+v", again)
			}
			n++
		}
		if n != len(again.BatchItemFailures) {
			t.Fatalf("the answer is %+v", again)
		}
	})
}
