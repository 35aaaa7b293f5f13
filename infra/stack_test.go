package infra

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hayrick"
	"hayrick/manifest"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/stack.golden.json anew")

// The golden file is the stack with all that there can be in it.
func TestGolden(t *testing.T) {
	s := lab(t)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(map[string]any{"Resources": s.Resources, "Outputs": s.Outputs}); err != nil {
		t.Fatal(err)
	}
	const file = "testdata/stack.golden.json"
	if *rewrite {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		was, is := strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")
		for i := range min(len(was), len(is)) {
			if was[i] != is[i] {
				t.Fatalf("%s:%d is now %q, was %q; -rewrite, and review the diff", file, i+1, is[i], was[i])
			}
		}
		t.Fatalf("%s: %d lines now, %d before", file, len(is), len(was))
	}
}

// every calls f for the stacks at the ends of what may be chosen.
func every(t *testing.T, f func(t *testing.T, s *Stack)) {
	doc, err := parseTemplate(template)
	if err != nil {
		t.Fatal(err)
	}
	choices := func(parameter string) (out []string) {
		for _, v := range doc.parameters[parameter].(map[string]any)["AllowedValues"].([]any) {
			out = append(out, plain(v))
		}
		return out
	}
	timeouts, sizes := choices("TimeoutSeconds"), choices("MaxConcurrency")
	if len(timeouts) < 2 || len(sizes) < 2 {
		t.Fatalf("timeouts %v, sizes %v", timeouts, sizes)
	}
	for i := range max(len(timeouts), len(sizes)) {
		v := map[string]string{
			"TimeoutSeconds": timeouts[i%len(timeouts)], "MaxConcurrency": sizes[i%len(sizes)],
			"CodeKey": []string{"code/x.zip", ""}[i%2], "AlarmEmail": []string{"", "a@b"}[i/2%2], "KeepDays": []string{"0", "30"}[i/4%2],
		}
		t.Run(fmt.Sprint(v), func(t *testing.T) { f(t, stack(t, v)) })
	}
	for _, timeout := range timeouts { // each with functions
		t.Run(timeout, func(t *testing.T) {
			f(t, stack(t, map[string]string{"TimeoutSeconds": timeout, "CodeKey": "code/x.zip"}))
		})
	}
	for _, size := range sizes {
		t.Run(size, func(t *testing.T) { f(t, stack(t, map[string]string{"MaxConcurrency": size, "CodeKey": "code/x.zip"})) })
	}
}

func number(t *testing.T, v any) int64 {
	t.Helper()
	n, ok := v.(int64)
	if !ok {
		t.Fatalf("%v (%T) is no integer", v, v)
	}
	return n
}

