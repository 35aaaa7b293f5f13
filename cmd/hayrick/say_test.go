package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/jobfile"
	"hayrick/manifest"
)

func TestExitCodes(t *testing.T) {
	user := func(exit int, err error) error { return &hayrick.UserError{What: "w", Hint: "h", Exit: exit, Err: err} }
	for _, x := range []struct {
		err  error
		want int
	}{
		{nil, exitDone},
		{ended(exitUnwell), exitUnwell},
		{errors.New("odd"), exitBug},
		{hayrick.ErrCorrupt, exitBug},
		{jobfile.Problems{{}}, exitUsage},
		{user(0, nil), exitUsage},
		{user(exitConflict, nil), exitConflict},
		{user(0, syscall.ENOSPC), exitTemporary},
		{user(0, syscall.EROFS), exitPermission},
		{user(0, fs.ErrPermission), exitPermission},
		{syscall.ENOSPC, exitTemporary},
		{syscall.EDQUOT, exitTemporary},
		{hayrick.ErrThrottled, exitTemporary},
		{hayrick.ErrUnknown, exitTemporary},
		{hayrick.ErrNotFound, exitNotFound},
		{hayrick.ErrConflict, exitConflict},
		{syscall.ENOTDIR, exitUsage},
		{syscall.EMFILE, exitTemporary},
		{sqliteError(14), exitTemporary},
		{sqliteError(11), exitBug},
		{fs.ErrNotExist, exitNotFound},
		{context.Canceled, exitInterrupted},
	} {
		for _, err := range []error{x.err, wrap(x.err)} {
			if got := exitCode(err); got != x.want {
				t.Errorf("exitCode(%v) = %d, want %d", err, got, x.want)
			}
		}
	}
}

type sqliteError int

func (e sqliteError) Error() string { return fmt.Sprintf("code %d", int(e)) }
func (e sqliteError) Code() int     { return int(e) }

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("do it: %w", err)
}

// An error is told in four lines at most, ends in a hint where there is a next step,
// and only once.
func TestComplain(t *testing.T) {
	for _, x := range []struct {
		err  error
		want string
	}{
		{ended(3), ""},
		{&hayrick.UserError{What: "the store is full", Hint: "free space", Err: errors.New("write x: no space\nand more")},
			"error: the store is full\n  write x: no space\nhint: free space\n"},
		{fmt.Errorf("run: %w", &hayrick.UserError{What: "w", Hint: "h"}), "error: w\nhint: h\n"},
		{context.Canceled, "error: interrupted\nhint: the same command goes on where it stopped\n"},
		{fmt.Errorf("read: %w", hayrick.ErrNotFound), "error: read: not found\nhint: somebody deleted it, or the store as a whole: put it back, or start again with hayrick run <job>; `hayrick ls` lists the runs that are there\n"},
		{fmt.Errorf("open store: %w", fs.ErrNotExist), "error: open store: file does not exist\nhint: look at the path: something in it is gone, or nothing can be made there\n"},
		{fmt.Errorf("open x: %w", syscall.EMFILE), "error: open x: too many open files\nhint: raise the limit of open files (`ulimit -n 1024`) and run the same command again\n"},
		{fmt.Errorf("list: %w", &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}), "error: list: dial tcp: connection refused\nhint: check the network, AWS_REGION and AWS_ENDPOINT_URL*; then the same command goes on where it stopped\n"},
		{fmt.Errorf("open x: %w", syscall.EROFS), "error: open x: read-only file system\nhint: make it readable and writable for you, or name another place\n"},
		{&hayrick.UserError{What: "no run \x1b[31m\u202ex\x00\nhint: rm", Hint: "h\a", Err: errors.New("\x7f\xff\u0085 é")},
			"error: no run \\x1b[31m\\u202ex\\x00\n  hint: rm\n  \\x7f\\xff\\u0085 é\nhint: h\\a\n"},
		{jobfile.Problems{{Place: jobfile.Place{File: "\x1b", Line: 1, Col: 2}, What: "a\nb"}},
			"\\x1b:1:2: a\\nb\n1 problem: what may be written is in `hayrick help job-file`\n"},
		{jobfile.Problems{{Place: jobfile.Place{File: "f", Line: 1, Col: 2}, What: "a"}, {Place: jobfile.Place{File: "--set x"}, What: "b"}},
			"f:1:2: a\n--set x: b\n2 problems: what may be written is in `hayrick help job-file`\n"},
	} {
		var b bytes.Buffer
		c := &cli{environment: environment{err: &b}}
		c.complain(x.err)
		if b.String() != x.want {
			t.Errorf("%v is told as\n%swant\n%s", x.err, b.String(), x.want)
		}
	}
}

