package records

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"hayrick"
)

// Options say what an input is.
type Options struct {
	Name      string   // of the input, for messages
	Format    string   // jsonl | csv | tsv | lines | parquet
	Packed    string   // none | gzip | zstd
	Columns   []string // of csv and tsv without a first record that names them
	Delimiter string   // of csv; "" = a comma, and a header that seems to have another is refused
	Key       string   // the column that labels a record; "" = none
	Skip      bool     // a record that is none becomes a line of its own
	Limit     int64    // only the first n records; 0 = all
	Most      int64    // the longest record, in bytes
	Places    bool     // each line begins with the line (of Parquet, the row) that its record begins on, and a tab; not of jsonl
	// Scratch makes a file for an input that is read from its end and comes without one, as
	// over a network; nil = there is none, and Write refuses such an input.
	Scratch func() (Scratch, error)
	Check   Check // of jsonl: nil = the lines are not looked at, and blank ones and those behind the limit stay
}

// Scratch is a file that is gone when it is closed.
type Scratch interface {
	io.ReadWriteSeeker
	io.ReaderAt
	io.Closer
}

// Check says what is wrong with a JSON line, "" for nothing, and at which of its bytes,
// from 1; 0 = as a whole.
type Check func(record []byte) (what string, at int)

// badMark begins the line of a record that is none. No JSON text begins with it.
const badMark = "!record "

// Bad says that a line stands for a record that is none, and why.
func Bad(line []byte) (why string, bad bool) {
	rest, bad := bytes.CutPrefix(line, []byte(badMark))
	return string(rest), bad
}

// Problem is what is wrong with an input at one place.
type Problem struct {
	Name      string
	Line, Col int // from 1; 0 = not known
	What      string
	Hint      string
}

// Error gives the place and what is wrong there.
func (p *Problem) Error() string {
	where := p.Name
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", where, p.Line)
		if p.Col > 0 {
			where = fmt.Sprintf("%s:%d", where, p.Col)
		}
	}
	return where + ": " + p.What
}

// Unwrap makes it a mistake that the user mends.
func (p *Problem) Unwrap() error { return &hayrick.UserError{What: p.Error(), Hint: p.Hint} }

// Write reads src to its end, or to the record in which o.Limit was reached, and writes
// a line for each record to w. What the user can mend is a *Problem; any other error is
// src's or w's own.
func Write(ctx context.Context, w io.Writer, src io.Reader, o Options) (err error) {
	if o.Format == "parquet" {
		return writeParquet(ctx, w, src, o)
	}
	r, done, err := unpack(src, o)
	if err != nil {
		return err
	}
	defer done()
	out := &sink{w: bufio.NewWriterSize(w, 256<<10), o: o, ctx: ctx}
	in := bufio.NewReaderSize(r, 256<<10)
	if p := Refuse(in, o); p != nil {
		return p
	}
	switch o.Format {
	case "csv":
		comma := ','
		if o.Delimiter != "" {
			comma, _ = utf8.DecodeRuneInString(o.Delimiter)
		}
		err = writeCSV(out, in, comma)
	case "tsv":
		err = writeCSV(out, in, '\t')
	case "lines":
		err = writeLines(out, in)
	case "jsonl":
		if o.Check != nil {
			err = writeJSONL(out, in)
		} else {
			_, err = io.Copy(out.w, &watched{ctx, in})
		}
	default:
		return &Problem{Name: o.Name, What: fmt.Sprintf("the format %q is not read", o.Format), Hint: "one of jsonl, csv, tsv, lines, parquet"}
	}
	if errors.Is(err, errLimit) {
		err = nil
	}
	return errors.Join(err, out.w.Flush())
}

// errLimit ends an input whose limit is reached.
var errLimit = errors.New("the limit is reached")

// watched ends with its context.
type watched struct {
	ctx context.Context
	r   io.Reader
}

func (x *watched) Read(p []byte) (int, error) {
	if err := x.ctx.Err(); err != nil {
		return 0, err
	}
	return x.r.Read(p)
}

// sink takes records.
type sink struct {
	w   *bufio.Writer
	o   Options
	ctx context.Context
	n   int64
	buf bytes.Buffer
}

// begin begins the line of one record.
func (s *sink) begin(line int) {
	if s.o.Places {
		s.w.WriteString(strconv.Itoa(line))
		s.w.WriteByte('\t')
	}
}

// end ends the line of one record.
func (s *sink) end() error {
	if err := s.w.WriteByte('\n'); err != nil {
		return err
	}
	if s.n++; s.n == s.o.Limit {
		return errLimit
	}
	if s.n%1024 == 0 {
		return s.ctx.Err()
	}
	return nil
}

// bad takes a record that is none.
func (s *sink) bad(p *Problem) error {
	if !s.o.Skip {
		return p
	}
	s.begin(p.Line)
	s.w.WriteString(badMark)
	s.w.WriteString(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, p.Error()))
	return s.end()
}

