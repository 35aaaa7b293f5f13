package infra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"hayrick"
)

// cloud is a CloudFormation of one stack, to enumerate crashes on. Every operation takes
// a few looks.
type cloud struct {
	stack    *Existing
	template string
	looks    int // that the operation under way still takes
	ends     string
	events   []Event
	sets     map[string]func()
	made     int // numbers events and change sets

	bucket  bool
	objects map[string]bool
	failing string // the reason for which the next operation fails

	calls, crashAt int
	after          bool // the crash comes after the effect
	log            []string
}

var errCrash = errors.New("crash")

// call counts, logs and crashes.
func (c *cloud) call(what string, effect func()) error {
	c.calls++
	if c.calls == c.crashAt && !c.after {
		return errCrash
	}
	if effect != nil {
		c.log = append(c.log, what)
		effect()
	}
	if c.calls == c.crashAt {
		return errCrash
	}
	return nil
}

func (c *cloud) event(e Event) {
	c.made++
	e.ID = fmt.Sprint("event-", c.made)
	c.events = append(c.events, e)
}

// begin starts an operation that ends in a status.
func (c *cloud) begin(verb, ends string) {
	c.stack.Status, c.looks, c.ends = verb+"_IN_PROGRESS", 2, ends
	c.event(Event{Resource: "hayrick-lab", Type: stackType, Status: c.stack.Status, Reason: "User Initiated"})
	if c.failing != "" {
		c.event(Event{Resource: "Budget", Type: "AWS::Budgets::Budget", Status: verb + "_FAILED", Reason: c.failing})
		c.event(Event{Resource: "Table", Type: "AWS::DynamoDB::Table", Status: verb + "_FAILED", Reason: "Resource creation cancelled"})
		c.ends = map[string]string{"CREATE": "ROLLBACK_COMPLETE", "UPDATE": "UPDATE_ROLLBACK_COMPLETE", "DELETE": "DELETE_FAILED"}[verb]
		c.failing = ""
	}
}

func (c *cloud) Look(_ context.Context, stack string) (*Existing, error) {
	if err := c.call("look", nil); err != nil {
		return nil, err
	}
	if c.stack == nil {
		return nil, nil
	}
	if c.looks > 0 {
		if c.looks--; c.looks == 0 {
			c.stack.Status = c.ends
			c.event(Event{Resource: "hayrick-lab", Type: stackType, Status: c.ends})
			if c.ends == "CREATE_COMPLETE" {
				c.bucket = true
			}
		}
	}
	if c.stack.Status == "DELETE_COMPLETE" && stack != c.stack.ID {
		return nil, nil
	}
	s := *c.stack
	s.Values = maps.Clone(s.Values)
	return &s, nil
}

func (c *cloud) Delete(_ context.Context, id string) error {
	return c.call("delete", func() {
		if c.stack != nil && c.stack.ID == id {
			c.begin("DELETE", "DELETE_COMPLETE")
		}
	})
}

func (c *cloud) Events(context.Context, string) ([]Event, error) {
	return slices.Clone(c.events), c.call("events", nil)
}

func (c *cloud) Prepare(_ context.Context, name string, create bool, template []byte, values map[string]string) (string, []Change, error) {
	if !create && c.template == string(template) && maps.Equal(c.stack.Values, values) {
		return "", nil, c.call("prepare", nil)
	}
	if create != (standingOf(c.stack) == none) {
		return "", nil, fmt.Errorf("create %v of a stack in %+v", create, c.stack)
	}
	c.made++
	set := fmt.Sprint("set-", c.made)
	err := c.call("prepare", func() {
		if create && (c.stack == nil || c.stack.Status == "DELETE_COMPLETE") {
			c.stack, c.events = &Existing{ID: fmt.Sprint("stack-", c.made), Status: "REVIEW_IN_PROGRESS"}, nil
			c.event(Event{Resource: "hayrick-lab", Type: stackType, Status: "REVIEW_IN_PROGRESS", Reason: "User Initiated"})
		}
		verb := map[bool]string{true: "CREATE", false: "UPDATE"}[create]
		c.sets[set] = func() {
			if !create && values["CodeKey"] != "" && !c.objects[values["CodeKey"]] {
				c.failing = "no such key"
			}
			c.begin(verb, verb+"_COMPLETE")
			if create {
				c.stack.Values = maps.Clone(values)
			}
			if c.ends == verb+"_COMPLETE" {
				c.template, c.stack.Values = string(template), maps.Clone(values)
			}
		}
	})
	return set, []Change{{Action: "Modify", ID: "Worker"}}, err
}

func (c *cloud) Execute(_ context.Context, set string) error {
	return c.call("execute", func() { c.sets[set](); clear(c.sets) })
}

