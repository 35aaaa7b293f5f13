package aws

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"hayrick"
	"hayrick/manifest"
	"hayrick/ratelimit"
)

// refusing is AWS to somebody who may do nothing but what allowed says.
type refusing struct {
	allowed func(*http.Request) *http.Response // nil: it is not
}

func (f refusing) Do(r *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: http.StatusForbidden, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: r}
	body := "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
	switch target := r.Header.Get("X-Amz-Target"); {
	case strings.HasPrefix(target, "DynamoDB"):
		resp.StatusCode, body = http.StatusBadRequest, `{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"User: arn:aws:iam::1:user/u is not authorized"}`
	case strings.HasPrefix(target, "AmazonSQS.GetQueueUrl"):
		resp.StatusCode, body = http.StatusOK, `{"QueueUrl":"https://sqs.example.invalid/1/lab-hayrick-tasks"}`
	case target != "":
		body = `{"__type":"com.amazonaws.sqs#AccessDeniedException","message":"not authorized"}`
	case r.Method == http.MethodHead:
		body = ""
	}
	if f.allowed != nil {
		if yes := f.allowed(r); yes != nil {
			yes.Request = r
			return yes, nil
		}
	}
	resp.Body = io.NopCloser(strings.NewReader(body))
	return resp, nil
}

// refusedStore is a store, or with no name the inputs of one on this machine, of
// somebody who may do nothing.
func refusedStore(name string, allowed func(*http.Request) *http.Response) *Store {
	return New(aws.Config{
		Region: "eu-central-1", Credentials: credentials.NewStaticCredentialsProvider("AK", "SK", ""), HTTPClient: refusing{allowed},
	}, name, hayrick.RealWorld("host/1"), nil)
}

