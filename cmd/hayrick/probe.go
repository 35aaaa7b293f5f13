package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"hayrick"
	"hayrick/internal/records"
	"hayrick/jobfile"
	"hayrick/jobs"
	"hayrick/jobs/extproc"
	"hayrick/local"
	"hayrick/ratelimit"
	"hayrick/worker"
)

// givenUpAfter is how long a handler in this process may go on when its time is over.
const givenUpAfter = 10 * time.Second

// prober runs items through a handler as one task would, and keeps nothing.
type prober struct {
	*cli
	def    hayrick.JobDefinition
	jobID  string
	limits *ratelimit.Limiter
	auto   []hayrick.Rate

	mu     sync.Mutex // guards what follows
	left   []sampledItem
	ran    []ran
	inHand int           // items that are with the handler and do not wait for a token
	began  time.Time     // of the probe
	since  time.Time     // when the first of these was handed out
	busy   time.Duration // while there were any, before that
	asked  map[string]*askedFor
	err    error
}

// askedFor is what a handler asked of a rate by itself.
type askedFor struct {
	key    string
	tokens int64
	times  int
	mixed  bool // of several buckets
}

// probe runs items that were drawn from the input. It is the real handler that runs them:
// a crash in the middle leaves what it did outside, and some tokens taken.
func (c *cli) probe(ctx context.Context, f jobfile.File, h jobs.Handler, jobID string, drawn []sampledItem) (*probe, error) {
	p := &prober{cli: c, def: f.Definition, jobID: jobID, asked: map[string]*askedFor{}, began: c.world.Clock.Now()}
	bad := int64(0)
	for _, it := range drawn {
		_, marked := records.Bad(it.rec)
		if what, _ := damage(it.rec, p.def); marked || what != "" {
			bad++
			continue
		}
		p.left = append(p.left, it)
	}
	if len(p.left) == 0 {
		return nil, &hayrick.UserError{What: "there is no item to probe with", Hint: "check the input: hayrick check " + f.Path}
	}
	for _, r := range p.def.Rates {
		if r.Auto {
			p.auto = append(p.auto, r)
		}
	}
	if len(p.def.Rates) > 0 {
		st, timing, done, err := c.openLimits(ctx)
		if err != nil {
			return nil, err
		}
		defer done()
		p.limits = &ratelimit.Limiter{Store: st, World: c.world, Timing: timing, Log: c.log}
	}
	c.tell("probing with %s: the handler runs, its rows are dropped", count(int64(len(p.left)), "item"))
	atOnce, err := p.all(ctx, f, h)
	if err != nil {
		return nil, err
	}
	out := summed(p.ran, atOnce, itemsAtOnce(p.def), p.busy)
	if bad > 0 {
		out.Failed[hayrick.ClassBadItem] = bad
	}
	out.tokens = map[string]int64{}
	for rate, a := range p.asked {
		if !a.mixed && a.times > 1 { // else the sample says little of the commonest key
			out.tokens[rate] = a.tokens
		}
	}
	return out, nil
}

// openLimits opens where the tokens of rates are kept: in the store, so that a run that is
// under way and a probe keep one limit together. Where there is no store yet there is no
// such run, and none is made.
func (c *cli) openLimits(ctx context.Context) (ratelimit.Store, ratelimit.Timing, func(), error) {
	if !c.onAWS() {
		if _, err := os.Stat(c.storeDir); errors.Is(err, os.ErrNotExist) {
			dir, err := os.MkdirTemp("", "hayrick-probe-")
			if err != nil {
				return nil, ratelimit.Timing{}, nil, fmt.Errorf("make a scratch folder: %w", err)
			}
			st, err := local.Open(ctx, dir, c.world, c.log)
			if err != nil {
				os.RemoveAll(dir)
				return nil, ratelimit.Timing{}, nil, err
			}
			return st, ratelimit.OneMachine, func() { st.Close(); os.RemoveAll(dir) }, nil
		}
	}
	st, timing, err := openBackend(ctx, c)
	if err != nil {
		return nil, timing, nil, err
	}
	if err := st.Watching(); err != nil {
		st.Close()
		return nil, timing, nil, err
	}
	return st, timing, func() { st.Close() }, nil
}

