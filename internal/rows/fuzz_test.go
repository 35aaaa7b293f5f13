package rows

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"hayrick"
)

// FuzzCompact: a struct of a footer is split and put together again byte for byte, where
// lengths are written in one way; nothing that is read lies outside of the bytes.
func FuzzCompact(f *testing.F) {
	b, _ := encode(f, schemaOf(f, randomRows(1, 10)), WriterOptions{}, randomRows(1, 10))
	footer, err := ReadFooter(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(footer.Raw)
	for _, s := range []string{"", "\x00", "\x15\x02\x00", "\x15\x02\x19\xfc\xff\xff\xff\xff\x07\x00", "\x15\x02\x05\x02\x02\x00", "\x1c\x1c\x1c", "\x05\x80\x01\x02\x00", "\x11\x11\x12\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := allocated()
		s, rest, err := SplitCompact(b)
		if used := allocated() - before; used > 1<<20+100*uint64(len(b)) {
			t.Fatalf("%d bytes were taken for %d", used, len(b))
		}
		if err != nil {
			if !errors.Is(err, hayrick.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		for i, x := range s {
			if i > 0 && x.ID <= s[i-1].ID {
				t.Fatalf("field %d follows %d", x.ID, s[i-1].ID)
			}
			_, _ = s.Int(x.ID)
			_, _ = s.Text(x.ID)
			_ = s.Structs(x.ID, func(Compact, []byte) error { return nil })
		}
		again := s.Append(nil)
		back, tail, err := SplitCompact(again)
		if err != nil || len(tail) > 0 || len(back) != len(s) {
			t.Fatalf("% x is put together as % x: %v", b[:len(b)-len(rest)], again, err)
		}
		for i := range s {
			if back[i].ID != s[i].ID || back[i].Type != s[i].Type || !bytes.Equal(back[i].Raw, s[i].Raw) {
				t.Fatalf("field %d, %+v, comes back as %+v", i, s[i], back[i])
			}
		}
		if changed := s.SetInt(7, CompactI64, -1); len(changed) > 0 {
			if x, err := changed.Int(7); err != nil || x != -1 {
				t.Fatalf("a field that was set is %d, %v", x, err)
			}
		}
	})
}

// FuzzFooter: a file with whatever footer, whole otherwise, is read or refused; its rows
// are then as many as it says, and nothing is taken for what its bytes cannot hold.
func FuzzFooter(f *testing.F) {
	rows := randomRows(1, 20)
	whole, _ := encode(f, schemaOf(f, rows), WriterOptions{GroupRows: 8}, rows)
	footer, err := ReadFooter(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		f.Fatal(err)
	}
	data := whole[:footer.At:footer.At]
	f.Add(footer.Raw)
	for _, field := range []int16{1, metaRows} {
		for _, x := range []int64{-1, 0, 1 << 31, 1<<63 - 1} {
			f.Add(footer.Meta.SetInt(field, CompactI64, x).Append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := append(append(bytes.Clone(data), raw...), binary.LittleEndian.AppendUint32(nil, uint32(len(raw)))...)
		b = append(b, magic...)
		before := allocated()
		file, err := Open(bytes.NewReader(b), int64(len(b)))
		var got []Row
		if err == nil {
			got, _, err = decode(b, file.Schema())
		}
		if used := allocated() - before; used > 32<<20+500*uint64(len(b)) {
			t.Fatalf("%d bytes were taken for a file of %d", used, len(b))
		}
		if err != nil {
			if !errors.Is(err, hayrick.ErrCorrupt) && !errors.Is(err, ErrKind) {
				t.Fatal(err)
			}
			return
		}
		if int64(len(got)) != file.Rows() {
			t.Fatalf("%d rows, it says %d", len(got), file.Rows())
		}
		for _, r := range got {
			if err := r.Check(); err != nil {
				t.Fatalf("%v: %v", r, err)
			}
		}
	})
}

// FuzzRun: a file of sorted rows is one or damage: a scan gives out no more than its
// index says, and no block is larger than it may be.
func FuzzRun(f *testing.F) {
	for _, n := range []int{0, 1, 200} {
		var out bytes.Buffer
		w := NewRunWriter(&out, true)
		for i := range n {
			b, _ := AppendEntryOf(nil, []byte{byte(i / 256), byte(i)}, int64(i), 0, Hash{}, bytes.Repeat([]byte("r"), i))
			e, err := DecodeEntry(b)
			if err == nil {
				err = w.Add(&e)
			}
			if err != nil {
				f.Fatal(err)
			}
		}
		if _, err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(out.Bytes(), []byte{0, 50}, []byte{0, 60})
	}
	f.Add([]byte("\xff\xff\xff\xff\x0f\x05\x00\x00\x00\x00\x00\x00\x00"+runMagic), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, b, lo, hi []byte) {
		before := allocated()
		run, err := OpenRun(bytes.NewReader(b), int64(len(b)), "")
		if used := allocated() - before; used > 1<<20+20*uint64(len(b)) {
			t.Fatalf("%d bytes were taken for an index in %d", used, len(b))
		}
		if err != nil {
			if !errors.Is(err, hayrick.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if run.Largest() > maxEntry+runBlock || run.Within(lo, hi).Rows() > run.Rows() {
			t.Fatalf("a block of %d bytes; %d rows, within a range %d", run.Largest(), run.Rows(), run.Within(lo, hi).Rows())
		}
		if run.Largest() > 1<<20 { // what a block says of its size is believed up to a bound, which a test here is not to take
			return
		}
		var n int64
		for c := run.Scan(nil, nil); ; n++ {
			e, err := c.Next()
			if err == io.EOF || err != nil && errors.Is(err, hayrick.ErrCorrupt) {
				break
			}
			if err != nil || n >= run.Rows() {
				t.Fatalf("row %d of %d: %v", n, run.Rows(), err)
			}
			again, err := DecodeEntry(e.AppendTo(nil))
			if err != nil || again.Compare(e) != 0 || !bytes.Equal(again.Record, e.Record) {
				t.Fatalf("%+v is written as %+v: %v", e, again, err)
			}
		}
	})
}

// FuzzRecord: a record of a row is one row and one record of it.
func FuzzRecord(f *testing.F) {
	b := NewBatch(sortedSchema)
	for i := range b.Cols {
		b.Cols[i].appendNull()
	}
	b.Rows = 1
	f.Add(b.AppendRecord(nil, 0))
	f.Add([]byte("\x3f\x01s\x01b" + string(make([]byte, 32))))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, rec []byte) {
		b := NewBatch(sortedSchema)
		if err := b.TakeRecord(rec); err != nil {
			if !errors.Is(err, hayrick.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again := NewBatch(sortedSchema)
		out := b.AppendRecord(nil, 0)
		if err := again.TakeRecord(out); err != nil || len(out) > len(rec) {
			t.Fatalf("% x is written as % x: %v", rec, out, err)
		}
		h := NewHashes(sortedSchema)
		if h.Rows(b, 0, 1) != h.Rows(again, 0, 1) {
			t.Fatalf("% x is another row as % x", rec, out)
		}
	})
}

// FuzzText: a published file of text is what its writer wrote, or damage: whatever is read
// of it is written again as the same bytes.
func FuzzText(f *testing.F) {
	for _, s := range []string{
		"s,b,i,f,o,t\n", "s,b,i,f,o,t\na,61,1,1.5,true,2026-11-20T12:00:00.000000Z\n", "s,b,i,f,o,t\n\"a\"\"\nb\",,,,,\n", "s,b,i,f,o,t\n\"\",,,NaN,,\n", "s\nx\n",
		`{"s":"a","b":"YQ==","i":1,"f":1.5,"o":true,"t":"2026-11-20T12:00:00Z"}` + "\n", "{}\n", "{\"s\":null}\n",
	} {
		f.Add([]byte(s), s[0] == '{')
	}
	f.Fuzz(func(t *testing.T, b []byte, lines bool) {
		text := Text{FormatCSV, "none"}
		if lines {
			text.Format = FormatJSONL
		}
		var out bytes.Buffer
		w, err := NewTextWriter(&out, sortedSchema, text)
		if err != nil {
			t.Fatal(err)
		}
		n, h, err := ReadText(bytes.NewReader(b), sortedSchema, text, func(x *Batch) error { return w.AppendBatch(x, 0, x.Rows) })
		if err != nil {
			if !errors.Is(err, hayrick.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		sum, err := w.Close()
		if err != nil || sum.Rows != n || sum.RowHash != h {
			t.Fatalf("%d rows with %s are read, %d with %s written: %v", n, h, sum.Rows, sum.RowHash, err)
		}
		n2, h2, err := ReadText(&out, sortedSchema, text, nil)
		if err != nil || n2 != n || h2 != h {
			t.Fatalf("%q comes back as %d rows with %s, was %d with %s: %v", b, n2, h2, n, h, err)
		}
	})
}
