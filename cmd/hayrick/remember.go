package main

import (
	"bytes"
	"context"
	"io"
	"sync"

	"hayrick/manifest"
)

// remembered are the objects of a store, of which those that never change are read once:
// who looks at a run again and again pays for what may have changed. What is not there
// is asked for each time.
type remembered struct {
	manifest.Objects

	mu    sync.Mutex
	held  map[string][]byte // guarded by mu: whole objects, by key
	bytes int               // guarded by mu: in held
}

// heldBytes bounds what is remembered; a job's are some kilobytes.
const heldBytes = 32 << 20

func remember(o manifest.Objects) *remembered {
	return &remembered{Objects: o, held: map[string][]byte{}}
}

// Open is manifest.Objects.
func (r *remembered) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	whole := offset == 0 && (length < 0 || length > manifest.MaxRecordBytes)
	if !whole || !manifest.Decides(key) {
		return r.Objects.Open(ctx, key, offset, length)
	}
	r.mu.Lock()
	b, ok := r.held[key]
	r.mu.Unlock()
	if ok {
		return io.NopCloser(bytes.NewReader(b)), ctx.Err()
	}
	body, err := r.Objects.Open(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if b, err = io.ReadAll(body); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes+len(b) > heldBytes {
		clear(r.held)
		r.bytes = 0
	}
	r.held[key] = b
	r.bytes += len(b)
	return io.NopCloser(bytes.NewReader(b)), nil
}
