package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var rewrite = flag.Bool("rewrite", false, "write docs/reference/cli.md and the table of exit-codes.md anew")

// cliPage is docs/reference/cli.md: the help of every verb.
func cliPage() string {
	env := environment{get: func(string) string { return "" }}
	root := newRoot(&cli{environment: env})
	var b strings.Builder
	b.WriteString("# The command line\n\nMade from the help of the verbs by a test; `make golden` writes it anew. `hayrick help <verb>` prints the same.\n\n")
	b.WriteString("A run is named by its id, by any prefix of it that is unique, by `@` (the latest run) or by `@name` (the latest run of that job). ")
	b.WriteString("The codes that a verb ends with: [exit codes](exit-codes.md). Keys of a job file: [job file](job-file.md).\n\n")
	b.WriteString("Every verb takes:\n\n```\n" + strings.TrimRight(root.PersistentFlags().FlagUsagesWrapped(0), "\n") + "\n```\n")
	var verbs func(cmd *cobra.Command)
	verbs = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if !sub.IsAvailableCommand() || sub.Name() == "help" || sub.RunE == nil && !sub.HasSubCommands() {
				continue
			}
			fmt.Fprintf(&b, "\n## %s\n\n", strings.TrimPrefix(sub.CommandPath(), "hayrick "))
			text := sub.Long
			if text == "" {
				text = sub.Short
			}
			fmt.Fprintf(&b, "```\n%s\n\n%s\n", sub.UseLine(), strings.TrimSpace(text))
			if sub.Example != "" {
				fmt.Fprintf(&b, "\nExamples:\n%s\n", strings.TrimRight(sub.Example, "\n"))
			}
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			sub.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" {
					flags.AddFlag(f)
				}
			})
			if use := strings.TrimRight(flags.FlagUsagesWrapped(0), "\n"); use != "" {
				fmt.Fprintf(&b, "\nFlags:\n%s\n", use)
			}
			if codes := sub.Annotations[exitsNote]; codes != "" {
				fmt.Fprintf(&b, "\nExit codes: %s\n", codes)
			}
			b.WriteString("```\n")
			verbs(sub)
		}
	}
	verbs(root)
	return b.String()
}

// The page of the command line is what the verbs say of themselves, and that of the
// exit codes has each of them in the words of the help.
func TestReferencePages(t *testing.T) {
	const name = "../../docs/reference/cli.md"
	want := cliPage()
	if *rewrite {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is stale: make golden writes it anew", name)
	}
	const second = "../../docs/reference/exit-codes.md"
	codes, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(codes), "```\n")
	_, after, _ := strings.Cut(rest, "```")
	now := before + "```\n" + strings.TrimRight(strings.TrimPrefix(exitHelp, "Exit codes:\n"), "\n") + "\n```" + after
	if *rewrite {
		if err := os.WriteFile(second, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if now != string(codes) {
		t.Errorf("%s is stale: make golden writes it anew", second)
	}
}

var (
	fenced    = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	inCode    = regexp.MustCompile("`[^`\n]*`")
	linked    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	markWords = regexp.MustCompile("[`*]")
)

// anchors are the fragments of a page, as GitHub makes them of its headings.
func anchors(page string) map[string]bool {
	out := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(page, ""), -1) {
		var b strings.Builder
		for _, r := range strings.ToLower(markWords.ReplaceAllString(m[1], "")) {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				b.WriteRune(r)
			}
		}
		out[b.String()] = true
	}
	return out
}

// Every relative link of the pages leads to a file that is there, and to a heading of
// it; every page of docs is reached from the index.
func TestDocumentLinks(t *testing.T) {
	root := "../.."
	pages := []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			rel, _ := filepath.Rel(root, path)
			pages = append(pages, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	indexed, n := map[string]bool{"docs/README.md": true}, 0
	for _, page := range pages {
		b, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		text := inCode.ReplaceAllString(fenced.ReplaceAllString(string(b), ""), "")
		for _, m := range linked.FindAllStringSubmatch(text, -1) {
			u, err := url.Parse(m[1])
			if err != nil || u.Scheme != "" {
				continue
			}
			n++
			to := page
			if u.Path != "" {
				to = filepath.Join(filepath.Dir(page), u.Path)
			}
			if page == "docs/README.md" {
				indexed[to] = true
			}
			there, err := os.Stat(filepath.Join(root, to))
			if err != nil {
				t.Errorf("%s: %s is not there", page, m[1])
				continue
			}
			if u.Fragment == "" || there.IsDir() {
				continue
			}
			target, err := os.ReadFile(filepath.Join(root, to))
			if err != nil {
				t.Fatal(err)
			}
			if !anchors(string(target))[u.Fragment] {
				t.Errorf("%s: %s has no heading #%s", page, to, u.Fragment)
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d links found", n)
	}
	for _, page := range pages {
		if strings.HasPrefix(page, "docs/") && !strings.HasPrefix(page, "docs/decisions/") && !indexed[page] {
			t.Errorf("docs/README.md does not name %s", page)
		}
	}
}

// The pages that are typed as they stand: their commands run in order in one folder,
// and each says what the page shows of it.
func TestTypedPages(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("NOT TRIED: the tutorials, which need python3 (apt-get install python3)")
	}
	for _, page := range []string{"tutorials/laptop.md", "how-to/batch-size.md", "how-to/simulate.md"} {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile("../../docs/" + page)
			if err != nil {
				t.Fatal(err)
			}
			dir, ran := t.TempDir(), 0
			for _, m := range codeBlock.FindAllStringSubmatch(string(b), -1) {
				if m[1] != "console" {
					continue
				}
				for _, part := range strings.Split("\n"+m[2], "\n$ ")[1:] {
					typed, shown, _ := strings.Cut(part, "\n")
					ran++
					if to, ok := strings.CutPrefix(typed, "cd "); ok {
						dir = filepath.Join(dir, to)
						continue
					}
					want := 0
					typed, code, _ := strings.Cut(typed, "   # exits ")
					fmt.Sscan(code, &want)
					self := process(t, dir, "version").Path
					cmd := exec.Command("sh", "-c", typed)
					cmd.Dir = dir
					cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(self)+string(os.PathListSeparator)+os.Getenv("PATH"))
					var out bytes.Buffer
					cmd.Stdout, cmd.Stderr = &out, &out
					if got := codeOf(cmd.Run()); got != want {
						t.Fatalf("%s exits %d, want %d\n%s", typed, got, want, &out)
					}
					for line := range strings.Lines(shown) {
						if line = timeless(line); line != "" && !strings.Contains(timeless(out.String()), line) {
							t.Errorf("%s does not say\n  %s\nbut\n%s", typed, line, &out)
						}
					}
				}
			}
			if ran < 2 {
				t.Errorf("only %d commands found", ran)
			}
		})
	}
}

// What differs from run to run, in these pages.
var fleeting = []*regexp.Regexp{
	regexp.MustCompile(`\b([a-z]+)-\d{8}-[a-z]{6}\b`), regexp.MustCompile(`\d\d:\d\d:\d\d\.\d{3}`), regexp.MustCompile(`\b\d+(\.\d+)? (ms|s)\b`),
	regexp.MustCompile(`sha256 [0-9a-f]{12}`), regexp.MustCompile(`item \d+`), regexp.MustCompile(`\b\d+(\.\d+)? (B|KiB)\b`),
}

func timeless(s string) string {
	for _, re := range fleeting {
		s = re.ReplaceAllString(s, "*")
	}
	return strings.TrimSpace(strings.Join(strings.Fields(s), " "))
}
