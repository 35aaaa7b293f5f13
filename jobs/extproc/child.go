package extproc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"hayrick"
	"hayrick/jobs"
)

// How long a child may take.
const (
	ReadyTime  = 30 * time.Second // from its start to ready
	CancelTime = 2 * time.Second  // from cancel to SIGTERM, and from stop
	TermTime   = 5 * time.Second  // from SIGTERM to SIGKILL
	drainTime  = time.Second      // its pipes stay open for so long when it is gone: a grandchild may have them
)

// classProtocol is a handler that broke the protocol.
const classProtocol = "handler_protocol"

// child is one program and the items it has.
type child struct {
	h     *Handler
	n     int // from 1, for logs
	proc  *process
	ctx   context.Context // ends when the program has
	end   context.CancelFunc
	wake  chan struct{} // the writer has something to do
	ready chan frame    // gets the ready frame
	gone  chan struct{} // closed when it has ended and every call has its result

	mu      sync.Mutex // guards what follows
	out     []byte     // frames to write
	closing bool       // stdin ends behind them
	lastID  int64
	calls   map[int64]*call
	waiting []*call // sent ahead, not yet running; ended ones are passed over
	running int
	atOnce  int
	sess    *Session // whose items it has
	listing *listing // what it lists
	killed  string   // why the host ends it; "" = it does not
	exit    string   // how it ended
	said    bool     // it has said ready
	bye     bool     // it has said bye
	tail    []byte   // the last of its stderr
}

// call is one item at a child.
type call struct {
	id      int64
	ordinal int64
	ctx     context.Context
	host    jobs.Host
	emit    jobs.Emit
	left    time.Duration
	done    chan jobs.Outcome // has room for the one result

	running   bool
	began     time.Time
	cancelled bool
	ended     bool
	rows      int64 // emitted
	awaits    int64 // rows until it is ok, with rows: arrow; -1 = it has not said ok
	beat, of  int64
	rate, key string // of its last need
	stopNeeds context.CancelFunc
}

// listing is a list frame under way.
type listing struct {
	id   int64
	emit func(json.RawMessage) error
	done chan error // has room for the one result
}

// start starts a program and waits until it is ready.
func (h *Handler) start(ctx context.Context, task jobs.Task, n int) (*child, error) {
	s, err := h.settings(ctx)
	if err != nil {
		return nil, err
	}
	p, err := startProcess(s)
	if err != nil {
		return nil, err
	}
	c := &child{
		h: h, n: n, proc: p, wake: make(chan struct{}, 1), ready: make(chan frame, 1), gone: make(chan struct{}),
		calls: map[int64]*call{}, atOnce: 1,
	}
	c.ctx, c.end = context.WithCancel(context.Background())
	h.born(c)
	h.world.Go("handler stdin", c.write)
	var readers sync.WaitGroup
	readers.Add(2)
	h.world.Go("handler stdout", func() { defer readers.Done(); c.read() })
	h.world.Go("handler stderr", func() { defer readers.Done(); c.readLog() })
	if s.arrow {
		readers.Add(1)
		h.world.Go("handler rows", func() { defer readers.Done(); c.readArrow() })
	}
	h.world.Go("handler end", func() { c.watch(&readers) })
	hello := message{T: "hello", Proto: Proto, Run: task.Run, Task: task.Task, Params: s.params, InFlight: s.inFlight, Rows: "jsonl"}
	if s.arrow {
		hello.Rows, hello.RowsFD = "arrow", rowsFD
	}
	c.send(hello)
	if err := c.awaitReady(ctx); err != nil {
		return nil, err
	}
	h.world.Go("handler deadlines", c.deadlines)
	return c, nil
}

