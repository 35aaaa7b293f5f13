// Package audit proves from the objects alone what became of every item of a job.
//
//	outcome-<g>.json      its own digest
//	  chain               SHA-256 of plan.json, retry plans, aggregation plan, orders, merge results
//	    groups            SHA-256 of block files, index objects, segments
//	      results.done    SHA-256 from the retry plan that closed the group
//	        data          rows, failures: SHA-256, size, counts
//	    merges -> parts, lists -> published folder
//
// Nothing is followed that a digest does not vouch for, and no stored total is
// believed: items are counted one by one from batches, failures files and the
// planner's lists (ledger.go, closing.go), rows from the results upwards, views are
// derived again from the commits and compared byte for byte. What the store lists is
// used for one question only: what is there that no commit names.
//
// The package shares the shapes of records (manifest) and of rows (internal/rows)
// with those who write; what a plan, a tree or a folder must look like it derives by
// itself.
//
// Memory is two bits an item, eight bytes an object and a few tasks at a time.
// docs/audit.md says how to read the findings and what no audit can know.
package audit
