package aws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"hayrick"
	"hayrick/manifest"
)

// locate reads s3://bucket/key.
func locate(uri string) (object, error) {
	bucket, key, ok := strings.Cut(strings.TrimPrefix(uri, Scheme), "/")
	if !strings.HasPrefix(uri, Scheme) || !ok || bucket == "" {
		return object{}, &hayrick.UserError{What: fmt.Sprintf("%q is no object in S3", uri), Hint: "write s3://bucket/key"}
	}
	return object{bucket, key}, nil
}

// folder is where an output URI begins.
func folder(uri string) (object, error) {
	o, err := locate(strings.TrimRight(uri, "/") + "/")
	if err == nil && o.key != "" && strings.Contains("/"+o.key, "/../") {
		err = &hayrick.UserError{What: fmt.Sprintf("%q holds ..", uri), Hint: "write the folder out"}
	}
	return o, err
}

func inFolder(uri, name string) (object, error) {
	if !manifest.ValidOutputName(name) {
		return object{}, fmt.Errorf("%q is no name of an output file", name)
	}
	o, err := folder(uri)
	o.key += name
	return o, err
}

// singleCopyBytes is what one request copies.
const singleCopyBytes = 5 << 30

// PublishFile copies a stored object into an output folder, over what has that name,
// without its bytes passing through here. A crash leaves the old object or the new.
func (s *Store) PublishFile(ctx context.Context, outputURI, name, key string) error {
	from, err := s.at(key)
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	to, err := inFolder(outputURI, name)
	if err == nil {
		err = s.output(s.copyWhole(ctx, from, to), to)
	}
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return nil
}

func (s *Store) copyWhole(ctx context.Context, from, to object) error {
	h, err := s.head(ctx, from)
	if err != nil {
		return err
	}
	pinned := source{aws.ToString(h.ETag), aws.ToInt64(h.ContentLength)}
	if pinned.size <= singleCopyBytes {
		_, err := s.s3.CopyObject(ctx, &s3.CopyObjectInput{
			Bucket: &to.bucket, Key: &to.key, CopySource: aws.String(copySource(from)), CopySourceIfMatch: &pinned.etag,
		})
		if isChanged(err) {
			return changed(from)
		}
		return unknown(err)
	}
	pieces, err := planAssembly([]manifest.Range{{Key: from.key, Length: pinned.size}}, 0)
	if err != nil {
		return err
	}
	return s.multipart(ctx, to, false, func(ctx context.Context, m *multipart) error {
		return s.each(ctx, len(pieces), func(ctx context.Context, i int) error {
			return m.copy(ctx, i+1, from, pinned, pieces[i].copy)
		})
	})
}

// PublishBytes writes a small object into an output folder.
func (s *Store) PublishBytes(ctx context.Context, outputURI, name string, body []byte) error {
	to, err := inFolder(outputURI, name)
	if err == nil {
		_, err = s.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: &to.bucket, Key: &to.key, Body: bytes.NewReader(body)})
		err = s.output(unknown(err), to)
	}
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return nil
}

// ListOutput returns what an output folder holds, by names relative to it.
func (s *Store) ListOutput(ctx context.Context, outputURI string) ([]manifest.Object, error) {
	under, err := folder(outputURI)
	if err != nil {
		return nil, err
	}
	var out []manifest.Object
	err = s.list(ctx, under, func(o manifest.Object) error {
		o.Key = strings.TrimPrefix(o.Key, under.key)
		if o.Key != "" { // the folder's own marker, as consoles make it
			out = append(out, o)
		}
		return nil
	})
	return out, s.output(err, under)
}

// OpenOutput reads a published object.
func (s *Store) OpenOutput(ctx context.Context, outputURI, name string) (io.ReadCloser, error) {
	o, err := inFolder(outputURI, name)
	if err != nil {
		return nil, err
	}
	r, err := s.open(ctx, o, 0, -1)
	return r, s.output(err, o)
}

// output is err for a published object: it names the bucket where that is at fault, and
// the next step where it may not be written. What asking again does not change is
// hayrick.ErrDenied, and the trouble of who publishes there.
func (s *Store) output(err error, o object) error {
	err = s.refused(inBucket(err, o.bucket, s.purpose(o, forOutput)), o, forOutput)
	var u *hayrick.UserError
	switch {
	case errors.As(err, &u):
		if o.bucket == s.name || errors.Is(err, hayrick.ErrDenied) || u.Exit == exitCredentials || u.Err == nil {
			return err // the store's as a whole, or said already
		}
		return &hayrick.UserError{What: u.What, Hint: u.Hint, Exit: u.Exit, Err: ofOne{u.Err}}
	case !forGood(err):
		return err
	}
	return &hayrick.UserError{
		What: fmt.Sprintf("S3 does not take what is to be published as %s", o), Exit: exitCredentials, Err: ofOne{err},
		Hint: fmt.Sprintf("mend what S3 says of the bucket %s (its encryption, lock and policies), and run the same command again: it goes on where it stopped", o.bucket),
	}
}

// ofOne is an error that is the trouble of one object, which is hayrick.ErrDenied, and
// that says by itself what is wrong with it.
type ofOne struct{ error }

func (o ofOne) Unwrap() error        { return o.error }
func (o ofOne) Is(target error) bool { return target == hayrick.ErrDenied }

// RemoveOutput deletes an object of an output folder; one that is gone is no error.
func (s *Store) RemoveOutput(ctx context.Context, outputURI, name string) error {
	o, err := inFolder(outputURI, name)
	if err == nil {
		_, err = s.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &o.bucket, Key: &o.key})
		err = s.output(unknown(err), o)
	}
	if err != nil && !errors.Is(err, hayrick.ErrNotFound) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
