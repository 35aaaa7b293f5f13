//go:build standins

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/klauspost/compress/zstd"

	"hayrick/internal/standins"
	"hayrick/jobs"
)

// tabular is a handler that takes {"id", "n"} in any form: numbers as such or as text,
// or both on a line.
type tabular struct{}

func (tabular) Handle(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	var rec struct {
		ID   string
		N    any
		Line string
	}
	if err := json.Unmarshal(it.Data, &rec); err != nil {
		return jobs.Fail("bad", "%v", err)
	}
	n := fmt.Sprint(rec.N)
	if rec.Line != "" {
		rec.ID, n, _ = strings.Cut(rec.Line, ",")
	}
	if err := emit(jobs.Row{{Name: "id", Value: rec.ID}, {Name: "k", Value: "k" + n[len(n)-1:]}, {Name: "n", Value: n}, {Name: "ordinal", Value: it.Ordinal}}); err != nil {
		return jobs.Fail("emit", "%v", err)
	}
	return jobs.OK()
}

func init() {
	handlers["tabular"] = func(context.Context, jobs.Env) (jobs.Handler, error) { return tabular{}, nil }
}

// formsRig is a store on the stand-ins, and a folder with the same items in every form.
type formsRig struct {
	t      *testing.T
	dir    string
	store  string
	bucket string
	client *s3.Client
}

const formItems = 37

func newFormsRig(t *testing.T) *formsRig {
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	r := &formsRig{t: t, dir: t.TempDir(), store: "s3://" + name, bucket: name, client: standins.S3(cfg)}
	csv, lines, items := "id,n\n", "", ""
	var ids []string
	for i := range formItems {
		ids = append(ids, fmt.Sprintf("i%d", i))
		csv += fmt.Sprintf("i%d,%d\n", i, i)
		lines += fmt.Sprintf("i%d,%d\n", i, i)
		items += fmt.Sprintf("{\"id\":\"i%d\",\"n\":%d}\n", i, i)
	}
	var gz, zst, parquet bytes.Buffer
	g := gzip.NewWriter(&gz)
	io.WriteString(g, items)
	z, _ := zstd.NewWriter(&zst)
	io.WriteString(z, csv)
	if err := errors.Join(g.Close(), z.Close(), writeParquet(nopCloser{&parquet}, ids)); err != nil {
		t.Fatal(err)
	}
	half := strings.Index(csv, "i20,")
	for key, text := range map[string]string{
		"a.jsonl": items, "a.csv": csv, "a.tsv": strings.ReplaceAll(csv, ",", "\t"), "a.txt": lines, "a.parquet": parquet.String(),
		"a.jsonl.gz": gz.String(), "a.csv.zst": zst.String(),
		"in/1/a.csv": csv[:half], "in/2/b.csv": "id,n\n" + csv[half:], "in/2/read.md": "# not one of them",
	} {
		path := filepath.Join(r.dir, key)
		os.MkdirAll(filepath.Dir(path), 0o777)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := r.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &name, Key: &key, Body: strings.NewReader(text)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "job.yaml"), []byte(`
version: 1
name: forms
handler: {builtin: tabular}
input: {uri: ./a.jsonl}
batch: {items: 8}
output: {uri: ./out/$(run.id)/}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	return r
}

// run runs the job under an id of its own, here or on the stand-ins, and audits it.
func (r *formsRig) run(t *testing.T, at, id string, set ...string) finished {
	t.Helper()
	args := []string{"-C", at, "run", "job.yaml", "--json", "-q", "--job-id", id}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	if strings.HasPrefix(at, "s3:") {
		args = append(args, "--set", "output.uri="+at+"/out/$(run.id)/")
	}
	c := start(t, r.dir, args...)
	got := c.result(t, <-c.ended)
	audit := start(t, r.dir, "-C", at, "audit", "--deep", id)
	if err := <-audit.ended; err != nil {
		t.Errorf("audit: %v\n%s%s", err, audit.out.String(), audit.errs.String())
	}
	return got
}

// The same items in any form, in S3 or on this machine, end in the same rows on S3,
// DynamoDB and SQS as here.
func TestFormsOfInputsOnStandIns(t *testing.T) {
	t.Parallel()
	r := newFormsRig(t)
	want := r.run(t, "./here", "here")
	if want.OK != formItems {
		t.Fatalf("%+v", want)
	}
	for name, set := range map[string][]string{
		"jsonl-here": nil, // copied into the store
		"csv":        {"input.uri=s3://" + r.bucket + "/a.csv"},
		"tsv":        {"input.uri=s3://" + r.bucket + "/a.tsv"},
		"lines":      {"input.uri=s3://" + r.bucket + "/a.txt"},
		"parquet":    {"input.uri=s3://" + r.bucket + "/a.parquet"},
		"gzip":       {"input.uri=s3://" + r.bucket + "/a.jsonl.gz"},
		"csv-zstd":   {"input.uri=./a.csv.zst"},
		"pattern":    {"input.uri=s3://" + r.bucket + "/in/**/*.csv"},
		"shuffled":   {"input.uri=s3://" + r.bucket + "/in/**/*.csv", "batch.order=shuffle"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := r.run(t, r.store, name, set...); got != want {
				t.Errorf("%+v, here %+v", got, want)
			}
		})
	}
}

// What is published on S3 is what is published here: unique rows, partitions, and the
// other formats byte by byte.
func TestShapesOfOutputsOnStandIns(t *testing.T) {
	t.Parallel()
	r := newFormsRig(t)
	for name, set := range map[string][]string{
		"last":       {"output.unique_by=[k]", "output.keep=last"},
		"partitions": {"output.partition_by=[k]"},
		"csv":        {"output.format=csv", "output.compression=none"},
		"jsonl-gzip": {"output.format=jsonl", "output.compression=gzip", "output.partition_by=[k]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, got := r.run(t, "./here", name, set...), r.run(t, r.store, name, set...)
			if got != want {
				t.Errorf("%+v, here %+v", got, want)
			}
			here, there := map[string]string{}, map[string]string{}
			root := filepath.Join(r.dir, "out", name)
			filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					b, _ := os.ReadFile(path)
					here[path[len(root)+1:]] = string(b)
				}
				return err
			})
			prefix := "out/" + name + "/"
			list, err := r.client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &r.bucket, Prefix: &prefix})
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range list.Contents {
				body, err := r.client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &r.bucket, Key: o.Key})
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(body.Body)
				there[(*o.Key)[len(prefix):]] = string(b)
			}
			names := slices.Sorted(maps.Keys(here))
			if !slices.Equal(names, slices.Sorted(maps.Keys(there))) || len(names) < 2 {
				t.Fatalf("%q in S3, %q here", slices.Sorted(maps.Keys(there)), names)
			}
			for _, file := range names {
				if (strings.Contains(file, ".csv") || strings.Contains(file, ".jsonl")) && here[file] != there[file] {
					t.Errorf("%s differs", file)
				}
			}
		})
	}
}