func (c *cloud) Drop(_ context.Context, set string) error {
	return c.call("drop", func() { delete(c.sets, set) })
}

func (c *cloud) Has(_ context.Context, key string) (bool, error) {
	return c.objects[key], c.call("has", nil)
}

func (c *cloud) PutCode(_ context.Context, key string) error {
	return c.call("put", func() { c.objects[key] = true })
}

func (c *cloud) State(context.Context) (bool, bool, error) {
	return c.bucket, len(c.objects) > 0, c.call("state", nil)
}

func (c *cloud) Empty(context.Context) error { return c.call("empty", func() { clear(c.objects) }) }

func (c *cloud) Remove(context.Context) error {
	return c.call("remove", func() { c.bucket = false })
}

type instant struct{}

func (instant) Now() time.Time                             { return time.Time{} }
func (instant) Sleep(context.Context, time.Duration) error { return nil }

func (c *cloud) deployer(confirm func(string, []Change) error) *Deployer {
	if confirm == nil {
		confirm = func(string, []Change) error { return nil }
	}
	return &Deployer{Stacks: c, ChangeSets: c, Data: c, Clock: instant{}, Confirm: confirm, Tell: func(Event) {}}
}

func newCloud() *cloud { return &cloud{sets: map[string]func(){}, objects: map[string]bool{}} }

// stored is a cloud with an older store in it.
func stored(status string) *cloud {
	c := newCloud()
	c.bucket, c.objects["jobs/a/plan.json"] = true, true
	c.stack = &Existing{ID: "stack-0", Status: status, Values: map[string]string{"Name": "lab", "BudgetEmail": "a@b", "CodeKey": "code/old.zip", "Architecture": "arm64"}}
	c.event(Event{Resource: "hayrick-lab", Type: stackType, Status: "CREATE_IN_PROGRESS", Reason: "User Initiated"})
	return c
}

func wanted() Upkeep {
	return Upkeep{Store: "lab", Values: map[string]string{"BudgetEmail": "me@lab", "MaxConcurrency": "20"}, CodeKey: "code/new.zip", Architecture: "x86_64"}
}

// However far a call came, the same call once more ends as one that nothing disturbs.
func TestUpAndDownGoOnAfterACrash(t *testing.T) {
	up := func(c *cloud) error { _, err := c.deployer(nil).Up(t.Context(), wanted()); return err }
	down := func(c *cloud) error {
		_, err := c.deployer(nil).Down(t.Context(), Teardown{Store: "lab", DeleteData: true})
		return err
	}
	isUp := func(c *cloud) bool {
		return standingOf(c.stack) == ready && c.stack.Values["CodeKey"] == "code/new.zip" && c.stack.Values["MaxConcurrency"] == "20" && c.objects["code/new.zip"] && c.bucket
	}
	isDown := func(c *cloud) bool {
		return (c.stack == nil || c.stack.Status == "DELETE_COMPLETE") && !c.bucket && len(c.objects) == 0
	}
	for _, s := range []struct {
		name string
		from func() *cloud
		do   func(*cloud) error
		ok   func(*cloud) bool
	}{
		{"a new store", newCloud, up, isUp},
		{"an older store", func() *cloud { return stored("CREATE_COMPLETE") }, up, isUp},
		{"a store whose making failed", func() *cloud { return stored("ROLLBACK_COMPLETE") }, up, isUp},
		{"a store that was only prepared", func() *cloud { c := stored("REVIEW_IN_PROGRESS"); c.events = nil; return c }, up, isUp},
		{"a store whose removal failed", func() *cloud { return stored("DELETE_FAILED") }, down, isDown},
		{"down", func() *cloud { return stored("UPDATE_COMPLETE") }, down, isDown},
		{"down without a stack", func() *cloud { c := stored(""); c.stack = nil; return c }, down, isDown},
		{"down without anything", newCloud, down, isDown},
	} {
		t.Run(s.name, func(t *testing.T) {
			runs := 0
			for n := 1; ; n++ {
				crashed := false
				for _, after := range []bool{false, true} {
					c := s.from()
					c.crashAt, c.after = n, after
					err := s.do(c)
					if crashed = c.calls >= n; crashed && !errors.Is(err, errCrash) || !crashed && err != nil {
						t.Fatalf("crash %d, after its effect %v: %v", n, after, err)
					}
					c.crashAt = 0
					if err := s.do(c); err != nil {
						t.Fatalf("after crash %d, after its effect %v: %v\n%v", n, after, err, c.log)
					}
					if !s.ok(c) {
						t.Fatalf("after crash %d, after its effect %v: %+v, bucket %v %v\n%v", n, after, c.stack, c.bucket, c.objects, c.log)
					}
					writes := len(c.log)
					if err := s.do(c); err != nil || len(c.log) != writes {
						t.Fatalf("once more changes something: %v %v", err, c.log[writes:])
					}
					runs++
				}
				if !crashed {
					break
				}
			}
			if runs < 3 {
				t.Errorf("only %d crashes", runs)
			}
		})
	}
}

