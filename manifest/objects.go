package manifest

import (
	"context"
	"io"
	"strings"
	"time"
)

// Objects is the object store. Keys are slash-separated parts of
// [a-z0-9._-]; an adapter refuses any other and never leaves its root.
//
// Every method may be called concurrently. A read of what is not there is
// hayrick.ErrNotFound. A write that may or may not have happened is
// hayrick.ErrUnknown. Adapters retry what is transient themselves.
type Objects interface {
	// Open reads length bytes from offset; length < 0 reads to the end. A range that
	// goes beyond the end gives what is there.
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Put stores data under a key that only ever gets these bytes. On return it is
	// durable and whole; before that nothing is visible under the key. Doing it again
	// is harmless.
	Put(ctx context.Context, key string, body io.Reader) error
	// Commit stores body if the key is absent. stored = false means that the key was
	// there, perhaps from an earlier try of this very call: read back and compare.
	// ErrUnknown means undecided. When it answers stored the object is durable, and so
	// is every Put and Commit that returned before it.
	Commit(ctx context.Context, key string, body []byte) (stored bool, err error)
	// Replace stores a view, atomically, over what is there. It need not be durable.
	Replace(ctx context.Context, key string, body []byte) error
	// List calls fn for every object whose key starts with prefix, in any order.
	List(ctx context.Context, prefix string, fn func(Object) error) error
}

// Remover takes objects away. One that is not there is no error; a crash leaves the
// object or none.
type Remover interface {
	Remove(ctx context.Context, key string) error
}

// Object is one entry of a listing.
type Object struct {
	Key     string
	Size    int64
	ModTime time.Time
}

// Blob is an object opened for reads at random places.
type Blob interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Range is a stretch of an object.
type Range struct {
	Key            string
	Offset, Length int64
}

// ValidKey says whether key is below Jobs and made of parts that are safe on every
// backend: [a-z0-9._-]{1,255}, none of them "." or "..".
func ValidKey(key string) bool {
	return strings.HasPrefix(key, Jobs) && validParts(key, "abcdefghijklmnopqrstuvwxyz0123456789._-")
}

// ValidOutputName says whether name may be published: part-00000.parquet,
// lists/x.jsonl, _SUCCESS. No part starts with a dot.
func ValidOutputName(name string) bool {
	return name != "" && name[0] != '.' && !strings.Contains(name, "/.") &&
		validParts(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-=%")
}

// maxPart is the longest name of a folder or file.
const maxPart = 255

func validParts(s, chars string) bool {
	if len(s) > 1024 {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." || len(part) > maxPart || strings.Trim(part, chars) != "" {
			return false
		}
	}
	return true
}
