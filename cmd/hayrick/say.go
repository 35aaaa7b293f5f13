package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// Story goes to stderr, results to stdout: whoever pipes a result gets nothing else.

// tell adds to the story, unless -q.
func (c *cli) tell(format string, args ...any) {
	if !c.quiet {
		fmt.Fprintf(c.err, format+"\n", args...)
	}
}

// printJSON prints one result as one line of JSON.
func (c *cli) printJSON(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints rows in columns.
func (c *cli) table(rows [][]string) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.TrimRight(strings.Join(r, "\t"), "\t "))
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

// paint colours words of the story, paintOut those of a result.
func (c *cli) paint(colour, s string) string    { return paint(c.errColour, colour, s) }
func (c *cli) paintOut(colour, s string) string { return paint(c.outColour, colour, s) }

func paint(on bool, colour, s string) string {
	if !on || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
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
