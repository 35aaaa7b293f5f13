package main

import (
	"os"
	"path/filepath"
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

// story is a transcript with the masks on and the progress between its first and
// last lines left out, which depends on the machine's speed.
func story(transcript string) []string {
	var out []string
	for line := range strings.Lines(transcript) {
		line = strings.TrimRight(line, "\n")
		for _, m := range masks {
			line = m.re.ReplaceAllString(line, m.with)
		}
		if progress := strings.HasPrefix(line, "<time>  <run>"); line == "..." || line == "" ||
			progress && !strings.Contains(line, "SUCCEEDED") && !strings.Contains(line, " 0/40 tasks") ||
			strings.HasPrefix(line, "note: ") || strings.HasPrefix(line, "leftover ") {
			continue
		}
		out = append(out, line)
	}
	return out
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

// Every file the README points at is there.
func TestREADMELinks(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	links := regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(string(b), -1)
	if len(links) == 0 {
		t.Fatal("no links found")
	}
	for _, l := range links {
		if _, err := os.Stat(filepath.Join("../..", l[1])); err != nil {
			t.Errorf("%s: %v", l[1], err)
		}
	}
}
