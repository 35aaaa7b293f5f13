package infra

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hayrick"
)

// Deployer carries out what DecideUp and DecideDown say: read the facts, decide, do one
// step, again. A crash between any two of them loses nothing but the waiting.
type Deployer struct {
	Stacks     Stacks
	ChangeSets ChangeSets
	Data       Data
	Clock      hayrick.Clock

	// Confirm is asked once, before anything is changed; an error ends it there.
	Confirm func(because string, changes []Change) error
	// Tell hears of each event once, and of steps that have none.
	Tell func(Event)
}

// ErrLookedOnly is what Confirm answers who only wants to see.
var ErrLookedOnly = errors.New("nothing was changed")

// poll is how often a stack is looked at while it changes.
const poll = 3 * time.Second

// Up brings a store up to date and returns its stack.
func (d *Deployer) Up(ctx context.Context, u Upkeep) (*Existing, error) {
	confirmed, set := false, "" // set is the change set that was shown
	for {
		var err error
		if u.Stack, err = d.Stacks.Look(ctx, StackName(u.Store)); err != nil {
			return nil, err
		}
		if u.CodeKey != "" && standingOf(u.Stack) == ready {
			if u.CodeStored, err = d.Data.Has(ctx, u.CodeKey); err != nil {
				return nil, err
			}
		}
		p, err := DecideUp(u)
		if err != nil {
			return nil, err
		}
		if !confirmed && p.Do != Follow && p.Do != Done {
			var changes []Change
			if set, changes, err = d.changes(ctx, u, p); err != nil {
				return nil, err
			}
			if u.Current = set == "" && changes == nil; !u.Current {
				if err := d.Confirm(p.Because, changes); err != nil {
					return u.Stack, errors.Join(err, d.drop(ctx, set))
				}
			}
			confirmed = true
			continue // people take their time: what was decided is decided again
		}
		switch p.Do {
		case Done:
			return u.Stack, nil
		case Follow:
			_, err = d.follow(ctx, u.Stack, "", 0)
		case Remove:
			err = d.remove(ctx, u.Stack)
		case PutCode:
			d.Tell(Event{Resource: u.CodeKey, Type: "the function's zip", Status: "UPLOAD"})
			err = d.Data.PutCode(ctx, u.CodeKey)
		case Create, Update:
			err = d.change(ctx, u, p, set)
			set, u.Current = "", p.Do == Update
		}
		if err != nil {
			return u.Stack, err
		}
	}
}

// changes are what is shown before the first step; nil = there is nothing to change. Of a
// stack that is to be made they come from the template alone: that leaves no trace.
func (d *Deployer) changes(ctx context.Context, u Upkeep, p Plan) (set string, changes []Change, err error) {
	if p.Do == Create || p.Do == Remove {
		v, err := u.values(u.CodeKey)
		if err != nil {
			return "", nil, err
		}
		changes, err = Additions(v)
		return "", changes, err
	}
	return d.ChangeSets.Prepare(ctx, StackName(u.Store), false, Template(), p.Values)
}

func (d *Deployer) drop(ctx context.Context, set string) error {
	if set == "" {
		return nil
	}
	return d.ChangeSets.Drop(ctx, set)
}

// change carries out a change set, the one that was shown if there is one. A crash
// before leaves a change set that nobody executes; after, a stack that changes by itself.
func (d *Deployer) change(ctx context.Context, u Upkeep, p Plan, set string) error {
	name, last := StackName(u.Store), ""
	if u.Stack != nil {
		events, err := d.Stacks.Events(ctx, u.Stack.ID)
		if err != nil {
			return err
		}
		last = beginning(events)
	}
	if set == "" {
		var err error
		if set, _, err = d.ChangeSets.Prepare(ctx, name, p.Do == Create, Template(), p.Values); err != nil || set == "" {
			return err
		}
	}
	if err := d.ChangeSets.Execute(ctx, set); err != nil {
		return err
	}
	s, err := d.Stacks.Look(ctx, name)
	if err != nil {
		return err
	}
	if s == nil {
		return fmt.Errorf("the stack %s is gone while it is changed: %w", name, hayrick.ErrConflict)
	}
	_, err = d.follow(ctx, s, last, 0)
	return err
}

