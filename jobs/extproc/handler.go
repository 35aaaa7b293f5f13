package extproc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"hayrick"
	"hayrick/internal/processtree"
	"hayrick/jobs"
)

// DefaultInFlight is how many items are sent ahead to a child where the job file does
// not say.
const DefaultInFlight = 64

// Handler runs the items of one job in programs.
type Handler struct {
	// Trace is shown every line that goes to a program (fromHost) or comes from it.
	// Set it before the first use; it must be safe for concurrent use.
	Trace func(fromHost bool, line []byte)

	def     hayrick.Handler
	world   hayrick.World
	log     *slog.Logger
	timeout time.Duration
	run     string
	dir     func(context.Context) (string, error)
	arrow   bool
	self    string // the binary with processtree.Supervise; "" = programs have no supervisor
	strays  sync.Once

	mu     sync.Mutex // guards what follows
	set    *settings
	parked []*child // ready, and without items
	live   map[*child]bool
	last   int // number of the last child
	closed bool
}

var (
	_ jobs.Opener = (*Handler)(nil)
	_ jobs.Lister = (*Handler)(nil)
	_ jobs.Closer = (*Handler)(nil)
)

// settings are what every start of the program needs.
type settings struct {
	self     string
	exec     []string
	dir      string
	env      []string
	params   json.RawMessage
	secrets  secrets
	inFlight int
	arrow    bool
	memory   hayrick.Bytes
}

// Factory builds the handler of handler.exec. It starts nothing. What a program leaves
// behind outside of its process group is not ended with it: Supervised does that.
func Factory(_ context.Context, env jobs.Env) (jobs.Handler, error) {
	return New(env), nil
}

// Supervised is Factory for a binary whose main begins with processtree.Supervise: it
// starts itself once more for each program.
func Supervised(_ context.Context, env jobs.Env) (jobs.Handler, error) {
	self, err := processtree.Self()
	if err != nil {
		return nil, fmt.Errorf("find this program's file: %w", err)
	}
	h := New(env)
	h.self = self
	return h, nil
}

// New is Factory, for who needs the type.
func New(env jobs.Env) *Handler {
	h := &Handler{
		def: env.Handler, world: env.World, log: env.Log, timeout: env.Timeout.D(), run: env.Run, dir: env.Dir,
		arrow: env.Handler.Rows == "arrow",
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.dir == nil {
		h.dir = func(context.Context) (string, error) { return "", nil }
	}
	if h.def.Processes < 1 {
		h.def.Processes = 1
	}
	if h.def.ItemsInFlight < 1 {
		h.def.ItemsInFlight = DefaultInFlight
	}
	return h
}

// settings finds out what starting the program takes, once.
func (h *Handler) settings(ctx context.Context) (*settings, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.set != nil {
		if _, err := os.Stat(h.set.dir); h.set.dir == "" || err == nil {
			return h.set, nil
		}
		h.set = nil // a program has deleted the folder it worked in: another gets it again
	}
	dir, err := h.dir(ctx)
	if err != nil {
		return nil, fmt.Errorf("unpack the job's folder: %w", err)
	}
	if err := scriptMissing(h.def.Exec, dir); err != nil {
		return nil, err
	}
	h.set = &settings{
		self: h.self, exec: h.def.Exec, dir: dir, env: environment(h.def, h.run, os.Environ()), params: h.def.Params, secrets: secretsOf(h.def.PassEnv, os.Environ()),
		inFlight: h.def.ItemsInFlight, arrow: h.arrow, memory: h.def.Memory,
	}
	return h.set, nil
}

// Check starts the program, waits until it is ready, and ends it: what a check of the
// job file does.
func (h *Handler) Check(ctx context.Context) error {
	c, err := h.spawn(ctx, jobs.Task{Run: h.run}, nil)
	if err != nil {
		return err
	}
	h.end(c)
	return nil
}

// spawn starts a child for a session.
func (h *Handler) spawn(ctx context.Context, t jobs.Task, s *Session) (*child, error) {
	h.mu.Lock()
	h.last++
	n := h.last
	h.mu.Unlock()
	c, err := h.start(ctx, t, n)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.sess = s
	c.mu.Unlock()
	return c, nil
}

// Handle is jobs.Handler for a caller without a task: a session of one item.
func (h *Handler) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	s, err := h.Open(ctx, jobs.Task{Run: h.run, Host: it.Host})
	if err != nil {
		return jobs.Outcome{Class: hayrick.ClassHandler, Message: err.Error()}
	}
	defer s.Close()
	return s.Handle(ctx, it, emit)
}