// The proportions without which messages are lost, doubled or parked.
func TestQueuesAndFunctionsFitTogether(t *testing.T) {
	mapped := 0
	every(t, func(t *testing.T, s *Stack) {
		dead := map[string]bool{}
		for _, q := range s.Queues() {
			if q.DeadLetter == "" {
				dead[q.ARN] = true
			}
		}
		if len(dead) != 1 || len(s.Queues()) != 2 || s.Queues()[0].DeadLetter != "" {
			t.Fatalf("%d dead of %d queues", len(dead), len(s.Queues()))
		}
		timeout := int64(0)
		if w, ok := s.Resource("Worker"); ok {
			timeout = number(t, w.Properties["Timeout"])
		}
		for _, q := range s.Queues() {
			// A dead message keeps its age: SQS gives it no new life.
			if days := map[bool]string{true: "1209600", false: "604800"}[q.DeadLetter == ""]; q.Attributes["MessageRetentionPeriod"] != days {
				t.Errorf("%s keeps messages for %s s, want %s", q.Name, q.Attributes["MessageRetentionPeriod"], days)
			}
			if q.DeadLetter != "" && (!dead[q.DeadLetter] || q.MaxReceive != hayrick.MaxReceives) {
				t.Errorf("%s gives up to %q after %d deliveries", q.Name, q.DeadLetter, q.MaxReceive)
			}
			visibility, err := strconv.ParseInt(q.Attributes["VisibilityTimeout"], 10, 64)
			if err != nil || visibility < 6*timeout || visibility == 0 || visibility > 12*3600 {
				t.Errorf("%s hides messages for %d s (%v), the function takes %d", q.Name, visibility, err, timeout)
			}
			if q.Attributes["SqsManagedSseEnabled"] != "true" {
				t.Errorf("%s: %v", q.Name, q.Attributes)
			}
		}
		for _, m := range s.Of("AWS::Lambda::EventSourceMapping") {
			mapped++
			w, ok := s.Resource("Worker")
			if !ok || m.Properties["FunctionName"] != w.Properties["FunctionName"] {
				t.Fatalf("the mapping is of %v", m.Properties["FunctionName"])
			}
			most := number(t, m.Properties["ScalingConfig"].(map[string]any)["MaximumConcurrency"])
			if reserved := number(t, w.Properties["ReservedConcurrentExecutions"]); most >= reserved || most < 2 || most > 1000 {
				t.Errorf("the queue may use %d of %d", most, reserved)
			}
			if w.Properties["RecursiveLoop"] != "Allow" {
				t.Error("AWS would stop the loop of task and retry after 16 hops")
			}
			if fmt.Sprint(m.Properties["FunctionResponseTypes"]) != "[ReportBatchItemFailures]" {
				t.Error("one message would bring its batch back")
			}
			if q := s.Queues()[1]; m.Properties["EventSourceArn"] != q.ARN || !strings.HasSuffix(q.Name, "-"+hayrick.QueueTasks) {
				t.Errorf("the function drains %v", m.Properties["EventSourceArn"])
			}
		}
	})
	if mapped == 0 {
		t.Error("no stack has a function")
	}
}

// ourPolicies are all policy documents of a stack, by where they stand.
func ourPolicies(t *testing.T, s *Stack) map[string]Policy {
	t.Helper()
	out := map[string]Policy{}
	var find func(at string, v any)
	find = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, e := range v {
				if name == "PolicyDocument" {
					b, err := json.Marshal(e)
					if err != nil {
						t.Fatal(err)
					}
					if out[at], err = ParsePolicy(at, b); err != nil {
						t.Fatal(err)
					}
					continue
				}
				find(at+"/"+name, e)
			}
		case []any:
			for i, e := range v {
				find(at+"/"+strconv.Itoa(i), e)
			}
		}
	}
	for _, r := range s.Resources {
		find(r.ID, r.Properties)
	}
	return out
}

// resourceless are actions for which AWS takes no resource but "*". None is needed.
var resourceless = []string{}

func TestPoliciesAreNarrow(t *testing.T) {
	policies := ourPolicies(t, lab(t))
	if len(policies) != 5+1+2+3 { // roles, bucket, queues, inline ones of functions and schedule
		t.Errorf("%d policies: %v", len(policies), slices.Sorted(maps.Keys(policies)))
	}
	for at, p := range policies {
		for i, s := range p.Statements {
			if s.Sid == "" {
				t.Errorf("%s, statement %d has no Sid: nobody could say what denied", at, i)
			}
			if s.Effect == Deny {
				continue
			}
			if s.Principal != "" {
				t.Errorf("%s/%s allows somebody that is not in the account", at, s.Sid)
			}
			if len(s.NotAction)+len(s.NotResource) > 0 {
				t.Errorf("%s/%s allows all but something", at, s.Sid)
			}
			for _, a := range s.Action {
				if strings.ContainsAny(a, "*?") {
					t.Errorf("%s/%s allows %s", at, s.Sid, a)
				}
				if service, _, _ := strings.Cut(a, ":"); !slices.Contains([]string{"s3", "dynamodb", "sqs", "logs", "lambda"}, service) {
					t.Errorf("%s/%s allows %s", at, s.Sid, a)
				}
				if strings.HasPrefix(a, "dynamodb:") && (len(s.Condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]) == 0 || len(s.Condition["Null"]["dynamodb:LeadingKeys"]) == 0) {
					t.Errorf("%s/%s allows %s on any item", at, s.Sid, a)
				}
				own := slices.ContainsFunc(s.Resource, func(r string) bool { return strings.Contains(r, "lab.hayrick") })
				if a == "s3:ListBucket" && own && len(s.Condition["StringLikeIfExists"]["s3:prefix"])+len(s.Condition["StringLike"]["s3:prefix"]) == 0 {
					t.Errorf("%s/%s lists the whole bucket", at, s.Sid)
				}
			}
			for _, r := range s.Resource {
				if r == "*" && !slices.ContainsFunc(s.Action, func(a string) bool { return slices.Contains(resourceless, a) }) {
					t.Errorf("%s/%s allows it on *", at, s.Sid)
				}
			}
		}
	}
}

