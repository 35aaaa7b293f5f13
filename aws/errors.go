package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"hayrick"
)

const exitCredentials = 5

// status is the HTTP status of a reply, or 0 when there was none.
func status(err error) int {
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}

// code is the service's name for an error, or "".
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

var throttles = retry.ThrottleErrorCode{Codes: retry.DefaultThrottleErrorCodes}

// explain turns an error of the SDK, after its own retries, into what a caller
// knows: a sentinel, or a *hayrick.UserError where a person has to do something.
// Whether a write happened is for the caller of a write to add (undecided).
func explain(err error) error {
	switch c := code(err); {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case throttles.IsErrorThrottle(err).Bool(), status(err) == http.StatusServiceUnavailable, status(err) == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", hayrick.ErrThrottled, err)
	case c == "NoSuchBucket":
		return &hayrick.UserError{What: noSuchBucket, Hint: "check the store's name and AWS_REGION, or make it: `hayrick infra up`", Exit: 4, Err: err}
	case c == "InvalidBucketName":
		return &hayrick.UserError{What: noBucketName, Hint: "write the name of a bucket: 3 to 63 lower-case letters, digits, dots and dashes", Exit: 2, Err: err}
	case c == "ResourceNotFoundException":
		return &hayrick.UserError{What: "the table does not exist", Hint: "check the store's name and AWS_REGION, or make it: `hayrick infra up`", Exit: 4, Err: err}
	case c == "QueueDoesNotExist", c == "AWS.SimpleQueueService.NonExistentQueue":
		return &hayrick.UserError{What: "the queue does not exist", Hint: "check the store's name and AWS_REGION, or make it: `hayrick infra up`", Exit: 4, Err: err}
	case status(err) == http.StatusMovedPermanently, c == "PermanentRedirect", c == "AuthorizationHeaderMalformed":
		return &hayrick.UserError{What: otherRegion, Hint: "set AWS_REGION to the region of the bucket", Exit: 4, Err: err}
	case status(err) == http.StatusNotFound, c == "NoSuchKey", c == "NotFound":
		return fmt.Errorf("%w: %w", hayrick.ErrNotFound, err)
	case c == "RequestTimeTooSkewed":
		return &hayrick.UserError{What: "this machine's clock is wrong, and AWS refuses the request", Hint: "set the clock, then run the same command again", Exit: exitCredentials, Err: err}
	case c == "ExpiredToken", c == "ExpiredTokenException", c == "RequestExpired":
		return &hayrick.UserError{What: "the AWS credentials have expired", Hint: "log in again: `aws sso login`; the same command goes on where it stopped", Exit: exitCredentials, Err: err}
	case slices.Contains(badCredentials, c):
		return &hayrick.UserError{What: "AWS does not take these credentials", Hint: "check AWS_PROFILE, or AWS_ACCESS_KEY_ID and what belongs to it: `aws sts get-caller-identity` says whose they are", Exit: exitCredentials, Err: err}
	case status(err) == http.StatusForbidden, status(err) == http.StatusUnauthorized, c == "AccessDeniedException":
		return denied(err)
	case noCredentials(err):
		return &hayrick.UserError{What: "there are no AWS credentials", Hint: "set AWS_PROFILE, or log in: `aws sso login`", Exit: exitCredentials, Err: err}
	}
	return err
}

// badCredentials are the words of S3, DynamoDB and SQS for credentials that nobody has,
// whatever they ask for. HEAD has no words: there it is a refusal like any other.
var badCredentials = []string{
	"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "UnrecognizedClientException", "InvalidSignatureException",
	"InvalidClientTokenId", "MissingAuthenticationToken", "MissingAuthenticationTokenException", "IncompleteSignature", "IncompleteSignatureException",
}

// What explain says of a bucket that it does not know the name of.
const (
	noSuchBucket = "the bucket does not exist"
	noBucketName = "S3 knows no bucket by such a name"
	otherRegion  = "the bucket is in another region"
)

// What a bucket is for, in the words of the job file where it is named there.
const (
	forStore  = "store"
	forInput  = "input"
	forOutput = "output"
)

// inBucket is err, which explain has judged, of a request about a bucket: where the bucket
// is what is wrong, it says which one, and what it is for. S3's own words name neither.
func inBucket(err error, bucket, purpose string) error {
	var u *hayrick.UserError
	if !errors.As(err, &u) {
		return err
	}
	set := "check " + purpose + ".uri"
	if purpose == forStore {
		set = "check the name after -C"
	}
	named := &hayrick.UserError{Exit: u.Exit, Err: u.Err}
	switch {
	case u.What == noSuchBucket && purpose == forStore:
		named.What, named.Hint = fmt.Sprintf("the bucket %s of the store does not exist", bucket), u.Hint
	case u.What == noSuchBucket:
		named.What, named.Hint = fmt.Sprintf("the bucket %s of the %s does not exist", bucket, purpose), set+", or make the bucket"
	case u.What == noBucketName:
		named.What, named.Hint = fmt.Sprintf("S3 knows no bucket by such a name as %q, that of the %s", bucket, purpose), set+": 3 to 63 lower-case letters, digits, dots and dashes"
	case u.What == otherRegion && purpose != forStore:
		named.What, named.Hint = fmt.Sprintf("the bucket %s of the %s is in another region than the store", bucket, purpose), set+", or copy it to a bucket in the store's region"
	default:
		return err
	}
	return named
}

// purpose is what the bucket of an input or output is for: that of the store is the
// store's, whatever else lies in it.
func (s *Store) purpose(o object, other string) string {
	if o.bucket == s.name {
		return forStore
	}
	return other
}

// noCredentials says that a request was never sent, because nobody could sign it.
func noCredentials(err error) bool {
	var signing *v4.SigningError
	return errors.As(err, &signing) || status(err) == 0 && strings.Contains(err.Error(), "get identity:")
}

// undecided says that a write may have happened: no reply, or one that says nothing
// about the effect. An earlier try of the same call may have been the one.
func undecided(err error) bool {
	switch s := status(err); {
	case err == nil:
		return false
	case s == 0:
		return code(err) == ""
	default:
		return s >= 500 || s == http.StatusRequestTimeout || s == http.StatusTooManyRequests || s == http.StatusConflict
	}
}

// passing are the words for what another request may not meet, among those that come with
// a 4xx: bytes that were damaged or late on their way, and parts that a cleaner removed.
var passing = []string{"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidPart", "RequestTimeout", "RequestTimeoutException"}

// forGood says that the service has understood a request and does not carry it out: the
// same request gets the same answer until a person has changed something.
func forGood(err error) bool {
	s, c := status(err), code(err)
	switch {
	case s < 400 || s >= 500 || undecided(err), slices.Contains(passing, c), strings.Contains(c, "Throttl"), throttles.IsErrorThrottle(err).Bool():
		return false
	case s == http.StatusPreconditionFailed, errors.Is(err, hayrick.ErrNotFound), errors.Is(err, hayrick.ErrCorrupt):
		return false
	}
	return true
}

// unknown is err, marked as undecided where it is.
func unknown(err error) error {
	if undecided(err) && !errors.Is(err, hayrick.ErrUnknown) {
		return fmt.Errorf("%w: %w", hayrick.ErrUnknown, explain(err))
	}
	return explain(err)
}