// Every verb has an example and its exit codes, and no flag shows a command where
// the name of its value belongs.
func TestHelp(t *testing.T) {
	env := environment{get: func(string) string { return "" }}
	root := newRoot(&cli{environment: env})
	verbs := 0
	flag := regexp.MustCompile(`^ +(?:-\w, )?--[\w-]+(?: \w+)?   +\S`) // --name, one word for its value, what it is
	for _, cmd := range append(root.Commands(), root) {
		for line := range strings.Lines(cmd.LocalFlags().FlagUsages()) {
			if !flag.MatchString(strings.TrimRight(line, "\n")) {
				t.Errorf("%s: %q", cmd.Name(), line)
			}
		}
		if !cmd.Runnable() || cmd == root {
			continue // a topic
		}
		verbs++
		lines := strings.Split(cmd.Example, "\n")
		if len(lines) > 3 || !strings.HasPrefix(cmd.Example, "  hayrick ") || cmd.Annotations[exitsNote] == "" {
			t.Errorf("%s: example %q, exit codes %q", cmd.Name(), cmd.Example, cmd.Annotations[exitsNote])
		}
		for _, l := range lines {
			if !strings.Contains(l, "hayrick ") {
				t.Errorf("%s: example %q", cmd.Name(), l)
			}
		}
	}
	if verbs < 12 {
		t.Errorf("%d verbs", verbs)
	}
}

func TestWarning(t *testing.T) {
	for _, x := range []struct {
		message string
		attrs   []slog.Attr
		want    string
	}{
		{"m", nil, "m"},
		{"handler panicked", []slog.Attr{slog.String("task_id", "task-0001"), slog.Int("ordinal", 3), slog.String("panic", "boom"), slog.String(keyStack, "goroutine 1\n...")},
			"handler panicked: boom (task_id task-0001, ordinal 3)"},
		{"m", []slog.Attr{slog.Any(hayrick.KeyError, errors.New("one\ntwo")), slog.String("key", "")}, "m: one"},
	} {
		if got := warning(x.message, x.attrs); got != x.want {
			t.Errorf("%q, want %q", got, x.want)
		}
	}
}

// At the default verbosity the log is a story: a few lines of a kind, no stacks, and
// nothing that is told anyway. -v has the records, -vv the stacks too.
func TestLogLevels(t *testing.T) {
	if !interrupted(slog.Any("error", fmt.Errorf("write: %w", context.Canceled))) || interrupted(slog.Any("error", errors.New("e"))) || interrupted(slog.String("error", "e")) {
		t.Error("an interrupt is told, or something else is not")
	}
	for _, x := range []struct {
		quiet     bool
		verbosity int
		lines     int
		has, not  string
	}{
		{true, 0, 1, "error: merge failed", "panicked"},
		{false, 0, 4, "warning: handler panicked: boom (ordinal 2); more of these with -v\n", "goroutine"},
		{false, 1, 8, "level=ERROR msg=\"the job is paused\"", "goroutine"},
		{false, 2, 8, "stack=\"goroutine", "nothing"},
	} {
		var b bytes.Buffer
		c := &cli{environment: environment{get: func(string) string { return "" }, err: &b}, quiet: x.quiet, verbosity: x.verbosity, screen: newScreen(&b, nil)}
		if err := c.prepare(); err != nil {
			t.Fatal(err)
		}
		c.log.Error("the job is paused", "reason", "r")
		for i := range 5 {
			c.log.Warn("handler panicked", "panic", "boom", "ordinal", i, keyStack, "goroutine 1")
		}
		c.log.Error("merge failed", hayrick.KeyError, "e")
		if x.verbosity == 0 {
			c.log.Warn("task manifest not written", hayrick.KeyError, context.Canceled)
		}
		c.log.Info("generation ended")
		out := b.String()
		if n := strings.Count(out, "\n"); n != x.lines || !strings.Contains(out, x.has) || strings.Contains(out, x.not) {
			t.Errorf("quiet %v, verbosity %d: %d lines, want %d:\n%s", x.quiet, x.verbosity, n, x.lines, out)
		}
	}
}

