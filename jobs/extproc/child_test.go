package extproc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hayrick"
	"hayrick/internal/heldclock"
	"hayrick/jobs"
)

const itemTime = 90 * time.Second

// rig is a handler whose program is this test, in a mode.
type rig struct {
	t     *testing.T
	clock *heldclock.Clock
	h     *Handler
	logs  *story
	beats chan struct{}
	dir   string

	mu    sync.Mutex
	lines []jobs.LogLine
	count map[string]int64
	from  chan string // frames of the program
}

func newRig(t *testing.T, mode string, edit func(*hayrick.Handler)) *rig {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, clock: heldclock.New(time.Unix(0, 0)), logs: newStory(), beats: make(chan struct{}, 100), dir: t.TempDir(), count: map[string]int64{}, from: make(chan string, 1000)}
	def := hayrick.Handler{Exec: []string{self}, Env: map[string]string{envMode: mode}}
	if edit != nil {
		edit(&def)
	}
	world := hayrick.RealWorld("test")
	world.Clock = r.clock
	h, err := Supervised(t.Context(), jobs.Env{
		World: world, Log: slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug})), Handler: def, Timeout: hayrick.Duration(itemTime), Run: "run-1",
		Dir: func(context.Context) (string, error) { return r.dir, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.h = h.(*Handler)
	r.h.Trace = func(fromHost bool, line []byte) {
		if !fromHost && len(line) < 1000 {
			select {
			case r.from <- string(line):
			default:
			}
		}
	}
	return r
}

// story is a log that can be waited for.
type story struct {
	mu   sync.Mutex
	more *sync.Cond
	text bytes.Buffer
}

func newStory() *story {
	s := &story{}
	s.more = sync.NewCond(&s.mu)
	return s
}

func (s *story) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more.Broadcast()
	return s.text.Write(b)
}

func (s *story) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until the log says text.
func (s *story) await(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !strings.Contains(s.text.String(), text) {
		s.more.Wait()
	}
}

// The rig is the host of its items.
func (r *rig) Need(context.Context, string, string, int) error { return nil }
func (r *rig) Feedback(string, string, jobs.Feedback)          {}
func (r *rig) Set(string, int64)                               {}
func (r *rig) Observe(string, int64)                           {}
func (r *rig) Beat(int64, int64)                               { r.beats <- struct{}{} }
func (r *rig) Mark(json.RawMessage) error                      { return nil }
func (r *rig) Log(string)                                      {}
func (r *rig) Add(metric string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[metric] += n
}

