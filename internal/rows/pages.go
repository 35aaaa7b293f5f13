package rows

import (
	"fmt"
	"io"
	"sync"

	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/klauspost/compress/zstd"

	"hayrick"
)

// maxPageBytes is the largest page that is read: one value of the largest size,
// and what may stand beside it.
const maxPageBytes = MaxValueBytes + 16<<20

// The fields of a page's header, by their ids in parquet.thrift.
const (
	pageType         = 1
	pageUncompressed = 2
	pageCompressed   = 3
	pageHeaderV1     = 5 // {1 values, 2 encoding}
	pageHeaderDict   = 7 // {1 values, 2 encoding}
	pageHeaderV2     = 8 // {1 values, 4 encoding}
)

// pageAt is a page of a chunk.
type pageAt struct {
	at, header               int64 // its offset, and the length of its header
	kind                     int16 // the field of the header that says more
	compressed, uncompressed int64
	values, encoding         int64
	levels                   int64 // the encoding of the definition levels, in version 1
}

// chunkClaims is what a footer says of one column chunk.
type chunkClaims struct {
	from, size   int64 // where its pages lie
	uncompressed int64
	rows         int64
}

func claimsOf(c *metadata.ColumnChunkMetaData) chunkClaims {
	from := c.DataPageOffset()
	if c.HasDictionaryPage() && c.DictionaryPageOffset() > 0 {
		from = min(from, c.DictionaryPageOffset())
	}
	return chunkClaims{from: from, size: c.TotalCompressedSize(), uncompressed: c.TotalUncompressedSize(), rows: c.NumValues()}
}

// checkPages walks the headers of a chunk's pages, and only these. The library
// allocates what a page's header asks for: its size when decompressed, and the
// entries of its dictionary. Here the sizes are held against the chunk's, the
// entries against the bytes that must hold them, and the values against the rows.
func checkPages(r io.ReaderAt, c chunkClaims) error {
	return walkPages(r, c, func(pageAt) {})
}

// walkPages is checkPages, and calls each for every page.
func walkPages(r io.ReaderAt, c chunkClaims, each func(pageAt)) error {
	bad := func(what string, args ...any) error {
		return fmt.Errorf("a page: %s: %w", fmt.Sprintf(what, args...), hayrick.ErrCorrupt)
	}
	at, end, values := c.from, c.from+c.size, int64(0)
	for first := true; at < end; first = false {
		h, n, err := readPageHeader(r, at, end)
		if err != nil {
			return err
		}
		at += n
		kind, err := h.Int(pageType)
		if err != nil {
			return err
		}
		id := map[int64]int16{0: pageHeaderV1, 2: pageHeaderDict, 3: pageHeaderV2}[kind]
		in, err := h.Struct(id)
		if err != nil {
			return err
		}
		var field [4]int64 // uncompressed, compressed, values, encoding
		for i, f := range []struct {
			of Compact
			id int16
		}{{h, pageUncompressed}, {h, pageCompressed}, {in, 1}, {in, map[bool]int16{false: 2, true: 4}[id == pageHeaderV2]}} {
			if field[i], err = f.of.Int(f.id); err != nil {
				return err
			}
		}
		uncompressed, compressed, count, encoding := field[0], field[1], field[2], field[3]
		switch {
		case in == nil:
			return bad("of type %d", kind)
		case compressed < 0 || compressed > end-at || compressed > maxPageBytes:
			return bad("%d bytes, %d are left of its chunk", compressed, end-at)
		case uncompressed < 0 || uncompressed > c.uncompressed || uncompressed > maxPageBytes:
			return bad("%d bytes to be, its chunk has %d", uncompressed, c.uncompressed)
		case id == pageHeaderDict && (!first || count < 0 || count > uncompressed):
			return bad("a dictionary of %d entries in %d bytes", count, uncompressed)
		case id != pageHeaderDict && (count < 0 || count > c.rows-values):
			return bad("%d values, %d rows are left", count, c.rows-values)
		case encoding != 0 && encoding != 2 && encoding != 3 && encoding != 8 && encoding != 9:
			// The delta encodings state block sizes of their own, which the library
			// believes; Hayrick does not write them, nor do most writers unasked.
			return fmt.Errorf("encoding %d: %w", encoding, ErrKind)
		}
		if id != pageHeaderDict {
			values += count
		}
		levels := int64(0)
		if id == pageHeaderV1 {
			if levels, err = in.Int(3); err != nil {
				return err
			}
		}
		each(pageAt{at - n, n, id, compressed, uncompressed, count, encoding, levels})
		at += compressed
	}
	if values != c.rows {
		return bad("%d values in all, %d rows", values, c.rows)
	}
	return nil
}

// readPageHeader reads the header of the page at an offset, and its length.
func readPageHeader(r io.ReaderAt, at, end int64) (Compact, int64, error) {
	for size := int64(512); ; size *= 8 {
		b := make([]byte, min(size, end-at))
		if err := readAt(r, b, at); err != nil {
			return nil, 0, err
		}
		h, rest, err := SplitCompact(b)
		if err == nil {
			return h, int64(len(b) - len(rest)), nil
		}
		if size >= end-at || size > 1<<20 { // statistics make headers long, but not that long
			return nil, 0, err
		}
	}
}

// boundedZstd decompresses into the memory it is given and no further. The
// library's own codec believes the size that a frame states, up to 64 GiB, and
// running out of memory is nothing that a process survives.
type boundedZstd struct{ compress.Codec }

var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic("rows: options of zstd: " + err.Error())
	}
	return d
})

// DecodeWithError implements compress.ErrorCodec.
func (boundedZstd) DecodeWithError(dst, src []byte) ([]byte, error) {
	return zstdDecoder().DecodeAll(src, dst[:0:len(dst)])
}

// Decode implements compress.Codec.
func (c boundedZstd) Decode(dst, src []byte) []byte {
	out, err := c.DecodeWithError(dst, src)
	if err != nil {
		panic(err)
	}
	return out
}

// zstdEncoder is that of all files: with one of its own for each page, as the library
// has them in a pool, what a bubble of testing/synctest made would meet the next.
var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(zstdLevel)))
	if err != nil {
		panic("rows: options of zstd: " + err.Error())
	}
	return e
})

// EncodeLevel implements compress.Codec, at the one level that files have.
func (boundedZstd) EncodeLevel(dst, src []byte, _ int) []byte {
	return zstdEncoder().EncodeAll(src, dst[:0])
}

// Warm makes what files share, outside of any bubble of testing/synctest that is to
// write some.
func Warm() {
	packed := boundedZstd{}.EncodeLevel(nil, []byte("warm"), zstdLevel)
	if _, err := (boundedZstd{}).DecodeWithError(make([]byte, 4), packed); err != nil {
		panic("rows: " + err.Error())
	}
}

func init() {
	c, err := compress.GetCodec(compress.Codecs.Zstd)
	if err != nil {
		panic("rows: " + err.Error())
	}
	compress.RegisterCodec(compress.Codecs.Zstd, boundedZstd{c})
}
