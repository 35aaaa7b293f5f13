package aggregator

import (
	"hayrick"
	"hayrick/manifest"
)

// Cutter cuts a stream of results into level-1 nodes: consecutive results until
// they hold target_rows rows or target_bytes bytes, and at least fan_in of them; by
// count alone where the job file asks. Results without rows belong to a node but do
// not count.
type Cutter struct {
	Merge hayrick.Merge

	first, count int64 // of the open node, in inputs
	full, rows   int64 // inputs with rows, and their rows
	bytes        int64
}

// Add takes in the next result and returns the node that it completes, if any.
func (c *Cutter) Add(in manifest.MergeInput) (manifest.Span, bool) {
	c.count++
	if in.Rows > 0 {
		c.full++
		c.rows += in.Rows
		c.bytes += in.Bytes
	}
	enough := c.full >= max(int64(c.Merge.FanIn), 1)
	if !c.Merge.ByCount {
		enough = enough && (c.rows >= c.Merge.TargetRows || c.bytes >= int64(c.Merge.TargetBytes))
	}
	if !enough {
		return manifest.Span{}, false
	}
	return c.cut(), true
}

// Close returns the last node, if any result with rows is left. Trailing results
// without rows need no node: they have nothing to merge.
func (c *Cutter) Close() (manifest.Span, bool) {
	if c.full == 0 {
		return manifest.Span{}, false
	}
	return c.cut(), true
}

func (c *Cutter) cut() manifest.Span {
	s := manifest.Span{First: c.first, Count: c.count}
	*c = Cutter{Merge: c.Merge, first: c.first + c.count}
	return s
}

// TreeOf is the shape of the tree over so many level-1 nodes: every level has a
// fan_in-th of the one below, up to one root. Above level 1 nodes are arithmetic
// on footers, done in one place by the root.
func TreeOf(level1 int64, fanIn int) manifest.Tree {
	t := manifest.Tree{FanIn: fanIn, Nodes: []int64{}}
	f := int64(max(fanIn, 2))
	for n := level1; n > 0; n = (n + f - 1) / f {
		t.Nodes = append(t.Nodes, n)
		if n == 1 {
			break
		}
	}
	return t
}

// GroupRows is how many rows a row group gets in a file of so many, so that all
// groups have about target: full groups and a rest would end most files in a group
// of a few rows. 0 = as the writer likes.
func GroupRows(total, target int64) int64 {
	if target <= 0 || total <= 0 {
		return target
	}
	groups := max(1, (total+target/2)/target)
	return (total + groups - 1) / groups
}

// MaxSources is how many files are joined into one part: S3 joins 10,000 stretches,
// the footer is one, and a few are longer than it takes at once.
const MaxSources = 9000

// PartsOf cuts the level-1 outputs, whose sizes are given, into parts of about
// partBytes; 0 = one part, as far as MaxSources allows. Each part is a span of outputs.
func PartsOf(sizes []int64, partBytes int64) []manifest.Span {
	if len(sizes) == 0 {
		return nil
	}
	var parts []manifest.Span
	open := manifest.Span{}
	var size int64
	for i, n := range sizes {
		if open.Count == MaxSources || open.Count > 0 && partBytes > 0 && size+n > partBytes {
			parts = append(parts, open)
			open, size = manifest.Span{First: int64(i)}, 0
		}
		open.Count++
		size += n
	}
	return append(parts, open)
}

// Runs is how often a merge that FAILED is tried: once, and twice again under
// another id.
const Runs = 3

// ListName is the list that an item goes to: by class, or the general one.
func ListName(lists map[string]string, class string, exhausted bool) string {
	return manifest.ListName(lists, class, exhausted)
}
