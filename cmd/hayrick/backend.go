package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"hayrick"
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
		return localStore{st, newByScheme(ctx, c, st)}, ratelimit.OneMachine, err
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
		return openReadsHere(ctx, c, c.storeDir)
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

// openReadsHere opens a store on this machine to look at its objects alone.
func openReadsHere(ctx context.Context, c *cli, dir string) (planStore, error) {
	st, err := local.OpenReadOnly(dir)
	if err != nil {
		return nil, err
	}
	return localReads{st, newByScheme(ctx, c, st)}, nil
}

// localStore is the store of this machine, and localReads its objects alone. Their
// inputs may lie in S3 too.
type localStore struct {
	*local.Store
	byScheme
}

type localReads struct {
	*local.ReadOnly
	byScheme
}

// Clone shares the bytes of a file; what lies in S3 is pinned.
func (s localStore) Clone(ctx context.Context, uri, key string) (bool, error) {
	if !onThisMachine(uri) {
		return false, nil
	}
	return s.Store.Clone(ctx, uri, key)
}

// inputs is what opens inputs.
type inputs interface {
	Stat(ctx context.Context, uri string) (manifest.Pin, error)
	ListSources(ctx context.Context, uri string, fn func(object string, pin manifest.Pin) error) error
	OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error)
	OpenInput(ctx context.Context, jobID string, b manifest.Batch) (io.ReadCloser, error)
}

// byScheme opens the inputs of a store on this machine where they lie. The clients for
// S3 are made for the first that lies there: without one nothing is asked of AWS, and
// nothing read of its configuration.
type byScheme struct {
	here inputs
	s3   func() (inputs, error)
}

func newByScheme(ctx context.Context, c *cli, here inputs) byScheme {
	return byScheme{here, sync.OnceValues(func() (inputs, error) { return aws.OpenInputs(ctx, c.world, c.log) })}
}

func (s byScheme) of(uri string) (inputs, error) {
	if onThisMachine(uri) {
		return s.here, nil
	}
	in, err := s.s3()
	return in, ofInput(err, uri)
}

// ofInput is err of an input in S3. Here nothing but inputs needs AWS: what is wrong with
// region or credentials is the trouble of the runs that have such.
func ofInput(err error, uri string) error {
	var user *hayrick.UserError
	if onThisMachine(uri) || !errors.As(err, &user) || user.Exit != exitPermission || errors.Is(err, hayrick.ErrDenied) {
		return err
	}
	return fmt.Errorf("%w: %w", hayrick.ErrDenied, &hayrick.UserError{
		What: fmt.Sprintf("the input %s cannot be read: %s", uri, user.What), Hint: user.Hint, Exit: user.Exit, Err: user.Err,
	})
}

// Stat identifies the input at uri now.
func (s byScheme) Stat(ctx context.Context, uri string) (pin manifest.Pin, err error) {
	in, err := s.of(uri)
	if err == nil {
		pin, err = in.Stat(ctx, uri)
	}
	return pin, ofInput(err, uri)
}

// ListSources calls fn for each object of the folder at uri.
func (s byScheme) ListSources(ctx context.Context, uri string, fn func(string, manifest.Pin) error) error {
	in, err := s.of(uri)
	if err == nil {
		err = in.ListSources(ctx, uri, fn)
	}
	return ofInput(err, uri)
}

// OpenSource reads the input at uri whole.
func (s byScheme) OpenSource(ctx context.Context, uri string) (r io.ReadCloser, pin manifest.Pin, err error) {
	in, err := s.of(uri)
	if err == nil {
		r, pin, err = in.OpenSource(ctx, uri)
	}
	return r, pin, ofInput(err, uri)
}

// OpenInput reads the bytes of a batch.
func (s byScheme) OpenInput(ctx context.Context, jobID string, b manifest.Batch) (r io.ReadCloser, err error) {
	in, err := s.of(b.Object)
	if err == nil {
		r, err = in.OpenInput(ctx, jobID, b)
	}
	return r, ofInput(err, b.Object)
}

// inputsOnly opens inputs where there is no store: to try a handler needs none.
type inputsOnly struct{ byScheme }

// Clone copies nothing.
func (inputsOnly) Clone(context.Context, string, string) (bool, error) { return false, nil }

// filesHere are the files of this machine.
type filesHere struct{ local.Files }

// OpenInput is for batches, and only a store has those.
func (filesHere) OpenInput(_ context.Context, jobID string, b manifest.Batch) (io.ReadCloser, error) {
	return nil, fmt.Errorf("read %s of %s without a store: %w", b.BatchID, jobID, hayrick.ErrNotFound)
}

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
