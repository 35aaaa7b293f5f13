package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// A network that is not there is no bug of ours: the same command goes on later.
func TestNoNetworkIsTemporary(t *testing.T) {
	op := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for _, err := range []error{op, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "s3"}}} {
		c := complaintOf(fmt.Errorf("list the runs: %w", &url.Error{Op: "Get", URL: "https://s3", Err: err}))
		if c.Exit != exitTemporary || !strings.Contains(c.Hint, "goes on") {
			t.Errorf("%v ends with %d, hint %q", err, c.Exit, c.Hint)
		}
	}
	for status, want := range map[int]int{http.StatusInternalServerError: exitTemporary, http.StatusBadGateway: exitTemporary, http.StatusBadRequest: exitBug} {
		reply := &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: errors.New("InternalError"),
		}}
		if c := complaintOf(fmt.Errorf("read the input: %w", reply)); c.Exit != want {
			t.Errorf("a read that S3 answers with %d ends with %d, want %d", status, c.Exit, want)
		}
	}
	if code := exitCode(&net.OpError{Op: "read", Net: "tcp", Err: context.Canceled}); code != exitInterrupted {
		t.Errorf("an interrupted read ends with %d", code)
	}
}
