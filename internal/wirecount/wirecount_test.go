package wirecount

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What passes is what was sent, and is counted as what it is.
func TestMeter(t *testing.T) {
	var hosts []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts = append(hosts, r.Host)
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("X-Amz-Target") == "DynamoDB_20120810.PutItem" {
			if !strings.HasPrefix(string(body), `{"ReturnConsumedCapacity":"TOTAL",`) {
				t.Errorf("DynamoDB is asked %s", body)
			}
			io.WriteString(w, `{"ConsumedCapacity":{"CapacityUnits":2.5}}`)
			return
		}
		w.Write(body)
	}))
	defer srv.Close()
	for _, s := range []string{"S3", "DYNAMODB", "SQS"} {
		t.Setenv("AWS_ENDPOINT_URL_"+s, srv.URL)
	}
	m, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	send := func(service, method, path string, header ...string) string {
		t.Helper()
		r, err := http.NewRequest(method, m.Env()["AWS_ENDPOINT_URL_"+service]+path, strings.NewReader(`{"a":1}`))
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
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	if got := send("S3", "PUT", "/bucket/jobs/a-20261120-abcdef/tasks/task-0001/results.done"); got != `{"a":1}` {
		t.Errorf("the body arrives as %s", got)
	}
	send("S3", "PUT", "/bucket/out/part-00000.parquet", "X-Amz-Copy-Source", "bucket/x")
	send("S3", "PUT", "/bucket/x?partNumber=1&uploadId=u")
	send("S3", "POST", "/bucket/x?uploads=")
	send("S3", "GET", "/bucket?list-type=2")
	send("S3", "HEAD", "/bucket/x")
	send("DYNAMODB", "POST", "/", "X-Amz-Target", "DynamoDB_20120810.PutItem")
	send("SQS", "POST", "/", "X-Amz-Target", "AmazonSQS.SendMessageBatch")
	n := m.Counts()
	for _, op := range []string{
		"s3.PutObject", "s3.CopyObject", "s3.UploadPart", "s3.CreateMultipartUpload", "s3.ListObjectsV2", "s3.HeadObject",
		"dynamodb.PutItem", "sqs.SendMessageBatch",
	} {
		if n[op] != 1 {
			t.Errorf("%s: %d", op, n[op])
		}
		delete(n, op)
	}
	if len(n) > 0 {
		t.Errorf("and %v", n)
	}
	if m.Of("s3.PutObject", "tasks/task") != 1 || m.Units()["dynamodb.PutItem"] != 2.5 {
		t.Errorf("keys %s, units %v", m.Keys(), m.Units())
	}
	for _, h := range hosts[:6] { // it is part of what is signed
		if h != strings.TrimPrefix(m.Env()["AWS_ENDPOINT_URL_S3"], "http://") {
			t.Errorf("the host arrives as %s", h)
		}
	}
}
