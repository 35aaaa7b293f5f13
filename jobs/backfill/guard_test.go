package backfill

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hayrick"
	"hayrick/jobs"
)

func TestPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"1.1.1.1": true, "8.8.8.8": true, "100.63.255.255": true, "100.128.0.0": true, "172.15.255.255": true,
		"172.32.0.1": true, "192.167.255.255": true, "192.169.0.1": true, "198.17.255.255": true, "198.20.0.1": true,
		"223.255.255.255": true, "11.0.0.1": true, "128.0.0.1": true, "169.253.1.1": true, "192.0.1.1": true,
		"2606:4700::1111": true, "2a00:1450::1": true, "2001:4860:4860::8888": true, "::ffff:8.8.8.8": true,

		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "10.255.255.255": false, "100.64.0.1": false,
		"100.127.255.255": false, "127.0.0.1": false, "127.255.255.254": false, "169.254.169.254": false,
		"169.254.170.2": false, "172.16.0.1": false, "172.31.255.255": false, "192.0.0.192": false, "192.0.2.1": false,
		"192.88.99.1": false, "192.168.1.1": false, "198.18.0.1": false, "198.19.255.255": false, "198.51.100.7": false,
		"203.0.113.9": false, "224.0.0.1": false, "239.255.255.255": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::2": false, "::127.0.0.1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false,
		"::ffff:169.254.169.254": false, "::ffff:0:127.0.0.1": false, "64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false,
		"64:ff9b:1::1": false, "100::1": false, "2001::1": false, "2001:db8::1": false, "2001:10::1": false, "2001:20::1": false,
		"2002:7f00:1::": false, "2002:c0a8:101::1": false, "3fff::1": false, "fc00::1": false, "fd00:ec2::254": false,
		"fdff::1": false, "fe80::1": false, "fe80::1%eth0": false, "febf::1": false, "fec0::1": false, "ff02::1": false,
		"ff05::2": false, "4000::1": false, "5f00::1": false, "8000::1": false,
	} {
		ip, err := netip.ParseAddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		if public(ip) != want {
			t.Errorf("public(%s) = %v, want %v", addr, !want, want)
		}
	}
	if public(netip.Addr{}) {
		t.Error("no address at all is public")
	}
}

// counter is a listener on every local address that counts who connects.
func counter(t *testing.T) (port string, dials *atomic.Int64) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	dials = &atomic.Int64{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dials.Add(1)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, dials
}

// The handler as it is wired for production connects to no address of this
// machine, however a list of accounts writes it.
func TestListsCannotReachThisMachine(t *testing.T) {
	port, dials := counter(t)
	h, err := Factory(t.Context(), jobs.Env{World: hayrick.RealWorld("test")})
	if err != nil {
		t.Fatal(err)
	}
	defer h.(jobs.Closer).Close()
	blocked := 0
	for _, host := range []string{
		"127.0.0.1", "127.1", "127.0.0.2", "127.255.255.254", "localhost", "LOCALHOST", "0.0.0.0", "0", "[::1]", "[::]",
		"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]", "[fe80::1]", "[::1%25lo]", "2130706433", "0x7f000001",
		"0177.0.0.1", "127.0.0.1.", "①②⑦.⓪.⓪.①", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "192.168.0.1", "172.16.0.1",
	} {
		for _, form := range []string{"%s:%s", "https://%s:%s", "http://%s:%s", "https://user@%s:%s", "https://%s:%s/latest/meta-data"} {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // some forms are names to be looked up
			out, _ := handle(ctx, h, &testHost{}, item(paulDID, fmt.Sprintf(form, host, port)), 1)
			cancel()
			if out.OK() {
				t.Errorf(form+": ok", host, port)
			}
			if out.Class == classBlocked {
				blocked++
				if out.Disposition != hayrick.Permanent {
					t.Errorf("%s: %s", host, out.Disposition)
				}
			}
		}
	}
	if n := dials.Load(); n != 0 {
		t.Errorf("%d connections to this machine, want 0", n)
	}
	if blocked < 20 {
		t.Errorf("only %d of the forms came as far as the guard", blocked)
	}
}

// A host may redirect to another, a few times, and never past the guard.
func TestRedirects(t *testing.T) {
	port, dials := counter(t)
	n := newInternet(t)
	n.serveRepo("end.example.com", testdata(t, "paul_staging.repo.car"))
	for from, to := range map[string]string{
		"one.example.com":   "https://end.example.com",
		"two.example.com":   "https://one.example.com",
		"three.example.com": "https://two.example.com",
		"four.example.com":  "https://three.example.com",
		"loop.example.com":  "https://loop.example.com",
		"local.example.com": "https://127.0.0.1:" + port,
		"meta.example.com":  "https://169.254.169.254",
		"plain.example.com": "http://end.example.com",
		"odd.example.com":   "file:///etc/passwd",
	} {
		n.mux.HandleFunc(from+repoPath, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to+r.URL.RequestURI(), http.StatusFound)
		})
	}
	h := n.handler(t, "{}")
	for from, class := range map[string]string{
		"one.example.com": "", "two.example.com": "", "three.example.com": "", "four.example.com": classConnection,
		"loop.example.com": classConnection, "local.example.com": classBlocked, "meta.example.com": classBlocked,
		"plain.example.com": classBlocked, "odd.example.com": classBlocked,
	} {
		out, _ := handle(t.Context(), h, &testHost{}, item(paulDID, from), 1)
		if out.Class != class {
			t.Errorf("%s: %+v, want %q", from, out, class)
		}
	}
	if got := n.hit("loop.example.com"); got != maxRedirects+1 {
		t.Errorf("a loop was followed for %d requests", got)
	}
	if got := dials.Load(); got != 0 {
		t.Errorf("%d connections to this machine, want 0", got)
	}
}

// did:web names a host too.
func TestDIDWebCannotReachThisMachine(t *testing.T) {
	n := newInternet(t)
	h := n.handler(t, `{"verify":"signature"}`)
	for _, did := range []string{"did:web:localhost", "did:web:127.0.0.1", "did:web:localhost%3A8080", "did:web:pds.example.com:path", "did:key:zabc"} {
		_, err := h.keys.Key(t.Context(), &testHost{}, mustDID(t, did))
		if err == nil || strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%s: %v, want a refusal", did, err)
		}
	}
}
