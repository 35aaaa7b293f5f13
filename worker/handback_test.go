package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/mem"
	"hayrick/worker"
)

// longRig is a task of ten items of which an attempt manages three before its time
// is over, the fourth then being in hand.
func longRig(t *testing.T, seen *calls) *rig {
	var r *rig
	r = newRig(t, words(10), 10, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		seen.add(it.Ordinal)
		it.Host.Log(fmt.Sprintf("item %d, call %d", it.Ordinal, seen.of(it.Ordinal)))
		if it.Ordinal%3 == 0 && it.Ordinal > 0 && seen.of(it.Ordinal) == 1 {
			r.clock.fire(taskTimeout)
			<-ctx.Done()
			return jobs.Fail("stopped", "%v", ctx.Err())
		}
		return echo(ctx, it, emit)
	}, nil)
	return r
}

// checkpoints are the names of a task's checkpoints: items done.
func (r *rig) checkpoints(n int64) (out []string) {
	for _, name := range r.objects(n) {
		if rest, ok := strings.CutPrefix(name, "checkpoint/"); ok {
			done, _, _ := strings.Cut(rest, "-")
			out = append(out, strings.TrimLeft(done, "0"))
		}
	}
	slices.Sort(out)
	return out
}

// logTexts are the lines of the log of a task, as item.call.
func (r *rig) logTexts(n int64) string {
	var out []string
	for _, l := range r.logLines(n) {
		out = append(out, strings.ReplaceAll(strings.TrimPrefix(l.Text, "item "), ", call ", "."))
	}
	return strings.Join(out, " ")
}

