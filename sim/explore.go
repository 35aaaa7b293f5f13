package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/jobs"
)

// Bubble calls fn in a bubble of virtual time, in any program. All that it starts must
// have ended when it returns.
func Bubble(fn func()) {
	synctest.Test(new(testing.T), func(*testing.T) { fn() })
}

// RunIn is Run in the bubble that it is called in.
func (p Plan) RunIn(scratch, calm string) Verdict { return p.Run(scratch, synctest.Wait, calm) }

// JobPlan is a plan for somebody's job: its first items, its definition and its handler,
// in a world of processes.
func JobPlan(def hayrick.JobDefinition, items []jobs.Item, r *Recorder, processes int, seed uint64) Plan {
	text := ""
	for _, it := range items {
		text += string(it.Data) + "\n"
	}
	name := def.Name
	def.Handler = hayrick.Handler{Builtin: name}
	def.Input = hayrick.Input{URI: "items.jsonl", Format: "jsonl", Key: def.Input.Key, OnBadItem: "fail", Snapshot: "auto"}
	def.Output.URI = "out/$(run.id)/"
	// Several tasks, so that processes meet: of a few items most jobs would make one.
	def.Batch = hayrick.Batches{Items: max(1, min(def.Batch.Items, (len(items)+3)/4))}
	return Plan{
		Seed:     seed,
		Scenario: Scenario{Name: name, Items: text, Processes: processes, Handler: func(p *Proc) jobs.Handler { return timed{p, r} }},
		Submission: coordinator.Submission{
			Definition: def, ConfigFile: "config.yaml", ConfigTime: Epoch, SubmittedBy: "user@host", CodeVersion: "hayrick sim",
		},
	}
}

// timed is a handler whose tries take up to a second of virtual time.
type timed struct {
	p *Proc
	h jobs.Handler
}

func (t timed) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	took := time.Duration(t.p.f.Turnstile.Draw(t.p.Name, "item", it.Key) % uint64(time.Second))
	if err := t.p.Sleep(ctx, took); err != nil {
		return jobs.Fail("cut", "%v", err)
	}
	return t.h.Handle(ctx, it, emit)
}

// Explored is what many runs of a plan came to.
type Explored struct {
	Calm     Verdict  // without faults
	Runs     int      // with faults
	Faults   int      // that were met, over all of them
	Violated *Verdict // the first that broke something, by the fewest faults that do; nil = none
}

// Explore runs a plan without faults, twice, and then so many times with faults of the
// kinds: one alone in half of the runs, up to four in the others. It ends at the first
// violation. ctx ends it early; told is called after every run. It is called in a bubble.
func Explore(ctx context.Context, p Plan, scratch string, kinds []Kind, runs int, told func(done int)) Explored {
	p.Faults, p.Trace = nil, true
	x := Explored{Calm: p.Run(scratch, synctest.Wait, "")}
	if len(x.Calm.Bad) == 0 {
		if again := p.Run(scratch, synctest.Wait, x.Calm.Gist); len(again.Bad) > 0 || again.Hash != x.Calm.Hash {
			x.Calm.Bad = append(x.Calm.Bad, fmt.Errorf("I19: the same seed tells another story: %v", again.Bad))
		}
	}
	if len(x.Calm.Bad) > 0 {
		x.Violated = &x.Calm
		return x
	}
	if len(p.Submission.Definition.Rates) > 0 { // whose clock is wrong by an hour gets no token for so long, and its items fail
		kinds = slices.DeleteFunc(slices.Clone(kinds), func(k Kind) bool { return strings.HasPrefix(k.Name, "clock-") })
	}
	p.Trace = false
	points := Points(x.Calm.Events)
	r := rand.New(rand.NewPCG(p.Seed, 3))
	for ; x.Runs < runs && len(kinds) > 0 && ctx.Err() == nil; x.Runs++ {
		p.Faults = nil
		faults := 1
		if x.Runs%2 == 1 {
			faults = 2 + r.IntN(3)
		}
		for len(p.Faults) < faults {
			at, k := points[r.IntN(len(points))], kinds[r.IntN(len(kinds))]
			if faults > 1 || k.Meets(at.Call) {
				p.Faults = append(p.Faults, Strike{at.N, k.Name})
			}
		}
		v := p.Run(scratch, synctest.Wait, x.Calm.Gist)
		x.Faults += v.Struck
		if len(v.Bad) > 0 {
			p.Faults = Shrink(p.Faults, func(s Schedule) bool {
				q := p
				q.Faults = s
				return ctx.Err() == nil && len(q.Run(scratch, synctest.Wait, x.Calm.Gist).Bad) > 0
			})
			p.Trace = true
			v = p.Run(scratch, synctest.Wait, x.Calm.Gist)
			x.Violated = &v
			x.Runs++
			return x
		}
		told(x.Runs + 1)
	}
	return x
}
