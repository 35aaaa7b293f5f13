package aws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"hayrick"
	"hayrick/aws"
	"hayrick/infra"
)

// The tests in this file are of the protocol alone: a server that answers what
// CloudFormation's API reference says it answers, and records what it is asked. That the
// template deploys is shown elsewhere, on an emulator.

// cfn answers each action with its next reply; the last one stays.
type cfn struct {
	mu      sync.Mutex
	replies map[string][]string
	asked   []url.Values
}

func (c *cfn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	q, err := url.ParseQuery(string(body))
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, q)
	action := q.Get("Action")
	left := c.replies[action]
	if len(left) == 0 {
		http.Error(w, "no reply to "+action, 500)
		return
	}
	if len(left) > 1 {
		c.replies[action] = left[1:]
	}
	w.Header().Set("Content-Type", "text/xml")
	if code, message, failed := strings.Cut(left[0], "!"); failed {
		status := 400
		if code == "AccessDenied" {
			status = 403
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>1</RequestId></ErrorResponse>`, code, message)
		return
	}
	fmt.Fprintf(w, `<%sResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><%sResult>%s</%sResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></%sResponse>`, action, action, left[0], action, action)
}

func (c *cfn) of(action string) []url.Values {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.asked), func(q url.Values) bool { return q.Get("Action") != action })
}

// noSleep is a clock that does not wait.
type noSleep struct{ hayrick.Clock }

func (noSleep) Sleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

func stacksOf(t *testing.T, replies map[string][]string) (*aws.Stacks, *cfn) {
	t.Helper()
	c := &cfn{replies: replies}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	world := hayrick.RealWorld("test")
	world.Clock = noSleep{world.Clock}
	cfg := sdk.Config{Region: "eu-central-1", BaseEndpoint: &server.URL, Credentials: sdk.CredentialsProviderFunc(func(context.Context) (sdk.Credentials, error) {
		return sdk.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
	})}
	return aws.NewStacks(cfg, world, nil), c
}

func stackXML(status, reason string) string {
	return `<Stacks><member><StackName>hayrick-lab</StackName><StackId>arn:aws:cloudformation:eu-central-1:1:stack/hayrick-lab/1</StackId><CreationTime>2026-11-20T12:00:00.000Z</CreationTime>` +
		`<StackStatus>` + status + `</StackStatus><StackStatusReason>` + reason + `</StackStatusReason>` +
		`<Parameters><member><ParameterKey>Name</ParameterKey><ParameterValue>lab</ParameterValue></member><member><ParameterKey>BudgetEmail</ParameterKey><ParameterValue>a@b</ParameterValue></member></Parameters>` +
		`<Outputs><member><OutputKey>Store</OutputKey><OutputValue>s3://lab</OutputValue></member></Outputs></member></Stacks>`
}

const noStack = "ValidationError!Stack with id hayrick-lab does not exist"

func eventXML(id, resource, kind, status, reason string) string {
	return `<member><EventId>` + id + `</EventId><StackId>1</StackId><StackName>hayrick-lab</StackName><Timestamp>2026-11-20T12:00:00.000Z</Timestamp><LogicalResourceId>` + resource +
		`</LogicalResourceId><ResourceType>` + kind + `</ResourceType><ResourceStatus>` + status + `</ResourceStatus><ResourceStatusReason>` + reason + `</ResourceStatusReason></member>`
}

func TestStackOnTheWire(t *testing.T) {
	s, _ := stacksOf(t, map[string][]string{"DescribeStacks": {noStack, stackXML("UPDATE_COMPLETE", ""), "AccessDenied!User is not authorized to perform: cloudformation:DescribeStacks"}})
	if e, err := s.Look(t.Context(), "hayrick-lab"); e != nil || err != nil {
		t.Errorf("no stack: %+v %v", e, err)
	}
	e, err := s.Look(t.Context(), "hayrick-lab")
	if err != nil || e.Status != "UPDATE_COMPLETE" || e.Values["BudgetEmail"] != "a@b" || len(e.Outputs) != 1 || e.Outputs[0].Value != "s3://lab" || !strings.HasPrefix(e.ID, "arn:") {
		t.Errorf("%+v %v", e, err)
	}
	var user *hayrick.UserError
	if _, err = s.Look(t.Context(), "hayrick-lab"); !errors.As(err, &user) || user.Exit != 5 {
		t.Errorf("not allowed: %v", err)
	}
}

func TestChangeSetOnTheWire(t *testing.T) {
	const id = "arn:aws:cloudformation:eu-central-1:1:changeSet/c/1"
	change := `<Changes><member><Type>Resource</Type><ResourceChange><Action>Modify</Action><LogicalResourceId>Worker</LogicalResourceId><ResourceType>AWS::Lambda::Function</ResourceType><Replacement>False</Replacement></ResourceChange></member></Changes>`
	s, c := stacksOf(t, map[string][]string{
		"CreateChangeSet": {"<Id>" + id + "</Id><StackId>1</StackId>"},
		"DescribeChangeSet": {
			"<Status>CREATE_PENDING</Status>", "<Status>CREATE_IN_PROGRESS</Status>",
			"<Status>CREATE_COMPLETE</Status><NextToken>more</NextToken>" + change, "<Status>CREATE_COMPLETE</Status>" + strings.ReplaceAll(change, "Worker", "Table"),
			"<Status>FAILED</Status><StatusReason>The submitted information didn't contain changes. Submit different information to create a change set.</StatusReason>",
			"<Status>FAILED</Status><StatusReason>No updates are to be performed.</StatusReason>",
			"<Status>FAILED</Status><StatusReason>Transform is broken</StatusReason>",
		},
		"DeleteChangeSet": {""}, "ExecuteChangeSet": {"", "InvalidChangeSetStatus!it is being executed"},
	})
	set, changes, err := s.Prepare(t.Context(), "hayrick-lab", true, infra.Template(), map[string]string{"Name": "lab", "CodeKey": ""})
	if err != nil || set != id || len(changes) != 2 || changes[0] != (infra.Change{Action: "Modify", ID: "Worker", Type: "AWS::Lambda::Function", Replace: "False"}) || changes[1].ID != "Table" {
		t.Errorf("%q %+v %v", set, changes, err)
	}
	q := c.of("CreateChangeSet")[0]
	for key, want := range map[string]string{
		"StackName": "hayrick-lab", "ChangeSetType": "CREATE", "ImportExistingResources": "true", "Capabilities.member.1": "CAPABILITY_NAMED_IAM",
		"Parameters.member.1.ParameterKey": "CodeKey", "Parameters.member.1.ParameterValue": "", "Parameters.member.2.ParameterValue": "lab",
		"TemplateBody": string(infra.Template()), "ClientToken": q.Get("ChangeSetName"),
	} {
		if got := q.Get(key); got != want || !q.Has(key) {
			t.Errorf("%s = %.60q, want %.60q", key, got, want)
		}
	}
	for range 2 { // said in two ways: there is nothing to change
		set, changes, err = s.Prepare(t.Context(), "hayrick-lab", false, infra.Template(), nil)
		if set != "" || changes != nil || err != nil {
			t.Errorf("%q %v %v", set, changes, err)
		}
	}
	if q.Has("DeploymentMode") {
		t.Error("a new stack has nothing to bring back")
	}
	if q := c.of("CreateChangeSet")[1]; q.Get("ChangeSetType") != "UPDATE" || q.Get("DeploymentMode") != "REVERT_DRIFT" || q.Has("ImportExistingResources") || q.Get("ClientToken") == c.of("CreateChangeSet")[0].Get("ClientToken") {
		t.Errorf("%v", q)
	}
	if len(c.of("DeleteChangeSet")) != 2 {
		t.Error("a change set without changes stays")
	}
	var user *hayrick.UserError
	if _, _, err = s.Prepare(t.Context(), "hayrick-lab", false, infra.Template(), nil); !errors.As(err, &user) || !strings.Contains(user.What, "Transform is broken") {
		t.Errorf("%v", err)
	}
	if err := s.Execute(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := s.Execute(t.Context(), id); !errors.As(err, &user) || user.Exit != 7 || user.Hint == "" {
		t.Errorf("%v", err)
	}
}

// Events come newest first and in pages; of those of a long history only the newest
// operation's are asked for.
func TestEventsOnTheWire(t *testing.T) {
	const kind = "AWS::CloudFormation::Stack"
	page := func(next string, events ...string) string {
		return "<StackEvents>" + strings.Join(events, "") + "</StackEvents>" + next
	}
	s, c := stacksOf(t, map[string][]string{
		"DescribeStackEvents": {
			page("<NextToken>a</NextToken>", eventXML("5", "hayrick-lab", kind, "UPDATE_COMPLETE", ""), eventXML("4", "Worker", "AWS::Lambda::Function", "UPDATE_COMPLETE", "")),
			page("<NextToken>b</NextToken>", eventXML("3", "hayrick-lab", kind, "UPDATE_IN_PROGRESS", "User Initiated"), eventXML("2", "hayrick-lab", kind, "CREATE_COMPLETE", "")),
			page("", eventXML("1", "hayrick-lab", kind, "CREATE_IN_PROGRESS", "User Initiated")),
		},
	})
	events, err := s.Events(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	ids := ""
	for _, e := range infra.Operation(events) {
		ids += e.ID
	}
	if ids != "345" || len(c.of("DescribeStackEvents")) != 2 {
		t.Errorf("%s of %d pages", ids, len(c.of("DescribeStackEvents")))
	}
}

// A whole update that fails: what is told is the reason of the resource that failed
// first, and the way out.
func TestAFailedUpdateOnTheWire(t *testing.T) {
	const kind = "AWS::CloudFormation::Stack"
	before := eventXML("1", "hayrick-lab", kind, "CREATE_IN_PROGRESS", "User Initiated")
	failed := eventXML("6", "hayrick-lab", kind, "UPDATE_ROLLBACK_COMPLETE", "") + eventXML("5", "Sweeper", "AWS::Lambda::Function", "UPDATE_FAILED", "Resource update cancelled") +
		eventXML("4", "Worker", "AWS::Lambda::Function", "UPDATE_FAILED", "User: x is not authorized to perform: lambda:PutFunctionConcurrency") +
		eventXML("3", "hayrick-lab", kind, "UPDATE_IN_PROGRESS", "User Initiated")
	s, _ := stacksOf(t, map[string][]string{
		"DescribeStacks":      {stackXML("CREATE_COMPLETE", ""), stackXML("CREATE_COMPLETE", ""), stackXML("UPDATE_IN_PROGRESS", ""), stackXML("UPDATE_ROLLBACK_IN_PROGRESS", ""), stackXML("UPDATE_ROLLBACK_COMPLETE", "")},
		"CreateChangeSet":     {"<Id>arn:c/1</Id>"},
		"DescribeChangeSet":   {"<Status>CREATE_COMPLETE</Status>"},
		"ExecuteChangeSet":    {""},
		"DescribeStackEvents": {"<StackEvents>" + before + "</StackEvents>", "<StackEvents>" + before + "</StackEvents>", "<StackEvents>" + failed + before + "</StackEvents>"},
	})
	var told []string
	d := &infra.Deployer{
		Stacks: s, ChangeSets: s, Data: noData{}, Clock: noSleep{}, Confirm: func(string, []infra.Change) error { return nil },
		Tell: func(e infra.Event) { told = append(told, e.ID) },
	}
	_, err := d.Up(t.Context(), infra.Upkeep{Store: "lab", CodeKey: "code/x.zip", Architecture: "arm64"})
	var user *hayrick.UserError
	if !errors.As(err, &user) || user.Exit != 5 || !strings.Contains(user.What, "PutFunctionConcurrency") || !strings.Contains(user.What, "Worker") {
		t.Errorf("%v", err)
	}
	if got := strings.Join(told, ""); got != "3456" {
		t.Errorf("told %s", got)
	}
}

// noData is a bucket with everything in it.
type noData struct{ infra.Data }

func (noData) Has(context.Context, string) (bool, error) { return true, nil }
