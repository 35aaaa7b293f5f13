package model

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
)

// Found is what a search came to.
type Found struct {
	States, Steps, Depth int
	// Whole: every state within the budget was seen. Else the bound on states ended it,
	// and nothing is said of ends that cannot be reached.
	Whole bool
	// Broken is the property that does not hold, "" when all do; Trace is a shortest way
	// there, in words, and At the world at its end.
	Broken string
	Trace  []string
	At     World
}

func (f Found) String() string {
	text := fmt.Sprintf("%d states, %d steps, depth %d", f.States, f.Steps, f.Depth)
	if !f.Whole {
		text += ", not all"
	}
	if f.Broken != "" {
		text += fmt.Sprintf("\n%s\n  %s\n  %s", f.Broken, strings.Join(f.Trace, "\n  "), f.At)
	}
	return text
}

var hashSeed = maphash.MakeSeed()

// fold gives states that differ only in which of the workers is which the same form.
func fold(s *State) {
	a := s.Acts[:maxActs-1]
	slices.SortFunc(a, func(x, y Act) int {
		if x == y {
			return 0
		}
		return cmp.Or(cmp.Compare(x.Doing, y.Doing), cmp.Compare(x.At, y.At), cmp.Compare(x.On, y.On), cmp.Compare(x.Fence, y.Fence), cmp.Compare(x.Wipes, y.Wipes),
			truth(x.Again, y.Again), truth(x.Lost, y.Lost), truth(x.Shown, y.Shown), truth(x.Told, y.Told), truth(x.Claimed, y.Claimed), truth(x.Result.Failed, y.Result.Failed),
			slices.Compare(x.Result.Ends[:], y.Result.Ends[:]), slices.Compare(x.Plan.Fates[:], y.Plan.Fates[:]))
	})
}

func truth(x, y bool) int {
	if x == y {
		return 0
	}
	if y {
		return -1
	}
	return 1
}

// Search looks at every state that can be reached from a start, breadth first, until
// there are most of them, and says what does not hold. Two states are taken for one when
// 64 bits of their hashes agree.
func (m *Model) Search(start State, most int) Found {
	x := search{m: m, seen: map[uint64]int32{}}
	fold(&start)
	x.add(start, -1)
	frontier := []State{start}
	var f Found
	at := int32(0)
	for len(frontier) > 0 && f.Broken == "" {
		var next []State
		for i := range frontier {
			s := &frontier[i]
			from := at
			at++
			if f.Broken = m.Check(s); f.Broken != "" {
				f.At, f.Trace = s.World, x.trace(start, from)
				break
			}
			x.goal = append(x.goal, s.Outcome.Writes > 0 && s.View == s.Outcome.Status)
			m.next(s, func(step Step, n *State) {
				f.Steps++
				fold(n)
				to, fresh := x.add(*n, from)
				if fresh {
					next = append(next, *n)
				}
				if !step.Kind.fault() && to != from {
					x.from, x.to = append(x.from, from), append(x.to, to)
				}
			})
			if len(x.parent) > most {
				f.States = len(x.parent)
				return f
			}
		}
		frontier = next
		f.Depth++
	}
	f.States = len(x.parent)
	if f.Broken == "" {
		f.Whole = true
		if dead := x.dead(); dead >= 0 {
			f.Broken = "the job cannot come to its end any more, though nothing goes wrong from here on"
			f.Trace = x.trace(start, dead)
			f.At = x.last.World
		}
	}
	return f
}

type search struct {
	m      *Model
	seen   map[uint64]int32
	hashes []uint64
	parent []int32
	goal   []bool
	// The steps that are no faults.
	from, to []int32
	last     State // of a trace
}

func (x *search) add(s State, parent int32) (n int32, fresh bool) {
	h := maphash.Comparable(hashSeed, s)
	if n, ok := x.seen[h]; ok {
		return n, false
	}
	n = int32(len(x.parent))
	x.seen[h] = n
	x.hashes, x.parent = append(x.hashes, h), append(x.parent, parent)
	return n, true
}

