package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"hayrick"
	"hayrick/jobs"
)

// The bounds of section 5 of the design.
const (
	// SoloAfter: after so many vanished attempts a task runs one item at a time.
	SoloAfter = 2
	// MaxIdle: after so many vanished attempts without an item known to be handed out
	// the batch as a whole is FAILED.
	MaxIdle = 5
	// MaxLost: an item that so many workers vanished with is not run again in its task.
	MaxLost = 5
	// MaxCrashes: a handler that died so often with the item in hand makes it poison.
	MaxCrashes = 2
)

// MaxStalls: a task that so many attempts in a row could do nothing of, because taking
// over what was done took their time, is closed.
const MaxStalls = 3

// Closes says that an attempt runs no items: it commits what is done, and leaves the
// others to the retry planner, whose tasks begin with nothing to take over. Where there
// is time without end it goes on with them itself.
func Closes(stalls int, endless bool) (closes bool, because string) {
	if endless || stalls < MaxStalls {
		return false, ""
	}
	return true, fmt.Sprintf("%d attempts had no time for it after taking over what was done; fewer batch.items, or a longer TimeoutSeconds of the stack, leave more", stalls)
}

// Mode is how an attempt runs its items.
type Mode string

// The modes.
const (
	ModeNormal Mode = "normal" // items_in_flight at once
	ModeSolo   Mode = "solo"   // one at a time, each loss on record
	ModeFail   Mode = "fail"   // not at all: the batch is FAILED
)

// ModeOf decides how an attempt runs from the claim it got.
func ModeOf(c hayrick.Claim) (mode Mode, because string) {
	switch {
	case c.Idle >= MaxIdle:
		return ModeFail, fmt.Sprintf("%d attempts vanished before an item was handed out", c.Idle)
	case c.Vanished >= SoloAfter:
		return ModeSolo, fmt.Sprintf("%d attempts vanished", c.Vanished)
	}
	return ModeNormal, ""
}

// Refused says, by what is cached of a job, that a message of a generation is done with
// before anything is looked at. No record is no news: the sweeper rebuilds it.
func Refused(st *hayrick.JobState, generation int) (because string, refused bool) {
	switch {
	case st == nil || st.Generation < generation:
		return "", false
	case st.Generation > generation || st.Status.Terminal(): // and what it was to work with may be gone
		return "the generation has ended", true
	case st.Status == hayrick.StatusPaused:
		// Put back, it would be delivered again and again until somebody resumes the job,
		// and be a dead letter then. A resume sends every open task again.
		return "the job is paused", true
	}
	return "", false
}

// heldBy decides about the message of a task that another attempt has.
func heldBy(d hayrick.Delivery, by hayrick.Claim, now time.Time) Verdict {
	wait, done := d.WhenHeld(by.Until.Sub(now))
	switch {
	case done && d.Count <= 1:
		return ack("held by " + by.Worker + ", which has a message of its own")
	case done:
		return ack("held by " + by.Worker + " for long")
	}
	return again(wait, "held by %s", by.Worker)
}

// Try is one ended try of an item, as NextTry judges it.
type Try struct {
	Outcome jobs.Outcome
	InTask  int // tries of the item in this task, this one included
	Crashes int // of its handler in this task, this one included if it crashed
	Crashed bool
}

// Next is what follows a failed try.
type Next struct {
	Again   bool          // within this task
	Wait    time.Duration // before it
	Failure hayrick.Failure
	Because string
}

// NextTry decides whether an item is tried again within its task. jitter is
// uniform in [0, 1). Backoff is exponential with full jitter and never shorter than
// the upstream's Retry-After; a Retry-After beyond in_task.max is left to the retry
// planner, whose groups can wait longer.
func NextTry(p hayrick.Retry, t Try, jitter float64) Next {
	class, message := t.Outcome.Class, t.Outcome.Message
	if !hayrick.ValidClass(class) {
		if class != "" {
			message = fmt.Sprintf("%s (the handler's class %q is none: 1 to 40 of a-z, 0-9 and _)", message, shortClass(class))
		}
		class = "other"
	}
	if t.Crashed {
		class = hayrick.ClassCrash
		if t.Crashes >= MaxCrashes {
			class = hayrick.ClassPoison
		}
	}
	d := p.DispositionOf(class, t.Outcome.Disposition)
	if !t.Crashed { // the host's word on a crash stands
		class, d = p.Judge(hayrick.Said{Class: class, Disposition: t.Outcome.Disposition, Status: t.Outcome.Status, Message: t.Outcome.Message})
	}
	n := Next{Failure: hayrick.Failure{Class: class, Disposition: d, Message: oneLine(message)}}
	switch {
	case d.Final():
		n.Because = string(d)
	case t.InTask >= p.InTask.Attempts:
		n.Because = "in_task.attempts used up"
	case t.Outcome.RetryAfter > p.InTask.Max.D():
		n.Because = "Retry-After beyond in_task.max"
	default:
		n.Again, n.Because = true, string(d)
		n.Wait = max(time.Duration(jitter*float64(backoff(p.InTask, t.InTask))), t.Outcome.RetryAfter)
	}
	return n
}

