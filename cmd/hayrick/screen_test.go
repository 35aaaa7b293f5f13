package main

import (
	"bytes"
	"strings"
	"testing"
)

// terminal is as much of one as the block needs: lines, cursor up, erase line.
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
		default:
			n := strings.IndexAny(s, "\n\x1b")
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
