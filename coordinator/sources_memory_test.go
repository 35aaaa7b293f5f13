package coordinator

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"hayrick/manifest"
)

// endless is a folder of n objects with one item each.
type endless struct {
	Sources
	n int
}

func (e endless) pin(i int) manifest.Pin { return manifest.Pin{Size: 10, ETag: fmt.Sprint(i)} }

func (e endless) ListSources(_ context.Context, uri string, fn func(string, manifest.Pin) error) error {
	for i := range e.n {
		if err := fn(fmt.Sprintf("%spart-%09d.jsonl", uri, i), e.pin(i)); err != nil {
			return err
		}
	}
	return nil
}

func (e endless) OpenSource(_ context.Context, uri string) (io.ReadCloser, manifest.Pin, error) {
	var i int
	_, err := fmt.Sscanf(uri, folderURI+"part-%d.jsonl", &i)
	return io.NopCloser(strings.NewReader("{\"a\": 12}\n")), e.pin(i), err
}

func (e endless) Clone(context.Context, string, string) (bool, error) { return false, nil }

// sink forgets what it is given, and looks at the heap now and then.
type sink struct {
	manifest.Objects
	puts atomic.Int64
	most atomic.Uint64
}

func (s *sink) Put(_ context.Context, _ string, body io.Reader) error {
	_, err := io.Copy(io.Discard, body)
	if s.puts.Add(1)%64 == 0 {
		s.look()
	}
	return err
}

func (s *sink) look() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.most.Store(max(s.most.Load(), m.HeapAlloc))
}

// The memory of indexing a folder does not grow with its objects.
func TestAFolderOfAnyLengthTakesTheSameMemory(t *testing.T) {
	peak := func(n int) uint64 {
		r := newRig(t)
		out := &sink{Objects: r.mem}
		r.Store = &manifest.Store{Objects: out, Clock: r.clock}
		r.Sources = endless{n: n}
		s := submission()
		s.Definition.Input.URI = folderURI
		src, err := r.source(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		defer src.close()
		g, err := r.index(t.Context(), s, "backfill-20261120-abcdef", src)
		out.look()
		if err != nil || g.Tasks != int64(n) || src.id.Items != int64(n) || src.id.ObjectsRef.Count != int64(n) {
			t.Fatalf("%d tasks of %d objects, %v", g.Tasks, n, err)
		}
		return out.most.Load()
	}
	peak(5_000) // what is made once
	few, many := peak(5_000), peak(20_000)
	if many > few+2<<20 {
		t.Errorf("%d KiB of 5,000 objects, %d KiB of 20,000", few>>10, many>>10)
	}
}
