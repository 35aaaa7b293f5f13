package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
		return &hayrick.UserError{What: "the bucket does not exist", Hint: "check the store's name and AWS_REGION, or make it: `hayrick infra up`", Exit: 4, Err: err}
	case c == "ResourceNotFoundException":
		return &hayrick.UserError{What: "the table does not exist", Hint: "check the store's name and AWS_REGION, or make it: `hayrick infra up`", Exit: 4, Err: err}
	case c == "QueueDoesNotExist", c == "AWS.SimpleQueueService.NonExistentQueue":
		return &hayrick.UserError{What: "the queue does not exist", Hint: "check the store's name and AWS_REGION, or make it: `hayrick infra up`", Exit: 4, Err: err}
	case status(err) == http.StatusMovedPermanently, c == "PermanentRedirect", c == "AuthorizationHeaderMalformed":
		return &hayrick.UserError{What: "the bucket is in another region", Hint: "set AWS_REGION to the region of the bucket", Exit: 4, Err: err}
	case status(err) == http.StatusNotFound, c == "NoSuchKey", c == "NotFound":
		return fmt.Errorf("%w: %w", hayrick.ErrNotFound, err)
	case c == "RequestTimeTooSkewed":
		return &hayrick.UserError{What: "this machine's clock is wrong, and AWS refuses the request", Hint: "set the clock, then run the same command again", Exit: exitCredentials, Err: err}
	case c == "ExpiredToken", c == "ExpiredTokenException", c == "RequestExpired":
		return &hayrick.UserError{What: "the AWS credentials have expired", Hint: "log in again: `aws sso login`; the same command goes on where it stopped", Exit: exitCredentials, Err: err}
	case status(err) == http.StatusForbidden, status(err) == http.StatusUnauthorized, c == "AccessDeniedException",
		c == "UnrecognizedClientException", c == "InvalidSignatureException", c == "InvalidToken":
		return &hayrick.UserError{What: "AWS refuses the request", Hint: "check the credentials, and the policies of the role (`hayrick infra print` has them); `hayrick doctor` says which part refuses", Exit: exitCredentials, Err: err}
	case noCredentials(err):
		return &hayrick.UserError{What: "there are no AWS credentials", Hint: "set AWS_PROFILE, or log in: `aws sso login`", Exit: exitCredentials, Err: err}
	}
	return err
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

// unknown is err, marked as undecided where it is.
func unknown(err error) error {
	if undecided(err) && !errors.Is(err, hayrick.ErrUnknown) {
		return fmt.Errorf("%w: %w", hayrick.ErrUnknown, explain(err))
	}
	return explain(err)
}
