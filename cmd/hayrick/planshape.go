package main

import (
	"bytes"
	"io"
	"time"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/coordinator"
	"hayrick/cost"
	"hayrick/manifest"
	"hayrick/worker"
)

// assumption is what nobody knows of a handler before it runs.
type assumption struct {
	itemTime time.Duration
	itemRows float64
	rowBytes float64
	overhead time.Duration // of a task: its requests
	atOnce   int           // tasks that gain by being at work at once; 0 = all that are
	fewKeys  bool          // too few to be cut into ranges
}

// learned is what a person knows of it.
type learned struct {
	itemTime  time.Duration
	itemRows  float64
	rowsGiven bool
}

// assume is the least, the expected and the most.
func assume(k learned, onAWS bool) [3]assumption {
	a := [3]assumption{
		{itemTime: 10 * time.Millisecond, itemRows: 0, rowBytes: 10, overhead: time.Millisecond, fewKeys: true},
		{itemTime: 100 * time.Millisecond, itemRows: 1, rowBytes: 100, overhead: 2 * time.Millisecond},
		{itemTime: time.Second, itemRows: 100, rowBytes: 1000, overhead: 10 * time.Millisecond},
	}
	for i := range a {
		if k.itemTime > 0 {
			a[i].itemTime = k.itemTime
		}
		if k.rowsGiven {
			a[i].itemRows = k.itemRows
		}
		if onAWS { // some requests, one after the other
			a[i].overhead *= 50
		}
	}
	return a
}

// planShape is a planned run, but for what is assumed.
type planShape struct {
	def       hayrick.JobDefinition
	found     coordinator.Preview
	floor     time.Duration
	functions bool
	copied    bool
}

// itemsAtOnce is how many items of a task are at work at once. What a program takes at
// once it says when it is ready, 1 where it does not; what is sent ahead waits.
func itemsAtOnce(def hayrick.JobDefinition) int {
	if len(def.Handler.Exec) > 0 {
		return max(def.Handler.Processes, 1)
	}
	return max(def.Run.ItemsInFlight, 1)
}

// job is the run as the cost package counts it.
func (s planShape) job(a assumption) cost.Job {
	items, tasks := s.found.Items, max(s.found.Tasks, 1)
	parallel := min(int64(max(s.def.Run.MaxParallel, 1)), tasks)
	if a.atOnce > 0 {
		parallel = min(parallel, int64(a.atOnce))
	}
	inTask := (items + tasks - 1) / tasks
	inFlight := min(int64(itemsAtOnce(s.def)), inTask)
	attempt := a.overhead + times(a.itemTime, float64(inTask)/float64(inFlight))
	took := max(s.floor, times(attempt, float64(tasks)/float64(parallel)))
	attempt = max(attempt, times(took, float64(parallel)/float64(tasks))) // it waits for tokens
	just := func(d time.Duration) cost.Times { return cost.Times{Low: d, Expected: d, High: d} }
	j := cost.Job{
		Submit: cost.Submit{Folders: int64(s.found.Listed), Earlier: int64(s.found.Named), Bundle: s.found.Bundle, Files: s.found.Files, Folder: manifest.IsFolder(s.def.Input.URI)},
		Groups: []cost.Group{{Planned: tasks, Tasks: tasks, Items: items, Closed: true, Attempt: just(attempt)}},
		Merge:  &cost.Merge{Results: tasks}, Publish: true, Exists: s.def.Output.IfExists,
		Processes: 1, Time: just(took),
		Follow: cost.Follow{Fastest: remotePace.look, Slowest: remotePace.slowest, End: true},
	}
	if s.copied {
		j.Submit.Copied = max(s.found.Bytes, 1)
	}
	for _, r := range s.def.Rates {
		if r.Auto {
			j.Groups[0].Tokens += items
		}
	}
	if rows := int64(a.itemRows * float64(items)); rows > 0 {
		m := j.Merge
		m.Rows, m.Bytes, m.Parts = min(tasks, rows), int64(float64(rows)*a.rowBytes), 1
		j.Groups[0].Rows = m.Rows
		most := max(1, m.Rows/int64(max(s.def.Merge.FanIn, 1)))
		m.Nodes = most
		if !s.def.Merge.ByCount {
			full := max(rows/max(s.def.Merge.TargetRows, 1), m.Bytes/max(int64(s.def.Merge.TargetBytes), 1))
			m.Nodes = max(1, min(most, full))
		}
		top := m.Nodes
		if len(s.def.Output.UniqueBy) > 0 {
			if !s.def.Merge.ByCount {
				m.Nodes = grown(m.Nodes)
			}
			m.Ranges = int64(aggregator.RangesOf(s.def.Merge, rows, m.Bytes))
			if a.fewKeys {
				m.Ranges = 1
			}
			top, m.RangesDone = m.Ranges, m.Ranges
		}
		m.Done = m.Nodes
		if part := int64(s.def.Merge.PartBytes); part > 0 {
			m.Parts = max(1, min(top, m.Bytes/part))
		}
	}
	if s.functions {
		j.Follow = cost.Follow{} // whoever watches pays for it: hayrick watch says what
		j.Function = cost.Function{MiB: functionMiB, Start: functionStart}
		j.Processes = parallel
	}
	return j
}

