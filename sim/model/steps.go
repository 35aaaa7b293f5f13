package model

import (
	"fmt"

	"hayrick"
	"hayrick/worker"
)

// Kind is what a step is.
type Kind uint8

// The kinds of steps. Those up to Acked are calls that others can see, and so are in the
// traces of the simulator; those after it happen inside of a process, or go wrong.
const (
	Received Kind = iota
	Claimed
	WasHeld
	Committed
	Marked
	Woke
	GaveBack // a message of its own for what it hands back
	SentMissing
	SentNext
	Closed
	Pinned
	SentMerges
	Ended
	Published
	Cached
	Viewed
	Repaired
	Triggered
	Acked
	Ordered

	Refused
	Looked
	Ran
	Surveyed
	Levelled
	Swept
	Scanned
	LeaseEnded
	NotWoken
	Shows

	Crashed
	Erred
	LeaseLost
	Lost
	Doubled
	Wiped
	Purged
	Strayed
)

var kindNames = [...]string{
	"receives the message of", "claims", "finds the claim held of", "commits the result of", "marks", "wakes who closes the group of", "sends a new message of",
	"sends what is missing of", "sends what follows", "commits the plan that closes", "commits the merge plan", "sends the merges", "commits the outcome", "publishes",
	"caches the state of the job", "writes the view of the job", "repairs", "sends a trigger for", "acknowledges", "a person orders",
	"looks at the state of the job for", "looks for the result of", "runs", "reads the results of", "reads the results of the merges", "looks at the job", "looks at the tasks of",
	"the lease of who is gone ends on", "cannot wake who closes the group of", "the message becomes visible to others, of",
	"its process dies, at", "a call fails, at", "the lease of who is alive ends on", "a message is lost, of", "a message is doubled, of", "the state store is deleted", "the queue is deleted",
	"a trigger comes that nobody has sent, of group",
}

// Step is one step of somebody.
type Step struct {
	Kind Kind
	Act  int8  // -1: nobody of the acts
	On   uint8 // task, or group
	Arg  uint8
}

func (s Step) String() string {
	who, on := "", fmt.Sprintf(" task %d", s.On)
	if s.Act >= 0 {
		who = fmt.Sprintf("act %d ", s.Act)
	}
	switch s.Kind {
	case Received:
		if s.Arg == triggers {
			on = fmt.Sprintf(" group %d having ended", s.On)
		} else if s.Arg == closers {
			on = " the merge being next"
		} else if s.Arg == again {
			on += ", come again"
		}
	case Woke, SentMissing, Closed, Surveyed, Scanned, Triggered, Repaired:
		on = fmt.Sprintf(" group %d", s.On)
	case Pinned, SentMerges, SentNext, Ended, Published, Cached, Viewed, Levelled, Swept, Wiped, Purged:
		on = ""
	case Ordered:
		on = " " + orderNames[s.Arg]
	case Strayed:
		on = fmt.Sprintf(" %d", s.On)
	case Crashed, Erred:
		on = fmt.Sprintf(" point %s", pointNames[s.Arg])
	}
	return who + kindNames[s.Kind] + on
}

var pointNames = [...]string{
	"rest", "admit", "look", "ask", "look again", "run", "commit", "mark", "wake", "hand back", "survey", "send missing", "send next", "read", "pin", "level",
	"send merges", "finish", "publish", "cancel", "cache", "view", "scan", "repair", "trigger", "acknowledge",
}

// What a Received step received, and where a message lies.
const (
	first uint8 = iota
	again
	triggers
	closers
)

// fault says that a step is one that must not be needed: from every state a job goes on
// without any.
func (k Kind) fault() bool { return k >= Crashed || k == Shows || k == NotWoken }

// some is a number of messages of one kind: two stand for any more.
func some(n *uint8) {
	if *n < 2 {
		*n++
	}
}

func (w *World) send(t uint8) {
	some(&w.Tasks[t].First)
	w.Tasks[t].Sent = true
}

// wake sends the trigger of a group.
func (w *World) wake(g uint8) {
	if w.Groups[g].Merge {
		some(&w.Closer)
	} else {
		some(&w.Groups[g].Trigger)
	}
}

