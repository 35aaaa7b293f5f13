package aws

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"hayrick"
	"hayrick/doctor"
	"hayrick/infra"
)

// examiner fetches what doctor judges. It changes nothing but a few objects below
// doctor/, which the bucket's lifecycle removes.
type examiner struct {
	*Store
	cfg     aws.Config
	standIn bool
	lambda  *lambda.Client
}

// Examine asks for everything that doctor judges of a store. What cannot be had says why,
// so that there is no error but the caller's own end.
func Examine(ctx context.Context, cfg aws.Config, name string, world hayrick.World, log *slog.Logger, writers, rounds int) (doctor.AWS, error) {
	e := &examiner{Store: New(cfg, name, world, log), cfg: cfg}
	e.lambda = lambda.NewFromConfig(tuned(cfg, log), func(o *lambda.Options) { o.Retryer = adaptive() })
	for _, service := range []string{"S3", "DYNAMODB", "SQS"} {
		e.standIn = e.standIn || customEndpoint(cfg, service)
	}
	a := doctor.AWS{Store: name, Region: cfg.Region, StandIn: e.standIn, Queues: map[string]doctor.Fact[doctor.Queue]{}}
	a.Identity = fetch(e, "STS", func() (string, error) {
		out, err := sts.NewFromConfig(tuned(cfg, log)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil {
			return "", err
		}
		a.Account = aws.ToString(out.Account)
		return aws.ToString(out.Arn), nil
	})
	e.bucket(ctx, &a)
	if a.BucketRegion.Why == "" {
		a.Race = fetch(e, "S3", func() (doctor.Race, error) { return e.race(ctx, writers, rounds) })
	}
	e.table(ctx, &a)
	stack, err := infra.Resolve(infra.Params{Account: "000000000000", Region: cfg.Region, Values: map[string]string{"Name": name, "BudgetEmail": "nobody@example.invalid", "CodeKey": "code/x.zip"}})
	if err != nil {
		return a, fmt.Errorf("look up what the template makes of %s: %w", name, err)
	}
	for _, q := range stack.Queues() {
		a.Queues[q.Name] = fetch(e, "SQS", func() (doctor.Queue, error) { return e.queue(ctx, q.Name) })
	}
	e.functions(ctx, &a, stack)
	a.Clock = e.clock()
	return a, ctx.Err()
}

// fetch is a fact: what ask answers, or why it is not known.
func fetch[T any](e *examiner, service string, ask func() (T, error)) doctor.Fact[T] {
	var f doctor.Fact[T]
	if e.standIn && !customEndpoint(e.cfg, service) {
		f.Why, f.Err = doctor.NotShown, "requests go to stand-ins, and AWS_ENDPOINT_URL_"+service+" names none"
		return f
	}
	v, err := ask()
	if err == nil {
		return doctor.Known(v)
	}
	f.Why, f.Err = e.why(err), brief(err)
	return f
}

// lacks says of what a stand-in's bucket does not have that it is not shown: many make a
// bucket without it, whatever the template says, and nothing here would bring it back.
func lacks[T any](e *examiner, f *doctor.Fact[T], what string) {
	if e.standIn && f.Why == doctor.Missing {
		f.Why, f.Err = doctor.NotShown, what
	}
}

// absent are the codes of things that are not there.
var absent = map[string]bool{
	"NoSuchBucket": true, "NotFound": true, "NoSuchBucketPolicy": true, "NoSuchLifecycleConfiguration": true, "NoSuchPublicAccessBlockConfiguration": true,
	"ServerSideEncryptionConfigurationNotFoundError": true, "ResourceNotFoundException": true, "QueueDoesNotExist": true,
	"AWS.SimpleQueueService.NonExistentQueue": true,
}

func (e *examiner) why(err error) doctor.Why {
	switch s, c := status(err), code(err); {
	case absent[c]:
		return doctor.Missing
	case noCredentials(err), s == http.StatusForbidden, s == http.StatusUnauthorized, c == "UnrecognizedClientException", c == "InvalidClientTokenId", c == "ExpiredToken", c == "AccessDeniedException":
		return doctor.Denied
	// What a stand-in has not built: a page that is not found, or a word for it.
	case e.standIn && (s == http.StatusNotFound || s == http.StatusNotImplemented || s == http.StatusMethodNotAllowed || strings.Contains(c, "Unknown") || strings.Contains(c, "Unsupported") || c == "NotImplemented" || c == "InvalidAction"):
		return doctor.NotShown
	}
	return doctor.Broken
}

// brief is an error in a line.
func brief(err error) string {
	var api smithy.APIError
	var op *smithy.OperationError
	switch {
	case noCredentials(err):
		return "there are no AWS credentials"
	case errors.As(err, &api) && api.ErrorMessage() != "" && !strings.Contains(api.ErrorMessage(), "<"):
		return api.ErrorCode() + ": " + api.ErrorMessage()
	case errors.As(err, &api):
		return api.ErrorCode()
	case errors.As(err, &op) && status(err) != 0:
		return fmt.Sprintf("%s answers %s with %d", op.Service(), op.Operation(), status(err))
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func (e *examiner) bucket(ctx context.Context, a *doctor.AWS) {
	name := &e.name
	a.BucketRegion = fetch(e, "S3", func() (string, error) {
		out, err := e.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: name})
		if err == nil {
			return aws.ToString(out.BucketRegion), nil
		}
		// Asked in another region, S3 says which would be right.
		var re *awshttp.ResponseError
		if errors.As(err, &re) && status(err) != http.StatusForbidden {
			if at := re.Response.Header.Get("X-Amz-Bucket-Region"); at != "" {
				return at, nil
			}
		}
		return "", err
	})
	if a.BucketRegion.Why != "" {
		return
	}
	a.Policy = fetch(e, "S3", func() (string, error) {
		out, err := e.s3.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: name})
		if err != nil {
			return "", err
		}
		return aws.ToString(out.Policy), nil
	})
	lacks(e, &a.Policy, "the stand-in's bucket has none: it asks for TLS, which stand-ins do not have")
	a.Versioning = fetch(e, "S3", func() (string, error) {
		out, err := e.s3.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: name})
		if err != nil {
			return "", err
		}
		return string(out.Status), nil
	})
	a.Lifecycle = fetch(e, "S3", func() ([]doctor.Rule, error) {
		out, err := e.s3.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: name})
		if err != nil {
			return nil, err
		}
		return rulesOf(out.Rules), nil
	})
	lacks(e, &a.Lifecycle, "the stand-in's bucket has no rules")
	a.Public = fetch(e, "S3", func() (bool, error) {
		out, err := e.s3.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: name})
		if code(err) == "NoSuchPublicAccessBlockConfiguration" && !e.standIn {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		b := out.PublicAccessBlockConfiguration
		return b == nil || !(aws.ToBool(b.BlockPublicAcls) && aws.ToBool(b.BlockPublicPolicy) && aws.ToBool(b.IgnorePublicAcls) && aws.ToBool(b.RestrictPublicBuckets)), nil
	})
	lacks(e, &a.Public, "the stand-in's bucket blocks nothing, and is nobody's but yours")
	a.Encryption = fetch(e, "S3", func() (string, error) {
		out, err := e.s3.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: name})
		if err != nil {
			return "", err
		}
		if c := out.ServerSideEncryptionConfiguration; c != nil && len(c.Rules) > 0 && c.Rules[0].ApplyServerSideEncryptionByDefault != nil {
			return string(c.Rules[0].ApplyServerSideEncryptionByDefault.SSEAlgorithm), nil
		}
		return "", &smithy.GenericAPIError{Code: "ServerSideEncryptionConfigurationNotFoundError"}
	})
	lacks(e, &a.Encryption, "the stand-in's bucket has no default")
}

