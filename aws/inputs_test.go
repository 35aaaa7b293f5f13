//go:build standins

package aws_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"hayrick"
	"hayrick/aws"
	"hayrick/internal/standins"
	"hayrick/manifest"
)

// anotherBucket is one that is not the store's.
func anotherBucket(t *testing.T, cfg sdk.Config) string {
	t.Helper()
	return standins.Store(t, cfg)
}

func inputOf(t *testing.T, s *aws.Store, b manifest.Batch) (string, error) {
	t.Helper()
	r, err := s.OpenInput(t.Context(), string(job), b)
	if err != nil {
		return "", err
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	return string(body), err
}

// Where the bucket keeps versions, the one that was pinned is read after it was
// replaced, and after it was deleted; once it is gone for good, what was stored again.
func TestAVersionIsReadWhereThereIsOne(t *testing.T) {
	cfg := standins.Config(t)
	w := newWire()
	s := storeOn(t, w)
	bucket := anotherBucket(t, cfg)
	client := standins.S3(cfg)
	if _, err := client.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	}); err != nil {
		t.Fatal(err)
	}
	uri := aws.Scheme + bucket + "/in/users.jsonl"
	put(t, cfg, bucket, "in/users.jsonl", []byte("0123456789"))
	looked, err := s.Stat(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	r, pin, err := s.OpenSource(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if pin.Version == "" || pin != looked {
		t.Fatalf("opened with %+v, looked at with %+v", pin, looked)
	}
	b := manifest.Batch{Object: uri, Version: pin.Version, Offset: 2, Length: 3}
	reads := func(what, want string) {
		t.Helper()
		if got, err := inputOf(t, s, b); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", what, got, err, want)
		}
	}
	reads("at first", "234")
	put(t, cfg, bucket, "in/users.jsonl", []byte("other bytes"))
	reads("replaced", "234")
	if _, err := client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: sdk.String("in/users.jsonl")}); err != nil {
		t.Fatal(err)
	}
	reads("deleted", "234")
	if _, err := client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: sdk.String("in/users.jsonl"), VersionId: &pin.Version}); err != nil {
		t.Fatal(err)
	}
	if _, err := inputOf(t, s, b); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("gone for good: %v", err)
	}
	put(t, cfg, bucket, "in/users.jsonl", []byte("0123456789"))
	reads("stored again", "234")
}

// A bucket that is not there is named, with what it is for, whoever meets it.
func TestAMissingBucketIsNamed(t *testing.T) {
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	world := hayrick.RealWorld("host/1")
	s, gone := aws.New(cfg, name, world, nil), aws.New(cfg, name+"-gone", world, nil)
	if err := s.Put(t.Context(), "jobs/x/a", strings.NewReader("a")); err != nil {
		t.Fatal(err)
	}
	none := func(string, manifest.Pin) error { return nil }
	for _, c := range []struct {
		what, says string
		exit       int
		do         func(bucket string) error
	}{
		{"list inputs", "of the input", 4, func(b string) error { return s.ListSources(t.Context(), aws.Scheme+b+"/in/", none) }},
		{"open an input", "of the input", 4, func(b string) error {
			_, _, err := s.OpenSource(t.Context(), aws.Scheme+b+"/in.jsonl")
			return err
		}},
		{"list the output", "of the output", 4, func(b string) error { _, err := s.ListOutput(t.Context(), aws.Scheme+b+"/out/"); return err }},
		{"publish", "of the output", 4, func(b string) error { return s.PublishFile(t.Context(), aws.Scheme+b+"/out/", "a", "jobs/x/a") }},
		{"publish bytes", "of the output", 4, func(b string) error {
			return s.PublishBytes(t.Context(), aws.Scheme+b+"/out/", "a", []byte("a"))
		}},
		{"list jobs", "of the store", 4, func(string) error { _, err := gone.Jobs(t.Context()); return err }},
		{"commit", "of the store", 4, func(string) error { _, err := gone.Commit(t.Context(), "jobs/x/a", nil); return err }},
		{"open", "of the store", 4, func(string) error { _, err := gone.Open(t.Context(), "jobs/x/a", 0, -1); return err }},
	} {
		var u *hayrick.UserError
		err := c.do(name + "-gone")
		if !errors.As(err, &u) || u.Exit != c.exit || !strings.Contains(u.What, name+"-gone") || !strings.Contains(u.What, c.says) {
			t.Errorf("%s: %v", c.what, err)
		}
		if c.says == "of the input" && !errors.Is(err, hayrick.ErrNotFound) {
			t.Errorf("%s: not taken for an object that is not there: %v", c.what, err)
		}
	}
}

