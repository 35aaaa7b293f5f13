package rows

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"hayrick"
)

// Text is rows as CSV or as JSON lines, in the columns of a schema: every row has all
// of them, in order.
//
//	         JSONL                               CSV (RFC 4180, "\n", a line of names first)
//	null     null                                nothing
//	string   "..."                               as it stands, in quotes where it must be, or is ""
//	bytes    base64, in a string                 base64
//	int      digits                              digits
//	float    the shortest that reads the same; "NaN", "Infinity" and "-Infinity" (in JSONL in quotes)
//	bool     true, false                         true, false
//	time     "2026-11-20T12:00:00.000000Z", or microseconds since 1970 outside the years 0 to 9999
//
// Files can be joined byte by byte when those behind the first are taken from Head on.
type Text struct {
	Format      string // csv | jsonl
	Compression string // none | gzip | zstd
}

// The formats of a dataset.
const (
	FormatParquet = "parquet"
	FormatCSV     = "csv"
	FormatJSONL   = "jsonl"
)

// TextSummary is what a file holds.
type TextSummary struct {
	Rows    int64
	RowHash Hash
	Bytes   int64
	Head    int64 // of Bytes the line of names, packed by itself
	SHA256  string
}

// TextWriter writes rows as text. The same rows give the same bytes.
type TextWriter struct {
	text   Text
	schema Schema
	names  []string // of the columns, as they are written before a value
	batch  *Batch   // one row
	hasher *batchHasher
	out    *counting
	pack   packer
	line   []byte
	sum    TextSummary
	err    error
}

type packer interface {
	io.Writer
	Close() error
	Reset(io.Writer)
}

// unpacked passes bytes on.
type unpacked struct{ io.Writer }

func (unpacked) Close() error         { return nil }
func (u *unpacked) Reset(w io.Writer) { u.Writer = w }

type counting struct {
	buf *bufio.Writer
	sha hash.Hash
	n   int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	c.sha.Write(p)
	return c.buf.Write(p)
}

// NewTextWriter writes to w.
func NewTextWriter(w io.Writer, s Schema, t Text) (*TextWriter, error) {
	out := &counting{buf: bufio.NewWriterSize(w, 64<<10), sha: sha256.New()}
	tw := &TextWriter{text: t, schema: s, batch: NewBatch(s), hasher: newBatchHasher(s), out: out}
	switch t.Compression {
	case "gzip":
		tw.pack = gzip.NewWriter(out)
	case "zstd":
		z, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("write text: %w", err)
		}
		tw.pack = z
	default:
		tw.pack = &unpacked{out}
	}
	for i, f := range s.Fields {
		head := ""
		switch {
		case t.Format == FormatJSONL:
			name := appendJSON(nil, []byte(f.Name))
			head = map[bool]string{true: "{", false: ","}[i == 0] + string(name) + ":"
		case i > 0:
			head = ","
		}
		tw.names = append(tw.names, head)
	}
	if t.Format == FormatCSV {
		line := []byte{}
		for i, f := range s.Fields {
			line = append(line, tw.names[i]...)
			line = appendCSV(line, []byte(f.Name))
		}
		// By itself, so that a file behind another can be taken without it.
		_, err := tw.pack.Write(append(line, '\n'))
		if err = errors.Join(err, tw.pack.Close()); err != nil {
			return nil, fmt.Errorf("write text: %w", err)
		}
		tw.pack.Reset(out)
		tw.sum.Head = out.n
	}
	return tw, nil
}

// AppendRecord adds a row that AppendRecord of a batch of the schema has made.
func (w *TextWriter) AppendRecord(rec []byte) error {
	if w.err != nil {
		return w.err
	}
	w.batch.Reset()
	if w.err = w.batch.TakeRecord(rec); w.err == nil {
		w.err = w.append(w.batch, 0)
	}
	if cap(w.line) > 16<<20 { // of a huge row
		w.line, w.batch = nil, NewBatch(w.schema)
	}
	return w.err
}

// AppendBatch adds rows [from, to) of a batch of the schema.
func (w *TextWriter) AppendBatch(b *Batch, from, to int) error {
	for r := from; r < to && w.err == nil; r++ {
		w.err = w.append(b, r)
	}
	return w.err
}

func (w *TextWriter) append(b *Batch, r int) error {
	line := w.line[:0]
	for i := range b.Cols {
		line = append(line, w.names[i]...)
		if w.text.Format == FormatJSONL {
			line = appendJSONValue(line, &b.Cols[i], r)
		} else {
			line = appendCSVValue(line, &b.Cols[i], r)
		}
	}
	if w.text.Format == FormatJSONL {
		line = append(line, '}')
	}
	w.line = append(line, '\n')
	w.sum.Rows++
	w.sum.RowHash = w.sum.RowHash.Add(w.hasher.row(b, r))
	_, err := w.pack.Write(w.line)
	if err != nil {
		return fmt.Errorf("write text: %w", err)
	}
	return nil
}

