package coordinator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// asked is a job of which sweepers ask lost again and again, and remember the answer.
type asked struct {
	k   Known
	now time.Time
	p   pending
}

func newAsked(tasks int64) *asked {
	a := &asked{now: noon, p: pending{group: hayrick.GroupInitial, tasks: tasks}}
	a.k.Definition.Run.Lease = hayrick.Duration(time.Minute)
	return a
}

// ask says how many tasks are sent again after d: -1 for none, 0 for all.
func (a *asked) ask(d time.Duration) int {
	a.now = a.now.Add(d)
	l := a.k.lost(a.p, a.now)
	a.k.Cached = &hayrick.JobState{Status: hayrick.StatusRunning, Progress: l.note}
	if !l.lost {
		return -1
	}
	return l.lot
}

// What a queue that counts each job's messages says is taken at its word.
func TestLostByACount(t *testing.T) {
	for _, c := range []struct {
		what     string
		messages int
		status   hayrick.JobStatus // that is cached; "" = none
		want     int
	}{
		{"none is left", 0, hayrick.StatusRunning, 0},
		{"none is left, and nothing is known", 0, "", 0},
		{"a task each", 10, hayrick.StatusRunning, -1},
		{"a task each, and nothing is known", 10, "", -1},
		{"a task each after a pause", 10, hayrick.StatusPaused, -1},
		{"more than tasks", 12, hayrick.StatusPaused, -1},
		{"some after a pause", 9, hayrick.StatusPaused, 0},
		{"some, and nothing is known", 9, "", 0},
		{"some, and they may be worked off", 9, hayrick.StatusRunning, -1},
	} {
		a := newAsked(10)
		a.k.Depth = hayrick.Depth{Messages: c.messages, Exact: true}
		if c.status != "" {
			a.k.Cached = &hayrick.JobState{Status: c.status}
		}
		if got := a.ask(0); got != c.want {
			t.Errorf("%s: %d are sent again, want %d", c.what, got, c.want)
		}
	}
}

// A queue that counts all jobs' messages says little; what stands still is moved.
func TestLostByStandstill(t *testing.T) {
	const minute = time.Minute
	type look struct {
		after    time.Duration
		done     int64
		messages int
		want     int
	}
	for what, looks := range map[string][]look{
		"a job that nothing is known of": {{0, 0, 7, 0}, {minute, 0, 7, -1}, {minute, 0, 7, firstLot}},
		"nothing gets done, whatever is sent: the wait doubles, to an hour": {
			{0, 0, 7, 0}, {2 * minute, 0, 7, firstLot}, {2*minute - 1, 0, 7, -1}, {1, 0, 7, firstLot}, {4*minute - 1, 0, 7, -1}, {1, 0, 7, firstLot},
			{8 * minute, 0, 7, firstLot}, {16 * minute, 0, 7, firstLot}, {32 * minute, 0, 7, firstLot}, {59 * minute, 0, 7, -1}, {minute, 0, 7, firstLot},
			{59 * minute, 0, 7, -1}, {minute, 0, 7, firstLot},
		},
		"what is sent gets done, and more is missing: the lot grows, to what a sweep can do": {
			{0, 0, 7, 0}, {2 * minute, 0, 7, firstLot}, {minute, 1024, 7, -1}, {2 * minute, 1024, 7, 4 * firstLot},
			{minute, 1024 + 4096, 7, -1}, {2 * minute, 1024 + 4096, 7, 16 * firstLot}, {minute, 20000, 7, -1}, {2 * minute, 20000, 7, maxLot},
			{minute, 80000, 7, -1}, {2 * minute, 80000, 7, maxLot},
		},
		"a wait that was too short is not tried again": {
			{0, 0, 7, 0}, {2 * minute, 0, 7, firstLot}, {2 * minute, 0, 7, firstLot}, // 4 minutes now
			{minute, 5, 7, -1}, {3 * minute, 5, 7, -1}, {minute, 5, 7, firstLot}, // 8 minutes
			{minute, 9, 7, -1}, {7 * minute, 10, 7, -1}, {7 * minute, 10, 7, -1}, {minute, 10, 7, firstLot},
		},
		"progress that is not written down is seen all the same": {
			{0, 0, 7, 0}, {10 * time.Second, 1, 7, -1}, {110 * time.Second, 2, 7, -1}, {minute, 2, 7, -1}, {minute, 2, 7, firstLot},
		},
		"an empty queue is believed when it has had time to show what was sent": {
			{0, 0, 7, 0}, {minute - 1, 0, 0, -1}, {1, 0, 0, 0}, {minute - 1, 0, 0, -1}, {1, 0, 0, 0},
		},
		"an empty queue while tasks get done": {{0, 0, 7, 0}, {minute, 1, 0, -1}, {minute, 2, 0, -1}, {minute, 2, 0, 0}},
		"a state that forgot what was done":   {{0, 9, 7, 0}, {minute, 0, 7, -1}, {2 * minute, 0, 7, firstLot}},
	} {
		a := newAsked(100_000)
		for i, l := range looks {
			a.p.done, a.k.Depth = l.done, hayrick.Depth{Messages: l.messages}
			if got := a.ask(l.after); got != l.want {
				t.Errorf("%s: look %d: %d are sent again, want %d", what, i, got, l.want)
				break
			}
		}
	}
}

