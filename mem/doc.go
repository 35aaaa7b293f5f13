// Package mem holds working fakes of every store port in memory, on a clock that
// is handed in. It is what unit tests of the roles run on, and the world of the
// simulator.
//
//	objects.go   the object store, with the checks that no store can make: illegal rewrites
//	output.go    the output folders
//	inputs.go    the inputs of job files
//	state.go     claims, blocks, job states
//	buckets.go   token buckets
//	queue.go     the queues
//	faults.go    errors, lost replies, crashes, stalls and doubled requests on any call
//
// All of it is deterministic: nothing depends on the order of a map, and the only
// wait is Clock.Sleep. Every port call has a running number, so a run whose actors
// take turns can be repeated with a fault at any one of its calls:
//
//	var calls []mem.Call
//	store.Hook = func(c mem.Call) mem.Fault { calls = append(calls, c); return mem.Fault{} }
//	... run; then once more for each of calls and each kind of fault:
//	store.Hook = func(c mem.Call) mem.Fault {
//		if c.N == k {
//			return mem.Fault{CrashAfter: true}
//		}
//		return mem.Fault{}
//	}
//
// What is wiped (WipeState, WipeQueue) and who is dead (Kill) is up to the test.
package mem
