package aws

import (
	"context"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Data is a store's bucket as a whole, to who makes and removes stores: infra's Data,
// but for where the zip comes from.
type Data struct{ store *Store }

// Data is the store's bucket as a whole.
func (s *Store) Data() Data { return Data{s} }

// Has says whether an object is there.
func (d Data) Has(ctx context.Context, key string) (bool, error) {
	_, err := d.store.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &d.store.name, Key: &key})
	switch {
	case status(err) == 404:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for %s: %w", object{d.store.name, key}, explain(err))
	}
	return true, nil
}

// Put stores the function's zip under its key, which has its hash. A crash leaves nothing
// under that key, and at most an upload in parts that the lifecycle removes.
func (d Data) Put(ctx context.Context, key string, body io.Reader) error {
	if err := d.store.upload(ctx, object{d.store.name, key}, body); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// State says whether the bucket is there and whether anything is in it.
func (d Data) State(ctx context.Context) (there, objects bool, err error) {
	bucket := &d.store.name
	versions, err := d.store.s3.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: bucket, MaxKeys: aws.Int32(1)})
	if code(err) == "NoSuchBucket" || status(err) == 404 {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("look into bucket %s: %w", *bucket, explain(err))
	}
	if len(versions.Versions)+len(versions.DeleteMarkers) > 0 {
		return true, true, nil
	}
	uploads, err := d.store.s3.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: bucket, MaxUploads: aws.Int32(1)})
	if err != nil {
		return true, false, fmt.Errorf("look for uploads in bucket %s: %w", *bucket, explain(err))
	}
	return true, len(uploads.Uploads) > 0, nil
}

// Empty removes every object, version and upload in parts. A crash leaves the rest, for
// the next call.
func (d Data) Empty(ctx context.Context) error {
	bucket := &d.store.name
	versions := s3.NewListObjectVersionsPaginator(d.store.s3, &s3.ListObjectVersionsInput{Bucket: bucket})
	for versions.HasMorePages() {
		page, err := versions.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list bucket %s: %w", *bucket, explain(err))
		}
		var ids []types.ObjectIdentifier
		for _, v := range page.Versions {
			ids = append(ids, types.ObjectIdentifier{Key: v.Key, VersionId: v.VersionId})
		}
		for _, m := range page.DeleteMarkers {
			ids = append(ids, types.ObjectIdentifier{Key: m.Key, VersionId: m.VersionId})
		}
		if len(ids) == 0 {
			continue
		}
		out, err := d.store.s3.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)}})
		if err != nil {
			return fmt.Errorf("empty bucket %s: %w", *bucket, explain(err))
		}
		if len(out.Errors) > 0 {
			e := out.Errors[0]
			return fmt.Errorf("empty bucket %s: %d of %d stay, the first %s: %s: %s", *bucket, len(out.Errors), len(ids), aws.ToString(e.Key), aws.ToString(e.Code), aws.ToString(e.Message))
		}
	}
	uploads := s3.NewListMultipartUploadsPaginator(d.store.s3, &s3.ListMultipartUploadsInput{Bucket: bucket})
	for uploads.HasMorePages() {
		page, err := uploads.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list the uploads of bucket %s: %w", *bucket, explain(err))
		}
		for _, u := range page.Uploads {
			_, err := d.store.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: u.Key, UploadId: u.UploadId})
			if err != nil && code(err) != "NoSuchUpload" {
				return fmt.Errorf("give an upload up in bucket %s: %w", *bucket, explain(err))
			}
		}
	}
	return nil
}

// Remove removes the empty bucket.
func (d Data) Remove(ctx context.Context) error {
	_, err := d.store.s3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &d.store.name})
	if err != nil && code(err) != "NoSuchBucket" {
		return fmt.Errorf("remove bucket %s: %w", d.store.name, explain(err))
	}
	return nil
}
