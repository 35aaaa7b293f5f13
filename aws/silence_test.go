package aws

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"hayrick"
)

// talk serves each connection by say and returns the address.
func talk(t *testing.T, say func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go say(c)
		}
	}()
	return "http://" + l.Addr().String()
}

// request reads a request and its body.
func request(c net.Conn) *http.Request {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
	}
	if err != nil {
		return nil
	}
	return r
}

// A server that falls silent is given up, wherever it does so.
func TestASilentServerIsGivenUp(t *testing.T) {
	for name, say := range map[string]func(net.Conn){
		"before it reads": func(net.Conn) {},
		"before it answers": func(c net.Conn) {
			request(c)
		},
		"within its answer": func(c net.Conn) {
			if request(c) != nil {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := bounded(awshttp.NewBuildableClient(), 200*time.Millisecond)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, talk(t, say), bytes.NewReader(make([]byte, 32<<20))) // more than lies in the buffers of a connection
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(r)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			// Whichever of its reads and writes was late first closes it for the other.
			if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Who answers slowly, but does, is waited for.
func TestASlowAnswerIsWaitedFor(t *testing.T) {
	const silence = 2 * time.Second
	url := talk(t, func(c net.Conn) {
		if request(c) == nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
		for range 6 {
			time.Sleep(silence / 4)
			io.WriteString(c, "x")
		}
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := bounded(awshttp.NewBuildableClient(), silence).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "xxxxxx" || err != nil {
		t.Errorf("%q %v", body, err)
	}
}

// The SDK asks again where it heard nothing, and every client of a store gives up.
func TestClientsAskAgainAfterSilence(t *testing.T) {
	var asked atomic.Int32
	url := talk(t, func(c net.Conn) {
		if request(c) != nil && asked.Add(1) > 1 {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		}
	})
	cfg := sdk.Config{
		Region: "us-east-1", BaseEndpoint: &url, HTTPClient: awshttp.NewBuildableClient(),
		Credentials: sdk.CredentialsProviderFunc(func(context.Context) (sdk.Credentials, error) {
			return sdk.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		}),
	}
	s := New(cfg, "lab", hayrick.RealWorld("test"), nil)
	for service, client := range map[string]any{"S3": s.s3.Options().HTTPClient, "DynamoDB": s.db.Options().HTTPClient, "SQS": s.sqs.Options().HTTPClient, "CloudFormation": NewStacks(cfg, s.world, nil).cf.Options().HTTPClient} {
		conn, err := client.(*awshttp.BuildableClient).GetTransport().DialContext(t.Context(), "tcp", url[len("http://"):])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		h, ok := conn.(*heard)
		if !ok {
			t.Fatalf("%s waits for ever", service)
		}
		if _, nested := h.Conn.(*heard); nested || h.silence < maxLongPoll+pollGrace && service == "SQS" {
			t.Errorf("%s: %v, nested %v", service, h.silence, nested)
		}
	}
	impatient := dynamodb.New(s.db.Options(), func(o *dynamodb.Options) { o.HTTPClient = bounded(cfg.HTTPClient, 100*time.Millisecond) })
	if _, err := impatient.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &s.name, Key: key("job#a", "a")}); err != nil || asked.Load() != 2 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}
