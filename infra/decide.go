package infra

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"hayrick"
)

// StackName is what the stack of a store is called.
func StackName(store string) string { return "hayrick-" + strings.ReplaceAll(store, ".", "-") }

// Existing is a stack as CloudFormation tells of it.
type Existing struct {
	ID      string
	Status  string            // CREATE_COMPLETE, ROLLBACK_IN_PROGRESS ...
	Reason  string            // of the status, often ""
	Values  map[string]string // of the parameters
	Outputs []Output          // by name
}

// Step is one thing to do on the way to a stack as it should be, or to none. Each is
// safe to repeat, and after each the facts are read again: who starts anew after a crash
// goes on where it happened.
type Step string

// The steps.
const (
	Follow    Step = "follow"     // an operation is under way, perhaps of a call that crashed: wait for its end
	Remove    Step = "remove"     // delete the stack; the bucket stays
	Create    Step = "create"     // make the stack without functions: there is no bucket yet to take their code from
	PutCode   Step = "put code"   // the zip, into the bucket
	Update    Step = "update"     // bring the stack to the template and the values
	DropData  Step = "drop data"  // every object of the bucket
	DropStore Step = "drop store" // the empty bucket
	Done      Step = "done"
)

// Plan is the next step and why.
type Plan struct {
	Do      Step
	Values  map[string]string // of the parameters, for Create and Update
	Because string
}

// what a stack's status says about what may be done with it
type standing string

const (
	none   standing = "none"   // no resource was ever made
	busy   standing = "busy"   // an operation is under way
	ready  standing = "ready"  // it may be updated
	failed standing = "failed" // it can only be deleted
	stuck  standing = "stuck"  // a person has to help
)

func standingOf(s *Existing) standing {
	if s == nil {
		return none
	}
	switch s.Status {
	case "REVIEW_IN_PROGRESS", "DELETE_COMPLETE":
		return none
	case "CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE", "IMPORT_ROLLBACK_COMPLETE":
		return ready
	case "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED":
		return failed
	}
	if strings.HasSuffix(s.Status, "_IN_PROGRESS") {
		return busy
	}
	return stuck
}

// Upkeep is what is known when a store is to be made, or brought up to date.
type Upkeep struct {
	Store        string
	Stack        *Existing         // nil = none
	Values       map[string]string // of parameters, as asked for; others stay as they are
	CodeKey      string            // of the zip at hand; "" = no functions
	Architecture string            // what the zip is for
	CodeStored   bool              // the zip lies in the bucket
	Current      bool              // a change set made of just this found nothing to change
}

// DecideUp says what brings a store up to date. What nobody but a person can mend is a
// *hayrick.UserError.
func DecideUp(u Upkeep) (Plan, error) {
	if err := ours(u.Store, u.Stack); err != nil {
		return Plan{}, err
	}
	switch standingOf(u.Stack) {
	case busy:
		return Plan{Do: Follow, Because: "the stack is in " + u.Stack.Status}, nil
	case stuck:
		return Plan{}, stuckError(u.Stack)
	case failed:
		return Plan{Do: Remove, Because: "the stack is in " + u.Stack.Status + ", from which it can only be deleted; its bucket stays"}, nil
	case none:
		v, err := u.values("")
		return Plan{Do: Create, Values: v, Because: "there is no stack"}, err
	}
	v, err := u.values(u.CodeKey)
	switch {
	case err != nil:
		return Plan{}, err
	case u.CodeKey != "" && !u.CodeStored:
		return Plan{Do: PutCode, Values: v, Because: "the function's zip is not in the bucket"}, nil
	case u.Current:
		return Plan{Do: Done, Values: v, Because: "nothing differs from the template and its values"}, nil
	}
	return Plan{Do: Update, Values: v, Because: "the stack may differ from the template and its values"}, nil
}

// Chosen are the parameters that nobody sets by hand: they follow from the store's name
// and from the binary.
var chosen = []string{"Name", "CodeKey", "Architecture"}

