package sim

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hayrick"
	"hayrick/mem"
)

// Kind is a kind of fault.
type Kind struct {
	Name string
	// Of says whether a call can meet it; nil = every call can.
	Of func(mem.Call) bool
	// Do is what goes wrong with the call, done to the world where it is more than that.
	Do func(f *Fleet, c mem.Call) mem.Fault
}

// errThrottled is a 503 that names a wait.
var errThrottled = fmt.Errorf("503 slow down, Retry-After: 5: %w", hayrick.ErrThrottled)

// Kinds are the faults that any call may meet, in a fixed order.
var Kinds = []Kind{
	{Name: "error", Do: is(mem.Fault{ErrBefore: errors.New("500 internal error")})},
	{Name: "throttled", Do: is(mem.Fault{ErrBefore: errThrottled})},
	{Name: "conflict", Of: changes, Do: is(mem.Fault{ErrBefore: fmt.Errorf("409 conflicting operation: %w", hayrick.ErrUnknown)})},
	{Name: "lost-reply", Of: changes, Do: is(mem.Fault{ErrAfter: errors.New("connection reset")})},
	{Name: "twice", Of: changes, Do: is(mem.Fault{Duplicate: true})}, // the own success is answered as exists
	{Name: "crash-before", Do: is(mem.Fault{CrashBefore: true})},
	{Name: "crash-after", Of: changes, Do: is(mem.Fault{CrashAfter: true})},
	{Name: "stall-before", Do: is(mem.Fault{StallBefore: Stall})},
	{Name: "stall-after", Do: is(mem.Fault{StallAfter: Stall})},
	{Name: "freeze", Do: func(f *Fleet, c mem.Call) mem.Fault {
		if p := f.Proc(c.Actor); p != nil {
			p.Freeze(20 * time.Minute)
		}
		return mem.Fault{StallAfter: time.Millisecond}
	}},
	{Name: "clock-ahead", Do: skew(time.Hour)},
	{Name: "clock-back", Do: skew(-time.Hour)},
	{Name: "message-lost", Of: sends, Do: is(mem.Fault{Drop: true})},
	{Name: "message-late", Of: sends, Do: func(f *Fleet, c mem.Call) mem.Fault { f.late = true; return mem.Fault{} }},
	{Name: "queue-deleted", Do: func(f *Fleet, c mem.Call) mem.Fault { f.Store.WipeQueue(); return mem.Fault{} }},
	{Name: "state-deleted", Do: func(f *Fleet, c mem.Call) mem.Fault { f.Store.WipeState(); return mem.Fault{} }},
	{Name: "stale-list", Of: lists, Do: is(mem.Fault{Stale: time.Hour})},
	{Name: "power-cut", Do: func(f *Fleet, c mem.Call) mem.Fault { // the machine does not come back, and with it its journals
		f.Cut()
		f.Journals.Wipe()
		return mem.Fault{ErrBefore: errPower}
	}},
	{Name: "torn", Do: func(f *Fleet, c mem.Call) mem.Fault { // it does
		f.Cut()
		f.Journals.Tear()
		return mem.Fault{ErrBefore: errPower}
	}},
}

func is(x mem.Fault) func(*Fleet, mem.Call) mem.Fault {
	return func(*Fleet, mem.Call) mem.Fault { return x }
}

var errPower = errors.New("the power is gone")

// changes says that a call leaves something behind. To one that only looks, a reply that is
// lost is an error, and a crash after it one before the next.
func changes(c mem.Call) bool {
	switch c.Op {
	case "Open", "OpenAt", "ReadAt", "List", "Jobs", "Stat", "ListSources", "OpenSource", "OpenInput", "ListOutput", "OpenOutput",
		"JobState", "ReadClaim", "Blocks", "Depth":
		return false
	}
	return true
}

// Meets says whether a call can meet the fault.
func (k Kind) Meets(c mem.Call) bool { return k.Of == nil || k.Of(c) }

func lists(c mem.Call) bool { return c.Op == "List" || c.Op == "ListOutput" }

func sends(c mem.Call) bool { return c.Op == "Send" }

func skew(by time.Duration) func(*Fleet, mem.Call) mem.Fault {
	return func(f *Fleet, c mem.Call) mem.Fault {
		if p := f.Proc(c.Actor); p != nil {
			p.Skew(by)
		}
		return mem.Fault{}
	}
}

// KindOf finds a kind by its name.
func KindOf(name string) (Kind, bool) {
	for _, k := range Kinds {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}

// Strike is a fault of the n-th call that reaches the store, from 1.
type Strike struct {
	N    int
	Kind string
}

func (s Strike) String() string { return fmt.Sprintf("%d:%s", s.N, s.Kind) }

// Schedule is what goes wrong in a run. Its text is "N:kind,N:kind".
type Schedule []Strike

func (s Schedule) String() string {
	var parts []string
	for _, x := range s {
		parts = append(parts, x.String())
	}
	return strings.Join(parts, ",")
}

// ParseSchedule reads the text of a schedule.
func ParseSchedule(text string) (Schedule, error) {
	var s Schedule
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		n, kind, _ := strings.Cut(part, ":")
		at, err := strconv.Atoi(n)
		if _, ok := KindOf(kind); err != nil || at < 1 || !ok {
			return nil, fmt.Errorf("%q is no fault: write <call>:<kind>, with a kind of %s", part, strings.Join(KindNames(), ", "))
		}
		s = append(s, Strike{at, kind})
	}
	return s, nil
}

// KindNames are the names of all kinds.
func KindNames() []string {
	var names []string
	for _, k := range Kinds {
		names = append(names, k.Name)
	}
	return names
}

// fault is what a schedule has for a call.
func (s Schedule) fault(f *Fleet, at Event) mem.Fault {
	for _, x := range s {
		if x.N != at.N {
			continue
		}
		if k, ok := KindOf(x.Kind); ok && k.Meets(at.Call) {
			f.struck++
			return k.Do(f, at.Call)
		}
	}
	return mem.Fault{}
}