// An object that is replaced between two requests for one body is not read on: the two
// halves would be of different versions.
func TestAnInputReplacedWhileItIsRead(t *testing.T) {
	cfg := standins.Config(t)
	w := newWire()
	s := storeOn(t, w)
	bucket := anotherBucket(t, cfg)
	uri := aws.Scheme + bucket + "/in.jsonl"
	for what, change := range map[string]func(){
		"replaced": func() { put(t, cfg, bucket, "in.jsonl", random(2, 2<<20)) },
		"deleted": func() {
			if _, err := standins.S3(cfg).DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: sdk.String("in.jsonl")}); err != nil {
				t.Error(err)
			}
		},
	} {
		put(t, cfg, bucket, "in.jsonl", random(1, 2<<20))
		gets := 0
		w.mu.Lock()
		w.broken = nil
		w.mu.Unlock()
		r, _, err := s.OpenSource(t.Context(), uri)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		w.mu.Lock()
		w.broken = func(*http.Request) string {
			if gets++; gets == 1 {
				return "cut"
			}
			if gets == 2 {
				change()
			}
			return ""
		}
		w.mu.Unlock()
		if r, _, err = s.OpenSource(t.Context(), uri); err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(r)
		r.Close()
		if !errors.Is(err, hayrick.ErrInputChanged) || !strings.Contains(err.Error(), uri) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A prefix of any length is listed page by page, as the consumer takes it.
func TestAPrefixIsListedInPages(t *testing.T) {
	cfg := standins.Config(t)
	w := newWire()
	s := storeOn(t, w)
	bucket := anotherBucket(t, cfg)
	var want []string
	for i := range 2100 {
		key := fmt.Sprintf("in/%04d.jsonl", i)
		put(t, cfg, bucket, key, []byte("{}\n"))
		want = append(want, aws.Scheme+bucket+"/"+key)
	}
	put(t, cfg, bucket, "in/", nil)            // as consoles make folders
	put(t, cfg, bucket, "in/sub/", nil)        // likewise
	put(t, cfg, bucket, "inside", []byte("x")) // another name that begins alike
	var got []string
	if err := s.ListSources(t.Context(), aws.Scheme+bucket+"/in/", func(object string, pin manifest.Pin) error {
		if got = append(got, object); pin.Size != 3 || pin.ETag == "" {
			return fmt.Errorf("%s is listed with %+v", object, pin)
		}
		return nil
	}); err != nil || !slices.Equal(got, want) {
		t.Errorf("%d objects, %v; want %d", len(got), err, len(want))
	}
	if n := w.calls["GET"]; n != 3 {
		t.Errorf("%d requests for %d objects, want 3", n, len(want))
	}
	enough := errors.New("enough")
	if err := s.ListSources(t.Context(), aws.Scheme+bucket+"/in/", func(string, manifest.Pin) error { return enough }); err != enough || w.calls["GET"] != 4 {
		t.Errorf("one object took %d requests, %v", w.calls["GET"]-3, err)
	}
	n := 0
	count := func(string, manifest.Pin) error { n++; return nil }
	if err := s.ListSources(t.Context(), aws.Scheme+"hayrick-test-no-such-bucket/in/", count); !errors.Is(err, hayrick.ErrNotFound) || n > 0 {
		t.Errorf("no bucket: %d, %v", n, err)
	}
}

// The folder of the runs is no input, nor is the bucket that it lies in.
func TestTheStoreIsNoInput(t *testing.T) {
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	s := aws.New(cfg, name, hayrick.RealWorld("host/1"), nil)
	put(t, cfg, name, "in/a", []byte("x"))
	for prefix, want := range map[string]bool{"": false, "jobs/": false, "in/": true} {
		n := 0
		err := s.ListSources(t.Context(), aws.Scheme+name+"/"+prefix, func(string, manifest.Pin) error { n++; return nil })
		var user *hayrick.UserError
		if listed := err == nil && n == 1; listed != want || !want && (!errors.As(err, &user) || user.Hint == "") {
			t.Errorf("%q: %d objects, %v", prefix, n, err)
		}
	}
}

// What a real S3 answers to somebody who has no rights is told by the right and the place;
// what it answers to credentials that nobody has is another thing.
func TestAServerThatRefuses(t *testing.T) {
	cfg := standins.Config(t)
	bucket := anotherBucket(t, cfg)
	put(t, cfg, bucket, "in/a.jsonl", []byte("{}\n"))
	uri := aws.Scheme + bucket + "/in/a.jsonl"
	for what, c := range map[string]struct {
		as         sdk.CredentialsProvider
		head, says string
	}{
		"nobody":       {sdk.AnonymousCredentials{}, "AWS refuses s3:GetObject on " + uri, "AWS refuses s3:GetObject on " + uri},
		"wrong secret": {credentials.NewStaticCredentialsProvider("test", "another", ""), "AWS refuses s3:GetObject on " + uri, "AWS does not take these credentials"},
	} {
		refused := cfg
		refused.Credentials = c.as
		s := aws.New(refused, "lab-hayrick", hayrick.RealWorld("host/1"), nil)
		_, head := s.Stat(t.Context(), uri) // which S3 answers without a word
		_, _, get := s.OpenSource(t.Context(), uri)
		for call, e := range map[string]struct {
			err  error
			want string
		}{"HEAD": {head, c.head}, "GET": {get, c.says}} {
			var u *hayrick.UserError
			if !errors.As(e.err, &u) || u.What != e.want || u.Exit != 5 || u.Hint == "" || errors.Is(e.err, hayrick.ErrDenied) != strings.Contains(e.want, "refuses") {
				t.Errorf("%s, %s: %v", what, call, e.err)
			}
		}
	}
}
