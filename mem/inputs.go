package mem

import (
	"context"
	"fmt"
	"io"
	"maps"
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
		pin:  manifest.Pin{Size: int64(len(data)), MTime: manifest.At(s.now()), ETag: digest(data)},
	}
}

// Stat identifies the object at uri now.
func (s *Store) Stat(ctx context.Context, uri string) (manifest.Pin, error) {
	return do(ctx, s, "Inputs", "Stat", uri, func() (manifest.Pin, error) {
		in, err := s.input(uri)
		return in.pin, err
	})
}

// ListSources calls fn for each input below the folder at uri.
func (s *Store) ListSources(ctx context.Context, uri string, fn func(object string, pin manifest.Pin) error) error {
	type entry struct {
		uri string
		pin manifest.Pin
	}
	list, err := do(ctx, s, "Inputs", "ListSources", uri, func() (list []entry, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, name := range slices.Sorted(maps.Keys(s.inputs)) {
			if rel, ok := strings.CutPrefix(name, uri); ok && manifest.IsSource(rel) {
				list = append(list, entry{name, s.inputs[name].pin})
			}
		}
		return list, nil
	})
	for _, e := range list {
		if err := fn(e.uri, e.pin); err != nil {
			return err
		}
	}
	return err
}

// OpenSource reads an input whole.
func (s *Store) OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error) {
	var pin manifest.Pin
	r, err := do(ctx, s, "Inputs", "OpenSource", uri, func() (io.ReadCloser, error) {
		in, err := s.input(uri)
		if err != nil {
			return nil, err
		}
		pin = in.pin
		return section(in.data, 0, -1), nil
	})
	return r, pin, err
}

// OpenInput reads the bytes of a batch.
func (s *Store) OpenInput(ctx context.Context, jobID string, b manifest.Batch) (io.ReadCloser, error) {
	return do(ctx, s, "Inputs", "OpenInput", b.Object, func() (io.ReadCloser, error) {
		if rel, ok := strings.CutPrefix(b.Object, manifest.StoreScheme); ok {
			s.mu.Lock()
			defer s.mu.Unlock()
			data, err := s.get(manifest.Job(jobID).Abs(rel))
			if err != nil {
				return nil, fmt.Errorf("open input %s: %w", b.Object, err)
			}
			return section(data, b.Offset, b.Length), nil
		}
		in, err := s.input(b.Object)
		if err != nil {
			return nil, err
		}
		return section(in.data, b.Offset, b.Length), nil
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
