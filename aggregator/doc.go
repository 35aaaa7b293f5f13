// Package aggregator merges the results of a generation into one verified dataset.
//
//	plan    results.done of every task -> unified schema, tree, inputs by SHA-256   commit
//	level 1 decodes consecutive results into healthy row groups                     tasks
//	above   footers only; the root copies each byte of a row group once             no decoding
//	end     outcome-<g>.json with the aggregation manifest                          commit
//	after   published folder: parts, lists, _SUCCESS                                views
//
// Every level conserves rows: what goes in has the same count and row hash as what
// comes out. plan.go cuts the tree and is pure; concat.go and footer.go join Parquet
// files without decoding them.
package aggregator
