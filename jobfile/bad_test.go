package jobfile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The corpus of bad job files: testdata/bad/one has one file a mistake, and expected.txt
// what is said of each, in one line. A file that begins with #! has the words of its
// command line there. The folder parts has what some of them go on from. What is too
// large or too odd for a file is made below.

const (
	corpus   = "testdata/bad/one"
	expected = "expected.txt"
	// maxMemory is what the reading of any file may allocate, garbage included.
	maxMemory = 64 << 20
)

// made are the files that are made here, by the names they have in expected.txt.
var made = sync.OnceValue(func() map[string]string {
	head := "version: 1\nname: job\nhandler: {builtin: noop}\ninput: {uri: ./a.jsonl}\n"
	nested := func(open, in, shut string, n int) string {
		return strings.Repeat(open, n) + in + strings.Repeat(shut, n)
	}
	lines := func(n int, line func(i int) string) string {
		var b strings.Builder
		b.WriteString(head)
		for i := range n {
			b.WriteString(line(i))
		}
		return b.String()
	}
	return map[string]string{
		"made/key of 1 MB":              head + strings.Repeat("k", 1<<20) + ": 1\n",
		"made/key of 200 kB":            head + strings.Repeat("k", 200_000) + ": 1\n",
		"made/value of 1 MB":            head + "description: " + strings.Repeat("v", 1<<20) + "\n",
		"made/name of 200 kB":           "version: 1\nname: " + strings.Repeat("n", 200_000) + head[len("version: 1\nname: job"):],
		"made/duration of 200 kB":       head + "run: {item_timeout: " + strings.Repeat("9", 200_000) + "s}\n",
		"made/size of 200 kB":           head + "merge: {part_bytes: " + strings.Repeat("x", 200_000) + "}\n",
		"made/rate of 200 kB":           head + "rates: [{name: api, limit: " + strings.Repeat("x", 200_000) + "/s}]\n",
		"made/word of 200 kB":           head + "output: {format: " + strings.Repeat("x", 200_000) + "}\n",
		"made/number of 200 kB":         head + "batch: {items: " + strings.Repeat("9", 200_000) + "}\n",
		"made/template of 200 kB":       head + "output: {uri: ./$(" + strings.Repeat("x", 200_000) + ")/}\n",
		"made/comment of 1 MB":          head + "# " + strings.Repeat("x", 1<<20) + "\n",
		"made/spaces, 1 MB":             strings.Repeat(" ", 1<<20),
		"made/newlines, 200 kB":         strings.Repeat("\n", 200_000),
		"made/tabs, 200 kB":             strings.Repeat("\t", 200_000),
		"made/carriage returns":         strings.Repeat("\r", 200_000),
		"made/list 33 deep":             head + "x-deep: " + nested("[", "1", "]", 33) + "\n",
		"made/list 1000 deep":           head + "x-deep: " + nested("[", "1", "]", 1000) + "\n",
		"made/list 100,000 deep":        head + "x-deep: " + strings.Repeat("[", 100_000) + "\n",
		"made/list 20,000 deep, open":   head + "x-deep: " + strings.Repeat("[", 20_000) + "\n",
		"made/mapping 40 deep":          head + "x-deep: " + nested("{a: ", "1", "}", 40) + "\n",
		"made/mapping 5,000 deep":       head + "x-deep: " + strings.Repeat("{a: ", 5_000) + "\n",
		"made/dashes 40 deep":           head + "x-deep:\n  " + strings.Repeat("- ", 40) + "1\n",
		"made/dashes 9,000 deep":        head + "x-deep:\n  " + strings.Repeat("- ", 9_000) + "1\n",
		"made/indented 40 deep":         head + "x-deep:\n" + indented(40),
		"made/indented 300 deep":        head + "x-deep:\n" + indented(300),
		"made/question marks":           strings.Repeat("? ", 9_000),
		"made/anchors":                  strings.Repeat("&a ", 9_000),
		"made/tags":                     strings.Repeat("!a ", 9_000),
		"made/quotes":                   strings.Repeat("' ", 19_000),
		"made/colons":                   strings.Repeat(":", 200_000),
		"made/documents":                head + strings.Repeat("---\na: b\n", 2_000),
		"made/billion laughs":           laughs(),
		"made/1,900 keys":               strings.TrimPrefix(lines(1_900, func(i int) string { return fmt.Sprintf("key%d: b\n", i) }), head),
		"made/200,000 words":            lines(60_000, func(int) string { return "a b\n" }),
		"made/20,000 profiles":          lines(1, func(int) string { return "profiles: {" }) + strings.Repeat("p: {}, ", 9_000) + "}\n",
		"made/5,000 rates":              lines(1, func(int) string { return "rates: [" }) + strings.Repeat("1, ", 5_001) + "]\n",
		"made/20,001 commas":            head + "description: \"" + strings.Repeat(",", 20_001) + "\"\n",
		"made/items instead of a job":   strings.Repeat("{\"id\": \"a\", \"n\": 1}\n", 5_000),
		"made/a table instead of a job": strings.Repeat("id,name,age\n", 20_000),
		"made/random bytes":             noise(100_000),
	}
})

