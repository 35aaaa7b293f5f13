package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/jobs"
	"hayrick/sim"
)

// simOptions are the flags of sim.
type simOptions struct {
	job, profile string
	sets         []string
	items        int64
	processes    int
	seed         uint64
	runs         int
	faults       string
	schedule     string
	trace        bool
}

func simCommand(c *cli) *cobra.Command {
	o := simOptions{items: 12, processes: 2, seed: 1, runs: 500, faults: "all"}
	cmd := &cobra.Command{
		Use: "sim <job>", Short: "Prove a job and its handler against crashes, in a simulated world", Args: arguments(1, 1),
		Long: `Run the first items of a job again and again in a simulated world: the whole of
Hayrick on a store, a queue and machines in memory, in virtual time. Each run meets faults:
calls that fail or whose reply is lost, crashes, stalls past every lease, frozen machines,
clocks that jump, lost messages, a queue or a state that is deleted, a loss of power. After
each the job must have ended as without any fault, and audit must find every row.

The handler is the job's own, and runs for real; each try of an item runs once, and every
world plays it. Its first items run twice, and rows that differ are told: what is tried
again after a crash would have other rows.

A run that breaks something is made as short as it gets and printed with the command that
shows it again. The same seed has the same runs.

Faults: ` + strings.Join(sim.KindNames(), ", ") + `.`,
		Example:     "  hayrick sim jobs/words\n  hayrick sim jobs/words --runs 5000 --faults crash-before,crash-after,power-cut\n  hayrick sim jobs/words --schedule 40:crash-after --trace",
		Annotations: endsWith(exitUnwell, exitNotFound),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.job = args[0]
			return runSim(cmd.Context(), c, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.profile, "profile", "p", c.get("HAYRICK_PROFILE"), "profile of the job file (default $HAYRICK_PROFILE)")
	f.StringArrayVar(&o.sets, "set", nil, "change a key of the job file, such as retry.passes=1")
	f.Int64Var(&o.items, "items", o.items, "how many items of the input")
	f.IntVar(&o.processes, "processes", o.processes, "how many processes work on them")
	f.Uint64Var(&o.seed, "seed", o.seed, "what all that is random follows from")
	f.IntVar(&o.runs, "runs", o.runs, "how many runs with faults")
	f.StringVar(&o.faults, "faults", o.faults, "`kinds` of faults, with commas between them, or all")
	f.StringVar(&o.schedule, "schedule", "", "one run with these `faults`: <call>:<kind>,<call>:<kind>")
	f.BoolVar(&o.trace, "trace", false, "print every call of that run")
	return cmd
}

// simShape is the result of sim.
type simShape struct {
	Schema   string   `json:"schema"`
	Job      string   `json:"job"`
	Seed     uint64   `json:"seed"`
	Items    int      `json:"items"`
	Calls    int      `json:"calls"`   // of the run without faults
	Seconds  float64  `json:"seconds"` // of virtual time that it took
	End      string   `json:"end"`
	Unsteady []string `json:"unsteady_items,omitempty"` // keys
	Runs     int      `json:"runs"`
	Faults   int      `json:"faults"`
	Bad      []string `json:"violations,omitempty"`
	Schedule string   `json:"schedule,omitempty"` // of the run that they are of
}

const simSchema = "hayrick.sim/v1"

// steadyItems are how many items are run twice.
const steadyItems = 20

func runSim(ctx context.Context, c *cli, o simOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	kinds, schedule, err := o.faultsOf()
	if err != nil {
		return err
	}
	if o.items < 1 || o.processes < 1 || o.processes > 64 || o.runs < 0 {
		return &hayrick.UserError{What: "--items and --processes begin at 1, and --runs at 0", Hint: "there are 64 processes at most: `hayrick sim --help`"}
	}
	f, h, err := c.load(ctx, submitOptions{job: o.job, profile: o.profile, sets: o.sets})
	if err != nil {
		return err
	}
	if closer, ok := h.(jobs.Closer); ok {
		defer closer.Close()
	}
	items, err := c.jobItems(ctx, h, f.Definition, 0, o.items)
	if err != nil {
		return err
	}
	for i := range items { // those that are damaged are left out
		items[i].Ordinal = int64(i)
	}
	t := &try{cli: c, def: f.Definition, quietFrames: true}
	opened, err := t.open(ctx, f, h)
	if err != nil {
		return err
	}
	if s, ok := opened.(jobs.Session); ok {
		defer s.Close()
	}
	scratch, err := os.MkdirTemp("", "hayrick-sim-")
	if err != nil {
		return fmt.Errorf("make the scratch folder: %w", err)
	}
	defer os.RemoveAll(scratch)
	rec := sim.NewRecorder(opened)
	serving, served := context.WithCancel(ctx)
	defer served()
	go rec.Serve(serving)

	out := simShape{Schema: simSchema, Job: f.Definition.Name, Seed: o.seed, Items: len(items)}
	for _, it := range items[:min(len(items), steadyItems)] {
		if ctx.Err() != nil {
			return errInterrupted
		}
		if !rec.Steady(ctx, it) {
			out.Unsteady = append(out.Unsteady, it.Key)
		}
	}
	plan := sim.JobPlan(f.Definition, items, rec, o.processes, o.seed)
	if o.schedule != "" {
		return c.replaySim(out, plan, schedule, scratch, o)
	}
	var done atomic.Int64
	telling := make(chan struct{})
	go func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for start := c.world.Clock.Now(); ; {
			select {
			case <-telling:
				return
			case <-tick.C:
				n, took := done.Load(), c.world.Clock.Now().Sub(start)
				line := fmt.Sprintf("%d/%d runs", n, o.runs)
				if n > 0 {
					line += "  ETA " + ago((took * time.Duration(int64(o.runs)-n) / time.Duration(n)).Round(time.Second))
				}
				c.tell("%s", line)
			}
		}
	}()
	var x sim.Explored
	sim.Bubble(func() {
		x = sim.Explore(ctx, plan, scratch, kinds, o.runs, func(n int) { done.Store(int64(n)) })
	})
	close(telling)
	out.Runs, out.Faults = x.Runs, x.Faults
	out.of(x.Calm)
	if x.Violated != nil {
		out.Schedule = x.Violated.Plan.Faults.String()
		out.Bad = texts(x.Violated.Bad)
	}
	if ctx.Err() != nil && x.Violated == nil {
		return errInterrupted
	}
	return c.endSim(out, x.Violated, o)
}

