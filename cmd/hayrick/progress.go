package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"hayrick"
	"hayrick/coordinator"
)

// progress shows how a run gets on: on a terminal a block that is drawn anew, else
// a whole line at each change of group and now and then; never both.
type progress struct {
	*cli
	grants func() map[string]int64 // tokens of each rate so far; nil = nobody counts them here
	start  time.Time
	lines  bool // never a block

	seen   []sample // the last few, for the speed
	shown  string   // the group of the last line
	nextAt time.Time
	wait   time.Duration
}

// sample is what was known at a time.
type sample struct {
	at    time.Time
	group string
	ended int64
	rates map[string]int64
}

const (
	speedOver    = 10 * time.Second // the speed is that of so long
	firstQuiet   = 5 * time.Second
	longestQuiet = 30 * time.Second
)

func newProgress(c *cli, grants func() map[string]int64) *progress {
	if c.quiet || c.json {
		return nil
	}
	now := c.world.Clock.Now()
	return &progress{cli: c, grants: grants, start: now, wait: firstQuiet, nextAt: now.Add(firstQuiet)}
}

func (p *progress) show(k *coordinator.Known, d coordinator.Decision) {
	now := p.world.Clock.Now()
	t := tallyOf(k)
	group := phaseOf(k)
	ended := t.ended()
	if i := slices.IndexFunc(t.Groups, func(g groupTally) bool { return g.Open }); i >= 0 {
		ended = t.Groups[i].OK + t.Groups[i].Failed
	}
	s := sample{now, group, ended, nil}
	if p.grants != nil {
		s.rates = p.grants()
	}
	p.seen = append(slices.DeleteFunc(p.seen, func(o sample) bool { return o.group != group || now.Sub(o.at) > speedOver }), s)
	if p.errTTY && !p.lines && p.get("TERM") != "dumb" {
		p.screen.draw(p.block(k, d, t, now))
		return
	}
	if group == p.shown && now.Before(p.nextAt) {
		return
	}
	if group == p.shown {
		p.wait = min(2*p.wait, longestQuiet)
	}
	p.shown, p.nextAt = group, now.Add(p.wait)
	p.tell("%s  %s  %s  %s", ago(now.Sub(p.start)), k.Plan.JobID, p.where(k, t), p.line(t))
}

// phaseOf is where a run is, in one word.
func phaseOf(k *coordinator.Known) string {
	switch {
	case k.Outcome != nil:
		return k.Outcome.Status
	case k.Open != nil:
		return k.Open.Name
	case k.Opening != nil && len(k.Retries) == 0:
		return k.Opening.Order
	}
	return hayrick.GroupAggregation
}

// where is the group with its tasks.
func (p *progress) where(k *coordinator.Known, t tally) string {
	for _, g := range t.Groups {
		if g.Open {
			return fmt.Sprintf("%s %s/%s tasks", g.Group, number(g.Done), number(g.Tasks))
		}
	}
	return phaseOf(k)
}

func (p *progress) line(t tally) string {
	s := fmt.Sprintf("%s/%s items  ok %s  failed %s  permanent %s", number(t.ended()), number(t.Items), number(t.OK), number(t.Failed), number(t.Permanent))
	if t.Exhausted > 0 {
		s += "  exhausted " + number(t.Exhausted)
	}
	speed, left := p.speed(t)
	return s + speed + left
}

// speed is items a second of late, and how long the open group takes at it.
func (p *progress) speed(t tally) (speed, left string) {
	first, last := p.seen[0], p.seen[len(p.seen)-1]
	took := last.at.Sub(first.at)
	if took < time.Second || last.ended <= first.ended {
		return "", ""
	}
	perSecond := float64(last.ended-first.ended) / took.Seconds()
	for _, g := range t.Groups {
		if g.Open && g.Items > last.ended {
			left = "  eta " + ago(time.Duration(float64(g.Items-last.ended)/perSecond*float64(time.Second)))
		}
	}
	return fmt.Sprintf("  %s/s", decimal(perSecond)), left
}

// decimal is a speed with as many digits as mean something.
func decimal(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return number(int64(v))
}

const barWidth = 24

// block is what is drawn on a terminal.
func (p *progress) block(k *coordinator.Known, d coordinator.Decision, t tally, now time.Time) []string {
	full := 0
	if t.Items > 0 {
		full = int(int64(barWidth) * t.ended() / t.Items)
	}
	bar := "[" + string(p.paint(green, strings.Repeat("#", full))) + strings.Repeat(" ", barWidth-full) + "] "
	if p.width() < 3*barWidth {
		bar = "" // the numbers say more
	}
	speed, left := p.speed(t)
	lines := []string{
		fmt.Sprintf("%s  %s  %s%s", p.paint(bold, k.Plan.JobID), p.where(k, t), ago(now.Sub(p.start)), left),
		fmt.Sprintf("  items  %s%s/%s%s", bar, number(t.ended()), number(t.Items), speed),
		fmt.Sprintf("  ended  ok %s  failed %s  permanent %s  exhausted %s", number(t.OK), number(t.Failed), number(t.Permanent), number(t.Exhausted)),
	}
	if r := p.ratesLine(k); r != "" {
		lines = append(lines, "  rates  "+r)
	}
	lines = append(lines, groupLines(t)...)
	if again := triedAgain(k); again != "" {
		lines = append(lines, "  tried again for  "+again)
	}
	if d.Status == hayrick.StatusPaused {
		lines = append(lines, "  paused")
	}
	return lines
}

// shownGroups is how many groups a block has lines for.
const shownGroups = 6

// groupLines is a line for each group, of many for the last few; none while there is one
// group, which the block names anyway.
func groupLines(t tally) (lines []string) {
	groups := t.Groups
	if len(groups) < 2 {
		return nil
	}
	if over := len(groups) - shownGroups; over > 0 {
		lines = append(lines, "  "+count(int64(over), "group")+" before these")
		groups = groups[over:]
	}
	for _, g := range groups {
		line := fmt.Sprintf("  %-11s  %-17s  tasks %s/%s", g.Phase, g.Group, number(g.Done), number(g.Tasks))
		if g.Items > 0 {
			line += fmt.Sprintf("  items %s  ok %s  failed %s", number(g.Items), number(g.OK), number(g.Failed))
		}
		lines = append(lines, line)
	}
	return lines
}

// triedAgain is the classes of the failures that retry groups were made for, which the
// plans of these groups say; those of the open group are not read for it.
func triedAgain(k *coordinator.Known) string {
	n := map[string]int64{}
	for _, r := range k.Retries {
		for class, items := range r.ErrorTypes {
			n[class] += items
		}
	}
	return plain(tallied(n))
}

// ratesLine is what each rate of the job granted of late, in this process.
func (p *progress) ratesLine(k *coordinator.Known) string {
	if p.grants == nil {
		return ""
	}
	first, last := p.seen[0], p.seen[len(p.seen)-1]
	took := last.at.Sub(first.at).Seconds()
	var out []string
	for _, r := range k.Definition.Rates {
		var perSecond float64
		if took > 0 {
			perSecond = float64(last.rates[r.Name]-first.rates[r.Name]) / took
		}
		limit, _ := r.Limit.MarshalText()
		each := ""
		if r.Key != "" {
			each = " each"
		}
		out = append(out, fmt.Sprintf("%s %s/s of %s%s", r.Name, decimal(perSecond), limit, each))
	}
	return strings.Join(out, "  ")
}
