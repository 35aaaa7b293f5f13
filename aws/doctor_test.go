//go:build standins

package aws_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"hayrick"
	"hayrick/aws"
	"hayrick/doctor"
	"hayrick/internal/standins"
)

// diagnose examines and judges a store.
func diagnose(t *testing.T, cfg sdk.Config, name string) (map[string]doctor.Line, []doctor.Line) {
	t.Helper()
	facts, err := aws.Examine(t.Context(), cfg, name, hayrick.RealWorld("test"), nil, 64, 3)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := doctor.JudgeAWS(facts)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]doctor.Line{}
	for _, l := range lines {
		by[l.Check] = l
	}
	return by, lines
}

// A store of the template's properties is well as far as the servers show it; what they
// do not have is said to be not shown.
func TestDoctorOnStandIns(t *testing.T) {
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	by, lines := diagnose(t, cfg, name)
	for _, l := range lines {
		if l.Status == doctor.Fail {
			t.Errorf("%+v", l)
		}
	}
	for _, check := range []string{"conditional writes", "table", "table TTL", "queue " + aws.NamesOf(name).Tasks, "queue " + aws.NamesOf(name).Dead, "clock"} {
		if by[check].Status != doctor.OK {
			t.Errorf("%s: %+v", check, by[check])
		}
	}
	if l := by["bucket policy"]; l.Status == doctor.OK {
		t.Errorf("the bucket has no policy here: %+v", l)
	}

	// A queue that is not as the template says.
	q := sqs.NewFromConfig(cfg)
	url, err := q.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: sdk.String(aws.NamesOf(name).Tasks)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: url.QueueUrl, Attributes: map[string]string{"MessageRetentionPeriod": "1209600"}}); err != nil {
		t.Fatal(err)
	}
	by, _ = diagnose(t, cfg, name)
	if l := by["queue "+aws.NamesOf(name).Tasks]; l.Status != doctor.Warn || !strings.Contains(l.What, "age") {
		t.Errorf("messages that live as long as dead ones: %+v", l)
	}
}

func TestDoctorWithoutAStore(t *testing.T) {
	_, lines := diagnose(t, standins.Config(t), "hayrick-test-there-is-none")
	if got := doctor.Worst(lines); got != 4 {
		t.Errorf("exit %d: %+v", got, lines)
	}
}

// Wrong credentials are the first thing that is said.
func TestDoctorWithWrongCredentials(t *testing.T) {
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	cfg.Credentials = sdk.CredentialsProviderFunc(func(context.Context) (sdk.Credentials, error) {
		return sdk.Credentials{AccessKeyID: "test", SecretAccessKey: "wrong"}, nil
	})
	_, lines := diagnose(t, cfg, name)
	if got := doctor.Worst(lines); got != 5 {
		t.Errorf("exit %d: %+v", got, lines)
	}
}

// Who may look at everything and write nothing is told so: nothing can be submitted.
func TestDoctorOfAViewer(t *testing.T) {
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	w := newWire()
	w.broken = func(r *http.Request) string {
		if r.Method == http.MethodPut {
			return "403"
		}
		return ""
	}
	cfg.HTTPClient = w
	by, lines := diagnose(t, cfg, name)
	if l := by["conditional writes"]; l.Status != doctor.Fail || !strings.Contains(l.What, "only read") || doctor.Worst(lines) != 5 {
		t.Errorf("%+v", l)
	}
}

// An S3 that does not know If-None-Match is what a request without it meets: the race
// has several winners, and nothing may run there.
func TestDoctorSeesThatPutIfAbsentDoesNotHold(t *testing.T) {
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	cfg.APIOptions = append(cfg.APIOptions, func(s *middleware.Stack) error {
		return s.Build.Add(middleware.BuildMiddlewareFunc("Forget", func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
			if r, ok := in.Request.(*smithyhttp.Request); ok {
				r.Header.Del("If-None-Match")
			}
			return next.HandleBuild(ctx, in)
		}), middleware.After)
	})
	by, lines := diagnose(t, cfg, name)
	if l := by["conditional writes"]; l.Status != doctor.Fail || doctor.Worst(lines) != 3 {
		t.Errorf("%+v", l)
	}
}