// A task that is longer than task_timeout is finished by several attempts, on one
// machine or on a new one each time, with each item that ended run once.
func TestLongTaskIsHandedBackUntilItIsDone(t *testing.T) {
	machines := map[string]func(t *testing.T) func() worker.Journals{
		"one machine": func(t *testing.T) func() worker.Journals {
			js := worker.FileJournals{Dir: t.TempDir(), BootID: "boot-1"}
			return func() worker.Journals { return js }
		},
		"another machine each time": func(t *testing.T) func() worker.Journals {
			n := 0
			return func() worker.Journals {
				n++
				return worker.FileJournals{Dir: t.TempDir(), BootID: fmt.Sprintf("boot-%d", n)}
			}
		},
		"in memory, wiped each time": func(t *testing.T) func() worker.Journals {
			js := &worker.MemJournals{}
			return func() worker.Journals { js.Wipe(); return js }
		},
	}
	for name, machine := range machines {
		t.Run(name, func(t *testing.T) {
			var seen calls
			r := longRig(t, &seen)
			journals := machine(t)
			attempts, triggers := r.drain(func() *worker.Worker {
				w := r.worker("w")
				w.Journals = journals()
				return w
			})
			if attempts != 4 || triggers != 1 {
				t.Errorf("%d attempts, %d triggers", attempts, triggers)
			}
			for i := range int64(10) {
				want := 1
				if i%3 == 0 && i > 0 {
					want = 2 // it was in hand once: that is no try
				}
				if seen.of(i) != want {
					t.Errorf("item %d was run %d times, want %d", i, seen.of(i), want)
				}
			}
			if got := r.column(0, "n"); got != "0 1 2 3 4 5 6 7 8 9" {
				t.Errorf("rows: %s", got)
			}
			res := r.result(0)
			if res.OK != 10 || res.Fence != 4 || res.Task.Retries != 3 {
				t.Errorf("%+v", res)
			}
			if got, want := r.logTexts(0), "0.1 1.1 2.1 3.1 3.2 4.1 5.1 6.1 6.2 7.1 8.1 9.1 9.2"; got != want {
				t.Errorf("the log of all attempts: %s, want %s", got, want)
			}
			if got := strings.Join(r.checkpoints(0), " "); got != "3 6 9" {
				t.Errorf("checkpoints: %s", got)
			}
			if c := r.claim(0); c.Vanished != 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// When a whole attempt went by without an end, what the handler had in hand is
// charged a time-out, until its tries are used up; nothing else is. Also when no
// attempt sees the disk of the one before.
func TestAttemptWithoutProgressChargesATimeout(t *testing.T) {
	for _, wipe := range []bool{false, true} {
		t.Run(fmt.Sprintf("wiped %t", wipe), func(t *testing.T) {
			var r *rig
			var seen calls
			r = newRig(t, words(3), 3, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
				seen.add(it.Ordinal)
				if it.Ordinal == 0 {
					r.clock.fire(taskTimeout)
					<-ctx.Done()
					return jobs.Fail("stopped", "%v", ctx.Err())
				}
				return echo(ctx, it, emit)
			}, nil)
			js := &worker.MemJournals{}
			r.journals.Journals = js
			attempts, _ := r.drain(func() *worker.Worker {
				if wipe {
					js.Wipe()
				}
				return r.worker("w")
			})
			// Three attempts charge; the third one's charge is the last try, and hands the rest
			// to the fourth.
			if attempts != 4 || seen.of(0) != 3 || seen.of(1) != 1 || seen.of(2) != 1 {
				t.Errorf("%d attempts, calls %v", attempts, seen.n)
			}
			if got := r.gist(0); got != "0:timeout/3" {
				t.Errorf("failed: %s", got)
			}
			if got := r.column(0, "n"); got != "1 2" {
				t.Errorf("rows: %s", got)
			}
		})
	}
}

// An item that only waited for a token has not been tried: it is not charged.
func TestWaitingForATokenIsNoTry(t *testing.T) {
	r := newRig(t, words(2), 2, echo, func(d *hayrick.JobDefinition) {
		d.Rates = []hayrick.Rate{{Name: "all", Limit: tenASecond, Auto: true}}
	})
	waiting := make(chan struct{})
	closed := true
	r.limiter.take = func(ctx context.Context, _, _ string, _ int) error {
		if !closed {
			return nil
		}
		close(waiting)
		<-ctx.Done()
		return ctx.Err()
	}
	go func() {
		<-waiting
		r.clock.fire(taskTimeout)
	}()
	if v := r.attempt(r.worker("w"), 0); v.Because != "handed back" {
		t.Fatalf("%+v", v)
	}
	closed = false
	r.attempt(r.worker("w"), 0)
	if res := r.result(0); res.OK != 2 {
		t.Errorf("%+v: %s", res, r.gist(0))
	}
	if got := r.checkpoints(0); len(got) != 0 {
		t.Errorf("nothing had ended, and yet there are checkpoints %v", got)
	}
}

// A drain lets the tries in hand finish, ends what only waits (for a token, for the
// next try), begins nothing, and hands back what it has come to.
func TestDrain(t *testing.T) {
	drain, inHand, waiting, seen := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	var ran []string
	var mu sync.Mutex
	r := newRig(t, words(6), 6, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		mu.Lock()
		ran = append(ran, fmt.Sprintf("%d/%d", it.Ordinal, it.Try))
		mu.Unlock()
		first := it.Try == 1 && it.Ordinal < 2
		switch {
		case first && it.Ordinal == 0:
			<-inHand
			<-waiting
			close(drain)
			<-seen
		case first:
			close(inHand)
			<-seen
			return jobs.Fail("busy", "once")
		}
		return echo(ctx, it, emit)
	}, func(d *hayrick.JobDefinition) {
		d.Run.ItemsInFlight = 3
		d.Rates = []hayrick.Rate{{Name: "each", Key: "$(item.word)", Limit: tenASecond, Auto: true}}
	})
	js := &worker.MemJournals{}
	r.journals.Journals = js
	r.limiter.take = func(ctx context.Context, _, key string, _ int) error {
		if key != "w2" {
			return ctx.Err()
		}
		close(waiting)
		<-ctx.Done() // until the drain
		close(seen)
		return ctx.Err()
	}
	w := r.worker("w1")
	w.Drain = drain
	if v := r.attempt(w, 0); v.Because != "handed back" {
		t.Fatalf("%+v", v)
	}
	slices.Sort(ran)
	if got := strings.Join(ran, " "); got != "0/1 1/1" {
		t.Errorf("before: %s", got)
	}
	if got := strings.Join(r.checkpoints(0), " "); got != "1" {
		t.Errorf("checkpoints: %s", got)
	}
	r.limiter.take, ran = nil, nil
	js.Wipe()                                                // another machine
	r.drain(func() *worker.Worker { return r.worker("w2") }) // the first message and the one that was handed back
	slices.Sort(ran)
	if got := strings.Join(ran, " "); got != "1/2 2/1 3/1 4/1 5/1" {
		t.Errorf("after: %s", got)
	}
	if got := r.column(0, "n"); got != "0 1 2 3 4 5" {
		t.Errorf("rows: %s", got)
	}
}

// A process that is told to end at once does what a drain does, tries in hand
// included.
func TestCancelledAttemptHandsBack(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var seen calls
	r := newRig(t, words(4), 4, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		if seen.add(it.Ordinal) == 1 && it.Ordinal == 2 {
			cancel()
			<-ctx.Done()
			return jobs.Fail("stopped", "%v", ctx.Err())
		}
		return echo(ctx, it, emit)
	}, nil)
	v, err := r.worker("w1").Attempt(ctx, hayrick.Delivery{Message: r.message(0), Count: 1})
	if v.Because != "handed back" || err != nil {
		t.Fatalf("%+v, %v", v, err)
	}
	r.journals.Journals.(*worker.MemJournals).Wipe()
	r.attempt(r.worker("w2"), 0)
	if seen.of(0) != 1 || seen.of(1) != 1 || seen.of(2) != 2 || r.column(0, "n") != "0 1 2 3" {
		t.Errorf("calls %v, rows %s", seen.n, r.column(0, "n"))
	}
}

// entriesUpTo are the ended entries of the first n items, as echo ends them.
func (r *rig) entriesUpTo(n int) (es []worker.Entry) {
	r.t.Helper()
	for i := range n {
		body, err := rows.AppendRow(nil, jobs.Row{{Name: "n", Value: int64(i)}, {Name: "key", Value: fmt.Sprintf("w%d", i)}})
		r.must(err)
		es = append(es, worker.Entry{Ordinal: int64(i), Ended: true, OK: true, Tries: 1, RowCount: 1, Rows: body})
	}
	return es
}

// checkpoint stores a checkpoint of entries as another machine would, and returns
// its key.
func (r *rig) checkpoint(done int, attempt string, fp worker.Fingerprint, es []worker.Entry) string {
	r.t.Helper()
	var js worker.MemJournals
	j, err := js.Create(r.t.Context(), r.ref(0), attempt, fp)
	r.must(err)
	for _, e := range es {
		r.must(j.Record(r.t.Context(), e))
	}
	snap, err := j.Snapshot(r.t.Context())
	r.must(err)
	body, err := io.ReadAll(snap)
	r.must(err)
	key := manifest.Job(jobID).Checkpoint("task-0000", done, attempt, manifest.SHA256(body))
	r.must(r.store.PutData(r.t.Context(), key, body))
	return key
}

// The checkpoint that is furthest is gone on with; one that is damaged, of other
// work, or behind the journal at hand is passed over. Two are never merged.
func TestWhichCheckpointIsGoneOnWith(t *testing.T) {
	for name, c := range map[string]struct {
		stored func(r *rig, fp worker.Fingerprint)
		local  int // items in the journal at hand; 0 = there is none
		ran    string
	}{
		"none": {func(*rig, worker.Fingerprint) {}, 0, "0 1 2 3 4 5"},
		"the furthest": {func(r *rig, fp worker.Fingerprint) {
			r.checkpoint(2, attemptB, fp, r.entriesUpTo(2))
			r.checkpoint(4, attemptA, fp, r.entriesUpTo(4))
			r.checkpoint(3, attemptB, fp, r.entriesUpTo(3))
		}, 0, "4 5"},
		"never two": {func(r *rig, fp worker.Fingerprint) {
			r.checkpoint(2, attemptB, fp, r.entriesUpTo(6)[4:])
			r.checkpoint(3, attemptA, fp, r.entriesUpTo(3))
		}, 0, "3 4 5"},
		"the furthest is damaged": {func(r *rig, fp worker.Fingerprint) {
			key := r.checkpoint(5, attemptA, fp, r.entriesUpTo(5))
			body, err := r.store.Raw(r.t.Context(), key)
			r.must(err)
			r.mem.Damage(key, body[:len(body)-1])
			r.checkpoint(2, attemptB, fp, r.entriesUpTo(2))
		}, 0, "2 3 4 5"},
		"its rows are damaged, under a digest of their own": {func(r *rig, fp worker.Fingerprint) {
			es := r.entriesUpTo(5)
			es[3].Rows = es[3].Rows[1:]
			r.checkpoint(5, attemptA, fp, es)
			r.checkpoint(2, attemptB, fp, r.entriesUpTo(2))
		}, 0, "2 3 4 5"},
		"it counts rows that it has not": {func(r *rig, fp worker.Fingerprint) {
			es := r.entriesUpTo(5)
			es[3].Rows = nil
			r.checkpoint(5, attemptA, fp, es)
		}, 0, "0 1 2 3 4 5"},
		"it has an item that is not of the batch": {func(r *rig, fp worker.Fingerprint) {
			r.checkpoint(7, attemptA, fp, r.entriesUpTo(7))
		}, 0, "0 1 2 3 4 5"},
		"it is of other work": {func(r *rig, fp worker.Fingerprint) {
			fp.DefinitionSHA256 = "x"
			r.checkpoint(5, attemptA, fp, r.entriesUpTo(5))
		}, 0, "0 1 2 3 4 5"},
		"the journal at hand is further": {func(r *rig, fp worker.Fingerprint) {
			r.checkpoint(2, attemptA, fp, r.entriesUpTo(2))
		}, 3, "3 4 5"},
		"the journal at hand is behind": {func(r *rig, fp worker.Fingerprint) {
			r.checkpoint(4, attemptA, fp, r.entriesUpTo(4))
		}, 3, "4 5"},
		"behind, but the checkpoint is damaged": {func(r *rig, fp worker.Fingerprint) {
			r.mem.Damage(r.checkpoint(4, attemptA, fp, r.entriesUpTo(4)), []byte("garbage"))
		}, 3, "3 4 5"},
		"not a checkpoint at all": {func(r *rig, fp worker.Fingerprint) {
			r.must(r.store.PutData(r.t.Context(), manifest.Job(jobID).Checkpoints("task-0000")+"notes", []byte("x")))
		}, 0, "0 1 2 3 4 5"},
	} {
		t.Run(name, func(t *testing.T) {
			var ran []string
			r := newRig(t, words(6), 6, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
				ran = append(ran, it.Key[1:])
				return echo(ctx, it, emit)
			}, nil)
			fp := r.fingerprint(0)
			c.stored(r, fp)
			if c.local > 0 {
				j, err := r.journals.Create(t.Context(), r.ref(0), attemptB, fp)
				r.must(err)
				for _, e := range r.entriesUpTo(c.local) {
					r.must(j.Record(t.Context(), e))
				}
				r.must(j.Close(false))
			}
			r.vanish(0) // the attempt that left it all
			if v := r.attempt(r.worker("w"), 0); v.Because != "done" {
				t.Fatalf("%+v", v)
			}
			if got := strings.Join(ran, " "); got != c.ran {
				t.Errorf("ran %s, want %s", got, c.ran)
			}
			if got := r.column(0, "key"); got != "w0 w1 w2 w3 w4 w5" {
				t.Errorf("rows: %s", got)
			}
			gone(t, journalsOf{r}, fp)
		})
	}
}

