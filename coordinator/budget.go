package coordinator

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"hayrick"
	"hayrick/cost"
	"hayrick/manifest"
)

// Money is how a store that costs something is judged.
type Money struct {
	Prices   cost.Prices
	Function cost.Function // that works on the store's tasks, as far as this process knows
}

// RuleBudget and RuleWall begin the rules of the pauses that a budget gives. The limit
// is part of the rule, so that a raised one is watched again.
const (
	RuleBudget = "budget-"
	RuleWall   = "wall-"
)

// ByBudget says that a rule is one of these.
func ByBudget(rule string) bool {
	return strings.HasPrefix(rule, RuleBudget) || strings.HasPrefix(rule, RuleWall)
}

// BudgetOf is the budget in force, nil when there is none.
func BudgetOf(k *Known, effect Effect) *hayrick.Budget {
	if effect.Budget != nil {
		return effect.Budget
	}
	return k.Definition.Budget
}

// overBudget is the pause of a run that would pass its budget.
func overBudget(k *Known, effect Effect, now time.Time) *manifest.Control {
	b := BudgetOf(k, effect)
	if b == nil {
		return nil
	}
	id := k.Plan.JobID
	pause := func(rule, because, more string) *manifest.Control {
		if effect.Given(rule, "") { // and a person has resumed it since
			return nil
		}
		return &manifest.Control{
			JobID: id, Order: manifest.OrderPause, Generation: k.Generation, Rule: rule,
			Reason: fmt.Sprintf("%s; go on with `hayrick resume %s %s`, or `hayrick cancel %s`", because, id, more, id),
		}
	}
	if wall := b.Wall.D(); wall > 0 {
		if took := worked(k, effect, now); took > wall {
			text, _ := b.Wall.MarshalText()
			return pause(RuleWall+string(text), fmt.Sprintf("the run has taken %v, and budget.wall is %s", took.Round(time.Second), text), "--wall <more>")
		}
	}
	if b.USD > 0 && k.Money != nil {
		if spent := Spent(k, effect, now); spent.High > b.USD {
			return pause(RuleBudget+strconv.FormatFloat(b.USD, 'g', -1, 64),
				fmt.Sprintf("the run has cost up to $%.4f with what is in hand and what comes in the next minute, and budget.usd is %g", spent.High, b.USD), "--budget <more>")
		}
	}
	return nil
}

// worked is how long the generation has been under way, without its pauses.
func worked(k *Known, effect Effect, now time.Time) time.Duration {
	return max(0, now.Sub(k.Since())-effect.Rested(now))
}

// Since is when the generation began: with the submission, or the order that opened it.
func (k *Known) Since() time.Time {
	if k.Opening != nil {
		return k.Opening.At.Time
	}
	return k.Plan.SubmittedAt.Time
}

// Spent estimates what the generation has cost by now, on a store that costs something:
// the counts of what its commits and progress records say has been done. What is in hand
// is counted as done, and what may be done until somebody looks again.
func Spent(k *Known, effect Effect, now time.Time) cost.Dollars {
	if k.Money == nil {
		return cost.Dollars{}
	}
	j := CostOf(k, worked(k, effect, now), k.Money.Function)
	return cost.Estimate(j, j, j, k.Money.Prices).USD
}

// ahead is how long it may be until somebody looks again: by then the run must not have
// passed its budget.
const ahead = time.Minute

