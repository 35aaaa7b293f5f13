// Package wirelog writes down what programs ask of AWS, on the wire and in the words
// of IAM: a proxy for each service stands between a program and the servers that
// AWS_ENDPOINT_URL_* name, passes everything on, and notes the permissions that AWS
// would want for it, with the resources and the condition keys.
//
//	PUT /lab/jobs/j/plan.json, If-None-Match: *   s3:PutObject arn:aws:s3:::lab/jobs/j/plan.json, s3:if-none-match=*
//	a GET that is answered 404                    s3:GetObject, and s3:ListBucket without a prefix: else it were a 403
//	X-Amz-Target: DynamoDB_20120810.Query         dynamodb:Query on the table, dynamodb:LeadingKeys of the partition
//
// What is said of the connection is AWS's in production, not that of a stand-in: TLS
// 1.3, by the account that the store is in. What it cannot understand it notes as such:
// a log with anything Strange proves nothing.
//
// Only tests use it.
package wirelog

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"

	"hayrick/infra"
	"hayrick/internal/wireproxy"
)

// Log is what the programs of one principal have asked for.
type Log struct {
	*wireproxy.Proxies
	region string
	client *http.Transport

	mu      sync.Mutex
	asked   map[string]infra.Request // each once
	calls   map[string]int           // by operation
	strange map[string]bool
	refuse  func(operation, resource string) bool
	deny    func(infra.Request) bool
}

// Start puts a proxy before the endpoint of every service that the environment names.
func Start(region string) (l *Log, err error) {
	l = &Log{
		region: region, client: http.DefaultTransport.(*http.Transport).Clone(),
		asked: map[string]infra.Request{}, calls: map[string]int{}, strange: map[string]bool{},
		refuse: func(string, string) bool { return false }, deny: func(infra.Request) bool { return false },
	}
	l.client.MaxIdleConnsPerHost = 64
	l.client.DisableCompression = true
	l.Proxies, err = wireproxy.Start(l.proxy)
	return l, err
}

// Env is what to set for a program that is to be written down.
func (l *Log) Env() (env []string) {
	for name, at := range l.Proxies.Env() {
		env = append(env, name+"="+at)
	}
	return env
}

// Close ends the proxies.
func (l *Log) Close() {
	l.Proxies.Close()
	l.client.CloseIdleConnections()
}

// Refuse makes the proxy answer those requests to S3 of which f says so, and not pass
// them on: a 400, which nothing repeats. They are noted like any other.
func (l *Log) Refuse(f func(operation, resource string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = f
}

// Deny makes the proxy answer as AWS does to who may not do what f says, and not pass it
// on. It is noted all the same.
func (l *Log) Deny(f func(infra.Request) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deny = f
}

// Asked is what was asked for so far, each thing once.
func (l *Log) Asked() []infra.Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []infra.Request
	for _, k := range slices.Sorted(maps.Keys(l.asked)) {
		out = append(out, l.asked[k])
	}
	return out
}

// Calls counts requests by operation: s3.PutObject.
func (l *Log) Calls() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.calls)
}

// Strange is what was not understood.
func (l *Log) Strange() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.strange))
}

func (l *Log) note(asks ...infra.Request) {
	for _, r := range asks {
		l.asked[fmt.Sprint(r.Action, " ", r.Resource, r.Context)] = r // maps are printed in order
	}
}

// heard notes a request, and says how to answer instead of passing it on; nil = not.
func (l *Log) heard(service string, r *http.Request, body []byte) *answer {
	c, err := understand(service, l.region, r, body)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[c.name()]++
	if err != nil {
		l.strange[err.Error()] = true
		return nil
	}
	l.note(c.asks...)
	switch {
	case service == "s3" && l.refuse(c.operation, c.asks[len(c.asks)-1].Resource):
		return &answer{http.StatusBadRequest, "application/xml", refusal("InvalidRequest")}
	case slices.ContainsFunc(c.asks, l.deny):
		return denial(service)
	}
	return nil
}

// answer is a reply that no server gave.
type answer struct {
	status     int
	kind, body string
}

func refusal(code string) string {
	return `<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>refused by the test</Message></Error>`
}

// denial is what a service says to who may not.
func denial(service string) *answer {
	switch service {
	case "dynamodb":
		return &answer{http.StatusBadRequest, "application/x-amz-json-1.0", `{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"denied by the test"}`}
	case "sqs":
		return &answer{http.StatusForbidden, "application/x-amz-json-1.0", `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"denied by the test"}`}
	}
	return &answer{http.StatusForbidden, "application/xml", refusal("AccessDenied")}
}

func (l *Log) proxy(service string, server *url.URL) http.Handler {
	pass := &httputil.ReverseProxy{
		Transport: l.client,
		ErrorLog:  log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(server)
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: func(r *http.Response) error { l.answered(service, r); return nil },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		if service != "s3" { // there the body says what it is about
			var err error
			if body, err = io.ReadAll(r.Body); err != nil {
				return // who asked has gone
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		if a := l.heard(service, r, body); a != nil {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", a.kind)
			w.WriteHeader(a.status)
			io.WriteString(w, a.body)
			return
		}
		pass.ServeHTTP(w, r)
	})
}

// answered notes what an answer asks for: to be told that a key is missing.
func (l *Log) answered(service string, resp *http.Response) {
	if service != "s3" || resp.StatusCode != http.StatusNotFound {
		return
	}
	c, err := understand(service, l.region, resp.Request, nil)
	if err != nil || c.object == "" {
		return
	}
	bucket, _, _ := strings.Cut(c.object, "/")
	ask := infra.Request{Action: "s3:ListBucket", Resource: bucket, Context: maps.Clone(c.asks[0].Context)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(ask)
}
