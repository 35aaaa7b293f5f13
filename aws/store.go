package aws

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/aws/smithy-go/logging"

	"hayrick"
)

// Scheme begins the name of a store on AWS: s3://lab-hayrick.
const Scheme = "s3://"

// Store is all ports on one bucket, one table and two queues, which share a name.
type Store struct {
	name  string
	world hayrick.World
	log   *slog.Logger
	s3    *s3.Client
	db    *dynamodb.Client
	sqs   *sqs.Client

	mu      sync.Mutex
	queues  map[string]string // name -> URL
	buckets map[string]bucket // what was last seen of token buckets; a guess, checked by every write
}

// Names are what a store's parts are called. The template in infra/ makes them, and
// nothing else has to be configured.
type Names struct{ Bucket, Table, Tasks, Dead string }

// NamesOf derives the names of a store's parts from its own.
func NamesOf(name string) Names {
	q := strings.ReplaceAll(name, ".", "-") // no dots in a queue's name
	return Names{Bucket: name, Table: name, Tasks: q + "-" + hayrick.QueueTasks, Dead: q + "-" + hayrick.QueueDead}
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// NameOf is the name in a store's URI: s3://<name>. A *hayrick.UserError says what
// is wrong with another one.
func NameOf(uri string) (string, error) {
	name, ok := strings.CutPrefix(uri, Scheme)
	name = strings.TrimSuffix(name, "/")
	if !ok || !validName.MatchString(name) {
		return "", &hayrick.UserError{
			What: fmt.Sprintf("%q names no store on AWS", uri),
			Hint: "write s3://<name>: 3 to 48 lower-case letters, digits, dots and dashes, the name of a bucket, without a folder in it",
		}
	}
	return name, nil
}

// Open opens the store at uri with the credentials, region and endpoints of the
// environment (AWS_*). It asks for nothing: what is missing shows at the first call.
func Open(ctx context.Context, uri string, world hayrick.World, log *slog.Logger) (*Store, error) {
	name, err := NameOf(uri)
	if err != nil {
		return nil, err
	}
	cfg, err := LoadConfig(ctx)
	if err != nil {
		return nil, err
	}
	return New(cfg, name, world, log), nil
}

// LoadConfig reads the environment as the SDK does, once for all clients. Every
// service has a retryer of its own: it slows down when the service throttles, and
// nothing above it repeats a call for that reason.
func LoadConfig(ctx context.Context) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return cfg, &hayrick.UserError{What: "the AWS configuration cannot be read", Hint: "check AWS_PROFILE, AWS_REGION and the files they name", Exit: exitCredentials, Err: err}
	}
	if cfg.Region == "" {
		return cfg, &hayrick.UserError{What: "no AWS region is set", Hint: "set AWS_REGION, or `region` in the profile", Exit: exitCredentials}
	}
	return cfg, nil
}

// New is Open with a configuration at hand; log = nil is silence.
func New(cfg aws.Config, name string, world hayrick.World, log *slog.Logger) *Store {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	quick := bounded(cfg.HTTPClient, silenceOther)
	cfg = tuned(cfg, log)
	clock := &Clock{Clock: world.Clock}
	world.Clock = clock
	cfg.APIOptions = append(slices.Clone(cfg.APIOptions), clock.listen)
	return &Store{
		name: name, world: world, log: log,
		s3: s3.NewFromConfig(cfg, func(o *s3.Options) {
			o.Retryer = adaptive()
			// Stand-ins have no host name for each bucket.
			o.UsePathStyle = customEndpoint(cfg, "S3")
		}),
		db:      dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) { o.Retryer, o.HTTPClient = adaptive(), quick }),
		sqs:     sqs.NewFromConfig(cfg, func(o *sqs.Options) { o.Retryer, o.HTTPClient = adaptive(), quick }),
		queues:  map[string]string{},
		buckets: map[string]bucket{},
	}
}

// adaptive is a retryer of one client: it slows down when the service throttles.
func adaptive() aws.Retryer {
	return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) {
		o.StandardOptions = append(o.StandardOptions, func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff = maxAttempts, maxBackoff
		})
	})
}

// tuned is a configuration of which the SDK speaks to log, nil is silence, whose errors
// say what they are about, and which waits for no dead connection.
func tuned(cfg aws.Config, log *slog.Logger) aws.Config {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg.Logger = logging.LoggerFunc(func(_ logging.Classification, format string, v ...any) {
		log.Debug("aws", "said", fmt.Sprintf(format, v...))
	})
	cfg.APIOptions = append(slices.Clone(cfg.APIOptions), about)
	cfg.HTTPClient = bounded(cfg.HTTPClient, silenceS3)
	return cfg
}

const (
	maxAttempts = 6
	maxBackoff  = 10 * time.Second
)

// customEndpoint says that the environment sends a service elsewhere.
func customEndpoint(cfg aws.Config, service string) bool {
	return aws.ToString(cfg.BaseEndpoint) != "" || os.Getenv("AWS_ENDPOINT_URL_"+service) != "" || os.Getenv("AWS_ENDPOINT_URL") != ""
}

// Clock is service time, for everybody who works on the store.
func (s *Store) Clock() hayrick.Clock { return s.world.Clock }

// Close ends the process's part in the store. Claims it holds end with their leases.
func (s *Store) Close() error { return nil }
