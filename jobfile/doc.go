// Package jobfile reads a job file, jobs/<name>/config.yaml, and resolves it into a
// hayrick.JobDefinition:
//
//	text   --parse-->     tree of nodes, each with file:line:column (node.go)
//	trees  --overlay-->   settings, base files (extends), the file, its profile,
//	                      variables, --set, flags: what comes later wins (layers.go)
//	tree   --expand-->    templates filled in (template.go)
//	tree   --read-->      a definition on top of the defaults (schema.go, read.go)
//	both   --check-->     rules between fields (check.go)
//
// Whoever writes a job file should need one round to mend it: all problems are
// reported at once, each with its place and with what to write instead. A key that
// is not known is an error, because a typo would run for hours with a default; one
// that job files have elsewhere is answered with ours (replaced.go).
//
// A file is data from somewhere else: its size, its depth and its number of tokens
// are bounded, and YAML's anchors, aliases, merges and tags, which hide what a line
// means, are refused. Quantities carry their unit. The templates are a closed set,
// each read where it has a meaning. Of the environment only HAYRICK_<KEY> is read,
// and $(env.<NAME>) in places that hold no secret: what is stored beside a run is
// the resolved definition.
//
// A new key is a field of the definition with a comment, its default, a line in
// schema.go and, where it has to agree with others, a rule in check.go. The schema
// for editors, the reference page, the names of variables and `plan --show-origin`
// follow from these (keys.go; make golden).
package jobfile
