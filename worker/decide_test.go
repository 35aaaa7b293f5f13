package worker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hayrick"
	"hayrick/jobs"
	"hayrick/worker"
)

// TestConversations plays testdata/*.txt: commands, ----, what is said to them, an
// empty line. The commands are claim (vanished, idle) for the mode of an attempt;
// retry (attempts, initial, max, and class=disposition) and try (class, disposition,
// tries, crashes, crashed, after, jitter, status, message) for what follows a failed
// try; classify (class, status, message, as), a rule of the policy; and key
// (template, record) for a rate's key.
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

func converse(t *testing.T, text string) string {
	var out strings.Builder
	var policy hayrick.Retry
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
			switch name {
			case "claim":
				a := arguments(t, rest)
				mode, because := worker.ModeOf(hayrick.Claim{Vanished: a.number("vanished"), Idle: a.number("idle")})
				fmt.Fprintln(&out, strings.TrimSpace(string(mode)+" "+because))
			case "retry":
				a := arguments(t, rest)
				policy = hayrick.Retry{Classes: map[string]hayrick.Disposition{}, InTask: hayrick.InTask{
					Attempts: a.number("attempts"), Initial: dur(a.duration("initial")), Max: dur(a.duration("max")),
				}}
				for class, d := range a.words {
					policy.Classes[class] = hayrick.Disposition(d)
				}
			case "classify":
				a := arguments(t, rest)
				rule := hayrick.ClassRule{Class: a.word("class"), As: a.word("as")}
				for s := range strings.FieldsFuncSeq(a.word("status"), func(r rune) bool { return r == ',' }) {
					rule.Status = append(rule.Status, hayrick.StatusCode(s))
				}
				if m := a.word("message"); m != "" {
					if err := rule.Message.UnmarshalText([]byte(m)); err != nil {
						t.Fatal(err)
					}
				}
				policy.Classify = append(policy.Classify, rule)
			case "try":
				a := arguments(t, rest)
				_, crashed := a.words["crashed"]
				jitter, _ := strconv.ParseFloat(a.word("jitter"), 64)
				n := worker.NextTry(policy, worker.Try{
					Outcome: jobs.Outcome{
						Class: a.word("class"), Disposition: hayrick.Disposition(a.word("disposition")),
						Status:  a.number("status"),
						Message: a.word("message"), RetryAfter: a.duration("after"),
					},
					InTask: a.number("tries"), Crashes: a.number("crashes"), Crashed: crashed,
				}, jitter)
				if n.Again {
					fmt.Fprintf(&out, "again after %v: %s %s (%s)\n", n.Wait, n.Failure.Class, n.Failure.Disposition, n.Because)
				} else {
					fmt.Fprintf(&out, "ended: %s %s (%s)\n", n.Failure.Class, n.Failure.Disposition, n.Because)
				}
			case "key":
				tmpl, record, _ := strings.Cut(rest, " ")
				fields, ok := worker.ParseFields([]byte(record))
				if !ok {
					out.WriteString("no object\n")
					continue
				}
				key, err := worker.RateKey(tmpl, fields)
				if err != nil {
					fmt.Fprintf(&out, "error: %v\n", err)
				} else {
					fmt.Fprintf(&out, "%q\n", key)
				}
			default:
				t.Fatalf("unknown command %q", line)
			}
		}
	}
	return out.String()
}

// args are name=value words; what is asked for is taken out.
type args struct {
	t     *testing.T
	words map[string]string
}

func arguments(t *testing.T, line string) args {
	a := args{t, map[string]string{}}
	for w := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(w, "=")
		a.words[name] = value
	}
	return a
}

func (a args) word(name string) string {
	w := a.words[name]
	delete(a.words, name)
	return w
}

func (a args) number(name string) int {
	w := a.word(name)
	if w == "" {
		return 0
	}
	n, err := strconv.Atoi(w)
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

func (a args) duration(name string) time.Duration {
	w := a.word(name)
	if w == "" {
		return 0
	}
	d, err := time.ParseDuration(w)
	if err != nil {
		a.t.Fatal(err)
	}
	return d
}

// A message is one line of bounded, valid UTF-8, whatever the handler says.
func TestMessagesOfFailures(t *testing.T) {
	long := strings.Repeat("ä", worker.MaxMessage)
	for said, want := range map[string]string{
		"":                        "",
		" two\nlines\tand a tab ": "two lines and a tab",
		"bad \xff byte":           "bad ? byte",
		long:                      long[:worker.MaxMessage] + "...",
		"x" + long:                "x" + long[:worker.MaxMessage-2] + "...", // no half letter
	} {
		n := worker.NextTry(hayrick.Retry{}, worker.Try{Outcome: jobs.Outcome{Class: "c", Message: said}, InTask: 1}, 0)
		if n.Failure.Message != want || !utf8.ValidString(n.Failure.Message) {
			t.Errorf("%.20q...: %q, want %q", said, n.Failure.Message, want)
		}
	}
}

// A class that is none is not passed over in silence: what the handler called it is in
// the message.
func TestClassThatIsNone(t *testing.T) {
	for class, want := range map[string]string{
		"Bad-Amount":              `n/a (the handler's class "Bad-Amount" is none: 1 to 40 of a-z, 0-9 and _)`,
		strings.Repeat("x", 1000): `n/a (the handler's class "` + strings.Repeat("x", 60) + `..." is none: 1 to 40 of a-z, 0-9 and _)`,
		"":                        "n/a",
	} {
		n := worker.NextTry(hayrick.Retry{}, worker.Try{Outcome: jobs.Outcome{Class: class, Message: "n/a"}, InTask: 1}, 0)
		if n.Failure.Class != "other" || n.Failure.Message != want {
			t.Errorf("%s: %q, want %q", n.Failure.Class, n.Failure.Message, want)
		}
	}
}
