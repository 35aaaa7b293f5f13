// Package hayrick holds the words of Hayrick: the nouns that manifests, state,
// queues and logs share, the legal transitions between their states, and the
// sentinels that every port answers with. It imports the standard library only
// and nothing of this module, so every other package may import it.
//
// Hayrick runs a batch job with no always-on server. The life of one:
//
//	JobDefinition  jobs/<name>/config.yaml, identified by the SHA-256 of its resolved form
//	   JobRun      one execution with frozen inputs: plan.json exists
//	     Batch     an immutable slice of items: object, first ordinal, offset, length, SHA-256
//	     Task      one role's unit of work; a worker task names one batch
//	       Attempt one try of a task: a random id and a fence
//
// Three rules carry the whole design:
//
//  1. The queue is a hint, the state store a cache that can be rebuilt, objects
//     are the truth.
//  2. Data first, under content-hashed and attempt-unique keys; then one
//     put-if-absent commit that names it with SHA-256 and counts. Everything else
//     is a view that anyone may rewrite from the commits.
//  3. Decisions are pure functions of what is known and of the time that is handed
//     in; shells fetch the facts and carry the decision out with effects that are
//     conditional or safe to repeat.
package hayrick
