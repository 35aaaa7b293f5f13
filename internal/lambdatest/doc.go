// Package lambdatest is Lambda for tests: sandboxes that run a real bootstrap binary
// as child processes against a server of the documented Runtime API, an event source
// mapping that drains a real queue into them, and a schedule.
//
// What it does as AWS says that Lambda does:
//
//	a sandbox has one invocation at a time, its own /tmp, and a process that stands
//	still (SIGSTOP) from one invocation to the next
//	an invocation ends when the process asks for the next one; a process that exits, or
//	takes longer than the function's timeout, is killed, and the invocation has failed;
//	the next one starts a new process, which finds the same /tmp
//	the event source mapping keeps at most MaximumConcurrency invocations going, hides
//	messages for the queue's own visibility, deletes what an answer does not name in
//	batchItemFailures, and leaves the whole batch where an invocation fails or its
//	answer cannot be understood
//	the schedule invokes once a period, drops what finds the function busy, and repeats
//	nothing
//
// What it does not show: IAM, the ramp of concurrency, throttling, memory limits, and
// a file system that is read-only but for /tmp.
//
// Only tests import it.
package lambdatest
