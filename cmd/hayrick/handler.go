package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/internal/records"
	"hayrick/jobfile"
	"hayrick/jobs"
	"hayrick/jobs/extproc"
	"hayrick/manifest"
	"hayrick/worker"
)

func handlerCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use: "handler <try>", Short: "Try the handler of a job on single items",
		Long:        "Try the handler of a job without a run: what it is sent, what it says, what becomes\nof it. The protocol is in docs/reference/handler-protocol.md.",
		Example:     "  hayrick handler try jobs/words\n  hayrick handler try jobs/words --item 41",
		Annotations: endsWith(exitUnwell, exitNotFound), SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0], "handler cannot")
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(handlerTryCommand(c))
	return cmd
}

// tryOptions are the flags of handler try.
type tryOptions struct {
	job, profile string
	sets         []string
	item         int64
	input        string
	record       string
	replay       string
}

func handlerTryCommand(c *cli) *cobra.Command {
	var o tryOptions
	cmd := &cobra.Command{
		Use: "try <job>", Short: "Run one item through the handler and print every frame", Args: arguments(1, 1),
		Long: `Run one item of the job's input (the first, or --item n), whatever its form, or every
line of --input, through the handler, one after the other, and print every frame: > to the handler,
< from it, | what it writes to stderr. No store is touched, no rate is waited for.

--record keeps the frames of an external handler in a file. --replay sends what such a
file has to the handler as it is now, and says where it answers otherwise: a test.`,
		Example:     "  hayrick handler try jobs/words --item 41\n  hayrick handler try jobs/words --input bad.jsonl --record bad.frames.jsonl\n  hayrick handler try jobs/words --replay bad.frames.jsonl",
		Annotations: endsWith(exitUnwell, exitNotFound),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.job = args[0]
			return runTry(cmd.Context(), c, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.profile, "profile", "p", c.get("HAYRICK_PROFILE"), "profile of the job file (default $HAYRICK_PROFILE)")
	f.StringArrayVar(&o.sets, "set", nil, "change a key of the job file, such as handler.rows=jsonl")
	f.Int64Var(&o.item, "item", 0, "which item of the input, from 0")
	f.StringVar(&o.input, "input", "", "a `file` of items, a JSON object a line, instead of the input; - is stdin")
	f.StringVar(&o.record, "record", "", "keep every frame in this `file`")
	f.StringVar(&o.replay, "replay", "", "send the items of this `file` of frames, and compare the answers")
	return cmd
}

// tried is one item that was tried.
type triedItem struct {
	Schema  string `json:"schema,omitempty"`
	Ordinal int64  `json:"ordinal"`
	Key     string `json:"key"`
	OK      bool   `json:"ok"`
	Rows    int64  `json:"rows"`
	Class   string `json:"class,omitempty"`
	After   string `json:"disposition,omitempty"`
	Message string `json:"message,omitempty"`
}

const tryShape = "hayrick.try/v1"

func runTry(ctx context.Context, c *cli, o tryOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	f, h, err := c.load(ctx, submitOptions{job: o.job, profile: o.profile, sets: o.sets, detach: true})
	if err != nil {
		return err
	}
	if closer, ok := h.(jobs.Closer); ok {
		defer closer.Close()
	}
	var was *recording
	if o.replay != "" {
		if was, err = readFrames(o.replay); err != nil {
			return err
		}
	}
	items, err := c.tryItems(ctx, f, h, o, was)
	if err != nil {
		return err
	}
	t := &try{cli: c, def: f.Definition, external: len(f.Definition.Handler.Exec) > 0, quietFrames: was != nil}
	if !t.external && (o.record != "" || was != nil) {
		return &hayrick.UserError{What: "a builtin handler has no frames to keep", Hint: "--record and --replay are for handler.exec"}
	}
	if p, ok := h.(*extproc.Handler); ok {
		p.Trace = t.frame
	}
	s, err := t.open(ctx, f, h)
	if err != nil {
		return err
	}
	failed := 0
	for _, it := range items {
		if !t.one(ctx, s, it) {
			failed++
		}
		if ctx.Err() != nil {
			return errInterrupted
		}
	}
	if s, ok := s.(jobs.Session); ok {
		s.Close()
	}
	t.mu.Lock()
	kept := recording{frames: slices.Clone(t.frames)}
	t.mu.Unlock()
	if o.record != "" {
		if err := kept.write(o.record); err != nil {
			return err
		}
		c.tell("%s in %s; compare with them later: hayrick handler try %s --replay %s", count(int64(len(kept.frames)), "frame"), o.record, o.job, o.record)
	}
	if was != nil {
		return c.compare(was, &kept)
	}
	if failed > 0 {
		return c.stopped(exitUnwell, fmt.Sprintf("%d of %s failed", failed, count(int64(len(items)), "item")), "see what the handler said above",
			"%d of %s failed", failed, count(int64(len(items)), "item"))
	}
	return nil
}

// tryItems finds the items to try.
func (c *cli) tryItems(ctx context.Context, f jobfile.File, h jobs.Handler, o tryOptions, was *recording) ([]jobs.Item, error) {
	def := f.Definition
	switch {
	case was != nil:
		return was.items(), nil
	case o.input == "-":
		return readItems(ctx, c.in, "stdin", def)
	case o.input != "":
		return fileItems(ctx, o.input, def)
	}
	return c.jobItems(ctx, h, def, o.item, 1)
}

// jobItems reads up to so many items of the job from an ordinal on, and at least one.
func (c *cli) jobItems(ctx context.Context, h jobs.Handler, def hayrick.JobDefinition, from, most int64) ([]jobs.Item, error) {
	if !def.Input.Items {
		return c.inputItems(ctx, inputsOnly{newByScheme(ctx, c, filesHere{})}, def, from, most)
	}
	l, ok := h.(jobs.Lister)
	if !ok {
		return nil, &hayrick.UserError{What: "the handler lists no items", Hint: "name a file of them in input.uri"}
	}
	var out []jobs.Item
	n := int64(0)
	err := l.Items(ctx, func(record json.RawMessage) error {
		if n++; n <= from {
			return nil
		}
		out = append(out, itemOf(def, n-1, bytes.Clone(record)))
		if int64(len(out)) == most {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) && len(out) == 0 {
		return nil, err
	}
	if len(out) == 0 {
		return nil, &hayrick.UserError{What: fmt.Sprintf("there is no item %d: the handler lists %s", from, count(n, "item")), Hint: "ordinals count from 0", Exit: exitNotFound}
	}
	return out, nil
}

// inputItems reads items from the job's input, as a submission would.
func (c *cli) inputItems(ctx context.Context, sources coordinator.Sources, def hayrick.JobDefinition, from, most int64) ([]jobs.Item, error) {
	in := def.Input
	in.Limit, in.OnBadItem = 0, "skip" // a bad record before it counts, and is not in the way
	n := int64(0)
	var out []jobs.Item
	take := func(name string, line int64, record []byte) error {
		if n++; n <= from {
			return nil
		}
		what, bad := records.Bad(record)
		if !bad {
			if what, _ = damage(record, def); what != "" {
				what = fmt.Sprintf("%s:%d: %s", name, line, what)
			}
		}
		if what != "" && most > 1 { // a run lists it, or stops at it; here the sound ones are wanted
			return nil
		}
		if what != "" {
			return &hayrick.UserError{What: what, Hint: "a handler gets only what is an item: mend the record"}
		}
		out = append(out, itemOf(def, n-1, bytes.Clone(record)))
		if int64(len(out)) == most {
			return errEnough
		}
		return nil
	}
	object := func(uri string, pin manifest.Pin) error {
		if in.Format == coordinator.FormatFiles {
			wd, err := os.Getwd()
			if err != nil {
				return fmt.Errorf("find the working directory: %w", err)
			}
			record, err := coordinator.FileItem(wd, in.URI, uri, pin)
			if err != nil {
				return err
			}
			return take(uri, 1, bytes.TrimSuffix(record, []byte("\n")))
		}
		r, _, err := sources.OpenSource(ctx, uri)
		if errors.Is(err, hayrick.ErrNotFound) {
			return &hayrick.UserError{What: fmt.Sprintf("input.uri: there is no file %s", uri), Hint: "a path is relative to the working directory, and the name of a folder ends in a slash", Exit: exitNotFound}
		}
		if err != nil {
			return fmt.Errorf("read the input %s: %w", uri, err)
		}
		defer r.Close()
		return eachRecord(ctx, in, r, uri, func(line int64, record []byte) error { return take(uri, line, record) })
	}
	var err error
	switch {
	case in.URI == coordinator.StdinURI:
		err = eachRecord(ctx, in, c.in, "standard input", func(line int64, record []byte) error { return take("standard input", line, record) })
	case isListing(in.URI):
		err = coordinator.ListSources(ctx, sources, in.URI, object)
	default:
		err = object(in.URI, manifest.Pin{})
	}
	switch {
	case len(out) > 0:
		return out, nil
	case errors.Is(err, hayrick.ErrNotFound) && !errors.As(err, new(*hayrick.UserError)), err == nil && n == 0 && isListing(in.URI):
		return nil, &hayrick.UserError{What: fmt.Sprintf("there is nothing below the input %s", in.URI), Hint: "check input.uri; names that begin with . or _ do not count", Exit: exitNotFound}
	case err != nil:
		return nil, err
	}
	return nil, &hayrick.UserError{What: fmt.Sprintf("there is no item %d: %s has %s", from, in.URI, count(n, "item")), Hint: "ordinals count from 0", Exit: exitNotFound}
}

// fileItems are the items of --input.
func fileItems(ctx context.Context, path string, def hayrick.JobDefinition) ([]jobs.Item, error) {
	r, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &hayrick.UserError{What: fmt.Sprintf("--input: there is no file %s", path), Hint: "a path is relative to the working directory", Exit: exitNotFound}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer r.Close()
	return readItems(ctx, r, path, def)
}

// readItems reads JSON lines.
func readItems(ctx context.Context, r io.Reader, name string, def hayrick.JobDefinition) ([]jobs.Item, error) {
	var out []jobs.Item
	err := eachRecord(ctx, hayrick.Input{Format: "jsonl", Compression: "none"}, r, name, func(line int64, record []byte) error {
		if what, _ := damage(record, def); what != "" {
			return &hayrick.UserError{What: fmt.Sprintf("%s:%d: %s", name, line, what), Hint: "a handler gets only what is an item: mend the line"}
		}
		out = append(out, itemOf(def, int64(len(out)), bytes.Clone(record)))
		return nil
	})
	if err == nil && len(out) == 0 {
		err = &hayrick.UserError{What: name + " has no items", Hint: "write a JSON object a line", Exit: exitNotFound}
	}
	return out, err
}

func itemOf(def hayrick.JobDefinition, ordinal int64, data []byte) jobs.Item {
	b := manifest.BatchItem{Ordinal: ordinal, Data: data}
	return jobs.Item{Ordinal: ordinal, Key: b.Label(def.Input.Key), Data: data, Try: 1, Left: def.Run.ItemTimeout.D()}
}

// try runs single items.
type try struct {
	*cli
	def         hayrick.JobDefinition
	external    bool
	quietFrames bool

	mu     sync.Mutex // guards what follows
	frames []frameLine
}

// open opens a session where the handler has them.
func (t *try) open(ctx context.Context, f jobfile.File, h jobs.Handler) (jobs.Handler, error) {
	o, ok := h.(jobs.Opener)
	if !ok {
		return h, nil
	}
	s, err := o.Open(ctx, jobs.Task{Run: "try", Task: "try", Host: &tryHost{t: t}, Log: func(l jobs.LogLine) {
		if !t.quietFrames {
			t.mustTell("| %s", l.Text)
		}
	}})
	var start *extproc.StartError
	if errors.As(err, &start) {
		return nil, &hayrick.UserError{What: fmt.Sprintf("%s: handler.exec: %s", f.At("handler.exec"), start.What), Hint: "what it wrote is above; start it by hand in " + f.Dir}
	}
	return s, err
}

// frame shows a frame and keeps it.
func (t *try) frame(fromHost bool, line []byte) {
	from, mark := "handler", "<"
	if fromHost {
		from, mark = "host", ">"
	}
	l := frameLine{From: from}
	if json.Valid(line) {
		l.Frame = bytes.Clone(line)
	} else {
		l.Text = string(line)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.frames = append(t.frames, l)
	switch {
	case t.quietFrames:
	case t.json:
		text, _ := json.Marshal(l)
		t.out.Write(append(text, '\n'))
	default:
		t.print("%s %s", mark, shortened(string(line)))
	}
}

// shortened is a frame for the screen; the whole one is in --record and --json.
func shortened(s string) string {
	const most = 2000
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + fmt.Sprintf(" ... (%d bytes)", len(s))
	}
	return s
}

// one tries one item and says what became of it.
func (t *try) one(ctx context.Context, h jobs.Handler, it jobs.Item) bool {
	it.Host = &tryHost{t: t, item: &it}
	if !t.external {
		t.say("host", map[string]any{"t": "item", "id": it.Ordinal, "ordinal": it.Ordinal, "key": it.Key, "attempt": it.Try, "item": it.Data})
		limited, cancel := context.WithTimeout(ctx, it.Left)
		defer cancel()
		ctx = limited
	}
	rows := int64(0)
	start := t.world.Clock.Now()
	out := h.Handle(ctx, it, func(r jobs.Row) error {
		if err := r.Check(); err != nil {
			return err
		}
		rows++
		if !t.external {
			cols := map[string]any{}
			for _, c := range r {
				cols[c.Name] = c.Value
			}
			t.say("handler", map[string]any{"t": "row", "id": it.Ordinal, "row": cols})
		}
		return nil
	})
	if !t.external {
		if out.OK() {
			t.say("handler", map[string]any{"t": "ok", "id": it.Ordinal})
		} else {
			t.say("handler", map[string]any{"t": "err", "id": it.Ordinal, "class": out.Class, "msg": out.Message})
		}
	}
	x := triedItem{Schema: tryShape, Ordinal: it.Ordinal, Key: it.Key, OK: out.OK(), Rows: rows}
	if !out.OK() {
		next := worker.NextTry(t.def.Retry, worker.Try{Outcome: out, InTask: t.def.Retry.InTask.Attempts, Crashes: 1, Crashed: out.Crashed}, 0)
		x.Class, x.After, x.Message = next.Failure.Class, string(next.Failure.Disposition), next.Failure.Message
	}
	switch {
	case t.quietFrames:
	case t.json:
		t.printJSON(x)
	case x.OK:
		t.mustTell("item %d (%s): ok, %s in %s", x.Ordinal, x.Key, count(rows, "row"), ago(t.world.Clock.Now().Sub(start).Round(time.Millisecond)))
	default:
		again := "it would be tried again"
		if hayrick.Disposition(x.After).Final() {
			again = "it would not be tried again"
		}
		t.mustTell("item %d (%s): %s, %s: %s; %s", x.Ordinal, x.Key, x.Class, x.After, x.Message, again)
	}
	return x.OK
}

// say shows what a builtin handler would be told and would say, as frames.
func (t *try) say(from string, f map[string]any) {
	text, err := json.Marshal(f)
	if err != nil {
		text, _ = json.Marshal(map[string]string{"error": err.Error()})
	}
	t.frame(from == "host", text)
}

// tryHost grants whatever is asked for.
type tryHost struct {
	t    *try
	item *jobs.Item // nil for no item
}

func (h *tryHost) note(kind string, more map[string]any) {
	if h.t.external {
		return // its frames are shown
	}
	more["t"] = kind
	if h.item != nil {
		more["id"] = h.item.Ordinal
	}
	h.t.say("handler", more)
}

func (h *tryHost) Need(ctx context.Context, rate, key string, n int) error {
	h.note("need", map[string]any{"rate": rate, "key": key, "n": n})
	if _, ok := h.t.def.Rate(rate); !ok {
		return &hayrick.UserError{What: fmt.Sprintf("the handler asks for rate %q, which the job file does not have", rate), Hint: "add it under rates:"}
	}
	return ctx.Err()
}

func (h *tryHost) Feedback(rate, key string, f jobs.Feedback) {
	h.note("back", map[string]any{"rate": rate, "key": key, "throttled": f.Throttled, "reset_ms": f.RetryAfter.Milliseconds()})
}
func (h *tryHost) Add(m string, n int64) { h.note("metric", map[string]any{"name": m, "add": n}) }
func (h *tryHost) Set(m string, n int64) { h.note("metric", map[string]any{"name": m, "set": n}) }
func (h *tryHost) Observe(m string, n int64) {
	h.note("metric", map[string]any{"name": m, "observe": n})
}
func (h *tryHost) Beat(done, of int64) { h.note("beat", map[string]any{"done": done, "of": of}) }
func (h *tryHost) Log(text string)     { h.t.mustTell("| %s", text) }
func (h *tryHost) Mark(cursor json.RawMessage) error {
	h.note("mark", map[string]any{"cursor": cursor})
	if len(cursor) > jobs.MaxCursor {
		return fmt.Errorf("a cursor of %d bytes, the limit is %d", len(cursor), jobs.MaxCursor)
	}
	return nil
}

// frameLine is one line of a file of frames.
type frameLine struct {
	From  string          `json:"from"`            // host | handler
	Frame json.RawMessage `json:"frame,omitempty"` // what it said
	Text  string          `json:"text,omitempty"`  // instead: what is no frame
}

// recording is a file of frames.
type recording struct{ frames []frameLine }

func (r *recording) write(path string) error {
	var b bytes.Buffer
	for _, l := range r.frames {
		text, err := json.Marshal(l)
		if err != nil {
			return err
		}
		b.Write(append(text, '\n'))
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return &hayrick.UserError{What: "the frames cannot be kept", Hint: "name a file that can be written", Err: err}
	}
	return nil
}

func readFrames(path string) (*recording, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, &hayrick.UserError{What: "there is no file of frames to replay", Hint: "make one with --record " + path, Exit: exitNotFound, Err: err}
	}
	r := &recording{}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		var l frameLine
		if err := json.Unmarshal(line, &l); err != nil || l.From != "host" && l.From != "handler" {
			return nil, &hayrick.UserError{What: fmt.Sprintf("%s:%d is no frame that --record has written", path, n), Hint: "record it anew with --record " + path}
		}
		r.frames = append(r.frames, l)
	}
	if len(r.items()) == 0 {
		return nil, &hayrick.UserError{What: path + " has no item", Hint: "record it anew with --record " + path}
	}
	return r, nil
}

// items are the items that were sent.
func (r *recording) items() (out []jobs.Item) {
	for _, l := range r.frames {
		var f struct {
			T       string
			Ordinal int64
			Key     string
			Attempt int
			LeftMS  int64 `json:"left_ms"`
			Cursor  json.RawMessage
			Item    json.RawMessage
		}
		if l.From == "host" && json.Unmarshal(l.Frame, &f) == nil && f.T == "item" {
			out = append(out, jobs.Item{Ordinal: f.Ordinal, Key: f.Key, Data: f.Item, Try: max(1, f.Attempt), Left: time.Duration(f.LeftMS) * time.Millisecond, Cursor: f.Cursor})
		}
	}
	return out
}

// answers are what the handler said of each item, in order and in one form.
func (r *recording) answers() map[int64][]string {
	out := map[int64][]string{}
	for _, l := range r.frames {
		var f map[string]any
		d := json.NewDecoder(bytes.NewReader(l.Frame))
		d.UseNumber()
		if l.From != "handler" || d.Decode(&f) != nil {
			continue
		}
		id, ok := f["id"].(json.Number)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(id.String(), 10, 64)
		if err != nil {
			continue
		}
		delete(f, "id")
		text, _ := json.Marshal(f) // sorted by name
		out[n] = append(out[n], string(text))
	}
	return out
}

// compare says where a handler answers otherwise than it did.
func (c *cli) compare(was, now *recording) error {
	before, after := was.answers(), now.answers()
	ids := slices.Sorted(maps.Keys(before))
	for id := range after {
		if before[id] == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	items := was.items()
	differ := 0
	for _, id := range ids {
		if slices.Equal(before[id], after[id]) {
			continue
		}
		differ++
		key := ""
		if id >= 1 && int(id) <= len(items) {
			key = " (" + items[id-1].Key + ")"
		}
		c.print("item %d%s answers otherwise:", id, key)
		for _, l := range before[id] {
			if !slices.Contains(after[id], l) {
				c.print("- %s", shortened(l))
			}
		}
		for _, l := range after[id] {
			if !slices.Contains(before[id], l) {
				c.print("+ %s", shortened(l))
			}
		}
	}
	if differ > 0 {
		return c.stopped(exitUnwell, fmt.Sprintf("%d of %s differ from the recording", differ, count(int64(len(items)), "item")), "record anew with --record when that is right",
			"%d of %s differ from the recording; record anew with --record when that is right", differ, count(int64(len(items)), "item"))
	}
	c.tell("%s as recorded", count(int64(len(items)), "item"))
	return nil
}
