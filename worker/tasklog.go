package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
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
	maxLive = 4 << 20  // of what is shown while the task runs
)

// taskLog is what the handler of one attempt wrote, a JSON object a line, bounded
// however much it was. The zero value is empty.
type taskLog struct {
	begin func() // is told of the first line; may be nil

	mu     sync.Mutex // guards what follows
	own    keptLines
	before []byte // what the attempts wrote whose work this one goes on with
	live   io.WriteCloser
	inLive int // bytes
	over   bool
}

// keptLines are the beginning and the end of a log.
type keptLines struct {
	head    []byte
	tail    [][]byte // lines
	inTail  int      // bytes
	lines   int64
	dropped int64
}

func (l *taskLog) add(line []byte) {
	if l.keep(line) && l.begin != nil {
		l.begin()
	}
}

func (l *taskLog) keep(line []byte) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.add(line)
	l.show(line)
	return l.own.lines == 1
}

// show gives lines to who follows. What cannot be shown now is in the log of the task.
// Called with mu held.
func (l *taskLog) show(lines []byte) {
	if l.live == nil || l.inLive+len(lines) > maxLive {
		return
	}
	l.inLive += len(lines)
	if _, err := l.live.Write(lines); err != nil {
		l.live.Close()
		l.live = nil
	}
}

// follow shows the log so far, and every line from now on, until end.
func (l *taskLog) follow(open func() (io.WriteCloser, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || l.live != nil {
		return nil
	}
	live, err := open()
	if err != nil {
		return err
	}
	l.live = live
	all := l.all()
	l.show(all.bytes())
	return nil
}

// end stops showing it.
func (l *taskLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over = true; l.live != nil {
		l.live.Close()
		l.live = nil
	}
}

// goOn puts what earlier attempts wrote before it; nil takes it back.
func (l *taskLog) goOn(before []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before = before
}

// goOnAfterCrash is goOn with what a worker that was killed has left of the log, where
// that is what is before already, and more; taken says so.
func (l *taskLog) goOnAfterCrash(left []byte) (taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(left) <= len(l.before) || !bytes.HasPrefix(left, l.before) {
		return false // of an attempt before the one whose work this one goes on with
	}
	var whole []byte
	for line := range bytes.Lines(left) {
		var known manifest.LogLine
		if json.Unmarshal(line, &known) != nil || !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		whole = append(whole, line...)
	}
	if len(whole) <= len(l.before) {
		return false
	}
	l.before = whole
	return true
}

// all is the log with what is before it. Called with mu held.
func (l *taskLog) all() *keptLines {
	if l.before == nil {
		return &l.own
	}
	own := l.own.bytes()
	all := &keptLines{}
	for line := range bytes.Lines(l.before) {
		all.addKept(line)
	}
	for line := range bytes.Lines(own) {
		all.addKept(line)
	}
	return all
}

// addKept adds a line of a log that was kept, which may say how many are left out.
func (l *keptLines) addKept(line []byte) {
	var left manifest.LogLine
	if bytes.Contains(line, []byte(`"dropped":`)) && json.Unmarshal(line, &left) == nil && left.Dropped > 0 {
		l.lines += left.Dropped
		l.dropped += left.Dropped
		return
	}
	l.add(bytes.Clone(line))
}

func (l *keptLines) add(line []byte) {
	l.lines++
	if len(l.tail) == 0 && l.dropped == 0 && len(l.head)+len(line) <= logHead {
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
	all := l.all()
	return all.bytes(), all.lines, all.dropped
}

func (l *keptLines) bytes() []byte {
	body := bytes.Clone(l.head)
	if l.dropped > 0 {
		body = append(encodeLine(manifest.LogLine{Dropped: l.dropped}, body), '\n')
	}
	for _, line := range l.tail {
		body = append(body, line...)
	}
	return body
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

// showLog lets who is on this machine follow the log of the attempt, once it has one and
// has run a while: a file a task would cost more than a short one does. The end of the
// attempt ends it, after the result is there; a crash leaves it behind, with what the
// handler said last, for the next attempt of the task on this machine.
//
// left is what such an attempt has left, which the next log takes the place of.
func (a *attemptRun) showLog(ctx context.Context) (left []byte, stop func()) {
	if a.w.LiveLogs == nil {
		return nil, func() {}
	}
	left = a.w.LiveLogs.Left(a.ref)
	ctx, cancel := context.WithCancel(ctx)
	a.log.begin = func() {
		a.w.World.Go("live log", func() {
			if a.w.World.Clock.Sleep(ctx, journalAfter-min(journalAfter, a.w.World.Clock.Now().Sub(a.start))) != nil {
				return
			}
			a.show()
		})
	}
	return left, func() { cancel(); a.log.end() }
}

func (a *attemptRun) show() {
	if err := a.log.follow(func() (io.WriteCloser, error) { return a.w.LiveLogs.Create(a.ref, a.id) }); err != nil {
		a.w.Log.Debug("log not shown", hayrick.KeyTaskID, a.ref.TaskID, hayrick.KeyError, err)
	}
}

// afterCrash puts what the handler said last before the log, where the attempt before
// was killed on this machine. What it said elsewhere, and in its first moments, is lost.
func (a *attemptRun) afterCrash(left []byte) {
	if a.claim.Fence < 2 || !a.log.goOnAfterCrash(left) {
		return
	}
	a.keepLine(jobs.LogLine{Text: "hayrick: the worker that had this task vanished here; another goes on"})
	a.show() // at once: this worker may be killed too
}

// logOrdinal is the entry of a journal that holds the log, in Detail: before a hand-back
// whoever goes on with the work gets it too.
const logOrdinal = -1

// saveLog puts the log so far into the journal.
func (a *attemptRun) saveLog(ctx context.Context) error {
	body, lines, _ := a.log.bytes()
	if lines == 0 {
		return nil
	}
	return a.journal.Record(ctx, Entry{Ordinal: logOrdinal, Detail: string(body)})
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
