package backfill

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"hayrick"
	"hayrick/jobs"
)

var (
	// errIdle ends a request whose host sent no byte for idle_timeout.
	errIdle = errors.New("no byte came in time")
	// errTooLarge ends a body that is longer than its limit.
	errTooLarge = errors.New("the answer is too large")
	// errTruncated says that a body broke off.
	errTruncated = errors.New("the answer broke off")
)

// A refusal's body is read only for the name of its error: so much of it, and for
// so long.
const (
	refusalBytes = 16 << 10
	refusalTime  = 2 * time.Second
)

// maxRedirects bounds the hops of one request; each is dialled through the guard.
const maxRedirects = 3

// upstream makes GET requests that cannot hang, grow without bound or leave the
// public internet.
type upstream struct {
	scheme string // https; http in the demo
	client *http.Client
	idle   time.Duration       // no byte for so long ends a request
	tag    func(*http.Request) // marks requests in the demo; nil = nothing to add
	world  hayrick.World
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

func newUpstream(world hayrick.World, scheme string, dial dialFunc, trust *tls.Config, idle time.Duration) *upstream {
	u := &upstream{scheme: scheme, idle: idle, world: world}
	u.client = &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil, // a proxy would dial for us, past the guard
			DialContext:            dial,
			TLSClientConfig:        trust,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // CARs hardly compress, and the byte limit should mean bytes on the wire
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConns:           256,
			MaxIdleConnsPerHost:    16,
			IdleConnTimeout:        30 * time.Second,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			if req.URL.Scheme != scheme {
				return fmt.Errorf("%w: a redirect to scheme %s", errBlocked, req.URL.Scheme)
			}
			return nil
		},
	}
	return u
}

// request is one GET.
type request struct {
	url, accept string
	limit       int64  // bytes of the body of a 200
	rate, key   string // the bucket that hears when the host throttles; rate "" = none
}

// get opens the answer to a GET. Any status but 200 is a *refusal; the body of a
// 200 gives at most limit bytes and then errTooLarge. The caller closes it.
func (u *upstream) get(ctx context.Context, host jobs.Host, want request) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &body{ctx: ctx, cancel: cancel, host: host, left: want.limit, world: u.world}
	b.watch(u.idle)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, want.url, nil)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("request %s: %w", want.url, err)
	}
	req.Header.Set("Accept", want.accept)
	req.Header.Set("User-Agent", "hayrick")
	if u.tag != nil {
		u.tag(req)
	}
	host.Add("api_requests", 1)
	resp, err := u.client.Do(req)
	if err != nil {
		if why := context.Cause(ctx); why != nil { // net/http tells that it ended, not why
			err = why
		}
		cancel(nil)
		return nil, err
	}
	b.r = resp.Body
	if resp.StatusCode != http.StatusOK {
		return nil, u.refuse(b, req.URL.Host, resp, want)
	}
	if resp.ContentLength > want.limit {
		b.Close()
		return nil, fmt.Errorf("%w: %d bytes announced, %d allowed", errTooLarge, resp.ContentLength, want.limit)
	}
	return b, nil
}

// refuse makes a refusal of an answer. The limiter hears of it before a byte of the
// body is read: meanwhile others would go on asking.
func (u *upstream) refuse(b *body, from string, resp *http.Response, want request) *refusal {
	defer b.Close()
	now := u.world.Clock.Now()
	if f, yes := throttled(resp.StatusCode, resp.Header, now); yes && want.rate != "" {
		b.host.Feedback(want.rate, want.key, f)
	}
	b.expire(refusalTime)
	// What breaks off is dropped: the status says enough.
	said, _ := io.ReadAll(io.LimitReader(b, refusalBytes))
	return classifyStatus(from, resp.StatusCode, resp.Header, said, now)
}

// body is an answer's body: counted, bounded and watched.
type body struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	r      io.ReadCloser
	host   jobs.Host
	left   int64
	world  hayrick.World
	start  time.Time
	last   atomic.Int64 // when the last byte came, in nanoseconds after start
}

// watch cancels the request when no byte came for idle. It ends with the request.
func (b *body) watch(idle time.Duration) {
	b.start = b.world.Clock.Now()
	b.world.Go("idle watch", func() {
		for {
			wait := idle - b.elapsed() + time.Duration(b.last.Load())
			if wait <= 0 {
				b.cancel(fmt.Errorf("%w: none for %s", errIdle, idle))
				return
			}
			if b.world.Clock.Sleep(b.ctx, wait) != nil {
				return
			}
		}
	})
}

// expire cancels the request after d, however much comes. It ends with the request.
func (b *body) expire(d time.Duration) {
	b.world.Go("refusal", func() {
		if b.world.Clock.Sleep(b.ctx, d) == nil {
			b.cancel(fmt.Errorf("%w: the whole of a refusal within %s", errIdle, d))
		}
	})
}

func (b *body) elapsed() time.Duration { return b.world.Clock.Now().Sub(b.start) }

func (b *body) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	if b.left < int64(len(p)) { // one byte more than allowed tells "full" from "too large"
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if n > 0 {
		b.last.Store(int64(b.elapsed()))
		b.host.Add("bytes_downloaded", int64(n))
	}
	if b.left -= int64(n); b.left < 0 {
		return n - 1, errTooLarge
	}
	switch {
	case err == nil:
	case b.ctx.Err() != nil:
		// Also when it reads as a clean end: a server that sees us hang up may still
		// get its last chunk through.
		err = context.Cause(b.ctx)
	case err != io.EOF:
		err = fmt.Errorf("%w: %v", errTruncated, err)
	}
	return n, err
}

// Close ends the request; an unread rest costs its connection.
func (b *body) Close() error {
	err := b.r.Close()
	b.cancel(nil)
	return err
}
