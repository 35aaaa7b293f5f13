// Package durable writes files that survive kill -9 and power cuts, and that many
// processes may race to create.
//
// A file comes into being in five steps; what each leaves behind when the power
// fails right after it is what makes the order matter.
//
//	write tmp/<owner>-<n>     a leftover, removed when its owner is gone
//	fsync it                  the same; but from here on the bytes are safe
//	link(2) it to its name    the put-if-absent: one of all racers succeeds. Visible, but a power
//	                          cut may take the name away again: nobody may act on it yet
//	fsync the folder, and     the name is safe
//	  every folder above it
//	  that may be new
//	unlink the temp           the second name goes: a file with one link is known to be safe
//
// So the link count of a file tells a reader whether its name may still vanish:
// Dir.Settle fsyncs the folders of a file with two links, for whoever has seen it.
// rename(2) would not do: it overwrites. A link that reports an error may have
// happened on a network file system; the temp's own link count tells.
//
// Callers that wait for an fsync at the same time share one sync: see barrier.
//
// Liveness: an open Dir holds procs/<owner> locked (flock), which ends with the
// process however it dies.
package durable
