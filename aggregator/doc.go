// Package aggregator merges the results of a generation into one verified dataset.
//
//	plan    results.done of every task -> unified schema, tree, inputs by SHA-256   commit
//	level 1 makes healthy row groups of consecutive results: pages are copied, or made anew   tasks
//	above   footers only; the root copies each byte of a row group once             no decoding
//	end     outcome-<g>.json with the aggregation manifest                          commit
//	after   published folder: parts, lists, _SUCCESS                                views
//
// Nothing is read that a commit does not vouch for: a results.done by the retry plan
// that closed its group, a file by the SHA-256 in its results.done, a merged file by
// that of its merge, every byte of a part by those of the merged files. And every
// level conserves rows: what goes in has the same count and row hash as what comes
// out. What disagrees is an error that names it, never a row less.
//
// Advance is the one step, taken by anyone and as often as they like: it looks at
// what is committed and does what follows. Merge is the task that it sends. plan.go
// cuts the tree and is pure; footer.go and concatplan.go join Parquet files without
// decoding them.
package aggregator
