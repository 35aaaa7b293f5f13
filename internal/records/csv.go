package records

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// bounded fails when one record takes more than most bytes: a quote that is never
// closed would gather the rest of the file.
type bounded struct {
	r          io.Reader
	left, most int64
}

var errLong = errors.New("the record is too long")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLong
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// writeCSV makes a record of each record of RFC 4180 that has a field for each column.
func writeCSV(out *sink, in *bufio.Reader, comma rune) error {
	if err := skipMark(in); err != nil {
		return err
	}
	o := out.o
	head, _ := in.Peek(4 << 10)
	divided := func(header string, line int) *Problem {
		other := otherDelimiter(header)
		if other == "" || o.Format != "csv" || o.Delimiter != "" {
			return nil
		}
		return &Problem{Name: o.Name, Line: line, What: fmt.Sprintf("the first record has no comma, and %s in it: its fields seem to be divided by that", other),
			Hint: fmt.Sprintf(`write input.delimiter: %s; or input.delimiter: "," if it is one column`, other)}
	}
	// The parser reads ahead as much as its buffer holds.
	limit := &bounded{r: in, most: o.Most + 8<<10, left: o.Most + 8<<10}
	r := csv.NewReader(limit)
	r.Comma, r.FieldsPerRecord, r.ReuseRecord = comma, -1, true
	columns, key := o.Columns, -1
	label := func(line int) error {
		if key = slices.Index(columns, o.Key); key < 0 && o.Key != "" {
			return noColumn(o, line, columns)
		}
		return nil
	}
	if columns != nil {
		if err := label(0); err != nil {
			return err
		}
	}
	began := 1 // the line on which the record in hand begins
	for {
		limit.left = limit.most
		fields, err := r.Read()
		if err == io.EOF {
			if columns == nil {
				return &Problem{Name: o.Name, What: "it is empty", Hint: "its first record names the columns; or write input.columns: [a, b]"}
			}
			return nil
		}
		var syntax *csv.ParseError
		switch {
		case errors.Is(err, errLong):
			return long(o, began)
		case errors.As(err, &syntax):
			p := &Problem{Name: o.Name, Line: syntax.StartLine, Col: syntax.Column, What: "a quote stands inside a field that is not quoted", Hint: `write the field in quotes, and each quote in it twice: "a ""b"""`}
			switch {
			case syntax.Line != syntax.StartLine: // what follows it is lost in it: nobody may skip that
				p.Col, p.What, p.Hint = 0, "a quote of the record that begins here is not closed", `close it; a quote inside a quoted field is written twice: "a ""b"""`
				return p
			case errors.Is(err, csv.ErrQuote):
				p.What = "a quoted field does not end with its quote"
			}
			if columns == nil {
				first, _, _ := strings.Cut(string(head), "\n")
				if other := divided(first, syntax.StartLine); other != nil { // "a";"b" is no field of another
					return other
				}
				return p
			}
			p.Hint += orSkip
			if err := out.bad(p); err != nil {
				return err
			}
			began = syntax.Line + 1
			continue
		case err != nil:
			return err
		}
		line, _ := r.FieldPos(0)
		began = line
		for i, f := range fields {
			if at := invalid([]byte(f)); at >= 0 {
				line, col := r.FieldPos(i)
				err = notUTF8(o, line, col)
				break
			}
		}
		var bad *Problem
		switch {
		case errors.As(err, &bad):
		case columns == nil:
			if p := divided(strings.Join(fields, ","), line); p != nil {
				return p
			}
			if columns, err = header(o, slices.Clone(fields), line); err != nil {
				return err
			}
			if err := label(line); err != nil {
				return err
			}
			continue
		case len(fields) != len(columns):
			bad = &Problem{Name: o.Name, Line: line, What: fmt.Sprintf("%s where the header has %d", fieldCount(len(fields)), len(columns)),
				Hint: "mend the record (a comma inside a field needs quotes around the field)" + orSkip}
		case key >= 0 && fields[key] == "":
			bad = noKey(o, line, "", "empty")
		}
		if bad != nil {
			if columns == nil {
				return bad
			}
			if err := out.bad(bad); err != nil {
				return err
			}
			continue
		}
		out.begin(line)
		for i, f := range fields {
			sep := byte(',')
			if i == 0 {
				sep = '{'
			}
			out.w.WriteByte(sep)
			text(out, columns[i])
			out.w.WriteByte(':')
			text(out, f)
		}
		out.w.WriteByte('}')
		if err := out.end(); err != nil {
			return err
		}
	}
}

// otherDelimiter is what seems to divide a header without a comma, as YAML writes it;
// "" = nothing.
func otherDelimiter(header string) string {
	if strings.Contains(header, ",") {
		return ""
	}
	for _, d := range []string{";", "\t", "|"} {
		if strings.Contains(header, d) {
			return strconv.Quote(d)
		}
	}
	return ""
}

func fieldCount(n int) string {
	if n == 1 {
		return "1 field"
	}
	return fmt.Sprintf("%d fields", n)
}

// header checks the names of the columns.
func header(o Options, names []string, line int) ([]string, error) {
	hint := "name each column once in the first record; or write input.columns: [a, b], for a file without such a record: tail -n +2 leaves it out"
	seen := map[string]bool{}
	for i, name := range names {
		names[i] = strings.TrimSpace(name)
		switch {
		case names[i] == "":
			return nil, &Problem{Name: o.Name, Line: line, What: fmt.Sprintf("column %d has no name", i+1), Hint: hint}
		case seen[names[i]]:
			return nil, &Problem{Name: o.Name, Line: line, What: fmt.Sprintf("two columns are named %q", names[i]), Hint: hint}
		}
		seen[names[i]] = true
	}
	return names, nil
}
