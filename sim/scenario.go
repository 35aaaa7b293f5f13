package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/jobs"
	"hayrick/manifest"
)

// Scenario is a job, who works on it, and what people do with it meanwhile.
type Scenario struct {
	Name       string
	Items      string
	Define     func(*hayrick.JobDefinition)
	Processes  int
	Submitters int
	Handler    func(*Proc) jobs.Handler // nil: Scripted
	Person     func(*Person) error      // what is done beside the processes, to its end
	Echo       bool                     // every message is sent twice
	Left       time.Duration            // for how long a process lives; 0 = for ever
	// Ends says how the job may end; nil = as without any fault.
	Ends func(gist string) bool
}

// three batches, one item that needs a second group, one that is gone.
const sixItems = `{"id":"a","rows":2}
{"id":"b","rows":1}
{"id":"c","rows":3}
{"id":"d","rows":1,"fail_until":2}
{"id":"e","permanent":true}
{"id":"f","rows":4}
`

// Scenarios are those that every fault is tried in.
var Scenarios = []Scenario{
	{Name: "happy", Items: "{\"id\":\"a\",\"rows\":2}\n{\"id\":\"b\",\"rows\":1}\n{\"id\":\"c\",\"rows\":1}\n", Processes: 2},
	{Name: "failures", Items: sixItems + "{\"id\":\"g\",\"rows\":1,\"fail_until\":3}\n{\"id\":\"h\",\"rows\":1,\"fail_until\":99}\n", Processes: 2},
	{Name: "poison", Items: sixItems, Processes: 2, Handler: func(p *Proc) jobs.Handler { return deadly{p} }},
	{Name: "rates", Items: sixItems, Processes: 3, Handler: func(p *Proc) jobs.Handler { return rated{p} }, Define: func(d *hayrick.JobDefinition) {
		d.Rates = []hayrick.Rate{{Name: "api", Limit: limit, Burst: burst, Learn: true, Auto: true}}
	}},
	{Name: "dedupe", Items: sixItems, Processes: 2, Define: func(d *hayrick.JobDefinition) {
		d.Output.UniqueBy, d.Output.Keep = []string{"n"}, "first"
	}},
	{Name: "cancel", Items: sixItems, Processes: 2, Person: func(p *Person) error {
		p.Sleep(2 * time.Second)
		return p.Order(manifest.Control{Order: manifest.OrderCancel})
	}, Ends: func(gist string) bool {
		return strings.HasPrefix(gist, "0: CANCELLED") || strings.HasPrefix(gist, "0: SUCCEEDED")
	}},
	{Name: "pause", Items: sixItems, Processes: 2, Person: func(p *Person) error {
		p.Sleep(1500 * time.Millisecond)
		if err := p.Order(manifest.Control{Order: manifest.OrderPause, Reason: "lunch"}); err != nil {
			return err
		}
		p.Sleep(2 * time.Minute)
		return p.Order(manifest.Control{Order: manifest.OrderResume})
	}},
	{Name: "two-coordinators", Items: sixItems, Processes: 2, Submitters: 2},
	{Name: "echo", Items: sixItems, Processes: 3, Echo: true}, // two planners and two aggregators at once
	{Name: "hand-off", Items: sixItems, Processes: 2, Left: 90 * time.Second},
	{Name: "redrive", Items: sixItems + "{\"id\":\"g\",\"rows\":1,\"fail_until\":5}\n", Processes: 2, Person: func(p *Person) error {
		if err := p.Finish(0); err != nil {
			return err
		}
		return p.Order(manifest.Control{Order: manifest.OrderRedrive, Generation: 1, PermanentToo: true})
	}},
	{Name: "collect", Items: sixItems, Processes: 2, Person: func(p *Person) error {
		for range 4 {
			p.Sleep(time.Second)
			if err := p.Collect(); err != nil {
				return err
			}
		}
		return nil
	}},
	{Name: "state-deleted", Items: sixItems, Processes: 2, Person: func(p *Person) error {
		p.Sleep(2 * time.Second)
		p.f.Store.WipeState()
		return nil
	}},
	{Name: "queue-deleted", Items: sixItems, Processes: 2, Person: func(p *Person) error {
		p.Sleep(2 * time.Second)
		p.f.Store.WipeQueue()
		return nil
	}},
}

// Plan is the scenario as a plan with a seed.
func (s Scenario) Plan(seed uint64) Plan {
	def := Definition("three", "items.jsonl", "out/$(run.id)/")
	if s.Define != nil {
		s.Define(&def)
	}
	return Plan{
		Seed: seed, Scenario: s,
		Submission: coordinator.Submission{Definition: def, ConfigFile: "jobs/three/config.yaml", ConfigTime: Epoch, SubmittedBy: "user@host", CodeVersion: "hayrick sim"},
	}
}

