package coordinator

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"hayrick"
	"hayrick/manifest"
)

// What the store holds of an input can be made again, byte for byte, from wherever the
// process is; of an input that is another by now it is not tried.
func TestCopyAgain(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.WriteString(z, "{\"did\":1}\n{\"did\":2}\n")
	z.Close()
	const csv = "did,x\n1,a\n2\n3,c\n"
	for name, c := range map[string]struct {
		uri  string // what it is made of
		body string
		set  func(d *hayrick.JobDefinition)
	}{
		"csv":     {"a.csv", csv, func(d *hayrick.JobDefinition) { d.Input.URI, d.Input.Format = "a.csv", "csv" }},
		"copy":    {"a.jsonl", "{\"did\":1}\n", func(d *hayrick.JobDefinition) { d.Input.URI, d.Input.Snapshot = "a.jsonl", "copy" }},
		"folder":  {"in/b.jsonl.gz", packed.String(), func(d *hayrick.JobDefinition) { d.Input.URI = "in/" }},
		"pattern": {"in/b.csv", csv, func(d *hayrick.JobDefinition) { d.Input.URI, d.Input.Format = "in/*.csv", "csv" }},
		"listing": {"in/b.csv", csv, func(d *hayrick.JobDefinition) { d.Input.URI, d.Input.Format, d.Input.Key = "in/", FormatFiles, "name" }},
		"shuffled": {"a.csv", csv, func(d *hayrick.JobDefinition) {
			d.Input.URI, d.Input.Format, d.Batch.Order = "a.csv", "csv", hayrick.OrderShuffle
		}},
		"shuffled folder": {"in/b.jsonl.gz", packed.String(), func(d *hayrick.JobDefinition) {
			d.Input.URI, d.Batch.Order, d.Input.Limit = "in/", hayrick.OrderShuffle, 1
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			s := submission()
			s.Definition.Input.OnBadItem, s.Folder = "skip", "/home/u"
			c.set(&s.Definition)
			// Submitted where relative names are, and made again where only whole ones mean something.
			r.mem.SetInput(c.uri, []byte(c.body))
			at := "/home/u/" + c.uri
			got, err := r.Submit(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			ins := got.Plan.Input
			if len(ins[0].Objects) > 0 {
				ins = ins[0].Objects
			}
			r.Sources = moved{r.Sources, t}
			if sha, err := r.CopyAgain(t.Context(), s, got.JobID, ins[0]); err != nil || sha != ins[0].SHA256 || sha == "" {
				t.Errorf("%s: %v, want that of %+v", sha, err, ins)
			}
			r.mem.SetInput(c.uri, []byte(c.body+" "))
			if _, err := r.CopyAgain(t.Context(), s, got.JobID, ins[0]); !errors.Is(err, hayrick.ErrInputChanged) {
				t.Errorf("%s was changed: %v", at, err)
			}
		})
	}
	r := newRig(t)
	s := submission()
	s.Definition.Input.URI, s.Definition.Input.Items = "", true
	s.Items = func(_ context.Context, emit func(json.RawMessage) error) error {
		return emit(json.RawMessage(`{"did":1}`))
	}
	got, err := r.Submit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	var user *hayrick.UserError
	if _, err := r.CopyAgain(t.Context(), s, got.JobID, got.Plan.Input[0]); !errors.As(err, &user) {
		t.Errorf("what the handler listed: %v", err)
	}
}

// moved are sources of a process that is elsewhere than the one that submitted.
type moved struct {
	Sources
	t *testing.T
}

func (m moved) name(uri string) string {
	name, ok := strings.CutPrefix(uri, "/home/u/")
	if !ok {
		m.t.Errorf("%s is looked for in the working directory", uri)
	}
	return name
}

func (m moved) Stat(ctx context.Context, uri string) (manifest.Pin, error) {
	return m.Sources.Stat(ctx, m.name(uri))
}

func (m moved) ListSources(ctx context.Context, uri string, fn func(string, manifest.Pin) error) error {
	return m.Sources.ListSources(ctx, m.name(uri), func(object string, pin manifest.Pin) error { return fn("/home/u/"+object, pin) })
}

func (m moved) OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error) {
	return m.Sources.OpenSource(ctx, m.name(uri))
}
