package web

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"hayrick"
	"hayrick/manifest"
)

// The bounds of a page. Where one cuts something off, the page says so.
const (
	maxBins      = 120 // of the throughput
	maxSlowest   = 20
	maxMetrics   = 40
	knownMetrics = 1000
	maxClasses   = 50
	maxSamples   = 3
	maxInputs    = 20
	maxOutputs   = 100
	maxOrders    = 50
	maxText      = 300 // characters of a sample
)

// Collected is the results of worker tasks, added up.
type Collected struct {
	Tasks, Failed int64 // Failed: the batch as a whole could not run
	Logged        int64 // lines that handlers wrote
	Dropped       int64 // of these, left out

	groups  map[string]*groupWork
	metrics map[string]int64
	spans   []span
	slowest []slowTask
	tooks   []time.Duration
}

// groupWork is what the worker tasks of one group did.
type groupWork struct {
	items       int64
	first, last time.Time
	classes     map[string]int64 // failed items
}

// maxGroupClasses is how many classes are told of one group.
const maxGroupClasses = 5

// group adds the result of a task to its group.
func (c *Collected) group(r manifest.Result) {
	if c.groups == nil {
		c.groups = map[string]*groupWork{}
	}
	g := c.groups[r.Task.Group]
	if g == nil {
		g = &groupWork{classes: map[string]int64{}}
		c.groups[r.Task.Group] = g
	}
	g.items += int64(r.Items)
	if r.Failures != nil {
		for class, n := range r.Failures.ByClass {
			if _, ok := g.classes[class]; ok || len(g.classes) < knownMetrics {
				g.classes[class] += n
			}
		}
	}
	if r.Task.Error != nil {
		g.classes[r.Task.Error.Class] += int64(r.Items)
	}
	if start, end := r.Task.StartTime.Time, r.Task.EndTime.Time; !start.IsZero() && !end.Before(start) {
		if g.first.IsZero() || start.Before(g.first) {
			g.first = start
		}
		if end.After(g.last) {
			g.last = end
		}
	}
}

// perSecond is the items of a group over its time, from the first start to the last end;
// "-" where that is not known.
func (g *groupWork) perSecond() string {
	if g == nil || !g.last.After(g.first) {
		return "-"
	}
	return decimal(float64(g.items) / g.last.Sub(g.first).Seconds())
}

// failures is the classes of a group, the largest first.
func (g *groupWork) failures() string {
	if g == nil || len(g.classes) == 0 {
		return "-"
	}
	names := slices.SortedFunc(maps.Keys(g.classes), func(a, b string) int {
		return cmp.Or(cmp.Compare(g.classes[b], g.classes[a]), cmp.Compare(a, b))
	})
	var out []string
	for _, name := range names[:min(maxGroupClasses, len(names))] {
		out = append(out, name+" "+humanize.Comma(g.classes[name]))
	}
	if more := len(names) - len(out); more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, ", ")
}

// span is a task with what it did: 40 bytes each, kept until the bins are known.
type span struct {
	start, end time.Time
	items      int
}

type slowTask struct {
	ID, Group, Worker string
	Items             int
	Took              time.Duration
}

// Add adds the result of a task; those of merges are left out.
func (c *Collected) Add(r manifest.Result) {
	if r.Task.Role != string(hayrick.RoleWorker) {
		return
	}
	if c.metrics == nil {
		c.metrics = map[string]int64{}
	}
	c.Tasks++
	c.group(r)
	if r.Status == string(hayrick.TaskFailed) {
		c.Failed++
	}
	for name, n := range r.Task.Metrics {
		if _, ok := c.metrics[name]; ok || len(c.metrics) < knownMetrics {
			c.metrics[name] += n
		}
	}
	if r.Log != nil {
		c.Logged += r.Log.Lines
		c.Dropped += r.Log.Dropped
	}
	start, end := r.Task.StartTime.Time, r.Task.EndTime.Time
	if start.IsZero() || end.Before(start) {
		return
	}
	c.spans = append(c.spans, span{start, end, r.Items})
	took := end.Sub(start)
	c.tooks = append(c.tooks, took)
	slow := slowTask{r.TaskID, r.Task.Group, r.Task.Worker, r.Items, took}
	at, _ := slices.BinarySearchFunc(c.slowest, slow, func(a, b slowTask) int {
		return cmp.Or(cmp.Compare(b.Took, a.Took), cmp.Compare(a.ID, b.ID))
	})
	if at < maxSlowest {
		c.slowest = slices.Insert(c.slowest, at, slow)
		c.slowest = c.slowest[:min(maxSlowest, len(c.slowest))]
	}
}

// bin is a stretch of time.
type bin struct {
	From  time.Time
	Items float64 // that were run in it
	Tasks float64 // that were at work in it, on average
}

// bins cuts the time of the tasks into stretches of a round length, at most maxBins,
// and spreads the items of each task evenly over its own time.
func (c *Collected) bins() (out []bin, width time.Duration) {
	if len(c.spans) == 0 {
		return nil, 0
	}
	first, last := c.spans[0].start, c.spans[0].end
	for _, s := range c.spans {
		if s.start.Before(first) {
			first = s.start
		}
		if s.end.After(last) {
			last = s.end
		}
	}
	width = roundUp(last.Sub(first) / maxBins)
	first = first.Truncate(width)
	n := int(last.Sub(first)/width) + 1
	out = make([]bin, n)
	for i := range out {
		out[i].From = first.Add(time.Duration(i) * width)
	}
	for _, s := range c.spans {
		took := s.end.Sub(s.start)
		for i := int(s.start.Sub(first) / width); i < n; i++ {
			from, to := out[i].From, out[i].From.Add(width)
			if from.After(s.end) {
				break
			}
			if from.Before(s.start) {
				from = s.start
			}
			if to.After(s.end) {
				to = s.end
			}
			in := to.Sub(from)
			share := 1.0
			if took > 0 {
				share = float64(in) / float64(took)
			}
			out[i].Items += share * float64(s.items)
			out[i].Tasks += float64(in) / float64(width)
			if took == 0 {
				break
			}
		}
	}
	return out, width
}

// widths are the lengths of bins that people can read.
var widths = []time.Duration{
	100 * time.Millisecond, time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute,
	10 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

func roundUp(d time.Duration) time.Duration {
	for _, w := range widths {
		if d < w {
			return w
		}
	}
	const day = 24 * time.Hour
	return (d/day + 1) * day
}

// quantile is that of how long tasks took; it sorts them.
func (c *Collected) quantile(q float64) time.Duration {
	if len(c.tooks) == 0 {
		return 0
	}
	slices.Sort(c.tooks)
	return c.tooks[max(0, int(math.Ceil(q*float64(len(c.tooks))))-1)]
}
