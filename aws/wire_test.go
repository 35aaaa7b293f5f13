//go:build standins

package aws_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"hayrick"
	"hayrick/aws"
	"hayrick/internal/standins"
	"hayrick/manifest"
)

// wire is an HTTP client that counts what passes and breaks what it is told to.
type wire struct {
	http.RoundTripper
	up, down atomic.Int64

	mu     sync.Mutex
	broken func(*http.Request) string // "" | "lost" (done, but nobody hears) | "503" | "409" | "403" | "cut"
	calls  map[string]int
}

func newWire() *wire {
	return &wire{RoundTripper: http.DefaultTransport.(*http.Transport).Clone(), calls: map[string]int{}}
}

func (w *wire) Do(r *http.Request) (*http.Response, error) {
	w.up.Add(max(r.ContentLength, 0))
	w.mu.Lock()
	how := ""
	if w.broken != nil {
		how = w.broken(r)
	}
	w.calls[r.Method+how]++
	w.mu.Unlock()
	switch how {
	case "503", "409", "403":
		name := map[string]string{"503": "SlowDown", "409": "ConditionalRequestConflict", "403": "AccessDenied"}[how]
		status := map[string]int{"503": 503, "409": 409, "403": 403}[how]
		return &http.Response{
			StatusCode: status, Status: how, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/xml"}}, Request: r,
			Body: io.NopCloser(strings.NewReader("<Error><Code>" + name + "</Code><Message>injected</Message></Error>")),
		}, nil
	}
	resp, err := w.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch how {
	case "lost":
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return nil, errors.New("connection reset by the test")
	case "cut":
		resp.Body = &cut{resp.Body, max(resp.ContentLength/2, 1)}
	}
	resp.Body = &counted{resp.Body, &w.down}
	return resp, nil
}

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// cut is a body whose connection breaks after left bytes.
type cut struct {
	io.ReadCloser
	left int64
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// storeOn is a fresh store whose requests go through w.
func storeOn(t *testing.T, w *wire) *aws.Store {
	t.Helper()
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	cfg.HTTPClient = w
	return aws.New(cfg, name, hayrick.RealWorld("host/1"), nil)
}

var _ sdk.HTTPClient = (*wire)(nil)

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

const job = manifest.Job("count-20261120-abcdef")

// What is large enough is copied by S3: beside the tail, and what fills the small
// ones up, no byte of the sources passes through the process.
func TestAssembleMovesNoBytes(t *testing.T) {
	w := newWire()
	s := storeOn(t, w)
	const sources, size = 24, 6 << 20
	var parts []manifest.Range
	want := sha256.New()
	for i := range sources {
		b := random(uint64(i), size)
		key := job.Rows(manifest.TaskID(int64(i)), "aaaaaaaaaaaa", fmt.Sprint(i))
		if err := s.Put(t.Context(), key, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, manifest.Range{Key: key, Offset: 4, Length: size - 4 - int64(i)})
		want.Write(b[4 : size-i])
	}
	tail := random(99, 50_000)
	want.Write(tail)
	w.up.Store(0)
	w.down.Store(0)
	for range 2 { // the second finds it there
		if _, err := s.Assemble(t.Context(), job.Part(0, 0, "x"), parts, tail); err != nil {
			t.Fatal(err)
		}
	}
	if passed := w.up.Load() + w.down.Load(); passed > 2*int64(len(tail))+200_000 {
		t.Errorf("%d bytes pass through, of %d", passed, sources*size)
	}
	r, err := s.Open(t.Context(), job.Part(0, 0, "x"), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := sha256.New()
	if _, err := io.Copy(got, r); err != nil || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("other bytes than the sources', %v", err)
	}
}

// Small ones are joined here, and large ones between them still copied.
func TestAssembleMixed(t *testing.T) {
	s := storeOn(t, newWire())
	var parts []manifest.Range
	var want []byte
	for i, size := range []int{100, 6 << 20, 3 << 20, 1 << 20, 14 << 20, 0, 7, 6 << 20, 5} {
		b := random(uint64(i), size)
		key := job.Rows(manifest.TaskID(int64(i)), "aaaaaaaaaaaa", fmt.Sprint(i))
		if err := s.Put(t.Context(), key, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, manifest.Range{Key: key, Length: int64(size)})
		want = append(want, b...)
	}
	want = append(want, "tail"...)
	if _, err := s.Assemble(t.Context(), job.Part(0, 0, "x"), parts, []byte("tail")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, job.Part(0, 0, "x")); !bytes.Equal(got, want) {
		t.Errorf("%d bytes that differ from the %d of the sources", len(got), len(want))
	}
}

// A body of any length is stored in parts, of bounded memory.
func TestPutInParts(t *testing.T) {
	s := storeOn(t, newWire())
	for _, size := range []int{8<<20 - 1, 8 << 20, 8<<20 + 1, 35 << 20} {
		b := random(1, size)
		key := job.Config(fmt.Sprint(size))
		if err := s.Put(t.Context(), key, struct{ io.Reader }{bytes.NewReader(b)}); err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, key); !bytes.Equal(got, b) {
			t.Errorf("%d bytes that differ from the %d put", len(got), size)
		}
	}
}

func read(t *testing.T, s *aws.Store, key string) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A connection that breaks in a body is taken up where it broke.
func TestReadGoesOn(t *testing.T) {
	w := newWire()
	s := storeOn(t, w)
	b := random(1, 3<<20)
	if err := s.Put(t.Context(), job.Config("c"), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	gets := 0
	w.broken = func(r *http.Request) string {
		if gets++; r.Method == "GET" && gets <= 3 {
			return "cut"
		}
		return ""
	}
	if got := read(t, s, job.Config("c")); !bytes.Equal(got, b) {
		t.Errorf("%d bytes that differ from the %d put", len(got), len(b))
	}
	if w.calls["GETcut"] < 2 {
		t.Errorf("calls are %v: nothing was cut", w.calls)
	}
}

// The three classes of a commit: stored, there, unknown.
func TestCommitClasses(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, c := range []struct {
		name   string
		how    func(n int) string // of the n-th PUT
		stored bool
		err    error
		holds  bool // the object is there afterwards
	}{
		{"calm", func(int) string { return "" }, true, nil, true},
		{"the reply of the first try is lost", func(n int) string { return map[int]string{1: "lost"}[n] }, false, nil, true},
		{"every reply is lost", func(int) string { return "lost" }, false, hayrick.ErrUnknown, true},
		{"slow down, once", func(n int) string { return map[int]string{1: "503"}[n] }, true, nil, true},
		{"slow down, always", func(int) string { return "503" }, false, hayrick.ErrUnknown, false},
		{"a conflict, once", func(n int) string { return map[int]string{1: "409"}[n] }, true, nil, true},
		{"a conflict, always", func(int) string { return "409" }, false, hayrick.ErrUnknown, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWire()
			s := storeOn(t, w)
			puts := 0
			w.broken = func(r *http.Request) string {
				if r.Method != "PUT" {
					return ""
				}
				puts++
				return c.how(puts)
			}
			stored, err := s.Commit(t.Context(), job.Plan(), []byte("mine"))
			if stored != c.stored || !errors.Is(err, c.err) || c.err == nil && err != nil {
				t.Fatalf("stored is %v, %v; want %v, %v", stored, err, c.stored, c.err)
			}
			_, err = s.Open(t.Context(), job.Plan(), 0, -1)
			if there := err == nil; there != c.holds {
				t.Errorf("it is there: %v, want %v (%v)", there, c.holds, err)
			}
		})
	}
}
