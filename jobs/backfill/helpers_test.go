package backfill

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"hayrick"
	"hayrick/jobs"
)

func TestMain(m *testing.M) {
	// indigo's dependencies start a goroutine when they are imported.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// testHost records what a handler asks of its host.
type testHost struct {
	mu       sync.Mutex
	metrics  map[string]int64
	needs    []string      // "rate key"
	feedback []string      // "rate key retry_after"
	need     error         // what Need answers
	heard    chan struct{} // closed at the first Feedback; nil = nobody waits
}

func (h *testHost) Need(_ context.Context, rate, key string, n int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range n {
		h.needs = append(h.needs, rate+" "+key)
	}
	return h.need
}

func (h *testHost) Feedback(rate, key string, f jobs.Feedback) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.heard != nil && len(h.feedback) == 0 {
		close(h.heard)
	}
	h.feedback = append(h.feedback, fmt.Sprintf("%s %s %v %s", rate, key, f.Throttled, f.RetryAfter))
}

// The rest of a host is nothing that this handler asks for.
func (h *testHost) Set(string, int64)          {}
func (h *testHost) Observe(string, int64)      {}
func (h *testHost) Beat(_, _ int64)            {}
func (h *testHost) Mark(json.RawMessage) error { return nil }
func (h *testHost) Log(string)                 {}

func (h *testHost) Add(metric string, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.metrics == nil {
		h.metrics = map[string]int64{}
	}
	h.metrics[metric] += n
}

// internet is one TLS server that is every host below example.com.
type internet struct {
	*httptest.Server
	mux *http.ServeMux // patterns such as "pds.example.com/xrpc/..."

	mu   sync.Mutex
	hits map[string]int // by host
}

func newInternet(t *testing.T) *internet { return startInternet(t, false) }

func startInternet(t *testing.T, http2 bool) *internet {
	n := &internet{mux: http.NewServeMux(), hits: map[string]int{}}
	n.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		n.hits[r.Host]++
		n.mu.Unlock()
		n.mux.ServeHTTP(w, r)
	}))
	n.Config.ErrorLog = log.New(io.Discard, "", 0) // broken handshakes are part of the tests
	n.EnableHTTP2 = http2
	n.StartTLS()
	t.Cleanup(n.Close)
	return n
}

func (n *internet) hit(host string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hits[host]
}

// dial connects hosts below example.com to the server, finds none below invalid,
// and dials others as production does.
func (n *internet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.HasSuffix(host, ".example.com"):
		var d net.Dialer
		return d.DialContext(ctx, network, n.Listener.Addr().String())
	case strings.HasSuffix(host, ".invalid"):
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return guardedDial(ctx, network, addr)
}

// handler is the real handler on this internet.
func (n *internet) handler(t *testing.T, params string) *handler {
	t.Helper()
	p, err := parseParams(json.RawMessage(params))
	if err != nil {
		t.Fatal(err)
	}
	trust := n.Client().Transport.(*http.Transport).TLSClientConfig.Clone() // a Transport changes it
	h := newHandler(p, newUpstream(hayrick.RealWorld("test"), "https", n.dial, trust, p.IdleTimeout.D()))
	t.Cleanup(func() { h.Close() })
	return h
}

const repoPath = "/xrpc/com.atproto.sync.getRepo"

// serveRepo lets host answer getRepo with fixed bytes.
func (n *internet) serveRepo(host string, car []byte) {
	n.mux.HandleFunc(host+repoPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.ipld.car")
		w.Write(car)
	})
}

// handle runs one try and returns its outcome and rows.
func handle(ctx context.Context, h jobs.Handler, host *testHost, item string, try int) (jobs.Outcome, []jobs.Row) {
	var rows []jobs.Row
	it := jobs.Item{Data: json.RawMessage(item), Try: try, Host: host}
	out := h.Handle(ctx, it, func(r jobs.Row) error {
		rows = append(rows, r)
		return nil
	})
	return out, rows
}

func item(did, pds string) string { return fmt.Sprintf(`{"did":%q,"pds":%q}`, did, pds) }

// testdata reads a file that comes with the indigo module.
func testdata(t testing.TB, name string) []byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bluesky-social/indigo").Output()
	if err != nil {
		t.Fatalf("find the indigo module: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "testing", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
