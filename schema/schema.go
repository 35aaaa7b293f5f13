// Package schema holds the JSON Schema of job files, for editors and for programs that
// write job files. Its test makes job.v1.json of the Go structs of a definition, their
// comments, and what package jobfile reads; it also makes docs/reference/job-file.md.
// After a change of these: make golden.
//
// The schema is what an editor can check: keys, types, words, limits and units. Rules
// between keys, templates and the world are checked by `hayrick check`. In two things
// the schema is stricter than a run, so that an editor marks what is likely a slip: a
// key with nothing behind it, and a number where text is meant.
package schema

import _ "embed"

// Job is the schema of a job file of version 1.
//
//go:embed job.v1.json
var Job []byte
