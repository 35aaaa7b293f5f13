package retryplanner

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"hayrick/manifest"
)

// spool is a list, written line by line and then read as often as is asked. One that is
// longer than a buffer lies on the scratch disk, where it is never found again: a crash
// leaves a file that nothing names.
type spool struct {
	path  string
	f     *os.File // nil: all of it is in buf
	buf   []byte   // what is not in the file
	hash  hash.Hash
	lines int64
	bytes int64
}

const spoolBuffer = 64 << 10

func newSpool(path string) *spool { return &spool{path: path, hash: sha256.New()} }

// add appends v as one line.
func (s *spool) add(v any) error {
	line, err := manifest.EncodeLine(v)
	if err != nil {
		return err
	}
	s.hash.Write(line)
	s.lines++
	s.bytes += int64(len(line))
	if s.buf = append(s.buf, line...); len(s.buf) > spoolBuffer {
		return s.flush()
	}
	return nil
}

func (s *spool) flush() error {
	if s.f == nil {
		if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
			return fmt.Errorf("make the scratch folder: %w", err)
		}
		f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		s.f = f
	}
	if _, err := s.f.Write(s.buf); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.buf = s.buf[:0]
	return nil
}

// sha is the SHA-256 of all lines.
func (s *spool) sha() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// section reads a stretch of the lines. Nothing may be added after the first one.
func (s *spool) section(offset, length int64) (io.Reader, error) {
	if s.f == nil {
		return bytes.NewReader(s.buf[offset : offset+length]), nil
	}
	if err := s.flush(); err != nil {
		return nil, err
	}
	return io.NewSectionReader(s.f, offset, length), nil
}

// close says whether there is a file.
func (s *spool) close() (spilled bool) {
	if s.f != nil {
		s.f.Close()
	}
	return s.f != nil
}
