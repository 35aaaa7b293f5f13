package backfill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/jobs"
)

const (
	paulDID       = "did:plc:cmpvykrzb2l22kj4ojlv3ox4"
	fakermakerDID = "did:plc:dpg45vsnuir2vqqqadsn6afg"
	greenDID      = "did:plc:kzcqyc3unb33eh5sxzsfs25z"
)

// document is a DID document that comes with indigo, made out to did.
func document(t *testing.T, name, did string) []byte {
	t.Helper()
	b := testdata(t, name)
	var doc struct{ ID string }
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(b, []byte(doc.ID), []byte(did))
}

// Real repositories, over HTTPS, at each level of verification.
func TestHandleRealRepositories(t *testing.T) {
	const bafy = "bafyreieovfuizojpw3zresz7sx3nk4trm2by23pt5rxbey3jme4uo5ogiu.car"
	cases := []struct {
		file, did string
		rows      int
		doc       string
		signature string // the class with verify: signature
	}{
		{"fakermaker.repo.car", fakermakerDID, 142, "fakermaker.didDoc.json", classBadSignature},
		{"paul_staging.repo.car", paulDID, 185, "paul_staging.didDoc.json", ""},
		{"greenground.repo.car", greenDID, 2, "greenground.didDoc.json", ""},
		{"divy.repo", "did:plc:fz36gecghqb353ek23nem3ca", 6, "", classNoKey},
		{bafy, "did:plc:z5vnbioquyhivxirw3bbljmu", 6, "", classNoKey},
		{"repo_slice.car", "did:plc:6evlgoug7wwijzxhzt2riyic", -1, "", classDamaged},
	}
	for _, c := range cases {
		net := newInternet(t)
		net.serveRepo("pds.example.com", testdata(t, c.file))
		if c.doc != "" {
			doc := document(t, c.doc, c.did)
			net.mux.HandleFunc("plc.example.com/"+c.did, func(w http.ResponseWriter, _ *http.Request) { w.Write(doc) })
		}
		for _, verify := range []string{verifyNone, verifyMST, verifySignature} {
			t.Run(c.file+"/"+verify, func(t *testing.T) {
				h := net.handler(t, `{"verify":"`+verify+`","plc":"https://plc.example.com"}`)
				host := &testHost{}
				out, rows := handle(t.Context(), h, host, item(c.did, "pds.example.com"), 1)
				want := ""
				if c.rows < 0 {
					want = classDamaged
				} else if verify == verifySignature {
					want = c.signature
				}
				if out.Class != want {
					t.Fatalf("class %q (%s), want %q", out.Class, out.Message, want)
				}
				if !out.OK() {
					if len(rows) > 0 {
						t.Errorf("%d rows of an account that failed", len(rows))
					}
					return
				}
				if len(rows) != c.rows || host.metrics["records"] != int64(c.rows) {
					t.Errorf("%d rows, metric %d, want %d", len(rows), host.metrics["records"], c.rows)
				}
				if got, want := host.metrics["bytes_downloaded"], int64(len(testdata(t, c.file))); verify != verifySignature && got != want {
					t.Errorf("bytes_downloaded %d, want %d", got, want)
				}
				if got := host.metrics["api_requests"]; got != map[bool]int64{true: 2, false: 1}[verify == verifySignature] {
					t.Errorf("api_requests %d", got)
				}
			})
		}
	}
}

func TestRowsHaveTheirColumns(t *testing.T) {
	net := newInternet(t)
	net.serveRepo("pds.example.com", testdata(t, "greenground.repo.car"))
	_, rows := handle(t.Context(), net.handler(t, "{}"), &testHost{}, item(greenDID, "https://pds.example.com/"), 1)
	var got strings.Builder
	for _, r := range rows {
		for _, c := range r {
			fmt.Fprintf(&got, "%s=%s\n", c.Name, c.Value)
		}
	}
	want := `did=did:plc:kzcqyc3unb33eh5sxzsfs25z
collection=app.bsky.graph.follow
rkey=3k5rgfiifs42u
cid=bafyreidaxgtpxv7wq5zilfzo6oqa7zcwqm6jvhzd3fnib3qobvckvs5vfq
created_at=2023-08-25 08:25:39.961 +0000 UTC
record={"$type":"app.bsky.graph.follow","subject":"did:plc:6fktaamhhxdqb2ypum33kbkj","createdAt":"2023-08-25T08:25:39.961Z"}
did=did:plc:kzcqyc3unb33eh5sxzsfs25z
collection=app.bsky.graph.follow
rkey=3k5vze25v5a26
cid=bafyreihspfqwninb7ciq6nvrghahm4sz2pqboojr2gnlo34kipeggczqaq
created_at=2023-08-27 04:15:29.445 +0000 UTC
record={"$type":"app.bsky.graph.follow","subject":"did:plc:cz73r7iyiqn26upot4jtjdhk","createdAt":"2023-08-27T04:15:29.445Z"}
`
	if got.String() != want {
		t.Errorf("rows:\n%swant:\n%s", got.String(), want)
	}
}

