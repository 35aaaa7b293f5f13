//go:build standins

package aws_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"hayrick"
	"hayrick/aws"
	"hayrick/internal/storetest"
)

// config is what production uses: the environment, as localstack/env sets it.
func config(t testing.TB) sdk.Config {
	t.Helper()
	cfg, err := aws.LoadConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// fresh makes the parts of a new store and returns its name.
func fresh(t testing.TB, cfg sdk.Config) string {
	t.Helper()
	var b [6]byte
	rand.Read(b[:])
	name := "hayrick-test-" + hex.EncodeToString(b[:])
	ctx, n := t.Context(), aws.NamesOf(name)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := &s3.CreateBucketInput{Bucket: &n.Bucket}
	if cfg.Region != "us-east-1" { // which is the one without a name here
		in.CreateBucketConfiguration = &s3types.CreateBucketConfiguration{LocationConstraint: s3types.BucketLocationConstraint(cfg.Region)}
	}
	_, err := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }).CreateBucket(ctx, in)
	must(err)
	_, err = dynamodb.NewFromConfig(cfg).CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &n.Table, BillingMode: dbtypes.BillingModePayPerRequest,
		KeySchema:            []dbtypes.KeySchemaElement{{AttributeName: sdk.String("pk"), KeyType: dbtypes.KeyTypeHash}, {AttributeName: sdk.String("sk"), KeyType: dbtypes.KeyTypeRange}},
		AttributeDefinitions: []dbtypes.AttributeDefinition{{AttributeName: sdk.String("pk"), AttributeType: dbtypes.ScalarAttributeTypeS}, {AttributeName: sdk.String("sk"), AttributeType: dbtypes.ScalarAttributeTypeS}},
	})
	must(err)
	q := sqs.NewFromConfig(cfg)
	dead, err := q.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &n.Dead})
	must(err)
	attrs, err := q.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: dead.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{"QueueArn"}})
	must(err)
	for _, name := range []string{n.Tasks, n.Failures} {
		_, err := q.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{
			"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"10"}`, attrs.Attributes["QueueArn"]),
		}})
		must(err)
	}
	return name
}

// TestContract is the contract of all adapters, on real servers.
func TestContract(t *testing.T) {
	cfg := config(t)
	storetest.Run(t, func(t *testing.T) storetest.Ports {
		name := fresh(t, cfg)
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
	_, err := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }).PutObject(context.Background(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(data)})
	if err != nil {
		t.Fatal(err)
	}
}