// mostInputBuckets is how many names InputBuckets takes.
const mostInputBuckets = 12

// AWS counts characters.
func TestLimitsOfAWS(t *testing.T) {
	if n := len(Template()); n > 51_200 {
		t.Errorf("the template has %d bytes: it would have to be uploaded first", n)
	}
	names := make([]string, mostInputBuckets)
	for i := range names {
		names[i] = fmt.Sprintf("%063d", i)
	}
	long := stack(t, map[string]string{"Name": strings.Repeat("n", 48), "CodeKey": "code/x.zip", "InputBuckets": strings.Join(names, ",")})
	if _, err := Resolve(labParams(map[string]string{"InputBuckets": strings.Join(append(names, "one.more"), ",")})); err == nil {
		t.Error("there may be more buckets than a policy has room for")
	}
	for role, p := range long.policies {
		if n := len(p.JSON()); n > 6144 {
			t.Errorf("the policy of the %s has %d characters", role, n)
		}
	}
	if n := len(long.Bucket().Policy.JSON()); n > 20<<10 {
		t.Errorf("the policy of the bucket has %d bytes", n)
	}
	limits := map[string]int{"FunctionName": 64, "RoleName": 64, "QueueName": 80, "BucketName": 63, "TableName": 255, "ManagedPolicyName": 128}
	seen := 0
	for _, r := range long.Resources {
		for property, limit := range limits {
			if name, ok := r.Properties[property].(string); ok && r.Type != "AWS::Lambda::EventSourceMapping" {
				if seen++; len(name) > limit {
					t.Errorf("%s: %s has %d characters", r.ID, name, len(name))
				}
			}
		}
	}
	if seen < 12 {
		t.Errorf("only %d names looked at", seen)
	}
}

func TestBucketKeepsWhatItIsGiven(t *testing.T) {
	for days, want := range map[string][]LifecycleRule{
		"0":   {{"abandoned-uploads", "", 2, 0}, {"doctor", "doctor/", 0, 1}},
		"400": {{"abandoned-uploads", "", 2, 0}, {"doctor", "doctor/", 0, 1}, {"old-jobs", manifest.Jobs, 0, 400}},
	} {
		s := stack(t, map[string]string{"KeepDays": days})
		b := s.Bucket()
		if !slices.Equal(b.Lifecycle, want) {
			t.Errorf("KeepDays %s: %+v", days, b.Lifecycle)
		}
		if !b.Private || b.Encrypted != "AES256" {
			t.Errorf("private %v, encrypted %q", b.Private, b.Encrypted)
		}
		for _, r := range s.Resources {
			if want := r.ID == "Bucket"; r.Keep != want {
				t.Errorf("%s outlives the stack: %v", r.ID, r.Keep)
			}
		}
	}
}