// dead is the first state from which no end can be reached by steps that are no faults;
// -1: there is none.
func (x *search) dead() int32 {
	n := len(x.parent)
	at := make([]int32, n+1)
	for _, to := range x.to {
		at[to+1]++
	}
	for i := range n {
		at[i+1] += at[i]
	}
	before := make([]int32, len(x.to))
	fill := slices.Clone(at[:n])
	for i, to := range x.to {
		before[fill[to]] = x.from[i]
		fill[to]++
	}
	alive := make([]bool, n)
	var todo []int32
	for i, goal := range x.goal {
		if goal {
			alive[i] = true
			todo = append(todo, int32(i))
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, j := range before[at[i]:at[i+1]] {
			if !alive[j] {
				alive[j] = true
				todo = append(todo, j)
			}
		}
	}
	return int32(slices.Index(alive, false))
}

// trace is the way from the start to a state, in words.
func (x *search) trace(start State, to int32) (words []string) {
	var way []int32
	for n := to; n > 0; n = x.parent[n] {
		way = append(way, n)
	}
	slices.Reverse(way)
	s := start
	for _, n := range way {
		var found bool
		at := s
		x.m.next(&at, func(step Step, next *State) {
			if found {
				return
			}
			said := step.String()
			fold(next)
			if maphash.Comparable(hashSeed, *next) == x.hashes[n] {
				found, s = true, *next
				words = append(words, said)
			}
		})
	}
	x.last = s
	return words
}

// next yields every state that follows from s, and the step there.
func (m *Model) next(s *State, yield func(Step, *State)) {
	if s.over() {
		return
	}
	inHand := 0
	for i := range s.Acts {
		if a := &s.Acts[i]; a.delivery() && !a.Lost && !a.Shown {
			inHand++
		}
	}
	if i := m.alone(s); i >= 0 {
		m.steps(&s.World, &s.Acts[i], inHand, func(step Step, _ *World, na *Act) {
			m.after.Acts = s.Acts
			m.after.Acts[i] = *na
			step.Act = int8(i)
			yield(step, &m.after)
		})
		return
	}
	for i := range s.Acts {
		a := &s.Acts[i]
		m.steps(&s.World, a, inHand, func(step Step, _ *World, na *Act) {
			m.after.Acts = s.Acts
			m.after.Acts[i] = *na
			step.Act = int8(i)
			yield(step, &m.after)
		})
		m.struck(s, i, yield)
	}
	m.elsewhere(s, yield)
}

// over says that the job has ended and nobody is about to commit anything.
func (s *State) over() bool {
	if s.Outcome.Writes == 0 || s.View != s.Outcome.Status {
		return false
	}
	for _, a := range s.Acts {
		switch a.At {
		case Commit, Pin, Finish, CancelJob:
			return false
		}
	}
	return true
}

// alone is an act whose next step nobody else can tell from its having been taken
// already: it touches nothing that is shared, and reads only what does not change any
// more. To take it at once leaves out no state that differs to others; -1: there is none.
func (m *Model) alone(s *State) int {
	calm := s.NOrders == 0 && s.Budget.Pauses == 0 && s.Budget.Cancels == 0 && s.Outcome.Writes == 0
	for i := range s.Acts {
		a := &s.Acts[i]
		switch a.At {
		case Admit:
			if calm && (a.Doing == Attempting || a.Doing == Aggregating) {
				return i
			}
		case Look, LookAgain:
			if s.Tasks[a.On].Result.Writes > 0 {
				return i
			}
		case Run:
			if s.Tasks[a.On].Claim.Idle == 0 && s.Budget.Deadlines == 0 {
				return i
			}
		case Survey:
			if int(s.NPlans) > int(a.On) {
				return i
			}
		}
	}
	return -1
}

// delivery says that the act is one of a message.
func (a *Act) delivery() bool { return a.Doing != Idle && a.Doing != Sweeping }

// struck is what can go wrong with an act.
func (m *Model) struck(s *State, i int, yield func(Step, *State)) {
	a := &s.Acts[i]
	if a.Doing == Idle {
		return
	}
	strike := func(k Kind, budget func(*Budget) *uint8, f func(*World, *Act)) {
		if *budget(&s.Budget) == 0 {
			return
		}
		n := &m.after
		*n = *s
		*budget(&n.Budget)--
		f(&n.World, &n.Acts[i])
		yield(Step{Kind: k, Act: int8(i), On: a.On, Arg: uint8(a.At)}, n)
	}
	strike(Crashed, func(b *Budget) *uint8 { return &b.Crashes }, func(w *World, a *Act) {
		if a.Doing == Sweeping {
			rest(a)
		} else {
			a.leave(w)
		}
	})
	if !a.delivery() {
		return
	}
	strike(Erred, func(b *Budget) *uint8 { return &b.Errors }, func(w *World, a *Act) {
		if a.Claimed {
			a.release(w)
		}
		a.leave(w)
	})
	if !a.Lost && !a.Shown {
		strike(Shows, func(b *Budget) *uint8 { return &b.Stalls }, func(w *World, a *Act) {
			some(a.message(w))
			a.Shown = true
		})
	}
}

// elsewhere is what happens in the world but for what its acts do.
func (m *Model) elsewhere(s *State, yield func(Step, *State)) {
	change := func(step Step, budget func(*Budget) *uint8, f func(*State)) {
		if budget != nil && *budget(&s.Budget) == 0 {
			return
		}
		n := &m.after
		*n = *s
		if budget != nil {
			*budget(&n.Budget)--
		}
		step.Act = -1
		f(n)
		yield(step, n)
	}
	for t := range s.NTasks {
		k := &s.Tasks[t]
		if k.Claim.Hold == Held && (k.Result.Writes == 0 || k.First > 0) {
			end := func(n *State) { n.Tasks[t].Claim.Hold = RanOut }
			if slices.ContainsFunc(s.Acts[:], func(a Act) bool {
				return (a.Doing == Attempting || a.Doing == Merging) && a.On == t && a.holds(&s.World)
			}) {
				change(Step{Kind: LeaseLost, On: t}, func(b *Budget) *uint8 { return &b.Stalls }, end)
			} else {
				change(Step{Kind: LeaseEnded, On: t}, nil, end)
			}
		}
		for _, again := range []bool{false, true} {
			n := func(s *State) *uint8 {
				if again {
					return &s.Tasks[t].Again
				}
				return &s.Tasks[t].First
			}
			if *n(s) > 0 {
				change(Step{Kind: Lost, On: t}, func(b *Budget) *uint8 { return &b.Losses }, func(x *State) { *n(x)--; x.Lossy = true })
				change(Step{Kind: Doubled, On: t}, func(b *Budget) *uint8 { return &b.Doubles }, func(x *State) { some(&x.Tasks[t].First) })
			}
		}
	}
	for g := range s.NGroups {
		if s.Groups[g].Trigger > 0 {
			change(Step{Kind: Lost, On: g}, func(b *Budget) *uint8 { return &b.Losses }, func(x *State) { x.Groups[g].Trigger--; x.Lossy = true })
			change(Step{Kind: Doubled, On: g}, func(b *Budget) *uint8 { return &b.Doubles }, func(x *State) { some(&x.Groups[g].Trigger) })
		}
	}
	if s.Closer > 0 {
		change(Step{Kind: Lost}, func(b *Budget) *uint8 { return &b.Losses }, func(x *State) { x.Closer--; x.Lossy = true })
		change(Step{Kind: Doubled}, func(b *Budget) *uint8 { return &b.Doubles }, func(x *State) { some(&x.Closer) })
	}
	for g := range s.NGroups {
		change(Step{Kind: Strayed, On: g}, func(b *Budget) *uint8 { return &b.Strays }, func(n *State) { n.wake(g) })
	}
	change(Step{Kind: Strayed, On: s.NGroups}, func(b *Budget) *uint8 { return &b.Strays }, func(n *State) { some(&n.Closer) })
	change(Step{Kind: Wiped}, func(b *Budget) *uint8 { return &b.Wipes }, func(n *State) { n.wipe() })
	change(Step{Kind: Purged}, func(b *Budget) *uint8 { return &b.Purges }, (*State).purge)
	if s.Outcome.Writes > 0 || s.NOrders == maxOrders {
		return
	}
	order := func(o Order, budget func(*Budget) *uint8) {
		change(Step{Kind: Ordered, Arg: uint8(o)}, budget, func(n *State) {
			n.Orders[n.NOrders] = o
			n.NOrders++
		})
	}
	now := m.Apply(orders(s.Orders), 0)
	if now.Cancelled {
		return
	}
	if now.Paused {
		order(Resume, nil)
	} else {
		order(Pause, func(b *Budget) *uint8 { return &b.Pauses })
	}
	order(Cancel, func(b *Budget) *uint8 { return &b.Cancels })
}

// wipe deletes the state store.
func (w *World) wipe() {
	for t := range w.Tasks[:w.NTasks] {
		w.Tasks[t].Claim = Claim{}
	}
	for g := range w.Groups[:w.NGroups] {
		w.Groups[g].Record, w.Groups[g].Done, w.Groups[g].Counted = false, 0, 0
	}
	w.Cache = Cache{}
	w.Wipes++
}

// quiet is the world without its messages.
func (w *World) quiet() {
	for t := range w.Tasks[:w.NTasks] {
		w.Tasks[t].First, w.Tasks[t].Again = 0, 0
	}
	for g := range w.Groups[:w.NGroups] {
		w.Groups[g].Trigger = 0
	}
	w.Closer = 0
}

// purge deletes the queue. What acts have in hand, they still have.
func (s *State) purge() {
	s.quiet()
	for i := range s.Acts {
		s.Acts[i].Lost = s.Acts[i].delivery()
	}
	s.Lossy = true
}
