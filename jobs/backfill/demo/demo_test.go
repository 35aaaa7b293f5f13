package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"hayrick"
	"hayrick/jobs/backfill/atrepo"
)

func TestMain(m *testing.M) {
	// indigo's dependencies start a goroutine when they are imported.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

var standard = Settings{Accounts: 2000, Hosts: 8, Seed: 1}

// What the demo promises of itself, for the seed it ships with and for others.
func TestProportions(t *testing.T) {
	for seed := int64(1); seed <= 5; seed++ {
		s := Settings{Accounts: 2000, Hosts: 8, Seed: seed}
		e := s.Expect(2)
		var gone int64
		for _, state := range []State{Deleted, Deactivated, Takendown, Suspended} {
			if e.Permanent[state] == 0 {
				t.Errorf("seed %d: nobody is %s", seed, state)
			}
			gone += e.Permanent[state]
		}
		if e.OK+gone != e.Items || e.Items != 2000 || gone < 30 || gone > 80 {
			t.Errorf("seed %d: %d items, %d ok, %d gone", seed, e.Items, e.OK, gone)
		}
		if e.Rows < 36_000 || e.Rows > 44_000 {
			t.Errorf("seed %d: %d records, want about 40,000", seed, e.Rows)
		}
		// At least one request in ten meets a fault, also when look-ups of keys count.
		if e.Faults*10 < e.Requests+e.OK {
			t.Errorf("seed %d: %d faults in %d requests and %d look-ups", seed, e.Faults, e.Requests, e.OK)
		}
		if len(e.Groups) != 3 || e.Groups[1] < 10 || e.Groups[1] > 50 || e.Groups[2] < 3 || e.Groups[2] > 15 {
			t.Errorf("seed %d: accounts end in groups %v; want some in the second and third", seed, e.Groups)
		}
		hosts, faults, sizes := map[string]int{}, map[Fault]int{}, map[int]int{}
		for _, a := range s.List() {
			hosts[a.Host]++
			sizes[s.Count(a.DID)]++
			for try := range 12 {
				f := s.Fault(a.DID, try)
				faults[f]++
				if f != None && (try == 0 || try > 4) {
					t.Errorf("seed %d: %s meets %s in try %d", seed, a.DID, f, try)
				}
			}
		}
		for _, f := range []Fault{Throttle, Unavailable, ServerError, Stall, Cut, Damage, Directory} {
			if faults[f] == 0 {
				t.Errorf("seed %d: no %s", seed, f)
			}
		}
		if len(hosts) != 8 || slices.Min(values(hosts)) < 180 || slices.Max(values(hosts)) > 320 {
			t.Errorf("seed %d: accounts on hosts %v", seed, hosts)
		}
		if sizes[0] == 0 || len(sizes) < 40 {
			t.Errorf("seed %d: %d sizes, %d empty", seed, len(sizes), sizes[0])
		}
	}
}

func values[K comparable](m map[K]int) []int {
	var out []int
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// The items, records and faults depend on the seed and on nothing else; other
// settings do not move them.
func TestPurity(t *testing.T) {
	small, large := Settings{Accounts: 50, Hosts: 8, Seed: 9}, Settings{Accounts: 90, Hosts: 8, Seed: 9}
	for i, a := range small.List() {
		if d := cmp.Diff(a, large.List()[i]); d != "" {
			t.Errorf("account %d depends on the number of accounts:\n%s", i, d)
		}
	}
	for _, a := range small.List() {
		one, err := small.Rows(a.DID)
		if err != nil {
			t.Fatal(err)
		}
		two, err := small.Rows(a.DID)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(one, two) || len(one) != small.Count(a.DID) {
			t.Errorf("%s: %d rows, counted %d, or they differ:\n%s", a.DID, len(one), small.Count(a.DID), cmp.Diff(one, two))
		}
		for try := range 8 {
			if small.Fault(a.DID, try) != large.Fault(a.DID, try) {
				t.Errorf("%s: the fault of try %d depends on the number of accounts", a.DID, try)
			}
		}
	}
}

// The repositories are real: whoever has the account's key can verify them, and
// they hold the rows that were planned.
func TestRepositoriesVerify(t *testing.T) {
	for _, a := range standard.List()[:200] {
		file, err := standard.carFile(t.Context(), a.DID)
		if err != nil {
			t.Fatal(err)
		}
		r, err := atrepo.Read(t.Context(), bytes.NewReader(file), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", true)
		if err == nil {
			t.Fatalf("%s passes for another account: %v", a.DID, r)
		}
		r, err = atrepo.Read(t.Context(), bytes.NewReader(file), syntax.DID(a.DID), true)
		if err != nil {
			t.Fatal(err)
		}
		key, err := standard.key(a.DID).PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.VerifySignature(key); err != nil {
			t.Error(err)
		}
		n := 0
		if err := r.Records(t.Context(), func(atrepo.Record) error { n++; return nil }); err != nil || n != standard.Count(a.DID) {
			t.Errorf("%s: %d records, %v; want %d", a.DID, n, err, standard.Count(a.DID))
		}
	}
}

// fakeClock stands still until it is moved.
type fakeClock struct {
	hayrick.SystemClock
	now time.Time
}

func (c *fakeClock) Now() time.Time { return c.now }

// client asks a network as anyone could, with curl for instance.
func client(t *testing.T, n *Network) func(url, try string) *http.Response {
	c := &http.Client{Transport: &http.Transport{DialContext: n.DialContext}}
	t.Cleanup(func() {
		c.CloseIdleConnections()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(url, try string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if try != "" {
			req.Header.Set(tryHeader, try)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		resp.Body = io.NopCloser(bytes.NewReader(body))
		return resp
	}
}

func repoURL(host, did string) string {
	return "http://" + host + "/xrpc/com.atproto.sync.getRepo?did=" + did
}

// A host lets a burst through, then so many a second, and says so in headers.
func TestHostLimit(t *testing.T) {
	clock := &fakeClock{now: time.Unix(1_750_000_000, 0)}
	world := hayrick.RealWorld("test")
	world.Clock = clock
	s := Settings{Accounts: 1, Hosts: 2, Seed: 1}
	get, a := client(t, NewNetwork(world, s)), s.List()[0]
	passed := func(n int) (ok int) {
		for range n {
			resp := get(repoURL(a.Host, a.DID), "")
			limit, left := resp.Header.Get("RateLimit-Limit"), resp.Header.Get("RateLimit-Remaining")
			switch resp.StatusCode {
			case http.StatusOK:
				ok++
			case http.StatusTooManyRequests:
				if resp.Header.Get("Retry-After") != "1" || left != "0" || resp.Header.Get("RateLimit-Reset") == "" {
					t.Errorf("headers of a 429: %v", resp.Header)
				}
			default:
				t.Fatalf("status %s", resp.Status)
			}
			if limit != fmt.Sprint(hostBurst) {
				t.Errorf("RateLimit-Limit %q", limit)
			}
		}
		return ok
	}
	if got := passed(hostBurst + 10); got != hostBurst {
		t.Errorf("%d of 10 more at once pass, want %v", got, hostBurst)
	}
	clock.now = clock.now.Add(500 * time.Millisecond)
	if got := passed(hostRate); got != hostRate/2 {
		t.Errorf("%d pass half a second later, want %v", got, hostRate/2)
	}
	clock.now = clock.now.Add(time.Hour)
	if got := passed(hostBurst + 10); got != hostBurst {
		t.Errorf("%d pass after an hour, want %v", got, hostBurst)
	}
}

// What hosts and the directory answer to requests that no handler makes.
func TestServers(t *testing.T) {
	s := Settings{Accounts: 40, Hosts: 2, Seed: 1}
	get := client(t, NewNetwork(hayrick.RealWorld("test"), s))
	for _, a := range s.List()[:20] {
		resp := get(repoURL(a.Host, a.DID), "") // no try, no fault
		want := http.StatusOK
		if s.State(a.DID) != Active {
			want = http.StatusBadRequest
		}
		if resp.StatusCode != want {
			t.Errorf("%s: %s", a.DID, resp.Status)
		}
		var doc struct{ ID string }
		if err := json.NewDecoder(get(DirectoryURL+"/"+a.DID, "").Body).Decode(&doc); err != nil || doc.ID != a.DID {
			t.Errorf("document of %s: %q, %v", a.DID, doc.ID, err)
		}
		other := map[string]string{hostName(0): hostName(1), hostName(1): hostName(0)}[a.Host]
		var said struct{ Error string }
		resp = get(repoURL(other, a.DID), "1")
		if err := json.NewDecoder(resp.Body).Decode(&said); resp.StatusCode < 400 || err != nil {
			t.Errorf("%s on the wrong host: %s %q %v", a.DID, resp.Status, said.Error, err)
		}
	}
	if resp := get(DirectoryURL+"/did:plc:nobody", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("directory, nobody: %s", resp.Status)
	}
	if resp := get("http://"+hostName(0)+"/xrpc/com.atproto.sync.listRepos", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("another method: %s", resp.Status)
	}
}

func TestClosedNetworkDialsNowhere(t *testing.T) {
	n := NewNetwork(hayrick.RealWorld("test"), Settings{Accounts: 1, Hosts: 1, Seed: 1})
	for _, host := range []string{"pds-1.demo.invalid", "example.com", "127.0.0.1"} {
		if c, err := n.DialContext(t.Context(), "tcp", host+":80"); err == nil {
			c.Close()
			t.Errorf("dialled %s, which is not in the demo", host)
		}
	}
	c, err := n.DialContext(t.Context(), "tcp", "pds-0.demo.invalid:80")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if c, err := n.DialContext(t.Context(), "tcp", "pds-0.demo.invalid:80"); err == nil {
		c.Close()
		t.Error("dialled a closed network")
	}
	if err := n.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func ExampleSettings_Expect() {
	e := Settings{Accounts: 2000, Hosts: 8, Seed: 1}.Expect(2)
	fmt.Println(e.OK, "ok,", e.Rows, "rows,", e.Groups, "by group,", e.Faults, "faults in", e.Requests, "requests")
	// Output: 1949 ok, 40874 rows, [1968 24 8] by group, 468 faults in 2468 requests
}
