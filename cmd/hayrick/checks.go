package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"hayrick"
	"hayrick/aws"
	"hayrick/coordinator"
	"hayrick/internal/records"
	"hayrick/jobfile"
	"hayrick/jobs"
	"hayrick/jobs/extproc"
	"hayrick/manifest"
	"hayrick/ratelimit"
	"hayrick/worker"
)

// checkFile finds what only this build and this machine know to be wrong with a job
// file: its handler, its rates, and where the output goes.
func (c *cli) checkFile(ctx context.Context, f jobfile.File) (jobs.Handler, error) {
	var ps jobfile.Problems
	user := func(path string, err error) error {
		var u *hayrick.UserError
		if !errors.As(err, &u) {
			return err
		}
		what := u.What
		if u.Hint != "" {
			what += "; " + u.Hint
		}
		ps = append(ps, jobfile.Problem{Place: f.At(path), What: what})
		return nil
	}
	for i, r := range f.Definition.Rates {
		if _, err := ratelimit.LimitsOf(r, c.timing()); err != nil {
			if err := user(fmt.Sprintf("rates[%d].burst", i), err); err != nil {
				return nil, err
			}
		}
	}
	what, denied := c.outputProblem(f.Definition.Output.URI)
	if what != "" {
		ps = append(ps, jobfile.Problem{Place: f.At("output.uri"), What: "output.uri: " + what})
	}
	h, err := handlers.New(ctx, c.handlerEnv(f))
	if err != nil {
		path := paramPath.FindString(err.Error()) // the parameter that the error is about
		switch _, ok := handlers[f.Definition.Handler.Builtin]; {
		case len(f.Definition.Handler.Exec) > 0:
			path = "handler.exec"
		case !ok:
			path = "handler.builtin"
		case path == "":
			path = "handler.params"
		}
		if err := user(path, err); err != nil {
			return nil, fmt.Errorf("build the handler: %w", err)
		}
	}
	if len(ps) > 0 {
		return nil, ps.Sorted()
	}
	if denied != nil { // nothing is wrong with the file
		denied.Hint = fmt.Sprintf("make it writable, or write another output.uri (%s)", f.At("output.uri"))
		return nil, denied
	}
	return h, nil
}

// checker is a handler that can say before a run whether it starts.
type checker interface{ Check(context.Context) error }

// checkHandler starts a handler that is a program, and ends it when it is ready: one
// that does not start here would fail every task.
func checkHandler(ctx context.Context, f jobfile.File, h jobs.Handler) error {
	p, ok := h.(checker)
	if !ok {
		return nil
	}
	err := p.Check(ctx)
	var u *hayrick.UserError
	var s *extproc.StartError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &s):
		e := &hayrick.UserError{What: fmt.Sprintf("%s: handler.exec: %s", f.At("handler.exec"), s.What), Hint: "see every frame and line of it: hayrick handler try " + f.Path}
		if text := strings.TrimSpace(s.Detail); strings.Contains(text, "\n") {
			e.What += "\n" + indented(text)
		}
		return e
	case errors.As(err, &u):
		return jobfile.Problems{{Place: f.At("handler.exec"), What: u.What + "; " + u.Hint}}
	}
	return fmt.Errorf("check the handler: %w", err)
}

// indented is a text of several lines inside another.
func indented(text string) string { return "  | " + strings.ReplaceAll(text, "\n", "\n  | ") }

// handlerEnv is what a handler is built from before there is a run: it works in the
// job's own folder.
func (c *cli) handlerEnv(f jobfile.File) jobs.Env {
	return jobs.Env{
		World: c.world, Log: c.log, Handler: f.Definition.Handler, Timeout: f.Definition.Run.ItemTimeout,
		Dir: func(context.Context) (string, error) { return filepath.Abs(f.Dir) },
	}
}

// paramPath is how a factory names a parameter.
var paramPath = regexp.MustCompile(`^handler\.params(\.[a-z0-9_]+)*`)

