// Package manifest owns the bytes of the store: the JSON shapes of commits, views
// and data lists, the object keys they live under, and the canonical form they are
// written in. Nothing else builds a key or marshals a record.
//
// Three kinds of object exist.
//
//	commit  written once with put-if-absent; the only thing decisions are read from
//	view    derived from commits, rewritten by anyone, decides nothing
//	data    under a content-hashed, attempt-unique key, named by a commit
//
// Canonical JSON has sorted keys, no spaces, UTF-8, and times in RFC 3339 UTC with
// milliseconds, so a record has one byte form and one SHA-256. Every record names
// the job and the unit it speaks of, so a whole valid object that was moved to
// another key is refused.
//
// The fields that the founding documents name keep their names; ours stand beside
// them.
package manifest
