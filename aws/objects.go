package aws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"hayrick"
	"hayrick/manifest"
)

// object is where bytes lie in S3.
type object struct{ bucket, key string }

func (o object) String() string { return Scheme + o.bucket + "/" + o.key }

// at is the place of a store's object.
func (s *Store) at(key string) (object, error) {
	if !manifest.ValidKey(key) {
		return object{}, fmt.Errorf("%q is not an object key", key)
	}
	return object{s.name, key}, nil
}

// Open reads a range of an object.
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	o, err := s.at(key)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	r, err := s.open(ctx, o, offset, length)
	return r, inBucket(err, s.name, forStore)
}

// Put stores data under a key that only ever gets these bytes. A crash leaves
// nothing, or an upload that nobody sees and the bucket's lifecycle rule removes.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) error {
	o, err := s.at(key)
	if err == nil {
		err = inBucket(s.upload(ctx, o, body), s.name, forStore)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// Commit stores body if the key is absent. S3 answers 412 when it is there, which
// may be this call's own earlier try, and 409 when it cannot tell because another
// write is under way: that one is asked again a few times before it is unknown.
func (s *Store) Commit(ctx context.Context, key string, body []byte) (bool, error) {
	o, err := s.at(key)
	if err != nil {
		return false, fmt.Errorf("commit: %w", err)
	}
	for try := 0; ; try++ {
		_, err := s.s3.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &o.bucket, Key: &o.key, Body: bytes.NewReader(body), IfNoneMatch: aws.String("*"),
		})
		switch {
		case err == nil:
			return true, nil
		case status(err) == http.StatusPreconditionFailed:
			return false, nil
		case status(err) == http.StatusConflict && try < conflictTries:
			if err := s.world.Clock.Sleep(ctx, s.jitter(conflictWait<<try)); err == nil {
				continue
			}
		}
		return false, fmt.Errorf("commit %s: %w", key, inBucket(unknown(err), s.name, forStore))
	}
}

const (
	conflictTries = 5
	conflictWait  = 20 * time.Millisecond
)

// jitter is a random time between half of d and d.
func (s *Store) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(s.world.Rand.Uint64()%uint64(d/2+1))
}

// Replace stores a view over what is there.
func (s *Store) Replace(ctx context.Context, key string, body []byte) error {
	o, err := s.at(key)
	if err == nil {
		err = inBucket(s.put(ctx, o, body), s.name, forStore)
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", key, err)
	}
	return nil
}

// put stores a small object over what is there.
func (s *Store) put(ctx context.Context, o object, body []byte) error {
	_, err := s.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: &o.bucket, Key: &o.key, Body: bytes.NewReader(body)})
	return unknown(err)
}

// Remove takes an object away. In a bucket that keeps versions the version stays, for
// the bucket's lifecycle to end.
func (s *Store) Remove(ctx context.Context, key string) error {
	o, err := s.at(key)
	if err == nil {
		_, err = s.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &o.bucket, Key: &o.key})
		err = inBucket(unknown(err), s.name, forStore)
	}
	if err != nil && !errors.Is(err, hayrick.ErrNotFound) {
		return fmt.Errorf("remove %s: %w", key, err)
	}
	return nil
}

// List calls fn for every object whose key starts with prefix, in order of keys.
func (s *Store) List(ctx context.Context, prefix string, fn func(manifest.Object) error) error {
	return inBucket(s.list(ctx, object{s.name, prefix}, fn), s.name, forStore)
}

func (s *Store) list(ctx context.Context, under object, fn func(manifest.Object) error) error {
	return s.entries(ctx, under, func(o types.Object) error {
		return fn(manifest.Object{Key: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), ModTime: aws.ToTime(o.LastModified)})
	})
}

// entries calls fn for every object below a prefix; it holds one page.
func (s *Store) entries(ctx context.Context, under object, fn func(types.Object) error) error {
	pages := s3.NewListObjectsV2Paginator(s.s3, &s3.ListObjectsV2Input{Bucket: &under.bucket, Prefix: &under.key})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list %s: %w", under, explain(err))
		}
		for _, o := range page.Contents {
			if err := fn(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// Jobs returns the names of the folders directly below jobs/, in order.
func (s *Store) Jobs(ctx context.Context) ([]string, error) {
	var names []string
	pages := s3.NewListObjectsV2Paginator(s.s3, &s3.ListObjectsV2Input{Bucket: &s.name, Prefix: aws.String(manifest.Jobs), Delimiter: aws.String("/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the jobs: %w", inBucket(explain(err), s.name, forStore))
		}
		for _, p := range page.CommonPrefixes {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(aws.ToString(p.Prefix), manifest.Jobs), "/"))
		}
	}
	return names, nil
}

// head is an object's size and what names its version.
func (s *Store) head(ctx context.Context, o object) (*s3.HeadObjectOutput, error) {
	h, err := s.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &o.bucket, Key: &o.key})
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", o, explain(err))
	}
	return h, nil
}

// changed says that an object is not the version that was asked for.
func changed(o object) error {
	return fmt.Errorf("%s was replaced while it was read: %w", o, hayrick.ErrCorrupt)
}

func isChanged(err error) bool { return status(err) == http.StatusPreconditionFailed }

var errBeyond = errors.New("beyond the end")