// The bucket tells commits from all else by their keys alone.
func TestCommitsAreWrittenOnce(t *testing.T) {
	s := lab(t)
	all := parsed(t, `{"Effect":"Allow","Action":"s3:*","Resource":"*"}`)
	sha := strings.Repeat("0123456789abcdef", 4)
	j := manifest.Job("run-1")
	commits := []string{j.Plan(), j.Done("task-0000"), j.Done(manifest.MergeTaskID(0, 1, 3, 2)), j.RetryPlan(1), j.RetryPlan(12), j.AggregationPlan(0), j.Control(0), j.Control(7), j.Outcome(0), j.Outcome(11)}
	rest := []string{
		j.Manifest(), j.TaskManifest("task-0000"), j.RetryManifest(1), j.AggregationManifest(), j.Config(sha), j.Bundle(sha),
		j.Input("plan.json", sha), j.Input("outcome-0.json", sha), j.Input("results.done", sha), j.Index(hayrick.GroupAggregation, 0, sha), j.Segment("initial_batch", 1, sha),
		j.Block("retry_batch_1", 0, sha), j.Rows("task-0000", sha, sha), j.Failures("task-0000", sha, sha), j.Checkpoint("task-0000", 4, sha, sha),
		j.RetryList(1, "permanent", sha), j.AggregationInputs(0, sha), j.Part(0, 1, sha), j.List(0, "outcome", sha), "out/run-1/part-00000.parquet", "out/plan.json", "code/x.zip",
	}
	for _, c := range []struct {
		keys    []string
		absent  bool
		allowed bool
	}{{commits, false, false}, {commits, true, true}, {rest, false, true}, {rest, true, true}} {
		for _, key := range c.keys {
			req := Request{"s3:PutObject", s.Bucket().ARN + "/" + key, map[string][]string{
				"aws:SecureTransport": {"true"}, "aws:PrincipalAccount": {"111122223333"}, "s3:TlsVersion": {"1.3"},
			}}
			if c.absent {
				req.Context["s3:if-none-match"] = []string{"*"}
			}
			d, err := Evaluate([]Policy{all, s.Bucket().Policy}, req)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed != c.allowed {
				t.Errorf("put %s, if absent %v: %s", key, c.absent, d.Because)
			}
		}
	}
}

func TestTable(t *testing.T) {
	got := fmt.Sprintf("%+v", lab(t).Table())
	want := "{Name:lab.hayrick Billing:PAY_PER_REQUEST Attributes:[{Name:pk Type:S} {Name:sk Type:S}] Keys:[{Name:pk Type:HASH} {Name:sk Type:RANGE}] TTL:expires Encrypted:true PITR:false}"
	if got != want {
		t.Errorf("table %s", got)
	}
}

// CloudFormation makes things in the order of their references, which may not go in a
// circle.
func TestReferencesDoNotGoInACircle(t *testing.T) {
	every(t, func(t *testing.T, s *Stack) {
		made := map[string]bool{}
		for len(made) < len(s.Resources) {
			before := len(made)
			for _, r := range s.Resources {
				if !made[r.ID] && !slices.ContainsFunc(r.DependsOn, func(d string) bool { return !made[d] }) {
					made[r.ID] = true
				}
			}
			if len(made) == before {
				t.Fatalf("%d of %d can be made", before, len(s.Resources))
			}
		}
	})
	deps := func(id string) []string { r, _ := lab(t).Resource(id); return r.DependsOn }
	if got := deps("Worker"); !slices.Equal(got, []string{"Bucket", "WorkerLog", "WorkerRole"}) {
		t.Errorf("the worker needs %v", got)
	}
}

func TestWithoutCodeNothingRuns(t *testing.T) {
	s := stack(t, nil)
	for _, r := range s.Resources {
		if strings.HasPrefix(r.Type, "AWS::Lambda") || r.Type == "AWS::IAM::Role" || r.Type == "AWS::Scheduler::Schedule" || r.Type == "AWS::SNS::Topic" {
			t.Errorf("%s is made without code", r.ID)
		}
	}
	if len(s.Outputs) != 9 || len(lab(t).Outputs) != 11 {
		t.Errorf("%d outputs without code, %d with", len(s.Outputs), len(lab(t).Outputs))
	}
	for _, o := range lab(t).Outputs {
		if len(o.Description) < 10 || o.Value == "" {
			t.Errorf("output %+v tells nobody anything", o)
		}
	}
}

