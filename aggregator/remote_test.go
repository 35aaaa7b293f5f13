package aggregator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/manifest"
)

// counting counts the bytes of rows that are read at the root.
type counting struct {
	aggregator.Blobs
	bytes *atomic.Int64
}

func (c counting) OpenAt(ctx context.Context, key string) (manifest.Blob, error) {
	b, err := c.Blobs.OpenAt(ctx, key)
	return countedBlob{b, c.bytes}, err
}

type countedBlob struct {
	manifest.Blob
	bytes *atomic.Int64
}

func (b countedBlob) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.Blob.ReadAt(p, off)
	b.bytes.Add(int64(n))
	return n, err
}

// noise is text that does not compress.
func noise(n int) string {
	var b strings.Builder
	for r := rand.New(rand.NewPCG(1, 1)); b.Len() < n; {
		fmt.Fprintf(&b, "%x", r.Uint64())
	}
	return b.String()
}

// Where the store joins files by itself nothing but footers is read above level 1,
// and nobody says to have seen the bytes; a job file that asks for it has them read.
func TestAStoreThatJoinsByItself(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		remote   bool
		readBack *bool
		reads    bool
	}{
		"here": {false, nil, true}, "here, and not asked for": {false, &no, true}, "there": {true, nil, false}, "there, asked for": {true, &yes, true}, "there, asked not to": {true, &no, false},
	} {
		t.Run(name, func(t *testing.T) {
			j := build(t, shape{def: func(d *hayrick.JobDefinition) {
				d.Merge.FanIn, d.Merge.ByCount, d.Merge.ReadBack = 1, true, c.readBack
			}}, []task{one(row("a", noise(100_000))), one(row("a", "2"))})
			j.mem.Remote = c.remote
			a := j.merge(2)
			var read atomic.Int64
			a.Blobs = counting{a.Blobs, &read}
			j.must(a.Advance(t.Context(), jobID, 0))
			j.must(a.Advance(t.Context(), jobID, 0)) // and publishes
			o := j.outcome()
			j.whole(o)
			p := o.Aggregation.Parts[0]
			if all := read.Load() > p.Bytes; all != c.reads || (p.SHA256 != "") != c.reads {
				t.Errorf("%d bytes were read to join %d; the part has SHA-256 %q", read.Load(), p.Bytes, p.SHA256)
			}
		})
	}
}

// What a store joins by itself has the planned length and end, or is joined again.
func TestTheEndOfARemotePartIsChecked(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"shorter":    func(b []byte) []byte { return b[:len(b)-1] },
		"longer":     func(b []byte) []byte { return append(slices.Clone(b), 0) },
		"the footer": func(b []byte) []byte { return flipped(b, len(b)-20) },
	} {
		var part string
		j, a := badPart(t, func(j *jobRig, key string, body []byte) {
			part = key
			j.mem.Remote = true
			j.mem.Damage(key, damage(body))
		})
		j.must(a.Advance(t.Context(), jobID, 0))
		j.must(a.Advance(t.Context(), jobID, 0))
		o := j.outcome()
		j.whole(o)
		if p := o.Aggregation.Parts[0]; job.Abs(p.Key) == part {
			t.Errorf("%s: the part is %+v", name, p)
		}
	}
}
