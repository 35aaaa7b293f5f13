package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"hayrick/aggregator"
	"hayrick/audit"
	"hayrick/aws"
	"hayrick/coordinator"
	"hayrick/cost"
	"hayrick/local"
	"hayrick/manifest"
	"hayrick/ratelimit"
	"hayrick/worker"
)

// reads is what looking at runs takes of a store.
type reads interface {
	manifest.Objects
	coordinator.Lister
	audit.Blobs
	audit.Output
	audit.Inputs
	io.Closer
}

// backend is all ports of the roles in one.
type backend interface {
	reads
	aggregator.Blobs
	aggregator.Output
	aggregator.State
	aggregator.Queue
	coordinator.Queue
	coordinator.Sources
	coordinator.State
	ratelimit.Store
	worker.Claims
	worker.Marks
	worker.Queue
	// Others is how many other processes are at work on the store. Where it is not
	// certain, it may count what dead ones had in hand.
	Others() (n int, certain bool, err error)
	// Watching says that this process does no work on the store: Others of other
	// processes leaves it out from now on.
	Watching() error
}

// onAWS says that the store lies in S3.
func (c *cli) onAWS() bool { return strings.HasPrefix(c.storeDir, aws.Scheme) }

// openBackend opens the store that was named. Times are those of the store: on AWS
// they come from its replies.
func openBackend(ctx context.Context, c *cli) (backend, ratelimit.Timing, error) {
	if !c.onAWS() {
		st, err := local.Open(ctx, c.storeDir, c.world, c.log)
		return localStore{st}, ratelimit.OneMachine, err
	}
	st, err := aws.Open(ctx, c.storeDir, c.world, c.log)
	if err != nil {
		return nil, ratelimit.Timing{}, err
	}
	c.world.Clock = st.Clock()
	return awsStore{st}, ratelimit.ServiceTime, nil
}

// openReads opens a store to look at its objects alone.
func openReads(ctx context.Context, c *cli) (reads, error) {
	if !c.onAWS() {
		return local.OpenReadOnly(c.storeDir)
	}
	st, _, err := openBackend(ctx, c)
	return st, err
}

// timing is how well the clocks of a store's processes agree.
func (c *cli) timing() ratelimit.Timing {
	if c.onAWS() {
		return ratelimit.ServiceTime
	}
	return ratelimit.OneMachine
}

// money is how a store that costs something is judged; nil for one that does not.
func (c *cli) money() *coordinator.Money {
	if !c.onAWS() {
		return nil
	}
	m := &coordinator.Money{Prices: c.prices}
	if m.Prices.USD == nil {
		m.Prices = cost.ListPrices()
	}
	if c.get("AWS_LAMBDA_FUNCTION_NAME") != "" { // this is one of the functions: they work on the store
		m.Function = cost.Function{MiB: functionMiB, Start: functionStart}
	}
	return m
}

// localStore is the store of this machine.
type localStore struct{ *local.Store }

// awsStore is a store on AWS, whose inputs may lie on this machine too: they are
// copied into the store, where every worker can read them.
type awsStore struct{ *aws.Store }

// Watching has nothing to say: who works on the store is told by the messages in hand.
func (awsStore) Watching() error { return nil }

func onThisMachine(uri string) bool { return !strings.HasPrefix(uri, aws.Scheme) }

// Stat identifies the input at uri now.
func (s awsStore) Stat(ctx context.Context, uri string) (manifest.Pin, error) {
	if onThisMachine(uri) {
		return local.Files{}.Stat(ctx, uri)
	}
	return s.Store.Stat(ctx, uri)
}

// ListSources calls fn for each object of the folder at uri.
func (s awsStore) ListSources(ctx context.Context, uri string, fn func(string, manifest.Pin) error) error {
	if onThisMachine(uri) {
		return local.Files{}.ListSources(ctx, uri, fn)
	}
	return s.Store.ListSources(ctx, uri, fn)
}

// OpenSource reads the input at uri whole.
func (s awsStore) OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error) {
	if onThisMachine(uri) {
		return local.Files{}.OpenSource(ctx, uri)
	}
	return s.Store.OpenSource(ctx, uri)
}

// Clone copies a file of this machine into the store; what lies in S3 is pinned.
func (s awsStore) Clone(ctx context.Context, uri, key string) (bool, error) {
	if !onThisMachine(uri) {
		return s.Store.Clone(ctx, uri, key)
	}
	f, err := local.Files{}.Open(ctx, uri, 0, -1)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return true, s.Put(ctx, key, f)
}

// scratchBase is the folder that scratch lies in where nothing better is found: that
// of the store, or of a store on this machine.
func (c *cli) scratchBase() string {
	if c.get(runtimeAPI) != "" { // nothing else can be written there
		return filepath.Join(os.TempDir(), "hayrick")
	}
	if c.onAWS() {
		return ".hayrick"
	}
	return c.storeDir
}
