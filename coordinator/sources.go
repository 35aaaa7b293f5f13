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
	"io"
	"os"

	"hayrick"
	"hayrick/manifest"
)

// listing is what a folder of inputs held when it was looked at: the objects, in the
// order of their names, in a scratch file.
type listing struct {
	file    *os.File
	objects int64
}

// sourceLine is one object of a listing.
type sourceLine struct {
	URI string       `json:"uri"`
	Pin manifest.Pin `json:"pin"`
}

// listFolder looks at a folder of inputs. Its pin is of the listing: names, sizes,
// times and ETags, in order.
func (c *Coordinator) listFolder(ctx context.Context, s Submission) (_ *source, err error) {
	in := s.Definition.Input
	f, err := c.scratchFile("sources")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	l := &listing{file: f}
	id := manifest.InputID{URI: in.URI, Object: manifest.Resolve(s.Folder, in.URI)}
	h, w, last := sha256.New(), bufio.NewWriterSize(f, 256<<10), ""
	err = c.listSources(ctx, in.URI, func(uri string, pin manifest.Pin) error {
		if l.objects > 0 && uri <= last {
			return fmt.Errorf("it lists %s behind %s, which is no order of names", uri, last)
		}
		last = uri
		l.objects++
		id.Pin.Size += pin.Size
		if pin.MTime.After(id.Pin.MTime.Time) {
			id.Pin.MTime = pin.MTime
		}
		line, err := manifest.EncodeLine(InputIdentityOf(manifest.InputID{URI: uri, Pin: pin}))
		if err != nil {
			return err
		}
		h.Write(line)
		if line, err = manifest.EncodeLine(sourceLine{uri, pin}); err != nil {
			return err
		}
		_, err = w.Write(line)
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	var user *hayrick.UserError
	switch {
	case errors.Is(err, hayrick.ErrNotFound), err == nil && l.objects == 0:
		return nil, &hayrick.UserError{What: fmt.Sprintf("there is nothing below the input %s", in.URI), Hint: "check input.uri; names that begin with . or _ do not count"}
	case errors.As(err, &user):
		return nil, user
	case err != nil:
		return nil, fmt.Errorf("list the input %s: %w", in.URI, err)
	}
	id.Pin.ETag = "list:" + hex.EncodeToString(h.Sum(nil))
	return &source{id: id, list: l, size: id.Pin.Size}, nil
}

// read returns the objects of the listing one by one; io.EOF ends it.
func (l *listing) read() func() (sourceLine, error) {
	in := bufio.NewReaderSize(io.NewSectionReader(l.file, 0, 1<<62), 64<<10)
	return func() (x sourceLine, err error) {
		line, err := in.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(bytes.TrimSpace(line), &x)
		}
		return x, err
	}
}

// How far ahead objects are opened: the time to a first byte is what many small ones
// cost. What one of them holds is read only when it is its turn.
const (
	openAhead      = 64
	openAheadBytes = 64 << 20
	convertAhead   = 4 // of those that are converted: they are read whole then
)

// opening is an object that is being opened.
type opening struct {
	src   *source
	whole int   // 1: it is converted
	bytes int64 // of the object itself
	done  chan struct{}
	body  io.ReadCloser
	err   error
}

// each opens the objects of a listing, several at once, and calls fn with them in their
// order until that says that it has enough. What was opened in vain is closed.
func (c *Coordinator) each(ctx context.Context, s Submission, l *listing, open func(context.Context, *source) (io.ReadCloser, error), fn func(*source, io.Reader) (enough bool, err error)) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ahead []*opening
	var bytes int64
	whole := 0
	defer func() {
		cancel()
		for _, o := range ahead {
			if <-o.done; o.body != nil {
				o.body.Close()
			}
		}
	}()
	next, more := l.read(), true
	for n := 0; ; {
		for more && len(ahead) < openAhead && whole < convertAhead && (len(ahead) == 0 || bytes < openAheadBytes) {
			line, err := next()
			if err == io.EOF {
				more = false
				break
			}
			if err != nil {
				return fmt.Errorf("read the list of sources: %w", err)
			}
			o := &opening{done: make(chan struct{}), src: &source{
				id:   manifest.InputID{URI: line.URI, Object: manifest.Resolve(s.Folder, line.URI), Pin: line.Pin},
				size: line.Pin.Size, n: n, member: true,
			}}
			n++
			if _, needed := ConversionOf(s.Definition.Input, line.URI); needed {
				o.whole = 1
			}
			o.bytes = o.src.size
			bytes, whole = bytes+o.bytes, whole+o.whole
			ahead = append(ahead, o)
			c.World.Go("open source", func() {
				defer close(o.done)
				o.body, o.err = open(ctx, o.src)
			})
		}
		if len(ahead) == 0 {
			return nil
		}
		o := ahead[0]
		ahead = ahead[1:]
		bytes, whole = bytes-o.bytes, whole-o.whole
		if <-o.done; o.err != nil {
			return o.err
		}
		enough, err := fn(o.src, o.body)
		o.body.Close() // what was read is judged by its length and its pin
		if err != nil || enough {
			return err
		}
	}
}

