package coordinator

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// Leftovers calls fn for the objects of a run that no commit names and none ever will:
// what attempts, planners and submissions have left that crashed or came second, and
// snapshots of tasks that have ended. Nothing is looked at by its age. An object is one
// of them only where the commit that could have named it is there and does not: a task's
// data beside its results.done, a group's beside the plan that opened it, a merge's
// beside the outcome. So it may run beside workers, and whenever it is cut off.
//
// Left alone are commits and views, whatever names them or not; definitions, bundles and
// lists of items, which an order may be about to name; and what has no place here, which
// an audit calls strangers. ErrNotFound: there is no such run.
func (c *Coordinator) Leftovers(ctx context.Context, jobID string, fn func(manifest.Object) error) error {
	g := &garbage{c: c, job: manifest.Job(jobID), id: jobID, groups: map[string]*named{}}
	var err error
	if g.plan, _, err = c.Store.Plan(ctx, jobID); err != nil {
		return err
	}
	var all []manifest.Object
	if err := c.Store.Objects.List(ctx, g.job.Prefix(), func(o manifest.Object) error {
		if kind, _ := kindOf(g.job.Rel(o.Key)); kind != keepIt {
			all = append(all, o)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("list %s: %w", g.job.Prefix(), err)
	}
	// Looked at after the listing: a generation that is opened from here on has written
	// nothing of what was listed.
	if err := g.readEnds(ctx); err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b manifest.Object) int { return strings.Compare(a.Key, b.Key) })
	for _, o := range all {
		left, err := g.leftover(ctx, g.job.Rel(o.Key))
		if err == nil && left {
			err = fn(o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// kind is what decides about an object.
type kind int

const (
	keepIt       kind = iota
	ofTask            // results.done of a task
	ofGroup           // the plan that opened a group
	ofRetry           // a retry plan
	ofGeneration      // the outcome of a generation
	ofInput           // plan.json
)

// kindOf says which commit decides about a key, and of what: a task, a group, a number.
func kindOf(rel string) (kind, string) {
	dir, name := path.Split(rel)
	parts := strings.Split(strings.TrimSuffix(dir, "/"), "/")
	switch {
	case len(parts) == 2 && parts[0] == "tasks" && strings.HasPrefix(name, parts[1]+"_"),
		len(parts) == 3 && parts[0] == "tasks" && parts[2] == "checkpoint":
		return ofTask, parts[1]
	case len(parts) == 2 && (parts[0] == "batches" || parts[0] == "groups"):
		return ofGroup, parts[1]
	case len(parts) == 2 && parts[0] == "retries" && strings.HasSuffix(name, ".jsonl"):
		return ofRetry, strings.TrimPrefix(parts[1], "retry-")
	case len(parts) >= 2 && parts[0] == "aggregation" && name != "plan.json":
		return ofGeneration, parts[1]
	case parts[0] == "input":
		return ofInput, ""
	}
	return keepIt, ""
}

// garbage is what commits name of one run, read as it is asked for.
type garbage struct {
	c       *Coordinator
	job     manifest.Job
	id      string
	plan    manifest.Plan
	ended   map[int]*manifest.Outcome // by generation
	current bool                      // the current generation has ended
	task    string                    // whose result was read last
	done    *named
	groups  map[string]*named // also of retry plans and generations, by folder
}

// named is what one commit names; nil where it is not there.
type named struct{ keys map[string]bool }

func (n *named) add(keys ...string) {
	for _, k := range keys {
		n.keys[k] = true
	}
}

func (g *garbage) readEnds(ctx context.Context) error {
	orders, _, err := g.c.Store.Orders(ctx, g.id)
	if err != nil {
		return err
	}
	g.ended = map[int]*manifest.Outcome{}
	for n := range manifest.Current(orders) + 1 {
		o, _, err := g.c.Store.Outcome(ctx, g.id, n)
		if err != nil && !errors.Is(err, hayrick.ErrNotFound) {
			return err
		}
		if g.current = err == nil; g.current {
			g.ended[n] = &o
		}
	}
	return nil
}

// leftover says that no commit names the object, nor ever will.
func (g *garbage) leftover(ctx context.Context, rel string) (bool, error) {
	k, of := kindOf(rel)
	if k == ofTask {
		if g.task != of || g.done == nil {
			n, err := g.ofTask(ctx, of)
			if err != nil {
				return false, err
			}
			g.task, g.done = of, n
		}
		return g.done.keys != nil && !g.done.keys[rel], nil
	}
	id := fmt.Sprint(k, of)
	n, there := g.groups[id]
	if !there {
		var err error
		switch k {
		case ofGroup:
			n, err = g.ofGroup(ctx, of)
		case ofRetry:
			n, err = g.ofRetry(ctx, of)
		case ofGeneration:
			n, err = g.ofGeneration(ctx, of)
		case ofInput:
			n, err = g.ofInput(ctx)
		}
		if err != nil {
			return false, err
		}
		g.groups[id] = n
	}
	return n != nil && n.keys != nil && !n.keys[rel], nil
}

// ofTask is what a task's result names. Without one an attempt may still commit.
func (g *garbage) ofTask(ctx context.Context, task string) (*named, error) {
	res, _, err := g.c.Store.Result(ctx, g.id, task)
	if errors.Is(err, hayrick.ErrNotFound) {
		return &named{}, nil
	}
	if err != nil {
		return nil, err
	}
	n := &named{keys: map[string]bool{}}
	if res.File != nil {
		n.add(*res.File)
	}
	for _, f := range res.Files {
		n.add(f.File)
	}
	if res.Log != nil {
		n.add(res.Log.File)
	}
	if res.Failures != nil {
		n.add(res.Failures.File)
	}
	return n, nil
}

// ofGroup is what the plan names that opened a group. The merges of all generations lie
// in one folder: those of one that is open may still be planned.
func (g *garbage) ofGroup(ctx context.Context, group string) (*named, error) {
	n := &named{keys: map[string]bool{}}
	switch number, isRetry := manifest.RetryNumber(group); {
	case group == hayrick.GroupInitial:
		return n, g.addGroup(ctx, n, 0, g.plan.Group)
	case isRetry:
		p, _, err := g.c.Store.RetryPlan(ctx, g.id, number)
		if errors.Is(err, hayrick.ErrNotFound) {
			return &named{}, nil
		}
		if err != nil || p.Group == nil {
			return n, err
		}
		return n, g.addGroup(ctx, n, p.Generation, *p.Group)
	case group != hayrick.GroupAggregation && group != hayrick.GroupRanges || !g.current:
		return &named{}, nil
	}
	for generation := range len(g.ended) + 1 {
		p, _, err := g.c.Store.AggregationPlan(ctx, g.id, generation)
		if errors.Is(err, hayrick.ErrNotFound) {
			continue
		}
		for _, merges := range []*manifest.Group{p.Group, p.Ranges} {
			if err == nil && merges != nil && merges.Name == group {
				err = g.addGroup(ctx, n, generation, *merges)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (g *garbage) addGroup(ctx context.Context, n *named, generation int, group manifest.Group) error {
	for _, ref := range []*manifest.Ref{group.BlocksRef, group.IndexRef} {
		if ref != nil {
			n.add(ref.Key)
		}
	}
	m, err := g.c.Store.Members(ctx, g.id, generation, group)
	if err != nil {
		return gone(err)
	}
	for i := range m.Blocks() {
		id, _ := m.At(0, i)
		n.add(g.job.Rel(g.job.Block(group.Name, i, id.SHA256)))
	}
	return m.EachIndex(func(ref manifest.IndexRef, i int) error {
		n.add(ref.Key)
		if group.Name == hayrick.GroupInitial {
			return nil // its batches lie in the input
		}
		x, err := m.Index(ctx, g.c.Store, i)
		if err != nil {
			return gone(err)
		}
		for _, b := range x.Batches {
			if rel, ok := strings.CutPrefix(b.Object, manifest.StoreScheme); ok {
				n.add(rel)
			}
		}
		return nil
	})
}

// ofRetry is the lists that a retry plan names.
func (g *garbage) ofRetry(ctx context.Context, number string) (*named, error) {
	at, ok := manifest.RetryNumber("retry_batch_" + number)
	if !ok {
		return &named{}, nil
	}
	p, _, err := g.c.Store.RetryPlan(ctx, g.id, at)
	if errors.Is(err, hayrick.ErrNotFound) {
		return &named{}, nil
	}
	if err != nil {
		return nil, err
	}
	n := &named{keys: map[string]bool{}}
	for _, ref := range []*manifest.Ref{p.ResultsRef, p.PermanentList, p.ExhaustedList} {
		if ref != nil {
			n.add(ref.Key)
		}
	}
	return n, nil
}

// ofGeneration is what the outcome and the merge plan of a generation name.
func (g *garbage) ofGeneration(ctx context.Context, generation string) (*named, error) {
	n := &named{keys: map[string]bool{}}
	for at, o := range g.ended {
		if fmt.Sprint(at) != generation {
			continue
		}
		if o.Aggregation != nil {
			for _, p := range o.Aggregation.Parts {
				n.add(p.Key)
			}
			for _, l := range o.Aggregation.Lists {
				n.add(l.Key)
			}
		}
		p, _, err := g.c.Store.AggregationPlan(ctx, g.id, at)
		if err == nil && p.InputsRef != nil {
			n.add(p.InputsRef.Key)
		}
		if errors.Is(err, hayrick.ErrNotFound) {
			err = nil
		}
		return n, err
	}
	return &named{}, nil
}

// ofInput is the copies that the plan names.
func (g *garbage) ofInput(ctx context.Context) (*named, error) {
	n := &named{keys: map[string]bool{}}
	add := func(in manifest.InputID) error {
		if rel, ok := strings.CutPrefix(in.Object, manifest.StoreScheme); ok {
			n.add(rel)
		}
		return nil
	}
	for _, in := range g.plan.Input {
		if err := add(in); err != nil {
			return nil, err
		}
		for _, member := range in.Objects {
			if err := add(member); err != nil {
				return nil, err
			}
		}
		if in.ObjectsRef != nil {
			n.add(in.ObjectsRef.Key)
			if err := manifest.ReadLines(ctx, g.c.Store, g.id, *in.ObjectsRef, add); err != nil {
				return nil, gone(err)
			}
		}
	}
	return n, nil
}
