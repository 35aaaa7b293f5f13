package main

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"unicode/utf8"
)

// screen is stderr with a block of lines at its end that is drawn anew: what else
// is written goes above it. Without a block it is stderr.
type screen struct {
	to    io.Writer
	width func() int

	mu    sync.Mutex
	block []string // as drawn
}

func newScreen(to io.Writer, width func() int) *screen { return &screen{to: to, width: width} }

// Write puts whole lines above the block.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.block) == 0 {
		return s.to.Write(p)
	}
	var b bytes.Buffer
	s.erase(&b)
	b.Write(p)
	s.paint(&b)
	if _, err := s.to.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// draw replaces the block.
func (s *screen) draw(lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	s.erase(&b)
	width := s.width()
	s.block = make([]string, len(lines))
	for i, l := range lines {
		s.block[i] = cut(l, width-1) // a line that wraps would be two
	}
	s.paint(&b)
	s.to.Write(b.Bytes())
}

// clear takes the block away.
func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.block) == 0 {
		return
	}
	var b bytes.Buffer
	s.erase(&b)
	s.block = nil
	s.to.Write(b.Bytes())
}

// erase takes the block away, and what was typed below it. A terminal that has become
// narrower has broken the lines of the block anew: each takes as many rows as it needs now.
func (s *screen) erase(b *bytes.Buffer) {
	if len(s.block) == 0 {
		return
	}
	b.WriteString("\r\x1b[2K")
	width := max(1, s.width())
	for _, l := range s.block {
		for range max(1, (columns(l)+width-1)/width) {
			b.WriteString("\x1b[1A\x1b[2K")
		}
	}
}

// columns is how many a line takes; colours take none.
func columns(line string) (n int) {
	for i := 0; i < len(line); {
		if line[i] == 0x1b {
			end := strings.IndexByte(line[i:], 'm')
			if end < 0 {
				break
			}
			i += end + 1
			continue
		}
		_, w := utf8.DecodeRuneInString(line[i:])
		n, i = n+1, i+w
	}
	return n
}

func (s *screen) paint(b *bytes.Buffer) {
	for _, l := range s.block {
		b.WriteString(l)
		b.WriteByte('\n')
	}
}

// cut is the first n columns of a line; colours take none.
func cut(line string, n int) string {
	var out strings.Builder
	for i := 0; i < len(line); {
		if line[i] == 0x1b {
			end := strings.IndexByte(line[i:], 'm')
			if end < 0 {
				break
			}
			out.WriteString(line[i : i+end+1])
			i += end + 1
			continue
		}
		r, w := utf8.DecodeRuneInString(line[i:])
		if n--; n >= 0 {
			out.WriteRune(r)
		}
		i += w
	}
	return out.String()
}
