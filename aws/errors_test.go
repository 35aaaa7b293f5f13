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

// reply is an error as the SDK returns it.
func reply(status int, code string) error {
	return fmt.Errorf("call: %w", &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
		Err:      &smithy.GenericAPIError{Code: code},
	}})
}

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
		{http.StatusBadRequest, "InvalidToken", 5, "AWS_PROFILE"},
		{http.StatusForbidden, "SignatureDoesNotMatch", 5, "AWS_PROFILE"},        // S3, SQS
		{http.StatusForbidden, "InvalidAccessKeyId", 5, "AWS_PROFILE"},           // S3
		{http.StatusBadRequest, "UnrecognizedClientException", 5, "AWS_PROFILE"}, // DynamoDB
		{http.StatusForbidden, "AccessDenied", 5, "credentials"},
		{http.StatusForbidden, "RequestTimeTooSkewed", 5, "clock"},
		{http.StatusBadRequest, "AuthorizationHeaderMalformed", 4, "AWS_REGION"},
		{http.StatusMovedPermanently, "PermanentRedirect", 4, "AWS_REGION"},
		{http.StatusMovedPermanently, "", 4, "AWS_REGION"}, // to HEAD, without a body
		{http.StatusNotFound, "NoSuchBucket", 4, "AWS_REGION"},
		{http.StatusBadRequest, "InvalidBucketName", 2, "lower-case"},
	} {
		said := explain(reply(c.status, c.code))
		var user *hayrick.UserError
		if !errors.As(said, &user) || user.Exit != c.exit || !strings.Contains(user.Hint, c.hint) {
			t.Errorf("%d %s: %#v", c.status, c.code, said)
		}
	}
}

// What is wrong with a bucket is said with its name and what it is for, once: who asked
// first knows best.
func TestABucketThatIsWrongIsNamed(t *testing.T) {
	for _, c := range []struct {
		status        int
		code, purpose string
		exit          int
		what, hint    string
	}{
		{http.StatusNotFound, "NoSuchBucket", forInput, 4, "the bucket b of the input does not exist", "input.uri"},
		{http.StatusNotFound, "NoSuchBucket", forOutput, 4, "the bucket b of the output does not exist", "output.uri"},
		{http.StatusNotFound, "NoSuchBucket", forStore, 4, "the bucket b of the store does not exist", "infra up"},
		{http.StatusBadRequest, "InvalidBucketName", forInput, 2, `"b", that of the input`, "input.uri"},
		{http.StatusBadRequest, "InvalidBucketName", forStore, 2, `"b", that of the store`, "-C"},
		{http.StatusMovedPermanently, "PermanentRedirect", forOutput, 4, "the bucket b of the output is in another region", "output.uri"},
		{http.StatusMovedPermanently, "PermanentRedirect", forStore, 4, otherRegion, "AWS_REGION"},
		{http.StatusForbidden, "AccessDenied", forInput, 5, "AWS refuses", "credentials"},
	} {
		said := inBucket(fmt.Errorf("list: %w", explain(reply(c.status, c.code))), "b", c.purpose)
		for range 2 {
			var user *hayrick.UserError
			if !errors.As(said, &user) || user.Exit != c.exit || !strings.Contains(user.What, c.what) || !strings.Contains(user.Hint, c.hint) || code(said) != c.code {
				t.Errorf("%s of the %s: %#v", c.code, c.purpose, said)
			}
			said = inBucket(said, "another", forOutput+"s")
			if user != nil && user.What == otherRegion {
				break // nothing was named, so that it still may be
			}
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

// A publisher that S3 answers what the next request changes nothing of hears that it is
// its own trouble, with what to do; of anything else it asks again.
func TestAPublisherThatS3DoesNotServe(t *testing.T) {
	s, theirs := &Store{name: "lab"}, object{"theirs", "out/part-0.parquet"}
	for _, c := range []struct {
		status int
		code   string
		exit   int // 0: it is tried again
		hint   string
	}{
		{http.StatusBadRequest, "InvalidRequest", 5, "bucket theirs"},
		{http.StatusBadRequest, "InvalidArgument", 5, "bucket theirs"},
		{http.StatusBadRequest, "KMS.DisabledException", 5, "encryption"},
		{http.StatusBadRequest, "EntityTooLarge", 5, "bucket theirs"},
		{http.StatusMethodNotAllowed, "MethodNotAllowed", 5, "bucket theirs"},
		{http.StatusNotFound, "NoSuchBucket", 4, "make the bucket"},
		{http.StatusBadRequest, "InvalidBucketName", 2, "output.uri"},
		{http.StatusMovedPermanently, "PermanentRedirect", 4, "output.uri"},
		{http.StatusBadRequest, "RequestTimeout", 0, ""},
		{http.StatusBadRequest, "BadDigest", 0, ""},
		{http.StatusBadRequest, "InvalidPart", 0, ""},
		{http.StatusBadRequest, "ThrottlingException", 0, ""},
		{http.StatusBadRequest, "KMS.ThrottlingException", 0, ""},
		{http.StatusTooManyRequests, "TooManyRequests", 0, ""},
		{http.StatusRequestTimeout, "RequestTimeout", 0, ""},
		{http.StatusConflict, "OperationAborted", 0, ""},
		{http.StatusPreconditionFailed, "PreconditionFailed", 0, ""},
		{http.StatusNotFound, "NoSuchUpload", 0, ""},
		{http.StatusInternalServerError, "InternalError", 0, ""},
		{http.StatusServiceUnavailable, "SlowDown", 0, ""},
	} {
		said := s.output(unknown(reply(c.status, c.code)), theirs)
		var user *hayrick.UserError
		known := errors.As(said, &user)
		if known != (c.exit != 0) || errors.Is(said, hayrick.ErrDenied) != known {
			t.Errorf("%d %s: %v", c.status, c.code, said)
		} else if known && (user.Exit != c.exit || !strings.Contains(user.Hint, c.hint)) {
			t.Errorf("%d %s: exit %d, %s", c.status, c.code, user.Exit, user.Hint)
		}
	}
	// No answer at all is tried again. A bucket of the store that is gone is the trouble of all.
	if err := s.output(unknown(errors.New("connection reset")), theirs); errors.Is(err, hayrick.ErrDenied) {
		t.Error(err)
	}
	if err := s.output(unknown(reply(http.StatusNotFound, "NoSuchBucket")), object{"lab", "out/a"}); errors.Is(err, hayrick.ErrDenied) {
		t.Error(err)
	}
}
