package infra

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const policyHead = `{"Version":"2012-10-17","Statement":[`

func parsed(t testing.TB, statements string) Policy {
	t.Helper()
	p, err := ParsePolicy("p", []byte(policyHead+statements+"]}"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const obj = "arn:aws:s3:::b/jobs/x"

func with(condition string) string {
	return `{"Sid":"S","Effect":"Allow","Action":"s3:GetObject","Resource":"*","Condition":` + condition + `}`
}

func TestEvaluate(t *testing.T) {
	get := func(context map[string][]string) Request { return Request{"s3:GetObject", obj, context} }
	for _, c := range []struct {
		name, statements string
		req              Request
		want             bool
	}{
		{"nothing allows", `{"Effect":"Allow","Action":"s3:PutObject","Resource":"*"}`, get(nil), false},
		{"an action allows", `{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}`, get(nil), true},
		{"actions have no case", `{"Effect":"Allow","Action":"s3:getobject","Resource":"*"}`, get(nil), true},
		{"an action by wildcard", `{"Effect":"Allow","Action":["sqs:*","s3:Get*"],"Resource":"*"}`, get(nil), true},
		{"a question mark is one", `{"Effect":"Allow","Action":"s3:GetObject?","Resource":"*"}`, get(nil), false},
		{"all but an action", `{"Effect":"Allow","NotAction":"s3:GetObject","Resource":"*"}`, get(nil), false},
		{"all but another action", `{"Effect":"Allow","NotAction":"s3:Put*","Resource":"*"}`, get(nil), true},
		{"a resource has case", `{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/Jobs/*"}`, get(nil), false},
		{"a star spans slashes", `{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b*"}`, get(nil), true},
		{"a star does not span the colons of an ARN", `{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:*:b/jobs/x:*:*:*"}`, get(nil), false},
		{"a bucket is not its objects", `{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b"}`, get(nil), false},
		{"all but a resource", `{"Effect":"Allow","Action":"s3:GetObject","NotResource":"arn:aws:s3:::b/jobs/*"}`, get(nil), false},
		{"all but another resource", `{"Effect":"Allow","Action":"s3:GetObject","NotResource":"arn:aws:s3:::b/out/*"}`, get(nil), true},
		{"an ARN is not no resource", `{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::*"}`, Request{"s3:GetObject", "*", nil}, false},
		{"a Deny wins, after", `{"Effect":"Allow","Action":"s3:*","Resource":"*"},{"Effect":"Deny","Action":"s3:Get*","Resource":"*"}`, get(nil), false},
		{"a Deny wins, before", `{"Effect":"Deny","Action":"s3:Get*","Resource":"*"},{"Effect":"Allow","Action":"s3:*","Resource":"*"}`, get(nil), false},
		{"another Deny does not", `{"Effect":"Deny","Action":"s3:Put*","Resource":"*"},{"Effect":"Allow","Action":"s3:*","Resource":"*"}`, get(nil), true},
		{"everybody is in the account", `{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"s3:*","Resource":"*"}`, get(nil), true},

		{"equal", with(`{"StringEquals":{"k":["a","b"]}}`), get(map[string][]string{"k": {"b"}}), true},
		{"equal has case and no wildcard", with(`{"StringEquals":{"k":["B","*"]}}`), get(map[string][]string{"k": {"b"}}), false},
		{"keys have no case", with(`{"StringEquals":{"S3:Prefix":"a"}}`), get(map[string][]string{"s3:prefix": {"a"}}), true},
		{"an absent key is not equal", with(`{"StringEquals":{"k":""}}`), get(nil), false},
		{"an empty list is absent", with(`{"StringLike":{"k":"*"}}`), get(map[string][]string{"k": {}}), false},
		{"an empty text is not", with(`{"StringLike":{"k":"*"}}`), get(map[string][]string{"k": {""}}), true},
		{"if it exists, and does not", with(`{"StringLikeIfExists":{"k":"a*"}}`), get(nil), true},
		{"if it exists, and is another", with(`{"StringLikeIfExists":{"k":"a*"}}`), get(map[string][]string{"k": {"b"}}), false},
		{"unequal", with(`{"StringNotEquals":{"k":["a","b"]}}`), get(map[string][]string{"k": {"c"}}), true},
		{"unequal to one of them only", with(`{"StringNotEquals":{"k":["a","b"]}}`), get(map[string][]string{"k": {"b"}}), false},
		{"an absent key is unequal", with(`{"StringNotEquals":{"k":"a"}}`), get(nil), true},
		{"unlike", with(`{"StringNotLike":{"k":"a*"}}`), get(map[string][]string{"k": {"ab"}}), false},
		{"null and absent", with(`{"Null":{"k":"true"}}`), get(nil), true},
		{"null and there", with(`{"Null":{"k":"true"}}`), get(map[string][]string{"k": {""}}), false},
		{"not null and there", with(`{"Null":{"k":false}}`), get(map[string][]string{"k": {"x"}}), true},
		{"not null and absent", with(`{"Null":{"k":"false"}}`), get(nil), false},
		{"bool", with(`{"Bool":{"k":true}}`), get(map[string][]string{"k": {"True"}}), true},
		{"bool and absent", with(`{"Bool":{"k":"false"}}`), get(nil), false},
		{"less", with(`{"NumericLessThan":{"k":1.2}}`), get(map[string][]string{"k": {"1.1"}}), true},
		{"not less", with(`{"NumericLessThan":{"k":"1.2"}}`), get(map[string][]string{"k": {"1.2"}}), false},
		{"less by number, not by text", with(`{"NumericLessThan":{"k":"9"}}`), get(map[string][]string{"k": {"10"}}), false},
		{"at most", with(`{"NumericLessThanEquals":{"k":"1.2"}}`), get(map[string][]string{"k": {"1.20"}}), true},
		{"more", with(`{"NumericGreaterThan":{"k":"9"}}`), get(map[string][]string{"k": {"10"}}), true},
		{"at least", with(`{"NumericGreaterThanEquals":{"k":"9"}}`), get(map[string][]string{"k": {"8"}}), false},
		{"as many", with(`{"NumericEquals":{"k":"9"}}`), get(map[string][]string{"k": {"9.0"}}), true},
		{"an ARN", with(`{"ArnLike":{"k":"arn:aws:sqs:*:*:q"}}`), get(map[string][]string{"k": {"arn:aws:sqs:r:1:q"}}), true},
		{"another ARN", with(`{"ArnLike":{"k":"arn:aws:*:q"}}`), get(map[string][]string{"k": {"arn:aws:sqs:r:1:q"}}), false},
		{"all of them", with(`{"ForAllValues:StringLike":{"k":["a*","b*"]}}`), get(map[string][]string{"k": {"a1", "b1"}}), true},
		{"all but one", with(`{"ForAllValues:StringLike":{"k":["a*","b*"]}}`), get(map[string][]string{"k": {"a1", "c1"}}), false},
		{"all of none", with(`{"ForAllValues:StringLike":{"k":"a*"}}`), get(nil), true},
		{"any of them", with(`{"ForAnyValue:StringEquals":{"k":"a"}}`), get(map[string][]string{"k": {"b", "a"}}), true},
		{"any of none", with(`{"ForAnyValue:StringEquals":{"k":"a"}}`), get(nil), false},
		{"none of them equal", with(`{"ForAllValues:StringNotEquals":{"k":"a"}}`), get(map[string][]string{"k": {"b", "a"}}), false},
		{"operators are all to hold", with(`{"StringEquals":{"k":"a"},"Bool":{"l":"true"}}`), get(map[string][]string{"k": {"a"}, "l": {"false"}}), false},
		{"keys are all to hold", with(`{"StringEquals":{"k":"a","l":"b"}}`), get(map[string][]string{"k": {"a"}, "l": {"c"}}), false},
		{"a Deny whose condition fails", `{"Effect":"Allow","Action":"s3:*","Resource":"*"},{"Effect":"Deny","Action":"s3:*","Resource":"*","Condition":{"Bool":{"k":"false"}}}`, get(map[string][]string{"k": {"true"}}), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := Evaluate([]Policy{parsed(t, c.statements)}, c.req)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed != c.want {
				t.Errorf("allowed = %v, %s", d.Allowed, d.Because)
			}
		})
	}
}

func TestEvaluateSaysBecause(t *testing.T) {
	allow := parsed(t, `{"Sid":"Reads","Effect":"Allow","Action":"s3:Get*","Resource":"*"}`)
	deny := parsed(t, `{"Sid":"Quiet","Effect":"Deny","Action":"s3:GetObjectAcl","Resource":"*"}`)
	deny.Name = "bucket"
	for action, want := range map[string]string{
		"s3:GetObject":    "allowed by p/Reads",
		"s3:GetObjectAcl": "denied by bucket/Quiet",
		"s3:PutObject":    "no statement allows it",
	} {
		d, err := Evaluate([]Policy{allow, deny}, Request{Action: action, Resource: obj})
		if err != nil || d.Because != want {
			t.Errorf("%s: %q, %v; want %q", action, d.Because, err, want)
		}
	}
}

// What is not understood is refused, whatever is asked: never left out.
func TestPoliciesAreReadStrictly(t *testing.T) {
	ok := `"Effect":"Deny","Action":"s3:PutObject","Resource":"*"`
	for _, c := range []struct{ policy, want string }{
		{`{"Version":"2008-10-17","Statement":[{` + ok + `}]}`, "version"},
		{`{"Version":"2012-10-17","Statement":[]}`, "no statement"},
		{policyHead + `{` + ok + `,"Conditions":{}}]}`, "unknown field"},
		{policyHead + `{` + ok + `,"Condition":{"DateLessThan":{"aws:CurrentTime":"2026-01-01"}}}]}`, "DateLessThan is not understood"},
		{policyHead + `{` + ok + `,"Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}]}`, "IpAddress is not understood"},
		{policyHead + `{` + ok + `,"Condition":{"stringequals":{"k":"v"}}}]}`, "stringequals is not understood"},
		{policyHead + `{` + ok + `,"Condition":{"ForSomeValues:StringEquals":{"k":"v"}}}]}`, "not understood"},
		{policyHead + `{` + ok + `,"Condition":{"ForAllValues:Null":{"k":"true"}}}]}`, "not understood"},
		{policyHead + `{` + ok + `,"Condition":{"NullIfExists":{"k":"true"}}}]}`, "not understood"},
		{policyHead + `{` + ok + `,"Condition":{"StringEquals":{"k":[]}}}]}`, "compares with nothing"},
		{policyHead + `{` + ok + `,"Condition":{"StringEquals":{"k":"${aws:username}"}}}]}`, "variables"},
		{policyHead + `{` + ok + `,"Condition":{"NumericLessThan":{"k":"TLS1.2"}}}]}`, "no number"},
		{policyHead + `{` + ok + `,"Condition":{"Bool":{"k":"yes"}}}]}`, "neither true nor false"},
		{policyHead + `{` + ok + `,"Principal":{"AWS":"arn:aws:iam::111122223333:root"}}]}`, "principal"},
		{policyHead + `{` + ok + `,"Principal":{"Service":"lambda.amazonaws.com"}}]}`, "principal"},
		{policyHead + `{"Effect":"Permit","Action":"s3:PutObject","Resource":"*"}]}`, "effect"},
		{policyHead + `{"Effect":"Deny","Resource":"*"}]}`, "Action or NotAction"},
		{policyHead + `{"Effect":"Deny","Action":"s3:Get*","NotAction":"s3:Put*","Resource":"*"}]}`, "Action or NotAction"},
		{policyHead + `{"Effect":"Deny","Action":"s3:Get*"}]}`, "Resource or NotResource"},
		{policyHead + `{"Effect":"Deny","Action":"PutObject","Resource":"*"}]}`, "action"},
		{policyHead + `{"Effect":"Deny","Action":"S3:PutObject","Resource":"*"}]}`, "action"},
		{policyHead + `{"Effect":"Deny","Action":{"a":"b"},"Resource":"*"}]}`, "no text"},
		{policyHead + `{"Effect":"Deny","Action":"s3:*","Resource":"b/jobs/*"}]}`, "no ARN"},
		{policyHead + `{"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::b/${aws:userid}/*"}]}`, "variables"},
		{policyHead + `{` + ok + `}]} {}`, "follows"},
	} {
		if _, err := ParsePolicy("p", []byte(c.policy)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n%v, want %q", c.policy, err, c.want)
		}
	}
	// Also in a policy that was not read from JSON, and that the request does not touch.
	bad := Policy{Name: "made", Version: "2012-10-17", Statements: []Statement{{
		Effect: Deny, Action: Strings{"sqs:SendMessage"}, Resource: Strings{"*"}, Condition: map[string]map[string]Strings{"DateEquals": {"k": {"v"}}},
	}}}
	if d, err := Evaluate([]Policy{bad}, Request{Action: "s3:GetObject", Resource: obj}); err == nil {
		t.Errorf("an unknown operator is decided about: %+v", d)
	}
}

func TestRequestsAreReadStrictly(t *testing.T) {
	all := parsed(t, `{"Effect":"Allow","Action":"s3:*","Resource":"*"}`)
	for _, r := range []Request{
		{Action: "GetObject", Resource: obj}, {Action: "s3:*", Resource: obj}, {Action: "s3:GetObject", Resource: "b/jobs/x"}, {Action: "s3:GetObject"},
	} {
		if d, err := Evaluate([]Policy{all}, r); err == nil {
			t.Errorf("%v is decided about: %+v", r, d)
		}
	}
	one := parsed(t, with(`{"StringLike":{"k":"a"}}`))
	if d, err := Evaluate([]Policy{one}, Request{"s3:GetObject", obj, map[string][]string{"k": {"a", "b"}}}); err == nil {
		t.Errorf("two values for an operator that takes one: %+v", d)
	}
	number := parsed(t, with(`{"NumericLessThan":{"k":"2"}}`))
	if d, err := Evaluate([]Policy{number}, Request{"s3:GetObject", obj, map[string][]string{"k": {"TLS1"}}}); err == nil {
		t.Errorf("a number that is none: %+v", d)
	}
}

// A wildcard is what a regular expression says it is.
func TestGlob(t *testing.T) {
	text := rapid.StringOfN(rapid.SampledFrom([]rune("ab/*?")), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		pattern, s := text.Draw(t, "pattern"), strings.NewReplacer("*", "a", "?", "b").Replace(text.Draw(t, "s"))
		re := regexp.MustCompile("^" + strings.NewReplacer("*", ".*", "?", ".", "/", "/").Replace(pattern) + "$")
		if got, want := glob(pattern, s), re.MatchString(s); got != want {
			t.Fatalf("glob(%q, %q) = %v", pattern, s, got)
		}
	})
	if glob(strings.Repeat("*a", 5000)+"b", strings.Repeat("a", 20000)) { // and it ends
		t.Error("it matches")
	}
}

// More policies never take a denial back, and order does not matter.
func TestDenyIsFinal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var statements []Statement
		for i := range rapid.IntRange(1, 6).Draw(t, "statements") {
			statements = append(statements, Statement{
				Sid:    fmt.Sprint(i),
				Effect: rapid.SampledFrom([]string{Allow, Deny}).Draw(t, "effect"),
				Action: Strings{rapid.SampledFrom([]string{"s3:*", "s3:Get*", "s3:PutObject", "sqs:*"}).Draw(t, "action")}, Resource: Strings{"*"},
			})
		}
		req := Request{Action: "s3:GetObject", Resource: obj}
		denies, allows := false, false
		for _, s := range statements {
			if s.Action[0] == "s3:*" || s.Action[0] == "s3:Get*" {
				denies, allows = denies || s.Effect == Deny, allows || s.Effect == Allow
			}
		}
		var policies []Policy
		for _, i := range rapid.Permutation(statements).Draw(t, "order") {
			policies = append(policies, Policy{Name: "p", Version: "2012-10-17", Statements: []Statement{i}})
		}
		d, err := Evaluate(policies, req)
		if err != nil {
			t.Fatal(err)
		}
		if d.Allowed != (allows && !denies) {
			t.Fatalf("%+v for %+v", d, statements)
		}
	})
}

