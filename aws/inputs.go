package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"hayrick"
	"hayrick/manifest"
)

// Inputs are objects in S3 as the inputs of a store that lies elsewhere.
type Inputs struct{ store *Store } // without a name: no bucket is its own

// OpenInputs is Open for inputs alone: credentials, region and endpoint are those of the
// environment, and it asks for nothing.
func OpenInputs(ctx context.Context, world hayrick.World, log *slog.Logger) (Inputs, error) {
	cfg, err := LoadConfig(ctx)
	if err != nil {
		return Inputs{}, err
	}
	return Inputs{New(cfg, "", world, log)}, nil
}

// Stat is Store.Stat.
func (i Inputs) Stat(ctx context.Context, uri string) (manifest.Pin, error) {
	return i.store.Stat(ctx, uri)
}

// ListSources is Store.ListSources.
func (i Inputs) ListSources(ctx context.Context, uri string, fn func(object string, pin manifest.Pin) error) error {
	return i.store.ListSources(ctx, uri, fn)
}

// OpenSource is Store.OpenSource.
func (i Inputs) OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error) {
	return i.store.OpenSource(ctx, uri)
}

// OpenInput is Store.OpenInput of a batch of an object in S3.
func (i Inputs) OpenInput(ctx context.Context, jobID string, b manifest.Batch) (io.ReadCloser, error) {
	return i.store.OpenInput(ctx, jobID, b)
}

// Stat identifies the object at uri now.
func (s *Store) Stat(ctx context.Context, uri string) (manifest.Pin, error) {
	o, err := locate(uri)
	if err != nil {
		return manifest.Pin{}, err
	}
	h, err := s.head(ctx, o)
	if err != nil {
		return manifest.Pin{}, fmt.Errorf("stat input: %w", s.source(err, o))
	}
	return pinOf(h.ContentLength, h.LastModified, h.ETag, h.VersionId), nil
}

// pinOf is a pin, of whichever reply. Listings and headers tell the time with
// another precision: the second is what they share.
func pinOf(size *int64, modified *time.Time, etag, version *string) manifest.Pin {
	pin := manifest.Pin{Size: aws.ToInt64(size), MTime: manifest.At(aws.ToTime(modified).Truncate(time.Second)), ETag: strings.Trim(aws.ToString(etag), `"`)}
	if v := aws.ToString(version); v != "null" { // that of an object from before the bucket kept versions
		pin.Version = v
	}
	return pin
}

// ListSources calls fn for each object below the prefix at uri, a page at a time.
func (s *Store) ListSources(ctx context.Context, uri string, fn func(object string, pin manifest.Pin) error) error {
	under, err := locate(uri)
	if err != nil {
		return err
	}
	if under.bucket == s.name && strings.HasPrefix(manifest.Jobs, under.key) {
		return &hayrick.UserError{What: fmt.Sprintf("%s holds the runs of this store", uri), Hint: "name the folder that the inputs lie in"}
	}
	err = s.entries(ctx, under, func(o types.Object) error {
		key := aws.ToString(o.Key)
		if !manifest.IsSource(strings.TrimPrefix(key, under.key)) {
			return nil
		}
		return fn(object{under.bucket, key}.String(), pinOf(o.Size, o.LastModified, o.ETag, nil))
	})
	return s.source(err, under)
}

// OpenSource reads the object at uri whole. What is read is one version of it, in
// whatever many requests.
func (s *Store) OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error) {
	o, err := locate(uri)
	if err != nil {
		return nil, manifest.Pin{}, err
	}
	r := &reader{ctx: ctx, s: s, o: o, left: -1, input: true}
	if err := r.connect(); err != nil {
		return nil, manifest.Pin{}, fmt.Errorf("open input: %w", s.source(err, o))
	}
	return r, r.pin, nil
}

// OpenInput reads the bytes of a batch: a range of an object at a URI, or of one
// below the job's folder. The version that was indexed is read where S3 has it, after
// the object was replaced or deleted too. Where it is gone, or there are no versions,
// what is there now is read: the same bytes may have been stored again, and whether
// they are the same the batch's SHA-256 tells, which an ETag does not.
func (s *Store) OpenInput(ctx context.Context, jobID string, b manifest.Batch) (io.ReadCloser, error) {
	if rel, ok := strings.CutPrefix(b.Object, manifest.StoreScheme); ok {
		return s.Open(ctx, manifest.Job(jobID).Abs(rel), b.Offset, b.Length)
	}
	o, err := locate(b.Object)
	if err != nil {
		return nil, err
	}
	r := &reader{ctx: ctx, s: s, o: o, input: true, version: b.Version, offset: b.Offset, left: b.Length}
	err = r.connect()
	if r.version != "" && errors.Is(err, hayrick.ErrNotFound) {
		r.version = ""
		err = r.connect()
	}
	switch {
	case err == errBeyond:
		return io.NopCloser(strings.NewReader("")), nil
	case err != nil:
		return nil, fmt.Errorf("open input: %w", input(err))
	}
	return r, nil
}

// Clone does nothing: a copy in S3 costs storage, and a batch's SHA-256 tells when
// the object was replaced.
func (s *Store) Clone(context.Context, string, string) (bool, error) { return false, nil }

// source is err for an input that a person names: of a bucket that is not there it
// says so, and it counts as the object not being there.
func (s *Store) source(err error, o object) error {
	var u *hayrick.UserError
	if s.name == "" && errors.As(err, &u) && u.What == otherRegion {
		return &hayrick.UserError{What: fmt.Sprintf("the bucket %s of the input is in another region than AWS_REGION", o.bucket), Hint: u.Hint, Exit: u.Exit, Err: u.Err}
	}
	err = s.refused(inBucket(err, o.bucket, s.purpose(o, forInput)), o, forInput)
	if errors.As(err, &u) && code(err) == "NoSuchBucket" {
		u.Err = fmt.Errorf("%w: %w", hayrick.ErrNotFound, u.Err)
	}
	return err
}

// input is err for an input: a bucket that is not there is its object not being
// there.
func input(err error) error {
	var u *hayrick.UserError
	if errors.As(err, &u) && code(err) == "NoSuchBucket" {
		return fmt.Errorf("%w: %w", hayrick.ErrNotFound, u.Err)
	}
	return err
}