// Who is asked and says no has changed nothing, and neither has who only looks.
func TestNothingHappensBeforeAYes(t *testing.T) {
	for name, from := range map[string]func() *cloud{"new": newCloud, "older": func() *cloud { return stored("CREATE_COMPLETE") }, "failed": func() *cloud { return stored("ROLLBACK_COMPLETE") }} {
		c := from()
		asked := 0
		d := c.deployer(func(because string, changes []Change) error {
			asked++
			if because == "" || len(changes) == 0 {
				t.Errorf("%s: asked for %q, %v", name, because, changes)
			}
			return ErrLookedOnly
		})
		if _, err := d.Up(t.Context(), wanted()); !errors.Is(err, ErrLookedOnly) || asked != 1 {
			t.Errorf("%s: up: %v, asked %d times", name, err, asked)
		}
		if len(c.sets) != 0 {
			t.Errorf("%s: a change set stays", name)
		}
		if c.stack != nil {
			if _, err := d.Down(t.Context(), Teardown{Store: "lab"}); !errors.Is(err, ErrLookedOnly) {
				t.Errorf("%s: down: %v", name, err)
			}
		}
		c.log = slices.DeleteFunc(c.log, func(s string) bool { return s == "prepare" || s == "drop" })
		if len(c.log) > 0 {
			t.Errorf("%s: did %v", name, c.log)
		}
	}
}

// A failure tells of the resource that failed first, and the next call tries again.
func TestAFailureSaysWhatFailed(t *testing.T) {
	c := newCloud()
	c.failing = "The e-mail address is not valid"
	_, err := c.deployer(nil).Up(t.Context(), wanted())
	var user *hayrick.UserError
	if !errors.As(err, &user) || !strings.Contains(user.What, "Budget") || !strings.Contains(user.What, "e-mail address") || user.Hint == "" || user.Exit != exitConflict {
		t.Fatalf("%v", err)
	}
	if _, err := c.deployer(nil).Up(t.Context(), wanted()); err != nil {
		t.Fatal(err)
	}
	c.failing = "Resource handler returned message: \"Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [10].\""
	w := wanted()
	w.Values["MaxConcurrency"] = "50"
	_, err = c.deployer(nil).Up(t.Context(), w)
	if !errors.As(err, &user) || !strings.Contains(user.Hint, "MaxConcurrency") {
		t.Fatalf("%v", err)
	}
}

