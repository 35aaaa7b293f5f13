package audit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"

	"hayrick/internal/rows"
	"hayrick/manifest"
)

// statistics holds what a Parquet file says of its rows, by which readers skip them,
// against the rows: smallest and largest value and number of nulls of each column in
// each row group (footer) and page (page index), where they are given.
type statistics struct {
	blob   *rememberer
	file   *file.Reader
	schema rows.Schema
	cols   []columnTally // of the row group at hand
	group  int           // the next one
	at     int64         // rows seen of the one at hand
	of     int64         // rows that it has
	wrong  string        // the first difference; "" = none
}

// rememberer keeps how reading failed, which the Parquet library may not pass on.
type rememberer struct {
	manifest.Blob
	err error
}

func (r *rememberer) ReadAt(p []byte, at int64) (int, error) {
	n, err := r.Blob.ReadAt(p, at)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// columnTally is a column of a row group.
type columnTally struct {
	pages []tally // one behind the other; one for all where there is no page index
	next  int     // the page that the next row is in
	at    int     // its place in the file
	index metadata.ColumnIndex
}

// tally is what a stretch of a column holds.
type tally struct {
	from     int64 // its first row in the row group
	nulls    int64
	some     bool // it has a value that has an order: no null, no NaN
	lo, hi   int64
	flo, fhi float64
	blo, bhi []byte
}

// guard runs f, which reads what the file says of itself. What cannot be read is a
// difference, unless the store has failed.
func (s *statistics) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err != nil && s.wrong == "" {
			s.wrong = "its statistics cannot be read: " + err.Error()
		}
		err = s.blob.err
	}()
	if s.wrong != "" {
		return nil
	}
	return f()
}

// open reads the footer. It and the calls below answer only what the store failed with.
func (s *statistics) open() error {
	return s.guard(func() (err error) {
		s.file, err = file.NewParquetReader(io.NewSectionReader(s.blob, 0, s.blob.Size()))
		return err
	})
}

// add takes in the next rows, which are of one row group.
func (s *statistics) add(b *rows.Batch) error {
	return s.guard(func() error {
		for s.at == s.of {
			if err := s.begin(); err != nil {
				return err
			}
		}
		for i := range s.cols {
			c, values := &s.cols[i], &b.Cols[i]
			for r := range b.Rows {
				for c.next+1 < len(c.pages) && c.pages[c.next+1].from <= s.at+int64(r) {
					c.next++
				}
				c.pages[c.next].add(values, r)
			}
		}
		if s.at += int64(b.Rows); s.at == s.of {
			return s.end()
		}
		return nil
	})
}

// begin reads what is said of the next row group.
func (s *statistics) begin() error {
	if s.group == s.file.NumRowGroups() {
		return fmt.Errorf("it has rows of no row group")
	}
	meta := s.file.MetaData().RowGroup(s.group)
	for at := range s.file.MetaData().Schema.NumColumns() { // the library believes them
		chunk, err := meta.ColumnChunk(at)
		if err != nil {
			return err
		}
		for _, where := range []*metadata.IndexLocation{chunk.GetColumnIndexLocation(), chunk.GetOffsetIndexLocation()} {
			if where != nil && (where.Offset < 0 || where.Length < 0 || where.Offset > s.blob.Size()-int64(where.Length)) {
				return fmt.Errorf("a page index lies beyond its end")
			}
		}
	}
	group, err := s.file.GetPageIndexReader().RowGroup(s.group)
	if err != nil {
		return err
	}
	s.group++
	s.at, s.of, s.cols = 0, meta.NumRows(), make([]columnTally, len(s.schema.Fields))
	for i := range s.cols {
		c := columnTally{at: s.file.MetaData().Schema.ColumnIndexByName(s.schema.Fields[i].Name), pages: []tally{{}}}
		chunk, err := meta.ColumnChunk(c.at)
		if err != nil {
			return err
		}
		// Without an offset index it is not known which rows a page has.
		if group != nil && chunk.GetOffsetIndexLocation() != nil {
			offsets, err := group.GetOffsetIndex(c.at)
			if err != nil {
				return err
			}
			c.pages = nil
			for n, p := range offsets.GetPageLocations() {
				if n == 0 && p.FirstRowIndex != 0 || n > 0 && p.FirstRowIndex <= c.pages[n-1].from {
					return fmt.Errorf("page %d begins with row %d", n, p.FirstRowIndex)
				}
				c.pages = append(c.pages, tally{from: p.FirstRowIndex})
			}
			if len(c.pages) == 0 {
				return fmt.Errorf("an offset index names no page")
			}
			if c.index, err = group.GetColumnIndex(c.at); err != nil {
				return err
			}
		}
		s.cols[i] = c
	}
	return nil
}

