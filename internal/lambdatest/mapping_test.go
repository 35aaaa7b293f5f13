package lambdatest

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"hayrick/infra"
)

// An answer is read as AWS documents it: what cannot be understood fails the batch.
func TestFailures(t *testing.T) {
	batch := []types.Message{{MessageId: sdk.String("a")}, {MessageId: sdk.String("b")}}
	for body, want := range map[string]string{
		``:                           "ok",
		`null`:                       "ok",
		`{}`:                         "ok",
		`{"batchItemFailures":null}`: "ok",
		`{"batchItemFailures":[]}`:   "ok",
		`{"batchItemFailures":[{"itemIdentifier":"b"}]}`:                        "ok b",
		`{"batchItemFailures":[{"itemIdentifier":"b"},{"itemIdentifier":"a"}]}`: "ok a b",
		`{"batchItemFailures":[{"itemIdentifier":"c"}]}`:                        "all",
		`{"batchItemFailures":[{"itemIdentifier":""}]}`:                         "all",
		`{"batchItemFailures":[{"itemIdentifier":null}]}`:                       "all",
		`{"batchItemFailures":[{"id":"a"}]}`:                                    "all",
		`"done"`:                                                                "all",
		`{"batch`:                                                               "all",
	} {
		again, ok := (&Mapping{Partial: true}).failures([]byte(body), batch)
		got := "all"
		if ok {
			got = strings.Join(append([]string{"ok"}, slices.Sorted(maps.Keys(again))...), " ")
		}
		if got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	if again, ok := (&Mapping{}).failures([]byte(`{"batchItemFailures":[{"itemIdentifier":"b"}]}`), batch); !ok || len(again) > 0 {
		t.Errorf("without ReportBatchItemFailures: %v %t", again, ok)
	}
}

// What tests run has the properties of the template.
func TestFromStack(t *testing.T) {
	stack, err := infra.Resolve(infra.Params{Values: map[string]string{
		"Name": "lab", "BudgetEmail": "nobody@example.invalid", "CodeKey": "code/x.zip", "TimeoutSeconds": "120", "MaxConcurrency": "20", "MemoryMiB": "1024",
	}, Account: "000000000000", Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := FromStack(stack, "Worker")
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "lab-worker" || f.Timeout != 2*time.Minute || f.MemoryMiB != 1024 || f.Concurrency != 24 || !slices.Equal(f.Env, []string{"HAYRICK_STORE=s3://lab"}) {
		t.Errorf("%+v", f)
	}
	m, err := MappingFromStack(stack)
	if err != nil {
		t.Fatal(err)
	}
	if m.BatchSize != 1 || m.Concurrency != 20 || !m.Partial || !strings.HasSuffix(m.QueueARN, ":lab-tasks") {
		t.Errorf("%+v", m)
	}
}
