package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// Story goes to stderr, results to stdout: whoever pipes a result gets nothing else.

// tell adds a line to the story, unless -q.
func (c *cli) tell(format string, args ...any) {
	if !c.quiet {
		c.mustTell(format, args...)
	}
}

// mustTell adds a line to the story, also with -q.
func (c *cli) mustTell(format string, args ...any) { c.printTo(c.err, format, args...) }

// print prints a line of a result. A write that fails is noticed at the end: see stdout.
func (c *cli) print(format string, args ...any) { c.printTo(c.out, format, args...) }

// printTo prints a line in which data can do no harm and commands work as pasted.
func (c *cli) printTo(to io.Writer, format string, args ...any) {
	format = commandsIn.ReplaceAllStringFunc(format, func(found string) string {
		return strings.ReplaceAll(c.advice(found), "%", "%%")
	})
	for i, a := range args {
		switch x := a.(type) {
		case painted:
		case string:
			args[i] = plain(x)
		case error:
			args[i] = plain(x.Error())
		case fmt.Stringer:
			args[i] = plain(x.String())
		}
	}
	fmt.Fprintf(to, format+"\n", args...)
}

// plain is data as people may see it: what would move the cursor, colour the terminal,
// begin a line or turn the direction of writing is escaped, and so are bytes that are
// no text. Of a text without any of that it is the text.
func plain(s string) string {
	harmful := func(r rune) bool {
		return unicode.IsControl(r) || r == utf8.RuneError || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
	}
	if strings.IndexFunc(s, harmful) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		switch r, n := utf8.DecodeRuneInString(s); {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
			s = s[1:]
		case r != utf8.RuneError && harmful(r):
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
			s = s[n:]
		default:
			b.WriteString(s[:n])
			s = s[n:]
		}
	}
	return b.String()
}

// plainLines is plain for a text that may have several lines: those after the first
// are set in, so that none of them passes for a line of Hayrick's own.
func plainLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = plain(l)
	}
	return strings.Join(lines, "\n  ")
}

// printJSON prints one result as one line of JSON.
func (c *cli) printJSON(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints rows in columns; cells are data.
func (c *cli) table(rows [][]string) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, cell := range r {
			cells[i] = plain(cell)
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t "))
	}
	return w.Flush()
}

// The colours; each goes with a word, so that none is needed.
const (
	red   = "31"
	green = "32"
	bold  = "1"
	dim   = "2"
)

// painted is text that has its colours, if any, and is plain else.
type painted string

// paint colours words of the story, paintOut those of a result.
func (c *cli) paint(colour, s string) painted    { return paint(c.errColour, colour, s) }
func (c *cli) paintOut(colour, s string) painted { return paint(c.outColour, colour, s) }

func paint(on bool, colour, s string) painted {
	s = plain(s)
	if !on || s == "" || colour == "" {
		return painted(s)
	}
	return painted("\x1b[" + colour + "m" + s + "\x1b[0m")
}

// wantsColour follows the conventions: only on a terminal, never with NO_COLOR or
// on a dumb one, always with CLICOLOR_FORCE.
func wantsColour(env environment, tty bool) bool {
	switch {
	case env.get("NO_COLOR") != "":
		return false
	case env.get("CLICOLOR_FORCE") != "" && env.get("CLICOLOR_FORCE") != "0":
		return true
	}
	return tty && env.get("TERM") != "dumb"
}

// number is n with its thousands set apart.
func number(n int64) string { return humanize.Comma(n) }

// count is n things.
func count(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	if strings.HasSuffix(thing, "s") {
		thing += "e"
	}
	return number(n) + " " + thing + "s"
}

// tallied is how many there are of each, the most first: damaged 3, timeout 1.
func tallied(n map[string]int64) string {
	names := slices.Collect(maps.Keys(n))
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(n[b], n[a]), strings.Compare(a, b)) })
	for i, name := range names {
		names[i] = name + " " + number(n[name])
	}
	return strings.Join(names, ", ")
}

func size(n int64) string { return humanize.IBytes(uint64(max(0, n))) }

// ago is how long d is, as people say it: 4.2 s, 3 m 20 s, 2 h 5 m, 3 d 4 h.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 20*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%d m %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d m", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

// clock is a time as tables show it, on this machine's clock, with its zone.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

// short is the beginning of a digest.
func short(sha string) string { return sha[:min(12, len(sha))] }