// deadly is Scripted, but for an item that kills its process twice.
type deadly struct{ p *Proc }

func (d deadly) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	if it.Key == "c" && it.Try < 9 && d.p.f.deaths < 2 {
		d.p.f.deaths++
		d.p.f.Kill(d.p.Name)
	}
	return Scripted{}.Handle(ctx, it, emit)
}

// The rate of scenario rates.
var limit = hayrick.PerTime{N: 10, Per: 10 * time.Second}

const burst = 4

// rated is Scripted; each try comes with a token.
type rated struct{ p *Proc }

func (r rated) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	if r.p.f.Proc(r.p.Name) != nil { // it lives
		r.p.f.mu.Lock()
		r.p.f.sends = append(r.p.f.sends, r.p.f.Turnstile.Now().Sub(Epoch))
		r.p.f.mu.Unlock()
	}
	return Scripted{}.Handle(ctx, it, emit)
}

// Person is who gives orders, from a process of its own.
type Person struct{ *Proc }

// Sleep waits.
func (p *Person) Sleep(d time.Duration) { _ = p.Proc.Sleep(p.ctx, d) }

// job is the job, once it is there.
func (p *Person) job() (string, error) {
	for {
		p.f.mu.Lock()
		id := p.f.jobID
		p.f.mu.Unlock()
		if id != "" {
			return id, nil
		}
		if err := p.Proc.Sleep(p.ctx, time.Second); err != nil {
			return "", err
		}
	}
}

// Order gives an order, and looks after it as the command does.
func (p *Person) Order(o manifest.Control) error {
	id, err := p.job()
	if err != nil {
		return err
	}
	_, err = p.Coordinator.Order(p.ctx, id, o)
	if err != nil && !errors.Is(err, hayrick.ErrConflict) { // the job has ended, or an earlier try was heard
		return err
	}
	_, err = p.Coordinator.Sweep(p.ctx, id)
	return err
}

// Finish waits for the outcome of a generation and has it published, as the command does
// that opens another.
func (p *Person) Finish(generation int) error {
	id, err := p.job()
	if err != nil {
		return err
	}
	for {
		_, _, err := p.Coordinator.Store.Outcome(p.ctx, id, generation)
		if err == nil {
			return p.Aggregator.Advance(p.ctx, id, generation)
		}
		if !errors.Is(err, hayrick.ErrNotFound) {
			return err
		}
		if err := p.Proc.Sleep(p.ctx, 5*time.Second); err != nil {
			return err
		}
	}
}

// Collect removes what gc would.
func (p *Person) Collect() error {
	id, err := p.job()
	if err != nil {
		return err
	}
	var all []manifest.Object
	if err := p.Coordinator.Leftovers(p.ctx, id, func(o manifest.Object) error { all = append(all, o); return nil }); err != nil {
		return err
	}
	return p.Coordinator.Remove(p.ctx, p.store, all)
}

// Verdict is what a run came to.
type Verdict struct {
	Plan    Plan
	Gist    string
	Hash    uint64
	Calls   int
	Struck  int // faults that were met
	Took    time.Duration
	Bad     []error
	Events  []Event // where the plan asks for them
	Steps   uint64
	Started int // processes
}

// Run runs a plan in the bubble it is called in, and checks what is left. calm is how the
// plan ends without faults; "" = it is to be found out. rest is synctest.Wait.
func (p Plan) Run(scratch string, rest func(), calm string) Verdict {
	f := NewFleet(p, scratch, rest)
	f.Store.SetInput("items.jsonl", []byte(p.Scenario.Items))
	_ = f.Run()
	v := Verdict{
		Plan: p, Gist: f.Gist(), Hash: f.hash, Calls: f.calls, Struck: f.struck, Took: f.ended, Bad: f.Check(), Events: f.trace,
		Steps: f.Turnstile.passed, Started: f.started,
	}
	switch {
	case len(v.Bad) > 0 || calm == "":
	case p.Scenario.Ends != nil:
		if !p.Scenario.Ends(v.Gist) {
			v.Bad = append(v.Bad, fmt.Errorf("the job ends as %s", v.Gist))
		}
	case v.Gist != calm:
		v.Bad = append(v.Bad, fmt.Errorf("I4: the job ends as %s without faults %s", v.Gist, calm))
	}
	return v
}

// Explain tells the story of a verdict.
func (v Verdict) Explain(w io.Writer) {
	for _, e := range v.Events {
		fmt.Fprintln(w, e)
	}
	for _, err := range v.Bad {
		fmt.Fprintln(w, "VIOLATION", err)
	}
}