func (c *child) awaitReady(ctx context.Context) error {
	over := make(chan struct{})
	waiting, stop := context.WithCancel(c.ctx)
	defer stop()
	c.h.world.Go("handler ready", func() {
		if c.h.world.Clock.Sleep(waiting, ReadyTime) == nil {
			close(over)
		}
	})
	fail := func(format string, args ...any) error {
		e := &StartError{What: fmt.Sprintf(format, args...), Detail: c.lastWords()}
		if line := lastLine(e.Detail); line != "" {
			e.What += ": " + line
		}
		return e
	}
	select {
	case f := <-c.ready:
		if f.proto != 0 && f.proto != Proto {
			c.kill("it speaks another protocol")
			return fail("the handler speaks hayrick-handler/%d, this worker hayrick-handler/%d", f.proto, Proto)
		}
		c.mu.Lock()
		c.atOnce = int(min(max(f.atOnce, 1), 1<<20))
		c.mu.Unlock()
		c.h.log.Debug("handler ready", "child", c.n, "name", f.name, "version", f.version, "at_once", c.atOnce)
		return nil
	case <-c.gone:
		return fail("the handler %s before it said ready", c.ended())
	case <-over:
		c.kill("it did not say ready")
		return fail("the handler did not say ready within %s", ReadyTime)
	case <-ctx.Done():
		c.kill("nobody waits for it")
		return ctx.Err()
	}
}

// StartError is a program that starts but does not come to ready.
type StartError struct {
	What   string
	Detail string // the last of its stderr
}

func (e *StartError) Error() string { return e.What }

// send queues a frame of the host.
func (c *child) send(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue(m.append(nil))
}

// queue adds lines to what is written next. Called with mu held.
func (c *child) queue(lines []byte) {
	if c.closing {
		return
	}
	c.traced(lines)
	c.out = append(c.out, lines...)
	c.rouse()
}

func (c *child) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// traced shows lines of the host to who traces.
func (c *child) traced(lines []byte) {
	if c.h.Trace == nil {
		return
	}
	for line := range bytes.Lines(lines) {
		c.h.Trace(true, bytes.TrimSuffix(line, []byte("\n")))
	}
}

// write writes what is queued, all of it at once: a frame a write would cost more than
// the frame.
func (c *child) write() {
	var buf []byte
	for {
		select {
		case <-c.wake:
		case <-c.ctx.Done():
			return
		}
		c.mu.Lock()
		buf, c.out = c.out, buf[:0]
		closing := c.closing
		c.mu.Unlock()
		if len(buf) > 0 {
			if _, err := c.proc.stdin.Write(buf); err != nil {
				return // it has ended, or closed its stdin: it gets nothing more
			}
		}
		if closing {
			c.proc.stdin.Close()
			return
		}
		if cap(buf) > 4*chunk {
			buf = nil
		}
	}
}

// submit sends an item; nil when the child takes none any more.
func (c *child) submit(ctx context.Context, it *jobs.Item, emit jobs.Emit) *call {
	k := &call{ordinal: it.Ordinal, ctx: ctx, host: it.Host, emit: emit, left: it.Left, done: make(chan jobs.Outcome, 1), awaits: -1}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed != "" || c.closing || c.ctx.Err() != nil {
		return nil
	}
	c.lastID++
	k.id = c.lastID
	c.calls[k.id] = k
	if c.running < c.atOnce {
		c.begin(k)
	} else {
		c.waiting = append(c.waiting, k)
	}
	if c.h.Trace != nil {
		c.traced(appendItem(nil, k.id, it))
	}
	c.out = appendItem(c.out, k.id, it)
	c.rouse()
	return k
}

// begin starts a call's time. Called with mu held.
func (c *child) begin(k *call) {
	k.running = true
	k.began = c.h.world.Clock.Now()
	c.running++
}

// finish ends a call with its result; what waits behind it begins. Called with mu held.
func (c *child) finish(k *call, out jobs.Outcome) {
	if k.ended {
		return
	}
	k.ended = true
	delete(c.calls, k.id)
	if k.stopNeeds != nil {
		k.stopNeeds()
	}
	k.done <- out
	if !k.running {
		return // it is passed over where it waits
	}
	c.running--
	for c.running < c.atOnce && len(c.waiting) > 0 {
		next := c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		if !next.ended {
			c.begin(next)
		}
	}
	if len(c.waiting) == 0 {
		c.waiting = c.waiting[:0:0]
	}
}

// deadlines cancels the items whose time is over. A call's time begins with it, so that
// none is over sooner than one that began before it.
func (c *child) deadlines() {
	limit := c.h.timeout
	if limit <= 0 {
		return
	}
	wait := limit
	for c.h.world.Clock.Sleep(c.ctx, wait) == nil {
		wait = limit
		var over []*call
		now := c.h.world.Clock.Now()
		c.mu.Lock()
		for _, k := range c.calls {
			if !k.running || k.cancelled || k.left <= 0 {
				continue
			}
			left := k.left - now.Sub(k.began)
			if left <= 0 {
				over = append(over, k)
			} else {
				wait = min(wait, left)
			}
		}
		c.mu.Unlock()
		for _, k := range over {
			c.cancel(k)
		}
	}
}

