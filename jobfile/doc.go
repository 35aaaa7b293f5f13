// Package jobfile reads a job file, jobs/<name>/config.yaml, and resolves it into a
// hayrick.JobDefinition:
//
//	text   --parse-->     tree of nodes, each with file:line:column (node.go)
//	tree   --resolve-->   the chosen profile merged over it, then --set (resolve.go)
//	tree   --read-->      a definition on top of the defaults (schema.go, read.go)
//	both   --check-->     rules between fields (check.go)
//
// Whoever writes a job file should need one round to mend it: all problems are
// reported at once, each with its place and with what to write instead. A key that
// is not known is an error, because a typo would run for hours with a default.
//
// A file is data from somewhere else: its size, its depth and its number of tokens
// are bounded, and YAML's anchors, aliases, merges and tags, which hide what a line
// means, are refused. Quantities carry their unit. The only templates are $(run.id)
// in output.uri and $(item.<field>) in the key of a rate; nothing is read from the
// environment, so what is stored beside a run holds no secret that the file did not
// spell out.
package jobfile
