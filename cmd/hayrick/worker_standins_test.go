//go:build standins

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"hayrick/aws"
	"hayrick/internal/standins"
)

// What a killed process had in hand is hidden in the queue, as if a live one had it. A
// worker does not take that for company and leave the run to it.
func TestWorkerStaysWhereNobodyElseIsOnStandIns(t *testing.T) {
	t.Parallel() // it mostly waits
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	store, dir := "s3://"+name, t.TempDir()
	for file, text := range map[string]string{"items.jsonl": "{\"id\":1}\n{\"id\":2}\n", "job.yaml": `
version: 1
name: left
handler: {builtin: noop}
input: {uri: ./items.jsonl, key: id}
batch: {items: 1}
run: {linger: 1s}
output: {uri: "` + store + `/out/$(run.id)/"}
`} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	hayrick := func(args ...string) string {
		t.Helper()
		c := start(t, dir, append([]string{"-C", store}, args...)...)
		if err := <-c.ended; err != nil {
			t.Fatalf("%v: %v\n%s", args, err, c.errs.String())
		}
		return c.out.String() + c.errs.String()
	}
	hayrick("submit", "job.yaml")

	client, queue := sqs.NewFromConfig(cfg), aws.NamesOf(name).Tasks
	url, err := client.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: &queue})
	if err != nil {
		t.Fatal(err)
	}
	for taken := 0; taken < 2; {
		out, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: url.QueueUrl, MaxNumberOfMessages: 10, VisibilityTimeout: 8, WaitTimeSeconds: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		taken += len(out.Messages)
	}
	told := hayrick("worker")
	if s := hayrick("status", "@"); !strings.Contains(s, "SUCCEEDED") {
		t.Errorf("the worker has left the run as it stands:\n%s\n%s", told, s)
	}
}