// cancel asks the program to give an item up, and gives the item up itself when it does
// not say so soon.
func (c *child) cancel(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.cancelled || k.ended {
		return
	}
	k.cancelled = true
	c.queue(message{T: "cancel", ID: k.id}.append(nil))
	c.h.world.Go("handler cancel", func() {
		if c.h.world.Clock.Sleep(c.ctx, CancelTime) == nil {
			c.giveUp(k)
		}
	})
}

// giveUp ends an item that did not heed its cancel, and the child: nothing else ends
// what it does.
func (c *child) giveUp(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.ended {
		return
	}
	c.condemn("an item did not heed its cancel")
	c.finish(k, c.lateOutcome(k, "it did not heed cancel and is ended"))
}

// lateOutcome is the outcome of a call whose time is over. Called with mu held.
func (c *child) lateOutcome(k *call, what string) jobs.Outcome {
	text := fmt.Sprintf("still running after %s; %s", k.left, what)
	if k.ctx.Err() != nil || k.left <= 0 {
		text = "stopped with the attempt; " + what
	}
	if k.beat > 0 || k.of > 0 {
		text += fmt.Sprintf("; at %d of %d", k.beat, k.of)
	}
	return jobs.Outcome{Class: hayrick.ClassTimeout, Message: text, Detail: string(c.tail)}
}

// kill ends the child: SIGTERM to its group, SIGKILL when that does not help.
func (c *child) kill(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.condemn(why)
}

// condemn is kill. Called with mu held: an item that ends for it finds the child
// taking no more.
func (c *child) condemn(why string) {
	if c.killed != "" {
		return
	}
	c.killed = why
	c.closing = true
	c.rouse()
	c.h.log.Debug("handler process ended", "child", c.n, "because", why)
	c.proc.signal(syscall.SIGTERM)
	c.h.world.Go("handler kill", func() {
		if c.h.world.Clock.Sleep(c.ctx, TermTime) == nil {
			c.proc.signal(syscall.SIGKILL)
		}
	})
}

// stop asks the child to end, and sees that it does. It returns at once; gone says
// when.
func (c *child) stop() {
	c.mu.Lock()
	left := CancelTime.Milliseconds()
	c.queue(message{T: "stop", LeftMS: &left}.append(nil))
	c.closing = true
	c.rouse()
	c.mu.Unlock()
	c.h.world.Go("handler stop", func() {
		if c.h.world.Clock.Sleep(c.ctx, CancelTime) == nil {
			c.kill("it did not heed stop")
		}
	})
}

// watch waits for the program's end, ends what it left behind, and settles its calls
// when all that it had written is read.
func (c *child) watch(readers *sync.WaitGroup) {
	c.proc.cmd.Wait()
	c.proc.signal(syscall.SIGKILL) // what it forked
	draining, drained := context.WithCancel(context.Background())
	c.h.world.Go("handler pipes", func() {
		if c.h.world.Clock.Sleep(draining, drainTime) == nil {
			c.proc.close() // a process that left the group has them still
		}
	})
	readers.Wait()
	drained()
	c.end()
	c.proc.close()
	c.settle()
	c.h.died(c)
	close(c.gone)
}

// settle gives every call that has no end the result that follows from the child's.
func (c *child) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.proc.cmd.ProcessState
	c.exit = exitText(st.Sys().(syscall.WaitStatus))
	own := c.killed == ""
	if own && c.bye {
		c.exit = "said bye and " + c.exit
	}
	all := make([]*call, 0, len(c.calls))
	for _, k := range c.calls {
		all = append(all, k)
	}
	c.waiting, c.running = nil, 0
	for _, k := range all {
		out := jobs.Outcome{NotTried: true, Class: hayrick.ClassCrash, Message: "its process ended for the sake of another item"}
		switch {
		case k.cancelled:
			out = c.lateOutcome(k, "the handler "+c.exit)
		case own && k.running:
			text := "the handler " + c.exit + " with the item in hand"
			if peak := peakMemory(st); peak > 0 && st.Sys().(syscall.WaitStatus).Signaled() {
				text += fmt.Sprintf(", its peak memory %d MiB", (peak+1<<19)>>20)
			}
			if line := lastLine(string(c.tail)); line != "" {
				text += ": " + line
			}
			out = jobs.Outcome{Class: hayrick.ClassCrash, Message: text, Crashed: true, Detail: string(c.tail)}
		}
		k.running = false
		c.finish(k, out)
	}
	if c.listing != nil {
		c.listing.done <- fmt.Errorf("the handler %s before its list was complete%s", c.exit, behind(lastLine(string(c.tail))))
		c.listing = nil
	}
}

