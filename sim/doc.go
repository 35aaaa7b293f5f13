// Package sim runs the real roles in a world of its own: mem for every port, a
// clock that jumps, seeded randomness, and processes that can be crashed, stalled
// and lied to at any port call. Everything happens one step at a time on one
// goroutine, so a run is a function of its seed and its faults.
//
// A Process is what one machine runs: it takes a message, plays its role, and
// sweeps when there is nothing to take. A crash ends it (its memory is gone, its
// disk stays), and the world starts another.
//
// job.go is the small job that every fault is tried on, here and on the stand-ins of AWS.
package sim