// rest is an act that has nothing in hand.
func rest(a *Act) { *a = Act{Sweeper: a.Sweeper} }

// steps are the steps that an act can take in a world, in which others have so many
// messages in hand.
func (m *Model) steps(w *World, a *Act, inHand int, yield func(Step, *World, *Act)) {
	emit := func(k Kind, arg uint8, f func(w *World, a *Act)) {
		m.after.World, m.act = *w, *a
		f(&m.after.World, &m.act)
		yield(Step{Kind: k, On: a.On, Arg: arg}, &m.after.World, &m.act)
	}
	to := func(p Point) func(*World, *Act) { return func(_ *World, a *Act) { a.At = p } }
	switch a.At {
	case Rest:
		if a.Sweeper {
			m.begin(w, inHand, emit)
		} else {
			m.receive(w, yield)
		}
	case Ack:
		m.ack(a, emit)
	default:
		switch a.Doing {
		case Attempting, Merging:
			m.attempt(w, a, emit, to)
		case Planning:
			m.closeGroup(w, a, emit, to)
		case Aggregating:
			m.aggregate(w, a, emit, to)
		case Sweeping:
			m.repair(w, a, emit)
		}
	}
}

// receive takes one message into hand.
func (m *Model) receive(w *World, yield func(Step, *World, *Act)) {
	take := func(on, which uint8, f func(w *World, a *Act)) {
		m.after.World, m.act = *w, Act{On: on, At: Admit, Again: which == again}
		f(&m.after.World, &m.act)
		yield(Step{Kind: Received, On: on, Arg: which}, &m.after.World, &m.act)
	}
	for t := range w.NTasks {
		doing := Attempting
		if w.Groups[w.Tasks[t].Group].Merge {
			doing = Merging
		}
		if w.Tasks[t].First > 0 {
			take(t, first, func(w *World, a *Act) { w.Tasks[t].First--; a.Doing = doing })
		}
		if w.Tasks[t].Again > 0 {
			take(t, again, func(w *World, a *Act) { w.Tasks[t].Again--; a.Doing = doing })
		}
	}
	for g := range w.NGroups {
		if w.Groups[g].Trigger > 0 {
			take(g, triggers, func(w *World, a *Act) { w.Groups[g].Trigger--; a.Doing = Planning })
		}
	}
	if w.Closer > 0 {
		take(0, closers, func(w *World, a *Act) { w.Closer--; a.Doing = Aggregating })
	}
}

// ack is the end of a message, whether others have received it meanwhile or not.
func (m *Model) ack(a *Act, emit func(Kind, uint8, func(*World, *Act))) {
	emit(Acked, 0, func(_ *World, a *Act) { rest(a) })
	if a.Shown {
		// Where it has become visible, that goes. Of an attempt that has found the task held,
		// it may be the only message that the holder has: should that die, a sweep is needed.
		emit(Acked, 1, func(w *World, a *Act) {
			w.Lossy = w.Lossy || a.delivery() && a.Doing <= Merging && w.Tasks[a.On].Result.Writes == 0
			a.takeBack(w)
			rest(a)
		})
	}
}

// message is where the message of an act lies when it is visible again.
func (a *Act) message(w *World) *uint8 {
	switch a.Doing {
	case Planning:
		return &w.Groups[a.On].Trigger
	case Aggregating:
		return &w.Closer
	}
	return &w.Tasks[a.On].Again
}

func (a *Act) takeBack(w *World) {
	if n := a.message(w); *n > 0 {
		*n--
	}
}

// leave gives the message of an act back to the queue.
func (a *Act) leave(w *World) {
	if !a.Lost && !a.Shown {
		some(a.message(w))
	}
	rest(a)
}

