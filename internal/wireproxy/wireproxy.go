// Package wireproxy stands between programs and the servers that AWS_ENDPOINT_URL_*
// name: a listener on loopback for each service, and a handler of the caller's on it.
// internal/wirecount counts on it, internal/wirelog writes down.
//
// Only tests and benchmarks use it.
package wireproxy

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// services are those that have an endpoint each.
var services = []string{"s3", "dynamodb", "sqs"}

// Proxies are the listeners.
type Proxies struct {
	servers []*http.Server
	urls    map[string]string
}

// Start puts a handler before the endpoint of every service (s3, dynamodb, sqs), which
// the environment has to name.
func Start(handler func(service string, server *url.URL) http.Handler) (*Proxies, error) {
	p := &Proxies{urls: map[string]string{}}
	for _, service := range services {
		at := os.Getenv(variable(service))
		if at == "" {
			at = os.Getenv("AWS_ENDPOINT_URL")
		}
		server, err := url.Parse(at)
		if err != nil || at == "" {
			p.Close()
			return nil, fmt.Errorf("%s is %q: name the server to stand before", variable(service), at)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("listen before %s: %w", service, err)
		}
		srv := &http.Server{Handler: handler(service, server), ErrorLog: log.New(io.Discard, "", 0)}
		p.servers, p.urls[service] = append(p.servers, srv), "http://"+l.Addr().String()
		go srv.Serve(l)
	}
	return p, nil
}

func variable(service string) string { return "AWS_ENDPOINT_URL_" + strings.ToUpper(service) }

// URL is the endpoint of a service, for a client in this process.
func (p *Proxies) URL(service string) string { return p.urls[service] }

// Env is what to set for a program that is to go through them.
func (p *Proxies) Env() map[string]string {
	env := map[string]string{}
	for service, at := range p.urls {
		env[variable(service)] = at
	}
	return env
}

// Close ends them.
func (p *Proxies) Close() {
	for _, s := range p.servers {
		s.Close()
	}
}
