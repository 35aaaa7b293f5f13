package web

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// Report is what a page says of a run: plain facts, in the words of its commits.
type Report struct {
	JobID     string
	State     string // in words: SUCCEEDED, RUNNING, ...
	Why       string // of a pause or a failure; "" otherwise
	Well      bool   // nobody has to look
	Submitted time.Time
	Until     time.Time // its end; of a run that goes on, when it was looked at
	Ended     bool
	Made      time.Time
	By        string // the version that made the page

	Items, OK, Failed, Permanent, Exhausted, Unfinished int64

	Rows    int64
	RowHash string

	Groups  []Group
	Work    Collected
	Classes []Class
	Orders  []Order

	Facts     []Fact // where it came from: job file, digests, versions
	Inputs    []Input
	Outputs   []Output
	Commands  []Fact // to look on, to prove, to do it again
	OutputURI string
}

// Group is one task group.
type Group struct {
	Name, Phase                    string
	Tasks, Done, Items, OK, Failed int64

	PerSecond, Failures string // that its results tell; filled in
}

// Class is the failed items of a class in a state.
type Class struct {
	Name, State, Helps, Command string
	Items, Tasks                int64
	Samples                     []Sample
}

// Sample is one failed item.
type Sample struct {
	Ordinal            int64
	Key, Message, Task string
}

// Order is what a person or a rule ordered.
type Order struct {
	What, By, Reason string
	At               time.Time
}

// Fact is a name and what it is.
type Fact struct{ Name, Value string }

// Input is an object that was read.
type Input struct {
	URI, Pin string
	Items    int64
}

// Output is a file that was published.
type Output struct {
	Path, SHA256, What string
	Bytes              int64
}

//go:embed report.html
var page string

//go:embed report.css
var style string

var reportPage = template.Must(template.New("report").Funcs(template.FuncMap{
	"number": humanize.Comma, "size": func(n int64) string { return humanize.IBytes(uint64(max(0, n))) },
	"time": inUTC, "ago": ago, "text": shortText, "more": func(n int64, shown int) bool { return n > int64(shown) },
}).Parse(page))

// Write makes the page. It runs no script, and its policy lets a browser fetch nothing.
func (r Report) Write(w io.Writer) error {
	sum := sha256.Sum256([]byte(style))
	v := view{
		Report: r, Style: template.CSS(style), Speed: speedOf(&r.Work), Stack: stackOf(r),
		Policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'",
	}
	v.Groups = slices.Clone(r.Groups)
	for i := range v.Groups {
		g := &v.Groups[i]
		g.PerSecond, g.Failures = r.Work.groups[g.Name].perSecond(), r.Work.groups[g.Name].failures()
	}
	v.Slowest = r.Work.slowest
	v.Median, v.P95, v.Longest = r.Work.quantile(0.5), r.Work.quantile(0.95), r.Work.quantile(1)
	v.Metrics, v.MetricsCut = metricsOf(r.Work.metrics)
	v.Classes, v.ClassesCut = firstFew(r.Classes, maxClasses, "line")
	v.Orders, v.OrdersCut = firstFew(r.Orders, maxOrders, "order")
	v.Inputs, v.InputsCut = firstFew(r.Inputs, maxInputs, "object")
	v.Outputs, v.OutputsCut = firstFew(r.Outputs, maxOutputs, "file")
	v.Slow = firstOf(len(v.Slowest), int64(len(r.Work.tooks)), "task")
	for i := range v.Classes {
		v.Classes[i].Samples = v.Classes[i].Samples[:min(maxSamples, len(v.Classes[i].Samples))]
	}
	if err := reportPage.Execute(w, v); err != nil {
		return fmt.Errorf("write the report of %s: %w", r.JobID, err)
	}
	return nil
}

// view is a Report with all that is drawn worked out.
type view struct {
	Report
	Style  template.CSS
	Policy string

	Stack []part
	Speed speed

	Slowest              []slowTask
	Slow                 string
	Median, P95, Longest time.Duration
	Metrics              []Fact
	MetricsCut           string

	ClassesCut, OrdersCut, InputsCut, OutputsCut string
}

// part is a part of the bar of items.
type part struct {
	Word, Mark string // Mark: its pattern in the style
	N          int64
	X, Width   string // of 1000
	Share      string
}