// attempt is the program of an attempt: worker.Worker.Attempt, and aggregator.Merge.
func (m *Model) attempt(w *World, a *Act, emit func(Kind, uint8, func(*World, *Act)), to func(Point) func(*World, *Act)) {
	k := &w.Tasks[a.On]
	there := k.Result.Writes > 0
	// Who finds the result there does what follows from it.
	found := func(otherwise Point) func(*World, *Act) {
		if there {
			return to(MarkDone)
		}
		return to(otherwise)
	}
	switch a.At {
	case Admit:
		_, refused := m.Refused(stateOf(w.Cache), 0)
		refused = refused || a.Doing == Merging && w.Outcome.Writes > 0
		switch {
		case refused && m.Bend != Deaf:
			emit(Refused, 1, func(w *World, a *Act) { w.Lossy, a.Told, a.At = true, true, Ack })
		case a.Again || a.Doing == Merging:
			emit(Refused, 0, func(_ *World, a *Act) { a.Told, a.At = refused, Look })
		default:
			emit(Refused, 0, func(_ *World, a *Act) { a.Told, a.At = refused, Ask })
		}
	case Look:
		emit(Looked, 0, found(Ask))
	case Ask:
		m.claim(k, a, emit)
	case LookAgain:
		emit(Looked, 0, found(Run))
	case Run:
		m.run(w, a, emit)
	case Commit:
		emit(Committed, 0, func(w *World, a *Act) {
			k := &w.Tasks[a.On]
			if k.Result.Writes == 0 || m.Bend == CommitOverwrites && k.Result != a.Result {
				writes := k.Result.Writes
				k.Result = a.Result
				k.Result.Writes = writes + 1
			}
			a.At, a.Result = MarkDone, Result{}
			if m.Bend == MarkFirst {
				a.At = Ack
			}
		})
	case MarkDone:
		emit(Marked, 0, func(w *World, a *Act) {
			g := &w.Groups[k.Group]
			g.Record = true
			g.Done |= 1 << (a.On - g.First)
			g.Counted++
			full := m.full(*g) || m.Bend == PlanUnread && g.Counted >= g.Tasks
			switch {
			case m.Bend == MarkFirst && w.Tasks[a.On].Result.Writes == 0:
				a.At = Commit
			case full:
				a.At = Wake
			default:
				a.At = Ack
			}
		})
	case Wake:
		if w.Budget.Errors > 0 { // it is not tried again: a sweep finds the full record
			emit(NotWoken, 0, func(w *World, a *Act) { w.Budget.Errors--; w.Lossy, a.At = true, Ack })
		}
		emit(Woke, 0, func(w *World, a *Act) { w.wake(k.Group); a.At = Ack })
	case HandBack:
		emit(GaveBack, 0, func(w *World, a *Act) { w.send(a.On); a.At = Ack })
	}
}

// claim asks for the task of an attempt.
func (m *Model) claim(k *Task, a *Act, emit func(Kind, uint8, func(*World, *Act))) {
	next, granted := m.ask(k.Claim)
	if !granted {
		count := 1
		if a.Again {
			count = 2
		}
		if _, done := m.WhenHeld(hayrick.Delivery{Count: count}, lease); done {
			emit(WasHeld, 1, func(_ *World, a *Act) { a.At = Ack })
		} else {
			emit(WasHeld, 0, func(w *World, a *Act) { a.leave(w) })
		}
		return
	}
	emit(Claimed, next.Fence, func(w *World, a *Act) {
		k := &w.Tasks[a.On]
		switch {
		case a.Told:
			w.Bad = StartedRefused
		case k.Claim.Hold == Held:
			w.Bad = StoleLease
		case k.Claim.Hold != NoClaim && next.Fence <= k.Claim.Fence:
			w.Bad = FenceStood
		}
		k.Claim = next
		a.Claimed, a.Fence, a.Wipes = true, next.Fence, w.Wipes
		if a.At = Run; next.Fence > 1 {
			a.At = LookAgain
		}
		if m.Bend == AckAtClaim {
			a.Lost = true
		}
	})
}

// holds says that the claim is still the act's.
func (a *Act) holds(w *World) bool {
	c := w.Tasks[a.On].Claim
	return a.Claimed && a.Wipes == w.Wipes && a.Fence == c.Fence && (c.Hold == Held || c.Hold == RanOut)
}

// release gives the claim back.
func (a *Act) release(w *World) {
	if a.holds(w) {
		w.Tasks[a.On].Claim.Hold = Released
	}
}

