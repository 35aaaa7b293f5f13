//go:build standins

package aws_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"hayrick"
	"hayrick/aws"
	"hayrick/internal/standins"
	"hayrick/internal/storetest"
)

// TestContract is the contract of all adapters, on real servers. Each test has a store
// of its own, and mostly waits for leases to run out.
func TestContract(t *testing.T) {
	t.Parallel()
	cfg := standins.Config(t)
	storetest.Run(t, func(t *testing.T) storetest.Ports {
		t.Parallel()
		name := standins.Store(t, cfg)
		processes := 0
		var open func(t *testing.T) storetest.Ports
		open = func(t *testing.T) storetest.Ports {
			processes++
			world := hayrick.RealWorld(fmt.Sprintf("host/%d", processes))
			s := aws.New(cfg, name, world, nil)
			return storetest.Ports{
				Clock: world.Clock, Worker: world.Worker, Scale: 3 * time.Second,
				Objects: s, Outputs: s, State: s, Queue: s, Buckets: s, Inputs: s,
				OutputURI: aws.Scheme + name + "/out/run/",
				SetInput: func(file string, data []byte) string {
					put(t, cfg, name, "in/"+file, data)
					return aws.Scheme + name + "/in/" + file
				},
				Another: open,
			}
		}
		return open(t)
	})
}

func put(t testing.TB, cfg sdk.Config, bucket, key string, data []byte) {
	t.Helper()
	_, err := standins.S3(cfg).PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(data)})
	if err != nil {
		t.Fatal(err)
	}
}
