package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"

	"hayrick"
	"hayrick/jobs"
	"hayrick/manifest"
)

// The log of a task keeps its beginning and its end: what a handler says when it
// starts, and what it said last.
const (
	logHead = 64 << 10
	logTail = 192 << 10
	maxLine = 16 << 10 // bytes of one line's text
)

// taskLog is what the handler of one attempt wrote, a JSON object a line, bounded
// however much it was. The zero value is empty.
type taskLog struct {
	mu      sync.Mutex // guards all
	head    []byte
	tail    [][]byte // lines
	inTail  int      // bytes
	lines   int64
	dropped int64
}

func (l *taskLog) add(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines++
	if len(l.tail) == 0 && len(l.head)+len(line) <= logHead {
		l.head = append(l.head, line...)
		return
	}
	l.tail = append(l.tail, line)
	l.inTail += len(line)
	for l.inTail > logTail {
		l.inTail -= len(l.tail[0])
		l.tail[0] = nil
		l.tail = l.tail[1:]
		l.dropped++
	}
}

// bytes is the log as it is stored; nil when it is empty.
func (l *taskLog) bytes() (body []byte, lines, dropped int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	body = bytes.Clone(l.head)
	if l.dropped > 0 {
		body = append(encodeLine(manifest.LogLine{Dropped: l.dropped}, body), '\n')
	}
	for _, line := range l.tail {
		body = append(body, line...)
	}
	return body, l.lines, l.dropped
}

func encodeLine(l manifest.LogLine, dst []byte) []byte {
	text, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings, numbers, and JSON that was found valid
	}
	return append(dst, text...)
}

// keepLine is jobs.Task.Log. A line that is a JSON object with a level or msg is kept
// as it is.
func (a *attemptRun) keepLine(in jobs.LogLine) {
	l := manifest.LogLine{
		At: manifest.At(a.w.World.Clock.Now()), Child: in.Child, Items: in.Items, Text: in.Text,
	}
	if len(l.Text) > maxLine {
		l.Text = l.Text[:maxLine] + " ... (cut)"
	}
	if len(in.Text) > 1 && in.Text[0] == '{' && len(in.Text) <= maxLine {
		var known struct{ Level, Msg json.RawMessage }
		if json.Unmarshal([]byte(in.Text), &known) == nil && (known.Level != nil || known.Msg != nil) {
			l.Text, l.Log = "", json.RawMessage(in.Text)
		}
	}
	a.log.add(append(encodeLine(l, nil), '\n'))
}

// putLog stores the log of the attempt, where its handler wrote anything. It is not
// worth a task: what cannot be stored is left out.
func (a *attemptRun) putLog(ctx context.Context, res *manifest.Result) {
	body, lines, dropped := a.log.bytes()
	if lines == 0 {
		return
	}
	sha := manifest.SHA256(body)
	key := manifest.Job(a.ref.JobID).Log(a.ref.TaskID, a.id, sha)
	if err := a.w.Store.PutData(ctx, key, body); err != nil {
		a.w.Log.Warn("log of the task not stored", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyError, err)
		return
	}
	res.Log = &manifest.LogFile{File: manifest.Job(a.ref.JobID).Rel(key), SHA256: sha, Bytes: int64(len(body)), Lines: lines, Dropped: dropped}
}
