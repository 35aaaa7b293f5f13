package model

import "fmt"

// Check says which property a state breaks, in words; "" = none.
func (m *Model) Check(s *State) string {
	w := &s.World
	if broken := m.CheckWorld(w); broken != "" {
		return broken
	}
	if !w.Lossy {
		return m.checkMessages(s)
	}
	return ""
}

// CheckWorld says which property a world breaks, whoever is at work in it.
func (m *Model) CheckWorld(w *World) string {
	if w.Bad != Fine {
		return badNames[w.Bad]
	}
	for t := range w.Tasks[:w.NTasks] {
		k := &w.Tasks[t]
		switch {
		case k.Result.Writes > 1:
			return fmt.Sprintf("the result of task %d has changed", t)
		case k.Result.Writes > 0 && !k.Result.Data:
			return fmt.Sprintf("the result of task %d names data that was not there before it", t)
		}
	}
	for g := range w.Groups[:w.NGroups] {
		x := &w.Groups[g]
		for i := range x.Tasks {
			if x.Done&(1<<i) != 0 && w.Tasks[x.First+i].Result.Writes == 0 {
				return fmt.Sprintf("task %d is marked and has no result", x.First+i)
			}
		}
		if g < int(w.NPlans) && !x.Merge && !w.settled(g) {
			return fmt.Sprintf("the plan that closes group %d came before all its results", g)
		}
	}
	for g := range w.Plans[:w.NPlans] {
		if w.Plans[g].Writes > 1 {
			return fmt.Sprintf("the plan that closes group %d was decided twice", g)
		}
	}
	if w.Outcome.Writes > 1 {
		return "the generation has ended twice"
	}
	if w.Merge > 1 {
		return "the merge was planned twice"
	}
	return m.checkItems(w)
}

// checkItems asserts that an item is where it is once: it has ended ok in at most one
// task of a closed group, or is listed by one plan, or is on its way through the open
// group; and when the job has succeeded, it is in exactly one of the first two.
func (m *Model) checkItems(w *World) string {
	for i := range m.items {
		ok, listed, runs := 0, 0, 0
		for t := range w.Tasks[:w.NTasks] {
			k := &w.Tasks[t]
			if k.Items&(1<<i) == 0 {
				continue
			}
			if k.Group >= w.NPlans {
				runs++
				continue
			}
			if _, failed := k.failed(i); !failed && k.Result.Writes > 0 {
				ok++
			}
		}
		for _, p := range w.Plans[:w.NPlans] {
			if p.Fates[i] == Permanent || p.Fates[i] == Exhausted {
				listed++
			}
		}
		if m.later && ok+listed+runs == 0 { // it ended before
			continue
		}
		if ok+listed+runs != 1 {
			return fmt.Sprintf("item %d: its rows are in the output %d times, it is listed %d times, and it is in %d tasks of the open group", i, ok, listed, runs)
		}
	}
	if o := w.Outcome; o.Status == Succeeded && !m.later && int(o.OK+o.Permanent+o.Spent) != m.items {
		return fmt.Sprintf("the outcome counts %d ok, %d permanent, %d exhausted of %d items", o.OK, o.Permanent, o.Spent, m.items)
	}
	return ""
}

// checkMessages asserts, where the queue has lost nothing and nobody has paused the job,
// that no sweep is needed for a task or a plan to go on: a task that was sent has its
// result, or a message, or somebody at it who has; and what a plan opens was sent, or
// somebody has the message by which he will.
func (m *Model) checkMessages(s *State) string {
	w := &s.World
	if w.Outcome.Writes > 0 {
		return ""
	}
	inHand := func(doing Doing, on uint8) bool {
		for _, a := range s.Acts {
			if a.Doing == doing && a.On == on && a.At != Ack && !a.Lost {
				return true
			}
		}
		return false
	}
	for t := range w.NTasks {
		k := &w.Tasks[t]
		if k.Sent && k.Result.Writes == 0 && k.First+k.Again == 0 && !inHand(Attempting, t) && !inHand(Merging, t) {
			return fmt.Sprintf("task %d has neither result nor message, and no message was lost", t)
		}
	}
	for g := range w.NPlans {
		if w.Plans[g].Merge {
			continue
		}
		if !w.Tasks[w.Groups[g+1].First].Sent && w.Groups[g].Trigger == 0 && !inHand(Planning, g) {
			return fmt.Sprintf("nothing was sent of what the plan that closes group %d opens, nobody is about to, and no message was lost", g)
		}
	}
	return ""
}
