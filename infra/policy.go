package infra

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Policy is an IAM policy: one of a role, or one of a bucket or queue, whose statements
// have a principal.
type Policy struct {
	Name       string      `json:"-"` // for people
	Version    string      `json:"Version"`
	Statements []Statement `json:"Statement"`
}

// Statement is one rule of a Policy. It has Action or NotAction and Resource or
// NotResource.
type Statement struct {
	Sid         string                        `json:"Sid,omitempty"`
	Effect      string                        `json:"Effect"`
	Principal   Principal                     `json:"Principal,omitempty"`
	Action      Strings                       `json:"Action,omitempty"`
	NotAction   Strings                       `json:"NotAction,omitempty"`
	Resource    Strings                       `json:"Resource,omitempty"`
	NotResource Strings                       `json:"NotResource,omitempty"`
	Condition   map[string]map[string]Strings `json:"Condition,omitempty"` // operator -> key -> values
}

// The effects of a statement.
const (
	Allow = "Allow"
	Deny  = "Deny"
)

// Strings is what a policy may write as one text or as a list; booleans and numbers are
// texts too.
type Strings []string

// UnmarshalJSON reads a scalar or a list of them.
func (s *Strings) UnmarshalJSON(b []byte) error {
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		list = []json.RawMessage{b}
	}
	*s = nil
	for _, e := range list {
		var text string
		switch {
		case json.Unmarshal(e, &text) == nil:
		case bytes.ContainsAny(e[:1], `{["`) || string(e) == "null":
			return fmt.Errorf("%s is no text", e)
		default:
			text = string(e)
		}
		*s = append(*s, text)
	}
	return nil
}

// Principal is who a statement of a bucket or queue is about: "*", or {"AWS": "*"},
// which is the same. Others are kept as they are, and Evaluate refuses them.
type Principal string

// Everybody is the Principal that Evaluate understands.
const Everybody Principal = "*"

// UnmarshalJSON reads a principal.
func (p *Principal) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*p = Principal(text)
		return nil
	}
	var by map[string]Strings
	if err := json.Unmarshal(b, &by); err != nil {
		return err
	}
	if aws := by["AWS"]; len(by) == 1 && len(aws) == 1 && aws[0] == "*" {
		*p = Everybody
		return nil
	}
	*p = Principal(b)
	return nil
}

// MarshalJSON writes what UnmarshalJSON read.
func (p Principal) MarshalJSON() ([]byte, error) {
	if len(p) > 0 && p[0] == '{' {
		return []byte(p), nil
	}
	return json.Marshal(string(p))
}

// JSON is the policy as AWS takes it.
func (p Policy) JSON() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("policy %s cannot be written: %v", p.Name, err)) // only texts are in it
	}
	return b
}

// ParsePolicy reads a policy and checks that Evaluate understands all of it.
func ParsePolicy(name string, text []byte) (Policy, error) {
	p := Policy{Name: name}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return Policy{}, fmt.Errorf("read policy %s: %w", name, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Policy{}, fmt.Errorf("read policy %s: something follows it", name)
	}
	return p, p.check()
}

// check says what of a policy Evaluate would not understand.
func (p Policy) check() error {
	if p.Version != "2012-10-17" {
		return fmt.Errorf("policy %s: version %q is not understood", p.Name, p.Version)
	}
	if len(p.Statements) == 0 {
		return fmt.Errorf("policy %s has no statement", p.Name)
	}
	for i, s := range p.Statements {
		if err := s.check(); err != nil {
			return fmt.Errorf("policy %s, statement %d %s: %w", p.Name, i, s.Sid, err)
		}
	}
	return nil
}

func (s Statement) check() error {
	switch {
	case s.Effect != Allow && s.Effect != Deny:
		return fmt.Errorf("effect %q", s.Effect)
	case (len(s.Action) > 0) == (len(s.NotAction) > 0):
		return errors.New("it needs Action or NotAction")
	case (len(s.Resource) > 0) == (len(s.NotResource) > 0):
		return errors.New("it needs Resource or NotResource")
	case s.Principal != "" && s.Principal != Everybody:
		return fmt.Errorf("principal %s is not understood", s.Principal)
	}
	for _, list := range []Strings{s.Action, s.NotAction} {
		for _, a := range list {
			if !validAction.MatchString(a) {
				return fmt.Errorf("action %q is not understood", a)
			}
		}
	}
	for _, list := range []Strings{s.Resource, s.NotResource} {
		for _, r := range list {
			if _, err := splitARN(r); err != nil {
				return err
			}
		}
	}
	for name, keys := range s.Condition {
		op, err := parseOperator(name)
		if err != nil {
			return err
		}
		for key, values := range keys {
			if err := op.checkValues(key, values); err != nil {
				return err
			}
		}
	}
	return nil
}
