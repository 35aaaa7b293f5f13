package rows

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/compress"

	"hayrick"
)

// page is a page's header and its body.
func page(kind, uncompressed, compressed, values, encoding int64, body []byte) []byte {
	in, id := Compact{}.SetInt(1, CompactI32, values).SetInt(2, CompactI32, encoding), int16(pageHeaderV1)
	switch kind {
	case 2:
		id = pageHeaderDict
	case 3:
		in, id = Compact{}.SetInt(1, CompactI32, values).SetInt(4, CompactI32, encoding), pageHeaderV2
	}
	h := Compact{}.SetInt(pageType, CompactI32, kind).SetInt(pageUncompressed, CompactI32, uncompressed).SetInt(pageCompressed, CompactI32, compressed)
	return append(h.Set(id, CompactStruct, in.Append(nil)).Append(nil), body...)
}

func TestCheckPages(t *testing.T) {
	body := make([]byte, 50)
	dict, data := page(2, 100, 50, 10, 0, body), page(0, 80, 50, 1000, 8, body)
	join := func(pages ...[]byte) []byte { return bytes.Join(pages, nil) }
	for name, tc := range map[string]struct {
		chunk []byte
		rows  int64
		want  error
		says  string
	}{
		"sound":                      {join(dict, data, data), 2000, nil, ""},
		"sound, version 2":           {join(dict, page(3, 80, 50, 7, 0, body)), 7, nil, ""},
		"nothing":                    {nil, 0, nil, ""},
		"a row missing":              {join(dict, data), 1001, hayrick.ErrCorrupt, "1000 values in all"},
		"a row too many":             {join(dict, data, data), 1999, hayrick.ErrCorrupt, "999 rows are left"},
		"values below nothing":       {join(page(0, 80, 50, -1, 0, body)), 5, hayrick.ErrCorrupt, "-1 values"},
		"a page beyond its chunk":    {page(0, 80, 51, 5, 0, body), 5, hayrick.ErrCorrupt, "51 bytes, 50 are left"},
		"more than the chunk holds":  {page(0, 1001, 50, 5, 0, body), 5, hayrick.ErrCorrupt, "1001 bytes to be"},
		"entries without bytes":      {join(page(2, 100, 50, 1<<31-1, 0, body), data), 1000, hayrick.ErrCorrupt, "2147483647 entries in 100 bytes"},
		"a second dictionary":        {join(dict, dict, data), 1000, hayrick.ErrCorrupt, "dictionary"},
		"an index page":              {join(page(1, 80, 50, 5, 0, body)), 5, hayrick.ErrCorrupt, "type 1"},
		"a delta encoding":           {join(page(0, 80, 50, 5, 5, body)), 5, ErrKind, "encoding 5"},
		"a header that goes nowhere": {bytes.Repeat([]byte{0x15}, 90), 5, hayrick.ErrCorrupt, "metadata"},
		"a header cut off":           {dict[:10], 5, hayrick.ErrCorrupt, ""},
	} {
		err := checkPages(bytes.NewReader(tc.chunk), chunkClaims{size: int64(len(tc.chunk)), uncompressed: 1000, rows: tc.rows})
		if !errors.Is(err, tc.want) || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a page decompresses to never outgrows the memory set aside for it.
func TestZstdIsBounded(t *testing.T) {
	codec, err := compress.GetCodec(compress.Codecs.Zstd)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 64<<20)
	bomb := codec.Encode(nil, zeros)
	if got, err := compress.Decode(codec, make([]byte, len(zeros)), bomb); err != nil || !bytes.Equal(got, zeros) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	before := allocated()
	if got, err := compress.Decode(codec, make([]byte, 1000), bomb); err == nil {
		t.Errorf("%d bytes in 1000", len(got))
	}
	if used := allocated() - before; used > 1<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
}
