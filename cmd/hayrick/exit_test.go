package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
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
	if code := exitCode(&net.OpError{Op: "read", Net: "tcp", Err: context.Canceled}); code != exitInterrupted {
		t.Errorf("an interrupted read ends with %d", code)
	}
}
