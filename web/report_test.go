package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// resultAt is a task that ran items from a time on.
func resultAt(n int, from, took time.Duration, items int) manifest.Result {
	return manifest.Result{
		TaskID: manifest.TaskID(int64(n)), Status: string(hayrick.TaskDone), Items: items,
		Task: manifest.TaskFields{
			Role: string(hayrick.RoleWorker), Group: "initial_batch", Worker: "w",
			StartTime: manifest.At(start.Add(from)), EndTime: manifest.At(start.Add(from + took)), Metrics: map[string]int64{"items_processed": int64(items)},
		},
	}
}

// hostile is what data may hold.
const hostile = `</style></script><script>alert(1)</script>"'><img src=x onerror=alert(2)>&{{.JobID}}` + "\x00\u202e"

func largeReport() Report {
	r := Report{
		JobID: "backfill-20260102-abcdef", State: "FAILED", Why: hostile, Submitted: start, Until: start.Add(10 * time.Hour), Ended: true, Made: start, By: hostile,
		Items: 1_000_000, OK: 999_999, Permanent: 1, RowHash: hostile, OutputURI: hostile,
		Groups: []Group{{Name: hostile, Phase: hostile, Tasks: 10_000, Done: 10_000, Items: 1_000_000}},
		Facts:  []Fact{{"job file", hostile}}, Commands: []Fact{{"again", hostile}}, Orders: []Order{{What: hostile, By: hostile, Reason: hostile}},
	}
	for i := range 10_000 {
		res := resultAt(i, time.Duration(i)*3*time.Second, time.Duration(1+i%97)*time.Second, 100)
		res.Task.Worker = hostile
		res.Task.Metrics[fmt.Sprintf("metric_%d%s", i, hostile)] = 1
		res.Log = &manifest.LogFile{Lines: 10, Dropped: 1}
		r.Work.Add(res)
	}
	for i := range 300 {
		c := Class{Name: fmt.Sprintf("class_%d", i), State: "permanent", Items: 1e6, Tasks: 1000, Helps: hostile, Command: hostile}
		for range 5 {
			c.Samples = append(c.Samples, Sample{Key: hostile, Message: strings.Repeat("long ", 4000) + hostile, Task: hostile})
		}
		r.Classes = append(r.Classes, c)
	}
	for range 5000 {
		r.Inputs = append(r.Inputs, Input{URI: hostile, Pin: hostile, Items: 1})
		r.Outputs = append(r.Outputs, Output{Path: hostile, SHA256: hostile, What: hostile, Bytes: 1})
	}
	return r
}