// outputProblem says why the output may not go where the job file says: what is wrong
// with that, or, where nothing is, what this process may not write.
func (c *cli) outputProblem(uri string) (what string, denied *hayrick.UserError) {
	if c.onAWS() {
		if !strings.HasPrefix(uri, aws.Scheme) {
			return "a store on AWS publishes into S3; write s3://bucket/folder/", nil
		}
		return "", nil
	}
	if strings.Contains(uri, "://") && !strings.HasPrefix(uri, "file:///") {
		return "this store publishes into folders of this machine; write a path, or name a store on AWS: -C s3://<name>", nil
	}
	out, err1 := filepath.Abs(strings.TrimPrefix(uri, "file://"))
	store, err2 := filepath.Abs(c.storeDir)
	switch {
	case err1 != nil || err2 != nil:
		return "", nil
	case inside(out, store):
		return "the output cannot lie in the store, " + c.storeDir + "; write another folder", nil
	case inside(store, out):
		return "the store, " + c.storeDir + ", would lie in the output; write a folder of its own", nil
	}
	for dir := out; ; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		switch {
		case err == nil && !st.IsDir():
			return dir + " is not a folder; write one", nil
		case err == nil:
			if err := unix.Access(dir, unix.W_OK); err != nil {
				denied = &hayrick.UserError{What: fmt.Sprintf("the output folder %s cannot be written", fromHere(dir)), Exit: exitPermission, Err: err}
				if dir != out {
					denied.What = fmt.Sprintf("the output folder %s cannot be made in %s", uri, fromHere(dir))
				}
			}
			return "", denied
		case errors.Is(err, fs.ErrPermission):
			return "", &hayrick.UserError{What: fmt.Sprintf("the output folder %s cannot be reached", uri), Exit: exitPermission, Err: err}
		case dir == filepath.Dir(dir):
			return "", nil
		}
	}
}

