package infra

import "fmt"

// Idle is what a policy allows and a log never needed: an action of a statement, or one
// of its resources.
type Idle struct {
	Sid      string
	Action   string // "" when it is about Resource
	Resource string
}

func (i Idle) String() string { return fmt.Sprintf("%s: %s%s", i.Sid, i.Action, i.Resource) }

// Unused says what of a policy's Allows no request of a log was allowed by. A request
// counts for every statement that matches it. Denials are not looked at: they are there
// not to be needed.
func Unused(p Policy, log []Request) ([]Idle, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	var out []Idle
	for i, s := range p.Statements {
		if s.Effect != Allow {
			continue
		}
		actions, resources := map[string]bool{}, map[string]bool{}
		for _, r := range log {
			if err := r.check(); err != nil {
				return nil, err
			}
			yes, err := s.matches(r)
			if err != nil {
				return nil, fmt.Errorf("policy %s, statement %s, request %s: %w", p.Name, s.name(i), r, err)
			}
			if !yes {
				continue
			}
			for _, a := range s.Action {
				actions[a] = actions[a] || anyAction(Strings{a}, r.Action)
			}
			for _, a := range s.Resource {
				resources[a] = resources[a] || matchARN(a, r.Resource)
			}
			if len(s.NotAction) > 0 {
				actions["NotAction"] = true
			}
			if len(s.NotResource) > 0 {
				resources["NotResource"] = true
			}
		}
		for _, a := range orNot(s.Action, "NotAction") {
			if !actions[a] {
				out = append(out, Idle{Sid: s.name(i), Action: a})
			}
		}
		for _, r := range orNot(s.Resource, "NotResource") {
			if !resources[r] {
				out = append(out, Idle{Sid: s.name(i), Resource: r})
			}
		}
	}
	return out, nil
}

func orNot(list Strings, not string) Strings {
	if len(list) == 0 {
		return Strings{not}
	}
	return list
}

// actions say which permissions an operation of AWS asks for. Those of a copy ask for
// one on what is read and one on what is written, in this order.
var actions = map[string][]string{
	"s3.GetObject":               {"s3:GetObject"},
	"s3.HeadObject":              {"s3:GetObject"},
	"s3.ListObjectsV2":           {"s3:ListBucket"},
	"s3.PutObject":               {"s3:PutObject"},
	"s3.DeleteObject":            {"s3:DeleteObject"},
	"s3.CopyObject":              {"s3:GetObject", "s3:PutObject"},
	"s3.CreateMultipartUpload":   {"s3:PutObject"},
	"s3.UploadPart":              {"s3:PutObject"},
	"s3.UploadPartCopy":          {"s3:GetObject", "s3:PutObject"},
	"s3.CompleteMultipartUpload": {"s3:PutObject"},
	"s3.AbortMultipartUpload":    {"s3:AbortMultipartUpload"},

	"dynamodb.GetItem":    {"dynamodb:GetItem"},
	"dynamodb.PutItem":    {"dynamodb:PutItem"},
	"dynamodb.UpdateItem": {"dynamodb:UpdateItem"},
	"dynamodb.Query":      {"dynamodb:Query"},

	"sqs.GetQueueUrl":                  {"sqs:GetQueueUrl"},
	"sqs.GetQueueAttributes":           {"sqs:GetQueueAttributes"},
	"sqs.SendMessageBatch":             {"sqs:SendMessage"},
	"sqs.ReceiveMessage":               {"sqs:ReceiveMessage"},
	"sqs.DeleteMessageBatch":           {"sqs:DeleteMessage"},
	"sqs.ChangeMessageVisibilityBatch": {"sqs:ChangeMessageVisibility"},
}

// ActionsOf says which permissions an operation asks for: s3, HeadObject is
// s3:GetObject. ok is false for one that Hayrick does not use.
func ActionsOf(service, operation string) (names []string, ok bool) {
	names, ok = actions[service+"."+operation]
	return names, ok
}
