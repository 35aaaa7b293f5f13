// Package sim runs the real roles in a world of its own: mem for every port, virtual
// time, seeded randomness, and processes that can be crashed, stalled, frozen and lied to
// at any port call. A run is a function of its seed and its faults.
//
// A Fleet is the world: several processes run side by side, each with the loop of a real
// worker (worker.Pool, internal/dispatch) and every role; one that dies is replaced, and a
// person gives orders beside them. They are ordinary goroutines in a bubble of
// testing/synctest, which a Turnstile lets through one event at a time:
//
//	sleep, go, port call --> event heap (time, tie from the seed) --> one goes on
//	                                      ^------- all others are blocked again
//
// A Scenario is a job, who works on it and what people do meanwhile; a Schedule is what
// goes wrong: the n-th call that reaches the store meets a fault of one of the Kinds.
// Check asserts what holds after any run, by the audit that users have; Shrink finds the
// fewest faults that break it. TestReplay tells one run call by call.
//
// A World is an older one for what has to be driven by hand: a Process takes one step at
// a time, and nothing happens beside it unless the test says so.
//
// job.go is the small job that every fault is tried on, here and on the stand-ins of AWS.
package sim