func indented(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", 2+i) + "a:\n")
	}
	return b.String()
}

// laughs is small, and enormous when its aliases are followed.
func laughs() string {
	var b strings.Builder
	b.WriteString("a0: &a0 lol\n")
	for i := 1; i < 20; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	return b.String()
}

// noise is bytes that have no order, the same each time.
func noise(n int) string {
	b, x := make([]byte, n), uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

// corpusNames are the files of the corpus, those on disk and those that are made.
func corpusNames(t testing.TB) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(corpus, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != expected && filepath.Base(filepath.Dir(path)) != "parts" {
			names = append(names, filepath.Base(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(slices.Values(append(names, slices.Collect(maps.Keys(made()))...)))
}

// readBad reads a file of the corpus, from within its folder, as its command line says.
func readBad(t testing.TB, name string) error {
	if text, ok := made()[name]; ok {
		_, _, err := resolve("job.yaml", text, "", nil)
		return err
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var o Options
	line, _, _ := strings.Cut(string(b), "\n")
	if words, ok := strings.CutPrefix(line, "#! "); ok {
		for rest := words; rest != ""; {
			var flag, value string
			flag, rest, _ = strings.Cut(rest, " ")
			value, rest, _ = strings.Cut(rest, " ")
			switch flag {
			case "-p":
				o.Profile = value
			case "--set":
				o.Sets = append(o.Sets, value)
			default:
				t.Fatalf("%s begins with %q", name, line)
			}
		}
	}
	_, err = o.Load(name)
	return err
}

// 002-51: whatever is wrong with a job file is said in one line, with its place and
// with what to write, and costs no more than reading it.
func TestCorpus(t *testing.T) {
	names := corpusNames(t)
	if len(names) < 300 {
		t.Errorf("only %d files", len(names))
	}
	t.Chdir(corpus)
	var got strings.Builder
	for _, name := range names {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := readBad(t, name)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > maxMemory {
			t.Errorf("%s: allocates %d MiB", name, used>>20)
		}
		var ps Problems
		switch {
		case !errors.As(err, &ps) || len(ps) != 1:
			t.Errorf("%s: one problem is wanted, not\n%v", name, err)
		case strings.ContainsFunc(ps[0].String(), func(r rune) bool { return r < ' ' }) || len(ps[0].String()) > 400:
			t.Errorf("%s: this is no line to read: %q", name, ps[0])
		case ps[0].File == "":
			t.Errorf("%s: no place in %v", name, ps[0])
		}
		fmt.Fprintf(&got, "%s\t%v\n", name, err)
	}
	if *rewrite {
		if err := os.WriteFile(expected, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(expected)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// BenchmarkCorpus reads the whole corpus. slowest-ms is the file that takes longest, at
// its best of all rounds; most-MiB the one that allocates most.
func BenchmarkCorpus(b *testing.B) {
	names := corpusNames(b)
	b.Chdir(corpus)
	best, most := make([]time.Duration, len(names)), uint64(0)
	for b.Loop() {
		for i, name := range names {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_ = readBad(b, name) // what it says is TestCorpus's to judge
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if best[i] == 0 || took < best[i] {
				best[i] = took
			}
			most = max(most, after.TotalAlloc-before.TotalAlloc)
		}
	}
	b.ReportMetric(float64(slices.Max(best).Microseconds())/1000, "slowest-ms")
	b.ReportMetric(float64(most)/(1<<20), "most-MiB")
	b.ReportMetric(float64(len(names)), "files")
}
