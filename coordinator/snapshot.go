package coordinator

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// source is the input of a submission before anything is written: a pinned object,
// a folder of them, or the items that the handler listed, spooled to scratch.
type source struct {
	id    manifest.InputID
	spool *os.File // nil for an object
	list  *listing // of a folder
	size  int64

	member bool // it is the n-th object of a folder
	n      int
}

// pinned says that what gets indexed is the input itself, not a copy.
func (s *source) pinned() bool {
	return s.spool == nil && !strings.HasPrefix(s.id.Object, manifest.StoreScheme)
}

// name is the input in messages.
func (s *source) name() string {
	switch s.id.URI {
	case "":
		return "the handler's list"
	case StdinURI:
		return "standard input"
	}
	return s.id.URI
}

func (s *source) close() {
	if s.spool != nil {
		s.spool.Close()
	}
	if s.list != nil {
		s.list.file.Close()
	}
}

// keyName is what a copy of the source is called.
func (s *source) keyName() string {
	if s.member {
		return memberName(s.n, s.id.URI)
	}
	return keyName(s.id.URI)
}

// source looks at the input: nothing of it is in the store yet.
func (c *Coordinator) source(ctx context.Context, s Submission) (*source, error) {
	in := s.Definition.Input
	if in.Items {
		return c.spool(ctx, s)
	}
	if in.URI == StdinURI {
		return c.stdin(ctx, s)
	}
	if manifest.IsFolder(in.URI) || IsGlob(in.URI) {
		src, err := c.listFolder(ctx, s)
		if err == nil && in.Format == FormatFiles {
			return c.itemsOf(ctx, s, src)
		}
		return src, err
	}
	if in.Format == FormatFiles {
		return nil, &hayrick.UserError{What: fmt.Sprintf("input.format: files lists a folder, and %s is none", in.URI), Hint: "name a folder with a slash at its end, or a pattern such as ./in/*.tif"}
	}
	pin, err := c.Sources.Stat(ctx, in.URI)
	if user := (*hayrick.UserError)(nil); errors.As(err, &user) {
		return nil, user
	}
	if errors.Is(err, hayrick.ErrNotFound) {
		return nil, &hayrick.UserError{What: fmt.Sprintf("the input %s is not there", in.URI), Hint: "check input.uri; a path is relative to the working directory, and the name of a folder ends in a slash"}
	}
	if err != nil {
		return nil, fmt.Errorf("look at the input %s: %w", in.URI, err)
	}
	return &source{id: manifest.InputID{URI: in.URI, Object: manifest.Resolve(s.Folder, in.URI), Pin: pin}, size: pin.Size}, nil
}

// errEnough ends a listing that has reached input.limit.
var errEnough = errors.New("input.limit is reached")

// spool lets the handler list its items into a scratch file, one a line: listing
// twice gives the same bytes, and their SHA-256 stands for the input.
func (c *Coordinator) spool(ctx context.Context, s Submission) (_ *source, err error) {
	if s.Items == nil {
		return nil, &hayrick.UserError{What: "input.items is set, but the handler lists no items", Hint: "set input.uri to a JSONL file"}
	}
	f, err := c.scratchFile("items")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	var (
		h     = sha256.New()
		w     = bufio.NewWriterSize(io.MultiWriter(f, h), 256<<10)
		line  bytes.Buffer
		items int64
		size  int64
	)
	limit := s.Definition.Input.Limit
	listErr := s.Items(ctx, func(record json.RawMessage) error {
		if limit > 0 && items == limit {
			return errEnough
		}
		line.Reset()
		if err := json.Compact(&line, record); err != nil {
			return fmt.Errorf("item %d is no JSON value: %w", items, err)
		}
		line.WriteByte('\n')
		items++
		size += int64(line.Len())
		if s.Progress != nil && items%1024 == 0 {
			s.Progress(size, 0, items)
		}
		_, err := w.Write(line.Bytes())
		return err
	})
	// A handler may wrap errEnough or swallow it; the count tells. Any other error
	// means that the list is not whole.
	if listErr != nil && !(errors.Is(listErr, errEnough) && items == limit) {
		return nil, fmt.Errorf("list the items of %s: %w", s.Definition.Name, listErr)
	}
	if err := w.Flush(); err != nil {
		return nil, fmt.Errorf("spool the items of %s: %w", s.Definition.Name, err)
	}
	return &source{
		id: manifest.InputID{
			Pin:    manifest.Pin{Size: size},
			SHA256: hex.EncodeToString(h.Sum(nil)),
		},
		spool: f, size: size,
	}, nil
}

