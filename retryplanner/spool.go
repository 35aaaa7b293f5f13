package retryplanner

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"

	"hayrick/manifest"
)

// spool is a list on the scratch disk: written line by line, then read as often as
// is asked. It is never found again: a crash leaves a file that nothing names.
type spool struct {
	f     *os.File
	w     *bufio.Writer
	hash  hash.Hash
	lines int64
	bytes int64
}

func newSpool(path string) (*spool, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return &spool{f: f, w: bufio.NewWriterSize(f, 64<<10), hash: sha256.New()}, nil
}

// add appends v as one line.
func (s *spool) add(v any) error {
	line, err := manifest.EncodeLine(v)
	if err != nil {
		return err
	}
	s.hash.Write(line)
	s.lines++
	s.bytes += int64(len(line))
	if _, err := s.w.Write(line); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// sha is the SHA-256 of all lines.
func (s *spool) sha() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// section reads a stretch of the lines. Nothing may be added after the first one.
func (s *spool) section(offset, length int64) (io.Reader, error) {
	if err := s.w.Flush(); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return io.NewSectionReader(s.f, offset, length), nil
}

func (s *spool) close() { s.f.Close() }
