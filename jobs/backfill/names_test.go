package backfill

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hayrick"
	"hayrick/jobs/backfill/demo"
)

// resolver is one that asks a DNS server on loopback, which answers with what ips gives
// for each question in turn.
func resolver(t *testing.T, ips func(question int64) []netip.Addr) (*net.Resolver, *atomic.Int64) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked, done := &atomic.Int64{}, make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, 1500); ; {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := answer(buf[:n], ips, asked); reply != nil {
				server.WriteTo(reply, from)
			}
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", server.LocalAddr().String())
	}}, asked
}

// answer is a DNS message that answers a question for addresses (RFC 1035, section 4).
func answer(query []byte, ips func(int64) []netip.Addr, asked *atomic.Int64) []byte {
	end := 12
	for end < len(query) && query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5 // the root label, type and class
	if end > len(query) {
		return nil
	}
	kind := binary.BigEndian.Uint16(query[end-4:])
	reply := append([]byte{}, query[:end]...)
	copy(reply[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	for _, ip := range ips(asked.Add(1)) {
		if kind == 1 && ip.Is4() || kind == 28 && ip.Is6() {
			reply[7]++
			reply = append(reply, 0xc0, 0x0c, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(ip.AsSlice())))
			reply = append(reply, ip.AsSlice()...)
		}
	}
	return reply
}

// A name is judged by what it is connected to, whoever resolves it: to this machine, to
// the metadata service, to the private network, and to the one after the other.
func TestNamesCannotReachThisMachine(t *testing.T) {
	port, dials := counter(t)
	ip := netip.MustParseAddr
	for name, answers := range map[string]func(int64) []netip.Addr{
		"loopback":        func(int64) []netip.Addr { return []netip.Addr{ip("127.0.0.1"), ip("::1")} },
		"another one":     func(int64) []netip.Addr { return []netip.Addr{ip("127.9.9.9")} },
		"mapped":          func(int64) []netip.Addr { return []netip.Addr{ip("::ffff:127.0.0.1")} },
		"any":             func(int64) []netip.Addr { return []netip.Addr{ip("0.0.0.0"), ip("::")} },
		"metadata":        func(int64) []netip.Addr { return []netip.Addr{ip("169.254.169.254"), ip("fd00:ec2::254")} },
		"task credential": func(int64) []netip.Addr { return []netip.Addr{ip("169.254.170.2")} },
		"private":         func(int64) []netip.Addr { return []netip.Addr{ip("10.1.2.3"), ip("192.168.1.1"), ip("fd12::1")} },
		"the second time": func(n int64) []netip.Addr { // who checks one answer and connects to the next is caught
			return []netip.Addr{ip(map[bool]string{true: "192.0.2.1", false: "127.0.0.1"}[n <= 2])}
		},
	} {
		res, asked := resolver(t, answers)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			conn, err := dialGuarded(ctx, res, "tcp", net.JoinHostPort("pds.example.com", port))
			cancel()
			if err == nil {
				conn.Close()
			}
			if !errors.Is(err, errBlocked) {
				t.Errorf("%s: %v, want a refusal", name, err)
			}
		}
		if asked.Load() < 2 {
			t.Errorf("%s: the name was looked up %d times", name, asked.Load())
		}
	}
	// Names that this machine knows itself by.
	names := []string{"localhost", "LocalHost", "localhost."}
	if own, err := os.Hostname(); err == nil {
		names = append(names, own)
	}
	for _, name := range names {
		if conn, err := guardedDial(t.Context(), "tcp", net.JoinHostPort(name, port)); err == nil {
			conn.Close()
			t.Errorf("%s is connected to", name)
		}
	}
	if n := dials.Load(); n != 0 {
		t.Errorf("%d connections to this machine, want 0", n)
	}
}

// The demo is the one job that talks to this machine, and only to what it serves itself:
// a list of accounts cannot use it as a way to anything else.
func TestTheDemoReachesOnlyItself(t *testing.T) {
	port, dials := counter(t)
	s, err := demo.ParseSettings([]byte(`{"accounts":4,"hosts":2,"seed":1}`))
	if err != nil {
		t.Fatal(err)
	}
	n := demo.NewNetwork(hayrick.RealWorld("test"), s)
	defer n.Close()
	own := strings.TrimPrefix(demo.DirectoryURL, "http://")
	conn, err := n.DialContext(t.Context(), "tcp", own+":80")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "plc.directory", own + ".", "127.0.0.1." + own} {
		if conn, err := n.DialContext(t.Context(), "tcp", host+":"+port); err == nil {
			conn.Close()
			t.Errorf("%s is connected to", host)
		}
	}
	if got := dials.Load(); got != 0 {
		t.Errorf("%d connections to this machine, want 0", got)
	}
}
