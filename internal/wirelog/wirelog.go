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
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"hayrick/infra"
)

// services are those that have an endpoint each.
var services = []string{"s3", "dynamodb", "sqs"}

// Log is what the programs of one principal have asked for.
type Log struct {
	region  string
	servers []*http.Server
	urls    map[string]string // service -> where its proxy listens
	client  *http.Transport

	mu      sync.Mutex
	asked   map[string]infra.Request // each once
	calls   map[string]int           // by operation
	strange map[string]bool
	refuse  func(operation, resource string) bool
}

// Start puts a proxy before the endpoint of every service that the environment names.
func Start(region string) (*Log, error) {
	l := &Log{
		region: region, urls: map[string]string{}, client: http.DefaultTransport.(*http.Transport).Clone(),
		asked: map[string]infra.Request{}, calls: map[string]int{}, strange: map[string]bool{},
		refuse: func(string, string) bool { return false },
	}
	l.client.MaxIdleConnsPerHost = 64
	l.client.DisableCompression = true
	for _, service := range services {
		name := endpoint(service)
		at := os.Getenv(name)
		if at == "" {
			at = os.Getenv("AWS_ENDPOINT_URL")
		}
		server, err := url.Parse(at)
		if err != nil || at == "" {
			l.Close()
			return nil, fmt.Errorf("%s is %q: name the server to stand before", name, at)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("listen before %s: %w", service, err)
		}
		srv := &http.Server{Handler: l.proxy(service, server), ErrorLog: log.New(io.Discard, "", 0)}
		l.servers, l.urls[service] = append(l.servers, srv), "http://"+listener.Addr().String()
		go srv.Serve(listener)
	}
	return l, nil
}

func endpoint(service string) string { return "AWS_ENDPOINT_URL_" + strings.ToUpper(service) }

// Env is what to set for a program that is to be written down.
func (l *Log) Env() []string {
	var env []string
	for _, service := range services {
		env = append(env, endpoint(service)+"="+l.urls[service])
	}
	return env
}

// URL is the endpoint of a service, for a client in this process.
func (l *Log) URL(service string) string { return l.urls[service] }

// Close ends the proxies.
func (l *Log) Close() {
	for _, s := range l.servers {
		s.Close()
	}
	l.client.CloseIdleConnections()
}

// Refuse makes the proxy answer those requests to S3 of which f says so, and not pass
// them on: a 400, which nothing repeats. They are noted like any other.
func (l *Log) Refuse(f func(operation, resource string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = f
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

// heard notes a request, and says whether to refuse it.
func (l *Log) heard(service string, r *http.Request, body []byte) (refused bool) {
	c, err := understand(service, l.region, r, body)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[c.name()]++
	if err != nil {
		l.strange[err.Error()] = true
		return false
	}
	l.note(c.asks...)
	return service == "s3" && l.refuse(c.operation, c.asks[len(c.asks)-1].Resource)
}

const refusal = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>InvalidRequest</Code><Message>refused by the test</Message></Error>`

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
		if l.heard(service, r, body) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, refusal)
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
