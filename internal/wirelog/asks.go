package wirelog

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"hayrick/infra"
)

// account is the one that stand-ins play.
const account = "000000000000"

// call is a request to AWS as it was understood.
type call struct {
	service, operation string
	asks               []infra.Request // of IAM, in the order of infra.ActionsOf
	object             string          // ARN of the object that it reads, "" for none
}

// name is what Refuse hears: s3.PutObject.
func (c call) name() string { return c.service + "." + c.operation }

// understand says what a request is. It is an error that infra does not know the
// operation, or that the request holds what asks for more than the operation does.
func understand(service, region string, r *http.Request, body []byte) (call, error) {
	c := call{service: service}
	var places []place
	var err error
	switch service {
	case "s3":
		c.operation, places, err = ofS3(r)
	case "dynamodb":
		c.operation, places, err = ofTable(region, r, body)
	case "sqs":
		c.operation, places, err = ofQueue(region, r, body)
	}
	if err != nil {
		return c, err
	}
	actions, ok := infra.ActionsOf(service, c.operation)
	if !ok || len(actions) != len(places) {
		return c, fmt.Errorf("infra does not know what %s asks for", c.name())
	}
	for i, p := range places {
		p.context["aws:SecureTransport"], p.context["aws:PrincipalAccount"] = []string{"true"}, []string{account}
		if service == "s3" {
			p.context["s3:TlsVersion"] = []string{"1.3"}
		}
		c.asks = append(c.asks, infra.Request{Action: actions[i], Resource: p.arn, Context: p.context})
	}
	if strings.HasPrefix(c.operation, "GetObject") || c.operation == "HeadObject" {
		c.object = c.asks[0].Resource
	}
	return c, nil
}

// place is a resource, and what a service tells IAM beside it.
type place struct {
	arn     string
	context map[string][]string
}

func at(arn string) place { return place{arn, map[string][]string{}} }

// asksMore are the headers that need a permission beside that of their operation.
var asksMore = []string{"X-Amz-Acl", "X-Amz-Tagging", "X-Amz-Object-Lock-Mode", "X-Amz-Object-Lock-Legal-Hold", "X-Amz-Bypass-Governance-Retention"}

// asksLess are the queries of an object or bucket that belong to the operations that
// are known; any other is another operation.
var asksLess = []string{
	"x-id", "partNumber", "uploadId", "uploads", "list-type", "prefix", "delimiter", "continuation-token", "max-keys", "start-after", "encoding-type",
}

// ofS3 reads a request in path style.
func ofS3(r *http.Request) (operation string, places []place, err error) {
	q := r.URL.Query()
	version := r.Method == http.MethodGet && q.Has("versionId")
	for name := range q {
		if !slices.Contains(asksLess, name) && !(version && name == "versionId") { // s3:DeleteObjectVersion, and so on
			return "", nil, fmt.Errorf("%s %s: what ?%s asks for is not known", r.Method, r.URL.Path, name)
		}
	}
	for _, name := range asksMore {
		if r.Header.Get(name) != "" {
			return "", nil, fmt.Errorf("%s %s: what %s asks for is not known", r.Method, r.URL.Path, name)
		}
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	_, key, _ := strings.Cut(path, "/")
	to := at("arn:aws:s3:::" + path)
	if key == "" {
		to.arn = strings.TrimSuffix(to.arn, "/")
		if r.Method != http.MethodGet || q.Get("list-type") != "2" {
			return "", nil, fmt.Errorf("%s of bucket %s: the operation is not known", r.Method, path)
		}
		for name, key := range map[string]string{"prefix": "s3:prefix", "delimiter": "s3:delimiter", "max-keys": "s3:max-keys"} {
			if q.Has(name) {
				to.context[key] = []string{q.Get(name)}
			}
		}
		return "ListObjectsV2", []place{to}, nil
	}
	if absent := r.Header.Get("If-None-Match"); absent != "" {
		to.context["s3:if-none-match"] = []string{absent}
	}
	places = []place{to}
	copied := r.Header.Get("X-Amz-Copy-Source")
	if copied != "" {
		from, err := url.PathUnescape(strings.TrimPrefix(copied, "/"))
		if err != nil || strings.Contains(from, "?") {
			return "", nil, fmt.Errorf("copy %s: what is copied is not understood", copied)
		}
		places = []place{at("arn:aws:s3:::" + from), to}
	}
	part := q.Has("partNumber")
	switch r.Method {
	case http.MethodGet:
		operation = "GetObject"
		if version {
			operation = "GetObjectVersion"
		}
	case http.MethodHead:
		operation = "HeadObject"
	case http.MethodDelete:
		operation = "DeleteObject"
		if q.Has("uploadId") {
			operation = "AbortMultipartUpload"
		}
	case http.MethodPut:
		operation = map[bool]string{false: "PutObject", true: "UploadPart"}[part]
		if copied != "" {
			operation = map[bool]string{false: "CopyObject", true: "UploadPartCopy"}[part]
		}
	case http.MethodPost:
		operation = "CompleteMultipartUpload"
		if q.Has("uploads") {
			operation = "CreateMultipartUpload"
		}
	default:
		operation = r.Method
	}
	return operation, places, nil
}

// target is the operation that a header names: DynamoDB_20120810.GetItem.
func target(r *http.Request) string {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	return operation
}

// oneKey is how the adapter asks for the items of a partition.
var oneKey = regexp.MustCompile(`^pk = (:[a-z]+)$`)

// ofTable reads a request to DynamoDB: its table, and the partition that it is about.
func ofTable(region string, r *http.Request, body []byte) (operation string, places []place, err error) {
	type text struct{ S string }
	type keyed struct {
		PK text `json:"pk"`
	}
	var in struct {
		TableName                 string
		IndexName                 string
		Key, Item                 keyed
		KeyConditionExpression    string
		ExpressionAttributeValues map[string]json.RawMessage
	}
	operation = target(r)
	if err := json.Unmarshal(body, &in); err != nil {
		return operation, nil, fmt.Errorf("read %s of DynamoDB: %w", operation, err)
	}
	pk := in.Key.PK.S
	switch operation {
	case "PutItem":
		pk = in.Item.PK.S
	case "Query":
		var v text
		m := oneKey.FindStringSubmatch(in.KeyConditionExpression)
		if m == nil || in.IndexName != "" || json.Unmarshal(in.ExpressionAttributeValues[m[1]], &v) != nil {
			return operation, nil, fmt.Errorf("the query %q is not about one partition of the table", in.KeyConditionExpression)
		}
		pk = v.S
	}
	if in.TableName == "" || pk == "" {
		return operation, nil, fmt.Errorf("%s names table %q and key %q", operation, in.TableName, pk)
	}
	p := at(fmt.Sprintf("arn:aws:dynamodb:%s:%s:table/%s", region, account, in.TableName))
	p.context["dynamodb:LeadingKeys"] = []string{pk}
	return operation, []place{p}, nil
}

// ofQueue reads a request to SQS.
func ofQueue(region string, r *http.Request, body []byte) (operation string, places []place, err error) {
	var in struct{ QueueURL, QueueName string }
	operation = target(r)
	if err := json.Unmarshal(body, &in); err != nil {
		return operation, nil, fmt.Errorf("read %s of SQS: %w", operation, err)
	}
	name := in.QueueName
	if name == "" {
		name = in.QueueURL[strings.LastIndex(in.QueueURL, "/")+1:]
	}
	if name == "" {
		return operation, nil, fmt.Errorf("%s names no queue", operation)
	}
	return operation, []place{at(fmt.Sprintf("arn:aws:sqs:%s:%s:%s", region, account, name))}, nil
}
