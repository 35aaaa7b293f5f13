package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"hayrick"
)

// A job that has ended is opened again by an order: redrive runs items again, merge
// only merges. The order names the generation that it opens; the first one to do so
// counts, and any other for that generation is void.

// Opens says that the order opens its generation, or takes its place.
func (c Control) Opens() bool {
	return c.Order == OrderRedrive || c.Order == OrderMerge || c.Order == OrderPurge
}

// Opening is the order that opened a generation; nil = none has, or it is the first.
func Opening(orders []Control, generation int) *Control {
	if generation < 1 {
		return nil
	}
	if i := slices.IndexFunc(orders, func(c Control) bool { return c.Opens() && c.Generation == generation }); i >= 0 {
		return &orders[i]
	}
	return nil
}

// Current is the newest generation that the orders have opened.
func Current(orders []Control) int {
	g := 0
	for Opening(orders, g+1) != nil {
		g++
	}
	return g
}

// Takes says that the order runs again an item that a plan has given up. list is the
// published list that it is on. Items that had no end run again whatever the order
// says: a job that SUCCEEDED has none. An order that names nothing takes what is
// exhausted, and with PermanentToo all. What it names it takes from either.
// sorted has the ordinals that it names.
func (c Control) Takes(l ListLine, exhausted bool, list string, sorted []int64) bool {
	if c.Order != OrderRedrive {
		return false
	}
	if c.PermanentToo || slices.Contains(c.Classes, l.Class) || slices.Contains(c.Lists, list) {
		return true
	}
	if _, named := slices.BinarySearch(sorted, l.Ordinal); named {
		return true
	}
	return exhausted && !c.Names()
}

// Names says that the order names what it takes.
func (c Control) Names() bool {
	return len(c.Classes) > 0 || len(c.Lists) > 0 || len(c.Ordinals) > 0 || c.OrdinalsRef != nil
}

// ListName is the published list of an item that was given up: by class, or the
// general one.
func ListName(lists map[string]string, class string, exhausted bool) string {
	if exhausted {
		return "exhausted"
	}
	if n, ok := lists[class]; ok {
		return n
	}
	return "permanent"
}

// OrdinalsOf reads the ordinals that an order names, ascending.
func (s *Store) OrdinalsOf(ctx context.Context, c Control) ([]int64, error) {
	if c.OrdinalsRef == nil {
		return c.Ordinals, nil
	}
	var out []int64
	err := ReadLines(ctx, s, c.JobID, *c.OrdinalsRef, func(n int64) error {
		out = append(out, n)
		return nil
	})
	return out, err
}

// PlanOf is the submission as it stands in a generation: with the definition and the
// bundle that the orders which opened it, and those before it, have put in place of the
// submitted ones. ErrNotFound: there is no such job, or the generation is not open.
func (s *Store) PlanOf(ctx context.Context, job string, generation int) (Plan, error) {
	p, _, err := s.Plan(ctx, job)
	if err != nil || generation == 0 {
		return p, err
	}
	orders, _, err := s.Orders(ctx, job)
	if err != nil {
		return p, err
	}
	if Current(orders) < generation {
		return p, fmt.Errorf("open generation %d of %s: %w", generation, job, hayrick.ErrNotFound)
	}
	return p.In(orders, generation), nil
}

// In is PlanOf where the orders are at hand.
func (p Plan) In(orders []Control, generation int) Plan {
	for g := 1; g <= generation; g++ {
		o := Opening(orders, g)
		if o == nil {
			break
		}
		if o.DefinitionSHA256 != "" {
			p.DefinitionSHA256 = o.DefinitionSHA256
		}
		if o.BundleSHA256 != "" {
			code, _, _ := strings.Cut(p.CodeVersion, "+")
			p.BundleSHA256, p.CodeVersion = o.BundleSHA256, code+"+"+Short(o.BundleSHA256)
		}
	}
	return p
}

// Past is what the retry plans of a job say up to a generation, in their order: of
// a generation that has ended, those that its outcome names. A plan that nobody names
// came after the end and is void.
type Past struct {
	Plans []RetryPlan
	Links []Link
}

// Past reads the past of a job. Of the generation itself it has what is there.
func (s *Store) Past(ctx context.Context, job string, generation int) (h Past, err error) {
	named := make([]map[string]string, generation)
	for g := range named {
		o, _, err := s.Outcome(ctx, job, g)
		if err != nil {
			return h, err
		}
		named[g] = o.Chain
	}
	for n := 1; ; n++ {
		p, sha, err := s.RetryPlan(ctx, job, n)
		if errors.Is(err, hayrick.ErrNotFound) {
			return h, s.last(ctx, Job(job).RetryPlan(n), Job(job).RetryPlan(n+1))
		}
		if err != nil {
			return h, err
		}
		l := link(Job(job), Job(job).RetryPlan(n), sha)
		if p.Generation < 0 || p.Generation > generation || p.Generation < generation && named[p.Generation][l.Key] != sha {
			continue
		}
		h.Plans, h.Links = append(h.Plans, p), append(h.Links, l)
	}
}

// Of is the plans of one generation.
func (h Past) Of(generation int) (plans []RetryPlan, links []Link) {
	for i, p := range h.Plans {
		if p.Generation == generation {
			plans, links = append(plans, p), append(links, h.Links[i])
		}
	}
	return plans, links
}

// Last is the plans of the newest generation that has any: their lists hold every item
// that is given up.
func (h Past) Last() []RetryPlan {
	if len(h.Plans) == 0 {
		return nil
	}
	plans, _ := h.Of(h.Plans[len(h.Plans)-1].Generation)
	return plans
}

// Open is the group that no plan has closed, and the generation of its tasks; nil when
// all groups are closed.
func (h Past) Open(p Plan) (*Group, int) {
	if len(h.Plans) == 0 {
		return &p.Group, 0
	}
	last := h.Plans[len(h.Plans)-1]
	return last.Group, last.Generation
}

// Groups is every group of worker tasks, each with the generation of its tasks.
func (h Past) Groups(p Plan) (groups []Group, generations []int) {
	groups, generations = []Group{p.Group}, []int{0}
	for _, r := range h.Plans {
		if r.Group != nil {
			groups, generations = append(groups, *r.Group), append(generations, r.Generation)
		}
	}
	return groups, generations
}

// ClosedIn is the generation of the tasks whose results the i-th plan names.
func (h Past) ClosedIn(i int) int {
	for j := i - 1; j >= 0; j-- {
		if h.Plans[j].Group != nil && h.Plans[j].Group.Name == h.Plans[i].Closed {
			return h.Plans[j].Generation
		}
	}
	return 0
}

// TaskNumber is n of a worker task's id.
func TaskNumber(id string) (int64, bool) {
	digits, ok := strings.CutPrefix(id, "task-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil && TaskID(n) == id
}