func rulesOf(rules []s3types.LifecycleRule) []doctor.Rule {
	out := []doctor.Rule{}
	for _, r := range rules {
		if r.Status != s3types.ExpirationStatusEnabled {
			continue
		}
		//lint:ignore SA1019 rules that were made with the old member are told with it
		d := doctor.Rule{ID: aws.ToString(r.ID), Prefix: aws.ToString(r.Prefix)}
		if f := r.Filter; f != nil && f.Prefix != nil {
			d.Prefix = *f.Prefix
		}
		if x := r.AbortIncompleteMultipartUpload; x != nil {
			d.AbortDays = int(aws.ToInt32(x.DaysAfterInitiation))
		}
		if x := r.Expiration; x != nil {
			d.ExpireDays = int(aws.ToInt32(x.Days))
		}
		out = append(out, d)
	}
	return out
}

// race lets writers put one key if it is absent, all at once, round after round. Nobody
// tries again: what counts is what each was told.
func (e *examiner) race(ctx context.Context, writers, rounds int) (doctor.Race, error) {
	r := doctor.Race{Writers: writers}
	var id [8]byte
	for i, n := 0, e.world.Rand.Uint64(); i < len(id); i++ {
		id[i] = byte(n >> (8 * i))
	}
	prefix := doctorPrefix + hex.EncodeToString(id[:]) + "/"
	for round := range rounds {
		key := prefix + strconv.Itoa(round)
		var won, unknown atomic.Int64
		winner, refused := atomic.Int64{}, atomic.Pointer[error]{}
		var done sync.WaitGroup
		start := make(chan struct{})
		for w := range writers {
			done.Add(1)
			e.world.Go("doctor", func() {
				defer done.Done()
				<-start
				_, err := e.s3.PutObject(ctx, &s3.PutObjectInput{
					Bucket: &e.name, Key: &key, Body: bytes.NewReader(strconv.AppendInt(nil, int64(w), 10)), IfNoneMatch: aws.String("*"),
				}, func(o *s3.Options) { o.Retryer = aws.NopRetryer{} })
				switch {
				case err == nil:
					won.Add(1)
					winner.Store(int64(w))
				case status(err) == http.StatusForbidden:
					refused.Store(&err)
				case status(err) != http.StatusPreconditionFailed:
					unknown.Add(1)
				}
			})
		}
		close(start)
		done.Wait()
		if err := refused.Load(); err != nil {
			return r, *err
		}
		r.Winners, r.Unknown = append(r.Winners, int(won.Load())), r.Unknown+int(unknown.Load())
		if won.Load() != 1 {
			continue
		}
		out, err := e.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &e.name, Key: &key})
		if err != nil {
			return r, err
		}
		body, err := io.ReadAll(out.Body)
		out.Body.Close()
		if err != nil {
			return r, err
		}
		if string(body) != strconv.FormatInt(winner.Load(), 10) {
			r.Lost++
		}
	}
	return r, nil
}