func written(t *testing.T, r Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A page of 10,000 tasks is small, and says of everything that it cut that it did.
func TestLargeRun(t *testing.T) {
	got := written(t, largeReport())
	if len(got) >= 3<<20 {
		t.Errorf("the page has %d bytes", len(got))
	}
	for _, want := range []string{
		"10,000 tasks have ended", "showing 20 of 10,000 tasks", "showing 40 of 1000 metrics or more", "showing 50 of 300 lines", "showing 3 of 1,000,000",
		"showing 20 of 5,000 objects", "showing 100 of 5,000 files", "(cut)", "100,000 lines, of which 10,000 were left out", "&gt; 99.9 %",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if n := strings.Count(got, `class="speed"`); n < maxBins/4 || n > maxBins+1 {
		t.Errorf("%d bars", n)
	}
}

var (
	tags       = regexp.MustCompile(`<([a-zA-Z!][a-zA-Z0-9]*)([^>]*)>`)
	attributes = regexp.MustCompile(`([a-zA-Z:-]+)="[^"]*"`)
)

// What a run's data hold is text on the page, whatever it is; and the page runs
// nothing and fetches nothing.
func TestHostileTextIsText(t *testing.T) {
	got := written(t, largeReport())
	elements := map[string]bool{}
	for _, name := range strings.Fields("!doctype html head meta title style body header h1 h2 p span svg rect line polyline text div table tr th td details summary code pre") {
		elements[name] = true
	}
	fetching := map[string]bool{"src": true, "href": true, "action": true, "style": true, "data": true, "srcset": true, "poster": true, "xlink:href": true}
	for _, m := range tags.FindAllStringSubmatch(got, -1) {
		if !elements[m[1]] {
			t.Fatalf("the page has an element %q", m[0])
		}
		for _, a := range attributes.FindAllStringSubmatch(m[2], -1) {
			if fetching[a[1]] || strings.HasPrefix(a[1], "on") {
				t.Fatalf("the page has an attribute %q", m[0])
			}
		}
	}
	if !strings.Contains(got, "&lt;script&gt;alert(1)&lt;/script&gt;") {
		t.Error("the text is not on the page")
	}
	if strings.ContainsAny(got, "\x00") {
		t.Error("the page has a NUL")
	}
	if strings.Contains(style, "url(") || strings.Contains(style, "@import") {
		t.Error("the style fetches")
	}
}

// The policy allows the page's own style and nothing else.
func TestPolicy(t *testing.T) {
	got := written(t, Report{JobID: "a", State: "RUNNING"})
	_, rest, _ := strings.Cut(got, "<style>")
	css, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(css))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
	m := regexp.MustCompile(`Content-Security-Policy" content="([^"]*)"`).FindStringSubmatch(got)
	if m == nil || html.UnescapeString(m[1]) != want {
		t.Errorf("the policy is %q, want %q", m, want)
	}
	if !strings.Contains(got, "No task has ended yet.") || !strings.Contains(got, "Nothing has been published.") {
		t.Errorf("a run without results: %s", got)
	}
}

// The chart has every item once, however long the tasks and the gaps between them are.
func TestBins(t *testing.T) {
	for _, tasks := range [][]manifest.Result{
		{resultAt(0, 0, 0, 7)},
		{resultAt(0, 0, time.Second, 10), resultAt(1, 500*time.Millisecond, time.Second, 10)},
		{resultAt(0, 0, time.Hour, 1000), resultAt(1, 90*24*time.Hour, time.Millisecond, 3)},
		{resultAt(0, 0, 10*365*24*time.Hour, 5)},
		{resultAt(0, 123*time.Millisecond, 59999*time.Millisecond, 60), resultAt(1, time.Minute, 0, 1)},
	} {
		var c Collected
		want := 0.0
		for _, r := range tasks {
			c.Add(r)
			want += float64(r.Items)
		}
		bins, width := c.bins()
		got := 0.0
		for _, b := range bins {
			got += b.Items
		}
		if math.Abs(got-want) > 1e-6*want || len(bins) > maxBins+2 {
			t.Errorf("%d bins of %v have %v items, want %v", len(bins), width, got, want)
		}
	}
	var c Collected
	for i := range 100 {
		c.Add(resultAt(i, 0, time.Duration(i+1)*time.Second, 1))
	}
	if c.quantile(0.5) != 50*time.Second || c.quantile(0.95) != 95*time.Second || c.quantile(1) != 100*time.Second {
		t.Errorf("quantiles %v, %v, %v", c.quantile(0.5), c.quantile(0.95), c.quantile(1))
	}
	if len(c.slowest) != maxSlowest || c.slowest[0].Took != 100*time.Second || c.slowest[maxSlowest-1].Took != 81*time.Second {
		t.Errorf("the slowest are %v", c.slowest)
	}
}

// 002-17 (throughput and errors of each group): the page has both beside the progress of
// the groups, from the results of their tasks.
func TestGroupsOfAReport(t *testing.T) {
	r := largeReport()
	r.Groups = []Group{
		{Name: "initial_batch", Phase: "initial", Tasks: 2, Done: 2, Items: 200, OK: 196, Failed: 4},
		{Name: "retry_batch_1", Phase: "retry", Tasks: 1, Done: 1, Items: 4, OK: 3, Failed: 1},
		{Name: "final_aggregation", Phase: "aggregation", Tasks: 1, Done: 0},
	}
	r.Work = Collected{}
	add := func(i int, group string, from, took time.Duration, items int, failed map[string]int64) {
		res := resultAt(i, from, took, items)
		res.Task.Group = group
		res.Failures = &manifest.Failures{ByClass: failed}
		r.Work.Add(res)
	}
	add(0, "initial_batch", 0, 10*time.Second, 100, map[string]int64{"timeout": 1})
	add(1, "initial_batch", 5*time.Second, 15*time.Second, 100, map[string]int64{"rate_limit": 2, "timeout": 1})
	add(2, "retry_batch_1", time.Minute, 2*time.Second, 4, map[string]int64{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1})
	got := written(t, r)
	for _, want := range []string{
		`<td>initial_batch</td><td class="n">2 / 2</td><td class="n">200</td><td class="n">196</td><td class="n">4</td><td class="n">10</td><td>rate_limit 2, timeout 2</td>`,
		`<td>retry_batch_1</td><td class="n">1 / 1</td><td class="n">4</td><td class="n">3</td><td class="n">1</td><td class="n">2.0</td><td>a 1, b 1, c 1, d 1, e 1, and 2 more</td>`,
		`<td>final_aggregation</td><td class="n">0 / 1</td><td class="n">-</td><td class="n">-</td><td class="n">-</td><td class="n">-</td><td>-</td>`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}
