package mem

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// input is one named input of job files.
type input struct {
	data []byte
	pin  manifest.Pin
}

// SetInput makes data the object at uri; nil removes it.
func (s *Store) SetInput(uri string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data == nil {
		delete(s.inputs, uri)
		return
	}
	s.inputs[uri] = input{
		data: slices.Clone(data),
		pin:  manifest.Pin{Size: int64(len(data)), MTime: manifest.At(s.clock.Now()), ETag: digest(data)},
	}
}

// Stat identifies the object at uri now.
func (s *Store) Stat(ctx context.Context, uri string) (manifest.Pin, error) {
	return do(ctx, s, "Inputs", "Stat", uri, func() (manifest.Pin, error) {
		in, err := s.input(uri)
		return in.pin, err
	})
}

// OpenSource reads an input from offset to its end.
func (s *Store) OpenSource(ctx context.Context, uri string, offset int64) (io.ReadCloser, error) {
	return do(ctx, s, "Inputs", "OpenSource", uri, func() (io.ReadCloser, error) {
		in, err := s.input(uri)
		if err != nil {
			return nil, err
		}
		return section(in.data, offset, -1), nil
	})
}

// OpenInput reads a range of an input, or of an object below the job's folder.
func (s *Store) OpenInput(ctx context.Context, jobID, object string, offset, length int64) (io.ReadCloser, error) {
	return do(ctx, s, "Inputs", "OpenInput", object, func() (io.ReadCloser, error) {
		if rel, ok := strings.CutPrefix(object, manifest.StoreScheme); ok {
			s.mu.Lock()
			defer s.mu.Unlock()
			data, err := s.get(manifest.Job(jobID).Abs(rel))
			if err != nil {
				return nil, fmt.Errorf("open input %s: %w", object, err)
			}
			return section(data, offset, length), nil
		}
		in, err := s.input(object)
		if err != nil {
			return nil, err
		}
		return section(in.data, offset, length), nil
	})
}

// Clone copies an input to key where CanClone says that this costs nothing.
func (s *Store) Clone(ctx context.Context, uri, key string) (bool, error) {
	return do(ctx, s, "Inputs", "Clone", uri, func() (bool, error) {
		in, err := s.input(uri)
		if err != nil || !s.CanClone {
			return false, err
		}
		return true, s.put(key, in.data)
	})
}

func (s *Store) input(uri string) (input, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, ok := s.inputs[uri]
	if !ok {
		return in, fmt.Errorf("open input %s: %w", uri, hayrick.ErrNotFound)
	}
	return in, nil
}
