package extproc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"hayrick/internal/rows"
	"hayrick/jobs"
)

// arrowStream is n rows of every shape that a column may have.
func arrowStream(t testing.TB, n int, opts ...ipc.Option) []byte {
	t.Helper()
	words := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	schema := arrow.NewSchema([]arrow.Field{
		{Name: itemColumn, Type: arrow.PrimitiveTypes.Int64}, {Name: "s", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "u", Type: arrow.PrimitiveTypes.Uint64}, {Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int16)}, {Name: "w", Type: words},
	}, nil)
	var out bytes.Buffer
	w := ipc.NewWriter(&out, append(opts, ipc.WithSchema(schema))...)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	for i := range n {
		b.Field(0).(*array.Int64Builder).Append(int64(i + 1))
		if i%3 == 2 {
			b.Field(1).AppendNull()
		} else {
			b.Field(1).(*array.StringBuilder).Append(strings.Repeat("hay", i))
		}
		b.Field(2).(*array.Uint64Builder).Append(uint64(i))
		b.Field(3).(*array.ListBuilder).Append(true)
		b.Field(3).(*array.ListBuilder).ValueBuilder().(*array.Int16Builder).Append(int16(i))
		if err := b.Field(4).(*array.BinaryDictionaryBuilder).AppendString(fmt.Sprint("w", i%2)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Write(b.NewRecordBatch()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// heard is what a stream says, a line a row, and what was wrong with it.
func heard(stream []byte, maxBody int64) (out []string, err error) {
	err = arrowRows(bytes.NewReader(stream), 64<<10, maxBody, func(b *arrowBatch) error {
		for n := range b.ids.Len() {
			row, err := b.row(n)
			if err != nil {
				return err
			}
			out = append(out, fmt.Sprint(b.ids.Value(n), row))
		}
		return nil
	})
	return out, err
}

// A stream that is damaged, or says more than it holds, is an error: it takes neither the
// worker nor its memory.
func TestDamagedArrow(t *testing.T) {
	const most = 1 << 20
	plain := arrowStream(t, 5)
	want, err := heard(plain, most)
	if err != nil || len(want) != 5 {
		t.Fatalf("%d rows, %v", len(want), err)
	}
	packed := arrowStream(t, 5000, ipc.WithZstd(), ipc.WithMinSpaceSavings(0))
	if got, err := heard(packed, 1<<26); err != nil || len(got) != 5000 {
		t.Fatalf("packed: %d rows, %v", len(got), err)
	}
	// The length of the first packed buffer is that of 5000 numbers.
	claim := bytes.Index(packed, binary.LittleEndian.AppendUint64(nil, 5000*8))
	if claim < 0 {
		t.Fatal("no packed buffer is found")
	}
	lies := func(b []byte, at int, x uint64) []byte {
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint64(b[at:], x)
		return b
	}
	for name, stream := range map[string][]byte{
		"a buffer of 1 TiB":      lies(packed, claim, 1<<40),
		"a buffer of 1 GiB":      lies(packed, claim, 1<<30),
		"a buffer below nothing": lies(packed, claim, 1<<63),
		"a message of 2 GiB":     append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, plain...),
		"no Arrow":               []byte("id,name\n1,a\n"),
	} {
		before := taken()
		_, err := heard(stream, most)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if used := taken() - before; used > 32*most {
			t.Errorf("%s: %d bytes were taken", name, used)
		}
	}
	// Every 8 bytes as an offset that leads out: told, or other rows, and never a panic.
	refused := 0
	for at := 0; at+8 <= len(plain); at += 4 {
		for _, x := range []uint64{1<<63 - 1, 0xffffffff, 1 << 31} {
			if _, err := heard(lies(plain, at, x), most); err != nil {
				refused++
			}
		}
	}
	if refused < 50 {
		t.Errorf("only %d damaged streams were refused", refused)
	}
}

func taken() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// FuzzArrow: whatever a program writes to rows_fd, the worker goes on; the rows that come
// out can be stored or are refused, and cutting the stream changes none of those before.
func FuzzArrow(f *testing.F) {
	for _, n := range []int{0, 1, 7} {
		f.Add(arrowStream(f, n))
		f.Add(arrowStream(f, n, ipc.WithZstd()))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		const most = 1 << 20
		all, _ := heard(stream, most)
		var stored []jobs.Row
		_ = arrowRows(io.MultiReader(bytes.NewReader(stream[:len(stream)/2]), bytes.NewReader(stream[len(stream)/2:])), 64<<10, most, func(b *arrowBatch) error {
			for n := range b.ids.Len() {
				row, err := b.row(n)
				if err != nil {
					return err
				}
				body, err := rows.AppendRow(nil, row)
				if err != nil {
					continue
				}
				again, rest, err := rows.DecodeRow(body)
				if err != nil || len(rest) > 0 {
					t.Fatalf("%v is stored as what reads as %v, %v", row, again, err)
				}
				stored = append(stored, again)
			}
			return nil
		})
		if len(stored) > len(all) {
			t.Fatalf("in two reads it has %d rows, in one %d", len(stored), len(all))
		}
		part, _ := heard(stream[:len(stream)/2], most)
		if len(part) > len(all) || len(part) > 0 && part[0] != all[0] {
			t.Fatalf("cut in half it has %d rows, whole %d", len(part), len(all))
		}
	})
}
