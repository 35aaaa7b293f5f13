// Package atrepo reads one atproto repository from a CAR stream: it checks the
// hash of every block, the shape of the commit and, on request, that the Merkle
// search tree is the one its keys dictate; then it hands out the records in key
// order.
//
//	CAR stream -> blocks (hash of each) -> commit (did, version) -> tree (complete, canonical) -> records
//
// A repository's blocks are held in memory while it is read, because the tree may
// point anywhere: the caller bounds them by bounding the stream. They take at most
// three times the bytes that came, for an honest repository about 1.2 times. The
// tree is walked, not loaded: its keys may be many times what they took on the wire.
// Walking takes some MiB at most, whatever the repository.
//
// Whatever the bytes say, reading ends: no node is visited twice, no tree or
// record nests deeper than a fixed limit, and nothing is allocated on the word of
// a length that has not arrived (but for one section of at most 4 MiB).
//
// Errors are of three kinds: those of the stream come back wrapped as they are;
// ErrSignature; everything else wraps hayrick.ErrCorrupt.
package atrepo
