package infra

import (
	"fmt"
	"maps"
	"slices"
)

// Idle is what a policy allows and a log never needed: an action of a statement, one
// of its resources, or one of the values that a condition takes. One of the three is set.
type Idle struct {
	Sid       string
	Action    string
	Resource  string
	Condition string // key=value
}

func (i Idle) String() string {
	return fmt.Sprintf("%s: %s%s%s", i.Sid, i.Action, i.Resource, i.Condition)
}

// Unused says what of a policy's Allows no request of a log was allowed by. A request
// counts for every statement that matches it. The values of a condition are looked at
// where the statement was needed at all. Denials are not: they are there not to be
// needed.
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
		values := map[string]bool{} // key=value, of conditions; whether it was needed
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
			if err := s.takes(r, values); err != nil {
				return nil, err
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
		for _, v := range slices.Sorted(maps.Keys(values)) {
			if !values[v] {
				out = append(out, Idle{Sid: s.name(i), Condition: v})
			}
		}
	}
	return out, nil
}

// takes notes which values of the conditions a request that matches has.
func (s Statement) takes(r Request, values map[string]bool) error {
	for name, keys := range s.Condition {
		op, err := parseOperator(name)
		if err != nil {
			return err
		}
		c, ok := comparisons[op.base]
		if !ok || c.negated {
			continue // Null, and what a request must not be
		}
		for key, want := range keys {
			for _, w := range want {
				v := key + "=" + w
				values[v] = values[v] || false
				for _, h := range r.value(key) {
					yes, err := c.compare(h, w)
					if err != nil {
						return fmt.Errorf("%s: %w", key, err)
					}
					values[v] = values[v] || yes
				}
			}
		}
	}
	return nil
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
	"s3.GetObjectVersion":        {"s3:GetObjectVersion"}, // GetObject with a version: s3:GetObject is not looked at
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
// s3:GetObject. GetObjectVersion is what GetObject with a version is called here. ok is
// false for one that Hayrick does not use.
func ActionsOf(service, operation string) (names []string, ok bool) {
	names, ok = actions[service+"."+operation]
	return names, ok
}
