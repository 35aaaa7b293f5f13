package records

import (
	"bufio"
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a zstd frame may ask a reader to hold.
const maxWindow = 128 << 20

// PackedOf tells the compression of a name: gzip, zstd or none.
func PackedOf(name string) string {
	name = strings.ToLower(name)
	switch {
	case strings.HasSuffix(name, ".gz"), strings.HasSuffix(name, ".gzip"):
		return "gzip"
	case strings.HasSuffix(name, ".zst"), strings.HasSuffix(name, ".zstd"):
		return "zstd"
	}
	return "none"
}

// unpack reads what is packed as o says; done frees what that takes.
func unpack(src io.Reader, o Options) (r io.Reader, done func(), err error) {
	in := bufio.NewReaderSize(src, 64<<10)
	head, _ := in.Peek(4)
	switch o.Packed {
	case "gzip":
		if len(head) == 0 {
			return in, func() {}, nil
		}
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, notPacked(err, "gzip", o)
		}
		return z, func() {}, nil
	case "zstd":
		if len(head) == 0 {
			return in, func() {}, nil
		}
		if !bytes.Equal(head, []byte("\x28\xb5\x2f\xfd")) && !(len(head) == 4 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18) {
			return nil, nil, notPacked(zstd.ErrMagicMismatch, "zstd", o)
		}
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, notPacked(err, "zstd", o)
		}
		return z, z.Close, nil
	}
	return in, func() {}, nil
}

func notPacked(err error, as string, o Options) error {
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, zstd.ErrMagicMismatch) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Problem{Name: o.Name, What: "it is not compressed with " + as, Hint: "write input.compression: none, or give the file the suffix of what it is"}
	}
	return err
}

// damage names what a decompressor found.
func damage(err error, o Options) error {
	var corrupt flate.CorruptInputError
	if err != nil && o.Packed != "none" && (errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &corrupt) ||
		errors.Is(err, zstd.ErrCRCMismatch) || errors.Is(err, zstd.ErrMagicMismatch) || errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrReservedBlockType)) {
		return &Problem{Name: o.Name, What: fmt.Sprintf("the compressed file is cut short or damaged (%v)", err), Hint: "fetch or make it again"}
	}
	return err
}

// Refuse names content that is another format than o says. in has at least 4 bytes of
// it in its buffer, if there are so many.
func Refuse(in *bufio.Reader, o Options) *Problem {
	head, _ := in.Peek(4)
	is := func(magic string) bool { return strings.HasPrefix(string(head), magic) }
	p := &Problem{Name: o.Name}
	switch {
	case o.Packed != "none" && (is("\x1f\x8b") || is("\x28\xb5\x2f\xfd")):
		p.What, p.Hint = "it is compressed twice", "decompress it once"
	case is("PAR1"):
		p.What, p.Hint = "it is a Parquet file", "write input.format: parquet"
	case is("\x1f\x8b"):
		p.What, p.Hint = "it is compressed with gzip", "write input.compression: gzip"
	case is("\x28\xb5\x2f\xfd"):
		p.What, p.Hint = "it is compressed with zstd", "write input.compression: zstd"
	case is("PK\x03\x04"):
		p.What, p.Hint = "it is a zip archive, perhaps a spreadsheet", "save it as CSV, or unpack it"
	case is("BZh"), is("\xfd7zX"):
		p.What, p.Hint = "it is compressed in a way that is not read", "compress it with gzip or zstd"
	case is("\xff\xfe"), is("\xfe\xff"):
		p.What, p.Hint = "it is UTF-16", "convert the file: iconv -f utf-16 -t utf-8"
	default:
		return nil
	}
	return p
}
