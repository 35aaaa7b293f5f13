package infra

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Request is one thing that somebody wants to do. Context has what the service tells
// IAM of it, such as s3:prefix or dynamodb:LeadingKeys; keys are compared without case.
type Request struct {
	Action   string // s3:GetObject
	Resource string // an ARN, or * for an action without one
	Context  map[string][]string
}

func (r Request) String() string { return r.Action + " " + r.Resource }

// Decision is what IAM answers, and because of which statement.
type Decision struct {
	Allowed bool
	Because string
}

// Evaluate decides about a request of a principal of the same account, to whom all of
// the policies apply: those of the role and that of the resource. A Deny that matches
// wins, then an Allow, and else it is denied. Any policy that is not understood whole is
// an error, also where the request does not touch what is not understood.
func Evaluate(policies []Policy, req Request) (Decision, error) {
	if err := req.check(); err != nil {
		return Decision{}, err
	}
	allowed := ""
	denied := ""
	for _, p := range policies {
		if err := p.check(); err != nil {
			return Decision{}, err
		}
		for i, s := range p.Statements {
			yes, err := s.matches(req)
			if err != nil {
				return Decision{}, fmt.Errorf("policy %s, statement %d %s: %w", p.Name, i, s.Sid, err)
			}
			name := p.Name + "/" + s.name(i)
			switch {
			case yes && s.Effect == Deny && denied == "":
				denied = name
			case yes && s.Effect == Allow && allowed == "":
				allowed = name
			}
		}
	}
	switch {
	case denied != "":
		return Decision{false, "denied by " + denied}, nil
	case allowed != "":
		return Decision{true, "allowed by " + allowed}, nil
	}
	return Decision{false, "no statement allows it"}, nil
}

var (
	validAction  = regexp.MustCompile(`^(\*|[a-z0-9-]+:[A-Za-z*?]+)$`)
	validAsk     = regexp.MustCompile(`^[a-z0-9-]+:[A-Za-z]+$`)
	errVariables = errors.New("policy variables are not understood")
)

func (r Request) check() error {
	if !validAsk.MatchString(r.Action) {
		return fmt.Errorf("%q is no action", r.Action)
	}
	if _, err := splitARN(r.Resource); err != nil {
		return err
	}
	return nil
}

func (s Statement) name(i int) string {
	if s.Sid != "" {
		return s.Sid
	}
	return strconv.Itoa(i)
}

func (s Statement) matches(req Request) (bool, error) {
	if len(s.Action) > 0 && !anyAction(s.Action, req.Action) || len(s.NotAction) > 0 && anyAction(s.NotAction, req.Action) {
		return false, nil
	}
	if len(s.Resource) > 0 && !anyARN(s.Resource, req.Resource) || len(s.NotResource) > 0 && anyARN(s.NotResource, req.Resource) {
		return false, nil
	}
	for name, keys := range s.Condition { // all of them have to hold
		op, err := parseOperator(name)
		if err != nil {
			return false, err
		}
		for key, want := range keys {
			holds, err := op.holds(key, req.value(key), want)
			if err != nil || !holds {
				return false, err
			}
		}
	}
	return true, nil
}

func anyAction(patterns Strings, action string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return glob(strings.ToLower(p), strings.ToLower(action)) })
}

func anyARN(patterns Strings, arn string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matchARN(p, arn) })
}

