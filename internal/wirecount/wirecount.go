// Package wirecount counts requests to AWS on the wire: a proxy for each service
// stands between a program and the servers that AWS_ENDPOINT_URL_* name, passes
// everything on and notes what it was. So the counts are those of what was sent, by any
// number of processes, and not of what the code means to send. Of DynamoDB it asks, in
// each request, how many units the server bills: that changes what is signed, which
// stand-ins do not look at.
//
// Only tests and benchmarks use it.
package wirecount

import (
	"bytes"
	"encoding/json"
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

	"hayrick/internal/wireproxy"
)

// Meter counts requests by service and operation, such as s3.PutObject.
type Meter struct {
	*wireproxy.Proxies

	mu   sync.Mutex
	n    map[string]int64            // by operation; those that were refused count too
	keys map[string]map[string]int64 // of S3, by operation and kind of key

	units map[string]float64 // of DynamoDB, by operation
}

// Start puts a proxy before the endpoint of every service that the environment names.
func Start() (m *Meter, err error) {
	m = &Meter{n: map[string]int64{}, keys: map[string]map[string]int64{}, units: map[string]float64{}}
	m.Proxies, err = wireproxy.Start(m.proxy)
	return m, err
}

func (m *Meter) proxy(service string, target *url.URL) http.Handler {
	pass := http.DefaultTransport.(*http.Transport).Clone()
	pass.MaxIdleConnsPerHost = 256
	pass.DisableCompression = true
	if service == "dynamodb" {
		return m.weigh(pass, target)
	}
	return &httputil.ReverseProxy{
		Transport: pass,
		ErrorLog:  log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			m.note(service, r.In)
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
	}
}

// weigh is the proxy of DynamoDB.
func (m *Meter) weigh(pass http.RoundTripper, target *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Transport: pass,
		ErrorLog:  log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			m.note("dynamodb", r.In)
			r.SetURL(target)
			body, err := io.ReadAll(r.In.Body)
			if rest, ok := bytes.CutPrefix(body, []byte("{")); ok && err == nil {
				body = append([]byte(`{"ReturnConsumedCapacity":"TOTAL",`), rest...)
			}
			r.Out.Body, r.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		},
		ModifyResponse: func(r *http.Response) error {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			var billed struct {
				ConsumedCapacity struct{ CapacityUnits float64 }
			}
			if err := json.Unmarshal(body, &billed); err == nil {
				op, _ := operation("dynamodb", r.Request)
				m.mu.Lock()
				defer m.mu.Unlock()
				m.units[op] += billed.ConsumedCapacity.CapacityUnits
			}
			return nil
		},
	}
}

// Units is what the server said that DynamoDB would bill so far, by operation.
func (m *Meter) Units() map[string]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.units)
}

func (m *Meter) note(service string, r *http.Request) {
	op, key := operation(service, r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n[op]++
	if key != "" {
		if m.keys[op] == nil {
			m.keys[op] = map[string]int64{}
		}
		m.keys[op][key]++
	}
}

// operation names a request as AWS does, and says of which kind an S3 key is.
func operation(service string, r *http.Request) (op, key string) {
	if service != "s3" {
		_, name, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		return service + "." + name, ""
	}
	q := r.URL.Query()
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodGet && path == "":
		return "s3.ListObjectsV2", ""
	case r.Method == http.MethodGet:
		op = "GetObject"
	case r.Method == http.MethodHead:
		op = "HeadObject"
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		op = "AbortMultipartUpload"
	case r.Method == http.MethodDelete:
		op = "DeleteObject"
	case r.Method == http.MethodPut && q.Has("partNumber") && r.Header.Get("X-Amz-Copy-Source") != "":
		op = "UploadPartCopy"
	case r.Method == http.MethodPut && q.Has("partNumber"):
		op = "UploadPart"
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		op = "CopyObject"
	case r.Method == http.MethodPut:
		op = "PutObject"
	case r.Method == http.MethodPost && q.Has("uploads"):
		op = "CreateMultipartUpload"
	case r.Method == http.MethodPost && q.Has("uploadId"):
		op = "CompleteMultipartUpload"
	default:
		op = r.Method
	}
	return "s3." + op, kind(path)
}

// kind is a key without what tells objects of a kind apart.
func kind(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) > 2 && parts[0] == "jobs" {
		parts = parts[2:]
	}
	for i, p := range parts {
		if j := strings.IndexAny(p, "-0123456789"); j > 0 {
			parts[i] = p[:j] + "*" + p[max(strings.LastIndexByte(p, '.'), j):]
			if !strings.Contains(p, ".") {
				parts[i] = p[:j] + "*"
			}
		}
	}
	return strings.Join(parts, "/")
}

// Counts is what was counted so far, by operation.
func (m *Meter) Counts() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.n)
}

// Of is how often an operation was about a key below a job's folder that begins with
// prefix; what tells keys of a kind apart is left out of them.
func (m *Meter) Of(op, prefix string) (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, k := range m.keys[op] {
		if strings.HasPrefix(key, prefix) {
			n += k
		}
	}
	return n
}

// Keys is what was counted so far of the objects of S3, for people: a line each.
func (m *Meter) Keys() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, op := range slices.Sorted(maps.Keys(m.keys)) {
		for _, key := range slices.Sorted(maps.Keys(m.keys[op])) {
			fmt.Fprintf(&b, "%8d %s %s\n", m.keys[op][key], op, key)
		}
	}
	return b.String()
}
