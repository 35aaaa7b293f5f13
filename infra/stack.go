package infra

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Stack is what the template comes to under some parameters.
type Stack struct {
	Resources []Resource // in the order of the file
	Outputs   []Output   // by name

	table    Table
	queues   []Queue
	bucket   Bucket
	policies map[string]Policy
}

// Table is what it takes to create the table.
type Table struct {
	Name       string
	Billing    string    // PAY_PER_REQUEST
	Attributes []KeyPart // Type is the attribute's: S
	Keys       []KeyPart // Type is the key's: HASH, RANGE
	TTL        string    // the attribute that ends an item; "" for none
	Encrypted  bool
	PITR       bool
}

// KeyPart names an attribute and says what it is.
type KeyPart struct{ Name, Type string }

// Queue is what it takes to create a queue.
type Queue struct {
	Name string
	URL  string // on AWS; an emulator has its own
	ARN  string
	// Attributes are those of CreateQueue, Policy excepted: an emulator without TLS
	// would hold to it.
	Attributes map[string]string
	Policy     Policy
	DeadLetter string // ARN of the queue that its RedrivePolicy names; "" for the dead one
	MaxReceive int
}

// Bucket is what it takes to create the bucket.
type Bucket struct {
	Name      string
	ARN       string
	Private   bool   // all four blocks of public access
	Encrypted string // AES256
	Lifecycle []LifecycleRule
	Policy    Policy
}

// LifecycleRule is an enabled rule. Days are 0 where it does not do that.
type LifecycleRule struct {
	ID, Prefix string
	AbortDays  int // gives uploads in parts up
	ExpireDays int // removes objects
}

// The roles that have a policy.
const (
	Submitter = "submitter"
	Worker    = "worker"
	Sweeper   = "sweeper"
	Viewer    = "viewer"
	Operator  = "operator"
)

// Roles are the names that Policy takes.
func Roles() []string { return []string{Submitter, Worker, Sweeper, Viewer, Operator} }

// Table is the stack's table.
func (s *Stack) Table() Table { return s.table }

// Queues are the stack's queues, in an order in which they can be created: the dead
// letter queue comes first.
func (s *Stack) Queues() []Queue { return slices.Clone(s.queues) }

// Bucket is the stack's bucket.
func (s *Stack) Bucket() Bucket { return s.bucket }

// Policy is what the template allows a role, one of Roles.
func (s *Stack) Policy(role string) Policy {
	p, ok := s.policies[role]
	if !ok {
		panic(fmt.Sprintf("there is no role %q in the template", role))
	}
	return p
}

// Of returns the resources of a type, in the order of the file.
func (s *Stack) Of(typ string) []Resource {
	var out []Resource
	for _, r := range s.Resources {
		if r.Type == typ {
			out = append(out, r)
		}
	}
	return out
}

// Resource is the one with an id, if it is made.
func (s *Stack) Resource(id string) (Resource, bool) {
	i := slices.IndexFunc(s.Resources, func(r Resource) bool { return r.ID == id })
	if i < 0 {
		return Resource{}, false
	}
	return s.Resources[i], true
}

// into decodes properties; one that out has no field for is an error, so that what is
// made from a Stack cannot leave out what the template asks for.
func into(v any, out any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(out)
}

// decode fills the accessors.
func (s *Stack) decode() error {
	for _, d := range []struct {
		what string
		do   func() error
	}{{"table", s.decodeTable}, {"queues", s.decodeQueues}, {"bucket", s.decodeBucket}, {"policies", s.decodePolicies}} {
		if err := d.do(); err != nil {
			return fmt.Errorf("%s of the template: %w", d.what, err)
		}
	}
	return nil
}

func (s *Stack) one(typ string) (Resource, error) {
	found := s.Of(typ)
	if len(found) != 1 {
		return Resource{}, fmt.Errorf("%d of %s, not one", len(found), typ)
	}
	return found[0], nil
}

func (s *Stack) decodeTable() error {
	r, err := s.one("AWS::DynamoDB::Table")
	if err != nil {
		return err
	}
	var p struct {
		TableName, BillingMode  string
		AttributeDefinitions    []struct{ AttributeName, AttributeType string }
		KeySchema               []struct{ AttributeName, KeyType string }
		TimeToLiveSpecification struct {
			AttributeName string
			Enabled       bool
		}
		SSESpecification                 struct{ SSEEnabled bool }
		PointInTimeRecoverySpecification struct{ PointInTimeRecoveryEnabled bool }
	}
	if err := into(r.Properties, &p); err != nil {
		return err
	}
	s.table = Table{Name: p.TableName, Billing: p.BillingMode, Encrypted: p.SSESpecification.SSEEnabled, PITR: p.PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled}
	for _, a := range p.AttributeDefinitions {
		s.table.Attributes = append(s.table.Attributes, KeyPart{a.AttributeName, a.AttributeType})
	}
	for _, k := range p.KeySchema {
		s.table.Keys = append(s.table.Keys, KeyPart{k.AttributeName, k.KeyType})
	}
	if p.TimeToLiveSpecification.Enabled {
		s.table.TTL = p.TimeToLiveSpecification.AttributeName
	}
	return nil
}

