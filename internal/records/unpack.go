package records

import (
	"bufio"
	"bytes"
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

// unpack reads what is packed as o says; done frees what that takes. What of its errors is
// no *Problem is src's own.
func unpack(src io.Reader, o Options) (r io.Reader, done func(), err error) {
	own := &source{r: src}
	in := bufio.NewReaderSize(own, 64<<10)
	head, _ := in.Peek(4)
	if len(head) == 0 {
		return in, func() {}, nil
	}
	switch o.Packed {
	case "gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, own.orElse(notPacked("gzip", o))
		}
		return &unpacked{z, own, o}, func() {}, nil
	case "zstd":
		if !bytes.Equal(head, []byte("\x28\xb5\x2f\xfd")) && !(len(head) == 4 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18) {
			return nil, nil, own.orElse(notPacked("zstd", o))
		}
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, own.orElse(notPacked("zstd", o))
		}
		return &unpacked{z, own, o}, z.Close, nil
	}
	return in, func() {}, nil
}

// source remembers how its reads failed, the end left out.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// orElse is the error of a read where there is one: what is made of half an input is then
// no damage.
func (s *source) orElse(damage error) error {
	if s.err != nil {
		return s.err
	}
	return damage
}

// unpacked is what a decompressor gives. Decompressors have dozens of ways to say that
// their input is damaged.
type unpacked struct {
	z    io.Reader
	from *source
	o    Options
}

func (u *unpacked) Read(p []byte) (int, error) {
	n, err := u.z.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return n, u.from.orElse(&Problem{Name: u.o.Name, What: fmt.Sprintf("it takes more than %d MiB to unpack it", maxWindow>>20), Hint: "compress it again without --long and --ultra"})
	}
	return n, u.from.orElse(&Problem{Name: u.o.Name, What: fmt.Sprintf("the compressed file is cut short or damaged (%v)", err), Hint: "fetch or make it again"})
}

func notPacked(as string, o Options) error {
	return &Problem{Name: o.Name, What: "it is not compressed with " + as, Hint: "write input.compression: none, or give the file the suffix of what it is"}
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
