package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/internal/keysort"
	"hayrick/internal/records"
	"hayrick/jobfile"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/worker"
)

const (
	keyMemory = 24 << 20 // of keys that are being sorted
	toldKeys  = 20
)

// checkedKeys is what check --keys found.
type checkedKeys struct {
	Key     string     `json:"key"`
	Items   int64      `json:"items"`
	Missing int64      `json:"missing"` // items without a key, or that are none
	Twice   int64      `json:"twice"`   // keys of more than one item
	Extra   int64      `json:"extra"`   // items behind the first of their key
	NoKey   []noKeyAt  `json:"first_missing"`
	First   []keyTwice `json:"first_twice"`
}

type keyPlace struct {
	URI  string `json:"uri"`
	Line int64  `json:"line"` // of Parquet the row, of a list the item, from 1
}

type noKeyAt struct {
	keyPlace
	What string `json:"what"`
}

type keyTwice struct {
	Key   string   `json:"key"`
	Times int64    `json:"times"`
	First keyPlace `json:"first"`
	Again keyPlace `json:"again"`
}

// keyCheck reads keys.
type keyCheck struct {
	def    hayrick.JobDefinition
	sort   *keysort.Sorter
	out    checkedKeys
	object int64 // the one in hand, from 0
}

// checkKeys finds items without a key and keys of more than one item.
func (c *cli) checkKeys(ctx context.Context, sources coordinator.Sources, f jobfile.File, h jobs.Handler) (*checkedKeys, error) {
	def := f.Definition
	if def.Input.Key == "" {
		return nil, jobfile.Problems{{Place: f.At("input.key"), What: "input.key: not given, so an item is labelled by where it stands, and no two are the same; write the field that names an item"}}
	}
	k := &keyCheck{def: def, sort: keysort.New(os.TempDir(), keyMemory), out: checkedKeys{Key: def.Input.Key, NoKey: []noKeyAt{}, First: []keyTwice{}}}
	defer k.sort.Close()
	k.def.Input.OnBadItem = "skip" // all of them are told
	if err := k.all(ctx, c, sources, h); err != nil {
		return nil, err
	}
	found, err := k.sort.Find(toldKeys)
	if err != nil {
		return nil, err
	}
	k.out.Twice, k.out.Extra = found.Keys, found.Extra
	wanted := map[int64]string{}
	for _, x := range found.First {
		wanted[x.First.Object], wanted[x.Again.Object] = "", ""
	}
	if err := k.names(ctx, sources, wanted); err != nil {
		return nil, err
	}
	for _, x := range found.First {
		k.out.First = append(k.out.First, keyTwice{x.Key, x.Times, keyPlace{wanted[x.First.Object], x.First.Line}, keyPlace{wanted[x.Again.Object], x.Again.Line}})
	}
	return &k.out, nil
}

