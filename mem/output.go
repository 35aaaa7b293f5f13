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

// PublishFile copies a stored object into an output folder, over what has that
// name.
func (s *Store) PublishFile(ctx context.Context, outputURI, name, key string) error {
	return run(ctx, s, "Outputs", "PublishFile", name, func() error {
		s.mu.Lock()
		data, err := s.get(key)
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("publish %s: %w", name, err)
		}
		return s.publish(outputURI, name, data)
	})
}

// PublishBytes writes a small file into an output folder.
func (s *Store) PublishBytes(ctx context.Context, outputURI, name string, body []byte) error {
	return run(ctx, s, "Outputs", "PublishBytes", name, func() error {
		return s.publish(outputURI, name, slices.Clone(body))
	})
}

// ListOutput returns what an output folder holds, in order of names.
func (s *Store) ListOutput(ctx context.Context, outputURI string) ([]manifest.Object, error) {
	return do(ctx, s, "Outputs", "ListOutput", outputURI, func() ([]manifest.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return list(s.outputs[folder(outputURI)], ""), nil
	})
}

// OpenOutput reads a published file.
func (s *Store) OpenOutput(ctx context.Context, outputURI, name string) (io.ReadCloser, error) {
	return do(ctx, s, "Outputs", "OpenOutput", name, func() (io.ReadCloser, error) {
		data, err := s.Output(outputURI, name)
		if err != nil {
			return nil, err
		}
		return section(data, 0, -1), nil
	})
}

// RemoveOutput deletes a file of an output folder; one that is gone is no error.
func (s *Store) RemoveOutput(ctx context.Context, outputURI, name string) error {
	return run(ctx, s, "Outputs", "RemoveOutput", name, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.outputs[folder(outputURI)], name)
		return nil
	})
}

// Output returns the bytes of a published file, for tests.
func (s *Store) Output(outputURI, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.outputs[folder(outputURI)][name]
	if !ok {
		return nil, fmt.Errorf("open %s of output %s: %w", name, outputURI, hayrick.ErrNotFound)
	}
	return o.data, nil
}

func (s *Store) publish(outputURI, name string, data []byte) error {
	if !manifest.ValidOutputName(name) {
		return fmt.Errorf("publish %q: not a name of an output file", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := folder(outputURI)
	if s.outputs[f] == nil {
		s.outputs[f] = map[string]object{}
	}
	s.outputs[f][name] = object{data: data, at: s.now()}
	return nil
}

func folder(uri string) string { return strings.TrimRight(uri, "/") }