// textPiece is how much of a string is made JSON at a time: one of 100 MB needs no more
// memory beside itself.
const textPiece = 64 << 10

// text writes v as a JSON string. Whatever stands for a character stands by itself, so
// that a string can be written in pieces of whole characters.
func text[T string | []byte](s *sink, v T) {
	s.w.WriteByte('"')
	for len(v) > 0 {
		n := min(len(v), textPiece)
		for k := 0; n < len(v) && k < utf8.UTFMax-1 && !utf8.RuneStart(v[n]); k++ {
			n--
		}
		s.buf.Reset()
		e := json.NewEncoder(&s.buf)
		e.SetEscapeHTML(false)
		e.Encode(string(v[:n])) // a string always can
		s.w.Write(s.buf.Bytes()[1 : s.buf.Len()-2])
		v = v[n:]
	}
	s.w.WriteByte('"')
}

// writeLines makes a record of each line that holds more than white space.
func writeLines(out *sink, in *bufio.Reader) error {
	if err := skipMark(in); err != nil {
		return err
	}
	if k := out.o.Key; k != "" && k != "line" {
		return noColumn(out.o, 0, []string{"line"})
	}
	return eachLine(out.o, in, func(n int, line []byte) error {
		line = bytes.TrimRight(line, "\r\n")
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
		if i := invalid(line); i >= 0 {
			return out.bad(notUTF8(out.o, n, i+1))
		}
		out.begin(n)
		out.w.WriteString(`{"line":`)
		text(out, line)
		out.w.WriteByte('}')
		return out.end()
	})
}

// writeJSONL makes a record of each line that holds more than white space, and looks
// at it.
func writeJSONL(out *sink, in *bufio.Reader) error {
	if err := skipMark(in); err != nil {
		return err
	}
	return eachLine(out.o, in, func(n int, line []byte) error {
		const space = " \t\r\n"
		record := bytes.TrimLeft(line, space)
		before := len(line) - len(record)
		if record = bytes.TrimRight(record, space); len(record) == 0 {
			return nil
		}
		if _, marked := Bad(record); !marked { // it was looked at when it was marked
			if what, at := out.o.Check(record); what != "" {
				p := &Problem{Name: out.o.Name, Line: n, What: what, Hint: "mend it" + orSkip}
				if at > 0 {
					p.Col = before + utf8.RuneCount(record[:at-1]) + 1
				}
				return out.bad(p)
			}
		}
		out.w.Write(record)
		return out.end()
	})
}

// eachLine calls fn for each line, from 1, with its end. It holds one.
func eachLine(o Options, in *bufio.Reader, fn func(n int, line []byte) error) error {
	var line []byte
	for n := 1; ; n++ {
		line = line[:0]
		var err error
		for {
			var part []byte
			part, err = in.ReadSlice('\n')
			line = append(line, part...)
			if int64(len(line)) > o.Most {
				return long(o, n)
			}
			if err != bufio.ErrBufferFull {
				break
			}
		}
		if err != nil && err != io.EOF {
			return err
		}
		if failed := fn(n, line); failed != nil {
			return failed
		}
		if err == io.EOF {
			return nil
		}
	}
}

// orSkip is the other way for a record that is damaged.
const orSkip = "; or write input.on_bad_item: skip, which lists such items as permanent"

// noColumn says that none of the columns is the key.
func noColumn(o Options, line int, columns []string) *Problem {
	shown := columns[:min(len(columns), 20)]
	return &Problem{Name: o.Name, Line: line, What: fmt.Sprintf("no column is named %q, which input.key asks for", o.Key),
		Hint: "write one of " + strings.Join(shown, ", ") + " as input.key, or leave it out"}
}

// noKey says that a record has no label; what is how its place is told, where lines
// do not.
func noKey(o Options, line int, what, value string) *Problem {
	return &Problem{Name: o.Name, Line: line, What: fmt.Sprintf("%sthe item has no key: column %q is %s", what, o.Key, value),
		Hint: "give it one" + orSkip}
}

func long(o Options, line int) *Problem {
	hint := "check that there are newlines"
	if o.Format == "csv" || o.Format == "tsv" {
		hint = "check for a quote that is not closed, and that there are newlines"
	}
	return &Problem{Name: o.Name, Line: line, What: fmt.Sprintf("the record that begins here is longer than %d bytes", o.Most), Hint: hint}
}

func notUTF8(o Options, line, col int) *Problem {
	return &Problem{Name: o.Name, Line: line, Col: col, What: "not UTF-8", Hint: "convert the file: iconv -f latin1 -t utf-8"}
}

// invalid is the index of the first byte that is no UTF-8, or -1.
func invalid(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// skipMark drops a UTF-8 byte order mark.
func skipMark(in *bufio.Reader) error {
	if b, _ := in.Peek(3); string(b) == "\xef\xbb\xbf" {
		_, err := in.Discard(3)
		return err
	}
	return nil
}
