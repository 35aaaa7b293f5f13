package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"hayrick"
	"hayrick/manifest"
)

// Stat identifies the object at uri now.
func (s *Store) Stat(ctx context.Context, uri string) (manifest.Pin, error) {
	o, err := locate(uri)
	if err != nil {
		return manifest.Pin{}, err
	}
	h, err := s.head(ctx, o)
	if err != nil {
		return manifest.Pin{}, fmt.Errorf("stat input: %w", input(err))
	}
	pin := manifest.Pin{Size: aws.ToInt64(h.ContentLength), MTime: manifest.At(aws.ToTime(h.LastModified)), ETag: strings.Trim(aws.ToString(h.ETag), `"`)}
	if v := aws.ToString(h.VersionId); v != "" && v != "null" {
		pin.ETag = "version:" + v
	}
	return pin, nil
}

// OpenSource reads the object at uri from offset to its end.
func (s *Store) OpenSource(ctx context.Context, uri string, offset int64) (io.ReadCloser, error) {
	return s.OpenInput(ctx, "", uri, offset, -1)
}

// OpenInput reads a range of an object at a URI, or of one below the job's folder.
func (s *Store) OpenInput(ctx context.Context, jobID, uri string, offset, length int64) (io.ReadCloser, error) {
	if rel, ok := strings.CutPrefix(uri, manifest.StoreScheme); ok {
		return s.Open(ctx, manifest.Job(jobID).Abs(rel), offset, length)
	}
	o, err := locate(uri)
	if err != nil {
		return nil, err
	}
	r, err := s.open(ctx, o, offset, length)
	if err != nil {
		return nil, fmt.Errorf("open input: %w", input(err))
	}
	return r, nil
}

// Clone does nothing: a copy in S3 costs storage, and a batch's SHA-256 tells when
// the object was replaced.
func (s *Store) Clone(ctx context.Context, uri, key string) (bool, error) {
	_, err := s.Stat(ctx, uri)
	return false, err
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
