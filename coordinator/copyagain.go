package coordinator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// CopyAgain makes the copy that the store holds of an input, or of an object of one, once
// more, as Submit made it, and returns its SHA-256. Nothing of it is kept: a shuffle needs
// scratch, and so does Parquet that does not lie on this machine. An input that is not
// what was pinned is ErrInputChanged, whatever has become of it.
//
// s is the submission of the plan, as far as it says what the input is and where.
func (c *Coordinator) CopyAgain(ctx context.Context, s Submission, jobID string, in manifest.InputID) (string, error) {
	switch in.URI {
	case "":
		return "", &hayrick.UserError{What: "the handler would have to list its items again"}
	case StdinURI:
		return "", &hayrick.UserError{What: "standard input is read once"}
	}
	again := *c
	again.Sources = fromFolder{c.Sources, s.Folder}
	sha, err := again.copyAgain(ctx, s, jobID, in)
	if errors.Is(err, hayrick.ErrInputChanged) {
		return "", fmt.Errorf("%s is not what was copied any more: %w", in.URI, hayrick.ErrInputChanged)
	}
	return sha, err
}

func (c *Coordinator) copyAgain(ctx context.Context, s Submission, jobID string, in manifest.InputID) (string, error) {
	shuffle := s.Definition.Batch.Order == hayrick.OrderShuffle
	if !shuffle && s.Definition.Input.Format != FormatFiles {
		src := &source{id: manifest.InputID{URI: in.URI, Pin: in.Pin}}
		o, needed := ConversionOf(s.Definition.Input, in.URI)
		if !needed {
			return c.hashSource(ctx, src)
		}
		h := sha256.New()
		if err := c.converted(ctx, h, src, o); err != nil {
			return "", err
		}
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	src, err := c.source(ctx, s)
	if err != nil {
		return "", err
	}
	defer src.close()
	if !samePin(src.id.Pin, in.Pin) {
		return "", hayrick.ErrInputChanged
	}
	if !shuffle {
		return src.id.SHA256, nil
	}
	out, err := c.shuffled(ctx, s, jobID, src)
	if err != nil {
		return "", err
	}
	defer out.close()
	return out.id.SHA256, nil
}

// fromFolder are sources of which relative names lie in a folder, whatever the working
// directory is now. What is listed there keeps its relative name.
type fromFolder struct {
	Sources
	folder string
}

func (f fromFolder) Stat(ctx context.Context, uri string) (manifest.Pin, error) {
	return f.Sources.Stat(ctx, manifest.Resolve(f.folder, uri))
}

func (f fromFolder) ListSources(ctx context.Context, uri string, fn func(string, manifest.Pin) error) error {
	at := manifest.Resolve(f.folder, uri)
	return f.Sources.ListSources(ctx, at, func(object string, pin manifest.Pin) error {
		return fn(uri+strings.TrimPrefix(object, at), pin)
	})
}

func (f fromFolder) OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error) {
	return f.Sources.OpenSource(ctx, manifest.Resolve(f.folder, uri))
}
