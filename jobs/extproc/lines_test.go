package extproc

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// all reads a stream to its end: its lines, "!" before those that were too long, and "?"
// behind one of these that had a frame in what is passed over.
func all(r io.Reader, limit int) (out []string, held int) {
	l := lines{from: r, max: limit}
	for {
		line, err := l.next()
		held = max(held, cap(l.buf))
		switch {
		case errors.Is(err, errLong):
			out = append(out, "!"+string(line))
		case errors.Is(err, errSwallowed):
			out = append(out, "?")
		case err != nil:
			return out, held
		default:
			out = append(out, string(line))
		}
	}
}

func TestLines(t *testing.T) {
	for _, x := range []struct{ in, want string }{
		{"", ""},
		{"a\nb\n", "a|b"},
		{"a\nb", "a|b"},
		{"\n\na\n", "||a"},
		{"12345678\n", "12345678"},
		{"123456789\nx\n", "!12345678|x"},
		{"1234567890123456789012\nx\n", "!12345678|x"},
		{"1234567890123456789012", "!12345678"},
		{"123456789{\"t\":\"ok\"}\nx\n", "!12345678|?|x"},
		{"12345{\"t\":\"ok\"}\nx\n", "!12345{\"t|?|x"},
		{"123456789012345678901234567890{\"t\":\"ok\"}{\"t\":\"ok\"}\n123456789\nx\n", "!12345678|?|!12345678|x"},
		{"{23456789{\"t\":\"ok\"}\nx\n", "!{2345678|x"}, // a frame that is too long may hold anything
	} {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(x.in), "by byte": iotest.OneByteReader(strings.NewReader(x.in))} {
			got, _ := all(r, 8)
			if s := strings.Join(got, "|"); s != x.want {
				t.Errorf("%q %s: %q, want %q", x.in, name, s, x.want)
			}
		}
	}
}

// Output without newlines is held up to the limit, however much of it comes.
func TestLinesAreBounded(t *testing.T) {
	const max = 1 << 20
	endless := io.LimitReader(zeros{}, 64*max)
	got, held := all(io.MultiReader(endless, strings.NewReader("\nok\n")), max)
	if len(got) != 2 || got[1] != "ok" || len(got[0]) != max+1 {
		t.Errorf("%d lines, the first of %d bytes", len(got), len(got[0]))
	}
	if held > 3*max {
		t.Errorf("it held %d bytes for lines of %d", held, max)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// FuzzLines: however a stream is cut into reads, its lines are the same, and the same
// as a split.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{"", "a\nb", "123456789\n", "{\"t\":\"ok\"}\n\n\n", "1234567890123456789{\"t\":\"ok\"}\nx\n", strings.Repeat("x", 40) + "\ny\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const max = 16
		var want []string
		rest := in
		for len(rest) > 0 {
			line, after, _ := bytes.Cut(rest, []byte("\n"))
			if rest = after; len(line) > max {
				want = append(want, "!"+string(line[:max]))
				if ended := len(line) < len(in) && (len(after) > 0 || bytes.HasSuffix(in, []byte("\n"))); ended && line[0] != '{' && bytes.Contains(line[max-4:], mark) {
					want = append(want, "?")
				}
				continue
			}
			want = append(want, string(line))
		}
		for name, r := range map[string]io.Reader{"at once": bytes.NewReader(in), "by byte": iotest.OneByteReader(bytes.NewReader(in)), "by half": iotest.HalfReader(bytes.NewReader(in))} {
			got, _ := all(r, max)
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}
