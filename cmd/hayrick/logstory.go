package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"hayrick"
)

// told are the messages whose content the story has anyway: why a run is paused, and
// how it ended.
var told = map[string]bool{"the job is paused": true, "the job failed": true}

// causes are the attributes that say why; they follow the message itself.
var causes = map[string]bool{hayrick.KeyError: true, "why": true, "because": true, "panic": true}

// keyStack is the attribute with the stack of a handler that panicked, which is told
// with -vv only.
const keyStack = "stack"

// toldAlike is how many records with the same message are told before it takes -v.
const toldAlike = 3

// storyLog tells warnings as lines of the story: what happened, why, and where, each
// on one line, and a few of each kind. It is the log as long as nobody asked for
// more.
type storyLog struct {
	c     *cli
	least slog.Level
	attrs []slog.Attr

	alike *alike
}

// alike counts messages. mu guards n.
type alike struct {
	mu sync.Mutex
	n  map[string]int
}

func newStoryLog(c *cli, least slog.Level) *storyLog {
	return &storyLog{c: c, least: least, alike: &alike{n: map[string]int{}}}
}

func (l *storyLog) Enabled(_ context.Context, level slog.Level) bool { return level >= l.least }

func (l *storyLog) WithGroup(string) slog.Handler { return l } // nobody here groups

func (l *storyLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	w := *l
	w.attrs = append(append([]slog.Attr(nil), l.attrs...), attrs...)
	return &w
}

func (l *storyLog) Handle(_ context.Context, r slog.Record) error {
	attrs := append([]slog.Attr(nil), l.attrs...)
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
	if told[r.Message] || slices.ContainsFunc(attrs, interrupted) {
		return nil
	}
	l.alike.mu.Lock()
	l.alike.n[r.Message]++
	n := l.alike.n[r.Message]
	l.alike.mu.Unlock()
	if n > toldAlike {
		return nil
	}
	line := warning(l.c.advice(r.Message), attrs)
	if n == toldAlike {
		line += "; more of these with -v"
	}
	word := l.c.paint(bold, "warning:")
	if r.Level >= slog.LevelError {
		word = l.c.paint(red, "error:")
	}
	l.c.mustTell("%s %s", word, line)
	return nil
}

// interrupted says that what went wrong is that a person has stopped the process,
// who knows.
func interrupted(a slog.Attr) bool {
	err, ok := a.Value.Any().(error)
	return ok && errors.Is(err, context.Canceled)
}

// warning is a record as one line: message: why (where).
func warning(message string, attrs []slog.Attr) string {
	var why, where []string
	for _, a := range attrs {
		value := firstLine(a.Value.String())
		switch {
		case a.Key == keyStack || value == "":
		case causes[a.Key]:
			why = append(why, value)
		default:
			where = append(where, a.Key+" "+value)
		}
	}
	for _, w := range why {
		message += ": " + w
	}
	if len(where) > 0 {
		message += " (" + strings.Join(where, ", ") + ")"
	}
	return message
}

// logAttr leaves the date out of log lines, and the stacks out of those of -v.
func logAttr(verbosity int) func([]string, slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case a.Key == slog.TimeKey && len(groups) == 0:
			a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
		case a.Key == keyStack && verbosity < 2:
			return slog.Attr{}
		}
		return a
	}
}