// What AWS refuses is said with the permission and the place that it is about, and the
// step that mends it. What is one object's is told from what is the store's.
func TestARefusalNamesTheRight(t *testing.T) {
	s, here := refusedStore("lab.hayrick", nil), refusedStore("", nil)
	none := func(string, manifest.Pin) error { return nil }
	const job = manifest.Job("small-20261120-kdmqra")
	input := func(s *Store, object, version string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.OpenInput(ctx, string(job), manifest.Batch{Object: object, Version: version, Length: 5})
			return err
		}
	}
	source := func(s *Store, uri string) func(context.Context) error {
		return func(ctx context.Context) error { _, _, err := s.OpenSource(ctx, uri); return err }
	}
	const policy = "attach the policy of the store"
	for _, c := range []struct {
		what, says, hint string
		one              bool // object; else the store as a whole
		do               func(ctx context.Context) error
	}{
		{"another's object", "s3:GetObject on s3://theirs/in/a b.jsonl", "InputBuckets=theirs", true, source(s, "s3://theirs/in/a b.jsonl")},
		{"look at another's object", "s3:GetObject on s3://theirs/in/a.jsonl", "InputBuckets=theirs", true, func(ctx context.Context) error { _, err := s.Stat(ctx, "s3://theirs/in/a.jsonl"); return err }},
		{"another's folder", "s3:ListBucket on s3://theirs/in/", "InputBuckets=theirs", true, func(ctx context.Context) error { return s.ListSources(ctx, "s3://theirs/in/", none) }},
		{"a batch", "s3:GetObject on s3://theirs/in/a.jsonl", "InputBuckets=theirs", true, input(s, "s3://theirs/in/a.jsonl", "")},
		{"a batch of a version", "s3:GetObjectVersion on s3://theirs/in/a.jsonl", "InputBuckets=theirs", true, input(s, "s3://theirs/in/a.jsonl", "v1")},
		{"an input beside in/", "s3:GetObject on s3://lab.hayrick/data/a.jsonl", "below s3://lab.hayrick/in/: move it there", true, source(s, "s3://lab.hayrick/data/a.jsonl")},
		{"an input in in/", "s3:GetObject on s3://lab.hayrick/in/a.jsonl", policy, true, source(s, "s3://lab.hayrick/in/a.jsonl")},
		{"an input, store on this machine", "s3:GetObject on s3://theirs/in/a.jsonl", "allow it to these credentials", true, source(here, "s3://theirs/in/a.jsonl")},
		{"a folder, store on this machine", "s3:ListBucket on s3://theirs/in/", "allow it to these credentials", true, func(ctx context.Context) error { return here.ListSources(ctx, "s3://theirs/in/", none) }},
		{"publish elsewhere", "s3:PutObject on s3://theirs/out/a", "another output.uri", true, func(ctx context.Context) error { return s.PublishBytes(ctx, "s3://theirs/out/", "a", nil) }},
		{"publish", "s3:PutObject on s3://lab.hayrick/out/a", policy, true, func(ctx context.Context) error { return s.PublishBytes(ctx, "s3://lab.hayrick/out/", "a", nil) }},
		{"publish beside out/", "s3:PutObject on s3://lab.hayrick/x/a", "below s3://lab.hayrick/out/: move it there", true, func(ctx context.Context) error { return s.PublishBytes(ctx, "s3://lab.hayrick/x/", "a", nil) }},
		{"remove what was published", "s3:DeleteObject on s3://theirs/out/a", "another output.uri", true, func(ctx context.Context) error { return s.RemoveOutput(ctx, "s3://theirs/out/", "a") }},
		{"publish a file of the store", "s3:GetObject on s3://lab.hayrick/" + job.Plan(), policy, true, func(ctx context.Context) error { return s.PublishFile(ctx, "s3://theirs/out/", "a", job.Plan()) }},
		{"commit", "s3:PutObject on s3://lab.hayrick/" + job.Plan(), policy, true, func(ctx context.Context) error { _, err := s.Commit(ctx, job.Plan(), nil); return err }},
		{"open", "s3:GetObject on s3://lab.hayrick/" + job.Plan(), policy, true, func(ctx context.Context) error { _, err := s.Open(ctx, job.Plan(), 0, -1); return err }},
		{"put in parts", "s3:PutObject on s3://lab.hayrick/" + job.Plan(), policy, true, func(ctx context.Context) error {
			return s.Put(ctx, job.Plan(), bytes.NewReader(make([]byte, partBytes+1)))
		}},
		{"list the runs", "s3:ListBucket on s3://lab.hayrick/jobs/", policy, true, func(ctx context.Context) error { _, err := s.Jobs(ctx); return err }},
		{"claim", "dynamodb:PutItem on the table lab.hayrick", policy, false, func(ctx context.Context) error {
			_, err := s.Claim(ctx, hayrick.ClaimAsk{TaskRef: hayrick.TaskRef{JobID: string(job), TaskID: "task-0000"}, Attempt: "a", Lease: time.Minute})
			return err
		}},
		{"mark", "dynamodb:UpdateItem on the table lab.hayrick", policy, false, func(ctx context.Context) error {
			_, err := s.Mark(ctx, hayrick.Mark{Block: hayrick.BlockID{JobID: string(job)}, Total: 1})
			return err
		}},
		{"blocks", "dynamodb:Query on the table lab.hayrick", policy, false, func(ctx context.Context) error { _, err := s.Blocks(ctx, string(job), 0, "initial_batch"); return err }},
		{"tokens", "dynamodb:GetItem on the table lab.hayrick", policy, false, func(ctx context.Context) error {
			return s.Feedback(ctx, "k", ratelimit.Limits{}, ratelimit.Feedback{}, time.Now)
		}},
		{"send", "sqs:SendMessage on the queue lab-hayrick-tasks", policy, false, func(ctx context.Context) error { return s.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{}) }},
		{"receive", "sqs:ReceiveMessage on the queue lab-hayrick-tasks", policy, false, func(ctx context.Context) error {
			_, err := s.Receive(ctx, hayrick.QueueTasks, 1, time.Minute, 0)
			return err
		}},
		{"the bucket as a whole", "ListObjectVersions on s3://lab.hayrick/", "who makes a store", true, func(ctx context.Context) error { _, _, err := s.Data().State(ctx); return err }},
	} {
		err := c.do(t.Context())
		var u *hayrick.UserError
		if !errors.As(err, &u) || u.Exit != exitCredentials || u.What != "AWS refuses "+c.says || !strings.Contains(u.Hint, c.hint) {
			t.Errorf("%s: %v\n%#v", c.what, err, u)
			continue
		}
		if errors.Is(err, hayrick.ErrDenied) != c.one {
			t.Errorf("%s: of one object is %v, want %v", c.what, !c.one, c.one)
		}
	}
}

// Of a copy AWS does not say which half it refuses: both are named.
func TestARefusedCopyNamesBothRights(t *testing.T) {
	s := refusedStore("lab", func(r *http.Request) *http.Response {
		if r.Method != http.MethodHead {
			return nil
		}
		return &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: 3, Header: http.Header{"Etag": {`"e"`}, "Content-Length": {"3"}}, Body: http.NoBody}
	})
	key := manifest.Job("small-20261120-kdmqra").Plan()
	err := s.PublishFile(t.Context(), "s3://theirs/out/", "a", key)
	var u *hayrick.UserError
	if want := "AWS refuses s3:GetObject on s3://lab/" + key + ", or s3:PutObject on s3://theirs/out/a"; !errors.As(err, &u) || u.What != want || !strings.Contains(u.Hint, "another output.uri") {
		t.Errorf("%v, want %s", err, want)
	}
}
