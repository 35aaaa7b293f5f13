package extproc

import (
	"cmp"
	"slices"
	"strings"

	"hayrick/jobs"
)

// Secrets reach a program by handler.pass_env, and leave it again in what a traceback or a
// failed request prints. What a program says, in its log, its failures and its last words,
// is kept with the run: the values that it was passed stand there as [$NAME]. Rows are
// data, and stay as they are.

// hidden is a text that is not to be kept, and what stands in its place.
type hidden struct{ text, as string }

// secrets are the values that a program was passed, the longest first.
type secrets []hidden

const (
	minHidden     = 6  // bytes of a value that is hidden: shorter ones stand in any text
	minHiddenLine = 12 // ... and of one line of a value that has several
)

// secretsOf finds the values of the variables that a job file passes.
func secretsOf(passed, environ []string) secrets {
	var out secrets
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !slices.Contains(passed, name) || len(strings.TrimSpace(value)) < minHidden {
			continue
		}
		as := "[$" + name + "]"
		out = append(out, hidden{value, as})
		if trimmed := strings.TrimSpace(value); trimmed != value {
			out = append(out, hidden{trimmed, as})
		}
		for line := range strings.Lines(value) { // a log is told line by line
			if line = strings.TrimSpace(line); len(line) >= minHiddenLine && line != value {
				out = append(out, hidden{line, as})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b hidden) int { return cmp.Compare(len(b.text), len(a.text)) })
	return out
}

// hide is text without them.
func (s secrets) hide(text string) string {
	for _, h := range s {
		if strings.Contains(text, h.text) {
			text = strings.ReplaceAll(text, h.text, h.as)
		}
	}
	return text
}

// longest is the length of the longest one.
func (s secrets) longest() int {
	if len(s) == 0 {
		return 0
	}
	return len(s[0].text)
}

// outcome is an outcome without them.
func (s secrets) outcome(o jobs.Outcome) jobs.Outcome {
	o.Message, o.Detail = s.hide(o.Message), s.hide(o.Detail)
	return o
}