// values are those of the stack, with what was asked for in their place, and codeKey.
// What the template does not have (any more) is left out.
func (u Upkeep) values(codeKey string) (map[string]string, error) {
	for _, name := range chosen {
		if _, ok := u.Values[name]; ok {
			return nil, &hayrick.UserError{What: "--set " + name + ": nobody sets this", Hint: "it follows from the store's name and the binary"}
		}
	}
	doc, err := ownDocument()
	if err != nil {
		return nil, err
	}
	v := map[string]string{}
	if u.Stack != nil {
		maps.Copy(v, u.Stack.Values)
	}
	maps.DeleteFunc(v, func(name, _ string) bool { return doc.parameters[name] == nil })
	maps.Copy(v, u.Values)
	v["Name"], v["CodeKey"] = u.Store, codeKey
	if u.Architecture != "" {
		v["Architecture"] = u.Architecture
	}
	return v, Check(v)
}

// Check says what is wrong with values of the template's parameters, if anything is, as
// a *hayrick.UserError.
func Check(values map[string]string) error {
	_, err := Resolve(Params{Values: values, Account: "000000000000", Region: "us-east-1"})
	if err == nil {
		return nil
	}
	hint := "hayrick infra print has the parameters, each with what it may be"
	if values["BudgetEmail"] == "" {
		hint = "add --set BudgetEmail=<you@example.com>: who hears when the month costs more than planned"
	}
	return &hayrick.UserError{What: err.Error(), Hint: hint}
}

// ours says that a stack is that of the store: names that differ in dots and dashes only
// have one stack, and one set of queues.
func ours(store string, s *Existing) error {
	if s == nil || standingOf(s) == none || s.Values["Name"] == store {
		return nil
	}
	return &hayrick.UserError{
		What: fmt.Sprintf("the stack %s is that of %q, not of %q", StackName(store), s.Values["Name"], store), Exit: exitConflict,
		Hint: "choose a name that differs in more than dots and dashes",
	}
}

// The exit codes of cmd/hayrick that errors here ask for.
const (
	exitPermission = 5
	exitConflict   = 7
)

func stuckError(s *Existing) error {
	what := "the stack is in " + s.Status
	if s.Reason != "" {
		what += ": " + s.Reason
	}
	hint := "look at it in the CloudFormation console; then run the same command again"
	if strings.HasSuffix(s.Status, "ROLLBACK_FAILED") {
		hint = "mend the reason, then `aws cloudformation continue-update-rollback --stack-name " + s.ID + "`, and run the same command again"
	}
	return &hayrick.UserError{What: what, Hint: hint, Exit: exitConflict}
}

// Teardown is what is known when a store is to be taken down.
type Teardown struct {
	Store      string
	Stack      *Existing
	Unfinished []string // runs that have not ended; not asked for when forced
	Force      bool
	DeleteData bool
	Bucket     bool // it is there
	Objects    bool // ... with something in it, uploads in parts included
}

// DecideDown says what takes a store down. The stack goes first, with the functions: so
// that nobody writes into a bucket that is being emptied.
func DecideDown(d Teardown) (Plan, error) {
	if err := ours(d.Store, d.Stack); err != nil {
		return Plan{}, err
	}
	if len(d.Unfinished) > 0 && !d.Force {
		return Plan{}, unfinished(d.Unfinished)
	}
	gone := d.Stack == nil || d.Stack.Status == "DELETE_COMPLETE"
	switch {
	case !gone && standingOf(d.Stack) == busy && d.Stack.Status != "CREATE_IN_PROGRESS":
		return Plan{Do: Follow, Because: "the stack is in " + d.Stack.Status}, nil
	case !gone:
		return Plan{Do: Remove, Because: "the stack is in " + d.Stack.Status}, nil
	case !d.DeleteData || !d.Bucket:
		return Plan{Do: Done, Because: "there is no stack"}, nil
	case d.Objects:
		return Plan{Do: DropData, Because: "the bucket is to go with its objects"}, nil
	}
	return Plan{Do: DropStore, Because: "the bucket is empty"}, nil
}