func exitText(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return fmt.Sprintf("was ended by signal %d (%s)", int(ws.Signal()), ws.Signal())
	}
	return fmt.Sprintf("exited with status %d", ws.ExitStatus())
}

// ended is how the program ended.
func (c *child) ended() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exit
}

// lastWords is the last of its stderr.
func (c *child) lastWords() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.tail)
}

// lastLine is the last line of a text that says something.
func lastLine(text string) string {
	text = strings.TrimSpace(strings.ToValidUTF8(text, "?"))
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	return strings.TrimSpace(text)
}

func behind(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// read reads the frames of the program until its stdout ends.
func (c *child) read() {
	in := lines{from: c.proc.stdout, max: MaxFrame}
	for {
		line, err := in.next()
		if err != nil && !errors.Is(err, errLong) {
			return
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if c.h.Trace != nil && err == nil {
			c.h.Trace(false, line)
		}
		f, ok := frame{}, false
		if err == nil {
			f, ok = parse(line)
		}
		if !ok {
			c.noFrame(line, err != nil)
			continue
		}
		c.handle(&f)
	}
}

// idOf finds the id in what was meant to be a frame.
var idOf = regexp.MustCompile(`^\{.{0,200}?"id"\s*:\s*([0-9]{1,18})\b`)

// noFrame judges a line that is no frame. A stray print is passed over; what took a
// frame with it is not.
func (c *child) noFrame(line []byte, long bool) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	shown := strings.ToValidUTF8(string(line[:min(len(line), 200)]), "?")
	what := "a line that is not JSON"
	if long {
		what = "a line longer than 16 MiB"
	}
	broken := line[0] == '{' && (long || !json.Valid(line))
	if i := bytes.Index(line, []byte(`{"t":`)); i > 0 {
		broken, what = true, "a frame behind other text"
	}
	if !broken {
		c.stray(shown)
		return
	}
	out := jobs.Outcome{Class: classProtocol, Message: fmt.Sprintf("the handler wrote %s where frames are: %s", what, shown)}
	if bytes.Contains(line, []byte("NaN")) || bytes.Contains(line, []byte("Infinity")) {
		out.Message = "the handler wrote NaN or Infinity, which JSON does not have; write null: " + shown
	}
	c.h.count(c, classProtocol)
	c.mu.Lock()
	defer c.mu.Unlock()
	out.Detail = string(c.tail)
	if m := idOf.FindSubmatch(line); m != nil {
		id, _ := strconv.ParseInt(string(m[1]), 10, 64)
		if k := c.calls[id]; k != nil {
			out.Disposition = hayrick.Permanent // another try would write it again
			c.finish(k, out)
			return
		}
	}
	c.broke(out)
}

// broke ends the child because of what it wrote: with a frame lost nobody knows what
// it takes for done. Called with mu held.
func (c *child) broke(out jobs.Outcome) {
	blamed := c.inHand()
	c.condemn("it broke the protocol")
	for _, k := range blamed {
		c.finish(k, out)
	}
}

// inHand are the calls that run. Called with mu held.
func (c *child) inHand() []*call {
	var out []*call
	for _, k := range c.calls {
		if k.running {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b *call) int { return int(a.id - b.id) })
	return out
}

// stray notes a print that came onto stdout.
func (c *child) stray(text string) {
	c.h.count(c, classProtocol)
	c.h.strays.Do(func() {
		c.h.log.Error("the handler printed to stdout, which is for frames alone; the line is passed over. "+
			"Print to stderr: in Python, begin with `sys.stdout = sys.stderr` and write frames to sys.__stdout__", "text", text)
	})
	c.line("stdout: " + text)
}

// handle acts on a frame.
func (c *child) handle(f *frame) {
	switch f.t {
	case "ready":
		c.mu.Lock()
		first := !c.said
		c.said = true
		c.mu.Unlock()
		if first {
			c.ready <- *f
		}
		return
	case "bye":
		c.mu.Lock()
		c.bye = true
		c.mu.Unlock()
		return
	case "metric":
		if h := c.metrics(f.id); h != nil {
			f.metric(h)
		}
		return
	case "record":
		c.record(f)
		return
	case "ok", "err", "row", "need", "back", "beat", "mark":
	default:
		return // of a later version of the protocol
	}
	c.mu.Lock()
	k := c.calls[f.id]
	if k == nil || f.unreadable != "" {
		defer c.mu.Unlock()
		c.noCall(f, k)
		return
	}
	switch f.t {
	case "ok":
		c.ok(k, f.rows)
		c.mu.Unlock()
	case "err":
		out := f.outcome()
		if k.cancelled { // what it says then is about the cancel
			out = c.lateOutcome(k, "it says "+out.Class+behind(out.Message))
		}
		c.finish(k, out)
		c.mu.Unlock()
	case "beat":
		k.beat, k.of = f.done, f.of
		c.mu.Unlock()
		k.host.Beat(f.done, f.of)
	default:
		c.mu.Unlock()
		c.serve(k, f)
	}
}

// ok ends an item that is done, with rows: arrow when all its rows have come: they have
// a pipe of their own. Called with mu held.
func (c *child) ok(k *call, rows *int64) {
	protocol := func(what string) {
		c.finish(k, jobs.Outcome{Class: classProtocol, Disposition: hayrick.Permanent, Message: "the handler wrote " + what})
	}
	switch {
	case !c.h.arrow:
		c.finish(k, jobs.OK())
	case rows == nil:
		protocol("an ok frame without rows: with rows: arrow it says how many the item has on rows_fd")
	case k.rows > *rows:
		protocol(fmt.Sprintf("an ok frame for %d rows behind %d", *rows, k.rows))
	case k.rows == *rows:
		c.finish(k, jobs.OK())
	default:
		k.awaits = *rows
	}
}

// noCall judges a frame for an item that the child does not have, or that cannot be
// read. Called with mu held.
func (c *child) noCall(f *frame, k *call) {
	if l := c.listing; l != nil && f.id == l.id && (f.t == "ok" || f.t == "err") {
		var err error
		if f.t == "err" {
			err = fmt.Errorf("the handler could not list the items: %s%s", f.class, behind(f.msg))
		}
		l.done <- err
		c.listing = nil
		return
	}
	if k == nil {
		if f.id > 0 && f.id <= c.lastID {
			return // it has ended: cancelled, or answered twice
		}
		out := jobs.Outcome{Class: classProtocol, Message: fmt.Sprintf("the handler wrote %s for item %d, which it was not given; answer with the id of the item frame", f.t, f.id)}
		c.broke(out)
		return
	}
	c.finish(k, jobs.Outcome{Class: classProtocol, Disposition: hayrick.Permanent, Message: fmt.Sprintf("the handler wrote a %s frame whose %s", f.t, f.unreadable)})
}

// serve carries out what an item asks for. Only the reader calls it, so that an item's
// rows come in order.
func (c *child) serve(k *call, f *frame) {
	switch f.t {
	case "row":
		if c.h.arrow {
			c.fail(k, "a row frame where rows: arrow is agreed; write it to rows_fd")
			return
		}
		row, err := rowOf(f.row)
		if err != nil || f.row == nil {
			c.fail(k, fmt.Sprintf("a row frame without a row that can be stored: %v", err))
			return
		}
		c.row(k, row)
	case "mark":
		if f.cursor == nil {
			c.fail(k, "a mark without a cursor")
			return
		}
		if err := k.host.Mark(bytes.Clone(f.cursor)); err != nil {
			c.fail(k, err.Error())
		}
	case "need":
		c.need(k, f)
	case "back":
		rate, key := cmp.Or(f.rate, k.rate), f.key
		if !f.hasKey {
			key = k.key
		}
		fb := jobs.Feedback{Throttled: f.throttled || f.remaining != nil && *f.remaining <= 0, RetryAfter: time.Duration(min(max(f.resetMS, f.afterMS, 0), maxAfterMS)) * time.Millisecond}
		k.host.Feedback(rate, key, fb)
	}
}

// row emits a row of an item that has not ended.
func (c *child) row(k *call, row jobs.Row) {
	if k.emit(row) != nil {
		c.cancel(k) // the item cannot go on; who emits knows why
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k.rows++
	if k.awaits >= 0 && !k.ended {
		c.ok(k, &k.awaits)
	}
}

// fail ends an item because of a frame of its own.
func (c *child) fail(k *call, what string) {
	c.h.count(c, classProtocol)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finish(k, jobs.Outcome{Class: classProtocol, Disposition: hayrick.Permanent, Message: "the handler wrote " + what})
}

// need waits for tokens on behalf of an item, and answers with grant.
func (c *child) need(k *call, f *frame) {
	c.mu.Lock()
	k.rate, k.key = f.rate, f.key
	ctx := k.ctx
	if k.stopNeeds == nil && !k.ended {
		k.ctx, k.stopNeeds = context.WithCancel(k.ctx)
		ctx = k.ctx
	}
	c.mu.Unlock()
	rate, key, n := f.rate, f.key, max(f.n, 1)
	c.h.world.Go("handler need", func() {
		start := c.h.world.Clock.Now()
		err := k.host.Need(ctx, rate, key, int(min(n, 1<<30)))
		wait := c.h.world.Clock.Now().Sub(start).Milliseconds()
		m := message{T: "grant", ID: k.id, N: &n, WaitMS: &wait}
		if err != nil {
			m.N, m.Error = new(int64), err.Error()
		}
		c.send(m)
	})
}

// record takes a listed item.
func (c *child) record(f *frame) {
	c.mu.Lock()
	l := c.listing
	c.mu.Unlock()
	if l == nil || f.id != l.id {
		return
	}
	var err error
	if f.item == nil {
		err = errors.New("the handler wrote a record frame without an item")
	} else {
		err = l.emit(bytes.Clone(f.item))
	}
	if err == nil {
		return
	}
	c.mu.Lock()
	if c.listing == l {
		l.done <- err
		c.listing = nil
	}
	c.mu.Unlock()
	c.kill("its list is not wanted")
}

// metrics is whom a metric goes to: any item's host is its task's.
func (c *child) metrics(id int64) jobs.Host {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.calls[id]; k != nil {
		return k.host
	}
	for _, k := range c.calls {
		return k.host
	}
	if c.sess != nil {
		return c.sess.task.Host
	}
	return nil
}

// line keeps a line of the child in its task's log.
func (c *child) line(text string) {
	c.mu.Lock()
	s := c.sess
	l := jobs.LogLine{Child: c.n, Text: text}
	for _, k := range c.inHand() {
		if l.Items = append(l.Items, k.ordinal); len(l.Items) == maxLogItems {
			break
		}
	}
	c.mu.Unlock()
	if s == nil || s.task.Log == nil {
		c.h.log.Debug("handler", "child", c.n, "text", text)
		return
	}
	s.task.Log(l)
}

const (
	maxLogItems = 8       // ordinals on a line of the log
	maxLogLine  = 8 << 10 // bytes of a line of the log; what is longer is cut
)

// readLog reads the program's stderr until it ends.
func (c *child) readLog() {
	in := lines{from: tee{c}, max: maxLogLine}
	for {
		line, err := in.next()
		if err != nil && !errors.Is(err, errLong) {
			return
		}
		text := strings.ToValidUTF8(strings.TrimRight(string(line), "\r"), "?")
		if err != nil {
			text += " ... (cut at 8 KiB)"
		}
		c.line(text)
	}
}

// tee reads stderr and keeps the last of it.
type tee struct{ c *child }

func (t tee) Read(b []byte) (int, error) {
	n, err := t.c.proc.stderr.Read(b)
	if n > 0 {
		t.c.mu.Lock()
		t.c.tail = append(t.c.tail, b[max(0, n-jobs.MaxDetail):n]...)
		if over := len(t.c.tail) - jobs.MaxDetail; over > 0 {
			t.c.tail = append(t.c.tail[:0], t.c.tail[over:]...)
		}
		t.c.mu.Unlock()
	}
	return n, err
}