// Items is jobs.Lister: the list frame.
func (h *Handler) Items(ctx context.Context, emit func(json.RawMessage) error) error {
	c, err := h.spawn(ctx, jobs.Task{Run: h.run}, nil)
	if err != nil {
		return asUserError(err)
	}
	defer h.end(c)
	l := &listing{emit: emit, done: make(chan error, 2)}
	c.mu.Lock()
	c.lastID++
	l.id = c.lastID
	if c.ctx.Err() != nil {
		c.mu.Unlock()
		return &hayrick.UserError{What: "the handler " + c.ended() + " before it could list the items", Hint: "try it: hayrick handler try"}
	}
	c.listing = l
	c.queue(message{T: "list", ID: l.id}.append(nil))
	c.mu.Unlock()
	select {
	case err := <-l.done:
		var u *hayrick.UserError
		if err != nil && !errors.As(err, &u) {
			err = &hayrick.UserError{What: err.Error(), Hint: "a handler answers list with record frames and ok: docs/reference/handler-protocol.md"}
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// asUserError makes of a program that does not start what a person can mend.
func asUserError(err error) error {
	var s *StartError
	if errors.As(err, &s) {
		return &hayrick.UserError{What: s.What, Hint: "run it by hand in the job's folder, or hayrick handler try <job>", Err: nil}
	}
	return err
}

// end stops a child and waits for it.
func (h *Handler) end(c *child) {
	c.stop()
	<-c.gone
}

// Close is jobs.Closer: it ends all children and waits for them, at most as long as a
// program may take that heeds neither stop nor SIGTERM.
func (h *Handler) Close() error {
	h.mu.Lock()
	parked := h.parked
	h.parked, h.closed = nil, true
	all := make([]*child, 0, len(h.live))
	for c := range h.live {
		all = append(all, c)
	}
	h.mu.Unlock()
	for _, c := range parked {
		c.stop()
	}
	for _, c := range all {
		<-c.gone
	}
	return nil
}

// born and died keep what Close waits for.
func (h *Handler) born(c *child) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		h.live = map[*child]bool{}
	}
	h.live[c] = true
}

func (h *Handler) died(c *child) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.live, c)
}

// take takes a parked child that still lives.
func (h *Handler) take() *child {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.parked) > 0 {
		c := h.parked[len(h.parked)-1]
		h.parked = h.parked[:len(h.parked)-1]
		if c.ctx.Err() == nil {
			return c
		}
	}
	return nil
}

// park keeps a child for the next session, or ends it when it is not fit for one.
func (h *Handler) park(c *child) {
	c.settleLog()
	c.mu.Lock()
	c.sess = nil
	fit := len(c.calls) == 0 && c.killed == "" && !c.closing && !c.bye && c.ctx.Err() == nil
	c.mu.Unlock()
	h.mu.Lock()
	if fit && !h.closed {
		h.parked = append(h.parked, c)
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	if fit {
		c.stop()
	} else {
		c.kill("its attempt is over")
	}
}

// count counts into a metric of the task that a child works for.
func (h *Handler) count(c *child, metric string) {
	if host := c.metrics(0); host != nil {
		host.Add(metric, 1)
	}
}
