//go:build standins

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"hayrick"
	"hayrick/aws"
	"hayrick/coordinator"
	"hayrick/internal/standins"
	"hayrick/jobs"
	"hayrick/ratelimit"
	"hayrick/sim"
	"hayrick/worker"
)

// bulky is a handler whose items have a megabyte of rows each, which do not compress.
type bulky struct{}

const (
	bulkyRows = 24
	bulkyText = 64 << 10 // of 64 letters: three quarters of it once it is packed
)

func (bulky) Handle(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	random := rand.New(rand.NewPCG(uint64(it.Ordinal), 1))
	text := make([]byte, bulkyText)
	for n := range int64(bulkyRows) {
		for i := range text {
			text[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[random.Uint64()>>58]
		}
		if err := emit(jobs.Row{{Name: "item", Value: it.Ordinal}, {Name: "n", Value: n}, {Name: "text", Value: string(text)}}); err != nil {
			return jobs.Fail("emit", "%v", err)
		}
	}
	return jobs.OK()
}

func init() {
	handlers["bulky"] = func(context.Context, jobs.Env) (jobs.Handler, error) { return bulky{}, nil }
}

// metered counts the bytes of bodies that pass.
type metered struct {
	http.RoundTripper
	bytes atomic.Int64
}

func (m *metered) Do(r *http.Request) (*http.Response, error) {
	m.bytes.Add(max(r.ContentLength, 0))
	resp, err := m.RoundTrip(r)
	if err == nil {
		resp.Body = &meteredBody{resp.Body, &m.bytes}
	}
	return resp, err
}

type meteredBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// mergeResults is how many results of a megabyte are merged: a thousand of them where
// $HAYRICK_TEST_MERGE_RESULTS says so, as `make merge-aws` does.
func mergeResults(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("HAYRICK_TEST_MERGE_RESULTS"))
	if err != nil {
		return 128
	}
	return n
}

// Above level 1 of a merge nothing but footers passes through the process: S3 joins
// the files by itself. Counted on the wire, with the publication, it is less than a
// two hundredth of the bytes that are merged.
func TestUpperLevelsOfAMergeMoveNoBytesOnStandIns(t *testing.T) {
	t.Parallel()
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	results := mergeResults(t)
	var lines strings.Builder
	for i := range results {
		fmt.Fprintf(&lines, "{\"id\":\"%d\"}\n", i)
	}
	if _, err := standins.S3(cfg).PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &name, Key: sdk.String("in/items.jsonl"), Body: strings.NewReader(lines.String()),
	}); err != nil {
		t.Fatal(err)
	}
	def := fickleJob("s3://"+name+"/in/items.jsonl", "s3://"+name+"/out/")
	def.Handler.Builtin, def.Batch.Items = "bulky", 1
	def.Run.Lease = hayrick.Duration(10 * time.Minute)
	def.Merge.TargetBytes = 32 << 20
	var planning, level1, above atomic.Int64
	m := &metered{RoundTripper: http.DefaultTransport.(*http.Transport).Clone()}
	cfg.HTTPClient = m
	world := hayrick.RealWorld("process-1")
	world.Go = sim.InOrder
	st := aws.New(cfg, name, world, nil)
	p := startMachine(t, awsStore{st}, ratelimit.ServiceTime, st.Clock(), t.TempDir())
	defer p.close()
	p.patience = 30 * time.Minute
	do := p.do[hayrick.RoleAggregator]
	p.do[hayrick.RoleAggregator] = func(ctx context.Context, d hayrick.Delivery) (worker.Verdict, error) {
		before := m.bytes.Load()
		defer func() {
			switch moved := m.bytes.Load() - before; {
			case d.TaskID != "":
				level1.Add(moved)
			case level1.Load() == 0: // the plan: every results.done is read
				planning.Add(moved)
			default:
				above.Add(moved)
			}
		}()
		return do(ctx, d)
	}
	outcome, err := p.run(t.Context(), coordinator.Submission{Definition: def, JobID: "bulky", CodeVersion: "test"})
	if err == nil {
		err = p.proven(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if outcome.RowCount != int64(results*bulkyRows) || outcome.OK != int64(results) {
		t.Fatalf("%s", sim.Gist(outcome))
	}
	var merged int64
	for _, p := range outcome.Aggregation.Parts {
		merged += p.Bytes
		if p.SHA256 != "" {
			t.Errorf("somebody has read %s", p.Name)
		}
	}
	if merged < int64(results)<<20 {
		t.Errorf("%d results have but %d bytes", results, merged)
	}
	if level1.Load() < 2*merged {
		t.Errorf("level 1 moved %d bytes of %d: the meter does not see them", level1.Load(), merged)
	}
	t.Logf("%d results, %d bytes: planning moved %d, level 1 %d, what is above it %d (%.3f %%)", results, merged, planning.Load(), level1.Load(), above.Load(), 100*float64(above.Load())/float64(merged))
	if above.Load()*200 > merged {
		t.Errorf("%d bytes of %d pass through above level 1", above.Load(), merged)
	}
}
