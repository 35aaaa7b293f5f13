//go:build standins

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"hayrick/internal/standins"
)

// The same items as one file here and as ten objects below a prefix of another bucket
// end in the same rows. An object that is deleted under the run pauses it by name, and
// with its bytes back it goes on.
func TestInputsOnStandIns(t *testing.T) {
	t.Parallel() // it mostly waits
	cfg := standins.Config(t)
	store, bucket := "s3://"+standins.Store(t, cfg), standins.Store(t, cfg)
	client := standins.S3(cfg)
	put := func(key, text string) {
		t.Helper()
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(text)}); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	var all strings.Builder
	object := func(i int) (key, text string) {
		for n := range 6 {
			text += fmt.Sprintf("{\"id\":\"i%d\",\"rows\":%d,\"fail_until\":%d,\"permanent\":%t}\n", 6*i+n, 1+n%3, 1+n/5, n == 4)
		}
		return fmt.Sprintf("in/day=%02d/part.jsonl", i), text
	}
	for i := range 10 {
		key, text := object(i)
		put(key, text)
		all.WriteString(text)
	}
	put("in/_SUCCESS", "")
	put("in/day=03/", "")
	for file, text := range map[string]string{"items.jsonl": all.String(), "job.yaml": `
version: 1
name: inputs
handler: {builtin: fickle}
input: {uri: ./items.jsonl, key: id}
batch: {items: 4}
retry: {passes: 2, in_task: {attempts: 1}, backoff: {initial: 50ms, max: 50ms}}
`} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	hayrick := func(args ...string) (string, string, error) {
		c := start(t, dir, args...)
		err := <-c.ended
		return c.out.String(), c.errs.String(), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, errs, err := hayrick(args...)
		if err != nil {
			t.Fatalf("%v: %v\n%s%s", args, err, out, errs)
		}
		return out
	}
	one := start(t, dir, "run", "job.yaml", "--json", "-q")
	want := one.result(t, <-one.ended)
	at := []string{"-C", store}
	run := append(at, "run", "job.yaml", "--set", "input.uri=s3://"+bucket+"/in/", "--set", "output.uri="+store+"/out/$(run.id)/", "--json", "-q")
	several := start(t, dir, run...)
	if got := several.result(t, <-several.ended); got != want {
		t.Errorf("ten objects: %+v, one file: %+v", got, want)
	}
	must(append(at, "audit", "--deep", "@")...)
	if out := must(append(at, "inspect", "--item", "i59")...); !strings.Contains(out, "ordinal 59  ok") {
		t.Error(out)
	}
	if out := must(append(at, "inspect", "@")...); !strings.Contains(out, "s3://"+bucket+"/in/") {
		t.Error(out)
	}
	must(append(at, "status", "@")...)

	submit := append(at, "submit", "job.yaml", "--new", "--set", "input.uri=s3://"+bucket+"/in/", "--set", "output.uri="+store+"/out/$(run.id)/")
	key, text := object(7)
	id := strings.TrimSpace(must(submit...))
	if _, err := client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key}); err != nil {
		t.Fatal(err)
	}
	_, errs, err := hayrick(append(at, "resume", id)...)
	if err == nil || !strings.Contains(errs, "s3://"+bucket+"/"+key) || !strings.Contains(errs, "resume") {
		t.Errorf("%v\n%s", err, errs)
	}
	put(key, text)
	again := start(t, dir, append(at, "resume", id, "--json", "-q")...)
	if got := again.result(t, <-again.ended); got != want {
		t.Errorf("put back: %+v, want %+v", got, want)
	}
	_, errs, err = hayrick(append(at, "run", "job.yaml", "--set", "input.uri=s3://"+bucket+"/none/", "--set", "output.uri="+store+"/out/$(run.id)/")...)
	if code := codeOf(err); code != exitNotFound || !strings.Contains(errs, "there is nothing below the input s3://"+bucket+"/none/") {
		t.Errorf("an empty prefix: %d %s", code, errs)
	}
	if !strings.Contains(errs, "s3://"+bucket+"/ holds in/") {
		t.Errorf("what is there is not named: %s", errs)
	}

	// Keys of Parquet in S3 are read there, as those of any other form.
	x, err := os.Create(filepath.Join(dir, "x.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	if err := writeParquet(x, []string{"a", "b", "a"}); err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(filepath.Join(dir, "x.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	put("keys/x.parquet", string(body))
	out, errs, err := hayrick("check", "job.yaml", "--keys", "--set", "input.uri=s3://"+bucket+"/keys/x.parquet")
	if x := "s3://" + bucket + "/keys/x.parquet:"; codeOf(err) != exitUnwell || !strings.Contains(out, x+`3: the key "a" stands at `+x+"1 already") {
		t.Errorf("%v\n%s%s", err, out, errs)
	}

	// A bucket that is not there, or cannot be, is named.
	for uri, want := range map[string]struct {
		code int
		says string
	}{
		"s3://" + bucket + "-gone/in/":         {exitNotFound, "the bucket " + bucket + "-gone of the input does not exist"},
		"s3://" + bucket + "-gone/users.jsonl": {exitNotFound, "the bucket " + bucket + "-gone of the input does not exist"},
	} {
		_, errs, err = hayrick(append(at, "run", "job.yaml", "--set", "input.uri="+uri, "--set", "output.uri="+store+"/out/$(run.id)/")...)
		if code := codeOf(err); code != want.code || !strings.Contains(errs, want.says) {
			t.Errorf("%s: %d %s", uri, code, errs)
		}
	}
}