// Close ends the file and says what it holds.
func (w *TextWriter) Close() (TextSummary, error) {
	if w.err != nil {
		return TextSummary{}, w.err
	}
	if err := errors.Join(w.pack.Close(), w.out.buf.Flush()); err != nil {
		return TextSummary{}, fmt.Errorf("write text: %w", err)
	}
	w.err = errors.New("write text: the writer is closed")
	w.sum.Bytes, w.sum.SHA256 = w.out.n, hex.EncodeToString(w.out.sha.Sum(nil))
	return w.sum, nil
}

func appendJSON(dst, v []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range v {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= 0x20 && c != 0x7f:
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return append(dst, '"')
}

func appendJSONValue(dst []byte, c *Column, r int) []byte {
	if !c.Valid[r] {
		return append(dst, "null"...)
	}
	switch c.Kind {
	case KindString:
		return appendJSON(dst, c.Bytes(r))
	case KindBytes:
		dst = base64.StdEncoding.AppendEncode(append(dst, '"'), c.Bytes(r))
		return append(dst, '"')
	case KindFloat:
		if f := math.Float64frombits(uint64(c.Nums[r])); math.IsNaN(f) || math.IsInf(f, 0) {
			return append(appendNumber(append(dst, '"'), c, r), '"')
		}
	case KindTime:
		if wordYear(c.Nums[r]) {
			return append(appendNumber(append(dst, '"'), c, r), '"')
		}
	}
	return appendNumber(dst, c, r)
}

func appendCSV(dst, v []byte) []byte {
	if len(v) > 0 && !bytes.ContainsAny(v, ",\"\r\n") && v[0] != ' ' && v[len(v)-1] != ' ' {
		return append(dst, v...)
	}
	dst = append(dst, '"')
	for _, c := range v {
		if c == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

func appendCSVValue(dst []byte, c *Column, r int) []byte {
	switch {
	case !c.Valid[r]:
		return dst
	case c.Kind == KindString:
		return appendCSV(dst, c.Bytes(r))
	case c.Kind == KindBytes:
		if len(c.Bytes(r)) == 0 {
			return append(dst, '"', '"')
		}
		return base64.StdEncoding.AppendEncode(dst, c.Bytes(r))
	}
	return appendNumber(dst, c, r)
}

const timeForm = "2006-01-02T15:04:05.000000Z"

// wordYear says that a time has a year of four digits.
func wordYear(micros int64) bool {
	y := time.UnixMicro(micros).UTC().Year()
	return y >= 0 && y <= 9999
}

// appendNumber writes what is no string and no bytes.
func appendNumber(dst []byte, c *Column, r int) []byte {
	n := c.Nums[r]
	switch c.Kind {
	case KindFloat:
		f := math.Float64frombits(uint64(n))
		switch {
		case math.IsNaN(f):
			return append(dst, "NaN"...)
		case math.IsInf(f, 1):
			return append(dst, "Infinity"...)
		case math.IsInf(f, -1):
			return append(dst, "-Infinity"...)
		}
		from := len(dst)
		dst = strconv.AppendFloat(dst, f, 'g', -1, 64)
		if !bytes.ContainsAny(dst[from:], ".e") { // a reader that guesses types sees a float
			dst = append(dst, '.', '0')
		}
		return dst
	case KindBool:
		return strconv.AppendBool(dst, n != 0)
	case KindTime:
		if wordYear(n) {
			return time.UnixMicro(n).UTC().AppendFormat(dst, timeForm)
		}
	}
	return strconv.AppendInt(dst, n, 10)
}

// ReadText reads a file of the schema again, as its writer wrote it and no other way,
// and returns its rows and their hash. Damage is a hayrick.ErrCorrupt. each, which may
// be nil, sees every row as a batch of one.
func ReadText(r io.Reader, s Schema, t Text, each func(*Batch) error) (n int64, h Hash, err error) {
	src := r
	switch t.Compression {
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return 0, h, fmt.Errorf("read text: %v: %w", err, hayrick.ErrCorrupt)
		}
		src = z
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(32<<20))
		if err != nil {
			return 0, h, fmt.Errorf("read text: %w", err)
		}
		defer z.Close()
		src = z
	}
	p := &textReader{in: bufio.NewReaderSize(src, 64<<10), schema: s, text: t}
	b, hasher := NewBatch(s), newBatchHasher(s)
	bad := func(err error) error {
		return fmt.Errorf("read text: row %d: %v: %w", n, err, hayrick.ErrCorrupt)
	}
	if t.Format == FormatCSV {
		for i, f := range s.Fields {
			name, _, last, err := p.cell()
			if err != nil || string(name) != f.Name || last != (i == len(s.Fields)-1) {
				return 0, h, bad(fmt.Errorf("the line of names is %q, not %q: %v", name, f.Name, err))
			}
		}
	}
	for {
		if _, err := p.in.Peek(1); err == io.EOF {
			return n, h, nil
		} else if err != nil {
			return n, h, bad(err)
		}
		b.Reset()
		if t.Format == FormatCSV {
			err = p.csvRow(b)
		} else {
			err = p.jsonRow(b)
		}
		if err != nil {
			return n, h, bad(err)
		}
		b.Rows = 1
		n++
		h = h.Add(hasher.row(b, 0))
		if each != nil {
			if err := each(b); err != nil {
				return n, h, err
			}
		}
	}
}

type textReader struct {
	in     *bufio.Reader
	schema Schema
	text   Text
	line   []byte
	value  []byte
}

// cell reads one cell of CSV.
func (p *textReader) cell() (v []byte, quoted, last bool, err error) {
	v = p.value[:0]
	defer func() { p.value = v }()
	c, err := p.in.ReadByte()
	if err == nil && c == '"' {
		quoted = true
		for {
			part, err := p.in.ReadSlice('"')
			v = append(v, part...)
			if err == bufio.ErrBufferFull {
				continue
			}
			if err != nil {
				return v, quoted, false, err
			}
			v = v[:len(v)-1]
			if c, err = p.in.ReadByte(); err != nil {
				return v, quoted, false, err
			}
			if c != '"' {
				break
			}
			v = append(v, '"')
		}
	} else {
		for err == nil && c != ',' && c != '\n' {
			v = append(v, c)
			c, err = p.in.ReadByte()
		}
	}
	switch {
	case err != nil:
		return v, quoted, false, err
	case c == ',' || c == '\n':
		return v, quoted, c == '\n', nil
	}
	return v, quoted, false, fmt.Errorf("%q behind a quoted value", c)
}

func (p *textReader) csvRow(b *Batch) error {
	for i := range b.Cols {
		v, quoted, last, err := p.cell()
		if err != nil {
			return err
		}
		if last != (i == len(b.Cols)-1) {
			return fmt.Errorf("it has another number of columns")
		}
		if len(v) == 0 && !quoted {
			b.Cols[i].appendNull()
		} else if err := takeText(&b.Cols[i], v); err != nil {
			return err
		}
	}
	return nil
}

func (p *textReader) jsonRow(b *Batch) error {
	p.line = p.line[:0]
	for {
		part, err := p.in.ReadSlice('\n')
		p.line = append(p.line, part...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull {
			return err
		}
	}
	left := p.line
	for i := range b.Cols {
		head := string(appendJSON(nil, []byte(b.Schema.Fields[i].Name))) + ":"
		want := map[bool]string{true: "{", false: ","}[i == 0] + head
		if !bytes.HasPrefix(left, []byte(want)) {
			return fmt.Errorf("column %q is not where it belongs", b.Schema.Fields[i].Name)
		}
		left = left[len(want):]
		c := &b.Cols[i]
		if len(left) > 0 && left[0] == '"' {
			end := 1
			for end < len(left) && left[end] != '"' {
				if left[end] == '\\' {
					end++
				}
				end++
			}
			if end >= len(left) {
				return errors.New("a string without an end")
			}
			v := left[1:end]
			if bytes.IndexByte(v, '\\') >= 0 {
				var s string
				if err := json.Unmarshal(left[:end+1], &s); err != nil {
					return err
				}
				v = []byte(s)
			}
			if err := takeText(c, v); err != nil {
				return err
			}
			left = left[end+1:]
			continue
		}
		end := bytes.IndexAny(left, ",}")
		if end < 0 {
			return errors.New("a value without an end")
		}
		v := left[:end]
		left = left[end:]
		switch {
		case string(v) == "null":
			c.appendNull()
		case c.wide():
			return fmt.Errorf("column %q: %.40q is not a string", b.Schema.Fields[i].Name, v)
		default:
			if err := takeText(c, v); err != nil {
				return err
			}
		}
	}
	if string(left) != "}\n" {
		return errors.New("more than its columns")
	}
	return nil
}

// takeText appends a value that is not null.
func takeText(c *Column, v []byte) error {
	switch c.Kind {
	case KindString:
		c.Data = append(c.Data, v...)
	case KindBytes:
		raw, err := base64.StdEncoding.AppendDecode(c.Data, v)
		if err != nil {
			return err
		}
		c.Data = raw
	default:
		n, err := parseNumber(c.Kind, string(v))
		if err != nil {
			return err
		}
		c.Nums = append(c.Nums, n)
	}
	c.Valid = append(c.Valid, true)
	if c.wide() {
		c.Ends = append(c.Ends, len(c.Data))
	}
	return nil
}

func parseNumber(k Kind, v string) (int64, error) {
	switch k {
	case KindFloat:
		f, err := strconv.ParseFloat(v, 64)
		return int64(math.Float64bits(f)), err
	case KindBool:
		switch v {
		case "true":
			return 1, nil
		case "false":
			return 0, nil
		}
		return 0, fmt.Errorf("%.40q is not true or false", v)
	case KindTime:
		if strings.HasSuffix(v, "Z") {
			t, err := time.Parse(timeForm, v)
			return t.UnixMicro(), err
		}
	}
	return strconv.ParseInt(v, 10, 64)
}
