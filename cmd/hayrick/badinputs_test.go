package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"hayrick"
	"hayrick/internal/records"
)

// The corpus of bad inputs, and in testdata/bad-inputs.txt what is said of each, in one
// line. The name of one ends in its suffix; what follows a space tells it from others.
const badInputs = "testdata/bad-inputs.txt"

// badKeys are the keys that job files ask for; badColumns are of files without a header.
var (
	badKeys    = map[string]string{"key": "id", "absent": "nmae", "deep": "id"}
	badColumns = map[string][]string{"columns": {"a", "b"}}
)

func badInputBytes(t *testing.T) map[string]string {
	t.Helper()
	z := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		io.WriteString(w, s)
		w.Close()
		return b.String()
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	zs := func(s string) string { return string(enc.EncodeAll([]byte(s), nil)) }
	var p bytes.Buffer
	if err := writeParquet(nopCloser{&p}, []string{"a", "-", "c"}); err != nil {
		t.Fatal(err)
	}
	parquet := p.String()
	flip := func(s string, at int) string {
		b := []byte(s)
		b[(at+len(b))%len(b)] ^= 0xff
		return string(b)
	}
	table := "id,n\na,1\nb,2\n"
	wide := strings.Repeat("x,", 4000) + "x"
	return map[string]string{
		// JSON lines.
		"word.jsonl":               "{\"id\":\"a\"}\nhello\n",
		"open.jsonl":               "{\"id\":\"a\"",
		"open-string.jsonl":        "{\"id\":\"a}\n",
		"comma.jsonl":              "{\"id\":\"a\",}\n",
		"single-quotes.jsonl":      "{'id':'a'}\n",
		"no-quotes.jsonl":          "{id:1}\n",
		"two.jsonl":                "{\"id\":1} {\"id\":2}\n",
		"two-stuck.jsonl":          "{\"id\":1}{\"id\":2}\n",
		"array.jsonl":              "[1,2]\n",
		"array-of-items.jsonl":     "[\n  {\"id\":1},\n  {\"id\":2}\n]\n",
		"pretty.jsonl":             "{\n  \"id\": 1\n}\n",
		"number.jsonl":             "17\n",
		"text.jsonl":               "\"a\"\n",
		"null.jsonl":               "null\n",
		"NaN.jsonl":                "{\"id\":NaN}\n",
		"comment.jsonl":            "{\"id\":1}\n// two\n",
		"control.jsonl":            "{\"id\":\"a\tb\"}\n",
		"nul.jsonl":                "{\"id\":1}\n\x00\x00\x00\x00\n",
		"escape.jsonl":             "{\"id\":\"\\q\"}\n",
		"leading-zero.jsonl":       "{\"id\":007}\n",
		"hex.jsonl":                "{\"id\":0x1F}\n",
		"accents-before.jsonl":     "  {\"é\":\"ü\",x}\n",
		"mark-in-the-middle.jsonl": "{\"id\":1}\n\xef\xbb\xbf{\"id\":2}\n",
		"deep.jsonl deep":          strings.Repeat("{\"a\":", 10_001) + "1" + strings.Repeat("}", 10_001) + "\n",
		"csv.jsonl":                table,
		"yaml.jsonl":               "id: a\n---\nid: b\n",
		"html.jsonl":               "<!doctype html>\n<p>404</p>\n",
		"no-key.jsonl key":         "{\"id\":\"a\"}\n{\"name\":\"b\"}\n",
		"empty-key.jsonl key":      "{\"id\":\"\"}\n",
		"null-key.jsonl key":       "{\"id\":null}\n",
		"object-key.jsonl key":     "{\"id\":{\"a\":1}}\n",
		"array-key.jsonl key":      "{\"id\":[1]}\n",
		"long.jsonl":               "{\"id\":\"" + strings.Repeat("a", 1<<21) + "\"}\n",
		"gzip.jsonl":               z("{\"id\":1}\n"),
		"zstd.jsonl":               zs("{\"id\":1}\n"),
		"utf16.jsonl":              "\xff\xfe{\x00}\x00\n\x00",
		"parquet.jsonl":            parquet,
		"zip.jsonl":                "PK\x03\x04\x14\x00\x00\x00",
		"cut.jsonl.gz":             z("{\"id\":1}\n{\"id\":2}\n")[:20],
		"flipped.jsonl.gz":         flip(z(strings.Repeat("{\"id\":1}\n", 99)), -6),
		"behind.jsonl.gz":          z("{\"id\":1}\n") + "garbage",
		"damaged.jsonl.gz":         flip(z(strings.Repeat("{\"id\":1}\n", 99)), 12),
		"line-of-packed.jsonl.gz":  z("{\"id\":1}\n{\"id\":\n"),
		"plain.jsonl.gz":           "{\"id\":1}\n",
		"cut.jsonl.zst":            zs(strings.Repeat("{\"id\":1}\n", 99))[:20],
		"flipped.jsonl.zst":        flip(zs(strings.Repeat("{\"id\":1}\n", 99)), -2),
		"behind.jsonl.zst":         zs("{\"id\":1}\n") + "garbage!",
		"plain.jsonl.zst":          "{\"id\":1}\n",
		"gzip.jsonl.zst":           z("{\"id\":1}\n"),
		"window.jsonl.zst":         "\x28\xb5\x2f\xfd\x00\xb8\x01\x00\x00",
		// Tables.
		"empty.csv":                  "",
		"blank.csv":                  "\n\n\r\n",
		"mark.csv":                   "\xef\xbb\xbf",
		"few.csv":                    table + "c\n",
		"many.csv":                   table + "c,3,4\n",
		"semicolons.csv":             "id;n\na;1,5\n",
		"unquoted-comma.csv":         "id,n\nSmith, John,1\n",
		"bare-quote.csv":             "id,n\na \"b\",1\n",
		"after-quote.csv":            "id,n\n\"a\"b,1\n",
		"unclosed.csv":               "id,n\n\"a,1\nb,2\n",
		"unclosed-header.csv":        "\"id,n\na,1\n",
		"twice.csv":                  "id,id\na,b\n",
		"twice-but-for-space.csv":    "id, id\na,b\n",
		"no-name.csv":                "id,,n\na,b,c\n",
		"latin1.csv":                 "id,n\ncaf\xe9,1\n",
		"latin1-header.csv":          "caf\xe9,n\na,1\n",
		"wide.csv":                   wide + "\n",
		"no-column.csv absent":       table,
		"empty-key.csv key":          "id,n\na,1\n,2\n",
		"quoted-newline-key.csv key": "n,id\n\"1\n2\",\"\"\n",
		"few.csv columns":            "1,2\n3\n",
		"long.csv":                   "id,n\n\"" + strings.Repeat("a,\n", 1<<20),
		"spreadsheet.csv":            "PK\x03\x04\x14\x00\x06\x00",
		"utf16.csv":                  "\xff\xfei\x00d\x00",
		"bzip.csv":                   "BZh91AY&SY",
		"xz.csv":                     "\xfd7zXZ\x00",
		"parquet.csv":                parquet,
		"twice-packed.csv.gz":        z(z(table)),
		"cut.csv.zst":                zs(strings.Repeat(table, 99))[:30],
		"commas.tsv":                 "id\tn\na,1\n",
		"many.tsv":                   "id\tn\na\t1\t\n",
		"quote.tsv":                  "id\tn\n5\" disk\t1\n",
		// Lines.
		"latin1.txt":        "a\ncaf\xe9\n",
		"utf16.txt":         "\xfe\xff\x00a",
		"long.txt":          strings.Repeat("a", 1<<21),
		"other-key.txt key": "a\n",
		"gzip.txt":          z("a\n"),
		// Parquet.
		"empty.parquet":            "",
		"magic.parquet":            "PAR1",
		"csv.parquet":              table,
		"tsv.parquet":              "id\tname\n1\tx\n",
		"json.parquet":             "\xef\xbb\xbf  {\"id\":\"a\"}\n",
		"text.parquet":             "hello\n",
		"gzip.parquet":             z(parquet),
		"zip.parquet":              "PK\x03\x04\x14\x00\x00\x00",
		"cut.parquet":              parquet[:len(parquet)-9],
		"head.parquet":             parquet[:40],
		"length.parquet":           flip(parquet, -6),
		"page.parquet":             flip(parquet, 12),
		"encrypted.parquet":        "PARE" + parquet[4:len(parquet)-4] + "PARE",
		"no-column.parquet absent": parquet,
		"null-key.parquet key":     parquet,
		"zeros.parquet":            strings.Repeat("\x00", 4096),
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Each bad input is told in one line, with its place and a remedy; nothing panics, and
// none takes more than 64 MB, garbage included.
func TestBadInputs(t *testing.T) {
	inputs := badInputBytes(t)
	var said strings.Builder
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		file, what, _ := strings.Cut(name, " ")
		def := hayrick.JobDefinition{Input: hayrick.Input{Format: hayrick.FormatOf(file), Key: badKeys[what]}}
		o := records.Options{
			Name: file, Format: def.Input.Format, Packed: records.PackedOf(file), Key: def.Input.Key, Columns: badColumns[what], Most: 1 << 20,
			Check: func(record []byte) (string, int) { return damage(record, def) },
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := records.Write(t.Context(), io.Discard, bytes.NewReader([]byte(inputs[name])), o)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
			t.Errorf("%s took %d bytes", name, took)
		}
		var user *hayrick.UserError
		switch {
		case err == nil:
			t.Errorf("%s is taken", name)
		case !errors.As(err, &user) || user.Hint == "" || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: %v: no problem of one line with a remedy", name, err)
		default:
			fmt.Fprintf(&said, "%s | %s | hint: %s\n", name, user.What, user.Hint)
		}
	}
	if *rewrite {
		if err := os.WriteFile(badInputs, []byte(said.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(badInputs)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), said.String()); d != "" {
		t.Errorf("said now (-rewrite, and review the difference):\n%s", d)
	}
	if len(inputs) < 90 {
		t.Errorf("only %d inputs", len(inputs))
	}
}
