package backfill

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"hayrick"
	"hayrick/jobs"
)

func mustDID(t *testing.T, s string) syntax.DID {
	t.Helper()
	did, err := syntax.ParseDID(s)
	if err != nil {
		t.Fatal(err)
	}
	return did
}

const resolverParams = `{"verify":"signature","plc":"https://plc.example.com","resolver_rate":"plc"}`

// serveDocument answers every DID with the key of paul_staging.
func (n *internet) serveDocument(t *testing.T) {
	n.mux.HandleFunc("plc.example.com/{did}", func(w http.ResponseWriter, r *http.Request) {
		w.Write(document(t, "paul_staging.didDoc.json", r.PathValue("did")))
	})
	n.mux.HandleFunc("web.example.com/.well-known/did.json", func(w http.ResponseWriter, r *http.Request) {
		w.Write(document(t, "paul_staging.didDoc.json", "did:web:web.example.com"))
	})
}

func TestResolverFindsKeysAndTakesTokens(t *testing.T) {
	n := newInternet(t)
	n.serveDocument(t)
	h := n.handler(t, resolverParams)
	host := &testHost{}
	plc, err := h.keys.Key(t.Context(), host, paulDID)
	if err != nil {
		t.Fatal(err)
	}
	web, err := h.keys.Key(t.Context(), host, "did:web:web.example.com")
	if err != nil {
		t.Fatal(err)
	}
	if !plc.Equal(web) { // both documents have the same key
		t.Errorf("keys %s and %s", plc.DIDKey(), web.DIDKey())
	}
	if want := []string{"plc plc.example.com", "plc web.example.com"}; !slices.Equal(host.needs, want) {
		t.Errorf("tokens %q, want %q", host.needs, want)
	}
	// Without the rate no tokens are asked for.
	host = &testHost{}
	if _, err := n.handler(t, `{"plc":"https://plc.example.com"}`).keys.Key(t.Context(), host, paulDID); err != nil || len(host.needs) > 0 {
		t.Errorf("%v, tokens %q", err, host.needs)
	}
}

func TestResolverAnswers(t *testing.T) {
	cases := []struct {
		name, class string
		disposition hayrick.Disposition
		feedback    string
		answer      func(w http.ResponseWriter)
	}{
		{"unknown", classNoKey, hayrick.Permanent, "", func(w http.ResponseWriter) { w.WriteHeader(404) }},
		{"tombstone", classNoKey, hayrick.Permanent, "", func(w http.ResponseWriter) { w.WriteHeader(410) }},
		{"no key", classNoKey, hayrick.Permanent, "", func(w http.ResponseWriter) { fmt.Fprintf(w, `{"id":%q}`, paulDID) }},
		{"another's document", classDamaged, hayrick.Transient, "", func(w http.ResponseWriter) { fmt.Fprintf(w, `{"id":%q}`, greenDID) }},
		{"not JSON", classDamaged, hayrick.Transient, "", func(w http.ResponseWriter) { fmt.Fprint(w, "<html>") }},
		{"throttled", hayrick.ClassRateLimit, hayrick.RateLimit, "plc plc.example.com true 4s", func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "4")
			w.WriteHeader(429)
		}},
		{"broken", classUpstream5xx, hayrick.Transient, "", func(w http.ResponseWriter) { w.WriteHeader(500) }},
		{"huge", classTooLarge, hayrick.Permanent, "", func(w http.ResponseWriter) { w.Write(make([]byte, maxDocument+1)) }},
	}
	for _, c := range cases {
		n := newInternet(t)
		n.serveRepo("pds.example.com", testdata(t, "paul_staging.repo.car"))
		n.mux.HandleFunc("plc.example.com/", func(w http.ResponseWriter, _ *http.Request) { c.answer(w) })
		host := &testHost{}
		out, rows := handle(t.Context(), n.handler(t, resolverParams), host, item(paulDID, "pds.example.com"), 1)
		if out.Class != c.class || out.Disposition != c.disposition || len(rows) > 0 {
			t.Errorf("%s: %+v, want %s", c.name, out, c.class)
		}
		if got := strings.Join(host.feedback, ";"); got != c.feedback {
			t.Errorf("%s: feedback %q, want %q", c.name, got, c.feedback)
		}
	}
}

// No token in time is the limit's doing, not the account's; no such limit is the
// job file's.
func TestResolverWithoutTokens(t *testing.T) {
	n := newInternet(t)
	n.serveRepo("pds.example.com", testdata(t, "paul_staging.repo.car"))
	for class, need := range map[string]error{
		hayrick.ClassRateLimit: fmt.Errorf("take 1 token: %w", hayrick.ErrThrottled),
		classConfig:            &hayrick.UserError{What: "no rate plc", Hint: "add it under rates:"},
	} {
		out, _ := handle(t.Context(), n.handler(t, resolverParams), &testHost{need: need}, item(paulDID, "pds.example.com"), 1)
		if out.Class != class || out.Disposition.Final() || n.hit("plc.example.com") != 0 {
			t.Errorf("%+v after %d requests, want %s after none", out, n.hit("plc.example.com"), class)
		}
	}
}

