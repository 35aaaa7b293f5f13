package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"hayrick"
)

// directoryHost is the logical host of the did:plc directory.
const directoryHost = "plc.demo.invalid"

// DirectoryURL is where the demo's DID documents are.
const DirectoryURL = "http://" + directoryHost

// Network is the servers of this process. They start with the first dial.
type Network struct {
	settings Settings
	world    hayrick.World
	accounts map[string]string // DID -> logical host

	mu      sync.Mutex // guards what follows
	addrs   map[string]string
	servers []*http.Server
	ended   []chan struct{} // one a server, closed when its Serve has returned
	closed  bool
}

// NewNetwork makes the network of s.
func NewNetwork(world hayrick.World, s Settings) *Network {
	n := &Network{settings: s, world: world, accounts: make(map[string]string, s.Accounts)}
	for _, a := range s.List() {
		n.accounts[a.DID] = a.Host
	}
	return n
}

// DialContext connects to a logical host, whatever port was asked for.
func (n *Network) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	at, err := n.lookup(host)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, network, at)
}

// lookup resolves a logical host, and starts the servers if need be.
func (n *Network) lookup(host string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return "", errors.New("the demo's servers are closed")
	}
	if n.addrs == nil {
		if err := n.start(); err != nil {
			return "", fmt.Errorf("start the demo's servers: %w", err)
		}
	}
	at, ok := n.addrs[host]
	if !ok {
		return "", &net.DNSError{Err: "no such host in the demo", Name: host, IsNotFound: true}
	}
	return at, nil
}

// start opens a port on loopback for every host. The caller holds mu.
func (n *Network) start() error {
	addrs := map[string]string{}
	serve := func(host string, h http.Handler) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addrs[host] = l.Addr().String()
		s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
		done := make(chan struct{})
		n.servers, n.ended = append(n.servers, s), append(n.ended, done)
		n.world.Go("demo "+host, func() {
			defer close(done)
			s.Serve(l) // returns when the server is closed
		})
		return nil
	}
	err := serve(directoryHost, n.directory())
	for i := 0; i < n.settings.Hosts && err == nil; i++ {
		err = serve(hostName(i), n.pds(hostName(i)))
	}
	if err != nil {
		n.stop()
		return err
	}
	n.addrs = addrs
	return nil
}

// stop closes the servers and their connections. The caller holds mu.
func (n *Network) stop() error {
	var errs []error
	for i, s := range n.servers {
		errs = append(errs, s.Close())
		<-n.ended[i]
	}
	n.servers, n.ended, n.addrs = nil, nil, nil
	return errors.Join(errs...)
}

// Close stops the servers for good.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	return n.stop()
}
