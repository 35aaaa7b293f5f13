package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"hayrick"
	"hayrick/manifest"
)

// requestsAtOnce is how many requests of one call run side by side.
const requestsAtOnce = 8

// source is the version of an object that is copied from.
type source struct {
	etag string
	size int64
}

// Assemble joins stretches of objects and a tail. S3 copies what is large enough for
// a part of its own; only runs of small ones, and the tail, pass through here. Every
// source is pinned by its ETag. The completion asks that the key is absent, so that
// of two attempts one stores; a crash leaves an upload that nobody sees.
func (s *Store) Assemble(ctx context.Context, key string, parts []manifest.Range, tail []byte) (remote bool, err error) {
	o, err := s.at(key)
	if err == nil {
		remote, err = s.assemble(ctx, o, parts, tail)
	}
	if err != nil {
		return false, fmt.Errorf("assemble %s: %w", key, err)
	}
	return remote, nil
}

func (s *Store) assemble(ctx context.Context, o object, parts []manifest.Range, tail []byte) (remote bool, err error) {
	sources, err := s.pin(ctx, parts)
	if err != nil {
		return false, err
	}
	want := int64(len(tail))
	for _, p := range parts {
		if size := sources[p.Key].size; p.Offset < 0 || p.Length < 0 || p.Offset > size || p.Length > size-p.Offset {
			return false, fmt.Errorf("%s has %d bytes, not [%d, +%d): %w", p.Key, size, p.Offset, p.Length, hayrick.ErrCorrupt)
		}
		want += p.Length
	}
	pieces, err := planAssembly(parts, len(tail))
	if err != nil {
		return false, err
	}
	if len(pieces) == 1 && pieces[0].tail { // too small for an upload in parts
		body, err := s.join(ctx, pieces[0], sources, tail)
		if err != nil {
			return false, err
		}
		return false, s.put(ctx, o, body)
	}
	err = s.multipart(ctx, o, true, func(ctx context.Context, m *multipart) error {
		return s.each(ctx, len(pieces), func(ctx context.Context, i int) error {
			p := pieces[i]
			if p.copy.Length > 0 {
				return m.copy(ctx, i+1, object{s.name, p.copy.Key}, sources[p.copy.Key], p.copy)
			}
			body, err := s.join(ctx, p, sources, tail)
			if err != nil {
				return err
			}
			return m.send(ctx, i+1, body)
		})
	})
	if !errors.Is(err, hayrick.ErrConflict) {
		return true, err
	}
	// Somebody else's, or this call's own when the reply was lost. The key says which
	// bytes it has to be.
	h, err := s.head(ctx, o)
	if err != nil {
		return false, err
	}
	if size := aws.ToInt64(h.ContentLength); size != want {
		return false, fmt.Errorf("it is there with %d bytes, not %d: %w", size, want, hayrick.ErrCorrupt)
	}
	return true, nil
}

// pin looks at every source once.
func (s *Store) pin(ctx context.Context, parts []manifest.Range) (map[string]source, error) {
	var keys []string
	sources := map[string]source{}
	for _, p := range parts {
		if _, ok := sources[p.Key]; !ok {
			sources[p.Key] = source{}
			keys = append(keys, p.Key)
		}
	}
	var mu sync.Mutex // guards sources
	err := s.each(ctx, len(keys), func(ctx context.Context, i int) error {
		o, err := s.at(keys[i])
		if err != nil {
			return err
		}
		h, err := s.head(ctx, o)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		sources[keys[i]] = source{aws.ToString(h.ETag), aws.ToInt64(h.ContentLength)}
		return nil
	})
	return sources, err
}

// join fetches the stretches of a piece.
func (s *Store) join(ctx context.Context, p piece, sources map[string]source, tail []byte) ([]byte, error) {
	var body []byte
	for _, g := range p.glue {
		r := &reader{ctx: ctx, s: s, o: object{s.name, g.Key}, etag: sources[g.Key].etag, offset: g.Offset, left: g.Length}
		if err := r.connect(); err != nil {
			return nil, err
		}
		at := len(body)
		body = append(body, make([]byte, g.Length)...)
		_, err := io.ReadFull(r, body[at:])
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", g.Key, err)
		}
	}
	if p.tail {
		body = append(body, tail...)
	}
	return body, nil
}

// copy lets S3 copy a stretch of an object into a part.
func (m *multipart) copy(ctx context.Context, number int, from object, pinned source, r manifest.Range) error {
	in := &s3.UploadPartCopyInput{
		Bucket: &m.o.bucket, Key: &m.o.key, UploadId: &m.id, PartNumber: aws.Int32(int32(number)),
		CopySource: aws.String(copySource(from)), CopySourceIfMatch: &pinned.etag,
		CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1)),
	}
	out, err := m.s.s3.UploadPartCopy(ctx, in)
	switch {
	case isChanged(err):
		return changed(from)
	case err != nil:
		return fmt.Errorf("copy %s into part %d: %w", from, number, unknown(err))
	}
	m.done(number, out.CopyPartResult.ETag)
	return nil
}

// copySource names an object in a header.
func copySource(o object) string {
	parts := strings.Split(o.key, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return o.bucket + "/" + strings.Join(parts, "/")
}

// each calls f(0) .. f(n-1), requestsAtOnce at a time, and returns the first error,
// after which nothing new starts.
func (s *Store) each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	slots := make(chan struct{}, requestsAtOnce)
	for i := range n {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		running.Add(1)
		s.world.Go("aws request", func() {
			defer running.Done()
			if err := f(ctx, i); err != nil {
				cancel(err)
			}
			<-slots
		})
	}
	running.Wait()
	return context.Cause(ctx)
}