// remove deletes a stack and waits until it is gone.
func (d *Deployer) remove(ctx context.Context, s *Existing) error {
	events, err := d.Stacks.Events(ctx, s.ID)
	if err != nil {
		return err
	}
	if err := d.Stacks.Delete(ctx, s.ID); err != nil {
		return err
	}
	s, err = d.follow(ctx, s, beginning(events), patience)
	if err == nil && s != nil && s.Status != "DELETE_COMPLETE" {
		err = stuckError(s)
	}
	return err
}

// beginning names the newest operation among events.
func beginning(events []Event) string {
	if op := Operation(events); len(op) > 0 {
		return op[0].ID
	}
	return ""
}

// patience is for how many looks a deletion may not have begun yet that was asked for.
const patience = 20

// follow waits until the operation after that which began with event last has ended, and
// tells what happens. An end in failure is an error.
func (d *Deployer) follow(ctx context.Context, s *Existing, last string, patience int) (*Existing, error) {
	told := map[string]bool{}
	for look := 0; ; look++ {
		now, err := d.Stacks.Look(ctx, s.ID)
		if err != nil {
			return s, err
		}
		if now == nil { // deleted, and already forgotten
			return nil, nil
		}
		events, err := d.Stacks.Events(ctx, s.ID)
		if err != nil {
			return now, err
		}
		begun := beginning(events) != last
		if events = Operation(events); begun {
			for _, e := range events {
				if !told[e.ID] {
					told[e.ID] = true
					d.Tell(e)
				}
			}
		}
		if standingOf(now) != busy && (begun || look >= patience) {
			return now, Ended(now, events)
		}
		if err := d.Clock.Sleep(ctx, poll); err != nil {
			return now, err
		}
	}
}

// Down takes a store down. Its Unfinished, Force and DeleteData say what was asked for.
func (d *Deployer) Down(ctx context.Context, t Teardown) (Plan, error) {
	for confirmed := false; ; {
		var err error
		if t.Stack, err = d.Stacks.Look(ctx, StackName(t.Store)); err != nil {
			return Plan{}, err
		}
		if t.Bucket, t.Objects, err = d.Data.State(ctx); err != nil {
			return Plan{}, err
		}
		p, err := DecideDown(t)
		if err != nil || p.Do == Done {
			return p, err
		}
		if !confirmed && p.Do != Follow {
			if err := d.Confirm(p.Because, removals(t)); err != nil {
				return p, err
			}
			confirmed = true
			continue
		}
		switch p.Do {
		case Follow:
			if _, err = d.follow(ctx, t.Stack, "", 0); errors.As(err, new(*hayrick.UserError)) {
				err = nil // how it ended does not matter to who removes it
			}
		case Remove:
			err = d.remove(ctx, t.Stack)
		case DropData:
			d.Tell(Event{Resource: t.Store, Type: "the bucket's objects", Status: "DELETE"})
			err = d.Data.Empty(ctx)
		case DropStore:
			d.Tell(Event{Resource: t.Store, Type: "the bucket", Status: "DELETE"})
			err = d.Data.Remove(ctx)
		}
		if err != nil {
			return p, err
		}
	}
}

// removals are what is shown before a store is taken down.
func removals(t Teardown) []Change {
	var out []Change
	if t.Stack != nil && t.Stack.Status != "DELETE_COMPLETE" {
		out = append(out, Change{Action: "Remove", ID: StackName(t.Store), Type: stackType})
	}
	switch {
	case t.DeleteData && t.Bucket:
		out = append(out, Change{Action: "Remove", ID: t.Store, Type: "AWS::S3::Bucket with every object"})
	case t.Bucket:
		out = append(out, Change{Action: "Keep", ID: t.Store, Type: "AWS::S3::Bucket"})
	}
	return out
}
