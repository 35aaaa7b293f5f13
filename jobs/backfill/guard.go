package backfill

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// errBlocked says that a host's address is not one of the public internet.
var errBlocked = errors.New("address refused")

// forbidden are the ranges that no account list may reach: the machine itself,
// its network, the metadata services of clouds, and ranges that are not unicast
// addresses of the internet. What wraps an IPv4 address is refused whole.
var forbidden = prefixes(
	"0.0.0.0/8",       // this network
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // carrier-grade NAT
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, metadata services
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays
	"192.168.0.0/16",  // private
	"198.18.0.0/15",   // benchmarking
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, broadcast
	"2001::/23",       // protocol assignments, Teredo
	"2001:db8::/32",   // documentation
	"2002::/16",       // 6to4
	"3fff::/20",       // documentation
)

// global6 is all of IPv6 that is handed out for unicast; the rest (loopback,
// unique local, link-local, mapped, NAT64, multicast) lies outside.
var global6 = netip.MustParsePrefix("2000::/3")

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// public says whether ip is a unicast address of the internet.
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	if ip.Zone() != "" || (ip.Is6() && !global6.Contains(ip)) {
		return false
	}
	for _, p := range forbidden {
		if p.Contains(ip) {
			return false
		}
	}
	return ip.IsValid()
}

// guardedDial dials public addresses only. The check sits between resolution and
// connect, on the very address that is connected to, so a resolver that answers
// differently the second time gains nothing; redirects dial through it too. No job file
// can ask for another dialer: the demo's connects to its own servers and nothing else.
func guardedDial(ctx context.Context, network, addr string) (net.Conn, error) {
	return dialGuarded(ctx, nil, network, addr)
}

// dialGuarded is guardedDial with a resolver of the test's; nil is the system's.
func dialGuarded(ctx context.Context, resolver *net.Resolver, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, Resolver: resolver, ControlContext: checkAddress}
	return d.DialContext(ctx, network, addr)
}

func checkAddress(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !public(ap.Addr()) {
		return fmt.Errorf("%w: %s is not a public address", errBlocked, address)
	}
	return nil
}