// all runs every item, as many at once as a task does.
func (p *prober) all(ctx context.Context, f jobfile.File, h jobs.Handler) (atOnce int, err error) {
	atOnce = max(1, p.def.Run.ItemsInFlight)
	if o, ok := h.(jobs.Opener); ok {
		s, err := o.Open(ctx, jobs.Task{Run: p.jobID, Task: "probe", Host: &probeHost{p: p}, Log: func(jobs.LogLine) {}})
		var start *extproc.StartError
		if errors.As(err, &start) {
			return 0, &hayrick.UserError{What: fmt.Sprintf("%s: handler.exec: %s", f.At("handler.exec"), start.What), Hint: "see every frame and line of it: hayrick handler try " + f.Path}
		}
		if err != nil {
			return 0, fmt.Errorf("start the handler: %w", err)
		}
		defer s.Close()
		atOnce = max(1, s.Slots(len(p.auto) > 0))
		h = s
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range min(atOnce, len(p.left)) {
		wg.Add(1)
		p.world.Go("probe", func() {
			defer wg.Done()
			for {
				it, ok := p.next()
				if !ok || ctx.Err() != nil {
					return
				}
				if err := p.one(ctx, h, it); err != nil {
					p.mu.Lock()
					if p.err == nil && ctx.Err() == nil {
						p.err = err
					}
					p.mu.Unlock()
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	if p.err != nil {
		return atOnce, p.err
	}
	if ctx.Err() != nil {
		return atOnce, errInterrupted
	}
	return atOnce, nil
}

func (p *prober) next() (it sampledItem, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.left) == 0 {
		return it, false
	}
	it, p.left = p.left[0], p.left[1:]
	return it, true
}

// one runs an item once. An error is the host's, and ends the probe.
func (p *prober) one(ctx context.Context, h jobs.Handler, s sampledItem) error {
	fields, _ := worker.ParseFields(s.rec) // they were looked at
	for _, r := range p.auto {
		key, err := worker.RateKey(r.Key, fields)
		if err != nil {
			return err
		}
		if _, err := p.limits.Take(ctx, p.jobID, r, key, 1); err != nil {
			return fmt.Errorf("take a token of rates.%s %s: %w", r.Name, key, err)
		}
	}
	it := itemOf(p.def, s.ordinal, s.rec)
	host := &probeHost{p: p}
	it.Host = host
	var mu sync.Mutex // a handler that was given up may still emit
	rows := int64(0)
	emit := func(r jobs.Row) error {
		mu.Lock()
		defer mu.Unlock()
		rows++
		return r.Check()
	}
	start := p.world.Clock.Now()
	p.enter()
	var out jobs.Outcome
	if s, ok := h.(jobs.Session); ok {
		out = s.Handle(ctx, it, emit)
	} else {
		out = p.here(ctx, h, it, emit)
	}
	p.leave()
	took := p.world.Clock.Now().Sub(start)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if out.NotTried {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.left = append(p.left, s)
		return nil
	}
	if d := p.def.Retry.DispositionOf(out.Class, out.Disposition); !out.OK() && d == hayrick.RateLimit {
		for _, r := range p.auto {
			if key, _ := worker.RateKey(r.Key, fields); r.Learn {
				p.limits.Feedback(ctx, p.jobID, r, key, out.RetryAfter)
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	mu.Lock()
	defer mu.Unlock()
	host.mu.Lock()
	defer host.mu.Unlock()
	p.ran = append(p.ran, ran{class: out.Class, message: out.Message, took: took - host.waited, ended: start.Add(took).Sub(p.began), rows: rows})
	return nil
}

// here calls a handler of this process: one that panics has crashed, and one that does not
// return is given up.
func (p *prober) here(ctx context.Context, h jobs.Handler, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	if it.Left > 0 {
		limited, cancel := context.WithTimeout(ctx, it.Left)
		defer cancel()
		ctx = limited
	}
	ended := make(chan jobs.Outcome, 1)
	p.world.Go("handle", func() {
		out := jobs.Fail(hayrick.ClassCrash, "the handler ended its goroutine")
		defer func() {
			if v := recover(); v != nil {
				out = jobs.Fail(hayrick.ClassCrash, "panic: %v", v)
			}
			ended <- out
		}()
		out = h.Handle(ctx, it, emit)
	})
	select {
	case out := <-ended:
		return out
	case <-ctx.Done():
	}
	over := make(chan struct{})
	grace, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	p.world.Go("grace", func() {
		if p.world.Clock.Sleep(grace, givenUpAfter) == nil {
			close(over)
		}
	})
	select {
	case out := <-ended:
		if !out.OK() && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			out = jobs.Fail(hayrick.ClassTimeout, "still running after %s: %s", it.Left, out.Message)
		}
		return out
	case <-over:
		return jobs.Fail(hayrick.ClassTimeout, "the handler did not return when its time was over")
	}
}

// enter and leave keep the time in which any item is in hand.
func (p *prober) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inHand++; p.inHand == 1 {
		p.since = p.world.Clock.Now()
	}
}

func (p *prober) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inHand--; p.inHand == 0 {
		p.busy += p.world.Clock.Now().Sub(p.since)
	}
}

// probeHost is the host of an item: tokens are real, and nothing else is kept.
type probeHost struct {
	p      *prober
	mu     sync.Mutex
	waited time.Duration // for tokens
}

var _ jobs.Host = (*probeHost)(nil)

// Need is jobs.Host.
func (h *probeHost) Need(ctx context.Context, rate, key string, n int) error {
	r, ok := h.p.def.Rate(rate)
	if !ok {
		return &hayrick.UserError{What: fmt.Sprintf("the handler asks for rate %q, which the job file does not have", rate), Hint: "add it under rates:"}
	}
	h.p.note(rate, key, n)
	h.p.leave()
	waited, err := h.p.limits.Take(ctx, h.p.jobID, r, key, n)
	h.p.enter()
	h.mu.Lock()
	h.waited += waited
	h.mu.Unlock()
	return err
}

// note counts what was asked for.
func (p *prober) note(rate, key string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.asked[rate]
	if a == nil {
		a = &askedFor{key: key}
		p.asked[rate] = a
	}
	a.mixed = a.mixed || a.key != key
	a.tokens += int64(n)
	a.times++
}

// Feedback is jobs.Host.
func (h *probeHost) Feedback(rate, key string, f jobs.Feedback) {
	if r, ok := h.p.def.Rate(rate); ok && r.Learn && f.Throttled {
		h.p.limits.Feedback(context.Background(), h.p.jobID, r, key, f.RetryAfter)
	}
}

func (*probeHost) Add(string, int64)          {}
func (*probeHost) Set(string, int64)          {}
func (*probeHost) Observe(string, int64)      {}
func (*probeHost) Beat(int64, int64)          {}
func (*probeHost) Mark(json.RawMessage) error { return nil }
func (*probeHost) Log(string)                 {}

// sayProbe prints what a probe found, and the time that follows from it.
func (c *cli) sayProbe(p *plan) {
	b := p.Probe
	failed := ""
	if len(b.Failed) > 0 {
		failed = ", failed: " + tallied(b.Failed)
	}
	c.print("probe  %s of %s, %d at once: %s median, %s p95; %d ok%s; %s rows an item", number(b.Items), number(p.Items), b.AtOnce,
		msWords(b.MedianMS), msWords(b.P95MS), b.OK, failed, painted(fmt.Sprintf("%.3g", b.ItemRows)))
	if b.sample != "" {
		c.print("       such as %s; retries are not in the time", b.sample)
	}
	at, low, high := "", p.assumed[0].atOnce, p.assumed[2].atOnce
	most := min(int64(p.def.Run.MaxParallel), max(p.Tasks, 1))
	if low == 0 && high > 0 && int64(high) < most {
		at = fmt.Sprintf("; the most, if %d of them have the cores here busy", high)
	}
	if p.Time.LowMS == p.FloorMS && p.Time.HighMS == p.FloorMS {
		c.print("time   %s, the floor: the rate lets it go no faster", ago(ms(p.FloorMS)))
		return
	}
	c.print("time   %s to %s, from the probe: a task does %s items/s, %s at once%s", ago(ms(p.Time.LowMS)), ago(ms(p.Time.HighMS)),
		rates(b.PerSecond), count(most, "task"), at)
}

func rates(r [2]float64) painted {
	lo, hi := fmt.Sprintf("%.3g", r[0]), fmt.Sprintf("%.3g", r[1])
	if r[0] >= 1000 || r[1] >= 1000 {
		lo, hi = number(int64(r[0])), number(int64(r[1]))
	}
	if lo == hi {
		return painted(lo)
	}
	return painted(lo + " to " + hi)
}

// msWords is a time in milliseconds that may be a small part of one.
func msWords(x float64) string {
	if x < 10 {
		return fmt.Sprintf("%.2g ms", x)
	}
	return ago(time.Duration(x * float64(time.Millisecond)))
}
