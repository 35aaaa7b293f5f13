// Package standins makes stores on whatever AWS_* points to: on the stand-ins that
// localstack/up starts, an emulator, or an account. What it makes has the properties of
// infra's template.
//
// Tests with the build tag standins import it, for they need the servers, and
// localstack/mkstore.
package standins

import (
	"context"
	"errors"
	"fmt"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"

	"hayrick/infra"
)

// Make makes the parts of a store that are not there: a stand-in that was started again
// has lost some of them.
func Make(ctx context.Context, cfg sdk.Config, name string) error {
	cfg.Logger = logging.Nop{} // what it says of a refused request is said by the error
	stack, err := stackOf(cfg, name)
	if err == nil {
		err = errors.Join(bucket(ctx, cfg, stack), table(ctx, cfg, stack), queues(ctx, cfg, name))
	}
	if err != nil {
		return fmt.Errorf("make the store %s: %w (localstack/up starts the stand-ins)", name, err)
	}
	return nil
}

func stackOf(cfg sdk.Config, name string) (*infra.Stack, error) {
	return stackIn(cfg, name, "000000000000")
}

func stackIn(cfg sdk.Config, name, account string) (*infra.Stack, error) {
	return infra.Resolve(infra.Params{Values: map[string]string{"Name": name, "BudgetEmail": "nobody@example.invalid"}, Account: account, Region: cfg.Region})
}

// S3 is a client as the adapter makes it.
func S3(cfg sdk.Config) *s3.Client {
	return s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
}

// bucket is made without its policy: that asks for TLS, which stand-ins do not have.
func bucket(ctx context.Context, cfg sdk.Config, stack *infra.Stack) error {
	b := stack.Bucket()
	in := &s3.CreateBucketInput{Bucket: &b.Name}
	if cfg.Region != "us-east-1" { // which is the one without a name here
		in.CreateBucketConfiguration = &s3types.CreateBucketConfiguration{LocationConstraint: s3types.BucketLocationConstraint(cfg.Region)}
	}
	_, err := S3(cfg).CreateBucket(ctx, in)
	var there *s3types.BucketAlreadyOwnedByYou
	if errors.As(err, &there) {
		return nil
	}
	return err
}

func table(ctx context.Context, cfg sdk.Config, stack *infra.Stack) error {
	t := stack.Table()
	in := &dynamodb.CreateTableInput{TableName: &t.Name, BillingMode: dbtypes.BillingMode(t.Billing)}
	for _, k := range t.Keys {
		in.KeySchema = append(in.KeySchema, dbtypes.KeySchemaElement{AttributeName: sdk.String(k.Name), KeyType: dbtypes.KeyType(k.Type)})
	}
	for _, a := range t.Attributes {
		in.AttributeDefinitions = append(in.AttributeDefinitions, dbtypes.AttributeDefinition{AttributeName: sdk.String(a.Name), AttributeType: dbtypes.ScalarAttributeType(a.Type)})
	}
	db := dynamodb.NewFromConfig(cfg)
	var there *dbtypes.ResourceInUseException
	if _, err := db.CreateTable(ctx, in); errors.As(err, &there) {
		return nil
	} else if err != nil {
		return err
	}
	_, err := db.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
		TableName: &t.Name, TimeToLiveSpecification: &dbtypes.TimeToLiveSpecification{AttributeName: &t.TTL, Enabled: sdk.Bool(true)},
	})
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "UnknownOperationException" {
		return nil // some emulators end no items; doctor says so
	}
	return err
}

// queues makes the one of dead letters first: its ARN says which account this is, real or
// played, and the other names it by that.
func queues(ctx context.Context, cfg sdk.Config, name string) error {
	stack, err := stackOf(cfg, name)
	if err != nil {
		return err
	}
	client := sqs.NewFromConfig(cfg)
	dead := stack.Queues()[0]
	made, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &dead.Name, Attributes: dead.Attributes})
	if err != nil {
		return err
	}
	out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: made.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameQueueArn}})
	if err != nil {
		return err
	}
	parts := strings.Split(out.Attributes["QueueArn"], ":")
	if len(parts) != 6 {
		return fmt.Errorf("the queue %s has the ARN %q", dead.Name, out.Attributes["QueueArn"])
	}
	if stack, err = stackIn(cfg, name, parts[4]); err != nil {
		return err
	}
	for _, q := range stack.Queues()[1:] {
		if _, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &q.Name, Attributes: q.Attributes}); err != nil {
			return err
		}
	}
	return nil
}