// shortClass is what can be told of a class that is none.
func shortClass(class string) string {
	const most = 60
	if len(class) > most {
		return strings.ToValidUTF8(class[:most], "") + "..."
	}
	return class
}

// backoff is initial * 2^(tries-1), at most max.
func backoff(p hayrick.InTask, tries int) time.Duration {
	d := p.Initial.D()
	for i := 1; i < tries && d < p.Max.D(); i++ {
		d *= 2
	}
	return min(d, p.Max.D())
}

// What an attempt keeps of the time lent to it (Worker.Left) for its hand-back.
const (
	// A handler that does not heed its end is given up after handlerGrace; releasing the
	// claim and sending the message take their time too.
	handBackTime = handlerGrace + 5*time.Second
	// A checkpoint is vacuumed, hashed and stored at so many bytes a second at least.
	checkpointRate = 16 << 20
	// What is in hand may take so long to end before it is stopped.
	softTime = 30 * time.Second
)

// HandBack says how long before the end of the time lent to it an attempt hands out
// nothing more (soft), and stops what is in hand (hard). What a checkpoint has to
// carry asks for more; of a short time less is kept, so that there is one to work in.
func HandBack(lent time.Duration, unsaved int64) (soft, hard time.Duration) {
	carry := time.Duration(float64(unsaved) / checkpointRate * float64(time.Second))
	hard = min(min(handBackTime, lent/4)+carry, lent/2)
	return hard + min(softTime, lent/20), hard
}

// What an attempt that only waits for rate tokens does in a process that is paid by the
// time, such as a function's.
const (
	// maxPatience is how long it waits for a token before it takes the waiting for long.
	maxPatience = time.Minute
	// Between two attempts of a task that only waited lies so much: the most is what SQS
	// delays a message by, the least bounds what a closed key costs to one short invocation
	// a task and half minute.
	minAway = 30 * time.Second
	maxAway = 15 * time.Minute
)

// Patience is how long an attempt waits, nothing in hand, before it gives its time back:
// a part of the time it has, and longer than two tokens of its slowest rate lie apart.
// For whoever gets a token stays so long for the next: however many leave, one waits for
// it, and none is lost.
func Patience(lent, every time.Duration) time.Duration {
	return max(min(maxPatience, lent/4), 2*every)
}

// Away says for how long a task stays away of which an attempt only waited: until the
// first key opens that it knows to be closed, or, where the tokens go to others, for a
// minute. Those that left together come back at different times, by jitter in [0, 1).
func Away(opens time.Duration, jitter float64) time.Duration {
	if opens <= 0 {
		opens = maxPatience
	}
	away := min(max(opens, minAway), maxAway)
	return min(away+time.Duration(jitter*float64(max(minAway, away/8))), maxAway)
}

// MaxMessage bounds the message of a failure, in bytes.
const MaxMessage = 500

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > MaxMessage {
		s = strings.ToValidUTF8(s[:MaxMessage], "") + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

// clipDetail bounds what a failure keeps of its handler's stderr: the last of it.
func clipDetail(s string) string {
	if over := len(s) - jobs.MaxDetail; over > 0 {
		s = s[over:]
	}
	return strings.ToValidUTF8(s, "?")
}

// Fields is a record's top level, decoded once per item.
type Fields map[string]json.RawMessage

// ParseFields decodes a record for its key and its rate keys; ok is false when it is
// not one JSON object.
func ParseFields(data []byte) (f Fields, ok bool) {
	if json.Unmarshal(data, &f) != nil || f == nil {
		return nil, false
	}
	return f, true
}

// isObject says whether a record is one JSON object, for less than its fields cost.
func isObject(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) && json.Valid(data)
}

// Text is a field as a label: the string itself, or the JSON of a number or
// boolean. Anything else, "" included, is no label.
func (f Fields) Text(name string) (string, bool) {
	raw, ok := f[name]
	if !ok || len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return "", false
		}
		return s, s != ""
	case '{', '[', 'n':
		return "", false
	}
	return string(raw), true
}

// RateKey resolves a rate's key template for an item: "" is the one bucket of the
// rate, $(item.x) its field x.
func RateKey(tmpl string, f Fields) (key string, err error) {
	if tmpl == "" {
		return "", nil
	}
	name, ok := strings.CutPrefix(tmpl, "$(item.")
	if ok {
		name, ok = strings.CutSuffix(name, ")")
	}
	if !ok {
		return tmpl, nil
	}
	v, ok := f.Text(name)
	if !ok {
		return "", fmt.Errorf("the item has no field %q to take a rate token by", name)
	}
	return v, nil
}
