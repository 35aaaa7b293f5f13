// Package extproc runs handlers in any language: programs that speak
// hayrick-handler/1, JSON lines on stdin and stdout (docs/reference/handler-protocol.md).
//
//	Handler   one per job and process: its parked children
//	Session   one per attempt: the children it has, the items it sends them
//	child     one program: frames out, frames in, its stderr, its end
//
// Children live as long as the worker: an attempt takes them over and parks them when
// it ends, so that a program's imports are paid once. A child serves one attempt at a
// time. What is sent ahead to it waits in its stdin; only the first at_once of its
// items count as running: their time runs, and they are the ones its death is held
// against. The others are sent to another child, and nobody notices.
//
// Nothing a program does may hold a task for ever, grow memory without bound, or end
// the worker: lines, logs and items in flight are bounded, every wait ends by the
// clock that was handed in, and all that a child forks ends with it (internal/processtree).
package extproc