// doctorPrefix is where doctor writes; a rule of the bucket removes it after a day.
const doctorPrefix = "doctor/"

func (e *examiner) table(ctx context.Context, a *doctor.AWS) {
	name := NamesOf(e.name).Table
	a.Table = fetch(e, "DYNAMODB", func() (doctor.Table, error) {
		out, err := e.db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &name})
		if err != nil {
			return doctor.Table{}, err
		}
		t := doctor.Table{Status: string(out.Table.TableStatus), Billing: "PROVISIONED"}
		if b := out.Table.BillingModeSummary; b != nil {
			t.Billing = string(b.BillingMode)
		}
		types := map[string]string{}
		for _, d := range out.Table.AttributeDefinitions {
			types[aws.ToString(d.AttributeName)] = string(d.AttributeType)
		}
		for _, k := range out.Table.KeySchema {
			n := aws.ToString(k.AttributeName)
			t.Keys = append(t.Keys, n+":"+types[n]+":"+string(k.KeyType))
		}
		return t, nil
	})
	a.TTL = fetch(e, "DYNAMODB", func() (string, error) {
		out, err := e.db.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &name})
		if err != nil {
			return "", err
		}
		if d := out.TimeToLiveDescription; d != nil && strings.HasPrefix(string(d.TimeToLiveStatus), "ENABL") {
			return aws.ToString(d.AttributeName), nil
		}
		return "", nil
	})
	if e.standIn && a.TTL.Why == "" && a.TTL.Value == "" {
		a.TTL.Why, a.TTL.Err = doctor.NotShown, "the stand-in's table ends no items"
	}
}

func (e *examiner) queue(ctx context.Context, name string) (doctor.Queue, error) {
	url, err := e.sqs.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return doctor.Queue{}, err
	}
	out, err := e.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: url.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameAll}})
	if err != nil {
		return doctor.Queue{}, err
	}
	number := func(key string) int {
		n, _ := strconv.Atoi(out.Attributes[key]) // what is not a number is 0, and judged as such
		return n
	}
	q := doctor.Queue{
		ARN: out.Attributes["QueueArn"], Messages: number("ApproximateNumberOfMessages"),
		Visibility: time.Duration(number("VisibilityTimeout")) * time.Second, Retention: time.Duration(number("MessageRetentionPeriod")) * time.Second,
	}
	if text := out.Attributes["RedrivePolicy"]; text != "" {
		var p struct {
			Target string      `json:"deadLetterTargetArn"`
			Most   json.Number `json:"maxReceiveCount"` // some write it as a text
		}
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return q, fmt.Errorf("read the redrive policy of %s: %w", name, err)
		}
		n, _ := p.Most.Int64()
		q.DeadLetter, q.MaxReceive = p.Target, int(n)
	}
	return q, nil
}