// all reads all items.
func (k *keyCheck) all(ctx context.Context, c *cli, sources coordinator.Sources, h jobs.Handler) error {
	in := k.def.Input
	switch {
	case in.Items:
		list, ok := h.(jobs.Lister)
		if !ok {
			return &hayrick.UserError{What: "input.items is set, but the handler lists no items", Hint: "set input.uri to a file"}
		}
		n := int64(0)
		err := list.Items(ctx, func(record json.RawMessage) error {
			if in.Limit > 0 && n == in.Limit {
				return errEnough
			}
			n++
			return k.item("the handler's list", n, record)
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	case in.URI == coordinator.StdinURI:
		return k.read(ctx, c.in, "standard input")
	case in.Format == coordinator.FormatFiles:
		return &hayrick.UserError{What: "the names of a listing are all different", Hint: "check --keys is for other forms of input"}
	}
	seen := false
	err := k.each(ctx, sources, func(object string) error {
		seen = true
		r, _, err := sources.OpenSource(ctx, object)
		if errors.Is(err, hayrick.ErrNotFound) {
			return inputGone(ctx, sources, object)
		}
		if err != nil {
			return fmt.Errorf("read the input %s: %w", object, err)
		}
		err = k.read(ctx, r, object)
		return errors.Join(err, r.Close())
	})
	if errors.Is(err, errEnough) || err == nil && seen {
		return nil
	}
	if err == nil || errors.Is(err, hayrick.ErrNotFound) && !errors.As(err, new(*hayrick.UserError)) {
		return inputGone(ctx, sources, in.URI)
	}
	return err
}

// isListing says that an input is more than one object.
func isListing(uri string) bool { return manifest.IsFolder(uri) || coordinator.IsGlob(uri) }

// each calls fn with the objects of the input, in order.
func (k *keyCheck) each(ctx context.Context, sources coordinator.Sources, fn func(object string) error) error {
	uri := k.def.Input.URI
	k.object = 0
	if !isListing(uri) {
		return fn(uri)
	}
	return coordinator.ListSources(ctx, sources, uri, func(object string, _ manifest.Pin) error {
		err := fn(object)
		k.object++
		return err
	})
}

// names fills in what the wanted objects are called: names are not kept, there may be
// any number.
func (k *keyCheck) names(ctx context.Context, sources coordinator.Sources, wanted map[int64]string) error {
	if len(wanted) == 0 {
		return nil
	}
	switch {
	case k.def.Input.Items:
		wanted[0] = "item"
		return nil
	case k.def.Input.URI == coordinator.StdinURI:
		wanted[0] = "standard input"
		return nil
	}
	left := len(wanted)
	err := k.each(ctx, sources, func(object string) error {
		if _, ok := wanted[k.object]; ok {
			wanted[k.object] = object
			if left--; left == 0 {
				return errEnough
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// read takes the items of one object.
func (k *keyCheck) read(ctx context.Context, r io.Reader, name string) error {
	in := k.def.Input
	if in.Limit > 0 {
		if in.Limit -= k.out.Items; in.Limit <= 0 {
			return errEnough
		}
	}
	return eachRecord(ctx, in, r, name, func(line int64, record []byte) error {
		if err := k.item(name, line, record); err != nil {
			return err
		}
		if k.def.Input.Limit > 0 && k.out.Items == k.def.Input.Limit {
			return errEnough
		}
		return nil
	})
}

// eachRecord calls fn with each record of an object, whatever its form, and the line (of
// Parquet, the row) that it begins on. The record is fn's until it returns; an error of
// fn's ends the reading.
func eachRecord(ctx context.Context, in hayrick.Input, r io.Reader, name string, fn func(line int64, record []byte) error) error {
	o, needed := coordinator.ConversionOf(in, name)
	if needed {
		o.Scratch = func() (records.Scratch, error) { return unnamedFile(os.TempDir()) }
		o.Places = o.Format != "jsonl"
		out, pipe := io.Pipe()
		done := make(chan struct{})
		src := r
		go func() {
			defer close(done)
			pipe.CloseWithError(records.Write(ctx, pipe, src, o))
		}()
		defer func() { out.Close(); <-done }()
		r = out
	}
	buf := bufio.NewReaderSize(r, 256<<10)
	if mark, _ := buf.Peek(3); string(mark) == "\xef\xbb\xbf" {
		buf.Discard(3)
	}
	var line []byte
	for n := int64(1); ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if line, err = readLine(buf, line[:0]); err != nil && err != io.EOF {
			if errors.Is(err, bufio.ErrTooLong) {
				return &hayrick.UserError{What: fmt.Sprintf("%s:%d is longer than %d bytes", name, n, coordinator.MaxLineBytes), Hint: "an input is one JSON value a line; check that it has newlines"}
			}
			if errors.As(err, new(*records.Problem)) {
				return err
			}
			return fmt.Errorf("read the input %s: %w", name, err)
		}
		at, rec := n, manifest.TrimRecord(bytes.TrimSuffix(line, []byte("\n")))
		if o.Places {
			place, rest, _ := bytes.Cut(rec, []byte("\t"))
			at, _ = strconv.ParseInt(string(place), 10, 64) // it is ours
			rec = rest
		}
		if len(rec) > 0 {
			if err := fn(at, rec); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readLine appends a line, with its end.
func readLine(r *bufio.Reader, line []byte) ([]byte, error) {
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > coordinator.MaxLineBytes {
			return line, bufio.ErrTooLong
		}
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

// item takes one item.
func (k *keyCheck) item(name string, line int64, record []byte) error {
	k.out.Items++
	what, bad := records.Bad(record)
	if !bad {
		fields, ok := worker.ParseFields(record)
		if ok {
			if key, ok := fields.Text(k.def.Input.Key); ok {
				return k.sort.Add([]byte(key), keysort.Place{Object: k.object, Line: line})
			}
		}
		what, _ = damage(record, k.def)
	}
	if k.out.Missing++; len(k.out.NoKey) < toldKeys {
		k.out.NoKey = append(k.out.NoKey, noKeyAt{keyPlace{name, line}, what})
	}
	return nil
}

func (p keyPlace) String() string { return fmt.Sprintf("%s:%d", p.URI, p.Line) }

// sayKeys tells what is wrong with keys, and that nothing is.
func (c *cli) sayKeys(res checked) error {
	k := res.Keys
	for _, x := range k.NoKey {
		if strings.HasPrefix(x.What, x.URI+":") { // it has its place
			c.print("%s", x.What)
			continue
		}
		c.print("%s: %s", x.keyPlace, x.What)
	}
	if more := k.Missing - int64(len(k.NoKey)); more > 0 {
		c.print("... and %s without a key", count(more, "more item"))
	}
	for _, x := range k.First {
		times := ""
		if x.Times > 2 {
			times = fmt.Sprintf(", and %s in all", count(x.Times, "time"))
		}
		c.print("%s: the key %q stands at %s already%s", x.Again, x.Key, x.First, times)
	}
	if more := k.Twice - int64(len(k.First)); more > 0 {
		c.print("... and %s that %s twice or more", count(more, "more key"), plural(more, "stands", "stand"))
	}
	if k.Missing+k.Twice == 0 {
		c.print("%s keys     %s, and no two have the same %s", c.paintOut(green, "ok"), count(k.Items, "item"), k.Key)
		return nil
	}
	c.tell("%s: %s without a key, %s that more than one item has", count(k.Items, "item"), number(k.Missing), count(k.Twice, "key"))
	return nil
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