// Of two checkpoints that are as far the later one knows of more tries.
func TestLaterCheckpointKnowsOfMoreTries(t *testing.T) {
	for _, attempts := range [][]string{{attemptA, attemptB}, {attemptB, attemptA}} { // whatever their names
		var tries []int
		r := newRig(t, words(1), 1, func(_ context.Context, it jobs.Item, _ jobs.Emit) jobs.Outcome {
			tries = append(tries, it.Try)
			return jobs.Fail("busy", "still")
		}, nil)
		for i, attempt := range attempts {
			r.clock.pass(time.Minute)
			r.checkpoint(0, attempt, r.fingerprint(0), []worker.Entry{{Ordinal: 0, Tries: i + 1}})
		}
		r.vanish(0)
		r.attempt(r.worker("w"), 0)
		if fmt.Sprint(tries) != "[3]" || r.gist(0) != "0:busy/3" {
			t.Errorf("stored %v: tries %v, failed %s", attempts, tries, r.gist(0))
		}
	}
}

// journalsOf opens the journals of task-0000, whatever is asked for.
type journalsOf struct{ *rig }

func (j journalsOf) Open(ctx context.Context, _ hayrick.TaskRef, fp worker.Fingerprint) (worker.Journal, error) {
	return j.journals.Open(ctx, j.ref(0), fp)
}

