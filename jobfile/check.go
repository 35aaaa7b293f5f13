package jobfile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"hayrick"
)

// runID is the template of output.uri: the id of the run.
const runID = "$(run.id)"

var (
	itemKey = regexp.MustCompile(`^\$\(item\.[^()$]+\)$`)
	rateKey = regexp.MustCompile(`^rates\[\d+\]\.key$`)
)

// maxName leaves room in a job id for the date and the letters behind the name.
const maxName = 100

// check judges what fields mean together. root is the merged tree that d was read
// from; of the paths in failed it says nothing, they have been reported.
func check(root *node, d *hayrick.JobDefinition, failed []string) Problems {
	c := checker{root: root, failed: failed}
	c.rule(d.Version == 1, "version", "not given; write version: 1")
	switch {
	case d.Name == "":
		c.rule(false, "name", "not given; write a short name such as backfill, run ids begin with it")
	case !hayrick.ValidID(d.Name) || len(d.Name) > maxName:
		c.rule(false, "name", "%q; write up to %d of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit", d.Name, maxName)
	}
	c.rule(d.Handler.Builtin != "", "handler", "no handler is named; write handler: {builtin: <name>}")
	c.rule(d.Input.URI != "" || d.Input.Items, "input", "neither a file nor items; write uri: ./items.jsonl, or items: true when the handler lists its own")
	c.rule(d.Input.URI == "" || !d.Input.Items, "input.items", `items come from the file or from the handler, not both; drop one, or write uri: ""`)
	c.rule(d.Run.ItemTimeout > 0, "run.item_timeout", "0s; write a time such as 90s")
	c.rule(d.Run.ItemTimeout < d.Run.TaskTimeout, "run.item_timeout", "%s is not below run.task_timeout, %s; a task must have time for an item", word(d.Run.ItemTimeout), word(d.Run.TaskTimeout))
	c.rule(d.Run.Lease.D().Seconds() >= 1, "run.lease", "%s; write 1s or more", word(d.Run.Lease))
	c.rule(d.Retry.InTask.Initial <= d.Retry.InTask.Max, "retry.in_task.initial", "%s is above retry.in_task.max, %s", word(d.Retry.InTask.Initial), word(d.Retry.InTask.Max))
	c.rule(d.Retry.Backoff.Initial <= d.Retry.Backoff.Max, "retry.backoff.initial", "%s is above retry.backoff.max, %s", word(d.Retry.Backoff.Initial), word(d.Retry.Backoff.Max))
	c.rule(d.Output.URI != "", "output.uri", "empty; write a folder such as ./out/%s/", runID)
	c.rule(d.Output.Format != "parquet" || d.Output.Compression == "zstd", "output.compression", "%s; parquet is written with zstd, gzip and none are for csv and jsonl", d.Output.Compression)
	c.rule(d.Output.Keep == "" || len(d.Output.UniqueBy) > 0, "output.keep", "%s of what; write unique_by: [column] beside it", d.Output.Keep)
	if len(d.Output.Schema) > 0 {
		for _, x := range []struct {
			key   string
			names []string
		}{{"output.unique_by", d.Output.UniqueBy}, {"output.partition_by", d.Output.PartitionBy}} {
			for _, name := range x.names {
				known := slices.ContainsFunc(d.Output.Schema, func(s hayrick.Column) bool { return s.Name == name })
				c.rule(known, x.key, "column %q is not in output.schema", name)
			}
		}
	}
	c.rule(d.Merge.TargetBytes > 0, "merge.target_bytes", "0B; write a size such as 64MiB")
	c.rates(d.Rates)
	c.templates(root, "")
	return c.problems
}

type checker struct {
	root     *node
	failed   []string
	problems Problems
}

// rule reports a problem at path unless it is kept.
func (c *checker) rule(kept bool, path, format string, args ...any) {
	if !kept && !slices.Contains(c.failed, path) {
		c.problems.add(c.root.find(path).Place, "%s: %s", path, fmt.Sprintf(format, args...))
	}
}

func (c *checker) rates(rates []hayrick.Rate) {
	seen := map[string]bool{}
	for i, r := range rates {
		at := fmt.Sprintf("rates[%d]", i)
		switch {
		case r.Name == "":
			c.rule(false, at, "no name; write name: api")
		case !hayrick.ValidID(r.Name):
			c.rule(false, at+".name", "%q; write a-z, 0-9, '.', '_' and '-'", r.Name)
		}
		c.rule(r.Name == "" || !seen[r.Name], at+".name", "%q is there twice; names are what handlers ask by", r.Name)
		seen[r.Name] = true
		c.rule(r.Limit.N > 0, at+".limit", "not given; write it as 10/s or 3000/5m")
		c.rule(r.Key == "" || itemKey.MatchString(r.Key), at+".key", "%q; write $(item.<field>) for a bucket a value, or leave it out for one bucket", r.Key)
	}
}

// templates finds $(...) where none is read.
func (c *checker) templates(n *node, path string) {
	switch n.kind {
	case text:
		value := n.value
		switch {
		case path == "output.uri":
			value = strings.ReplaceAll(value, runID, "")
		case rateKey.MatchString(path):
			return // rates says what a key is
		}
		if i := strings.Index(value, "$("); i >= 0 {
			name, _, _ := strings.Cut(value[i:], ")")
			c.problems.add(n.Place, "%s: %s) is not read here; the templates are %s in output.uri and $(item.<field>) in a rate's key", path, name, runID)
		}
	case list:
		for i, it := range n.items {
			c.templates(it, fmt.Sprintf("%s[%d]", path, i))
		}
	case mapping:
		for _, p := range n.pairs {
			c.templates(p.value, join(path, p.key))
		}
	}
}

// word is a duration as a job file writes it.
func word(d hayrick.Duration) string {
	b, _ := d.MarshalText()
	return string(b)
}