// run is the handler, and the put of what came of it. What an item comes to, nobody but
// the handler knows: every end that the job allows is tried.
func (m *Model) run(w *World, a *Act, emit func(Kind, uint8, func(*World, *Act))) {
	then := func(r Result) func(*World, *Act) {
		return func(w *World, a *Act) {
			if c := &w.Tasks[a.On].Claim; a.holds(w) && c.Idle > 0 {
				// worker.proveRunnable, with what ClaimPatch.Apply makes of it
				next, err := (hayrick.ClaimPatch{Lost: map[int64]int{}}).Apply(claimOf(*c), "another")
				if err == nil {
					c.Idle = uint8(next.Idle)
				}
			}
			r.Data = r.Data && m.Bend != CommitUnput
			a.Result = r
			if a.At = Commit; m.Bend == MarkFirst {
				a.At = MarkDone
			}
		}
	}
	deadline := func() {
		if w.Budget.Deadlines > 0 {
			emit(Ran, 255, func(w *World, a *Act) {
				w.Budget.Deadlines--
				a.release(w)
				a.At = HandBack
				a.Lost = a.Lost || m.Bend == HandBackLate // acknowledged by now
			})
		}
	}
	if a.Doing == Merging {
		emit(Ran, 0, then(Result{Data: true}))
		if m.Lent {
			deadline()
		}
		return
	}
	c := w.Tasks[a.On].Claim
	if mode, _ := m.ModeOf(*or(claimOf(c))); mode == worker.ModeFail {
		emit(Ran, 1, then(Result{Failed: true, Data: true}))
		return
	}
	if m.Failed {
		emit(Ran, 1, then(Result{Failed: true, Data: true}))
	}
	m.ends(w.Tasks[a.On].Items, 0, Result{Data: true}, func(n uint8, r Result) { emit(Ran, 2+n, then(r)) })
	deadline()
}

// or is the claim of an attempt whose record was deleted.
func or(c *hayrick.Claim) *hayrick.Claim {
	if c == nil {
		return &hayrick.Claim{}
	}
	return c
}

// ends yields every way in which items can end.
func (m *Model) ends(items uint8, from int, r Result, yield func(uint8, Result)) {
	var n uint8
	var walk func(i int, r Result)
	walk = func(i int, r Result) {
		if i == m.items {
			yield(n, r)
			n++
			return
		}
		if items&(1<<i) == 0 {
			walk(i+1, r)
			return
		}
		for _, e := range m.Ends[i] {
			r.Ends[i] = e
			walk(i+1, r)
		}
	}
	walk(from, r)
}

// closeGroup is the program of the retry planner.
func (m *Model) closeGroup(w *World, a *Act, emit func(Kind, uint8, func(*World, *Act)), to func(Point) func(*World, *Act)) {
	g := int(a.On)
	switch a.At {
	case Admit:
		if w.Outcome.Writes > 0 {
			emit(Looked, 1, to(Ack))
		} else {
			emit(Looked, 0, to(Survey))
		}
	case Survey:
		settled := w.settled(g)
		switch m.Bend {
		case PlanUnread:
			settled = w.Groups[g].Counted >= w.Groups[g].Tasks
		case PlanPartly:
			settled = true
		}
		switch {
		case int(w.NPlans) > g:
			emit(Surveyed, 0, to(SendNext))
		case settled:
			emit(Surveyed, 1, func(w *World, a *Act) { a.Plan, a.At = m.plan(w, g), Commit })
		default:
			emit(Surveyed, 2, func(w *World, a *Act) {
				a.At = SendMissing
				x := w.Groups[g]
				for t := x.First; t < x.First+x.Tasks; t++ {
					if w.Tasks[t].Result.Writes == 0 {
						a.Sweep.Send |= 1 << (t - x.First)
					}
				}
			})
		}
	case Commit:
		commit := func(then Point) func(*World, *Act) {
			return func(w *World, a *Act) {
				switch {
				case int(w.NPlans) == g:
					if !w.settled(g) {
						w.Bad = CutShort
					}
					w.addPlan(a.Plan)
				case m.Bend == PlanOverwrites:
					w.Plans[g].Writes++
				}
				a.At, a.Plan = then, Plan{}
			}
		}
		emit(Closed, 0, commit(SendNext))
		if m.Bend == ActFirst { // what it sent before was of no group, and is done with
			emit(Closed, 1, commit(Ack))
		}
	case SendNext:
		emit(SentNext, 0, func(w *World, a *Act) {
			a.At = Ack
			if w.Plans[g].Merge {
				some(&w.Closer)
				return
			}
			x := w.Groups[g+1]
			for t := x.First; t < x.First+x.Tasks; t++ {
				w.send(t)
			}
		})
	case SendMissing:
		emit(SentMissing, 0, func(w *World, a *Act) {
			for i := range w.Groups[g].Tasks {
				if a.Sweep.Send&(1<<i) != 0 {
					w.send(w.Groups[g].First + i)
				}
			}
			a.Sweep.Send = 0
			a.At = Ack
		})
	}
}