func TestAlarmsReachSomebody(t *testing.T) {
	for email, want := range map[string]string{"": "<nil>", "a@b": "[arn:aws:sns:eu-central-1:111122223333:lab-hayrick-alarms]"} {
		alarms := stack(t, map[string]string{"CodeKey": "code/x.zip", "AlarmEmail": email}).Of("AWS::CloudWatch::Alarm")
		if len(alarms) != 5 {
			t.Errorf("%d alarms", len(alarms))
		}
		for _, a := range alarms {
			if got := fmt.Sprint(a.Properties["AlarmActions"]); got != want {
				t.Errorf("%s tells %s, want %s", a.ID, got, want)
			}
		}
	}
}

func TestParameters(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        string // "" = taken
	}{
		{"Name", "lab", ""}, {"Name", "my.lab-2", ""}, {"Name", "Lab", "3 to 48"}, {"Name", "la", "3 to 48"}, {"Name", "lab-", "3 to 48"},
		{"Name", strings.Repeat("n", 49), "3 to 48"}, {"Name", "lab\n", "3 to 48"},
		{"CodeKey", "code/a.zip", ""}, {"CodeKey", "", ""}, {"CodeKey", "jobs/a.zip", "code/<file>"}, {"CodeKey", "code/../a", "code/<file>"},
		{"MaxConcurrency", "1000", ""}, {"MaxConcurrency", "7", "AllowedValues"}, {"MaxConcurrency", "many", "AllowedValues"}, {"MemoryMiB", "many", "not a number"},
		{"TimeoutSeconds", "900", ""}, {"TimeoutSeconds", "901", "AllowedValues"},
		{"MemoryMiB", "256", ""}, {"MemoryMiB", "10240", ""}, {"MemoryMiB", "255", "MinValue: 256"}, {"MemoryMiB", "10241", "MaxValue: 10240"},
		{"Architecture", "x86_64", ""}, {"Architecture", "riscv", "AllowedValues"},
		{"BudgetUSD", "12.50", ""}, {"BudgetUSD", "0", "MinValue"}, {"BudgetEmail", "", "e-mail"}, {"AlarmEmail", "nobody", "e-mail"},
		{"KeepDays", "-1", "MinValue"}, {"Colour", "red", "no parameter Colour"},
	} {
		_, err := Resolve(labParams(map[string]string{c.name: c.value}))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s = %q: %v, want %q", c.name, c.value, err, c.want)
		}
	}
	p := labParams(nil)
	delete(p.Values, "Name")
	if _, err := Resolve(p); err == nil || !strings.Contains(err.Error(), "no default") {
		t.Errorf("without a name: %v", err)
	}
	for _, p := range []Params{{Region: "r"}, {Account: "111122223333"}, {Account: "1", Region: "r"}} {
		p.Values = labParams(nil).Values
		if _, err := Resolve(p); err == nil {
			t.Errorf("%+v is taken", p)
		}
	}
}

// ARNs follow the partition.
func TestPartitions(t *testing.T) {
	p := labParams(nil)
	p.Partition, p.Region = "aws-cn", "cn-north-1"
	s, err := Resolve(p)
	if err != nil {
		t.Fatal(err)
	}
	q := s.Queues()[1]
	if s.Bucket().ARN != "arn:aws-cn:s3:::lab.hayrick" || q.ARN != "arn:aws-cn:sqs:cn-north-1:111122223333:lab-hayrick-tasks" || !strings.HasPrefix(q.URL, "https://sqs.cn-north-1.amazonaws.com.cn/") {
		t.Errorf("%s %s %s", s.Bucket().ARN, q.ARN, q.URL)
	}
	for _, role := range Roles() {
		if strings.Contains(string(s.Policy(role).JSON()), "arn:aws:") {
			t.Errorf("the policy of the %s names the other partition", role)
		}
	}
}

