package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var codeBlock = regexp.MustCompile("(?s)```(\\w+)\n(.*?)```")

// The page of the Python handler is done as it stands: its files are written, its
// commands run in order, and what it shows they print.
func TestPythonHandlerTutorial(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/tutorials/python-handler.md")
	if err != nil {
		t.Fatal(err)
	}
	// How a command ends that the page does not call a success.
	codes := map[string][]int{"run jobs/words --strict": {exitUnwell}, "handler try jobs/words --item 2": {exitUnwell}}
	// What must be in the output of a command whose output the page leaves out.
	says := map[string]string{
		"run jobs/words --strict":                                     "2 permanent",
		"failures --class poison --json":                              `"class":"poison"`,
		"handler try jobs/words --item 2":                             "ZeroDivisionError: division by zero",
		"handler try jobs/words --item 2 --record empty.frames.jsonl": `"length": null`,
		"handler try jobs/words --replay empty.frames.jsonl":          "1 item as recorded",
		"run jobs/words":                                              "5 items: 4 ok, 1 permanent   4 rows",
		"audit":                                                       "5 items = 4 ok + 1 permanent + 0 exhausted; 4 rows",
	}
	dir := t.TempDir()
	ran := 0
	for _, block := range codeBlock.FindAllStringSubmatch(string(page), -1) {
		kind, text := block[1], block[2]
		switch kind {
		case "sh":
			cmd := exec.Command("sh", "-e", "-c", text)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", text, err, out)
			}
		case "console":
			line, shown, _ := strings.Cut(text, "\n")
			typed := strings.TrimPrefix(line, "$ hayrick ")
			cmd := process(t, dir, strings.Fields(typed)...)
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			want := 0
			if c := codes[typed]; len(c) > 0 {
				want, codes[typed] = c[0], c[1:]
			}
			if got := codeOf(cmd.Run()); got != want {
				t.Fatalf("hayrick %s exits %d, want %d\n%s%s", typed, got, want, stdout.String(), stderr.String())
			}
			if !strings.Contains(stdout.String()+stderr.String(), says[typed]) {
				t.Errorf("hayrick %s does not say %q:\n%s%s", typed, says[typed], stdout.String(), stderr.String())
			}
			if shown != "" && spaced(shown) != spaced(stdout.String()) {
				t.Errorf("hayrick %s prints\n%s\nthe page shows\n%s", typed, stdout.String(), shown)
			}
			ran++
		default: // a file; its first line names it
			name, _, _ := strings.Cut(text, "\n")
			path := filepath.Join(dir, strings.TrimPrefix(name, "# "))
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ran < 9 {
		t.Errorf("only %d commands found on the page", ran)
	}
}

// spaced is a text with one space where there are several: the width of a table's
// columns depends on what is in them.
var runOnPage = regexp.MustCompile(`words-[0-9]{8}-[a-z]{6}`)

func spaced(s string) string {
	var out []string
	for line := range strings.Lines(runOnPage.ReplaceAllString(s, "words-<run>")) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(out, "\n")
}