// Many tries that want one key make one request; later ones make none.
func TestResolverAsksOnce(t *testing.T) {
	n := newInternet(t)
	n.serveDocument(t)
	h := n.handler(t, resolverParams)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := h.keys.Key(t.Context(), &testHost{}, paulDID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := n.hit("plc.example.com"); got != 1 {
		t.Errorf("%d requests for one key, want 1", got)
	}
}

// scripted answers look-ups with the errors it is given, then with nil, and
// counts them.
type scripted struct {
	mu      sync.Mutex
	errs    []error
	lookups int
	entered chan struct{} // receives once a look-up runs, when not nil
}

func (s *scripted) Key(ctx context.Context, _ jobs.Host, _ syntax.DID) (key atcrypto.PublicKey, err error) {
	if s.entered != nil {
		s.entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups++
	if len(s.errs) > 0 {
		err, s.errs = s.errs[0], s.errs[1:]
	}
	return nil, err
}

func (s *scripted) Forget(syntax.DID) {}

// The cache keeps the keys used last, and no errors.
func TestCacheIsBounded(t *testing.T) {
	s := &scripted{}
	c := newCachingResolver(s, 2)
	for i, step := range []struct {
		did     string
		lookups int
	}{{"did:plc:a", 1}, {"did:plc:b", 2}, {"did:plc:a", 2}, {"did:plc:c", 3}, {"did:plc:a", 3}, {"did:plc:b", 4}, {"did:plc:c", 5}} {
		if _, err := c.Key(t.Context(), nil, syntax.DID(step.did)); err != nil || s.lookups != step.lookups {
			t.Errorf("step %d, %s: %v, %d look-ups, want %d", i, step.did, err, s.lookups, step.lookups)
		}
	}
	if len(c.known) != 2 || c.used.Len() != 2 {
		t.Errorf("%d and %d keys are kept, want 2", len(c.known), c.used.Len())
	}
	c.Forget("did:plc:c")
	c.Forget("did:plc:unknown")
	if _, err := c.Key(t.Context(), nil, "did:plc:c"); err != nil || s.lookups != 6 {
		t.Errorf("after Forget: %v, %d look-ups, want 6", err, s.lookups)
	}

	s = &scripted{errs: []error{errors.New("down"), hayrick.ErrThrottled}}
	c = newCachingResolver(s, 2)
	for i, fails := range []bool{true, true, false, false} {
		if _, err := c.Key(t.Context(), nil, "did:plc:a"); (err != nil) != fails {
			t.Errorf("look-up %d: %v", i, err)
		}
	}
	if s.lookups != 3 {
		t.Errorf("%d look-ups, want 3: errors are not remembered", s.lookups)
	}
}

// Who waits for another's look-up is not bound to its deadline, nor it to theirs.
func TestWaitingForALookup(t *testing.T) {
	s := &scripted{entered: make(chan struct{})}
	c := newCachingResolver(s, 10)
	leader, stopLeader := context.WithCancel(t.Context())
	results := make(chan error)
	go func() {
		_, err := c.Key(leader, nil, "did:plc:a")
		results <- err
	}()
	<-s.entered // the leader's look-up runs
	hasty, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Key(hasty, nil, "did:plc:a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter with a dead context: %v", err)
	}
	follower, stopFollower := context.WithCancel(t.Context())
	go func() {
		_, err := c.Key(follower, nil, "did:plc:a")
		results <- err
	}()
	stopLeader()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("leader: %v", err)
	}
	<-s.entered // the follower has taken over
	stopFollower()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("follower: %v", err)
	}
}

// An owner may change the key: one that does not fit is looked up once more.
func TestChangedKeyIsLookedUpAgain(t *testing.T) {
	n := newInternet(t)
	n.serveRepo("pds.example.com", testdata(t, "paul_staging.repo.car"))
	docs := []string{"greenground.didDoc.json", "paul_staging.didDoc.json"}
	asked := 0
	n.mux.HandleFunc("plc.example.com/", func(w http.ResponseWriter, _ *http.Request) {
		w.Write(document(t, docs[min(asked, len(docs)-1)], paulDID))
		asked++
	})
	h := n.handler(t, resolverParams)
	if _, err := h.keys.Key(t.Context(), &testHost{}, paulDID); err != nil { // remembers the old key
		t.Fatal(err)
	}
	out, rows := handle(t.Context(), h, &testHost{}, item(paulDID, "pds.example.com"), 1)
	if !out.OK() || len(rows) != 185 || asked != 2 {
		t.Errorf("%+v, %d rows, %d look-ups; want ok with the second key", out, len(rows), asked)
	}
	// A key that never fits is the account's fault.
	docs, asked = docs[:1], 0
	h = n.handler(t, resolverParams)
	out, rows = handle(t.Context(), h, &testHost{}, item(paulDID, "pds.example.com"), 1)
	if out.Class != classBadSignature || out.Disposition != hayrick.Permanent || len(rows) > 0 || asked != 2 {
		t.Errorf("%+v, %d rows, %d look-ups; want bad_signature after 2", out, len(rows), asked)
	}
}