// unchangedList checks that the first n objects of a listing are still what they
// were. What has come into the folder since is not of this run.
func (c *Coordinator) unchangedList(ctx context.Context, uri string, l *listing, n int64) error {
	next := l.read()
	line, err := next()
	if err != nil {
		return fmt.Errorf("read the list of sources: %w", err)
	}
	err = c.listSources(ctx, uri, func(object string, pin manifest.Pin) error {
		switch {
		case object < line.URI:
			return nil
		case object > line.URI || !samePin(pin, line.Pin):
			return changed(line.URI, "read")
		}
		if n--; n == 0 {
			return errEnough
		}
		if line, err = next(); err != nil {
			return fmt.Errorf("read the list of sources: %w", err)
		}
		return nil
	})
	var user *hayrick.UserError
	switch {
	case errors.Is(err, errEnough):
		return nil
	case err == nil, errors.Is(err, hayrick.ErrNotFound) && !errors.As(err, &user):
		return changed(line.URI, "read") // it was behind all that is there
	case errors.As(err, &user):
		return user
	}
	return fmt.Errorf("list the input %s again: %w", uri, err)
}

// objects gathers what a plan says of the objects of a folder: in the plan itself,
// or in a list beside it when there are many.
type objects struct {
	inline []manifest.InputID
	list   *manifest.ListWriter
}

func (c *Coordinator) newObjects() (*objects, error) {
	f, err := c.scratchFile("objects")
	if err != nil {
		return nil, err
	}
	return &objects{list: manifest.NewListWriter(f)}, nil
}

func (o *objects) add(id manifest.InputID) error {
	if len(o.inline) < manifest.InlineObjects {
		o.inline = append(o.inline, id)
	}
	return o.list.Add(id)
}

// put stores the list where it is too long for the plan. A crash leaves a data object
// that nothing names.
func (o *objects) put(ctx context.Context, store *manifest.Store, jobID string, id *manifest.InputID) (err error) {
	if o.list.Count() <= manifest.InlineObjects {
		id.Objects = o.inline
		return nil
	}
	id.ObjectsRef, err = o.list.Put(ctx, store, jobID, manifest.Job(jobID).InputObjects)
	return err
}

// memberName is keyName of an object in a folder. The number keeps two apart that hold
// the same under the same name.
func memberName(n int, uri string) string { return fmt.Sprintf("%06d-%s", n, keyName(uri)) }

// smallBatches says, in a few words for a log, that most batches of a folder are far
// from full: a batch does not go on in the next object.
func smallBatches(items, tasks int64, batch int) bool {
	return tasks >= 100 && items < tasks*int64(batch)/10
}
