package aggregator

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// Balance holds the promise: every item has ended, and once.
func Balance(items, ok, permanent, exhausted int64) error {
	if ok+permanent+exhausted != items {
		return fmt.Errorf("%d ok + %d permanent + %d exhausted are not its %d items: %w", ok, permanent, exhausted, items, hayrick.ErrCorrupt)
	}
	return nil
}

// Cutter cuts a stream of results into level-1 nodes: consecutive results until
// they hold target_rows rows or target_bytes bytes, and at least fan_in of them; by
// count alone where the job file asks. Results without rows belong to a node but do
// not count.
type Cutter struct {
	Merge hayrick.Merge
	// Grow makes nodes larger the more there are: twice as large after every GrowEvery.
	// Where every node of one level is read by every node of the next, the number of
	// reads is then bounded, and not the square of the size.
	Grow bool

	nodes        int64
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
		times := int64(1)
		if c.Grow {
			times = 1 << min(c.nodes/GrowEvery, 20)
		}
		enough = enough && (c.rows/times >= c.Merge.TargetRows || c.bytes/times >= int64(c.Merge.TargetBytes))
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
	*c = Cutter{Merge: c.Merge, Grow: c.Grow, nodes: c.nodes + 1, first: c.first + c.count}
	return s
}

// GrowEvery is after how many nodes a growing Cutter's get twice as large.
const GrowEvery = 256

// MaxRanges is how many ranges keys are cut into at most.
const MaxRanges = 1024

// RangesOf is into how many ranges so many rows and bytes of results are cut.
func RangesOf(m hayrick.Merge, rows, bytes int64) int {
	n := max(rows/max(m.TargetRows, 1), bytes/max(int64(m.TargetBytes), 1), 1)
	return int(min(n, MaxRanges))
}

// Sample is a key that stands for so many rows.
type Sample struct {
	Key  []byte
	Rows int64
}

// Samples keeps a bounded number of keys of a stream, which depends on the stream
// alone: when there are too many it keeps every other one, of twice the rows.
type Samples struct {
	keys   []Sample
	stride int64
	seen   int64
}

// maxSamples bounds what Samples holds: some megabytes.
const maxSamples = 1 << 15

// Add takes in a key.
func (s *Samples) Add(x Sample) {
	if s.stride == 0 {
		s.stride = 1
	}
	s.seen++
	if s.seen%s.stride != 0 {
		return
	}
	if len(s.keys) == maxSamples {
		half := s.keys[:0]
		for i := 1; i < len(s.keys); i += 2 {
			half = append(half, s.keys[i])
		}
		s.keys = half
		s.stride *= 2
		if s.seen%s.stride != 0 {
			return
		}
	}
	s.keys = append(s.keys, x)
}

// Bounds cuts the keys into n ranges of about as many rows each, and returns what
// lies between them: fewer than n-1 bounds where keys are too few, or one of them is
// too common.
func (s *Samples) Bounds(n int) (bounds [][]byte) {
	slices.SortFunc(s.keys, func(a, b Sample) int { return bytes.Compare(a.Key, b.Key) })
	var total, before int64
	for _, x := range s.keys {
		total += x.Rows
	}
	for i, x := range s.keys {
		if i > 0 && total > 0 && before*int64(n)/total > int64(len(bounds)) {
			sep, ok := rows.Separator(s.keys[i-1].Key, x.Key)
			if ok && (len(bounds) == 0 || bytes.Compare(bounds[len(bounds)-1], sep) < 0) && len(bounds) < n-1 {
				bounds = append(bounds, sep)
			}
		}
		before += x.Rows
	}
	return bounds
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

const (
	// keepTime is kept of a process's time to hand a merge back.
	keepTime = 15 * time.Second
	// keepRate is how many bytes a second can at least be read back and stored.
	keepRate = 16 << 20
)

// Stop says that a merge stops before its next input of next bytes, because it would not
// be over in time: by the pace so far, done bytes in spent, and twice that for inputs
// that are slower. keep bytes have to be stored before the time is over; of whole that
// was lent, left is left. Nothing stops before it has done anything: it would never get
// any further.
func Stop(whole, left, spent time.Duration, done, next, keep int64) bool {
	if done <= 0 {
		return false
	}
	need := min(keepTime, whole/4) + time.Duration(float64(keep)/keepRate*float64(time.Second))
	need += time.Duration(2 * float64(spent) * float64(next) / float64(done))
	return left <= need
}
