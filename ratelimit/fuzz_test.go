package ratelimit

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"hayrick"
)

// FuzzKey: whatever the value of an item is, its bucket has a name that a file system and
// a table take, below the rate's, and no other arguments have that name.
func FuzzKey(f *testing.F) {
	for _, s := range []string{"", "example.com", "..", "../..", "a/b", "~", "A", "é", "\x00", strings.Repeat("x", 200), "~0123456789abcdef0123456789abcdef", "job.x", "a b", "-", "."} {
		f.Add("", "pds", s, "example.org")
		f.Add(s, "pds", "x", s)
	}
	f.Fuzz(func(t *testing.T, job, rate, value, other string) {
		key := Key(job, rate, value)
		parts := strings.Split(key, "/")
		if len(parts) != 3 || len(key) > 3*maxPart+8 {
			t.Fatalf("%q, %q, %q: %q", job, rate, value, key)
		}
		for _, p := range parts {
			if p == "" || p == "." || p == ".." || strings.Trim(p, plainChars+"~") != "" {
				t.Fatalf("%q, %q, %q: %q has the part %q", job, rate, value, key, p)
			}
		}
		for _, x := range [][3]string{{other, rate, value}, {job, other, value}, {job, rate, other}, {job, value, rate}} {
			if x != [3]string{job, rate, value} && Key(x[0], x[1], x[2]) == key {
				t.Fatalf("%q and %q have one bucket, %q", x, [3]string{job, rate, value}, key)
			}
		}
	})
}

// FuzzStored: whatever bytes a store has of a bucket, a reservation takes tokens that are
// a slot apart, none beyond the horizon, and writes what the next one reads: a second one
// from the same bytes never gets a token of the first again.
func FuzzStored(f *testing.F) {
	for _, s := range []string{"", "{}", `{"last":1,"share":1000}`, `{"last":9223372036854775807,"share":1}`, `{"last":-9223372036854775808,"open":9223372036854775807}`,
		`{"last":1790000000000000000,"share":-5,"since":-9223372036854775808,"cut":9223372036854775807}`, "null", "[]", `{"last":"x"}`} {
		f.Add([]byte(s), int64(1_790_000_000_000_000_000), uint8(3), int64(0))
		f.Add([]byte(s), int64(1_790_000_000_000_000_000), uint8(200), int64(time.Hour))
	}
	lim := Limits{Rate: hayrick.PerTime{N: 100, Per: time.Second}, Burst: 50, Timing: OneMachine}
	f.Fuzz(func(t *testing.T, stored []byte, ns int64, n uint8, after int64) {
		// Any time of this century: that is what clocks say.
		now := time.Unix(0, 1_600_000_000_000_000_000+ns&(1<<60-1))
		if fb := ApplyFeedback(stored, lim, Feedback{Throttled: true, RetryAfter: time.Duration(after)}, now); fb != nil {
			if s := decode(fb); s.Share < minShare || s.Share > full || after > 0 && s.Open < now.UnixNano() {
				t.Fatalf("%q becomes %q", stored, fb)
			}
			stored = fb
		}
		var last time.Time
		for range 3 {
			next, g := ApplyReserve(stored, lim, Ask{N: int(n)}, now)
			if g.Count < 0 || g.Count > max(1, maxLot) {
				t.Fatalf("%d tokens of %q", g.Count, stored)
			}
			if g.Count > 0 {
				end := g.First.Add(time.Duration(g.Count-1) * g.Every)
				switch {
				case next == nil:
					t.Fatalf("%d tokens of %q, and nothing to write", g.Count, stored)
				case end.After(now.Add(lim.Horizon)):
					t.Fatalf("a token of %q falls due %v after now", stored, end.Sub(now))
				case g.Every < 10*time.Millisecond:
					t.Fatalf("tokens of %q are %v apart", stored, g.Every)
				case !last.IsZero() && g.First.Before(last.Add(10*time.Millisecond)):
					t.Fatalf("a token at %v follows one at %v", g.First, last)
				}
				last = end
			}
			if next != nil {
				if bytes.Equal(next, stored) {
					t.Fatalf("%q is written over itself", stored)
				}
				stored = next
			}
		}
	})
}
