// Package coordinator makes jobs exist and keeps them moving.
//
// Submit turns a job file and an input into a job. Each step may be repeated; a
// crash after any of them leaves what the right column says:
//
//	look at the input, or spool what the handler lists    nothing in the store
//	choose the run: go on with an unfinished one, or new  nothing
//	put config, bundle, copy of the input                 data that nothing names
//	index: cut batches, put index objects and blocks      data that nothing names
//	put-if-absent plan.json                               THE JOB EXISTS
//	job manifest, cached state, messages                  the sweeper does the rest
//
// The id of a run follows from name, definition, input and the number of earlier
// runs of these three, so submissions that race, or come back after a crash, write
// the same objects and meet at the same plan.json; the first one stored is the
// plan, and the others go on with it.
//
// The index (index.go) finds records and hashes batches; it copies nothing and
// parses nothing:
//
//	input   | record | record | blank | record | record | ...
//	batch 0 |<- offset, length ->|      first ordinal 0, items 2, SHA-256
//	batch 1                             |<--------------->|  first ordinal 2
//
// Sweep looks at a job and repairs it: Known is the snapshot, Decide the pure
// function from it to a Decision, and every effect of a Decision is conditional or
// safe to repeat. Triggers and messages are only ever hints; Sweep derives each of
// them again from the commits. Orders (pause, resume, cancel) are commits of their
// own, applied in order of their number by Apply, which is pure too.
//
// A Coordinator has no state. Any number of them may work on one job from any
// number of machines, and a job needs none of them while its workers and messages
// are well.
package coordinator