// snapshot puts the input where it cannot change, as far as that is asked for or
// costs no bytes, and opens what is to be indexed. It names the object in src.id.
//
// A crash before or after a put leaves at most an object that no plan names. Copies
// lie under their content's digest; a clone, whose digest nobody knows yet, under a
// key of its own.
func (c *Coordinator) snapshot(ctx context.Context, s Submission, jobID string, src *source) (io.ReadCloser, error) {
	job := manifest.Job(jobID)
	inStore := func(key string) (io.ReadCloser, error) {
		src.id.Object = manifest.StoreScheme + job.Rel(key)
		r, err := c.Store.Objects.Open(ctx, key, 0, -1)
		if err != nil {
			return nil, fmt.Errorf("open the copy of the input: %w", err)
		}
		return r, nil
	}
	if err := c.convert(ctx, s, src); err != nil {
		return nil, err
	}
	switch {
	case src.spool != nil:
		key := job.Input(src.spoolName(), src.id.SHA256)
		if err := c.Store.Objects.Put(ctx, key, io.NewSectionReader(src.spool, 0, src.size)); err != nil {
			return nil, fmt.Errorf("store the items: %w", err)
		}
		src.id.Object = manifest.StoreScheme + job.Rel(key)
		return src.spooled(), nil

	case s.Definition.Input.Snapshot == "copy":
		sha, err := c.hashSource(ctx, src)
		if err != nil {
			return nil, err
		}
		key := job.Input(src.keyName(), sha)
		body, err := c.openSource(ctx, src)
		if err != nil {
			return nil, err
		}
		// A body that is not what was hashed ends in an error, and with it the put:
		// nothing is visible under the digest of other bytes.
		err = c.Store.Objects.Put(ctx, key, &verified{r: body, h: sha256.New(), want: sha})
		if err = errors.Join(err, body.Close()); err != nil {
			if errors.Is(err, hayrick.ErrInputChanged) {
				return nil, changed(src.id.URI, "copied")
			}
			return nil, fmt.Errorf("copy the input %s: %w", src.id.URI, err)
		}
		if err := c.unchanged(ctx, src, "copied"); err != nil {
			return nil, err
		}
		src.id.SHA256 = sha
		return inStore(key)

	default:
		key := job.Input(src.keyName(), c.World.NewAttemptID())
		cloned, err := c.Sources.Clone(ctx, src.id.URI, key)
		if errors.Is(err, hayrick.ErrNotFound) {
			return nil, changed(src.id.URI, "cloned")
		}
		if err != nil {
			return nil, fmt.Errorf("clone the input %s: %w", src.id.URI, err)
		}
		if !cloned {
			return c.openSource(ctx, src)
		}
		if err := c.unchanged(ctx, src, "cloned"); err != nil {
			return nil, err
		}
		return inStore(key)
	}
}

// unchanged checks that the input still is what was pinned: what was read between
// the two looks is one version of it.
func (c *Coordinator) unchanged(ctx context.Context, src *source, done string) error {
	pin, err := c.Sources.Stat(ctx, src.id.URI)
	if errors.Is(err, hayrick.ErrNotFound) || err == nil && !samePin(pin, src.id.Pin) {
		return changed(src.id.URI, done)
	}
	if err != nil {
		return fmt.Errorf("look at the input %s again: %w", src.id.URI, err)
	}
	return nil
}

// samePin compares versions where both are known.
func samePin(a, b manifest.Pin) bool {
	return a.Size == b.Size && a.MTime.Equal(b.MTime.Time) && a.DevInode == b.DevInode && a.ETag == b.ETag &&
		(a.Version == b.Version || a.Version == "" || b.Version == "")
}

func changed(uri, done string) error {
	return &hayrick.UserError{
		What: fmt.Sprintf("%s was written to while it was %s", uri, done),
		Hint: "run again when it is complete",
		Err:  hayrick.ErrInputChanged,
	}
}

func (c *Coordinator) openSource(ctx context.Context, src *source) (io.ReadCloser, error) {
	r, pin, err := c.Sources.OpenSource(ctx, src.id.URI)
	if errors.Is(err, hayrick.ErrNotFound) {
		return nil, changed(src.id.URI, "opened")
	}
	if err != nil {
		return nil, fmt.Errorf("open the input %s: %w", src.id.URI, err)
	}
	if !samePin(pin, src.id.Pin) {
		r.Close()
		return nil, changed(src.id.URI, "opened")
	}
	src.id.Pin = pin // a listing does not tell everything
	return r, nil
}

func (c *Coordinator) hashSource(ctx context.Context, src *source) (string, error) {
	r, err := c.openSource(ctx, src)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, r)
	if err = errors.Join(err, r.Close()); err != nil {
		return "", fmt.Errorf("read the input %s: %w", src.id.URI, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// verified ends in ErrInputChanged instead of io.EOF when its bytes do not have the
// SHA-256 they should have.
type verified struct {
	r    io.Reader
	h    hash.Hash
	want string
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.h.Write(p[:n])
	if err == io.EOF && hex.EncodeToString(v.h.Sum(nil)) != v.want {
		err = hayrick.ErrInputChanged
	}
	return n, err
}

// scratchFile makes a file that has no name: it is gone when it is closed, or when
// the process ends in whatever way.
func (c *Coordinator) scratchFile(what string) (*os.File, error) {
	if err := os.MkdirAll(c.Scratch, 0o777); err != nil {
		return nil, fmt.Errorf("make the scratch folder: %w", err)
	}
	name := filepath.Join(c.Scratch, what+"-"+c.World.NewAttemptID())
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make a scratch file: %w", err)
	}
	if err := os.Remove(name); err != nil {
		f.Close()
		return nil, fmt.Errorf("unlink a scratch file: %w", err)
	}
	return f, nil
}

// keyName makes the last part of uri fit for a key.
func keyName(uri string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(path.Base(filepath.ToSlash(uri))))
	return name[:min(len(name), 64)]
}
