package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// benchLambda starts the function as Lambda does and times it from exec until it asks
// the Runtime API for its first invocation, and weighs the zip that it comes in.
func benchLambda(ctx context.Context, b *bench) error {
	file := filepath.Join(b.dir, "lambda.zip")
	if _, err := b.run(ctx, b.dir, io.Discard, "infra", "zip", "-o", file); err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	err = b.startup(ctx, "cold start of the function, exec to the first `next`", "median of 20; the peer is exec to exit", func() (float64, error) {
		return b.coldStart(ctx)
	})
	if err != nil {
		return err
	}
	b.report.addValue(row{What: "zip of the functions", Unit: "B", Value: float64(info.Size())}, atMost(25<<20))
	return nil
}

// coldStart starts one process in a sandbox of its own.
func (b *bench) coldStart(ctx context.Context) (seconds float64, err error) {
	tmp, err := os.MkdirTemp(b.dir, "sandbox-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(tmp)
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	asked := make(chan time.Time, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/2018-06-01/runtime/invocation/next" {
			asked <- time.Now()
		}
		<-r.Context().Done()
	})}
	go server.Serve(api)
	defer server.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := command(ctx, b.hayrick)
	cmd.Dir = tmp
	cmd.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + api.Addr().String(), "HAYRICK_STORE=s3://bench", "TMPDIR=" + tmp,
		"AWS_LAMBDA_FUNCTION_NAME=bench", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=2048", "AWS_LAMBDA_LOG_STREAM_NAME=bench",
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=bench", "AWS_SECRET_ACCESS_KEY=bench",
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case at := <-asked:
		cancel()
		<-ended
		return at.Sub(begun).Seconds(), nil
	case err := <-ended:
		return 0, fmt.Errorf("the function ended before it asked for anything: %w", err)
	}
}