// addPlan closes the open group, and opens one for all that is to be run again.
func (w *World) addPlan(p Plan) {
	p.Writes = 1
	w.Plans[w.NPlans] = p
	w.NPlans++
	var items uint8
	for i, f := range p.Fates {
		if f == Retry {
			items |= 1 << i
		}
	}
	switch {
	case p.Merge:
	case w.NGroups+1 >= maxGroups: // the last one is the merge's
		w.Bad = Endless
	default:
		w.addGroup(false, items)
	}
}

// aggregate is the program of aggregator.Advance. The order in which it reads is its
// decision; there is no function that holds it.
func (m *Model) aggregate(w *World, a *Act, emit func(Kind, uint8, func(*World, *Act)), to func(Point) func(*World, *Act)) {
	switch a.At {
	case Admit:
		if w.Cache.Status == Paused {
			emit(Refused, 1, func(w *World, a *Act) { w.Lossy, a.Told, a.At = true, true, Ack })
		} else {
			emit(Refused, 0, to(Read))
		}
	case Read:
		switch {
		case w.Outcome.Writes > 0:
			emit(Looked, 0, to(Publish))
		case !w.closed():
			emit(Looked, 1, to(Ack))
		case w.Merge > 0:
			emit(Looked, 2, to(Level))
		default:
			emit(Looked, 3, to(Pin))
		}
	case Pin:
		emit(Pinned, 0, func(w *World, a *Act) {
			if w.Merge == 0 {
				m.balance(w)
				w.Merge = 1
				if ok, _, _ := w.count(); ok > 0 {
					w.addGroup(true, 0)
				}
			}
			a.At = Level
		})
	case Level:
		if _, ok := w.merging(); ok && m.Bend != EndEarly {
			emit(Levelled, 0, to(SendMerges))
		} else {
			emit(Levelled, 1, to(Finish))
		}
	case SendMerges:
		emit(SentMerges, 0, func(w *World, a *Act) {
			if g, ok := w.merging(); ok {
				x := w.Groups[g]
				for t := x.First; t < x.First+x.Tasks; t++ {
					if w.Tasks[t].Result.Writes == 0 {
						w.send(t)
					}
				}
			}
			a.At = Ack
		})
	case Finish:
		if m.Lent && w.Budget.Deadlines > 0 {
			emit(Levelled, 255, func(w *World, a *Act) { w.Budget.Deadlines--; a.At = HandBack })
		}
		emit(Ended, 0, func(w *World, a *Act) {
			if w.Outcome.Writes == 0 {
				m.succeed(w)
			}
			a.At = Publish
		})
	case HandBack:
		emit(GaveBack, 0, func(w *World, a *Act) { some(&w.Closer); a.At = Ack })
	case Publish:
		if w.View == w.Outcome.Status {
			emit(Looked, 4, to(Ack))
			return
		}
		emit(Cached, uint8(w.Outcome.Status), func(w *World, a *Act) {
			w.Cache = Cache{Status: w.Outcome.Status, Orders: w.Outcome.Orders}
			a.At = PutView
		})
	case PutView:
		emit(Published, 0, func(w *World, a *Act) { w.View = w.Outcome.Status; a.At = Ack })
	}
}