func stackOf(r Report) (out []part) {
	x := 0.0
	for _, s := range []part{
		{Word: "ok", Mark: "ok", N: r.OK}, {Word: "permanent", Mark: "permanent", N: r.Permanent}, {Word: "exhausted", Mark: "exhausted", N: r.Exhausted},
		{Word: "failed, not judged yet", Mark: "failed", N: r.Failed}, {Word: "not ended", Mark: "left", N: r.Unfinished},
	} {
		if s.N <= 0 || r.Items <= 0 {
			continue
		}
		share := float64(s.N) / float64(r.Items)
		s.X, s.Width = coord(x), coord(share*1000)
		s.Share = percent(share)
		x += share * 1000
		out = append(out, s)
	}
	return out
}

// percent rounds, but never to all or nothing what is neither.
func percent(share float64) string {
	switch {
	case share > 0 && share < 0.001:
		return "< 0.1 %"
	case share < 1 && share > 0.999:
		return "> 99.9 %"
	}
	return strconv.FormatFloat(share*100, 'f', 1, 64) + " %"
}

// speed is the throughput as it is drawn.
type speed struct {
	Bars   []bar
	Width  time.Duration
	Most   float64 // items a second, in the best bin
	Mean   float64
	Points string // of the line of tasks at work
	AtWork float64
}

type bar struct {
	From             time.Time
	PerSecond, Tasks string
	X, Y, W, H       string
}

// The frame of the chart.
const (
	chartWidth  = 1000.0
	chartHeight = 160.0
)

func speedOf(c *Collected) (s speed) {
	bins, width := c.bins()
	s.Width = width
	if len(bins) == 0 {
		return s
	}
	total := 0.0
	for _, b := range bins {
		s.Most = max(s.Most, b.Items/width.Seconds())
		s.AtWork = max(s.AtWork, b.Tasks)
		total += b.Items
	}
	s.Mean = total / (float64(len(bins)) * width.Seconds())
	w := chartWidth / float64(len(bins))
	var points []string
	for i, b := range bins {
		rate := b.Items / width.Seconds()
		h := 0.0
		if s.Most > 0 {
			h = rate / s.Most * chartHeight
		}
		s.Bars = append(s.Bars, bar{
			From: b.From, PerSecond: decimal(rate), Tasks: decimal(b.Tasks),
			X: coord(float64(i) * w), Y: coord(chartHeight - h), W: coord(max(0.5, w-0.5)), H: coord(h),
		})
		y := chartHeight
		if s.AtWork > 0 {
			y -= b.Tasks / s.AtWork * chartHeight
		}
		points = append(points, coord((float64(i)+0.5)*w)+","+coord(y))
	}
	s.Points = strings.Join(points, " ")
	return s
}

// Summary is the chart in words.
func (s speed) Summary() string {
	return fmt.Sprintf("%s items a second on average, %s at best; up to %s tasks at once; a bar is %s. The items of a task are spread evenly over its time.",
		decimal(s.Mean), decimal(s.Most), decimal(s.AtWork), ago(s.Width))
}

func metricsOf(m map[string]int64) (out []Fact, cut string) {
	names := slices.Collect(maps.Keys(m))
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
	for _, n := range names[:min(maxMetrics, len(names))] {
		out = append(out, Fact{n, humanize.Comma(m[n])})
	}
	cut = firstOf(len(out), int64(len(names)), "metric")
	if len(names) >= knownMetrics {
		cut = fmt.Sprintf("showing %d of %d metrics or more: those whose names came later are left out", len(out), len(names))
	}
	return out, cut
}

// firstFew is the first of a list, and what to say of the rest.
func firstFew[T any](list []T, most int, thing string) ([]T, string) {
	shown := slices.Clone(list[:min(most, len(list))])
	return shown, firstOf(len(shown), int64(len(list)), thing)
}

// firstOf says that not all is shown; "" when all is.
func firstOf(shown int, all int64, thing string) string {
	if int64(shown) >= all {
		return ""
	}
	return fmt.Sprintf("showing %d of %s %ss", shown, humanize.Comma(all), thing)
}

func coord(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

func decimal(v float64) string {
	if v < 10 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return humanize.Comma(int64(v + 0.5))
}

func inUTC(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	if t.Nanosecond() != 0 {
		return t.UTC().Format("2006-01-02 15:04:05.000 UTC")
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// shortText is a text no longer than a table holds, with a mark where it was cut.
func shortText(s string) string {
	if utf8.RuneCountInString(s) <= maxText {
		return s
	}
	return string([]rune(s)[:maxText]) + " … (cut)"
}

// ago is how long d is, as people say it.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'g', 3, 64) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%d m %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d m", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}