func TestCollectionsFilter(t *testing.T) {
	net := newInternet(t)
	net.serveRepo("pds.example.com", testdata(t, "paul_staging.repo.car"))
	count := func(params string) map[string]int {
		host, n := &testHost{}, map[string]int{}
		out, rows := handle(t.Context(), net.handler(t, params), host, item(paulDID, "pds.example.com"), 1)
		if !out.OK() || host.metrics["records"] != int64(len(rows)) {
			t.Fatalf("%+v, %d rows, metric %d", out, len(rows), host.metrics["records"])
		}
		for _, r := range rows {
			n[r[1].Value.(string)]++
		}
		return n
	}
	all := count(`{}`)
	some := count(`{"collections":["app.bsky.feed.post","app.bsky.graph.follow"]}`)
	if len(all) <= 2 || len(some) != 2 || some["app.bsky.feed.post"] != all["app.bsky.feed.post"] || some["app.bsky.graph.follow"] != all["app.bsky.graph.follow"] {
		t.Errorf("filtered %v of %v", some, all)
	}
}

// Each answer of a host, the class and disposition it leads to, and what the
// limiter hears of it.
func TestAnswersAreClassified(t *testing.T) {
	xrpc := func(name string) string { return `{"error":"` + name + `","message":"said\nso \u001b[31m"}` }
	cases := []struct {
		name        string
		status      int
		header      map[string]string
		body        string
		class       string
		disposition hayrick.Disposition
		retryAfter  time.Duration
		feedback    bool
	}{
		{"deleted", 400, nil, xrpc("RepoNotFound"), "repo_not_found", hayrick.Permanent, 0, false},
		{"deleted as 404", 404, nil, xrpc("RepoNotFound"), "repo_not_found", hayrick.Permanent, 0, false},
		{"deactivated", 400, nil, xrpc("RepoDeactivated"), "repo_deactivated", hayrick.Permanent, 0, false},
		{"taken down", 400, nil, xrpc("RepoTakendown"), "repo_takendown", hayrick.Permanent, 0, false},
		{"suspended", 400, nil, xrpc("RepoSuspended"), "repo_suspended", hayrick.Permanent, 0, false},
		{"a proxy's 404", 404, nil, "<html>nothing here", "upstream_4xx", hayrick.Transient, 0, false},
		{"forbidden", 403, nil, "", "upstream_4xx", hayrick.Transient, 0, false},
		{"another XRPC error", 400, nil, xrpc("InvalidRequest"), "upstream_4xx", hayrick.Transient, 0, false},
		{"no content", 204, nil, "", "upstream_4xx", hayrick.Transient, 0, false},
		{"request timeout", 408, nil, "", "timeout", hayrick.Timeout, 0, false},
		{"throttled", 429, map[string]string{"Retry-After": "7"}, xrpc("RateLimitExceeded"), "rate_limit", hayrick.RateLimit, 7 * time.Second, true},
		{"throttled, says nothing", 429, nil, "", "rate_limit", hayrick.RateLimit, 0, true},
		{"throttled by reset", 429, map[string]string{"RateLimit-Reset": "9"}, "", "rate_limit", hayrick.RateLimit, 9 * time.Second, true},
		{"throttled for ages", 429, map[string]string{"Retry-After": "99999999999999999"}, "", "rate_limit", hayrick.RateLimit, time.Hour, true},
		{"server error", 500, nil, "", "upstream_5xx", hayrick.Transient, 0, false},
		{"an error page that names a state", 502, nil, xrpc("RepoNotFound"), "upstream_5xx", hayrick.Transient, 0, false},
		{"unavailable", 503, nil, "", "upstream_5xx", hayrick.Transient, 0, false},
		{"unavailable for a while", 503, map[string]string{"Retry-After": "3"}, "", "upstream_5xx", hayrick.Transient, 3 * time.Second, true},
		{"not a CAR", 200, nil, "<html>welcome", "damaged", hayrick.Transient, 0, false},
		{"nothing", 200, nil, "", "damaged", hayrick.Transient, 0, false},
	}
	net := newInternet(t)
	h := net.handler(t, `{"pds_rate":"hosts"}`)
	for i, c := range cases {
		pds := fmt.Sprintf("pds-%d.example.com", i)
		net.mux.HandleFunc(pds+repoPath, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("did") != paulDID {
				t.Errorf("asked for %q", r.URL)
			}
			for k, v := range c.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		})
		host := &testHost{}
		out, rows := handle(t.Context(), h, host, item(paulDID, pds), 1)
		if out.Class != c.class || out.Disposition != c.disposition || out.RetryAfter != c.retryAfter || len(rows) > 0 {
			t.Errorf("%s: %+v, %d rows; want %s %s %s", c.name, out, len(rows), c.class, c.disposition, c.retryAfter)
		}
		if !hayrick.ValidClass(out.Class) || strings.ContainsAny(out.Message, "\n\r\x1b") || out.Message == "" {
			t.Errorf("%s: class %q, message %q", c.name, out.Class, out.Message)
		}
		want := ""
		if c.feedback {
			want = fmt.Sprintf("hosts %s true %s", pds, c.retryAfter)
		}
		if got := strings.Join(host.feedback, ";"); got != want {
			t.Errorf("%s: feedback %q, want %q", c.name, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		header, value string
		want          time.Duration
	}{
		{"Retry-After", "0", 0},
		{"Retry-After", "-5", 0},
		{"Retry-After", " 12 ", 12 * time.Second},
		{"Retry-After", "1.5", 2 * time.Second},
		{"Retry-After", "0.001", time.Second},
		{"Retry-After", "+7", 7 * time.Second},
		{"Retry-After", "1000000000", time.Hour},
		{"Retry-After", "9223372036854775808", time.Hour},
		{"Retry-After", "99999999999999999999999", time.Hour},
		{"Retry-After", "-99999999999999999999999", 0},
		{"Retry-After", strings.Repeat("9", 400), time.Hour},
		{"Retry-After", "-" + strings.Repeat("9", 400), 0},
		{"Retry-After", "soon", 0},
		{"Retry-After", "inf", 0},
		{"Retry-After", "nan", 0},
		{"Retry-After", "0x10", 0},
		{"Retry-After", "1e3", 0},
		{"Retry-After", "1-2", 0},
		{"Retry-After", ".", 0},
		{"Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT", time.Hour},
		{"Retry-After", "Fri, 31 Dec 0001 23:59:59 GMT", 0},
		{"Retry-After", "Sat, 01 Mar 2025 12:00:42 GMT", 42 * time.Second},
		{"Retry-After", "Sat, 01 Mar 2025 11:00:00 GMT", 0},
		{"Retry-After", "Sat, 01 Mar 2035 11:00:00 GMT", time.Hour},
		{"RateLimit-Reset", "30", 30 * time.Second},
		{"RateLimit-Reset", fmt.Sprint(now.Add(45 * time.Second).Unix()), 45 * time.Second},
		{"RateLimit-Reset", fmt.Sprint(now.Add(-45 * time.Second).Unix()), 0},
		{"RateLimit-Reset", "9223372036854775807", time.Hour},
		{"RateLimit-Reset", "99999999999999999999999", time.Hour},
		{"RateLimit-Reset", "-5", 0},
		{"RateLimit-Reset", "0.5", time.Second},
		{"X-Other", "30", 0},
	} {
		h := http.Header{}
		h.Set(c.header, c.value)
		if got := retryAfter(h, now); got != c.want {
			t.Errorf("%s: %s = %s, want %s", c.header, c.value, got, c.want)
		}
	}
}

func TestBadItemsArePermanent(t *testing.T) {
	net := newInternet(t)
	h := net.handler(t, "{}")
	for _, data := range []string{
		`{}`, `[]`, `"did:plc:x"`, `{"did":`, `{"did":7,"pds":"pds.example.com"}`,
		item("", "pds.example.com"), item("alice.example.com", "pds.example.com"), item("did:plc:", "pds.example.com"),
		item(paulDID, ""), item(paulDID, "http://pds.example.com"), item(paulDID, "ftp://pds.example.com"), item(paulDID, "file:///etc/passwd"),
		item(paulDID, "https://"), item(paulDID, "pds.example.com/xrpc"), item(paulDID, "https://pds.example.com/?a=b"),
		item(paulDID, "https://pds.example.com#f"), item(paulDID, "https://user:pass@pds.example.com"), item(paulDID, "pds.example.com:port"),
		item(paulDID, "pds example com"), item(paulDID, "https://[::1"), item(paulDID, "//pds.example.com"),
	} {
		out, _ := handle(t.Context(), h, &testHost{}, data, 1)
		if out.Class != hayrick.ClassBadItem || out.Disposition != hayrick.Permanent || out.Message == "" {
			t.Errorf("%s: %+v, want bad_item", data, out)
		}
	}
	if n := net.hit("pds.example.com"); n != 0 {
		t.Errorf("%d requests for items that are none", n)
	}
}

// A body may be cut, by its announced length or without one.
func TestCutBodies(t *testing.T) {
	car := testdata(t, "paul_staging.repo.car")
	for _, announced := range []bool{true, false} {
		for _, n := range []int{1, 100, len(car) / 2, len(car) - 1} {
			net := newInternet(t)
			net.mux.HandleFunc("pds.example.com"+repoPath, func(w http.ResponseWriter, _ *http.Request) {
				if announced {
					w.Header().Set("Content-Length", fmt.Sprint(len(car)))
				}
				w.Write(car[:n])
				http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			})
			out, rows := handle(t.Context(), net.handler(t, "{}"), &testHost{}, item(paulDID, "pds.example.com"), 1)
			if out.Class != classTruncated || out.Disposition != hayrick.Transient || len(rows) > 0 {
				t.Errorf("announced %v, cut after %d of %d: %+v", announced, n, len(car), out)
			}
		}
	}
}

// Most real hosts speak HTTP/2, where a body breaks off in another way.
func TestHTTP2(t *testing.T) {
	car := testdata(t, "paul_staging.repo.car")
	n := startInternet(t, true)
	n.mux.HandleFunc("pds.example.com"+repoPath, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("asked in %s", r.Proto)
		}
		w.Write(car)
	})
	n.mux.HandleFunc("cut.example.com"+repoPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Write(car[:len(car)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	h := n.handler(t, "{}")
	if out, rows := handle(t.Context(), h, &testHost{}, item(paulDID, "pds.example.com"), 1); !out.OK() || len(rows) != 185 {
		t.Errorf("%+v, %d rows, want ok and 185", out, len(rows))
	}
	if out, _ := handle(t.Context(), h, &testHost{}, item(paulDID, "cut.example.com"), 1); out.Class != classTruncated {
		t.Errorf("cut: %+v, want truncated", out)
	}
}

func TestDamagedBody(t *testing.T) {
	car := testdata(t, "paul_staging.repo.car")
	for _, at := range []int{0, 30, 60, len(car) / 3, len(car) - 1} {
		bad := bytes.Clone(car)
		bad[at] ^= 0x20
		net := newInternet(t)
		net.serveRepo("pds.example.com", bad)
		out, rows := handle(t.Context(), net.handler(t, `{"verify":"none"}`), &testHost{}, item(paulDID, "pds.example.com"), 1)
		if out.Class != classDamaged || out.Disposition != hayrick.Transient || len(rows) > 0 {
			t.Errorf("byte %d: %+v, %d rows", at, out, len(rows))
		}
	}
}

func TestConnectionErrors(t *testing.T) {
	net := newInternet(t)
	net.mux.HandleFunc("gone.example.com"+repoPath, func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
	h := net.handler(t, "{}")
	for _, pds := range []string{"gone.example.com", "nowhere.invalid"} {
		out, _ := handle(t.Context(), h, &testHost{}, item(paulDID, pds), 1)
		if out.Class != classConnection || out.Disposition != hayrick.Transient {
			t.Errorf("%s: %+v, want connection", pds, out)
		}
	}
	// A server whose certificate is another host's is not the host.
	h.up = newUpstream(hayrick.RealWorld("test"), "https", net.dial, nil, time.Minute)
	defer h.Close()
	if out, _ := handle(t.Context(), h, &testHost{}, item(paulDID, "pds.example.com"), 1); out.Class != classConnection {
		t.Errorf("unknown authority: %+v", out)
	}
}

// Bodies beyond max_bytes end early, whether they announce their length or not.
func TestHugeBodies(t *testing.T) {
	car := testdata(t, "paul_staging.repo.car")
	for _, announced := range []bool{true, false} {
		net := newInternet(t)
		sent := make(chan int64, 1)
		net.mux.HandleFunc("pds.example.com"+repoPath, func(w http.ResponseWriter, r *http.Request) {
			if announced {
				w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<40))
			}
			n, _ := io.Copy(w, endless(car, r.Context()))
			sent <- n
		})
		host := &testHost{}
		out, rows := handle(t.Context(), net.handler(t, `{"max_bytes":"1MiB"}`), host, item(paulDID, "pds.example.com"), 1)
		if out.Class != classTooLarge || out.Disposition != hayrick.Permanent || len(rows) > 0 {
			t.Errorf("announced %v: %+v", announced, out)
		}
		if got := host.metrics["bytes_downloaded"]; got > 1<<20+1 || (announced && got != 0) {
			t.Errorf("announced %v: %d bytes were read", announced, got)
		}
		if n := <-sent; n > 64<<20 {
			t.Errorf("announced %v: the host could send %d bytes", announced, n)
		}
	}
	// One byte less than the limit is no problem, one more is.
	for limit, class := range map[int]string{len(car): "", len(car) - 1: classTooLarge} {
		net := newInternet(t)
		net.mux.HandleFunc("pds.example.com"+repoPath, func(w http.ResponseWriter, _ *http.Request) {
			http.NewResponseController(w).Flush() // no length
			w.Write(car)
		})
		out, _ := handle(t.Context(), net.handler(t, fmt.Sprintf(`{"max_bytes":"%dB"}`, limit)), &testHost{}, item(paulDID, "pds.example.com"), 1)
		if out.Class != class {
			t.Errorf("limit %d of %d bytes: %+v, want %q", limit, len(car), out, class)
		}
	}
}

// endless repeats the blocks of car for as long as ctx lasts: valid, all of it.
func endless(car []byte, ctx context.Context) io.Reader {
	left := car
	return readerFunc(func(p []byte) (int, error) {
		if len(left) == 0 {
			left = car[1+car[0]:] // behind the header, whose length takes one byte
		}
		n := copy(p, left)
		left = left[n:]
		return n, ctx.Err()
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A host that falls silent, before or within its answer, is given up on.
func TestSilentHosts(t *testing.T) {
	car := testdata(t, "paul_staging.repo.car")
	net := newInternet(t)
	net.mux.HandleFunc("mute.example.com"+repoPath, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	net.mux.HandleFunc("stalling.example.com"+repoPath, func(w http.ResponseWriter, r *http.Request) {
		w.Write(car[:len(car)/2])
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	net.mux.HandleFunc("grumpy.example.com"+repoPath, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	var wg sync.WaitGroup
	for pds, c := range map[string]struct{ idle, class string }{
		"mute.example.com":     {"50ms", hayrick.ClassTimeout},
		"stalling.example.com": {"50ms", hayrick.ClassTimeout},
		"grumpy.example.com":   {"3s", classUpstream5xx}, // the status, which comes in time, says enough
	} {
		h := net.handler(t, `{"idle_timeout":"`+c.idle+`"}`)
		wg.Go(func() {
			out, rows := handle(t.Context(), h, &testHost{}, item(paulDID, pds), 1)
			if out.Class != c.class || len(rows) > 0 {
				t.Errorf("%s: %+v, want %s", pds, out, c.class)
			}
		})
	}
	wg.Wait()
}

// A host that sends a byte now and then never falls silent, but the item's
// deadline ends it.
func TestDeadlineEndsSlowBodies(t *testing.T) {
	car := testdata(t, "paul_staging.repo.car")
	net := newInternet(t)
	net.mux.HandleFunc("pds.example.com"+repoPath, func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; r.Context().Err() == nil; i++ {
			w.Write(car[i : i+1])
			http.NewResponseController(w).Flush()
			<-tick.C
		}
	})
	h := net.handler(t, `{"idle_timeout":"1m"}`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if out, _ := handle(ctx, h, &testHost{}, item(paulDID, "pds.example.com"), 1); out.Class != hayrick.ClassTimeout || out.Disposition != hayrick.Timeout {
		t.Errorf("deadline: %+v, want timeout", out)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if out, _ := handle(ctx, h, &testHost{}, item(paulDID, "pds.example.com"), 1); out.Class != classInterrupted || out.Disposition != hayrick.Infra {
		t.Errorf("cancelled: %+v, want interrupted", out)
	}
}

// When the rows are refused the handler stops at once.
func TestEmitErrorStopsTheItem(t *testing.T) {
	net := newInternet(t)
	net.serveRepo("pds.example.com", testdata(t, "paul_staging.repo.car"))
	h, n := net.handler(t, "{}"), 0
	it := jobs.Item{Data: json.RawMessage(item(paulDID, "pds.example.com")), Host: &testHost{}}
	out := h.Handle(t.Context(), it, func(jobs.Row) error {
		n++
		return errors.New("the journal is full")
	})
	if out.OK() || n != 1 {
		t.Errorf("%+v after %d rows, want a failure after one", out, n)
	}
}
