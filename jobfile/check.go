package jobfile

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"hayrick"
)

// runID is the template of output.uri: the id of the run.
const runID = "$(run.id)"

var (
	itemKey = regexp.MustCompile(`^\$\(item\.[^()$]+\)$`)
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
		c.rule(false, "name", "%s; write up to %d of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit", quoted(d.Name), maxName)
	}
	c.handler(d.Handler)
	c.rule(d.Input.URI != "" || d.Input.Items, "input", "neither a file nor items; write uri: ./items.jsonl, or items: true when the handler lists its own")
	c.rule(d.Input.URI == "" || !d.Input.Items, "input.items", `items come from the file or from the handler, not both; drop one, or write uri: ""`)
	c.input(d.Input)
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
	c.apart(d.Input.URI, d.Output.URI)
	c.open("input.uri", d.Input.URI)
	c.open("output.uri", d.Output.URI)
	return c.problems
}

// input judges what an input is, by what is written of it.
func (c *checker) input(in hayrick.Input) {
	text := in.Format == "csv" || in.Format == "tsv"
	folder := strings.HasSuffix(in.URI, "/")
	pattern := !folder && hayrick.IsPattern(in.URI)
	c.rule(!in.Items || in.Format == "jsonl", "input.format", "%s, and the handler lists its items as JSON; leave format out", quoted(in.Format))
	c.rule(len(in.Columns) == 0 || text, "input.columns", "names the columns of csv and tsv, and input.format is %s; leave columns out", in.Format)
	c.rule(in.Delimiter == "" || in.Format == "csv", "input.delimiter", "stands between the fields of csv, and input.format is %s; leave delimiter out", in.Format)
	c.rule(in.Delimiter == "" || hayrick.IsDelimiter(in.Delimiter), "input.delimiter", "%s; write one character, such as \";\" or \"|\", and neither a quote nor a line break", quoted(in.Delimiter))
	seen := map[string]bool{}
	for i, name := range in.Columns {
		at := fmt.Sprintf("input.columns[%d]", i)
		c.rule(name != "", at, "empty; name each column")
		c.rule(name == "" || !seen[name], at, "%s is there twice; name each column once", quoted(name))
		seen[name] = true
	}
	c.rule(len(in.Columns) == 0 || !text || in.Key == "" || seen[in.Key], "input.key", "%s is none of input.columns; write one of them", quoted(in.Key))
	c.rule(in.Format != "lines" || in.Key == "" || in.Key == "line", "input.key", `%s, and an item of lines is {"line": "<text>"}; write key: line, or leave it out`, quoted(in.Key))
	packed := in.Compression == "gzip" || in.Compression == "zstd"
	c.rule(!packed || in.Format != "parquet" && in.Format != "files", "input.compression", "%s, and %s is read as it lies; leave compression out", in.Compression, in.Format)
	c.rule(in.Format != "parquet" || in.URI != "-", "input.uri", "standard input, and a Parquet file is read from its end; write the name of a file")
	c.rule(in.Format != "files" || in.URI == "" || folder || pattern, "input.uri", "%s is one file, and input.format: files lists many; write a folder with a slash at its end, or a pattern such as ./in/*.tif", shortened(in.URI))
	c.rule(!pattern || doublestar.ValidatePattern(in.URI), "input.uri", "%s is no pattern of names; close each [ and {, and write a backslash before one that is meant", shortened(in.URI))
}

type checker struct {
	root     *node
	failed   []string
	problems Problems
}

// rule reports a problem at a path unless it is kept, or something of what is there has
// been reported.
func (c *checker) rule(kept bool, at, format string, args ...any) {
	reported := func(f string) bool { return f == at || under(f, at) || under(at, f) }
	if !kept && !slices.ContainsFunc(c.failed, reported) {
		c.problems.add(c.root.find(at).Place, "%s: %s", shortened(at), fmt.Sprintf(format, args...))
	}
}

// under says that one path of keys goes on from another.
func under(path, from string) bool {
	rest, ok := strings.CutPrefix(path, from)
	return ok && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

func (c *checker) handler(h hayrick.Handler) {
	c.rule(h.Builtin != "" || len(h.Exec) > 0, "handler", "no handler is named; write handler: {builtin: <name>}, or {exec: [python3, handler.py]}")
	c.rule(h.Builtin == "" || len(h.Exec) == 0, "handler.exec", "handler.builtin is there too; keep one of the two")
	c.rule(len(h.Exec) == 0 || h.Exec[0] != "", "handler.exec", "the program has no name; write [program, argument, ...]")
	c.rule(h.Memory == 0 || h.Memory >= 16<<20, "handler.memory", "below 16MiB no program starts; write a size such as 2GiB")
	if len(h.Exec) > 0 {
		return
	}
	for _, key := range []string{"env", "pass_env", "processes", "items_in_flight", "rows", "memory"} {
		set := map[string]bool{"env": h.Env != nil, "pass_env": h.PassEnv != nil, "processes": h.Processes != 0, "items_in_flight": h.ItemsInFlight != 0, "rows": h.Rows != "", "memory": h.Memory != 0}
		c.rule(!set[key], "handler."+key, "it is for handler.exec; a builtin handler has run.items_in_flight")
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
			c.rule(false, at+".name", "%s; write a-z, 0-9, '.', '_' and '-'", quoted(r.Name))
		}
		c.rule(r.Name == "" || !seen[r.Name], at+".name", "%s is there twice; names are what handlers ask by", quoted(r.Name))
		seen[r.Name] = true
		c.rule(r.Limit.N > 0, at+".limit", "not given; write it as 10/s or 3000/5m")
		c.rule(r.Key == "" || itemKey.MatchString(r.Key), at+".key", "%s; write $(item.<field>) for a bucket a value, or leave it out for one bucket", quoted(r.Key))
	}
}

// apart refuses an output that the next run would read, and one that would write where
// the input is. It compares what is written; what links lead to is the store's to see.
func (c *checker) apart(in, out string) {
	if in == "" || out == "" {
		return
	}
	from, to := clean(in), clean(out)
	if strings.HasSuffix(in, "/") {
		c.rule(!below(to, from), "output.uri", "%s lies in the input, %s, and the next run would read it; write another folder", shortened(out), shortened(in))
	}
	c.rule(!below(from, to) || from == to, "output.uri", "the input, %s, lies in it; write another folder", shortened(in))
}

func clean(uri string) string {
	if scheme, rest, ok := strings.Cut(strings.TrimPrefix(uri, "file://"), "://"); ok {
		return scheme + "://" + path.Clean(rest)
	}
	return path.Clean(strings.TrimPrefix(uri, "file://"))
}

// below says that one cleaned path is another, or in it.
func below(p, folder string) bool {
	switch {
	case folder == ".":
		return !path.IsAbs(p) && !strings.Contains(p, "://") && p != ".." && !strings.HasPrefix(p, "../")
	case folder == "/":
		return path.IsAbs(p)
	}
	return p == folder || strings.HasPrefix(p, folder+"/")
}

// open refuses a uri with a password in it: it is stored beside the run, and shown.
func (c *checker) open(at, uri string) {
	_, rest, _ := strings.Cut(uri, "://")
	authority, _, _ := strings.Cut(rest, "/")
	user, _, named := strings.Cut(authority, "@")
	c.rule(!named || !strings.Contains(user, ":"), at, "it holds a password, and is stored beside the run; leave it out, credentials come from the environment")
}

// word is a duration as a job file writes it.
func word(d hayrick.Duration) string {
	b, _ := d.MarshalText()
	return string(b)
}
