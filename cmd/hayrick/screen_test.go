package main

import (
	"bytes"
	"strings"
	"testing"
)

// terminal is as much of one as the block needs: lines, cursor up, erase line. It shows no
// colours.
type terminal struct {
	lines []string
	row   int
}

func (t *terminal) Write(p []byte) (int, error) {
	s := string(p)
	for len(s) > 0 {
		if t.row == len(t.lines) {
			t.lines = append(t.lines, "")
		}
		switch {
		case strings.HasPrefix(s, "\x1b[1A"):
			t.row--
			s = s[4:]
		case strings.HasPrefix(s, "\x1b[2K"):
			t.lines[t.row] = ""
			s = s[4:]
		case s[0] == '\n':
			t.row++
			s = s[1:]
		case strings.HasPrefix(s, "\x1b["): // a colour
			s = s[strings.IndexByte(s, 'm')+1:]
		case s[0] == '\r':
			s = s[1:] // what is written next erases first
		default:
			n := strings.IndexAny(s, "\n\r\x1b")
			if n < 0 {
				n = len(s)
			}
			t.lines[t.row] += s[:n]
			s = s[n:]
		}
	}
	return len(p), nil
}

func (t *terminal) shown() string { return strings.Join(t.lines[:t.row], "|") }

func TestScreen(t *testing.T) {
	term := &terminal{}
	s := newScreen(term, func() int { return 11 })
	steps := []struct {
		do   func()
		want string
	}{
		{func() { s.Write([]byte("plan\n")) }, "plan"},
		{func() { s.draw([]string{"run 1", "items 1"}) }, "plan|run 1|items 1"},
		{func() { s.draw([]string{"run 2", "items 2"}) }, "plan|run 2|items 2"},
		{func() { s.Write([]byte("warn\n")) }, "plan|warn|run 2|items 2"},
		{func() { s.draw([]string{"0123456789abc"}) }, "plan|warn|0123456789"},
		{func() { s.clear() }, "plan|warn"},
		{func() { s.clear() }, "plan|warn"},
		{func() { s.Write([]byte("done\n")) }, "plan|warn|done"},
	}
	for i, step := range steps {
		step.do()
		if got := term.shown(); got != step.want {
			t.Fatalf("step %d shows %q, want %q", i, got, step.want)
		}
	}
}

// narrow breaks the lines anew, as a terminal does that becomes narrower.
func (t *terminal) narrow(width int) {
	var lines []string
	for _, l := range t.lines[:t.row] {
		for len(l) > width {
			lines, l = append(lines, l[:width]), l[width:]
		}
		lines = append(lines, l)
	}
	t.lines, t.row = lines, len(lines)
}

// A block is taken away whole from a terminal that has become narrower since, and with it
// what was typed below.
func TestScreenThatGetsNarrower(t *testing.T) {
	term, width := &terminal{}, 11
	s := newScreen(term, func() int { return width })
	s.Write([]byte("plan\n"))
	s.draw([]string{"\x1b[1m0123456789\x1b[0m", "items", ""})
	width = 4
	term.narrow(width)
	if got := term.shown(); got != "plan|0123|4567|89|item|s|" {
		t.Fatalf("narrower it shows %q", got)
	}
	s.draw([]string{"0123456789", "items"})
	if got := term.shown(); got != "plan|012|ite" {
		t.Errorf("drawn anew it shows %q", got)
	}
	term.Write([]byte("^C"))
	s.clear()
	s.Write([]byte("over\n"))
	if got := term.shown(); got != "plan|over" {
		t.Errorf("cleared it shows %q", got)
	}
}

func TestScreenWithoutBlockIsPlain(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b, func() int { return 80 })
	s.Write([]byte("a line\n"))
	s.clear()
	if b.String() != "a line\n" {
		t.Errorf("wrote %q", b.String())
	}
}

func TestCut(t *testing.T) {
	for _, x := range []struct {
		line string
		n    int
		want string
	}{
		{"short", 10, "short"}, {"exactly", 7, "exactly"}, {"longer", 3, "lon"}, {"größe", 3, "grö"}, {"any", 0, ""},
		{"\x1b[32mgreen\x1b[0m tea", 7, "\x1b[32mgreen\x1b[0m t"},
		{"\x1b[32mgreen\x1b[0m", 2, "\x1b[32mgr\x1b[0m"},
	} {
		if got := cut(x.line, x.n); got != x.want {
			t.Errorf("cut(%q, %d) = %q, want %q", x.line, x.n, got, x.want)
		}
	}
}
