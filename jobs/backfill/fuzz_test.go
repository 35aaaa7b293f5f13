package backfill

import (
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"hayrick"
)

// FuzzRetryAfter: what a host wants is whole seconds between none and an hour, whatever it
// writes; a plain number is that number, rounded up, as arithmetic without end reads it,
// and a date the time until then.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{
		"", "0", "1", "120", "3600", "3601", "1.5", "0.0001", "-5", "+7", "1e3", "0x10", "NaN", "Inf", "1_000", strings.Repeat("9", 400), "0." + strings.Repeat("0", 400) + "1",
		"Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 20 Nov 2026 12:00:30 GMT", "Fri, 20 Nov 2026 13:30:00 GMT", "Friday, 20-Nov-26 12:00:05 GMT", "Fri Nov 20 12:00:05 2026", "2026-11-20T12:00:05Z", " 5 ", "5, 6", "1795176030", "..", "1.2.3", "--1",
	} {
		f.Add(s, "")
		f.Add("", s)
	}
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, after, reset string) {
		h := http.Header{}
		if after != "" {
			h.Set("Retry-After", after)
		}
		if reset != "" {
			h.Set("RateLimit-Reset", reset)
		}
		got := retryAfter(h, now)
		if got < 0 || got > maxRetryAfter || got%time.Second != 0 {
			t.Fatalf("%q, %q: %v", after, reset, got)
		}
		if after = strings.TrimSpace(after); after == "" {
			return
		}
		want := time.Duration(0)
		if digits := strings.TrimLeft(after, "+-"); strings.Trim(digits, "0123456789.") == "" && len(after)-len(digits) <= 1 {
			if x, ok := new(big.Rat).SetString(after); ok && len(after) < 100 {
				want = seconds(x)
			} else if ok || len(after) >= 100 {
				return
			}
		} else if at, err := http.ParseTime(after); err == nil {
			want = seconds(new(big.Rat).SetFloat64(at.Sub(now).Seconds()))
		}
		if got != want {
			t.Fatalf("%q: %v, want %v", after, got, want)
		}
		f, yes := throttled(http.StatusServiceUnavailable, h, now)
		if !yes || f.RetryAfter != got {
			t.Fatalf("%q: a 503 with it is %+v, %v", after, f, yes)
		}
		r := classifyStatus("host", http.StatusTooManyRequests, h, []byte(after), now)
		if r.outcome.RetryAfter != got || r.outcome.Disposition != hayrick.RateLimit || strings.ContainsAny(r.outcome.Message, "\n\x1b") {
			t.Fatalf("%q: %+v", after, r.outcome)
		}
	})
}

// seconds is x in whole seconds, rounded up, between 0 and an hour.
func seconds(x *big.Rat) time.Duration {
	if x.Sign() <= 0 {
		return 0
	}
	if x.Cmp(big.NewRat(3600, 1)) >= 0 {
		return time.Hour
	}
	n := new(big.Int).Add(x.Num(), new(big.Int).Sub(x.Denom(), big.NewInt(1)))
	return time.Duration(n.Div(n, x.Denom()).Int64()) * time.Second
}
