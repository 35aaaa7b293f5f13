// Package processtree starts a program and ends it with everything that it has forked,
// whatever ends: the program, or the process that started it.
//
// Between the two stands a supervisor, the same binary once more (Supervise), one for
// each program:
//
//	worker --- control, report ---> supervisor ---> program ---> what it forks
//
// It adopts what the program leaves behind, also what has left its process group and
// session (Linux: PR_SET_CHILD_SUBREAPER), and kills it when the program has ended. It
// reads a pipe whose other end only the worker has: when that closes, the worker is
// gone, kill -9 included, and the supervisor ends the tree. When the supervisor itself
// is killed the program gets SIGKILL from the system (PR_SET_PDEATHSIG). A worker that
// did the same without it would have to be the subreaper of all it starts, and could
// tell neither whose an orphan is nor do anything after its own end.
//
// On other systems the supervisor ends the program's process group: what has left it is
// not found. Without a supervisor (Spec.Self is empty) it is so everywhere, and nothing
// ends the program of a worker that was killed but the end of its stdin.
package processtree