// A journal that is damaged while it is in use costs the work of it, and nothing
// else.
func TestJournalDamagedInUse(t *testing.T) {
	var seen calls
	var r *rig
	damage := true
	r = newRig(t, words(4), 4, func(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
		seen.add(it.Ordinal)
		r.clock.pass(time.Second)
		if it.Ordinal == 3 && damage {
			damage = false
			r.journals.Journals.(*brokenJournals).broken = true
		}
		return echo(ctx, it, emit)
	}, nil)
	r.journals.Journals = &brokenJournals{Journals: r.journals.Journals}
	w := r.worker("w")
	v, err := w.Attempt(t.Context(), hayrick.Delivery{Message: r.message(0), Count: 1})
	if v.Ack || err == nil || errors.Is(err, hayrick.ErrCorrupt) { // a fact that broke would end the process
		t.Fatalf("%+v, %v", v, err)
	}
	r.journals.Journals.(*brokenJournals).broken = false
	r.attempt(w, 0)
	if seen.of(0) != 2 || r.column(0, "n") != "0 1 2 3" {
		t.Errorf("calls %v, rows %s", seen.n, r.column(0, "n"))
	}
	if c := r.claim(0); c.Vanished != 0 {
		t.Errorf("%+v", c)
	}
}

// brokenJournals makes journals that cannot be read while broken.
type brokenJournals struct {
	worker.Journals
	broken bool
}

