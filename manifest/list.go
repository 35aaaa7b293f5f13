package manifest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// Temp is a scratch file: written, read back from the start, and gone when closed.
type Temp interface {
	io.ReadWriteSeeker
	io.ReaderAt
	io.Closer
}

// ListWriter writes a list of any length through scratch, because its key holds the
// digest of all its lines.
type ListWriter struct {
	temp  Temp
	buf   *bufio.Writer
	hash  hash.Hash
	count int64
}

// NewListWriter starts a list in temp, which it closes.
func NewListWriter(temp Temp) *ListWriter {
	h := sha256.New()
	return &ListWriter{temp: temp, buf: bufio.NewWriter(io.MultiWriter(temp, h)), hash: h}
}

// Add appends v as one line.
func (w *ListWriter) Add(v any) error {
	line, err := EncodeLine(v)
	if err != nil {
		return err
	}
	w.count++
	if _, err := w.buf.Write(line); err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	return nil
}

// Count is the number of lines so far.
func (w *ListWriter) Count() int64 { return w.count }

// Put stores the list under the key that key gives for its digest. A list without
// lines is not stored: its Ref is nil.
func (w *ListWriter) Put(ctx context.Context, s *Store, job string, key func(sha string) string) (*Ref, error) {
	if w.count == 0 {
		return nil, nil
	}
	if err := w.buf.Flush(); err != nil {
		return nil, fmt.Errorf("write list: %w", err)
	}
	sha := hex.EncodeToString(w.hash.Sum(nil))
	if _, err := w.temp.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("write list: %w", err)
	}
	k := key(sha)
	if err := s.Objects.Put(ctx, k, w.temp); err != nil {
		return nil, fmt.Errorf("put %s: %w", k, err)
	}
	return &Ref{Key: Job(job).Rel(k), SHA256: sha, Count: w.count}, nil
}

// Close frees the scratch.
func (w *ListWriter) Close() error { return w.temp.Close() }