// A lease that is longer than the first wait is waited for.
func TestLostWaitsForTheLease(t *testing.T) {
	a := newAsked(5)
	a.k.Definition.Run.Lease = hayrick.Duration(10 * time.Minute)
	a.k.Depth.Messages = 1
	a.ask(0)
	if got := a.ask(10*time.Minute - 1); got != -1 {
		t.Errorf("%d are sent again while the lease may hold", got)
	}
	if got := a.ask(1); got != firstLot {
		t.Errorf("%d are sent again", got)
	}
}

// Tasks that are to wait are not missed before their time.
func TestLostWaitsForTheBackoff(t *testing.T) {
	a := newAsked(5)
	a.k.Depth.Messages = 1
	a.p.notBefore = noon.Add(time.Hour)
	a.ask(0)
	for _, messages := range []int{1, 0} {
		a.k.Depth.Messages = messages
		if got := a.ask(30 * time.Minute); got != -1 {
			t.Errorf("%d are sent again", got)
		}
	}
	if got := a.ask(time.Minute); got != 0 {
		t.Errorf("%d are sent again", got)
	}
}

// A resumed job has no messages to wait for: they were done with while it was paused.
// The next group starts with a clean slate.
func TestLostAfterAPauseAndInTheNextGroup(t *testing.T) {
	a := newAsked(5)
	a.k.Depth.Messages = 7
	for range 9 {
		a.ask(time.Hour)
	}
	a.k.Cached.Status, a.k.Cached.Progress = hayrick.StatusPaused, hayrick.Progress{}
	if got := a.ask(time.Second); got != 0 {
		t.Errorf("after a pause %d are sent again", got)
	}
	if got := a.ask(time.Second); got != -1 {
		t.Errorf("after that %d are sent again", got)
	}
	for range 9 {
		a.ask(time.Hour)
	}
	a.p.group = hayrick.RetryGroup(1)
	if got := a.ask(time.Hour); got != -1 {
		t.Errorf("%d tasks of a group that was just opened are sent again", got)
	}
	if got := a.ask(2 * time.Minute); got != firstLot {
		t.Errorf("%d are sent again", got)
	}
}

// A backlog is not multiplied, whatever holds it up, and any number of messages that
// are lost come back in good time: a model of the queue, swept every minute.
func TestLostAgainstAModelOfTheQueue(t *testing.T) {
	for _, c := range []struct {
		what     string
		tasks    int64
		messages int64 // that there are; the rest is lost
		rate     int64 // tasks a minute, once they begin
		begins   time.Duration
		within   time.Duration // beside the work itself
		most     int64         // sent again
	}{
		{"nothing is lost, and tasks are quick", 1_000_000, 1_000_000, 5000, 0, time.Minute, 0},
		{"nothing is lost, and other jobs are in front for ten hours", 1_000_000, 1_000_000, 5000, 10 * time.Hour, 10*time.Hour + time.Minute, 16 * firstLot},
		{"all is lost", 1_000_000, 0, 5000, 0, time.Hour, 1_000_000 + maxLot},
		{"one is lost of a million", 1_000_000, 999_999, 5000, 0, 4 * time.Minute, firstLot},
		{"half is lost, and other jobs are in front for an hour", 1_000_000, 500_000, 5000, time.Hour, 3 * time.Hour, 500_000 + maxLot + 8*firstLot},
		{"a small job is lost", 3, 0, 5000, 0, 4 * time.Minute, 3},
	} {
		a := newAsked(c.tasks)
		a.k.Depth.Messages = 1 // some other job's
		a.k.Cached = &hayrick.JobState{Status: hayrick.StatusRunning}
		var sent int64
		work := time.Duration(c.tasks/c.rate) * time.Minute
		inQueue := c.messages
		for a.p.tasks > 0 {
			if a.now.Sub(noon) > work+c.within {
				t.Errorf("%s: %d are open after %v", c.what, a.p.tasks, a.now.Sub(noon))
				break
			}
			if lot := int64(a.ask(time.Minute)); lot > 0 {
				lot = min(lot, a.p.tasks)
				sent += lot
				inQueue = min(a.p.tasks, max(inQueue, lot)) // the first open ones; those with a message are there twice
			}
			if a.now.Sub(noon) > c.begins {
				n := min(c.rate, inQueue)
				inQueue -= n
				a.p.done += n
				a.p.tasks -= n
			}
		}
		t.Logf("%s: %v beside the work of %v, %d sent again", c.what, a.now.Sub(noon)-work, work, sent)
		if sent > c.most {
			t.Errorf("%s: %d tasks are sent again, at most %d", c.what, sent, c.most)
		}
	}
}

// A repair marks all that has ended, and sends a lot of what nobody is at.
func TestDecideMissing(t *testing.T) {
	var ms []Missing
	for i := range 9 {
		m := Missing{Position: i, TaskID: manifest.TaskID(int64(i)), Held: i%3 == 1}
		if i%3 == 2 {
			m.Result = &manifest.Result{}
		}
		ms = append(ms, m)
	}
	for lot, want := range map[int]string{0: "2 5 8 /", 2: "2 5 8 / 0 3", 100: "2 5 8 / 0 3 6"} {
		var got strings.Builder
		r := DecideMissing(ms, lot)
		for _, m := range r.Marks {
			fmt.Fprint(&got, m.Position, " ")
		}
		fmt.Fprint(&got, "/")
		for _, m := range r.Send {
			fmt.Fprint(&got, " ", m.Position)
		}
		if got.String() != want {
			t.Errorf("lot %d: marks and sends %q, want %q", lot, got.String(), want)
		}
	}
}