// CostOf is a run as the cost package counts it, so far and until the next look: with
// the rows of every task, since no record says which have none, and followed as closely
// as anybody follows it.
func CostOf(k *Known, took time.Duration, f cost.Function) cost.Job {
	parallel := int64(max(k.Definition.Run.MaxParallel, 1))
	j := cost.Job{
		Exists: k.Definition.Output.IfExists, Processes: 1, Function: f,
		Time:   cost.Times{Low: took, Expected: took, High: took},
		Follow: cost.Follow{Fastest: 2 * time.Second, Slowest: 30 * time.Second},
		Submit: cost.Submit{Earlier: int64(k.Plan.Job.Run)},
	}
	if k.Plan.BundleSHA256 != "" && k.Opening == nil {
		j.Submit.Bundle = 1
	}
	for _, in := range k.Plan.Input {
		if k.Opening != nil {
			break // it was indexed when the job was submitted
		}
		if in.URI == "" { // the handler listed them
			j.Submit.Copied = max(in.Length(), 1)
			continue
		}
		j.Submit.Files, j.Submit.Folder = 1, manifest.IsFolder(in.URI)
		object := in.Object
		if len(in.Objects) > 0 {
			j.Submit.Files, object = int64(len(in.Objects)), in.Objects[0].Object
		}
		if in.ObjectsRef != nil {
			j.Submit.Files = in.ObjectsRef.Count
		}
		if strings.HasPrefix(object, manifest.StoreScheme) || in.ObjectsRef != nil {
			j.Submit.Copied = max(in.Length(), 1)
		}
	}
	var messages int64
	add := func(g manifest.Group, done int64) {
		messages += done
		j.Groups = append(j.Groups, cost.Group{Planned: g.Tasks, Items: g.Items, Tasks: done, Rows: done})
	}
	done := func(planned int64) int64 { return planned }
	if k.Open != nil {
		var ended int64
		for _, r := range k.Open.Records {
			if r.Level == 0 {
				ended += int64(r.Done.Count())
			}
		}
		soon := float64(ended) * min(ahead.Seconds()/max(took.Seconds(), 1e-3), 1e6)
		done = func(planned int64) int64 { return min(planned, ended+parallel+int64(soon)) }
	}
	atWork := k.Open != nil && k.Open.Name != hayrick.GroupAggregation
	close := func(r manifest.RetryPlan) {
		g := &j.Groups[len(j.Groups)-1]
		g.Closed, g.Failed = true, min(g.Tasks, r.Items+r.Permanent+r.Exhausted)
		for _, l := range []*manifest.Ref{r.PermanentList, r.ExhaustedList} {
			if l != nil {
				g.Lists++
				j.Lists++
			}
		}
	}
	var groups []manifest.Group
	closers := k.Retries // of the groups, in order
	if k.Opening == nil {
		groups = []manifest.Group{k.Plan.Group}
	} else {
		j.Redrive = &cost.Redrive{}
		if len(closers) > 0 {
			j.Redrive.Batches, closers = closers[0].Items, closers[1:]
		}
	}
	for _, r := range k.Retries {
		if r.Group != nil {
			groups = append(groups, *r.Group)
		}
	}
	for i, g := range groups {
		n := g.Tasks
		if atWork && i == len(groups)-1 {
			n = done(g.Tasks)
		}
		add(g, n)
		if i < len(closers) {
			close(closers[i])
		}
	}
	if a := k.Aggregation; a != nil {
		var m cost.Merge
		for _, g := range groups {
			m.Results += g.Tasks
		}
		if k.Opening != nil { // it merges the results of every generation
			m.Results = max(m.Results, int64(len(a.Inputs)))
			if a.InputsRef != nil {
				m.Results = a.InputsRef.Count
			}
		}
		if a.Rows > 0 {
			m.Rows = m.Results
		}
		for _, in := range a.Inputs {
			m.Bytes += in.Bytes
		}
		if a.Group != nil {
			m.Nodes, m.Parts = a.Group.Tasks, 1
			m.Done = m.Nodes
			if k.Open != nil {
				m.Done = done(m.Nodes)
			}
		}
		if a.Ranges != nil {
			m.Ranges = a.Ranges.Tasks
			if m.Done == m.Nodes { // of its second level nothing is known until the end
				m.RangesDone = m.Ranges
			}
		}
		messages += m.Done + m.RangesDone
		j.Merge, j.Publish = &m, k.Outcome != nil
	}
	if o := k.Outcome; o != nil && o.Aggregation != nil && j.Merge != nil {
		j.Merge.Parts, j.Lists, j.Merge.Bytes = int64(len(o.Aggregation.Parts)), int64(len(o.Aggregation.Lists)), 0
		for _, p := range o.Aggregation.Parts {
			j.Merge.Bytes += p.Bytes
		}
	}
	// No more work can have been done than there was time for, on all of parallel.
	if messages > 0 {
		each := time.Duration(float64(took) * float64(parallel) / float64(messages))
		for i := range j.Groups {
			j.Groups[i].Attempt = cost.Times{Expected: each / 2, High: each}
		}
	}
	return j
}
