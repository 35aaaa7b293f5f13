package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// row is one measurement beside another.
type row struct {
	Bench   string  `json:"bench"`
	What    string  `json:"what"`
	Unit    string  `json:"unit"` // of Value and Peer: s, MB/s, items/s, B, ...
	Value   float64 `json:"value"`
	PeerOf  string  `json:"peer_of,omitempty"` // what Peer was measured on; "" = there is no peer
	Peer    float64 `json:"peer,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`  // Value / Peer
	Target  string  `json:"target,omitempty"` // "" = the row is informative
	Verdict string  `json:"verdict,omitempty"`
	Note    string  `json:"note,omitempty"`
}

// report gathers the rows of a run.
type report struct {
	Machine machine `json:"machine"`
	Scale   float64 `json:"scale"`
	Seconds float64 `json:"seconds"`
	Rows    []row   `json:"rows"`

	cost     string // the table of costs; "" = it was not made
	bench    string // the one that runs now
	progress io.Writer
}

func (r *report) say(format string, args ...any) {
	fmt.Fprintf(r.progress, format+"\n", args...)
}

// add adds a row and says it at once.
func (r *report) add(x row) {
	x.Bench = r.bench
	if x.PeerOf != "" && x.Peer > 0 {
		x.Ratio = x.Value / x.Peer
	}
	r.Rows = append(r.Rows, x)
	r.say("  %s", strings.Join(slices.DeleteFunc(x.cells()[1:], func(s string) bool { return s == "" }), "   "))
}

// bound is a target: at least or at most so much.
type bound struct {
	least bool
	of    float64
}

func atLeast(n float64) bound { return bound{true, n} }
func atMost(n float64) bound  { return bound{false, n} }

func (b bound) judge(n float64) string {
	if b.least && n >= b.of || !b.least && n <= b.of {
		return "ok"
	}
	return "short"
}

func (b bound) text(show string) string {
	if b.least {
		return ">= " + show
	}
	return "<= " + show
}

// addValue adds a row whose value has a target.
func (r *report) addValue(x row, b bound) {
	x.Target, x.Verdict = b.text(quantity(b.of, x.Unit)), b.judge(x.Value)
	r.add(x)
}

// addRatio adds a row whose ratio to its peer has a target.
func (r *report) addRatio(x row, b bound) {
	x.Target, x.Verdict = b.text(short(b.of)+"x"), b.judge(x.Value/x.Peer)
	r.add(x)
}

// missing adds a row for a peer that could not be measured.
func (r *report) missing(what string, why error) {
	line, _, _ := strings.Cut(why.Error(), "\n")
	r.add(row{What: what, Verdict: "not run", Note: line})
}

var columns = []string{"bench", "what", "value", "peer", "ratio", "target", "verdict", "note"}

func (x row) cells() []string {
	c := []string{x.Bench, x.What, "", "", "", x.Target, x.Verdict, x.Note}
	if x.Unit != "" {
		c[2] = quantity(x.Value, x.Unit)
	}
	if x.PeerOf != "" {
		c[3] = x.PeerOf + " " + quantity(x.Peer, x.Unit)
		c[4] = short(x.Ratio) + "x"
	}
	return c
}

func (r *report) writeText(w io.Writer) error {
	fmt.Fprintf(w, "%s\n\n", r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(columns, "\t"))
	for _, x := range r.Rows {
		fmt.Fprintln(t, strings.Join(x.cells(), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.ending())
	return err
}

func (r *report) ending() string {
	count := map[string]int{}
	for _, x := range r.Rows {
		count[x.Verdict]++
	}
	s := fmt.Sprintf("%d targets reached, %d short, %d not run; %.0f s", count["ok"], count["short"], count["not run"], r.Seconds)
	if r.Scale != 1 {
		s += fmt.Sprintf("; at %s of the full sizes, for which the targets are not meant", short(r.Scale))
	}
	return s
}

func (r *report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

const (
	docsBegin = "<!-- bench: written by `go run . --docs`, not by hand -->"
	docsEnd   = "<!-- /bench -->"

	costBegin = "<!-- cost: written by `go run . --only cost --cost-docs`, not by hand -->"
	costEnd   = "<!-- /cost -->"
)

// intoDocs puts the table between the marks of a Markdown file.
func (r *report) intoDocs(path string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n\n| %s |\n|%s\n", r.Machine, strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, x := range r.Rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(x.cells(), " | "))
	}
	fmt.Fprintf(&b, "\n%s.\n", r.ending())
	return between(path, docsBegin, docsEnd, b.String())
}

// between replaces what stands between two marks of a file.
func between(path, begin, end, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(old, []byte(begin))
	_, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", path, begin, end)
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%s%s\n%s%s%s", head, begin, text, end, tail), 0o644)
}

// quantity writes a value as a person would.
func quantity(v float64, unit string) string {
	switch unit {
	case "requests":
		return strconv.FormatFloat(v, 'f', 3, 64)
	case "B":
		return bytesOf(v)
	case "s":
		switch {
		case v < 0.1:
			return short(v*1e3) + " ms"
		case v < 1:
			return strconv.FormatFloat(v*1e3, 'f', 0, 64) + " ms"
		}
		return short(v) + " s"
	}
	return thousands(v) + " " + unit
}

func bytesOf(v float64) string {
	if math.Abs(v) >= 1<<30 {
		return short(v/(1<<30)) + " GiB"
	}
	return short(v/(1<<20)) + " MiB"
}

// short has three digits that count.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return thousands(v)
	case a >= 10:
		return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
	}
	s := strings.TrimRight(strconv.FormatFloat(v, 'f', 2, 64), "0")
	return strings.TrimSuffix(s, ".")
}

func thousands(v float64) string {
	s := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
