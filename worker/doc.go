// Package worker runs tasks. An Attempt is one try of one task:
//
//	redelivery, or fence > 1: read results.done -> there: mark, acknowledge, leave
//	claim                     -> held by another: a duplicate is done with, a redelivery left until the lease ends
//	read and hash the batch   -> changed: one automatic pause, no outcome
//	journal of an earlier attempt, or the highest checkpoint: ended items are kept
//	run the items             -> each item's end and rows together, ordinal is the key
//	put rows and failures     under content-hashed, attempt-unique keys
//	put-if-absent results.done -> the one end of the task, ours or another's
//	view, mark, trigger; acknowledge last
//
// Everything up to the commit may be repeated by any number of attempts at once;
// everything after it only repeats what the commit says. So a crash at any line
// costs time and never a row.
//
// A handler cannot be ended from outside: Go has no means to. One that ignores its
// context is given up some seconds after its time is over, so that the attempt ends
// and hands back or commits what its other items came to; the goroutine stays until
// the process ends, and nothing it still does (rows, metrics, tokens) reaches the
// task. A handler that panics has crashed, which is the item's doing; one that takes
// the process down has made a worker vanish, which costs the item no try.
//
// decide.go is the thinking (mode of an attempt, next try of an item); the other
// files carry it out through the ports in ports.go. Pool drains a queue with a
// number of slots and acknowledges in groups.
package worker