func TestPoor(t *testing.T) {
	if got := poor(result{JobID: "j", Items: 500}, map[string]int{"timeout": 3, "bad_item": 497}); got != "no item went well: all 500 failed, most of them with class bad_item" {
		t.Error(got)
	}
	if got := poor(result{JobID: "j", Items: 500, OK: 1}, map[string]int{"b": 3, "a": 3}); got != "only 1 of 500 items went well, most of them with class a" {
		t.Error(got)
	}
}

func TestColour(t *testing.T) {
	for _, x := range []struct {
		env  map[string]string
		tty  bool
		want bool
	}{
		{nil, true, true}, {nil, false, false},
		{map[string]string{"NO_COLOR": "1"}, true, false},
		{map[string]string{"TERM": "dumb"}, true, false},
		{map[string]string{"CLICOLOR_FORCE": "1"}, false, true},
		{map[string]string{"CLICOLOR_FORCE": "0"}, false, false},
		{map[string]string{"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, true, false},
	} {
		if got := wantsColour(environment{get: func(k string) string { return x.env[k] }}, x.tty); got != x.want {
			t.Errorf("wantsColour(%v, tty %v) = %v", x.env, x.tty, got)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 ms", 42 * time.Millisecond: "42 ms", 4200 * time.Millisecond: "4.2 s", 42 * time.Second: "42 s",
		200 * time.Second: "3 m 20 s", 125 * time.Minute: "2 h 5 m", 76 * time.Hour: "3 d 4 h",
	} {
		if got := ago(d); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
	if got := count(1, "row") + ", " + count(2000, "row"); got != "1 row, 2,000 rows" {
		t.Error(got)
	}
	if got := size(3 << 20); got != "3.0 MiB" {
		t.Error(got)
	}
	if got := tallied(map[string]int64{"b": 1, "a": 1, "c": 2000}); got != "c 2,000, a 1, b 1" {
		t.Error(got)
	}
	at := time.Unix(0, 0)
	if zone, _ := at.Local().Zone(); clock(time.Time{}) != "-" || !strings.HasSuffix(clock(at), " "+zone) {
		t.Errorf("%q is not a time with its zone", clock(at))
	}
	long := failedItem{Key: "k", Message: strings.Repeat("é", 200)}
	for tty, want := range map[bool]string{true: "k: " + strings.Repeat("é", sampleWidth-4) + "…", false: "k: " + long.Message} {
		c := &cli{environment: environment{outTTY: tty}}
		if got := c.sample(long); got != want {
			t.Errorf("terminal %v: %q", tty, got)
		}
	}
}

// known is a run of 10 items: 6 ok and 3 failed in the first group, of which 1 is
// permanent; of the 2 retried one has ended ok.
func known() *coordinator.Known {
	k := &coordinator.Known{
		Plan: manifest.Plan{JobID: "job-20260101-abcdef", Items: 9, Group: manifest.Group{Name: "initial_batch", Phase: "initial", Tasks: 3, Items: 9}},
		Retries: []manifest.RetryPlan{{
			Closed: "initial_batch", Next: "retry_batch_1", Items: 2, Permanent: 1, Tasks: 2,
			Group: &manifest.Group{Name: "retry_batch_1", Phase: "retry", Tasks: 2, Items: 2},
		}},
		Open:       &coordinator.OpenGroup{Name: "retry_batch_1"},
		Definition: hayrick.JobDefinition{Rates: []hayrick.Rate{{Name: "api", Key: "$(item.host)", Limit: hayrick.PerTime{N: 10, Per: time.Second}}}},
	}
	b := hayrick.BlockState{Total: 2, OK: 1}
	b.Done.Add(0)
	k.Open.Records = []hayrick.BlockState{b}
	return k
}

func TestTally(t *testing.T) {
	k := known()
	got := tallyOf(k)
	want := tally{Items: 9, OK: 7, Permanent: 1, Left: 1, Groups: []groupTally{
		{Group: "initial_batch", Phase: "initial", Tasks: 3, Done: 3, Items: 9, OK: 6, Failed: 3},
		{Group: "retry_batch_1", Phase: "retry", Tasks: 2, Done: 1, Items: 2, OK: 1, Open: true},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("in a retry group:\n got %+v\nwant %+v", got, want)
	}
	k.Retries = append(k.Retries, manifest.RetryPlan{Closed: "retry_batch_1", Next: manifest.NextAggregation, Exhausted: 1})
	k.Open = nil
	if got := tallyOf(k); got.OK != 7 || got.Exhausted != 1 || got.Left != 0 || got.Groups[1].OK != 1 || got.Groups[1].Failed != 1 {
		t.Errorf("with nothing left to retry: %+v", got)
	}
	k = known()
	k.Open, k.Outcome = nil, &manifest.Outcome{Status: "CANCELLED", OK: 7, Permanent: 1, Unfinished: 1}
	if got := tallyOf(k); got.OK != 7 || got.Groups[0].OK != 6 || got.Groups[1].OK != 1 {
		t.Errorf("cancelled in a retry group: %+v", got)
	}
	k = known()
	k.Retries, k.Open, k.Outcome = nil, nil, &manifest.Outcome{Status: "CANCELLED", OK: 4, Unfinished: 5}
	if got := tallyOf(k); got.OK != 4 || got.Groups[0].OK != 4 || got.Left != 5 {
		t.Errorf("cancelled in the first group: %+v", got)
	}
	k.Outcome = &manifest.Outcome{Status: "CANCELLED", OK: 7, Permanent: 1, Exhausted: 0, Unfinished: 1}
	if got := tallyOf(k); got.OK != 7 || got.Left != 1 || got.Failed != 0 {
		t.Errorf("cancelled: %+v", got)
	}
}

// fakeClock is a clock that a test turns.
type fakeClock struct{ now time.Time }

func (f *fakeClock) Now() time.Time                             { return f.now }
func (f *fakeClock) Sleep(context.Context, time.Duration) error { return nil }

// On a terminal the block is drawn anew; elsewhere a line comes at each change of
// group and at longer and longer intervals. Never both.
func TestProgress(t *testing.T) {
	for _, tty := range []bool{true, false} {
		var b bytes.Buffer
		now := &fakeClock{time.Unix(0, 0)}
		c := &cli{
			environment: environment{errTTY: tty, get: func(string) string { return "" }, width: func() int { return 200 }},
			world:       hayrick.World{Clock: now}, log: slog.New(slog.DiscardHandler), screen: newScreen(&b, func() int { return 200 }),
		}
		c.err = c.screen
		granted := int64(0)
		p := newProgress(c, func() map[string]int64 { return map[string]int64{"api": granted} })
		k := known()
		k.Retries[0].ErrorTypes = map[string]int64{"timeout": 1, "bad\x1b": 3}
		drawn := 0
		for range 40 { // half a second each
			p.show(k, coordinator.Decision{Status: hayrick.StatusRunning})
			drawn++
			now.now = now.now.Add(500 * time.Millisecond)
			granted += 3
		}
		k.Open, k.Outcome = nil, &manifest.Outcome{Status: "SUCCEEDED", OK: 8, Permanent: 1}
		p.show(k, coordinator.Decision{Status: hayrick.StatusSucceeded})
		out := b.String()
		if tty {
			if got := strings.Count(out, "\x1b[1A"); got != 7*drawn {
				t.Errorf("the block went up %d lines, want %d", got, 7*drawn)
			}
			for _, want := range []string{"8/9", "ok 7", "permanent 1", "api 6.0/s of 10/s each", "retry_batch_1 1/2 tasks", "[####", "tasks 1/2", "initial_batch", `tried again for  bad\x1b 3, timeout 1`} {
				if !strings.Contains(out, want) {
					t.Errorf("the block never has %q:\n%s", want, out)
				}
			}
			continue
		}
		// At 0 s, after 5 s, after 10 s more; and when the group changes.
		if got := strings.Count(out, "\n"); got != 4 || strings.Contains(out, "\x1b") {
			t.Errorf("%d lines, want 4 without cursor moves:\n%s", got, out)
		}
	}
}

// The example of `hayrick help job-file` is valid and shows every key there is.
func TestJobFileHelp(t *testing.T) {
	if _, err := jobfile.Load("jobfile.yaml", "small", nil); err != nil {
		t.Error(err)
	}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[hayrick.PerTime]() {
			return
		}
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !strings.Contains(jobFileHelp, name+":") {
				t.Errorf("the example lacks %s.%s, key %q", typ, f.Name, name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[hayrick.JobDefinition]())
}

func TestDamagedLines(t *testing.T) {
	def := jobfile.Defaults()
	def.Input.Key = "id"
	def.Rates = []hayrick.Rate{{Name: "host", Key: "$(item.host)", Auto: true}, {Name: "other", Key: "$(item.none)"}}
	good := `{"id":"a","host":"h"}`
	for _, x := range []struct {
		in   string
		want string
	}{
		{"", ""},
		{good, ""},
		{"\xef\xbb\xbf" + good + "\r\n\n  \n" + good, ""},
		{good + "\n[1]\n" + good, "2: the line is not one JSON object"},
		{"\xef\xbb\xbf  {\"é\":x}", "1:8: the line is not one JSON object: invalid character 'x' looking for beginning of value"},
		{good + " " + good, "1:23: the line is not one JSON object: invalid character '{' after top-level value"},
		{strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000), "1:10001: the line is nested too deep: more than 10,000 levels of JSON"},
		{`{"id":"` + strings.Repeat("x", checkedBytes) + "\"}\nx", "..."},
		{`{"host":"h"}`, `1: the item has no key: field "id" is missing`},
		{`{"host":"h","id":null}`, `1: the item has no key: field "id" is null; a key is a string or number`},
		{`{"host":"h","id":{}}`, `1: the item has no key: field "id" is an object; a key is a string or number`},
		{`{"host":"h","id": [1]}`, `1: the item has no key: field "id" is an array; a key is a string or number`},
		{`{"id":"","host":"h"}` + "\n" + `{"id":1}`, `1: the item has no key: field "id" is empty;2: rates.host: the item has no field "host" to take a rate token by`},
		{good + "\n" + good[:9], "2:10: the line is not one JSON object: it ends in the middle"},
		{strings.Repeat(good+"\n", checkedLines), ""},
		{strings.Repeat(good+"\n", checkedLines) + "x\n", "..."},
	} {
		bad, whole, err := damagedLines(bufio.NewReaderSize(strings.NewReader(x.in), checkedBytes), def)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range bad {
			got = append(got, b.place()+": "+b.what)
		}
		if !whole {
			got = append(got, "...")
		}
		if strings.Join(got, ";") != x.want {
			t.Errorf("%.60q: %q, want %q", x.in, got, x.want)
		}
	}
	def.Input.Limit = 1
	if bad, whole, err := damagedLines(bufio.NewReaderSize(strings.NewReader(good+"\nx\n"), checkedBytes), def); len(bad) != 0 || !whole || err != nil {
		t.Errorf("beyond the limit: %v %v", bad, err)
	}
}

// A failed write to stdout is the end of the command, with what it had to say else;
// only a pipe that was closed is none.
func TestStdoutVerdict(t *testing.T) {
	other := errors.New("other")
	for _, x := range []struct {
		write, err error
		want       int
	}{
		{nil, nil, exitDone}, {nil, ended(exitUnwell), exitUnwell}, {nil, other, exitBug},
		{syscall.ENOSPC, nil, exitTemporary}, {syscall.EIO, nil, exitTemporary}, {syscall.EIO, ended(exitUnwell), exitTemporary},
		{syscall.EIO, syscall.EIO, exitTemporary}, {syscall.ENOSPC, other, exitBug},
		{syscall.EPIPE, nil, exitDone}, {syscall.EPIPE, ended(exitUnwell), exitUnwell}, {syscall.EPIPE, syscall.EPIPE, exitDone}, {syscall.EPIPE, other, exitBug},
	} {
		s := &stdout{to: failing{x.write}}
		fmt.Fprintln(s, "a result")
		if _, err := s.Write(nil); err != x.write {
			t.Errorf("a write after %v: %v", x.write, err)
		}
		if got := exitCode(s.verdict(wrap(x.err))); got != x.want {
			t.Errorf("write %v, err %v: exit %d, want %d", x.write, x.err, got, x.want)
		}
	}
}

// The terminal may tell that it goes away as often as it likes.
func TestHeed(t *testing.T) {
	for _, first := range []os.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		signals, drain, over := make(chan os.Signal), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(over)
			heed(signals, drain)
		}()
		signals <- first
		<-drain
		for range 3 { // taken one by one, so heed is still there for the next
			select {
			case signals <- syscall.SIGHUP:
			case <-over:
				t.Fatalf("%v, then a hang-up: stops at once", first)
			}
		}
		select {
		case signals <- os.Interrupt:
		case <-over:
			t.Fatalf("%v, then hang-ups: stops at once", first)
		}
		<-over
	}
}

type failing struct{ err error }

func (f failing) Write(p []byte) (int, error) { return len(p), f.err }

// Whatever people are shown of data moves nothing, colours nothing, and is on its line.
func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "did:plc:é 日本 a-b": "did:plc:é 日本 a-b", "می\u200cخواهم": "می\u200cخواهم", `a\x1b`: `a\x1b`,
		"\x1b[2J": `\x1b[2J`, "a\x00b\r\n\t": `a\x00b\r\n\t`, "\u202egpj.exe": `\u202egpj.exe`, "\u2066\u200f\u2028": `\u2066\u200f\u2028`, "\u009b31m": `\u009b31m`, "\x9b\xff": `\x9b\xff`,
		"\ufffd\a": "\ufffd" + `\a`,
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
	evil := "k\x1b]0;t\a\n\u202e"
	var out, story bytes.Buffer
	c := &cli{environment: environment{out: &out, err: &story}, outColour: true, errColour: true}
	h := itemHistory{Key: evil, State: evil, Tasks: []itemTask{{Group: "g", TaskID: evil, Class: evil, Message: evil}}}
	if err := errors.Join(c.sayItem(h), c.sayItems(failureSum{items: 2, first: []failedItem{{Key: evil, Message: evil}}}),
		c.sayClasses([]failedClass{{Class: evil, Sample: failedItem{Key: evil, Message: evil}, Helps: evil}}, evil)); err != nil {
		t.Fatal(err)
	}
	c.sayResult(result{JobID: evil, Message: evil, Output: &output{Parts: []outputPart{{Path: evil}}, Lists: []outputList{{Path: evil}}}}, 0, "")
	c.sayDamaged(evil, []badLine{{what: evil}}, true)
	for _, b := range []*bytes.Buffer{&out, &story} {
		text := strings.NewReplacer("\x1b["+bold+"m", "", "\x1b["+green+"m", "", "\x1b["+red+"m", "", "\x1b[0m", "").Replace(b.String())
		if strings.ContainsAny(text, "\x1b\a\u202e") || !strings.Contains(text, `k\x1b]0;t\a\n\u202e`) {
			t.Errorf("%q", text)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 3+3+2+4 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

// Hints name the store that -C named and the job.
func TestAdvice(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	plan := manifest.Plan{}
	plan.Job.ConfigFile, plan.Job.Folder = "my job.yaml", wd
	typed := &cli{storeDir: "/my 100%", storeTyped: true}
	for _, x := range []struct {
		c                *cli
		folder, in, want string
	}{
		{&cli{storeDir: ".hayrick"}, wd, "`hayrick resume j` or `hayrick run --new`", "`hayrick resume j` or `hayrick run 'my job.yaml' --new`"},
		{typed, wd, "hayrick audit; then run --new", "hayrick -C '/my 100%' audit; then hayrick -C '/my 100%' run 'my job.yaml' --new"},
		{typed, "/else where", "hayrick run --new", "cd '/else where' && hayrick -C '/my 100%' run 'my job.yaml' --new"},
		{&cli{storeDir: ".hayrick"}, "/e", "hayrick run --new", "cd /e && hayrick -C " + wd + "/.hayrick run 'my job.yaml' --new"},
		{typed, wd, "cd /e && hayrick -C /e/.hayrick run j --new", "cd /e && hayrick -C /e/.hayrick run j --new"},
		{typed, wd, "`hayrick help job-file`, the hayrick -C x run", "`hayrick help job-file`, the hayrick -C x run"},
	} {
		plan.Job.Folder = x.folder
		if got := x.c.advise(x.in, x.c.again(plan)); got != x.want {
			t.Errorf("%q\nwant %q", got, x.want)
		}
	}
	var b bytes.Buffer
	typed.err = &b
	typed.tell("hayrick resume %s", "it's")
	if b.String() != "hayrick -C '/my 100%' resume it's\n" {
		t.Errorf("%q", b.String())
	}
	o := submitOptions{verb: "submit", job: "it's", profile: "p", sets: []string{"a=b c"}}
	if got := o.again(typed); got != `hayrick -C '/my 100%' submit 'it'\''s' --profile p --set 'a=b c' --new` {
		t.Error(got)
	}
}

// An output folder that may not be written is a matter of permission, not of the job
// file, and is named.
func TestOutputDenied(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	c := &cli{storeDir: t.TempDir()}
	asNobody(t, func() {
		for _, x := range []struct{ uri, want string }{
			{dir, "the output folder " + dir + " cannot be written"},
			{dir + "/a/b/", "the output folder " + dir + "/a/b/ cannot be made in " + dir},
		} {
			what, denied := c.outputProblem(x.uri)
			if what != "" || denied == nil || denied.What != x.want || !errors.Is(denied, fs.ErrPermission) || exitCode(denied) != exitPermission {
				t.Errorf("%s: %q, %v", x.uri, what, denied)
			}
		}
	})
	if what, denied := c.outputProblem(t.TempDir() + "/new/"); what != "" || denied != nil {
		t.Errorf("%q, %v", what, denied)
	}
}

// asNobody calls f on a thread without the privilege of the superuser to write
// anywhere; the thread ends with it.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var none [2]unix.CapUserData
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// A submission that asks for a new run gets one, also when another of the same is
// faster between its look and its plan.
func TestNewBesideAnother(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"items.jsonl": "{}\n", "job.yaml": "version: 1\nname: job\nhandler: {builtin: noop}\ninput: {uri: ./items.jsonl}\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := &cli{environment: environment{err: io.Discard, get: func(string) string { return "" }}, storeDir: ".hayrick", world: hayrick.RealWorld("w"), screen: newScreen(io.Discard, nil)}
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	r, err := openToWork(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	f, err := jobfile.Load("job.yaml", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := coordinator.Submission{Definition: f.Definition, ConfigFile: f.Path, ConfigTime: f.ModTime}
	var rival []coordinator.Submitted
	fresh := ask
	fresh.New = true
	fresh.Admit = func(ctx context.Context, _ string) error {
		if len(rival) > 0 {
			return nil
		}
		s, err := r.submitAsked(ctx, ask)
		rival = append(rival, s)
		return err
	}
	got, err := r.submitAsked(t.Context(), fresh)
	if err != nil {
		t.Fatal(err)
	}
	if rival[0].Resumed || got.Resumed || got.JobID == rival[0].JobID {
		t.Errorf("%s for --new, resumed %v; the other has %s", got.JobID, got.Resumed, rival[0].JobID)
	}
}

func TestInside(t *testing.T) {
	for _, x := range []struct {
		path, folder string
		want         bool
	}{{"/a/b", "/a", true}, {"/a", "/a", true}, {"/ab", "/a", false}, {"/a", "/a/b", false}, {"/a/..b", "/a", true}} {
		if got := inside(x.path, x.folder); got != x.want {
			t.Errorf("inside(%s, %s) = %v", x.path, x.folder, got)
		}
	}
}
