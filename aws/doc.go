// Package aws is the ports on AWS: objects, inputs and outputs in S3, state and
// token buckets in one DynamoDB table, queues in SQS. It holds no policy.
//
// A store is one name, s3://lab-hayrick: its bucket, its table and its queues are
// called after it (NamesOf), and the template in infra/ makes them. Credentials,
// region and endpoints are the SDK's own business: AWS_* and nothing else.
//
// What AWS answers and what callers hear:
//
//	a condition fails (412)          Commit: it is there, perhaps from this very call
//	409, 5xx, time-out, no answer    hayrick.ErrUnknown: read back, then try again
//	throttled, after slowing down    hayrick.ErrThrottled
//	404                              hayrick.ErrNotFound; of the bucket, table or queue: a *hayrick.UserError
//	403                              a *hayrick.UserError, exit 5, that names the right and the place; of an object hayrick.ErrDenied too
//	another 4xx, to a publisher      the same: asking again changes nothing until a person has
//	no credentials, or bad ones      a *hayrick.UserError, exit 5
//
// The SDK repeats what fails in transit, with a token bucket and, when throttled, at
// the pace that the service takes; nothing above repeats a request for that reason.
// A repeated conditional write can meet its own first try, so every condition here
// accepts its own earlier success: commits are read back, claims and buckets carry
// the id of their attempt.
package aws
