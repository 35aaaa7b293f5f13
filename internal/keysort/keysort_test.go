package keysort

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// naive is what is found, said in the shortest way.
func naive(keys []string, n int) (f Found) {
	at := map[string]*Twice{}
	var order []*Twice
	for i, k := range keys {
		x := at[k]
		if x == nil {
			x = &Twice{Key: k[:min(len(k), longKey)], First: Place{Line: int64(i)}}
			at[k] = x
		}
		if x.Times++; x.Times == 2 {
			x.Again = Place{Line: int64(i)}
			order = append(order, x)
			f.Keys++
		}
		if x.Times > 1 {
			f.Extra++
		}
	}
	for _, x := range order[:min(n, len(order))] {
		f.First = append(f.First, *x)
	}
	return f
}

func TestFindsWhatStandsTwice(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("k", longKey)
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(rapid.StringMatching(`[ab]{0,3}`), rapid.SampledFrom([]string{long, long + "1", long + "2", "\x00", "\xff"}))
		keys := rapid.SliceOfN(key, 0, 300).Draw(t, "keys")
		s := New(dir, rapid.IntRange(1, 4000).Draw(t, "memory"))
		defer s.Close()
		for i, k := range keys {
			if err := s.Add([]byte(k), Place{Line: int64(i)}); err != nil {
				t.Fatal(err)
			}
			if len(s.runs) >= maxRuns {
				t.Fatalf("%d runs", len(s.runs))
			}
		}
		n := rapid.IntRange(0, 5).Draw(t, "first")
		got, err := s.Find(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.First) == 0 {
			got.First = nil
		}
		if d := cmp.Diff(naive(keys, n), got); d != "" {
			t.Error(d)
		}
	})
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in scratch: %v, %v", left, err)
	}
}

// Memory does not grow with the number of keys.
func TestMemory(t *testing.T) {
	s := New(t.TempDir(), 1<<20)
	defer s.Close()
	for i := range 200_000 {
		if err := s.Add(fmt.Appendf(nil, "key-%d", i*7919%150_001), Place{Object: int64(i / 1000), Line: int64(i % 1000)}); err != nil {
			t.Fatal(err)
		}
		if n := cap(s.arena) + 8*cap(s.at); n > 4<<20 {
			t.Fatalf("%d bytes in memory after %d keys", n, i)
		}
	}
	found, err := s.Find(3)
	if err != nil {
		t.Fatal(err)
	}
	if found.Keys != 49_999 || found.Extra != 49_999 || len(found.First) != 3 {
		t.Errorf("%d keys, %d items more, first %v", found.Keys, found.Extra, found.First)
	}
	if !slices.IsSortedFunc(found.First, func(a, b Twice) int { return compare(a.Again, b.Again) }) || found.First[0].Again != (Place{150, 1}) {
		t.Errorf("first %v", found.First)
	}
}
