package wirelog

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"hayrick/infra"
)

// send asks one thing of a log's proxy and returns the answer.
func send(t *testing.T, l *Log, service, method, path, body string, header ...string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequest(method, l.URL(service)+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// started is a log before a server that answers with what it was sent, and 404 to a key
// that is "missing".
func started(t *testing.T) (l *Log, hosts *[]string) {
	t.Helper()
	hosts = new([]string)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*hosts = append(*hosts, r.Host)
		if strings.HasSuffix(r.URL.Path, "missing") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		io.Copy(w, r.Body)
	}))
	t.Cleanup(srv.Close)
	for _, s := range []string{"S3", "DYNAMODB", "SQS"} {
		t.Setenv("AWS_ENDPOINT_URL_"+s, srv.URL)
	}
	l, err := Start("eu-central-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, hosts
}

// Requests arrive as they were sent, signed host and all, and are written down as what
// AWS would want to know of them.
func TestLog(t *testing.T) {
	const (
		tls   = "aws:PrincipalAccount:[000000000000] aws:SecureTransport:[true]"
		s3    = tls + " s3:TlsVersion:[1.3]"
		table = "arn:aws:dynamodb:eu-central-1:000000000000:table/lab"
		queue = "arn:aws:sqs:eu-central-1:000000000000:lab-tasks"
	)
	key := func(pk string) string {
		return "map[aws:PrincipalAccount:[000000000000] aws:SecureTransport:[true] dynamodb:LeadingKeys:[" + pk + "]]"
	}
	for _, c := range []struct {
		service, method, path, body string
		header                      []string
		want                        []string
	}{
		{"s3", "GET", "/lab/jobs/a", "", nil, []string{"s3:GetObject arn:aws:s3:::lab/jobs/a map[" + s3 + "]"}},
		{"s3", "GET", "/lab/jobs/missing", "", nil, []string{"s3:GetObject arn:aws:s3:::lab/jobs/missing map[" + s3 + "]", "s3:ListBucket arn:aws:s3:::lab map[" + s3 + "]"}},
		{"s3", "GET", "/lab/in/a?versionId=1&x-id=GetObject", "", nil, []string{"s3:GetObjectVersion arn:aws:s3:::lab/in/a map[" + s3 + "]"}},
		{"s3", "GET", "/lab/in/missing?versionId=1", "", nil, []string{"s3:GetObjectVersion arn:aws:s3:::lab/in/missing map[" + s3 + "]", "s3:ListBucket arn:aws:s3:::lab map[" + s3 + "]"}},
		{"s3", "HEAD", "/lab/in/a%20b", "", nil, []string{"s3:GetObject arn:aws:s3:::lab/in/a b map[" + s3 + "]"}},
		{"s3", "GET", "/lab?list-type=2&prefix=jobs%2F&delimiter=%2F", "", nil, []string{"s3:ListBucket arn:aws:s3:::lab map[" + tls + " s3:TlsVersion:[1.3] s3:delimiter:[/] s3:prefix:[jobs/]]"}},
		{"s3", "PUT", "/lab/jobs/a/plan.json", "{}", []string{"If-None-Match", "*"}, []string{"s3:PutObject arn:aws:s3:::lab/jobs/a/plan.json map[" + s3 + " s3:if-none-match:[*]]"}},
		{"s3", "PUT", "/lab/out/x", "", []string{"X-Amz-Copy-Source", "lab/jobs/a%20b"}, []string{"s3:GetObject arn:aws:s3:::lab/jobs/a b map[" + s3 + "]", "s3:PutObject arn:aws:s3:::lab/out/x map[" + s3 + "]"}},
		{"s3", "POST", "/lab/x?uploads=", "", nil, []string{"s3:PutObject arn:aws:s3:::lab/x map[" + s3 + "]"}},
		{"s3", "DELETE", "/lab/x?uploadId=u", "", nil, []string{"s3:AbortMultipartUpload arn:aws:s3:::lab/x map[" + s3 + "]"}},
		{"s3", "DELETE", "/lab/x", "", nil, []string{"s3:DeleteObject arn:aws:s3:::lab/x map[" + s3 + "]"}},
		{"dynamodb", "POST", "/", `{"TableName":"lab","Key":{"pk":{"S":"claim#a"},"sk":{"S":"-"}}}`, []string{"X-Amz-Target", "DynamoDB_20120810.GetItem"}, []string{"dynamodb:GetItem " + table + " " + key("claim#a")}},
		{"dynamodb", "POST", "/", `{"TableName":"lab","Item":{"pk":{"S":"job#a"}}}`, []string{"X-Amz-Target", "DynamoDB_20120810.PutItem"}, []string{"dynamodb:PutItem " + table + " " + key("job#a")}},
		{"dynamodb", "POST", "/", `{"TableName":"lab","KeyConditionExpression":"pk = :p","ExpressionAttributeValues":{":p":{"S":"block#a"},":n":{"N":"1"}}}`, []string{"X-Amz-Target", "DynamoDB_20120810.Query"}, []string{"dynamodb:Query " + table + " " + key("block#a")}},
		{"sqs", "POST", "/", `{"QueueUrl":"http://127.0.0.1:1/000000000000/lab-tasks","Entries":[]}`, []string{"X-Amz-Target", "AmazonSQS.SendMessageBatch"}, []string{"sqs:SendMessage " + queue + " map[" + tls + "]"}},
		{"sqs", "POST", "/", `{"QueueName":"lab-tasks"}`, []string{"X-Amz-Target", "AmazonSQS.GetQueueUrl"}, []string{"sqs:GetQueueUrl " + queue + " map[" + tls + "]"}},
	} {
		l, hosts := started(t)
		if _, got := send(t, l, c.service, c.method, c.path, c.body, c.header...); c.method != "HEAD" && got != c.body {
			t.Errorf("%s arrives as %s", c.body, got)
		}
		if want := strings.TrimPrefix(l.URL(c.service), "http://"); !slices.Equal(*hosts, []string{want}) {
			t.Errorf("%s: the host arrives as %v, not %s", c.path, *hosts, want)
		}
		var got []string
		for _, r := range l.Asked() {
			got = append(got, fmt.Sprint(r, " ", r.Context))
		}
		if !slices.Equal(got, c.want) || len(l.Strange()) > 0 {
			t.Errorf("%s %s %s:\n%s, strange %q; want\n%s", c.service, c.method, c.path, strings.Join(got, "\n"), l.Strange(), strings.Join(c.want, "\n"))
		}
	}
}

