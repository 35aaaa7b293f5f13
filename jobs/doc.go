// Package jobs is the contract between Hayrick and the code of its users: the
// Handler that runs one item, the Lister that may produce the items, and the
// registry that names them. Authors of a job import this package, and the root
// package for its words: hayrick.UserError, Duration, Bytes, the dispositions and
// the reserved classes. docs/adding-a-job.md shows one from end to end.
//
// A handler sees one item at a time and says how its try ended. Everything else
// is the host's: it takes rate tokens before it hands out an item, holds rows back
// until the item ends ok, tries again within the task, gives what still fails to
// the retry planner, and survives the handler's panics.
package jobs