// value is what the request says of a key; nothing and an empty list are the same.
func (r Request) value(key string) []string {
	for k, v := range r.Context {
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return nil
}

// splitARN cuts an ARN into its six parts; "*" has one.
func splitARN(arn string) ([]string, error) {
	if strings.Contains(arn, "${") {
		return nil, fmt.Errorf("resource %s: %w", arn, errVariables)
	}
	parts := strings.SplitN(arn, ":", 6)
	if arn != "*" && (len(parts) != 6 || parts[0] != "arn") {
		return nil, fmt.Errorf("resource %q is no ARN", arn)
	}
	return parts, nil
}

// matchARN compares part by part: a star does not span the first five colons.
func matchARN(pattern, arn string) bool {
	if pattern == "*" {
		return true
	}
	want, werr := splitARN(pattern)
	have, herr := splitARN(arn)
	if werr != nil || herr != nil || len(want) != len(have) {
		return false
	}
	for i := range want {
		if !glob(want[i], have[i]) {
			return false
		}
	}
	return true
}

// glob matches * (any run, slashes too) and ? (any one byte). It takes time in the
// product of the lengths at most.
func glob(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0: // let the last star take one more
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// operator is a condition operator, taken apart.
type operator struct {
	base     string
	set      string // "", ForAllValues or ForAnyValue
	ifExists bool
}

// The operators. A negated one holds when the key is absent, any other does not.
var comparisons = map[string]struct {
	negated bool
	compare func(have, want string) (bool, error)
}{
	"StringEquals":             {false, func(h, w string) (bool, error) { return h == w, nil }},
	"StringNotEquals":          {true, func(h, w string) (bool, error) { return h == w, nil }},
	"StringLike":               {false, func(h, w string) (bool, error) { return glob(w, h), nil }},
	"StringNotLike":            {true, func(h, w string) (bool, error) { return glob(w, h), nil }},
	"ArnLike":                  {false, func(h, w string) (bool, error) { return matchARN(w, h), nil }},
	"Bool":                     {false, func(h, w string) (bool, error) { return strings.EqualFold(h, w), nil }},
	"NumericEquals":            {false, numeric(func(h, w float64) bool { return h == w })},
	"NumericLessThan":          {false, numeric(func(h, w float64) bool { return h < w })},
	"NumericLessThanEquals":    {false, numeric(func(h, w float64) bool { return h <= w })},
	"NumericGreaterThan":       {false, numeric(func(h, w float64) bool { return h > w })},
	"NumericGreaterThanEquals": {false, numeric(func(h, w float64) bool { return h >= w })},
}

func numeric(f func(have, want float64) bool) func(have, want string) (bool, error) {
	return func(have, want string) (bool, error) {
		h, err := strconv.ParseFloat(have, 64)
		if err != nil {
			return false, fmt.Errorf("%q is no number", have)
		}
		w, err := strconv.ParseFloat(want, 64)
		if err != nil {
			return false, fmt.Errorf("%q is no number", want)
		}
		return f(h, w), nil
	}
}

func parseOperator(name string) (operator, error) {
	op := operator{base: name}
	for _, set := range []string{"ForAllValues", "ForAnyValue"} {
		if rest, ok := strings.CutPrefix(op.base, set+":"); ok {
			op.set, op.base = set, rest
		}
	}
	if op.base == "Null" && op.set == "" {
		return op, nil
	}
	op.base, op.ifExists = strings.CutSuffix(op.base, "IfExists")
	if _, ok := comparisons[op.base]; !ok {
		return op, fmt.Errorf("the condition operator %s is not understood", name)
	}
	return op, nil
}

// checkValues says what is wrong with what a policy compares with.
func (op operator) checkValues(key string, values Strings) error {
	if len(values) == 0 {
		return fmt.Errorf("%s of %s compares with nothing", op.base, key)
	}
	for _, v := range values {
		if strings.Contains(v, "${") {
			return fmt.Errorf("%s: %w", v, errVariables)
		}
		if strings.HasPrefix(op.base, "Numeric") {
			if _, err := strconv.ParseFloat(v, 64); err != nil {
				return fmt.Errorf("%s of %s: %q is no number", op.base, key, v)
			}
		}
		if (op.base == "Null" || op.base == "Bool") && v != "true" && v != "false" {
			return fmt.Errorf("%s of %s: %q is neither true nor false", op.base, key, v)
		}
	}
	return nil
}

// holds decides one line of a condition: have are the request's values of the key, of
// which any of want has to fit (of a negated operator: none).
func (op operator) holds(key string, have []string, want Strings) (bool, error) {
	if op.base == "Null" {
		return slices.Contains(want, strconv.FormatBool(len(have) == 0)), nil
	}
	c := comparisons[op.base]
	if len(have) == 0 {
		switch {
		case op.ifExists || op.set == "ForAllValues":
			return true, nil
		case op.set == "ForAnyValue":
			return false, nil
		}
		return c.negated, nil
	}
	if len(have) > 1 && op.set == "" {
		return false, fmt.Errorf("%s has %d values, and %s takes one", key, len(have), op.base)
	}
	fits := 0
	for _, h := range have {
		one := false
		for _, w := range want {
			yes, err := c.compare(h, w)
			if err != nil {
				return false, fmt.Errorf("%s: %w", key, err)
			}
			one = one || yes
		}
		if one != c.negated {
			fits++
		}
	}
	if op.set == "ForAnyValue" {
		return fits > 0, nil
	}
	return fits == len(have), nil
}