func unfinished(runs []string) error {
	shown := runs[:min(5, len(runs))]
	what := fmt.Sprintf("%d runs have not ended, such as %s", len(runs), strings.Join(shown, ", "))
	if len(runs) == 1 {
		what = runs[0] + " has not ended"
	}
	return &hayrick.UserError{What: what, Hint: "let it end, or hayrick cancel it; with --force it stays as it is, and goes on when the store is up again", Exit: exitConflict}
}

// Change is one resource that a change set makes, changes or removes.
type Change struct {
	Action  string // Add, Modify, Remove, Import
	ID      string
	Type    string
	Replace string // True, Conditional; else it is changed in place
}

// Additions are the changes that make a new stack with values.
func Additions(values map[string]string) ([]Change, error) {
	s, err := Resolve(Params{Values: values, Account: "000000000000", Region: "us-east-1"})
	if err != nil {
		return nil, err
	}
	var out []Change
	for _, r := range s.Resources {
		out = append(out, Change{Action: "Add", ID: r.ID, Type: r.Type})
	}
	return out, nil
}

// Event is one thing that happened to a stack or a resource of it.
type Event struct {
	ID       string
	Resource string // its id in the template; of the stack: its name
	Type     string
	Status   string // CREATE_IN_PROGRESS, CREATE_FAILED ...
	Reason   string
}

const stackType = "AWS::CloudFormation::Stack"

// Operation are the events of the newest operation among those of a stack, oldest first;
// none when no operation ever began.
func Operation(events []Event) []Event {
	for i, e := range slices.Backward(events) {
		if e.Type == stackType && strings.HasSuffix(e.Status, "_IN_PROGRESS") && e.Reason == "User Initiated" && e.Status != "REVIEW_IN_PROGRESS" {
			return events[i:]
		}
	}
	return nil
}

// Ended says how an operation ended that left the stack in a status: nil when it is as
// was wanted, else a *hayrick.UserError with the reason of the first resource that
// failed, and what to do about it.
func Ended(s *Existing, events []Event) error {
	if s == nil || standingOf(s) != stuck && !strings.Contains(s.Status, "ROLLBACK") && !strings.HasSuffix(s.Status, "_FAILED") {
		return nil
	}
	what, why := "the stack is in "+s.Status, s.Reason
	for _, e := range events {
		if strings.HasSuffix(e.Status, "_FAILED") && !strings.Contains(strings.ToLower(e.Reason), "cancelled") && e.Type != stackType {
			what, why = fmt.Sprintf("%s (%s) is in %s", e.Resource, e.Type, e.Status), e.Reason
			break
		}
	}
	hint, exit := Remedy(why)
	if why != "" {
		what += ": " + why
	}
	return &hayrick.UserError{What: what, Hint: hint, Exit: exit}
}

// Remedy is what to do about a reason that CloudFormation gives, and the exit code.
func Remedy(reason string) (hint string, exit int) {
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(strings.ToLower(reason), p) })
	}
	switch {
	case has("unreservedconcurrentexecution", "concurrentexecutions"):
		return "the account's Lambda concurrency is too small: ask AWS for more (Service Quotas, Lambda, Concurrent executions), or choose less: --set MaxConcurrency=2", exitConflict
	case has("not authorized", "accessdenied", "access denied", "is not permitted"):
		return "docs/aws.md lists what the one who makes a store has to be allowed; then run the same command again", exitPermission
	case has("attached to", "cannot delete a policy"):
		return "detach the store's policies from the users and roles of yours that have them, then run the same command again", exitConflict
	case has("already exists", "alreadyowned", "bucketalready", "not available"):
		return "the name is taken: choose another for the store, or remove what has it, then run the same command again", exitConflict
	case has("limit", "quota"):
		return "ask AWS for more of it (Service Quotas), or remove what is not needed, then run the same command again", exitConflict
	}
	return "mend what the reason says, then run the same command again: it goes on from here", exitConflict
}
