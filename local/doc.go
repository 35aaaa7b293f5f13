// Package local keeps a store in a folder of this machine, .hayrick by default.
//
//	jobs/...        objects, under their keys (objects.go)
//	state.db        SQLite: claims, blocks, job states, buckets, queues; a cache that may be
//	                deleted at any time (database.go, writer.go)
//	state.id        which files state.db and its companions are, and whose life they are in
//	state.lock      who writes state.db now, and
//	state.next      who does so next (turn.go)
//	tmp/ procs/     files being written, and which processes have the store open (internal/durable)
//	scratch/        journals of running tasks, when there is no better place
//
// OpenReadOnly looks at the objects alone and touches nothing (reading.go).
//
// Any number of processes on one machine may have a store open. Each has one
// writer goroutine, which carries out all calls that wait for it in one
// transaction; readers have connections of their own. Nothing here decides
// anything: the transitions are hayrick's and ratelimit's, applied between a
// SELECT and an UPDATE of one transaction.
package local
