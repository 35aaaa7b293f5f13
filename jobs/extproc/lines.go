package extproc

import (
	"bytes"
	"errors"
	"io"
)

// MaxFrame bounds a line on stdin and stdout, in bytes without the newline.
const MaxFrame = 16 << 20

// errLong is a line beyond the limit; what it began with is in the line. When the rest
// of it, which is passed over, held what looks like a frame, errSwallowed follows with
// the beginning of that.
var (
	errLong      = errors.New("a line longer than 16 MiB")
	errSwallowed = errors.New("a frame behind other text")
)

// mark is how a frame begins, as far as one can be found in other text.
var mark = []byte(`{"t":`)

// lines cuts a stream into lines. It holds max bytes at most, whatever comes: of a
// longer line it keeps the start and passes over the rest.
type lines struct {
	from io.Reader
	max  int

	buf        []byte
	start, end int // what is not yet handed out
	seen       int // bytes from start that hold no newline
	skipping   bool
	hunting    bool   // for a frame in what is skipped
	swallowed  []byte // what was found
	cut        bool   // the last line had no newline
	err        error
}

// chunk is how much is read at once: what a pipe holds.
const chunk = 64 << 10

// next returns the next line without its newline, valid until the next call. errLong
// comes with the first bytes of a line that is longer than max. The last line needs no
// newline; then the stream's error follows.
func (l *lines) next() ([]byte, error) {
	for {
		if l.swallowed != nil && !l.skipping {
			line := l.swallowed
			l.swallowed = nil
			return line, errSwallowed
		}
		if i := bytes.IndexByte(l.buf[l.start+l.seen:l.end], '\n'); i >= 0 {
			line := l.buf[l.start : l.start+l.seen+i]
			l.start += len(line) + 1
			l.seen = 0
			if l.skipping {
				l.hunt(line)
				l.skipping = false
				continue
			}
			if len(line) > l.max {
				l.hunting = line[0] != '{'
				l.hunt(line[l.max-min(l.max, len(mark)-1):])
				return line[:l.max], errLong
			}
			return line, nil
		}
		l.seen = l.end - l.start
		switch {
		case l.skipping:
			l.hunt(l.buf[l.start:l.end])
			keep := min(l.seen, len(mark)-1) // a mark may come in two reads
			l.end = copy(l.buf, l.buf[l.end-keep:l.end])
			l.start, l.seen = 0, l.end
		case l.seen > l.max:
			line := l.buf[l.start : l.start+l.max]
			l.skipping, l.hunting = true, line[0] != '{'
			l.start += l.max - min(l.max, len(mark)-1) // the rest is passed over
			l.seen = 0
			return line, errLong
		}
		if l.err != nil {
			line := l.buf[l.start:l.end]
			l.start, l.end, l.seen = 0, 0, 0
			if len(line) > 0 && !l.skipping {
				l.cut = true
				return line, nil
			}
			return nil, l.err
		}
		l.fill()
	}
}

// hunt looks for a frame in what is passed over.
func (l *lines) hunt(text []byte) {
	if !l.hunting || l.swallowed != nil {
		return
	}
	if i := bytes.Index(text, mark); i >= 0 {
		l.swallowed = bytes.Clone(text[i:min(len(text), i+200)])
	}
}

// fill reads once, behind what is there.
func (l *lines) fill() {
	if l.start > 0 && (l.start == l.end || len(l.buf)-l.end < chunk) {
		l.end = copy(l.buf, l.buf[l.start:l.end])
		l.start = 0
	}
	if len(l.buf)-l.end < chunk {
		grown := make([]byte, max(2*len(l.buf), l.end+chunk))
		copy(grown, l.buf[:l.end])
		l.buf = grown
	} else if l.end == 0 && len(l.buf) > 64*chunk {
		l.buf = make([]byte, chunk) // a huge line was a rare one
	}
	n, err := l.from.Read(l.buf[l.end:])
	l.end += n
	l.err = err
}