// faultsOf reads --faults and --schedule.
func (o simOptions) faultsOf() ([]sim.Kind, sim.Schedule, error) {
	kinds := sim.Kinds
	if o.faults != "all" {
		kinds = nil
		for name := range strings.SplitSeq(o.faults, ",") {
			k, ok := sim.KindOf(strings.TrimSpace(name))
			if !ok {
				return nil, nil, &hayrick.UserError{What: fmt.Sprintf("--faults: %q is no kind of fault", name), Hint: "write all, or kinds of " + strings.Join(sim.KindNames(), ", ")}
			}
			kinds = append(kinds, k)
		}
	}
	s, err := sim.ParseSchedule(o.schedule)
	if err != nil {
		return nil, nil, &hayrick.UserError{What: "--schedule: " + err.Error(), Hint: "a run that breaks something prints the schedule to write"}
	}
	return kinds, s, nil
}

// replaySim runs one schedule.
func (c *cli) replaySim(out simShape, plan sim.Plan, s sim.Schedule, scratch string, o simOptions) error {
	plan.Trace = true
	var calm, v sim.Verdict
	sim.Bubble(func() {
		calm = plan.RunIn(scratch, "")
		plan.Faults = s
		v = plan.RunIn(scratch, calm.Gist)
	})
	out.of(calm)
	out.Runs, out.Faults, out.Bad, out.Schedule = 1, v.Struck, texts(v.Bad), s.String()
	if o.trace && !c.json {
		for _, e := range v.Events {
			c.print("%s", e)
		}
	}
	if v.Struck < len(s) {
		c.mustTell("%d of the %d faults were met: the others are of calls that cannot meet them, or that never came", v.Struck, len(s))
	}
	if len(v.Bad) == 0 {
		return c.endSim(out, nil, o)
	}
	return c.endSim(out, &v, o)
}

func (x *simShape) of(calm sim.Verdict) {
	x.Calls, x.Seconds, x.End = calm.Calls, calm.Took.Seconds(), strings.TrimSpace(calm.Gist)
}

func texts(errs []error) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

// endSim says what came of it all.
func (c *cli) endSim(out simShape, violated *sim.Verdict, o simOptions) error {
	if c.json {
		c.printJSON(out)
	} else {
		c.print("%s  seed %d  %s  %s of a store, a queue and an output, %s of virtual time", out.Job, out.Seed, count(int64(out.Items), "item"), count(int64(out.Calls), "call"),
			ago(time.Duration(out.Seconds*float64(time.Second)).Round(time.Second)))
		c.print("without faults  %s", strings.ReplaceAll(out.End, "\n", "; "))
		c.print("with faults     %s, %s, %s", count(int64(out.Runs), "run"), count(int64(out.Faults), "fault"), count(int64(len(out.Bad)), "violation"))
	}
	if len(out.Unsteady) > 0 {
		shown := out.Unsteady[:min(len(out.Unsteady), 5)]
		what := fmt.Sprintf("the handler gives other rows when it runs %s again (%s)", count(int64(len(out.Unsteady)), "item"), strings.Join(shown, ", "))
		hint := "an item that is tried again after a crash then has other rows than it had: leave times and random numbers out of the rows, or make them follow from the item"
		c.mustTell("%s\n%s", what, hint)
	}
	if violated == nil {
		if len(out.Unsteady) > 0 {
			return ended(exitUnwell)
		}
		return nil
	}
	if !c.json {
		for _, bad := range out.Bad {
			c.print("VIOLATION       %s", bad)
		}
		for _, s := range violated.Plan.Faults {
			for _, e := range violated.Events {
				if e.N == s.N {
					c.print("  %-14s%s", s.Kind, e)
				}
			}
		}
	}
	again := ""
	if out.Schedule != "" {
		again = fmt.Sprintf("see it again, call by call: hayrick sim %s --seed %d --items %d --processes %d --schedule %s --trace; please report it", o.job, o.seed, o.items, o.processes, out.Schedule)
	} else {
		again = "it ends so without any fault: see `hayrick check` and `hayrick handler try`"
	}
	c.mustTell("%s", again)
	return ended(exitUnwell)
}
