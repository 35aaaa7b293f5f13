// Package retryplanner decides what follows when a group of tasks has closed.
//
//	results.done of every task  --read-->  items that did not end ok
//	   items  --decide (plan.go)-->  retry | permanent | exhausted
//	   retry  --pack-->  new batches of the same size, in segments of the store
//	retries/retry-<n>/plan.json  <--commit--  all of it, also "nothing to retry"
//	   --> the tasks of retry_batch_<n>, or the trigger of the aggregation
//
// A group is closed when every one of its tasks has its results.done. State and
// messages only wake the planner: it reads the results itself, and one that is
// missing means that nothing is decided and nothing is written.
//
// Results never change and data has content-hashed keys, so every planner of a
// group comes to the same decision and writes the same objects; only the times
// differ. The first plan that is stored is the plan: who comes later, or again
// after a crash, drops its own and acts on the stored one. Reading comes whole
// before writing: what grows with the group is spooled to the scratch folder, and
// memory holds a few tasks at a time.
//
// What a failure costs (plan.go): a permanent or poisoned item is never run again.
// Infra failures cost the item no try. Any other may be repeated in retry.passes
// groups. One bound holds whatever fails: a generation runs at most retry.passes + 3
// retry groups.
package retryplanner
