package backfill

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	blockstore "github.com/ipfs/go-ipfs-blockstore"
	"github.com/ipld/go-car"
	"github.com/ipld/go-car/util"
	"github.com/multiformats/go-multihash"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/jobs"
	"hayrick/jobs/backfill/demo"
	"hayrick/worker"
)

// carSink collects the sections of a CAR.
type carSink struct {
	blockstore.Blockstore
	t   *testing.T
	out bytes.Buffer
}

func (s *carSink) add(data []byte) cid.Cid {
	c, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(data)
	if err != nil {
		s.t.Fatal(err)
	}
	util.LdWrite(&s.out, c.Bytes(), data)
	return c
}

func (s *carSink) Put(_ context.Context, b blockformat.Block) error {
	s.add(b.RawData())
	return nil
}

// repository is the valid repository of an account: the key of each record, and its
// bytes.
func repository(t *testing.T, did string, records map[string][]byte) []byte {
	t.Helper()
	s, tree := &carSink{t: t}, mst.NewEmptyTree()
	known := map[string]cid.Cid{}
	for key, data := range records {
		c, ok := known[string(data)]
		if !ok {
			c = s.add(data)
			known[string(data)] = c
		}
		if _, err := tree.Insert([]byte(key), c); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tree.WriteDiffBlocks(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	commit := repo.Commit{DID: did, Version: 3, Data: *root, Rev: "3k67up3j7hf2x"}
	if err := commit.Sign(key); err != nil {
		t.Fatal(err)
	}
	var head, out bytes.Buffer
	if err := commit.MarshalCBOR(&head); err != nil {
		t.Fatal(err)
	}
	if err := car.WriteHeader(&car.CarHeader{Roots: []cid.Cid{s.add(head.Bytes())}, Version: 1}, &out); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), s.out.Bytes()...)
}

// text is the record {"text": s}.
func text(s string) []byte {
	head := append([]byte("\xa1\x64text"), 0x79, byte(len(s)>>8), byte(len(s)))
	return append(head, s...)
}

// encoded is what the worker holds for rows.
func encoded(t *testing.T, all []jobs.Row) (n int64) {
	t.Helper()
	for _, r := range all {
		b, err := rows.AppendRow(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		n += int64(len(b))
	}
	return n
}

// The rows of a repository that max_bytes lets in always fit the worker; those of
// a hostile one end too_large, by name, and not as a mistake of the handler.
func TestRowsAreBounded(t *testing.T) {
	if maxRows > worker.MaxItemRows {
		t.Errorf("an account may have %d bytes of rows, the worker takes %d", maxRows, worker.MaxItemRows)
	}
	for _, mib := range []int64{1, 128, 384, 512, 768} {
		p, err := parseParams(fmt.Appendf(nil, `{"max_bytes":"%dMiB"}`, mib))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := p.rowBytes(), min(2*mib, 768)<<20; got != want {
			t.Errorf("max_bytes %d MiB: rows of %d bytes, want %d", mib, got, want)
		}
	}
	post, many := map[string][]byte{}, map[string][]byte{}
	likes, long := map[string][]byte{}, map[string][]byte{}
	for i := range 3000 {
		post[fmt.Sprintf("app.bsky.feed.post/3k%07d", i)] = text(fmt.Sprintf("%07d", i) + strings.Repeat("x", 90))
		likes[fmt.Sprintf("app.bsky.graph.follow/3k%07d", i)] = text(fmt.Sprintf("%07d", i))
		many[fmt.Sprintf("app.bsky.feed.post/3k%07d", i)] = text(strings.Repeat("x", 2000))
		long[fmt.Sprintf("app.bsky.feed.post/%s%07d", strings.Repeat("k", 500), i)] = text("x")
	}
	for name, c := range map[string]struct {
		records map[string][]byte
		class   string
	}{
		"posts": {post, ""}, "tiny records": {likes, ""},
		"many keys, one record": {many, classTooLarge}, "long keys, one record": {long, classTooLarge},
	} {
		file := repository(t, paulDID, c.records)
		net := newInternet(t)
		net.serveRepo("pds.example.com", file)
		host := &testHost{}
		h := net.handler(t, fmt.Sprintf(`{"max_bytes":"%dB"}`, len(file)))
		out, got := handle(t.Context(), h, host, item(paulDID, "pds.example.com"), 1)
		size := encoded(t, got)
		if out.Class != c.class || size > h.params.rowBytes() {
			t.Errorf("%s: %+v with %d bytes of rows from a body of %d, want %q", name, out, size, len(file), c.class)
		}
		if c.class == "" && len(got) != len(c.records) {
			t.Errorf("%s: %d rows, want %d", name, len(got), len(c.records))
		}
		if c.class != "" && out.Disposition != hayrick.Permanent {
			t.Errorf("%s: %s", name, out.Disposition)
		}
	}
}

// What is counted for a row is at least what the worker holds of it.
func TestRowSize(t *testing.T) {
	settings := demo.Settings{Accounts: 200, Hosts: 1, Seed: 1}
	var all []jobs.Row
	for _, a := range settings.List() {
		got, err := settings.Rows(a.DID)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got...)
	}
	big := strings.Repeat("x", 1<<21)
	all = append(all, jobs.Row{ // large values, whose lengths take more bytes
		{Name: "did", Value: big}, {Name: "collection", Value: big}, {Name: "rkey", Value: big}, {Name: "cid", Value: big},
		{Name: "created_at", Value: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, {Name: "record", Value: json.RawMessage(big)},
	})
	for _, r := range all {
		if got, want := rowSize(r), encoded(t, []jobs.Row{r}); got < want {
			t.Fatalf("a row of %d bytes counts as %d", want, got)
		}
	}
}

// A host that throttles and then takes its time is heard of before it has said
// everything: others would go on asking it.
func TestLimiterHearsAtOnce(t *testing.T) {
	net := newInternet(t)
	host := &testHost{heard: make(chan struct{})}
	net.mux.HandleFunc("pds.example.com"+repoPath, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
		http.NewResponseController(w).Flush()
		select {
		case <-host.heard:
			fmt.Fprint(w, `{"error":"RateLimitExceeded"}`)
		case <-r.Context().Done():
			t.Error("the try ended before the limiter heard")
		}
	})
	out, _ := handle(t.Context(), net.handler(t, `{"pds_rate":"hosts"}`), host, item(paulDID, "pds.example.com"), 1)
	if out.Class != hayrick.ClassRateLimit || out.RetryAfter != time.Minute || !strings.Contains(out.Message, "RateLimitExceeded") {
		t.Errorf("%+v", out)
	}
	if got := strings.Join(host.feedback, ";"); got != "hosts pds.example.com true 1m0s" {
		t.Errorf("the limiter heard %q", got)
	}
}

