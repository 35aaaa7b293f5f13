package coordinator

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"hayrick"
	"hayrick/internal/records"
	"hayrick/manifest"
)

// The forms of an input that is not what its objects hold.
const (
	// StdinURI names what the submitting process reads.
	StdinURI = "-"
	// FormatFiles makes an item of each object, which is not opened.
	FormatFiles = "files"
)

// IsGlob says whether uri is a pattern of names.
func IsGlob(uri string) bool { return hayrick.IsPattern(uri) }

// GlobRoot is the folder that a pattern's names lie in.
func GlobRoot(pattern string) string {
	root := pattern[:strings.IndexAny(pattern, "*?[{")]
	if i := strings.LastIndexByte(root, '/'); i >= 0 {
		return root[:i+1]
	}
	return "./"
}

// listSources is ListSources for a folder, or for the names in one that fit a pattern.
func (c *Coordinator) listSources(ctx context.Context, uri string, fn func(string, manifest.Pin) error) error {
	return ListSources(ctx, c.Sources, uri, fn)
}

// ListSources lists a folder, or what fits a pattern of names, in the order of names.
func ListSources(ctx context.Context, sources Sources, uri string, fn func(string, manifest.Pin) error) error {
	if !IsGlob(uri) {
		return sources.ListSources(ctx, uri, fn)
	}
	if !doublestar.ValidatePattern(uri) {
		return &hayrick.UserError{What: fmt.Sprintf("input.uri: %q is no pattern of names", uri), Hint: "close each [ and {, and write a backslash before one that is meant"}
	}
	root := GlobRoot(uri)
	pattern := uri
	if !strings.HasPrefix(uri, root) {
		pattern = root + uri
	}
	return sources.ListSources(ctx, root, func(object string, pin manifest.Pin) error {
		if ok, _ := doublestar.Match(pattern, object); !ok {
			return nil
		}
		return fn(object, pin)
	})
}

// ConversionOf says how an object of an input becomes JSON lines; needed is false for
// what is that already.
func ConversionOf(in hayrick.Input, name string) (o records.Options, needed bool) {
	o = records.Options{
		Name: name, Format: in.Format, Packed: in.Compression, Columns: in.Columns, Delimiter: in.Delimiter,
		Key: in.Key, Skip: in.OnBadItem == "skip", Limit: in.Limit, Most: MaxLineBytes,
	}
	if o.Packed == "" {
		o.Packed = records.PackedOf(name)
	}
	return o, o.Format != "jsonl" || o.Packed != "none"
}

// convert turns an object into JSON lines in a scratch file, which becomes src's
// spool. Memory is bounded; the store is not touched.
func (c *Coordinator) convert(ctx context.Context, s Submission, src *source) (err error) {
	o, needed := ConversionOf(s.Definition.Input, src.id.URI)
	if !needed || src.spool != nil {
		return nil
	}
	if err := c.spoolFrom(ctx, src, func(w io.Writer) error { return c.converted(ctx, w, src, o) }); err != nil {
		return err
	}
	if src.size == 0 && !src.member {
		return noItems(src, s.Definition.Input.Format)
	}
	return nil
}

// converted writes an object as JSON lines, if it still is what was pinned.
func (c *Coordinator) converted(ctx context.Context, w io.Writer, src *source, o records.Options) error {
	body, err := c.openSource(ctx, src)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := c.writeLines(ctx, w, body, src.id.URI, o); err != nil {
		return err
	}
	return c.unchanged(ctx, src, "read")
}

// writeLines writes what an object holds as JSON lines.
func (c *Coordinator) writeLines(ctx context.Context, w io.Writer, body io.Reader, uri string, o records.Options) error {
	o.Scratch = func() (records.Scratch, error) { return c.scratchFile("parquet") }
	err := records.Write(ctx, w, body, o)
	if p := (*records.Problem)(nil); err != nil && !errors.As(err, &p) {
		return fmt.Errorf("read the input %s: %w", uri, err)
	}
	return err
}