// functions asks Lambda. The names are those that the template gives.
func (e *examiner) functions(ctx context.Context, a *doctor.AWS, stack *infra.Stack) {
	function := func(id string) string {
		r, _ := stack.Resource(id)
		name, _ := r.Properties["FunctionName"].(string)
		return name
	}
	worker, sweeper := function("Worker"), function("Sweeper")
	look := func(name string) doctor.Fact[doctor.Function] {
		return fetch(e, "LAMBDA", func() (doctor.Function, error) {
			out, err := e.lambda.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &name})
			if err != nil {
				return doctor.Function{}, err
			}
			return doctor.Function{
				State: string(out.State), LastUpdate: string(out.LastUpdateStatus), MemoryMiB: int(aws.ToInt32(out.MemorySize)),
				Timeout: time.Duration(aws.ToInt32(out.Timeout)) * time.Second,
			}, nil
		})
	}
	if a.Worker, a.Sweeper = look(worker), look(sweeper); a.Worker.Why == doctor.Missing {
		return
	}
	a.Reserved = fetch(e, "LAMBDA", func() (int, error) {
		out, err := e.lambda.GetFunctionConcurrency(ctx, &lambda.GetFunctionConcurrencyInput{FunctionName: &worker})
		if err != nil || out.ReservedConcurrentExecutions == nil {
			return -1, err
		}
		return int(*out.ReservedConcurrentExecutions), nil
	})
	a.Mapping = fetch(e, "LAMBDA", func() (doctor.Mapping, error) {
		out, err := e.lambda.ListEventSourceMappings(ctx, &lambda.ListEventSourceMappingsInput{FunctionName: &worker})
		if err != nil || len(out.EventSourceMappings) == 0 {
			return doctor.Mapping{}, err
		}
		m := out.EventSourceMappings[0]
		d := doctor.Mapping{Found: len(out.EventSourceMappings), State: aws.ToString(m.State), Source: aws.ToString(m.EventSourceArn), Batch: int(aws.ToInt32(m.BatchSize))}
		if m.ScalingConfig != nil {
			d.Most = int(aws.ToInt32(m.ScalingConfig.MaximumConcurrency))
		}
		for _, t := range m.FunctionResponseTypes {
			d.Reported = d.Reported || t == "ReportBatchItemFailures"
		}
		return d, nil
	})
	a.Loop = fetch(e, "LAMBDA", func() (string, error) {
		out, err := e.lambda.GetFunctionRecursionConfig(ctx, &lambda.GetFunctionRecursionConfigInput{FunctionName: &worker})
		if err != nil {
			return "", err
		}
		return string(out.RecursiveLoop), nil
	})
	a.Limit = fetch(e, "LAMBDA", func() (doctor.Limit, error) {
		out, err := e.lambda.GetAccountSettings(ctx, &lambda.GetAccountSettingsInput{})
		if err == nil && out.AccountLimit == nil {
			err = &smithy.GenericAPIError{Code: "UnknownLimit", Message: "Lambda tells no limit"}
		}
		if err != nil {
			return doctor.Limit{}, err
		}
		return doctor.Limit{Concurrency: int(out.AccountLimit.ConcurrentExecutions), Unreserved: int(aws.ToInt32(out.AccountLimit.UnreservedConcurrentExecutions))}, nil
	})
}

// clock is what the replies so far say of this machine's clock.
func (e *examiner) clock() doctor.Fact[doctor.Clock] {
	c, ok := e.world.Clock.(*Clock)
	if !ok {
		return doctor.Fact[doctor.Clock]{Why: doctor.Broken, Err: "no reply has told the time"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen.IsZero() {
		return doctor.Fact[doctor.Clock]{Why: doctor.Broken, Err: "no reply has told the time"}
	}
	return doctor.Known(doctor.Clock{Low: c.low, High: c.high})
}
