package extproc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"hayrick"
	"hayrick/jobs"
)

// classProtocol is a handler that broke the protocol.
const classProtocol = "handler_protocol"

// listing is a list frame under way.
type listing struct {
	id   int64
	emit func(json.RawMessage) error
	done chan error // has room for the one result
}

// read reads the frames of the program until its stdout ends.
func (c *child) read() {
	in := lines{from: c.proc.stdout, max: MaxFrame}
	for {
		line, err := in.next()
		if err != nil && !errors.Is(err, errLong) && !errors.Is(err, errSwallowed) {
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
		if !ok && in.cut {
			return // it ended in the middle of a line, which its end explains
		}
		if !ok {
			c.noFrame(line, err)
			continue
		}
		c.handle(&f)
	}
}

// idOf finds the id in what was meant to be a frame.
var idOf = regexp.MustCompile(`^\{.{0,200}?"id"\s*:\s*([0-9]{1,18})\b`)

// noFrame judges a line that is no frame. A stray print is passed over; what took a
// frame with it is not.
func (c *child) noFrame(line []byte, err error) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	shown := c.secrets.hide(string(line[:min(len(line), 200+c.secrets.longest())]))
	shown = strings.ToValidUTF8(shown[:min(len(shown), 200)], "?")
	what := "a line that is not JSON"
	if err != nil {
		what = err.Error()
	}
	broken := line[0] == '{' && (err != nil || !json.Valid(line))
	if i := bytes.Index(line, mark); i > 0 {
		broken, what = true, errSwallowed.Error()
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
	out.Detail = c.words()
	if m := idOf.FindSubmatch(line); m != nil && what != errSwallowed.Error() { // what is in front of it may have been frames too
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

// stray notes a print that came onto stdout.
func (c *child) stray(text string) {
	c.h.count(c, classProtocol)
	text = c.secrets.hide(text)
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
	if f.t == "ok" || f.t == "err" {
		c.logBefore()
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
		if k.slot.next != nil && !c.h.arrow {
			c.remove(k)
			c.mu.Unlock()
			c.follow(k.slot)
			return
		}
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
			err = errors.New(c.secrets.hide(fmt.Sprintf("the handler could not list the items: %s%s", f.class, behind(f.msg))))
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
