// Package ratelimit keeps a limit such as 10/s over all processes that share a
// store, with no server that would have to be up.
//
// A bucket is a line of slots, a nominal time each, one slot width (1/rate) apart.
// A process whose goroutines wait for tokens reserves the next few slots for them
// by one atomic step on the store (a lot), and hands them out locally, each at
// its nominal time or a little later. Nothing is stockpiled and nothing has to
// be returned: a token nobody used in time is lost.
//
// # What is guaranteed
//
// In every window of length T, all processes together are granted at most
// rate x T + burst tokens, whatever crashes, stalls, is repeated, is answered but
// not heard, or is wiped, as long as clocks are within their bound. In short:
//
//	slot     = 1/rate, or more: (1/rate + lateness + 2 x clock bound) / burst
//	life     = burst x slot - 1/rate - 2 x clock bound: a token with nominal time a is used in [a, a+life]
//	horizon  : no token is given out for a time later than now + horizon
//
// Nominal times are at least a slot apart. A window of length T, read on clocks
// that are off by the bound at most, holds tokens with nominal times from a
// stretch of T + life + 2 x clock bound = T + burst x slot - 1/rate. For m+1 tokens
// to be in it, that has to be m slots: T is 0 at least for m < burst, and
// (m-burst) slots + 1/rate at least, which is (m+1-burst)/rate or more, for any other
// m. So there are at most rate x T + burst. Where the burst is large enough for the
// timing, the slot is 1/rate and the whole limit can be used; below that the tokens lie
// farther apart, so far that each lives for the least lateness. An idle bucket gives slots of the past, as
// far back as life reaches less the least lateness: that is the burst. A bucket
// that is missing starts behind everything that a lost one can have given out:
// with its first slot one horizon (and what clocks may differ) and one slot ahead.
// So a wiped store never grants twice, and a new key waits that long once; for a
// slow limit that is the slot, 36 s for 100/h. The bound comes before progress: a
// clock set back by an hour stops its buckets for that hour, unless their records
// are deleted.
//
// The guarantee is for grants, that is for Take returning. A request sent later
// than that counts in a later window: on the wire a window holds at most
// rate x T + burst + the requests that were granted before it and not sent yet.
// A handler that calls Take (through jobs.Host.Need) right before each request
// adds nothing; where the host takes the token before it hands out an item, the
// items in flight on a key count against the burst: take them off it if the
// upstream is strict.
//
// # Feedback
//
// A 429, or a 503 with Retry-After, closes the key for everyone by one write. From
// it on no reservation succeeds until Retry-After has passed; what others had
// reserved falls due within the horizon; the process that was told voids what it
// holds at once. The rate is halved, once for all replies to requests of the old
// rate, down to 1% of the limit, and regains 5% of the limit every 10 s without
// a throttle.
//
// # The files
//
// limits.go and plan.go are the arithmetic, pure; ports.go is the store, and what
// its adapters apply; limiter.go and bucket.go are the waiting.
package ratelimit
