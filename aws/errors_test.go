package aws

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"hayrick"
)

// What a person has to mend is said as such, with the step that mends it, under
// whichever status the service says it.
func TestExplainNamesWhatToMend(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		exit   int
		hint   string
	}{
		{http.StatusBadRequest, "ExpiredToken", 5, "log in"},          // S3
		{http.StatusBadRequest, "ExpiredTokenException", 5, "log in"}, // DynamoDB
		{http.StatusForbidden, "ExpiredToken", 5, "log in"},           // SQS
		{http.StatusBadRequest, "InvalidToken", 5, "credentials"},
		{http.StatusForbidden, "AccessDenied", 5, "credentials"},
		{http.StatusForbidden, "RequestTimeTooSkewed", 5, "clock"},
		{http.StatusBadRequest, "AuthorizationHeaderMalformed", 4, "AWS_REGION"},
		{http.StatusMovedPermanently, "PermanentRedirect", 4, "AWS_REGION"},
		{http.StatusMovedPermanently, "", 4, "AWS_REGION"}, // to HEAD, without a body
		{http.StatusNotFound, "NoSuchBucket", 4, "AWS_REGION"},
	} {
		said := explain(fmt.Errorf("call: %w", &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: c.status}},
			Err:      &smithy.GenericAPIError{Code: c.code},
		}}))
		var user *hayrick.UserError
		if !errors.As(said, &user) || user.Exit != c.exit || !strings.Contains(user.Hint, c.hint) {
			t.Errorf("%d %s: %#v", c.status, c.code, said)
		}
	}
}

// A message that no process of ours can have sent is told apart before anybody looks
// for its job.
func TestDeliveredReadsOnlyOurs(t *testing.T) {
	for _, text := range []string{``, `junk`, `null`, `{}`, `{"job_id":7}`, `{"job_id":"../../etc"}`, `{"job_id":"a/b"}`, `{"job_id":"A b"}`} {
		if d, _, err := Delivered(text, "receipt", "1"); err == nil {
			t.Errorf("%q is taken for %+v", text, d)
		}
	}
	if _, _, err := Delivered(`{"job_id":"small-20261120-kdmqra"}`, "receipt", "1"); err != nil {
		t.Error(err)
	}
}
