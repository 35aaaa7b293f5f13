package extproc

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"hayrick/jobs"
)

// How long a child may take.
const (
	ReadyTime  = 30 * time.Second // from its start to ready
	CancelTime = 2 * time.Second  // from cancel to SIGTERM, and from stop
	TermTime   = 5 * time.Second  // from SIGTERM to SIGKILL
	drainTime  = time.Second      // its pipes stay open for so long when it is gone: a grandchild may have them
)

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

	secrets secrets // that it was passed

	logging  sync.Mutex // held while lines of stderr are on their way into the log; guards logRead, logEnded
	logged   *sync.Cond // on logging: what was read is in the log
	logRead  int64      // bytes that were read of stderr
	logEnded bool

	mu      sync.Mutex // guards what follows
	out     []byte     // frames to write
	held    int        // items among them that nobody has told the writer of
	closing bool       // stdin ends behind them
	lastID  int64
	calls   map[int64]*call
	recent  []sent  // the last ones, by id: for lines of the log that name theirs
	waiting []*call // sent ahead, not yet running; ended ones are passed over
	running int
	atOnce  int
	sess    *Session // whose items it has
	listing *listing // what it lists
	killed  string   // why the host ends it; "" = it does not
	tooBig  string   // it ended it for its memory
	exit    string   // how it ended
	said    bool     // it has said ready
	bye     bool     // it has said bye
	tail    []byte   // the last of its stderr
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
		secrets: s.secrets, calls: map[int64]*call{}, recent: make([]sent, 2*s.inFlight), atOnce: 1,
	}
	c.logged = sync.NewCond(&c.logging)
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
	if s.memory > 0 {
		h.world.Go("handler memory", func() { c.watchMemory(int64(s.memory)) })
	}
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
		e.What = c.secrets.hide(e.What)
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

// feed has items written when the program is short of them: as long as it has more than
// it runs at once, and half of what may be sent ahead, the next ones are kept until there
// are enough for a write that is worth its price on both sides. Called with mu held.
func (c *child) feed() {
	if c.held > 0 && len(c.calls)-c.held < max(c.atOnce, c.h.def.ItemsInFlight/2) {
		c.rouse()
	}
}

// rouse has what is queued written. Called with mu held.
func (c *child) rouse() {
	c.held = 0
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
	c.proc.tree.Terminate()
	c.h.world.Go("handler kill", func() {
		if c.h.world.Clock.Sleep(c.ctx, TermTime) == nil {
			c.proc.tree.Kill()
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

// memoryEvery is how often the memory of a child and what it has forked is looked at.
const memoryEvery = time.Second

// watchMemory ends the child when it and what it has forked have more in memory than
// one may allocate. It is killed at once: what asks first may take the machine along.
func (c *child) watchMemory(limit int64) {
	for c.h.world.Clock.Sleep(c.ctx, memoryEvery) == nil {
		has := c.proc.tree.Memory(limit)
		if has <= limit {
			continue
		}
		c.mu.Lock()
		if c.killed == "" {
			c.tooBig = fmt.Sprintf("was ended: its processes have %d MiB in memory together, handler.memory is %d MiB", has>>20, limit>>20)
			c.condemn("it has too much memory")
		}
		c.mu.Unlock()
		c.proc.tree.Kill()
		return
	}
}

// watch waits for the program's end, ends what it left behind, and settles its calls
// when all that it had written is read.
func (c *child) watch(readers *sync.WaitGroup) {
	end := c.proc.tree.Wait()
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
	c.settle(end)
	c.h.died(c)
	close(c.gone)
}

// ended is how the program ended.
func (c *child) ended() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exit
}
