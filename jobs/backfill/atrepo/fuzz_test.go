package atrepo

import (
	"bytes"
	"errors"
	"testing"
	"testing/iotest"

	"github.com/bluesky-social/indigo/atproto/repo/mst"

	"hayrick"
)

// FuzzRead: whatever a host sends as a repository is one or is damage; its records come
// in the order of their keys, each with bytes that have its digest, and again the same
// however the reply is cut into reads.
func FuzzRead(f *testing.F) {
	low0, low1, high := keyAt(0, 0), keyAt(0, 1), keyAt(1, 0)
	for _, entries := range [][]string{nil, {low0}, {low0, low1}, {high}} {
		b := &builder{t: f}
		var n mst.NodeData
		for i, k := range entries {
			n.Entries = append(n.Entries, entry(0, k, b.record(byte(i)), nil))
		}
		f.Add(b.car(b.node(n)))
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		for _, check := range []bool{false, true} {
			r, err := Read(t.Context(), bytes.NewReader(reply), testDID, check)
			again, err2 := Read(t.Context(), iotest.HalfReader(bytes.NewReader(reply)), testDID, check)
			if (err == nil) != (err2 == nil) {
				t.Fatalf("%v, read in pieces %v", err, err2)
			}
			if err != nil {
				if !errors.Is(err, hayrick.ErrCorrupt) {
					t.Fatal(err)
				}
				continue
			}
			var last string
			records := 0
			count := func(r Record) error {
				sum, err := r.CID.Prefix().Sum(r.Data)
				if err != nil || sum != r.CID {
					t.Fatalf("%s/%s has %s, its bytes %s (%v)", r.Collection, r.RKey, r.CID, sum, err)
				}
				if key := r.Collection + "/" + r.RKey; check && key <= last {
					t.Fatalf("%q follows %q", key, last)
				} else {
					last = key
				}
				records++
				_, _ = r.Row(testDID)
				return nil
			}
			if err := r.Records(t.Context(), count); err != nil {
				t.Fatal(err)
			}
			n := records
			if records, last = 0, ""; again.Records(t.Context(), count) != nil || records != n {
				t.Fatalf("%d records, read in pieces %d", n, records)
			}
		}
	})
}
