package aws

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// How long a connection may be silent, in both directions, while a request is under way.
// S3 may join parts for a while before it says a word; SQS holds a poll for maxLongPoll.
const (
	silenceS3    = time.Minute
	silenceOther = 30 * time.Second
)

// bounded is c with connections that are given up after silence: a service that takes a
// request and never answers, and a connection that some firewall has forgotten, end by
// nothing else, and whoever waits for them waits for ever. The SDK tries such a request
// again; of a write it is not known whether it happened. A client that a caller built in
// another way stays as it is.
func bounded(c aws.HTTPClient, silence time.Duration) aws.HTTPClient {
	b, ok := c.(*awshttp.BuildableClient)
	if !ok {
		return c
	}
	return b.WithTransportOptions(func(t *http.Transport) {
		dial := t.DialContext
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &heard{Conn: conn, silence: silence}, nil
		}
		t.IdleConnTimeout = silence / 2 // unused ones go first: none is given up just as it is taken
	})
}

// heard is a connection that fails when nothing has moved on it for silence.
type heard struct {
	net.Conn
	silence time.Duration
}

// The deadline is that of reads and writes alike: who writes a request has a read under
// way already, from before.
func (c *heard) Read(b []byte) (int, error) {
	if err := c.Conn.SetDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *heard) Write(b []byte) (int, error) {
	if err := c.Conn.SetDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