// noItems refuses an input without any.
func noItems(src *source, format string) error {
	hint := "give it at least one line, each a JSON value"
	switch format {
	case "csv", "tsv":
		hint = "its first record names the columns, and each one behind it is an item; or write input.columns: [a, b]"
	case "lines":
		hint = "give it at least one line that holds more than white space"
	case "parquet":
		hint = "give it at least one row"
	}
	return &hayrick.UserError{What: src.name() + " holds no items", Hint: hint}
}

// spoolFrom makes a scratch file of what write writes the source's content.
func (c *Coordinator) spoolFrom(ctx context.Context, src *source, write func(io.Writer) error) (err error) {
	f, err := c.scratchFile("items")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	h := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 256<<10)
	if err := errors.Join(write(w), w.Flush()); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("spool the items: %w", err)
	}
	src.spool, src.size, src.id.Bytes = f, size, size
	src.id.SHA256 = hex.EncodeToString(h.Sum(nil))
	return nil
}

// fileItem is an item of a listing.
type fileItem struct {
	URI   string        `json:"uri"`
	Name  string        `json:"name"` // below the folder
	Size  int64         `json:"size"`
	MTime manifest.Time `json:"mtime"`
	ETag  string        `json:"etag,omitempty"`
}

// FileItem is the line of one object of the listing at uri, which may be relative to
// folder.
func FileItem(folder, uri, object string, pin manifest.Pin) ([]byte, error) {
	root := uri
	if IsGlob(uri) {
		root = GlobRoot(uri)
	}
	return manifest.EncodeLine(fileItem{
		URI: manifest.Resolve(folder, object), Name: strings.TrimPrefix(object, root), Size: pin.Size, MTime: pin.MTime, ETag: pin.ETag,
	})
}

// itemsOf makes the objects of a listing the items themselves.
func (c *Coordinator) itemsOf(ctx context.Context, s Submission, src *source) (*source, error) {
	out := &source{id: src.id}
	err := c.spoolFrom(ctx, out, func(w io.Writer) error {
		next := src.list.read()
		for n := int64(0); ; n++ {
			line, err := next()
			if err == io.EOF || n > 0 && n == s.Definition.Input.Limit {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read the list of sources: %w", err)
			}
			b, err := FileItem(s.Folder, s.Definition.Input.URI, line.URI, line.Pin)
			if err != nil {
				return err
			}
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
	})
	src.close()
	if err != nil {
		return nil, err
	}
	return out, nil
}

// stdin takes what the process reads into a scratch file; its SHA-256 stands for it.
func (c *Coordinator) stdin(ctx context.Context, s Submission) (*source, error) {
	if s.Stdin == nil {
		return nil, &hayrick.UserError{What: `input.uri is "-", and nothing is handed in`, Hint: "pipe the input into the command: cat items.jsonl | hayrick run ..."}
	}
	src := &source{id: manifest.InputID{URI: StdinURI}}
	o, needed := ConversionOf(s.Definition.Input, StdinURI)
	if o.Format == "parquet" {
		return nil, &hayrick.UserError{What: "a Parquet file is read from its end, which a pipe does not have", Hint: "write it to a file and name that in input.uri"}
	}
	o.Name = "standard input"
	err := c.spoolFrom(ctx, src, func(w io.Writer) error {
		if needed {
			return records.Write(ctx, w, s.Stdin, o)
		}
		_, err := io.Copy(w, s.Stdin)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	src.id.Bytes = 0 // the pin is of what is stored
	src.id.Pin = manifest.Pin{Size: src.size, ETag: digestTag + src.id.SHA256}
	return src, nil
}

// spooled reads a spool, and closes it where it belongs to one object of many.
func (s *source) spooled() io.ReadCloser {
	r := io.NewSectionReader(s.spool, 0, s.size)
	if !s.member {
		return io.NopCloser(r)
	}
	return &sectionOf{r, s.spool}
}

type sectionOf struct {
	io.Reader
	f *os.File
}

func (s *sectionOf) Close() error { return s.f.Close() }

// spoolName is what the stored spool is called.
func (s *source) spoolName() string {
	if s.id.URI == "" || s.id.URI == StdinURI {
		return "items.jsonl"
	}
	name := s.keyName()
	return strings.TrimSuffix(name, path.Ext(name)) + ".jsonl"
}