// grown is how many merges of level 1 there are, where they grow the more there are.
func grown(n int64) (nodes int64) {
	for size := int64(1); n > 0; size *= 2 {
		some := min(aggregator.GrowEvery, (n+size-1)/size)
		nodes, n = nodes+some, n-some*size
	}
	return nodes
}

// times is d n times.
func times(d time.Duration, n float64) time.Duration { return time.Duration(float64(d) * n) }

const (
	functionMiB   = 2048                  // as the template has it
	functionStart = 50 * time.Millisecond // of an invocation, on average over cold and warm ones
)

// passing finds the items in the bytes of an input as they pass, and shows each to
// whoever wants to see it. It holds one line.
type passing struct {
	limit int64
	each  []func(ordinal int64, rec []byte) // rec is nil for one that is longer than anybody parses here

	line  []byte // the one that is not complete yet
	long  bool
	items int64
}

// writer is nil where nobody wants to see anything.
func (l *passing) writer() io.Writer {
	if len(l.each) == 0 {
		return nil
	}
	return l
}

// Write takes the next bytes of the input.
func (l *passing) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, more, whole := bytes.Cut(rest, []byte("\n"))
		if l.long = l.long || len(l.line)+len(line) > checkedBytes; l.long {
			l.line = l.line[:0]
		} else {
			l.line = append(l.line, line...)
		}
		if whole {
			l.end()
		}
		rest = more
	}
	return len(p), nil
}

// end takes in a whole line; also the last one, which may have no newline.
func (l *passing) end() {
	rec := manifest.TrimRecord(l.line)
	if (len(rec) > 0 || l.long) && (l.limit == 0 || l.items < l.limit) {
		if l.long {
			rec = nil
		}
		for _, see := range l.each {
			see(l.items, rec)
		}
		l.items++
	}
	l.line, l.long = l.line[:0], false
}

// keyCounts counts how many items share a value of each rate's key. Where no rate has a
// key it looks at nothing.
type keyCounts struct {
	rates []hayrick.Rate
	found map[string]*coordinator.Frequent
}

func newKeyCounts(def hayrick.JobDefinition) *keyCounts {
	k := &keyCounts{found: map[string]*coordinator.Frequent{}}
	for _, r := range def.Rates {
		if r.Auto && r.Key != "" {
			k.rates = append(k.rates, r)
			k.found[r.Name] = &coordinator.Frequent{}
		}
	}
	return k
}

// see counts the keys of an item.
func (k *keyCounts) see(_ int64, rec []byte) {
	fields, ok := worker.ParseFields(rec)
	if !ok {
		return
	}
	for _, r := range k.rates {
		if key, err := worker.RateKey(r.Key, fields); err == nil {
			k.found[r.Name].Add(key)
		}
	}
}

// most is the count of the commonest value, by rate.
func (k *keyCounts) most() map[string]int64 {
	out := map[string]int64{}
	for name, f := range k.found {
		out[name] = f.Most()
	}
	return out
}

// indexing shows how far an input has been indexed.
type indexing struct {
	*cli
	start, next time.Time
	wait        time.Duration
}

func newIndexing(c *cli) *indexing {
	now := c.world.Clock.Now()
	return &indexing{cli: c, start: now, wait: firstQuiet, next: now.Add(firstQuiet)}
}

func (x *indexing) show(bytes, total, items int64) {
	now := x.world.Clock.Now()
	if x.quiet || x.json || now.Before(x.next) {
		return
	}
	of := ""
	if total > 0 {
		of = " of " + size(total)
	}
	if x.errTTY && x.get("TERM") != "dumb" {
		x.next = now.Add(lookEvery)
		x.screen.draw([]string{"indexing  " + size(bytes) + of + "  " + count(items, "item") + "  " + ago(now.Sub(x.start))})
		return
	}
	x.wait = min(2*x.wait, longestQuiet)
	x.next = now.Add(x.wait)
	x.tell("%s  indexing  %s%s  %s", ago(now.Sub(x.start)), size(bytes), of, count(items, "item"))
}
