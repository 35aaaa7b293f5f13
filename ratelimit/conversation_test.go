package ratelimit

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hayrick"
)

var rewrite = flag.Bool("rewrite", false, "write what the conversations in testdata say now")

// TestConversations plays testdata/*.txt: commands, ----, what is said to them, an
// empty line. The commands are limits (rate, burst, horizon, clock, late, and what
// follows from them), reserve (n, min, patient, lead, now), feedback (after, now; after=0s
// is a throttle without Retry-After, none is no throttle), wipe and garble.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("conversations: %v %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := converse(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s: said now (-rewrite, then review the diff):\n%s", file, got)
			}
		})
	}
}

var epoch = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func converse(t *testing.T, text string) string {
	var out strings.Builder
	var stored []byte
	var lim Limits
	for block := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n\n") {
		commands, _, _ := strings.Cut(block, "----")
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		out.WriteString(commands + "----\n")
		for line := range strings.SplitSeq(strings.TrimSpace(commands), "\n") {
			if strings.HasPrefix(line, "#") {
				continue
			}
			name, rest, _ := strings.Cut(line, " ")
			args := words(rest)
			switch name {
			case "limits":
				lim = limitsOf(t, args)
				if err := lim.Validate(); err != nil {
					bad := err.(*hayrick.UserError)
					fmt.Fprintf(&out, "error: %s\nhint: %s\n", bad.What, bad.Hint)
					continue
				}
				fmt.Fprintf(&out, "slot=%v life=%v credit=%v max_take=%d\n", time.Duration(lim.slot()), time.Duration(lim.life()), time.Duration(lim.credit()), lim.MaxTake())
			case "reserve":
				ask := Ask{N: 1, Min: 1, Lead: duration(t, args["lead"])}
				number(t, args["n"], &ask.N)
				number(t, args["min"], &ask.Min)
				_, ask.Patient = args["patient"]
				next, g := ApplyReserve(stored, lim, ask, epoch.Add(duration(t, args["now"])))
				switch {
				case g.Count > 0:
					fmt.Fprintf(&out, "%d from %v every %v", g.Count, g.First.Sub(epoch), g.Every)
				case g.Closed:
					fmt.Fprintf(&out, "closed until %v", g.RetryAt.Sub(epoch))
				default:
					fmt.Fprintf(&out, "none, retry at %v", g.RetryAt.Sub(epoch))
				}
				stored = say(t, &out, stored, next)
			case "feedback":
				fb := Feedback{RetryAfter: duration(t, args["after"])}
				_, fb.Throttled = args["after"]
				out.WriteString("heard")
				stored = say(t, &out, stored, ApplyFeedback(stored, lim, fb, epoch.Add(duration(t, args["now"]))))
			case "wipe":
				stored = nil
				out.WriteString("wiped\n")
			case "garble":
				stored = append([]byte("x"), stored...)
				out.WriteString("garbled\n")
			default:
				t.Fatalf("unknown command %q", line)
			}
		}
	}
	return out.String()
}

// say prints the state after a step with times relative to the epoch, and returns
// its bytes.
func say(t *testing.T, out *strings.Builder, stored, next []byte) []byte {
	if next == nil {
		out.WriteString(" | unchanged\n")
		return stored
	}
	if len(next) >= 300 {
		t.Errorf("a bucket of %d bytes: %s", len(next), next)
	}
	var s State
	dec := json.NewDecoder(bytes.NewReader(next))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(out, " | last=%v share=%d", since(s.Last), s.Share)
	for _, f := range []struct {
		name string
		at   int64
	}{{"open", s.Open}, {"since", s.Since}, {"cut", s.Cut}} {
		if f.at != 0 {
			fmt.Fprintf(out, " %s=%v", f.name, since(f.at))
		}
	}
	out.WriteString("\n")
	return next
}

func since(ns int64) time.Duration { return time.Unix(0, ns).Sub(epoch) }

func words(s string) map[string]string {
	args := map[string]string{}
	for w := range strings.FieldsSeq(s) {
		k, v, _ := strings.Cut(w, "=")
		args[k] = v
	}
	return args
}

func limitsOf(t *testing.T, args map[string]string) Limits {
	var rate hayrick.PerTime
	if err := rate.UnmarshalText([]byte(args["rate"])); err != nil {
		t.Fatal(err)
	}
	lim := Limits{Rate: rate, Timing: Timing{Horizon: 3 * time.Second, Lateness: 100 * time.Millisecond}}
	number(t, args["burst"], &lim.Burst)
	for k, d := range map[string]*time.Duration{"horizon": &lim.Horizon, "clock": &lim.ClockBound, "late": &lim.Lateness} {
		if args[k] != "" {
			*d = duration(t, args[k])
		}
	}
	return lim
}

func duration(t *testing.T, s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t *testing.T, s string, n *int) {
	if s == "" {
		return
	}
	if _, err := fmt.Sscan(s, n); err != nil {
		t.Fatal(err)
	}
}