func (r *rig) open() jobs.Session {
	r.t.Helper()
	s, err := r.h.Open(r.t.Context(), jobs.Task{Run: "run-1", Task: "task-0001", Host: r, Log: func(l jobs.LogLine) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.lines = append(r.lines, l)
		fmt.Fprintf(r.logs, "kept: %s of %v at %d\n", l.Text, l.Items, l.Child)
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// item runs one item and returns its rows as text.
func (r *rig) item(ctx context.Context, s jobs.Session, do string, edit ...func(*jobs.Item)) (out jobs.Outcome, rows string) {
	data, _ := json.Marshal(map[string]string{"do": do})
	it := jobs.Item{Key: do, Data: data, Try: 1, Left: itemTime, Host: r}
	for _, e := range edit {
		e(&it)
	}
	var mu sync.Mutex
	var got []string
	out = s.Handle(ctx, it, func(row jobs.Row) error {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range row {
			got = append(got, fmt.Sprintf("%s=%v", c.Name, c.Value))
		}
		return nil
	})
	return out, strings.Join(got, " ")
}

func (r *rig) close(s jobs.Session) {
	r.t.Helper()
	if s != nil {
		s.Close()
	}
	if err := r.h.Close(); err != nil {
		r.t.Error(err)
	}
}

func TestWhatProgramsDo(t *testing.T) {
	for _, x := range []struct {
		do       string
		class    string // of the outcome
		message  string // it contains
		rows     string
		final    bool
		strays   int64
		survives bool // the same process takes the next item
	}{
		{do: "ok", survives: true},
		{do: "exit0", class: hayrick.ClassCrash, message: "exited with status 0 with the item in hand"},
		{do: "bye", class: hayrick.ClassCrash, message: "said bye and exited with status 0 with the item in hand"},
		{do: "flood", strays: 1, survives: true},
		{do: "flood and frame", class: classProtocol, message: `a frame behind other text where frames are: {"t":"row"`, strays: 2},
		{do: "cut", class: hayrick.ClassCrash, message: "exited with status 1 with the item in hand"},
		{do: "endless stderr", survives: true},
		{do: "long frame", class: classProtocol, message: "a line longer than 16 MiB where frames are", final: true, strays: 1, survives: true},
		{do: "print", strays: 2, survives: true},
		{do: "glued", class: classProtocol, message: "a frame behind other text", strays: 1},
		{do: "half", class: classProtocol, message: `a line that is not JSON where frames are: {"t":"row",`, strays: 1},
		{do: "nan", class: classProtocol, message: "NaN or Infinity, which JSON does not have; write null", final: true, strays: 1, survives: true},
		{do: "unknown id", class: classProtocol, message: "which it was not given"},
		{do: "twice", survives: true},
		{do: "big int", class: classProtocol, message: "does not fit a 64-bit integer; write it as a string", final: true, strays: 1, survives: true},
	} {
		t.Run(x.do, func(t *testing.T) {
			r := newRig(t, "items", nil)
			s := r.open()
			out, rows := r.item(t.Context(), s, x.do)
			if out.Class != x.class || !strings.Contains(out.Message, x.message) || (out.Disposition == hayrick.Permanent) != x.final || out.Crashed != (x.class == hayrick.ClassCrash) || rows != x.rows {
				t.Errorf("outcome %+v, rows %s", out, rows)
			}
			// Whatever it did, the next item runs.
			if out, _ := r.item(t.Context(), s, "ok"); !out.OK() {
				t.Errorf("the next item: %+v", out)
			}
			r.close(s)
			if r.count[classProtocol] != x.strays {
				t.Errorf("%d lines counted as %s, want %d", r.count[classProtocol], classProtocol, x.strays)
			}
			if again := r.h.last > 1; again == x.survives {
				t.Errorf("%d processes were started", r.h.last)
			}
			for _, l := range r.lines {
				if len(l.Text) > maxLogLine+100 {
					t.Errorf("a line of the log has %d bytes", len(l.Text))
				}
			}
			if x.strays > 0 && x.class == "" && (strings.Count(r.logs.String(), "level=ERROR") != 1 || !strings.Contains(r.logs.String(), "sys.stdout = sys.stderr")) {
				t.Errorf("the log says %s", r.logs.String())
			}
		})
	}
}

// What a program forks ends with it, also what has left its group. Without a supervisor
// that is not found, and yet cannot hold its pipes for ever.
func TestGrandchildren(t *testing.T) {
	for _, x := range []struct {
		do         string
		supervised bool
	}{{"fork", true}, {"escape", true}, {"fork", false}, {"escape", false}} {
		do, survives := x.do, x.do == "escape" && !x.supervised
		r := newRig(t, "items", nil)
		if !x.supervised {
			r.h.self = ""
		}
		s := r.open()
		var out jobs.Outcome
		var rows string
		done := make(chan struct{})
		go func() { defer close(done); out, rows = r.item(t.Context(), s, do) }()
		if survives {
			for !strings.Contains(<-r.from, `"pid"`) { // its row is read
			}
			r.clock.End(drainTime)
		}
		<-done
		if out.Class != hayrick.ClassCrash {
			t.Errorf("%s: %+v", do, out)
		}
		pid, err := strconv.Atoi(strings.TrimPrefix(rows, "pid="))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case !survives:
			for !gone(pid) { // it has its signal, and closed its pipes
				runtime.Gosched()
			}
		case survives:
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Errorf("end process %d: %v", pid, err)
			}
		}
		r.close(s)
	}
}

// gone says that a process has ended, reaped or not.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, state, _ := bytes.Cut(b, []byte(") "))
	return len(state) > 0 && (state[0] == 'Z' || state[0] == 'X')
}

