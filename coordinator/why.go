package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// Why there is what there is to run, in the words of plan, redrive, inspect and explain:
// they are derived from the same commits that the planners read.

// WhyNew is why the batches of a submission run.
const WhyNew = "all items are new"

// WhyGroup is why a retry plan opened its group, or none; order is the one that opened
// its generation, nil of the first.
func WhyGroup(p manifest.RetryPlan, order *manifest.Control) string {
	classes := Classes(p.ErrorTypes)
	switch {
	case p.Control != nil && order != nil && p.Group == nil:
		return fmt.Sprintf("nothing runs again: %s", WhyOrder(*order))
	case p.Control != nil && order != nil:
		return fmt.Sprintf("%s: %s", WhyOrder(*order), classes)
	case p.Group == nil:
		return "nothing is left to retry after " + p.Closed
	}
	return fmt.Sprintf("retry of what failed in %s: %s", p.Closed, classes)
}

// WhyOrder is what an order that opens a generation asks for.
func WhyOrder(o manifest.Control) string {
	verb := map[string]string{manifest.OrderRedrive: "redriven", manifest.OrderMerge: "merged again", manifest.OrderPurge: "purged"}[o.Order]
	s := fmt.Sprintf("%s by order %d", verb, o.N)
	if takes := Taken(o); takes != "" {
		s += " (" + takes + ")"
	}
	return s
}

// Taken is what a redrive takes, in words.
func Taken(o manifest.Control) string {
	var parts []string
	if len(o.Classes) > 0 {
		parts = append(parts, "class "+strings.Join(o.Classes, ", "))
	}
	if len(o.Lists) > 0 {
		parts = append(parts, "list "+strings.Join(o.Lists, ", "))
	}
	n := int64(len(o.Ordinals))
	if o.OrdinalsRef != nil {
		n = o.OrdinalsRef.Count
	}
	switch {
	case o.Order != manifest.OrderRedrive:
	case n == 1:
		parts = append(parts, "1 named item")
	case n > 0:
		parts = append(parts, fmt.Sprintf("%d named items", n))
	case o.PermanentToo:
		parts = append(parts, "all that did not end ok")
	case len(parts) == 0:
		parts = append(parts, "what was exhausted")
	}
	return strings.Join(parts, " and ")
}

// WhyItem is why an item is in a batch of a retry group: its failures in the groups of
// the generation before, or the order.
func WhyItem(classes []string, p manifest.RetryPlan, order *manifest.Control) string {
	switch {
	case p.Control != nil && order != nil:
		return WhyOrder(*order)
	case len(classes) == 0:
		return "retried"
	}
	return fmt.Sprintf("retry of %s in %s", classes[len(classes)-1], p.Closed)
}

// WhyOpen is why a task that has no result will run, and when.
func WhyOpen(c *hayrick.Claim, alive bool) string {
	switch {
	case c == nil:
		return "will run: nobody has had it in hand"
	case alive:
		return fmt.Sprintf("runs: attempt %d, in hand of %s", c.Fence, c.Worker)
	case c.Vanished > 0:
		return fmt.Sprintf("will run again: %d of %d attempts vanished", c.Vanished, c.Fence)
	}
	return fmt.Sprintf("will run again: attempt %d handed it back", c.Fence)
}

// Classes is counts by class, the most frequent first.
func Classes(n map[string]int64) string {
	keys := slices.SortedFunc(maps.Keys(n), func(a, b string) int {
		if n[a] != n[b] {
			return int(min(1, max(-1, n[b]-n[a])))
		}
		return strings.Compare(a, b)
	})
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = fmt.Sprintf("%d %s", n[k], k)
	}
	return strings.Join(parts, ", ")
}
