package records

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"

	"hayrick/internal/rows"
)

// footed is a Parquet file with data in front of a footer of whatever bytes.
func footed(data, footer []byte) []byte {
	b := append(bytes.Clone(data), footer...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(footer)))
	return append(b, "PAR1"...)
}

// hostileParquet are files that claim the moon.
func hostileParquet(t testing.TB) map[string][]byte {
	whole := parquetSeed(t, 2)
	f, err := rows.ReadFooter(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	data, magic := whole[:f.At], []byte("PAR1")
	out := map[string][]byte{
		"schema of 2^31 columns": footed(magic, []byte{0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0}),
		"text of 2^40 bytes":     footed(magic, []byte{0x15, 2, 0x68, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0}),
		"structs in structs":     footed(magic, bytes.Repeat([]byte{0x1c}, 1<<20)),
		"lists in lists":         footed(magic, append([]byte{0x15, 2, 0x19}, bytes.Repeat([]byte{0x19}, 1<<20)...)),
		"footer longer than it":  append([]byte("PAR1\xff\xff\xff\x7f"), magic...),
	}
	const version, numRows, groups = 1, 3, 4
	for name, x := range map[string]int64{"most": math.MaxInt64, "least": math.MinInt64, "half": 1 << 31} {
		out["rows: "+name] = footed(data, f.Meta.SetInt(numRows, rows.CompactI64, x).Append(nil))
		n := 0
		var list []byte
		if err := f.Meta.Structs(groups, func(g rows.Compact, _ []byte) error {
			n++
			list = g.SetInt(numRows, rows.CompactI64, x).SetInt(2, rows.CompactI64, x).Append(list)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		out["rows and bytes of its groups: "+name] = footed(data, f.Meta.Set(groups, rows.CompactList, append(rows.AppendCompactList(nil, rows.CompactStruct, n), list...)).Append(nil))
	}
	var nested []byte // columns, each within the last
	nested = append(nested, 0x15, 2, 0x19)
	nested = rows.AppendCompactList(nested, rows.CompactStruct, 1<<15)
	for range 1 << 15 {
		nested = append(nested, 0x48, 1, 'a', 0x15, 2, 0)
	}
	out["columns in columns"] = footed(magic, append(nested, 0x16, 0, 0x19, 0x0c, 0))
	return out
}

// An input that says it holds what it cannot is told as damaged, or read as far as it
// goes, and takes no memory for what it says.
func TestHostileParquet(t *testing.T) {
	for name, b := range hostileParquet(t) {
		before := allocated()
		err := Write(t.Context(), io.Discard, bytes.NewReader(b), Options{Name: "in.parquet", Format: "parquet"})
		used := allocated() - before
		var p *Problem
		if err != nil && !errors.As(err, &p) {
			t.Errorf("%s: %v", name, err)
		}
		if used > 64<<20 {
			t.Errorf("%s: %d MiB were taken for %d KiB", name, used>>20, len(b)>>10)
		}
	}
}
