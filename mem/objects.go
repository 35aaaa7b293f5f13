package mem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// object is stored bytes, never changed in place.
type object struct {
	data   []byte
	at     time.Time
	view   bool // written by Replace
	commit bool // written by Commit
}

// Commit is one commit that was stored: the history that checkers read.
type Commit struct {
	Actor  string
	Key    string
	SHA256 string
}

// Open reads a range of an object.
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return do(ctx, s, "Objects", "Open", key, func() (io.ReadCloser, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		data, err := s.get(key)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", key, err)
		}
		return section(data, offset, length), nil
	})
}

// Put stores data under a key that only ever gets these bytes.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) error {
	data, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("put %s: read the body: %w", key, err)
	}
	return run(ctx, s, "Objects", "Put", key, func() error { return s.put(key, data) })
}

// Commit stores body if the key is absent.
func (s *Store) Commit(ctx context.Context, key string, body []byte) (bool, error) {
	return do(ctx, s, "Objects", "Commit", key, func() (bool, error) {
		if !manifest.ValidKey(key) {
			return false, fmt.Errorf("commit %q: not an object key", key)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, ok := s.objects[key]; ok {
			return false, nil
		}
		s.objects[key] = object{data: slices.Clone(body), at: s.now(), commit: true}
		s.commits = append(s.commits, Commit{Actor: s.who(ctx), Key: key, SHA256: digest(body)})
		return true, nil
	})
}

// Replace stores a view over what is there.
func (s *Store) Replace(ctx context.Context, key string, body []byte) error {
	return give(ctx, s, "Objects", "Replace", key, body, func() error {
		if !manifest.ValidKey(key) {
			return fmt.Errorf("replace %q: not an object key", key)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if old, ok := s.objects[key]; ok && !old.view {
			s.violation("Replace of %s, which is no view", key)
		}
		s.objects[key] = object{data: slices.Clone(body), at: s.now(), view: true}
		return nil
	})
}

// Remove takes an object away.
func (s *Store) Remove(ctx context.Context, key string) error {
	return run(ctx, s, "Objects", "Remove", key, func() error {
		if !manifest.ValidKey(key) {
			return fmt.Errorf("remove %q: not an object key", key)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.objects, key)
		return nil
	})
}

// List calls fn for every object whose key starts with prefix, in order of keys.
func (s *Store) List(ctx context.Context, prefix string, fn func(manifest.Object) error) error {
	found, err := do(ctx, s, "Objects", "List", prefix, func() ([]manifest.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return list(s.objects, prefix), nil
	})
	if err != nil {
		return err
	}
	for _, o := range found {
		if err := fn(o); err != nil {
			return err
		}
	}
	return nil
}

// Jobs returns the names of the folders directly below jobs/, in order.
func (s *Store) Jobs(ctx context.Context) ([]string, error) {
	return do(ctx, s, "Objects", "Jobs", manifest.Jobs, func() ([]string, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		names := map[string]bool{}
		for key := range s.objects {
			if name, _, ok := strings.Cut(strings.TrimPrefix(key, manifest.Jobs), "/"); ok {
				names[name] = true
			}
		}
		return slices.Sorted(maps.Keys(names)), nil
	})
}

// OpenAt opens an object for reads at random places. Each ReadAt is a call.
func (s *Store) OpenAt(ctx context.Context, key string) (manifest.Blob, error) {
	return do(ctx, s, "Objects", "OpenAt", key, func() (manifest.Blob, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		data, err := s.get(key)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", key, err)
		}
		return &blob{ctx: ctx, s: s, key: key, r: bytes.NewReader(data)}, nil
	})
}

// Assemble builds an object from ranges of others and a literal tail, as Put
// would store it. A range that its source does not have is hayrick.ErrCorrupt.
func (s *Store) Assemble(ctx context.Context, key string, parts []manifest.Range, tail []byte) (remote bool, err error) {
	return s.Remote, run(ctx, s, "Objects", "Assemble", key, func() error {
		s.mu.Lock()
		var data []byte
		for _, p := range parts {
			src, err := s.get(p.Key)
			if err == nil && (p.Offset < 0 || p.Length < 0 || p.Offset+p.Length > int64(len(src))) {
				err = fmt.Errorf("it has %d bytes, not [%d, +%d): %w", len(src), p.Offset, p.Length, hayrick.ErrCorrupt)
			}
			if err != nil {
				s.mu.Unlock()
				return fmt.Errorf("assemble %s from %s: %w", key, p.Key, err)
			}
			data = append(data, src[p.Offset:p.Offset+p.Length]...)
		}
		s.mu.Unlock()
		return s.put(key, append(data, tail...))
	})
}

// Snapshot returns the bytes of every object by key. They must not be changed.
func (s *Store) Snapshot() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string][]byte, len(s.objects))
	for k, o := range s.objects {
		out[k] = o.data
	}
	return out
}

// Commits returns every commit that was stored, in order.
func (s *Store) Commits() []Commit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commits)
}

// Damage changes stored bytes behind the back of the program, for tests of those
// who verify. Nil deletes the object.
func (s *Store) Damage(key string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data == nil {
		delete(s.objects, key)
		return
	}
	o := s.objects[key]
	o.data = slices.Clone(data)
	s.objects[key] = o
}

// put stores data, or keeps what is there: the first bytes win, other ones are a
// violation.
func (s *Store) put(key string, data []byte) error {
	if !manifest.ValidKey(key) {
		return fmt.Errorf("put %q: not an object key", key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.objects[key]; ok {
		if !bytes.Equal(old.data, data) {
			s.violation("Put of %s with other bytes than are there", key)
		}
		return nil
	}
	s.objects[key] = object{data: data, at: s.now()}
	return nil
}

// get needs s.mu.
func (s *Store) get(key string) ([]byte, error) {
	if !manifest.ValidKey(key) {
		return nil, fmt.Errorf("%q is not an object key", key)
	}
	o, ok := s.objects[key]
	if !ok {
		return nil, hayrick.ErrNotFound
	}
	return o.data, nil
}

// blob is an opened object.
type blob struct {
	ctx context.Context // of OpenAt: io.ReaderAt has none
	s   *Store
	key string
	r   *bytes.Reader
}

func (b *blob) ReadAt(p []byte, off int64) (int, error) {
	return do(b.ctx, b.s, "Objects", "ReadAt", b.key, func() (int, error) { return b.r.ReadAt(p, off) })
}

func (b *blob) Size() int64  { return b.r.Size() }
func (b *blob) Close() error { return nil }

// section is the part of data that a range names, as far as it exists.
func section(data []byte, offset, length int64) io.ReadCloser {
	offset = min(max(offset, 0), int64(len(data)))
	data = data[offset:]
	if length >= 0 && length < int64(len(data)) {
		data = data[:length]
	}
	return io.NopCloser(bytes.NewReader(data))
}

func list(objects map[string]object, prefix string) []manifest.Object {
	var out []manifest.Object
	for k, o := range objects {
		if strings.HasPrefix(k, prefix) {
			out = append(out, manifest.Object{Key: k, Size: int64(len(o.data)), ModTime: o.at})
		}
	}
	slices.SortFunc(out, func(a, b manifest.Object) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