func TestStart(t *testing.T) {
	for _, x := range []struct{ mode, what, detail string }{
		{"dies", "the handler exited with status 3 before it said ready: SyntaxError: invalid syntax", "Traceback\nSyntaxError: invalid syntax\n"},
		{"silent", "the handler did not say ready within 30s: importing the world", "importing the world\n"},
		{"future", "the handler speaks hayrick-handler/2, this worker hayrick-handler/1", ""},
	} {
		r := newRig(t, x.mode, nil)
		failed := make(chan error)
		go func() { _, err := r.h.Open(t.Context(), jobs.Task{}); failed <- err }()
		if x.mode == "silent" {
			r.logs.await("importing the world")
			r.clock.End(ReadyTime)
		}
		err := <-failed
		var s *StartError
		if !errors.As(err, &s) || s.What != x.what || s.Detail != x.detail {
			t.Errorf("%s: %v, %+v", x.mode, err, s)
		}
		if x.mode == "silent" {
			r.clock.End(TermTime) // it ignores SIGTERM
		}
		r.close(nil)
	}
}

// A program that is ready and gone again is not started for ever.
func TestQuits(t *testing.T) {
	r := newRig(t, "quits", nil)
	s := r.open()
	for n := range 20 {
		out, _ := r.item(t.Context(), s, "ok")
		if out.Class != hayrick.ClassCrash && out.Class != hayrick.ClassHandler && !out.NotTried {
			t.Fatalf("%+v", out)
		}
		if out.Class == hayrick.ClassHandler || n == 19 {
			break
		}
	}
	r.close(s)
}

func TestMissingPrograms(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("plain.py", "print(1)\n", 0o644)
	write("lost.sh", "#!/no/such/interpreter -x\n", 0o755)
	write("crlf.sh", "#!/bin/sh\r\necho\r\n", 0o755)
	write("data", "no program", 0o755)
	for _, x := range []struct {
		argv       []string
		what, hint string
	}{
		{[]string{"no-such-python", "plain.py"}, "handler.exec: no-such-python is not on this machine: no folder of PATH has it", "install no-such-python where the workers run, or write its path in handler.exec"},
		{[]string{"./missing.sh"}, "handler.exec: ./missing.sh is not there", "a path is taken from the job's folder; check it"},
		{[]string{"sh", "missing.sh"}, "handler.exec: missing.sh is not there", "a path is taken from the job's folder; check it"},
		{[]string{"./plain.py"}, "handler.exec: ./plain.py is not executable", "chmod +x ./plain.py, or name its interpreter: [python3, ./plain.py]"},
		{[]string{"lost.sh"}, "handler.exec: no folder of PATH has lost.sh", "write ./lost.sh for the file in the job's folder"},
		{[]string{"./lost.sh"}, "handler.exec: the interpreter that ./lost.sh names is not on this machine (#!/no/such/interpreter -x)", "install it where the workers run, or name another in handler.exec"},
		{[]string{"./crlf.sh"}, `handler.exec: the interpreter that ./crlf.sh names is not on this machine ("#!/bin/sh\r": the file has CRLF line ends)`, "install it where the workers run, or name another in handler.exec"},
		{[]string{"./data"}, "handler.exec: ./data is no program of this machine, or a script without #!", "name its interpreter, such as [python3, ./data]"},
	} {
		r := newRig(t, "", func(h *hayrick.Handler) { h.Exec = x.argv })
		r.dir = dir
		err := r.h.Check(t.Context())
		var u *hayrick.UserError
		if !errors.As(err, &u) || u.What != x.what || u.Hint != x.hint {
			t.Errorf("%v: %v, %+v", x.argv, err, u)
		}
	}
}

