package ratelimit

import (
	"errors"
	"math"
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
	// Among machines a burst of 24 is what all of 10/s takes; 10 of them leave 10 tokens in
	// the 2.25 s of the timing and the slot that a burst may begin before.
	if lim, err := LimitsOf(rate, ServiceTime); err != nil || lim.MaxTake() != 1 || math.Abs(lim.Usable()-10/2.35) > 1e-6 {
		t.Errorf("10/s with burst 10 among machines: %v/s of %+v, %v", lim.Usable(), lim, err)
	}
	rate.Burst = MinBurst(rate.Limit, ServiceTime.ClockBound, ServiceTime.Lateness)
	if lim, err := LimitsOf(rate, ServiceTime); err != nil || lim.Usable() != 10 || rate.Burst != 24 {
		t.Errorf("10/s with burst %d among machines: %v/s, %v", rate.Burst, lim.Usable(), err)
	}
	rate.Burst = 0
	_, err := LimitsOf(rate, OneMachine)
	var bad *hayrick.UserError
	if !errors.As(err, &bad) || !strings.HasPrefix(bad.What, "rate pds: a burst below 1") || bad.Hint != "write burst: 1, or leave it out" {
		t.Errorf("no burst: %v", err)
	}
	if _, err := LimitsOf(rate, Timing{}); err == nil || errors.As(err, &bad) && bad.Hint == "" {
		t.Errorf("no timing: %v", err)
	}
}

// MinBurst is the smallest burst that gives all of a limit, and whatever Validate
// accepts gives tokens that live as long as they must and numbers that do not overflow.
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
		for burst, all := range map[int]bool{1: least <= 1, least - 1: false, least: true, least + 1: true, 1 << 40: true} {
			lim.Burst = burst
			if err := lim.Validate(); (err == nil) != (burst > 0) {
				t.Fatalf("burst %d: %v", burst, err)
			}
			if burst < 1 {
				continue
			}
			if got := lim.slot() == lim.declared(); got != all {
				t.Fatalf("burst %d where %d is the least: slots of %d, the limit's are %d", burst, least, lim.slot(), lim.declared())
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
