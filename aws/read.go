package aws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"hayrick"
	"hayrick/manifest"
)

// open reads length bytes of an object from offset, to its end when length < 0. What
// lies beyond the end is empty.
func (s *Store) open(ctx context.Context, o object, offset, length int64) (io.ReadCloser, error) {
	if length == 0 { // no range says nothing; but the object has to be there
		if _, err := s.head(ctx, o); err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	r := &reader{ctx: ctx, s: s, o: o, offset: max(offset, 0), left: length}
	if err := r.connect(); err != nil {
		if err == errBeyond {
			return io.NopCloser(bytes.NewReader(nil)), nil
		}
		return nil, err
	}
	return r, nil
}

// maxReconnects is how often a body that breaks off is continued without a byte of
// progress. The SDK repeats requests, but not what breaks after the first byte.
const maxReconnects = 4

// reader reads one version of an object and goes on where a connection broke.
type reader struct {
	ctx    context.Context // of Open: io.Reader has none
	s      *Store
	o      object
	etag   string // of the version that is read
	offset int64
	left   int64 // < 0: to the end
	body   io.ReadCloser
	broken int

	input   bool         // of a job: nobody promises that it stays
	version string       // asked for, in a bucket that keeps them; "" = the newest
	pin     manifest.Pin // of what is read; its Size only where that is from the start to the end
}

func (r *reader) connect() error {
	in := &s3.GetObjectInput{Bucket: &r.o.bucket, Key: &r.o.key}
	switch {
	case r.left >= 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", r.offset, r.offset+r.left-1))
	case r.offset > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", r.offset))
	}
	if r.etag != "" {
		in.IfMatch = &r.etag
	}
	if r.version != "" {
		in.VersionId = &r.version
	}
	out, err := r.s.s3.GetObject(r.ctx, in)
	switch {
	case status(err) == http.StatusRequestedRangeNotSatisfiable:
		return errBeyond
	case isChanged(err):
		return changed(r.o)
	case err != nil:
		if err = explain(err); r.input {
			err = r.s.refused(err, r.o, forInput)
		}
		return fmt.Errorf("read %s: %w", r.o, err)
	}
	if r.body, r.etag = out.Body, aws.ToString(out.ETag); r.pin.ETag == "" {
		r.pin = pinOf(out.ContentLength, out.LastModified, out.ETag, out.VersionId)
	}
	return nil
}

func (r *reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.body.Read(p)
	r.offset += int64(n)
	if r.left > 0 {
		r.left -= int64(n)
	}
	if n > 0 {
		r.broken = 0
	}
	if err == nil || err == io.EOF || r.ctx.Err() != nil || n > 0 && r.left == 0 {
		return n, err
	}
	// A digest that does not fit comes as an error too, and then comes again.
	if r.broken++; r.broken > maxReconnects {
		return n, fmt.Errorf("read %s: %w", r.o, err)
	}
	r.body.Close()
	switch err := r.connect(); err {
	case nil:
		return n, nil
	case errBeyond:
		return n, io.EOF
	default:
		if r.input && (errors.Is(err, hayrick.ErrCorrupt) || errors.Is(err, hayrick.ErrNotFound)) {
			err = fmt.Errorf("%s was replaced or deleted while it was read: %w", r.o, hayrick.ErrInputChanged)
		}
		return n, err
	}
}

func (r *reader) Close() error { return r.body.Close() }

// tailBytes is what opening a blob fetches: the footer of a Parquet file, in one
// request with the size.
const tailBytes = 64 << 10

// blob is an opened object: its end is in memory, every other read is a request for
// the version that was opened.
type blob struct {
	ctx  context.Context // of OpenAt: io.ReaderAt has none
	s    *Store
	o    object
	etag string
	size int64
	tail []byte // the last bytes
}

// OpenAt opens an object for reads at random places.
func (s *Store) OpenAt(ctx context.Context, key string) (manifest.Blob, error) {
	o, err := s.at(key)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	b, err := s.openAt(ctx, o)
	if err != nil { // not as a nil *blob, which would be a Blob
		return nil, inBucket(err, s.name, forStore)
	}
	return b, nil
}

func (s *Store) openAt(ctx context.Context, o object) (*blob, error) {
	out, err := s.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &o.bucket, Key: &o.key, Range: aws.String(fmt.Sprintf("bytes=-%d", tailBytes))})
	if status(err) == http.StatusRequestedRangeNotSatisfiable { // an empty object has no last bytes
		h, err := s.head(ctx, o)
		if err != nil {
			return nil, err
		}
		return &blob{ctx: ctx, s: s, o: o, etag: aws.ToString(h.ETag), size: aws.ToInt64(h.ContentLength)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o, explain(err))
	}
	defer out.Body.Close()
	b := &blob{ctx: ctx, s: s, o: o, etag: aws.ToString(out.ETag), size: aws.ToInt64(out.ContentLength)}
	if _, total, ok := strings.Cut(aws.ToString(out.ContentRange), "/"); ok { // absent when the whole object is sent
		if b.size, err = strconv.ParseInt(total, 10, 64); err != nil {
			return nil, fmt.Errorf("open %s: its size is %q", o, total)
		}
	}
	if b.tail, err = io.ReadAll(io.LimitReader(out.Body, tailBytes)); err != nil || int64(len(b.tail)) != min(b.size, tailBytes) {
		b.tail = nil // broken off: asked for again where it is needed
	}
	return b, nil
}

func (b *blob) Size() int64  { return b.size }
func (b *blob) Close() error { return nil }

func (b *blob) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s at %d", b.o, off)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if off >= b.size {
		return 0, io.EOF
	}
	want := min(int64(len(p)), b.size-off)
	if at := off - (b.size - int64(len(b.tail))); at >= 0 {
		copy(p[:want], b.tail[at:])
	} else {
		r := &reader{ctx: b.ctx, s: b.s, o: b.o, etag: b.etag, offset: off, left: want}
		if err := r.connect(); err != nil {
			return 0, err
		}
		n, err := io.ReadFull(r, p[:want])
		r.Close()
		if err != nil {
			return n, fmt.Errorf("read %s: %w", b.o, err)
		}
	}
	if want < int64(len(p)) {
		return int(want), io.EOF
	}
	return int(want), nil
}