// The program works in the job's folder and sees little of the worker's environment.
func TestSurroundings(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("SOME_TOKEN", "t")
	r := newRig(t, "items", func(h *hayrick.Handler) { h.PassEnv = []string{"SOME_TOKEN"} })
	s := r.open()
	_, rows := r.item(t.Context(), s, "environment")
	r.close(s)
	dir, err := filepath.EvalSymlinks(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(rows, "wd="+dir) || strings.Contains(rows, "AWS_") || !strings.Contains(rows, "SOME_TOKEN") || !strings.Contains(rows, "HAYRICK_RUN") || !strings.Contains(rows, "PATH") {
		t.Errorf("rows: %s", rows)
	}
}

// 002-35: the coordinator method of a program is the frame list.
func TestList(t *testing.T) {
	for mode, want := range map[string]string{
		"items":          `{"n":0}{"n":1}{"n":2}`,
		"lists badly":    `{"n":1} the handler could not list the items: api: no such bucket`,
		"lists and dies": `{"n":1} the handler exited with status 4 before its list was complete`,
	} {
		r := newRig(t, mode, nil)
		got := ""
		err := r.h.Items(t.Context(), func(record json.RawMessage) error { got += string(record); return nil })
		var u *hayrick.UserError
		if err != nil {
			got += " " + err.Error()
			if !errors.As(err, &u) || u.Hint == "" {
				t.Errorf("%s: no hint: %v", mode, err)
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", mode, got, want)
		}
		r.close(nil)
	}
	r := newRig(t, "items", nil)
	enough := errors.New("enough")
	if err := r.h.Items(t.Context(), func(json.RawMessage) error { return enough }); !errors.Is(err, enough) && !strings.Contains(err.Error(), "enough") {
		t.Error(err)
	}
	r.close(nil)
}

// The rows of an item come by Arrow, and count with its ok whichever comes first.
func TestArrow(t *testing.T) {
	r := newRig(t, "items", func(h *hayrick.Handler) { h.Rows = "arrow" })
	s := r.open()
	out, rows := r.item(t.Context(), s, "arrow 3", func(it *jobs.Item) { it.Key = "k" })
	rest := " x=0.5 at=1970-01-01 00:00:01.5 +0000 UTC tags=" + fmt.Sprint([]byte("[7]"))
	if want := "name=<nil>" + rest + " name=k1" + rest + " name=<nil>" + rest; !out.OK() || rows != want {
		t.Errorf("%+v %s\nwant %s", out, rows, want)
	}
	if out, rows := r.item(t.Context(), s, "arrow 0"); !out.OK() || rows != "" {
		t.Errorf("%+v %s", out, rows)
	}
	if out, _ := r.item(t.Context(), s, "arrow err"); out.Class != "x" {
		t.Errorf("%+v", out)
	}
	if out, _ := r.item(t.Context(), s, "ok"); out.Class != classProtocol || !strings.Contains(out.Message, "an ok frame without rows") {
		t.Errorf("%+v", out)
	}
	r.close(s)
}

// A program may not have more memory than handler.memory, and says so itself.
func TestMemory(t *testing.T) {
	r := newRig(t, "", func(h *hayrick.Handler) {
		h.Exec = []string{"python3", "-c", `
import sys
print('{"t":"ready"}', flush=True)
for line in sys.stdin:
    if '"item"' in line: x = bytearray(1 << 30)
`}
		h.Env = nil
		h.Memory = 256 << 20
	})
	s := r.open()
	out, _ := r.item(t.Context(), s, "x")
	if !out.Crashed || !strings.HasSuffix(out.Message, ": MemoryError") || !strings.Contains(out.Detail, "Traceback") {
		t.Errorf("%+v", out)
	}
	r.close(s)
}

// What a program and its children have together is bounded too: each of them is within
// the limit of a process.
func TestMemoryOfATree(t *testing.T) {
	r := newRig(t, "", func(h *hayrick.Handler) {
		h.Exec = []string{"python3", "-c", `
import os, sys, time
print('{"t":"ready"}', flush=True)
for line in sys.stdin:
    if '"item"' in line:
        for n in range(3):
            if os.fork() == 0: break
        x = bytearray(b"x") * (40 << 20)
        print('{"t":"beat","id":1}', flush=True)
        time.sleep(1000)
`}
		h.Env = nil
		h.Memory = 100 << 20
	})
	s := r.open()
	done := make(chan jobs.Outcome)
	go func() { out, _ := r.item(t.Context(), s, "x"); done <- out }()
	for range 4 {
		<-r.beats
	}
	r.clock.End(memoryEvery)
	out := <-done
	if !out.Crashed || !strings.Contains(out.Message, "MiB in memory together, handler.memory is 100 MiB with the item in hand") {
		t.Errorf("%+v", out)
	}
	r.close(s)
}

// Only what runs is charged with a child's death; what waits behind it is sent on. A
// child is kept for the next attempt, and hears whose it is.
func TestWhoIsCharged(t *testing.T) {
	r := newRig(t, "parallel", nil)
	s := r.open()
	if n, rated := s.Slots(false), s.Slots(true); n != DefaultInFlight || rated != 2 {
		t.Errorf("%d slots, %d with a rate", n, rated)
	}
	s.Slots(false)
	outs := make(chan string, 4)
	for range 2 {
		go func() { out, _ := r.item(t.Context(), s, "hold"); outs <- "hold: " + out.Class }()
	}
	for range 2 {
		<-r.beats
	}
	out, _ := r.item(t.Context(), s, "exit0") // behind the two that run
	if !out.NotTried {
		t.Errorf("what waited: %+v", out)
	}
	for range 2 {
		if got := <-outs; got != "hold: "+hayrick.ClassCrash {
			t.Errorf("what ran: %s", got)
		}
	}
	if out, _ := r.item(t.Context(), s, "ok", func(it *jobs.Item) { it.Alone = true }); !out.OK() {
		t.Errorf("alone: %+v", out)
	}
	if out, _ := r.item(t.Context(), s, "ok"); !out.OK() {
		t.Errorf("after it: %+v", out)
	}
	started := r.h.last
	s.Close()
	s = r.open()
	if out, _ := r.item(t.Context(), s, "ok"); !out.OK() || r.h.last != started {
		t.Errorf("a parked child: %+v, %d processes instead of %d", out, r.h.last, started)
	}
	r.close(s)
	if !slices.ContainsFunc(r.lines, func(l jobs.LogLine) bool { return l.Text == "now for task-0001" }) {
		r.logs.await("now for task-0001") // what it says behind its attempt is nobody's
	}
}

// The end of an attempt cancels what it has in hand; a program that does not heed it
// does not hold it up, and is ended.
func TestEndOfAttempt(t *testing.T) {
	r := newRig(t, "items", nil)
	s := r.open()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan jobs.Outcome)
	go func() {
		out, _ := r.item(ctx, s, "hold", func(it *jobs.Item) { it.Ordinal = 41 })
		done <- out
	}()
	<-r.beats
	r.logs.await("kept: holding of [41] at 1\n") // a line is tagged with what runs
	cancel()
	r.clock.End(CancelTime)
	if out := <-done; out.Class != hayrick.ClassTimeout || !strings.Contains(out.Message, "at 1 of 0") {
		t.Errorf("%+v", out)
	}
	r.close(s)
}

// The items behind one that is given up do not begin while its process is ended: nobody
// charges them with its time.
func TestBehindOneGivenUp(t *testing.T) {
	r := newRig(t, "", func(h *hayrick.Handler) {
		h.Exec = []string{"python3", "-c", `
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"t":"ready"}', flush=True)
for line in sys.stdin:
    if '"item"' in line:
        print('{"t":"beat","id":1}', flush=True)
        time.sleep(1000)
`}
		h.Env = nil
	})
	s := r.open()
	outs := make(chan jobs.Outcome)
	run := func() { out, _ := r.item(t.Context(), s, "x"); outs <- out }
	go run()
	<-r.beats
	c := s.(*Session).places[0].child
	go run()
	for n := 0; n < 2; runtime.Gosched() {
		c.mu.Lock()
		n = len(c.calls)
		c.mu.Unlock()
	}
	r.clock.End(itemTime)
	r.clock.End(CancelTime)
	if out := <-outs; out.Class != hayrick.ClassTimeout {
		t.Errorf("the one: %+v", out)
	}
	c.mu.Lock()
	if n := c.running; n != 0 {
		t.Errorf("%d items run in a process that is being ended", n)
	}
	c.mu.Unlock()
	r.clock.End(TermTime)
	if out := <-outs; !out.NotTried {
		t.Errorf("the other: %+v", out)
	}
	r.close(s)
}

// A program that deletes the folder it works in does not take it from the next one.
func TestDeletedFolder(t *testing.T) {
	r := newRig(t, "items", nil)
	base := t.TempDir()
	r.h.dir = func(context.Context) (string, error) {
		dir := filepath.Join(base, "bundle")
		return dir, os.MkdirAll(dir, 0o755)
	}
	s := r.open()
	for range 3 {
		if out, _ := r.item(t.Context(), s, "delete"); !out.OK() {
			t.Errorf("%+v", out)
		}
		r.close(s)
		r.h.closed = false
		s = r.open()
	}
	r.close(s)
	r.h.dir = func(context.Context) (string, error) { return filepath.Join(base, "nowhere"), nil }
	r.h.set = nil
	var u *hayrick.UserError
	if err := r.h.Check(t.Context()); !errors.As(err, &u) || !strings.Contains(u.What, "works in is not there") {
		t.Errorf("%v", err)
	}
}

// A line of the log is its item's: of the only one there is, or of the one it names.
func TestLinesOfAnItem(t *testing.T) {
	r := newRig(t, "items", func(h *hayrick.Handler) { h.ItemsInFlight = 1 })
	s := r.open()
	for n := range 50 {
		do := []string{"log", "log by id"}[n%2]
		if out, _ := r.item(t.Context(), s, do, func(it *jobs.Item) { it.Ordinal, it.Key = int64(n), fmt.Sprint(n) }); !out.OK() {
			t.Errorf("%+v", out)
		}
	}
	r.close(s)
	if len(r.lines) != 50 {
		t.Errorf("%d lines", len(r.lines))
	}
	for n, l := range r.lines {
		if !strings.Contains(l.Text, fmt.Sprintf("of %d", n)) || !slices.Equal(l.Items, []int64{int64(n)}) {
			t.Errorf("%+v", l)
		}
	}
	// With many at once only a line that names its item is sure to have it.
	r = newRig(t, "items", nil)
	s = r.open()
	var wg sync.WaitGroup
	for n := range 40 {
		wg.Go(func() {
			r.item(t.Context(), s, "log by id", func(it *jobs.Item) { it.Ordinal, it.Key = int64(n), fmt.Sprint(n) })
		})
	}
	wg.Wait()
	r.close(s)
	for _, l := range r.lines {
		if len(l.Items) != 1 || !strings.Contains(l.Text, fmt.Sprintf(`"of %d"`, l.Items[0])) {
			t.Errorf("%+v", l)
		}
	}
	if len(r.lines) != 40 {
		t.Errorf("%d lines", len(r.lines))
	}
}

// A program that heeds neither stop nor SIGTERM is killed.
func TestDeafProgram(t *testing.T) {
	r := newRig(t, "deaf", nil)
	s := r.open()
	s.Close()
	closed := make(chan struct{})
	go func() { defer close(closed); r.close(nil) }()
	for f := range r.from {
		if strings.Contains(f, "beat") { // it ignores SIGTERM from here on
			break
		}
	}
	r.clock.End(CancelTime)
	r.clock.End(TermTime)
	<-closed
}