// inside says that path is folder or below it.
func inside(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// How much of the input is looked at before anything is planned, and how many
// damaged lines are told.
const (
	checkedLines = 1000
	toldLines    = 10
)

// checkInput reads the first items as a worker would, so that a wrong file is found
// out before it is indexed.
func (c *cli) checkInput(ctx context.Context, sources coordinator.Sources, def hayrick.JobDefinition) error {
	if def.Input.Items {
		return nil
	}
	if def.Input.URI == coordinator.StdinURI || def.Input.Format == coordinator.FormatFiles {
		return nil // what is read once is checked then; a listing has no lines
	}
	if !isListing(def.Input.URI) {
		return c.checkObject(ctx, sources, def, def.Input.URI)
	}
	left, seen := checkedObjects, 0
	if def.Input.Limit > 0 {
		left = 1 // it may end there
	}
	err := coordinator.ListSources(ctx, sources, def.Input.URI, func(object string, _ manifest.Pin) error {
		if err := c.checkObject(ctx, sources, def, object); err != nil {
			return err
		}
		if seen++; seen == left {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	var user *hayrick.UserError
	switch {
	case err == nil && seen > 0:
		return nil
	case errors.As(err, &user):
		if errors.Is(err, hayrick.ErrNotFound) && user.Exit == 0 {
			return &hayrick.UserError{What: user.What, Hint: user.Hint, Exit: exitNotFound}
		}
		return user
	case err == nil, errors.Is(err, hayrick.ErrNotFound):
		return inputGone(ctx, sources, def.Input.URI)
	}
	return fmt.Errorf("list the input %s: %w", def.Input.URI, err)
}

// checkedObjects is at how many objects of a folder a check looks.
const checkedObjects = 10

var errEnough = errors.New("enough was looked at")

// checkObject reads the first items of one object.
func (c *cli) checkObject(ctx context.Context, sources coordinator.Sources, def hayrick.JobDefinition, uri string) error {
	r, _, err := sources.OpenSource(ctx, uri)
	var user *hayrick.UserError
	if errors.Is(err, hayrick.ErrNotFound) && errors.As(err, &user) { // what is there is no file, or there is not even a bucket
		return &hayrick.UserError{What: user.What, Hint: user.Hint, Exit: exitNotFound}
	}
	if errors.Is(err, hayrick.ErrNotFound) {
		return inputGone(ctx, sources, uri)
	}
	if err != nil {
		return fmt.Errorf("read the input %s: %w", uri, err)
	}
	defer r.Close()
	lined, stop, ok := converted(ctx, r, def, uri)
	if !ok {
		return nil
	}
	defer stop()
	return c.checkLines(lined, def, uri, false)
}

// checkStdin reads the first items of standard input where they are JSON lines, and takes
// none of them away: other forms are judged as they are converted.
func (c *cli) checkStdin(in *bufio.Reader, def hayrick.JobDefinition) error {
	if _, needed := coordinator.ConversionOf(def.Input, coordinator.StdinURI); needed {
		return nil
	}
	head, err := in.Peek(in.Size())
	if err == nil { // there is more; the last line may be cut
		head = head[:bytes.LastIndexByte(head, '\n')+1]
	}
	return c.checkLines(bytes.NewReader(head), def, "standard input", err == nil)
}

// checkLines judges the first items; more says that r is not all there is.
func (c *cli) checkLines(r io.Reader, def hayrick.JobDefinition, uri string, more bool) error {
	in := bufio.NewReaderSize(r, checkedBytes)
	if def.Input.Format == "jsonl" {
		if p := records.Refuse(in, records.Options{Name: uri, Packed: "none"}); p != nil {
			return p
		}
	}
	bad, whole, err := damagedLines(in, def)
	whole = whole && !more
	if user := (*records.Problem)(nil); errors.As(err, &user) {
		return err
	}
	if err != nil {
		return fmt.Errorf("read the input %s: %w", uri, err)
	}
	if len(bad) == 0 {
		return nil
	}
	if def.Input.Format != "jsonl" { // its lines are not the items
		for i, b := range bad {
			if !b.placed {
				bad[i].what, bad[i].placed = fmt.Sprintf("%s: item %d: %s", uri, b.line, b.what), true
			}
		}
	}
	skip := def.Input.OnBadItem == "skip"
	if !c.json && !(skip && c.quiet) {
		c.sayDamaged(uri, bad, whole)
	}
	if skip {
		c.tell("such items are listed as permanent, class %s (input.on_bad_item: skip)", hayrick.ClassBadItem)
		return nil
	}
	no := "is no item"
	if len(bad) > 1 {
		no = "are no items"
	}
	lines := count(int64(len(bad)), "line")
	if !whole {
		lines = fmt.Sprintf("%s of the first %s lines", number(int64(len(bad))), number(checkedLines))
	}
	what := fmt.Sprintf("%s of %s %s", lines, uri, no)
	if c.json {
		first := bad[0].what
		if !bad[0].placed {
			first = fmt.Sprintf("line %s: %s", bad[0].place(), first)
		}
		what += "; the first is " + first
	}
	return &hayrick.UserError{
		What: what,
		Hint: formHint(def, uri, bad),
	}
}

// formHint is what mends lines that are none: often the file has another form.
func formHint(def hayrick.JobDefinition, uri string, bad []badLine) string {
	first := bad[0]
	if named := hayrick.FormatOf(uri); def.Input.Format == "jsonl" && named != "" && named != "jsonl" {
		return "write input.format: " + named + ", if that is what the file is"
	}
	if def.Input.Format == "jsonl" && first.line == 1 {
		switch first.value {
		case '[':
			return "an input is one JSON object a line; of an array, jq -c '.[]' makes that"
		case '{':
			if strings.HasSuffix(first.what, cutShort) {
				return "an input is one JSON object a line; jq -c . puts each on a line of its own"
			}
		default:
			if hayrick.FormatOf(uri) == "" { // which would have said it
				return "write input.format, such as csv or lines, if that is what it is; or mend them"
			}
		}
	}
	return "mend them, or write input.on_bad_item: skip, which lists them as permanent"
}

// cutShort ends what is said of a line that ends within its object.
const cutShort = "it ends in the middle"

// converted reads the first items of an object as JSON lines; ok is false for one that
// only the submission can look into.
func converted(ctx context.Context, r io.Reader, def hayrick.JobDefinition, name string) (_ io.Reader, stop func(), ok bool) {
	o, needed := coordinator.ConversionOf(def.Input, name)
	if !needed {
		return r, func() {}, true
	}
	if _, at := r.(io.ReaderAt); o.Format == "parquet" && !at {
		return nil, nil, false
	}
	if o.Limit == 0 || o.Limit > checkedLines {
		o.Limit = checkedLines + 1 // so that there is more behind what is checked
	}
	out, in := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		in.CloseWithError(records.Write(ctx, in, r, o))
	}()
	return out, func() { out.Close(); <-done }, true
}

// sayDamaged tells the first damaged lines; whole says that no line was left out.
func (c *cli) sayDamaged(uri string, bad []badLine, whole bool) {
	for i, b := range bad {
		if i == toldLines {
			of := ""
			if !whole {
				of = " of the first " + number(checkedLines)
			}
			c.mustTell("... and %s%s", count(int64(len(bad)-i), "more line"), of)
			return
		}
		if b.placed {
			c.mustTell("%s", b.what)
			continue
		}
		c.mustTell("%s:%s: %s", uri, b.place(), b.what)
	}
}

// holdsItems says that a file begins with a line that is an item rather than a job
// file: one JSON object without the two keys that every job file has.
func holdsItems(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	line, err := bufio.NewReaderSize(io.LimitReader(f, 1<<16), 1<<16).ReadSlice('\n')
	if err != nil && err != io.EOF {
		return false
	}
	fields, ok := worker.ParseFields(manifest.TrimRecord([]byte(strings.TrimPrefix(string(line), "\xef\xbb\xbf"))))
	if !ok {
		return false
	}
	return fields["handler"] == nil && fields["input"] == nil
}

type badLine struct {
	line int64
	col  int // in characters, from 1; 0 = the line as a whole
	what string

	value  byte // how its record begins
	placed bool // what begins with the place
}

// place is line:col, or the line.
func (b badLine) place() string {
	if b.col == 0 {
		return strconv.FormatInt(b.line, 10)
	}
	return fmt.Sprintf("%d:%d", b.line, b.col)
}

// checkedBytes is the longest line that is looked at here; what follows a longer one
// is left to the indexer, which reads every line.
const checkedBytes = 1 << 20

// damagedLines judges the first lines as a worker judges items; whole says that these
// are all that the run would have.
func damagedLines(in *bufio.Reader, def hayrick.JobDefinition) (bad []badLine, whole bool, err error) {
	if bom, _ := in.Peek(3); string(bom) == "\xef\xbb\xbf" {
		in.Discard(3)
	}
	items := int64(0)
	for line := int64(1); line <= checkedLines; line++ {
		b, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return bad, false, nil
		}
		if err != nil && err != io.EOF {
			return nil, false, err
		}
		text := bytes.TrimSuffix(b, []byte("\n"))
		if rec := manifest.TrimRecord(text); len(rec) > 0 {
			if why, marked := records.Bad(rec); marked {
				bad = append(bad, badLine{line: line, what: why, placed: true})
			} else if what, at := damage(rec, def); what != "" {
				col := 0
				if at > 0 {
					col = utf8.RuneCount(text[:bytes.Index(text, rec)]) + utf8.RuneCount(rec[:at-1]) + 1
				}
				bad = append(bad, badLine{line: line, col: col, what: what, value: rec[0]})
			}
			if items++; items == def.Input.Limit {
				return bad, true, nil
			}
		}
		if err == io.EOF {
			return bad, true, nil
		}
	}
	_, err = in.Peek(1)
	return bad, err == io.EOF, nil
}

// damage is what is wrong with a record, "" for nothing, and at which of its bytes,
// from 1; 0 = as a whole.
func damage(record []byte, def hayrick.JobDefinition) (what string, at int) {
	if def.Input.Key == "" && len(def.Rates) == 0 && record[0] == '{' && json.Valid(record) {
		return "", 0 // nobody asks for its fields
	}
	fields, ok := worker.ParseFields(record)
	if !ok {
		return noObject(record)
	}
	for _, r := range def.Rates {
		if _, err := worker.RateKey(r.Key, fields); r.Auto && err != nil {
			return fmt.Sprintf("rates.%s: %v", r.Name, err), 0
		}
	}
	if def.Input.Key != "" {
		if _, ok := fields.Text(def.Input.Key); !ok {
			return fmt.Sprintf("the item has no key: field %q is %s", def.Input.Key, noKey(fields[def.Input.Key])), 0
		}
	}
	return "", 0
}

// noObject says why a record is not one JSON object.
func noObject(record []byte) (what string, at int) {
	var v json.RawMessage
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(record, &v); {
	case !errors.As(err, &syntax): // another value
		return "the line is not one JSON object", 0
	case strings.Contains(syntax.Error(), "max depth"):
		return "the line is nested too deep: more than 10,000 levels of JSON", int(syntax.Offset)
	case int(syntax.Offset) >= len(record) && strings.HasPrefix(syntax.Error(), "unexpected end"):
		return "the line is not one JSON object: " + cutShort, len(record) + 1
	default:
		return "the line is not one JSON object: " + syntax.Error(), int(syntax.Offset)
	}
}

// noKey says why a value is no key.
func noKey(value json.RawMessage) string {
	const want = "; a key is a string or number"
	switch {
	case len(value) == 0:
		return "missing"
	case value[0] == '"':
		return "empty"
	case value[0] == '{':
		return "an object" + want
	case value[0] == '[':
		return "an array" + want
	}
	return "null" + want
}

// gitState is the commit of the folder and whether it differs from it; "" outside a
// repository, or without git.
func gitState(ctx context.Context, dir string) (commit string, dirty bool) {
	ctx, cancel := context.WithTimeout(ctx, gitPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "--no-optional-locks", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--", ".")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(out)) {
		if oid, ok := strings.CutPrefix(line, "# branch.oid "); ok && !strings.HasPrefix(oid, "(") {
			commit = strings.TrimSpace(oid)
		}
		dirty = dirty || !strings.HasPrefix(line, "#")
	}
	return commit, dirty && commit != ""
}

// gitPatience is how long the state of a repository may take: it is provenance, not
// worth a wait.
const gitPatience = 2 * time.Second