// end compares the row group with what is said of it.
func (s *statistics) end() error {
	for i := range s.cols {
		c, field := &s.cols[i], s.schema.Fields[i]
		differ := func(where, what string) {
			if what != "" && s.wrong == "" {
				s.wrong = fmt.Sprintf("row group %d, column %q%s: %s", s.group-1, field.Name, where, what)
			}
		}
		var all tally
		for p := range c.pages {
			all.join(&c.pages[p])
		}
		// Not by the library's reading of it, which takes a bound that was left out for one.
		if said := s.file.MetaData().RowGroups[s.group-1].Columns[c.at].MetaData.Statistics; said != nil {
			if said.IsSetNullCount() && said.GetNullCount() != all.nulls {
				differ("", fmt.Sprintf("the footer says %d nulls, there are %d", said.GetNullCount(), all.nulls))
			}
			for _, lo := range [][]byte{said.Min, said.MinValue} {
				differ("", all.differs(field.Kind, lo, nil))
			}
			for _, hi := range [][]byte{said.Max, said.MaxValue} {
				differ("", all.differs(field.Kind, nil, hi))
			}
		}
		if c.index == nil {
			continue
		}
		nulls, lo, hi, empty := c.index.GetNullCounts(), c.index.GetMinValues(), c.index.GetMaxValues(), c.index.GetNullPages()
		if n := len(c.pages); len(lo) != n || len(hi) != n || len(empty) != n || c.index.IsSetNullCounts() && len(nulls) != n {
			differ("", "its page indexes are of different pages")
			continue
		}
		for p := range c.pages {
			where := fmt.Sprintf(", page %d", p)
			if c.index.IsSetNullCounts() && nulls[p] != c.pages[p].nulls {
				differ(where, fmt.Sprintf("the page index says %d nulls, there are %d", nulls[p], c.pages[p].nulls))
			}
			if !empty[p] {
				differ(where, c.pages[p].differs(field.Kind, lo[p], hi[p]))
			} else if c.pages[p].some {
				differ(where, "the page index says that it is all null")
			}
		}
	}
	return nil
}

func (t *tally) add(c *rows.Column, r int) {
	if !c.Valid[r] {
		t.nulls++
		return
	}
	x := tally{some: true}
	switch c.Kind {
	case rows.KindString, rows.KindBytes:
		x.blo = c.Bytes(r)
		x.bhi = x.blo
	case rows.KindFloat:
		f := math.Float64frombits(uint64(c.Nums[r]))
		x.some, x.flo, x.fhi = !math.IsNaN(f), f, f
	default:
		x.lo, x.hi = c.Nums[r], c.Nums[r]
	}
	t.join(&x)
}

// join adds what lies behind t. Of the fields of other kinds it compares zeros.
func (t *tally) join(x *tally) {
	t.nulls += x.nulls
	if !x.some {
		return
	}
	if !t.some || bytes.Compare(x.blo, t.blo) < 0 {
		t.blo = append(t.blo[:0], x.blo...)
	}
	if !t.some || bytes.Compare(x.bhi, t.bhi) > 0 {
		t.bhi = append(t.bhi[:0], x.bhi...)
	}
	if !t.some {
		t.lo, t.hi, t.flo, t.fhi = x.lo, x.hi, x.flo, x.fhi
	}
	t.some = true
	t.lo, t.hi, t.flo, t.fhi = min(t.lo, x.lo), max(t.hi, x.hi), min(t.flo, x.flo), max(t.fhi, x.fhi)
}

// differs says that an encoded bound is not that of the values; nil is none.
func (t *tally) differs(k rows.Kind, lo, hi []byte) string {
	for _, x := range []struct {
		word    string
		said    []byte
		bytes   []byte
		num     int64
		decimal float64
	}{{"smallest", lo, t.blo, t.lo, t.flo}, {"largest", hi, t.bhi, t.hi, t.fhi}} {
		if x.said == nil {
			continue
		}
		same := false
		switch {
		case !t.some:
			return fmt.Sprintf("it says a %s value, and there is none", x.word)
		case k == rows.KindString || k == rows.KindBytes:
			same = bytes.Equal(x.said, x.bytes)
		case k == rows.KindBool:
			same = len(x.said) == 1 && int64(x.said[0]) == x.num
		case len(x.said) != 8:
		case k == rows.KindFloat: // in which -0 and 0 are equal
			same = math.Float64frombits(binary.LittleEndian.Uint64(x.said)) == x.decimal
		default:
			same = int64(binary.LittleEndian.Uint64(x.said)) == x.num
		}
		if !same {
			return fmt.Sprintf("%x, said to be the %s value, is not", x.said[:min(len(x.said), 32)], x.word)
		}
	}
	return ""
}
