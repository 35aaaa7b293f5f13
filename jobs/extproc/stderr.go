package extproc

import (
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hayrick/jobs"
)

// lastWords is the last of its stderr.
func (c *child) lastWords() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.words()
}

// words is the last of its stderr, without what it was passed. Called with mu held.
func (c *child) words() string {
	text := c.secrets.hide(string(c.tail))
	if n := c.secrets.longest(); n > 0 && len(c.tail) == jobs.MaxDetail+n { // it may begin in the middle of one
		text = text[max(strings.IndexByte(text, '\n')+1, min(n, len(text))):]
	}
	return text[max(0, len(text)-jobs.MaxDetail):]
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

// line keeps a line of the child in its task's log.
func (c *child) line(text string) {
	text = c.secrets.hide(text)
	c.mu.Lock()
	s := c.sess
	l := jobs.LogLine{Child: c.n, Text: text}
	if ordinal, ok := c.named(text); ok {
		l.Items = []int64{ordinal}
	} else {
		for _, k := range c.inHand() {
			if l.Items = append(l.Items, k.ordinal); len(l.Items) == maxLogItems {
				break
			}
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
	from := &logPipe{c: c}
	defer func() {
		from.release()
		c.logging.Lock()
		c.logEnded = true
		c.logging.Unlock()
		c.logged.Broadcast()
	}()
	in := lines{from: from, max: maxLogLine}
	for {
		line, err := in.next()
		if err != nil && !errors.Is(err, errLong) {
			return
		}
		text := strings.ToValidUTF8(strings.TrimRight(string(line), "\r"), "?")
		if err != nil { // perhaps in the middle of a secret
			text = c.secrets.hide(text)
			text = text[:max(0, len(text)-c.secrets.longest())] + " ... (cut at 8 KiB)"
		}
		c.line(text)
	}
}

// logPipe reads stderr. From the moment that bytes leave the pipe until they are read
// again, the child's logging is held: who holds it and finds the pipe empty knows that
// every line is where it belongs.
type logPipe struct {
	c    *child
	held bool
}

func (p *logPipe) release() {
	if p.held {
		p.held = false
		p.c.logging.Unlock()
		p.c.logged.Broadcast()
	}
}

func (p *logPipe) Read(b []byte) (n int, err error) {
	p.release()
	raw, err := p.c.proc.stderr.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	if err := raw.Read(func(fd uintptr) bool {
		p.c.logging.Lock()
		for {
			if n, failed = unix.Read(int(fd), b); failed != unix.EINTR {
				break
			}
		}
		if failed == unix.EAGAIN {
			p.c.logging.Unlock()
			return false
		}
		p.held = true
		p.c.logRead += int64(max(0, n))
		return true
	}); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	if n <= 0 {
		return 0, io.EOF
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	// A secret that is cut in two would not be known for one.
	keep := jobs.MaxDetail + p.c.secrets.longest()
	p.c.tail = append(p.c.tail, b[max(0, n-keep):n]...)
	if over := len(p.c.tail) - keep; over > 0 {
		p.c.tail = append(p.c.tail[:0], p.c.tail[over:]...)
	}
	return n, nil
}

// named is the item that a line says it is about: a JSON object with the id of its
// frame. Called with mu held.
func (c *child) named(text string) (ordinal int64, ok bool) {
	if !strings.HasPrefix(text, "{") || !strings.Contains(text, `"id"`) || !json.Valid([]byte(text)) {
		return 0, false
	}
	var id int64
	members([]byte(text), func(name string, v []byte) bool {
		if name == "id" {
			id, _ = strconv.ParseInt(string(v), 10, 64)
		}
		return true
	})
	if id < 1 {
		return 0, false
	}
	at := c.recent[id%int64(len(c.recent))]
	return at.ordinal, at.id == id
}

// logBefore has what an item wrote in the log before the item ends, where it is the
// only one that the program has: then each of its lines is told as its own. With more of
// them the next one has begun when a line is read, and two pipes have no order.
func (c *child) logBefore() {
	c.mu.Lock()
	lone := len(c.calls) == 1
	c.mu.Unlock()
	if lone {
		c.settleLog()
	}
}

// settleLog waits until what the program has written to stderr so far is in the log. A
// program that writes without end is waited for no longer than it takes to read what the
// pipe held.
func (c *child) settleLog() {
	raw, err := c.proc.stderr.SyscallConn()
	if err != nil {
		return
	}
	c.logging.Lock()
	defer c.logging.Unlock()
	n := 0
	if raw.Control(func(fd uintptr) { n = unread(int(fd)) }) != nil {
		return
	}
	for until := c.logRead + int64(max(0, n)); c.logRead < until && !c.logEnded; {
		c.logged.Wait()
	}
}