// What is not understood is said, not left out; it is passed on all the same.
func TestStrange(t *testing.T) {
	for _, c := range []struct {
		service, method, path, body string
		header                      []string
		want                        string
	}{
		{"s3", "DELETE", "/lab/x?versionId=1", "", nil, "DELETE /lab/x: what ?versionId asks for is not known"},
		{"s3", "HEAD", "/lab/x?versionId=1", "", nil, "HEAD /lab/x: what ?versionId asks for is not known"},
		{"s3", "GET", "/lab?policy=", "", nil, "GET /lab: what ?policy asks for is not known"},
		{"s3", "PUT", "/lab", "", nil, "PUT of bucket lab: the operation is not known"},
		{"s3", "PUT", "/lab/x", "", []string{"X-Amz-Acl", "public-read"}, "PUT /lab/x: what X-Amz-Acl asks for is not known"},
		{"s3", "PATCH", "/lab/x", "", nil, "infra does not know what s3.PATCH asks for"},
		{"dynamodb", "POST", "/", `{"TableName":"lab"}`, []string{"X-Amz-Target", "DynamoDB_20120810.Scan"}, `Scan names table "lab" and key ""`},
		{"dynamodb", "POST", "/", `{"TableName":"lab","KeyConditionExpression":"a = :p"}`, []string{"X-Amz-Target", "DynamoDB_20120810.Query"}, `the query "a = :p" is not about one partition of the table`},
		{"sqs", "POST", "/", `{"QueueUrl":"u/lab"}`, []string{"X-Amz-Target", "AmazonSQS.PurgeQueue"}, "infra does not know what sqs.PurgeQueue asks for"},
	} {
		l, hosts := started(t)
		send(t, l, c.service, c.method, c.path, c.body, c.header...)
		if got := l.Strange(); !slices.Equal(got, []string{c.want}) || len(l.Asked()) > 0 {
			t.Errorf("%s %s: strange %q, asked %v; want %q", c.method, c.path, got, l.Asked(), c.want)
		}
		if len(*hosts) != 1 {
			t.Errorf("%s %s is not passed on", c.method, c.path)
		}
	}
}

// A request that is refused is noted, and goes nowhere.
func TestRefuse(t *testing.T) {
	l, hosts := started(t)
	l.Refuse(func(operation, resource string) bool {
		return operation == "UploadPart" && resource == "arn:aws:s3:::lab/x"
	})
	if status, _ := send(t, l, "s3", "PUT", "/lab/x?partNumber=1&uploadId=u", "part"); status != http.StatusBadRequest {
		t.Errorf("%d", status)
	}
	if status, _ := send(t, l, "s3", "PUT", "/lab/x", "whole"); status != http.StatusOK {
		t.Errorf("%d", status)
	}
	if len(*hosts) != 1 || l.Calls()["s3.UploadPart"] != 1 || len(l.Asked()) != 1 {
		t.Errorf("%d passed on; %v, %v", len(*hosts), l.Calls(), l.Asked())
	}
}

// What somebody may not do is answered as the service does, noted, and goes nowhere.
func TestDeny(t *testing.T) {
	l, hosts := started(t)
	l.Deny(func(r infra.Request) bool {
		return r.Action == "s3:GetObject" && r.Resource == "arn:aws:s3:::theirs/x" || r.Action == "dynamodb:GetItem" || r.Action == "sqs:GetQueueUrl"
	})
	for _, c := range []struct {
		service, method, path, body, target string
		want                                int
	}{
		{"s3", "GET", "/theirs/x", "", "", http.StatusForbidden},
		{"s3", "HEAD", "/theirs/x", "", "", http.StatusForbidden},
		{"s3", "GET", "/ours/x", "", "", http.StatusOK},
		{"s3", "PUT", "/theirs/x", "", "", http.StatusOK},
		{"dynamodb", "POST", "/", `{"TableName":"lab","Key":{"pk":{"S":"claim#a"}}}`, "DynamoDB_20120810.GetItem", http.StatusBadRequest},
		{"sqs", "POST", "/", `{"QueueName":"lab-tasks"}`, "AmazonSQS.GetQueueUrl", http.StatusForbidden},
	} {
		status, said := send(t, l, c.service, c.method, c.path, c.body, "X-Amz-Target", c.target)
		if status != c.want || c.want != http.StatusOK && c.method != "HEAD" && !strings.Contains(said, "AccessDenied") {
			t.Errorf("%s %s %s: %d %s", c.service, c.method, c.path, status, said)
		}
	}
	if len(*hosts) != 2 || len(l.Asked()) != 5 || len(l.Strange()) > 0 {
		t.Errorf("%d passed on; %v, strange %v", len(*hosts), l.Asked(), l.Strange())
	}
}
