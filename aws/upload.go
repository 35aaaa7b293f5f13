package aws

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"hayrick"
)

const (
	partBytes = 8 << 20 // of an upload; grows with the part number, below
	// growEvery parts the size doubles, so that 10,000 parts hold more than an object may.
	growEvery  = 1000
	partsAhead = 2
	// abortTimeout bounds the removal of a failed upload; the bucket's lifecycle rule
	// removes what is left.
	abortTimeout = 10 * time.Second
)

// upload stores body, of any length, over what is there; memory is partsAhead + 1
// parts. Nothing shows before the end.
func (s *Store) upload(ctx context.Context, o object, body io.Reader) error {
	buf := make([]byte, 256<<10)
	n, err := io.ReadFull(body, buf)
	if err == nil { // most objects are small, and should not cost a part's memory
		grown := make([]byte, partBytes)
		copy(grown, buf)
		var more int
		more, err = io.ReadFull(body, grown[n:])
		buf, n = grown, n+more
	}
	switch err {
	case io.EOF, io.ErrUnexpectedEOF:
		return s.put(ctx, o, buf[:n])
	case nil:
		return s.multipart(ctx, o, false, func(ctx context.Context, m *multipart) error {
			return m.stream(ctx, buf, body)
		})
	}
	return err
}

// multipart is an upload in parts. Created without a checksum algorithm and completed
// with ETag and number alone, which every S3 understands; the SDK adds a CRC32 to
// each part's own request.
type multipart struct {
	s  *Store
	o  object
	id string

	mu    sync.Mutex
	parts []types.CompletedPart
}

// multipart lets fill send the parts and completes the upload; absent = only when
// nothing is there yet, and what is there already counts as stored. On an error the
// upload is given up.
func (s *Store) multipart(ctx context.Context, o object, absent bool, fill func(context.Context, *multipart) error) error {
	up, err := s.s3.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &o.bucket, Key: &o.key})
	if err != nil {
		return unknown(err)
	}
	m := &multipart{s: s, o: o, id: aws.ToString(up.UploadId)}
	if err := fill(ctx, m); err != nil {
		m.abort(ctx)
		return err
	}
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &o.bucket, Key: &o.key, UploadId: &m.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: m.parts},
	}
	if absent {
		in.IfNoneMatch = aws.String("*")
	}
	_, err = s.s3.CompleteMultipartUpload(ctx, in)
	if err == nil {
		return nil
	}
	m.abort(ctx)
	return fmt.Errorf("complete the upload: %w", unknownOr(err))
}

// unknownOr keeps the HTTP status of a failed condition visible to the caller.
func unknownOr(err error) error {
	if isChanged(err) {
		return fmt.Errorf("%w: %w", hayrick.ErrConflict, err)
	}
	return unknown(err)
}

func (m *multipart) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	if _, err := m.s.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &m.o.bucket, Key: &m.o.key, UploadId: &m.id}); err != nil {
		m.s.log.Debug("an upload was not given up", "key", m.o.key, "error", err)
	}
}

// stream sends first and what follows in body, partsAhead parts at once.
func (m *multipart) stream(ctx context.Context, first []byte, body io.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sending sync.WaitGroup
	free := make(chan []byte, partsAhead+1)
	for range partsAhead {
		free <- nil
	}
	send := func(number int, data, buf []byte) {
		sending.Add(1)
		m.s.world.Go("upload part", func() {
			defer sending.Done()
			if err := m.send(ctx, number, data); err != nil {
				cancel(err)
			}
			free <- buf
		})
	}
	send(1, first, first)
	for number, end := 2, false; !end && ctx.Err() == nil; number++ {
		size := partBytes << ((number - 1) / growEvery)
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			continue
		}
		if len(buf) < size {
			buf = make([]byte, size)
		}
		n, err := io.ReadFull(body, buf[:size])
		if end = err == io.EOF || err == io.ErrUnexpectedEOF; err != nil && !end {
			cancel(err)
			continue
		}
		if n > 0 {
			send(number, buf[:n], buf)
		}
	}
	sending.Wait()
	return context.Cause(ctx)
}

// send stores one part. Its number decides the order; parts end in any.
func (m *multipart) send(ctx context.Context, number int, data []byte) error {
	out, err := m.s.s3.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &m.o.bucket, Key: &m.o.key, UploadId: &m.id, PartNumber: aws.Int32(int32(number)), Body: bytes.NewReader(data),
	})
	if err != nil {
		return fmt.Errorf("send part %d: %w", number, unknown(err))
	}
	m.done(number, out.ETag)
	return nil
}

// done puts a part in its place.
func (m *multipart) done(number int, etag *string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.parts) < number {
		m.parts = append(m.parts, types.CompletedPart{})
	}
	m.parts[number-1] = types.CompletedPart{ETag: etag, PartNumber: aws.Int32(int32(number))}
}