func TestDecideUp(t *testing.T) {
	of := func(status, name string) *Existing {
		return &Existing{ID: "id", Status: status, Values: map[string]string{"Name": name, "BudgetEmail": "a@b", "Gone": "1", "KeepDays": "7"}}
	}
	for _, c := range []struct {
		name string
		u    func(*Upkeep)
		want string // the step, or what the error says
		exit int
	}{
		{"none", func(*Upkeep) {}, "create", 0},
		{"prepared only", func(u *Upkeep) { u.Stack = of("REVIEW_IN_PROGRESS", "") }, "create", 0},
		{"deleted", func(u *Upkeep) { u.Stack = of("DELETE_COMPLETE", "lab") }, "create", 0},
		{"busy", func(u *Upkeep) { u.Stack = of("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "lab") }, "follow", 0},
		{"rolled back", func(u *Upkeep) { u.Stack = of("ROLLBACK_COMPLETE", "lab") }, "remove", 0},
		{"no code", func(u *Upkeep) { u.Stack = of("CREATE_COMPLETE", "lab") }, "put code", 0},
		{"code", func(u *Upkeep) { u.Stack, u.CodeStored = of("UPDATE_ROLLBACK_COMPLETE", "lab"), true }, "update", 0},
		{"current", func(u *Upkeep) { u.Stack, u.CodeStored, u.Current = of("IMPORT_COMPLETE", "lab"), true, true }, "done", 0},
		{"current, but the zip is gone", func(u *Upkeep) { u.Stack, u.Current = of("CREATE_COMPLETE", "lab"), true }, "put code", 0},
		{"no functions", func(u *Upkeep) { u.Stack, u.CodeKey = of("CREATE_COMPLETE", "lab"), "" }, "update", 0},
		{"stuck", func(u *Upkeep) { u.Stack = of("UPDATE_ROLLBACK_FAILED", "lab") }, "continue-update-rollback", exitConflict},
		{"unheard of", func(u *Upkeep) { u.Stack = of("MOULDY", "lab") }, "MOULDY", exitConflict},
		{"another's", func(u *Upkeep) { u.Store, u.Stack = "l.ab", of("CREATE_COMPLETE", "l-ab") }, "dots and dashes", exitConflict},
		{"no e-mail", func(u *Upkeep) { delete(u.Values, "BudgetEmail") }, "BudgetEmail=", 0},
		{"bad value", func(u *Upkeep) { u.Values["MemoryMiB"] = "1" }, "MinValue", 0},
		{"bad name", func(u *Upkeep) { u.Store = "Lab" }, "3 to 48", 0},
		{"no parameter", func(u *Upkeep) { u.Values["Colour"] = "red" }, "no parameter Colour", 0},
		{"not to be set", func(u *Upkeep) { u.Values["CodeKey"] = "code/x" }, "nobody sets this", 0},
	} {
		u := wanted()
		c.u(&u)
		p, err := DecideUp(u)
		if err == nil {
			if string(p.Do) != c.want || p.Because == "" {
				t.Errorf("%s: %+v, want %s", c.name, p, c.want)
			}
			continue
		}
		var user *hayrick.UserError
		if !errors.As(err, &user) || !strings.Contains(user.What+" "+user.Hint, c.want) || user.Exit != c.exit || user.Hint == "" {
			t.Errorf("%s: %v, want %s and exit %d", c.name, err, c.want, c.exit)
		}
	}
	u := wanted()
	u.Stack, u.CodeStored = of("CREATE_COMPLETE", "lab"), true
	p, err := DecideUp(u)
	want := map[string]string{"Name": "lab", "BudgetEmail": "me@lab", "KeepDays": "7", "MaxConcurrency": "20", "CodeKey": "code/new.zip", "Architecture": "x86_64"}
	if err != nil || !maps.Equal(p.Values, want) {
		t.Errorf("%v %v, want %v", p.Values, err, want)
	}
}

func TestDecideDown(t *testing.T) {
	stack := &Existing{ID: "id", Status: "CREATE_COMPLETE", Values: map[string]string{"Name": "lab"}}
	in := func(status string) *Existing { s := *stack; s.Status = status; return &s }
	for _, c := range []struct {
		t    Teardown
		want string
	}{
		{Teardown{Stack: stack}, "remove"},
		{Teardown{Stack: in("REVIEW_IN_PROGRESS")}, "remove"},
		{Teardown{Stack: in("UPDATE_ROLLBACK_FAILED")}, "remove"},
		{Teardown{Stack: in("CREATE_IN_PROGRESS")}, "remove"},
		{Teardown{Stack: in("UPDATE_IN_PROGRESS")}, "follow"},
		{Teardown{Stack: in("DELETE_IN_PROGRESS")}, "follow"},
		{Teardown{Bucket: true, Objects: true}, "done"},
		{Teardown{Stack: in("DELETE_COMPLETE"), Bucket: true, Objects: true}, "done"},
		{Teardown{Stack: stack, DeleteData: true, Bucket: true, Objects: true}, "remove"},
		{Teardown{DeleteData: true, Bucket: true, Objects: true}, "drop data"},
		{Teardown{DeleteData: true, Bucket: true}, "drop store"},
		{Teardown{DeleteData: true}, "done"},
		{Teardown{Stack: stack, Unfinished: []string{"a-1", "b-2"}}, "2 runs"},
		{Teardown{DeleteData: true, Bucket: true, Objects: true, Unfinished: []string{"a-1"}}, "a-1"},
		{Teardown{Stack: stack, Unfinished: []string{"a-1"}, Force: true}, "remove"},
	} {
		c.t.Store = "lab"
		p, err := DecideDown(c.t)
		var user *hayrick.UserError
		switch {
		case err == nil && string(p.Do) != c.want:
			t.Errorf("%+v: %s, want %s", c.t, p.Do, c.want)
		case err != nil && (!errors.As(err, &user) || !strings.Contains(user.What, c.want) || user.Exit != exitConflict):
			t.Errorf("%+v: %v, want %s", c.t, err, c.want)
		}
	}
}

func TestRemedies(t *testing.T) {
	for reason, want := range map[string]int{
		"User: arn:aws:iam::1:user/x is not authorized to perform: iam:CreateRole": exitPermission,
		"lab-hayrick already exists":                   exitConflict,
		"Cannot delete a policy attached to entities.": exitConflict,
		"": exitConflict,
	} {
		if hint, exit := Remedy(reason); exit != want || hint == "" {
			t.Errorf("%q: %q, exit %d, want %d", reason, hint, exit, want)
		}
	}
}
