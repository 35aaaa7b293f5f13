package sim

import (
	"math/rand/v2"
	"slices"
)

// Points are the calls of a run at which faults differ: all but those amid a stretch in
// which everybody asks the queue and nobody is answered. At those a fault does what it
// does at the first or the last of the stretch.
func Points(events []Event) []Event {
	next := map[string]string{} // what an actor calls next
	idle := make([]bool, len(events))
	for i, e := range slices.Backward(events) {
		idle[i] = e.Call.Op == "Receive" && next[e.Call.Actor] == "Receive"
		next[e.Call.Actor] = e.Call.Op
	}
	var out []Event
	for i, e := range events {
		if i == 0 || i == len(events)-1 || !idle[i-1] || !idle[i] || !idle[i+1] {
			out = append(out, e)
		}
	}
	return out
}

// RandomFaults is a schedule of one to most faults among calls calls, a function of the
// seed.
func RandomFaults(seed uint64, calls, most int) Schedule {
	r := rand.New(rand.NewPCG(seed, 2))
	var s Schedule
	for range 1 + r.IntN(most) {
		s = append(s, Strike{N: 1 + r.IntN(calls), Kind: Kinds[r.IntN(len(Kinds))].Name})
	}
	return s
}
