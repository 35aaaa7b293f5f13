// Package backfill is the main job: it fetches the public repositories of a list
// of atproto (Bluesky) accounts and turns each record into a row.
//
// The job's two methods live in one type: Handle is the worker's, and in the demo
// Items is the coordinator's. One try of one item, an account:
//
//	item {"did", "pds"} -> getRepo (guarded, watched, bounded stream)
//	  -> atrepo.Read (hash of every block, commit, tree)
//	  -> Resolver.Key + signature          (verify: signature)
//	  -> one row a record, in key order
//
// The pieces: account.go reads the item, params.go the job file's handler.params,
// upstream.go does one HTTP GET within its limits, guard.go keeps a list of hosts
// from becoming a list of requests into the private network, classify.go says
// what an answer or an error means for the account, resolve.go finds signing
// keys, and demo/ is a small network of real servers to run the job against.
package backfill