func (m *Model) balance(w *World) {
	ok, permanent, exhausted := w.count()
	if !m.later && m.Balance(int64(m.items), ok, permanent, exhausted) != nil {
		w.Bad = Unbalanced
	}
}

// succeed ends the generation.
func (m *Model) succeed(w *World) {
	m.balance(w)
	for g := range w.NGroups {
		if !w.settled(int(g)) {
			w.Bad = CutShort
		}
	}
	ok, permanent, exhausted := w.count()
	w.Outcome = Outcome{Writes: 1, Status: Succeeded, Orders: w.NOrders, OK: uint8(ok), Permanent: uint8(permanent), Spent: uint8(exhausted)}
}

// begin is the snapshot of a sweep, and the decision.
func (m *Model) begin(w *World, inHand int, emit func(Kind, uint8, func(*World, *Act))) {
	s := m.sweep(w, inHand)
	if s == (Sweep{}) {
		return
	}
	emit(Swept, 0, func(_ *World, a *Act) {
		a.Doing, a.Sweep, a.On = Sweeping, s, s.Group
		a.next(CancelJob)
	})
}

// next is the point of a sweep from which on there is something to be done.
func (a *Act) next(from Point) {
	s := a.Sweep
	for p := from; p <= Trigger; p++ {
		if map[Point]bool{CancelJob: s.Cancel, PutCache: s.Put, PutView: s.View != NoStatus, Scan: s.Scan, Repair: s.Scan, Trigger: s.WakeClosed || s.WakeMerge}[p] {
			a.At = p
			return
		}
	}
	rest(a)
}

// repair is the program of coordinator.Sweep.
func (m *Model) repair(w *World, a *Act, emit func(Kind, uint8, func(*World, *Act))) {
	s := a.Sweep
	switch a.At {
	case CancelJob:
		emit(Ended, 1, func(w *World, a *Act) {
			if w.Outcome.Writes == 0 || m.Bend == CancelOverwrites && w.Outcome.Status != Cancelled {
				w.Outcome = Outcome{Writes: w.Outcome.Writes + 1, Status: Cancelled}
			}
			a.Sweep.Cancel = false
			a.next(PutCache)
		})
	case PutCache:
		emit(Cached, uint8(s.Cache.Status), func(w *World, a *Act) {
			w.Cache = s.Cache
			a.Sweep.Put, a.Sweep.Cache = false, Cache{}
			a.next(PutView)
		})
	case PutView:
		emit(Viewed, uint8(s.View), func(w *World, a *Act) {
			w.View = s.View
			a.Sweep.View = NoStatus
			a.next(Scan)
		})
	case Scan:
		emit(Scanned, 0, func(w *World, a *Act) {
			a.Sweep.Mark, a.Sweep.Send = m.look(w, s)
			a.At = Repair
		})
	case Repair:
		emit(Repaired, 0, func(w *World, a *Act) {
			g := &w.Groups[s.Group]
			for i := range g.Tasks {
				if s.Mark&(1<<i) != 0 {
					g.Record = true
					g.Done |= 1 << i
					g.Counted++
				}
				if s.Send&(1<<i) != 0 {
					w.send(g.First + i)
				}
			}
			if s.Mark != 0 && m.full(*g) {
				w.wake(s.Group)
			}
			a.Sweep.Scan, a.Sweep.Blind, a.Sweep.Mark, a.Sweep.Send = false, false, 0, 0
			a.next(Trigger)
		})
	case Trigger:
		emit(Triggered, 0, func(w *World, a *Act) {
			if s.WakeClosed {
				w.wake(s.Group)
			}
			if s.WakeMerge {
				some(&w.Closer)
			}
			rest(a)
		})
	}
}

// look asks coordinator.DecideMissing about the tasks that a record does not have.
func (m *Model) look(w *World, s Sweep) (mark, send uint16) {
	x := w.Groups[s.Group]
	var missing []lookedAt
	for i := range x.Tasks {
		if s.Send&(1<<i) != 0 {
			k := &w.Tasks[x.First+i]
			missing = append(missing, lookedAt{int(i), !s.Blind && k.Result.Writes > 0, !s.Blind && k.Claim.Hold == Held})
		}
	}
	return m.missing(missing)
}