// What the resolver does not understand, it refuses.
func TestTemplatesAreReadStrictly(t *testing.T) {
	const head = "Parameters: {Name: {Type: String, Default: n}}\nConditions: {No: !Equals [a, b]}\nMappings: {M: {a: {b: 1}}}\nResources:\n"
	bucket := func(value string) string {
		return head + "  B:\n    Type: AWS::S3::Bucket\n    Properties:\n      BucketName: " + value + "\n"
	}
	for _, c := range []struct{ text, want string }{
		{bucket("!GetAZs x"), "tag !GetAZs"},
		{bucket("!Ref Nothing"), "no parameter or resource Nothing"},
		{bucket("!Sub \"${Nothing}\""), "no parameter or resource Nothing"},
		{bucket("!GetAtt B.Size"), "B.Size"},
		{bucket("!Ref B"), "in a circle"},
		{bucket("!FindInMap [M, a, c]"), "there is no"},
		{bucket("!If [Maybe, a, b]"), "no condition Maybe"},
		{bucket("!Not [a]"), "neither true nor false"},
		{bucket("!Join [a]"), "not understood"},
		{bucket("{Ref: Name, Other: x}"), "does not stand alone"},
		{bucket("{\"Fn::Cidr\": [a]}"), "Fn::Cidr"},
		{bucket("a\n    DependsOn: C"), "DependsOn is not understood"},
		{bucket("a\n  C: {Type: X, Condition: No, Properties: {}}\n  D: {Type: X, Properties: {V: !Ref C}}"), "C is not made"},
		{bucket("a\n  C: {Type: X, Properties: {}}\n  D: {Type: X, Properties: {V: !Ref C}}"), "what names a X"},
		{head + "  B: {Type: AWS::S3::Bucket, Properties: {}}\n  D: {Type: X, Properties: {V: !Ref B}}", "AWS would make one up"},
		{bucket("a") + "Transform: AWS::Serverless-2016-10-31\n", "section Transform"},
		{bucket("&x a\n  C: *x"), "not understood"},
		{bucket("a\n      BucketName: b"), "BucketName"},
		{bucket("a\n      1: b"), "no text"},
		{"- a", "no mapping"},
		{"Parameters: {}\n", "0 resources"},
		{bucket("a"), "0 of AWS::DynamoDB::Table"},
	} {
		if _, err := resolveText(c.text, Params{Account: "111122223333", Region: "r"}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n%v, want %q", c.text, err, c.want)
		}
	}
}

// A property that the accessors do not carry over is an error: what is made from a
// Stack has all that the template asks for.
func TestAccessorsLeaveNothingOut(t *testing.T) {
	for _, c := range []struct{ after, add string }{
		{"      BillingMode: PAY_PER_REQUEST\n", "      TableClass: STANDARD\n"},
		{"      BucketName: !Ref Name\n", "      ObjectLockEnabled: true\n"},
		{"      SqsManagedSseEnabled: true\n", "      DelaySeconds: 5\n"},
		{"        maxReceiveCount: 100\n", "        colour: red\n"},
		{"          - Sid: ReadObjects\n", "            Colour: red\n"},
	} {
		changed := strings.Replace(string(template), c.after, c.after+c.add, 1)
		if changed == string(template) {
			t.Fatalf("%q is not in the template", c.after)
		}
		if _, err := resolveText(changed, labParams(nil)); err == nil {
			t.Errorf("%q goes unnoticed", c.add)
		}
	}
}

func resolveText(text string, p Params) (*Stack, error) {
	doc, err := parseTemplate([]byte(text))
	if err != nil {
		return nil, err
	}
	return resolve(doc, p)
}
