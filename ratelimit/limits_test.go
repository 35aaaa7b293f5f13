package ratelimit

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hayrick"
)

func TestLimitsOfNamesTheRateAndTheRemedy(t *testing.T) {
	rate := hayrick.Rate{Name: "pds", Limit: hayrick.PerTime{N: 10, Per: time.Second}, Burst: 10}
	if lim, err := LimitsOf(rate, OneMachine); err != nil || lim.MaxTake() != 9 {
		t.Errorf("10/s with burst 10 on one machine: %+v, %v", lim, err)
	}
	_, err := LimitsOf(rate, ServiceTime)
	var bad *hayrick.UserError
	if !errors.As(err, &bad) || !strings.HasPrefix(bad.What, "rate pds: burst 10 is too small for 10/s") || bad.Hint != "write burst: 24" {
		t.Errorf("10/s with burst 10 among machines: %v", err)
	}
	if _, err := LimitsOf(rate, Timing{}); err == nil || errors.As(err, &bad) && bad.Hint == "" {
		t.Errorf("no timing: %v", err)
	}
}

// MinBurst is the smallest burst that Validate accepts, and whatever it accepts
// gives tokens that live as long as they must and numbers that do not overflow.
func TestMinBurstIsTheLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := hayrick.PerTime{
			N:   rapid.Int64Range(1, 2000).Draw(t, "n"),
			Per: time.Duration(rapid.Int64Range(int64(2*time.Millisecond), int64(24*time.Hour)).Draw(t, "per")),
		}
		lim := Limits{Rate: rate, Timing: Timing{
			Horizon:    time.Second,
			ClockBound: time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "clock")),
			Lateness:   time.Duration(rapid.Int64Range(1, int64(2*time.Second)).Draw(t, "late")),
		}}
		least := MinBurst(rate, lim.ClockBound, lim.Lateness)
		for burst, want := range map[int]bool{least - 1: false, least: true, least + 1: true, 1 << 40: true} {
			lim.Burst = burst
			if err := lim.Validate(); (err == nil) != want {
				t.Fatalf("burst %d where %d is the least: %v", burst, least, err)
			}
			if !want {
				continue
			}
			if lim.life() < int64(lim.Lateness) || lim.life() > int64(maxLife) || lim.MaxTake() < 1 {
				t.Fatalf("burst %d: life %v, at most %d at once", burst, time.Duration(lim.life()), lim.MaxTake())
			}
			s, g := Reserve(State{Last: 1, Share: minShare}, lim, Ask{N: lim.MaxTake(), Min: lim.MaxTake()}, epoch)
			if g.RetryAt.Before(epoch.AddDate(-1, 0, 0)) || s.Last < 0 {
				t.Fatalf("burst %d: %+v %+v", burst, s, g)
			}
		}
	})
}

func TestKeysAreSafeAndDistinct(t *testing.T) {
	for _, c := range []struct{ job, rate, value, want string }{
		{"", "pds", "", "store/pds/~"},
		{"", "pds", "example.com:8443", "store/pds/example.com:8443"},
		{"backfill-1", "pds", "x", "job.backfill-1/pds/x"},
		{"", "pds", "../x", "store/pds/~d6b96a97d147daaae49eb87a5ca7bfbc"},
	} {
		if got := Key(c.job, c.rate, c.value); got != c.want {
			t.Errorf("Key(%q, %q, %q) = %s", c.job, c.rate, c.value, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "~", "a", "A", "a/b", "store", "job.a", ".", "..", "a.b", strings.Repeat("a", 128), strings.Repeat("a", 129)}))
		args := rapid.Custom(func(t *rapid.T) [3]string {
			return [3]string{part.Draw(t, "job"), part.Draw(t, "rate"), part.Draw(t, "value")}
		})
		a, b := args.Draw(t, "a"), args.Draw(t, "b")
		ka, kb := Key(a[0], a[1], a[2]), Key(b[0], b[1], b[2])
		if (a == b) != (ka == kb) {
			t.Fatalf("%q and %q have the keys %s and %s", a, b, ka, kb)
		}
		if len(ka) > 4+3*maxPart+2 || strings.Count(ka, "/") != 2 || strings.Trim(ka, plainChars+"~/") != "" {
			t.Fatalf("%q has the key %q", a, ka)
		}
		for p := range strings.SplitSeq(ka, "/") {
			if p == "" || p[0] == '.' || p[0] == '-' {
				t.Fatalf("%q has the key %q", a, ka)
			}
		}
	})
}