func (s *Stack) decodeQueues() error {
	policies := map[string]Policy{}
	for _, r := range s.Of("AWS::SQS::QueuePolicy") {
		var p struct {
			Queues         []string
			PolicyDocument json.RawMessage
		}
		if err := into(r.Properties, &p); err != nil {
			return fmt.Errorf("%s: %w", r.ID, err)
		}
		policy, err := ParsePolicy(r.ID, p.PolicyDocument)
		if err != nil {
			return err
		}
		for _, url := range p.Queues {
			policies[url] = policy
		}
	}
	for _, r := range s.Of("AWS::SQS::Queue") {
		q, err := decodeQueue(r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.ID, err)
		}
		q.URL, q.ARN = r.ref, r.arn
		q.Policy = policies[q.URL]
		if q.DeadLetter == "" {
			s.queues = slices.Insert(s.queues, 0, q)
		} else {
			s.queues = append(s.queues, q)
		}
	}
	return nil
}

// decodeQueue turns a queue's properties into the attributes of CreateQueue, which have
// the same names, and texts for values.
func decodeQueue(r Resource) (Queue, error) {
	q := Queue{Attributes: map[string]string{}}
	for name, v := range r.Properties {
		switch name {
		case "QueueName":
			q.Name = plain(v)
		case "VisibilityTimeout", "MessageRetentionPeriod", "SqsManagedSseEnabled":
			q.Attributes[name] = plain(v)
		case "RedrivePolicy":
			var p struct {
				DeadLetterTargetArn string `json:"deadLetterTargetArn"`
				MaxReceiveCount     int    `json:"maxReceiveCount"`
			}
			if err := into(v, &p); err != nil {
				return q, err
			}
			b, err := json.Marshal(p)
			if err != nil {
				return q, err
			}
			q.DeadLetter, q.MaxReceive, q.Attributes[name] = p.DeadLetterTargetArn, p.MaxReceiveCount, string(b)
		default:
			return q, fmt.Errorf("the property %s is not understood", name)
		}
	}
	return q, nil
}

func (s *Stack) decodeBucket() error {
	r, err := s.one("AWS::S3::Bucket")
	if err != nil {
		return err
	}
	var p struct {
		BucketName       string
		BucketEncryption struct {
			ServerSideEncryptionConfiguration []struct{ ServerSideEncryptionByDefault struct{ SSEAlgorithm string } }
		}
		PublicAccessBlockConfiguration struct {
			BlockPublicAcls, BlockPublicPolicy, IgnorePublicAcls, RestrictPublicBuckets bool
		}
		OwnershipControls struct {
			Rules []struct{ ObjectOwnership string }
		}
		LifecycleConfiguration struct {
			Rules []struct {
				ID                             string `json:"Id"`
				Status, Prefix                 string
				ExpirationInDays               int
				AbortIncompleteMultipartUpload struct{ DaysAfterInitiation int }
			}
		}
	}
	if err := into(r.Properties, &p); err != nil {
		return err
	}
	b := p.PublicAccessBlockConfiguration
	s.bucket = Bucket{Name: p.BucketName, ARN: r.arn, Private: b.BlockPublicAcls && b.BlockPublicPolicy && b.IgnorePublicAcls && b.RestrictPublicBuckets}
	for _, e := range p.BucketEncryption.ServerSideEncryptionConfiguration {
		s.bucket.Encrypted = e.ServerSideEncryptionByDefault.SSEAlgorithm
	}
	for _, l := range p.LifecycleConfiguration.Rules {
		if l.Status == "Enabled" {
			s.bucket.Lifecycle = append(s.bucket.Lifecycle, LifecycleRule{l.ID, l.Prefix, l.AbortIncompleteMultipartUpload.DaysAfterInitiation, l.ExpirationInDays})
		}
	}
	if r, err = s.one("AWS::S3::BucketPolicy"); err != nil {
		return err
	}
	var bp struct {
		Bucket         string
		PolicyDocument json.RawMessage
	}
	if err := into(r.Properties, &bp); err != nil {
		return err
	}
	if bp.Bucket != s.bucket.Name {
		return fmt.Errorf("the policy is of another bucket, %s", bp.Bucket)
	}
	s.bucket.Policy, err = ParsePolicy(r.ID, bp.PolicyDocument)
	return err
}

func (s *Stack) decodePolicies() error {
	s.policies = map[string]Policy{}
	for _, r := range s.Of("AWS::IAM::ManagedPolicy") {
		var p struct {
			ManagedPolicyName, Description string
			PolicyDocument                 json.RawMessage
		}
		if err := into(r.Properties, &p); err != nil {
			return fmt.Errorf("%s: %w", r.ID, err)
		}
		role := strings.ToLower(strings.TrimSuffix(r.ID, "Policy"))
		policy, err := ParsePolicy(role, p.PolicyDocument)
		if err != nil {
			return err
		}
		s.policies[role] = policy
	}
	for _, role := range Roles() {
		if _, ok := s.policies[role]; !ok {
			return fmt.Errorf("role %s has none", role)
		}
	}
	return nil
}