func TestUnused(t *testing.T) {
	p := parsed(t, `{"Sid":"Reads","Effect":"Allow","Action":["s3:GetObject","s3:GetObjectAcl"],"Resource":["arn:aws:s3:::b/jobs/*","arn:aws:s3:::b/out/*"]},
		{"Sid":"Lists","Effect":"Allow","Action":"s3:ListBucket","Resource":"*","Condition":{"StringLikeIfExists":{"s3:prefix":["jobs/*","in/*"]},"Null":{"s3:delimiter":"true"}}},
		{"Sid":"Rest","Effect":"Allow","NotAction":"s3:*","Resource":"arn:aws:sqs:r:1:q"},
		{"Sid":"Never","Effect":"Deny","Action":"s3:PutObject","Resource":"*"}`)
	said := func(log ...Request) string {
		t.Helper()
		idle, err := Unused(p, log)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, i := range idle {
			out = append(out, i.String())
		}
		return strings.Join(out, "; ")
	}
	list := func(prefix string) Request {
		return Request{"s3:ListBucket", "arn:aws:s3:::b", map[string][]string{"s3:prefix": {prefix}}}
	}
	get := Request{"s3:GetObject", obj, nil}
	acl := Request{"s3:GetObjectAcl", "arn:aws:s3:::b/out/x", nil}
	send := Request{"sqs:SendMessage", "arn:aws:sqs:r:1:q", nil}
	for _, c := range []struct {
		log  []Request
		want string
	}{
		{[]Request{get, acl, list("jobs/"), list("in/"), send}, ""},
		{[]Request{get, list("jobs/"), list("in/"), send}, "Reads: s3:GetObjectAcl; Reads: arn:aws:s3:::b/out/*"},
		{[]Request{get, acl, list("in/"), send}, "Lists: s3:prefix=jobs/*"},
		{[]Request{get, acl, {"s3:ListBucket", "arn:aws:s3:::b", nil}, send}, "Lists: s3:prefix=in/*; Lists: s3:prefix=jobs/*"},
		{[]Request{get, acl, list("out/"), send}, "Lists: s3:ListBucket; Lists: *"}, // its condition did not hold
		{[]Request{get, acl, list("jobs/"), list("in/")}, "Rest: NotAction; Rest: arn:aws:sqs:r:1:q"},
	} {
		if got := said(c.log...); got != c.want {
			t.Errorf("unused: %q, want %q", got, c.want)
		}
	}
	if _, err := Unused(p, []Request{{Action: "what", Resource: "*"}}); err == nil {
		t.Error("a request that is none is counted")
	}
}