func (b *brokenJournals) Create(ctx context.Context, ref hayrick.TaskRef, attempt string, fp worker.Fingerprint) (worker.Journal, error) {
	j, err := b.Journals.Create(ctx, ref, attempt, fp)
	return brokenJournal{j, b}, err
}

type brokenJournal struct {
	worker.Journal
	of *brokenJournals
}

func (j brokenJournal) Each(ctx context.Context, fn func(worker.Entry) error) error {
	if j.of.broken {
		return fmt.Errorf("read the journal: page 7: %w", hayrick.ErrCorrupt)
	}
	return j.Journal.Each(ctx, fn)
}

// The message that is handed back is sent before the old one is acknowledged; when
// it cannot be sent, the old one stays.
func TestHandBackThatCannotBeSent(t *testing.T) {
	var seen calls
	r := longRig(t, &seen)
	r.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "Send" {
			return mem.Fault{ErrBefore: errBroken}
		}
		return mem.Fault{}
	}
	v, err := r.worker("w").Attempt(t.Context(), hayrick.Delivery{Message: r.message(0), Count: 1})
	if v.Ack || v.Again <= 0 || !errors.Is(err, errBroken) {
		t.Errorf("%+v, %v", v, err)
	}
	if c := r.claim(0); !c.Until.IsZero() {
		t.Errorf("the claim is kept: %+v", c)
	}
}
