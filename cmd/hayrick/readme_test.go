package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// masks hide what differs from one run to the next: ids (they hold a date), times,
// and digests and sizes of files whose bytes depend on what failed by chance.
var masks = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`backfill-\d{8}-[a-z]{6}`), "<run>"},
	{regexp.MustCompile(`sha256 [0-9a-f]{12}`), "sha256 <digest>"},
	{regexp.MustCompile(`\d+(\.\d+)? MiB`), "<size>"},
	{regexp.MustCompile(`(\d+ m )?\d+(\.\d+)? (ms|s|m)\b`), "<time>"},
	{regexp.MustCompile(`in \d+ results`), "in <n> results"},
	{regexp.MustCompile(`\d+ files decoded; \d+ commits and data objects checked, \d+ views`), "<n> checked"},
	{regexp.MustCompile(`, \d+ leftovers?\b`), ""},
}

// progressLine is a line of how a run gets on, with the masks on: in which group and
// how far depends on the machine's speed.
var progressLine = regexp.MustCompile(`^<time>  <run>  (?:initial_batch|retry_batch_\d+|final_aggregation)(?: [\d,]+/[\d,]+ tasks)?  ` +
	`[\d,]+/2,000 items  ok [\d,]+  failed [\d,]+  permanent [\d,]+(?:  exhausted [\d,]+)?(?:  [\d.,]+/s)?(?:  eta .+)?$`)

// story is a transcript with the masks on. How many lines of progress there are
// depends on the machine's speed: any number in a row is one.
func story(transcript string) []string {
	var out []string
	for line := range strings.Lines(transcript) {
		line = strings.TrimRight(line, "\n")
		for _, m := range masks {
			line = m.re.ReplaceAllString(line, m.with)
		}
		if line == "..." || line == "" || strings.HasPrefix(line, "note: ") || strings.HasPrefix(line, "leftover ") {
			continue
		}
		if progressLine.MatchString(line) {
			line = "<progress>"
		}
		out = append(out, line)
	}
	return slices.CompactFunc(out, func(a, b string) bool { return a == b && a == "<progress>" })
}

// The comparison is blind to how often progress is told, and to nothing else.
func TestStory(t *testing.T) {
	const first = "0 ms  backfill-20260101-abcdef  initial_batch 0/40 tasks  0/2,000 items  ok 0  failed 0  permanent 0\n"
	const later = "1 m 3 s  backfill-20260101-abcdef  retry_batch_1 1/5 tasks  1,900/2,000 items  ok 1,849  failed 1  permanent 51  83/s  eta 1.3 s\n"
	const end = "28 s  backfill-20260101-abcdef  SUCCEEDED  2,000/2,000 items  ok 1,949  failed 0  permanent 51\n"
	want := story("plan\n" + first + "...\n" + end + "done\n")
	for _, same := range []string{
		"plan\n" + first + first + end + "done\n", "plan\n" + later + end + "done\n",
		"plan\n" + first + later + strings.ReplaceAll(first, "initial_batch 0/40 tasks", "final_aggregation") + end + "done\n",
	} {
		if got := story(same); !slices.Equal(got, want) {
			t.Errorf("%q is not %q", got, want)
		}
	}
	for _, other := range []string{
		"plan\n" + end + "done\n", "plan\n" + first + "done\n", "plan\n" + first + end + end + "done\n", "plan\n" + first + "warning: x\n" + end + "done\n",
		"plan\n" + first + end + "done\ndone\n", "plan\n" + first + strings.ReplaceAll(end, "1,949", "1,948") + "done\n",
		"plan\n" + first + strings.ReplaceAll(first, "2,000 items", "2,001 items") + end + "done\n",
	} {
		if got := story(other); slices.Equal(got, want) {
			t.Errorf("%q is taken for the same", other)
		}
	}
}

// transcript is what the README shows under a command of its code blocks.
func transcript(t *testing.T, readme, command string) string {
	t.Helper()
	_, rest, ok := strings.Cut(readme, "\n$ "+command+"\n")
	if !ok {
		t.Fatalf("the README does not show %q", command)
	}
	text, _, _ := strings.Cut(rest, "```")
	return text
}

// The README's commands print what it says they print.
func TestREADMEIsTrue(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := workspace(t)
	for _, c := range [][]string{{"run", "jobs/backfill", "--profile", "demo"}, {"audit", "--deep", "@"}} {
		typed := "go run ./cmd/hayrick " + strings.Join(c, " ")
		cmd := process(t, dir, c...)
		got, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", typed, err, got)
		}
		want, have := story(transcript(t, string(b), typed)), story(string(got))
		if !slices.Equal(want, have) {
			t.Errorf("%s prints\n%s\nthe README says\n%s", typed, strings.Join(have, "\n"), strings.Join(want, "\n"))
		}
	}
}
