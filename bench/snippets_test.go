package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The run of the page, in whose place stands one of this test.
const (
	page       = "../docs/how-to/results-in-duckdb-and-pandas.md"
	pageFolder = "out/words-20261121-txgvfu"
)

const wordsJob = `version: 1
name: words
handler: {exec: [python3, handler.py]}
input: {uri: ./in.jsonl, key: id}
output: {uri: "./out/$(run.id)/"}
`

const wordsHandler = `import json, sys
def say(**o): print(json.dumps(o), flush=True)
for line in sys.stdin:
    f = json.loads(line)
    if f["t"] == "hello": say(t="ready", proto=1)
    elif f["t"] == "item" and f["item"].get("lost"): say(t="err", id=f["id"], **{"class": "lost", "msg": "gone", "retry": False})
    elif f["t"] == "item":
        say(t="row", id=f["id"], row={"id": f["key"], "country": f["item"]["country"]})
        say(t="ok", id=f["id"])
    elif f["t"] == "stop": break
say(t="bye")
`

// snippets are the blocks of the page in a language.
func snippets(t *testing.T, language string) (out []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
		out = append(out, m[1])
	}
	if len(out) == 0 {
		t.Fatalf("%s has no %s", page, language)
	}
	return out
}

// What the page on results has users type, in DuckDB itself, and in pandas where that is
// installed.
func TestResultsPage(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "hayrick")
	build := exec.Command("go", "build", "-o", binary, "./cmd/hayrick")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var items strings.Builder
	for i := range 7 {
		fmt.Fprintf(&items, `{"id":"i%d","country":%q,"lost":%v}`+"\n", i, []string{"at", "br"}[i%2], i > 4)
	}
	for name, text := range map[string]string{"config.yaml": wordsJob, "handler.py": wordsHandler, "in.jsonl": items.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (folder string) {
		t.Helper()
		cmd := exec.Command(binary, append([]string{"run", ".", "-q"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		found, err := filepath.Glob(filepath.Join(dir, "out/*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		moved := filepath.Join(dir, fmt.Sprintf("run%d", len(args)))
		if err := os.Rename(found[0], moved); err != nil {
			t.Fatal(err)
		}
		return moved
	}
	plain, parted := run(), run("--new", "--set", "output.partition_by=[country]")

	t.Run("DuckDB", func(t *testing.T) {
		db, err := sql.Open("duckdb", "")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		want := []string{"5\n", "lost 2\n", "at 3\nbr 2\n"}
		for _, block := range snippets(t, "sql") {
			for q := range strings.Lines(block) {
				folder := plain
				if strings.Contains(q, "hive_partitioning") {
					folder = parted
				}
				got, err := asked(db, strings.ReplaceAll(q, pageFolder, folder))
				if err != nil || len(want) == 0 || got != want[0] {
					t.Fatalf("%s: %v\n%s, want %q", q, err, got, want)
				}
				want = want[1:]
			}
		}
		if len(want) > 0 {
			t.Errorf("%d queries are not there", len(want))
		}
	})
	t.Run("pandas", func(t *testing.T) {
		if out, err := exec.Command("python3", "-c", "import pandas, pyarrow").CombinedOutput(); err != nil {
			t.Skipf("NOT TRIED: the lines for pandas, which need it and pyarrow (pip install pandas pyarrow)\n%s", out)
		}
		program := strings.ReplaceAll(strings.Join(snippets(t, "python"), ""), pageFolder, plain)
		out, err := exec.Command("python3", "-c", program+"\nprint(len(rows), sorted(rows.id), list(gone['class']))\n").CombinedOutput()
		if want := "5 ['i0', 'i1', 'i2', 'i3', 'i4'] ['lost', 'lost']\n"; err != nil || string(out) != want {
			t.Errorf("%v\n%s, want %s", err, out, want)
		}
	})
}

// asked is what a query gives, a line a row, in their order.
func asked(db *sql.DB, query string) (string, error) {
	rows, err := db.Query("SELECT * FROM (" + strings.TrimRight(strings.TrimSpace(query), ";") + ") ORDER BY ALL")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	for rows.Next() {
		cells := make([]any, len(columns))
		for i := range cells {
			cells[i] = new(any)
		}
		if err := rows.Scan(cells...); err != nil {
			return "", err
		}
		for i, c := range cells {
			if i > 0 {
				out.WriteByte(' ')
			}
			fmt.Fprint(&out, *c.(*any))
		}
		out.WriteByte('\n')
	}
	return out.String(), rows.Err()
}