// impatient is a clock on which a refusal's time is over at once.
type impatient struct{ hayrick.SystemClock }

func (c impatient) Sleep(ctx context.Context, d time.Duration) error {
	if d == refusalTime {
		return ctx.Err()
	}
	return c.SystemClock.Sleep(ctx, d)
}

// The body of a refusal keeps a slot for a short time only, however it comes.
func TestRefusalsAreBounded(t *testing.T) {
	for name, send := range map[string]func(w http.ResponseWriter, i int){
		"a drip":  func(w http.ResponseWriter, _ int) { w.Write([]byte(" ")); time.Sleep(50 * time.Millisecond) },
		"a flood": func(w http.ResponseWriter, _ int) { w.Write(make([]byte, 1<<20)) },
	} {
		net := newInternet(t)
		net.mux.HandleFunc("pds.example.com"+repoPath, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusTooManyRequests)
			for i := 0; r.Context().Err() == nil; i++ {
				if i == 200 {
					t.Errorf("%s: the host could send 200 times", name)
					return
				}
				send(w, i)
				http.NewResponseController(w).Flush()
			}
		})
		h := net.handler(t, `{}`)
		if name == "a drip" {
			h.up.world.Clock = impatient{}
		}
		host := &testHost{}
		out, _ := handle(t.Context(), h, host, item(paulDID, "pds.example.com"), 1)
		if out.Class != hayrick.ClassRateLimit || out.RetryAfter != time.Minute || len(host.feedback) != 1 {
			t.Errorf("%s: %+v, feedback %q", name, out, host.feedback)
		}
		if n := host.metrics["bytes_downloaded"]; n > refusalBytes {
			t.Errorf("%s: %d bytes were read", name, n)
		}
	}
}

// A good repository and then something that is none: the try does not end ok with
// the rest unread.
func TestWhatFollowsTheRepositoryIsRead(t *testing.T) {
	file := testdata(t, "paul_staging.repo.car")
	net := newInternet(t)
	net.mux.HandleFunc("pds.example.com"+repoPath, func(w http.ResponseWriter, r *http.Request) {
		w.Write(file)
		for r.Context().Err() == nil {
			w.Write(make([]byte, 1<<16))
		}
	})
	out, got := handle(t.Context(), net.handler(t, `{}`), &testHost{}, item(paulDID, "pds.example.com"), 1)
	if out.Class != classDamaged || len(got) > 0 {
		t.Errorf("%+v, %d rows; want damaged", out, len(got))
	}
}
