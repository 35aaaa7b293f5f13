package backfill

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"hayrick"
	"hayrick/jobs"
)

// errNoKey says that an account has no signing key: its DID document does not
// exist, or names none.
var errNoKey = errors.New("no signing key")

// Resolver finds the key that signs an account's commits. Safe for concurrent
// use. An account without a key is errNoKey; every other error may go away.
type Resolver interface {
	// Key takes its rate tokens from host.
	Key(ctx context.Context, host jobs.Host, did syntax.DID) (atcrypto.PublicKey, error)
	// Forget drops what is remembered of did: its owner may have changed the key.
	Forget(did syntax.DID)
}

// didResolver asks the did:plc directory, and for did:web the host itself.
type didResolver struct {
	up   *upstream
	plc  string // base URL
	rate string // "" = no tokens are taken
}

// maxDocument bounds a DID document; real ones have about 1 KB.
const maxDocument = 256 << 10

// Key fetches the DID document and takes its atproto key.
func (r *didResolver) Key(ctx context.Context, host jobs.Host, did syntax.DID) (atcrypto.PublicKey, error) {
	doc, err := r.document(ctx, host, did)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", did, err)
	}
	if doc.DID != did {
		return nil, fmt.Errorf("resolve %s: %w: the document is of %q", did, hayrick.ErrCorrupt, doc.DID)
	}
	ident := identity.ParseIdentity(doc)
	key, err := ident.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w: %v", did, errNoKey, err)
	}
	return key, nil
}

// Forget does nothing: nothing is remembered here.
func (r *didResolver) Forget(syntax.DID) {}

func (r *didResolver) document(ctx context.Context, host jobs.Host, did syntax.DID) (*identity.DIDDocument, error) {
	u, err := r.documentURL(did)
	if err != nil {
		return nil, err
	}
	if r.rate != "" {
		if err := host.Need(ctx, r.rate, u.Host, 1); err != nil {
			return nil, fmt.Errorf("wait for %s: %w", u.Host, err)
		}
	}
	body, err := r.up.get(ctx, host, request{
		url: u.String(), accept: "application/did+ld+json, application/json", limit: maxDocument, rate: r.rate, key: u.Host,
	})
	var no *refusal
	if errors.As(err, &no) && (no.status == http.StatusNotFound || no.status == http.StatusGone) {
		return nil, fmt.Errorf("%w: %s", errNoKey, no)
	}
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	var doc identity.DIDDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%w: the document is not JSON of a DID document: %v", hayrick.ErrCorrupt, err)
	}
	return &doc, nil
}

// documentURL says where the document of did is. did:web is a bare host in
// atproto: no port, no path.
func (r *didResolver) documentURL(did syntax.DID) (*url.URL, error) {
	switch did.Method() {
	case "plc":
		return url.Parse(r.plc + "/" + did.String())
	case "web":
		h, err := syntax.ParseHandle(did.Identifier())
		if err != nil {
			return nil, fmt.Errorf("%w: %v", errNoKey, err)
		}
		return &url.URL{Scheme: r.up.scheme, Host: strings.ToLower(h.String()), Path: "/.well-known/did.json"}, nil
	}
	return nil, fmt.Errorf("%w: DID method %q has no directory", errNoKey, did.Method())
}

// cachingResolver remembers the keys of the last accounts, so that a second try
// asks nobody, and asks once for what several tries want at the same time. Errors
// are not remembered.
type cachingResolver struct {
	Resolver
	size int // accounts remembered

	mu    sync.Mutex // guards what follows
	known map[syntax.DID]*list.Element
	used  list.List // of *lookup, the latest used first
}

// lookup is one look-up, running until done is closed.
type lookup struct {
	did  syntax.DID
	done chan struct{}
	key  atcrypto.PublicKey
	err  error
}

func newCachingResolver(r Resolver, size int) *cachingResolver {
	return &cachingResolver{Resolver: r, size: size, known: map[syntax.DID]*list.Element{}}
}

// Key answers from memory, waits for the look-up that is running, or runs one.
func (c *cachingResolver) Key(ctx context.Context, host jobs.Host, did syntax.DID) (atcrypto.PublicKey, error) {
	for {
		l, mine := c.join(did)
		if mine {
			c.run(ctx, host, l)
			return l.key, l.err
		}
		select {
		case <-l.done:
			if l.err == nil {
				return l.key, nil
			}
			// Another try's failure may be its own deadline: look up ourselves.
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// run fills in l and lets the others see it, also when the look-up panics.
func (c *cachingResolver) run(ctx context.Context, host jobs.Host, l *lookup) {
	l.err = errors.New("the look-up broke off")
	defer close(l.done)
	defer func() {
		if l.err != nil {
			c.drop(l)
		}
	}()
	l.key, l.err = c.Resolver.Key(ctx, host, l.did)
}

// join returns the look-up of did, and whether the caller has to run it.
func (c *cachingResolver) join(did syntax.DID) (l *lookup, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.known[did]; ok {
		c.used.MoveToFront(e)
		return e.Value.(*lookup), false
	}
	l = &lookup{did: did, done: make(chan struct{})}
	c.known[did] = c.used.PushFront(l)
	if c.used.Len() > c.size {
		oldest := c.used.Back()
		delete(c.known, c.used.Remove(oldest).(*lookup).did)
	}
	return l, true
}

// drop removes l, unless another look-up has taken its place.
func (c *cachingResolver) drop(l *lookup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.known[l.did]; ok && e.Value == l {
		c.used.Remove(e)
		delete(c.known, l.did)
	}
}

// Forget drops the key of did.
func (c *cachingResolver) Forget(did syntax.DID) {
	c.mu.Lock()
	e, ok := c.known[did]
	c.mu.Unlock()
	if ok {
		c.drop(e.Value.(*lookup))
	}
}
