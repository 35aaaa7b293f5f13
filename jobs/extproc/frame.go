package extproc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"hayrick"
	"hayrick/jobs"
)

// Proto is the version of the protocol.
const Proto = 1

// frame is one frame of a handler. Its slices are valid as long as the line is.
type frame struct {
	t  string
	id int64 // 0 = none; ids count from 1

	class, msg    string
	retry         *bool
	afterMS       int64
	status        int64
	row           []byte
	item          []byte // of record
	cursor        []byte
	rate, key     string
	hasKey        bool
	n             int64
	remaining     *int64
	resetMS       int64
	throttled     bool
	done, of      int64
	name, version string
	proto         int64
	atOnce        int64
	add, set, obs *float64
	labels        []byte
	rows          *int64 // of ok, with rows: arrow
	unreadable    string // a member with a value of another type
	itself        bool   // it has a t: a frame, not just an object
}

// ok is what most frames are: {"t":"ok","id":7}, also with a space after : and ,.
func isOK(line []byte) (id int64, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"t":"ok","id":`))
	if !ok {
		if rest, ok = bytes.CutPrefix(line, []byte(`{"t": "ok", "id": `)); !ok {
			return 0, false
		}
	}
	if len(rest) < 2 || len(rest) > 19 || rest[len(rest)-1] != '}' {
		return 0, false
	}
	for _, c := range rest[:len(rest)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		id = id*10 + int64(c-'0')
	}
	return id, true
}

// parse reads a line. false: it is no JSON object with a t, and so not a frame.
func parse(line []byte) (f frame, ok bool) {
	if id, ok := isOK(line); ok {
		return frame{t: "ok", id: id, itself: true}, true
	}
	if len(line) == 0 || !json.Valid(line) {
		return f, false
	}
	members(line, func(name string, v []byte) bool {
		f.member(name, v)
		return true
	})
	return f, f.itself
}

func (f *frame) member(name string, v []byte) {
	bad := func(want string) {
		if string(v) != "null" && f.unreadable == "" {
			f.unreadable = fmt.Sprintf("%s is %.40s, want %s", name, v, want)
		}
	}
	text := func(to *string) {
		if v[0] == '"' {
			*to = unquote(v)
		} else {
			bad("a string")
		}
	}
	number := func(to *int64) {
		if x, err := strconv.ParseFloat(string(v), 64); err == nil && math.Abs(x) < 1<<53 {
			*to = int64(x)
		} else {
			bad("a number")
		}
	}
	float := func(to **float64) {
		if x, err := strconv.ParseFloat(string(v), 64); err == nil {
			*to = &x
		} else {
			bad("a number")
		}
	}
	yes := func(to *bool) {
		*to = v[0] == 't'
		if v[0] != 't' && v[0] != 'f' {
			bad("true or false")
		}
	}
	switch name {
	case "t":
		text(&f.t)
		f.itself = f.t != ""
	case "id":
		number(&f.id)
	case "class":
		text(&f.class)
	case "msg":
		text(&f.msg)
	case "retry":
		f.retry = new(bool)
		if yes(f.retry); v[0] == 'n' {
			f.retry = nil
		}
	case "status":
		number(&f.status)
	case "after_ms":
		number(&f.afterMS)
	case "row":
		f.row = v
	case "item":
		f.item = v
	case "cursor":
		f.cursor = v
	case "rate":
		text(&f.rate)
	case "key":
		f.hasKey = true
		text(&f.key)
	case "n":
		number(&f.n)
	case "remaining":
		f.remaining = new(int64)
		if number(f.remaining); v[0] == 'n' {
			f.remaining = nil
		}
	case "reset_ms":
		number(&f.resetMS)
	case "throttled":
		yes(&f.throttled)
	case "done":
		number(&f.done)
	case "of":
		number(&f.of)
	case "name":
		text(&f.name)
	case "version":
		text(&f.version)
	case "proto":
		number(&f.proto)
	case "at_once":
		number(&f.atOnce)
	case "rows":
		f.rows = new(int64)
		number(f.rows)
	case "add":
		float(&f.add)
	case "set":
		float(&f.set)
	case "observe":
		float(&f.obs)
	case "labels":
		f.labels = v
	}
}

// outcome is what an err frame says.
func (f *frame) outcome() jobs.Outcome {
	o := jobs.Outcome{Class: f.class, Message: f.msg, Status: int(f.status), RetryAfter: time.Duration(min(max(f.afterMS, 0), maxAfterMS)) * time.Millisecond}
	switch {
	case o.Class == "":
		o.Class = "error"
	case o.Class == "rate_limited":
		o.Class = hayrick.ClassRateLimit
	}
	if f.retry != nil {
		o.Disposition = hayrick.Permanent
		if *f.retry {
			o.Disposition = again(o.Class)
		}
	}
	return o
}

const maxAfterMS = 30 * 24 * 3600 * 1000

// again is the disposition of a class that its handler wants tried again.
func again(class string) hayrick.Disposition {
	switch d := (hayrick.Retry{}).DispositionOf(class, ""); d {
	case hayrick.RateLimit, hayrick.Timeout:
		return d
	}
	return hayrick.Transient
}

// metric hands a metric frame over. Values are whole numbers: fractions are rounded.
func (f *frame) metric(h jobs.Host) {
	name := f.name
	if len(f.labels) > 2 && f.labels[0] == '{' {
		name += "{"
		members(f.labels, func(label string, v []byte) bool {
			if name[len(name)-1] != '{' {
				name += ","
			}
			if v[0] == '"' {
				name += label + "=" + unquote(v)
			} else {
				name += label + "=" + string(v)
			}
			return true
		})
		name += "}"
	}
	if name == "" || len(name) > maxMetricName {
		return
	}
	if f.add != nil {
		h.Add(name, whole(*f.add))
	}
	if f.set != nil {
		h.Set(name, whole(*f.set))
	}
	if f.obs != nil {
		h.Observe(name, whole(*f.obs))
	}
}

// maxMetricName bounds a metric's name with its labels.
const maxMetricName = 200

func whole(x float64) int64 {
	if !(math.Abs(x) < 1<<62) {
		return 0
	}
	return int64(math.Round(x))
}

// appendItem appends the frame that hands out an item.
func appendItem(b []byte, id int64, it *jobs.Item) []byte {
	b = append(b, `{"t":"item","id":`...)
	b = strconv.AppendInt(b, id, 10)
	b = append(b, `,"ordinal":`...)
	b = strconv.AppendInt(b, it.Ordinal, 10)
	b = append(b, `,"key":`...)
	b = quote(b, it.Key)
	b = append(b, `,"attempt":`...)
	b = strconv.AppendInt(b, int64(it.Try), 10)
	if it.Left > 0 {
		b = append(b, `,"left_ms":`...)
		b = strconv.AppendInt(b, it.Left.Milliseconds(), 10)
	}
	if it.Cursor != nil {
		b = append(b, `,"cursor":`...)
		b = oneLine(b, it.Cursor)
	}
	b = append(b, `,"item":`...)
	b = oneLine(b, it.Data)
	return append(b, "}\n"...)
}

// oneLine appends a JSON value without its newlines.
func oneLine(b, v []byte) []byte {
	if bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 {
		return append(b, v...)
	}
	var buf bytes.Buffer
	if json.Compact(&buf, v) != nil {
		return append(b, "null"...)
	}
	return append(b, buf.Bytes()...)
}

// message is a frame of the host that is no item.
type message struct {
	T        string          `json:"t"`
	ID       int64           `json:"id,omitempty"`
	Proto    int             `json:"proto,omitempty"`
	Run      string          `json:"run,omitempty"`
	Task     string          `json:"task,omitempty"`
	Params   json.RawMessage `json:"params,omitempty"`
	InFlight int             `json:"in_flight,omitempty"`
	Rows     string          `json:"rows,omitempty"`
	RowsFD   int             `json:"rows_fd,omitempty"`
	N        *int64          `json:"n,omitempty"`
	WaitMS   *int64          `json:"wait_ms,omitempty"`
	Error    string          `json:"error,omitempty"`
	LeftMS   *int64          `json:"left_ms,omitempty"`
}

func (m message) append(b []byte) []byte {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // params are JSON: the job file was read
	}
	return append(append(b, text...), '\n')
}
